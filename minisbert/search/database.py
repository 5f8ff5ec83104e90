"""`EmbeddingDatabase`: documents and their vectors in one DuckDB file, searched by meaning and by metadata.

=========  ==========================================================================================================
table      a row
=========  ==========================================================================================================
meta       a name and a value in JSON: schema version, fingerprint of the model, width, settings, number of changes
documents  number, id, text, metadata (JSON), hash of the content, source
chunks     document (its number), number (from 0), start and stop in the text, vector ``FLOAT[D]``
=========  ==========================================================================================================

Any program that speaks DuckDB can read them. A search loads all vectors once into one float32 array and compares the
query with every one of them (``nearest.py``). Documents are stored in blocks, each in a transaction, so a killed run
loses at most the block it was working on; started again, it skips what is there. The file keeps the fingerprint of the
model that made its vectors; no other model may add or search.

A search sees one state of the file from its first look to its last, whatever other threads change meanwhile. What it
keeps in memory is of the change whose number stands in the file, and read again after the next, whoever made it.

Conditions run on a copy of the metadata in memory, in a database of its own that can reach no file: nothing that is
typed there can read or change anything else.

Letters: ``Q`` queries, ``M`` chunks, ``D`` width of a vector.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import check_sequence, check_vectors, check_whole, each_text, require
from minisbert.encoder import Progress, SentenceEncoder, progress_bar
from minisbert.model import Array
from minisbert.nearest import nearest_groups
from minisbert.saved import Origin
from minisbert.search.documents import Document, check_documents

SCHEMA_VERSION = 1
TABLES = """
CREATE TABLE meta (name VARCHAR PRIMARY KEY, value JSON NOT NULL);
CREATE TABLE documents (
    number BIGINT NOT NULL, id VARCHAR PRIMARY KEY, text VARCHAR NOT NULL, metadata JSON NOT NULL,
    hash VARCHAR NOT NULL, source VARCHAR NOT NULL
);
CREATE TABLE chunks (
    document BIGINT NOT NULL, number INTEGER NOT NULL, start BIGINT NOT NULL, stop BIGINT NOT NULL,
    vector FLOAT[{width}] NOT NULL
);
"""
BLOCK_DOCUMENTS = 1024  # stored at a time: a second or two of work if they are short
BLOCK_CHARACTERS = 2**19  # if they are long
# Of whoever asks DuckDB something, in all openings of a process: they share its memory limit, which loading lowers.
WORKING = threading.RLock()
LOADED_ROWS = 2048  # vectors read at a time
LOADING_MIB = 4  # by which DuckDB's memory may grow while vectors are read, so that they are not there twice
# What a column of text is in conditions, if all its texts look like this; no number begins with 0, which may be a code.
LOOKS = {
    "BIGINT": "[-+]?(0|[1-9][0-9]{0,17})",
    "HUGEINT": "[-+]?(0|[1-9][0-9]{0,36})",
    "DOUBLE": "[-+]?((0|[1-9][0-9]{0,14})([.][0-9]*)?|[.][0-9]+)([eE][-+]?[0-9]{1,2})?",
    "BOOLEAN": "(?i:true|false)",
}
Parameters = Sequence[Any] | Mapping[str, Any] | None


class DatabaseError(ValueError):
    """A database that cannot be read or written, or a condition that cannot be asked: the file and DuckDB's words."""


@dataclass(frozen=True)
class Settings:
    """How documents become vectors: the same for all documents of a database."""

    chunk_tokens: int  # per chunk, special tokens and prompt included
    overlap: int  # tokens
    document_prompt: str  # before every document
    query_prompt: str  # before every query
    similarity: str


@dataclass(frozen=True)
class AddReport:
    """What happened to the documents that were added."""

    added: int
    replaced: int
    unchanged: int
    chunks: int  # embedded


