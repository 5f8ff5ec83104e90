"""Who belongs to whom in two lists: the best for each, the best for both, or the best for all together.

=========  ==================================================  =====================================================
method     pairs                                               for
=========  ==================================================  =====================================================
best       each row of ``a`` with its closest of ``b``         looking up; many may have the same one
mutual     those that are each other's closest                 few but sure: bitext, deduplication of two catalogues
optimal    one to one, the largest possible sum of scores      when everybody shall get somebody: teams, timetables
=========  ==================================================  =====================================================

The optimal one is found by shortest augmenting paths (Jonker & Volgenant 1987), the Hungarian method with a better
search. Each row and column has a price, ``u_i + v_j <= cost_ij`` for all pairs, with equality where they are matched.
With such prices no other matching can be cheaper, for its cost is at least the sum of the prices. Rows come one at a
time; each finds the cheapest chain of re-matchings that ends at a free column, and the prices move so that they stay
prices. Time ``A^2 B`` for A <= B, and all ``A B`` scores are held: for some thousands, not for millions.

Left out on purpose: many-to-many transport. This is the last file of exact search.

Letters: ``A`` and ``B`` rows of the two lists, ``D`` their width, ``P`` pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array
from minisbert.search.exact import find_best, walk
from minisbert.search.scoring import ScoreFunction, as_vectors, build_scorer, common_dtype

__all__ = ["Matches", "assign", "match"]


class Matches(NamedTuple):
    """Pairs of rows, in the order of the first list."""

    a_ids: Array  # (P,) intp, ascending
    b_ids: Array  # (P,) intp
    scores: Array  # (P,) of these pairs


def match(
    a: ArrayLike,
    b: ArrayLike,
    method: str = "best",
    *,
    score_function: str | ScoreFunction = "cosine",
    min_score: float | None = None,
) -> Matches:
    """Pair the vectors of two lists.

    Parameters
    ----------
    a : array_like, shape (A, D)
    b : array_like, shape (B, D)
    method : {"best", "mutual", "optimal"}
        See the head of this module. Of equally close partners the one with the smaller id is the best.
    score_function : {"cosine", "dot", "euclidean", "manhattan"} or callable
        As in `semantic_search`.
    min_score : float, optional
        Pairs below it are no pairs. The optimal matching is then that of the largest sum of ``score - min_score``,
        among matchings of pairs at or above it: a good pair is never given up for a bad one.

    Returns
    -------
    Matches
        ``best``: A pairs, or none if b is empty. ``optimal`` without min_score: min(A, B) pairs. If several matchings
        are optimal, one of them, always the same.

    Raises
    ------
    ValueError
        As `semantic_search`; for an unknown method, and a min_score that is no finite number.

    Notes
    -----
    **Source**: ``optimal`` is ``scipy.optimize.linear_sum_assignment(scores, maximize=True)``.

    Examples
    --------
    Both of a like the first of b best, but one of them must take the second:

    >>> a, b = [[1.0, 0.0], [0.8, 0.6]], [[1.0, 0.1], [0.0, 1.0]]
    >>> for method in ("best", "mutual", "optimal"):
    ...     found = match(a, b, method)
    ...     list(zip(found.a_ids.tolist(), found.b_ids.tolist()))
    [(0, 0), (1, 0)]
    [(0, 0)]
    [(0, 0), (1, 1)]
    """
    if min_score is not None and not math.isfinite(min_score):
        raise ValueError(f"match: min_score must be a finite number, got {min_score!r}; leave it out to keep all pairs")
    rows_a, rows_b = as_vectors("match", "a", a), as_vectors("match", "b", b)
    common_dtype("match", ("a", "b"), rows_a, rows_b)
    if method in ("best", "mutual"):
        found = _match_best(rows_a, rows_b, score_function, method == "mutual")
    elif method == "optimal":
        found = _match_optimal(rows_a, rows_b, score_function, min_score)
    else:
        raise ValueError(f"match: method must be best, mutual or optimal, got {method!r}")
    if min_score is None:
        return found
    is_kept = found.scores >= min_score
    return Matches(found.a_ids[is_kept], found.b_ids[is_kept], found.scores[is_kept])


def _match_best(a: Array, b: Array, score_function: str | ScoreFunction, is_mutual: bool) -> Matches:
    """Give each row of a its best of b, or only those that are each other's."""
    ids, scores = find_best("match", ("a", "b"), a, b, 1, score_function)
    a_ids = np.arange(len(a))[: ids.size]  # none, where b is empty
    b_ids, best = ids.ravel(), scores.ravel()
    if is_mutual and len(b_ids):
        back = find_best("match", ("b", "a"), b, a, 1, score_function)[0].ravel()
        is_kept = back[b_ids] == a_ids
        a_ids, b_ids, best = a_ids[is_kept], b_ids[is_kept], best[is_kept]
    return Matches(a_ids, b_ids, best)


