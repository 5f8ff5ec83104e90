"""How alike two vectors are: cosine, dot, Euclidean, Manhattan, and the angle, which is a true distance.

Each measure comes twice, under sentence-transformers' names: ``cos_sim(a, b)`` compares every row of ``a`` with every
row of ``b``, ``(A, D), (B, D) -> (A, B)``; ``pairwise_cos_sim(a, b)`` row ``i`` with row ``i``, ``(B, D), (B, D) ->
(B,)``. A single vector ``(D,)`` counts as one row. Where a loss is made of one, ``f_backward(d_scores, a, b) -> (d_a,
d_b)`` stands directly under it; at a kink the gradient is 0, as in PyTorch.

=========  ====================  ==========  ==============================================================
name       formula               range       in words
=========  ====================  ==========  ==============================================================
cosine     u.v / (|u| |v|)       [-1, 1]     direction only; what SBERT models are trained for
dot        u.v                   any         direction and length; equals cosine for unit vectors
euclidean  -|u - v|              (-inf, 0]   straight-line distance, negated so that larger is closer
manhattan  -sum_d |u_d - v_d|    (-inf, 0]   the coordinates' distances added up, negated likewise
angular    arccos(cosine) / pi   [0, 1]      a *distance*, smaller is closer, and a metric
=========  ====================  ==========  ==============================================================

float32 in, float32 out; float16 is widened to it. If either side is anything else (float64, integers, a list of
numbers), everything is computed in float64. Wrong widths, NaN and Inf are a ValueError, and so are entries so large
that a sum could overflow.

Euclidean, Manhattan and angular work on the differences of the rows, never on ``|u|^2 + |v|^2 - 2 u.v``: that shortcut
is one fast matrix product, but for close rows it subtracts nearly equal numbers, and the distance of a float32 vector
from itself then comes out as about 0.01. ``torch.cdist``, and with it sentence-transformers, takes it above 25 rows.
Here equal rows are at distance exactly 0, at 15 to 40 times the time of a matrix product.

A **metric** is a distance that is never negative, 0 only between a thing and itself, the same both ways, and never
longer than a detour: ``d(u, w) <= d(u, v) + d(v, w)``, the triangle inequality. Search trees, pruned clustering and
everything else that concludes "far from a neighbour, so far from here too" needs it. :func:`to_distance` and
:func:`to_similarity` go there and back:

========  ====================  =============  ========  =========================================================
kind      distance              of similarity  a metric  in words
========  ====================  =============  ========  =========================================================
angular   arccos(cos) / pi      cosine         yes       the angle, in half turns: the way along the sphere
chord     sqrt(2 - 2 cos)       cosine         yes       Euclidean distance of unit vectors: the way through it
cosine    1 - cos               cosine         **no**    half the square of the chord, and squares do not add up
negated   -s                    -d             as d is   Euclidean, Manhattan: what `euclidean_sim` negates
inverse   1 / s - 1             1 / (1 + d)    as d is   the same distances, with a similarity in (0, 1]
========  ====================  =============  ========  =========================================================

All rank alike. What differs is how much of a number survives: near 1 the cosine is ``1 - angle^2 / 2``, so that in
float32 an angle below 7.8e-5 (of half a turn) comes back from a cosine as 0, in float64 one below 3.4e-9. A distance
that matters is computed from vectors, as `angular_distance` does, and not from cosines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import check_vectors
from minisbert.model import Array
from minisbert.model.ops import normalize, normalize_backward

__all__ = [
    "CONVERSIONS",
    "SIMILARITIES",
    "Conversion",
    "Similarity",
    "angular_distance",
    "cos_sim",
    "cos_sim_backward",
    "dot_score",
    "dot_score_backward",
    "euclidean_sim",
    "manhattan_sim",
    "pairwise_angular_distance",
    "pairwise_cos_sim",
    "pairwise_cos_sim_backward",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_euclidean_sim_backward",
    "pairwise_manhattan_sim",
    "pairwise_manhattan_sim_backward",
    "to_distance",
    "to_similarity",
]

BLOCK_NUMBERS = 2**16  # a block of rows this large, and its difference from one row, stay in the processor's cache


# ----------------------------------------------------------------------------------------------------- cosine


def cos_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Cosine of the angle between every row of ``a`` and every row of ``b``: ``sum_d u_d v_d / (|u| |v|)``.

    1 for the same direction, 0 at right angles, -1 opposite; 0 for a row of zeros. In float32, rounding makes the
    cosine of a vector with itself 1.0000001 now and then; the result is clipped to [-1, 1], so that ``arccos`` of it is
    never NaN. Entries of any size are safe, 1e30 and 1e-30 in float32 too.

    Parameters
    ----------
    a, b : array_like, shapes (A, D) and (B, D); (D,) is one row

    Notes
    -----
    **Source**: Reimers & Gurevych 2019 (Sentence-BERT), section 3, figure 2; ``sentence_transformers.util.cos_sim``.

    Examples
    --------
    >>> cos_sim([[3, 0], [1, 1]], [[5, 0], [0, 2], [-1, 0]]).round(4)
    array([[ 1.    ,  0.    , -1.    ],
           [ 0.7071,  0.7071, -0.7071]])
    """
    a, b = _checked("cos_sim", a, b)
    scores = _unit_rows(a) @ _unit_rows(b).T  # (A, B)
    return np.clip(scores, -1.0, 1.0)


