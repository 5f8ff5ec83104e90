"""The exercises of notebook 4, "What does one layer do, and six?": LayerNorm, GELU, and half a layer with its residual.

Each comes with its solution, whose keyword arguments make typical mistakes: read it after the notebook. The package's
own versions are :func:`minisbert.model.ops.layer_norm`, :func:`minisbert.model.ops.gelu` and
:func:`minisbert.model.bert.feed_forward`.

Letters: ``N`` tokens, ``D`` hidden size, ``F`` feed-forward size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array
from minisbert.model.ops import gelu, gelu_tanh, layer_norm, linear, relu, sigmoid

__all__ = ["GELU", "NORM", "THINK"]

Weights = tuple[Array, Array]  # a weight and a bias


def _layer_norm(
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    *,
    axis: int | None = -1,
    centre: bool = True,
    ddof: int = 0,
    deviation: Callable[[Array, float], Array] = lambda variance, eps: np.sqrt(variance + eps),
    shift: Callable[[Array, Array, Array], Array] = lambda z, weight, bias: z * weight + bias,
) -> Array:
    centred = x - x.mean(axis=axis, keepdims=True) if centre else x
    count = x.size if axis is None else x.shape[axis]
    variance = (centred * centred).sum(axis=axis, keepdims=True) / (count - ddof)
    return shift(centred / deviation(variance, eps), weight, bias)


NORM = Exercise(
    "layer_norm",
    _layer_norm,
    [
        (array([2, 2, 6, 6], [1, 3, 5, 7], [0, 0, 0, 9]), array(1, 2, 3, -1), array(0.5, 0, -1, 2), 0.5),
        (array([4, 4, 4], [-1, 0, 4]), array(1, 1, 2), array(0, 1, 0), 1e-3),
    ],
    {
        "mean and variance run down the columns; each token, that is each row, has its own": {"axis": 0},
        "one mean and one variance of the whole matrix; each row has its own. See axis=": {"axis": None},
        "the variance is divided by D - 1, as in statistics; here D counts. Is there a ddof=1?": {"ddof": 1},
        "eps belongs to the variance, under the root": {"deviation": lambda variance, eps: np.sqrt(variance) + eps},
        "the eps that is handed over is not used": {"deviation": lambda variance, eps: np.sqrt(variance + 1e-12)},
        "eps is missing; a row of equal numbers has variance 0": {"deviation": lambda variance, eps: np.sqrt(variance)},
        "divided by the variance, not by its root": {"deviation": lambda variance, eps: variance + eps},
        "nothing is divided by the standard deviation": {"deviation": lambda variance, eps: np.ones(1)},
        "the mean is not taken away; that is RMSNorm, which other models use": {"centre": False},
        "mean 0 and variance 1 are right; weight and bias are still missing": {"shift": lambda z, weight, bias: z},
        "weight and bias have changed places": {"shift": lambda z, weight, bias: z * bias + weight},
        "the bias is missing": {"shift": lambda z, weight, bias: z * weight},
        "the bias is multiplied by the weight, too": {"shift": lambda z, weight, bias: (z + bias) * weight},
    },
    level=1,
    minutes=15,
    draw=lambda rng: (rng.normal(size=(3, 4)), rng.normal(1, 0.5, 4), rng.normal(size=4), 1e-3),
    hints=(
        "mean and variance are those of each row: they have to keep an axis of length 1 to be subtracted from x",
        "x - mean, over the square root of variance + eps, times weight, plus bias; x.var(axis=-1, keepdims=True)",
    ),
    instead=("minisbert",),
)


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _gelu(
    x: Array,
    *,
    weight: Callable[[Array], Array] = lambda x: 0.5 * (1.0 + _erf(x / math.sqrt(2.0))),
    whole: Callable[[Array], Array] | None = None,
    of: Callable[[Array], Array | float] = lambda x: x,
) -> Array:
    return whole(x) if whole else of(x) * weight(x)


GELU = Exercise(
    "gelu",
    _gelu,
    [(array(-3, -1, -0.5, 0, 0.5, 1, 3),), (array([0.1, 2], [-2, 10]),)],
    {
        "the tanh form is close, but another function; the exact one is by math.erf": {"whole": gelu_tanh},
        "the sigmoid form, a rough one; the exact one is by math.erf": {"weight": lambda x: sigmoid(1.702 * x)},
        "this is SiLU, with the logistic function; GELU has the normal distribution": {"weight": sigmoid},
        "this is ReLU, which cuts everything below zero; GELU lets a little of it pass": {"whole": relu},
        "this is Phi(x), a probability; GELU weighs something by it": {"of": lambda x: 1.0},
        "erf is not Phi. By what is x divided first?": {"weight": lambda x: 0.5 * (1.0 + _erf(x))},
        "x is multiplied by sqrt(2), not divided": {"weight": lambda x: 0.5 * (1.0 + _erf(x * math.sqrt(2.0)))},
        "erf runs from -1 to 1, a probability from 0 to 1": {"weight": lambda x: _erf(x / math.sqrt(2.0))},
    },
    level=2,
    minutes=10,
    draw=lambda rng: (2 * rng.normal(size=(2, 5)),),
    hints=(
        "GELU(x) is x times Phi(x), the chance that a normally distributed number is below x. How is erf made Phi?",
        "Phi(x) = (1 + erf(x / sqrt(2))) / 2, and np.vectorize(math.erf) takes arrays",
    ),
    instead=("minisbert",),
)


def _think(
    hidden: Array,
    expand: Weights,
    contract: Weights,
    norm: Weights,
    *,
    activation: Callable[[Array], Array] = gelu,
    late: Callable[[Array], Array] = lambda x: x,
    order: str = "post",
    residual: bool = True,
    biases: bool = True,
    eps: float = 1e-12,
) -> Array:
    def change(x: Array) -> Array:
        wide = linear(x, *expand) if biases else x @ expand[0].T
        narrow = linear(activation(wide), *contract) if biases else activation(wide) @ contract[0].T
        return late(narrow)

    def normed(x: Array) -> Array:
        return layer_norm(x, *norm, eps)

    old = hidden if residual else np.zeros_like(hidden)
    if order == "gpt":
        return old + change(normed(hidden))
    if order == "change":
        return old + normed(change(hidden))
    return old + change(hidden) if order == "none" else normed(old + change(hidden))


def _case(tokens: int, width: int, inner: int, seed: int) -> tuple[Array, Weights, Weights, Weights]:
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(tokens, width)),
        (rng.normal(size=(inner, width)), rng.normal(size=inner)),
        (rng.normal(size=(width, inner)), rng.normal(size=width)),
        (rng.normal(1.0, 0.2, size=width), rng.normal(size=width)),
    )


THINK = Exercise(
    "think",
    _think,
    [_case(3, 4, 8, seed=0), _case(2, 6, 5, seed=1)],
    {
        "the residual is missing: only the change is left of the token's vector": {"residual": False},
        "LayerNorm comes too early: it is for the sum, not for the change alone": {"order": "change"},
        "that is GPT-2's order, LayerNorm first; in BERT it comes last": {"order": "gpt"},
        "LayerNorm is missing at the end": {"order": "none"},
        "no activation in between: two matrices in a row are only one matrix": {"activation": lambda x: x},
        "the activation is ReLU; BERT's is GELU": {"activation": relu},
        "the activation is the tanh form of GELU; this checkpoint has the exact one": {"activation": gelu_tanh},
        "GELU comes too late: it works at width F, between the two matrices": {"activation": lambda x: x, "late": gelu},
        "GELU comes once too often: only the wide vectors go through it": {"late": gelu},
        "the biases of the two matrices are missing": {"biases": False},
        "eps is 1e-5, PyTorch's default; this checkpoint's is 1e-12": {"eps": 1e-5},
    },
    level=2,
    minutes=15,
    draw=lambda rng: _case(3, 4, 6, seed=int(rng.integers(1000))),
    hints=(
        "expand, activate, contract; add what came in; normalize. Which of these work at width F?",
        "layer_norm of hidden + linear(gelu(linear(hidden, ...)), ...), with *norm and 1e-12",
    ),
    instead=("feed_forward", "layer"),
)
