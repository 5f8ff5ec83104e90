"""Pair the vectors of two lists: the best for each, the best for both, or the best for all together.

=========  ==================================================  =====================================================
method     pairs                                               for
=========  ==================================================  =====================================================
best       each row of ``a`` with its closest of ``b``         look-up; many rows may share one partner
mutual     rows that are each other's closest                  few but sure: bitext, merging two catalogues
optimal    one to one, the largest possible sum of scores      assignments: teams, timetables
=========  ==================================================  =====================================================

``optimal`` is the Hungarian method with shortest augmenting paths (Jonker & Volgenant 1987). Rows and columns have
prices, ``u_i + v_j <= cost_ij`` for all pairs, with equality where they are matched: no other matching can be cheaper,
because its cost is at least the sum of the prices. Rows come one at a time; each finds the cheapest chain of
re-matchings that ends at a free column, and the prices change so that they stay valid. Time ``A^2 B`` for A <= B, and
all ``A B`` scores are held: for thousands, not millions.

Letters: ``A`` and ``B`` rows of the two lists, ``D`` width, ``P`` pairs.
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
    scores: Array  # (P,)


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
        See the top of this module. Of equally close partners the smaller id is the best.
    score_function : {"cosine", "dot", "euclidean", "manhattan"} or callable
        As in `semantic_search`.
    min_score : float, optional
        Drop pairs below it. ``optimal`` then maximises the sum of ``score - min_score`` over pairs at or above it, so a
        good pair is never given up for a bad one.

    Returns
    -------
    Matches
        ``a_ids``, ``b_ids``, ``scores``, (P,) each, ascending by ``a_ids``. ``best``: A pairs, or none if b is empty.
        ``optimal`` without min_score: min(A, B) pairs; if several matchings are optimal, always the same one.

    Raises
    ------
    ValueError
        As `semantic_search`; for an unknown method or a min_score that is not finite.

    Notes
    -----
    **Source**: ``optimal`` is ``scipy.optimize.linear_sum_assignment(scores, maximize=True)``.

    Examples
    --------
    Both rows of a are closest to the first of b, but in a one-to-one matching one takes the second:

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
    """Each row of a with its best of b, or only pairs that are each other's best."""
    ids, scores = find_best("match", ("a", "b"), a, b, 1, score_function)
    a_ids = np.arange(len(a))[: ids.size]  # none if b is empty
    b_ids, best = ids.ravel(), scores.ravel()
    if is_mutual and len(b_ids):
        back = find_best("match", ("b", "a"), b, a, 1, score_function)[0].ravel()
        is_kept = back[b_ids] == a_ids
        a_ids, b_ids, best = a_ids[is_kept], b_ids[is_kept], best[is_kept]
    return Matches(a_ids, b_ids, best)


def _match_optimal(a: Array, b: Array, score_function: str | ScoreFunction, min_score: float | None) -> Matches:
    """As many one-to-one pairs as possible, with the largest sum."""
    scorer = build_scorer("match", ("a", "b"), score_function, a, common_dtype("match", ("a", "b"), a, b))
    scores = np.empty((len(a), len(b)), scorer.queries.dtype)  # (A, B)
    for chosen, block in walk("match", scorer, b):
        estimates = scorer.estimate(chosen, block)
        rows, columns = (index.ravel() for index in np.indices(estimates.shape))
        part = scores[chosen, block.start : block.start + len(block.rows)]
        part[...] = scorer.exact(chosen, block, estimates, rows, columns).reshape(estimates.shape)
    gains = scores.astype(np.float64)
    if min_score is not None:
        gains = np.maximum(gains - min_score, 0.0)  # leaving both unmatched costs nothing
    if len(a) <= len(b):
        a_ids, b_ids = np.arange(len(a)), assign(-gains)
    else:
        a_ids, b_ids = assign(-gains.T), np.arange(len(b))
        order = np.argsort(a_ids)
        a_ids, b_ids = a_ids[order], b_ids[order]
    return Matches(a_ids, b_ids, scores[a_ids, b_ids])


def assign(costs: ArrayLike) -> Array:
    """Assign each row a column of its own at the smallest total cost; no more rows than columns.

    (A, B) -> (A,)

    **Source**: Jonker & Volgenant 1987, the augmentation phase; Crouse 2016, which
    ``scipy.optimize.linear_sum_assignment`` follows.

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
    row_of = np.full(column_count, -1)  # the row of each column
    column_of = np.full(row_count, -1)
    for row in range(row_count):
        _add_row(matrix, row, row_prices, column_prices, row_of, column_of)
    return column_of


def _add_row(
    costs: Array, new_row: int, row_prices: Array, column_prices: Array, row_of: Array, column_of: Array
) -> None:
    """Match one more row and re-match others where that is cheapest; changes prices and matches in place."""
    shortest = np.full(len(row_of), np.inf)  # (B,) length of the shortest path from the new row to each column
    before = np.full(len(row_of), new_row)  # the row before the column on that path
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
    # Prices along the path absorb the difference to its length, so that its reduced costs become 0.
    row_prices[new_row] += length
    row_prices[row_of[visited]] += length - shortest[visited]
    column_prices[visited] -= length - shortest[visited]
    while True:  # flip the path: each row on it takes the column that it led to
        row = int(before[column])
        row_of[column] = row
        column_of[row], column = column, int(column_of[row])
        if row == new_row:
            return