@dataclass(frozen=True)
class Hit:
    """A document found, with its best chunk.

    Parameters
    ----------
    id, score, text, start, stop, chunk, metadata, source
        As the fields below say.

    Examples
    --------
    >>> hit = Hit("7", 0.62, "Knead flour.", 0, 12, 0, {"lang": "en"}, "notes.txt")
    >>> hit.id, hit.text, hit.metadata
    ('7', 'Knead flour.', {'lang': 'en'})
    """

    id: str
    score: float  # by the model's own similarity, larger is closer
    text: str  # of the chunk: the characters [start, stop) of the document
    start: int
    stop: int
    chunk: int  # its number, from 0
    metadata: dict[str, Any]
    source: str  # of the document, such as a file's name


@dataclass(frozen=True)
class IndexInfo:
    """What a database contains."""

    path: str
    documents: int
    chunks: int
    width: int  # D
    model: str  # as named
    fingerprint: str  # of the model's files
    settings: Settings
    schema_version: int
    fields: dict[str, int]  # of the metadata: number of documents with each
    sources: dict[str, int]  # number of documents of each
    file_bytes: int


@dataclass(frozen=True)
class Loaded:
    """All chunks, in the order of their documents."""

    documents: Array  # (M,) the document's number
    places: Array  # (M, 3) number, start, stop
    vectors: Array  # (M, D) float32
    lengths: Array  # (M,)


