"""Options that several verbs have, and the model that they choose, a :class:`ModelChoice`."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder
    from minisbert.hub import Resolved

Verb = Callable[..., None]


class TextType(click.types.StringParamType):
    """A text argument. Python hides bytes that the locale cannot decode in lone surrogates."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raise for a text with undecodable bytes, and name the encoding that is the cause."""
        text = super().convert(value, param, ctx)
        if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
            encoding, sent = sys.getfilesystemencoding(), os.fsencode(text)
            way_out = "set the terminal and the locale to UTF-8 (LC_ALL=C.UTF-8), or read a file"
            self.fail(f"{sent!r:.80} is not valid {encoding} text; {way_out}", param, ctx)
        return text


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """Numbers of one kind, separated by commas, such as 0,5."""

    def __init__(self, kind: type[float] | type[int], count: int) -> None:
        self.kind, self.count, self.name = kind, count, f"{count} numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split what was typed."""
        try:
            numbers = tuple(self.kind(number) for number in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != self.count:
            self.fail(f"must be {self.count} numbers with commas between them, got {value!r}", param, ctx)
        return numbers


TEXT = TextType()
COUNT, SEED, SHARE = click.IntRange(min=1), click.IntRange(0, 2**32 - 1), click.FloatRange(0, 1)
POSITIVE, PRECISION = click.FloatRange(min=0, min_open=True), click.FloatRange(0, 1, min_open=True)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)  # one that is read
PLACE = click.Path(path_type=Path)


def together(*options: Callable[[Verb], Verb]) -> Callable[[Verb], Verb]:
    """Several options as one decorator; ``--help`` lists them in this order."""
    return lambda verb: functools.reduce(lambda inner, option: option(inner), reversed(options), verb)


# ------------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class ModelChoice:
    """Which model, and its length limit."""

    model: str | None  # None: the default
    revision: str | None
    local_files_only: bool
    max_seq_length: int | None  # None: the model's own limit

    def find(self, *, local_files_only: bool = False, show_progress_bar: bool | None = None) -> Resolved:
        """The model's folder; what is not on this machine is fetched, with a bar on a terminal."""
        from minisbert import hub

        shown = sys.stderr.isatty() if show_progress_bar is None else show_progress_bar
        only = local_files_only or self.local_files_only
        return hub.resolve(self.model, revision=self.revision, local_files_only=only, show_progress_bar=shown)

    def encoder(self, dtype: str = "float32") -> SentenceEncoder:
        """Load the model, with a progress bar if it must be fetched first."""
        from minisbert.encoder import SentenceEncoder

        return SentenceEncoder(self.find().folder, dtype=dtype, max_seq_length=self.max_seq_length)


def model_options(verb: Verb) -> Verb:
    """Add the model options to a verb, which receives them as ``choice``."""

    @click.option(
        "--model",
        metavar="NAME|FOLDER",
        envvar="MINISBERT_MODEL",
        show_envvar=True,
        help="Model name or local folder.  [default: all-MiniLM-L6-v2]",
    )
    @click.option("--revision", metavar="REV", help="Commit, branch or tag of the model.")
    @click.option("--local-files-only", is_flag=True, help="Do not use the network.")
    @click.option(
        "--max-seq-length", type=COUNT, help="Cut texts after this many tokens.  [default: the model's limit]"
    )
    @functools.wraps(verb)
    def gathered(model: Any, revision: Any, local_files_only: bool, max_seq_length: Any, **rest: Any) -> None:
        verb(choice=ModelChoice(model, revision, local_files_only, max_seq_length), **rest)

    return gathered


# ---------------------------------------------------------------------------------------------------- single options


def choice_option(name: str, words: Iterable[str], help: str | None = None) -> Callable[[Verb], Verb]:
    """One of these words, by default the first."""
    return click.option(name, type=click.Choice(list(words)), default=next(iter(words)), help=help)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
seed_option = click.option("--seed", type=SEED, default=0, help="Random seed.")


def strength_option(default: str) -> Callable[[Verb], Verb]:
    """Penalties of logistic regression."""
    said = f"C to try, as in scikit-learn: larger is a weaker penalty. May be repeated.  [default: {default}]"
    return click.option("--strength", "strengths", multiple=True, type=POSITIVE, metavar="C", help=said)


def folds_option(default: int) -> Callable[[Verb], Verb]:
    """How many parts cross-validation has."""
    return click.option("--folds", type=click.IntRange(2), default=default, help="Cross-validation folds.")


num_threads_option = click.option("--num-threads", type=COUNT, metavar="N", help="[default: one per processor]")
progress_option = click.option("--progress/--no-progress", default=None, help="[default: a bar on a terminal]")
dtype_option = choice_option("--dtype", ["float32", "float64"], "dtype of weights, computation and vectors.")
cut_option = choice_option(
    "--overflow",
    ["warn", "error", "truncate"],
    "Texts that are too long: cut with a warning, refused, or cut silently.",
)
chunk_option = functools.partial(click.option, "--chunk-tokens", type=COUNT, metavar="TOKENS")
overlap_option = functools.partial(click.option, "--overlap", type=click.IntRange(min=0), metavar="TOKENS")
computing_options = together(
    dtype_option,
    choice_option(
        "--overflow",
        ["warn", "error", "truncate", "chunk"],
        "Texts that are too long: cut with a warning, raise an error, cut silently, or embed whole in chunks.",
    ),
    chunk_option(help="Chunk length.  [default: the model's limit]"),
    overlap_option(help="Tokens shared with the previous chunk.  [default: 0; late: a quarter]"),
    choice_option(
        "--composition", ["weighted_mean", "mean", "max", "first", "late"], "How chunk vectors are combined into one."
    ),
)
