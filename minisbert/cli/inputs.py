"""Texts from the command line, a file or stdin: one per line, or a column of a table.

``minisbert/tables.py`` reads the formats; this file handles their options. Vectors are matched to rows by counting, so
an empty line of a text file is an empty text.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from minisbert.cli.options import TEXT, Verb, together
from minisbert.tables import (
    FORMATS,
    InputError,
    Table,
    check_dialect,
    checked_id,
    checked_text,
    read_table,
    told_format,
)

KINDS = ("text", *dict.fromkeys(FORMATS.values()))

dialect_options = together(
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        callback=lambda context, option, value: {"tab": "\t", "\\t": "\t"}.get(value, value),
        help="Between the columns of a CSV or TSV.  [default: found, one of comma, semicolon, tab, |]",
    ),
    click.option(
        "--quoting/--no-quoting",
        default=None,
        help='Whether "..." around a field is no part of it.  [default: in CSV yes, in TSV as the file does it]',
    ),
)


def take_dialect(options: dict[str, Any]) -> dict[str, Any]:
    """Take what `dialect_options` added out of a verb's options: those given, as arguments of `read_table`."""
    return {name: value for name in ("delimiter", "quoting") if (value := options.pop(name)) is not None}


# ------------------------------------------------------------------------------------------------------------- texts


@dataclass(frozen=True)
class TextSource:
    """Where texts come from."""

    arguments: tuple[str, ...]
    file: str | None  # "-" is stdin
    column: str | None = None
    input_format: str | None = None
    no_header: bool = False
    dialect: Mapping[str, Any] | None = None  # delimiter and quoting, if they are given

    def check(self, purpose: str | None = None) -> None:
        """Raise for contradictory options, before anything is opened, and if there is nothing for this purpose."""
        about_file = (self.file, self.input_format, self.column, self.no_header or None, self.dialect or None)
        if self.arguments and any(option is not None for option in about_file):
            raise click.UsageError("Give texts as arguments or in a file, not both.")
        if self.file is not None:
            check_dialect(self.name, self.kind, has_header=not self.no_header, **(self.dialect or {}))
            if self.column is not None and self.kind == "text":
                raise click.UsageError("--column is for tables; this input is text, a text on each line.")
        elif not self.arguments and purpose is not None:
            raise click.UsageError(f"Nothing to {purpose}: give texts, or a file of texts (-i).")

    @property
    def kind(self) -> str:
        """The format, as given or by the file's name."""
        return self.input_format or told_format(str(self.file)) or "text"

    @property
    def name(self) -> str:
        """The input's name, for people."""
        return "standard input" if self.file == "-" else str(self.file)

    def table(self) -> Table:
        """The file as a table."""
        stream: Any = sys.stdin.buffer if self.file == "-" else self.file
        return read_table(stream, input_format=self.kind, has_header=not self.no_header, **(self.dialect or {}))

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
        self.check()
        file = Path(self.file or "")
        if self.file == "-" or file.is_fifo() or file.is_char_device():
            return None
        return sum(1 for _ in self.rows(*id_column))

    def rows_again(self, count: int | None, *id_column: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows after :meth:`count`, and raise if their number has changed."""
        number = 0
        for number, row in enumerate(self.rows(*id_column), 1):
            if number - 1 == count:
                break
            yield row
        if count not in (None, number):
            now = "more" if number > count else f"only {number:,}"
            raise InputError(f"{self.name}: had {count:,} texts when counted, and now {now}; did it change?")


_column_options = together(
    click.option(
        "--input-format",
        type=click.Choice(KINDS),
        help="text: one text per line.  [default: by the file's suffix, else text]",
    ),
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
    about = {name: options.pop(name) for name in ("input_format", "column", "no_header")}
    return TextSource(texts, file, **about, dialect=take_dialect(options))


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

    @click.argument("file", metavar="FILE", required=False)
    @click.option("-i", "--input", "given", metavar="FILE", help="Same as FILE, may be .gz; - is stdin.")
    @_column_options
    @functools.wraps(verb)
    def gathered(file: str | None, given: str | None, **rest: Any) -> None:
        if (file is None) == (given is None):
            raise click.UsageError("Give one file of texts; - is standard input.")
        source = _source((), str(file or given), rest)
        source.check()
        verb(source=source, **rest)

    return gathered


# ------------------------------------------------------------------------------------------- tables of several columns


def columns_options(*names: str) -> Callable[[Verb], Verb]:
    """Add the options about a table with these columns to a verb, which receives ``reading``: its reader's arguments.

    Without names, how many there are is the reader's to check.
    """
    metavar = ",".join(names).upper() or "NAME,NAME.."
    usual = (
        f"[default: {', '.join(names)} or a usual synonym]" if names else "[default: told by their names and --kind]"
    )

    def add(verb: Verb) -> Verb:
        @click.option("--columns", metavar=metavar, help=f"Names or numbers of the columns.  {usual}")
        @click.option("--no-header", is_flag=True, help="There is no header row; columns are numbered from 1.")
        @dialect_options
        @functools.wraps(verb)
        def gathered(columns: str | None, no_header: bool, **rest: Any) -> None:
            given = None if columns is None else columns.split(",")
            if given is not None and names and len(given) != len(names):
                raise click.UsageError(f"--columns must be {metavar}, got {columns!r}.")
            if no_header and given is None:
                raise click.UsageError("With --no-header, give the columns to read with --columns, as numbers from 1.")
            verb(reading={"columns": given, "has_header": not no_header, **take_dialect(rest)}, **rest)

        return gathered

    return add


label_options = columns_options("label", "text")
