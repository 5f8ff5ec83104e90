"""The nearest vectors, exactly: search, close pairs, communities, and the matching of two lists.

One walk over blocks serves them all. A matrix product is the only fast way to compare many with many, but nobody
promises its last digit: BLAS adds up in an order that depends on the block's shape, the row's place in it, the
processor and the number of threads. Two equal documents then differ by one rounding, and "ties by id" means nothing.
So a score has two forms:

- The **estimate** is the product, in the vectors' own dtype. A sum of D products with unit roundoff ``u`` is off by at
  most ``D u / (1 - D u) |q| |d|`` in any order; the bound is more than twice that, because lengths are rounded too.
- The **exact score** is computed from two rows alone: products in float64, added up in NumPy's own order, divided by
  the lengths, rounded once. So ``score(u, v) = score(v, u)``, equal rows score equally, and the cosine of a row with
  itself is 1.

Estimates and their bound say which documents could be among the best, exact scores decide, and equal ones go by id. So
the answer depends on the vectors alone, not on block sizes, threads, or the other queries. A memory-mapped corpus is
read once, front to back; besides arguments and result a search holds one block's work, about 64 MiB.

Letters: ``Q`` queries, ``M`` documents, ``D`` width, ``k = min(top_k, M)``, ``P`` pairs; ``q`` and ``m`` in a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import check_choice, check_texts, check_vectors, check_whole, require
from minisbert.encoder import Progress, progress_bar
from minisbert.model import Array
from minisbert.parallel import threads, work_through
from minisbert.similarity import SIMILARITIES, cos_sim, dot_score

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

__all__ = [
    "Matches",
    "community_detection",
    "match",
    "nearest",
    "nearest_groups",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "semantic_search",
]

ScoreFunction: TypeAlias = "str | Callable[[Any, Any], Any]"
"""A name of `minisbert.similarity`, or ``(q, D), (m, D) -> (q, m)``, larger is closer."""

Result = TypeVar("Result")
BLOCK_SCORES = 2**21  # scores held at a time; each may become a candidate if all documents tie
BLOCK_NUMBERS = 2**21  # of documents that are copied, for their dtype or memory order, held at a time
PAIR_NUMBERS = 2**17  # multiplied pair by pair at a time: 1 MiB in float64, which stays in the cache
LISTED = 2**19  # members of communities listed at a time


# ---------------------------------------------------------------------------------------------------- the walk


class Block(NamedTuple):
    """Documents ``[start, start + m)``: a view of the corpus where possible."""

    start: int
    rows: Array  # (m, D)
    error: float  # bound on |estimate - exact score|


class Comparison:
    """Queries ready to be compared with a corpus; in float32 if both are float32 or float16, else in float64.

    ``lengths`` (M,) of a corpus, where they are known, save reading it twice; it is finite then, too.
    """

    def __init__(
        self, what: str, queries: ArrayLike, corpus: ArrayLike, score: ScoreFunction, lengths: Array | None = None
    ) -> None:
        self.what, self.corpus = what, _rows(corpus, f"{what}: vectors")  # (M, D)
        asked = _rows(queries, f"{what}: queries", self.corpus.shape[1])
        is_narrow = all(x.dtype.kind == "f" and x.itemsize <= 4 for x in (asked, self.corpus))
        self.dtype = np.dtype(np.float32 if is_narrow else np.float64)
        named = SIMILARITIES[score].matrix if isinstance(score, str) and score in SIMILARITIES else score
        if not callable(named):
            raise ValueError(f"{what}: score_function must be {', '.join(SIMILARITIES)} or a function, got {score!r}")
        self.is_cosine = named is cos_sim
        self.function = None if named in (cos_sim, dot_score) else named
        asked = check_vectors(asked.astype(self.dtype, copy=False), f"{what}: queries")
        self.queries, lengths_of_queries = _measured(asked, self.is_cosine)  # (Q, D), (Q,)
        self.directions = self.queries / lengths_of_queries[:, None] if self.is_cosine else self.queries
        self.longest = float(lengths_of_queries.max(initial=0))
        # of the documents, NaN until they are needed
        self.lengths = np.full(len(self.corpus), np.nan, self.dtype) if lengths is None else lengths  # (M,)
        self.squares = np.full(len(self.corpus), np.nan)  # (M,)

    def in_chunks(self, size: int, work: Callable[[Array], Result]) -> Iterator[tuple[Array, Result]]:
        """Do some work for all queries, some of them at a time, on every core; in any order."""
        size = check_whole(f"{self.what}: query_chunk_size", size, 1)
        chunks = [np.arange(i, min(i + size, len(self.queries))) for i in range(0, len(self.queries), size)]
        return work_through(chunks, work, threads.usable() if self.function is None else None)

    def walk(self, chosen: Array, size: int) -> Iterator[tuple[Block, Array]]:
        """Compare some queries with all documents, ``size`` of them at most at a time: estimates ``(q, m)``.

        NaN, infinity and dot products that overflow are errors.
        """
        size = min(check_whole(f"{self.what}: corpus_chunk_size", size, 1), max(1, BLOCK_SCORES // len(chosen)))
        width, limits = self.corpus.shape[1], np.finfo(self.dtype)
        if self.corpus.dtype != self.dtype or self.corpus.itemsize not in self.corpus.strides:
            size = max(1, min(size, BLOCK_NUMBERS // width))
        queries, directions = self.queries[chosen], self.directions[chosen]
        least = float(limits.max) ** -0.25  # for squares that underflow to 0
        for start in range(0, len(self.corpus), size):
            rows, lengths = self.corpus[start:][:size].astype(self.dtype, copy=False), self.lengths[start:][:size]
            if self.function is not None:
                estimates, shape = np.asarray(self.function(queries, rows), self.dtype), (len(queries), len(rows))
                if estimates.shape != shape or not np.isfinite(estimates).all():
                    raise ValueError(
                        f"{self.what}: score_function must return finite scores (q, m), here {shape}, got "
                        f"{estimates.shape}"
                    )
                yield Block(start, rows, 0.0), estimates
                continue
            if np.isnan(lengths).any():
                measured, found = _measured(rows, self.is_cosine)
                if measured is rows:  # else they have to be scaled each time
                    lengths[:] = found
                rows, lengths = measured, found
            longest = 1.0 if self.is_cosine else max(float(lengths.max(initial=0)), least) * self.longest
            if not (np.isfinite(lengths).all() and longest < limits.max / 4):
                check_vectors(self.corpus, f"{self.what}: vectors")
                raise ValueError(
                    f"{self.what}: dot products of vectors this long may overflow {self.dtype}; vectors of an encoder "
                    "have a length of about 1: scale both sides down, or use the cosine"
                )
            estimates = directions @ rows.T  # (q, m)
            if self.is_cosine:
                estimates /= lengths
            yield Block(start, rows, float((width + 8) * limits.eps * longest + width * limits.tiny)), estimates

    def exact(self, chosen: Array, block: Block, estimates: Array, rows: Array, columns: Array) -> Array:
        """Score pairs ``(P,)``, places among the estimates, query by query, each from its two rows alone."""
        if self.function is not None:
            return estimates[rows, columns]
        scores, queries = np.empty(len(rows)), self.queries[chosen].astype(np.float64)
        step = max(1, PAIR_NUMBERS // queries.shape[1])
        bounds = np.unique([*range(0, len(rows), step), *(np.flatnonzero(np.diff(rows)) + 1), len(rows)])
        for start, stop in pairwise(bounds):  # pairs of one query
            scores[start:stop] = (block.rows[columns[start:stop]] * queries[rows[start]]).sum(axis=1)
        if self.is_cosine:  # 0 for rows of zeros
            squares = self.squares[block.start :][: len(block.rows)]
            new = np.unique(columns[np.isnan(squares[columns])])
            for start in range(0, len(new), step):
                squares[new[start : start + step]] = _squares(block.rows[new[start : start + step]])
            lengths = np.sqrt(_squares(queries)[rows] * squares[columns])
            scores = np.clip(scores / np.where(lengths > 0, lengths, 1.0), -1.0, 1.0)
        return scores.astype(self.dtype)

    def reach(self, chosen: Array, threshold: float) -> Iterator[tuple[Block, Array, Array]]:
        """Which scores ``(q, m)`` reach a threshold; only those too close to call are computed exactly."""
        limit = self.dtype.type(threshold)
        for block, estimates in self.walk(chosen, len(self.corpus)):
            reached = estimates >= limit
            doubtful = np.nonzero(np.abs(estimates - limit) <= block.error)
            reached[doubtful] = self.exact(chosen, block, estimates, *doubtful) >= limit
            yield block, estimates, reached


def _rows(given: ArrayLike, what: str, width: int | None = None) -> Array:
    """Rows of numbers, an array as it is, memory-mapped or not; a single vector is one row."""
    try:
        rows = np.atleast_2d(np.asarray(given))
    except ValueError:  # rows of several widths
        return check_vectors(given, what)
    right = rows.ndim == 2 and rows.dtype.kind in "fiub" and 0 < rows.shape[1] == (width or rows.shape[1])
    return rows if right else check_vectors(rows, what, width=width)


def _measured(rows: Array, is_cosine: bool) -> tuple[Array, Array]:
    """Rows and their lengths; under the cosine 1 for zeros, and rows with too large or small squares are scaled."""
    high = float(np.finfo(rows.dtype).max) ** 0.25
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("md,md->m", rows, rows))
    odd = np.flatnonzero(~((lengths >= 1 / high) & (lengths <= high)))
    if is_cosine and len(odd) and np.isfinite(rows[odd]).all():
        rows = rows.copy()
        for part in np.array_split(odd, len(odd) * rows.shape[1] // PAIR_NUMBERS + 1):
            exponents = np.frexp(np.abs(rows[part]).max(axis=1, initial=0, keepdims=True))[1]
            rows[part] = np.ldexp(rows[part], -exponents)  # by powers of two: no digit is lost
            lengths[part] = np.sqrt(_squares(rows[part]))
        lengths[lengths == 0] = 1.0
    return rows, lengths


def _squares(rows: Array) -> Array:
    wide = rows.astype(np.float64)
    return (wide * wide).sum(axis=1)


# ------------------------------------------------------------------------------------------------------ search


def nearest(
    queries: ArrayLike,
    corpus: ArrayLike,
    top_k: int,
    score_function: ScoreFunction = "cosine",
    *,
    keep: Array | None = None,
    lengths: Array | None = None,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    what: str = "nearest",
) -> tuple[Array, Array]:
    """Ids and scores of the k best documents of each query, equal scores by ascending id; the core of all below.

    ``keep`` (M,) says which documents count, so that ``k = min(top_k, keep.sum())``; ``lengths`` (M,) of the corpus
    where they are known; ``what`` the caller, for error messages.

    (Q, D), (M, D) -> (Q, k), (Q, k)

    >>> nearest([[0.0, 1.0]], [[0.0, 2.0], [3.0, 0.0], [0.0, 1.0]], top_k=2)
    (array([[0, 2]]), array([[1., 1.]]))
    """
    comparison = Comparison(what, queries, corpus, score_function, lengths)
    best = min(check_whole(f"{what}: top_k", top_k, 1), len(comparison.corpus) if keep is None else np.sum(keep))

    def work(chosen: Array) -> tuple[Array, Array]:
        ids = np.zeros((len(chosen), best), np.intp)  # of the best so far, equal scores by id
        scores = np.full((len(chosen), best), -np.inf, comparison.dtype)
        for block, estimates in comparison.walk(chosen, corpus_chunk_size):
            if keep is not None:
                estimates[:, ~keep[block.start :][: len(block.rows)]] = -np.inf
            # A better document's estimate may be lower than the k-th exact score by one error, than the k-th estimate
            # by two: those k score at least that estimate less one error.
            floor = np.maximum(scores[:, -1:] - block.error, np.finfo(scores.dtype).min)
            if best <= (width := estimates.shape[1]):
                kth = np.partition(estimates, width - best, axis=1)[:, width - best, None]
                floor = np.maximum(floor, kth - 2 * block.error)
            rows, columns = np.divmod(np.flatnonzero(estimates >= floor), width)
            found = comparison.exact(chosen, block, estimates, rows, columns)
            of_query = np.concatenate([np.repeat(np.arange(len(ids)), best), rows])
            id_of = np.concatenate([ids.ravel(), columns + block.start])
            score_of = np.concatenate([scores.ravel(), found])
            order = np.lexsort((-score_of, of_query))  # a stable sort
            counts = np.bincount(of_query)
            ranks = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
            order = order[ranks < best].reshape(ids.shape)
            ids, scores = id_of[order], score_of[order]
        return ids, scores

    all_ids = np.empty((len(comparison.queries), best), np.intp)
    all_scores = np.empty((len(comparison.queries), best), comparison.dtype)
    if best:
        for chosen, (ids, scores) in comparison.in_chunks(query_chunk_size, work):
            all_ids[chosen], all_scores[chosen] = ids, scores
    return all_ids, all_scores


def nearest_groups(
    queries: ArrayLike, corpus: ArrayLike, groups: Array, top_k: int, score_function: ScoreFunction, **options: Any
) -> tuple[Array, Array]:
    """`nearest` of rows that belong to groups (M,), ascending: the best row of each of the k best groups ("max-sim").

    For documents of several chunks each. More and more rows are looked at until they cover enough groups.

    (Q, D), (M, D), (M,) -> (Q, k), (Q, k)

    >>> chunks = [[0.0, 1.0], [0.1, 1.0], [1.0, 0.0]]
    >>> nearest_groups([[0.0, 1.0]], chunks, np.array([0, 0, 1]), 2, "cosine")[0]
    array([[0, 2]])
    """
    keep, wanted = options.get("keep"), top_k
    while True:
        ids, scores = nearest(queries, corpus, wanted, score_function, **options)
        firsts = [np.sort(np.unique(groups[row], return_index=True)[1])[:top_k] for row in ids]
        best = min(map(len, firsts), default=top_k)
        if best == top_k or best == len(np.unique(groups if keep is None else groups[keep])):
            places = np.array(firsts, np.intp).reshape(len(ids), best)
            return np.take_along_axis(ids, places, axis=1), np.take_along_axis(scores, places, axis=1)
        wanted *= 4


def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    top_k: int = 10,
    score_function: ScoreFunction = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """Find the documents closest to each query.

    Parameters
    ----------
    query_embeddings : array_like, shape (Q, D) or (D,)
    corpus_embeddings : array_like, shape (M, D)
        Never copied as a whole; may be memory-mapped (``np.load(file, mmap_mode="r")``).
    query_chunk_size, corpus_chunk_size : int
        Rows compared at a time, at most. They change time and memory, not the result.
    top_k : int
        Documents per query, at least 1.
    score_function : callable or {"cosine", "dot", "euclidean", "manhattan"}
        ``(q, D), (m, D) -> (q, m)``, larger for closer. Other functions than `cos_sim` and `dot_score` are taken as
        exact.

    Returns
    -------
    list of Q lists of dict
        ``{"corpus_id": row, "score": score}``, best first, equal scores by ascending id.

    Raises
    ------
    ValueError
        For NaN and infinity, widths that differ, sizes below 1.

    Notes
    -----
    **Source**: ``sentence_transformers.util.semantic_search``, which leaves the order of ties open.

    Examples
    --------
    >>> corpus = [[0.0, 2.0], [3.0, 0.0], [0.0, 1.0]]
    >>> semantic_search([[0.0, 1.0]], corpus, top_k=2)
    [[{'corpus_id': 0, 'score': 1.0}, {'corpus_id': 2, 'score': 1.0}]]
    """
    ids, scores = nearest(
        *(query_embeddings, corpus_embeddings, top_k, score_function),
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size,
        what="semantic_search",
    )
    return [
        [{"corpus_id": corpus_id, "score": score} for corpus_id, score in zip(*row, strict=True)]
        for row in zip(ids.tolist(), scores.tolist(), strict=True)
    ]


# ------------------------------------------------------------------------------------------------ close pairs


def paraphrase_mining(
    model: SentenceEncoder,
    sentences: Iterable[str],
    show_progress_bar: Progress = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100_000,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
    **encode_options: Any,
) -> list[list[float | int]]:
    """Find the texts of a list that are closest in meaning.

    Parameters
    ----------
    model : SentenceEncoder
    sentences : iterable of str
    query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
        As in `paraphrase_mining_embeddings`.
    show_progress_bar, batch_size, truncate_dim, prompt_name, prompt, **encode_options
        As in :meth:`SentenceEncoder.encode`.

    Returns
    -------
    list of [score, i, j]
        As `paraphrase_mining_embeddings`; ``i`` and ``j`` are places in ``sentences``.

    Notes
    -----
    **Source**: ``sentence_transformers.util.paraphrase_mining``.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> texts = ["How do I bake bread?", "The train is late.", "Baking bread, step by step"]
    >>> [pair[1:] for pair in paraphrase_mining(SentenceEncoder(), texts, max_pairs=1)]
    [[0, 2]]
    """
    embeddings = model.encode(
        check_texts(sentences, "paraphrase_mining: sentences", single=False),
        show_progress_bar=show_progress_bar,
        batch_size=batch_size,
        truncate_dim=truncate_dim,
        prompt_name=prompt_name,
        prompt=prompt,
        **encode_options,
    )
    sizes = query_chunk_size, corpus_chunk_size
    return paraphrase_mining_embeddings(embeddings, *sizes, max_pairs, top_k, score_function)


def paraphrase_mining_embeddings(
    embeddings: ArrayLike,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100_000,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
) -> list[list[float | int]]:
    """Find the closest pairs among vectors ``(M, D)``: near duplicates, paraphrases.

    Each vector proposes its ``top_k`` closest others; the pairs are merged, best first.

    Parameters
    ----------
    embeddings : array_like, shape (M, D)
    query_chunk_size, corpus_chunk_size : int
        As in `semantic_search`.
    max_pairs, top_k : int
        Pairs in all, and partners that each vector proposes; at least 1.
    score_function : callable or {"cosine", "dot", "euclidean", "manhattan"}
        As in `semantic_search`, and symmetric.

    Returns
    -------
    list of [score, i, j]
        With ``i < j``, each pair once: score descending, then ``i``, then ``j``, ascending.

    Notes
    -----
    **Source**: ``sentence_transformers.util.paraphrase_mining_embeddings``, which leaves open which of equally close
    partners are proposed; here the smaller ids.

    Examples
    --------
    >>> paraphrase_mining_embeddings([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], top_k=1)
    [[1.0, 0, 2], [0.0, 0, 1]]
    """
    what = "paraphrase_mining"
    vectors = _rows(embeddings, f"{what}: embeddings")
    top_k, max_pairs = check_whole(f"{what}: top_k", top_k, 1), check_whole(f"{what}: max_pairs", max_pairs, 1)
    step = check_whole(f"{what}: query_chunk_size", query_chunk_size, 1)
    keys, scores = np.empty(0, np.int64), np.empty(0)  # of the best pairs so far: i M + j
    for start in range(0, len(vectors), step):
        ids, found = nearest(
            *(vectors[start : start + step], vectors, top_k + 1, score_function),  # one may be the vector itself
            corpus_chunk_size=corpus_chunk_size,
            what=what,
        )
        own = np.arange(start, start + len(ids), dtype=ids.dtype)[:, None]
        is_other = ids != own
        is_partner = is_other & (np.cumsum(is_other, axis=1) <= top_k)  # one too many, if it has many copies
        # i M + j may need more bits than NumPy counts in on 32-bit systems
        pairs = (np.minimum(own, ids).astype(np.int64) * len(vectors) + np.maximum(own, ids))[is_partner]
        keys, first = np.unique(np.concatenate([keys, pairs]), return_index=True)
        scores = np.concatenate([scores, found[is_partner]])[first]
        best = np.argsort(-scores, kind="stable")[:max_pairs]  # equal scores by i, then j
        if start + step < len(vectors):
            best = np.sort(best)
        keys, scores = keys[best], scores[best]
    i, j = np.divmod(keys, max(1, len(vectors)))
    return [[*row] for row in zip(scores.tolist(), i.tolist(), j.tolist(), strict=True)]


# ------------------------------------------------------------------------------------------------- communities


def community_detection(
    embeddings: ArrayLike,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: Progress = False,
) -> list[list[int]]:
    """Find groups of vectors that are close to a common centre, without choosing the number of groups.

    Every vector is a possible centre; its community is all vectors, itself included, whose cosine with it reaches the
    threshold. Communities are taken greedily, the largest first. Members that are taken are lost to all others: a taken
    centre makes no community, and one that loses members must still be large enough. Outliers stay alone.

    Parameters
    ----------
    embeddings : array_like, shape (M, D)
    threshold : float
        Least cosine with the centre, in [-1, 1].
    min_community_size : int
        Least number of members, the centre included.
    batch_size : int
        Vectors compared with all others at a time; it does not change the result.
    show_progress_bar : bool
        On stderr.

    Returns
    -------
    list of list of int
        Rows: the centre, then the members by descending cosine, equal ones by id. Largest community first; of equally
        large ones the one that was larger before others took from it, then the one with the smaller centre.

    Notes
    -----
    **Source**: ``sentence_transformers.util.community_detection``, the same choice in the same order. It may decide
    either way where a cosine equals the threshold up to rounding, and holds all close pairs at once.

    Examples
    --------
    >>> east, north = [1.0, 0.0], [0.0, 1.0]
    >>> community_detection([east, north, [0.9, 0.1], [0.1, 0.9], [0.8, 0.1], [-1.0, 0.0]], 0.9, 2)
    [[0, 2, 4], [1, 3]]
    """
    what = "community_detection"
    vectors = _rows(embeddings, f"{what}: embeddings")
    least = check_whole(f"{what}: min_community_size", min_community_size, 1)
    batch = check_whole(f"{what}: batch_size", batch_size, 1)
    if not -1.0 <= threshold <= 1.0:
        raise ValueError(f"{what}: threshold must be a cosine in [-1, 1], got {threshold!r}; is it a percentage?")
    # Two passes over all pairs, the first of which only counts: memory does not grow with the number of close pairs,
    # which is M^2 if all texts are alike.
    comparison = Comparison(what, vectors, vectors, cos_sim)
    counts = np.zeros(len(vectors), np.intp)  # (M,)
    with progress_bar(len(vectors), show_progress_bar) as bar:

        def count(chosen: Array) -> Array:
            return sum(np.count_nonzero(reached, axis=1) for _, _, reached in comparison.reach(chosen, threshold))

        for chosen, counted in comparison.in_chunks(batch, count):
            counts[chosen] = counted
            if bar is not None:
                bar.update(len(chosen))
    centres = np.argsort(-counts, kind="stable")
    centres = centres[counts[centres] >= least]
    is_taken = np.zeros(len(vectors), bool)
    found: list[list[int]] = []
    while len(centres := centres[~is_taken[centres]]):
        turn = centres[: max(1, min(batch, int(np.searchsorted(np.cumsum(counts[centres]), LISTED))))]
        listed = []  # of pairs: the place among these centres, the cosine, the member
        for block, estimates, reached in comparison.reach(turn, threshold):
            rows, columns = np.nonzero(reached)
            cosines = comparison.exact(turn, block, estimates, rows, columns)
            listed.append((rows, cosines, columns + block.start))
        rows, cosines, members = map(np.concatenate, zip(*listed, strict=True))
        members = members[np.lexsort((members, -cosines, rows))]
        ends = np.cumsum(np.bincount(rows, minlength=len(turn)))
        for centre, near in zip(turn.tolist(), np.split(members, ends[:-1]), strict=True):
            free = near[~is_taken[near]]
            if not is_taken[centre] and len(free) >= least:
                is_taken[free] = True
                found.append([centre, *free[free != centre].tolist()])
        centres = centres[len(turn) :]
    return sorted(found, key=len, reverse=True)


# --------------------------------------------------------------------------------------------------- two lists


class Matches(NamedTuple):
    """Pairs of rows, in the order of the first list."""

    a_ids: Array  # (P,) ascending
    b_ids: Array  # (P,)
    scores: Array  # (P,)


def match(
    a: ArrayLike,
    b: ArrayLike,
    method: str = "best",
    *,
    score_function: ScoreFunction = cos_sim,
    min_score: float | None = None,
) -> Matches:
    """Pair the vectors of two lists.

    ============  ===========================================  ======================================================
    method        pairs                                        for
    ============  ===========================================  ======================================================
    ``best``      each row of ``a`` with its closest of ``b``  look-up; many rows may share one partner
    ``mutual``    rows that are each other's closest           few but sure: bitext, merging two catalogues
    ``optimal``   one to one, the largest sum of scores        assignments: teams, timetables
    ============  ===========================================  ======================================================

    Parameters
    ----------
    a : array_like, shape (A, D)
    b : array_like, shape (B, D)
    method : {"best", "mutual", "optimal"}
        Of equally close partners the smaller id is the best. ``optimal`` needs SciPy and holds all A B scores.
    score_function : callable or {"cosine", "dot", "euclidean", "manhattan"}
        As in `semantic_search`.
    min_score : float, optional
        Drop pairs below it. ``optimal`` then maximises the sum of ``score - min_score`` over pairs at or above it, so a
        good pair is never given up for a bad one, and a pair at ``min_score`` itself counts a little.

    Returns
    -------
    Matches
        ``a_ids``, ``b_ids``, ``scores``, (P,) each, ascending by ``a_ids``. ``best``: A pairs, or none if b is empty.
        ``optimal`` without min_score: min(A, B) pairs.

    Notes
    -----
    **Source**: ``optimal`` is ``scipy.optimize.linear_sum_assignment(scores, maximize=True)``.

    Examples
    --------
    Both rows of a are closest to the first of b, but in a one-to-one matching one takes the second:

    >>> a, b = [[1.0, 0.0], [0.8, 0.6]], [[1.0, 0.1], [0.0, 1.0]]
    >>> for method in ("best", "mutual"):
    ...     found = match(a, b, method)
    ...     list(zip(found.a_ids.tolist(), found.b_ids.tolist()))
    [(0, 0), (1, 0)]
    [(0, 0)]
    """
    check_choice("match: method", method, ("best", "mutual", "optimal"))
    if min_score is not None and not math.isfinite(min_score):
        raise ValueError(f"match: min_score must be a finite number, got {min_score!r}; leave it out to keep all pairs")
    rows_a, rows_b, least = _rows(a, "match: a"), _rows(b, "match: b"), -math.inf if min_score is None else min_score
    if method in ("best", "mutual"):
        ids, best = nearest(rows_a, rows_b, 1, score_function, what="match")
        a_ids, b_ids, scores = np.arange(len(ids) if ids.size else 0), ids.ravel(), best.ravel()
        if method == "mutual" and len(b_ids):
            back = nearest(rows_b, rows_a, 1, score_function, what="match")[0].ravel()
            is_kept = back[b_ids] == a_ids
            a_ids, b_ids, scores = a_ids[is_kept], b_ids[is_kept], scores[is_kept]
    else:
        assign = require("scipy.optimize", "apps", "match(method='optimal')").linear_sum_assignment
        ids, found = nearest(rows_a, rows_b, max(1, len(rows_b)), score_function, what="match")  # (A, B) of all pairs
        table = np.zeros(found.shape, found.dtype)
        np.put_along_axis(table, ids, found, axis=1)
        gains = table
        if min_score is not None:
            # leaving both alone costs nothing, and a pair at min_score itself is worth more than none
            least = table.dtype.type(least)
            gains = np.where(table >= least, table - least + np.finfo(table.dtype).eps, 0.0)
        a_ids, b_ids = assign(gains, maximize=True)
        scores = table[a_ids, b_ids]
    is_kept = scores >= scores.dtype.type(least)  # rounded as scores are
    return Matches(a_ids[is_kept], b_ids[is_kept], scores[is_kept])
