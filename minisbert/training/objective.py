"""What lies between data and loss: false negatives, targets, and the classifier that the softmax loss trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minisbert.model import Array
from minisbert.training.batches import Batch
from minisbert.training.data import Examples
from minisbert.training.losses import LOSSES, LossResult, find_false_negatives
from minisbert.training.settings import Settings
from minisbert.training.step import LossFunction


def objective(settings: Settings, batch: Batch, params: dict[str, Array]) -> LossFunction:
    """The loss of one batch as a function of its vectors, ``loss(vectors) -> LossResult``, one (B, D) array a column.

    ``params`` holds the classifier, ``"head.weight"`` and ``"head.bias"``, of a loss that has one.

    >>> batch = Batch((("a", "b"), ("c", "d")), None, np.array([0, 1]))
    >>> loss = objective(Settings(), batch, {})
    >>> round(loss([np.eye(2), np.eye(2)]).value, 9)
    2e-09
    """
    known = LOSSES[settings.loss]
    options: dict[str, Any] = {**known.options, **settings.loss_options}
    if known.takes_false_negatives:
        options["false_negatives"] = _false_negatives(batch)
    extra: list[Any] = []
    if known.data in ("scored", "labelled"):
        extra.append(batch.targets)
    if known.has_head:
        extra += [params["head.weight"], params["head.bias"]]

    def loss(vectors: list[Array]) -> LossResult:
        return known.function(*vectors, *extra, **options)

    return loss


def _false_negatives(batch: Batch) -> Array:
    """Candidates that belong to an anchor: those of its class or, without classes, equal texts."""
    if batch.targets is not None:
        classes = batch.targets.tolist()
        return find_false_negatives(*([classes] * len(batch.texts)))
    return find_false_negatives(*batch.texts)


def new_head(settings: Settings, examples: Examples, width: int, dtype: npt.DTypeLike) -> dict[str, Array]:
    """Draw the first weights of the loss's own classifier, uniform within ``1 / sqrt(3 width)``: (C, 3 width) and (C,).

    Nothing for a loss without one. **Source**: ``torch.nn.Linear``, which sentence-transformers' ``SoftmaxLoss`` starts
    from.
    """
    if not LOSSES[settings.loss].has_head:
        return {}
    rng = np.random.default_rng([settings.seed, 1])
    classes, d_in = len(examples.label_names), 3 * width
    bound = d_in**-0.5
    return {
        "head.weight": rng.uniform(-bound, bound, (classes, d_in)).astype(dtype),
        "head.bias": rng.uniform(-bound, bound, classes).astype(dtype),
    }
