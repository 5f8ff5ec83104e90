"""Do weights, gradients and an optimiser's state belong together?

Asked before a step writes anything: one that stopped half-way would leave some tensors moved and others not. Letters:
``V`` rows of a table, ``D`` width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from minisbert.model import Array
from minisbert.model.gradients import Gradient, RowGradient
from minisbert.training.blocks import lies_in, order_of, square_sums


def check_step(
    function: str,
    params: Mapping[str, Array],
    grads: Mapping[str, Gradient],
    moments: Sequence[Mapping[str, Array]],
    seen: Mapping[str, Array],
    in_place: bool,
    num_threads: int,
) -> None:
    """Raise if anything does not fit together, before anything is written."""
    check_threads(function, num_threads)
    check_params(function, params)
    _check_names(function, "a gradient", params, grads)
    check_state(function, params, moments, seen)
    for name, param in params.items():
        _check_gradient(function, name, grads[name], param)
    if in_place:
        _check_in_place(function, params, moments)
    check_finite(function, square_sums(grads, 1, exact=False))  # reading once does not pay for threads


def check_params(function: str, params: Mapping[str, Array]) -> None:
    """Raise if a tensor is not float32 or float64."""
    wrong = [name for name, param in params.items() if param.dtype not in (np.float32, np.float64)]
    if wrong:
        raise ValueError(
            f"{function}: expected tensors in float32 or float64, got {params[wrong[0]].dtype} in {name_some(wrong)}; "
            "convert them with .astype(np.float32), and leave out what is not trained"
        )


def check_state(
    function: str, params: Mapping[str, Array], moments: Sequence[Mapping[str, Array]], seen: Mapping[str, Array]
) -> None:
    """Raise if the state belongs to another model."""
    for moment in moments:
        _check_names(function, "the state", params, moment)
        for name, param in params.items():
            _check_like(function, "the state", name, moment[name], param)
    for name, rows in seen.items():
        shape = params[name].shape[:1] if name in params else None
        if rows.shape != shape or rows.dtype != np.bool_:
            raise ValueError(
                f"{function}: expected the rows seen of {name!r} as bool of shape {shape}, got {rows.dtype} of "
                f"{rows.shape}; is the state of another model?"
            )


def _check_names(function: str, what: str, params: Mapping[str, Array], names: Iterable[str]) -> None:
    names = set(names)
    missing, unknown = [n for n in params if n not in names], sorted(names - params.keys())
    if missing or unknown:
        found = [f"{word} {name_some(n)}" for word, n in (("missing", missing), ("unknown", unknown)) if n]
        raise ValueError(
            f"{function}: expected {what} for each of the {len(params):,} tensors and no other: {'; '.join(found)}; "
            "are they of another model, or is part of it not trained?"
        )


def _check_like(function: str, what: str, name: str, array: Array, param: Array) -> None:
    if array.shape != param.shape or array.dtype != param.dtype:
        raise ValueError(
            f"{function}: expected {what} of {name!r} with shape {param.shape} and dtype {param.dtype}, got "
            f"{array.shape} and {array.dtype}; is it of another model?"
        )


def _check_gradient(function: str, name: str, grad: Gradient, param: Array) -> None:
    """Raise if a gradient does not belong to its tensor."""
    if not isinstance(grad, RowGradient):
        _check_like(function, "the gradient", name, grad, param)
        return
    rows, values = grad.rows, grad.values
    shape = (grad.row_count, *values.shape[1:])
    if param.ndim != 2 or shape != param.shape or values.shape[:1] != rows.shape or values.dtype != param.dtype:
        raise ValueError(
            f"{function}: expected the RowGradient of {name!r} for a table of shape (V, D) = {param.shape} in "
            f"{param.dtype}, got {len(rows)} rows and values {values.shape} in {values.dtype} for {grad.row_count} rows"
        )
    ascend = rows.dtype.kind in "iu" and bool((rows[1:] > rows[:-1]).all())
    if not ascend or (len(rows) and not 0 <= rows[0] <= rows[-1] < len(param)):
        raise ValueError(
            f"{function}: expected the rows of the RowGradient of {name!r} to be integers that ascend from 0 to below "
            f"{len(param):,}, each once; gradients.sum_rows makes such"
        )


def _check_in_place(function: str, params: Mapping[str, Array], moments: Sequence[Mapping[str, Array]]) -> None:
    """Raise if a step cannot overwrite an array, or would overwrite it twice."""
    for name, param in params.items():
        for array in (param, *(moment[name] for moment in moments)):
            if not (array.flags.writeable and lies_in(array, order_of(param))):
                raise ValueError(
                    f"{function}: expected {name!r} and its state to be writeable and to lie in memory without gaps "
                    "in one order, for in_place=True; copy the tensor first, and make the state from the copy"
                )
    starts = [param.ctypes.data for param in params.values() if param.size]
    if len(set(starts)) < len(starts):
        raise ValueError(
            f"{function}: two names share one array, which in_place=True would update twice; train it under one name"
        )


def check_finite(function: str, sums: Mapping[str, float]) -> None:
    """Raise if the sum of a gradient's squares is not finite; any number that is not finite shows in it."""
    broken = [name for name, total in sums.items() if not math.isfinite(total)]
    if broken:
        raise ValueError(
            f"{function}: expected finite gradients whose squares are finite, got NaN, infinity or too large a number "
            f"in {name_some(broken)}; is the loss of this batch finite, and the learning rate not too high?"
        )


def check_threads(function: str, num_threads: int) -> None:
    """Raise for less than one thread."""
    if num_threads < 1:
        raise ValueError(f"{function}: expected num_threads of at least 1, got {num_threads}")


def name_some(names: Iterable[str]) -> str:
    """Name the first three tensors, and say how many more there are."""
    listed = [repr(name) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3:,} more" if len(listed) > 3 else "")
