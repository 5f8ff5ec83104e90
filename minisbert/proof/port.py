"""Somebody else's tensors: read from a file, recognised by name, and taken apart text by text.

A port may be packed or padded (right or left), hold all texts, some, or one, in any order, and use this package's names
or Hugging Face's. What cannot be understood is told with the way to give it; nothing in a file raises anything but a
ValueError.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby, permutations
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_safetensors

from minisbert.model import Array

ABOUT = ("readme", "about", "texts", "text", "pieces", "lengths")
"""Entries of a file that explain it and are not compared."""

MEANINGS = {
    "token_ids": "ids of the pieces, [CLS] and [SEP] included",
    "embeddings.word": "the row of each piece in the word table",
    "embeddings.position": "the row of each place in its text in the position table",
    "embeddings.summed": "word + position + token type 0",
    "embeddings.output": "LayerNorm(summed): what layer 0 reads",
    "attention.query": "hidden @ W.T + b: what each token looks for",
    "attention.key": "hidden @ W.T + b: what each token offers to be found by",
    "attention.value": "hidden @ W.T + b: what each token passes on",
    "attention.probs": "softmax(query @ key.T / sqrt(K)): how much token t looks at token s",
    "attention.context": "probs @ value, heads side by side",
    "attention.projected": "context @ W.T + b",
    "attention.summed": "the layer's input + projected",
    "attention.output": "LayerNorm(summed): what feed-forward reads",
    "feed_forward.expanded": "attention.output @ W1.T + b1",
    "feed_forward.activated": "activation(expanded)",
    "feed_forward.projected": "activated @ W2.T + b2",
    "feed_forward.summed": "attention.output + projected",
    "feed_forward.output": "LayerNorm(summed): what the next layer reads",
    "modules": "the sentence vectors after this module (0: pooling)",
    "sentence_embedding": "the sentence vectors",
}


def meaning(name: str) -> str:
    """What a tensor is, in a line."""
    name = _base(name)
    return next(says for key, says in MEANINGS.items() if name.endswith(key) or name.startswith(f"{key}."))


# ----------------------------------------------------------------------------------------------------------- the file


def read_tensors(file: Path, name: str = "") -> dict[str, Any]:
    """Read ``.npz``, ``.safetensors`` or ``.npy``, which is named by ``name`` or by the file's own.

    Pickled objects are refused, because loading them can run code.
    """
    if found := tensors_in(file.read_bytes(), file, name):
        return found
    hint = "`minisbert verify --template mine.npz` writes an example with every name, shape and meaning"
    if not file.stat().st_size:
        raise ValueError(f"{file}: the file is empty; {hint}")
    if file.suffix in (".pt", ".pth", ".bin", ".pkl"):
        hint = 'save NumPy arrays: np.savez("mine.npz", **{name: t.detach().numpy() for name, t in tensors.items()})'
    raise ValueError(
        f"{file}: expected .npz, .safetensors or .npy with tensors, but this is another kind of file; {hint}"
    )


def tensors_in(content: bytes, file: Path, name: str = "") -> dict[str, Any]:
    """The tensors of a file's bytes; none if they are of another kind."""
    try:
        if content.startswith(b"\x93NUMPY"):
            return {name or file.stem: np.load(BytesIO(content), allow_pickle=False)}
        if content.startswith(b"PK") and file.suffix not in (".pt", ".pth", ".bin"):
            with np.load(BytesIO(content), allow_pickle=False) as stored:
                return {entry: stored[entry] for entry in stored.files}
        if file.suffix == ".safetensors":
            return load_safetensors(content)
    except Exception as error:  # zipfile, zlib, json and NumPy each raise their own for a damaged file
        why = f"the file is damaged, or not whole ({error or type(error).__name__})"
        if "allow_pickle" in str(error):
            why = "it has Python objects, which are not loaded because that can run code; save arrays of numbers"
        elif isinstance(error, KeyError):
            why = f"NumPy has no type {error}; save the tensors as F32"
        raise ValueError(f"{file}: cannot be read: {why}") from error
    return {}


