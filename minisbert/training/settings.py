"""The settings of fine-tuning, checked before any work is done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from minisbert.training.data import Examples
from minisbert.training.losses import LOSSES

FITTING = {
    "pairs": ("multiple_negatives_ranking",),
    "triplets": ("multiple_negatives_ranking", "triplet"),
    "scored": ("cosent", "cosine_similarity"),
    "labelled": ("softmax", "contrastive"),
    "texts": ("multiple_negatives_ranking", "simcse"),
}
"""The losses for each kind of examples, the usual one first. Texts with labels have the first, those without simcse."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    Parameters
    ----------
    loss : str
        A key of :data:`~minisbert.training.losses.LOSSES`.
    loss_options : mapping
        Options of the loss, such as ``{"scale": 20.0}``; the defaults are in :data:`LOSSES`.
    epochs : int
        Passes over the examples.
    batch_size : int
        Examples a step, at least 2.
    learning_rate : float
        The peak, at the end of the warm-up.
    warmup : float
        Fraction of all steps, in [0, 1], in which the learning rate rises from 0; then it falls linearly to 0.
    weight_decay : float
        AdamW's, in [0, 1]; biases and LayerNorm have none.
    max_grad_norm : float
        Longer gradients are clipped to it.
    dropout : float
        Rate, in [0, 0.9], for hidden states and attention probabilities. BERT's own is 0.1.
    seed : int
        For the order of examples, dropout and the first weights of a classifier.
    max_seq_length : int, optional
        Tokens after which a text is truncated; by default the model's limit.
    cache_tokens : int, optional
        Gradient caching in pieces of so many tokens, for batches that do not fit into memory.
    num_threads : int
        Threads; the order in which gradients are added, and so their last digits, depend on it.
    evaluate_every : int, optional
        Steps between two scores on the dev set; by default an epoch.

    Raises
    ------
    ValueError
        For values outside their range, and losses and options that do not exist.

    Examples
    --------
    >>> Settings(loss="triplet", loss_options={"margin": 0.5}).learning_rate
    2e-05
    >>> Settings(loss="triplets")
    Traceback (most recent call last):
        ...
    ValueError: loss must be one of multiple_negatives_ranking, ..., got 'triplets'
    """

    loss: str = "multiple_negatives_ranking"
    loss_options: Mapping[str, float | str | bool] = field(default_factory=dict)
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 2e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    dropout: float = 0.1
    seed: int = 0
    max_seq_length: int | None = None
    cache_tokens: int | None = None
    num_threads: int = 2
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        _check_options(self)
        _check_ranges(self)


def _check_options(settings: Settings) -> None:
    """Raise for options that the loss does not have, and values that it does not take."""
    loss = LOSSES[settings.loss]
    for name, value in settings.loss_options.items():
        if name not in loss.options:
            listed = ", ".join(loss.options) or "none at all"
            raise ValueError(f"{settings.loss} has no option {name!r}; it has {listed}")
        default = loss.options[name]
        kind = float if type(value) is int else type(value)
        if kind is not type(default) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{settings.loss}: {name} must be like {default!r}, got {value!r}")
    if settings.loss_options:
        vectors = [np.eye(2)] * (3 if loss.data == "triplets" else 2)
        targets = [np.array([0.0, 1.0])] if loss.data in ("scored", "labelled") else []
        loss.function(*vectors, *targets, **settings.loss_options)  # it checks its own options


def _check_ranges(settings: Settings) -> None:
    ranges = {
        "epochs": (1, math.inf),
        "batch_size": (2, math.inf),
        "learning_rate": (0.0, 1.0),
        "warmup": (0.0, 1.0),
        "weight_decay": (0.0, 1.0),
        "max_grad_norm": (1e-12, math.inf),
        "dropout": (0.0, 0.9),
        "seed": (0, math.inf),
        "max_seq_length": (3, math.inf),
        "cache_tokens": (1, math.inf),
        "num_threads": (1, math.inf),
        "evaluate_every": (1, math.inf),
    }
    for name, (low, high) in ranges.items():
        value, default = getattr(settings, name), getattr(Settings, name)
        if value is None and default is None:
            continue
        kinds = (int, float) if isinstance(default, float) else int
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            whole = "" if isinstance(default, float) else "a whole number, "
            most = f", {high:g} at most" if high < math.inf else ""
            raise ValueError(f"{name} must be {whole}{low:g} or more{most}, got {value!r}")


def check_fit(settings: Settings, examples: Examples) -> None:
    """Raise if a loss cannot train on these examples, and name those that can.

    >>> check_fit(Settings(loss="cosent"), Examples("pairs", (("a", "b"), ("c", "d"))))
    Traceback (most recent call last):
        ...
    ValueError: the loss cosent is not for examples of kind 'pairs'; for these there is multiple_negatives_ranking
    """
    fitting = fitting_losses(examples)
    if settings.loss not in fitting:
        raise ValueError(
            f"the loss {settings.loss} is not for examples of kind {examples.kind!r}; for these there is "
            + " or ".join(fitting)
        )
    if settings.loss == "contrastive" and examples.label_names != ("0", "1"):
        raise ValueError(
            "the loss contrastive needs the labels 1 (the pair belongs together) and 0 (it does not), got "
            f"{', '.join(examples.label_names[:5])}; for named classes there is softmax"
        )
    if settings.loss == "simcse" and settings.dropout == 0.0:
        raise ValueError("the loss simcse compares two views by dropout: with dropout 0 they are the same; use 0.1")


def fitting_losses(examples: Examples) -> tuple[str, ...]:
    """List the losses that can train on these examples, the usual one first."""
    if examples.kind == "texts":
        return ("simcse",) if examples.labels is None else ("multiple_negatives_ranking",)
    return FITTING[examples.kind]
