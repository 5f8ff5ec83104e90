"""Tables in, whatever wrote them: CSV, TSV, JSONL, JSON, Parquet and plain text, also compressed (.gz).

A row is a dictionary, and carries the line on which it begins, for whoever must name it. Reading is strict: row n of
the file is the n-th row that comes out, or an :class:`InputError` names the line at fault. All but .json is streamed.

- **CSV** as RFC 4180, separated by commas, semicolons, tabs or |: by what gives the first rows equally many fields.
- **TSV** with quotes, as pandas and spreadsheets write them, or without, as the data sets of STS: see `_quotes`.
- **JSONL**: an object a line; ``a.b`` names ``b`` inside ``a``. A string is a row of the one column "text".
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, BinaryIO
from warnings import warn

from minisbert.checks import require

__all__ = ["EmptyTextWarning", "InputError", "Table", "read_table"]

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
MEANINGS = {
    "text": (
        *("text", "sentence", "review", "utterance", "query", "question", "tweet", "comment", "message", "content"),
        *("body", "document", "passage"),
    ),
    "label": ("label", "gold_label", "label_text", "class", "category", "intent"),
    "score": ("score", "similarity_score", "relatedness_score"),
    "sentence1": ("sentence1", "sentence_A", "text1", "premise"),
    "sentence2": ("sentence2", "sentence_B", "text2", "hypothesis"),
    "anchor": ("anchor", "query", "question"),
    "positive": ("positive", "pos", "answer", "passage"),
    "negative": ("negative", "neg", "hard_negative"),
    "id": ("id", "_id"),
}
"""Column names to look for where none is given; the first one that a table has."""

DELIMITERS = ",;\t|"
FIRST = 100  # lines by which a delimiter is found, and rows by which the one column of texts is
Line = tuple[int, str]  # number from 1, text
Row = dict[str, Any]


class InputError(ValueError):
    """An input that cannot be read as asked: file, line and cause."""


class EmptyTextWarning(UserWarning):
    """Rows without a text were left out."""


# --------------------------------------------------------------------------------------------------- a table


@dataclass
class Table:
    """Rows of a file that is being read: they can be taken once.

    Attributes
    ----------
    name : str
        The file's, for messages.
    columns : tuple of str
        Unique; "1", "2", ... without a header. Of JSON those of the first object.

    Iterating gives ``(line, row)``: the line on which a row begins (of .json and Parquet the row's number), and the row
    as a dictionary.
    """

    name: str
    columns: tuple[str, ...]
    kind: str
    head: list[tuple[int, Row]]  # rows that are read, but not yet taken
    rest: Iterator[tuple[int, Row]]
    taken: int = 0  # rows so far

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        while row := self.head.pop(0) if self.head else next(self.rest, None):
            self.taken += 1
            yield row

    def where(self, line: int) -> str:
        """The place of a row, for messages.

        >>> Table("t.csv", ("text",), "csv", [], iter(())).where(2)
        't.csv, line 2'
        """
        return f"{self.name}, {'row' if self.kind in ('json', 'parquet') else 'line'} {line}"

    def column(self, asked: str) -> str:
        """A column by its name, by its number from "1", or by its name in other letter case if only one is like that.

        >>> table = Table("t.csv", ("id", "Text"), "csv", [], iter(()))
        >>> table.column("text"), table.column("1")
        ('Text', 'id')
        """
        if asked not in self.columns and asked.isascii() and asked.isdigit() and 1 <= int(asked) <= len(self.columns):
            return self.columns[int(asked) - 1]
        alike = self._alike(asked)
        if len(alike) == 1:
            return alike[0]
        is_path = self.kind in ("jsonl", "json", "parquet") and asked.split(".")[0] in self.columns
        if is_path or not self.columns:
            return asked
        why = f": {' and '.join(map(repr, alike))} differ in letter case only" if alike else ""
        raise InputError(f"{self.name}: no column {asked!r}{why}; there are {self.listed()}")

    def _alike(self, name: str) -> list[str]:
        """The column of this name, or else those whose name differs in letter case or blanks around it."""
        if name in self.columns:
            return [name]
        return [column for column in self.columns if column.strip().casefold() == name.strip().casefold()]

    def find(self, meaning: str, asked: str | None = None, usual: Sequence[str] = (), hint: str = "") -> str:
        """The column of a meaning: the one asked for, or the first of the usual names (`MEANINGS`) that the table has.

        A text is also in the only column there is, or in the only one whose values are several words. ``hint`` says how
        to ask for a column.

        >>> table = Table("t.csv", ("stars", "Review"), "csv", [], iter(()))
        >>> table.find("text"), table.find("text", "stars")
        ('Review', 'stars')
        """
        if asked is not None:
            return self.column(asked)
        usual = usual or MEANINGS[meaning]
        for name in usual:
            alike = self._alike(name)
            if len(alike) == 1:
                return alike[0]
        if meaning == "text":
            found = self.columns if len(self.columns) < 2 else self._texts()
            if len(found) == 1:
                return found[0]
        if not self.columns:
            return usual[0]  # of an empty file
        raise InputError(
            f"{self.name}: no column for the {meaning}: looked for {', '.join(usual)}; there are {self.listed()}"
            + (f"; {hint}" if hint else "")
        )

    def _texts(self) -> list[str]:
        """The columns whose values in the first rows are mostly several words."""
        self.head += islice(self.rest, max(0, FIRST - len(self.head)))
        words = re.compile(r"[^\W\d_]\S*\s+\S*[^\W\d_]")
        share = {c: sum(bool(words.search(str(row.get(c)))) for _, row in self.head) for c in self.columns}
        return [column for column in self.columns if 2 * share[column] > len(self.head)]

    def listed(self) -> str:
        """The columns with their numbers: ``1 'id', 2 'text'``."""
        return ", ".join(f"{i} {name!r:.40}" for i, name in enumerate(self.columns, 1)) or "none"

    def filled(self, *columns: str) -> Iterator[tuple[int, Row]]:
        """Rows that have texts in these columns. In the end an `EmptyTextWarning` counts those in which one is empty
        or null: nothing is learnt from no text, and nobody searches for it.
        """
        empty = []
        for line, row in self:
            where = self.where(line)
            values = ((column, follow_path(row, column, where)) for column in columns)
            texts = ["" if value is None else checked_text(value, column, where) for column, value in values]
            if all(text.strip() for text in texts):
                yield line, row
            else:
                empty.append(line)
        if empty:
            rows = "1 row" if len(empty) == 1 else f"{len(empty):,} rows"
            warn(f"{self.where(empty[0])}: skipped {rows} without a text", EmptyTextWarning, stacklevel=2)

    def pick(
        self, columns: Sequence[str], *, optional: Mapping[str, object] | None = None, filled: Sequence[str] = ()
    ) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Rows as ``(line, values)``, the values in the order of ``columns``.

        Columns in ``optional`` may be missing, and then have the value there; those in ``filled`` always have a text.

        >>> table = Table("t.csv", ("id", "text"), "csv", [(2, {"id": "7", "text": "soup"})], iter(()))
        >>> list(table.pick(["text", "1", "title"], optional={"title": ""}))
        [(2, ('soup', '7', ''))]
        """
        given = dict(optional or {})
        names = [c if c in given and c not in self.columns else self.column(c) for c in columns]
        for line, row in self.filled(*(names[columns.index(c)] for c in filled)):
            where = self.where(line)
            yield (
                line,
                tuple(
                    given[column] if column in given and name not in row else follow_path(row, name, where)
                    for column, name in zip(columns, names, strict=True)
                ),
            )


def read_table(
    source: str | Path | BinaryIO,
    *,
    input_format: str | None = None,
    delimiter: str | None = None,
    quoting: bool | None = None,
    has_header: bool = True,
) -> Table:
    r"""Open a table.

    Parameters
    ----------
    source : str, path, or binary stream
        UTF-8, or UTF-16 with a byte order mark. A file whose name ends in .gz is unpacked.
    input_format : {"csv", "tsv", "jsonl", "json", "parquet", "text"}, optional
        By default by the file's suffix. "text": each line is a row of the one column "text".
    delimiter : str, optional
        Of CSV and TSV; by default a TSV's is the tab, a CSV's is found.
    quoting : bool, optional
        Whether quotes around a field of a CSV or TSV are no part of it; by default so in CSV, and found in TSV.
    has_header : bool
        Without a header, columns are named "1", "2", ... Only of CSV and TSV, as ``delimiter`` and ``quoting``.

    Raises
    ------
    InputError
        A ValueError with file and line: rows of unequal length, no header, two columns of one name, several delimiters
        that are possible, damaged gzip, CSV, JSON, UTF-8 or Parquet.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "reviews.csv"
    >>> _ = file.write_text("review;stars\nI love soup;5\n")
    >>> table = read_table(file)
    >>> table.columns, list(table)
    (('review', 'stars'), [(2, {'review': 'I love soup', 'stars': '5'})])
    """
    name = str(source) if isinstance(source, (str, Path)) else "standard input"
    kind = input_format or told_format(name)
    if kind not in {*FORMATS.values(), "text"}:
        raise InputError(
            f"{name}: expected a name that ends in {', '.join(FORMATS)}, optionally .gz; input_format='csv' or another "
            "sets the format of another name" + (f", got {input_format!r}" if input_format else "")
        )
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"read_table: delimiter must be one character, got {delimiter!r}")
    check_dialect(name, kind, delimiter, quoting, has_header)
    if kind in ("csv", "tsv"):
        return _delimited(source, name, kind, delimiter, quoting, has_header)
    if kind == "parquet":
        rows: Iterator[tuple[int, Any]] = _parquet_rows(source, name)
    else:
        rows = _lines_of(source, name)
        rows = rows if kind == "text" else {"json": _json_rows, "jsonl": _jsonl_rows}[kind](rows, name)
    table = Table(name, (), kind, [], _objects(rows, name, kind))
    table.head += islice(table.rest, 1)
    table.columns = ("text",) if kind == "text" else tuple(table.head[0][1]) if table.head else ()
    return table


