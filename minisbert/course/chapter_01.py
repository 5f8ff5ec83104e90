"""The exercises of notebook 1, "Can a vector hold a meaning?": cosines, a search, and which tokens make a cosine.

Each comes with its solution and with the results of typical mistakes: read it after the notebook. The package's own
versions are :func:`minisbert.cos_sim`, :func:`minisbert.search.semantic_search` and
:func:`minisbert.analysis.explain`.

Letters: ``A`` and ``B`` rows or tokens, ``M`` documents, ``D`` the width of a vector, ``k`` results.
"""

from __future__ import annotations

import numpy as np

from minisbert.course.exercises import Exercise, Mistake, array
from minisbert.model import Array

__all__ = ["CONTRIBUTIONS", "COSINES", "NEAREST"]


def _lengths(rows: Array) -> Array:
    return np.linalg.norm(rows, axis=-1, keepdims=True)


def _cosines(a: Array, b: Array) -> Array:
    return (a / _lengths(a)) @ (b / _lengths(b)).T


COSINES = Exercise(
    "cosines",
    _cosines,
    [
        (array([3, 4], [1, 0], [-2, 2]), array([4, 3], [0, 5])),
        (array([1, 2, 2]), array([2, -1, 2], [1, 1, 0], [0, 0, -3], [1, 2, 2])),
    ],
    [
        Mistake(
            lambda a, b: a @ b.T,
            "these are dot products: they grow when a vector is made longer. Which division is missing?",
        ),
        Mistake(
            lambda a, b: (a / _lengths(a)) @ b.T,
            "only the rows of a are divided by their lengths; double a row of b, and the result doubles",
        ),
        Mistake(
            lambda a, b: a @ b.T / (_lengths(a) ** 2 * _lengths(b).T ** 2),
            "divided by squared lengths: a length is the square root of the sum of squares",
        ),
        Mistake(
            lambda a, b: a @ b.T / (np.linalg.norm(a) * np.linalg.norm(b)),
            "divided by the length of the whole matrix: every row has a length of its own. See axis= and keepdims=",
        ),
        Mistake(
            lambda a, b: a @ b.T / (np.abs(a).sum(axis=1)[:, None] * np.abs(b).sum(axis=1)),
            "divided by sums of absolute values: that is another length, for which a vector with itself is not at 1",
        ),
        Mistake(
            lambda a, b: _cosines(b, a),
            "rows and columns are the wrong way round: a row of the result belongs to a row of a",
        ),
        Mistake(
            lambda a, b: 1.0 - _cosines(a, b),
            "this is 1 - cosine, a distance: it is 0 for equal directions, and a cosine is 1 there",
        ),
    ],
)


def _nearest(query: Array, documents: Array, k: int) -> Array:
    return np.argsort(-_cosines(query[None], documents)[0], kind="stable")[:k]


NEAREST = Exercise(
    "nearest",
    _nearest,
    [
        (array(1, 0), array([1, 1], [0.2, 0.1], [0, 4], [-1, 0.5], [9, 8]), 3),
        (array(0, 1, 1), array([5, 1, 0], [0, 0.3, 0.2], [1, 2, 2], [0, -1, -1]), 2),
    ],
    [
        Mistake(
            lambda query, documents, k: np.argsort(_cosines(query[None], documents)[0], kind="stable")[:k],
            "these are the farthest: np.argsort puts the smallest first, and a large cosine is close",
        ),
        Mistake(
            lambda query, documents, k: np.sort(_nearest(query, documents, k)),
            "these are the right documents in the order of the list; the best has to come first",
        ),
        Mistake(
            lambda query, documents, k: _nearest(query, documents, k)[::-1],
            "these are the right documents, but the best comes last",
        ),
        Mistake(
            lambda query, documents, k: np.argsort(-(documents @ query), kind="stable")[:k],
            "ranked by dot products: a long vector wins by its length alone. These vectors are not of length 1",
        ),
        Mistake(
            lambda query, documents, k: np.argsort(np.linalg.norm(documents - query, axis=1), kind="stable")[:k],
            "ranked by the distance between the points: that is another order, unless all vectors have length 1",
        ),
        Mistake(
            lambda query, documents, k: _nearest(query, documents, len(documents)),
            "these are all documents; only k were asked for",
        ),
        Mistake(
            lambda query, documents, k: -np.sort(-_cosines(query[None], documents)[0])[:k],
            "these are the cosines; the places of the documents in the list were asked for",
        ),
    ],
)


def _contributions(t: Array, u: Array) -> Array:
    return t @ u.T / (np.linalg.norm(t.sum(axis=0)) * np.linalg.norm(u.sum(axis=0)))


CONTRIBUTIONS = Exercise(
    "contributions",
    _contributions,
    [
        (array([3, 1], [1, 3]), array([2, 0], [0, 4], [1, 1])),
        (array([1, 2, 0], [0, 1, 5], [2, 2, 1]), array([1, 0, 1], [3, 1, 0])),
    ],
    [
        Mistake(
            _cosines,
            "these are the cosines of the tokens with each other, each divided by its own lengths; they do not add up "
            "to the cosine of the texts",
        ),
        Mistake(
            lambda t, u: t @ u.T,
            "these are plain dot products; divided by one number, the same for all, they add up to the cosine",
        ),
        Mistake(
            lambda t, u: t @ u.T / (len(t) * len(u)),
            "these add up to the dot product of the two means; the means' lengths are still to be divided by",
        ),
        Mistake(
            lambda t, u: t @ u.T / (np.linalg.norm(t.mean(axis=0)) * np.linalg.norm(u.mean(axis=0))),
            "the lengths of the means are right, but a mean is a sum divided by a number of tokens, on both sides",
        ),
        Mistake(
            lambda t, u: t @ u.T / (np.linalg.norm(t) * np.linalg.norm(u)),
            "divided by the lengths of whole matrices; it is the length of the texts' vectors that counts",
        ),
        Mistake(
            lambda t, u: _contributions(u, t),
            "rows and columns are the wrong way round: a row belongs to a token of t",
        ),
    ],
)
