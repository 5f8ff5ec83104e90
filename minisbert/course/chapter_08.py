"""The exercises of notebook 8, "What does a similarity of 0.3 mean?": angles, a percentile, and a correlation of ranks.

Each comes with its solution and with the results of typical mistakes: read it after the notebook. The package's own
versions are :func:`minisbert.similarity.pairwise_angular_distance`, which keeps more digits of small angles,
:meth:`minisbert.analysis.calibration.Calibration.percentile` and :func:`minisbert.evaluation.sts.spearman`.

Letters: ``B`` pairs, ``D`` width of a vector, ``P`` random pairs.
"""

from __future__ import annotations

import math

import numpy as np

from minisbert.course.exercises import Exercise, Mistake, array
from minisbert.evaluation.sts import pearson, rank, spearman
from minisbert.model import Array

__all__ = ["ANGLES", "CORRELATION", "PERCENTILE"]


# ------------------------------------------------------------------------------------------------- angles


def _cosines(a: Array, b: Array) -> Array:
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _angles(a: Array, b: Array) -> Array:
    return np.arccos(np.clip(_cosines(a, b), -1.0, 1.0)) / math.pi


def _without_clip(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore"):
        angles: Array = np.arccos(_cosines(a, b)) / math.pi  # (B,)
    return angles


ANGLES = Exercise(
    "angles",
    _angles,
    [
        (array([1, 0], [3, 4], [2, 2]), array([0, 5], [4, 3], [-1, -1])),
        (array([1, 3, 7], [1, 2, 2]), array([1, 3, 7], [2, -1, 2])),  # the first cosine is rounded above 1
    ],
    [
        Mistake(
            _without_clip,
            "right but for NaN: a cosine that is rounded to 1.0000000000000002 has no angle; see np.clip",
        ),
        Mistake(
            lambda a, b: 1.0 - _cosines(a, b),
            "this is 1 - cosine, for which a detour can be shorter than the direct way; the angle was asked for",
        ),
        Mistake(
            lambda a, b: np.arccos(np.clip(_cosines(a, b), -1.0, 1.0)),
            "these are radians, up to 3.14; opposite directions shall be at 1",
        ),
        Mistake(
            lambda a, b: np.degrees(np.arccos(np.clip(_cosines(a, b), -1.0, 1.0))),
            "these are degrees, up to 180; opposite directions shall be at 1",
        ),
        Mistake(
            lambda a, b: _angles(a, b) / 2.0,
            "these are full turns, so that opposite directions are at 0.5; they shall be at 1",
        ),
        Mistake(
            lambda a, b: np.arccos(np.clip((a * b).sum(axis=1), -1.0, 1.0)) / math.pi,
            "arccos is of dot products here; these vectors are not of length 1",
        ),
        Mistake(
            lambda a, b: np.sqrt(np.maximum(0.0, 2.0 - 2.0 * _cosines(a, b))),
            "this is the chord, straight through the sphere: a metric, too, but the angle was asked for",
        ),
        Mistake(
            lambda a, b: 1.0 - _angles(a, b),
            "this is a similarity, 1 for the same direction; a distance is 0 there",
        ),
    ],
    tolerance=1e-6,  # near a cosine of 1, arccos turns an error in the last digit into 1e-8
)


# ------------------------------------------------------------------------------------------------- a percentile


def _percentile(score: float, scores: Array) -> float:
    return float(100.0 * ((scores < score).sum() + (scores == score).sum() / 2.0) / len(scores))


PERCENTILE = Exercise(
    "percentile",
    _percentile,
    [
        (0.5, np.array([0.5, -0.25, 0.75, 0.5, 0.25])),
        (0.3, np.array([0.1, 0.2, 0.9, 0.0])),
        (0.0, np.array([0.0, 0.5])),
    ],
    [
        Mistake(
            lambda score, scores: _percentile(score, scores) / 100.0,
            "this is a fraction, up to 1; percent were asked for",
        ),
        Mistake(
            lambda score, scores: 100.0 * (scores < score).mean(),
            "scores that are equal count for nothing here; half of them are to count as below",
        ),
        Mistake(
            lambda score, scores: 100.0 * (scores <= score).mean(),
            "scores that are equal count in full here; half of them are to count as below",
        ),
        Mistake(
            lambda score, scores: 100.0 - _percentile(score, scores),
            "this is the share above: the more alike two texts are, the smaller it gets",
        ),
        Mistake(
            lambda score, scores: _percentile(score, scores) * len(scores) / 100.0,
            "this is a number of pairs; it has to be compared with how many there are",
        ),
        Mistake(
            lambda score, scores: np.percentile(scores, 100.0 * score),
            "the other way round: np.percentile takes percent and gives a score",
        ),
        Mistake(
            lambda score, scores: 100.0 * score,
            "a cosine times 100 is no percentage of anything; the random scores are not used",
        ),
    ],
)


# ------------------------------------------------------------------------------------------------- a correlation


def _order(x: Array) -> Array:
    """Rank the members from 1, ties by their place in the list."""
    return np.argsort(np.argsort(x, kind="stable"), kind="stable") + 1.0


def _short_formula(x: Array, y: Array) -> float:
    count = len(x)
    return float(1.0 - 6.0 * ((rank(x) - rank(y)) ** 2).sum() / (count**3 - count))


CORRELATION = Exercise(
    "correlation",
    lambda x, y: spearman(x, y),
    [
        (np.array([0.9, 0.2, 0.6, 0.1]), np.array([5.0, 3.0, 3.0, 0.0])),
        (np.array([-0.1, 0.8, 0.3, 0.3, 0.7]), np.array([1.0, 5.0, 0.0, 2.0, 2.0])),
        (np.array([0.1, 0.2, 0.9]), np.array([4.0, 2.0, 1.0])),
    ],
    [
        Mistake(
            lambda x, y: pearson(_order(x), _order(y)),
            "equal scores get different ranks, by their place in the list; they share the average of their ranks",
        ),
        Mistake(
            lambda x, y: pearson(x, y),
            "this is Pearson's, of the numbers themselves; ranks are what is compared here",
        ),
        Mistake(
            lambda x, y: pearson(np.argsort(x, kind="stable"), np.argsort(y, kind="stable")),
            "np.argsort gives the places of the smallest, the second smallest, ...; that is not each one's rank",
        ),
        Mistake(
            _short_formula,
            "the short formula with 6 and the sum of squared differences is wrong where there are ties",
        ),
        Mistake(
            lambda x, y: -spearman(x, y),
            "the sign is turned: are the ranks of one list counted from the largest?",
        ),
        Mistake(
            lambda x, y: float(
                rank(x) @ rank(y) / (np.linalg.norm(rank(x)) * np.linalg.norm(rank(y))),
            ),
            "this is the cosine of the ranks; something has to be subtracted first, or unrelated lists correlate",
        ),
        Mistake(
            lambda x, y: spearman(x, y) ** 2,
            "this is the square, which does not know falling from rising",
        ),
        Mistake(
            lambda x, y: 100.0 * spearman(x, y),
            "times 100, as tables have it; here it is to lie between -1 and 1",
        ),
    ],
)
