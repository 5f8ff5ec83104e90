"""`EmbeddingDatabase`: documents and their vectors in one file, searched by meaning and by metadata.

Search is exact. Either all vectors are loaded once into one float32 array, or DuckDB reads the file front to back for
each query (``searching.py``). By default they are loaded if 1.5 times their size is at most half of the free memory.
The file holds the fingerprint of the model that made its vectors; no other model may add or search.

Letters: ``Q`` queries, ``M`` chunks, ``D`` width of a vector.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import each_text
from minisbert.encoder import SentenceEncoder
from minisbert.saved import Origin
from minisbert.search.documents import Document
from minisbert.search.errors import DatabaseError
from minisbert.search.filters import Filter, parse_filter
from minisbert.search.indexing import (
    BLOCK_DOCUMENTS,
    AddReport,
    Settings,
    add_documents,
    check_settings,
    remove_documents,
)
from minisbert.search.memory import fits_into_memory
from minisbert.search.searching import Hit, check_fields, count_fields, matching, search_in_memory, search_in_sql
from minisbert.search.storage import Storage, Vectors, create

__all__ = ["DatabaseError", "Document", "EmbeddingDatabase", "Hit", "IndexInfo"]


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


class EmbeddingDatabase:
    """Documents and their vectors in a DuckDB file, made by :meth:`open`; for one thread at a time.

    Parameters
    ----------
    storage, encoder, in_sql
        An open file and what :meth:`open` takes.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "notes.duckdb"
    >>> with EmbeddingDatabase.open(file, SentenceEncoder()) as index:
    ...     _ = index.add([Document("Knead flour, water and yeast.", "7", {"lang": "en"}), "The train is late."])
    ...     [(hit.id, hit.text) for hit in index.search("baking bread", top_k=1, where="lang = 'en'")]
    [('7', 'Knead flour, water and yeast.')]
    """

    def __init__(self, storage: Storage, encoder: SentenceEncoder | None, in_sql: bool | None) -> None:
        self._storage = storage
        self._encoder = encoder
        self._in_sql = in_sql
        self._loaded: Vectors | None = None
        self.settings = Settings(**storage.meta["settings"])

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: SentenceEncoder | None = None,
        *,
        read_only: bool = False,
        in_sql: bool | None = None,
        model_name: str | None = None,
        chunk_tokens: int | None = None,
        overlap: int | None = None,
        document_prompt: str | None = None,
        query_prompt: str | None = None,
    ) -> EmbeddingDatabase:
        """Open a database, or make one where there is none.

        Parameters
        ----------
        path : str or path
        encoder : SentenceEncoder, optional
            Without one, texts can be neither added nor searched for.
        read_only : bool
            Several processes may read at a time, while none writes.
        in_sql : bool, optional
            Search in DuckDB instead of NumPy; by default if the vectors do not fit into memory.
        model_name : str, optional
            The model's name in a new database; by default the encoder's folder.
        chunk_tokens, overlap, document_prompt, query_prompt : optional
            Settings of a new database; the defaults are the model's. Those of an existing one cannot be changed.

        Raises
        ------
        DatabaseError
            A ValueError: no such file, not a DuckDB file, damaged, open in another process, or other settings.
        OriginError
            A ValueError: made by another model.
        ValueError
            If DuckDB is not installed, or the model does not support the settings.
        """
        file = Path(path)
        asked: dict[str, Any] = {
            "chunk_tokens": chunk_tokens,
            "overlap": overlap,
            "document_prompt": document_prompt,
            "query_prompt": query_prompt,
        }
        if encoder is not None and not read_only and not file.exists():
            settings = check_settings(encoder, **asked)
            about = {"model": model_name or str(encoder.folder), "fingerprint": encoder.fingerprint()}
            width = encoder.get_sentence_embedding_dimension()
            create(file, width, {**about, "settings": asdict(settings)})
        storage = Storage(file, read_only=read_only)
        try:
            index = cls(storage, encoder, in_sql)
            index._check(asked)
        except BaseException:
            storage.close()
            raise
        return index

    def _check(self, asked: dict[str, Any]) -> None:
        """Reject another model and other settings."""
        meta, path = self._storage.meta, self._storage.path
        if self._encoder is not None:
            origin = Origin(meta["model"], meta["fingerprint"])
            origin.check(
                self._encoder, f"the database {path}", "use the model that built it, or build another database"
            )
        for name, value in asked.items():
            kept = getattr(self.settings, name)
            if value is not None and value != kept:
                raise DatabaseError(f"{path}: was built with {name} = {kept!r}, not {value!r}; build another database")

    @property
    def path(self) -> Path:
        """The file, as named."""
        return self._storage.path

    def __enter__(self) -> EmbeddingDatabase:
        """Close it at the end of a ``with`` statement."""
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of documents."""
        return int(self._storage.rows("SELECT count(*) FROM documents")[0][0])

    def close(self) -> None:
        """Release the file and the vectors."""
        self._loaded = None
        self._storage.close()

    # -------------------------------------------------------------------------------------------- documents

    def add(
        self,
        documents: Iterable[Document | str],
        *,
        total: int | None = None,
        show_progress_bar: bool = False,
        block_documents: int = BLOCK_DOCUMENTS,
    ) -> AddReport:
        """Add new documents and replace changed ones; unchanged ones are not embedded again.

        A text alone is a document whose id comes from the text. Documents are stored in blocks of at most
        ``block_documents``; an invalid document or a repeated id raises a ValueError, and the blocks before it are
        kept.
        """
        encoder = self._model()
        self._loaded = None
        return add_documents(
            self._storage,
            encoder,
            self.settings,
            documents,
            total=total,
            show_progress_bar=show_progress_bar,
            block_documents=block_documents,
        )

    def remove(self, ids: Sequence[str] = (), *, where: str | None = None) -> int:
        """Remove documents by id and those that meet a condition; return how many. If an id is unknown, none is."""
        if isinstance(ids, str):
            raise ValueError(f"remove: expected a sequence of ids, got the string {ids!r:.60}")
        found = dict(
            self._storage.rows(
                "SELECT id, number FROM documents WHERE id IN (SELECT unnest(?::VARCHAR[]))", [list(ids)]
            )
        )
        unknown = [key for key in ids if key not in found]
        if unknown:
            named = ", ".join(f"{key!r:.60}" for key in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            raise DatabaseError(f"{self._storage.path}: no document {named}; nothing was removed")
        numbers = set(found.values())
        if where is not None:
            condition = parse_filter(where)
            check_fields(self._storage, condition)
            numbers |= set(matching(self._storage, condition).tolist())
        if numbers:
            self._loaded = None
            remove_documents(self._storage, sorted(numbers))
        return len(numbers)

    def get(self, document_id: str) -> Document:
        """Return a whole document; a `DatabaseError` if there is none with this id."""
        found = self._storage.rows("SELECT text, id, metadata, source FROM documents WHERE id = ?", [document_id])
        if not found:
            raise DatabaseError(f"{self._storage.path}: no document {document_id!r:.60}")
        text, key, metadata, source = found[0]
        return Document(text, key, json.loads(metadata), source)

    def info(self) -> IndexInfo:
        """Describe the contents."""
        rows, meta, path = self._storage.rows, self._storage.meta, self._storage.path
        ((chunks,),) = rows("SELECT count(*) FROM chunks")
        sources = rows("SELECT source, count(*) FROM documents GROUP BY source ORDER BY source")
        sizes = (file.stat().st_size for file in (path, path.with_name(path.name + ".wal")) if file.exists())
        return IndexInfo(
            path=str(path),
            documents=len(self),
            chunks=chunks,
            width=meta["width"],
            model=meta["model"],
            fingerprint=meta["fingerprint"],
            settings=self.settings,
            schema_version=meta["schema_version"],
            fields=count_fields(self._storage),
            sources=dict(sources),
            file_bytes=sum(sizes),
        )

    # ----------------------------------------------------------------------------------------------- search

    def search(self, query: str | Iterable[str], top_k: int = 10, where: str | None = None) -> Any:
        """Find the documents closest in meaning to a query.

        Parameters
        ----------
        query : str or iterable of str
        top_k : int
            At least 1.
        where : str, optional
            A condition on the metadata (`minisbert.search.filters`), such as ``lang = 'en' AND year >= 2020``.

        Returns
        -------
        list of Hit, or list of them
            For a text or an iterable: best first; fewer than ``top_k`` if no more meet the condition.

        Raises
        ------
        FilterError
            A ValueError with a caret: not a condition, or a field that no document has.
        DatabaseError
            If there are no documents.
        """
        encoder = self._model()
        self._check_search(top_k, where)  # before the query is embedded
        texts = list(each_text(query, "search: query", single=True))
        found = self.search_vectors(encoder.encode(texts, prompt=self.settings.query_prompt), top_k, where)
        return found[0] if isinstance(query, str) else found

    def search_vectors(self, query_embeddings: ArrayLike, top_k: int = 10, where: str | None = None) -> list[list[Hit]]:
        """`search` for vectors ``(Q, D)`` or ``(D,)``: Q lists of hits."""
        condition = self._check_search(top_k, where)
        queries = np.atleast_2d(np.asarray(query_embeddings, np.float32))  # (Q, D)
        width, similarity = self._storage.meta["width"], self.settings.similarity
        if queries.ndim != 2 or queries.shape[1] != width or not np.isfinite(queries).all():
            raise ValueError(
                f"search_vectors: expected finite query_embeddings (Q, D) with D = {width}, got {queries.shape}"
            )
        if self.searches_in_sql():
            return [search_in_sql(self._storage, query, top_k, similarity, condition) for query in queries]
        loaded, rows = self._load(), None
        if condition is not None:
            rows = np.flatnonzero(np.isin(loaded.documents, matching(self._storage, condition)))
        return [search_in_memory(self._storage, loaded, query, top_k, similarity, rows) for query in queries]

    def searches_in_sql(self) -> bool:
        """Whether DuckDB searches, not NumPy: as asked for, else by the free memory."""
        if self._in_sql is not None:
            return self._in_sql
        if self._loaded is not None:
            return False
        chunks = self._storage.rows("SELECT count(*) FROM chunks")[0][0]
        return not fits_into_memory(4 * chunks * self._storage.meta["width"])

    def load(self) -> None:
        """Load the vectors now, not at the first search."""
        self._load()

    def _load(self) -> Vectors:
        if self._loaded is None:
            self._loaded = self._storage.load_vectors()
        return self._loaded

    def _model(self) -> SentenceEncoder:
        if self._encoder is None:
            raise DatabaseError(f"{self._storage.path}: opened without an encoder, which this call needs")
        return self._encoder

    def _check_search(self, top_k: int, where: str | None) -> Filter | None:
        """Check that a search is possible, and its condition."""
        if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1:
            raise ValueError(f"search: top_k must be a whole number of at least 1, got {top_k!r}")
        condition = None if where is None else parse_filter(where)
        if not self._storage.rows("SELECT 1 FROM documents LIMIT 1"):
            raise DatabaseError(f"{self._storage.path}: contains no documents yet; add some with `minisbert index add`")
        if condition is not None:
            check_fields(self._storage, condition)
        return condition
