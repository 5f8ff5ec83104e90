"""The options by which every verb chooses its model, gathered in a :class:`ModelChoice`."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

Verb = Callable[..., None]


class TextType(click.types.StringParamType):
    """A text argument. Python hides bytes that the locale cannot decode in lone surrogates."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raise for a text with undecodable bytes, and name the encoding that is the cause."""
        text = super().convert(value, param, ctx)
        if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
            encoding, sent = sys.getfilesystemencoding(), os.fsencode(text)
            if sent.decode("utf-8", "ignore").encode() == sent:
                cause = f"the locale (LC_ALL, LC_CTYPE, LANG) says {encoding}: set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
            else:
                cause = f"the terminal does not send {encoding}: set both to UTF-8, or read a file"
            self.fail(f"{sent!r:.80} is not valid {encoding} text; {cause}", param, ctx)
        return text


class CosineType(click.types.FloatParamType):
    """A threshold for cosines."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raise for what no cosine can be."""
        number = super().convert(value, param, ctx)
        if not -1 <= number <= 1:
            self.fail(f"must be a cosine, from -1 to 1, not a percentage; got {value}.", param, ctx)
        return number


TEXT, COSINE = TextType(), CosineType()


@dataclass(frozen=True)
class ModelChoice:
    """Which model, and its length limit."""

    model: str | None  # None: the default
    revision: str | None
    local_files_only: bool
    max_seq_length: int | None  # None: the model's own limit

    def encoder(self, dtype: str) -> SentenceEncoder:
        """Load the model, with a progress bar if it must be fetched first."""
        from minisbert import hub
        from minisbert.encoder import SentenceEncoder

        found = hub.resolve(
            self.model,
            revision=self.revision,
            local_files_only=self.local_files_only,
            show_progress_bar=sys.stderr.isatty(),
        )
        return SentenceEncoder(found.folder, dtype=dtype, max_seq_length=self.max_seq_length)


def model_options(verb: Verb) -> Verb:
    """Add the model options to a verb, which receives them as ``choice``."""

    @functools.wraps(verb)
    def gathered(
        model: str | None, revision: str | None, local_files_only: bool, max_seq_length: int | None, **rest: Any
    ) -> None:
        verb(choice=ModelChoice(model, revision, local_files_only, max_seq_length), **rest)

    options = [
        click.option(
            "--model",
            metavar="NAME|FOLDER",
            envvar="MINISBERT_MODEL",
            show_envvar=True,
            help="Model name or local folder.  [default: all-MiniLM-L6-v2]",
        ),
        click.option("--revision", metavar="REV", help="Commit, branch or tag of the model."),
        click.option("--local-files-only", is_flag=True, help="Do not use the network."),
        click.option(
            "--max-seq-length",
            type=click.IntRange(min=1),
            metavar="TOKENS",
            help="Cut texts after this many tokens.  [default: the model's own limit]",
        ),
    ]
    return decorate(gathered, options)


dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="dtype of weights, computation and vectors.",
)
cut_option = click.option(
    "--overflow",
    type=click.Choice(["warn", "error", "truncate"]),
    default="warn",
    show_default=True,
    help="Texts that are too long: cut with a warning, raise an error, or cut silently.",
)


def computing_options(verb: Verb) -> Verb:
    """Add ``--dtype`` and the options for long texts to a verb."""
    options = [
        dtype_option,
        click.option(
            "--overflow",
            type=click.Choice(["warn", "error", "truncate", "chunk"]),
            default="warn",
            show_default=True,
            help="Texts that are too long: cut with a warning, raise an error, cut silently, or embed whole in chunks.",
        ),
        click.option(
            "--chunk-tokens",
            type=click.IntRange(min=1),
            metavar="TOKENS",
            help="Chunk length.  [default: the model's limit]",
        ),
        click.option(
            "--overlap",
            type=click.IntRange(min=0),
            metavar="TOKENS",
            help="Tokens shared with the previous chunk.  [default: 0; late: a quarter]",
        ),
        click.option(
            "--composition",
            type=click.Choice(["weighted_mean", "mean", "max", "first", "late"]),
            default="weighted_mean",
            show_default=True,
            help="How chunk vectors are combined into one.",
        ),
    ]
    return decorate(verb, options)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def result_options(verb: Verb) -> Verb:
    """Add the options about the output to a verb."""
    options = [
        click.option("-o", "--output", metavar="FILE", help="Also write the result as JSON, in full."),
        click.option("--force", is_flag=True, help="Overwrite the file if it exists."),
        json_option,
    ]
    return decorate(verb, options)


def decorate(verb: Verb, options: Sequence[Callable[[Verb], Verb]]) -> Verb:
    """Apply options so that ``--help`` lists them in this order."""
    for option in reversed(options):
        verb = option(verb)
    return verb
