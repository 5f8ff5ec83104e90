"""BERT's weights, one named field each, read from safetensors files; and gradients of the same shape.

The dataclasses are the table of contents of a BERT. Shapes are the checkpoint's own; a weight is ``(d_out, d_in)`` and
is used as ``x @ weight.T + bias``. :func:`build_params` says once which tensor goes where; loading, saving, random
weights and error messages all follow from it.

Letters: ``V`` vocabulary, ``P`` positions, ``S`` token types, ``D`` hidden size, ``F`` feed-forward size, ``L`` layers,
``U`` distinct pieces of a batch.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from minisbert.model import Array
from minisbert.model.config import BertConfig, read_json, refusal, what_to_do


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
    embeddings, layers
        The tables, and L layers.

    Examples
    --------
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=2, num_attention_heads=2,
    ...                     intermediate_size=6)
    >>> params = random_params(config, np.random.default_rng(0))
    >>> len(params.layers), params.layers[0].feed_forward.expand.weight.shape
    (2, (6, 4))
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


def walk(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Give the arrays of nested dataclasses and tuples, in the order of the fields, each with the path to it."""
    if isinstance(tree, (np.ndarray, RowGradient)):
        yield path, tree
    elif tree is not None:  # a mask of dropout, which only training has
        own = enumerate(tree) if isinstance(tree, tuple) else ((f.name, getattr(tree, f.name)) for f in fields(tree))
        for step, branch in own:
            yield from walk(branch, f"{path}.{step}" if path else str(step))


def flatten(tree: Any) -> Iterator[Any]:
    """Give the arrays of weights, or of their gradients, one by one."""
    return (array for _, array in walk(tree))


def random_params(
    config: BertConfig, rng: np.random.Generator, dtype: npt.DTypeLike = np.float64, scale: float = 0.02
) -> BertParams:
    """Draw untrained weights.

    Normal around 0, LayerNorm weights around 1. Biases and LayerNorm are drawn too, so that a test notices when one is
    left out.

    Parameters
    ----------
    config, rng, dtype
    scale : float
        Standard deviation; BERT starts from 0.02 (``initializer_range``).

    Examples
    --------
    >>> random_params(BertConfig(vocab_size=5, num_hidden_layers=1), np.random.default_rng(0)).embeddings.word.shape
    (5, 768)
    """

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        return rng.normal(centre, scale, shape).astype(dtype)

    return build_params(config, draw)


# No weight of a trained BERT comes near it; one wrong bit in an exponent goes far beyond, and makes every text NaN.
_LARGEST = 1e6
_NUMPY_DTYPE = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies, before its numbers are touched."""

    file: Path
    name: str
    dtype: str  # safetensors' name: F32, BF16, ..
    shape: tuple[int, ...]
    content: Array  # its bytes, mapped

    def read(self, dtype: npt.DTypeLike) -> Array:
        """Read the numbers, converted to ``dtype``; refuse NaN, infinity and what only damage can have made so large.

        The result is the mapped file itself where its dtype is the stored one: not to be written to.
        """
        where = f"tensor {self.name!r}"
        if self.dtype not in _NUMPY_DTYPE:
            known = ", ".join(_NUMPY_DTYPE)
            raise refusal(self.file, f"{where} is stored as {self.dtype}; read here: {known} (is the model quantised?)")
        stored = self.content.view(_NUMPY_DTYPE[self.dtype])
        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32, and NumPy has no such type: the lower half becomes zeros
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        # what float32 cannot hold becomes infinite here, and is refused below
        with np.errstate(over="ignore", invalid="ignore"):
            values = stored.astype(dtype, copy=False).reshape(self.shape)
        # needs no copy of the numbers, and NaN is neither above nor below anything
        if values.size and not (values.min() >= -_LARGEST and values.max() <= _LARGEST):
            bad = f"{np.sum(~(np.abs(values) <= _LARGEST))} numbers that are NaN, infinite or beyond {_LARGEST:g}"
            raise refusal(self.file, f"{where} holds {bad}; the file is damaged, or its training diverged")
        return values


def read_checkpoint(folder: Path) -> dict[str, StoredTensor]:
    """List every tensor of a folder's checkpoint, by the names in the files, without reading its numbers."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if os.path.lexists(single):  # a link to nothing, or a folder of that name, is an error to report
        return read_header(single)
    if index.is_file():
        return _read_shards(index)
    pickles = [name for name in ("pytorch_model.bin", "tf_model.h5") if (folder / name).exists()]
    hint = (
        f"; {pickles[0]} is not read, because opening such a file can run code: convert it once with "
        "sentence-transformers' model.save(folder)"
        if pickles
        else "; was the folder copied whole?"
    )
    raise refusal(folder, f"there is no model.safetensors{hint}")


