"""The score of two vectors: an estimate by matrix product with a bound on its error, and an exact score.

A matrix product is the only fast way to compare many with many, but nobody promises its last digit: BLAS adds up in an
order that depends on the block's shape, the row's place in it, the processor and the number of threads. Two equal
documents then differ by one rounding, and "ties by id" means nothing. So a score has two forms:

- The **exact** score is computed from two rows alone: products in float64, added up in NumPy's own order, divided by
  the lengths, rounded once to the vectors' dtype. Equal documents get equal scores, ``score(u, v) = score(v, u)``, and
  the cosine of a vector with itself is 1.
- The **estimate** is the matrix product. In float arithmetic with unit roundoff ``u``, a sum of D products is off by at
  most ``D u / (1 - D u) |q| |d|`` in any order. The bound used is more than twice that, because the lengths are rounded
  too. In ``exact.py`` estimates choose the candidates and exact scores decide.

===========  ====================  =============================================================
kind         exact score           for
===========  ====================  =============================================================
cosine       q.d / (|q| |d|)       any vectors; clipped to [-1, 1]
unit         q.d / |q|             the same with |d| = 1 known: no lengths to compute
dot          q.d                   vectors whose length carries meaning
function     function(q, d)        anything else; its scores are used as they are
===========  ====================  =============================================================

Letters: ``Q`` queries, ``M`` documents, ``D`` width, ``m`` documents of a block, ``P`` pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array
from minisbert.similarity import SIMILARITIES, cos_sim, dot_score

__all__ = ["Block", "ScoreFunction", "Scorer", "as_vectors", "build_scorer", "check_count", "common_dtype"]

ScoreFunction: TypeAlias = Callable[[Array, Array], Any]
"""``(q, D), (m, D) -> (q, m)``, larger is closer."""

PAIR_NUMBERS = 2**18  # numbers of rows multiplied pair by pair at a time: 2 MiB in float64
UNIT_SLACK = 1e-3  # a unit vector may be this much longer than 1: float16 rounds that coarsely


# --------------------------------------------------------------------------------------------------- checks


def check_count(function: str, name: str, value: Any, least: int = 1) -> int:
    """Return an int of at least ``least``, or raise a ValueError that names function and argument."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{function}: {name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def as_vectors(function: str, name: str, x: ArrayLike) -> Array:
    """Rows of real numbers without copying an array, memory-mapped or not; a single vector is one row.

    (M, D) -> (M, D)
    """
    try:
        rows = np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"{function}: {name} must be (M, D), rows of equal width, but NumPy says: {error} "
            "Embed all texts with the same model and settings."
        ) from None
    if rows.dtype.kind not in "fiub" or rows.dtype.itemsize > 8:
        raise ValueError(
            f"{function}: {name} must be (M, D) real numbers of at most 64 bits, but it is a {type(x).__name__} that "
            f"NumPy reads as {rows.dtype}. Embed texts first; a sparse matrix needs .toarray()."
        )
    if rows.ndim not in (1, 2) or rows.shape[-1] == 0:
        raise ValueError(
            f"{function}: {name} must be (M, D) or (D,) with D >= 1, but its shape is {rows.shape}. Pool token "
            "embeddings to one vector per text first; no vectors at all are np.empty((0, D))."
        )
    return np.atleast_2d(rows)


