"""What fine-tuning may be asked for, checked before any work is done.

``objective.py``, next, turns the loss's name and a batch into a number and its gradients.
"""

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
"""Losses for each kind of examples, the usual one first. Texts without labels have simcse alone, those with labels the
other: pairs of a class."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    Parameters
    ----------
    loss : str
        A key of :data:`~minisbert.training.losses.LOSSES`.
    loss_options : mapping
        The loss's own, such as ``{"scale": 20.0}``; the rest as :data:`LOSSES` says.
    epochs : int
        Times that every example is seen.
    batch_size : int
        Examples of a step, at least 2.
    learning_rate : float
        The largest, at the end of the warm-up.
    warmup : float
        Share of all steps, in [0, 1], in which the learning rate rises from 0; then it falls to 0 in a line.
    weight_decay : float
        AdamW's; not of biases and LayerNorm.
    max_grad_norm : float
        A longer gradient is shortened to it.
    dropout : float
        Rate, in [0, 1), of hidden states and attention probabilities. BERT's own is 0.1.
    seed : int
        Of the order of examples, of dropout and of a classifier's first weights.
    max_seq_length : int, optional
        Tokens after which a text is cut; by default the model's limit.
    cache_tokens : int, optional
        Gradient caching with so many tokens at a time, for batches that do not fit into memory.
    num_threads : int
        Decides in which order gradients are added, and so their last digits.
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
    """Refuse options that the loss does not have, and values that it does not take."""
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
        loss.function(*vectors, *targets, **settings.loss_options)  # for what it refuses


def _check_ranges(settings: Settings) -> None:
    """Refuse numbers that make no sense."""
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
    """Refuse a loss that these examples cannot feed.

    Parameters
    ----------
    settings : Settings
    examples : Examples

    Raises
    ------
    ValueError
        With the losses that would do.

    Examples
    --------
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
    """List the losses that examples can feed, the usual one first.

    Parameters
    ----------
    examples : Examples

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> fitting_losses(Examples("texts", (("a", "b"),)))
    ('simcse',)
    """
    if examples.kind == "texts":
        return ("simcse",) if examples.labels is None else ("multiple_negatives_ranking",)
    return FITTING[examples.kind]
