"""From gradients to the next weights: AdamW.

An optimiser is a function ``(params, grads, state) -> (params, state)`` of dictionaries, one array per tensor under
its checkpoint name, so it knows nothing of BERT. No argument changes, unless ``in_place=True`` says that the old
weights may be overwritten. Every formula is PyTorch's, in PyTorch's order of operations.

**A table of which a batch uses a few rows.** The gradient of the word table is a ``RowGradient``; the result is the
one that PyTorch gives for the dense gradient, zeros and all. A row that was never used has moments of zero, so it
only decays; a row that was used before still moves by its momentum. ``torch.optim.SparseAdam`` and "lazy" Adam leave
a row alone until it is used again, which is another algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, TypeVar

import numpy as np

from minisbert.model import Array
from minisbert.model.gradients import Gradient, RowGradient
from minisbert.schedule import work_through

_NO_ROWS = np.zeros(0, np.bool_)


def decays(name: str) -> bool:
    """Tell whether weight decay applies to a tensor: to all but biases and a LayerNorm's scale and shift.

    Decay pulls a weight towards 0 to keep a product small. A bias multiplies nothing, and a LayerNorm's scale belongs
    near 1.

    **Source**: Devlin et al. 2019's ``exclude_from_weight_decay``; ``no_decay`` in ``SentenceTransformer.fit``.

    >>> decays("embeddings.word_embeddings.weight"), decays("head.bias"), decays("embeddings.LayerNorm.weight")
    (True, False, False)
    """
    return not any(part in ("bias", "layernorm") for part in name.lower().replace("_", "").split("."))


@dataclass(frozen=True, eq=False)
class AdamWState:
    """What AdamW remembers."""

    step: int
    m: dict[str, Array]  # of the gradient, one array per tensor, in its shape, dtype and memory order
    v: dict[str, Array]  # of the gradient's square, likewise
    seen: dict[str, Array] = field(default_factory=dict)  # (V,) bool; only of tables with a RowGradient


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
    return AdamWState(0, _zeros("init_adamw", params), _zeros("init_adamw", params))


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
        From :func:`~minisbert.training.optim.init_adamw`, or from the step before.
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

    >>> from minisbert.training.optim import init_adamw
    >>> params = {"head.weight": np.array([[1.0, 1.0]]), "head.bias": np.array([1.0])}
    >>> grads = {"head.weight": np.array([[5.0, -0.001]]), "head.bias": np.array([0.0])}
    >>> new, state = adamw(params, grads, init_adamw(params), learning_rate=0.1, weight_decay=0.5)
    >>> new["head.weight"].round(4), new["head.bias"]
    (array([[0.85, 1.05]]), array([1.]))
    """
    _check_numbers("adamw", learning_rate=learning_rate, weight_decay=weight_decay)
    if not (all(0.0 <= beta < 1.0 for beta in betas) and 0.0 < eps < math.inf):
        raise ValueError(f"adamw: expected betas in [0, 1) and eps above 0, got betas {betas} and eps {eps}")
    if not isinstance(state, AdamWState):
        raise ValueError(f"adamw: expected a state from init_adamw, got {type(state).__name__}")
    check_step("adamw", params, grads, (state.m, state.v), state.seen, in_place, num_threads)
    m, v = state.m, state.v
    if not in_place:
        params, m, v = (copy_arrays(arrays, params) for arrays in (params, m, v))
    seen = mark_rows(grads, state, in_place)
    update = _adamw_update(learning_rate, betas, eps, state.step + 1)
    take_step(
        [
            TensorStep(
                params[name],
                in_order(grads[name], params[name]),
                (m[name], v[name]),
                seen.get(name, _NO_ROWS),
                1.0 - learning_rate * weight_decay if decays(name) else 1.0,
                update,
            )
            for name in params
        ],
        num_threads,
    )
    return params, AdamWState(state.step + 1, m, v, seen)


def _adamw_update(learning_rate: float, betas: tuple[float, float], eps: float, step: int) -> Update:
    """Make the function that updates one block; decay comes before. Its order of operations is PyTorch's."""
    beta1, beta2 = betas
    # averages that began at 0 are too small in the first steps: Kingma & Ba 2015, section 3
    step_size = learning_rate / (1.0 - beta1**step)
    root = math.sqrt(1.0 - beta2**step)

    def update(p: Array, g: Array, moments: tuple[Array, ...]) -> None:
        m, v = moments
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
        usual = np.sqrt(v, out=square)  # the gradient's usual size
        usual /= root
        usual += eps
        move = np.multiply(m, -step_size, out=change)
        move /= usual
        p += move

    return update


