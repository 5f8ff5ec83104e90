"""From a loss's name and a batch to the function that ``step.py`` calls with the batch's vectors.

Here stands what lies between data and loss: which texts are false negatives of each other, what the targets are, and
the classifier that the softmax loss trains beside the model. Next: ``checkpoint.py``.
"""

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
    """Give the loss of one batch as a function of its vectors.

    Parameters
    ----------
    settings : Settings
        Which loss, with which options.
    batch : Batch
        Its texts tell false negatives, its targets are the loss's.
    params : dict of str to Array
        Holds the classifier, ``"head.weight"`` and ``"head.bias"``, where the loss has one.

    Returns
    -------
    callable
        ``loss(vectors) -> LossResult``; one array ``(B, D)`` a column.

    Examples
    --------
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
    """Say which candidates belong to an anchor: those of its class, or where there are none, the same texts."""
    if batch.targets is not None:
        classes = batch.targets.tolist()
        return find_false_negatives(*([classes] * len(batch.texts)))
    return find_false_negatives(*batch.texts)


def new_head(settings: Settings, examples: Examples, width: int, dtype: npt.DTypeLike) -> dict[str, Array]:
    """Draw the first weights of the loss's own classifier; nothing for a loss that has none.

    Parameters
    ----------
    settings : Settings
    examples : Examples
        Give the number of classes, ``C``.
    width : int
        Of a sentence vector.
    dtype : DTypeLike

    Returns
    -------
    dict of str to Array
        ``head.weight``, ``(C, 3 width)``, uniform within ``1 / sqrt(3 width)``, and ``head.bias``, ``(C,)``, likewise.

    Notes
    -----
    **Source**: ``torch.nn.Linear``'s own first weights, which sentence-transformers' ``SoftmaxLoss`` begins with.

    Examples
    --------
    >>> new_head(Settings(), Examples("pairs", (("a", "b"), ("c", "d"))), 4, np.float32)
    {}
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
