"""PyTorch's tensors and training steps under our names (extra ``verify``). Nothing of ours computes here.

sentence-transformers loads the folder, hooks on its modules catch what flows through them, and the padded rows of
each ``(B, T, D)`` are dropped, which leaves our strip ``(N, D)``. Training is its `MultipleNegativesRankingLoss`, with
`clip_grad_norm_` and `torch.optim.AdamW`.

``python -m minisbert.proof.reference`` records both beside this file; ``--check`` remakes and compares.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert import hub
from minisbert.model import Array
from minisbert.model.bert import equal_length_runs
from minisbert.proof.ledger import (
    RECORDED,
    Reference,
    compare,
    first_disagreement,
    format_ledger,
    read_recorded,
    thin,
    verdict,
)
from minisbert.proof.steps import (
    LEARNING_RATE,
    MAX_NORM,
    PAIRS,
    RECORDED_STEPS,
    SCALE,
    STEPS,
    WEIGHT_DECAY,
    TrainingSteps,
    read_steps,
    sample,
)

TEXTS = ("i love soup", "soup is my favorite", "london is far away")
# All rows are recorded and every 13th column of the wide tensors: 13 shares no factor with the head size 32, so all
# heads are met, and a mistake in any other column spreads to all of them in the next matrix product. That makes some
# hundred KB instead of five MB.
STEP = 13
STEPS_TOLERANCE = 1e-9  # float64; measured 1e-13 between versions, and kernels differ


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

    def watch(name: str, module: str) -> Any:
        """Keep what flows into or out of a module from now on."""

        def keep(_module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            kept[name] = (inputs[0] if name.endswith(INPUTS) else output).detach().clone()

        return bert.get_submodule(module).register_forward_hook(keep)

    hooks = [watch(f"embeddings.{ours}", f"embeddings.{theirs}") for ours, theirs in EMBEDDINGS.items()]
    for i in range(len(bert.encoder.layer)):
        hooks += [watch(f"layers.{i}.{ours}", f"encoder.layer.{i}.{theirs}") for ours, theirs in LAYER.items()]
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
    return Reference(tuple(texts), tensors, 1, _versions())


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


def torch_steps(folder: Path) -> TrainingSteps:
    """Train a few steps in PyTorch and keep what `our_steps` keeps."""
    model = load_torch(folder, "float64")
    import torch
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    # eval mode: no dropout, and gradients all the same; the pooler is not part of a sentence's vector
    named = {n: p for n, p in model[0].auto_model.named_parameters() if not n.startswith("pooler.")}
    groups: dict[float, list[Any]] = {WEIGHT_DECAY: [], 0.0: []}
    for name, p in named.items():
        groups[0.0 if name.endswith("bias") or "LayerNorm" in name else WEIGHT_DECAY].append(p)
    optimizer = torch.optim.AdamW([{"params": x, "weight_decay": w} for w, x in groups.items()], lr=LEARNING_RATE)
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
    return TrainingSteps(
        np.array(losses),
        np.array(norms),
        {name: sample(gradient) for name, gradient in gradients.items()},
        {name: float(np.linalg.norm(gradient)) for name, gradient in gradients.items()},
        _versions(),
    )


@click.command()
@click.option("--check", is_flag=True, help="Remake the tensors and compare; write nothing.")
def main(check: bool) -> None:
    """Record PyTorch's tensors and training steps for `minisbert verify` and the tests."""
    folder = hub.resolve().folder
    reference, steps = torch_reference(folder, TEXTS, "float64", 256), torch_steps(folder)
    if check:
        recorded, recorded_steps = read_recorded(), read_steps()
        rows = compare(reference.tensors, recorded, "float64")
        click.echo(format_ledger(rows))
        click.echo(f"\n{reference.origin}, against what was {recorded.origin}:\n{verdict(rows)}")
        losses = float(np.abs(steps.losses - recorded_steps.losses).max())
        name, gradients = recorded_steps.largest_difference(steps)
        click.echo(
            f"training steps, against what was recorded: losses {losses:.1e}, gradients {gradients:.1e} ({name})"
        )
        same_names = [row.name for row in rows] == list(recorded.tensors) == list(reference.tensors)
        same_gradients = list(recorded_steps.gradients) == list(steps.gradients)
        agrees = first_disagreement(rows) is None and max(losses, gradients) < STEPS_TOLERANCE
        sys.exit(0 if same_names and same_gradients and agrees else 1)
    libraries = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
    about = {
        "texts": TEXTS,
        "step": STEP,
        "model": hub.DEFAULT_MODEL,
        "versions": {"Python": platform.python_version(), **{name: version(name) for name in libraries}},
    }
    thinned: dict[str, Any] = {name: thin(tensor, name, STEP) for name, tensor in reference.tensors.items()}
    np.savez_compressed(RECORDED, about=np.array(json.dumps(about)), **thinned)
    click.echo(f"{RECORDED.name}: {len(thinned)} tensors, {RECORDED.stat().st_size:,} bytes")
    kept: dict[str, Any] = {f"gradient.{i}": gradient for i, gradient in enumerate(steps.gradients.values())}
    np.savez_compressed(
        RECORDED_STEPS,
        about=np.array(json.dumps({"names": list(steps.gradients), "origin": steps.origin})),
        losses=steps.losses,
        norms=steps.norms,
        lengths=np.array(list(steps.lengths.values())),
        **kept,
    )
    click.echo(f"{RECORDED_STEPS.name}: {len(kept)} gradients, {RECORDED_STEPS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