def read_columns(
    file: str | Path, meanings: Mapping[str, Sequence[str]], columns: Sequence[str] | None, **reading: Any
) -> tuple[Table, list[str]]:
    """Open a table, and find a column for each meaning: those asked for, by name or number, or else `MEANINGS`.

    ``meanings`` may name other usual columns.
    """
    wanted = ", ".join(meanings)
    if columns is not None and (isinstance(columns, str) or len(columns) != len(meanings)):
        raise ValueError(f"{file}: columns must be {len(meanings)}, of {wanted}; got {columns!r}")
    if columns is None and not reading.get("has_header", True):
        raise ValueError(f"{file}: without a header row, give the columns of {wanted} by number")
    table, hint = read_table(file, **reading), f"give the columns of {wanted}"
    asked = zip_longest(meanings.items(), columns or ())
    return table, [table.find(meaning, name, usual, hint) for (meaning, usual), name in asked]


def check_dialect(
    name: str, kind: str, delimiter: str | None = None, quoting: bool | None = None, has_header: bool = True
) -> None:
    """Refuse what only CSV and TSV have: in another format it would be ignored."""
    given = {"delimiter": delimiter, "quoting": quoting, "has_header": None if has_header else False}
    said = ", ".join(f"{option}={value!r}" for option, value in given.items() if value is not None)
    if said and kind not in ("csv", "tsv"):
        raise InputError(f"{name}: {said}: only for CSV and TSV, but this input is {kind}")


