"""PyTorch's tensors and training steps under our names (extra ``verify``). Nothing of ours computes here.

sentence-transformers loads the folder, hooks on its modules catch what flows through them, and the padded rows of
each ``(B, T, D)`` are dropped, which leaves our strip ``(N, D)``. Training is its `MultipleNegativesRankingLoss`, with
`clip_grad_norm_` and `torch.optim.AdamW`.

``python -m minisbert.proof.reference`` records both beside this file.
"""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert import hub
from minisbert.model import Array
from minisbert.model.bert import equal_length_runs
from minisbert.proof import steps as training
from minisbert.proof.ledger import RECORDED, Reference, thin
from minisbert.proof.steps import RECORDED_STEPS, TrainingSteps

TEXTS = ("i love soup", "soup is my favorite", "london is far away")
# All rows are recorded and every 13th column of the wide tensors: 13 shares no factor with the head size 32, so all
# heads are met, and a mistake in any other column spreads to all of them in the next matrix product. That makes some
# hundred KB instead of five MB.
STEP = 13


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
    with torch.no_grad():
        tensors, last = bert_tensors(model[0].auto_model, inputs)
        features, vectors = {"token_embeddings": last, "attention_mask": inputs["attention_mask"]}, []
        for module in list(model)[1:]:
            features = module(features)
            vectors.append(features["sentence_embedding"].numpy().copy())
    names = [*(f"modules.{i}" for i in range(len(vectors) - 1)), "sentence_embedding"]
    return Reference(tuple(texts), {**tensors, **dict(zip(names, vectors, strict=True))}, 1, _versions())


# our names, and PyTorch's modules that make them; those of INPUTS flow into the module
EMBEDDINGS = {
    "word": "word_embeddings",
    "position": "position_embeddings",
    "summed": "LayerNorm",
    "output": "LayerNorm",
}
LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.context": "attention.output.dense",
    "attention.projected": "attention.output.dense",
    "attention.summed": "attention.output.LayerNorm",
    "attention.output": "attention.output.LayerNorm",
    "feed_forward.expanded": "intermediate.dense",
    "feed_forward.activated": "output.dense",
    "feed_forward.projected": "output.dense",
    "feed_forward.summed": "output.LayerNorm",
    "feed_forward.output": "output.LayerNorm",
}
INPUTS = ("summed", "context", "activated")


def bert_tensors(bert: Any, inputs: Mapping[str, Any]) -> tuple[dict[str, Array], Any]:
    """Every tensor of a ``transformers.BertModel`` under our names, without padding; and its last hidden state."""
    mask = inputs["attention_mask"].bool()
    runs = list(equal_length_runs(mask.sum(dim=1).numpy()))
    places = {f"embeddings.{ours}": f"embeddings.{theirs}" for ours, theirs in EMBEDDINGS.items()}
    for i in range(len(bert.encoder.layer)):
        places |= {f"layers.{i}.{ours}": f"encoder.layer.{i}.{theirs}" for ours, theirs in LAYER.items()}
    kept: dict[str, Any] = {}
    with ExitStack() as hooks:
        for name, module in places.items():

            def keep(_module: Any, inputs: tuple[Any, ...], output: Any, name: str = name) -> None:
                kept[name] = (inputs[0] if name.endswith(INPUTS) else output).detach().clone()

            hooks.callback(bert.get_submodule(module).register_forward_hook(keep).remove)
        output = bert(**inputs, output_attentions=True)
    tensors = {"token_ids": inputs["input_ids"][mask].numpy()}
    for name in places:  # in the order of computation
        # the position table answers once for all texts
        tensors[name] = kept[name].expand(*mask.shape, -1)[mask].numpy()
        if name.endswith(".attention.value"):
            probs, first = output.attentions[int(name.split(".")[1])].detach().numpy(), 0  # (B, H, T, T), padded
            for run, (_rows, count, length) in enumerate(runs):
                tensors[f"{name[: -len('value')]}probs.{run}"] = probs[first : first + count, :, :length, :length]
                first += count
    return tensors, output.last_hidden_state


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "sentence-transformers"))


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


def torch_steps(folder: Path) -> TrainingSteps:
    """Train a few steps in PyTorch and keep what `our_steps` keeps."""
    model = load_torch(folder, "float64")
    import torch
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    # eval mode: no dropout, and gradients all the same; the pooler is not part of a sentence's vector
    named = {n: p for n, p in model[0].auto_model.named_parameters() if not n.startswith("pooler.")}
    groups: dict[float, list[Any]] = {training.WEIGHT_DECAY: [], 0.0: []}
    for name, p in named.items():
        groups[0.0 if name.endswith("bias") or "LayerNorm" in name else training.WEIGHT_DECAY].append(p)
    optimizer = torch.optim.AdamW(
        [{"params": x, "weight_decay": w} for w, x in groups.items()], lr=training.LEARNING_RATE
    )
    loss = MultipleNegativesRankingLoss(model, scale=training.SCALE)
    losses, norms = [], []
    gradients: dict[str, Any] = {}
    for _ in range(training.STEPS):
        optimizer.zero_grad()
        value = loss([model.tokenize([pair[side] for pair in training.PAIRS]) for side in (0, 1)], None)
        value.backward()
        gradients = gradients or {name: p.grad.numpy().copy() for name, p in named.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(list(named.values()), training.MAX_NORM).item())
        losses.append(value.item())
        optimizer.step()
    return TrainingSteps.of(losses, norms, gradients, _versions())


def main() -> None:
    """Record PyTorch's tensors and training steps for `minisbert verify` and the tests."""
    folder = hub.resolve().folder
    reference, steps = torch_reference(folder, TEXTS, "float64", 256), torch_steps(folder)
    libraries = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
    about = {
        "texts": TEXTS,
        "step": STEP,
        "model": hub.DEFAULT_MODEL,
        "versions": {"Python": platform.python_version(), **{name: version(name) for name in libraries}},
    }
    thinned: dict[str, Any] = {name: thin(tensor, name, STEP) for name, tensor in reference.tensors.items()}
    np.savez_compressed(RECORDED, about=np.array(json.dumps(about)), **thinned)
    kept: dict[str, Any] = {f"gradient.{i}": gradient for i, gradient in enumerate(steps.gradients.values())}
    np.savez_compressed(
        RECORDED_STEPS,
        about=np.array(json.dumps({"names": list(steps.gradients), "origin": steps.origin})),
        losses=steps.losses,
        norms=steps.norms,
        lengths=np.array(list(steps.lengths.values())),
        **kept,
    )
    for file, found in ((RECORDED, thinned), (RECORDED_STEPS, kept)):
        click.echo(f"{file.name}: {len(found)} arrays, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
