"""Pearson's and Spearman's correlation, with ties done right.

Sentence pairs have a human score and a similarity. Pearson asks how close the relation is to a straight line; Spearman
only whether both rank the pairs alike, which is what a model is used for and what the field's tables report. All in
float64.

Letters: ``B`` pairs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation: how close the points (x, y) come to a straight line.

    ``r = sum_i (x_i - mean(x)) (y_i - mean(y)) / (|x - mean(x)| |y - mean(y)|)``, the cosine of the centred lists

    Parameters
    ----------
    x, y : array_like, shape (B,)
        Finite numbers, at least 2, not all the same.

    Returns
    -------
    float
        In [-1, 1]: 1 rising line, 0 no linear relation, -1 falling line.

    Raises
    ------
    ValueError
        For unequal lengths, fewer than 2 numbers, NaN or Inf, and a constant list: the formula divides by the spread.

    Notes
    -----
    **Source**: Pearson 1895; ``scipy.stats.pearsonr(x, y).statistic``. The lists are first scaled by their largest
    entry, so that entries of any size are safe, and centred twice, which removes the mean's rounding.

    Examples
    --------
    >>> round(pearson([1, 2, 3, 4], [1, 3, 2, 4]), 12)
    0.8
    """
    left, right = _checked("pearson", x, y)
    return _cosine_of_centred(left, right)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's correlation: how similarly two lists rank their members.

    ``rho = pearson(rank(x), rank(y))``, with :func:`rank`'s average ranks for ties

    No increasing function of a list changes it. The textbook's ``1 - 6 sum d^2 / (B^3 - B)`` is wrong with ties, and
    gold scores are full of ties.

    Parameters
    ----------
    x, y : array_like, shape (B,)
        As in `pearson`, as are errors.

    Returns
    -------
    float
        In [-1, 1]: 1 same order, -1 reversed.

    Notes
    -----
    **Source**: Spearman 1904; ``scipy.stats.spearmanr(x, y).statistic``. Reimers & Gurevych 2019, section 4, and MTEB
    report it for the cosine, times 100.

    Examples
    --------
    >>> spearman([1, 2, 3], [10, 100, 1000])
    1.0
    >>> round(spearman([1, 2, 2, 3], [1, 2, 3, 4]), 6)  # ranks 1, 2.5, 2.5, 4
    0.948683
    """
    left, right = _checked("spearman", x, y)
    return _cosine_of_centred(rank(left), rank(right))


def rank(x: ArrayLike) -> Array:
    """Ranks from 1, the smallest, to B; ties share the average of their ranks.

    (B,) -> (B,)

    **Source**: ``scipy.stats.rankdata(x, method="average")``.

    >>> rank([30, 10, 20, 20])
    array([4. , 1. , 2.5, 2.5])
    """
    numbers = _as_numbers("rank", "x", x)
    _, place, count = np.unique(numbers, return_inverse=True, return_counts=True)
    last = np.cumsum(count)  # the highest rank in each group of ties
    return (last - (count - 1) / 2)[place]


def _cosine_of_centred(x: Array, y: Array) -> float:
    """Pearson's formula."""
    left, right = _centred(x), _centred(y)
    r = float(left @ right) / math.sqrt(float(left @ left) * float(right @ right))
    return min(1.0, max(-1.0, r))  # rounding may give 1.0000000000000002


def _centred(x: Array) -> Array:
    """Scale to entries of at most 1, and subtract the mean."""
    scaled = x / np.abs(x).max()
    once = scaled - scaled.mean()
    twice = once - once.mean()
    return twice / np.abs(twice).max()  # or squares of tiny differences would underflow


def _checked(function: str, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Both lists as float64; raise if they have no correlation."""
    left, right = _as_numbers(function, "x", x), _as_numbers(function, "y", y)
    if len(left) != len(right):
        raise ValueError(
            f"{function}: x (B,) and y (B,) must have the same length, got {len(left):,} and {len(right):,}; "
            "does one of them lack a row, or include the header?"
        )
    if len(left) < 2:
        raise ValueError(f"{function}: a correlation needs at least 2 pairs of numbers, got {len(left)}")
    for name, numbers in (("x", left), ("y", right)):
        if numbers.min() == numbers.max():
            raise ValueError(
                f"{function}: no correlation exists, because {name} is constant: all {len(numbers):,} numbers are "
                f"{numbers[0]:g}, and the formula divides by their spread; is it the right column?"
            )
    return left, right


def _as_numbers(function: str, name: str, x: ArrayLike) -> Array:
    """A list as float64 (B,), all finite."""
    try:
        given = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{function}: {name} must be (B,) real numbers, but NumPy says: {error}") from None
    if given.ndim != 1 or given.dtype.kind not in "fiub":
        raise ValueError(
            f"{function}: {name} must be (B,) real numbers, got an array of shape {given.shape} and dtype {given.dtype}"
        )
    numbers: Array = given.astype(np.float64)
    if not np.isfinite(numbers).all():
        bad = np.flatnonzero(~np.isfinite(numbers))
        raise ValueError(
            f"{function}: {name} must be finite, but {len(bad):,} of {len(numbers):,} numbers are NaN or Inf, the "
            f"first at index {bad[0]}; a missing score often becomes NaN: drop its row"
        )
    return numbers