@dataclass(frozen=True, eq=False)
class SgdState:
    """What SGD remembers."""

    step: int
    momentum: dict[str, Array]  # one array per tensor, in its shape, dtype and memory order
    seen: dict[str, Array] = field(default_factory=dict)  # (V,) bool; only of tables with a RowGradient


def init_sgd(params: Mapping[str, Array]) -> SgdState:
    """Start SGD: no steps, no velocity."""
    return SgdState(0, _zeros("init_sgd", params))


def sgd(
    params: dict[str, Array],
    grads: Mapping[str, Gradient],
    state: SgdState,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    in_place: bool = False,
    num_threads: int = 1,
) -> tuple[dict[str, Array], SgdState]:
    """Take one step of gradient descent with momentum.

    ``b = momentum b + g + weight_decay p``, the last term unless ``decays(name)`` says no; ``p = p - learning_rate b``

    **Source**: Polyak 1964; Sutskever et al. 2013, section 2. ``torch.optim.SGD(momentum=..., dampening=0,
    nesterov=False)`` with two groups of parameters, the second (biases, LayerNorm) with ``weight_decay=0``.
    """
    _check_numbers("sgd", learning_rate=learning_rate, weight_decay=weight_decay)
    if not 0.0 <= momentum < 1.0:
        raise ValueError(f"sgd: expected momentum in [0, 1), got {momentum}")
    if not isinstance(state, SgdState):
        raise ValueError(f"sgd: expected a state from init_sgd, got {type(state).__name__}")
    check_step("sgd", params, grads, (state.momentum,), state.seen, in_place, num_threads)
    velocity = state.momentum
    if not in_place:
        params, velocity = copy_arrays(params, params), copy_arrays(velocity, params)
    seen = mark_rows(grads, state, in_place)
    tensors = []
    for name, param in params.items():
        decay = weight_decay if decays(name) else 0.0
        if decay and name in seen:
            seen[name][:] = True  # decay is a gradient, and every row has it
        update = _sgd_update(learning_rate, momentum, decay)
        tensors.append(
            TensorStep(param, in_order(grads[name], param), (velocity[name],), seen.get(name, _NO_ROWS), 1.0, update),
        )
    take_step(tensors, num_threads)
    return params, SgdState(state.step + 1, velocity, seen)


def _sgd_update(learning_rate: float, momentum: float, weight_decay: float) -> Update:
    """Make the function that updates one block."""

    def update(p: Array, g: Array, moments: tuple[Array, ...]) -> None:
        (velocity,) = moments
        velocity *= momentum
        velocity += g + weight_decay * p if weight_decay else g
        p -= learning_rate * velocity

    return update


def _zeros(function: str, params: Mapping[str, Array]) -> dict[str, Array]:
    """Make one array of zeros per tensor, in its memory order. ``np.zeros_like`` would write every zero at once."""
    check_params(function, params)
    return {name: np.zeros(p.shape, p.dtype, order=order_of(p)) for name, p in params.items()}


def copy_arrays(arrays: Mapping[str, Array], like: Mapping[str, Array]) -> dict[str, Array]:
    """Copy every array, into the memory order of its tensor."""
    return {name: np.array(arrays[name], order=order_of(param)) for name, param in like.items()}