# ---------------------------------------------------------------------------------------------------------- the names

_PREFIX = re.compile(r"^(?:(?:bert|model|auto|module|encoder|transformer|self|outputs?)\.|0\.(?=auto|bert))+")
_LAYER = re.compile(r"^(?:layers?|blocks?|h|l)\.?(\d+)(?:\.(.*))?$")
_IN_LAYER = {
    "attention.query": "query q attention.q attention.self.query self.query attn.q attn.query",
    "attention.key": "key k attention.k attention.self.key self.key attn.k attn.key",
    "attention.value": "value v attention.v attention.self.value self.value attn.v attn.value",
    "attention.probs": "probs attention.weights attention.self.probs attn attn.probs attn.weights",
    "attention.context": "context attention.self attention.self.context self.context context.layer attn.context",
    "attention.projected": "attention.output.dense attention.dense attention.out attn.out attn.projected",
    "attention.summed": "attention.sum attn.summed",
    "attention.output": "attention attention.output.layernorm attention.layernorm attn.output",
    "feed.forward.expanded": "intermediate.dense expanded ffn.expanded ff.expanded mlp.expanded",
    "feed.forward.activated": "intermediate intermediate.intermediate.act.fn activated ffn.activated gelu",
    "feed.forward.projected": "output.dense ffn.projected ff.projected mlp.projected",
    "feed.forward.summed": "ffn.summed ff.summed mlp.summed",
    "feed.forward.output": "output output.layernorm feed.forward ffn ffn.output mlp mlp.output hidden hidden.states",
}
_ELSEWHERE = {
    "token.ids": "input.ids ids tokens input",
    "embeddings.word": "embeddings.word.embeddings word.embeddings word",
    "embeddings.position": "embeddings.position.embeddings position.embeddings position",
    "embeddings.summed": "embeddings.sum",
    "embeddings.output": "embeddings.layernorm embedding.output embeddings.layer.norm embeddings.dropout",
    "sentence.embedding": "sentence.embeddings sentence.vectors sentence.vector vectors vector normalized",
    "modules.0": "pooled pooling mean.pooled pooled.output mean",
}
_SYNONYMS = {word: ours for ours, words in (_IN_LAYER | _ELSEWHERE).items() for word in words.split()}


def recognise(given: str, known: Sequence[str], layers: int) -> str | None:
    """Our name for somebody's, if it is one.

    >>> names = ["token_ids", "embeddings.output", "layers.0.attention.query", "layers.0.feed_forward.output"]
    >>> [recognise(n, names, 1) for n in ("bert.encoder.layer.0.attention.self.query", "hidden_states.1", "input_ids")]
    ['layers.0.attention.query', 'layers.0.feed_forward.output', 'token_ids']
    """
    dotted = {re.sub(r"[^a-z0-9]+", ".", name.lower()): name for name in known}
    name = re.sub(r"[^a-z0-9]+", ".", re.sub(r"LayerNorm|layer_norm", "layernorm", given).lower()).strip(".")
    if name in dotted:
        return dotted[name]
    name = _PREFIX.sub("", name)
    if state := re.fullmatch(r"(?:all\.)?hidden\.states?\.(\d+)", name):
        name = f"layers.{int(state[1]) - 1}.feed.forward.output" if int(state[1]) else "embeddings.output"
    elif name in ("last.hidden.state", "token.embeddings", "last.hidden.states"):
        name = f"layers.{layers - 1}.feed.forward.output"
    elif looks := re.fullmatch(r"attentions?\.(\d+)", name):
        name = f"layers.{looks[1]}.attention.probs"
    elif layer := _LAYER.match(name):
        rest = layer[2] or "feed.forward.output"
        base = _base(rest)
        name = f"layers.{layer[1]}.{_SYNONYMS.get(base, base)}{rest[len(base) :]}"
    else:
        name = _SYNONYMS.get(name, name)
    # probabilities have one name a run of texts of equal length; others give them all at once, or a text at a time
    is_probs = ".probs" in name and f"{_base(name)}.0" in known
    return dotted.get(name, name if is_probs else None)


