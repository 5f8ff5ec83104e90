"""The exercises of notebook 4, "What does one layer do, and six?": LayerNorm, GELU, and half a layer with its residual.

Each comes with its solution, and typical mistakes as changes of its text: read it after the notebook. The package's
own versions are :func:`minisbert.model.ops.layer_norm`, :func:`minisbert.model.ops.gelu` and
:func:`minisbert.model.bert.feed_forward`.

Letters: ``N`` tokens, ``D`` hidden size, ``F`` feed-forward size.
"""

import math

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array
from minisbert.model.ops import gelu, gelu_tanh, layer_norm, linear, relu, sigmoid

Weights = tuple[Array, Array]  # a weight and a bias


def _layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = centred.var(axis=-1, ddof=0, keepdims=True)
    return centred / np.sqrt(variance + eps) * weight + bias


NORM = Exercise(
    _layer_norm,
    [
        (array([2, 2, 6, 6], [1, 3, 5, 7], [0, 0, 0, 9]), array(1, 2, 3, -1), array(0.5, 0, -1, 2), 0.5),
        (array([4, 4, 4], [-1, 0, 4]), array(1, 1, 2), array(0, 1, 0), 1e-3),
    ],
    {
        "mean and variance run down the columns; each token, that is each row, has its own": {"axis=-1": "axis=0"},
        "one mean and one variance of the whole matrix; each row has its own. See axis=": {"axis=-1": "axis=None"},
        "the variance is divided by D - 1, as in statistics; here D counts. Is there a ddof=1?": {"ddof=0": "ddof=1"},
        "eps belongs to the variance, under the root": {"np.sqrt(variance + eps)": "(np.sqrt(variance) + eps)"},
        "the eps that is handed over is not used": {"+ eps": "+ 1e-12"},
        "eps is missing; a row of equal numbers has variance 0": {" + eps": ""},
        "divided by the variance, not by its root": {"np.sqrt(variance + eps)": "(variance + eps)"},
        "nothing is divided by the standard deviation": {" / np.sqrt(variance + eps)": ""},
        "the mean is not taken away; that is RMSNorm, which other models use":
            {" - x.mean(axis=-1, keepdims=True)": "", "centred.var(axis=-1, ddof=0": "(x**2).mean(axis=-1"},
        "mean 0 and variance 1 are right; weight and bias are still missing": {" * weight + bias": ""},
        "weight and bias have changed places": {"* weight + bias": "* bias + weight"},
        "the bias is missing": {" + bias": ""},
        "the bias is multiplied by the weight, too": {
            "centred / np.sqrt(variance + eps)": "(centred / np.sqrt(variance + eps) + bias)",
            "weight + bias": "weight",
        },
    },
    level=1, minutes=15, instead=("minisbert",),
    draw=lambda rng: (rng.normal(size=(3, 4)), rng.normal(1, 0.5, 4), rng.normal(size=4), 1e-3),
    hint="mean and variance are those of each row: they have to keep an axis of length 1 to be subtracted from x",
    more="x - mean, over the square root of variance + eps, times weight, plus bias; x.var(axis=-1, keepdims=True)",
)  # fmt: skip


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _gelu(x: Array) -> Array:
    phi = 0.5 * (1.0 + _erf(x / math.sqrt(2.0)))
    return x * phi


GELU = Exercise(
    _gelu,
    [(array(-3, -1, -0.5, 0, 0.5, 1, 3),), (array([0.1, 2], [-2, 10]),)],
    {
        "the tanh form is close, but another function; the exact one is by math.erf": gelu_tanh,
        "the sigmoid form, a rough one; the exact one is by math.erf": lambda x: x * sigmoid(1.702 * x),
        "this is SiLU, with the logistic function; GELU has the normal distribution": lambda x: x * sigmoid(x),
        "this is ReLU, which cuts everything below zero; GELU lets a little of it pass": relu,
        "this is Phi(x), a probability; GELU weighs something by it": {"x * phi": "phi"},
        "erf is not Phi. By what is x divided first?": {" / math.sqrt(2.0)": ""},
        "x is multiplied by sqrt(2), not divided": {"/ math": "* math"},
        "erf runs from -1 to 1, a probability from 0 to 1":
            {"0.5 * (1.0 + _erf(x / math.sqrt(2.0)))": "_erf(x / math.sqrt(2.0))"},
    },
    level=2, minutes=10, instead=("minisbert",),
    draw=lambda rng: (2 * rng.normal(size=(2, 5)),),
    hint="GELU(x) is x times Phi(x), the chance that a normally distributed number is below x. How is erf made Phi?",
    more="Phi(x) = (1 + erf(x / sqrt(2))) / 2, and np.vectorize(math.erf) takes arrays",
)  # fmt: skip


def _think(hidden: Array, expand: Weights, contract: Weights, norm: Weights) -> Array:
    wide = gelu(linear(hidden, *expand))  # (N, F)
    x = hidden + linear(wide, *contract)
    return layer_norm(x, *norm, 1e-12)


def _case(tokens: int, width: int, inner: int, seed: int) -> tuple[Array, Weights, Weights, Weights]:
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(tokens, width)),
        (rng.normal(size=(inner, width)), rng.normal(size=inner)),
        (rng.normal(size=(width, inner)), rng.normal(size=width)),
        (rng.normal(1.0, 0.2, size=width), rng.normal(size=width)),
    )


THINK = Exercise(
    _think,
    [_case(3, 4, 8, seed=0), _case(2, 6, 5, seed=1)],
    {
        "the residual is missing: only the change is left of the token's vector": {"hidden + linear": "linear"},
        "LayerNorm comes too early: it is for the sum, not for the change alone":
            {"hidden + linear": "linear", "layer_norm": "hidden + layer_norm"},
        "that is GPT-2's order, LayerNorm first; in BERT it comes last":
            {"linear(hidden,": "linear(layer_norm(hidden, *norm, 1e-12),", "layer_norm(x, *norm, 1e-12)": "x"},
        "LayerNorm is missing at the end": {"layer_norm(x, *norm, 1e-12)": "x"},
        "no activation in between: two matrices in a row are only one matrix": {"gelu(": "("},
        "the activation is ReLU; BERT's is GELU": {"gelu(": "relu("},
        "the activation is the tanh form of GELU; this checkpoint has the exact one": {"gelu(": "gelu_tanh("},
        "GELU comes too late: it works at width F, between the two matrices":
            {"gelu(": "(", "linear(wide, *contract)": "gelu(linear(wide, *contract))"},
        "GELU comes once too often: only the wide vectors go through it":
            {"linear(wide, *contract)": "gelu(linear(wide, *contract))"},
        "the biases of the two matrices are missing":
            {"linear(hidden, *expand)": "hidden @ expand[0].T", "linear(wide, *contract)": "wide @ contract[0].T"},
        "eps is 1e-5, PyTorch's default; this checkpoint's is 1e-12": {"1e-12": "1e-5"},
    },
    level=2, minutes=15, instead=("feed_forward", "layer"),
    draw=lambda rng: _case(3, 4, 6, seed=int(rng.integers(1000))),
    hint="expand, activate, contract; add what came in; normalize. Which of these work at width F?",
    more="layer_norm of hidden + linear(gelu(linear(hidden, ...)), ...), with *norm and 1e-12",
)  # fmt: skip
