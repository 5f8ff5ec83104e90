"""Where vectors lie on the sphere: how close the two of a pair are, and how evenly all are spread.

A contrastive loss does two things at once: it pulls the two of a pair together, and pushes everything else apart. Wang
& Isola measure each by itself:

``alignment = mean over pairs of |u - v|^alpha``

``uniformity = log of the mean over all i < j of exp(-t |u_i - u_j|^2)``

Both are smaller for better. Neither is enough alone: if all vectors are the same, alignment is perfect, 0, and
uniformity the worst there is, 0 as well.

Only directions count: every vector is divided by its length first, because InfoNCE with a cosine sees no more.

Left out on purpose: their gradients. They are measured here, not trained on. Next file: ``plane.py``, which watches
both fall.

Letters: ``B`` vectors, ``D`` their width.
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
        Row ``i`` of one belongs to row ``i`` of the other. Finite numbers; no row may be all zeros.
    alpha : float
        Above 0. With 2 the summand is ``2 - 2 cos(a_i, b_i)``.

    Returns
    -------
    float
        Dimensionless, in [0, 2^alpha], 0 where each pair points the same way.

    Raises
    ------
    ValueError
        If the shapes differ, there are no rows, NaN or Inf, or a row is all zeros and so has no direction.

    Notes
    -----
    **Source**: Wang & Isola 2020, section 4.1, their ``align_loss``. In PyTorch
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

    A pair that is close counts for much and a pair that is far for little, so that it pays to move neighbours apart.
    For pairs, take one side at a time, or the mean of both: the two of a pair shall be close.

    Parameters
    ----------
    x : array_like, shape (B, D)
        At least 2 rows. Finite numbers; no row may be all zeros.
    t : float
        Above 0. How soon "far" begins.

    Returns
    -------
    float
        Dimensionless, in [-4 t, 0], 0 where all point the same way.

    Raises
    ------
    ValueError
        If there are fewer than 2 rows, NaN or Inf, or a row is all zeros and so has no direction.

    Notes
    -----
    **Source**: Wang & Isola 2020, section 4.1, their ``uniform_loss``. In PyTorch
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
    largest = float(exponents.max())  # taken out of the sum, so that not all can vanish
    return largest + math.log(float(np.mean(np.exp(exponents - largest))))


def _unit_rows(function: str, name: str, x: ArrayLike, least: int) -> Array:
    """Divide every row by its length, or say why it cannot be done."""
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
    return normalize(rows / largest)  # squares of 1e200 would overflow, of 1e-200 vanish


def _above_zero(function: str, name: str, value: float) -> float:
    """Refuse what is no exponent."""
    if not 0 < value < math.inf:
        raise ValueError(f"{function}: {name} must be a number above 0, got {value!r}; the paper takes 2")
    return float(value)
