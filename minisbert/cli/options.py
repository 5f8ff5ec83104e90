"""Options that several verbs have: the model, a :class:`ModelChoice`; and the texts, a :class:`TextSource`.

``minisbert/tables.py`` reads the formats of texts; this file handles their options. Vectors are matched to rows by
counting, so an empty line of a text file is an empty text.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.tables import FORMATS, Table, checked_id, checked_text, read_table, told_format

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


# --------------------------------------------------------------------------------------------- the dialect of a table


KINDS = ("text", *dict.fromkeys(FORMATS.values()))

dialect_options = together(
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        callback=lambda context, option, value: {"tab": "\t", "\\t": "\t"}.get(value, value),
        help="Between the columns of a CSV or TSV.  [default: found, one of comma, semicolon, tab, |]",
    ),
    click.option(
        "--quoting/--no-quoting", default=None, help='Take "" around fields away.  [default: CSV yes, TSV found]'
    ),
)


def take_dialect(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options about a table out of a verb's options: those given, as arguments of `read_table`."""
    given = {name: value for name in ("delimiter", "quoting") if (value := options.pop(name)) is not None}
    return {**given, "has_header": False} if options.pop("no_header", False) else given


# ------------------------------------------------------------------------------------------------------------- texts


@dataclass(frozen=True)
class TextSource:
    """Where texts come from."""

    arguments: tuple[str, ...]
    file: str | None  # "-" is stdin
    column: str | None = None
    input_format: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)  # more arguments of `read_table`

    def check(self, purpose: str | None = None) -> None:
        """Raise for contradictory options, before anything is opened, and if there is nothing for this purpose."""
        if self.arguments and any((self.file, self.input_format, self.column, self.reading)):
            raise click.UsageError("Give texts as arguments or in a file, not both.")
        if not self.arguments and self.file is None and purpose is not None:
            raise click.UsageError(f"Nothing to {purpose}: give texts, or a file of texts (-i).")

    @property
    def name(self) -> str:
        """The input's name, for people."""
        return "standard input" if self.file == "-" else str(self.file)

    def table(self) -> Table:
        """The file as a table."""
        stream: Any = sys.stdin.buffer if self.file == "-" else self.file
        kind = self.input_format or told_format(str(self.file)) or "text"
        return read_table(stream, input_format=kind, **self.reading)

    def column_of(self, table: Table) -> str:
        """The column of the texts."""
        return table.find("text", self.column, hint="column='NAME' says which")

    def rows(self, *id_column: str, filled: bool = False) -> Iterator[tuple[Any, ...]]:
        """Yield each text, and its id where a column of ids is given; ``filled`` skips and counts rows without text."""
        self.check()
        if self.file is None:
            yield from ((text,) for text in self.arguments)
            return
        table = self.table()
        column = self.column_of(table)
        for line, (text, *ids) in table.pick((column, *id_column), filled=[column] if filled else []):
            where = table.where(line)
            yield (checked_text(text, column, where), *(checked_id(value, id_column[0], where) for value in ids))

    def read(self, purpose: str | None = None, *, filled: bool = False) -> list[str]:
        """Read the texts; ``filled`` skips and counts rows without one."""
        self.check(purpose)
        return [text for text, *_ in self.rows(filled=filled)]

    def count(self, *id_column: str) -> int | None:
        """Count and check every row, keeping none; None for what can be read only once: stdin, a pipe."""
        file = Path(self.file or "")
        if self.file == "-" or file.is_fifo() or file.is_char_device():
            return None
        return sum(1 for _ in self.rows(*id_column))


def _source_options(*where: Callable[[Verb], Verb]) -> Callable[[Verb], Verb]:
    """Add options about the input to a verb, which receives them as ``source``."""

    def add(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def gathered(
            column: str | None,
            input_format: str | None,
            texts: tuple[str, ...] = (),
            file: str | None = None,
            **rest: Any,
        ) -> None:
            verb(source=TextSource(texts, file, column, input_format, take_dialect(rest)), **rest)

        return together(
            *where,
            click.option("--input-format", type=click.Choice(KINDS), help="[default: by the file's suffix, else text]"),
            click.option(
                "--column",
                "--field",
                "column",
                metavar="NAME|N",
                help="Column of the texts, by name or number; of JSON also a.b, b inside a.  "
                "[default: text or a usual synonym, or the only one]",
            ),
            click.option("--no-header", is_flag=True, help="The CSV or TSV has no header row."),
            dialect_options,
        )(gathered)

    return add


input_options = _source_options(
    click.argument("texts", nargs=-1, metavar="[TEXT]...", type=TEXT),
    click.option("-i", "--input", "file", metavar="FILE", help="Read texts from a file, may be .gz; - is stdin."),
)
file_options = _source_options(click.argument("file", metavar="FILE"))


def columns_options(*names: str) -> Callable[[Verb], Verb]:
    """Add the options about a table of several columns to a verb, which receives ``reading``: its reader's arguments.

    Which columns there must be is the reader's to check.
    """
    usual = f"{', '.join(names)} or a usual synonym" if names else "told by their names and --kind"

    def add(verb: Verb) -> Verb:
        @click.option(
            "--columns",
            metavar=",".join(names).upper() or "NAME,NAME..",
            help=f"Names or numbers of the columns.  [default: {usual}]",
        )
        @click.option("--no-header", is_flag=True, help="There is no header row; columns are numbered from 1.")
        @dialect_options
        @functools.wraps(verb)
        def gathered(columns: str | None, **rest: Any) -> None:
            verb(reading={"columns": columns and columns.split(","), **take_dialect(rest)}, **rest)

        return gathered

    return add


label_options = columns_options("label", "text")
