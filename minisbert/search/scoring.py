"""What two vectors score: an estimate by matrix product with a bound on its error, and the exact score of a pair.

A matrix product is the only fast way to compare many with many, but its last digit is nobody's promise: the BLAS under
NumPy adds up in an order that depends on the shape of the block, on where in the block a row lies, on the processor and
the number of threads. Two equal documents then get scores that differ by one rounding, and "ties by id" is empty talk.
So here a score has two forms:

- the **exact** score of a pair is computed from these two rows alone: their products in float64, added up in NumPy's
  own order, divided by the lengths, rounded once to the dtype of the vectors. It depends on nothing else. Equal
  documents get equal scores, ``score(u, v)`` is ``score(v, u)``, and the cosine of a vector with itself is 1.
- the **estimate** is the matrix product. A sum of D products in float arithmetic with unit roundoff ``u`` is off by at
  most ``D u / (1 - D u) |q| |d|``, in whatever order it is added. The bound used is more than twice that, for the
  lengths are rounded too. ``exact.py`` lets estimates choose who is looked at, and exact scores decide.

===========  ====================  =============================================================
kind         exact score           for
===========  ====================  =============================================================
cosine       q.d / (|q| |d|)       any vectors; clipped to [-1, 1]
unit         q.d / |q|             the same, where it is known that |d| = 1: no lengths to compute
dot          q.d                   vectors whose length means something
function     function(q, d)        whatever else; its scores are taken as they come
===========  ====================  =============================================================

Left out on purpose: sparse vectors, int8 and binary vectors. Next file: ``exact.py``, the k best of many.

Letters: ``Q`` queries, ``M`` documents, ``D`` their width, ``m`` documents of a block, ``P`` pairs.
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

PAIR_NUMBERS = 2**18  # numbers of the rows that are multiplied pair by pair at a time: 2 MiB in float64
UNIT_SLACK = 1e-3  # how much longer than 1 a unit vector may be: float16 rounds that coarsely


# --------------------------------------------------------------------------------------------------- checks


def check_count(function: str, name: str, value: Any, least: int = 1) -> int:
    """Check a number of things.

    Parameters
    ----------
    function, name : str
        For the message.
    value : int
    least : int

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If it is no whole number, or too small.

    Examples
    --------
    >>> check_count("search", "top_k", 3)
    3
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{function}: {name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def as_vectors(function: str, name: str, x: ArrayLike) -> Array:
    """Give rows of real numbers without copying an array, a memory-mapped one included.

    Parameters
    ----------
    function, name : str
        For the message.
    x : array_like, shape (M, D) or (D,)
        A single vector counts as one row. No vectors at all are ``np.empty((0, D))``.

    Returns
    -------
    Array, shape (M, D)

    Raises
    ------
    ValueError
        If these are no rows of real numbers.

    Examples
    --------
    >>> as_vectors("search", "query_embeddings", [1.0, 2.0]).shape
    (1, 2)
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
    """Say in which dtype two sets of rows are compared.

    Parameters
    ----------
    function : str
    names : tuple of two str
        For the message.
    a, b : Array, shape (A, D) and (B, D)

    Returns
    -------
    dtype
        float32 if both are float32 or float16, else float64.

    Raises
    ------
    ValueError
        If the widths differ.

    Examples
    --------
    >>> common_dtype("search", ("a", "b"), np.ones((1, 2), np.float32), np.ones((3, 2), np.float16))
    dtype('float32')
    """
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
    """Some consecutive documents, read and checked: a view of the corpus wherever that can be."""

    start: int  # which document the first row is
    rows: Array  # (m, D) in the dtype of the comparison
    lengths: Array | None  # (m,) for the cosine, which divides by them
    error: float  # how far an estimate may be from the exact score
    unsure: Array | None = None  # (n,) rows so long or short that their squares leave the dtype: no estimate


@dataclass(frozen=True)
class Scorer:
    """Queries that are ready to be compared with documents, block by block; from `build_scorer`."""

    caller: str  # whom an error message names
    names: tuple[str, str]  # what it calls queries and documents
    kind: str  # cosine, unit, dot or function
    function: ScoreFunction | None
    queries: Array  # (Q, D) as they were given, in the dtype of the comparison
    directions: Array  # (Q, D) what is multiplied with documents: for the cosine divided by the lengths
    lengths: Array  # (Q,) float64

    def read(self, corpus: Array, start: int, stop: int) -> Block:
        """Read the documents ``[start, stop)`` and check them.

        Parameters
        ----------
        corpus : Array, shape (M, D)
            May be memory-mapped.
        start, stop : int

        Returns
        -------
        Block

        Raises
        ------
        ValueError
            For NaN and Inf; for rows of zeros under the cosine; for lengths whose products leave the dtype.
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
        """Bound the distance of an estimate from the exact score, where no product of lengths is above scale."""
        limits, width = np.finfo(self.queries.dtype), self.queries.shape[1]
        bound: float = (width + 8) * float(limits.eps) * scale + width * float(limits.tiny)
        return bound

    def _refuse_overflow(self, product: float) -> None:
        """Refuse dot products that the dtype may not hold, by the product of the largest lengths."""
        dtype = self.queries.dtype
        if not product < float(np.finfo(dtype).max) / 4:
            raise ValueError(
                f"{self.caller}: dot products of vectors this long, up to {product:.1e}, may overflow {dtype}. "
                "Vectors of an encoder have a length of about 1: look for an np.empty that was not filled, scale both "
                "sides down, or use the cosine."
            )

    def estimate(self, chosen: slice, block: Block) -> Array:
        """Score some queries against a block by one matrix product.

        Parameters
        ----------
        chosen : slice
            Of the queries.
        block : Block

        Returns
        -------
        Array, shape (q, m)
            Within ``block.error`` of the exact scores; the scores themselves where a function makes them; -2, which is
            below any cosine, in the columns ``block.unsure``.
        """
        if self.function is not None:
            return self._call(self.function, self.queries[chosen], block.rows)
        with np.errstate(over="ignore", invalid="ignore"):
            scores: Array = self.directions[chosen] @ block.rows.T  # (q, m)
            if block.lengths is not None:
                scores /= block.lengths
        if block.unsure is not None:
            scores[:, block.unsure] = -2.0
        # what is not finite in a document is not finite in its score with any query, so one query's will do
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
        """Let the caller's own function score, and check what it gives."""
        scores = np.asarray(function(queries, rows), dtype=self.queries.dtype)
        if scores.shape != (len(queries), len(rows)) or not np.isfinite(scores).all():
            raise ValueError(
                f"{self.caller}: score_function must return finite scores of shape (q, m), larger for closer, but for "
                f"{queries.shape} and {rows.shape} it gave {scores.shape}"
                + (" with NaN or Inf in it." if scores.shape == (len(queries), len(rows)) else ".")
            )
        return scores

    def exact(self, chosen: slice, block: Block, estimates: Array, rows: Array, columns: Array) -> Array:
        """Score pairs, each from its two vectors alone.

        Parameters
        ----------
        chosen : slice
            Of the queries, as in `estimate`.
        block : Block
        estimates : Array, shape (q, m)
            From `estimate`: where a function makes them, they are the scores.
        rows, columns : Array of int, shape (P,)
            The pairs, as places in the estimates.

        Returns
        -------
        Array, shape (P,)
            In the dtype of the comparison.

        Raises
        ------
        ValueError
            If documents are longer than 1 that were said to be of length 1.
        """
        if self.function is not None:
            taken: Array = estimates[rows, columns]
            return taken
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
        """Say which exact scores are at least a threshold; only those that are too close to call are computed.

        Parameters
        ----------
        chosen : slice
            Of the queries.
        block : Block
        threshold : float
            Rounded to the dtype of the comparison, as the scores are.

        Returns
        -------
        Array of bool, shape (q, m)
        """
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
        """Refuse cosines that only vectors longer than 1 can have."""
        if cosines.max(initial=0.0) > 1.0 + UNIT_SLACK:
            raise ValueError(
                f"{self.caller}: normalized=True says that documents have length 1, but one scores "
                f"{cosines.max():.4g} with a query of length 1, so it is longer. Pass normalized=False."
            )


def build_scorer(
    caller: str, names: tuple[str, str], score_function: str | ScoreFunction, queries: Array, dtype: np.dtype[Any]
) -> Scorer:
    """Check queries and make them ready.

    Parameters
    ----------
    caller : str
        Whom an error message names.
    names : tuple of two str
        What it calls queries and documents.
    score_function : {"cosine", "dot", "euclidean", "manhattan", "unit"} or callable
        ``unit`` is the cosine with documents of length 1. `minisbert.similarity.cos_sim` and ``dot_score`` are taken
        for their names.
    queries : Array, shape (Q, D)
    dtype : dtype
        float32 or float64, from `common_dtype`.

    Returns
    -------
    Scorer

    Raises
    ------
    ValueError
        For an unknown name; for NaN and Inf; for a row of zeros under the cosine.

    Examples
    --------
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
    """Give the kind of score, and the function where it takes one."""
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
    """Widen to float64; directions that are float64 already are brought near 1, for their squares could overflow."""
    return _near_one(rows) if is_direction and rows.dtype == np.float64 else rows.astype(np.float64)


def _near_one(rows: Array) -> Array:
    """Multiply each row by the power of two that brings its largest entry into [0.5, 1)."""
    exponents = np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1]
    with np.errstate(under="ignore"):
        scaled: Array = np.ldexp(rows, -exponents)
    return scaled


def _lengths(rows: Array) -> Array:
    """Lengths of float64 rows, each from its row alone."""
    lengths: Array = np.sqrt((rows * rows).sum(axis=1))
    return lengths


def _safe_lengths(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Between which lengths a sum of squares keeps its digits: fourth roots of the largest number and of 1 over it."""
    high = float(np.finfo(dtype).max) ** 0.25
    return 1.0 / high, high


def _refuse_not_finite(caller: str, name: str, rows: Array, places: Array, start: int) -> None:
    """Refuse NaN and Inf in some rows of a block that begins at document start."""
    if bad := _find(rows, places, _is_not_finite):
        raise ValueError(
            f"{caller}: {name} must be finite, but there is NaN or Inf in "
            f"{_list_rows(bad, start)}. The usual cause is a division by zero where the vectors are computed: look "
            "there, or drop these rows."
        )


def _refuse_zero_rows(caller: str, name: str, rows: Array, places: Array, start: int) -> None:
    """Refuse vectors without a direction."""
    if bad := _find(rows, places, _is_zero):
        raise ValueError(
            f"{caller}: every row of {name} must have a direction, but all numbers are zero in "
            f"{_list_rows(bad, start)}. No encoder returns such a vector; the usual cause is an np.zeros array that "
            "was not filled. Drop these rows, or use the dot product, which is defined for them."
        )


def _is_not_finite(rows: Array) -> Array:
    """Say which rows hold NaN or Inf."""
    return np.asarray(~np.isfinite(rows).all(axis=1))


def _is_zero(rows: Array) -> Array:
    """Say which rows have no direction."""
    return np.asarray(~rows.any(axis=1))


def _find(rows: Array, places: Array, is_bad: Callable[[Array], Array]) -> list[int]:
    """Find bad rows among those at some places, a few at a time; not many more than can be named."""
    bad: list[int] = []
    step = max(1, PAIR_NUMBERS // rows.shape[1])
    for first in range(0, len(places), step):
        part = places[first : first + step]
        bad += part[is_bad(rows[part])].tolist()
        if len(bad) > 5:
            break
    return bad


def _list_rows(bad: list[int], start: int) -> str:
    """Name the first few bad rows of a block that begins at document start."""
    named = ", ".join(str(start + row) for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
    return f"row{'s' if len(bad) > 1 else ''} {named}"
