"""The operations that BERT is made of, and its activation functions; directly under each stands its gradient.

``f_backward(d_y, x, ...)`` takes the upstream gradient ``d_y`` (how the loss changes with each number of ``y = f(x)``)
and gives ``d_x`` by the chain rule: ``d_x = sum over i of d_y[i] * dy[i]/dx``. After ``d_y`` come, by name, just the
arrays that this sum needs. Everything works on rows and does not know where a text ends.

Letters: ``N`` tokens, ``D`` hidden size. Output dtype = input dtype; no argument is changed. Constants are Python
floats on purpose: under NumPy 2 a float64 *scalar* such as ``np.sqrt(2)`` would turn float32 into float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from minisbert.model import Array


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """``y = x @ weight.T + bias``, the weight as checkpoints store it: one row per output.

    (rows, d_in), (d_out, d_in), (d_out,) -> (rows, d_out)
    """
    y = x @ weight.T
    if bias is not None:
        y += bias  # y is ours alone, so adding in place saves a pass over memory
    return y


def linear_backward(d_y: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """``d_x = d_y @ weight``, ``d_weight = d_y.T @ x``, ``d_bias = sum over rows of d_y``.

    (rows, d_out), (rows, d_in), (d_out, d_in) -> (rows, d_in), (d_out, d_in), (d_out,)
    """
    d_x = d_y @ weight
    d_weight = (x.T @ d_y).T  # d_y.T @ x, laid out in memory as the weight is
    d_bias = d_y.sum(axis=0)
    return d_x, d_weight, d_bias


_IN_CACHE = 32768  # numbers in a block that stays in the processor's cache (L2) while a dozen passes go over it


def gelu(x: Array) -> Array:
    """``x * Phi(x)``, with ``Phi(x) = (1 + erf(x / sqrt(2))) / 2`` the cumulative normal distribution.

    This is the exact form that BERT uses; the tanh form is :func:`gelu_tanh`, and confusing the two moves a sentence
    vector by about 1e-3. float64: to about 15 digits. float32: off by at most ``2e-7 * max(1, |x|)``, measured on every
    float32 number up to 14; the largest error is 5.9e-7, at 4.985 (PyTorch's own: 3.8e-7).

    **Source**: Hendrycks & Gimpel 2016, section 2; ``torch.nn.functional.gelu(x, approximate="none")``.

    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(6)
    array([-0.158655,  0.      ,  0.841345])
    """
    return x * _normal_cdf_float64(x) if x.dtype == np.float64 else _gelu_float32(x)


def gelu_backward(d_y: Array, x: Array) -> Array:
    """``d_x = d_y * (Phi(x) + x * phi(x))``, with ``phi(x) = exp(-x^2 / 2) / sqrt(2 pi)``, the derivative of ``Phi``.

    The factor of ``d_y`` is exact to 15 digits in float64, and off by at most 3e-7 in float32.
    """
    if x.dtype != np.float64:
        return _gelu_backward_float32(d_y, x)
    with np.errstate(over="ignore"):  # the square of a huge number is inf, and exp(-inf) = 0 is right
        density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return d_y * (_normal_cdf_float64(x) + x * density)


def _normal_cdf_float64(x: Array) -> Array:
    """``Phi`` by the C library's erfc, one number at a time: slow and exact, for proofs."""
    # 1 + erf(x) is the same on paper, but has lost every digit below -8
    erfc = np.frompyfunc(math.erfc, 1, 1)(x / -math.sqrt(2.0))
    return 0.5 * np.asarray(erfc, dtype=np.float64)


# NumPy has no erf, but Phi is nearly a logistic curve: Phi(x) = 1 / (1 + exp(-x p(x^2))). The coefficients of p, from
# x^12 down to x^0, are a minimax fit of x Phi(x) on the whole line (a fit in the tests finds the same error).
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
    """``x Phi(x) = x / (1 + exp(-x p(x^2)))`` in a handful of passes; off by at most 6.6e-8 before rounding."""
    out = np.empty_like(x, order="C")
    numbers, results = x.reshape(-1), out.reshape(-1)
    with np.errstate(over="ignore"):  # far out p or exp overflows to inf, and x / inf = 0 is right
        for start in range(0, x.size, _IN_CACHE):
            block, y = numbers[start : start + _IN_CACHE], results[start : start + _IN_CACHE]
            _one_over_normal_cdf(block, block * block, y)
            np.divide(block, y, out=y)
    return out


def _gelu_backward_float32(d_y: Array, x: Array) -> Array:
    """``Phi`` from the same polynomial, ``phi`` by its formula, block by block."""
    out = np.empty_like(x, order="C")
    numbers, upstream, results = x.reshape(-1), d_y.reshape(-1), out.reshape(-1)
    with np.errstate(over="ignore"):
        for start in range(0, x.size, _IN_CACHE):
            block, d_x = numbers[start : start + _IN_CACHE], results[start : start + _IN_CACHE]
            square = block * block
            _one_over_normal_cdf(block, square, d_x)
            np.divide(1.0, d_x, out=d_x)  # Phi(x)
            square *= -0.5
            np.exp(square, out=square)
            square *= 1.0 / math.sqrt(2.0 * math.pi)  # phi(x)
            square *= block
            d_x += square
            d_x *= upstream[start : start + _IN_CACHE]
    return out


def _one_over_normal_cdf(x: Array, square: Array, out: Array) -> None:
    """``1 / Phi(x) = 1 + exp(-x p(x^2))`` into ``out``, given x and its square."""
    # minus p, as 0-d arrays: adding a Python float takes NumPy a microsecond more
    *rest, last, one = [np.asarray(number, x.dtype) for number in (*(-c for c in _LOGISTIC), 1.0)]
    np.multiply(square, rest[0], out=out)
    for coefficient in rest[1:]:  # Horner's rule, in place
        out += coefficient
        out *= square
    out += last
    out *= x
    np.exp(out, out=out)
    out += one


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``; far from 0 it rounds to 0 or 1, never to NaN.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    with np.errstate(over="ignore"):  # exp(-x) may overflow to inf, and 1 / inf is the right answer, 0
        y = np.exp(-x)
    y += 1.0
    return np.divide(1.0, y, out=y)


def sigmoid_backward(d_y: Array, x: Array) -> Array:
    """``d_x = d_y * s * (1 - s)`` with ``s = sigmoid(x)``."""
    s = sigmoid(x)
    return d_y * s * sigmoid(-x)  # 1 - s, with all its digits where s is nearly 1


def gelu_tanh(x: Array) -> Array:
    """``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))``, an approximation of :func:`gelu`.

    **Source**: Hendrycks & Gimpel 2016, section 2; transformers' ``gelu_new`` and ``gelu_pytorch_tanh``.

    >>> gelu_tanh(np.array([1.0])).round(6)  # the exact form gives 0.841345
    array([0.841192])
    """
    return 0.5 * x * (1.0 + np.tanh(_gelu_tanh_inner(x)))


def gelu_tanh_backward(d_y: Array, x: Array) -> Array:
    """``d_x = d_y * ((1 + t) / 2 + x / 2 * (1 - t^2) * sqrt(2 / pi) * (1 + 3 * 0.044715 x^2))`` with ``t`` the tanh."""
    t = np.tanh(_gelu_tanh_inner(x))
    # beyond 30 the tanh is constant; the bound keeps infinity out of a product with its zero slope
    bounded = np.clip(x, -30.0, 30.0)
    d_inner = math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * 0.044715 * bounded * bounded)
    return d_y * (0.5 * (1.0 + t) + 0.5 * bounded * (1.0 - t * t) * d_inner)


