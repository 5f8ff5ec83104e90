"""How steep is a loss? Measured by taking steps, for as many tensors as one likes, with a doubt beside each answer.

A gradient promises how fast the loss changes when its tensors move: by ``<gradient, v>`` for each unit of a step along
``v``. Here the steps are taken. With ``f(t) = loss(x + t v)`` the slope is, by centred differences of fourth order,

``f'(0) = (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h``

in float64, for two steps ``h``. Where the two disagree the step is made smaller. Where they still disagree, or the
slope jumps at the point itself, as that of ``relu`` at 0, the number is no measure of the gradient: its ``doubt`` says
so. What the rounding of the loss can make of a slope is its ``noise``. Each tensor moves in proportion to its own size.

Left out on purpose: what to make of the two numbers (``verdicts.py``). Next file: ``gradient_report.py``.

Letters: ``K`` directions.

**Source**: Baydin et al. 2018, section 2.1, on the error of differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minisbert.model import Array
from minisbert.model.params import Gradient, RowGradient

Loss = Callable[[dict[str, Array]], float]
"""Takes all tensors by their names."""

_STEP = 1e-3  # of a tensor's own size: truncation (h^4 = 1e-12) and rounding (1e-16 / h = 1e-13) are both small
_ROUNDING = 64 * float(np.finfo(np.float64).eps)  # of the loss: what its last steps lose in float64, with a margin


@dataclass(frozen=True)
class Point:
    """A loss, and the point at which its slopes are asked for."""

    loss: Loss
    params: dict[str, Array]
    value: float  # the loss at params
    precision: float  # relative, with which a slope is to be measured


def stand_at(loss: Loss, params: Mapping[str, Array], precision: float) -> Point:
    """Compute a loss where its slopes are to be measured, twice: the same question must get the same answer.

    Parameters
    ----------
    loss : callable
    params : mapping of str to Array
        float64.
    precision : float
        Relative, with which a slope is to be measured.

    Returns
    -------
    Point

    Raises
    ------
    ValueError
        If the loss is not one finite float64 number, or gives two answers.

    Examples
    --------
    >>> stand_at(lambda params: float(np.sum(params["x"] ** 2)), {"x": np.array([3.0])}, 1e-8).value
    9.0
    """
    value, again = (_value(loss, dict(params)) for _ in range(2))
    if abs(again - value) > _ROUNDING * abs(value):
        raise ValueError(
            f"check_gradients: the loss must be the same at each call, but was {value!r} and then {again!r}. "
            f"Is dropout on? Switch it off, or draw its masks once, outside the loss. A loss that changes its "
            f"argument does this, too."
        )
    return Point(loss, dict(params), value, precision)


def _value(loss: Loss, params: dict[str, Array], where: str = "at params") -> float:
    """Call the loss and see that it gives one finite float64 number."""
    value: Any = loss(params)
    if isinstance(value, (np.ndarray, np.generic)) and (value.ndim or value.dtype != np.float64):
        raise ValueError(
            f"check_gradients: the loss must be one float64 number, but it is {value.dtype} {value.shape}. Take the "
            f"mean over the batch, and look for float32 on the way."
        )
    if not isinstance(value, (float, int, np.ndarray, np.generic)):
        raise ValueError(f"check_gradients: the loss must be one float64 number, but it is a {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(
            f"check_gradients: the loss must be finite, but it is {float(value)} {where}. Look for log(0), a division "
            f"by zero or an overflow."
        )
    return float(value)


# ------------------------------------------------------------------------------------------ along directions


@dataclass(frozen=True)
class Measured:
    """Both sides of the comparison for one tensor, along K directions."""

    name: str
    shape: tuple[int, ...]
    analytic: Array  # (K,) <gradient, v>
    transposed: Array  # (K,) <gradient.T, v>, for square matrices; else as analytic
    numeric: Array  # (K,)
    doubt: Array  # (K,)
    noise: float
    narrow: bool  # the gradient came back in another dtype than float64


def measure(
    name: str,
    point: Point,
    gradients: Mapping[str, Gradient],
    moving: list[str],
    rng: np.random.Generator,
    directions: int,
) -> Measured:
    """Measure slopes along random directions, and give beside them what the gradients promise.

    Parameters
    ----------
    name : str
        Of what moves, for the report.
    point : Point
    gradients : mapping of str to Array or RowGradient
        Those that can be compared; others count as zero.
    moving : list of str
        The tensors that move, all at once.
    rng : np.random.Generator
        Draws the directions.
    directions : int
        ``K``, at least 1.

    Returns
    -------
    Measured

    Raises
    ------
    ValueError
        If the loss is not one finite float64 number on the way.

    Examples
    --------
    >>> point = stand_at(lambda params: float(np.sum(params["x"] ** 2)), {"x": np.array([3.0])}, 1e-8)
    >>> found = measure("x", point, {"x": np.array([6.0])}, ["x"], np.random.default_rng(0), directions=2)
    >>> bool(np.allclose(found.analytic, found.numeric))
    True
    """
    analytic, transposed, slopes = np.empty(directions), np.empty(directions), []  # (K,) each
    for i in range(directions):
        direction = {key: _draw(point.params[key], rng) for key in moving}
        pairs = [(gradients[key], v) for key, v in direction.items() if key in gradients]
        analytic[i] = sum(_along(gradient, v) for gradient, v in pairs)
        transposed[i] = sum(_along(gradient, v.T if _is_square(v) else v) for gradient, v in pairs)
        slopes.append(_slope(point, direction, name))
    tensors = [point.params[key] for key in moving]
    return Measured(
        name,
        tensors[0].shape if name in moving else (sum(tensor.size for tensor in tensors),),
        analytic,
        transposed,
        numeric=np.array([slope.value for slope in slopes]),
        doubt=np.array([slope.doubt for slope in slopes]),
        noise=max(slope.noise for slope in slopes),
        narrow=any(_dtype(gradients[key]) != np.float64 for key in moving if key in gradients),
    )


def _draw(tensor: Array, rng: np.random.Generator) -> Array:
    """Draw a direction whose numbers are about as large as the tensor's own, or 1 if it is zero."""
    is_by_column = tensor.flags.f_contiguous and not tensor.flags.c_contiguous
    # in the tensor's own order in memory: adding the two is then several times as fast
    drawn = rng.standard_normal(tensor.shape[::-1]).T if is_by_column else rng.standard_normal(tensor.shape)
    return drawn * (rms(tensor) or 1.0)


