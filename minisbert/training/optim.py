"""From gradients to the next weights: AdamW, a learning rate that warms up and decays, and clipping.

An optimiser is a function ``(params, grads, state) -> (params, state)`` of dictionaries, one array per tensor under
its checkpoint name, so it knows nothing of BERT. No argument changes, unless ``in_place=True`` says that the old
weights may be overwritten. Every formula is PyTorch's, in PyTorch's order of operations.

**A table of which a batch uses a few rows.** The gradient of the word table is a ``RowGradient``; the result is the
one that PyTorch gives for the dense gradient, zeros and all. A row that was never used has moments of zero, so it
only decays; a row that was used before still moves by its momentum. ``torch.optim.SparseAdam`` and "lazy" Adam leave
a row alone until it is used again, which is another algorithm.

Letters: ``V`` rows of a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from minisbert.model import Array
from minisbert.model.params import Gradient, RowGradient
from minisbert.schedule import work_through


@dataclass(frozen=True, eq=False)
class AdamWState:
    """What AdamW remembers: all that is needed to go on bit for bit."""

    step: int
    m: dict[str, Array]  # of the gradient, one array per tensor, in its shape, dtype and memory order
    v: dict[str, Array]  # of the gradient's square, likewise
    seen: dict[str, Array] = field(default_factory=dict)  # (V,) bool: rows ever used, of tables with a RowGradient


def init_adamw(params: Mapping[str, Array]) -> AdamWState:
    """Start AdamW: no steps, all moments zero.

    Parameters
    ----------
    params : mapping of str to Array
        The tensors to train, float32 or float64.

    Returns
    -------
    AdamWState
        On most systems its zeros take no memory until they are written to: a table's unused rows cost none.

    Raises
    ------
    ValueError
        For another dtype.

    Examples
    --------
    >>> init_adamw({"head.bias": np.ones(2)}).m
    {'head.bias': array([0., 0.])}
    """
    _check_dtypes("init_adamw", params)
    # np.zeros_like would write every zero at once
    m, v = ({name: np.zeros(p.shape, p.dtype, _order(p)) for name, p in params.items()} for _ in range(2))
    return AdamWState(0, m, v)


def decays(name: str) -> bool:
    """Tell whether weight decay applies to a tensor: to all but biases and a LayerNorm's scale and shift.

    Decay pulls a weight towards 0 to keep a product small. A bias multiplies nothing, and a LayerNorm's scale belongs
    near 1.

    **Source**: Devlin et al. 2019's ``exclude_from_weight_decay``; ``no_decay`` in ``SentenceTransformer.fit``.

    >>> decays("embeddings.word_embeddings.weight"), decays("head.bias"), decays("embeddings.LayerNorm.weight")
    (True, False, False)
    """
    return not any(part in ("bias", "layernorm") for part in name.lower().replace("_", "").split("."))


def adamw(
    params: dict[str, Array],
    grads: Mapping[str, Gradient],
    state: AdamWState,
    *,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    in_place: bool = False,
    num_threads: int = 1,
) -> tuple[dict[str, Array], AdamWState]:
    """Take one step of AdamW: against the average gradient, in units of its usual size.

    ``p = p (1 - learning_rate weight_decay)``, unless ``decays(name)`` says no

    ``m = m + (1 - beta1) (g - m)``

    ``v = beta2 v + (1 - beta2) g^2``

    ``p = p - learning_rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)``, with ``t`` the step from 1

    Parameters
    ----------
    params : dict of str to Array
        The tensors to train, float32 or float64.
    grads : mapping of str to Array or RowGradient
        One for each tensor, of its shape and dtype, in any memory order; that of the tensor saves a copy.
    state : AdamWState
        From :func:`init_adamw`, or from the step before.
    learning_rate : float
        Of this step, warm-up and decay included; 0 or more. Fine-tuning takes 2e-5, say.
    betas : (float, float)
        How much of the averages a step keeps, each in [0, 1).
    eps : float
        Above 0; keeps the quotient finite where a gradient was always zero.
    weight_decay : float
        0 or more. Decoupled: it shrinks the weight and does not enter the averages.
    in_place : bool
        Overwrite the arrays of ``params`` and ``state``: the same bits, without a copy of every tensor. ``state`` is
        then used up; go on with the one that is returned.
    num_threads : int
        Worker threads. The result does not depend on them.

    Returns
    -------
    params : dict of str to Array
        New arrays, or with ``in_place`` the very dict that was given.
    state : AdamWState

    Raises
    ------
    ValueError
        If names, shapes or dtypes do not fit each other, rows of a RowGradient do not ascend, a gradient is not finite,
        or a number is out of range. Nothing has been written then.

    Notes
    -----
    **Source**: Loshchilov & Hutter 2019, algorithm 2; the averages are Kingma & Ba 2015, algorithm 1.
    ``torch.optim.AdamW`` with two groups of parameters, the second (biases, LayerNorm) with ``weight_decay=0``, on
    dense gradients.

    Examples
    --------
    The first step moves each number by ``learning_rate``, however large its gradient is, and shrinks the weight:

    >>> params = {"head.weight": np.array([[1.0, 1.0]]), "head.bias": np.array([1.0])}
    >>> grads = {"head.weight": np.array([[5.0, -0.001]]), "head.bias": np.array([0.0])}
    >>> new, state = adamw(params, grads, init_adamw(params), learning_rate=0.1, weight_decay=0.5)
    >>> new["head.weight"].round(4), new["head.bias"]
    (array([[0.85, 1.05]]), array([1.]))
    """
    for name, number in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
        if not 0.0 <= number < math.inf:
            raise ValueError(f"adamw: expected {name} to be finite and 0 or more, got {number}")
    if not (all(0.0 <= beta < 1.0 for beta in betas) and 0.0 < eps < math.inf):
        raise ValueError(f"adamw: expected betas in [0, 1) and eps above 0, got betas {betas} and eps {eps}")
    _check_threads("adamw", num_threads)
    _check_step(params, grads, state, in_place)
    m, v = state.m, state.v
    if not in_place:
        params, m, v = (
            {name: np.array(x[name], order=_order(param)) for name, param in params.items()} for x in (params, m, v)
        )
    seen = _mark_rows(grads, state, in_place)
    update = partial(_update, step=state.step + 1, learning_rate=learning_rate, betas=betas, eps=eps)
    # a tensor, its moments and its gradient are read side by side, in the order in which the tensor lies in memory
    grads = {name: _lying_like(grads[name], param) for name, param in params.items()}

    def work(block: tuple[str, int, int]) -> None:
        name, start, stop = block
        grad, tensors = grads[name], (params[name], m[name], v[name])
        shrink = 1.0 - learning_rate * weight_decay if decays(name) else 1.0
        if isinstance(grad, RowGradient):
            width = grad.values.shape[1]
            rows = slice(start // width, stop // width)  # each row of a table is in one block
            if shrink != 1.0:
                params[name][rows] *= shrink
            _update_rows(grad, tensors, seen[name], rows, update)
        else:
            g, *numbers = (x.ravel(order="K")[start:stop] for x in (grad, *tensors))
            if shrink != 1.0:
                numbers[0] *= shrink
            update(g, *numbers)

    _share(_blocks({name: param.size for name, param in params.items()}), work, num_threads)
    return params, AdamWState(state.step + 1, m, v, seen)


def _update(
    g: Array, p: Array, m: Array, v: Array, *, step: int, learning_rate: float, betas: tuple[float, float], eps: float
) -> None:
    """Overwrite ``p``, ``m`` and ``v``; decay is done before. The order of operations is PyTorch's."""
    beta1, beta2 = betas
    change = g - m
    if beta1 > 0.5:
        change *= 1.0 - beta1
        m += change
    else:  # the same from the other end, where a large m would swallow the digits of a small g: torch.lerp
        change *= beta1
        np.subtract(g, change, out=m)
    square = g * (1.0 - beta2)
    square *= g
    v *= beta2
    v += square
    # averages that began at 0 are too small in the first steps: Kingma & Ba 2015, section 3
    usual = np.sqrt(v, out=square)  # the gradient's usual size
    usual /= math.sqrt(1.0 - beta2**step)
    usual += eps
    move = np.multiply(m, -learning_rate / (1.0 - beta1**step), out=change)
    move /= usual
    p += move


