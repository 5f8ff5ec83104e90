"""The k best documents of each query: every document is compared, none is copied, and ties go by id.

The corpus is read in blocks. A matrix product estimates the scores of a block; whoever could be among the k best, by
the bound on the estimate's error, is scored exactly and merged with the best so far (``scoring.py`` says why there are
two scores). So the answer is a function of the vectors alone: score descending, then id ascending, whatever the sizes
of the blocks, the number of threads, or the other queries of the call.

**Memory.** Beside its arguments and its result a search holds a copy of the queries and one block's work, below
`WORK_BYTES` at the default sizes and up to 1000 documents a query: no copy of the corpus, normalised or other. A
memory-mapped corpus (``np.load(file, mmap_mode="r")``) is read once, from front to back.

**Speed.** One query among float32 vectors is bound by reading them. On two quiet cores of a Zen 5 server, D = 384,
k = 10, vectors of length 1, queries one by one: median 7.2 ms among 100,000 (1.1 MiB beside 146 MiB of vectors), 66 ms
among 1,000,000 (8.5 MiB beside 1465). Lengths that are not known double it: 16 ms among 100,000. Where other programs
keep the cores busy BLAS's threads wait for each other, which can take three times as long. To measure here::

    python -c "from minisbert.search.exact import time_search; print(time_search(100_000))"

``evaluation/retrieval.py`` has a search of its own, because it measures as trec_eval does: ties by document id
*descending*, as text, and the best of a document's chunks. It holds all scores of a block of queries, and
``ranking.rank`` sorts them as they come. Here ids are row numbers, ascending among equals.

Left out on purpose: approximate indices, because the exact answer takes less than a tenth of a second among a million;
and texts: vectors come in, row numbers go out. Next file: ``mining.py``, the closest pairs of one list.

Letters: ``Q`` queries, ``M`` documents, ``D`` their width, ``k = min(top_k, M)``.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array
from minisbert.search.scoring import (
    Block,
    ScoreFunction,
    Scorer,
    as_vectors,
    build_scorer,
    check_count,
    common_dtype,
)

__all__ = ["SearchTime", "find_best", "search_arrays", "semantic_search", "time_search", "top_scores", "walk"]

NAMES = "query_embeddings", "corpus_embeddings"

WORK_BYTES = 64 * 2**20
"""What a search may hold beside its arguments, its result and a copy of the queries."""

BLOCK_NUMBERS = 2**21  # numbers of a block of documents: 8 MiB in float32, which stays near the processor
BLOCK_SCORES = 2**19  # scores held at a time; each may become a candidate, if all documents tie


def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    top_k: int = 10,
    score_function: str | ScoreFunction = "cosine",
    *,
    query_chunk_size: int | None = None,
    corpus_chunk_size: int | None = None,
) -> list[list[dict[str, int | float]]]:
    """Find the documents closest to each query.

    Parameters
    ----------
    query_embeddings : array_like, shape (Q, D) or (D,)
    corpus_embeddings : array_like, shape (M, D)
        float32 or float64 without a copy, memory-mapped too; float16 and integers are widened block by block.
    top_k : int
        Documents a query, at least 1; with fewer documents, all.
    score_function : {"cosine", "dot", "euclidean", "manhattan"} or callable
        A callable takes ``(q, D), (m, D)`` and gives ``(q, m)``, larger for closer. Its scores are taken as they come:
        only if they do not depend on the block, the result does not.
    query_chunk_size, corpus_chunk_size : int, optional
        Rows compared at a time; by default what stays below `WORK_BYTES`. They change time and memory, not the result.

    Returns
    -------
    list of Q lists of dict
        ``{"corpus_id": row, "score": score}``, best first, equal scores by id, ascending. Cosines are in [-1, 1].

    Raises
    ------
    ValueError
        For widths that differ, NaN, Inf, a row of zeros under the cosine, ``top_k`` or sizes below 1.

    Notes
    -----
    **Source**: ``sentence_transformers.util.semantic_search``, which leaves the order of ties open, gives rows of zeros
    the score 0, and passes NaN on.

    Examples
    --------
    >>> corpus = [[0.0, 2.0], [3.0, 0.0], [0.0, 1.0]]
    >>> semantic_search([[0.0, 1.0]], corpus, top_k=2)
    [[{'corpus_id': 0, 'score': 1.0}, {'corpus_id': 2, 'score': 1.0}]]
    """
    sizes = query_chunk_size, corpus_chunk_size
    ids, scores = find_best("semantic_search", NAMES, query_embeddings, corpus_embeddings, top_k, score_function, sizes)
    return [
        [{"corpus_id": corpus_id, "score": score} for corpus_id, score in zip(*row, strict=True)]
        for row in zip(ids.tolist(), scores.tolist(), strict=True)
    ]


def search_arrays(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    top_k: int = 10,
    score_function: str | ScoreFunction = "cosine",
    *,
    query_chunk_size: int | None = None,
    corpus_chunk_size: int | None = None,
) -> tuple[Array, Array]:
    """Find the documents closest to each query, as arrays.

    Parameters
    ----------
    query_embeddings, corpus_embeddings, top_k, score_function, query_chunk_size, corpus_chunk_size
        As in `semantic_search`.

    Returns
    -------
    ids : Array of intp, shape (Q, k)
        Rows of the corpus, best first, equal scores by id, ascending.
    scores : Array, shape (Q, k)
        float32 if both sides are float32 or float16, else float64.

    Raises
    ------
    ValueError
        As `semantic_search`.

    Examples
    --------
    >>> search_arrays([[0.0, 1.0]], [[0.0, 2.0], [3.0, 0.0], [0.0, 1.0]], top_k=2)
    (array([[0, 2]]), array([[1., 1.]]))
    """
    sizes = query_chunk_size, corpus_chunk_size
    return find_best("search_arrays", NAMES, query_embeddings, corpus_embeddings, top_k, score_function, sizes)


def top_scores(query_embeddings: ArrayLike, corpus: ArrayLike, top_k: int, *, normalized: bool) -> tuple[Array, Array]:
    """Find the documents of the highest cosine with each query: what the database calls.

    Parameters
    ----------
    query_embeddings : array_like, shape (Q, D) or (D,)
        Of any length.
    corpus : array_like, shape (M, D)
    top_k : int
        At least 1.
    normalized : bool
        Whether the rows of the corpus have length 1. Their lengths are then not computed; a row of zeros scores 0.

    Returns
    -------
    ids : Array of intp, shape (Q, k)
        Best first, equal scores by id, ascending.
    scores : Array, shape (Q, k)
        In [-1, 1].

    Raises
    ------
    ValueError
        As `search_arrays`, and if a document scores above 1 that was said to have length 1.

    Examples
    --------
    >>> top_scores([0.0, 5.0], [[0.6, 0.8], [0.0, 1.0]], 1, normalized=True)
    (array([[1]]), array([[1.]]))
    """
    kind = "unit" if normalized else "cosine"
    return find_best("top_scores", ("query_embeddings", "corpus"), query_embeddings, corpus, top_k, kind)


# --------------------------------------------------------------------------------------------------- search


def find_best(
    caller: str,
    names: tuple[str, str],
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    top_k: int,
    score_function: str | ScoreFunction,
    chunk_sizes: tuple[int | None, int | None] = (None, None),
) -> tuple[Array, Array]:
    """Walk over the corpus once, and keep the k best of each query: `search_arrays`, in somebody else's name.

    Parameters
    ----------
    caller, names
        Whom and what an error message names.
    query_embeddings, corpus_embeddings, top_k, score_function
        As in `semantic_search`.
    chunk_sizes : tuple of two int, optional
        Queries and documents at a time.

    Returns
    -------
    ids, scores : Array, shape (Q, k)
        As `search_arrays`.

    Examples
    --------
    >>> find_best("match", ("a", "b"), [[0.0, 1.0]], [[0.0, 2.0], [3.0, 0.0]], 1, "cosine")
    (array([[0]]), array([[1.]]))
    """
    queries, corpus = as_vectors(caller, names[0], query_embeddings), as_vectors(caller, names[1], corpus_embeddings)
    dtype = common_dtype(caller, names, queries, corpus)
    best = min(check_count(caller, "top_k", top_k), len(corpus))
    scorer = build_scorer(caller, names, score_function, queries, dtype)
    ids, scores = np.empty((len(queries), best), np.intp), np.empty((len(queries), best), dtype)
    for chosen, block in walk(caller, scorer, corpus, *chunk_sizes):
        _keep_best(scorer, chosen, block, ids[chosen], scores[chosen])
    return ids, scores


def walk(
    caller: str,
    scorer: Scorer,
    corpus: Array,
    query_chunk_size: int | None = None,
    corpus_chunk_size: int | None = None,
) -> Iterator[tuple[slice, Block]]:
    """Pair all queries with all documents, a block at a time, and each document is read once.

    Parameters
    ----------
    caller : str
        Whom an error message names.
    scorer : Scorer
        Made of the queries.
    corpus : Array, shape (M, D)
    query_chunk_size, corpus_chunk_size : int, optional
        As in `semantic_search`.

    Yields
    ------
    slice
        Of the queries.
    Block
        Of the documents.

    Examples
    --------
    >>> scorer = build_scorer("search", ("q", "d"), "cosine", np.ones((3, 2)), np.dtype(np.float64))
    >>> [(chosen.start, block.start) for chosen, block in walk("search", scorer, np.ones((5, 2)), 2, 4)]
    [(0, 0), (2, 0), (0, 4), (2, 4)]
    """
    if query_chunk_size is not None:
        check_count(caller, "query_chunk_size", query_chunk_size)
    for start, stop in _block_bounds(caller, scorer, corpus, corpus_chunk_size):
        block = scorer.read(corpus, start, stop)
        step = query_chunk_size or max(1, BLOCK_SCORES // (stop - start))
        for first in range(0, len(scorer.queries), step):
            yield slice(first, first + step), block


def _block_bounds(caller: str, scorer: Scorer, corpus: Array, size: int | None) -> Iterator[tuple[int, int]]:
    """Say which documents to read at a time, ``[start, stop)``."""
    # With few queries the blocks are long, because BLAS's threads wait for each other at the end of each. Where a block
    # has to be copied, for its dtype or its order in memory, it is short, and so is the first, from which all later
    # ones learn what a document must score.
    asked = len(scorer.queries)
    short = min(BLOCK_SCORES, max(1, BLOCK_NUMBERS // corpus.shape[1])) if size is None else size
    short = check_count(caller, "corpus_chunk_size", short)
    is_copied = corpus.dtype != scorer.queries.dtype or corpus.itemsize not in corpus.strides
    is_short = size is not None or is_copied or scorer.kind == "function"
    long = short if is_short else max(short, BLOCK_SCORES // max(1, asked))
    start = 0
    while asked and start < len(corpus):
        stop = min(start + (long if start else short), len(corpus))
        yield start, stop
        start = stop


def _keep_best(scorer: Scorer, chosen: slice, block: Block, ids: Array, scores: Array) -> None:
    """Merge a block into the best so far: writes into ids and scores, ``(q, k)``."""
    best = ids.shape[1]
    before, after = min(best, block.start), min(best, block.start + len(block.rows))  # columns that are filled
    estimates = scorer.estimate(chosen, block)  # (q, m)
    is_candidate = estimates >= _floor(estimates, scores[:, :before], best, block.error)
    if block.unsure is not None:
        is_candidate[:, block.unsure] = True
    places = np.flatnonzero(is_candidate)
    if not len(places):
        return
    rows, columns = np.divmod(places, len(block.rows))
    found = scorer.exact(chosen, block, estimates, rows, columns)
    row_of = np.concatenate([np.repeat(np.arange(len(ids)), before), rows])
    all_ids = np.concatenate([ids[:, :before].ravel(), columns + block.start])  # of a query: equal scores by id
    all_scores = np.concatenate([scores[:, :before].ravel(), found])
    order = np.lexsort((-all_scores, row_of))  # keeps the order of equal ones
    counts = np.bincount(row_of, minlength=len(ids))
    ranks = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[ranks < after]  # each query's first ones, equally many
    ids[:, :after] = all_ids[kept].reshape(len(ids), after)
    scores[:, :after] = all_scores[kept].reshape(len(ids), after)


def _floor(estimates: Array, kept: Array, best: int, error: float) -> Array | float:
    """Say from which estimate on a document of this block can be among the best, for each query: ``(q, 1)``."""
    if kept.shape[1] == best:  # exact scores: a better one may be estimated lower by one error
        floor: Array = kept[:, -1:] - error
        return floor
    place = estimates.shape[1] - best
    if place < 0:
        return -np.inf
    # best documents are estimated at this or more, so truly no lower than one error below it, and whoever beats one
    # of them may be estimated another error lower
    kth: Array = np.partition(estimates, place, axis=1)[:, place : place + 1]
    return kth - 2.0 * error


# ------------------------------------------------------------------------------------------------- measured


class SearchTime(NamedTuple):
    """How long one query takes, and what it needs."""

    p50_ms: float  # median, milliseconds
    p95_ms: float
    extra_mib: float  # largest memory beside the vectors, MiB
    corpus_mib: float


def time_search(documents: int, width: int = 384, top_k: int = 10, queries: int = 50) -> SearchTime:
    """Measure searches of one query each among random float32 vectors of length 1.

    Parameters
    ----------
    documents, width, top_k, queries : int
        At least 1.

    Returns
    -------
    SearchTime

    Examples
    --------
    >>> measured = time_search(1000, width=16, queries=3)
    >>> measured.p50_ms > 0 and measured.extra_mib < 1
    True
    """
    rng = np.random.default_rng(0)
    corpus = np.empty((documents, width), np.float32)
    for start in range(0, documents, 10_000):
        rows = rng.standard_normal((len(corpus[start : start + 10_000]), width), np.float32)
        corpus[start : start + 10_000] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    asked = rng.standard_normal((queries, width), np.float32)
    times = []
    for query in asked:
        begin = time.perf_counter()
        top_scores(query, corpus, top_k, normalized=True)
        times.append(1000.0 * (time.perf_counter() - begin))
    tracemalloc.start()
    top_scores(asked[0], corpus, top_k, normalized=True)
    extra = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    p50, p95 = np.percentile(times, [50, 95])
    return SearchTime(float(p50), float(p95), extra / 2**20, corpus.nbytes / 2**20)