def _match_optimal(a: Array, b: Array, score_function: str | ScoreFunction, min_score: float | None) -> Matches:
    """Give as many one-to-one pairs as there can be, with the largest sum."""
    scorer = build_scorer("match", ("a", "b"), score_function, a, common_dtype("match", ("a", "b"), a, b))
    scores = np.empty((len(a), len(b)), scorer.queries.dtype)  # (A, B)
    for chosen, block in walk("match", scorer, b):
        estimates = scorer.estimate(chosen, block)
        rows, columns = (index.ravel() for index in np.indices(estimates.shape))
        part = scores[chosen, block.start : block.start + len(block.rows)]
        part[...] = scorer.exact(chosen, block, estimates, rows, columns).reshape(estimates.shape)
    gains = scores.astype(np.float64)
    if min_score is not None:
        gains = np.maximum(gains - min_score, 0.0)  # to leave both unmatched costs nothing
    if len(a) <= len(b):
        a_ids, b_ids = np.arange(len(a)), assign(-gains)
    else:
        a_ids, b_ids = assign(-gains.T), np.arange(len(b))
        order = np.argsort(a_ids)
        a_ids, b_ids = a_ids[order], b_ids[order]
    return Matches(a_ids, b_ids, scores[a_ids, b_ids])


def assign(costs: ArrayLike) -> Array:
    """Give each row a column of its own so that the sum of costs is the smallest possible.

    Parameters
    ----------
    costs : array_like, shape (A, B)
        Finite; no more rows than columns.

    Returns
    -------
    Array of intp, shape (A,)
        Columns.

    Raises
    ------
    ValueError
        For another shape, more rows than columns, NaN and Inf.

    Notes
    -----
    **Source**: Jonker & Volgenant 1987, the augmentation phase; Crouse 2016, which
    ``scipy.optimize.linear_sum_assignment`` follows.

    Examples
    --------
    >>> assign([[4, 1, 3], [2, 0, 5], [3, 2, 2]])  # 1 + 2 + 2
    array([1, 0, 2])
    """
    matrix = np.asarray(costs, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] > matrix.shape[1] or not np.isfinite(matrix).all():
        raise ValueError(
            f"assign: costs must be (A, B), finite, with A <= B, got shape {matrix.shape}"
            + ("; transpose it" if matrix.ndim == 2 and matrix.shape[0] > matrix.shape[1] else "")
        )
    row_count, column_count = matrix.shape
    row_prices, column_prices = np.zeros(row_count), np.zeros(column_count)  # u, v
    row_of = np.full(column_count, -1)  # who has each column
    column_of = np.full(row_count, -1)
    for row in range(row_count):
        _add_row(matrix, row, row_prices, column_prices, row_of, column_of)
    return column_of


def _add_row(
    costs: Array, new_row: int, row_prices: Array, column_prices: Array, row_of: Array, column_of: Array
) -> None:
    """Match one more row, and move others where that is cheapest: changes prices and matches in place."""
    shortest = np.full(len(row_of), np.inf)  # (B,) length of the shortest path from the new row to each column
    before = np.full(len(row_of), new_row)  # the row from which that path reaches it
    is_open = np.ones(len(row_of), bool)
    row, length = new_row, 0.0
    visited = []
    while True:
        reached = length + costs[row] - row_prices[row] - column_prices
        is_shorter = is_open & (reached < shortest)
        shortest[is_shorter], before[is_shorter] = reached[is_shorter], row
        column = int(np.argmin(np.where(is_open, shortest, np.inf)))
        is_open[column], length = False, float(shortest[column])
        if row_of[column] < 0:
            break
        visited.append(column)
        row = int(row_of[column])
    # whoever was passed by less than the whole path gives way by the difference, so that the path costs nothing
    row_prices[new_row] += length
    row_prices[row_of[visited]] += length - shortest[visited]
    column_prices[visited] -= length - shortest[visited]
    while True:  # turn the path around: each row on it takes the column that it led to
        row = int(before[column])
        row_of[column] = row
        column_of[row], column = column, int(column_of[row])
        if row == new_row:
            return