def told_format(file: str | Path) -> str | None:
    """A table's format by the file's suffix: a value of :data:`FORMATS`, or None.

    >>> told_format("pairs.TSV.gz"), told_format("notes.txt")
    ('tsv', None)
    """
    return FORMATS.get(Path(str(file).lower().removesuffix(".gz")).suffix)


# ------------------------------------------------------------------------------------------------ bytes and lines


def open_bytes(file: str | Path | BinaryIO) -> AbstractContextManager[Any]:
    """Open a file, or unpack one whose name ends in .gz; a stream stays open."""
    if not isinstance(file, (str, Path)):
        return nullcontext(file)
    return gzip.open(file, "rb") if str(file).lower().endswith(".gz") else Path(file).open("rb")


def _lines_of(source: str | Path | BinaryIO, name: str, *, is_table: bool = False) -> Iterator[Line]:
    with open_bytes(source) as stream:
        yield from decode_lines(stream, name, is_table=is_table)


def decode_lines(stream: BinaryIO, name: str, *, is_table: bool = False) -> Iterator[Line]:
    r"""Number the lines from 1 and decode them, without line ends and byte order mark.

    Lines end in \n or \r\n: str.splitlines would also split at form feeds and Unicode's separators. They end in \r
    where the file has no \n, or, in a table, where the header ends so: old spreadsheets write that, with \n in cells.

    >>> list(decode_lines(io.BytesIO(b"soup\r\ntea"), "menu.txt")), list(decode_lines(io.BytesIO(b"a\rb"), "menu.txt"))
    ([(1, 'soup'), (2, 'tea')], [(1, 'a'), (2, 'b')])
    """
    number = 0
    try:
        first = stream.readline()
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # from spreadsheets: it fits in memory
            stream = io.BytesIO((first + stream.read()).decode("utf-16").encode())
            first = stream.readline()
        lines: Iterable[bytes] = chain([first] if first else [], stream)
        bare = re.sub(rb'"[^"]*"', b"", first).removesuffix(b"\n").removesuffix(b"\r")
        if b"\r" in bare and (is_table or not first.endswith(b"\n")):
            lines = (first + stream.read()).removesuffix(b"\r").split(b"\r")
        for number, raw in enumerate(lines, 1):
            line = raw.decode().removesuffix("\n").removesuffix("\r")
            yield number, line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}, line {max(number, 1)}, byte {error.start + 1}: not {error.encoding.upper()} "
            f"(0x{error.object[error.start]:02x}); save it as UTF-8, or convert it with iconv"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name}, after line {number}: damaged or cut-off gzip: {error}") from error