def common_dtype(function: str, names: tuple[str, str], a: Array, b: Array) -> np.dtype[Any]:
    """The dtype of a comparison: float32 if both sides are float32 or float16, else float64; widths must be equal."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{function}: {names[0]} and {names[1]} must have the same width D, but their shapes are {a.shape} and "
            f"{b.shape}. Vectors of different models, or cut to different truncate_dim, cannot be compared: embed both "
            "sides with the same model and settings."
        )
    is_narrow = all(rows.dtype.kind == "f" and rows.dtype.itemsize <= 4 for rows in (a, b))
    return np.dtype(np.float32 if is_narrow else np.float64)


# --------------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Block:
    """Consecutive documents, read and checked: a view of the corpus where possible."""

    start: int  # the document of the first row
    rows: Array  # (m, D) in the dtype of the comparison
    lengths: Array | None  # (m,) for the cosine, which divides by them
    error: float  # bound on |estimate - exact score|
    unsure: Array | None = None  # (n,) rows whose squares overflow or underflow: no estimate


@dataclass(frozen=True)
class Scorer:
    """Queries ready to be compared with documents, block by block; from `build_scorer`."""

    caller: str  # for error messages
    names: tuple[str, str]  # of queries and documents in error messages
    kind: str  # cosine, unit, dot or function
    function: ScoreFunction | None
    queries: Array  # (Q, D) as given, in the dtype of the comparison
    directions: Array  # (Q, D) multiplied with documents: for the cosine divided by the lengths
    lengths: Array  # (Q,) float64

    def read(self, corpus: Array, start: int, stop: int) -> Block:
        """Read and check the documents ``[start, stop)``.

        NaN, Inf, rows of zeros under the cosine, and lengths whose products overflow are errors.
        """
        rows = corpus[start:stop].astype(self.queries.dtype, copy=False)
        if self.kind == "function":
            return Block(start, rows, None, 0.0)
        if self.kind == "unit":
            return Block(start, rows, None, self._error(1.0 + UNIT_SLACK))
        with np.errstate(over="ignore", invalid="ignore"):
            lengths: Array = np.sqrt(np.einsum("md,md->m", rows, rows))
        low, high = _safe_lengths(rows.dtype)
        unsure = np.flatnonzero(~((lengths >= low) & (lengths <= high)))  # NaN too
        _refuse_not_finite(self.caller, self.names[1], rows, unsure, start)
        if self.kind == "dot":
            longest = max(float(lengths.max(initial=0.0)), low) * float(self.lengths.max(initial=0.0))
            self._refuse_overflow(longest)
            return Block(start, rows, None, self._error(longest))
        if len(unsure):
            _refuse_zero_rows(self.caller, self.names[1], rows, unsure, start)
            lengths[unsure] = 1.0
        return Block(start, rows, lengths, self._error(1.0), unsure if len(unsure) else None)

    def _error(self, scale: float) -> float:
        """Bound ``|estimate - exact score|`` if no product of lengths exceeds scale."""
        limits, width = np.finfo(self.queries.dtype), self.queries.shape[1]
        return (width + 8) * float(limits.eps) * scale + width * float(limits.tiny)

    def _refuse_overflow(self, product: float) -> None:
        """Raise if the product of the largest lengths overflows the dtype."""
        dtype = self.queries.dtype
        if not product < float(np.finfo(dtype).max) / 4:
            raise ValueError(
                f"{self.caller}: dot products of vectors this long, up to {product:.1e}, may overflow {dtype}. "
                "Vectors of an encoder have a length of about 1: look for an np.empty that was not filled, scale both "
                "sides down, or use the cosine."
            )

    def estimate(self, chosen: slice, block: Block) -> Array:
        """Scores ``(q, m)`` by one matrix product, within ``block.error`` of the exact ones.

        The columns ``block.unsure`` are -2, below any cosine; a function's scores are final.
        """
        if self.function is not None:
            return self._call(self.function, self.queries[chosen], block.rows)
        with np.errstate(over="ignore", invalid="ignore"):
            scores: Array = self.directions[chosen] @ block.rows.T  # (q, m)
            if block.lengths is not None:
                scores /= block.lengths
        if block.unsure is not None:
            scores[:, block.unsure] = -2.0
        # A document that is not finite has no finite score with any query, so one query suffices.
        if len(scores) and not np.isfinite(scores[0]).all():
            _refuse_not_finite(
                self.caller, self.names[1], block.rows, np.flatnonzero(~np.isfinite(scores[0])), block.start
            )
            raise ValueError(
                f"{self.caller}: normalized=True says that documents have length 1, but one is so long that its score "
                "is infinite. Pass normalized=False."
            )
        return scores

    def _call(self, function: ScoreFunction, queries: Array, rows: Array) -> Array:
        """Call the user's function and check its scores."""
        scores = np.asarray(function(queries, rows), dtype=self.queries.dtype)
        if scores.shape != (len(queries), len(rows)) or not np.isfinite(scores).all():
            raise ValueError(
                f"{self.caller}: score_function must return finite scores of shape (q, m), larger for closer, but for "
                f"{queries.shape} and {rows.shape} it gave {scores.shape}"
                + (" with NaN or Inf in it." if scores.shape == (len(queries), len(rows)) else ".")
            )
        return scores

    def exact(self, chosen: slice, block: Block, estimates: Array, rows: Array, columns: Array) -> Array:
        """Score pairs ``(P,)``, places in the estimates, each from its two vectors alone.

        A function's estimates are the scores. A cosine above 1 under kind ``unit`` is an error.
        """
        if self.function is not None:
            return estimates[rows, columns]
        queries, lengths = self.queries[chosen], self.lengths[chosen]
        scores = np.empty(len(rows), dtype=self.queries.dtype)
        step = max(1, PAIR_NUMBERS // queries.shape[1])
        for start in range(0, len(scores), step):
            row, column = rows[start : start + step], columns[start : start + step]
            u = _wide(queries[row], self.kind != "dot")  # (P, D)
            v = _wide(block.rows[column], self.kind == "cosine")  # (P, D)
            found: Array = (u * v).sum(axis=1)
            if self.kind != "dot":
                found /= lengths[row] * (_lengths(v) if self.kind == "cosine" else 1.0)
                self._refuse_long(found)
                found = np.clip(found, -1.0, 1.0)
            scores[start : start + step] = found
        return scores

    def reaches(self, chosen: slice, block: Block, threshold: float) -> Array:
        """Which exact scores ``(q, m)`` reach a threshold; only those too close to call are computed exactly."""
        estimates = self.estimate(chosen, block)  # (q, m)
        limit = self.queries.dtype.type(threshold)
        reached: Array = estimates >= limit
        doubtful = np.abs(estimates - limit) <= block.error
        if block.unsure is not None:
            doubtful[:, block.unsure] = True
        places = np.flatnonzero(doubtful)
        rows, columns = np.divmod(places, len(block.rows))
        reached.ravel()[places] = self.exact(chosen, block, estimates, rows, columns) >= limit
        return reached

    def _refuse_long(self, cosines: Array) -> None:
        """Raise for cosines that only vectors longer than 1 can have."""
        if cosines.max(initial=0.0) > 1.0 + UNIT_SLACK:
            raise ValueError(
                f"{self.caller}: normalized=True says that documents have length 1, but one scores "
                f"{cosines.max():.4g} with a query of length 1, so it is longer. Pass normalized=False."
            )


def build_scorer(
    caller: str, names: tuple[str, str], score_function: str | ScoreFunction, queries: Array, dtype: np.dtype[Any]
) -> Scorer:
    """Check and prepare queries.

    Kind ``unit`` is the cosine with documents of length 1; `minisbert.similarity.cos_sim` and ``dot_score`` count as
    their names.

    >>> corpus = np.array([[3.0, 4.0], [0.0, 2.0]])
    >>> scorer = build_scorer("search", ("q", "d"), "cosine", np.array([[0.0, 5.0]]), np.dtype(np.float64))
    >>> block = scorer.read(corpus, 0, 2)
    >>> estimates = scorer.estimate(slice(0, 1), block)
    >>> estimates, scorer.exact(slice(0, 1), block, estimates, np.array([0]), np.array([0]))
    (array([[0.8, 1. ]]), array([0.8]))
    """
    kind, function = _kind_of(caller, score_function)
    queries = queries.astype(dtype, copy=False)
    if bad := _find(queries, np.arange(len(queries)), _is_not_finite):
        raise ValueError(
            f"{caller}: {names[0]} {queries.shape} must be finite, but there is NaN or Inf in "
            f"{_list_rows(bad, 0)}. The usual cause is a division by zero where the vectors are computed."
        )
    if function is not None:
        return Scorer(caller, names, kind, function, queries, queries, np.ones(len(queries)))
    if kind != "dot":
        _refuse_zero_rows(caller, names[0], queries, np.arange(len(queries)), 0)
    directions, lengths = queries if kind == "dot" else np.empty_like(queries), np.empty(len(queries))
    step = max(1, PAIR_NUMBERS // queries.shape[1])
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        wide = _wide(queries[part], kind != "dot")
        with np.errstate(over="ignore"):
            lengths[part] = _lengths(wide)
        if kind != "dot":
            directions[part] = wide / lengths[part, None]
    return Scorer(caller, names, kind, None, queries, directions, lengths)


def _kind_of(caller: str, score_function: str | ScoreFunction) -> tuple[str, ScoreFunction | None]:
    """The kind of score, and the function where there is one."""
    if callable(score_function):
        known: dict[Any, str] = {cos_sim: "cosine", dot_score: "dot"}
        kind = known.get(score_function, "function")
        return kind, score_function if kind == "function" else None
    if score_function in ("cosine", "dot", "unit"):
        return score_function, None
    if score_function in SIMILARITIES:
        return "function", SIMILARITIES[score_function].matrix
    raise ValueError(
        f"{caller}: score_function must be one of {', '.join(SIMILARITIES)}, or a function of (q, D) and (m, D) that "
        f"returns (q, m), got {score_function!r}"
    )


# --------------------------------------------------------------------------------------------------- lengths


def _wide(rows: Array, is_direction: bool) -> Array:
    """Widen to float64; directions in float64 are first scaled to about 1, because their squares could overflow."""
    return _near_one(rows) if is_direction and rows.dtype == np.float64 else rows.astype(np.float64)


def _near_one(rows: Array) -> Array:
    """Multiply each row by the power of two that brings its largest entry into [0.5, 1)."""
    exponents = np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1]
    with np.errstate(under="ignore"):
        scaled: Array = np.ldexp(rows, -exponents)
    return scaled


def _lengths(rows: Array) -> Array:
    """Lengths of float64 rows, each from its row alone."""
    return np.sqrt((rows * rows).sum(axis=1))


def _safe_lengths(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Lengths whose squares add up without loss: fourth roots of the largest number and of its inverse."""
    high = float(np.finfo(dtype).max) ** 0.25
    return 1.0 / high, high


def _refuse_not_finite(caller: str, name: str, rows: Array, places: Array, start: int) -> None:
    """Raise for NaN and Inf in some rows of a block that begins at document start."""
    if bad := _find(rows, places, _is_not_finite):
        raise ValueError(
            f"{caller}: {name} must be finite, but there is NaN or Inf in "
            f"{_list_rows(bad, start)}. The usual cause is a division by zero where the vectors are computed: look "
            "there, or drop these rows."
        )


def _refuse_zero_rows(caller: str, name: str, rows: Array, places: Array, start: int) -> None:
    """Raise for vectors without a direction."""
    if bad := _find(rows, places, _is_zero):
        raise ValueError(
            f"{caller}: every row of {name} must have a direction, but all numbers are zero in "
            f"{_list_rows(bad, start)}. No encoder returns such a vector; the usual cause is an np.zeros array that "
            "was not filled. Drop these rows, or use the dot product, which is defined for them."
        )


def _is_not_finite(rows: Array) -> Array:
    return np.asarray(~np.isfinite(rows).all(axis=1))


def _is_zero(rows: Array) -> Array:
    return np.asarray(~rows.any(axis=1))


def _find(rows: Array, places: Array, is_bad: Callable[[Array], Array]) -> list[int]:
    """Find bad rows among some places, a few at a time; not many more than a message names."""
    bad: list[int] = []
    step = max(1, PAIR_NUMBERS // rows.shape[1])
    for first in range(0, len(places), step):
        part = places[first : first + step]
        bad += part[is_bad(rows[part])].tolist()
        if len(bad) > 5:
            break
    return bad


def _list_rows(bad: list[int], start: int) -> str:
    """Name the first bad rows of a block that begins at document start."""
    named = ", ".join(str(start + row) for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
    return f"row{'s' if len(bad) > 1 else ''} {named}"
