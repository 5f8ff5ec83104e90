"""The engines of the benchmark: how each is loaded, turns texts into vectors, and takes a training step.

All compute the same model in float32 on the CPU, with the same number of threads. Libraries are imported where they are
used: a worker holds one of them, and ours must not pay for PyTorch.

Those that train tokenise a batch of pairs, encode, compute multiple negatives ranking with cosines and a scale of 20,
the gradient of every weight, clipped to norm 1, then AdamW with a linear schedule and weight decay on all but biases
and LayerNorm. Ours is the step of ``training/finetune.py``; PyTorch's is that of ``SentenceTransformerTrainer``, with
the same optimiser fused. ONNX Runtime has none: the exported graph has no gradients.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minisbert.model import Array

Encode = Callable[[list[str], "int | None"], Array]  # texts and the batch size, to (B, D)
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


@dataclass(frozen=True)
class Setting:
    """What an engine is given."""

    engine: str  # of ENGINES
    folder: Path  # the model
    graph: Path  # the model as ONNX (:func:`export_graph`)
    num_threads: int
    max_seq_length: int


@dataclass(frozen=True)
class Engine:
    """One engine."""

    load: Callable[[Setting], Encode]
    train: Callable[[Setting], Train] | None
    needs: tuple[str, ...]  # required modules
    batch_sizes: tuple[int | None, ...]  # to try; None is the engine's own choice
    cold_start: str  # the shortest script from nothing to a vector; {folder} and {graph} are filled in


def load_minisbert(setting: Setting) -> Encode:
    """Load our encoder: (texts, batch size) -> (B, D)."""
    from minisbert.encoder import SentenceEncoder

    encoder = SentenceEncoder(setting.folder, max_seq_length=setting.max_seq_length)
    options: dict[str, Any] = {"overflow": "truncate", "deterministic": setting.engine == "minisbert-deterministic"}
    return lambda texts, batch_size: encoder.encode(
        texts, batch_size=batch_size, num_threads=setting.num_threads, **options
    )


def load_sentence_transformers(setting: Setting) -> Encode:
    """Load sentence-transformers, which computes with PyTorch."""
    model = torch_model(setting)
    return lambda texts, batch_size: np.asarray(
        model.encode(texts, batch_size=batch_size or 32, show_progress_bar=False)
    )


def torch_model(setting: Setting, **options: Any) -> Any:
    """The model as sentence-transformers loads it, on the CPU."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(setting.num_threads)
    model = SentenceTransformer(str(setting.folder), device="cpu", local_files_only=True, **options)
    model.max_seq_length = setting.max_seq_length
    return model


def load_onnxruntime(setting: Setting) -> Encode:
    """Load the exported graph into ONNX Runtime; batches are sorted by length and padded, as a user would."""
    import onnxruntime
    import tokenizers

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.num_threads
    session = onnxruntime.InferenceSession(str(setting.graph), options, providers=["CPUExecutionProvider"])
    tokenizer = tokenizers.Tokenizer.from_file(str(setting.folder / "tokenizer.json"))
    tokenizer.enable_truncation(setting.max_seq_length)
    tokenizer.enable_padding()

    def encode(texts: list[str], batch_size: int | None) -> Array:
        order = np.argsort([-len(text) for text in texts], kind="stable")
        vectors: list[Any] = [None] * len(texts)
        for start in range(0, len(texts), batch_size or 32):
            batch = order[start : start + (batch_size or 32)]
            tokens = tokenizer.encode_batch([texts[i] for i in batch])
            ids = np.array([one.ids for one in tokens], np.int64)
            mask = np.array([one.attention_mask for one in tokens], np.int64)
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            for i, vector in zip(batch, session.run(None, feed)[0], strict=True):
                vectors[i] = vector
        return np.array(vectors)

    return encode


