"""The five operations that BERT is made of, and its activations: arrays in, one array out.

Everything here works on rows and does not know where a text ends: a row is a token vector, a head's row of scores
or a sentence vector. Nothing is learned here; the weights are arguments. ``bert.py``, next, puts the operations
together.

Letters: ``N`` rows (tokens), ``D`` width. Output dtype = input dtype, no argument is changed. Constants are Python
floats on purpose: under NumPy 2 a float64 *scalar* such as ``np.sqrt(2)`` would turn float32 into float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minisbert.model import Array


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Multiply every row by a weight matrix and add a bias: ``y = x @ weight.T + bias``.

    Parameters
    ----------
    x : Array, shape (..., d_in)
        Rows.
    weight : Array, shape (d_out, d_in)
        As checkpoints store it, one row per output.
    bias : Array, shape (d_out,), optional
        Added to every row.

    Returns
    -------
    Array, shape (..., d_out)

    Notes
    -----
    **Source**: ``torch.nn.functional.linear``.

    Examples
    --------
    >>> linear(np.array([[1.0, 2.0]]), np.array([[10.0, 1.0]]), np.array([0.5]))
    array([[12.5]])
    """
    y: Array = x @ weight.T
    if bias is not None:
        y += bias  # y is ours alone, so adding in place saves a pass over memory
    return y


_IN_CACHE = 32768
"""Numbers in a block that stays in the processor's cache (L2) while a dozen passes go over it."""


def gelu(x: Array) -> Array:
    """Weigh each number by the probability that a standard normal is smaller: ``x * Phi(x)``.

    ``Phi(x) = (1 + erf(x / sqrt(2))) / 2``. This is the exact form that BERT uses; the tanh form is
    :func:`gelu_tanh`, and taking one for the other moves a sentence vector by about 1e-3.

    Parameters
    ----------
    x : Array, any shape
        float32 or float64.

    Returns
    -------
    Array, shape of x
        float64: to about 15 digits, by ``math.erfc``. float32: off by at most ``2e-7 * max(1, |x|)``, measured on
        every float32 number up to 14; the largest error is 5.9e-7, at 4.985 (PyTorch's own: 3.8e-7).

    Notes
    -----
    **Source**: Hendrycks & Gimpel 2016, section 2; ``torch.nn.functional.gelu(x, approximate="none")``.

    Examples
    --------
    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(6)
    array([-0.158655,  0.      ,  0.841345])
    """
    return x * _normal_cdf_float64(x) if x.dtype == np.float64 else _gelu_float32(x)


def _normal_cdf_float64(x: Array) -> Array:
    """Phi by the C library's erfc, one number at a time: slow, exact, for proofs."""
    # 1 + erf(x) is the same on paper, but left of -8 it has lost every digit
    erfc = np.frompyfunc(math.erfc, 1, 1)(x / -math.sqrt(2.0))
    return 0.5 * np.asarray(erfc, dtype=np.float64)


# Phi is nearly a logistic curve: Phi(x) = 1 / (1 + exp(-x p(x^2))). These are the coefficients of p, from x^12 down
# to x^0, by a minimax fit of x Phi(x) on the whole line (a fit in the tests finds the same error). NumPy has no erf.
_LOGISTIC = (
    3.62787794e-9,
    -2.67567444e-7,
    7.94815850e-6,
    -1.10546898e-4,
    -6.60529839e-5,
    7.26682977e-2,
    1.59576854,
)


def _gelu_float32(x: Array) -> Array:
    """By x Phi(x) = x / (1 + exp(-x p(x^2))) in a handful of passes; off by at most 6.6e-8 before rounding."""
    # minus p, as arrays: NumPy takes a microsecond more to add a Python float than an array of no dimensions
    *rest, last, one = [np.asarray(number, x.dtype) for number in (*(-c for c in _LOGISTIC), 1.0)]
    out = np.empty_like(x, order="C")
    numbers, results = x.reshape(-1), out.reshape(-1)
    with np.errstate(over="ignore"):  # far out p or exp overflows to inf, and x / inf = 0 is right
        for start in range(0, x.size, _IN_CACHE):
            block, y = numbers[start : start + _IN_CACHE], results[start : start + _IN_CACHE]
            square = block * block
            np.multiply(square, rest[0], out=y)
            for coefficient in rest[1:]:  # Horner's rule, in place
                y += coefficient
                y *= square
            y += last
            y *= block
            np.exp(y, out=y)
            y += one
            np.divide(block, y, out=y)
    return out