class EmbeddingDatabase:
    """Documents and their vectors in a DuckDB file, made by :meth:`open`; threads may share one.

    Parameters
    ----------
    path : str or path
    encoder : SentenceEncoder, optional
        Without one, texts can be neither added nor searched for.
    read_only : bool
        Several processes may read at a time, while none writes.
    model_name : str, optional
        The model's name in a new database; by default the encoder's folder.
    chunk_tokens, overlap, document_prompt, query_prompt : optional
        Settings of a new database; those of an existing one cannot be changed. By default the model's limit, no
        overlap, its prompt "document", "passage" or "corpus", and its prompt "query".

    Raises
    ------
    DatabaseError
        A ValueError: no such file, not a DuckDB file, damaged, open in another process, or other settings.
    OriginError
        A ValueError: made by another model.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "notes.duckdb"
    >>> with EmbeddingDatabase.open(file, SentenceEncoder()) as index:
    ...     _ = index.add([Document("Knead flour, water and yeast.", "7", {"lang": "en"}), "The train is late."])
    ...     [(hit.id, hit.text) for hit in index.search("baking bread", top_k=1, where="lang = 'en'")]
    [('7', 'Knead flour, water and yeast.')]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        encoder: SentenceEncoder | None = None,
        *,
        read_only: bool = False,
        model_name: str | None = None,
        chunk_tokens: int | None = None,
        overlap: int | None = None,
        document_prompt: str | None = None,
        query_prompt: str | None = None,
    ) -> None:
        self.path = path = Path(path)
        self._encoder, self._read_only = encoder, read_only
        asked: dict[str, Any] = {"chunk_tokens": chunk_tokens, "overlap": overlap}
        asked |= {"document_prompt": document_prompt, "query_prompt": query_prompt}
        self._kept: dict[str, tuple[Any, Any]] = {}  # in memory, each with the number of the change it is of
        if encoder is not None and not read_only and not path.exists():
            settings, width = asdict(_settings(encoder, **asked)), encoder.get_embedding_dimension()
            about = {"model": model_name or str(encoder.folder), "fingerprint": encoder.fingerprint()}
            _create(path, {**about, "settings": settings, "width": width})
        if not path.exists():
            raise DatabaseError(f"{path}: does not exist; create it with `minisbert index build {path} FILES...`")
        if not path.is_file():
            raise DatabaseError(f"{path}: a folder or device; expected a DuckDB file")
        with path.open("rb") as stream:  # for some other files DuckDB would look for an extension
            if stream.read(12)[8:] != b"DUCK":
                raise DatabaseError(f"{path}: not a DuckDB file, or damaged at the start")
        with _explained(path):
            self._connection = _connect(str(path.resolve()), read_only)
        try:
            tables = {name for (name,) in self._rows("SELECT table_name FROM information_schema.tables")}
            if not {"meta", "documents", "chunks"} <= tables:
                raise DatabaseError(f"{path}: a DuckDB file, but not one that `minisbert index` created")
            self._meta = {name: json.loads(value) for name, value in self._rows("SELECT name, value FROM meta")}
            if self._meta.get("schema_version") != SCHEMA_VERSION:
                raise DatabaseError(
                    f"{path}: has schema version {self._meta.get('schema_version')}, this minisbert reads "
                    f"{SCHEMA_VERSION}; use the minisbert that created it, or build it again"
                )
            self.settings = Settings(**self._meta["settings"])
            if encoder is not None:
                origin = Origin(self._meta["model"], self._meta["fingerprint"])
                origin.check(encoder, f"the database {path}", "use the model that built it, or build another database")
            for name, value in asked.items():
                kept = getattr(self.settings, name)
                if value not in (None, kept):
                    raise DatabaseError(f"{path}: was built with {name} = {kept!r}, not {value!r}; build another one")
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], encoder: SentenceEncoder | None = None, **options: Any
    ) -> EmbeddingDatabase:
        """Open a database, or make one where there is none; the options are the class's."""
        return cls(path, encoder, **options)

    def __enter__(self) -> EmbeddingDatabase:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of documents."""
        return int(self._rows("SELECT count(*) FROM documents")[0][0])

    def close(self) -> None:
        """Release the file and the vectors."""
        with WORKING, _explained(self.path):
            self._kept.clear()
            self._connection.close()

    # -------------------------------------------------------------------------------------------- documents

    def add(
        self,
        documents: Iterable[Document | str],
        *,
        total: int | None = None,
        show_progress_bar: Progress = False,
        block_documents: int = BLOCK_DOCUMENTS,
    ) -> AddReport:
        """Add new documents and replace changed ones; unchanged ones are not embedded again.

        A text alone is a document whose id comes from the text. Documents are stored in blocks of at most
        ``block_documents``; an invalid document or a repeated id raises a ValueError, and the blocks before it are
        kept, as they are if the disk is full.
        """
        encoder, counts = self._model(), np.zeros(4, int)
        with progress_bar(total, show_progress_bar) as bar:
            for block in _blocks(check_documents(documents), check_whole("add: block_documents", block_documents, 1)):
                counts += self._add_block(encoder, block)
                if bar is not None:
                    bar.update(len(block))
        return AddReport(*counts.tolist())

    def _add_block(self, encoder: SentenceEncoder, block: Sequence[Document]) -> tuple[int, int, int, int]:
        """Embed and store what is new: added, replaced, unchanged, chunks."""
        of_ids = "FROM documents WHERE id IN (SELECT unnest(?::VARCHAR[]))"
        stored = dict(self._rows(f"SELECT id, hash {of_ids}", [[document.id for document in block]]))
        hashes = {document.id: document.content_hash for document in block}
        fresh = [document for document in block if stored.get(document.id) != hashes[document.id]]
        if not fresh:
            return 0, 0, len(block), 0
        embedded = encoder.encode_chunks(
            [document.text for document in fresh],
            chunk_tokens=self.settings.chunk_tokens,
            overlap=self.settings.overlap,
            prompt=self.settings.document_prompt,
            normalize_embeddings=self.settings.similarity == "cosine",
        )
        chunks = [chunk for one in embedded for chunk in one.chunks]
        vectors = np.concatenate([one.embeddings for one in embedded]).astype(np.float32)  # (M, D)
        arrow, ids = require("pyarrow", "search", "the embedding database"), [document.id for document in fresh]
        with self._change() as cursor:  # others may have changed something since
            old = [number for (number,) in cursor.execute(f"SELECT number {of_ids}", [ids]).fetchall()]
            ((first,),) = cursor.execute("SELECT coalesce(max(number), -1) + 1 FROM documents").fetchall()
            numbers = np.arange(first, first + len(fresh))
            rows_of_documents = {
                "number": numbers,
                "id": ids,
                "text": [document.text for document in fresh],
                "metadata": [document.metadata_json for document in fresh],
                "hash": [hashes[document.id] for document in fresh],
                "source": [document.source for document in fresh],
            }
            rows_of_chunks = {
                "document": np.repeat(numbers, [len(one.chunks) for one in embedded]),
                "number": np.concatenate([np.arange(len(one.chunks)) for one in embedded]),
                "start": [chunk.start for chunk in chunks],
                "stop": [chunk.stop for chunk in chunks],
                "vector": arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.ravel()), vectors.shape[1]),
            }
            _delete(cursor, old)
            for table, columns in (("documents", rows_of_documents), ("chunks", rows_of_chunks)):
                cursor.register("incoming", arrow.table(columns))
                cursor.execute(f"INSERT INTO {table} SELECT * FROM incoming").fetchall()
                cursor.unregister("incoming")
        return len(fresh) - len(old), len(old), len(block) - len(fresh), len(chunks)

    def remove(self, ids: Sequence[str] = (), *, where: str | None = None, parameters: Parameters = None) -> int:
        """Remove documents by id and those that meet a condition; return how many. If an id is unknown, none is."""
        if isinstance(ids, str):
            raise ValueError(f"remove: expected a sequence of ids, got the string {ids!r:.60}")
        with self._change() as cursor:
            sql = "SELECT id, number FROM documents WHERE id IN (SELECT unnest(?::VARCHAR[]))"
            found = dict(cursor.execute(sql, [list(ids)]).fetchall())
            if unknown := [key for key in ids if key not in found]:
                named = ", ".join(f"{key!r:.60}" for key in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
                raise DatabaseError(f"{self.path}: no document {named}; nothing was removed")
            numbers = set(found.values())
            if (meeting := self._meeting(cursor, where, parameters)) is not None:
                numbers |= set(meeting.tolist())
            _delete(cursor, sorted(numbers))
        return len(numbers)

    def get(self, document_id: str) -> Document:
        """Return a whole document; a `DatabaseError` if there is none with this id."""
        for text, key, metadata, source in self._rows(
            "SELECT text, id, metadata, source FROM documents WHERE id = ?", [document_id]
        ):
            return Document(text, key, json.loads(metadata), source)
        raise DatabaseError(f"{self.path}: no document {document_id!r:.60}")

    def info(self) -> IndexInfo:
        """Describe the contents."""
        files = (self.path, self.path.with_name(self.path.name + ".wal"))
        names = "SELECT unnest(json_keys(metadata)) AS name FROM documents"
        return IndexInfo(
            path=str(self.path),
            documents=len(self),
            chunks=self._rows("SELECT count(*) FROM chunks")[0][0],
            settings=self.settings,
            fields=dict(self._rows(f"SELECT name, count(*) FROM ({names}) GROUP BY name ORDER BY name")),
            sources=dict(self._rows("SELECT source, count(*) FROM documents GROUP BY source ORDER BY source")),
            file_bytes=sum(file.stat().st_size for file in files if file.exists()),
            **{name: self._meta[name] for name in ("width", "model", "fingerprint", "schema_version")},
        )

    # ----------------------------------------------------------------------------------------------- search

    def search(
        self, query: str | Iterable[str], top_k: int = 10, where: str | None = None, parameters: Parameters = None
    ) -> Any:
        """Find the documents closest in meaning to a query.

        Parameters
        ----------
        query : str or iterable of str
        top_k : int
            At least 1.
        where : str, optional
            A condition in DuckDB's SQL on the metadata, such as ``lang = 'en' AND year >= 2020``. Its columns are
            ``id``, ``source``, every field of the metadata by its name, and the whole as JSON, ``metadata``. A field
            is of the type that all its values have; texts that are all numbers, or all true or false, are such.
            The metadata's field ``source`` is meant, if there is one, else the documents'. Fields named ``id``,
            ``metadata`` or ``rowid`` are ``metadata->>'id'`` and so on.
        parameters : sequence or mapping, optional
            Values of ``?`` or of ``$name`` in the condition.

        Returns
        -------
        list of Hit, or list of them
            For a text or an iterable: best first, ties in the order of adding; fewer than ``top_k`` if no more meet
            the condition.

        Raises
        ------
        DatabaseError
            A ValueError: not a condition, or no documents.
        """
        encoder = self._model()
        top_k = check_whole("search: top_k", top_k, 1)
        with self._snapshot() as cursor:
            self._meeting(cursor, where, parameters)  # a mistake shows before the query is embedded
        texts = list(each_text(query, "search: query", single=True))
        found = self.search_vectors(encoder.encode(texts, prompt=self.settings.query_prompt), top_k, where, parameters)
        return found[0] if isinstance(query, str) else found

    def search_vectors(
        self, query_embeddings: ArrayLike, top_k: int = 10, where: str | None = None, parameters: Parameters = None
    ) -> list[list[Hit]]:
        """`search` for vectors ``(Q, D)`` or ``(D,)``: Q lists of hits."""
        what = "search: query_embeddings"
        queries = check_vectors(np.atleast_2d(np.asarray(query_embeddings)), what, width=self._meta["width"])
        with self._snapshot() as cursor:
            loaded, keep = self._of_now(cursor, self._load), None
            if not len(loaded.documents):
                raise DatabaseError(f"{self.path}: contains no documents yet; add some with `minisbert index add`")
            if (meeting := self._meeting(cursor, where, parameters)) is not None:
                meets = np.zeros(loaded.documents[-1] + 1, bool)
                meets[meeting] = True
                keep = meets[loaded.documents]  # (M,)
            ids, scores = nearest_groups(
                *(queries.astype(np.float32), loaded.vectors, loaded.documents, top_k, self.settings.similarity),
                keep=keep,
                lengths=loaded.lengths,
                what="search",
            )
            numbers = loaded.documents[ids]  # (Q, k)
            chosen = "WHERE number IN (SELECT unnest(?::BIGINT[]))"
            sql = f"SELECT number, id, text, metadata, source FROM documents {chosen}"
            with WORKING:
                of = {row[0]: row[1:] for row in cursor.execute(sql, [np.unique(numbers).tolist()]).fetchall()}
        found: list[list[Hit]] = []
        for row in zip(numbers.tolist(), loaded.places[ids].tolist(), scores.tolist(), strict=True):
            found.append([])
            for number, (chunk, start, stop), score in zip(*row, strict=True):
                key, text, metadata, source = of[number]
                found[-1].append(Hit(key, score, text[start:stop], start, stop, chunk, json.loads(metadata), source))
        return found

    def load(self) -> Loaded:
        """Load the vectors now, not at the first search."""
        with self._snapshot() as cursor:
            return self._of_now(cursor, self._load)

    def _of_now(self, cursor: Any, make: Callable[[Any], Any]) -> Any:
        """What is made from the state that a cursor sees: kept in memory, and made anew once the file has changed."""
        with WORKING:
            change = None  # of a file that is open for reading, which nobody can change
            if not self._read_only:
                change = cursor.execute("SELECT value FROM meta WHERE name = 'changes'").fetchall()
            if self._kept.get(make.__name__, ("",))[0] != change:
                self._kept.pop(make.__name__, None)  # not in memory twice
                self._kept[make.__name__] = change, make(cursor)
            return self._kept[make.__name__][1]

    def _load(self, cursor: Any) -> Loaded:
        """Copy all vectors out of the file, block by block, with little of it in DuckDB's cache, and nothing after."""
        ((count, end),) = cursor.execute("SELECT count(*), coalesce(max(rowid), -1) + 1 FROM chunks").fetchall()
        numbers = np.empty((count, 4), np.int64)  # (M, 4) document, number, start, stop
        vectors = np.empty((count, self._meta["width"]), np.float32)  # (M, D)
        ((used,),) = self._rows("SELECT sum(memory_usage_bytes) FROM duckdb_memory()")
        least = used // 2**20 + LOADING_MIB
        most = least + 3 * 2048 * 4 * vectors.shape[1] // 2**20  # DuckDB works on 2,048 rows at a time
        start = 0
        try:
            self._rows(f"SET memory_limit = '{most}MiB'; SET threads = 1")
            for first in range(0, end, LOADED_ROWS):
                rows = cursor.sql(
                    "SELECT document, vector, number, start, stop FROM chunks "
                    f"WHERE rowid >= {first} AND rowid < {first + LOADED_ROWS}"
                ).to_arrow_table()
                part, start = slice(start, start + len(rows)), start + len(rows)
                vectors[part] = _array(rows["vector"]).reshape(-1, vectors.shape[1])
                numbers[part] = np.stack([_array(column) for column in rows.drop("vector").columns], axis=1)
        finally:
            with suppress(DatabaseError):  # it forgets what it has read
                self._rows(f"SET memory_limit = '{least}MiB'")
            self._rows("RESET memory_limit; RESET threads")
        order = np.lexsort((numbers[:, 1], numbers[:, 0]))
        if (order[1:] < order[:-1]).any():  # DuckDB keeps the order of insertion, unless somebody has told it not to
            numbers, vectors = numbers[order], vectors[order]
        lengths = np.sqrt(np.einsum("md,md->m", vectors, vectors))
        return Loaded(numbers[:, 0].copy(), numbers[:, 1:], vectors, lengths)

    def _meeting(self, snapshot: Any, where: str | None, parameters: Parameters) -> Array | None:
        """Numbers of the documents that meet a condition, as DuckDB understands it; None without a condition."""
        if isinstance(parameters, Mapping):
            given: Any = {name: _plain(value) for name, value in parameters.items()}
        else:
            wanted = "a list of values for each ?, such as [2020], or a dict of values for each $name"
            check_sequence(() if parameters is None else parameters, f"{self.path}: parameters", wanted)
            given = [_plain(value) for value in parameters or ()]
        if where is None and given:
            raise DatabaseError(f"{self.path}: parameters: values for a condition, but there is none; pass where=...")
        if where is None:
            return None
        if not isinstance(where, str) or not where.strip():
            raise DatabaseError(
                f"{self.path}: where: expected one condition, such as \"lang = 'en'\", got {where!r:.80}; leave it out "
                "to search everything"
            )
        connection, numbers = self._of_now(snapshot, self._conditions)
        with closing(connection.cursor()) as cursor, _explained(self.path, "where: "):
            # One condition and nothing behind it: it must be right alone, where a ) too many is a mistake, and in
            # parentheses, where a clause, a UNION or another statement is.
            cursor.extract_statements(f"SELECT 1 WHERE\n{where}\n")
            sql = f"SELECT rowid FROM documents WHERE (\n{where}\n)"
            try:
                found = cursor.sql(sql, params=given or None)
            except check_duckdb().Error:
                cursor.execute(sql, given or [])  # raises the same with a caret under the place
                raise
            return numbers[_array(found.to_arrow_table()["rowid"])]

    def _conditions(self, cursor: Any) -> tuple[Any, Array]:
        """Ids and metadata in a table in memory with a typed column a field, and the documents' numbers."""
        rows = cursor.sql("SELECT number, id, source, metadata FROM documents").to_arrow_table()
        connection = _connect(":memory:", False)
        connection.register("incoming", rows)
        connection.execute("CREATE TEMP VIEW stored AS SELECT id, source, metadata::JSON AS metadata FROM incoming")
        kinds = "SELECT any_value(metadata) AS one FROM stored GROUP BY json_structure(metadata)"  # many MiB less
        ((structure,),) = connection.execute(f"SELECT json_group_structure(one) FROM ({kinds})").fetchall()
        columns, taken = ["id", "metadata"], {"id", "metadata", "rowid"}
        fields = json.loads(structure or "{}")  # '"JSON"' if no document has a field
        for name, kind in sorted(fields.items() if isinstance(fields, dict) else (), reverse=True):  # "a" before "A"
            if name.lower() in taken or not name:  # DuckDB's names differ by more than case; it stays in the JSON
                continue
            taken.add(name.lower())
            pointer = _quoted("/" + name.replace("~", "~0").replace("/", "~1"), "'")
            value = f"json_extract_string(metadata, {pointer})"
            if kind == "VARCHAR":
                texts = f"nullif({value}, '')"
                looks = ", ".join(f"bool_and(regexp_full_match({texts}, '{look}'))" for look in LOOKS.values())
                (alike,) = connection.execute(f"SELECT {looks} FROM stored").fetchall()
                better = next((kind for kind, all_alike in zip(LOOKS, alike, strict=True) if all_alike), None)
                value = f"{texts}::{better}" if better else value
            elif kind not in ("JSON", "NULL"):  # values of several types stay texts
                typed = f"json_transform(json_extract(metadata, {pointer}), {_quoted(json.dumps(kind), chr(39))})"
                with suppress(check_duckdb().Error):  # keys inside that cannot be names of columns: then a text, too
                    connection.execute(f"SELECT {typed} FROM stored LIMIT 0")
                    value = typed
            columns.append(f"{value} AS {_quoted(name, chr(34))}")
        if "source" not in taken:  # the documents' own field is the better known
            columns.append("source")
        connection.execute(f"CREATE TABLE documents AS SELECT {', '.join(columns)} FROM stored")
        connection.execute("DROP VIEW stored")
        connection.unregister("incoming")
        connection.execute("SET python_enable_replacements = false; SET lock_configuration = true")
        return connection, _array(rows["number"])

    # ------------------------------------------------------------------------------------------- the file

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement, on a cursor of its own, because threads share this object."""
        with WORKING, _explained(self.path), closing(self._connection.cursor()) as cursor:
            return cursor.execute(sql, list(parameters)).fetchall()

    @contextmanager
    def _snapshot(self) -> Iterator[Any]:
        """A cursor to which the file stays as it is, whatever is changed through others."""
        with _explained(self.path), closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN TRANSACTION")
            yield cursor

    @contextmanager
    def _change(self) -> Iterator[Any]:
        """All statements inside take effect, or none, and their number goes up by one."""
        with WORKING, self._snapshot() as cursor:
            try:
                yield cursor
                cursor.execute(
                    "INSERT INTO meta VALUES ('changes', '1') "
                    "ON CONFLICT (name) DO UPDATE SET value = (meta.value::BIGINT + 1)::VARCHAR"
                )
                cursor.execute("COMMIT")
            except BaseException:
                with suppress(check_duckdb().Error):
                    cursor.execute("ROLLBACK")  # DuckDB has done so itself if the commit failed
                raise

    def _model(self) -> SentenceEncoder:
        if self._encoder is None:
            raise DatabaseError(f"{self.path}: opened without an encoder, which this call needs")
        return self._encoder


@contextmanager
def _explained(path: Path, what: str = "") -> Iterator[None]:
    """Put the file before DuckDB's errors, which say the cause, and of a condition the place."""
    try:
        yield
    except (check_duckdb().Error, RuntimeError) as error:
        raise DatabaseError(f"{path}: {what}{error}") from error  # DuckDB raises some of its own as RuntimeError