def cos_sim_backward(d_scores: ArrayLike, a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Send a gradient back through `cos_sim`: ``d_u = (d_u' - (d_u'.u') u') / |u|``, with ``u' = u / |u|``.

    ``d_u' = sum over v of d_score v'``. So ``d_u`` is at right angles to ``u``: a longer ``u`` has the same cosines.
    The clipping to [-1, 1] only mends rounding and is not differentiated. A row of zeros is refused: it has no
    direction, and so no gradient.

    (A, B), (A, D), (B, D) -> (A, D), (B, D)
    """
    upstream, a, b = _with_upstream("cos_sim_backward", d_scores, a, b, turn=True)
    d_unit_a = upstream @ _unit_rows(b)  # (A, D)
    d_unit_b = upstream.T @ _unit_rows(a)  # (B, D)
    return _unit_rows_backward(d_unit_a, a), _unit_rows_backward(d_unit_b, b)


def pairwise_cos_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Cosine of the angle between row ``i`` of ``a`` and row ``i`` of ``b``, as `cos_sim`.

    Parameters
    ----------
    a, b : array_like, shape (B, D) or (D,)

    Examples
    --------
    >>> pairwise_cos_sim([[3, 0], [1, 1]], [[0, 2], [4, 4]]).round(4)
    array([0., 1.])
    """
    a, b = _checked("pairwise_cos_sim", a, b)
    scores = np.sum(_unit_rows(a) * _unit_rows(b), axis=-1)  # (B,)
    return np.clip(scores, -1.0, 1.0)


def pairwise_cos_sim_backward(d_scores: ArrayLike, a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Send a gradient back through `pairwise_cos_sim`, as `cos_sim_backward`.

    (B,), (B, D), (B, D) -> (B, D), (B, D)
    """
    upstream, a, b = _with_upstream("pairwise_cos_sim_backward", d_scores, a, b, turn=True)
    d_unit_a, d_unit_b = upstream[:, None] * _unit_rows(b), upstream[:, None] * _unit_rows(a)
    return _unit_rows_backward(d_unit_a, a), _unit_rows_backward(d_unit_b, b)


def _unit_rows(x: Array) -> Array:
    # The square of 1e20 overflows float32 and that of 1e-30 vanishes, so the largest entry of a row is made 1 first.
    largest = np.abs(x).max(axis=-1, keepdims=True)
    return normalize(x / np.where(largest > 0.0, largest, 1.0).astype(x.dtype))  # a row of zeros stays one


def _unit_rows_backward(d_unit: Array, x: Array) -> Array:
    # the largest entry counts as a constant here: dividing by it does not change the direction
    largest = np.abs(x).max(axis=-1, keepdims=True)
    return normalize_backward(d_unit, x / largest) / largest


# ------------------------------------------------------------------------------------------------ dot product


def dot_score(a: ArrayLike, b: ArrayLike) -> Array:
    """Dot product of every row of ``a`` with every row of ``b``: ``sum_d u_d v_d``.

    For vectors of length 1, as all-MiniLM-L6-v2 makes them, this is the cosine, and cheaper.

    Parameters
    ----------
    a, b : array_like, shapes (A, D) and (B, D); (D,) is one row

    Examples
    --------
    >>> dot_score([[1, 2], [3, 4]], [[1, 0], [0, 1], [1, 1]])
    array([[1., 2., 3.],
           [3., 4., 7.]])
    """
    a, b = _checked("dot_score", a, b, sums=True)
    return a @ b.T  # (A, B)


def dot_score_backward(d_scores: ArrayLike, a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Send a gradient back through `dot_score`: ``d_a = d_scores @ b``, ``d_b = d_scores.T @ a``.

    (A, B), (A, D), (B, D) -> (A, D), (B, D)
    """
    upstream, a, b = _with_upstream("dot_score_backward", d_scores, a, b, sums=True)
    return upstream @ b, upstream.T @ a  # (A, D), (B, D)


def pairwise_dot_score(a: ArrayLike, b: ArrayLike) -> Array:
    """Dot product of row ``i`` of ``a`` with row ``i`` of ``b``.

    Parameters
    ----------
    a, b : array_like, shape (B, D) or (D,)

    Examples
    --------
    >>> pairwise_dot_score([[1, 2], [3, 4]], [[1, 0], [1, 1]])
    array([1., 7.])
    """
    a, b = _checked("pairwise_dot_score", a, b, sums=True)
    return np.sum(a * b, axis=-1)  # (B,)


# -------------------------------------------------------------------------------------------------- Euclidean


def euclidean_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Negative straight-line distance of every row of ``a`` from every row of ``b``: ``-sqrt(sum_d (u_d - v_d)^2)``.

    Unit vectors are ranked as by cosine, because for them ``|u - v|^2 = 2 - 2 cos(u, v)``.

    Parameters
    ----------
    a, b : array_like, shapes (A, D) and (B, D); (D,) is one row

    Examples
    --------
    >>> euclidean_sim([[0, 0], [3, 0]], [[3, 4], [1, 0]])
    array([[-5., -1.],
           [-4., -2.]])
    """
    a, b = _checked("euclidean_sim", a, b, sums=True)
    return -_each_row_against_all(_euclidean_distance, a, b)  # (A, B)


def pairwise_euclidean_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Negative straight-line distance between row ``i`` of ``a`` and row ``i`` of ``b``.

    Parameters
    ----------
    a, b : array_like, shape (B, D) or (D,)

    Examples
    --------
    >>> pairwise_euclidean_sim([[0, 0], [3, 0]], [[3, 4], [1, 0]])
    array([-5., -2.])
    """
    a, b = _checked("pairwise_euclidean_sim", a, b, sums=True)
    return -_euclidean_distance(a, b)  # (B,)


def pairwise_euclidean_sim_backward(d_scores: ArrayLike, a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Send a gradient back through `pairwise_euclidean_sim`: ``d_u = -d_score (u - v) / |u - v|``, ``d_v = -d_u``.

    Equal rows, where the distance has a kink, give 0.

    (B,), (B, D), (B, D) -> (B, D), (B, D)
    """
    upstream, a, b = _with_upstream("pairwise_euclidean_sim_backward", d_scores, a, b, sums=True)
    difference = a - b  # (B, D)
    distance = np.linalg.norm(difference, axis=-1, keepdims=True)  # (B, 1)
    d_a = -upstream[:, None] * (difference / np.where(distance > 0.0, distance, math.inf))
    return d_a, -d_a


def _euclidean_distance(u: Array, v: Array) -> Array:
    """Distance along the last axis; ``u`` is one row ``(D,)`` or as many rows as ``v``."""
    difference = u - v
    # the square of 1e-25 is 0 in float32: by a power of two the largest entry becomes about 1, and no digit is lost
    exponents = np.frexp(np.abs(difference).max(axis=-1, keepdims=True))[1]
    return np.ldexp(np.linalg.norm(np.ldexp(difference, -exponents), axis=-1), exponents[..., 0])


# -------------------------------------------------------------------------------------------------- Manhattan


def manhattan_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Negative sum of coordinate distances between every row of ``a`` and every row of ``b``: ``-sum_d |u_d - v_d|``.

    Parameters
    ----------
    a, b : array_like, shapes (A, D) and (B, D); (D,) is one row

    Examples
    --------
    >>> manhattan_sim([[0, 0], [3, 0]], [[3, 4], [1, 0]])
    array([[-7., -1.],
           [-4., -2.]])
    """
    a, b = _checked("manhattan_sim", a, b, sums=True)
    return -_each_row_against_all(_manhattan_distance, a, b)  # (A, B)


def pairwise_manhattan_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Negative sum of coordinate distances between row ``i`` of ``a`` and row ``i`` of ``b``.

    Parameters
    ----------
    a, b : array_like, shape (B, D) or (D,)

    Examples
    --------
    >>> pairwise_manhattan_sim([[0, 0], [3, 0]], [[3, 4], [1, 0]])
    array([-7., -2.])
    """
    a, b = _checked("pairwise_manhattan_sim", a, b, sums=True)
    return -_manhattan_distance(a, b)  # (B,)


def pairwise_manhattan_sim_backward(d_scores: ArrayLike, a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Send a gradient back through `pairwise_manhattan_sim`: ``d_u = -d_score sign(u - v)``, ``d_v = -d_u``.

    ``sign(0) = 0``: where coordinates are equal, the distance has a kink.

    (B,), (B, D), (B, D) -> (B, D), (B, D)
    """
    upstream, a, b = _with_upstream("pairwise_manhattan_sim_backward", d_scores, a, b, sums=True)
    d_a = -upstream[:, None] * np.sign(a - b)  # (B, D)
    return d_a, -d_a


def _manhattan_distance(u: Array, v: Array) -> Array:
    """Distance along the last axis; ``u`` is one row ``(D,)`` or as many rows as ``v``."""
    return np.sum(np.abs(u - v), axis=-1)


# ------------------------------------------------------------------------------------------------------ angle


def angular_distance(a: ArrayLike, b: ArrayLike) -> Array:
    """Angle between every row of ``a`` and every row of ``b``, as a fraction of half a turn.

    ``angular(u, v) = arccos(cos(u, v)) / pi = 2 / pi * atan2(|u' - v'|, |u' + v'|)``, where ``u' = u / |u|``

    0 for the same direction, 0.5 at right angles, 1 opposite; exactly 0 for equal rows, else off by about one eps of
    the dtype. It ranks as cosine does, the other way round, and it is a metric on directions. The "cosine distance"
    ``1 - cos`` is not: with vectors at 0, 45 and 90 degrees the two steps measure 0.29 each and the direct way 1.0, so
    a detour is shorter than the straight line.

    Parameters
    ----------
    a, b : array_like, shapes (A, D) and (B, D); (D,) is one row
        No row may be all zeros: it has no direction.

    Notes
    -----
    **Source**: Kahan 2006, "How Futile are Mindless Assessments of Roundoff in Floating-Point Computation?",
    section 12, for the formula; Cer et al. 2018 (Universal Sentence Encoder), section 5, for angles between
    sentence vectors.

    Examples
    --------
    >>> angular_distance([1, 0], [[7, 0], [1, 1], [0, 1], [-2, 0]])
    array([[0.  , 0.25, 0.5 , 1.  ]])
    >>> 1.0 - cos_sim([1, 0], [[1, 1], [0, 1]])  # half the way is less than a third of the distance
    array([[0.29289322, 1.        ]])
    """
    a, b = _checked("angular_distance", a, b, turn=True)
    return _each_row_against_all(_angle, _unit_rows(a), _unit_rows(b))  # (A, B)


def pairwise_angular_distance(a: ArrayLike, b: ArrayLike) -> Array:
    """Angle between row ``i`` of ``a`` and row ``i`` of ``b``, as a fraction of half a turn.

    Parameters
    ----------
    a, b : array_like, shape (B, D) or (D,)

    Examples
    --------
    >>> pairwise_angular_distance([[1, 0], [1, 0]], [[1, 1], [-2, 0]])
    array([0.25, 1.  ])
    """
    a, b = _checked("pairwise_angular_distance", a, b, turn=True)
    return _angle(_unit_rows(a), _unit_rows(b))  # (B,)


def _angle(u: Array, v: Array) -> Array:
    """Angle between unit vectors along the last axis, as a fraction of half a turn."""
    # Why not arccos(u.v): for a small angle the cosine is 1 - angle^2 / 2, and float32 rounds that to steps of 6e-8:
    # half of the angle's digits are gone before arccos sees them. The diagonals of the rhombus that u and v span keep
    # them: |u - v| = 2 sin(angle / 2), |u + v| = 2 cos(angle / 2). Equal rows give exactly 0.
    half_angle = np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))
    return half_angle / (math.pi / 2)  # at most pi/2 by pi/2: exactly 1, not one rounding above it


# ---------------------------------------------------------------------------------------------------- by name


class Similarity(NamedTuple):
    """The two functions of one similarity: all rows against all rows, and row by row."""

    matrix: Callable[[ArrayLike, ArrayLike], Array]  # (A, D), (B, D) -> (A, B)
    pairwise: Callable[[ArrayLike, ArrayLike], Array]  # (B, D), (B, D) -> (B,)


# The names are the values of ``similarity_fn_name`` in sentence-transformers' model folders. In each of them larger
# is closer, and whoever sorts by them relies on that. The angular distance runs the other way: it is not in here.
SIMILARITIES = MappingProxyType(
    {
        "cosine": Similarity(cos_sim, pairwise_cos_sim),
        "dot": Similarity(dot_score, pairwise_dot_score),
        "euclidean": Similarity(euclidean_sim, pairwise_euclidean_sim),
        "manhattan": Similarity(manhattan_sim, pairwise_manhattan_sim),
    }
)


# ----------------------------------------------------------------------------------------------------- shared


def _each_row_against_all(distance: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    """Fill the matrix of distances one row of ``a`` and one block of ``b`` at a time, without an (A, B, D) array."""
    distances = np.empty((len(a), len(b)), dtype=a.dtype)  # (A, B)
    step = max(1, BLOCK_NUMBERS // a.shape[1])
    for start in range(0, len(b), step):
        block = b[start : start + step]
        for row in range(len(a)):
            distances[row, start : start + step] = distance(a[row], block)
    return distances


def _checked(
    function: str, a: ArrayLike, b: ArrayLike, *, sums: bool = False, turn: bool = False
) -> tuple[Array, Array]:
    """Take both arguments as finite rows (A, D) and (B, D) of one float dtype.

    ``sums``: their sums of squares must stay in its range; ``turn``: every row must have a direction.
    """
    rows: list[Array] = []
    for name, given in (("a", a), ("b", b)):
        with suppress(ValueError):  # rows of several widths: check_vectors says so
            array = np.asarray(given)
            if array.dtype.kind == "f" and array.dtype.itemsize <= 4:
                array = array.astype(np.float32, copy=False)
            if array.dtype.kind in "fiub":
                given = array[None] if array.ndim == 1 else array
        rows.append(check_vectors(given, f"{function}: {name}", width=rows[0].shape[1] if rows else None))
    u, v = (x.astype(np.result_type(*rows), copy=False) for x in rows)
    if function.startswith("pairwise") and len(u) != len(v):
        raise ValueError(
            f"{function}: expected as many rows in b as in a, got a {u.shape} and b {v.shape}; to compare every row "
            f"with every row use {function.removeprefix('pairwise_').removesuffix('_backward')}"
        )
    limit = math.sqrt(float(np.finfo(u.dtype).max) / u.shape[1]) / 2  # D (2 limit)^2 = the largest number there is
    for name, x in (("a", u), ("b", v)):
        if sums and (largest := float(np.abs(x).max(initial=0.0))) > limit:
            raise ValueError(
                f"{function}: {name}: entries must be at most {limit:.1e} in size for {x.dtype} and D = {x.shape[1]}, "
                f"got {largest:.1e}: sums of squares could overflow; look for an np.empty that was not filled, scale "
                "both sides down, or convert them to float64"
            )
        if turn and not (turns := x.any(axis=1)).all():
            raise ValueError(
                f"{function}: {name}: every row must have a direction, but row {turns.argmin()} is all zeros "
                f"({(~turns).sum()} of {len(x)} are); look for an np.zeros that was not filled, or drop these rows"
            )
    return u, v


def _with_upstream(
    function: str, d_scores: ArrayLike, a: ArrayLike, b: ArrayLike, **asked: bool
) -> tuple[Array, Array, Array]:
    """Take the upstream gradient, a finite number for each score of the forward, and the forward's arguments."""
    u, v = _checked(function, a, b, **asked)
    upstream = np.asarray(d_scores, u.dtype)
    shape = (len(u),) if function.startswith("pairwise") else (len(u), len(v))
    if upstream.shape != shape or not np.isfinite(upstream).all():
        raise ValueError(f"{function}: d_scores must hold finite numbers of shape {shape}, got shape {upstream.shape}")
    return upstream, u, v


# ------------------------------------------------------------------------------------------------------------ distances


ROUNDING = 1e-5
"""How far beyond [-1, 1] a cosine may lie and still be taken for one that was rounded: float32 makes 1.0000001."""
_COSINES = (-1.0, 1.0)


class Conversion(NamedTuple):
    """One kind of distance, and the similarity that it belongs to."""

    distance: Callable[[Array], Array]  # of a similarity
    similarity: Callable[[Array], Array]  # of a distance
    similarities: tuple[float, float]  # from the least to the most alike
    distances: tuple[float, float]  # from the nearest to the farthest


CONVERSIONS = MappingProxyType(
    {
        "angular": Conversion(
            lambda cosine: np.arccos(cosine) / math.pi,
            # cos is flat at 0 and keeps few digits around 90 degrees; the sine of what is missing there keeps them
            lambda angle: np.sin((0.5 - angle) * math.pi),
            _COSINES,
            (0.0, 1.0),
        ),
        "chord": Conversion(lambda c: np.sqrt(2.0 - 2.0 * c), lambda d: 1.0 - d * d / 2.0, _COSINES, (0.0, 2.0)),
        "cosine": Conversion(lambda cosine: 1.0 - cosine, lambda d: 1.0 - d, _COSINES, (0.0, 2.0)),
        # not -s: that would make a -0.0 of 0
        "negated": Conversion(lambda s: 0.0 - s, lambda d: 0.0 - d, (-math.inf, 0.0), (0.0, math.inf)),
        # 1 / s - 1 would lose digits near 1
        "inverse": Conversion(lambda s: (1.0 - s) / s, lambda d: 1.0 / (1.0 + d), (0.0, 1.0), (0.0, math.inf)),
    }
)


def to_distance(similarity: ArrayLike, kind: str = "angular") -> Array:
    """Turn similarities into distances, by the formulas in the table at the head of this module.

    Parameters
    ----------
    similarity : array_like, any shape
        What the table's formula takes. Cosines up to 1e-5 beyond their ends are taken for rounding and moved to them.
    kind : {"angular", "chord", "cosine", "negated", "inverse"}

    Notes
    -----
    **Source**: arccos of the cosine is the length of the shortest arc between two points of the unit sphere, whose
    triangle inequality is Euclid XI.20 (of three plane angles at a corner, two exceed the third).

    Examples
    --------
    >>> to_distance([1.0, 0.5, 0.0, -1.0]).round(4)
    array([0.    , 0.3333, 0.5   , 1.    ])
    >>> to_distance([-5.0, 0.0], "negated"), to_distance([0.25, 1.0], "inverse")
    (array([5., 0.]), array([3., 0.]))
    """
    return _convert("to_distance", similarity, kind)


def to_similarity(distance: ArrayLike, kind: str = "angular") -> Array:
    """Turn distances into similarities; the inverse of :func:`to_distance`.

    Parameters
    ----------
    distance : array_like, any shape
        What the table's formula gives, from 0; rounding is taken as in `to_distance`.
    kind : {"angular", "chord", "cosine", "negated", "inverse"}

    Examples
    --------
    >>> to_similarity([0.0, 1 / 3, 0.5, 1.0]).round(4)
    array([ 1. ,  0.5,  0. , -1. ])
    """
    return _convert("to_similarity", distance, kind)


def _convert(function: str, x: ArrayLike, kind: str) -> Array:
    """Compute in float64, so that float32 is rounded once; refuse what is outside the domain or beyond the dtype."""
    if not isinstance(kind, str) or kind not in CONVERSIONS:
        raise ValueError(f"{function}: kind must be one of {', '.join(CONVERSIONS)}, got {kind!r}")
    found, numbers = CONVERSIONS[kind], np.asarray(x)
    if numbers.dtype.kind not in "fiu":
        raise ValueError(f"{function}: expected real numbers, got {type(x).__name__} of {numbers.dtype}")
    dtype = np.float32 if numbers.dtype.kind == "f" and numbers.dtype.itemsize <= 4 else np.float64
    forth = function == "to_distance"
    formula, (low, high) = (found.distance, found.similarities) if forth else (found.similarity, found.distances)
    rounding = ROUNDING if found.similarities == _COSINES else 0.0
    numbers = numbers.astype(dtype)
    inside = np.isfinite(numbers) & (numbers >= low - rounding) & (numbers <= high + rounding)
    if not inside.all():
        bad = numbers[~inside]
        raise ValueError(
            f"{function}: kind {kind!r} expects finite numbers from {low:g} to {high:g}, got {bad.flat[0]:.9g} "
            f"({bad.size} of {numbers.size} are outside); is it a cosine of vectors that were not scaled to length 1, "
            "or a distance where a similarity belongs?"
        )
    with np.errstate(over="ignore", divide="ignore"):
        result = np.asarray(formula(np.clip(numbers, low, high).astype(np.float64))).astype(dtype)
    if not np.isfinite(result).all():
        raise ValueError(f"{function}: kind {kind!r}: a similarity of {numbers.min():g} is beyond {result.dtype}")
    return result