def export_graph(setting: Setting) -> None:
    """Export a sentence-transformers folder, from token ids to sentence vectors, as one ONNX graph in float32."""
    import torch

    model = torch_model(setting, model_kwargs={"attn_implementation": "eager"}).eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]

    class Whole(torch.nn.Module):  # type: ignore[misc]  # torch is absent when types are checked
        """All modules of the folder, with tensors as arguments instead of a dictionary."""

        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(list(model))

        def forward(self, *tensors: Any) -> Any:
            """Run the modules one after the other."""
            features = dict(zip(names, tensors, strict=True))
            for part in self.parts:
                features = part(features)
            return features["sentence_embedding"]

    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 0]])
    example = (ids, torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]), torch.zeros_like(ids))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # about values that become constants; vectors are compared later
        torch.onnx.export(
            Whole(),
            example,
            str(setting.graph),
            input_names=names,
            output_names=["sentence_embedding"],
            dynamic_axes={**{name: {0: "texts", 1: "tokens"} for name in names}, "sentence_embedding": {0: "texts"}},
            opset_version=18,
            dynamo=False,  # the newer exporter's graph is slower here
        )


def train_minisbert(setting: Setting) -> Train:
    """Load our model for training."""
    from minisbert.encoder import SentenceEncoder
    from minisbert.model.tokens import OverflowReport
    from minisbert.training.losses import LOSSES
    from minisbert.training.optim import adamw, clip_gradients, init_adamw, warmup_linear
    from minisbert.training.step import (
        DropoutPlan,
        copy_parameters,
        named_parameters,
        replace_parameters,
        value_and_gradients,
    )

    encoder = SentenceEncoder(setting.folder, max_seq_length=setting.max_seq_length)
    ranking, num_threads = LOSSES["multiple_negatives_ranking"], setting.num_threads
    params = copy_parameters(named_parameters(encoder.model))  # the encoder keeps its own, as in `finetune`
    model = replace_parameters(encoder.model, params)
    state = init_adamw(params)

    def train(columns: Sequence[list[str]], dropout: float) -> StepTimes:
        marks = [time.perf_counter()]
        value_of = ranking.of_batch(columns)

        def loss(vectors: list[Any]) -> Any:
            result = value_of(vectors)
            marks.append(time.perf_counter())
            return result

        plan = DropoutPlan((0, 2, state.step), dropout, dropout) if dropout else None
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


_COLD_MINISBERT = "import minisbert; minisbert.SentenceEncoder({folder!r}).encode('hello world')"
_COLD_TORCH = (
    "from sentence_transformers import SentenceTransformer; "
    "SentenceTransformer({folder!r}, device='cpu', local_files_only=True).encode('hello world')"
)
_COLD_ONNXRUNTIME = """
import numpy, onnxruntime, tokenizers
session = onnxruntime.InferenceSession({graph!r}, providers=["CPUExecutionProvider"])
ids = numpy.array([tokenizers.Tokenizer.from_file({folder!r} + "/tokenizer.json").encode("hello world").ids])
ones = numpy.ones_like(ids)
session.run(None, {{"input_ids": ids, "attention_mask": ones, "token_type_ids": ones - 1}})
"""

_SIZES = (8, 16, 32, 64, 128)
_TORCH = ("torch", "transformers", "sentence_transformers")

ENGINES = {
    "minisbert": Engine(load_minisbert, train_minisbert, (), (None,), _COLD_MINISBERT),
    "minisbert-deterministic": Engine(load_minisbert, None, (), (None,), _COLD_MINISBERT),
    "sentence-transformers": Engine(
        load_sentence_transformers, train_sentence_transformers, _TORCH, _SIZES, _COLD_TORCH
    ),
    "onnxruntime": Engine(load_onnxruntime, None, (*_TORCH, "onnxruntime", "onnx"), _SIZES, _COLD_ONNXRUNTIME),
}
"""By the names that the table shows. The second gives a text the same bits in any company: what does that cost?"""


def check_installed(engines: Iterable[str]) -> None:
    """Raise for an engine that is not installed."""
    for name in engines:
        if absent := [module for module in ENGINES[name].needs if find_spec(module) is None]:
            raise ValueError(
                f"bench: {name} needs {', '.join(absent)}: `pip install torch==2.13.0` (a plain torch may bring "
                "gigabytes of CUDA), then `pip install -e '.[bench]'`; or measure only ours with --engine minisbert"
            )
