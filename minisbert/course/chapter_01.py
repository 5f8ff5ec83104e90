"""The exercises of notebook 1, "Can a vector hold a meaning?": cosines, a search, and which tokens make a cosine.

Each comes with its solution, and typical mistakes as changes of its text: read it after the notebook. The package's
own versions are :func:`minisbert.cos_sim`, :func:`minisbert.search.semantic_search` and
:func:`minisbert.analysis.explain`.

Letters: ``A`` and ``B`` rows or tokens, ``M`` documents, ``D`` the width of a vector, ``k`` results.
"""

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array


def _cosines(a: Array, b: Array) -> Array:
    of_a, of_b = (np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
    return (a / of_a) @ (b / of_b).T


COSINES = Exercise(
    _cosines,
    [
        (array([3, 4], [1, 0], [-2, 2]), array([4, 3], [0, 2])),
        (array([1, 2, 2]), array([2, -1, 2], [1, 1, 0], [0, 0, -3], [1, 2, 2])),
    ],
    {
        "dot products: they grow with a vector's length. Which division is missing?": {" / of_a": "", " / of_b": ""},
        "only the rows of a are divided by their lengths; double a row of b, and the result doubles": {" / of_b": ""},
        "only the rows of b are divided by their lengths; double a row of a, and the result doubles": {" / of_a": ""},
        "divided by squared lengths: is a square root missing?": {"/ of_a": "/ of_a**2", "/ of_b": "/ of_b**2"},
        "divided by the length of the whole matrix: see axis=, keepdims=": {", axis=1, keepdims=True": ""},
        "divided by the lengths of the columns; a row is a vector. See axis=": {"axis=1": "axis=0"},
        "divided by sums of absolute values: a vector with itself is not at 1":
            {"np.linalg.norm(rows,": "np.abs(rows).sum("},
    },
    level=1, minutes=10, instead=("cos_sim", "semantic_search", "normalize"),
    draw=lambda rng: (rng.normal(size=(3, 4)), rng.normal(size=(2, 4))),
    hint="a cosine is the dot product of two vectors of length 1. How do you make all rows of a matrix that long?",
    more="divide a and b by np.linalg.norm(..., axis=1, keepdims=True); then one @ makes all dot products at once",
)  # fmt: skip


def _nearest(query: Array, documents: Array, k: int) -> Array:
    closeness = _cosines(query[None], documents)[0]  # (M,)
    return np.argsort(-closeness, kind="stable")[:k]


NEAREST = Exercise(
    _nearest,
    [
        (array(1, 0), array([1, 1], [0.2, 0.1], [0, 4], [-1, 0.5], [9, 8]), 3),
        (array(0, 1, 1), array([5, 1, 0], [0, 0.3, 0.2], [1, 2, 2], [0, -1, -1]), 2),
        (array(1, 2), np.random.default_rng(0).normal(0.0, (3.0, 0.5), size=(12, 2)), 5),
    ],
    {
        "these are the farthest: np.argsort puts the smallest first, and a large cosine is close":
            {"-closeness": "closeness"},
        "ranked by dot products: long vectors win by length alone":
            {"_cosines(query[None], documents)[0]": "documents @ query"},
        "ranked by the distance between the points: that is another order, unless all vectors have length 1":
            {"_cosines(query[None], documents)[0]": "-np.linalg.norm(documents - query, axis=1)"},
        "the signs of the cosines are lost: the opposite direction is the farthest, not the closest":
            {"-closeness": "-np.abs(closeness)"},
        "divided by squared lengths: then a short vector wins":
            {"_cosines(query[None], documents)[0]": "documents @ query / (documents**2).sum(axis=1)"},
    },
    level=1, minutes=15, instead=("cos_sim", "semantic_search", "search"),
    draw=lambda rng: (rng.normal(size=4), rng.uniform(0.1, 5, (9, 1)) * rng.normal(size=(9, 4)), 3),
    hint="first the cosine of the query with every document, then the places of the largest ones",
    more="np.argsort gives places, the smallest number first; of the cosines with the sign turned, the first k",
)  # fmt: skip


def _contributions(t: Array, u: Array) -> Array:
    of_t, of_u = (np.linalg.norm(tokens.sum(axis=0)) for tokens in (t, u))
    return t @ u.T / (of_t * of_u)


CONTRIBUTIONS = Exercise(
    _contributions,
    [
        (array([3, 1], [1, 3]), array([2, 0], [0, 4], [1, 1])),
        (array([1, 2, 0], [0, 1, 5], [2, 2, 1]), array([1, 0, 1], [3, 1, 0])),
    ],
    {
        "these are the cosines of the tokens with each other, each divided by its own lengths; they do not add up "
        "to the cosine of the texts": {"tokens.sum(axis=0)": "tokens, axis=1, keepdims=True", "* of_u": "* of_u.T"},
        "plain dot products; divided by one number, they add up to the cosine": {" / (of_t * of_u)": ""},
        "the dot product of the two means; their lengths are missing":
            {"np.linalg.norm(tokens.sum(axis=0))": "len(tokens)"},
        "the lengths of the means are right, but a mean is a sum divided by a number of tokens, on both sides":
            {"tokens.sum": "tokens.mean"},
        "divided by the lengths of whole matrices; the texts' vectors count": {"tokens.sum(axis=0)": "tokens"},
    },
    level=2, minutes=15, instead=("explain",),
    draw=lambda rng: (rng.normal(1, 1, (3, 4)), rng.normal(1, 1, (2, 4))),
    hint="write the cosine of the two means as a sum over pairs of tokens; which part of it belongs to one pair?",
    more="the dot product of a pair over one number: the product of the lengths of the two *sums* of tokens. Why sums?",
)  # fmt: skip
