"""How far a step may go: a learning rate that rises and falls, and a gradient that is not too long.

The start of a fine-tuning is when most can be broken: the optimiser's averages know little, and the pretrained weights
are good. So the learning rate warms up from zero, then falls in a line to zero, where the weights settle. At any time a
batch of strange texts can have a gradient many times as long as others; clipping keeps its direction and takes its
length.

Left out on purpose: other schedules, and clipping number by number, which turns the gradient. Next file: ``data.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from minisbert.model.params import Gradient, RowGradient
from minisbert.training.blocks import square_sums
from minisbert.training.optim_arguments import check_finite, check_threads


def warmup_linear(step: int, warmup_steps: int, total_steps: int) -> float:
    """Give the share of the learning rate that a step gets: up from 0 in a line, then down to 0 in a line.

    ``step / warmup_steps`` below ``warmup_steps``, then ``(total_steps - step) / (total_steps - warmup_steps)``

    Adam's averages know little at first, and full steps on them would throw the pretrained weights away.

    Parameters
    ----------
    step : int
        Steps done before this one: 0 for the first, which a warm-up gives a learning rate of 0.
    warmup_steps : int
        0 for none, ``total_steps`` at most.
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

    ``norm = sqrt(sum of g^2 over all numbers of all tensors)``

    ``g = g * min(1, max_norm / (norm + 1e-6))``

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