# --------------------------------------------------------------------------------------------------------- the layout

Parts = dict[int, Array]
"""A tensor text by text: (T, D), (T,) of ids, (H, T, T) of probs, (D,) of a vector."""


@dataclass(frozen=True)
class Layout:
    """How texts lie in an array."""

    order: tuple[int, ...]  # which texts, in which order
    side: str = "packed"  # or padding on the "right" or "left"
    length: int = 0  # padded to this many tokens; 0: not padded

    def __str__(self) -> str:
        padded = f"padded on the {self.side} to {self.length} tokens" if self.length else "packed"
        return f"{padded}, texts {', '.join(map(str, self.order))}"


def kind_of(name: str) -> str:
    """What the axes of a tensor are: of ids, vectors, probs, or rows of tokens."""
    if name == "token_ids":
        return "ids"
    return "vector" if name.startswith(("modules", "sentence")) else "probs" if ".probs" in name else "rows"


def layouts(array: Array, kind: str, lengths: Sequence[int]) -> Iterator[tuple[Layout, Parts]]:
    """Every way in which an array could hold some of the texts, the most ordinary first."""
    count, axes = len(lengths), {"ids": 1, "rows": 2, "vector": 1, "probs": 3}[kind]
    while array.ndim > axes + 1 and 1 in (array.shape[0], array.shape[1] if kind == "vector" else 0):
        array = array[0] if array.shape[0] == 1 else array[:, 0]
    if array.ndim == axes and kind in ("ids", "rows") and len(array) == sum(lengths):
        for order in _orders(count, count):
            ends = np.cumsum([lengths[i] for i in order])
            yield Layout(order), dict(zip(order, np.split(array, ends[:-1]), strict=True))
        if count > 1:
            return
    if array.ndim == axes:  # one text; or all, padded, as rows of one matrix
        rows = array.shape[-1] if kind == "probs" else len(array)
        if kind in ("ids", "rows") and rows % count == 0 and rows // count >= max(lengths) and count > 1:
            yield from layouts(array.reshape(count, rows // count, *array.shape[1:]), kind, lengths)
        array = array[None]
    if array.ndim != axes + 1 or not 0 < len(array) <= count:
        return
    for order in _orders(count, len(array)):
        own = [lengths[i] for i in order]
        length = 0 if kind == "vector" else array.shape[-1] if kind == "probs" else array.shape[1]
        if kind == "vector" or set(own) == {length}:
            yield Layout(order), dict(zip(order, array, strict=True))
        elif length >= max(own):
            for side in ("right", "left"):
                parts = {}
                for i, one in zip(order, array, strict=True):
                    at = slice(0, lengths[i]) if side == "right" else slice(length - lengths[i], length)
                    parts[i] = one[:, at, at] if kind == "probs" else one[at]
                yield Layout(order, side, length), parts


def _orders(count: int, chosen: int) -> list[tuple[int, ...]]:
    """Which texts may be meant, in which order: all possibilities of a few texts, the most ordinary of many."""
    if count <= 4:
        return list(permutations(range(count), chosen))
    if chosen == 1:
        return [(i,) for i in range(count)]
    return [tuple(range(chosen)), tuple(range(chosen))[::-1]]


@dataclass
class Port:
    """Somebody's tensors under our names, text by text."""

    tensors: dict[str, Parts] = field(default_factory=dict)  # in the order of computation
    arrays: dict[str, Array] = field(default_factory=dict)  # as they were given
    misshapen: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)  # what was found, what was expected
    unknown: dict[str, str] = field(default_factory=dict)  # name -> the nearest known one
    notes: list[str] = field(default_factory=list)
    layout: Layout | None = None


def understand(given: Mapping[str, Any], wanted: Mapping[str, Parts], layers: int) -> Port:
    """Find out what each array is, and how the texts lie in it.

    ``wanted`` has the right tensors: of several layouts that fit, the one that is nearest to them is meant.
    """
    port = Port()
    arrays = _named(port, given, wanted, layers)
    targets = {name: _target(name, wanted) for name in arrays}
    lengths = [len(ids) for ids in wanted["token_ids"].values()]
    possible: dict[str, list[tuple[Layout, Parts]]] = {}
    for name, array in arrays.items():
        if fits := _fitting(name, array, targets[name], lengths):
            possible[name] = fits
        else:
            port.misshapen[name] = array.shape, _expected(name, targets[name], lengths)
    # the first that is nearly right tells how all of them lie; positions are the same in every order
    telling = (name for name in possible if name != "embeddings.position")
    nearest = ((name, *_nearest(possible[name], targets[name])) for name in telling)
    port.layout = next((layout for name, layout, parts in nearest if distance(parts, targets[name]) < 1e-3), None)
    for name, fits in possible.items():
        same = [fit for fit in fits if port.layout and fit[0].order == port.layout.order] or fits
        same = [fit for fit in same if port.layout and fit[0].side == port.layout.side] or same
        layout, parts = _nearest(same, targets[name])
        port.layout = port.layout or layout
        for ours in [name] if name in wanted else [n for n in wanted if n.startswith(f"{_base(name)}.")]:
            if mine := {i: part for i, part in parts.items() if i in wanted[ours]}:
                port.tensors.setdefault(ours, {}).update(mine)
                port.arrays[ours] = arrays[name]
    port.tensors = {name: port.tensors[name] for name in wanted if name in port.tensors}
    return port


def precision(array: Array) -> float:
    """The step between numbers of float16, or of bfloat16, which comes as float32; else 0."""
    if array.dtype == np.float16:
        return 2.0**-10
    whole = array.dtype == np.float32 and not (np.ascontiguousarray(array).view(np.uint32) & 0xFFFF).any()
    return 2.0**-7 if whole else 0.0


def _base(name: str) -> str:
    """Without the number of a run."""
    return re.sub(r"\bprobs\.\d+$", "probs", name)


def _target(name: str, wanted: Mapping[str, Parts]) -> Parts:
    """The right tensor, of all texts."""
    if ".probs" not in name:
        return wanted[name]
    return {i: part for n, parts in wanted.items() if n.startswith(f"{_base(name)}.") for i, part in parts.items()}


def _fitting(name: str, array: Array, target: Parts, lengths: Sequence[int]) -> list[tuple[Layout, Parts]]:
    number = int(name.rpartition(".")[2]) if name != _base(name) else len(lengths)
    # our own name and shape of probs: ``probs.r`` is of the r-th run of texts of equal length, (c, H, T, T)
    runs = [[i for i, _ in run] for _, run in groupby(target.items(), lambda item: item[1].shape)]
    texts = runs[number] if number < len(runs) else []
    if texts and array.shape == (len(texts), *target[texts[0]].shape):
        return [(Layout(tuple(texts)), dict(zip(texts, array, strict=True)))]
    fits = [
        fit
        for fit in layouts(array, kind_of(name), lengths)
        if all(part.shape == target[i].shape for i, part in fit[1].items())
    ]
    if number < len(lengths):  # or of one text, without padding: its own, if that fits
        exact = [fit for fit in fits if len(fit[1]) == 1 and not fit[0].length]
        fits = [fit for fit in exact if number in fit[1]] or exact or fits
    return fits


def _nearest(fits: list[tuple[Layout, Parts]], target: Parts) -> tuple[Layout, Parts]:
    """The most ordinary layout, unless another is clearly nearer to the right numbers."""
    best = min(fits, key=lambda fit: distance(fit[1], target))
    return best if 2 * distance(best[1], target) < distance(fits[0][1], target) else fits[0]


def distance(parts: Parts, target: Parts) -> float:
    """How far an array is from the right one, beside that one's size; a number that is none counts as 0 there."""
    with np.errstate(over="ignore"):
        there = {i: np.where(np.isfinite(part), part, 0).astype(float) for i, part in parts.items()}
        return max(
            float(np.abs(part - target[i]).mean() / (np.abs(target[i]).mean() + 1e-30)) for i, part in there.items()
        )


def _expected(name: str, target: Parts, lengths: Sequence[int]) -> str:
    """The shapes in which a tensor may come."""
    count, total, most = len(lengths), sum(lengths), max(lengths)
    shape = next(iter(target.values())).shape
    kind = kind_of(name)
    if kind == "vector":
        return f"({count}, {shape[-1]})"
    if kind == "probs":
        return f"({count}, {shape[0]}, T, T) padded to T >= {most}, or ({shape[0]}, T, T) of one text"
    tail = "".join(f", {size}" for size in shape[1:])
    return f"({total}{tail or ','}), or ({count}, T{tail}) padded to T >= {most}"


def _named(port: Port, given: Mapping[str, Any], wanted: Mapping[str, Parts], layers: int) -> dict[str, Array]:
    """Arrays of real numbers by our names, in the order of computation; the port keeps what is unknown, and notes."""
    found: dict[str, Array] = {}
    known, notes, count = list(wanted), port.notes, len(wanted["token_ids"])
    renamed, empty = [], []
    arrays: list[tuple[str, Any]] = []
    for name, value in given.items():  # those that Hugging Face gives as tuples, and NumPy stacks, one by one
        stacked = {"hidden_states": layers + 1, "attentions": layers}.get(name)
        if stacked and isinstance(value, np.ndarray) and value.ndim > 2 and len(value) == stacked:
            arrays += [(f"{name}.{i}", one) for i, one in enumerate(value)]
        else:
            arrays.append((name, value))
    for original, value in arrays:
        ours = recognise(original, known, layers)
        if re.sub(r"[^a-z]", "", original.lower()) in ABOUT or original == "attention_mask":
            continue
        if original in ("embeddings", "embedding", "output", "outputs"):  # of tokens or of texts: the shape says
            ours = "sentence_embedding" if value.ndim == 1 or len(value) == count else "embeddings.output"
        if original.endswith((".weight", ".bias")):
            notes.append(f"{original} is a weight and is not compared: verify compares what flows through")
        elif original == "pooler_output":
            notes.append("pooler_output is not compared: a sentence vector is the mean of last_hidden_state")
        elif ours is None:
            port.unknown[original] = difflib.get_close_matches(original.replace("_", "."), known, 1, 0.0)[0]
        elif not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or value.ndim == 0:
            what = f"{value.dtype} of {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise ValueError(f"expected an array of real numbers for {original!r}, got {what}")
        elif np.isnan(value).all() and value.size:
            empty.append(original)
        else:
            if ours in found:
                notes.append(f"{original} is {ours}, which is there twice; the first is compared")
            found.setdefault(ours, value.astype(value.dtype.newbyteorder("="), copy=False))
            if ours != original:
                renamed.append(f"{original} is {ours}")
    notes += [*_few(renamed, "names"), *(f"not filled in: {one}" for one in _few(empty, "tensors"))]
    order = {name: i for i, name in enumerate(known)}
    place = {name: order.get(name, order.get(f"{_base(name)}.0", 0)) for name in found}
    return {name: found[name] for name in sorted(found, key=place.__getitem__)}


def _few(items: Sequence[str], what: str) -> list[str]:
    """The first of many in one line, and how many there are."""
    more = f", ... ({len(items)} {what} in all)" if len(items) > 3 else ""
    return [", ".join(items[:3]) + more] if items else []
