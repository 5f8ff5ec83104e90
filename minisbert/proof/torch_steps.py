"""The same training steps in PyTorch, for the record (extra ``verify``). Nothing of ours computes here.

sentence-transformers' model and `MultipleNegativesRankingLoss`, `clip_grad_norm_` and `torch.optim.AdamW`, in float64.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.proof.steps import LEARNING_RATE, MAX_NORM, PAIRS, SCALE, STEPS, WEIGHT_DECAY, TrainingSteps, sample
from minisbert.proof.torch_model import load_torch

__all__ = ["torch_steps"]


def torch_steps(folder: Path) -> TrainingSteps:
    """Train a few steps in PyTorch and keep what `our_steps` keeps."""
    model = load_torch(folder, "float64")
    import torch
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    # eval mode: no dropout, and gradients all the same; the pooler is not part of a sentence's vector
    named = {n: p for n, p in model[0].auto_model.named_parameters() if not n.startswith("pooler.")}
    not_decayed = {name: name.endswith("bias") or "LayerNorm" in name for name in named}
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named.items() if not not_decayed[name]], "weight_decay": WEIGHT_DECAY},
        {"params": [p for name, p in named.items() if not_decayed[name]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    loss = MultipleNegativesRankingLoss(model, scale=SCALE)
    losses, norms = [], []
    gradients: dict[str, Any] = {}
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = loss([model.tokenize([pair[side] for pair in PAIRS]) for side in (0, 1)], None)
        value.backward()
        gradients = gradients or {name: p.grad.numpy().copy() for name, p in named.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(list(named.values()), MAX_NORM).item())
        losses.append(value.item())
        optimizer.step()
    origin = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "sentence-transformers"))
    return TrainingSteps(
        np.array(losses),
        np.array(norms),
        {name: sample(gradient) for name, gradient in gradients.items()},
        {name: float(np.linalg.norm(gradient)) for name, gradient in gradients.items()},
        origin,
    )
