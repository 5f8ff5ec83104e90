"""BERT's weights, one named field each, and the only place that knows what checkpoints call them.

The dataclasses are the table of contents of a BERT. Shapes are the checkpoint's own; a weight is ``(d_out, d_in)`` and
is used as ``x @ weight.T + bias``. :func:`build_params` says once which tensor goes where; loading, saving, random
weights and error messages all follow from it.

Letters: ``V`` vocabulary, ``P`` positions, ``S`` token types, ``D`` hidden size, ``F`` feed-forward size, ``L`` layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minisbert.model import Array
from minisbert.model.checkpoint import StoredTensor, read_checkpoint
from minisbert.model.config import BertConfig, ModelFolderError


@dataclass(frozen=True)
class LinearParams:
    """``y = x @ weight.T + bias``."""

    weight: Array  # (d_out, d_in)
    bias: Array  # (d_out,)


@dataclass(frozen=True)
class LayerNormParams:
    """The scale and shift of LayerNorm, after mean 0 and variance 1."""

    weight: Array  # (D,)
    bias: Array  # (D,)


@dataclass(frozen=True)
class EmbeddingParams:
    """Three tables and a LayerNorm: token ids -> first hidden state."""

    word: Array  # (V, D) one row per piece of the vocabulary
    position: Array  # (P, D) one row per place in a text
    token_type: Array  # (S, D) row 0 for a single text
    layer_norm: LayerNormParams


@dataclass(frozen=True)
class AttentionParams:
    """Four D x D matrices; all H heads lie side by side in them."""

    query: LinearParams
    key: LinearParams
    value: LinearParams
    output: LinearParams
    layer_norm: LayerNormParams


@dataclass(frozen=True)
class FeedForwardParams:
    """Two matrices, D -> F and F -> D."""

    expand: LinearParams
    contract: LinearParams
    layer_norm: LayerNormParams


@dataclass(frozen=True)
class LayerParams:
    """One of the L layers."""

    attention: AttentionParams
    feed_forward: FeedForwardParams


@dataclass(frozen=True)
class BertParams:
    """All weights of a BERT.

    Parameters
    ----------
    embeddings : EmbeddingParams
        The three tables and their LayerNorm.
    layers : tuple of LayerParams
        ``L`` of them, each an ``attention`` and a ``feed_forward``.
    """

    embeddings: EmbeddingParams
    layers: tuple[LayerParams, ...]


def build_params(config: BertConfig, tensor: Callable[[str, tuple[int, ...]], Array]) -> BertParams:
    """Assemble the weights by calling ``tensor(name, shape)`` once per tensor, in the order of the dataclasses' fields.

    **Source**: the ``state_dict`` of ``transformers.BertModel``.
    """
    d, f = config.hidden_size, config.intermediate_size

    def linear(name: str, d_out: int, d_in: int) -> LinearParams:
        return LinearParams(tensor(f"{name}.weight", (d_out, d_in)), tensor(f"{name}.bias", (d_out,)))

    def layer_norm(name: str) -> LayerNormParams:
        return LayerNormParams(tensor(f"{name}.weight", (d,)), tensor(f"{name}.bias", (d,)))

    def layer(name: str) -> LayerParams:
        attention = AttentionParams(
            query=linear(f"{name}.attention.self.query", d, d),
            key=linear(f"{name}.attention.self.key", d, d),
            value=linear(f"{name}.attention.self.value", d, d),
            output=linear(f"{name}.attention.output.dense", d, d),
            layer_norm=layer_norm(f"{name}.attention.output.LayerNorm"),
        )
        feed_forward = FeedForwardParams(
            expand=linear(f"{name}.intermediate.dense", f, d),
            contract=linear(f"{name}.output.dense", d, f),
            layer_norm=layer_norm(f"{name}.output.LayerNorm"),
        )
        return LayerParams(attention, feed_forward)

    embeddings = EmbeddingParams(
        word=tensor("embeddings.word_embeddings.weight", (config.vocab_size, d)),
        position=tensor("embeddings.position_embeddings.weight", (config.max_position_embeddings, d)),
        token_type=tensor("embeddings.token_type_embeddings.weight", (config.type_vocab_size, d)),
        layer_norm=layer_norm("embeddings.LayerNorm"),
    )
    layers = tuple(layer(f"encoder.layer.{i}") for i in range(config.num_hidden_layers))
    return BertParams(embeddings, layers)


def tensor_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint must hold, in the order of :func:`flatten`.

    >>> len(tensor_shapes(BertConfig(num_hidden_layers=6)))  # 6 x 16 and 5
    101
    """
    shapes: dict[str, tuple[int, ...]] = {}
    nothing = np.empty(0)

    def note(name: str, shape: tuple[int, ...]) -> Array:
        shapes[name] = shape
        return nothing

    build_params(config, note)
    return shapes


