"""Files -> documents: a text with an id; everything else in its row is metadata.

==================  ==============================================================================================
file                documents
==================  ==============================================================================================
.txt                each line, as for ``minisbert embed -i``; blank lines are skipped
a table            each row: one column is the text, one may be the id, all others are metadata
anything else       the whole file, such as .md
==================  ==============================================================================================

All but Parquet may be compressed (.gz). Indexing an id again replaces its document. A row without an id gets the file's
name, as given, and the line: ``notes.txt:12``. Reading is strict, as in ``tables.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minisbert.checks import check_sequence, out_of_arrow
from minisbert.tables import (
    InputError,
    checked_id,
    checked_text,
    follow_path,
    read_table,
    told_format,
)

ID_COLUMNS = ("id", "_id")


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
    for name in ("text", "id", "source"):
        checked_text(getattr(value, name), name, where)
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
    input_format: str | None = None,
    **reading: Any,
) -> Iterator[Document]:
    r"""Read documents from files, one by one.

    Parameters
    ----------
    files : str, path, or sequence of them
    text_column : str, optional
        Of tables; in JSON and Parquet ``a.b`` is ``b`` inside ``a``. By default by its name
        (`minisbert.tables.MEANINGS`), or the only one that looks like text.
    id_column : str, optional
        Of tables. By default "id" or "_id" if present, else the id is file and line.
    input_format : {"text", "csv", "tsv", "jsonl", "json", "parquet"}, optional
        By default by the file's suffix.
    **reading
        Of `minisbert.tables.read_table`: ``delimiter``, ``quoting``. A row without a text is no document; a warning
        counts such rows.

    Yields
    ------
    Document

    Raises
    ------
    InputError
        A ValueError with file and line, as `minisbert.tables.read_table`; for a text or an id that is none, an empty
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
        table = read_table(file, input_format=input_format or told_format(file) or "text", **reading)
        if table.kind == "text":
            texts: Iterable[tuple[str, str]] = ((f"{name}:{line}", row["text"]) for line, row in table)
            if not name.lower().removesuffix(".gz").endswith(".txt"):
                texts = [(name, "\n".join(text for _, text in texts))]
            yield from (Document(text, made, {}, name) for made, text in texts if text.strip())
            continue
        column = table.find("text", text_column, hint="text_column='NAME' says which")
        usual = next((name for name in ID_COLUMNS if name in table.columns), None)
        key = usual if id_column is None else table.column(id_column)
        if key == column:
            raise InputError(f"{table.name}: {key!r} cannot be both text and id")
        for line, record in table.filled(column):
            where = table.where(line)
            made = f"{name}:{line}"
            if id_column is not None or key in record:
                made = str(checked_id(follow_path(record, str(key), where), str(key), where))
            metadata = _without(record, column)
            metadata = _without(metadata, key) if key is not None else metadata
            try:
                document = as_document(Document(follow_path(record, column, where), made, metadata, name), where)
            except ValueError as error:
                raise InputError(str(error)) from None
            yield document


def _without(record: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Copy an object without one field, by its name, else by its path."""
    if path in record:
        return {key: value for key, value in record.items() if key != path}
    first, _, rest = path.partition(".")
    return {key: _without(value, rest) if key == first and rest else value for key, value in record.items()}
