"""Texts from the command line, a file or stdin: one per line, a column of a CSV or TSV, a field of a JSONL.

Reading is strict. A row that has no text at the place asked for is an error that names file and line; nothing is
guessed and nothing skipped, because vectors are matched to rows by counting. The one exception is what every reader of
tables agrees on: a blank line in a CSV, TSV or JSONL is no row. In a text file a blank line is an empty text.
"""

from __future__ import annotations

import csv
import functools
import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from minisbert.cli.options import Verb, decorate

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
Row = tuple[int, list[str]]  # the line on which it begins, its fields


class InputError(ValueError):
    """An input that cannot be read as asked: file, line and cause."""


@dataclass(frozen=True)
class TextSource:
    """Where texts come from, as said on the command line."""

    arguments: tuple[str, ...]
    file: str | None  # "-" is stdin
    input_format: str | None
    column: str | None
    field: str | None
    no_header: bool

    def count(self) -> int | None:
        """Read and check every row and keep none; None for what can be read only once: stdin, a pipe."""
        self.check()
        file = Path(self.file or "")
        if self.file == "-" or file.is_fifo() or file.is_char_device():
            return None
        return sum(1 for _ in self.read())

    def read_again(self, count: int | None) -> Iterator[str]:
        """Give the texts one by one after :meth:`count`, and refuse more or fewer of them than there were then."""
        number = 0
        for number, text in enumerate(self.read(), 1):
            if number - 1 == count:
                break
            yield text
        if count not in (None, number):
            more = "more" if number > count else f"only {number:,}"
            raise InputError(f"{self.file}: had {count:,} texts when they were counted, and now {more}; did it change?")

    def check(self) -> None:
        """Refuse options that contradict each other, before anything is opened."""
        about_file = (self.file, self.input_format, self.column, self.field, self.no_header or None)
        if self.arguments and any(option is not None for option in about_file):
            raise click.UsageError("Give texts as arguments or in a file, not both.")
        if self.file is not None:
            self._format()

    def read(self) -> Iterator[str]:
        """Give the texts one by one."""
        self.check()
        if self.file is None:
            yield from self.arguments
            return
        name = "standard input" if self.file == "-" else self.file
        kind = self._format()
        with _open(self.file) as stream:
            lines = _decode(stream, name)
            if kind == "text":
                yield from (line for _, line in lines)
            elif kind == "jsonl":
                yield from _fields(lines, self.field, name)
            else:
                rows = _split_csv(lines, name) if kind == "csv" else _split_tsv(lines)
                yield from _column(rows, self.column, not self.no_header, name)

    def _format(self) -> str:
        """Choose the format: said, or told by the file's name; refuse options that it has no use for."""
        suffix = Path(str(self.file).lower().removesuffix(".gz")).suffix
        if suffix == ".json" and self.input_format is None:
            raise click.UsageError("A .json file is read as JSONL, one object a line, with --input-format jsonl.")
        kind = self.input_format or FORMATS.get(suffix, "text")
        if (self.column is not None or self.no_header) and kind not in ("csv", "tsv"):
            raise click.UsageError(f"--column and --no-header are for csv and tsv; this input is {kind}.")
        if self.field is not None and kind != "jsonl":
            raise click.UsageError(f"--field is for jsonl; this input is {kind}.")
        return kind


def input_options(verb: Verb) -> Verb:
    """Give a verb TEXT arguments and the options that name an input; it receives them as ``source``."""

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
        click.argument("texts", nargs=-1, metavar="[TEXT]..."),
        click.option("-i", "--input", "file", metavar="FILE", help="Read texts from a file, .gz too; - is stdin."),
        click.option(
            "--input-format",
            type=click.Choice(["text", "csv", "tsv", "jsonl"]),
            help="text is a text per line.  [default: by the file's suffix, else text]",
        ),
        click.option("--column", metavar="NAME|N", help="The column of a CSV or TSV: its name, or number from 1."),
        click.option("--no-header", is_flag=True, help="The CSV or TSV has no row of names on top."),
        click.option("--field", metavar="NAME", help="The field of a JSONL; a.b is b inside a.  [default: text]"),
    ]
    return decorate(gathered, options)


@contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    """Open stdin, a file, or a compressed file."""
    if file == "-":
        yield sys.stdin.buffer
    elif file.lower().endswith(".gz"):
        with gzip.open(file, "rb") as unpacked:
            yield unpacked  # type: ignore[misc]  # a BinaryIO in all but name
    else:
        with Path(file).open("rb") as stream:
            yield stream


def _decode(stream: Iterable[bytes], name: str) -> Iterator[tuple[int, str]]:
    """Number the lines from 1 and decode them; line ends, Windows' too, and a byte order mark are no text."""
    number = 0
    try:
        # only \n ends a line: str.splitlines would also cut at form feeds and Unicode's line separators
        for number, raw in enumerate(stream, 1):
            line = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
            yield number, line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeDecodeError as error:
        is_utf16 = number == 1 and error.object[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise InputError(
            f"{name}, line {number}, byte {error.start + 1}: not UTF-8 (0x{error.object[error.start]:02x}); "
            + ("the file is UTF-16: " if is_utf16 else "")
            + "save it as UTF-8, or convert it with iconv"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name}, after line {number}: damaged or cut-off gzip: {error}") from error


def _split_csv(lines: Iterator[tuple[int, str]], name: str) -> Iterator[Row]:
    """Split CSV rows; a quoted field may run over several lines."""
    csv.field_size_limit(2**31 - 1)  # Python's own limit, 131072, is less than a book
    reader = csv.reader((f"{line}\n" for _, line in lines), strict=True)
    begins = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{name}, line {begins}: not CSV: {error}; is a quote left open or doubled?") from None
        if row is None:
            return
        yield begins, row
        begins = reader.line_num + 1


def _split_tsv(lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    """Split TSV rows; quotes are text like any other."""
    for number, line in lines:
        yield number, line.split("\t") if line else []


def _column(rows: Iterator[Row], column: str | None, has_header: bool, name: str) -> Iterator[str]:
    """Pick one field of each row, and insist that all rows have equally many."""
    filled = ((line, row) for line, row in rows if row)
    first = next(filled, None)
    if first is None:
        if has_header:
            raise InputError(f"{name}: empty; expected a row of column names (or --no-header)")
        return
    line, head = first
    index = _find_column(head, column, has_header, f"{name}, line {line}")
    if not has_header:
        yield head[index]
    for line, row in filled:
        if len(row) != len(head):
            first_row = "the header" if has_header else "the first row"
            raise InputError(f"{name}, line {line}: {_count(row)}, but {first_row} has {len(head)}: {row!r:.80}")
        yield row[index]


def _find_column(head: list[str], column: str | None, has_header: bool, where: str) -> int:
    """Turn a column's name or number, or nothing where there is just one, into an index."""
    listed = ", ".join(f"{i} {name!r:.40}" for i, name in enumerate(head, 1))
    if column is None:
        if len(head) > 1:
            raise click.UsageError(f"{where} has {_count(head)}, choose one with --column: {listed}")
        return 0
    if has_header and head.count(column) == 1:
        return head.index(column)
    if head.count(column) > 1 and has_header:
        raise InputError(f"{where}: {column!r} is the name of {head.count(column)} columns, give a number: {listed}")
    if column.isascii() and column.isdigit() and 1 <= int(column) <= len(head):
        return int(column) - 1
    raise InputError(f"{where}: no column {column!r}; there {'are' if len(head) > 1 else 'is'}: {listed}")


def _count(row: list[str]) -> str:
    """Count fields in words."""
    return f"{len(row)} column{'' if len(row) == 1 else 's'}"


def _fields(lines: Iterator[tuple[int, str]], field: str | None, name: str) -> Iterator[str]:
    """Pick one field of each JSON object; a line that is a JSON string is a text itself."""
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON: {error}") from None
        text = record if isinstance(record, str) and field is None else _follow(record, field or "text", where)
        if not isinstance(text, str):
            raise InputError(f"{where}: the field {field or 'text'!r} is no text but {json.dumps(text):.60}")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"{where}: the field {field or 'text'!r} holds half a character (a lone surrogate)")
        yield text


def _follow(record: Any, field: str, where: str) -> Any:
    """Find a field by its name, else by its path through nested objects."""
    if isinstance(record, dict) and field in record:
        return record[field]
    value = record
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            has = f"; it has {', '.join(map(repr, record))}" if isinstance(record, dict) else f": {record!r:.60}"
            raise InputError(f"{where}: no field {field!r}{has}")
        value = value[key]
    return value