# ------------------------------------------------------------------------------------------------ CSV and TSV


def _delimited(
    source: str | Path | BinaryIO, name: str, kind: str, delimiter: str | None, quoting: bool | None, has_header: bool
) -> Table:
    """Find delimiter and quoting, then the header."""
    csv.field_size_limit(2**31 - 1)  # Python's own limit, 131072, is less than a book
    if kind == "tsv":
        delimiter = delimiter or "\t"
        if quoting is None:
            if not (isinstance(source, (str, Path)) and Path(source).is_file()):
                with open_bytes(source) as stream:  # a pipe is read once: it is held
                    source = io.BytesIO(stream.read())
            quoting = _quotes(_lines_of(source, name, is_table=True), delimiter, name)
            if isinstance(source, io.BytesIO):
                source.seek(0)
    lines = _lines_of(source, name, is_table=True)
    begins = 0
    if delimiter is None:
        sample = list(islice(lines, FIRST))
        told = re.fullmatch(r"sep=(.)", sample[0][1]) if sample else None  # Excel's own hint
        if told:
            delimiter, begins, sample = told[1], 1, sample[1:]
        else:
            delimiter = _find_delimiter(sample, quoting is not False, name)
        lines = chain(sample, lines)
    split: Iterator[tuple[int, list[str]]]
    if quoting is False:
        split = ((number, line.split(delimiter) if line else []) for number, line in lines)
    else:
        split = _split_quoted(lines, delimiter, name, begins)
    first = next(((line, row) for line, row in split if row), None)
    if first is None:
        if has_header:
            raise InputError(f"{name}: empty; expected a header row")
        return Table(name, (), kind, [], iter(()))
    line, fields = first
    # an unnamed column, such as pandas' index, goes by its number
    columns = tuple((has_header and field) or str(i) for i, field in enumerate(fields, 1))
    _check_unique(columns, f"{name}, line {line}")
    rows = _equally_long(split if has_header else chain([first], split), columns, name, has_header)
    return Table(name, columns, kind, [], rows)


def _check_unique(columns: Sequence[str], where: str) -> None:
    twice = next((name for i, name in enumerate(columns) if name in columns[:i]), None)
    if twice is not None:
        listed = ", ".join(f"{i} {name!r:.40}" for i, name in enumerate(columns, 1))
        raise InputError(f"{where}: {columns.count(twice)} columns are named {twice!r}; rename one: {listed}")


def _equally_long(
    rows: Iterator[tuple[int, list[str]]], columns: tuple[str, ...], name: str, has_header: bool
) -> Iterator[tuple[int, Row]]:
    """Rows as dictionaries. A blank line is none, as everywhere; but in a single column it might be an empty text."""
    blank = None
    for line, row in rows:
        if not row:
            blank = blank or line
            continue
        if blank and len(columns) == 1:
            raise InputError(
                f'{name}, line {blank}: blank: an empty text, or no row? Write the one as "", and delete the other; '
                "input_format='text' reads each line as a text"
            )
        if len(row) != len(columns):
            count, first = f"{len(row)} column{'' if len(row) == 1 else 's'}", "header" if has_header else "first row"
            raise InputError(
                f"{name}, line {line}: {count}, but the {first} has {len(columns)}: {row!r:.80}; are delimiter and "
                "quoting right?"
            )
        yield line, dict(zip(columns, row, strict=True))


