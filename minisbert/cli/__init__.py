"""The command line: data on stdout, messages on stderr; exit code 0 for success, 1 for failure, 2 for wrong usage.

Each family of verbs is a module, imported when one of them is called, so that ``minisbert --help`` need not wait for
NumPy. This file has what all verbs share: how they are found, and how errors and warnings look.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import warnings
from typing import Any

import click

from minisbert import __version__, parallel

# The module of each verb and its short help, so that listing them imports none of them.
VERBS = {
    "similarity": ("similarity", "Show how similar texts are."),
    "embed": ("embed", "Turn texts into vectors."),
    "tokens": ("model", "Show how a text is tokenized, and what is cut off."),
    "calibrate": ("similarity", "Measure what a similarity score means for your texts."),
    "explain": ("similarity", "Show which words make two texts similar."),
    "show": ("similarity", "Show how two texts become one number, on a web page."),
    "index": ("search", "Maintain a database of documents to search by meaning."),
    "search": ("search", "Find documents by meaning."),
    "route": ("route", "Route queries by meaning, or reject them as out-of-scope."),
    "map": ("clusters", "Draw texts on a 2-D map; nearby points have similar meaning."),
    "cluster": ("clusters", "Cluster texts by meaning and label each cluster."),
    "classify": ("classify", "Train and apply text classifiers."),
    "entities": ("classify", "Find names of people, places and things."),
    "info": ("model", "Show the model, its limits, and the machine it runs on."),
    "fetch": ("model", "Download a model and verify it."),
    "verify": ("proof", "Compare every intermediate tensor with PyTorch's."),
    "diagnose": ("proof", "Find the settings that made a sentence vector."),
    "profile": ("proof", "Show where the time of a forward pass goes."),
    "train": ("train", "Fine-tune a model on examples from a file."),
    "gradcheck": ("proof", "Check every gradient against finite differences."),
    "demo": ("demo", "Watch how training works, on small examples."),
    "serve": ("model", "Serve embeddings over HTTP as OpenAI does."),
    "bench": ("bench", "Compare speed and memory with PyTorch and ONNX Runtime."),
    "evaluate": ("evaluate", "Evaluate the model on labelled test sets, next to published figures."),
}


VERB = "minisbert.verb"  # where a context keeps the running command
# Python arguments whose option has another name.
OTHER_NAMES = {"has_header": "no_header", "normalize_embeddings": "normalize", "show_progress_bar": "progress"}


class Group(click.Group):
    """A group that lists verbs as they stand in its module, and suggests one for what is nearly its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the verbs, those that a newcomer wants first at the top."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that was typed, or suggest similar ones."""
        import difflib

        typed, verbs = args[0], self.list_commands(ctx)
        close = difflib.get_close_matches(typed, verbs, 1)
        if typed not in verbs and not ctx.resilient_parsing and close:
            ctx.fail(f"No such command {typed!r}. Did you mean {close[0]!r}?")
        if typed not in verbs and os.path.exists(typed):  # noqa: PTH110 - it may be anything
            ctx.fail(f"{typed!r} is a file; a command comes first: {ctx.command_path} {verbs[0]} {typed}")
        found = super().resolve_command(ctx, args)
        ctx.meta[VERB] = found[1]
        return found


class _Program(Group):
    """The outermost group, which imports verbs when they are called, and prints their errors and warnings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the verbs without importing them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        if cmd_name not in VERBS:
            return None
        return getattr(importlib.import_module(f"minisbert.cli.{VERBS[cmd_name][0]}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs for ``--help``; click's own way would import them all."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, words) for verb, (_, words) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; each warning or error becomes a line on stderr."""
        # closed by >&- and <&-: nothing comes in, and an answer that nobody can read is an error when it is written
        sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
        sys.stdout = sys.stdout or open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
        if sys.stderr is None:  # 2>&-, or a service; opened first, so that no file of ours gets descriptor 2
            sys.stderr = open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115
        if "numpy" not in sys.modules:  # it would be too late: OpenBLAS chooses its kernel when NumPy is imported
            os.environ.update(parallel.environment_for(parallel.read_processor(), os.environ))
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show emoji must not fail
        with warnings.catch_warnings():
            if not sys.warnoptions:  # -W and PYTHONWARNINGS win
                warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except BrokenPipeError:
                raise  # `| head` has read enough; click exits quietly
            except OSError as error:
                raise click.ClickException(_describe(error)) from error
            except ValueError as error:
                # a model folder's files have keys named like options, which are no options
                about_files = type(error).__name__ == "ModelFolderError"
                said = str(error) if about_files else in_options(str(error), ctx.meta.get(VERB))
                raise click.ClickException(said) from error


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning without its place in our code."""
    context = click.get_current_context(silent=True)
    verb = context.meta.get(VERB) if context else None
    click.echo(f"Warning: {in_options(str(message), verb)}", err=True)


def in_options(message: str, verb: click.Command | None) -> str:
    """Turn ``overflow='chunk'`` in a library message into ``--overflow chunk``, if the running verb has that option.

    A clause after a semicolon that begins with an argument the verb lacks is advice for Python, and is dropped.
    """
    flags: dict[str, str] = {}
    choices: dict[str, tuple[str, ...]] = {}
    for option in verb.params if verb else []:
        if isinstance(option, click.Option):
            flag = max(option.opts, key=len)
            for name in {str(option.name), flag[2:].replace("-", "_")}:
                flags[name], choices[name] = flag, tuple(getattr(option.type, "choices", ()))
    flags |= {python: flags[ours] for python, ours in OTHER_NAMES.items() if ours in flags}
    if not flags:
        return message
    first, *parts = message.split("; ")
    for part in parts:
        said = re.match(r"(\w+)='(\w+)'", part)
        if said is None or (said[1] in flags and said[2] in (choices.get(said[1]) or said[2])):
            first += f"; {part}"
    any_name = "|".join(flags)
    only_a_name = "|".join(name for name in flags if "_" in name) or "(?!)"  # `overlap` alone is an ordinary word
    said_with_value = rf"(?<![\w'\"-])({any_name})=(?:(?:True|False)\b|'([^']*)'|([\w.+-]*\w))"
    first = re.sub(rf"(^|: )({any_name})(?= must be )", lambda m: m[1] + flags[m[2]], first)
    first = re.sub(said_with_value, lambda m: " ".join(filter(None, (flags[m[1]], m[2] or m[3]))), first)
    return re.sub(rf"(?<![\w'\"-])({only_a_name})(?![\w'\"=])", lambda m: flags[m[1]], first)


def _describe(error: OSError) -> str:
    """What failed and on which file, without Python's error number."""
    if isinstance(error, io.UnsupportedOperation) and str(error) in ("not writable", "write"):  # not a stream's seek
        return "standard output is closed"
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"


@click.group(
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(__version__, "-V", "--version", prog_name="minisbert")
def main() -> None:
    """Sentence-BERT in pure NumPy: texts in, vectors out, every step equal to PyTorch's.

    The first call downloads the model all-MiniLM-L6-v2 (91 MB) and verifies it; after that no network is needed.

    \b
    Examples:
      minisbert similarity "i love soup" "soup is my favorite" "london is far away"
      minisbert tokens "i love bouillabaisse"
      minisbert embed -i texts.txt -o vectors.npy

    `minisbert COMMAND --help` describes a command and shows more examples.
    """
