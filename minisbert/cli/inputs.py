"""Texts from the command line, a file or stdin: one per line, or a column of a table.

``minisbert/tables.py`` reads the formats; this file handles their options. Vectors are matched to rows by counting, so
an empty line of a text file is an empty text.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from minisbert.cli.options import TEXT, Verb, together
from minisbert.tables import FORMATS, Table, checked_id, checked_text, read_table, told_format

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


_column_options = together(
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
)


def _source(texts: tuple[str, ...], file: str | None, options: dict[str, Any]) -> TextSource:
    """Take the options about the input out of a verb's options."""
    column, input_format = options.pop("column"), options.pop("input_format")
    return TextSource(texts, file, column, input_format, take_dialect(options))


def input_options(verb: Verb) -> Verb:
    """Add TEXT arguments and input options to a verb, which receives them as ``source``."""

    @click.argument("texts", nargs=-1, metavar="[TEXT]...", type=TEXT)
    @click.option("-i", "--input", "file", metavar="FILE", help="Read texts from a file, may be .gz; - is stdin.")
    @_column_options
    @functools.wraps(verb)
    def gathered(texts: tuple[str, ...], file: str | None, **rest: Any) -> None:
        verb(source=_source(texts, file, rest), **rest)

    return gathered


def file_options(verb: Verb) -> Verb:
    """Add FILE and input options to a verb, which receives them as ``source``."""

    @click.argument("file", metavar="FILE")
    @_column_options
    @functools.wraps(verb)
    def gathered(file: str, **rest: Any) -> None:
        verb(source=_source((), file, rest), **rest)

    return gathered


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
