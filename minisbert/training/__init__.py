"""Contrastive training in plain NumPy: losses with gradients by hand, AdamW, gradient checks, fine-tuning.

To be read in this order: ``losses.py`` (seven losses, each with its gradient), ``step.py`` (a batch to its loss and all
gradients), ``optim.py`` (AdamW, warm-up, clipping), ``gradcheck.py`` (is a gradient right?), ``data.py`` (a file to
examples, examples to batches), ``finetune.py`` (batch after batch, the best weights kept, resumable), ``descent.py``
(InfoNCE on points of a plane; alignment and uniformity).
"""

from minisbert.training.data import Examples, read_examples
from minisbert.training.descent import alignment, uniformity
from minisbert.training.finetune import Settings, finetune, read_dev
from minisbert.training.gradcheck import check_backward, check_encoder, check_gradients
from minisbert.training.losses import (
    LOSSES,
    LossResult,
    contrastive,
    cosent,
    cosine_similarity,
    find_false_negatives,
    multiple_negatives_ranking,
    simcse,
    softmax_classification,
    triplet,
)
from minisbert.training.optim import adamw, clip_gradients, init_adamw, warmup_linear
from minisbert.training.step import value_and_gradients

__all__ = [
    "Examples",
    "LOSSES",
    "LossResult",
    "Settings",
    "adamw",
    "alignment",
    "check_backward",
    "check_encoder",
    "check_gradients",
    "clip_gradients",
    "contrastive",
    "cosent",
    "cosine_similarity",
    "find_false_negatives",
    "finetune",
    "init_adamw",
    "multiple_negatives_ranking",
    "read_dev",
    "read_examples",
    "simcse",
    "softmax_classification",
    "triplet",
    "uniformity",
    "value_and_gradients",
    "warmup_linear",
]