def _split_quoted(lines: Iterator[Line], delimiter: str, name: str, begins: int = 0) -> Iterator[tuple[int, list[str]]]:
    r"""Fields that may be quoted, and then span several lines.

    >>> list(_split_quoted(iter([(1, 'a,"b'), (2, 'c"'), (3, "d,e")]), ",", "t.csv"))
    [(1, ['a', 'b\nc']), (3, ['d', 'e'])]
    """
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=delimiter, strict=True)
    while True:
        first = begins + reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{name}, line {first}: not CSV: {error}; is a quote not closed or doubled?") from None
        if row is None:
            return
        yield first, row


def _find_delimiter(sample: list[Line], quoting: bool, name: str) -> str:
    """The delimiter that gives the first rows equally many fields, and more than one."""
    widths: dict[str, list[int]] = {}
    for delimiter in DELIMITERS:
        lines = (re.sub(r"[\r\n]", " ", line) + "\n" for _, line in sample)
        rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE)
        found = [len(row) for row in rows if row]
        if found and found[0] > 1:
            widths[delimiter] = found
    possible = [delimiter for delimiter, found in widths.items() if len(set(found)) == 1] or list(widths)
    if len(possible) > 1:
        said = " and ".join(map(repr, possible))
        raise InputError(f"{name}, line 1: {said} may separate the columns; delimiter='{possible[0]}' says which")
    return possible[0] if possible else ","


def _quotes(lines: Iterator[Line], delimiter: str, name: str) -> bool:
    r"""Whether the quotes of a TSV are quoting (pandas, spreadsheets), or part of the texts (the data sets of STS).

    They are if the file is right with them: correct CSV, all rows equally long. And besides

    - either it is wrong without: splitting its lines at tabs gives rows of unequal length;
    - or every quoted field needs its quotes: it has a tab, a line end or a doubled quote in it;
    - or every field is quoted that is not a number, a truth value or nothing.

    A row of several lines may be several rows without quoting. It is one if they would have numbers and words in one
    column; otherwise nobody can tell, and an InputError asks.

    >>> said = ['"Hi," he said', '"he said ""Hi"", and left"']
    >>> [_quotes(iter([(1, "text"), (2, line)]), "\t", "t.tsv") for line in said]
    [False, True]
    """
    field = re.compile(rf'(?:^|{re.escape(delimiter)})("(?:[^"]|"")*"|[^{re.escape(delimiter)}]*)')
    numeric = re.compile(r"[-+.\d]+(?:e[-+]?\d+)?|[-+]?inf(?:inity)?|nan|na|null|none|true|false|", re.I)
    taken: list[Line] = []  # the lines of a row
    plain, widths = set(), set()
    quoted = needless = bare = unclear = 0

    def is_mixed(column: Iterable[str]) -> bool:
        return len({numeric.fullmatch(cell) is None for cell in column if cell}) > 1

    def passing() -> Iterator[str]:
        for number, line in lines:
            if line:
                plain.add(line.count(delimiter) + 1)
            taken.append((number, line))
            if len(taken) > 10_000:
                raise csv.Error("no field is that long: a quote is not closed")
            yield f"{line}\n"

    try:
        for row in csv.reader(passing(), delimiter=delimiter, strict=True):
            raw = "\n".join(line for _, line in taken)
            cells = [line.split(delimiter) for _, line in taken if line] if len(taken) > 1 else []
            if cells and not any(map(is_mixed, zip(*cells, strict=False))):
                unclear = unclear or taken[0][0]
            taken.clear()
            if row:
                widths.add(len(row))
            if '"' in raw or not bare:
                for said in field.findall(raw):
                    if said.startswith('"'):
                        quoted += 1
                        needless += said != '""' and not re.search(rf'["\n{re.escape(delimiter)}]', said[1:-1])
                    else:
                        bare += not numeric.fullmatch(said)
    except csv.Error:
        return False
    if not quoted or len(widths) != 1:
        return False
    if len(plain) > 1 or not bare:
        return True
    if unclear and not needless and widths != {1}:
        raise InputError(
            f"{name}, line {unclear}: one row whose quotes hold several lines, or several rows with quotes in them? "
            "--quoting or --no-quoting decides (in Python the argument quoting)"
        )
    return not needless


