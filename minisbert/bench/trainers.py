"""The engines that train: how each takes one step, and how long the parts of the step take.

Both tokenise a batch of pairs, encode, compute multiple negatives ranking with cosines and a scale of 20, the gradient
of every weight, clipped to norm 1, then AdamW with a linear schedule and weight decay on all but biases and LayerNorm.
Ours is the step of ``training/finetune.py``; PyTorch's is that of ``SentenceTransformerTrainer``, with the same
optimiser fused. ONNX Runtime is missing: the exported graph has no gradients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minisbert.bench.engines import Setting, torch_model

LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 2e-5, 0.01, 1.0
WARMUP_STEPS, TOTAL_STEPS = 2, 1000
"""Of the schedule: the first step, and steps after the last, have a rate of 0; they take as long."""


class StepTimes(NamedTuple):
    """The loss of one step, and how long its parts took."""

    loss: float
    forward: float  # seconds, from the texts to the loss
    backward: float  # seconds, from the loss to the gradient of every weight
    optimizer: float  # seconds, from the gradients to the next weights, clipping included


Train = Callable[[Sequence[list[str]], float], StepTimes]
"""(anchors and positives, dropout rate) -> a step, which updates the weights."""


def train_minisbert(setting: Setting) -> Train:
    """Load our model for training."""
    from minisbert.encoder import SentenceEncoder
    from minisbert.model.tokens import OverflowReport
    from minisbert.training.data import Batch
    from minisbert.training.finetune import Settings, objective
    from minisbert.training.optim import adamw, clip_gradients, init_adamw, warmup_linear
    from minisbert.training.step import (
        DropoutPlan,
        copy_parameters,
        named_parameters,
        replace_parameters,
        value_and_gradients,
    )

    encoder = SentenceEncoder(setting.folder, max_seq_length=setting.max_seq_length)
    settings, num_threads = Settings(), setting.num_threads
    params = copy_parameters(named_parameters(encoder.model))  # the encoder keeps its own, as in `finetune`
    model = replace_parameters(encoder.model, params)
    state = init_adamw(params)

    def train(columns: Sequence[list[str]], dropout: float) -> StepTimes:
        marks = [time.perf_counter()]
        batch = Batch(tuple(map(tuple, columns)), None, np.arange(len(columns[0])))
        value_of = objective(settings, batch, params)

        def loss(vectors: list[Any]) -> Any:
            result = value_of(vectors)
            marks.append(time.perf_counter())
            return result

        plan = DropoutPlan((settings.seed, 2, state.step), dropout, dropout) if dropout else None
        report = OverflowReport(encoder.max_seq_length, "truncate")
        step = value_and_gradients(model, columns, loss, dropout=plan, num_threads=num_threads, report=report)
        marks.append(time.perf_counter())
        clip_gradients(step.gradients, MAX_NORM, num_threads=num_threads)
        rate = LEARNING_RATE * warmup_linear(state.step, WARMUP_STEPS, TOTAL_STEPS)
        adamw(params, step.gradients, state, learning_rate=rate, weight_decay=WEIGHT_DECAY, num_threads=num_threads)
        marks.append(time.perf_counter())
        return StepTimes(step.value, *np.diff(marks).tolist())

    return train


def train_sentence_transformers(setting: Setting) -> Train:
    """Load sentence-transformers for training, which computes with PyTorch."""
    import torch
    from sentence_transformers import losses
    from transformers import get_linear_schedule_with_warmup

    torch.manual_seed(0)
    model = torch_model(setting).train()
    preprocess = getattr(model, "preprocess", None) or model.tokenize  # its name before version 5.4
    loss = losses.MultipleNegativesRankingLoss(model)
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in (WEIGHT_DECAY, 0.0)]
    for name, parameter in model.named_parameters():
        groups[name.endswith("bias") or "LayerNorm" in name]["params"].append(parameter)
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP_STEPS, TOTAL_STEPS)
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]

    def train(columns: Sequence[list[str]], dropout: float) -> StepTimes:
        for layer in layers:
            layer.p = dropout
        marks = [time.perf_counter()]
        value = loss([preprocess(column) for column in columns], None)
        number = value.item()
        marks.append(time.perf_counter())
        value.backward()
        marks.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        marks.append(time.perf_counter())
        return StepTimes(number, *np.diff(marks).tolist())

    return train


TRAINERS: dict[str, Callable[[Setting], Train]] = {
    "minisbert": train_minisbert,
    "sentence-transformers": train_sentence_transformers,
}
"""By the names of :data:`~minisbert.bench.engines.ENGINES`."""
