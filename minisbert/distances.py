"""Similarity <-> distance, there and back, and which of the distances is a metric.

A **metric** is a distance that is never negative, 0 only between a thing and itself, the same both ways, and never
longer than a detour: ``d(u, w) <= d(u, v) + d(v, w)``, the triangle inequality. Search trees, pruned clustering and
everything else that concludes "far from a neighbour, so far from here too" needs it.

========  ====================  =============  ========  =========================================================
kind      distance              of similarity  a metric  in words
========  ====================  =============  ========  =========================================================
angular   arccos(cos) / pi      cosine         yes       the angle, in half turns: the way along the sphere
chord     sqrt(2 - 2 cos)       cosine         yes       Euclidean distance of unit vectors: the way through it
cosine    1 - cos               cosine         **no**    half the square of the chord, and squares do not add up
negated   -s                    -d             as d is   Euclidean, Manhattan: what `euclidean_sim` negates
inverse   1 / s - 1             1 / (1 + d)    as d is   the same distances, with a similarity in (0, 1]
========  ====================  =============  ========  =========================================================

Each kind is strictly decreasing, so all rank alike. What differs is how much of a number survives: from a distance to a
cosine and back, small distances lose half their digits, because near 1 the cosine is ``1 - angle^2 / 2``. In float32 an
angle below 7.8e-5 (of half a turn) comes back as 0, in float64 one below 3.4e-9. From a cosine to a distance and back
nothing is lost but rounding. So a distance that matters is computed from vectors, as `angular_distance` does, and not
from cosines. Likewise ``1 / (1 + d)`` keeps ``d`` to about one eps *of 1 + d*, not of ``d``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array

__all__ = ["CONVERSIONS", "Conversion", "to_distance", "to_similarity"]

ROUNDING = 1e-5
"""How far beyond [-1, 1] a cosine may lie and still be taken for one that was rounded: float32 makes 1.0000001."""

_INF = math.inf


class Conversion(NamedTuple):
    """One kind of distance, and the similarity that it belongs to."""

    distance: Callable[[Array], Array]  # of a similarity
    similarity: Callable[[Array], Array]  # of a distance
    similarities: tuple[float, float]  # from the least to the most alike
    distances: tuple[float, float]  # from the nearest to the farthest
    is_metric: bool | None  # None: if the distance that comes in is one
    rounding: float = 0.0  # so far beyond the ends a number is moved to the end


CONVERSIONS = MappingProxyType(
    {
        "angular": Conversion(
            lambda cosine: np.arccos(cosine) / math.pi,
            # cos is flat at 0 and keeps few digits around 90 degrees; the sine of what is missing there keeps them
            lambda angle: np.sin((0.5 - angle) * math.pi),
            (-1.0, 1.0),
            (0.0, 1.0),
            is_metric=True,
            rounding=ROUNDING,
        ),
        "chord": Conversion(
            lambda cosine: np.sqrt(2.0 - 2.0 * cosine),
            lambda chord: 1.0 - chord * chord / 2.0,
            (-1.0, 1.0),
            (0.0, 2.0),
            is_metric=True,
            rounding=ROUNDING,
        ),
        "cosine": Conversion(
            lambda cosine: 1.0 - cosine,
            lambda distance: 1.0 - distance,
            (-1.0, 1.0),
            (0.0, 2.0),
            is_metric=False,
            rounding=ROUNDING,
        ),
        "negated": Conversion(
            lambda similarity: 0.0 - similarity,  # not -similarity: that would make a -0.0 of 0
            lambda distance: 0.0 - distance,
            (-_INF, 0.0),
            (0.0, _INF),
            is_metric=None,
        ),
        "inverse": Conversion(
            lambda similarity: (1.0 - similarity) / similarity,  # 1 / s - 1 would lose digits near 1
            lambda distance: 1.0 / (1.0 + distance),
            (0.0, 1.0),
            (0.0, _INF),
            is_metric=None,
        ),
    }
)


def to_distance(similarity: ArrayLike, kind: str = "angular") -> Array:
    """Turn similarities into distances, by the formulas in the table at the head of this module.

    Parameters
    ----------
    similarity : array_like, any shape
        Finite numbers. Cosines in [-1, 1] for "angular", "chord" and "cosine"; at most 0 for "negated"; in (0, 1] for
        "inverse". Cosines up to 1e-5 beyond their ends are taken for rounding and moved to the end.
    kind : {"angular", "chord", "cosine", "negated", "inverse"}

    Returns
    -------
    Array, of the same shape
        From 0, to 1 ("angular"), to 2 ("chord", "cosine") or without end. "cosine" is no metric. float32 stays float32,
        float16 becomes float32, everything else float64.

    Raises
    ------
    ValueError
        For another kind, numbers outside the domain, NaN and Inf, and a distance too large for its dtype.

    Notes
    -----
    **Source**: arccos of the cosine is the length of the shortest arc between two points of the unit sphere, whose
    triangle inequality is Euclid XI.20 (of three plane angles at a corner, two exceed the third).

    Examples
    --------
    >>> to_distance([1.0, 0.5, 0.0, -1.0]).round(4)
    array([0.    , 0.3333, 0.5   , 1.    ])
    >>> to_distance([1.0, 0.5, 0.0, -1.0], "chord").round(4)
    array([0.    , 1.    , 1.4142, 2.    ])
    >>> to_distance([-5.0, 0.0], "negated"), to_distance([0.25, 1.0], "inverse")
    (array([5., 0.]), array([3., 0.]))
    """
    conversion = _choose("to_distance", kind)
    checked = _in_domain("to_distance", kind, similarity, conversion.similarities, conversion.rounding)
    return _apply("to_distance", kind, conversion.distance, checked)


def to_similarity(distance: ArrayLike, kind: str = "angular") -> Array:
    """Turn distances into similarities; the inverse of :func:`to_distance`.

    Parameters
    ----------
    distance : array_like, any shape
        Finite numbers: in [0, 1] for "angular", in [0, 2] for "chord" and "cosine", at least 0 for "negated" and
        "inverse". For the first three, up to 1e-5 beyond the ends is taken for rounding and moved to the end.
    kind : {"angular", "chord", "cosine", "negated", "inverse"}

    Returns
    -------
    Array, of the same shape
        Cosines in [-1, 1], numbers up to 0 ("negated"), or in (0, 1] ("inverse"). float32 or float64, as `to_distance`.

    Raises
    ------
    ValueError
        For another kind, numbers outside the domain, NaN and Inf.

    Examples
    --------
    >>> to_similarity([0.0, 1 / 3, 0.5, 1.0]).round(4)
    array([ 1. ,  0.5,  0. , -1. ])
    >>> to_similarity([0.0, 3.0], "inverse")
    array([1.  , 0.25])
    """
    conversion = _choose("to_similarity", kind)
    checked = _in_domain("to_similarity", kind, distance, conversion.distances, conversion.rounding)
    return _apply("to_similarity", kind, conversion.similarity, checked)


def _choose(function: str, kind: str) -> Conversion:
    if kind not in CONVERSIONS:
        raise ValueError(f"{function}: kind must be one of {', '.join(CONVERSIONS)}, got {kind!r}")
    return CONVERSIONS[kind]


def _in_domain(function: str, kind: str, x: ArrayLike, domain: tuple[float, float], rounding: float) -> Array:
    """Take numbers as float32 or float64 inside their domain."""
    numbers = np.asarray(x)
    if numbers.dtype.kind not in "fiu":
        raise ValueError(
            f"{function}: expected real numbers, got {type(x).__name__} that NumPy reads as {numbers.dtype}"
        )
    narrow = numbers.dtype.kind == "f" and numbers.dtype.itemsize <= 4
    numbers = numbers.astype(np.float32 if narrow else np.float64)
    low, high = domain
    inside = np.isfinite(numbers) & (numbers >= low - rounding) & (numbers <= high + rounding)
    if not inside.all():
        bad = numbers[~inside]
        left, right = "(" if low == -_INF else "[", ")" if high == _INF else "]"
        raise ValueError(
            f"{function}: kind {kind!r} expects finite numbers in {left}{low:g}, {high:g}{right}, got "
            f"{bad.flat[0]:.9g} ({bad.size} of {numbers.size} are outside); is it a cosine of vectors that were not "
            "scaled to length 1, or a distance where a similarity belongs?"
        )
    clipped: Array = np.clip(numbers, low, high)
    return clipped


def _apply(function: str, kind: str, formula: Callable[[Array], Array], numbers: Array) -> Array:
    """Compute in float64, so that float32 is rounded once, and refuse what is too large for the dtype."""
    with np.errstate(over="ignore", divide="ignore"):
        wide: Array = np.asarray(formula(numbers.astype(np.float64)))
        result = wide.astype(numbers.dtype)
    if not np.isfinite(result).all():
        raise ValueError(
            f"{function}: kind {kind!r}: a similarity of {numbers.min():g} is a distance beyond {result.dtype}"
        )
    return result