def check_duckdb() -> Any:
    """DuckDB, or a ValueError that says what to install; it gives its vectors and takes them through pyarrow."""
    require("pyarrow", "search", "the embedding database")
    return require("duckdb", "search", "the embedding database")


def _connect(file: str, read_only: bool) -> Any:
    """Open a DuckDB file, or an empty database in memory, whose SQL reaches no other file and no network."""
    config = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "enable_external_access": "false",
    }
    connection = check_duckdb().connect(file, read_only=read_only, config=config)
    connection.execute("SET enable_progress_bar = false")  # drawn in notebooks and under python -c
    return connection


def _array(column: Any) -> Array:
    """A column of numbers, or of vectors end to end; Arrow's own ``to_numpy`` would import pandas, 40 MiB of it."""
    values = column.combine_chunks()
    return np.from_dlpack(values.flatten() if hasattr(values, "flatten") else values)


def _quoted(text: str, quote: str) -> str:
    """A literal or a name of SQL, in single or double quotes."""
    return quote + text.replace(quote, 2 * quote) + quote


def _plain(value: Any) -> Any:
    """A value that DuckDB takes: Python's own instead of NumPy's."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _delete(cursor: Any, numbers: list[int]) -> None:
    if numbers:
        cursor.execute("DELETE FROM chunks WHERE document IN (SELECT unnest(?::BIGINT[]))", [numbers])
        cursor.execute("DELETE FROM documents WHERE number IN (SELECT unnest(?::BIGINT[]))", [numbers])


def _blocks(documents: Iterator[Document], count: int) -> Iterator[list[Document]]:
    """Group documents into blocks, smaller ones if they are long."""
    block: list[Document] = []
    for document in documents:
        block.append(document)
        if len(block) == count or sum(len(one.text) for one in block) >= BLOCK_CHARACTERS:
            yield block
            block = []
    if block:
        yield block


def _settings(
    encoder: SentenceEncoder,
    chunk_tokens: int | None,
    overlap: int | None,
    document_prompt: str | None,
    query_prompt: str | None,
) -> Settings:
    """Complete settings with the model's own, and reject what it does not support.

    >>> _settings(SentenceEncoder(), 64, None, None, "query: ")
    Settings(chunk_tokens=64, overlap=0, document_prompt='', query_prompt='query: ', similarity='cosine')
    """
    known, documents, usual = encoder.prompts, ("document", "passage", "corpus"), encoder.default_prompt_name or ""
    if document_prompt is None:  # never the one of queries, nor the other way round
        document_prompt = next((known[x] for x in (*documents, usual) if x in known and x != "query"), "")
    if query_prompt is None:
        query_prompt = next((known[x] for x in ("query", usual) if x in known and x not in documents), "")
    chunk_tokens = chunk_tokens or encoder.max_seq_length
    # rejects impossible limits before any work
    encoder.encode_chunks([], prompt=document_prompt, chunk_tokens=chunk_tokens, overlap=overlap)
    return Settings(chunk_tokens, overlap or 0, document_prompt, query_prompt, encoder.similarity_fn_name)


def _create(path: Path, meta: Mapping[str, Any]) -> None:
    """Make an empty database; it appears whole or not at all, and never in place of another process's."""
    target = path.resolve()
    if not target.parent.is_dir():
        raise DatabaseError(f"{path}: the folder {path.parent} does not exist; create it first")
    for left in target.parent.glob(f".{target.name}.*.unfinished*"):  # by a killed run
        owner = left.name.removeprefix(f".{target.name}.").split(".")[0]
        if os.name != "nt" and owner.isdigit():
            with suppress(PermissionError):
                try:
                    os.kill(int(owner), 0)
                except ProcessLookupError:
                    left.unlink(missing_ok=True)
    target.with_name(target.name + ".wal").unlink(missing_ok=True)  # of a database that is gone
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        with _explained(path), closing(_connect(str(unfinished), False)) as connection:
            connection.execute(TABLES.format(width=int(meta["width"])))
            for name, value in {**meta, "schema_version": SCHEMA_VERSION}.items():
                connection.execute("INSERT INTO meta VALUES (?, ?)", [name, json.dumps(value)])
            connection.execute("CHECKPOINT")  # closing does that, too, but says nothing about a full disk
        try:
            os.link(unfinished, target)  # renaming would replace
        except FileExistsError:
            raise DatabaseError(f"{path}: another process has just created it; run the command again") from None
        except OSError:  # a file system without hard links
            unfinished.rename(target)
    finally:
        for left in (unfinished, unfinished.with_name(unfinished.name + ".wal")):
            left.unlink(missing_ok=True)
