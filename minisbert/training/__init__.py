"""Contrastive training in plain NumPy: losses with hand-written gradients, optimisers, fine-tuning, gradient checks.

To be read in this order: ``data.py`` (a file to examples, examples to batches), ``finetune.py`` (batch after batch, the
best weights kept, resumable), ``descent.py`` (InfoNCE on points of a plane; alignment and uniformity).
"""

from minisbert.training.data import Examples, read_examples
from minisbert.training.descent import alignment, uniformity
from minisbert.training.finetune import Settings, finetune, read_dev

__all__ = ["Examples", "Settings", "alignment", "finetune", "read_dev", "read_examples", "uniformity"]
