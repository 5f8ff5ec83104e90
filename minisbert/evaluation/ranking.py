"""Measures of a ranking: nDCG, average precision, reciprocal rank, recall, precision, one number per query.

The definitions are trec_eval's, which BEIR and MTEB use through pytrec_eval. A judgement gives a document a **grade**
for a query: 0 is "judged, not relevant", as is no judgement; more is better.

=================  ===========================================================  ================================
measure            formula, for one query                                       others define
=================  ===========================================================  ================================
nDCG@k             sum_r g_r / log2(1 + r), divided by the same sum for the     gain 2^g - 1 (web search, many
                   best possible order of *all* judged documents                courses); equal for grades 0, 1
average precision  sum over relevant ranks r of precision@r, divided by *all*   divided by the relevant ones
                   relevant documents of the query                              found, or by min(k, relevant)
reciprocal rank    1 / rank of the first relevant document, 0 beyond k          no cutoff (trec_eval: recip_rank)
recall@k           relevant documents among k, divided by all relevant          "capped": by min(k, relevant)
precision@k        relevant documents among k, divided by k                     by the number found, if below k
=================  ===========================================================  ================================

Means over queries: MAP of average precision, MRR of reciprocal rank. A query without a relevant document scores 0, as
in trec_eval. Ties: by document id, *descending*, character by character ("9" before "10"), as in trec_eval, so that a
ranking does not depend on the order of the corpus; sklearn's ``ndcg_score`` averages over all orders instead.

Letters: ``Q`` queries, ``M`` documents, ``R`` ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array

__all__ = ["average_precision", "id_order", "ndcg", "precision", "rank", "recall", "reciprocal_rank"]


# --------------------------------------------------------------------------------------------------- ranking


def id_order(document_ids: Sequence[str]) -> Array:
    """Each document's place among ties, from 0: ids descending, as in trec_eval's ``form_res_rels.c`` (``strcmp``).

    >>> id_order(["10", "9", "b"])
    array([2, 1, 0])
    """
    order = np.empty(len(document_ids), np.intp)
    # By code point, which is also the order of UTF-8's bytes, and so strcmp's.
    order[sorted(range(len(document_ids)), key=document_ids.__getitem__, reverse=True)] = np.arange(len(document_ids))
    return order


def rank(scores: ArrayLike, tie_order: ArrayLike, k: int) -> Array:
    """The ``R = min(k, M)`` best documents of each query, best first; ties by ``tie_order`` (`id_order`), ascending.

    (Q, M), (M,) -> (Q, R)

    **Source**: exact; as ``torch.topk(scores, k)``, which leaves the order of ties open.

    >>> rank([[0.5, 0.9, 0.5, 0.1]], id_order(["a", "b", "c", "d"]), k=3)
    array([[1, 2, 0]])
    """
    matrix, ties = np.asarray(scores), np.asarray(tie_order)
    _check_k("rank", k)
    if matrix.ndim != 2 or ties.shape != matrix.shape[1:]:
        raise ValueError(f"rank: expected scores (Q, M) and tie_order (M,), got shapes {matrix.shape} and {ties.shape}")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise ValueError(
            f"rank: expected finite scores, got {matrix[row, column]} for query {row} and document {column}; "
            "is an embedding NaN or infinite?"
        )
    width = min(k, matrix.shape[1])
    ranked = np.empty((len(matrix), width), np.intp)
    for row, one in enumerate(matrix if width else ()):
        # All documents that tie with the k-th are candidates, so that the ids decide between them.
        candidates = np.flatnonzero(one >= np.partition(one, -width)[-width])
        ranked[row] = candidates[np.lexsort((ties[candidates], -one[candidates]))][:width]
    return ranked


# -------------------------------------------------------------------------------------------------- measures


def ndcg(ranked_grades: ArrayLike, judged_grades: Sequence[ArrayLike], k: int) -> Array:
    """Normalised discounted cumulative gain of the first k ranks.

    ``nDCG@k = DCG@k / ideal DCG@k``, ``DCG@k = sum_{r=1..k} grade_r / log2(1 + r)``

    The gain is the grade itself; the ideal is the best order of *all* judged documents, found or not.

    Parameters
    ----------
    ranked_grades : array_like, shape (Q, R)
        Grade of the document at each rank, best rank first; 0 without a judgement. Ranks beyond R are empty.
    judged_grades : sequence of Q array_like
        All grades given for each query, in any order; zeros change nothing.
    k : int
        At least 1.

    Returns
    -------
    Array of float64, shape (Q,)
        In [0, 1]; 0 for a query without a relevant document.

    Raises
    ------
    ValueError
        For grades that are negative or not finite, and a ranking with more gain than was judged.

    Notes
    -----
    **Source**: Järvelin & Kekäläinen 2002, section 2, with log2 from the first rank on; ``pytrec_eval``'s
    ``ndcg_cut_k``; ``sklearn.metrics.ndcg_score`` if no scores are equal. For the gain ``2^grade - 1`` (Burges et al.
    2005) pass ``2**grade - 1`` as grades.

    Examples
    --------
    Two relevant documents, found at ranks 1 and 3: (1 + 1/2) / (1 + 1/log2(3)).

    >>> ndcg([[1, 0, 1]], [[1, 1]], k=10).round(4)
    array([0.9197])
    """
    ranked, judged = _checked("ndcg", ranked_grades, judged_grades, k)
    ideal = np.zeros((len(judged), k))
    for row, grades in enumerate(judged):
        best = np.sort(grades)[::-1][:k]
        ideal[row, : len(best)] = best
    best_gain = _discounted(ideal)
    return np.divide(_discounted(ranked[:, :k]), best_gain, out=np.zeros(len(ranked)), where=best_gain > 0)


def _discounted(grades: Array) -> Array:
    """``sum_r grade_r / log2(1 + r)``"""
    return grades @ (1.0 / np.log2(np.arange(2, grades.shape[1] + 2)))


def average_precision(ranked_grades: ArrayLike, judged_grades: Sequence[ArrayLike], k: int) -> Array:
    """Mean, over all relevant documents of a query, of the precision at the rank where each was found.

    ``AP@k = 1 / relevant * sum_{r=1..k, grade_r > 0} (relevant among the first r) / r``

    A document not found within k ranks adds 0. The mean over queries is MAP@k.

    Parameters
    ----------
    ranked_grades, judged_grades, k
        As in `ndcg`, as are result and errors.

    Notes
    -----
    **Source**: Manning, Raghavan & Schütze 2008, section 8.4; ``pytrec_eval``'s ``map_cut_k``;
    ``sklearn.metrics.average_precision_score`` if all documents are ranked and no scores are equal.

    Examples
    --------
    Two relevant documents, found at ranks 1 and 3: (1/1 + 2/3) / 2.

    >>> average_precision([[1, 0, 1]], [[1, 1]], k=10).round(4)
    array([0.8333])
    """
    ranked, judged = _checked("average_precision", ranked_grades, judged_grades, k)
    hits = ranked[:, :k] > 0
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return _per_relevant((precisions * hits).sum(axis=1), judged)


def reciprocal_rank(ranked_grades: ArrayLike, k: int) -> Array:
    """One over the rank of the first relevant document, 0 if none is among the first k.

    ``RR@k = 1 / min{r <= k: grade_r > 0}``; the mean over queries is MRR@k

    Parameters
    ----------
    ranked_grades, k
        As in `ndcg`, as are result and errors.

    Notes
    -----
    **Source**: Voorhees 1999 (TREC-8 question answering); ``pytrec_eval``'s ``recip_rank``, which has no cutoff. MS
    MARCO and MTEB cut at 10.

    Examples
    --------
    >>> reciprocal_rank([[0, 0, 1, 1], [0, 0, 0, 1]], k=3).round(4)
    array([0.3333, 0.    ])
    """
    hits = _checked_ranks("reciprocal_rank", ranked_grades, k)[:, :k] > 0
    if hits.shape[1] == 0:
        return np.zeros(len(hits))
    first: Array = 1.0 / (1 + hits.argmax(axis=1))
    return np.where(hits.any(axis=1), first, 0.0)


def recall(ranked_grades: ArrayLike, judged_grades: Sequence[ArrayLike], k: int) -> Array:
    """Share of a query's relevant documents that are among the first k.

    ``recall@k = (relevant among the first k) / relevant``

    Parameters
    ----------
    ranked_grades, judged_grades, k
        As in `ndcg`, as are result and errors. Below 1 if more than k documents are relevant.

    Notes
    -----
    **Source**: ``pytrec_eval``'s ``recall_k``. BEIR's ``recall_cap`` divides by ``min(k, relevant)`` instead.

    Examples
    --------
    >>> recall([[1, 0, 1]], [[1, 1, 2]], k=2).round(4)
    array([0.3333])
    """
    ranked, judged = _checked("recall", ranked_grades, judged_grades, k)
    return _per_relevant(np.count_nonzero(ranked[:, :k] > 0, axis=1).astype(np.float64), judged)


def precision(ranked_grades: ArrayLike, k: int) -> Array:
    """Share of relevant documents among the first k; ranks beyond R count as not relevant.

    ``precision@k = (relevant among the first k) / k``

    Parameters
    ----------
    ranked_grades, k
        As in `ndcg`, as are result and errors.

    Notes
    -----
    **Source**: ``pytrec_eval``'s ``P_k``.

    Examples
    --------
    >>> precision([[1, 0, 1]], k=2)
    array([0.5])
    """
    ranked = _checked_ranks("precision", ranked_grades, k)
    return np.count_nonzero(ranked[:, :k] > 0, axis=1) / k


def _per_relevant(sums: Array, judged: list[Array]) -> Array:
    """Divide by the number of relevant documents; 0 if there are none."""
    relevant = np.array([np.count_nonzero(grades > 0) for grades in judged], np.float64)
    return np.divide(sums, relevant, out=np.zeros(len(sums)), where=relevant > 0)


# ---------------------------------------------------------------------------------------------------- checks


def _check_k(function: str, k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"{function}: k must be a whole number of at least 1, got {k!r}")


def _checked_ranks(function: str, ranked_grades: ArrayLike, k: int) -> Array:
    """A ranking's grades, checked, as float64."""
    _check_k(function, k)
    ranked: Array = np.asarray(ranked_grades, np.float64)
    if ranked.ndim != 2:
        raise ValueError(f"{function}: expected ranked_grades (Q, R), one row per query, got shape {ranked.shape}")
    _refuse_bad_grades(function, "ranked_grades", ranked)
    return ranked