def _update_rows(
    grad: RowGradient, tensors: tuple[Array, ...], seen: Array, rows: slice, update: Callable[..., None]
) -> None:
    """Update those rows of a table and its moments that were ever used; the others have moments of zero."""
    used = rows.start + np.flatnonzero(seen[rows])
    if not len(used):
        return
    numbers = [x[used] for x in tensors]
    g = np.zeros_like(numbers[0])
    first, last = np.searchsorted(grad.rows, (rows.start, rows.stop))
    g[np.searchsorted(used, grad.rows[first:last])] = grad.values[first:last]  # rows with a gradient are among the used
    update(g, *numbers)
    for x, moved in zip(tensors, numbers, strict=True):
        x[used] = moved


def _mark_rows(grads: Mapping[str, Gradient], state: AdamWState, in_place: bool) -> dict[str, Array]:
    """Mark the rows of this step among those that were ever used, so that nobody reads thousands of rows of zeros."""
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


# ---------------------------------------------------------------------------------------------- how far a step may go
# The start of fine-tuning can break most: the optimiser's averages know little, and the pretrained weights are good. So
# the learning rate warms up from zero, then falls in a line to zero, where the weights settle. At any time a batch of
# strange texts can have a gradient many times as long as others; clipping keeps its direction and limits its length.


