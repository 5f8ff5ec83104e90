"""The k best documents of each query, by exact comparison with every document.

The corpus is read in blocks. A matrix product estimates a block's scores; every document that could be among the k
best, given the bound on the estimate's error, is scored exactly and merged with the best so far (``scoring.py`` says
why there are two scores). So the result depends on the vectors alone: score descending, then id ascending, whatever the
block sizes, the number of threads, or the other queries of the call.

Besides its arguments and result a search holds a copy of the queries and one block's work (below `WORK_BYTES` at the
default sizes and up to 1000 documents a query): never a copy of the corpus. A memory-mapped corpus (``np.load(file,
mmap_mode="r")``) is read once, front to back. Reading bounds the speed. Two quiet cores of a Zen 5 server, D = 384, k =
10, float32 unit vectors, one query at a time: median 7.2 ms among 100,000 (1.1 MiB on top of 146), 66 ms among
1,000,000 (8.5 on top of 1465); 16 ms among 100,000 if the lengths are unknown. On busy cores BLAS's threads wait for
each other, up to three times as long. To measure::

    python -c "from minisbert.search.exact import time_search; print(time_search(100_000))"

``evaluation/retrieval.py`` searches by trec_eval's rules instead (ties by document id *descending*, as text; the best
of a document's chunks). No approximate index: the exact answer takes less than 0.1 s among a million.

Letters: ``Q`` queries, ``M`` documents, ``D`` width, ``k = min(top_k, M)``.
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
"""Memory of a search besides its arguments, its result and a copy of the queries."""

BLOCK_NUMBERS = 2**21  # numbers in a block of documents: 8 MiB in float32, which stays in the cache
BLOCK_SCORES = 2**19  # scores held at a time; each may become a candidate if all documents tie


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
        float32 or float64 (also memory-mapped) without a copy; float16 and integers are widened block by block.
    top_k : int
        Documents per query, at least 1.
    score_function : {"cosine", "dot", "euclidean", "manhattan"} or callable
        A callable maps ``(q, D), (m, D)`` to ``(q, m)``, larger for closer. Its scores are used as they are: if they
        depend on the block, so does the result.
    query_chunk_size, corpus_chunk_size : int, optional
        Rows compared at a time, by default as many as stay below `WORK_BYTES`. They change time and memory, not the
        result.

    Returns
    -------
    list of Q lists of dict
        ``{"corpus_id": row, "score": score}``, best first, equal scores by ascending id. Cosines are in [-1, 1].

    Raises
    ------
    ValueError
        If widths differ; for NaN, Inf, a row of zeros under the cosine, ``top_k`` or sizes below 1.

    Notes
    -----
    **Source**: ``sentence_transformers.util.semantic_search``, which leaves the order of ties open, scores rows of
    zeros 0, and passes NaN on.

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
    """`semantic_search` with arrays for a result: ids and scores, in float32 if both sides are float32 or float16.

    (Q, D), (M, D) -> (Q, k), (Q, k)
    """
    sizes = query_chunk_size, corpus_chunk_size
    return find_best("search_arrays", NAMES, query_embeddings, corpus_embeddings, top_k, score_function, sizes)


def top_scores(query_embeddings: ArrayLike, corpus: ArrayLike, top_k: int, *, normalized: bool) -> tuple[Array, Array]:
    """The documents of highest cosine with each query, for the database.

    ``normalized`` promises rows of length 1, whose lengths are then not computed: a row of zeros scores 0, and a score
    above 1 is an error.

    (Q, D), (M, D) -> (Q, k), (Q, k)
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
    """`search_arrays` for other callers: ``caller`` and ``names`` appear in error messages."""
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
    """Pair all queries with all documents, block by block: slices of the queries, blocks of documents, each read once.

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
    """Bounds ``[start, stop)`` of the blocks of documents."""
    # With few queries the blocks are long, because BLAS's threads wait for each other at the end of each. A block that
    # has to be copied, for its dtype or memory order, is short, and so is the first one, from which all later blocks
    # learn what a document must score.
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
    before, after = min(best, block.start), min(best, block.start + len(block.rows))  # filled columns
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
    all_ids = np.concatenate([ids[:, :before].ravel(), columns + block.start])  # per query: equal scores by id
    all_scores = np.concatenate([scores[:, :before].ravel(), found])
    order = np.lexsort((-all_scores, row_of))  # a stable sort
    counts = np.bincount(row_of, minlength=len(ids))
    ranks = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[ranks < after]  # the first of each query, equally many
    ids[:, :after] = all_ids[kept].reshape(len(ids), after)
    scores[:, :after] = all_scores[kept].reshape(len(ids), after)


def _floor(estimates: Array, kept: Array, best: int, error: float) -> Array | float:
    """The lowest estimate with which a document of this block can be among the best, per query: ``(q, 1)``."""
    if kept.shape[1] == best:  # exact scores: a better document's estimate may be lower by one error
        return kept[:, -1:] - error
    place = estimates.shape[1] - best
    if place < 0:
        return -np.inf
    # best documents are estimated at this or more, so their scores are at most one error lower, and a document
    # that beats one of them may be estimated another error lower.
    kth: Array = np.partition(estimates, place, axis=1)[:, place : place + 1]
    return kth - 2.0 * error


# ------------------------------------------------------------------------------------------------- measured


class SearchTime(NamedTuple):
    """Time and memory of one query."""

    p50_ms: float  # median, milliseconds
    p95_ms: float
    extra_mib: float  # peak memory besides the vectors, MiB
    corpus_mib: float


def time_search(documents: int, width: int = 384, top_k: int = 10, queries: int = 50) -> SearchTime:
    """Measure searches of one query each among random float32 unit vectors.

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
