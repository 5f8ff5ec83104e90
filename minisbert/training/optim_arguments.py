"""Do weights, gradients and what an optimiser remembers belong together? Asked before a step writes anything.

A step that stopped half-way would leave some tensors moved and others not, so everything is looked at first: names,
shapes, dtypes, rows of tables, numbers that are not finite and, for a step in place, memory that can be overwritten.
Every mistake is named with what was expected, what came, and the way out. Next file: ``moments.py``, which makes what
is checked here.

Letters: ``V`` rows of a table, ``D`` width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from minisbert.model import Array
from minisbert.model.params import Gradient, RowGradient
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
    """Refuse what does not fit together, before anything is written.

    Parameters
    ----------
    function : str
        Of the optimiser, for messages.
    params : mapping of str to Array
    grads : mapping of str to Array or RowGradient
    moments : sequence of mappings of str to Array
        One or more for every tensor, such as Adam's ``m`` and ``v``.
    seen : mapping of str to Array of bool, shape (V,)
        Rows that were ever used, of some of the tables.
    in_place : bool
        Whether ``params`` and ``moments`` are to be overwritten.
    num_threads : int

    Raises
    ------
    ValueError
        For names, shapes or dtypes that do not fit each other, rows of a RowGradient that do not ascend, a gradient
        that is not finite, less than one thread, and in place arrays that cannot be overwritten.

    Examples
    --------
    >>> params, moments = {"x": np.ones(2)}, [{"x": np.zeros(2)}]
    >>> check_step("adamw", params, {"x": np.ones(3)}, moments, {}, in_place=False, num_threads=1)
    Traceback (most recent call last):
        ...
    ValueError: adamw: expected the gradient of 'x' with shape (2,) and dtype float64, got (3,) and float64; ...
    """
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
    """Refuse tensors that are not of floating-point numbers.

    Parameters
    ----------
    function : str
        For messages.
    params : mapping of str to Array

    Raises
    ------
    ValueError
        For dtypes other than float32 and float64.

    Examples
    --------
    >>> check_params("adamw", {"ids": np.arange(2)})
    Traceback (most recent call last):
        ...
    ValueError: adamw: expected tensors in float32 or float64, got int64 in 'ids'; convert them with ...
    """
    wrong = [name for name, param in params.items() if param.dtype not in (np.float32, np.float64)]
    if wrong:
        raise ValueError(
            f"{function}: expected tensors in float32 or float64, got {params[wrong[0]].dtype} in {name_some(wrong)}; "
            "convert them with .astype(np.float32), and leave out what is not trained"
        )


def check_state(
    function: str, params: Mapping[str, Array], moments: Sequence[Mapping[str, Array]], seen: Mapping[str, Array]
) -> None:
    """Refuse the state of another model.

    Parameters
    ----------
    function : str
        For messages.
    params : mapping of str to Array
    moments : sequence of mappings of str to Array
    seen : mapping of str to Array of bool, shape (V,)

    Raises
    ------
    ValueError
        For moments that are missing, too many, or not of their tensor's shape and dtype, and for rows of other tables.

    Examples
    --------
    >>> check_state("adamw", {"x": np.ones(2)}, [{"x": np.zeros(2)}], {})
    """
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
    """Refuse a gradient that does not belong to its tensor."""
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
    """Refuse arrays that a step cannot overwrite, or would overwrite twice."""
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
    """Refuse gradients that are not finite.

    Parameters
    ----------
    function : str
        For messages.
    sums : mapping of str to float
        Of the squares of each gradient: what is not finite in one shows in its sum.

    Raises
    ------
    ValueError
        With the names of those.

    Examples
    --------
    >>> check_finite("adamw", {"x": 25.0, "y": math.nan})
    Traceback (most recent call last):
        ...
    ValueError: adamw: expected finite gradients ..., got NaN, infinity or too large a number in 'y'; is the loss ...
    """
    broken = [name for name, total in sums.items() if not math.isfinite(total)]
    if broken:
        raise ValueError(
            f"{function}: expected finite gradients whose squares are finite, got NaN, infinity or too large a number "
            f"in {name_some(broken)}; is the loss of this batch finite, and the learning rate not too high?"
        )


def check_threads(function: str, num_threads: int) -> None:
    """Refuse to work on no thread.

    Parameters
    ----------
    function : str
        For messages.
    num_threads : int

    Raises
    ------
    ValueError
        If there is less than 1.

    Examples
    --------
    >>> check_threads("adamw", 2)
    """
    if num_threads < 1:
        raise ValueError(f"{function}: expected num_threads of at least 1, got {num_threads}")


def name_some(names: Iterable[str]) -> str:
    """Name the first three tensors, and say how many more there are.

    Parameters
    ----------
    names : iterable of str

    Returns
    -------
    str

    Examples
    --------
    >>> name_some("abcde")
    "'a', 'b', 'c' and 2 more"
    """
    listed = [repr(name) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3:,} more" if len(listed) > 3 else "")
