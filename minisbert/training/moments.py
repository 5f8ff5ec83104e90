"""What an optimiser remembers from step to step: moving averages, and which rows of a table were ever used.

A moment is an array beside each tensor, in its shape, dtype and memory order: AdamW keeps two, SGD one. They begin at
zero. With the number of the step they are all that a later step needs, so that a run that was stopped goes on from
them bit for bit: :func:`state_to_arrays` lays them out for a file.

**Rows that were used.** A batch uses a few rows of the word table. A row that was never used has moments of zero, and
``seen`` marks the others, so that nobody reads thirty thousand rows of zeros. It is made when a table first gets a
``RowGradient``; a tensor without it has moments everywhere.

Left out on purpose: how moments move, which is the optimiser's business. Next file: ``optim.py``.

Letters: ``V`` rows of a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar

import numpy as np

from minisbert.model import Array
from minisbert.model.params import Gradient, RowGradient
from minisbert.training.blocks import order_of
from minisbert.training.optim_arguments import check_params, check_state, name_some


@dataclass(frozen=True, eq=False)
class AdamWState:
    """What AdamW remembers: the number of steps done, two moving averages, and which rows of a table were used."""

    step: int
    m: dict[str, Array]  # of the gradient, one array per tensor, in its shape, dtype and memory order
    v: dict[str, Array]  # of the gradient's square, likewise
    seen: dict[str, Array] = field(default_factory=dict)  # (V,) bool; only of tables with a RowGradient


def init_adamw(params: Mapping[str, Array]) -> AdamWState:
    """Start AdamW: no steps, all moments zero.

    Parameters
    ----------
    params : mapping of str to Array
        The tensors to train. float32 or float64.

    Returns
    -------
    AdamWState
        Its zeros take no memory until they are written to, on most systems: a table's unused rows cost none.

    Examples
    --------
    >>> init_adamw({"head.bias": np.ones(2)}).m
    {'head.bias': array([0., 0.])}
    """
    return AdamWState(0, _zeros("init_adamw", params), _zeros("init_adamw", params))


@dataclass(frozen=True, eq=False)
class SgdState:
    """What SGD remembers: the number of steps done, the velocity, and which rows of a table have one."""

    step: int
    momentum: dict[str, Array]  # one array per tensor, in its shape, dtype and memory order
    seen: dict[str, Array] = field(default_factory=dict)  # (V,) bool; only of tables with a RowGradient


def init_sgd(params: Mapping[str, Array]) -> SgdState:
    """Start SGD: no steps, no velocity.

    Parameters
    ----------
    params : mapping of str to Array
        The tensors to train. float32 or float64.

    Returns
    -------
    SgdState

    Examples
    --------
    >>> init_sgd({"head.bias": np.ones(2)}).momentum
    {'head.bias': array([0., 0.])}
    """
    return SgdState(0, _zeros("init_sgd", params))


def _zeros(function: str, params: Mapping[str, Array]) -> dict[str, Array]:
    """Make one array of zeros per tensor, in its memory order. ``np.zeros_like`` would write every zero at once."""
    check_params(function, params)
    return {name: np.zeros(p.shape, p.dtype, order=order_of(p)) for name, p in params.items()}


def copy_arrays(arrays: Mapping[str, Array], like: Mapping[str, Array]) -> dict[str, Array]:
    """Copy every array, into the memory order of its tensor.

    Parameters
    ----------
    arrays : mapping of str to Array
        Moments, or the tensors themselves.
    like : mapping of str to Array
        The tensors, under the same names.

    Returns
    -------
    dict of str to Array

    Examples
    --------
    >>> copy_arrays({"x": np.zeros((2, 3))}, {"x": np.asfortranarray(np.ones((2, 3)))})["x"].flags.f_contiguous
    True
    """
    return {name: np.array(arrays[name], order=order_of(param)) for name, param in like.items()}


def mark_rows(grads: Mapping[str, Gradient], state: AdamWState | SgdState, in_place: bool) -> dict[str, Array]:
    """Mark the rows of this step among those that were ever used.

    Parameters
    ----------
    grads : mapping of str to Array or RowGradient
    state : AdamWState or SgdState
        Before the step.
    in_place : bool
        Mark them in the arrays of ``state``.

    Returns
    -------
    dict of str to Array of bool, shape (V,)
        For every table with a RowGradient. A tensor without a mask has moments everywhere.

    Examples
    --------
    >>> grads = {"table": RowGradient(np.array([1]), np.ones((1, 2)), row_count=3)}
    >>> mark_rows(grads, init_sgd({"table": np.ones((3, 2))}), in_place=False)
    {'table': array([False,  True, False])}
    """
    marked = {}
    for name, grad in grads.items():
        if isinstance(grad, RowGradient):
            seen = state.seen.get(name)
            if seen is None:  # after dense gradients, every row may have moments
                seen = np.full(grad.row_count, state.step > 0)
            elif not in_place:
                seen = seen.copy()
            seen[grad.rows] = True
            marked[name] = seen
    return marked


# ------------------------------------------------------------------------------------------- checkpoints

State = TypeVar("State", AdamWState, SgdState)


def state_to_arrays(state: AdamWState | SgdState) -> dict[str, Array]:
    """Lay a state out as named arrays, for a safetensors file.

    Parameters
    ----------
    state : AdamWState or SgdState

    Returns
    -------
    dict of str to Array
        ``"step"``, of shape (1,), and one array per moment and tensor, ``"m.embeddings.LayerNorm.bias"``, say. All
        are in C order: safetensors writes an array's bytes as they lie in memory, so that one in Fortran order would
        come back with its numbers in other places. Those that are in C order already are the state's own, not copies:
        write them before the next step in place.

    Examples
    --------
    >>> sorted(state_to_arrays(init_adamw({"x": np.ones(2)})))
    ['m.x', 'step', 'v.x']
    """
    arrays = {"step": np.array([state.step], np.int64)}
    for part in fields(state)[1:]:
        arrays |= {f"{part.name}.{name}": np.asarray(x, order="C") for name, x in getattr(state, part.name).items()}
    return arrays


def state_from_arrays(kind: type[State], arrays: Mapping[str, Array], params: Mapping[str, Array]) -> State:
    """Rebuild a state from what :func:`state_to_arrays` gave, so that training goes on bit for bit.

    Parameters
    ----------
    kind : AdamWState or SgdState
        The class.
    arrays : mapping of str to Array
        As read from a file, where every array is in C order.
    params : mapping of str to Array
        The tensors that are trained. The moments get their memory order.

    Returns
    -------
    AdamWState or SgdState
        Of new arrays, which a step in place may overwrite.

    Raises
    ------
    ValueError
        If the arrays are of another optimiser or another model.

    Examples
    --------
    >>> params = {"x": np.ones(2)}
    >>> state_from_arrays(AdamWState, state_to_arrays(init_adamw(params)), params).v
    {'x': array([0., 0.])}
    """
    parts: dict[str, dict[str, Array]] = {part.name: {} for part in fields(kind)[1:]}
    wrong = [name for name in arrays if name != "step" and name.partition(".")[0] not in parts]
    if wrong or "step" not in arrays or arrays["step"].shape != (1,):
        raise ValueError(
            f"state_from_arrays: expected 'step' of shape (1,) and names that begin with {', '.join(parts)} for "
            f"{kind.__name__}, got {name_some(wrong or sorted(arrays))}: is this the state of another optimiser?"
        )
    for key, array in arrays.items():
        part, _, name = key.partition(".")
        if part in parts:
            order = order_of(params[name]) if name in params and array.ndim == params[name].ndim else "C"
            parts[part][name] = np.array(array, order=order)
    seen = parts.pop("seen")
    check_state("state_from_arrays", params, tuple(parts.values()), seen)
    return kind(step=int(arrays["step"][0]), seen=seen, **parts)
