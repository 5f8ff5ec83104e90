"""Right, wrong or not smooth? And if wrong: which mistake does it look like?

**What is compared.** ``|analytic - numeric| / max(|analytic|, |numeric|, 1e-4 of the whole)``, all sizes the root of
the mean square over the directions; the whole is the slope when all tensors move at once. So a tensor whose gradient
is rightly zero, as that of the key bias in attention, passes with the rounding error that it has in place of a zero.
Differences that are smaller than what the rounding of the loss can make are not counted. A difference within ten
times the doubt about the slope is called "not smooth" and not "wrong".

**The mistake.** A gradient that is the right one times the same number along all directions has its sign turned, or a
sum where a mean belongs. One whose transpose is right is transposed. In all others a term is missing or wrong.

Next file: ``gradcheck.py``, which asks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from minisbert.model import Array
from minisbert.model.params import Gradient, RowGradient
from minisbert.training.gradient_report import GradientRow
from minisbert.training.slopes import Measured, rms

_FLOOR = 1e-4  # of the whole: below it a tensor's gradient is measured against the whole


def judge(measured: Measured, fault: str, scale: float, tolerance: float, sizes: Mapping[str, int]) -> GradientRow:
    """Turn what was measured into a row of the report.

    Parameters
    ----------
    measured : Measured
    fault : str
        Why the gradient cannot be compared at all, from :func:`find_fault`; empty if it can.
    scale : float
        Size of the slope of the whole.
    tolerance : float
        Largest relative error that passes.
    sizes : mapping of str to int
        Sizes by their letters, to explain a wrong factor with.

    Returns
    -------
    GradientRow

    Examples
    --------
    >>> slopes, doubt = np.array([1.0, -3.0]), np.zeros(2)
    >>> measured = Measured("bias", (3,), 4 * slopes, 4 * slopes, slopes, doubt, noise=1e-12, narrow=False)
    >>> judge(measured, "", 2.0, 1e-7, {"B": 4}).diagnosis
    'too large by the factor 4 = B: a sum where a mean belongs?'
    """
    a, n = measured.analytic, measured.numeric
    worst = int(np.argmax(np.abs(a - n)))
    numbers = measured.name, measured.shape, float(a[worst]), float(n[worst])
    if fault:
        return GradientRow(measured.name, measured.shape, math.nan, float(n[worst]), math.inf, "wrong", fault)
    difference = rms(a - n)
    against = max(rms(a), rms(n), _FLOOR * scale, measured.noise / tolerance)
    error = difference / against if difference else 0.0
    if error <= tolerance:
        return GradientRow(*numbers, error, "ok")
    if difference <= 10 * rms(measured.doubt):
        jumps = (
            "the slope jumps here (relu at 0, a tie in a maximum) or the loss is computed in float32; move the point"
        )
        return GradientRow(*numbers, error, "not smooth", jumps)
    text = _diagnose(measured, max(_FLOOR * scale, measured.noise / tolerance) * tolerance, sizes)
    return GradientRow(*numbers, error, "wrong", text + ("; it is not float64" if measured.narrow else ""))


def _diagnose(measured: Measured, nothing: float, sizes: Mapping[str, int]) -> str:
    """Say what a wrong gradient looks like; below ``nothing`` a slope counts as zero."""
    a, n = measured.analytic, measured.numeric
    if rms(a) <= nothing:
        return "nothing came back: the gradient is zero"
    if rms(n) <= nothing:
        return "the loss does not change with it, but a gradient came back; does the loss read its argument?"
    ratio = float(np.dot(a, n) / np.dot(n, n))
    if len(a) > 1 and np.abs(a - ratio * n).max() <= 1e-5 * rms(a):
        return "; ".join(_explain(ratio, sizes))
    if np.abs(measured.transposed - n).max() <= 1e-5 * rms(n):
        return "it is transposed"
    return "no single factor puts it right: a term is missing, or one is wrong" if len(a) > 1 else "it is wrong"


def _explain(ratio: float, sizes: Mapping[str, int]) -> Iterator[str]:
    """Say what a constant ratio of analytic to numeric means."""
    if ratio < 0:
        yield "the sign is turned"
    factor, way = max(abs(ratio), 1 / abs(ratio)), "large" if abs(ratio) > 1 else "small"
    if factor < 1 + 1e-5:
        return
    letters = [name for name, size in sizes.items() if size > 1 and math.isclose(factor, size, rel_tol=1e-5)]
    roots = [name for name, size in sizes.items() if size > 1 and math.isclose(factor, math.sqrt(size), rel_tol=1e-5)]
    if letters:
        mistake = "a sum where a mean belongs?" if way == "large" else "a mean where a sum belongs?"
        yield f"too {way} by the factor {factor:.6g} = {' or '.join(letters)}: {mistake}"
    elif roots:
        mistake = "is the scaling missing?" if way == "large" else "scaled twice?"
        yield f"too {way} by the factor {factor:.6g} = sqrt({' or '.join(roots)}): {mistake}"
    else:
        yield f"off by the factor {abs(ratio):.6g}"


def find_notes(whole: Measured, scale: float, tolerance: float) -> Iterator[str]:
    """Say what a reader of the report must know.

    Parameters
    ----------
    whole : Measured
        With all tensors moving at once.
    scale : float
        Size of the slope of the whole.
    tolerance : float
        Largest relative error that passes.

    Yields
    ------
    str

    Examples
    --------
    >>> still = np.zeros(2)
    >>> list(find_notes(Measured("everything", (3,), still, still, still, still, noise=1e-13, narrow=False), 0.0, 1e-7))
    ['the loss did not change along any direction; is this the function that was meant?']
    """
    if scale <= whole.noise:
        yield "the loss did not change along any direction; is this the function that was meant?"
    elif whole.noise > tolerance * scale:
        yield (
            f"the loss is so large beside its slope that differences below {whole.noise / scale:.0e} of the whole are "
            f"lost in its rounding; take a constant off it"
        )


# -------------------------------------------------------------------------------- what cannot be compared at all


def find_fault(tensor: Array, gradient: Gradient | None) -> str:
    """Say why a gradient cannot be compared at all.

    Parameters
    ----------
    tensor : Array
    gradient : Array, RowGradient or None
        Or whatever else came back.

    Returns
    -------
    str
        Empty if it can.

    Examples
    --------
    >>> find_fault(np.ones((2, 3)), np.ones((3, 2)))
    "its shape is (3, 2), but the tensor's is (2, 3): transposed"
    """
    if gradient is None:
        return "no gradient came back"
    if isinstance(gradient, RowGradient):
        return _row_fault(tensor, gradient)
    if not isinstance(gradient, np.ndarray):
        return f"a {type(gradient).__name__} came back, not an array"
    if gradient.shape != tensor.shape:
        return f"its shape is {gradient.shape}, but the tensor's is {tensor.shape}" + _shape_hint(gradient, tensor)
    return _numbers_fault(gradient)


def _shape_hint(gradient: Array, tensor: Array) -> str:
    """Say what a wrong shape looks like."""
    if gradient.shape == tensor.shape[::-1]:
        return ": transposed"
    if gradient.size == tensor.size:
        return ": a reshape, or a sum without keepdims=False"
    if gradient.shape[gradient.ndim - tensor.ndim :] == tensor.shape:
        return ": the sum over the leading axes is missing"
    return ""


def _row_fault(tensor: Array, gradient: RowGradient) -> str:
    """Say what is wrong with the form of a RowGradient."""
    rows, values = gradient.rows, gradient.values
    if gradient.row_count != len(tensor) or values.shape != (len(rows), *tensor.shape[1:]):
        return f"{len(rows)} rows {values.shape} of {gradient.row_count} came back, but the table is {tensor.shape}"
    if len(np.unique(rows)) != len(rows):
        return "a row stands twice: the gradients of its uses must be added up"
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(tensor):
        return f"rows {rows.min()} to {rows.max()} came back, but the table is {tensor.shape}"
    return _numbers_fault(values)


def _numbers_fault(values: Array) -> str:
    """Say that numbers are NaN or Inf, and where the first one is."""
    bad = np.argwhere(~np.isfinite(values))
    return (
        f"NaN or Inf in {len(bad)} of {values.size} numbers, the first at {tuple(bad[0].tolist())}" if len(bad) else ""
    )