def _is_square(v: Array) -> bool:
    return v.ndim == 2 and v.shape[0] == v.shape[1]


def _dtype(gradient: Gradient) -> np.dtype[Any]:
    return gradient.values.dtype if isinstance(gradient, RowGradient) else gradient.dtype


def _along(gradient: Gradient, v: Array) -> float:
    """Give ``<gradient, v>``; the rows that a RowGradient leaves out count as zero."""
    if isinstance(gradient, RowGradient):
        return float(np.sum(gradient.values * v[gradient.rows]))
    return float(np.sum(gradient * v))


def rms(numbers: Array) -> float:
    """Give the root of the mean square.

    Parameters
    ----------
    numbers : Array

    Returns
    -------
    float

    Examples
    --------
    >>> rms(np.array([1.0, 7.0]))
    5.0
    """
    return math.sqrt(float(np.mean(np.square(numbers))))


# ----------------------------------------------------------------------------------------------- one direction


@dataclass(frozen=True)
class _Slope:
    """The slope of the loss along one direction, as measured."""

    value: float
    change: float  # how far two steps disagree about it
    jump: float  # how far the two sides of the point disagree about it
    noise: float  # what the rounding of the loss can do to it

    @property
    def doubt(self) -> float:
        """How little it may be worth."""
        return max(self.change, self.jump)


def _slope(point: Point, direction: Mapping[str, Array], name: str) -> _Slope:
    """Measure the slope along a direction, with smaller steps where it bends sharply."""
    best, step = _slope_by(_STEP, point, direction, name), _STEP
    for _ in range(3):
        if best.change <= point.precision * abs(best.value) + best.noise:
            break
        step /= 8
        best = min(best, _slope_by(step, point, direction, name), key=lambda slope: slope.change + slope.noise)
    return best


def _slope_by(step: float, point: Point, direction: Mapping[str, Array], name: str) -> _Slope:
    """Measure it with two steps, ``step`` and half of it."""
    at = {}
    for k in (-4, -2, -1, 1, 2, 4):
        moved = {key: point.params[key] + (k * step / 2) * v for key, v in direction.items()}
        at[k] = _value(point.loss, point.params | moved, f"{abs(k) * step / 2:.0e} away from params along {name}")
    coarse = (8 * (at[2] - at[-2]) - (at[4] - at[-4])) / (12 * step)
    fine = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (6 * step)
    # right minus left slope shrinks with the step, unless the slope jumps at the point itself
    jump = 2 * (at[1] - 2 * point.value + at[-1]) / (step / 2) - (at[2] - 2 * point.value + at[-2]) / step
    largest = max(abs(point.value), *map(abs, at.values()))
    return _Slope(fine, abs(fine - coarse), abs(jump), _ROUNDING * largest / step)
