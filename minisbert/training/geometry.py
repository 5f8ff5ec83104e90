"""Alignment and uniformity: how close the two vectors of a pair are, and how evenly all are spread over the sphere.

A contrastive loss pulls the two of a pair together and pushes everything else apart. Wang & Isola measure each
effect separately. Smaller is better, and neither is enough alone: if all vectors are equal, alignment is perfect (0)
and uniformity the worst possible (also 0). Only directions count, since InfoNCE with a cosine sees nothing else.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array
from minisbert.model.ops import normalize


def alignment(a: ArrayLike, b: ArrayLike, alpha: float = 2.0) -> float:
    """Measure how far apart the two vectors of a pair are, on average.

    ``mean_i |u_i - v_i|^alpha``, where ``u = a / |a|`` and ``v = b / |b|``

    Parameters
    ----------
    a, b : array_like, shape (B, D)
        Row ``i`` of one is the partner of row ``i`` of the other. Finite; no row may be all zeros.
    alpha : float
        Above 0. With 2 the term of a pair is ``2 - 2 cos(a_i, b_i)``.

    Returns
    -------
    float
        In [0, 2^alpha]; 0 if the two of each pair point the same way.

    Raises
    ------
    ValueError
        If the shapes differ, there are no rows, a number is NaN or infinite, or a row is all zeros.

    Notes
    -----
    **Source**: Wang & Isola 2020, section 4.1, ``align_loss``. In PyTorch
    ``(u - v).norm(dim=1).pow(alpha).mean()`` for ``u = torch.nn.functional.normalize(a)``, ``v`` likewise.

    Examples
    --------
    >>> round(alignment([[1, 0], [0, 3]], [[2, 0], [5, 0]]), 6)  # one pair agrees, one is at right angles
    1.0
    """
    u, v = _unit_rows("alignment", "a", a, 1), _unit_rows("alignment", "b", b, 1)  # (B, D) each
    if u.shape != v.shape:
        raise ValueError(
            f"alignment: a and b must be (B, D) both, got {u.shape} and {v.shape}; row i of one is the partner of row "
            "i of the other: are some left out, or are they of two models?"
        )
    distances = np.linalg.norm(u - v, axis=1)  # (B,)
    return float(np.mean(distances ** _above_zero("alignment", "alpha", alpha)))


def uniformity(x: ArrayLike, t: float = 2.0) -> float:
    """Measure how evenly vectors are spread over the sphere; smaller is more even.

    ``log( 2 / (B (B - 1)) * sum_{i<j} exp(-t |u_i - u_j|^2) )``, where ``u = x / |x|``

    Near neighbours dominate the mean, so moving them apart pays most. For pairs, take one side at a time, or the mean
    of both: the two of a pair are meant to be close.

    Parameters
    ----------
    x : array_like, shape (B, D)
        At least 2 rows. Finite; no row may be all zeros.
    t : float
        Above 0. The larger, the sooner two vectors count as far apart.

    Returns
    -------
    float
        In [-4 t, 0]; 0 if all point the same way.

    Raises
    ------
    ValueError
        If there are fewer than 2 rows, a number is NaN or infinite, or a row is all zeros.

    Notes
    -----
    **Source**: Wang & Isola 2020, section 4.1, ``uniform_loss``. In PyTorch
    ``torch.pdist(u).pow(2).mul(-t).exp().mean().log()`` for ``u = torch.nn.functional.normalize(x)``.

    Examples
    --------
    >>> uniformity([[1, 0], [4, 0]]), uniformity([[1, 0], [-1, 0]])  # the same way, and opposite ways
    (0.0, -8.0)
    """
    u = _unit_rows("uniformity", "x", x, 2)  # (B, D)
    first, second = np.triu_indices(len(u), 1)  # all i < j
    squares = np.maximum(2.0 - 2.0 * (u @ u.T)[first, second], 0.0)  # |u_i - u_j|^2, of unit vectors
    exponents = -_above_zero("uniformity", "t", t) * squares
    largest = float(exponents.max())  # factored out of the sum, so that it cannot underflow to 0
    return largest + math.log(float(np.mean(np.exp(exponents - largest))))


def _unit_rows(function: str, name: str, x: ArrayLike, least: int) -> Array:
    """Divide every row by its length, or raise."""
    rows = np.asarray(x, dtype=np.float64)  # (B, D)
    if rows.ndim != 2 or len(rows) < least or rows.shape[1] == 0:
        raise ValueError(
            f"{function}: {name} must be (B, D) with B >= {least} and D >= 1, got {rows.shape}; "
            "a single vector has nothing to be compared with"
        )
    if not np.isfinite(rows).all():
        raise ValueError(
            f"{function}: {name} {rows.shape} must hold finite numbers, but there is NaN or Inf; "
            "look for a division by zero, or a learning rate so large that the vectors ran away"
        )
    largest = np.abs(rows).max(axis=1, keepdims=True)  # (B, 1)
    if not largest.all():
        bad = int(np.flatnonzero(largest == 0)[0])
        raise ValueError(
            f"{function}: every row of {name} must have a direction, but row {bad} is all zeros; "
            "look for an np.zeros that was not filled, or drop the row"
        )
    return normalize(rows / largest)  # squares of 1e200 would overflow, of 1e-200 underflow


def _above_zero(function: str, name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{function}: {name} must be a number above 0, got {value!r}; the paper takes 2")
    return float(value)
