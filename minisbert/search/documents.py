"""Files -> documents: a text with an id; everything else in its row is metadata.

==================  ==============================================================================================
file                documents
==================  ==============================================================================================
.txt                each line, as for ``minisbert embed -i``; blank lines are skipped (``text_as="file"``: the whole)
.csv .tsv .jsonl    each row: one column is the text, one may be the id, all others are metadata
.parquet            the same, read by DuckDB
anything else       the whole file, such as .md (``text_as="lines"``: each line)
==================  ==============================================================================================

All but Parquet may be compressed (.gz). Indexing an id again replaces its document. A row without an id gets the file's
name, as given, and the line: ``notes.txt:12``. Reading is strict, as in ``tables.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from minisbert.checks import check_sequence, out_of_arrow
from minisbert.search.errors import connect, require_duckdb
from minisbert.tables import (
    InputError,
    checked_text,
    decode_lines,
    follow_path,
    json_lines,
    list_columns,
    open_bytes,
    read_names,
    read_records,
    told_format,
)

__all__ = ["Document", "as_document", "check_documents", "read_documents"]

TextAs = Literal["lines", "file"]
ID_COLUMNS = ("id", "_id")
TEXT_COLUMN = "text"
ROWS = 1024  # of a Parquet file, held at a time


@dataclass(frozen=True)
class Document:
    """A text, its id and its metadata.

    Parameters
    ----------
    text : str
    id : str
        By default it is made from the text, so that the same text is the same document.
    metadata : mapping
        JSON: no NaN, no dates.
    source : str
        Where it comes from, such as a file's name.

    Examples
    --------
    >>> Document("soup", "7", {"price": 4.5}).metadata_json
    '{"price": 4.5}'
    """

    text: str
    id: str = ""  # "": from the text
    metadata: Mapping[str, Any] = field(default_factory=dict)  # what JSON can hold
    source: str = ""  # a file, for people

    @property
    def metadata_json(self) -> str:
        """The metadata as JSON, with sorted keys."""
        return json.dumps(self.metadata, ensure_ascii=False, allow_nan=False, sort_keys=True)

    @property
    def content_hash(self) -> str:
        """SHA-256 of text and metadata."""
        return hashlib.sha256(f"{len(self.text)}\0{self.text}{self.metadata_json}".encode()).hexdigest()


def as_document(value: object, where: str) -> Document:
    """Check a document, or make one of a text alone; ``where`` is its place in error messages.

    >>> as_document("soup", "documents[0]").id
    'sha256:9014fac8184d7ba9'
    """
    if isinstance(value, str):
        value = Document(value)
    if not isinstance(value, Document):
        raise ValueError(f"{where}: expected a Document or a string, got {type(value).__name__} {value!r:.80}")
    checked_text(value.text, "text", where)
    checked_text(value.id, "id", where)
    checked_text(value.source, "source", where)
    if not isinstance(value.metadata, Mapping) or not all(isinstance(key, str) for key in value.metadata):
        raise ValueError(f"{where}: metadata must be a mapping with string keys, got {value.metadata!r:.80}")
    try:
        checked_text(value.metadata_json, "metadata", where)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{where}: the metadata of document {value.id!r:.60} cannot be stored as JSON: {error}; write dates as "
            "strings, and leave NaN out"
        ) from None
    if value.id:
        return value
    made = "sha256:" + hashlib.sha256(value.text.encode()).hexdigest()[:16]
    return Document(value.text, made, value.metadata, value.source)


def check_documents(documents: Iterable[object]) -> Iterator[Document]:
    """Yield documents one by one; an id that comes twice is an error, a text without an id that comes twice is skipped.

    >>> [document.text for document in check_documents(["soup", Document("tea", "1"), "soup"])]
    ['soup', 'tea']
    """
    check_sequence(documents, "add: documents", "an iterable of documents")
    seen: set[str] = set()
    for i, value in enumerate(out_of_arrow(documents)):
        document = as_document(value, f"documents[{i}]")
        if document.id not in seen:
            seen.add(document.id)
            yield document
        elif not isinstance(value, str):
            source = f" ({document.source})" if document.source else ""
            raise ValueError(
                f"documents[{i}]{source}: the id {document.id!r:.60} occurs twice; ids must be unique. Is "
                "another column the id, or is a file listed twice?"
            )


# ------------------------------------------------------------------------------------------------ files


def read_documents(
    files: str | Path | Sequence[str | Path],
    *,
    text_column: str | None = None,
    id_column: str | None = None,
    text_as: TextAs | None = None,
    input_format: str | None = None,
) -> Iterator[Document]:
    r"""Read documents from files, one by one.

    Parameters
    ----------
    files : str, path, or sequence of them
    text_column : str, optional
        Of tables; in JSONL and Parquet ``a.b`` is ``b`` inside ``a``. By default "text", or the only column.
    id_column : str, optional
        Of tables. By default "id" or "_id" if present, else the id is file and line.
    text_as : {"lines", "file"}, optional
        What is a document of a text file. By default a line of a .txt, and the whole of any other.
    input_format : {"text", "csv", "tsv", "jsonl", "parquet"}, optional
        By default by the file's suffix.

    Yields
    ------
    Document

    Raises
    ------
    InputError
        A ValueError with file and line, as `minisbert.tables.read_records`; for a text or an id that is none, an empty
        id, and a repeated column.
    OSError
        For a file that cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "menu.csv"
    >>> _ = file.write_text("id,text,lang\n7,soup,en\n8,th\u00e9,fr\n")
    >>> [(document.id, document.text, document.metadata) for document in read_documents(file)]
    [('7', 'soup', {'lang': 'en'}), ('8', 'thé', {'lang': 'fr'})]
    """
    for file in [files] if isinstance(files, (str, Path)) else files:
        name = Path(file).as_posix()
        kind = input_format or _told(file)
        if kind == "text":
            yield from _read_text(file, name, text_as)
            continue
        records = _read_parquet(file, name) if kind == "parquet" else _read_table(file, kind)
        for line, record in records:
            yield _from_record(record, text_column, id_column, name, line)


def _told(file: str | Path) -> str:
    """The format by the file's suffix."""
    return "parquet" if str(file).lower().endswith((".parquet", ".pq")) else told_format(file) or "text"


