"""Texts from the command line, a file or stdin: one per line, a column of a CSV or TSV, a field of a JSONL.

``minisbert/tables.py`` reads the formats; this file handles their options. Reading is strict, because vectors are
matched to rows by counting. A blank line in a CSV, TSV or JSONL is no row; in a text file it is an empty text.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from minisbert.cli.options import TEXT, Verb, decorate
from minisbert.tables import (
    InputError,
    Line,
    Row,
    checked_text,
    count_columns,
    decode_lines,
    find_column,
    follow_path,
    json_lines,
    list_columns,
    open_bytes,
    pick_columns,
    split_rows,
    told_format,
)


@dataclass(frozen=True)
class TextSource:
    """Where texts come from."""

    arguments: tuple[str, ...]
    file: str | None  # "-" is stdin
    input_format: str | None
    column: str | None
    field: str | None
    no_header: bool

    def count(self) -> int | None:
        """Count and check every row, keeping none; None for what can be read only once: stdin, a pipe."""
        self.check()
        file = Path(self.file or "")
        if self.file == "-" or file.is_fifo() or file.is_char_device():
            return None
        return sum(1 for _ in self.read())

    def read_again(self, count: int | None) -> Iterator[str]:
        """Yield the texts after :meth:`count`, and raise if their number has changed."""
        number = 0
        for number, text in enumerate(self.read(), 1):
            if number - 1 == count:
                break
            yield text
        if count not in (None, number):
            more = "more" if number > count else f"only {number:,}"
            raise InputError(f"{self.file}: had {count:,} texts when counted, and now {more}; did it change?")

    def check(self) -> None:
        """Raise for contradictory options, before anything is opened."""
        about_file = (self.file, self.input_format, self.column, self.field, self.no_header or None)
        if self.arguments and any(option is not None for option in about_file):
            raise click.UsageError("Give texts as arguments or in a file, not both.")
        if self.file is not None:
            self._format()

    def read(self) -> Iterator[str]:
        """Yield the texts."""
        self.check()
        if self.file is None:
            yield from self.arguments
            return
        name = "standard input" if self.file == "-" else self.file
        kind = self._format()
        with _open(self.file) as stream:
            lines = decode_lines(stream, name)
            if kind == "text":
                yield from (line for _, line in lines)
            elif kind == "jsonl":
                yield from _fields(lines, self.field, name)
            else:
                yield from _column(split_rows(lines, kind, name), self.column, not self.no_header, name)

    def _format(self) -> str:
        """The format, as given or by the file's name; raise for options that it does not use."""
        suffix = Path(str(self.file).lower().removesuffix(".gz")).suffix
        if suffix == ".json" and self.input_format is None:
            raise click.UsageError("A .json file needs --input-format jsonl: it is read as JSONL, one object per line.")
        kind = self.input_format or told_format(str(self.file)) or "text"
        if (self.column is not None or self.no_header) and kind not in ("csv", "tsv"):
            raise click.UsageError(f"--column and --no-header are for csv and tsv; this input is {kind}.")
        if self.field is not None and kind != "jsonl":
            raise click.UsageError(f"--field is for jsonl; this input is {kind}.")
        return kind


def input_options(verb: Verb) -> Verb:
    """Add TEXT arguments and input options to a verb, which receives them as ``source``."""

    @functools.wraps(verb)
    def gathered(
        texts: tuple[str, ...],
        file: str | None,
        input_format: str | None,
        column: str | None,
        field: str | None,
        no_header: bool,
        **rest: Any,
    ) -> None:
        verb(source=TextSource(texts, file, input_format, column, field, no_header), **rest)

    options = [
        click.argument("texts", nargs=-1, metavar="[TEXT]...", type=TEXT),
        click.option("-i", "--input", "file", metavar="FILE", help="Read texts from a file, may be .gz; - is stdin."),
        click.option(
            "--input-format",
            type=click.Choice(["text", "csv", "tsv", "jsonl"]),
            help="text: one text per line.  [default: by the file's suffix, else text]",
        ),
        click.option("--column", metavar="NAME|N", help="Column of a CSV or TSV: its name, or its number from 1."),
        click.option("--no-header", is_flag=True, help="The CSV or TSV has no header row."),
        click.option("--field", metavar="NAME", help="Field of a JSONL; a.b is b inside a.  [default: text]"),
    ]
    return decorate(gathered, options)


@contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    """Open stdin, a file, or a compressed file."""
    if file == "-":
        yield sys.stdin.buffer
    else:
        with open_bytes(file) as stream:
            yield stream


def _column(rows: Iterator[Row], column: str | None, has_header: bool, name: str) -> Iterator[str]:
    """Pick one field of each row; a single column need not be named."""

    def find(head: list[str], where: str) -> list[int]:
        if column is not None:
            return [find_column(head, column, has_header, where)]
        if len(head) > 1:
            listed = list_columns(head)
            raise click.UsageError(f"{where} has {count_columns(head)}; choose one with --column: {listed}")
        return [0]

    yield from (text for _, (text,) in pick_columns(rows, find, has_header, name))


def _fields(lines: Iterator[Line], field: str | None, name: str) -> Iterator[str]:
    """Pick one field of each JSON object; a line that is a JSON string is itself a text."""
    for number, record in json_lines(lines, name):
        where = f"{name}, line {number}"
        is_text = isinstance(record, str) and field is None
        text = record if is_text else follow_path(record, field or "text", where)
        yield checked_text(text, field or "text", where)
