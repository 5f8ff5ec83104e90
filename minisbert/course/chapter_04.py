"""The exercises of notebook 4, "What does one layer do, and six?": LayerNorm, GELU, and half a layer with its residual.

Each comes with its solution and with the results of typical mistakes: read it after the notebook. The package's own
versions are :func:`minisbert.model.ops.layer_norm`, :func:`minisbert.model.ops.gelu` and
:func:`minisbert.model.bert.feed_forward`.

Letters: ``N`` tokens, ``D`` hidden size, ``F`` feed-forward size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minisbert.course.exercises import Exercise, Mistake, array
from minisbert.model import Array
from minisbert.model.ops import gelu, gelu_tanh, layer_norm, linear, relu, sigmoid

__all__ = ["GELU", "NORM", "THINK"]

Weights = tuple[Array, Array]  # a weight and a bias


# ------------------------------------------------------------------------------------------------- LayerNorm


def _centred(x: Array, axis: int = -1) -> Array:
    return x - x.mean(axis=axis, keepdims=True)


def _variance(x: Array, ddof: int = 0) -> Array:
    return x.var(axis=-1, keepdims=True, ddof=ddof)


def _without_eps(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    with np.errstate(all="ignore"):  # a row of equal numbers is divided by zero
        normed: Array = _centred(x) / np.sqrt(_variance(x)) * weight + bias
    return normed


NORM = Exercise(
    "layer_norm",
    layer_norm,
    [
        (array([2, 2, 6, 6], [1, 3, 5, 7], [0, 0, 0, 9]), array(1, 2, 3, -1), array(0.5, 0, -1, 2), 0.5),
        (array([4, 4, 4], [-1, 0, 4]), array(1, 1, 2), array(0, 1, 0), 1e-3),
    ],
    [
        Mistake(
            lambda x, weight, bias, eps: (x - x.mean(0)) / np.sqrt(x.var(0) + eps) * weight + bias,
            "mean and variance run down the columns; each token, that is each row, has its own",
        ),
        Mistake(
            lambda x, weight, bias, eps: (x - x.mean()) / np.sqrt(x.var() + eps) * weight + bias,
            "one mean and one variance of the whole matrix: then a token's vector depends on its neighbours. See axis=",
        ),
        Mistake(
            lambda x, weight, bias, eps: _centred(x) / np.sqrt(_variance(x, ddof=1) + eps) * weight + bias,
            "the variance is divided by D - 1, as in statistics; here D counts. Is there a ddof=1?",
        ),
        Mistake(
            lambda x, weight, bias, eps: _centred(x) / (np.sqrt(_variance(x)) + eps) * weight + bias,
            "eps is added to the standard deviation; it belongs to the variance, before the root is taken",
        ),
        Mistake(
            _without_eps,
            "eps is missing; a row of equal numbers has variance 0",
        ),
        Mistake(
            lambda x, weight, bias, eps: _centred(x) / (_variance(x) + eps) * weight + bias,
            "divided by the variance; a standard deviation is its root",
        ),
        Mistake(
            lambda x, weight, bias, eps: x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight + bias,
            "the mean is not taken away; that is RMSNorm, which other models use",
        ),
        Mistake(
            lambda x, weight, bias, eps: _centred(x) / np.sqrt(_variance(x) + eps),
            "mean 0 and variance 1 are right; weight and bias are still missing",
        ),
        Mistake(
            lambda x, weight, bias, eps: (_centred(x) / np.sqrt(_variance(x) + eps) + bias) * weight,
            "the bias is multiplied by the weight; which of the two comes first?",
        ),
    ],
)


# ------------------------------------------------------------------------------------------------------ GELU


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


GELU = Exercise(
    "gelu",
    gelu,
    [(array(-3, -1, -0.5, 0, 0.5, 1, 3),), (array([0.1, 2], [-2, 10]),)],
    [
        Mistake(
            gelu_tanh,
            "this is the tanh form: close, but another function. This checkpoint wants the exact one, by math.erf",
        ),
        Mistake(
            lambda x: x * sigmoid(1.702 * x),
            "this is the sigmoid form, the roughest approximation; the exact one is by math.erf",
        ),
        Mistake(
            relu,
            "this is ReLU, which cuts everything below zero; GELU lets a little of it pass",
        ),
        Mistake(
            lambda x: 0.5 * (1.0 + _erf(x / math.sqrt(2.0))),
            "this is Phi(x), a probability; GELU weighs something by it",
        ),
        Mistake(
            lambda x: 0.5 * x * (1.0 + _erf(x)),
            "erf is not Phi: erf(x) belongs to a bell curve of another width. By what is x divided first?",
        ),
        Mistake(
            lambda x: x * _erf(x / math.sqrt(2.0)),
            "erf runs from -1 to 1, and a probability from 0 to 1. For x = -1 the result has to be negative",
        ),
        Mistake(
            lambda x: x * (1.0 + _erf(x / math.sqrt(2.0))),
            "twice too large: for large x it has to give x back",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------- half a layer


def _norm(x: Array, norm: Weights) -> Array:
    return layer_norm(x, *norm, 1e-12)


def _inner(hidden: Array, expand: Weights, contract: Weights, activation: Callable[[Array], Array] = gelu) -> Array:
    return linear(activation(linear(hidden, *expand)), *contract)


def _think(hidden: Array, expand: Weights, contract: Weights, norm: Weights) -> Array:
    return _norm(hidden + _inner(hidden, expand, contract), norm)


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
    [
        Mistake(
            lambda hidden, expand, contract, norm: _norm(_inner(hidden, expand, contract), norm),
            "the residual is missing: the token's old vector is thrown away, and only the change is left",
        ),
        Mistake(
            lambda hidden, expand, contract, norm: hidden + _norm(_inner(hidden, expand, contract), norm),
            "LayerNorm comes too early: it takes the sum of old vector and change, not the change alone",
        ),
        Mistake(
            lambda hidden, expand, contract, norm: hidden + _inner(_norm(hidden, norm), expand, contract),
            "that is GPT-2's order, LayerNorm first; in BERT it comes last",
        ),
        Mistake(
            lambda hidden, expand, contract, norm: hidden + _inner(hidden, expand, contract),
            "LayerNorm is missing at the end",
        ),
        Mistake(
            lambda hidden, expand, contract, norm: _norm(hidden + linear(linear(hidden, *expand), *contract), norm),
            "no activation in between: two matrices in a row are only one matrix",
        ),
        Mistake(
            lambda hidden, expand, contract, norm: _norm(hidden + _inner(hidden, expand, contract, relu), norm),
            "the activation is ReLU; BERT's is GELU",
        ),
        Mistake(
            lambda hidden, expand, contract, norm: _norm(
                hidden + gelu(linear(linear(hidden, *expand), *contract)), norm
            ),
            "GELU comes too late: it works at width F, between the two matrices",
        ),
    ],
)
