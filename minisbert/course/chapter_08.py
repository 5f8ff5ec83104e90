"""The exercises of notebook 8, "What does a similarity of 0.3 mean?": angles, a percentile, and a correlation of ranks.

Each comes with its solution, and typical mistakes as changes of its text: read it after the notebook. The package's
own versions are :func:`minisbert.similarity.pairwise_angular_distance`, which keeps more digits of small angles,
:meth:`minisbert.analysis.calibration.Calibration.percentile` and :func:`minisbert.evaluation.sts.spearman`.

Letters: ``B`` pairs, ``D`` width of a vector, ``P`` random pairs.
"""

import math

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.evaluation.sts import pearson, rank
from minisbert.model import Array


def _angles(a: Array, b: Array) -> Array:
    of_a, of_b = (np.linalg.norm(rows, axis=1) for rows in (a, b))
    cosines = np.clip((a * b).sum(axis=1) / (of_a * of_b), -1.0, 1.0)
    return np.arccos(cosines) / math.pi


ANGLES = Exercise(
    _angles,
    [
        (array([1, 0], [3, 4], [2, 2]), array([0, 5], [4, 3], [-1, -1])),
        # the first cosine is rounded above 1, the last one below -1
        (array([1, 3, 7], [1, 2, 2], [1, 3, 7]), array([1, 3, 7], [2, -1, 2], [-1, -3, -7])),
    ],
    {
        "right but for NaN: a rounded cosine of 1.0000000000000002; see np.clip": {"np.clip(": "(", ", -1.0, 1.0": ""},
        "these are the cosines; the angles were asked for": {"np.arccos(cosines) / math.pi": "cosines"},
        "this is 1 - cosine; the angle was asked for": {"np.arccos(cosines) / math.pi": "1.0 - cosines"},
        "these are radians, up to 3.14; opposite directions shall be at 1": {" / math.pi": ""},
        "these are degrees, up to 180; opposite directions shall be at 1": {"/ math.pi": "/ math.pi * 180.0"},
        "these are full turns, so that opposite directions are at 0.5; they shall be at 1":
            {"math.pi": "(2.0 * math.pi)"},
        "arccos is of dot products here; these vectors are not of length 1": {" / (of_a * of_b)": ""},
        "this is the chord, straight through the sphere: a metric, too, but the angle was asked for":
            {"np.arccos(cosines) / math.pi": "np.sqrt(2.0 - 2.0 * cosines)"},
        "negative cosines are cut to 0": {"-1.0, 1.0": "0.0, 1.0"},
    },
    level=1, minutes=10, instead=("angular_distance", "pairwise_angular_distance", "pairwise_cos_sim"),
    tolerance=1e-6,  # near a cosine of 1, arccos turns an error in the last digit into 1e-8
    draw=lambda rng: tuple(rng.normal(size=(2, 4, 3))),
    hint="first the cosine of each pair of rows, a number for each; then the angle that has this cosine",
    more="np.arccos gives radians: what is half a turn in radians? And clip the cosines to -1 and 1 before",
)  # fmt: skip


def _percentile(score: float, scores: Array) -> float:
    below, equal = (scores < score).sum(), (scores == score).sum()
    return float(100.0 * (below + 0.5 * equal) / len(scores))


PERCENTILE = Exercise(
    _percentile,
    [
        (0.5, np.array([0.5, -0.25, 0.75, 0.5, 0.25])),
        (0.3, np.array([0.1, 0.2, 0.9, 0.0])),
        (0.0, np.array([0.0, 0.5])),
        (0.4, np.array([0.9, 0.1, 0.4, 0.2, 0.4, -0.3, 0.4])),  # no whole number comes out
        (0.7, np.array([0.1, 0.8, 0.2])),
        (-0.2, np.array([-0.5, 0.1, -0.1, -0.2, 0.6, 0.3])),
    ],
    {
        "this is a fraction, up to 1; percent were asked for": {"100.0": "1.0"},
        "scores that are equal count for nothing here; half of them are to count as below": {" + 0.5 * equal": ""},
        "scores that are equal count in full here; half of them are to count as below": {"0.5 * ": ""},
        "this is the share above: the more alike two texts are, the smaller it gets":
            {"scores < score": "scores > score"},
        "this is a number of pairs, no share of them": {"100.0 * ": "", " / len(scores)": ""},
    },
    level=1, minutes=10, instead=("percentile",),
    draw=lambda rng: (int(rng.integers(-5, 10)) / 10, rng.integers(-5, 10, 9) / 10),
    hint="count: how many scores are below, and how many are equal?",
    more="(scores < score).sum() counts; add half of the equal ones, divide by how many there are, and make it percent",
)  # fmt: skip


def _places(x: Array) -> Array:
    return np.argsort(x, kind="stable")


def _lowest_rank(x: Array) -> Array:
    return (x[:, None] > x).sum(axis=1) + 1.0


def _distinct_rank(x: Array) -> Array:
    return np.unique(x, return_inverse=True)[1].reshape(x.shape) + 1.0


def _cosine(x: Array, y: Array) -> float:
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def _short_formula(x: Array, y: Array) -> float:
    return float(1.0 - 6.0 * ((x - y) ** 2).sum() / (len(x) ** 3 - len(x)))


def _kendall(x: Array, y: Array) -> float:
    signs = [np.sign(z[:, None] - z) for z in (x, y)]
    return float((signs[0] * signs[1]).sum() / np.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum()))


def _correlation(x: Array, y: Array) -> float:
    return pearson(rank(x), rank(y))


def _draw_ranks(rng: np.random.Generator) -> tuple[Array, Array]:
    x = rng.permutation(array(0, 0, 1, 2, 3, 5))
    return x, x + rng.integers(0, 3, 6)


CORRELATION = Exercise(
    _correlation,
    [
        (np.array([0.9, 0.2, 0.6, 0.1]), np.array([5.0, 3.0, 3.0, 0.0])),
        (np.array([-0.1, 0.8, 0.3, 0.3, 0.7]), np.array([1.0, 5.0, 0.0, 2.0, 2.0])),
        (np.array([0.1, 0.2, 0.9]), np.array([4.0, 2.0, 1.0])),
        (np.array([0.5, 0.1, 0.1, 0.1, 0.7, 0.2]), np.array([3.0, 1.0, 4.0, 4.0, 4.0, 0.0])),
    ],
    {
        "equal scores get different ranks, by their place in the list; they share the average of their ranks":
            {"rank(x), rank(y)": "_places(_places(x)), _places(_places(y))"},
        "equal scores all get the lowest of their ranks; they share the average": {"rank": "_lowest_rank"},
        "equal scores share a rank, but it uses up one place instead of several": {"rank": "_distinct_rank"},
        "this is Pearson's, of the numbers themselves; ranks are what is compared here": {"rank(x), rank(y)": "x, y"},
        "np.argsort gives places, and not each number's rank": {"rank": "_places"},
        "the short formula with the 6 is wrong where there are ties": {"pearson": "_short_formula"},
        "this is the cosine of the ranks; something has to be subtracted first": {"pearson": "_cosine"},
        "this is Kendall's tau, which counts pairs in the same order": {"pearson": "_kendall"},
    },
    level=2, minutes=15, instead=("spearman",),
    draw=_draw_ranks,
    hint="Spearman's correlation is Pearson's, of something else than the numbers themselves",
    more="take the mean rank from the ranks of each list, then it is the cosine of what is left",
)  # fmt: skip
