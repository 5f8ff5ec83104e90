"""Texts from the command line, a file or stdin: one per line, or a column of a table.

``minisbert/tables.py`` reads the formats; this file handles their options. Vectors are matched to rows by counting, so
an empty line of a text file is an empty text.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from minisbert.cli.options import TEXT, Verb, decorate
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


@dataclass(frozen=True)
class TextSource:
    """Where texts come from."""

    arguments: tuple[str, ...]
    file: str | None  # "-" is stdin
    column: str | None = None
    input_format: str | None = None
    no_header: bool = False
    dialect: Mapping[str, Any] | None = None  # delimiter and quoting, if they are given

    def check(self) -> None:
        """Raise for contradictory options, before anything is opened."""
        about_file = (self.file, self.input_format, self.column, self.no_header or None, self.dialect or None)
        if self.arguments and any(option is not None for option in about_file):
            raise click.UsageError("Give texts as arguments or in a file, not both.")
        if self.file is not None:
            check_dialect(self.name, self.kind, has_header=not self.no_header, **(self.dialect or {}))
            if self.column is not None and self.kind == "text":
                raise click.UsageError("--column is for tables; this input is text, a text on each line.")

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

    def read(self, *, filled: bool = False) -> Iterator[str]:
        """Yield the texts; ``filled`` skips and counts rows without one."""
        return (text for text, *_ in self.rows(filled=filled))

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


def input_options(verb: Verb) -> Verb:
    """Add TEXT arguments and input options to a verb, which receives them as ``source``."""

    @functools.wraps(verb)
    def gathered(texts: tuple[str, ...], file: str | None, **rest: Any) -> None:
        verb(source=TextSource(texts, file, **taken(rest)), **rest)

    options = [
        click.argument("texts", nargs=-1, metavar="[TEXT]...", type=TEXT),
        click.option("-i", "--input", "file", metavar="FILE", help="Read texts from a file, may be .gz; - is stdin."),
    ]
    return decorate(column_options(gathered), options)


def column_options(verb: Verb) -> Verb:
    """Add the options about a table whose texts are in one column; `taken` gathers them."""
    options = [
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
        *DIALECT_OPTIONS,
    ]
    return decorate(verb, options)


def taken(options: dict[str, Any]) -> dict[str, Any]:
    """Take what `column_options` added out of a verb's options, as fields of `TextSource`."""
    return {name: options.pop(name) for name in ("input_format", "column", "no_header")} | {"dialect": dialect()}


# ---------------------------------------------------- the dialect of a CSV or TSV, for every verb that reads one


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep an option for `dialect`, which whoever reads a table asks: it is no argument of the verb."""
    if value is not None:
        context.meta.setdefault(_DIALECT, {})[str(option.name)] = {"tab": "\t", "\\t": "\t"}.get(value, value)


_DIALECT = "minisbert.dialect"  # where a context keeps it
DIALECT_OPTIONS = [
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        expose_value=False,
        callback=_keep,
        help="Between the columns of a CSV or TSV.  [default: found, one of comma, semicolon, tab, |]",
    ),
    click.option(
        "--quoting/--no-quoting",
        default=None,
        expose_value=False,
        callback=_keep,
        help='Whether "..." around a field is no part of it.  [default: in CSV yes, in TSV as the file does it]',
    ),
]


def dialect() -> dict[str, Any]:
    """The options of `DIALECT_OPTIONS` that were given, as arguments of `read_table`."""
    context = click.get_current_context(silent=True)
    return dict(context.meta.get(_DIALECT, {})) if context else {}


# --------------------------------------------------------------------------------------------- labelled texts


def label_options(verb: Verb) -> Verb:
    """Add the options about the columns of labelled texts to a verb."""
    options = [
        click.option(
            "--columns",
            "column_names",
            metavar="LABEL,TEXT",
            help="Names or numbers of the columns.  [default: label, text or a usual synonym]",
        ),
        click.option("--no-header", is_flag=True, help="There is no header row; columns are numbered from 1."),
        *DIALECT_OPTIONS,
    ]
    return decorate(verb, options)


def read_options(column_names: str | None, no_header: bool) -> dict[str, Any]:
    """The options as arguments of ``read_labelled``.

    >>> read_options("class,tweet", False)
    {'columns': ['class', 'tweet'], 'has_header': True}
    """
    names = column_names.split(",") if column_names is not None else None
    if names is not None and len(names) != 2:
        raise click.UsageError(f"--columns must name two columns, label and text; got {column_names!r}.")
    if no_header and names is None:
        raise click.UsageError("With --no-header, give the columns of label and text with --columns.")
    return {"columns": names, "has_header": not no_header, **dialect()}
