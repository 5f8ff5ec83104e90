"""From gradients to the next weights: AdamW, a learning rate that warms up and decays, and clipping.

All work on dictionaries, one array per tensor under its checkpoint name, so they know nothing of BERT. As in PyTorch,
weights and gradients are overwritten; every formula is PyTorch's, in PyTorch's order of operations.

**A table of which a batch uses a few rows.** The gradient of the word table is a ``RowGradient``; the result is the
one that PyTorch gives for the dense gradient, zeros and all. A row that was never used has moments of zero, so it
only decays; a row that was used before still moves by its momentum. ``torch.optim.SparseAdam`` and "lazy" Adam leave
a row alone until it is used again, which is another algorithm.

Letters: ``V`` rows of a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from minisbert.checks import check_whole
from minisbert.model import Array
from minisbert.model.params import Gradient, RowGradient, numbers_of
from minisbert.parallel import work_through


@dataclass(eq=False)
class AdamWState:
    """What AdamW remembers: all that is needed to go on bit for bit."""

    step: int
    m: dict[str, Array]  # mean of the gradient, one array per tensor, in its shape, dtype and memory order
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

    Examples
    --------
    >>> init_adamw({"head.bias": np.ones(2)}).m
    {'head.bias': array([0., 0.])}
    """
    # np.zeros_like would write every zero at once
    m, v = ({name: np.zeros(p.shape, p.dtype, _order(p)) for name, p in params.items()} for _ in range(2))
    return AdamWState(0, m, v)


def decays(name: str) -> bool:
    """Tell whether weight decay applies to a tensor: to all but biases and a LayerNorm's scale and shift.

    Decay pulls a weight towards 0 to keep a product small. A bias multiplies nothing, and a LayerNorm's scale belongs
    near 1. **Source**: Devlin et al. 2019's ``exclude_from_weight_decay``.

    >>> decays("embeddings.word_embeddings.weight"), decays("head.bias"), decays("embeddings.LayerNorm.weight")
    (True, False, False)
    """
    return not any(part in ("bias", "layernorm") for part in name.lower().replace("_", "").split("."))


def adamw(
    params: Mapping[str, Array],
    grads: Mapping[str, Gradient],
    state: AdamWState,
    *,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    num_threads: int = 1,
) -> None:
    """Take one step of AdamW, in place: against the average gradient, in units of its usual size.

    ``p = p (1 - learning_rate weight_decay)``, unless ``decays(name)`` says no

    ``m = m + (1 - beta1) (g - m)``

    ``v = beta2 v + (1 - beta2) g^2``

    ``p = p - learning_rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)``, with ``t`` the step from 1

    **Source**: Loshchilov & Hutter 2019, algorithm 2; the averages are Kingma & Ba 2015, algorithm 1.
    ``torch.optim.AdamW`` with two groups of parameters, the second (biases, LayerNorm) with ``weight_decay=0``, on
    dense gradients.

    Parameters
    ----------
    params : mapping of str to Array
        The tensors to train, float32 or float64, each without gaps in memory. They are overwritten.
    grads : mapping of str to Array or RowGradient
        One for each tensor, of its shape and dtype, in any memory order; that of the tensor saves a copy.
    state : AdamWState
        From :func:`init_adamw`. It is overwritten, too.
    learning_rate : float
        Of this step, warm-up and decay included; 0 or more. Fine-tuning takes 2e-5, say.
    betas : (float, float)
        How much of the averages a step keeps, each in [0, 1).
    eps : float
        Above 0; keeps the quotient finite where a gradient was always zero.
    weight_decay : float
        0 or more. Decoupled: it shrinks the weight and does not enter the averages.
    num_threads : int
        Worker threads. The result does not depend on them.

    Examples
    --------
    The first step moves each number by ``learning_rate``, however large its gradient is, and shrinks the weight:

    >>> params = {"head.weight": np.array([[1.0, 1.0]]), "head.bias": np.array([1.0])}
    >>> grads = {"head.weight": np.array([[5.0, -0.001]]), "head.bias": np.array([0.0])}
    >>> adamw(params, grads, init_adamw(params), learning_rate=0.1, weight_decay=0.5)
    >>> params["head.weight"].round(4), params["head.bias"]
    (array([[0.85, 1.05]]), array([1.]))
    """
    beta1, beta2 = betas
    if not (0.0 <= learning_rate < math.inf and 0.0 <= weight_decay < math.inf):
        raise ValueError(
            f"adamw: learning_rate and weight_decay: expected 0 or more, got {learning_rate}, {weight_decay}"
        )
    if not (0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0 and 0.0 < eps < math.inf):
        raise ValueError(f"adamw: betas must be at least 0 and below 1, and eps above 0, got {betas} and {eps}")
    check_whole("adamw: num_threads", num_threads, 1)
    _check_step(params, grads, state)

    state.step += 1
    for name, grad in grads.items():
        if isinstance(grad, RowGradient):  # nobody reads thousands of rows of zeros
            if name not in state.seen:  # after dense gradients, every row may have moments
                state.seen[name] = np.full(grad.row_count, state.step > 1)
            state.seen[name][grad.rows] = True
        else:
            state.seen.pop(name, None)
    # a tensor, its moments and its gradient are read side by side, in the order in which the tensor lies in memory
    lying = {
        name: grad if isinstance(grad, RowGradient) else np.asarray(grad, order=_order(params[name]))
        for name, grad in grads.items()
    }

    def update(block: _Block) -> None:
        name, start, stop = block
        grad, tensors = lying[name], (params[name], state.m[name], state.v[name])
        shrink = 1.0 - learning_rate * weight_decay if decays(name) else 1.0
        if not isinstance(grad, RowGradient):
            p, m, v = (x.ravel(order="K")[start:stop] for x in tensors)
            if shrink != 1.0:
                p *= shrink
            move(grad.ravel(order="K")[start:stop], p, m, v)
            return
        first, last = start // grad.values.shape[1], stop // grad.values.shape[1]  # each row is in one block
        if shrink != 1.0:
            tensors[0][first:last] *= shrink
        used = first + np.flatnonzero(state.seen[name][first:last])  # the other rows have moments of zero
        if len(used):
            p, m, v = numbers = [x[used] for x in tensors]
            g = np.zeros_like(p)
            i, j = np.searchsorted(grad.rows, (first, last))
            g[np.searchsorted(used, grad.rows[i:j])] = grad.values[i:j]
            move(g, p, m, v)
            for x, moved in zip(tensors, numbers, strict=True):
                x[used] = moved

    def move(g: Array, p: Array, m: Array, v: Array) -> None:
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
        usual /= math.sqrt(1.0 - beta2**state.step)
        usual += eps
        step = np.multiply(m, -learning_rate / (1.0 - beta1**state.step), out=change)
        step /= usual
        p += step

    _share(_blocks(params), update, num_threads)


