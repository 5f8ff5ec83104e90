"""The exercises of notebook 9, "How do I know that a gradient is right?": a slope, and two backward passes.

Each comes with its solution and with the results of typical mistakes: read it after the notebook. The package's own
versions are in :mod:`minisbert.training.gradcheck`, :func:`minisbert.model.ops.normalize_backward` and
:func:`minisbert.model.bert.attention_backward`.

Letters: ``N`` rows, ``T`` tokens of one text, ``D`` and ``K`` the width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minisbert.course.exercises import Exercise, Mistake, array
from minisbert.model import Array
from minisbert.model.ops import normalize_backward

__all__ = ["D_VALUE", "NORMALIZE_BACKWARD", "SLOPE"]


def _slope(f: Callable[[float], float], x: float, h: float) -> float:
    return (f(x + h) - f(x - h)) / (2.0 * h)


SLOPE = Exercise(
    "slope",
    _slope,
    [(np.exp, 0.0, 0.5), (np.tanh, 0.7, 0.1), (np.sin, -1.2, 0.01)],
    [
        Mistake(
            lambda f, x, h: (f(x + h) - f(x)) / h,
            "one step only, to the right: its error falls with h, that of two steps with the square of h",
        ),
        Mistake(
            lambda f, x, h: (f(x) - f(x - h)) / h,
            "one step only, to the left: its error falls with h, that of two steps with the square of h",
        ),
        Mistake(
            lambda f, x, h: (f(x + h) - f(x - h)) / h,
            "twice as steep as it is: how far apart are the two points at which f is asked?",
        ),
        Mistake(
            lambda f, x, h: f(x + h) - f(x - h),
            "this is how much f rises; a slope is a rise for each unit of the way",
        ),
        Mistake(
            lambda f, x, h: (f(x - h) - f(x + h)) / (2.0 * h),
            "the sign is turned: where f rises to the right, its slope is positive",
        ),
        Mistake(
            lambda f, x, h: (f(x + h) - f(x - h)) / 2.0 * h,
            "multiplied by h instead of divided: / and * are worked off from left to right; use brackets",
        ),
    ],
    tolerance=1e-10,  # rounding, 1e-16, over a step of 0.02 is 1e-14; this is ten thousand times that
)


def _length(x: Array) -> Array:
    return np.linalg.norm(x, axis=-1, keepdims=True)


def _without_unit(d_y: Array, x: Array) -> Array:
    along = (x * d_y).sum(axis=-1, keepdims=True)
    return (d_y - x * along) / _length(x)


def _whole_sum(d_y: Array, x: Array) -> Array:
    y = x / _length(x)
    return (d_y - y * (y * d_y).sum()) / _length(x)


NORMALIZE_BACKWARD = Exercise(
    "normalize_backward",
    normalize_backward,
    [
        (array([1, 0]), array([3, 4])),
        (array([0.5, -1, 2], [0.3, 0.3, -0.7]), array([1, 2, 2], [-2, 6, 3])),
    ],
    [
        Mistake(
            lambda d_y, x: d_y / _length(x),
            "x is divided by a length that depends on x: what goes back through that length is missing",
        ),
        Mistake(
            lambda d_y, x: normalize_backward(d_y, x) * _length(x),
            "the right direction, and too long or too short: a row twice as long is turned by half as much",
        ),
        Mistake(
            _without_unit,
            "d_y has to be split along a direction, and x is longer than 1: which vector has the direction alone?",
        ),
        Mistake(
            lambda d_y, x: 2.0 * d_y / _length(x) - normalize_backward(d_y, x),
            "what points along the row is added instead of taken away; the result must be at right angles to x",
        ),
        Mistake(
            _whole_sum,
            "the sum runs over all rows: every row has a length of its own. See axis= and keepdims=",
        ),
        Mistake(
            lambda d_y, x: normalize_backward(np.ones_like(d_y), x),
            "the upstream gradient is not used: this is the answer for d_y = 1 alone",
        ),
    ],
)


D_VALUE = Exercise(
    "d_value",
    lambda d_context, probs: probs.T @ d_context,
    [
        (array([4], [8]), array([0.75, 0.25], [0.5, 0.5])),
        (array([1, 0, -2], [0, 3, 0.5], [-1, 1, 1]), array([0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.6, 0.4, 0])),
    ],
    [
        Mistake(
            lambda d_context, probs: probs @ d_context,
            "this is the forward pass once more: going back, token s must gather from those that looked at it, "
            "and these stand in a column",
        ),
        Mistake(
            lambda d_context, probs: d_context,
            "each value is read by all tokens, more by some than by others: where do the probabilities come in?",
        ),
        Mistake(
            lambda d_context, probs: probs.T @ d_context / len(probs),
            "nothing is averaged here: where a number is used several times, its gradients are added",
        ),
        Mistake(
            lambda d_context, probs: probs.sum(axis=0)[:, None] * d_context,
            "the probabilities are right, but token s takes its own gradient for all: it must take that of each "
            "token that looked at it",
        ),
        Mistake(
            lambda d_context, probs: (probs.T / probs.sum(axis=0)[:, None]) @ d_context,
            "the columns were made to sum to 1: they are weights of a sum, no probabilities, and stay as they are",
        ),
    ],
)
