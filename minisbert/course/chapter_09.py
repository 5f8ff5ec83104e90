"""The exercises of notebook 9, "How do I know that a gradient is right?": a slope, and two backward passes.

Each comes with its solution, and typical mistakes as changes of its text: read it after the notebook. The package's
own versions are in :mod:`minisbert.training.gradcheck`, :func:`minisbert.model.ops.normalize_backward` and
:func:`minisbert.model.bert.attention_backward`.

Letters: ``N`` rows, ``T`` tokens of one text, ``D`` and ``K`` the width of a vector.
"""

from collections.abc import Callable

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array


def _slope(f: Callable[[float], float], x: float, h: float) -> float:
    return (f(x + h) - f(x - h)) / (2.0 * h)


SLOPE = Exercise(
    _slope,
    [(np.exp, 0.0, 0.5), (np.tanh, 0.7, 0.1), (np.sin, -1.2, 0.01), (np.cos, 0.8, 0.2)],  # cos falls there
    {
        "one step only, to the right: its error falls with h, that of two steps with the square of h":
            {"f(x - h)": "f(x)", "(2.0 * h)": "h"},
        "one step only, to the left: its error falls with h, that of two steps with the square of h":
            {"f(x + h)": "f(x)", "(2.0 * h)": "h"},
        "the points are h/2 away, to the right and to the left; h is wanted":
            {"+ h": "+ h / 2", "x - h": "x - h / 2", "(2.0 * h)": "h"},
        "twice as steep as it is: how far apart are the two points at which f is asked?": {"(2.0 * h)": "h"},
        "this is how much f rises; a slope is a rise for each unit of the way": {" / (2.0 * h)": ""},
        "multiplied by h, not divided: / 2 * h needs brackets": {"(2.0 * h)": "2.0 * h"},
    },
    level=1, minutes=5, instead=("gradcheck",),
    tolerance=1e-10,  # rounding, 1e-16, over a step of 0.02 is 1e-14; this is ten thousand times that
    draw=lambda rng: (np.polynomial.Polynomial(rng.normal(size=4)), float(rng.normal()), 0.1),
    hint="a slope is how much f rises, over how far one goes. Where does one start, and where does one end?",
    more="f at x + h, less f at x - h; the two points are 2h apart",
)  # fmt: skip


def _normalize_backward(d_y: Array, x: Array) -> Array:
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    y = x / length
    along = (d_y * y).sum(axis=-1, keepdims=True)
    return (d_y - y * along) / length


NORMALIZE_BACKWARD = Exercise(
    _normalize_backward,
    [(array([1, 0]), array([3, 4])), (array([0.5, -1, 2], [0.3, 0.3, -0.7]), array([1, 2, 2], [-2, 6, 3]))],
    {
        "x is divided by a length that depends on x: what goes back through that length is missing":
            {" - y * along": ""},
        "too long or too short: a row twice as long is turned by half as much": {") / length": ")"},
        "divided by the squared length": {") / length": ") / length**2"},
        "divided by the length of the whole matrix: every row has a length of its own":
            {") / length": ") / np.linalg.norm(x)"},
        "d_y is split along a direction, and x is longer than 1": {"x / length": "x"},
        "what points along the row is added; it has to be taken away": {"- y * along": "+ y * along"},
        "the sum runs over all rows: see axis= and keepdims=": {"y).sum(axis=-1, keepdims=True)": "y).sum()"},
        "the upstream gradient is not used: this is the answer for d_y = 1 alone":
            lambda d_y, x: _normalize_backward(np.ones_like(x), x),
    },
    level=3, minutes=20, instead=("normalize_backward",),
    tolerance=1e-12,  # slopes that are measured are not derived: two steps are off by 1e-11
    draw=lambda rng: tuple(rng.normal(size=(2, 3, 4))),
    hint="a push along the row changes nothing, since the length is divided away; what is at right angles does",
    more="y = x / |x|; take from d_y its part along y, which is y * (d_y . y) row by row, and divide by |x|",
)  # fmt: skip


def _d_value(d_context: Array, probs: Array) -> Array:
    return probs.T @ d_context


D_VALUE = Exercise(
    _d_value,
    [
        (array([4], [8]), array([0.75, 0.25], [0.5, 0.5])),
        (array([1, 0, -2], [0, 3, 0.5], [-1, 1, 1]), array([0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.6, 0.4, 0])),
    ],
    {
        "this is the forward pass once more: going back, token s must gather from those that looked at it, and these "
        "stand in a column": {"probs.T": "probs"},
        "where do the probabilities come in?": {"probs.T @ ": ""},
        "nothing is averaged here: gradients are added": {"probs.T": "probs.T / len(probs)"},
        "the probabilities are right, but token s takes its own gradient for all: it must take that of each token that "
        "looked at it": {"probs.T": "np.diag(probs.sum(axis=0))"},
        "the columns need not sum to 1": {"probs.T": "(probs.T / probs.sum(axis=0)[:, None])"},
        "only what a token passed on to itself comes back": {"probs.T": "np.diag(np.diag(probs))"},
    },
    level=2, minutes=10, instead=("attention_backward",),
    draw=lambda rng: (rng.normal(size=(4, 3)), rng.dirichlet(np.ones(4), 4)),
    hint="to which rows of context did value s contribute, and with which weight each?",
    more="d_value[s] is the sum over t of probs[t, s] * d_context[t]: which matrix product is that?",
)  # fmt: skip