def _read_shards(index: Path) -> dict[str, StoredTensor]:
    """Follow an index to the files that hold the tensors between them."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise refusal(index, "expected a 'weight_map' from tensor names to file names")
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(weight_map.values())):
        # the index comes from strangers: a name with a slash in it could leave the folder
        if Path(file).name != file or "\\" in file or not (index.parent / file).is_file():
            raise refusal(index, f"names the file {file!r}, which is not in this folder; fetch the missing part")
        tensors |= {
            name: tensor for name, tensor in read_header(index.parent / file).items() if weight_map.get(name) == file
        }
    if missing := sorted(weight_map.keys() - tensors.keys()):
        raise refusal(index, f"{len(missing)} tensors are not in the files named for them, first {missing[0]!r}")
    return tensors


def read_header(file: Path) -> dict[str, StoredTensor]:
    """List the tensors of one safetensors file, with their places.

    The arrays that ``safe_open`` itself gives are copies: measured on all-MiniLM-L6-v2 they take 60 ms and 50 MiB more
    than a map of the file, at every start; and it gives NumPy no BF16.
    """
    try:
        # the library refuses headers that lie: lengths, overlaps, gaps, shapes against offsets, trailing bytes
        with file.open("rb") as stream, safe_open(file, framework="numpy"):
            (header_length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(header_length))
            try:
                content: Array = np.asarray(np.memmap(stream, np.uint8, "r"))
            except OSError:  # WebAssembly maps nothing
                content = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as error:
        raise refusal(file, f"cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, struct.error) as error:
        size = f"{file.stat().st_size:,} bytes here"
        raise refusal(file, f"not a whole safetensors file ({error}; {size}); {what_to_do(file)}") from error
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        own = content[8 + header_length :][start:stop]
        tensors[name] = StoredTensor(file, name, entry["dtype"], tuple(entry["shape"]), own)
    return tensors


def load_params(folder: Path, config: BertConfig, dtype: npt.DTypeLike = np.float32) -> BertParams:
    """Read a folder's weights into named fields; refuse missing, unexpected and misshapen tensors in one message.

    Matrices are in Fortran order, which makes ``x @ weight.T`` up to 1.6x faster on few rows and changes nothing else.
    Tables may be the mapped file itself: not to be written to.

    Parameters
    ----------
    folder : Path
        Holds ``model.safetensors``, or ``model.safetensors.index.json`` and the files that it names.
    config : BertConfig
        What the weights must fit.
    dtype : DTypeLike
        float32 or float64; F16 and BF16 checkpoints are widened.

    Examples
    --------
    >>> load_params(Path("no/such/folder"), BertConfig())
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: no/such/folder: there is no model.safetensors; ...
    """
    stored = _by_our_names(read_checkpoint(folder), folder)
    if config.num_hidden_layers > len(stored):  # said first: a list of what a million layers lack has no end
        layers = f"num_hidden_layers {config.num_hidden_layers}"
        raise refusal(folder / "config.json", f"says {layers}, but the checkpoint has only {len(stored)} tensors")
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
            raise refusal(folder, f"the tensor {name!r} is there twice, as {named[name].name!r} and {original!r}")
        named[name] = tensor
    return named


def _check_tensors(stored: dict[str, StoredTensor], wanted: dict[str, tuple[int, ...]], folder: Path) -> None:
    """Compare names and shapes with what the configuration asks for, and report every difference at once."""
    both = [(name, stored[name].shape, shape) for name, shape in wanted.items() if name in stored]
    problems = {
        "missing": [name for name in wanted if name not in stored],
        "unexpected": [tensor.name for name, tensor in stored.items() if name not in wanted],
        "misshapen": [
            f"{name} has shape {found}, config.json asks for {asked}" for name, found, asked in both if found != asked
        ],
    }
    lines = [
        f"\n  {len(found)} {kind}: {'; '.join(found[:20])}{'; ...' if len(found) > 20 else ''}"
        for kind, found in problems.items()
        if found
    ]
    if lines:
        raise refusal(folder, f"the tensors of the checkpoint do not fit config.json{''.join(lines)}")


@dataclass(frozen=True)
class RowGradient:
    """The gradient of a table of which a few rows were used; that of every other row is zero."""

    rows: Array  # (U,)
    values: Array  # (U, D)
    row_count: int  # V, rows of the whole table

    def dense(self) -> Array:
        """The gradient with all its zeros, (V, D), as PyTorch holds it."""
        table = np.zeros((self.row_count, self.values.shape[1]), self.values.dtype)
        table[self.rows] = self.values
        return table


Gradient: TypeAlias = Array | RowGradient  # of one tensor


def numbers_of(gradient: Gradient) -> Array:
    """The numbers that are held: of a RowGradient those that are not zero."""
    return gradient.values if isinstance(gradient, RowGradient) else gradient


@dataclass(frozen=True)
class EmbeddingGradients:
    """Of the three tables and their LayerNorm."""

    word: RowGradient
    position: Array  # (P, D)
    token_type: Array  # (S, D)
    layer_norm: LayerNormParams


@dataclass(frozen=True)
class BertGradients:
    """Of all weights of a BERT."""

    embeddings: EmbeddingGradients
    layers: tuple[LayerParams, ...]


def sum_rows(row_of: Array, d_rows: Array, row_count: int) -> RowGradient:
    """``d_table[r] = sum of d_rows[n] over all n with row_of[n] = r``: the gradient of indexing, ``table[row_of]``.

    As of ``torch.nn.functional.embedding(..., sparse=True)``, coalesced: the rows ascend.

    >>> sum_rows(np.array([2, 0, 2]), np.array([[1.0], [5.0], [3.0]]), 9)
    RowGradient(rows=array([0, 2]), values=array([[5.],
           [4.]]), row_count=9)
    """
    order = np.argsort(row_of, kind="stable")  # (N,)
    rows, first = np.unique(row_of[order], return_index=True)
    values = np.add.reduceat(d_rows[order], first, axis=0)  # (U, D)
    return RowGradient(rows, values, row_count)


def add_gradients(a: Gradient, b: Gradient) -> Gradient:
    """Add the gradients of one tensor from two parts of a batch."""
    if isinstance(a, RowGradient) and isinstance(b, RowGradient):
        both = np.concatenate([a.rows, b.rows]), np.concatenate([a.values, b.values])
        return sum_rows(*both, a.row_count)
    return a + b  # type: ignore[operator]  # of one tensor, so both are arrays
