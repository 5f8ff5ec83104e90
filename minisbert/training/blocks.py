"""Large arrays in small bites: every tensor cut into blocks, the blocks shared among threads. No optimiser.

A step of an optimiser is a dozen passes over four arrays: the tensor, its gradient and two moments. Memory is what it
waits for. So each tensor is cut into **blocks** that stay in the processor's cache while all passes go over them, and
**pieces** of many blocks are handed to threads. Every number is computed by itself, so that neither the blocks nor the
threads change a bit; sums are added up in the order of the pieces, whichever thread was first.

**Memory order.** A weight matrix may lie by rows ("C") or by columns ("F"). Blocks are cut in the order in which the
numbers lie, so a tensor, its gradient and its moments must lie alike: :func:`in_order` sees to the gradient.

**A table of which a batch uses a few rows** has a ``RowGradient``. It is cut between rows, and of its moments only the
rows that were ever used are read and written.

Left out on purpose: what becomes of a block, which the optimiser says (``optim.py``), and checks: this trusts its
callers. Next file: ``optim_arguments.py``, which does not.

Letters: ``V`` rows of a table, ``D`` width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from minisbert.model import Array
from minisbert.model.params import Gradient, RowGradient
from minisbert.parallel import work_through

_BLOCK = 2**17
"""Numbers in a block: few enough for the processor's cache, so many that two threads seldom wait for Python's lock.

Measured on two cores, 2**15 would be slower on two threads than on one.
"""
_PIECE = 2**19
"""Numbers that a thread takes at a time: enough that handing them out costs nothing, few enough to share evenly."""

Update = Callable[[Array, Array, tuple[Array, ...]], None]
"""``update(p, g, moments)`` overwrites a block of a tensor and of its moments, given the gradient, which it keeps."""


@dataclass(frozen=True, eq=False)
class TensorStep:
    """One tensor's part in a step."""

    param: Array
    grad: Gradient  # in the memory order of param, as the moments are
    moments: tuple[Array, ...]
    seen: Array  # (V,) bool, rows whose moments may not be zero; empty with a dense gradient, which has them all
    shrink: float  # param is multiplied by it first
    update: Update