def _read_text(file: str | Path, name: str, text_as: TextAs | None) -> Iterator[Document]:
    """Read lines, or a whole file."""
    by_line = text_as == "lines" or (text_as is None and name.lower().removesuffix(".gz").endswith(".txt"))
    with open_bytes(file) as stream:
        lines = decode_lines(stream, name)
        if by_line:
            for number, line in lines:
                if line.strip():
                    yield Document(line, f"{name}:{number}", {}, name)
            return
        text = "\n".join(line for _, line in lines)
        if text.strip():
            yield Document(text, name, {}, name)


def _read_table(file: str | Path, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read all columns of a CSV or TSV, or the objects of a JSONL."""
    if kind == "jsonl":
        with open_bytes(file) as stream:
            for line, record in json_lines(decode_lines(stream, str(file)), str(file)):
                if not isinstance(record, dict):
                    raise InputError(f"{file}, line {line}: expected a JSON object with a text, got {record!r:.60}")
                yield line, record
        return
    names = read_names(file, kind)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{file}: {twice[0]!r} is the name of {names.count(twice[0])} columns: {list_columns(names)}")
    for line, values in read_records(file, names, input_format=kind):
        yield line, dict(zip(names, values, strict=True))


def _read_parquet(file: str | Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read rows of a Parquet file as JSON objects, a few at a time; "lines" are rows from 1."""
    with Path(file).open("rb"):  # a clearer error than DuckDB's, which would also accept a URL
        pass
    duckdb = require_duckdb()
    # For DuckDB * ? [ are patterns, which would read other files.
    exact = "".join(f"[{c}]" if c in "*?[" else c for c in str(Path(file).absolute()))
    with connect(other_files=True) as connection:
        try:
            found = connection.execute(
                'SELECT to_json("the row")::VARCHAR FROM read_parquet(?, hive_partitioning = false) AS "the row"',
                [exact],
            )
            blocks = iter(lambda: found.fetchmany(ROWS), [])
            for row, (record,) in enumerate(chain.from_iterable(blocks), 1):
                yield row, json.loads(record)
        except duckdb.Error as error:
            raise InputError(f"{name}: not readable as Parquet: {str(error).splitlines()[0]}") from None


def _from_record(
    record: dict[str, Any], text_column: str | None, id_column: str | None, name: str, line: int
) -> Document:
    """Take text and id out of a row; the rest is metadata."""
    where = f"{name}, line {line}"
    column = text_column or (next(iter(record)) if len(record) == 1 else TEXT_COLUMN)
    if text_column is None and column not in record:
        raise InputError(
            f"{where}: no column {TEXT_COLUMN!r}; choose the column of the text (text_column): "
            f"{list_columns(list(record))}"
        )
    text = checked_text(follow_path(record, column, where), column, where)
    key = id_column or next((c for c in ID_COLUMNS if c in record), None)
    if key == column:
        raise InputError(f"{where}: {key!r} cannot be both text and id")
    if key is None:
        made = f"{name}:{line}"
    else:
        value = follow_path(record, key, where)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise InputError(f"{where}: the id in {key!r} must be a string or a whole number, got {value!r:.60}")
        made = str(value)
    metadata = _without(record, column)
    metadata = _without(metadata, key) if key is not None else metadata
    try:
        return as_document(Document(text, made, metadata, name), where)
    except ValueError as error:
        raise InputError(str(error)) from None


def _without(record: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Copy an object without one field, by its name, else by its path."""
    if path in record:
        return {key: value for key, value in record.items() if key != path}
    first, _, rest = path.partition(".")
    return {key: _without(value, rest) if key == first and rest else value for key, value in record.items()}
