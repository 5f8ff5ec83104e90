"""The engines of the benchmark: how each is loaded, and how it turns texts into vectors.

All compute the same model in float32 on the CPU, with the same number of threads. Libraries are imported where they are
used: a worker holds one of them, and ours must not pay for PyTorch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.model import Array

Encode = Callable[[list[str], "int | None"], Array]  # texts and the batch size, to (B, D)


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


_COLD_MINISBERT = "import minisbert; minisbert.SentenceEncoder({folder!r}).encode('hello world')"
_COLD_SENTENCE_TRANSFORMERS = (
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
    "minisbert": Engine(load_minisbert, (), (None,), _COLD_MINISBERT),
    "minisbert-deterministic": Engine(load_minisbert, (), (None,), _COLD_MINISBERT),
    "sentence-transformers": Engine(load_sentence_transformers, _TORCH, _SIZES, _COLD_SENTENCE_TRANSFORMERS),
    "onnxruntime": Engine(load_onnxruntime, (*_TORCH, "onnxruntime", "onnx"), _SIZES, _COLD_ONNXRUNTIME),
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
