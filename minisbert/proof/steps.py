"""A few training steps beside PyTorch's, without PyTorch: what it computed is recorded in ``steps.npz``.

Eight pairs of sentences, some easily confused, go through the real model in float64: loss, gradients, clipping, AdamW,
five times, without dropout, which no two libraries draw alike. Of each gradient of the first step some numbers are
kept, and its length; of the other steps loss and norm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minisbert.model import Array
from minisbert.model.folder import SentenceModel
from minisbert.model.params import RowGradient
from minisbert.training.losses import multiple_negatives_ranking
from minisbert.training.optim import adamw, clip_gradients, init_adamw
from minisbert.training.step import copy_parameters, named_parameters, replace_parameters, value_and_gradients

RECORDED_STEPS = Path(__file__).parent / "steps.npz"
STEPS, LEARNING_RATE, WEIGHT_DECAY, MAX_NORM, SCALE = 5, 2e-5, 0.01, 1.0, 20.0
KEPT = 61  # numbers of each gradient
PAIRS = (
    ("A man is playing the guitar.", "Someone plays a stringed instrument."),
    ("A man is playing the piano.", "Someone sits at the keys and makes music."),
    ("A woman is playing the flute.", "She blows into her instrument."),
    ("Two children run through the snow.", "Kids are out in the cold."),
    ("Two children swim in the lake.", "Kids are getting wet."),
    ("The dog is afraid of thunder.", "A storm frightens the animal."),
    ("The dog sleeps on the sofa.", "The animal is resting on a couch."),
    ("The bank raised its interest rate.", "Borrowing money costs more now."),
)
"""Anchors and positives: each sentence's other words for the same."""


@dataclass(frozen=True, eq=False)
class TrainingSteps:
    """What some steps of training gave."""

    losses: Array  # (steps,)
    norms: Array  # (steps,) of all gradients together, before clipping
    gradients: dict[str, Array]  # of the first step, by parameter: (KEPT,) numbers at most, in `sample`'s order
    lengths: dict[str, float]  # of each of those gradients, as a whole
    origin: str  # which libraries

    @classmethod
    def of(cls, losses: list[float], norms: list[float], gradients: dict[str, Array], origin: str) -> TrainingSteps:
        """Of the gradients a sample, and their lengths."""
        kept = {name: sample(gradient) for name, gradient in gradients.items()}
        lengths = {name: float(np.linalg.norm(gradient)) for name, gradient in gradients.items()}
        return cls(np.array(losses), np.array(norms), kept, lengths, origin)

    def largest_difference(self, other: TrainingSteps) -> tuple[str, float]:
        """Name the parameter whose first gradient differs most, relative to its length, and say by how much.

        A key bias's gradient is zero on paper, since adding the same to all scores of a softmax changes nothing, and
        mere rounding in fact: its length is no measure, so the length of its weight's gradient is taken.
        """
        differences = {}
        for name, kept in self.gradients.items():
            whole = self.lengths[name.replace("key.bias", "key.weight")]
            differences[name] = float(np.abs(kept - other.gradients[name]).max()) / whole
        worst = max(differences, key=lambda name: differences[name])
        return worst, differences[worst]


def sample(gradient: Array) -> Array:
    """Keep ``KEPT`` numbers of a gradient at most, spread over all of it.

    >>> sample(np.arange(1000.0).reshape(10, 100))[:3]
    array([ 0., 16., 32.])
    """
    flat = np.ravel(gradient)  # row by row, whatever lies in memory
    return np.asarray(flat[:: max(1, len(flat) // KEPT)][:KEPT])


def read_steps(file: Path = RECORDED_STEPS) -> TrainingSteps:
    """Read the steps that PyTorch computed.

    >>> len(read_steps().gradients), read_steps().losses.shape
    (101, (5,))
    """
    with np.load(file) as stored:
        about = json.loads(str(stored["about"]))
        names = about["names"]
        gradients = {name: stored[f"gradient.{i}"] for i, name in enumerate(names)}
        lengths = dict(zip(names, stored["lengths"].tolist(), strict=True))
        return TrainingSteps(stored["losses"], stored["norms"], gradients, lengths, about["origin"])


def our_steps(model: SentenceModel, steps: int = STEPS) -> TrainingSteps:
    """Take the same steps in NumPy; ``model`` is all-MiniLM-L6-v2, in float64 for proof or float32.

    >>> from minisbert import SentenceEncoder
    >>> found = our_steps(SentenceEncoder(dtype="float64").model, steps=1)
    >>> bool(abs(found.losses - read_steps().losses[:1]).max() < 1e-9)
    True
    """
    columns = [[pair[side] for pair in PAIRS] for side in (0, 1)]
    params = copy_parameters(named_parameters(model))
    state, losses, norms = init_adamw(params), [], []
    first: dict[str, Array] = {}
    for _ in range(steps):
        current = replace_parameters(model, params)
        step = value_and_gradients(current, columns, lambda v: multiple_negatives_ranking(*v, scale=SCALE))
        if not first:  # before they are clipped, in place
            first = {name: g.dense() if isinstance(g, RowGradient) else g.copy() for name, g in step.gradients.items()}
        losses.append(step.value)
        norms.append(clip_gradients(step.gradients, MAX_NORM))
        adamw(params, step.gradients, state, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    return TrainingSteps.of(losses, norms, first, f"minisbert, numpy {np.__version__}")