# ---------------------------------------------------------------------------------------------- how far a step may go
# The start of fine-tuning can break most: the optimiser's averages know little, and the pretrained weights are good. So
# the learning rate warms up from zero. And a batch of strange texts can have a gradient many times as long as others.


def warmup_linear(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the share of the learning rate that a step gets: up from 0 in a line, then down to 0 in a line.

    ``step / warmup_steps`` below ``warmup_steps``, then ``(total_steps - step) / (total_steps - warmup_steps)``

    **Source**: Devlin et al. 2019, appendix A.2; ``transformers.get_linear_schedule_with_warmup``.

    Parameters
    ----------
    step : int
        Steps done before this one: 0 for the first, which a warm-up gives a learning rate of 0.
    warmup_steps : int
        From 0 to ``total_steps``.
    total_steps : int
        At least 1. From there on the factor is 0.

    Examples
    --------
    >>> [warmup_linear(step, 2, 6) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < 0 or total_steps < 1 or not 0 <= warmup_steps <= total_steps:
        given = f"step {step}, warmup_steps {warmup_steps} and total_steps {total_steps}"
        raise ValueError(f"warmup_linear: expected step >= 0 and 0 <= warmup_steps <= total_steps > 0, got {given}")
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def clip_gradients(grads: Mapping[str, Gradient], max_norm: float, *, num_threads: int = 1) -> float:
    """Shorten the gradient, all tensors taken as one vector, in place, to a length of at most ``max_norm``.

    ``g = g * min(1, max_norm / (norm + 1e-6))``, with ``norm = sqrt(sum of g^2 over all numbers of all tensors)``

    **Source**: Pascanu et al. 2013, algorithm 1; ``torch.nn.utils.clip_grad_norm_(..., error_if_nonfinite=True)``.

    Parameters
    ----------
    grads : mapping of str to Array or RowGradient
        A RowGradient counts with its values; all its other numbers are zero. The arrays are overwritten.
    max_norm : float
        Above 0; ``math.inf`` only measures. BERT and SBERT take 1.
    num_threads : int
        Worker threads. The result does not depend on them.

    Returns
    -------
    float
        The norm before clipping. Squares are summed in float64, so that no float32 gradient is too large or too small.

    Examples
    --------
    >>> grads = {"x": np.array([3.0]), "y": np.array([[4.0]])}
    >>> clip_gradients(grads, max_norm=1.0), grads["x"].round(4), grads["y"].round(4)
    (5.0, array([0.6]), array([[0.8]]))
    """
    if not max_norm > 0.0:
        raise ValueError(f"clip_gradients: max_norm must be above 0, got {max_norm}")
    check_whole("clip_gradients: num_threads", num_threads, 1)
    numbers = {name: numbers_of(grad) for name, grad in grads.items()}
    blocks = _blocks(numbers)

    parts = {}

    def square(block: _Block) -> None:
        name, start, stop = block
        x = numbers[name].ravel(order="K")[start:stop].astype(np.float64, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):  # the sum tells
            parts[block] = float(x.dot(x))

    _share(blocks, square, num_threads)
    sums = dict.fromkeys(grads, 0.0)
    for block in blocks:  # added in a fixed order, whichever thread was first
        sums[block[0]] += parts[block]
    _check_finite("clip_gradients", sums)
    norm = math.sqrt(sum(sums.values()))
    coefficient = max_norm / (norm + 1e-6)
    if coefficient < 1.0:
        for x in numbers.values():
            x *= coefficient
    return norm


# ------------------------------------------------------------------------------------------ blocks, threads and memory
# A step is a dozen passes over four arrays, and memory is what it waits for. So tensors are cut into blocks that stay
# in the processor's cache while all passes go over them, in the order in which their numbers lie in memory: by rows
# ("C") or by columns ("F"). Every number is computed by itself, so that neither blocks nor threads change a bit.

# Numbers in a block: few enough for the cache, so many that two threads seldom wait for Python's lock. Measured on two
# cores, 2**15 would be slower on two threads than on one.
_BLOCK = 2**17

_Block = tuple[str, int, int]  # a tensor's name, start, stop


def _blocks(tensors: Mapping[str, Array]) -> list[_Block]:
    return [(name, i, min(i + _BLOCK, x.size)) for name, x in tensors.items() for i in range(0, x.size, _BLOCK)]


def _share(blocks: list[_Block], work: Callable[[_Block], None], num_threads: int) -> None:
    """Work on every block; eight jobs a thread, so that one held up leaves more to others."""

    def work_on(job: Array) -> None:
        for i in job:
            work(blocks[i])

    jobs = np.array_split(np.arange(len(blocks)), max(1, min(8 * num_threads, len(blocks))))
    for _ in work_through(jobs, work_on, num_threads):
        pass


def _order(x: Array) -> Literal["C", "F"]:
    return "F" if x.flags.fnc else "C"


# ---------------------------------------------------------------------------------------------------------- arguments


def _check_step(params: Mapping[str, Array], grads: Mapping[str, Gradient], state: AdamWState) -> None:
    """Raise before anything is written: a step that stopped half-way would leave some tensors moved and others not."""
    for what, given in (("grads", grads), ("the state", state.m)):
        if differing := [name for name in {**params, **given} if name not in params or name not in given]:
            raise ValueError(f"adamw: params and {what} differ in {differing[:3]}; are they of one model?")
    for name, param in params.items():
        grad, moments = grads[name], (state.m[name], state.v[name])
        shape = (grad.row_count, *grad.values.shape[1:]) if isinstance(grad, RowGradient) else grad.shape
        found = [(shape, numbers_of(grad).dtype), *((x.shape, x.dtype) for x in moments)]
        if any(one != (param.shape, param.dtype) for one in found) or param.dtype not in (np.float32, np.float64):
            said = ", ".join(f"{dtype} {shape}" for shape, dtype in [(param.shape, param.dtype), *found])
            raise ValueError(
                f"adamw: {name!r}, gradient and moments must be float32 or float64 of one shape, got {said}"
            )
        if isinstance(grad, RowGradient):
            rows = grad.rows
            ascend = rows.dtype.kind in "iu" and rows.shape == grad.values.shape[:1] and (rows[1:] > rows[:-1]).all()
            if len(shape) != 2 or not ascend or (len(rows) and not 0 <= rows[0] <= rows[-1] < grad.row_count):
                raise ValueError(f"adamw: rows of {name!r} must ascend from 0 to {grad.row_count - 1}, each once")
        if not all(x.flags.writeable and x.flags[_order(param)] for x in (param, *moments)):
            raise ValueError(
                f"adamw: {name!r} and its moments must be writeable, without gaps, and in one memory order"
            )
    with np.errstate(over="ignore", invalid="ignore"):  # the sum tells
        flat = {name: numbers_of(grad).ravel(order="K") for name, grad in grads.items()}
        _check_finite("adamw", {name: float(x.dot(x)) for name, x in flat.items()})


def _check_finite(function: str, sums: Mapping[str, float]) -> None:
    """Raise if a gradient's sum of squares is not finite: whatever is not finite in the gradient shows there."""
    if broken := [name for name, total in sums.items() if not math.isfinite(total)]:
        raise ValueError(f"{function}: NaN, infinity or huge numbers in the gradients of {', '.join(broken[:3])}")