def flatten(tree: Any) -> Iterator[Array]:
    """Give the arrays of a nested dataclass one by one, in the order of its fields."""
    if isinstance(tree, np.ndarray):
        yield tree
        return
    branches = tree if isinstance(tree, tuple) else [getattr(tree, field.name) for field in fields(tree)]
    for branch in branches:
        yield from flatten(branch)


def random_params(
    config: BertConfig, rng: np.random.Generator, dtype: npt.DTypeLike = np.float64, scale: float = 0.02
) -> BertParams:
    """Draw untrained weights.

    Parameters
    ----------
    config : BertConfig
    rng : np.random.Generator
    dtype : DTypeLike
    scale : float
        Standard deviation; BERT starts from 0.02 (``initializer_range``).

    Returns
    -------
    BertParams
        Normal around 0, LayerNorm weights around 1. Biases and LayerNorm are drawn too, so that a test notices when one
        is left out.

    Examples
    --------
    >>> random_params(BertConfig(vocab_size=5), np.random.default_rng(0)).embeddings.word.shape
    (5, 768)
    """

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        return rng.normal(centre, scale, shape).astype(dtype)

    return build_params(config, draw)


def load_params(folder: Path, config: BertConfig, dtype: npt.DTypeLike = np.float32) -> BertParams:
    """Read a folder's weights into named fields.

    Parameters
    ----------
    folder : Path
        Holds ``model.safetensors``, or ``model.safetensors.index.json`` and the files that it names.
    config : BertConfig
        What the weights must fit.
    dtype : DTypeLike
        float32 or float64; F16 and BF16 checkpoints are widened.

    Returns
    -------
    BertParams
        Matrices are in Fortran order, which makes ``x @ weight.T`` up to 1.6x faster on few rows and changes nothing
        else. Tables may be the mapped file itself: not to be written to.

    Raises
    ------
    ModelFolderError
        For missing, unexpected and misshapen tensors, all in one message; for NaN, infinite or absurdly large numbers.

    Examples
    --------
    >>> load_params(Path("no/such/folder"), BertConfig())
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: no/such/folder: there is no model.safetensors; ...
    """
    stored = _by_our_names(read_checkpoint(folder), folder)
    if config.num_hidden_layers > len(stored):  # said first: a list of what a million layers lack has no end
        raise ModelFolderError(
            f"{(folder / 'config.json').as_posix()}: says num_hidden_layers {config.num_hidden_layers}, but there are "
            f"only {len(stored)} tensors in the safetensors file"
        )
    _check_tensors(stored, tensor_shapes(config), folder)

    def read(name: str, shape: tuple[int, ...]) -> Array:
        values = stored[name].read(dtype)
        # rows of the embedding tables are looked up one by one: they stay in C order
        return values if name.startswith("embeddings.") else np.asfortranarray(values)

    return build_params(config, read)


def _by_our_names(checkpoint: dict[str, StoredTensor], folder: Path) -> dict[str, StoredTensor]:
    """Undo what checkpoints add to the names, and drop what a sentence vector does not need."""
    named: dict[str, StoredTensor] = {}
    for original, tensor in checkpoint.items():
        name = original.removeprefix("bert.")
        # the names of BERT's first release, still found in converted checkpoints
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name == "embeddings.position_ids" or name.startswith(("pooler.", "cls.")):
            continue  # 0, 1, 2, ..; the next-sentence head; the masked-word head
        if name in named:
            raise ModelFolderError(
                f"{folder.as_posix()}: the tensor {name!r} is there twice, as {named[name].name!r} and {original!r}"
            )
        named[name] = tensor
    return named


def _check_tensors(stored: dict[str, StoredTensor], wanted: dict[str, tuple[int, ...]], folder: Path) -> None:
    """Compare names and shapes with what the configuration asks for, and report every difference at once."""
    misshapen = [
        f"{name} has shape {stored[name].shape}, config.json asks for {shape}"
        for name, shape in wanted.items()
        if name in stored and stored[name].shape != shape
    ]
    problems = {
        "missing": [name for name in wanted if name not in stored],
        "unexpected": [tensor.name for name, tensor in stored.items() if name not in wanted],
        "misshapen": misshapen,
    }
    lines = []
    for kind, found in problems.items():
        if found:
            rest = f"; and {len(found) - 20} more" if len(found) > 20 else ""
            lines.append(f"  {len(found)} {kind}: {'; '.join(found[:20])}{rest}")
    if lines:
        files = sorted({tensor.file.name for tensor in stored.values()})
        raise ModelFolderError(
            f"{folder.as_posix()}: the tensors in {files[0]}{', ..' if len(files) > 1 else ''} do not fit config.json\n"
            + "\n".join(lines)
        )
