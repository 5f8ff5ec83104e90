"""A query vector -> the closest documents, in memory or in SQL, optionally under a condition.

A document's score is that of its best chunk: chunks are fetched in order of their score, and more of them until they
cover enough documents, which is exact. In memory ``exact.py`` compares the query with one float32 array; under a
condition that many chunks meet, all are compared and the others skipped (no copy), under a narrow one the matching
chunks are picked out in blocks. In SQL DuckDB reads the file front to back and adds float32 products in another order:
scores differ by some 1e-7 of the vectors' lengths. Equal scores: the document added first.

Letters: ``M`` chunks, ``D`` width of a vector, ``k`` documents wanted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minisbert.model import Array
from minisbert.search.filters import Filter
from minisbert.search.nearest import nearest
from minisbert.search.storage import Storage, Vectors

__all__ = ["Hit", "check_fields", "count_fields", "matching", "search_in_memory", "search_in_sql"]

DENSE = 0.1  # share of all chunks that meet a condition from which they are not picked out
FILTERED_ROWS = 8192  # vectors picked out and compared at a time
# float32, like the vectors; the query is normalised if the vectors are
SCORE_SQL = {
    "cosine": "array_inner_product(vector, ?::FLOAT[{width}])",
    "dot": "array_inner_product(vector, ?::FLOAT[{width}])",
    "euclidean": "-array_distance(vector, ?::FLOAT[{width}])",
}


@dataclass(frozen=True)
class Hit:
    """A document found, with its best chunk.

    Parameters
    ----------
    id : str
    score : float
        The model's own similarity, larger is closer; a cosine is in [-1, 1].
    text : str
        Of the chunk, which is the characters ``[start, stop)`` of the document.
    start, stop : int
    chunk : int
        Number of the chunk, from 0.
    metadata : dict
    source : str
        Of the document, such as a file's name.

    Examples
    --------
    >>> hit = Hit("7", 0.52, "soup", 0, 4, 0, {"price": 4.5}, "menu.csv")
    >>> hit.id, hit.metadata["price"]
    ('7', 4.5)
    """

    id: str
    score: float
    text: str
    start: int
    stop: int
    chunk: int
    metadata: dict[str, Any]
    source: str


# ------------------------------------------------------------------------------------------------ conditions


def count_fields(storage: Storage) -> dict[str, int]:
    """Number of documents with each field of metadata."""
    return dict(
        storage.rows(
            "SELECT name, count(*) FROM (SELECT unnest(json_keys(metadata)) AS name FROM documents) "
            "GROUP BY name ORDER BY name"
        )
    )


def check_fields(storage: Storage, condition: Filter) -> None:
    """Raise a `FilterError` for a field that no document has: a misspelt name would silently find nothing."""
    for field in condition.fields:
        pointers = " OR ".join(["json_exists(metadata, ?)"] * len(field.pointers))
        if not storage.rows(f"SELECT 1 FROM documents WHERE {pointers} LIMIT 1", field.pointers):
            known = ", ".join(f"{name!r:.40}" for name in count_fields(storage)) or "none at all"
            condition.refuse(field.place, f"no document has a field {field.name!r:.60}; there are: {known}")


def matching(storage: Storage, condition: Filter) -> Array:
    """Numbers of the documents that meet a condition, int64."""
    found = storage.columns(f"SELECT number FROM documents WHERE {condition.sql}", condition.parameters)
    return np.asarray(found["number"], np.int64)


# ------------------------------------------------------------------------------------------------ in memory


def search_in_memory(
    storage: Storage, loaded: Vectors, query: Array, top_k: int, similarity: str, rows: Array | None
) -> list[Hit]:
    """The documents closest to a float32 vector ``(D,)`` among the loaded chunks or some rows of them, best first."""
    whole = len(loaded.vectors)
    count = whole if rows is None else len(rows)
    if rows is not None and len(rows) >= DENSE * whole and count:
        chunks, scores = _compare(query, loaded.vectors, min(4 * top_k * whole // count, whole), similarity)
        meets = np.isin(chunks, rows)
        best = _best_of_documents(loaded.documents[chunks[meets]], top_k)
        if len(best) == top_k:
            return _loaded_hits(storage, loaded, chunks[meets][best], scores[meets][best])
    wanted = min(top_k, count)
    while wanted:
        chunks, scores = _best_chunks(loaded.vectors, query, wanted, similarity, rows)
        best = _best_of_documents(loaded.documents[chunks], top_k)
        if len(best) == top_k or wanted == count:
            return _loaded_hits(storage, loaded, chunks[best], scores[best])
        wanted = min(4 * wanted, count)
    return []


def _compare(query: Array, vectors: Array, wanted: int, similarity: str) -> tuple[Array, Array]:
    """Rows closest to a query, and their scores."""
    ids, scores = nearest(query, vectors, wanted, similarity)
    return ids[0], scores[0]


def _best_chunks(vectors: Array, query: Array, wanted: int, similarity: str, rows: Array | None) -> tuple[Array, Array]:
    """The best chunks and their scores; with rows, only of these, picked out in blocks."""
    if rows is None:
        return _compare(query, vectors, wanted, similarity)
    ids, scores = np.empty(0, np.intp), np.empty(0, np.float32)
    for start in range(0, len(rows), FILTERED_ROWS):
        part = rows[start : start + FILTERED_ROWS]
        places, found = _compare(query, vectors[part], min(wanted, len(part)), similarity)
        ids, scores = np.concatenate([ids, part[places]]), np.concatenate([scores, found])
        kept = np.lexsort((ids, -scores))[:wanted]
        ids, scores = ids[kept], scores[kept]
    return ids, scores


def _best_of_documents(documents: Array, top_k: int) -> Array:
    """Places of the first chunk of each document, of the first ``top_k`` documents."""
    _, first = np.unique(documents, return_index=True)
    return np.sort(first)[:top_k]


def _loaded_hits(storage: Storage, loaded: Vectors, chunks: Array, scores: Array) -> list[Hit]:
    """Hits for chunks given by their rows among the vectors."""
    columns = loaded.documents, loaded.numbers, loaded.starts, loaded.stops
    return _hits(storage, [*(column[chunks].tolist() for column in columns), scores.tolist()])


# ------------------------------------------------------------------------------------------------ in SQL


def search_in_sql(storage: Storage, query: Array, top_k: int, similarity: str, condition: Filter | None) -> list[Hit]:
    """Find the closest documents in DuckDB, then the best chunk of each, best first; a zero query has no cosine."""
    if similarity == "cosine":
        length = float(np.linalg.norm(query.astype(np.float64)))
        if not length:
            raise ValueError(
                "search: the query's vector is all zeros and has no direction; no encoder returns such a vector"
            )
        query = query / length
    score = SCORE_SQL[similarity].format(width=len(query))
    of_these, parameters = "", [query.tolist()]
    if condition is not None:
        of_these = f"WHERE document IN (SELECT number FROM documents WHERE {condition.sql})"
        parameters += condition.parameters
    best = storage.rows(
        f"SELECT document, max({score}) AS score FROM chunks {of_these} GROUP BY document "
        f"ORDER BY score DESC, document LIMIT {int(top_k)}",
        parameters,
    )
    chunks: dict[int, tuple[Any, ...]] = {}
    for document, *rest in storage.rows(
        f"SELECT document, number, start, stop, {score} AS score FROM chunks "
        "WHERE document IN (SELECT unnest(?::BIGINT[])) ORDER BY score DESC, number",
        [query.tolist(), [document for document, _ in best]],
    ):
        chunks.setdefault(document, (document, *rest))
    return _hits(storage, list(zip(*(chunks[document] for document, _ in best), strict=True)))


def _hits(storage: Storage, columns: Sequence[Sequence[Any]]) -> list[Hit]:
    """Fetch texts and metadata of chunks: numbers of documents and chunks, starts, stops, scores."""
    if not columns or not columns[0]:
        return []
    documents, numbers, starts, stops, scores = columns
    found = {
        number: rest
        for number, *rest in storage.rows(
            "SELECT number, id, substring(text, start + 1, stop - start), metadata, source FROM documents JOIN "
            "(SELECT unnest(?::BIGINT[]) AS document, unnest(?::BIGINT[]) AS start, unnest(?::BIGINT[]) AS stop) "
            "ON document = number",
            [list(documents), list(starts), list(stops)],
        )
    }
    hits = []
    for document, number, start, stop, score in zip(documents, numbers, starts, stops, scores, strict=True):
        key, text, metadata, source = found[document]
        hits.append(Hit(key, float(score), text, start, stop, number, json.loads(metadata), source))
    return hits