def mark_rows(grads: Mapping[str, Gradient], state: AdamWState | SgdState, in_place: bool) -> dict[str, Array]:
    """Mark the rows of this step among those that were ever used.

    Examples
    --------
    >>> grads = {"table": RowGradient(np.array([1]), np.ones((1, 2)), row_count=3)}
    >>> mark_rows(grads, init_adamw({"table": np.ones((3, 2))}), in_place=False)
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


# ------------------------------------------------------------------------------------------------ how far a step may go
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
    check_threads("clip_gradients", num_threads)
    sums = square_sums(grads, num_threads)
    check_finite("clip_gradients", sums)
    norm = math.sqrt(sum(sums.values()))
    coefficient = max_norm / (norm + 1e-6)
    if coefficient >= 1.0:
        return dict(grads), norm
    clipped: dict[str, Gradient] = {}
    for name, grad in grads.items():
        if isinstance(grad, RowGradient):
            values = np.multiply(grad.values, coefficient, out=grad.values if in_place else None)
            clipped[name] = RowGradient(grad.rows, values, grad.row_count)
        else:
            clipped[name] = np.multiply(grad, coefficient, out=grad if in_place else np.empty_like(grad))
    return clipped, norm


# ---------------------------------------------------------------------------------------------------------- checkpoints


State = TypeVar("State", AdamWState, SgdState)


def state_to_arrays(state: AdamWState | SgdState) -> dict[str, Array]:
    """Lay a state out as named arrays for a file: ``"step"`` (1,), ``"m.embeddings.LayerNorm.bias"`` and so on.

    All are in C order: safetensors writes an array's bytes as they lie in memory, so that one in Fortran order would
    come back with its numbers in other places. Those in C order already are the state's own, not copies: write them
    before the next step in place.
    """
    arrays = {"step": np.array([state.step], np.int64)}
    for part in fields(state)[1:]:
        arrays |= {f"{part.name}.{name}": np.asarray(x, order="C") for name, x in getattr(state, part.name).items()}
    return arrays


def state_from_arrays(kind: type[State], arrays: Mapping[str, Array], params: Mapping[str, Array]) -> State:
    """Rebuild a state from what :func:`state_to_arrays` gave, so that training goes on bit for bit.

    The arrays are new, in the memory order of ``params``. ValueError if they belong to another optimiser or model.
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


# --------------------------------------------------------------------------------------------------- blocks and threads
# A step of an optimiser is a dozen passes over four arrays, and memory is what it waits for. **Blocks** stay in the
# processor's cache while all passes go over them; **pieces** of several blocks are handed to threads. Every number is
# computed by itself, so that neither blocks nor threads change a bit; sums are added in the order of the pieces.
#
# Blocks are cut in memory order, by rows ("C") or by columns ("F"), in which a tensor, its gradient and its moments
# must agree. A table with a ``RowGradient`` is cut between rows. Letters: ``V`` rows of a table, ``D`` width.


# Numbers in a block: few enough for the processor's cache, so many that two threads seldom wait for Python's lock.
# Measured on two cores, 2**15 would be slower on two threads than on one.
_BLOCK = 2**17
_PIECE = 2**19  # numbers that a thread takes at a time: handing them out costs nothing, sharing is still even

# update(p, g, moments) overwrites a block of a tensor and of its moments, given the gradient, which it keeps
Update = Callable[[Array, Array, tuple[Array, ...]], None]


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
    """Overwrite every tensor and its moments; the result does not depend on ``num_threads``."""

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
    """Update the numbers from ``start`` to ``stop`` of a tensor, in memory order."""
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
    """Sum the squares of each gradient: NaN or infinity where one is not finite, or a square is too large.

    ``exact`` sums in float64, in which no float32 square is too large or too small; otherwise, faster, in the dtype of
    the gradient.
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
    """Work on all pieces with ``num_threads`` threads; the results come in the order of the pieces."""
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
    """Return how an array lies in memory: by columns ("F") or by rows ("C")."""
    return "F" if x.flags.fnc else "C"


def lies_in(x: Array, order: Literal["C", "F"]) -> bool:
    """Tell whether an array lies in memory in this order, without gaps."""
    return x.flags.f_contiguous if order == "F" else x.flags.c_contiguous


def in_order(grad: Gradient, param: Array) -> Gradient:
    """Return the gradient in the memory order of its tensor, so that both are read side by side; a copy if need be.

    The rows of a RowGradient are found one by one, and may lie as they like.
    """
    if isinstance(grad, RowGradient) or lies_in(grad, order_of(param)):
        return grad
    return np.array(grad, order=order_of(param))


# ------------------------------------------------------------------------------------------------------------ arguments
# Asked before a step writes anything: one that stopped half-way would leave some tensors moved and others not.


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


def _check_numbers(function: str, **numbers: float) -> None:
    """Raise if a learning rate or a decay is not finite and 0 or more."""
    for name, number in numbers.items():
        if not 0.0 <= number < math.inf:
            raise ValueError(f"{function}: expected {name} to be finite and 0 or more, got {number}")