def _gelu_tanh_inner(x: Array) -> Array:
    """The argument of the tanh."""
    with np.errstate(over="ignore"):  # the cube of a huge number is inf, whose tanh, 1, is right
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))
    return inner


def silu(x: Array) -> Array:
    """``x * sigmoid(x)``, also called swish."""
    return x * sigmoid(x)


def silu_backward(d_y: Array, x: Array) -> Array:
    """``d_x = d_y * (s + x * s * (1 - s))`` with ``s = sigmoid(x)``."""
    s = sigmoid(x)
    return d_y * (s + x * s * sigmoid(-x))


def relu(x: Array) -> Array:
    """``max(x, 0)``."""
    return np.maximum(x, 0.0)


def relu_backward(d_y: Array, x: Array) -> Array:
    """``d_x = d_y`` where ``x > 0``, else 0. At 0 there is no derivative; 0 is taken, as in PyTorch."""
    return np.where(x > 0, d_y, np.zeros_like(d_y))


def _tanh_backward(d_y: Array, x: Array) -> Array:
    """``d_x = d_y * (1 - tanh(x)^2)``."""
    t = np.tanh(x)
    return d_y * (1.0 - t * t)


# What checkpoints call them is translated in config.py and folder.py.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "gelu": (gelu, gelu_backward),
    "gelu_tanh": (gelu_tanh, gelu_tanh_backward),
    "identity": (lambda x: x, lambda d_y, x: d_y),
    "relu": (relu, relu_backward),
    "sigmoid": (sigmoid, sigmoid_backward),
    "silu": (silu, silu_backward),
    "tanh": (np.tanh, _tanh_backward),
}


