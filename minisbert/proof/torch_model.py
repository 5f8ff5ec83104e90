"""PyTorch's tensors under our names: the other side of the ledger (extra ``verify``). Nothing of ours computes here.

sentence-transformers loads the folder, hooks on its modules catch what flows through them, and the padded rows of
each ``(B, T, D)`` are dropped, which leaves our strip ``(N, D)``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.model import Array
from minisbert.model.bert import equal_length_runs
from minisbert.proof.ledger import Reference


def torch_reference(folder: Path, texts: Sequence[str], dtype: str, max_seq_length: int) -> Reference:
    """Send texts through PyTorch and keep every tensor that our trace keeps.

    >>> from minisbert import hub
    >>> folder = hub.resolve().folder
    >>> torch_reference(folder, ["i love soup"], "float64", 256).tensors["embeddings.word"].shape
    (5, 384)
    """
    model = load_torch(folder, dtype)
    import torch

    inputs = dict(
        model.tokenizer(list(texts), padding=True, truncation=True, max_length=max_seq_length, return_tensors="pt")
    )
    mask = inputs["attention_mask"].bool()
    kept: dict[str, Any] = {}
    bert = model[0].auto_model
    hooks = [_watch(module, side, name, kept) for name, module, side in _watched(bert)]
    try:
        with torch.no_grad():
            output = bert(**inputs, output_attentions=True)
            features = {"token_embeddings": output.last_hidden_state, "attention_mask": inputs["attention_mask"]}
            results = []
            for module in list(model)[1:]:
                features = module(features)
                results.append(features["sentence_embedding"].clone())
    finally:
        for hook in hooks:
            hook.remove()
    tensors = {"token_ids": inputs["input_ids"][mask].numpy()}
    tensors |= _in_our_order(kept, output.attentions, mask)
    tensors |= {f"modules.{i}": result.numpy() for i, result in enumerate(results[:-1])}
    tensors["sentence_embedding"] = results[-1].numpy()
    origin = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "sentence-transformers"))
    return Reference(tuple(texts), tensors, 1, origin)


def load_torch(folder: Path, dtype: str) -> Any:
    """Load a folder with sentence-transformers, without the fused attention that hides its probabilities."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ValueError(
            f"the comparison with live PyTorch needs the verify extra ({error}): pip install 'minisbert[verify]'; "
            "without it, `minisbert verify` compares with recorded tensors"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries about each other
        model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"attn_implementation": "eager"})
    model = model.double() if dtype == "float64" else model.float()
    return model.eval()


def _watched(bert: Any) -> list[tuple[str, Any, str]]:
    """List our name, PyTorch's module, and on which side of that module the tensor flows."""
    places = [
        ("embeddings.word", bert.embeddings.word_embeddings, "output"),
        ("embeddings.position", bert.embeddings.position_embeddings, "output"),
        ("embeddings.summed", bert.embeddings.LayerNorm, "input"),
        ("embeddings.output", bert.embeddings.LayerNorm, "output"),
    ]
    for i, layer in enumerate(bert.encoder.layer):
        attention, name = layer.attention, f"layers.{i}.attention"
        places += [
            (f"{name}.query", attention.self.query, "output"),
            (f"{name}.key", attention.self.key, "output"),
            (f"{name}.value", attention.self.value, "output"),
            (f"{name}.context", attention.output.dense, "input"),
            (f"{name}.projected", attention.output.dense, "output"),
            (f"{name}.summed", attention.output.LayerNorm, "input"),
            (f"{name}.output", attention.output.LayerNorm, "output"),
        ]
        name = f"layers.{i}.feed_forward"
        places += [
            (f"{name}.expanded", layer.intermediate.dense, "output"),
            (f"{name}.activated", layer.output.dense, "input"),
            (f"{name}.projected", layer.output.dense, "output"),
            (f"{name}.summed", layer.output.LayerNorm, "input"),
            (f"{name}.output", layer.output.LayerNorm, "output"),
        ]
    return places


def _watch(module: Any, side: str, name: str, kept: dict[str, Any]) -> Any:
    """Keep what flows into or out of a module from now on."""

    def keep(_module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        kept[name] = (inputs[0] if side == "input" else output).detach().clone()

    return module.register_forward_hook(keep)


def _in_our_order(kept: dict[str, Any], attentions: Sequence[Any], mask: Any) -> dict[str, Array]:
    """Drop the padded rows, and put each layer's attention probabilities behind its values."""
    lengths = mask.sum(dim=1).numpy()
    tensors: dict[str, Array] = {}
    for name, tensor in kept.items():
        # the position table answers once for all texts
        tensors[name] = tensor.expand(*mask.shape, -1)[mask].numpy()
        if name.endswith(".attention.value"):
            probs = attentions[int(name.split(".")[1])].numpy()  # (B, H, T, T), padded
            first = 0
            for run, (_rows, count, length) in enumerate(equal_length_runs(np.asarray(lengths))):
                tensors[f"{name[: -len('value')]}probs.{run}"] = probs[first : first + count, :, :length, :length]
                first += count
    return tensors
