"""Rows of a file, each with the line on which it begins: CSV, TSV and JSONL, plain or gzip.

Reading is strict: what cannot be read as asked is an :class:`InputError` that names file and line; nothing is guessed
or skipped but blank lines, as every reader of tables does. Files are streamed, so they may be of any size. Fields of a
CSV or TSV are strings; their meaning is the caller's business.

- **CSV**: fields may be quoted, and a quoted field may span several lines.
- **TSV**: quotes are text like any other, as in the data sets of this field.
- **JSONL**: one object per line; ``a.b`` names ``b`` inside ``a``.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
Line = tuple[int, str]  # number from 1, text
Row = tuple[int, list[str]]  # first line, fields


class InputError(ValueError):
    """An input that cannot be read as asked: file, line and cause."""


def read_records(
    file: str | Path,
    columns: Sequence[str],
    *,
    input_format: str | None = None,
    has_header: bool = True,
    optional: Mapping[str, object] | None = None,
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    r"""Read some columns of a table, row by row: the row's first line, and its values in the order of ``columns``.

    Parameters
    ----------
    file : str or path
        UTF-8, plain or .gz.
    columns : sequence of str
        Names, or numbers from "1"; a name wins over a number. In JSONL fields; ``a.b`` is ``b`` inside ``a``.
    input_format : {"csv", "tsv", "jsonl"}, optional
        By default by the suffix: .csv, .tsv, .jsonl, .ndjson, each with or without .gz.
    has_header : bool
        Without a header, columns have numbers only.
    optional : mapping of str to object, optional
        Columns that may be missing, from the header or from a JSON object, and their default values.

    Raises
    ------
    InputError
        A ValueError with file and line: a missing column, rows of unequal length, no header, damaged gzip, CSV, JSON or
        UTF-8.

    Notes
    -----
    **Source**: RFC 4180 (CSV) with Python's ``csv.reader(strict=True)``; for TSV ``pandas.read_csv(sep="\t",
    quoting=csv.QUOTE_NONE)``; https://jsonlines.org.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "pairs.tsv"
    >>> _ = file.write_text("id\tscore\ttext\n7\t4.5\tsoup\n8\t1.0\ttea\n")
    >>> list(read_records(file, ["text", "2"]))
    [(2, ('soup', '4.5')), (3, ('tea', '1.0'))]
    """
    if isinstance(columns, str):
        raise ValueError(f"read_records: columns must be a sequence of names, got the string {columns!r}")
    kind = _checked_format(file, input_format)
    return _records(Path(file), tuple(columns), kind, has_header, dict(optional or {}))


def _records(
    file: Path, columns: tuple[str, ...], kind: str, has_header: bool, optional: dict[str, object]
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    name = str(file)
    with open_bytes(file) as stream:
        lines = decode_lines(stream, name)
        if kind == "jsonl":
            for number, record in json_lines(lines, name):
                values = (follow_path(record, column, f"{name}, line {number}", optional) for column in columns)
                yield number, tuple(values)
            return
        constant: dict[int, object] = {}

        def find(head: list[str], where: str) -> list[int]:
            given = set(head) if has_header else set()
            constant.update((i, optional[c]) for i, c in enumerate(columns) if c in optional and c not in given)
            # a missing column gets index 0, whose field is not used
            return [0 if i in constant else find_column(head, c, has_header, where) for i, c in enumerate(columns)]

        for number, fields in pick_columns(split_rows(lines, kind, name), find, has_header, name):
            yield number, tuple(constant.get(i, field) for i, field in enumerate(fields))


def read_names(file: str | Path, input_format: str | None = None) -> list[str]:
    """Column names: the first row, or the fields of the first JSON object; empty for an empty file."""
    kind = _checked_format(file, input_format)
    with open_bytes(file) as stream:
        lines = decode_lines(stream, str(file))
        if kind == "jsonl":
            _, first = next(json_lines(lines, str(file)), (0, None))
            return list(first) if isinstance(first, dict) else []
        return next((row for _, row in split_rows(lines, kind, str(file)) if row), [])


def _checked_format(file: str | Path, input_format: str | None) -> str:
    """The format given, or by the file's suffix."""
    kind = input_format or told_format(file)
    if kind is None or kind not in FORMATS.values():
        raise InputError(
            f"{file}: expected a name that ends in {', '.join(FORMATS)}, optionally .gz; "
            f"input_format='csv', 'tsv' or 'jsonl' sets it for another name, got {input_format!r}"
        )
    return kind


def told_format(file: str | Path) -> str | None:
    """A table's format by the file's suffix: a value of :data:`FORMATS`, or None.

    >>> told_format("pairs.TSV.gz"), told_format("notes.txt")
    ('tsv', None)
    """
    return FORMATS.get(Path(str(file).lower().removesuffix(".gz")).suffix)


@contextmanager
def open_bytes(file: str | Path) -> Iterator[BinaryIO]:
    """Open a file, or unpack one whose name ends in .gz."""
    if str(file).lower().endswith(".gz"):
        with gzip.open(file, "rb") as unpacked:
            yield unpacked  # type: ignore[misc]  # a BinaryIO in all but name
    else:
        with Path(file).open("rb") as stream:
            yield stream