def softmax(scores: Array, out: Array | None = None) -> Array:
    """``exp(s) / sum(exp(s))`` along the last axis: every row becomes probabilities that sum to 1.

    ``out``, as in NumPy, says where the result goes; it may be ``scores`` itself.

    **Source**: Vaswani et al. 2017, equation 1; ``torch.softmax(scores, dim=-1)``.

    >>> softmax(np.array([[0.0, 0.0], [1000.0, 0.0]]))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    # subtracting a row's maximum changes nothing in exact arithmetic and keeps exp from overflowing
    probs = np.subtract(scores, scores.max(axis=-1, keepdims=True), out=out)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=-1, keepdims=True)
    return probs


def softmax_backward(d_probs: Array, probs: Array) -> Array:
    """``d_scores = probs * (d_probs - sum(probs * d_probs))``, the sum over a row; every row of the result sums to 0.

    A gradient whose rows are constant gives zero: probabilities sum to 1, so they cannot all grow. A check with such a
    gradient (all ones, say) cannot tell a right backward from a wrong one.
    """
    d_scores = d_probs * probs
    mean = d_scores.sum(axis=-1, keepdims=True)  # of d_probs, weighted by probs
    d_scores -= probs * mean
    return d_scores


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """``y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias``, mean and variance over the row's ``D`` numbers.

    (N, D), (D,), (D,) -> (N, D)

    The variance divides by ``D``, not by ``D - 1``; ``eps`` keeps a constant row from dividing by zero (1e-12 in BERT,
    1e-5 by default in PyTorch). **Source**: Ba et al. 2016, equation 4; ``torch.nn.functional.layer_norm``.

    >>> layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), eps=1e-12)
    array([[-1.,  1.]])
    """
    y, _ = _standardize(x, eps)
    y *= weight
    y += bias
    return y


def layer_norm_backward(d_y: Array, x: Array, weight: Array, eps: float) -> tuple[Array, Array, Array]:
    """``d_x = (d_z - mean(d_z) - z * mean(d_z * z)) / s``, with ``z = (x - mean(x)) / s`` and ``d_z = d_y * weight``.

    (N, D), (N, D), (D,) -> (N, D), (D,), (D,)

    The two means are what went through the row's own mean and variance: of a constant ``d_z`` they leave nothing.
    """
    z, one_over_s = _standardize(x, eps)
    d_z = d_y * weight
    d_x = d_z - d_z.mean(axis=-1, keepdims=True)
    along = np.einsum("nd,nd->n", d_z, z)[:, None] / x.shape[-1]
    d_x -= z * along
    d_x *= one_over_s
    d_weight = np.einsum("nd,nd->d", d_y, z)
    d_bias = d_y.sum(axis=0)
    return d_x, d_weight, d_bias


def _standardize(x: Array, eps: float) -> tuple[Array, Array]:
    """Give each row mean 0 and variance 1; also the factor that did it, (N, 1)."""
    z = x - x.mean(axis=-1, keepdims=True)
    # the mean of squares as a dot product per row: no temporary array of squares
    variance = np.einsum("nd,nd->n", z, z)[:, None] / x.shape[-1]
    one_over_s = 1.0 / np.sqrt(variance + eps)
    z *= one_over_s
    return z, one_over_s


def normalize(x: Array, eps: float = 1e-12) -> Array:
    """``x / max(|x|, eps)``: each row scaled to length 1; a zero row stays zero.

    (..., D) -> (..., D)

    **Source**: ``torch.nn.functional.normalize(x, p=2, dim=-1)``.

    >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.maximum(length, eps)


def normalize_backward(d_y: Array, x: Array, eps: float = 1e-12) -> Array:
    """``d_x = (d_y - y * (y . d_y)) / |x|`` with ``y = x / |x|``.

    (..., D), (..., D) -> (..., D)

    The component along ``x`` only changes the length, which normalizing undoes: it is taken away.
    """
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    y = x / np.maximum(length, eps)
    along = (y * d_y).sum(axis=-1, keepdims=True)
    along *= length > eps  # a shorter row was divided by a constant, which takes nothing away
    return (d_y - y * along) / np.maximum(length, eps)


def dropout_mask(shape: tuple[int, ...], rate: float, rng: np.random.Generator, dtype: npt.DTypeLike) -> Array:
    """Draw what dropout multiplies by: 0 with probability ``rate``, else ``1 / (1 - rate)``.

    The mean stays what it was, so nothing need be rescaled when dropout is off ("inverted" dropout).
    ``y = x * mask``, and so ``d_x = d_y * mask``. **Source**: Srivastava et al. 2014, section 4.
    """
    kept = rng.random(shape, dtype=np.float32) >= rate
    return kept * np.asarray(1.0 / (1.0 - rate), dtype)