def sigmoid(x: Array) -> Array:
    """Squash each number into (0, 1): ``1 / (1 + exp(-x))``.

    Parameters
    ----------
    x : Array, any shape

    Returns
    -------
    Array, shape of x
        In [0, 1]; far out it rounds to 0 or 1, never to NaN.

    Notes
    -----
    **Source**: ``torch.sigmoid``.

    Examples
    --------
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    with np.errstate(over="ignore"):  # exp(-x) may overflow to inf, and 1 / inf is the right answer, 0
        y = np.exp(-x)
    y += 1.0
    return np.divide(1.0, y, out=y)


def gelu_tanh(x: Array) -> Array:
    """Approximate GELU by a tanh: ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))``.

    Parameters
    ----------
    x : Array, any shape

    Returns
    -------
    Array, shape of x

    Notes
    -----
    **Source**: Hendrycks & Gimpel 2016, section 2; ``torch.nn.functional.gelu(x, approximate="tanh")``,
    transformers' ``gelu_new`` and ``gelu_pytorch_tanh``.

    Examples
    --------
    >>> gelu_tanh(np.array([1.0])).round(6)  # the exact form gives 0.841345
    array([0.841192])
    """
    with np.errstate(over="ignore"):  # the cube of a huge number is inf, whose tanh, 1, is right
        inner: Array = math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * x * (1.0 + np.tanh(inner))


def silu(x: Array) -> Array:
    """Weigh each number by its own sigmoid: ``x * sigmoid(x)``; also called swish.

    Parameters
    ----------
    x : Array, any shape

    Returns
    -------
    Array, shape of x

    Notes
    -----
    **Source**: ``torch.nn.functional.silu``.

    Examples
    --------
    >>> silu(np.array([1.0])).round(6)
    array([0.731059])
    """
    return x * sigmoid(x)


def relu(x: Array) -> Array:
    """Cut negative numbers to zero: ``max(x, 0)``.

    Parameters
    ----------
    x : Array, any shape

    Returns
    -------
    Array, shape of x

    Notes
    -----
    **Source**: ``torch.nn.functional.relu``.

    Examples
    --------
    >>> relu(np.array([-2.0, 3.0]))
    array([0., 3.])
    """
    return np.maximum(x, 0.0)


def _tanh(x: Array) -> Array:
    """Give ``np.tanh`` the plain signature of an activation."""
    y: Array = np.tanh(x)
    return y


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "identity": lambda x: x,
    "relu": relu,
    "sigmoid": sigmoid,
    "silu": silu,
    "tanh": _tanh,
}
"""Activations by name; ``config.py`` and ``modules.py`` translate what checkpoints call them."""


def softmax(scores: Array, out: Array | None = None) -> Array:
    """Turn each row of scores into probabilities: ``exp(s) / sum(exp(s))`` along the last axis.

    Parameters
    ----------
    scores : Array, shape (..., T)
    out : Array, shape (..., T), optional
        Where to put the result, as in NumPy; may be ``scores``, if they are not needed any more.

    Returns
    -------
    Array, shape (..., T)
        Each in [0, 1]; every row sums to 1.

    Notes
    -----
    **Source**: Vaswani et al. 2017, equation 1; ``torch.softmax(scores, dim=-1)``.

    Examples
    --------
    >>> softmax(np.array([[0.0, 0.0], [1000.0, 0.0]]))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    # subtracting a row's maximum changes nothing in exact arithmetic and keeps exp from overflowing
    probs: Array = np.subtract(scores, scores.max(axis=-1, keepdims=True), out=out)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=-1, keepdims=True)
    return probs


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Shift and scale each row to mean 0 and variance 1, then by learned numbers.

    ``y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias``, mean and variance over the row's ``D`` numbers.

    Parameters
    ----------
    x : Array, shape (N, D)
    weight, bias : Array, shape (D,)
    eps : float
        Keeps a constant row from dividing by zero; 1e-12 in BERT (PyTorch's own default is 1e-5).

    Returns
    -------
    Array, shape (N, D)

    Notes
    -----
    **Source**: Ba et al. 2016, equation 4; ``torch.nn.functional.layer_norm``. The variance divides by ``D``, not by
    ``D - 1``.

    Examples
    --------
    >>> layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), eps=1e-12)
    array([[-1.,  1.]])
    """
    y: Array = x - x.mean(axis=-1, keepdims=True)
    # the mean of squares as a dot product per row: no temporary array of squares
    variance = np.einsum("nd,nd->n", y, y)[:, None] / x.shape[-1]
    y *= 1.0 / np.sqrt(variance + eps)
    y *= weight
    y += bias
    return y


def normalize(x: Array, eps: float = 1e-12) -> Array:
    """Scale each row to length 1: ``x / max(|x|, eps)``.

    Parameters
    ----------
    x : Array, shape (..., D)
    eps : float
        A row shorter than this is divided by ``eps`` instead: a zero row stays zero.

    Returns
    -------
    Array, shape (..., D)

    Notes
    -----
    **Source**: ``torch.nn.functional.normalize(x, p=2, dim=-1)``.

    Examples
    --------
    >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    length: Array = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.maximum(length, eps)