def decode_lines(stream: Iterable[bytes], name: str) -> Iterator[Line]:
    r"""Number the lines from 1 and decode them, without line ends (Windows' too) and byte order mark.

    >>> list(decode_lines([b"soup\r\n", b"tea"], "menu.txt"))
    [(1, 'soup'), (2, 'tea')]
    """
    number = 0
    try:
        # Only \n ends a line: str.splitlines would also split at form feeds and Unicode's line separators.
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


# ------------------------------------------------------------------------------------------------ CSV and TSV


def split_rows(lines: Iterator[Line], kind: str, name: str) -> Iterator[Row]:
    r"""Split lines into fields; a blank line is a row without any.

    >>> list(split_rows(iter([(1, 'a,"b'), (2, 'c"'), (3, "d,e")]), "csv", "t.csv"))
    [(1, ['a', 'b\nc']), (3, ['d', 'e'])]
    >>> list(split_rows(iter([(1, 'a\t"b')]), "tsv", "t.tsv"))
    [(1, ['a', '"b'])]
    """
    return _split_csv(lines, name) if kind == "csv" else _split_tsv(lines)


def _split_csv(lines: Iterator[Line], name: str) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # Python's own limit, 131072, is less than a book
    reader = csv.reader((f"{line}\n" for _, line in lines), strict=True)
    begins = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{name}, line {begins}: not CSV: {error}; is a quote not closed or doubled?") from None
        if row is None:
            return
        yield begins, row
        begins = reader.line_num + 1


def _split_tsv(lines: Iterator[Line]) -> Iterator[Row]:
    for number, line in lines:
        yield number, line.split("\t") if line else []


def pick_columns(
    rows: Iterator[Row], find: Callable[[list[str], str], Sequence[int]], has_header: bool, name: str
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Pick fields of each row; rows without fields are skipped, all others must have equally many.

    ``find(head, where)`` returns the indices to pick, given the first row and its place for error messages.

    >>> rows = iter([(1, ["id", "text"]), (2, ["7", "soup"])])
    >>> list(pick_columns(rows, lambda head, where: [head.index("text")], True, "t.csv"))
    [(2, ('soup',))]
    """
    filled = ((line, row) for line, row in rows if row)
    first = next(filled, None)
    if first is None:
        if has_header:
            raise InputError(f"{name}: empty; expected a header row (has_header=False: there is none)")
        return
    line, head = first
    indices = find(head, f"{name}, line {line}")
    if not has_header:
        yield line, tuple(head[index] for index in indices)
    for line, row in filled:
        if len(row) != len(head):
            first_row = "the header" if has_header else "the first row"
            raise InputError(f"{name}, line {line}: {count_columns(row)}, but {first_row} has {len(head)}: {row!r:.80}")
        yield line, tuple(row[index] for index in indices)


def find_column(head: Sequence[str], column: str, has_header: bool, where: str) -> int:
    """Index of a column given by its name or by a number from "1"; a name wins, and must be unique.

    >>> find_column(["id", "text"], "text", True, "t.csv, line 1"), find_column(["7", "soup"], "2", False, "t.csv")
    (1, 1)
    """
    if has_header and head.count(column) == 1:
        return head.index(column)
    if has_header and head.count(column) > 1:
        raise InputError(
            f"{where}: {head.count(column)} columns are named {column!r}, give a number: {list_columns(head)}"
        )
    if column.isascii() and column.isdigit() and 1 <= int(column) <= len(head):
        return int(column) - 1
    raise InputError(f"{where}: no column {column!r}; the file has {list_columns(head)}")


def list_columns(head: Sequence[str]) -> str:
    """List the columns with their numbers, for messages: ``1 'id', 2 'text'``."""
    return ", ".join(f"{i} {name!r:.40}" for i, name in enumerate(head, 1))


def count_columns(row: Sequence[str]) -> str:
    """Count fields in words: ``1 column``."""
    return f"{len(row)} column{'' if len(row) == 1 else 's'}"


# ------------------------------------------------------------------------------------------------------ JSONL


def json_lines(lines: Iterator[Line], name: str) -> Iterator[tuple[int, Any]]:
    """Read one JSON value per line; blank lines are skipped."""
    for number, line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}, line {number}: not JSON: {error}") from None
        yield number, value


def follow_path(record: Any, field: str, where: str, optional: Mapping[str, object] | None = None) -> Any:
    """A field by its name, else by its path ``a.b`` through nested objects; ``optional`` has defaults for missing ones.

    >>> follow_path({"post": {"title": "soup"}}, "post.title", "t.jsonl, line 1")
    'soup'
    """
    if isinstance(record, dict) and field in record:
        return record[field]
    value = record
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            if isinstance(record, dict) and optional is not None and field in optional:
                return optional[field]
            has = f"; it has {', '.join(map(repr, record))}" if isinstance(record, dict) else f": {record!r:.60}"
            raise InputError(f"{where}: no field {field!r}{has}")
        value = value[key]
    return value


def checked_text(value: object, field: str, where: str) -> str:
    """Return a string that UTF-8 can encode (no lone surrogates), or raise an InputError."""
    if not isinstance(value, str):
        raise InputError(f"{where}: the field {field!r} must be a string, got {json.dumps(value):.60}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{where}: the field {field!r} contains half a character (a lone surrogate)")
    return value


def checked_number(value: object, what: str, where: str) -> float:
    """A field as a finite number, from a number or its text."""
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str) and "_" not in value:  # only Python reads 1_000 as a number
        try:
            number = float(value)
        except ValueError:
            number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: {what} must be a number, got {value!r:.60}")
    return number
