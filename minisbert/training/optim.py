"""From gradients to the next weights: AdamW, and SGD with momentum.

An optimiser is a function ``(params, grads, state) -> (params, state)``. All three are flat: one array per tensor under
the checkpoint's name, so an optimiser knows nothing of BERT. No argument changes, unless ``in_place=True`` says that
the old weights may be overwritten. Every formula is PyTorch's, in PyTorch's order of operations. Here stands what
happens to one block of numbers; ``blocks.py`` goes over all blocks with it.

**A table of which a batch uses a few rows.** The gradient of the word table is a ``RowGradient``; the result is the one
that PyTorch gives for the dense gradient, zeros and all. A row that was never used has moments of zero, so it only
decays. A row that was used before still moves by its momentum. ``state.seen`` marks the rows that were ever used, and
moments are read and written for these alone. ``torch.optim.SparseAdam`` and "lazy" Adam do otherwise: they leave a row
alone until it is used again, which is another algorithm.

Left out on purpose: Nesterov's momentum, dampening, AMSGrad, mixed precision. Next file: ``pace.py``, which says how
large a step may be.

Letters: ``t`` the number of the step, from 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from minisbert.model import Array
from minisbert.model.params import Gradient
from minisbert.training.blocks import TensorStep, Update, in_order, take_step
from minisbert.training.moments import AdamWState, SgdState, copy_arrays, mark_rows
from minisbert.training.optim_arguments import check_step

_NO_ROWS = np.zeros(0, np.bool_)


def decays(name: str) -> bool:
    """Say whether weight decay applies to a tensor: to all but biases and what a LayerNorm scales and shifts by.

    Decay pulls a weight towards 0 to keep a product small. A bias multiplies nothing, and a LayerNorm's scale belongs
    near 1.

    Parameters
    ----------
    name : str
        The checkpoint's, such as ``"encoder.layer.0.output.LayerNorm.weight"``.

    Returns
    -------
    bool

    Notes
    -----
    **Source**: Devlin et al. 2019's ``exclude_from_weight_decay``; ``no_decay`` in ``SentenceTransformer.fit``.

    Examples
    --------
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

    ``p = p - learning_rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)``

    Parameters
    ----------
    params : dict of str to Array
        The tensors to train, float32 or float64.
    grads : mapping of str to Array or RowGradient
        One for each tensor, of its shape and dtype, in any memory order; that of the tensor saves a copy.
    state : AdamWState
        From :func:`~minisbert.training.moments.init_adamw`, or from the step before.
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
        For names, shapes or dtypes that do not fit each other, rows of a RowGradient that do not ascend, a gradient
        that is not finite, or a number out of its range. Nothing has been written then.

    Notes
    -----
    **Source**: Loshchilov & Hutter 2019, algorithm 2; the averages are Kingma & Ba 2015, algorithm 1.
    ``torch.optim.AdamW`` with two groups of parameters, the second (biases, LayerNorm) with ``weight_decay=0``, on
    dense gradients.

    Examples
    --------
    The first step moves each number by ``learning_rate``, however large its gradient is, and shrinks the weight:

    >>> from minisbert.training.moments import init_adamw
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
    """Make the function that does one block; decay is done before. Its order of operations is PyTorch's."""
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
    """Take one step of gradient descent with momentum: a ball that rolls downhill and keeps some of its speed.

    ``b = momentum b + g + weight_decay p``, the last term unless ``decays(name)`` says no

    ``p = p - learning_rate b``

    Parameters
    ----------
    params : dict of str to Array
        The tensors to train, float32 or float64.
    grads : mapping of str to Array or RowGradient
        One for each tensor, of its shape and dtype, in any memory order; that of the tensor saves a copy.
    state : SgdState
        From :func:`~minisbert.training.moments.init_sgd`, or from the step before.
    learning_rate : float
        Of this step, warm-up and decay included; 0 or more.
    momentum : float
        How much of its velocity a step keeps, in [0, 1).
    weight_decay : float
        0 or more. Coupled, as in PyTorch's SGD: it is part of the gradient and so enters the velocity. A table then
        takes the time of a dense one, because decay moves every row.
    in_place : bool
        Overwrite the arrays of ``params`` and ``state``: the same bits, without a copy of every tensor. ``state`` is
        then used up; go on with the one that is returned.
    num_threads : int
        Worker threads. The result does not depend on them.

    Returns
    -------
    params : dict of str to Array
        New arrays, or with ``in_place`` the very dict that was given.
    state : SgdState

    Raises
    ------
    ValueError
        As :func:`adamw`.

    Notes
    -----
    **Source**: Polyak 1964; Sutskever et al. 2013, section 2. ``torch.optim.SGD(momentum=..., dampening=0,
    nesterov=False)`` with two groups of parameters, the second (biases, LayerNorm) with ``weight_decay=0``.

    Examples
    --------
    >>> from minisbert.training.moments import init_sgd
    >>> params, grads = {"x": np.array([1.0])}, {"x": np.array([2.0])}
    >>> params, state = sgd(params, grads, init_sgd(params), learning_rate=0.25, momentum=0.5)
    >>> params, state = sgd(params, grads, state, learning_rate=0.25, momentum=0.5)
    >>> params, state.momentum
    ({'x': array([-0.25])}, {'x': array([3.])})
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
    """Make the function that does one block."""

    def update(p: Array, g: Array, moments: tuple[Array, ...]) -> None:
        (velocity,) = moments
        velocity *= momentum
        velocity += g + weight_decay * p if weight_decay else g
        p -= learning_rate * velocity

    return update


def _check_numbers(function: str, **numbers: float) -> None:
    """Refuse a learning rate or a decay that is not finite and 0 or more."""
    for name, number in numbers.items():
        if not 0.0 <= number < math.inf:
            raise ValueError(f"{function}: expected {name} to be finite and 0 or more, got {number}")