# ------------------------------------------------------------------------------------------ JSON, text, Parquet


def _objects(rows: Iterator[tuple[int, Any]], name: str, kind: str) -> Iterator[tuple[int, Row]]:
    """Rows as objects; a string is one with a text."""
    for line, value in rows:
        if not isinstance(value, (dict, str)):
            where = f"{name}, {'row' if kind == 'json' else 'line'} {line}"
            raise InputError(f"{where}: expected an object or a string, got {json.dumps(value):.60}")
        yield line, {"text": value} if isinstance(value, str) else value


def _jsonl_rows(lines: Iterator[Line], name: str) -> Iterator[tuple[int, Any]]:
    """One JSON value per line; blank lines are skipped."""
    for number, line in lines:
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{name}, line {number}: not JSON: {error}") from None


def _json_rows(lines: Iterator[Line], name: str) -> Iterator[tuple[int, Any]]:
    """The members of one array."""
    try:
        values = json.loads("\n".join(line for _, line in lines))
    except json.JSONDecodeError as error:
        hint = "; input_format='jsonl' reads a JSON object on each line" if error.msg == "Extra data" else ""
        raise InputError(f"{name}, line {error.lineno}: not JSON: {error.msg}{hint}") from None
    except RecursionError as error:
        raise InputError(f"{name}: not JSON: {error}") from None
    if not isinstance(values, list):
        said = json.dumps(values)
        raise InputError(
            f"{name}: expected an array of objects or strings, got {said:.60}; input_format='text' reads lines"
        )
    return enumerate(values, 1)


def _parquet_rows(source: str | Path | BinaryIO, name: str) -> Iterator[tuple[int, Row]]:
    """Rows of Parquet, by pyarrow."""
    arrow, parquet = (require(name, "search", "reading Parquet") for name in ("pyarrow", "pyarrow.parquet"))
    with open_bytes(source) as stream:
        if not isinstance(source, (str, Path)):
            stream = io.BytesIO(stream.read())  # a pipe: Parquet's table of contents is at the end
        try:
            file = parquet.ParquetFile(stream)
            _check_unique(file.schema_arrow.names, name)
            rows = chain.from_iterable(block.to_pylist() for block in file.iter_batches(1024))
            # as JSON has them: dates as text, decimals as numbers, bytes as the UTF-8 that they are
            yield from enumerate((json.loads(json.dumps(row, default=_plain)) for row in rows), 1)
        except (arrow.ArrowException, OSError) as error:
            raise InputError(f"{name}: not readable as Parquet: {str(error).splitlines()[0]}") from None


def _plain(value: Any) -> str | float:
    """What JSON has for a value that it lacks."""
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")  # what is no UTF-8 is refused where it is read as a text
    return float(value) if type(value).__name__ == "Decimal" else str(value)


# -------------------------------------------------------------------------------------------------------- fields


def follow_path(record: Mapping[str, Any], field: str, where: str) -> Any:
    """A field by its name, else by its path ``a.b`` through nested objects.

    >>> follow_path({"post": {"title": "soup"}}, "post.title", "t.jsonl, line 1")
    'soup'
    """
    if field in record:
        return record[field]
    value: Any = record
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            raise InputError(f"{where}: no field {field!r}; it has {', '.join(map(repr, record)) or 'none'}")
        value = value[key]
    return value


def checked_text(value: object, field: str, where: str) -> str:
    """Return a string that UTF-8 can encode (no lone surrogates), or raise an InputError."""
    if not isinstance(value, str):
        raise InputError(f"{where}: the field {field!r} must be a string, got {json.dumps(value):.60}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{where}: the field {field!r} is not UTF-8, or has half a character (a lone surrogate)")
    return value


def checked_id(value: object, field: str, where: str) -> str | int:
    """Return an id, a string or a whole number, or raise an InputError."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InputError(f"{where}: the id in {field!r} must be a string or a whole number, got {value!r:.60}")
    return value


def checked_number(value: Any, what: str, where: str) -> float:
    """A field as a finite number, from a number or its text."""
    number = math.nan
    if not isinstance(value, bool) and "_" not in str(value):  # only Python reads 1_000 as a number
        with suppress(TypeError, ValueError, OverflowError):
            number = float(value)
    if not math.isfinite(number):
        raise InputError(f"{where}: {what} must be a number, got {value!r:.60}")
    return number