def take_step(tensors: Sequence[TensorStep], num_threads: int) -> None:
    """Overwrite every tensor and its moments.

    Parameters
    ----------
    tensors : sequence of TensorStep
    num_threads : int
        Worker threads. The result does not depend on them.

    Examples
    --------
    >>> def descend(p, g, moments):
    ...     p -= g
    >>> p = np.array([1.0, 2.0])
    >>> take_step([TensorStep(p, np.array([0.0, 0.5]), (), np.zeros(0, bool), 0.5, descend)], num_threads=1)
    >>> p
    array([0.5, 0.5])
    """

    def work(piece: tuple[TensorStep, int, int]) -> None:
        tensor, start, stop = piece
        if isinstance(tensor.grad, RowGradient):
            width = tensor.param.shape[1]  # rounded alike at both ends, so that each row is in one piece
            _update_rows(tensor, tensor.grad, start // width, stop // width)
        else:
            _update_numbers(tensor, tensor.grad, start, stop)

    # pieces share no number, so their order does not matter
    _share([piece for tensor in tensors for piece in _pieces(tensor, tensor.param.size)], work, num_threads)


def _update_numbers(tensor: TensorStep, grad: Array, start: int, stop: int) -> None:
    """Update the numbers from ``start`` to ``stop`` of a tensor, in the order in which they lie in memory."""
    p, g, *moments = (x.ravel(order="K")[start:stop] for x in (tensor.param, grad, *tensor.moments))
    for i in range(0, len(p), _BLOCK):
        block = slice(i, i + _BLOCK)
        if tensor.shrink != 1.0:
            p[block] *= tensor.shrink
        tensor.update(p[block], g[block], tuple(moment[block] for moment in moments))


def _update_rows(tensor: TensorStep, grad: RowGradient, start: int, stop: int) -> None:
    """Update the rows from ``start`` to ``stop`` of a table: shrink all, move those that were ever used."""
    if tensor.shrink != 1.0:
        rows_here = tensor.param[start:stop]
        rows_here *= tensor.shrink
    used = start + np.flatnonzero(tensor.seen[start:stop])
    length = max(1, _BLOCK // tensor.param.shape[1])
    for i in range(0, len(used), length):
        rows = used[i : i + length]
        p, *moments = blocks = [x[rows] for x in (tensor.param, *tensor.moments)]
        g = np.zeros_like(p)
        first, last = np.searchsorted(grad.rows, (rows[0], rows[-1] + 1))
        # every row with a gradient is among the used ones
        g[np.searchsorted(rows, grad.rows[first:last])] = grad.values[first:last]
        tensor.update(p, g, tuple(moments))
        for x, block in zip((tensor.param, *tensor.moments), blocks, strict=True):
            x[rows] = block


def square_sums(grads: Mapping[str, Gradient], num_threads: int, exact: bool = True) -> dict[str, float]:
    """Sum the squares of each gradient.

    Parameters
    ----------
    grads : mapping of str to Array or RowGradient
        A RowGradient counts with its values; all its other numbers are zero.
    num_threads : int
        Worker threads. The result does not depend on them.
    exact : bool
        Sum in float64, in which no float32 square is too large or too small; or else, faster, in the gradient's dtype.

    Returns
    -------
    dict of str to float
        Under the same names. NaN or infinity where a gradient is not finite, or a square is too large.

    Examples
    --------
    >>> square_sums({"x": np.array([3.0, 4.0]), "y": np.zeros(2)}, num_threads=1)
    {'x': 25.0, 'y': 0.0}
    """

    def work(piece: tuple[Array, int, int]) -> float:
        numbers, start, stop = piece
        total = 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # the sum tells
            for i in range(start, stop, _BLOCK):
                block = numbers[i : min(i + _BLOCK, stop)].astype(np.float64 if exact else numbers.dtype, copy=False)
                total += float(block.dot(block))
        return total

    flat = {n: (g.values if isinstance(g, RowGradient) else g).ravel(order="K") for n, g in grads.items()}
    sums = iter(_share([piece for x in flat.values() for piece in _pieces(x, x.size)], work, num_threads))
    # the pieces of a tensor are summed in their order, whichever thread was first
    return {name: sum(next(sums) for _ in _pieces(x, x.size)) for name, x in flat.items()}


# ----------------------------------------------------------------------------------------- pieces for threads

_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


def _pieces(owner: _Piece, size: int) -> list[tuple[_Piece, int, int]]:
    """Cut the ``size`` numbers of a tensor into pieces, each with its owner, start and stop."""
    return [(owner, start, min(start + _PIECE, size)) for start in range(0, size, _PIECE)]


def _share(
    pieces: Sequence[tuple[_Piece, int, int]], work: Callable[[tuple[_Piece, int, int]], _Result], num_threads: int
) -> list[_Result]:
    """Do all pieces on so many threads; the results come in the order of the pieces."""
    jobs: list[Array] = []
    begun = numbers = 0
    for i, (_, start, stop) in enumerate(pieces):
        numbers += stop - start
        # dozens of biases and other small tensors make one job
        if numbers >= _PIECE // 2 or i + 1 == len(pieces):
            jobs.append(np.arange(begun, i + 1))
            begun, numbers = i + 1, 0
    results: dict[int, _Result] = {}
    for job, found in work_through(jobs, lambda job: [work(pieces[i]) for i in job], num_threads):
        results |= zip(job.tolist(), found, strict=True)
    return [results[i] for i in range(len(pieces))]


# ---------------------------------------------------------------------------------------------- memory order


def order_of(x: Array) -> Literal["C", "F"]:
    """Say how an array lies in memory: "F" or, if it is contiguous at all, "C".

    Parameters
    ----------
    x : Array

    Returns
    -------
    {"C", "F"}

    Examples
    --------
    >>> order_of(np.ones((2, 3))), order_of(np.ones((2, 3)).T), order_of(np.ones(3))
    ('C', 'F', 'C')
    """
    return "F" if x.flags.fnc else "C"


def lies_in(x: Array, order: Literal["C", "F"]) -> bool:
    """Say whether an array lies in memory in this order, without gaps.

    Parameters
    ----------
    x : Array
    order : {"C", "F"}

    Returns
    -------
    bool

    Examples
    --------
    >>> lies_in(np.ones((4, 3)), "C"), lies_in(np.ones((4, 3)), "F"), lies_in(np.ones((4, 3))[::2], "C")
    (True, False, False)
    """
    return x.flags.f_contiguous if order == "F" else x.flags.c_contiguous


def in_order(grad: Gradient, param: Array) -> Gradient:
    """Give the gradient in the memory order of its tensor, so that both are read side by side.

    Parameters
    ----------
    grad : Array or RowGradient
    param : Array
        Of the same shape.

    Returns
    -------
    Array or RowGradient
        The very ``grad`` where it lies so already, else a copy. The rows of a RowGradient are found one by one, and may
        lie as they like.

    Examples
    --------
    >>> by_columns = np.asfortranarray(np.ones((2, 3)))
    >>> in_order(np.ones((2, 3)), by_columns).flags.f_contiguous
    True
    """
    if isinstance(grad, RowGradient) or lies_in(grad, order_of(param)):
        return grad
    return np.array(grad, order=order_of(param))