def _checked(
    function: str, ranked_grades: ArrayLike, judged_grades: Sequence[ArrayLike], k: int
) -> tuple[Array, list[Array]]:
    """Check both sides, and that they belong together."""
    ranked = _checked_ranks(function, ranked_grades, k)
    judged = [np.asarray(grades, np.float64) for grades in judged_grades]
    if len(judged) != len(ranked):
        raise ValueError(f"{function}: {len(ranked)} rankings, but judged_grades for {len(judged)} queries")
    for query, grades in enumerate(judged):
        if grades.ndim != 1:
            raise ValueError(f"{function}: judged_grades[{query}]: expected a row of grades, got shape {grades.shape}")
        _refuse_bad_grades(function, f"judged_grades[{query}]", grades)
        found, given = np.count_nonzero(ranked[query] > 0), np.count_nonzero(grades > 0)
        if found > given or ranked[query].sum() > grades.sum() * (1 + 1e-9):
            raise ValueError(
                f"{function}: query {query} ranks {found} relevant documents with grades of {ranked[query].sum():g} "
                f"in all, but was judged to have {given} with {grades.sum():g}; is a document ranked twice, or the "
                "ranking another query's?"
            )
    return ranked, judged


def _refuse_bad_grades(function: str, name: str, grades: Array) -> None:
    bad = ~(np.isfinite(grades) & (grades >= 0))
    if bad.any():
        raise ValueError(
            f"{function}: {name}: expected grades from 0 (not relevant) up, got {grades[bad][0]:g}; "
            "trec_eval treats a negative grade as 'not relevant': write 0"
        )
