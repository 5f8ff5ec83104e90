"""The arguments of losses, checked: NaN in a loss would travel into every weight at the next step.

Letters: ``B`` examples, ``D`` the width of an embedding, ``M`` candidates, ``C`` classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array


def check_embeddings(function: str, embeddings: Mapping[str, Array], needs_direction: bool = True) -> None:
    """Raise if embeddings (B, D) do not fit together or are not finite, or if a cosine would meet a row of zeros."""
    kinds = {(x.shape, x.dtype) if isinstance(x, np.ndarray) else type(x).__name__ for x in embeddings.values()}
    kind = kinds.pop()
    if kinds or isinstance(kind, str) or len(kind[0]) != 2 or 0 in kind[0] or kind[1] not in (np.float32, np.float64):
        said = ", ".join(
            f"{name} {x.dtype} {x.shape}" if isinstance(x, np.ndarray) else f"{name} a {type(x).__name__}"
            for name, x in embeddings.items()
        )
        raise ValueError(
            f"{function}: embeddings must be arrays (B, D) of one shape, all float32 or all float64, with B >= 1 and "
            f"D >= 1, got {said}. Row i of each belongs to example i; give several negatives as several arrays."
        )
    for name, x in embeddings.items():
        is_finite = np.all(np.isfinite(x), axis=1)
        if not is_finite.all():
            raise ValueError(
                f"{function}: {name} must be finite, but there is NaN or Inf in {_rows(is_finite)}. In training the "
                f"usual cause is a learning rate that is too high, or a broken checkpoint."
            )
        has_direction = np.any(x, axis=1)
        if needs_direction and not has_direction.all():
            raise ValueError(
                f"{function}: each row of {name} must have a direction for a cosine, but there are only zeros in "
                f"{_rows(has_direction)}. The usual cause is an activation that cut a whole vector to zero."
            )


def checked_numbers(function: str, what: str, values: ArrayLike, count: int) -> Array:
    """Return scores or labels as float64 (B,), finite."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{function}: {what} must be numbers, but NumPy says: {error}") from None
    if numbers.shape != (count,):
        raise ValueError(f"{function}: {what} must be (B,) = ({count},), one for each example, got {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{function}: {what} must be finite, but NaN or Inf are {_rows(np.isfinite(numbers))}")
    return numbers


def checked_mask(function: str, mask: Array, shape: tuple[int, ...]) -> Array:
    """Return the mask (B, M) of false negatives, in which no anchor leaves out its own positive."""
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != shape:
        said = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else f"a {type(mask).__name__}"
        raise ValueError(
            f"{function}: false_negatives must be an array of bool (B, M) = {shape}, a column for each positive and "
            f"then for each hard negative, got {said}. find_false_negatives makes it from the texts of the batch."
        )
    if np.diagonal(mask).any():
        raise ValueError(
            f"{function}: false_negatives must be False for an anchor's own positive, candidate i of anchor i, but is "
            f"True in {_rows(~np.diagonal(mask))}"
        )
    return mask


def check_head(function: str, u: Array, weight: Array, bias: Array) -> None:
    """Raise if the classifier's weight (C, 3 D) and bias (C,) do not fit ``u`` (B, D), or are not finite."""
    fits = all(isinstance(x, np.ndarray) and x.dtype == u.dtype for x in (weight, bias))
    if not fits or weight.shape != (bias.size, 3 * u.shape[1]) or bias.ndim != 1 or bias.size < 2:
        said = " and ".join(f"{np.asarray(x).dtype} {np.shape(x)}" for x in (weight, bias))
        raise ValueError(
            f"{function}: weight and bias must be {u.dtype} arrays (C, {3 * u.shape[1]}) and (C,), with C >= 2 classes "
            f"and three times the width of u, got {said}"
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError(
            f"{function}: weight and bias must be finite, but there is NaN or Inf. Is the learning rate too high?"
        )


def check_positive(function: str, **numbers: float) -> None:
    """Raise if a scale or margin is not finite and above 0."""
    for name, number in numbers.items():
        if not 0.0 < number < math.inf:
            raise ValueError(f"{function}: {name} must be a finite number above 0, got {number!r}")


def check_choice(function: str, what: str, name: str, known: Iterable[str]) -> None:
    """Raise if there is no such similarity or distance."""
    if name not in known:
        raise ValueError(f"{function}: {what} must be one of {', '.join(known)}, got {name!r}")


def name_values(values: Array) -> str:
    """Name the first three values, and say how many there are."""
    return ", ".join(f"{value:g}" for value in values[:3]) + (
        f", ... ({len(values)} in all)" if len(values) > 3 else ""
    )


def _rows(is_good: Array) -> str:
    """Name the first five bad rows, and say how many there are."""
    bad = np.flatnonzero(~is_good)
    named = ", ".join(str(row) for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
    return f"row{'s' if len(bad) > 1 else ''} {named} ({len(bad)} of {len(is_good)})"