def warmup_linear(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the share of the learning rate that a step gets: up from 0 in a line, then down to 0 in a line.

    ``step / warmup_steps`` below ``warmup_steps``, then ``(total_steps - step) / (total_steps - warmup_steps)``

    Adam's averages know little at first, and full steps on them would throw the pretrained weights away.

    Parameters
    ----------
    step : int
        Steps done before this one: 0 for the first, which a warm-up gives a learning rate of 0.
    warmup_steps : int
        From 0 to ``total_steps``.
    total_steps : int
        At least 1. From there on the factor is 0.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        For a negative number of steps, or a warm-up longer than the training.

    Notes
    -----
    **Source**: Devlin et al. 2019, appendix A.2; ``transformers.get_linear_schedule_with_warmup``,
    ``scheduler="WarmupLinear"`` in ``SentenceTransformer.fit``.

    Examples
    --------
    >>> [warmup_linear(step, 2, 6) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < 0 or total_steps < 1 or not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            "warmup_linear: expected step >= 0, total_steps >= 1 and warmup_steps from 0 to total_steps, got step "
            f"{step}, warmup_steps {warmup_steps} and total_steps {total_steps}; a longer warm-up would never reach "
            "the full learning rate: train for more steps or warm up for fewer"
        )
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def clip_gradients(
    grads: Mapping[str, Gradient], max_norm: float, *, in_place: bool = False, num_threads: int = 1
) -> tuple[dict[str, Gradient], float]:
    """Shorten the gradient, all tensors taken as one vector, to a length of at most ``max_norm``; keep its direction.

    ``g = g * min(1, max_norm / (norm + 1e-6))``, with ``norm = sqrt(sum of g^2 over all numbers of all tensors)``

    Parameters
    ----------
    grads : mapping of str to Array or RowGradient
        A RowGradient counts with its values; all its other numbers are zero.
    max_norm : float
        Above 0; ``math.inf`` only measures. BERT and SBERT take 1.
    in_place : bool
        Overwrite the arrays of ``grads``: the same bits, without a copy.
    num_threads : int
        Worker threads. The result does not depend on them.

    Returns
    -------
    grads : dict of str to Array or RowGradient
        A new dict. Where nothing is shortened it holds the arrays that were given.
    norm : float
        Before clipping. Squares are summed in float64, so that no float32 gradient is too large or too small.

    Raises
    ------
    ValueError
        If a gradient holds NaN or infinity, with the names of the tensors, or ``max_norm`` is not above 0.

    Notes
    -----
    **Source**: Pascanu et al. 2013, algorithm 1; ``torch.nn.utils.clip_grad_norm_(..., error_if_nonfinite=True)``.

    Examples
    --------
    >>> grads, norm = clip_gradients({"x": np.array([3.0]), "y": np.array([[4.0]])}, max_norm=1.0)
    >>> norm, grads["x"].round(4), grads["y"].round(4)
    (5.0, array([0.6]), array([[0.8]]))
    """
    if not max_norm > 0.0:
        raise ValueError(
            f"clip_gradients: expected max_norm above 0, got {max_norm}; 0 would stop the training: leave the call "
            "out for no clipping"
        )
    _check_threads("clip_gradients", num_threads)
    numbers = {name: grad.values if isinstance(grad, RowGradient) else grad for name, grad in grads.items()}
    blocks = _blocks({name: x.size for name, x in numbers.items()})

    def square(block: tuple[str, int, int]) -> float:
        name, start, stop = block
        x = numbers[name].ravel(order="K")[start:stop].astype(np.float64, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):  # the sum tells
            return float(x.dot(x))

    sums = dict.fromkeys(grads, 0.0)
    for (name, _, _), part in zip(blocks, _share(blocks, square, num_threads), strict=True):
        sums[name] += part
    _check_finite("clip_gradients", sums)
    norm = math.sqrt(sum(sums.values()))
    coefficient = max_norm / (norm + 1e-6)
    if coefficient >= 1.0:
        return dict(grads), norm
    clipped: dict[str, Gradient] = {}
    for name, grad in grads.items():
        x = numbers[name]
        x = np.multiply(x, coefficient, out=x if in_place else np.empty_like(x))
        clipped[name] = RowGradient(grad.rows, x, grad.row_count) if isinstance(grad, RowGradient) else x
    return clipped, norm


# -------------------------------------------------------------------------------------------------------- checkpoints

_PARTS = ("m", "v", "seen")


def state_to_arrays(state: AdamWState) -> dict[str, Array]:
    """Lay a state out as named arrays for a file: ``"step"`` (1,), ``"m.embeddings.LayerNorm.bias"`` and so on.

    All are in C order: safetensors writes an array's bytes as they lie in memory, so that one in Fortran order would
    come back with its numbers in other places. Those in C order already are the state's own, not copies: write them
    before the next step in place.
    """
    arrays = {"step": np.array([state.step], np.int64)}
    for part in _PARTS:
        arrays |= {f"{part}.{name}": np.asarray(x, order="C") for name, x in getattr(state, part).items()}
    return arrays


def state_from_arrays(arrays: Mapping[str, Array], params: Mapping[str, Array]) -> AdamWState:
    """Rebuild a state from what :func:`state_to_arrays` gave, so that training goes on bit for bit.

    The arrays are new, in the memory order of ``params``. ValueError if they belong to another optimiser or model.
    """
    parts: dict[str, dict[str, Array]] = {part: {} for part in _PARTS}
    wrong = [name for name in arrays if name != "step" and name.partition(".")[0] not in parts]
    if wrong or "step" not in arrays or arrays["step"].shape != (1,):
        raise ValueError(
            f"state_from_arrays: expected 'step' of shape (1,) and names that begin with {', '.join(parts)}, got "
            f"{_name_some(wrong or sorted(arrays))}: is this the state of another optimiser?"
        )
    for key, array in arrays.items():
        part, _, name = key.partition(".")
        if part in parts:
            like = params.get(name, array)
            parts[part][name] = np.array(array, order=_order(like) if array.ndim == like.ndim else "C")
    state = AdamWState(int(arrays["step"][0]), **parts)
    _check_state("state_from_arrays", params, state)
    return state


# ------------------------------------------------------------------------------------------ blocks, threads and memory
# A step is a dozen passes over four arrays, and memory is what it waits for. So tensors are cut into blocks that stay
# in the processor's cache while all passes go over them, in the order in which their numbers lie in memory: by rows
# ("C") or by columns ("F"). Every number is computed by itself, so that neither blocks nor threads change a bit.

# Numbers in a block: few enough for the cache, so many that two threads seldom wait for Python's lock. Measured on two
# cores, 2**15 would be slower on two threads than on one.
_BLOCK = 2**17

_Result = TypeVar("_Result")


def _blocks(sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Cut tensors of these sizes into blocks: name, start, stop."""
    return [(name, i, min(i + _BLOCK, size)) for name, size in sizes.items() for i in range(0, size, _BLOCK)]


def _share(
    blocks: list[tuple[str, int, int]], work: Callable[[tuple[str, int, int]], _Result], num_threads: int
) -> list[_Result]:
    """Return ``[work(block) for block in blocks]``; eight jobs a thread, so that one held up leaves more to others."""
    jobs = np.array_split(np.arange(len(blocks)), max(1, min(8 * num_threads, len(blocks))))
    results: dict[int, _Result] = {}
    for job, found in work_through(jobs, lambda job: [work(blocks[i]) for i in job], num_threads):
        results |= zip(job.tolist(), found, strict=True)
    return [results[i] for i in range(len(blocks))]


def _order(x: Array) -> Literal["C", "F"]:
    return "F" if x.flags.fnc else "C"


def _lies_like(x: Array, param: Array) -> bool:
    """Whether an array lies in memory in the order of a tensor, without gaps."""
    return x.flags.f_contiguous if param.flags.fnc else x.flags.c_contiguous


def _lying_like(grad: Gradient, param: Array) -> Gradient:
    """Return the gradient, copied if it lies in memory otherwise; the rows of a RowGradient may lie as they like."""
    if isinstance(grad, RowGradient) or _lies_like(grad, param):
        return grad
    return np.array(grad, order=_order(param))


# ---------------------------------------------------------------------------------------------------------- arguments
# Asked before a step writes anything: one that stopped half-way would leave some tensors moved and others not.


def _check_step(params: Mapping[str, Array], grads: Mapping[str, Gradient], state: AdamWState, in_place: bool) -> None:
    """Raise if anything does not fit together, or cannot be overwritten although it shall be."""
    if not isinstance(state, AdamWState):
        raise ValueError(f"adamw: expected a state from init_adamw, got {type(state).__name__}")
    _check_dtypes("adamw", params)
    _check_names("adamw", "a gradient", params, grads)
    _check_state("adamw", params, state)
    for name, param in params.items():
        _check_gradient(name, grads[name], param)
    if in_place:
        for name, param in params.items():
            for array in (param, state.m[name], state.v[name]):
                if not (array.flags.writeable and _lies_like(array, param)):
                    raise ValueError(
                        f"adamw: expected {name!r} and its state to be writeable and to lie in memory without gaps in "
                        "one order, for in_place=True; copy the tensor first, and make the state from the copy"
                    )
        if len({p.ctypes.data for p in params.values() if p.size}) < sum(p.size > 0 for p in params.values()):
            raise ValueError(
                "adamw: two names share one array, which in_place=True would update twice; train it under one name"
            )
    numbers = {name: (g.values if isinstance(g, RowGradient) else g).ravel(order="K") for name, g in grads.items()}
    with np.errstate(over="ignore", invalid="ignore"):  # the sum tells
        _check_finite("adamw", {name: float(x.dot(x)) for name, x in numbers.items()})


def _check_gradient(name: str, grad: Gradient, param: Array) -> None:
    """Raise if a gradient does not belong to its tensor."""
    if not isinstance(grad, RowGradient):
        _check_like("adamw", "the gradient", name, grad, param)
        return
    rows, values = grad.rows, grad.values
    fits = param.ndim == 2 and (grad.row_count, *values.shape[1:]) == param.shape and values.dtype == param.dtype
    ascend = rows.dtype.kind in "iu" and rows.shape == values.shape[:1] and bool((rows[1:] > rows[:-1]).all())
    if not (fits and ascend and (not len(rows) or 0 <= rows[0] <= rows[-1] < grad.row_count)):
        raise ValueError(
            f"adamw: expected the RowGradient of {name!r} to fit a {param.dtype} table {param.shape}: a row of values "
            f"for each of rows, which ascend below row_count, each once; got rows {rows.dtype} {rows.shape}, values "
            f"{values.dtype} {values.shape} and row_count {grad.row_count}. params.sum_rows makes such"
        )


def _check_dtypes(function: str, params: Mapping[str, Array]) -> None:
    wrong = [name for name, param in params.items() if param.dtype not in (np.float32, np.float64)]
    if wrong:
        raise ValueError(
            f"{function}: expected tensors in float32 or float64, got {params[wrong[0]].dtype} in {_name_some(wrong)}; "
            "convert them with .astype(np.float32), and leave out what is not trained"
        )


def _check_state(function: str, params: Mapping[str, Array], state: AdamWState) -> None:
    """Raise if the state belongs to another model."""
    for moments in (state.m, state.v):
        _check_names(function, "the state", params, moments)
        for name, param in params.items():
            _check_like(function, "the state", name, moments[name], param)
    for name, rows in state.seen.items():
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
        found = [f"{word} {_name_some(n)}" for word, n in (("missing", missing), ("unknown", unknown)) if n]
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


def _check_finite(function: str, sums: Mapping[str, float]) -> None:
    """Raise if a gradient's sum of squares is not finite: whatever is not finite in the gradient shows there."""
    broken = [name for name, total in sums.items() if not math.isfinite(total)]
    if broken:
        raise ValueError(
            f"{function}: expected finite gradients whose squares are finite, got NaN, infinity or too large a number "
            f"in {_name_some(broken)}; is the loss of this batch finite, and the learning rate not too high?"
        )


def _check_threads(function: str, num_threads: int) -> None:
    if num_threads < 1:
        raise ValueError(f"{function}: expected num_threads of at least 1, got {num_threads}")


def _name_some(names: Iterable[str]) -> str:
    """Name the first three tensors, and say how many more there are."""
    listed = [repr(name) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3:,} more" if len(listed) > 3 else "")
