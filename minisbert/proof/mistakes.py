"""The mistakes that ports of BERT make, each as one operation computed otherwise.

BERT is written here once more, in the style of most ports: padded ``(B, T, D)`` with a mask, and every operation asked
for by name, ``do("softmax", place)(scores)``. :data:`RIGHT` holds the right operations; a :class:`Mistake` replaces one
of them, or two that go wrong together. So a mistake, and a pair of them, in one layer or in all, is a forward pass with
a few :class:`Change`. Nothing here serves the encoder: with no change the result equals its trace (a test holds that).

- ``mistakes_of("activation")`` lists ``Mistake(op, says, changes)``; each change has the signature of ``RIGHT[op]``:
  ``linear(x, weight, bias)``, ``layer_norm(x, weight, bias, eps)``, ``activation(x)``, ``split(x, heads)``,
  ``scale(scores, K, D)``, ``softmax(scores)``, ``pool(x, mask)``, ``normalize(x)``, ...
- ``forward(batch, model, Recipe(Change(mistake, "layers.0.*"), ...))`` gives every tensor by its name in the ledger
  (``probs`` of all texts together); ``Batch.of(ids)`` pads, and ``batch.by_text(name, tensor)`` takes the padding off.
- ``attention``, ``feed_forward`` and ``embed`` are the blocks alone: ``attention(Recipe(...), "layers.0.attention",
  hidden, hidden, batch, model, 0)``.

Letters: ``B`` texts, ``T`` tokens of the longest, ``D`` hidden size, ``H`` heads, ``K`` = D/H, ``F`` feed-forward size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import permutations
from operator import attrgetter
from typing import Any

import numpy as np

from minisbert.model import Array, ops
from minisbert.model.folder import SentenceModel
from minisbert.model.params import BertParams, LayerNormParams, LayerParams, LinearParams
from minisbert.model.pooling import Dense, Pooling, dense, pool

Operation = Callable[..., Any]


@dataclass(frozen=True)
class Batch:
    """Texts as padded ids, and who may look at whom."""

    ids: Array  # (B, T)
    mask: Array  # (B, T) True where a text has a token
    places: tuple[tuple[int, slice], ...]  # row and columns of each text

    @classmethod
    def of(cls, texts: Sequence[Array], length: int = 0, *, left: bool = False, pad: int = 0) -> Batch:
        """Pad texts' ids to the longest, or to ``length``."""
        length = max(length, *map(len, texts))
        padded, mask, places = np.full((len(texts), length), pad), np.zeros((len(texts), length), bool), []
        for row, ids in enumerate(texts):
            start = length - len(ids) if left else 0
            places.append((row, slice(start, start + len(ids))))
            padded[places[-1]], mask[places[-1]] = ids, True
        return cls(padded, mask, tuple(places))

    @classmethod
    def strip(cls, texts: Sequence[Array]) -> Batch:
        """Lay texts end to end in one row, as this package does."""
        ends = np.cumsum([*map(len, texts)])
        places = tuple((0, slice(end - len(ids), end)) for end, ids in zip(ends, texts, strict=True))
        return cls(np.concatenate(texts)[None], np.ones((1, ends[-1]), bool), places)

    @property
    def positions(self) -> Array:
        """(B, T) each token's place in its own text; of padding, that in the row."""
        positions = np.arange(self.ids.shape[1]) + 0 * self.ids
        for row, columns in self.places:
            positions[row, columns] -= columns.start
        return positions

    @property
    def allowed(self) -> Array:
        """(B, T, T) whom each token may look at: those of its own text."""
        if len(self.places) == len(self.ids):
            return np.broadcast_to(self.mask[:, None, :], (*self.ids.shape, self.ids.shape[1]))
        text = np.zeros(self.ids.shape, np.intp)
        for i, place in enumerate(self.places):
            text[place] = i
        return text[:, :, None] == text[:, None, :]

    def by_text(self, name: str, tensor: Array) -> list[Array]:
        """Each text's part of a tensor, without padding: (T, ...), (H, T, T) of probs, (D,) of a vector."""
        if name.startswith(("modules.", "sentence_embedding")):
            return list(tensor)
        if "probs" in name:
            return [tensor[row, :, columns, columns] for row, columns in self.places]
        return [tensor[place] for place in self.places]


# ------------------------------------------------------------------------------------------ the operations, done right


def layer_norm(
    x: Array, w: Any, b: Any, eps: float, axis: Any = -1, ddof: int = 0, power: float = 0.5, outside: float = 0
) -> Array:
    """LayerNorm with its choices: the axis, N or N - 1, the root, eps under it or behind it."""
    centred = x - x.mean(axis, keepdims=True)
    variance = x.var(axis, keepdims=True, ddof=ddof)
    return centred / ((variance + eps) ** power + outside) * w + b


def rows_times(x: Array, matrix: Array) -> Array:
    """``x @ matrix`` in one product of all rows: many times as fast as NumPy's, which takes text by text."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)


def split(x: Array, heads: int) -> Array:
    """(B, T, D) -> (B, H, T, K): each head has K columns that lie together."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def join(x: Array) -> Array:
    """(B, H, T, K) -> (B, T, D): heads side by side again."""
    x = x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], -1)


def softmax(scores: Array, axis: Any = -1) -> Array:
    """Along any axis."""
    e = np.exp(scores - scores.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def hide(scores: Array, allowed: Array) -> Array:
    """Tokens that may not be looked at lose 10,000, as in BERT's first release: after softmax nothing is left."""
    return scores + np.where(allowed[:, None], 0.0, -HIDDEN).astype(scores.dtype)


def mean(x: Array, mask: Array) -> Array:
    """(B, T, D), (B, T) -> (B, D): of the tokens that the mask has."""
    m = mask[..., None].astype(x.dtype)
    return (x * m).sum(1) / np.maximum(m.sum(1), 1e-9)


HIDDEN = 1e4


def filled(scores: Array) -> Array:
    """The same score for all hidden tokens, as with minus infinity; it matters to a softmax over the wrong axis."""
    return np.where(scores < -HIDDEN / 2, scores.dtype.type(-HIDDEN), scores)


RIGHT: dict[str, Operation] = {
    "weights": lambda params, i: params.layers[i],  # the parameters that layer i reads
    "stored": lambda weight: weight,  # each weight, as it comes from its file
    "layers": range,  # which layers, in which order
    "word": lambda ids, table: table[ids],
    "position": lambda positions, table: table[positions],
    "token_type": lambda table: table[0],
    "add": lambda word, position, token_type: word + position + token_type,
    "before": lambda norm, x: x,  # what a block does to its input: nothing, as BERT is post-LN
    "linear": lambda x, weight, bias: rows_times(x, weight.T) + bias,
    "split": split,
    "scores": lambda q, k: q @ k.swapaxes(-1, -2),
    "scale": lambda scores, k, d: scores / math.sqrt(k),
    "mask": hide,
    "softmax": softmax,
    "gather": lambda probs, v: probs @ v,
    "join": join,
    "after": lambda x: x,  # what follows a block's last matrix: nothing
    "residual": lambda x, y, layer_input, embedded: x + y,
    "behind": lambda norm, x: norm(x),  # and to the sum of both: LayerNorm
    "layer_norm": layer_norm,
    "activation": ops.gelu,
    "token_embeddings": lambda outputs: outputs[-1],  # of the embeddings and all layers: which are pooled
    "pool": mean,
    "normalize": ops.normalize,
    "round": lambda x: x,  # each result
}


# --------------------------------------------------------------------------------------------------------- the mistakes


@dataclass(frozen=True, eq=False)
class Mistake:
    """One operation done otherwise: ``says`` completes "a port in which ..."; it may name {K}, {D}, {H} and {eps}."""

    op: str
    says: str
    changes: Mapping[str, Operation] = field(repr=False)
    together: bool = False  # whether the result depends on how texts are batched

    @property
    def is_late(self) -> bool:
        """Whether it is made behind BERT, where trying it costs little."""
        return set(self.changes) <= {"token_embeddings", "pool", "normalize"}


@dataclass(frozen=True)
class Change:
    """A mistake, and the places where it is made, as :mod:`fnmatch` understands them."""

    mistake: Mistake
    at: str = "*"


class Recipe:
    """Which operation to use at which place: the right one but for some changes."""

    def __init__(self, *changes: Change) -> None:
        self.changes = changes

    def __call__(self, op: str, place: str) -> Operation:
        for change in self.changes:
            if op in change.mistake.changes and fnmatchcase(place, change.at):
                return change.mistake.changes[op]
        return RIGHT[op]


def _norm(**choices: Any) -> Operation:
    return lambda x, weight, bias, eps: layer_norm(x, weight, bias, **{"eps": eps, **choices})


def _taken(others: Mapping[str, str], *fields: str) -> Operation:
    """A layer some of whose parameters are others, {"attention.query": "attention.key"}: weight and bias, or one."""

    def weights(params: BertParams, i: int) -> LayerParams:
        layer = params.layers[i]
        halves: dict[str, dict[str, Any]] = {half: {} for half in vars(layer)}
        for mine, other in others.items():
            half, name = mine.split(".")
            found = attrgetter(other)(params if other.startswith("embeddings") else layer)
            taken = {field: getattr(found, field) for field in fields or ("weight", "bias")}
            halves[half][name] = replace(attrgetter(mine)(layer), **taken)
        return LayerParams(**{half: replace(getattr(layer, half), **parts) for half, parts in halves.items()})

    return weights


def _exchanged(one: str, other: str, *fields: str) -> Operation:
    return _taken({one: other, other: one}, *fields)


def bfloat16(x: Array) -> Array:
    """Round to bfloat16, the upper half of a float32: to the nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.view(np.float32).astype(x.dtype)


def float16(x: Array) -> Array:
    """Round to float16."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(x.dtype)


def int8(x: Array) -> Array:
    """Round matrices to 8 bits, one scale a row, as dynamic quantisation does."""
    step = np.maximum(np.abs(x).max(-1, keepdims=True), 1e-30) / 127
    return (np.round(x / step) * step).astype(x.dtype) if x.ndim > 1 else x


def _sinusoids(positions: Array, table: Array) -> Array:
    d = table.shape[1]
    angles = positions[..., None] / 10000 ** (np.arange(0, d, 2) / d)
    both = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(*positions.shape, -1)
    return both[..., :d].astype(table.dtype)


def _half_gelu(x: Array, a: float = math.sqrt(2 / math.pi), b: float = 0.044715, power: int = 3) -> Array:
    return 0.5 * x * (1 + np.tanh(a * (x + b * x**power)))


def _running(positions: Array, table: Array) -> Array:
    """Positions of a strip that nobody starts again."""
    return table[np.minimum(np.arange(positions.size).reshape(positions.shape), len(table) - 1)]


def _special(mask: Array, first: int, last: int) -> Array:
    """A mask without the first, the last, or both tokens of each text."""
    order = np.cumsum(mask, axis=1)
    return mask & (order > first) & (order <= order[:, -1:] - last)


def _max(x: Array, mask: Array) -> Array:
    return np.where(mask[..., None], x, -np.inf).max(1)


def _rms(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight + bias


def _transposed(x: Array, weight: Array, bias: Array) -> Array:
    return rows_times(x, weight if weight.shape[0] == weight.shape[1] else weight.reshape(weight.T.shape)) + bias


def _heads(count: int) -> dict[str, Operation]:
    """Another number of heads, where it divides D, with its own scale."""
    return {
        "split": lambda x, heads: split(x, heads if x.shape[-1] % count else count),
        "scale": lambda scores, k, d: scores / math.sqrt(d // scores.shape[1]),
    }


_NORMS = ("attention.layer_norm", "feed_forward.layer_norm")

# op, then what a port does, and how; a third item: the result depends on how texts are batched
_CATALOGUE: dict[str, list[tuple[Any, ...]]] = {
    "word": [
        ("the word vectors are multiplied by sqrt(D) = sqrt({D})", lambda i, t: t[i] * math.sqrt(t.shape[1])),
        ("every token id is one too large", lambda i, t: t[np.minimum(i + 1, len(t) - 1)]),
        ("every token id is one too small", lambda i, t: t[np.maximum(i - 1, 0)]),
        ("the ids of a text are reversed", lambda i, t: t[i[:, ::-1]], True),
    ],
    "position": [
        ("positions start at 1", lambda p, t: t[np.minimum(p + 1, len(t) - 1)]),
        ("positions start at 2, as in RoBERTa", lambda p, t: t[np.minimum(p + 2, len(t) - 1)]),
        ("no position is added", lambda p, t: np.zeros((*p.shape, t.shape[1]), t.dtype)),
        ("all tokens have position 0", lambda p, t: t[0 * p]),
        ("positions are reversed", lambda p, t: t[p.max(-1, keepdims=True) - p], True),
        ("positions count on from text to text instead of starting again", _running, True),
        ("positions count from the left edge, padding included",
         lambda p, t: t[np.minimum(np.arange(p.shape[1]) + 0 * p, len(t) - 1)], True),
        ("positions are the sines and cosines of Vaswani et al., not the learnt table", _sinusoids),
        ("positions count down from the table's end", lambda p, t: t[::-1][p]),
    ],
    "token_type": [
        ("all tokens have token type 1", lambda t: t[-1]),
        ("no token type is added", lambda t: np.zeros_like(t[0])),
        ("both token types are added", lambda t: t.sum(0)),
        ("the token type is added twice", lambda t: 2 * t[0]),
    ],
    "add": [
        ("the position is not added", lambda w, p, t: w + t),
        ("neither position nor token type is added", lambda w, p, t: w),
        ("the position is added twice", lambda w, p, t: w + 2 * p + t),
        ("word, position and token type are averaged", lambda w, p, t: (w + p + t) / 3),
    ],
    "layer_norm": [
        *((f"LayerNorm's eps is {e:g}, not {{eps:g}}", _norm(eps=e)) for e in (1e-5, 1e-6, 1e-3, 1e-8, 1e-7, 1e-12)),
        *((f"LayerNorm adds eps = {e:g} behind the root", _norm(eps=0, outside=e)) for e in (1e-5, 1e-6, 1e-8, 1e-3)),
        ("LayerNorm divides the variance by D - 1, not by D", _norm(ddof=1)),
        ("LayerNorm divides by the variance, without the root", _norm(power=1)),
        ("LayerNorm multiplies by the deviation instead of dividing", _norm(power=-0.5)),
        ("LayerNorm does not divide by the deviation", lambda x, w, b, e: (x - x.mean(-1, keepdims=True)) * w + b),
        ("LayerNorm takes no mean away", lambda x, w, b, e: x / np.sqrt(x.var(-1, keepdims=True) + e) * w + b),
        ("LayerNorm is RMSNorm: x / sqrt(mean(x^2))", _rms),
        ("LayerNorm is RMSNorm without the bias", lambda x, w, b, e: _rms(x, w, 0 * b, e)),
        ("LayerNorm has no weight", lambda x, w, b, e: layer_norm(x, 0 * w + 1, b, e)),
        ("LayerNorm has no bias", lambda x, w, b, e: layer_norm(x, w, 0 * b, e)),
        ("LayerNorm has neither weight nor bias", lambda x, w, b, e: layer_norm(x, 0 * w + 1, 0 * b, e)),
        ("LayerNorm's weight and bias are exchanged", lambda x, w, b, e: layer_norm(x, b, w, e)),
        ("LayerNorm's weight is 1 + weight", lambda x, w, b, e: layer_norm(x, 1 + w, b, e)),
        ("LayerNorm adds its bias before it multiplies by its weight", lambda x, w, b, e: layer_norm(x, w, b * w, e)),
        ("LayerNorm subtracts its bias", lambda x, w, b, e: layer_norm(x, w, -b, e)),
        ("LayerNorm is left out", lambda x, w, b, e: x),
        ("LayerNorm is done twice", lambda x, w, b, e: layer_norm(layer_norm(x, w, b, e), w, b, e)),
        ("LayerNorm goes over the tokens (axis 1), not over the D numbers of each", _norm(axis=1), True),
        ("LayerNorm takes one mean and variance of all tokens of a text", _norm(axis=(1, 2)), True),
        ("LayerNorm takes one mean and variance of the whole array", _norm(axis=(0, 1, 2)), True),
        ("BatchNorm is done over texts and tokens, not LayerNorm", _norm(axis=(0, 1)), True),
    ],
    "before": [
        ("LayerNorm comes before the block (pre-LN), not behind the residual",
         {"before": RIGHT["behind"], "behind": RIGHT["before"]}),
        ("LayerNorm comes before the block and behind it", RIGHT["behind"]),
    ],
    "linear": [
        ("the matrix is not transposed: x @ W, not x @ W.T", _transposed),
        ("the bias is not added", lambda x, w, b: rows_times(x, w.T)),
        ("the matrix is not transposed, and the bias not added", lambda x, w, b: _transposed(x, w, 0 * w[0, 0])),
        ("the bias is subtracted", lambda x, w, b: rows_times(x, w.T) - b),
        ("the bias is added twice", lambda x, w, b: rows_times(x, w.T) + 2 * b),
        ("the bias is added before the product", lambda x, w, b: rows_times(x + b if len(b) == w.shape[1] else x, w.T)),
        ("the product is left out", lambda x, w, b: x if w.shape[0] == w.shape[1] else rows_times(x, w.T) + b),
    ],
    "split": [
        ("heads are split by reshape(B, H, T, K), without the transpose",
         lambda x, h: x.reshape(len(x), h, x.shape[1], -1), True),
        *((f"the number of heads is {n}, not {{H}}", _heads(n)) for n in (1, 2, 4, 6, 8, 12, 16, 24)),
        *((f"the number of heads is {n}, not {{H}}, and scores are divided by sqrt({{K}}) all the same",
           {"split": _heads(n)["split"]}) for n in (1, 2, 4, 6, 8, 12, 16, 24)),
        ("heads are interleaved: head h has the columns h, h + H, h + 2 H, ...",
         lambda x, h: x.reshape(*x.shape[:2], -1, h).transpose(0, 3, 1, 2)),
        ("heads are split and joined by reshape alone, without transposes",
         {"split": lambda x, h: x.reshape(len(x), h, x.shape[1], -1),
          "join": lambda x: x.reshape(len(x), x.shape[2], -1)}, True),
        ("heads are interleaved, split and joined: head h has the columns h, h + H, h + 2 H, ...",
         {"split": lambda x, h: x.reshape(*x.shape[:2], -1, h).transpose(0, 3, 1, 2),
          "join": lambda x: x.transpose(0, 2, 3, 1).reshape(len(x), x.shape[2], -1)}),
    ],
    "scores": [
        ("Q and K are exchanged: K @ Q.T", lambda q, k: k @ q.swapaxes(-1, -2)),
        ("scores are Q @ Q.T", lambda q, k: q @ q.swapaxes(-1, -2)),
        ("scores are K @ K.T", lambda q, k: k @ k.swapaxes(-1, -2)),
        ("scores are cosines: Q and K are normalised",
         lambda q, k: ops.normalize(q) @ ops.normalize(k).swapaxes(-1, -2)),
        ("scores are negated", lambda q, k: -(q @ k.swapaxes(-1, -2))),
        ("the queries' heads are in reverse order", lambda q, k: q[:, ::-1] @ k.swapaxes(-1, -2)),
    ],
    "scale": [
        ("the scores are not divided by sqrt(K) = sqrt({K})", lambda s, k, d: s),
        ("the scores are divided by sqrt(D) = sqrt({D}), not by sqrt(K) = sqrt({K})", lambda s, k, d: s / math.sqrt(d)),
        ("the scores are divided by K = {K}, not by its root", lambda s, k, d: s / k),
        ("the scores are divided by D = {D}, not by sqrt(K) = sqrt({K})", lambda s, k, d: s / d),
        ("the scores are multiplied by sqrt(K) = sqrt({K}), not divided", lambda s, k, d: s * math.sqrt(k)),
        ("the scores are divided by the fourth root of K = {K}", lambda s, k, d: s / k**0.25),
        ("the scores are divided by sqrt(H) = sqrt({H})", lambda s, k, d: s / math.sqrt(d // k)),
        ("the scores are divided by H = {H}", lambda s, k, d: s / (d // k)),
        ("the scores are divided by sqrt(T)", lambda s, k, d: s / math.sqrt(s.shape[-1]), True),
        ("the scores are divided by 8 = sqrt(64), BERT-base's sqrt(K)", lambda s, k, d: s / 8),
        ("the scores are divided by sqrt(K) / 2", lambda s, k, d: 2 * s / math.sqrt(k)),
        ("the scores are divided by 2 sqrt(K)", lambda s, k, d: s / math.sqrt(k) / 2),
    ],
    "mask": [
        ("padding is attended to: the mask is not used", lambda s, m: s, True),
        ("padding is attended to: the mask is added as 0 and 1 (or -1), not as minus infinity",
         lambda s, m: s + m[:, None] - 1, True),
        ("the mask is added as it is, 1 for tokens and 0 for padding", lambda s, m: s + m[:, None], True),
        ("the mask multiplies the scores: padding has score 0", lambda s, m: s * m[:, None], True),
        ("the mask is inverted: only padding is attended to",
         lambda s, m: np.where(m[:, None], s - s.dtype.type(HIDDEN), s), True),
        ("the mask is inverted, with minus infinity", lambda s, m: np.where(m[:, None], s.dtype.type(-1e30), s), True),
        ("attention is causal: no token looks at those behind it",
         lambda s, m: hide(s, m & np.tri(s.shape[-1], dtype=bool))),
        ("no token looks at those before it", lambda s, m: hide(s, m & ~np.tri(s.shape[-1], k=-1, dtype=bool))),
        ("no token looks at itself", lambda s, m: hide(s, m & ~np.eye(s.shape[-1], dtype=bool))),
        ("the mask is put on the rows (queries), not on the columns (keys)",
         lambda s, m: hide(s, m.swapaxes(-1, -2)), True),
        ("attention looks into the other texts of the strip", lambda s, m: s, True),
    ],
    "softmax": [
        *((says, lambda s, axis=axis, hidden=hidden: softmax(hidden(s), axis), True)
          for says, axis in (("softmax goes over the queries, not over the keys", -2),
                             ("softmax goes over the heads", 1), ("softmax goes over the texts", 0),
                             ("one softmax goes over a head's whole matrix", (-2, -1)))
          for hidden in (lambda s: s, filled)),
        ("one softmax goes over the whole array", lambda s: softmax(s, None), True),
        ("softmax is done twice", lambda s: softmax(softmax(s)), True),
        ("softmax is left out", lambda s: s),
        ("softmax lacks its sum: exp alone", lambda s: np.exp(np.minimum(s, 80))),
        ("softmax lacks its sum: exp(s - max) alone", lambda s: np.exp(s - s.max(-1, keepdims=True))),
        ("softmax has base 2, not e", lambda s: softmax(s * math.log(2))),
        ("softmax is log-softmax", lambda s: np.log(softmax(s) + 1e-45)),
        ("sigmoid takes the place of softmax", ops.sigmoid),
        ("softmax is taken of -scores", lambda s: softmax(np.where(s < -HIDDEN / 2, s, -s))),
        ("softmax adds 1 to its sum", lambda s: np.exp(s) / (1 + np.exp(s).sum(-1, keepdims=True))),
        ("each row takes its largest score alone (hardmax)", lambda s: (s == s.max(-1, keepdims=True)).astype(s.dtype)),
        ("scores are divided by their sum, without exp",
         lambda s: np.where(s < -HIDDEN / 2, 0, s) / np.where(s < -HIDDEN / 2, 0, s).sum(-1, keepdims=True)),
    ],
    "gather": [
        ("probs are transposed before they average V: probs.T @ V", lambda p, v: p.swapaxes(-1, -2) @ v),
        ("V is not averaged by probs", lambda p, v: v),
        ("all tokens count alike: V is averaged without probs", lambda p, v: 0 * v + v.mean(2, keepdims=True), True),
    ],
    "join": [
        ("heads are not joined back: reshape without the transpose", lambda x: x.reshape(len(x), x.shape[2], -1), True),
        ("heads are joined interleaved: K and H are exchanged",
         lambda x: x.transpose(0, 2, 3, 1).reshape(len(x), x.shape[2], -1)),
        ("heads are joined in reverse order", lambda x: join(x[:, ::-1])),
    ],
    "residual": [
        ("the residual is left out", lambda x, y, first, e: y),
        ("the block's result is left out: only the residual is there", lambda x, y, first, e: x),
        ("the residual is added twice", lambda x, y, first, e: 2 * x + y),
        ("the residual is subtracted", lambda x, y, first, e: y - x),
        ("the result is subtracted from the residual", lambda x, y, first, e: x - y),
        ("the residual is the layer's input, from before attention", lambda x, y, first, e: first + y),
        ("the residual is the embeddings, in every layer", lambda x, y, first, e: e + y),
        ("the residual and the result are averaged", lambda x, y, first, e: (x + y) / 2),
        ("the result is added twice", lambda x, y, first, e: x + 2 * y),
        ("the residual and the result are multiplied", lambda x, y, first, e: x * y),
    ],
    "activation": [
        ("GELU is its tanh form, not the exact one by erf", ops.gelu_tanh),
        ("GELU is x sigmoid(1.702 x), the quick form", lambda x: x * ops.sigmoid(1.702 * x)),
        ("GELU is the exact form by erf", ops.gelu),
        ("the activation is ReLU", ops.relu),
        ("the activation is SiLU (swish)", ops.silu),
        ("the activation is tanh", np.tanh),
        ("the activation is sigmoid", ops.sigmoid),
        ("the activation is left out", lambda x: x),
        ("the activation is leaky ReLU, slope 0.01", lambda x: np.where(x > 0, x, 0.01 * x)),
        ("the activation is ELU", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
        ("the activation is softplus", lambda x: np.logaddexp(0, x)),
        ("the activation is ReLU squared", lambda x: ops.relu(x) ** 2),
        ("the activation is ReLU6", lambda x: np.clip(x, 0, 6)),
        ("the activation is mish", lambda x: x * np.tanh(np.logaddexp(0, x))),
        ("the activation comes after the second matrix, not after the first",
         {"activation": lambda x: x, "after": ops.gelu}),
        ("the activation comes after both matrices", {"activation": ops.gelu, "after": ops.gelu}),
        ("GELU is done twice", lambda x: ops.gelu(ops.gelu(x))),
        ("GELU lacks the factor x: Phi(x) alone", lambda x: (ops.gelu(x) + (x == 0)) / np.where(x == 0, 2, x)),
        ("GELU lacks its factor 1/2", lambda x: 2 * ops.gelu(x)),
        ("GELU has erf(x), without the division by sqrt(2)", lambda x: ops.gelu(x * math.sqrt(2)) / math.sqrt(2)),
        ("GELU has erf(x / 2)", lambda x: ops.gelu(x / math.sqrt(2)) * math.sqrt(2)),
        ("GELU's tanh form lacks sqrt(2 / pi)", lambda x: _half_gelu(x, 1.0)),
        ("GELU's tanh form lacks the cube's term", lambda x: _half_gelu(x, b=0.0)),
        ("GELU's tanh form has 0.44715, not 0.044715", lambda x: _half_gelu(x, b=0.44715)),
        ("GELU's tanh form has 2 / pi, without the root", lambda x: _half_gelu(x, 2 / math.pi)),
        ("GELU's tanh form has x^2 in place of x^3", lambda x: _half_gelu(x, power=2)),
        ("GELU has -x: x Phi(-x)", lambda x: -ops.gelu(-x)),
    ],
    "weights": [
        *((f"the {what} of {a} and {b} are exchanged", _exchanged(f"attention.{a}", f"attention.{b}", *fields))
          for what, fields in (("matrices", ()), ("biases", ("bias",)))
          for a, b in (("query", "key"), ("query", "value"), ("key", "value"), ("value", "output"))),
        *((f"the {what} of {b} is used for {a}", _taken({f"attention.{a}": f"attention.{b}"}, *fields))
          for what, fields in (("matrix", ()), ("bias", ("bias",)))
          for a, b in permutations(("query", "key", "value", "output"), 2)),
        ("every layer has layer 0's weights", lambda p, i: p.layers[0]),
        ("every layer has the last layer's weights", lambda p, i: p.layers[-1]),
        ("every layer has the next layer's weights", lambda p, i: p.layers[min(i + 1, len(p.layers) - 1)]),
        ("every layer has the weights of the layer before", lambda p, i: p.layers[max(i - 1, 0)]),
        ("the two LayerNorms of a layer are exchanged", _exchanged(*_NORMS)),
        ("both LayerNorms of a layer have the first one's weights", _taken({_NORMS[1]: _NORMS[0]})),
        ("both LayerNorms of a layer have the second one's weights", _taken({_NORMS[0]: _NORMS[1]})),
        ("the layers' LayerNorms have the embeddings' weights",
         _taken(dict.fromkeys(_NORMS, "embeddings.layer_norm"))),
    ],
    "stored": [
        ("the weights are rounded to float16", float16),
        ("the weights are rounded to bfloat16", bfloat16),
        ("the weights are rounded to int8", int8),
    ],
    "layers": [
        ("the layers run in reverse order", lambda n: range(n)[::-1]),
        ("a layer is missing, the last", lambda n: range(n - 1)),
        ("a layer is missing, the first", lambda n: range(1, n)),
        ("every second layer is missing", lambda n: range(0, n, 2)),
        ("the last layer runs twice", lambda n: [*range(n), n - 1]),
        ("the layers are sorted by name, 0, 1, 10, 11, 2, ...", lambda n: sorted(range(n), key=str)),
    ],
    "round": [
        ("every result is rounded to float16", float16),
        ("every result is rounded to bfloat16", bfloat16),
    ],
    "token_embeddings": [
        ("the last layer but one is pooled", lambda h: h[-2]),
        ("the first layer is pooled", lambda h: h[1]),
        ("the embeddings are pooled", lambda h: h[0]),
        ("the mean of the last two layers is pooled", lambda h: (h[-1] + h[-2]) / 2),
        ("the sum of the last four layers is pooled", lambda h: sum(h[-4:])),
        ("the mean of the last four layers is pooled", lambda h: sum(h[-4:]) / 4),
        ("the mean of the first and the last layer is pooled", lambda h: (h[1] + h[-1]) / 2),
        ("the mean of all layers is pooled", lambda h: sum(h[1:]) / len(h[1:])),
    ],
    "pool": [
        ("the mean of the token vectors is the sentence vector", mean),
        ("the vector of [CLS] is the sentence vector, not the mean", lambda x, m: x[np.arange(len(x)), m.argmax(1)]),
        ("the maximum is pooled, not the mean", _max),
        ("the maximum is pooled, padding included", lambda x, m: x.max(1), True),
        ("[CLS] and [SEP] are left out of the mean", lambda x, m: mean(x, _special(m, 1, 1))),
        ("[CLS] is left out of the mean", lambda x, m: mean(x, _special(m, 1, 0))),
        ("[SEP] is left out of the mean", lambda x, m: mean(x, _special(m, 0, 1))),
        ("padding is in the mean", lambda x, m: x.mean(1), True),
        ("the sum of real tokens is divided by the padded length",
         lambda x, m: (x * m[..., None]).sum(1) / m.shape[1], True),
        ("the sum of all rows, padding included, is divided by the number of real tokens",
         lambda x, m: x.sum(1) / m.sum(1, keepdims=True), True),
        ("the token vectors are summed, not averaged", lambda x, m: (x * m[..., None]).sum(1)),
        ("the sum is divided by sqrt(T)", lambda x, m: (x * m[..., None]).sum(1) / np.sqrt(m.sum(1, keepdims=True))),
        ("the last token's vector is the sentence vector",
         lambda x, m: x[np.arange(len(x)), m.shape[1] - 1 - m[:, ::-1].argmax(1)]),
        ("the first word's vector, behind [CLS], is the sentence vector", lambda x, m: x[:, min(1, x.shape[1] - 1)]),
        ("later tokens count more (weights 1, 2, 3, ...)", lambda x, m: mean(x, np.cumsum(m, axis=1) * m)),
        ("the token vectors are normalised before the mean", lambda x, m: mean(ops.normalize(x), m)),
        ("the minimum is pooled, not the mean", lambda x, m: -_max(-x, m)),
        ("the median is pooled, not the mean", lambda x, m: np.nanmedian(np.where(m[..., None], x, np.nan), axis=1)),
        ("the mean goes over the whole batch, not over each text", lambda x, m: 0 * mean(x, m) + x[m].mean(0), True),
    ],
    "normalize": [
        ("the sentence vector is not normalised", lambda x: x),
        ("the sentence vector is normalised", ops.normalize),
        ("the vector is divided by its squared length", lambda x: x / (x * x).sum(-1, keepdims=True)),
        ("the vector is divided by the sum of its absolute values (L1)",
         lambda x: x / np.abs(x).sum(-1, keepdims=True)),
        ("the vector is divided by its largest absolute value", lambda x: x / np.abs(x).max(-1, keepdims=True)),
        ("the vector is divided by its largest value", lambda x: x / x.max(-1, keepdims=True)),
        ("the vectors are normalised over the batch (axis 0)", lambda x: x / np.linalg.norm(x, axis=0), True),
        ("the vectors are divided by the norm of the whole array", lambda x: x / np.linalg.norm(x), True),
        ("the vector is standardised: mean 0, deviation 1", lambda x: layer_norm(x, 1, 0, 0)),
        ("the vector's mean is taken away before it is normalised",
         lambda x: ops.normalize(x - x.mean(-1, keepdims=True))),
        ("softmax is taken of the vector", softmax),
        ("tanh is taken of the vector before it is normalised", lambda x: ops.normalize(np.tanh(x))),
        ("the vector is multiplied by its length", lambda x: x * np.linalg.norm(x, axis=-1, keepdims=True)),
    ],
}  # fmt: skip


MISTAKES: tuple[Mistake, ...] = tuple(
    Mistake(op, says, how if isinstance(how, dict) else {op: how}, bool(together))
    for op, rows in _CATALOGUE.items()
    for says, how, *together in rows
)


def mistakes_of(op: str) -> list[Mistake]:
    """The known mistakes of one operation.

    >>> mistakes_of("scale")[0].says
    'the scores are not divided by sqrt(K) = sqrt({K})'
    """
    return [mistake for mistake in MISTAKES if mistake.op == op]


# --------------------------------------------------------------------------------------------------------- the forward


def embed(do: Recipe, place: str, batch: Batch, model: SentenceModel) -> dict[str, Array]:
    """Word, position and token type, then LayerNorm."""
    e, stored = model.params.embeddings, do("stored", place)
    word = stored(do("word", place)(batch.ids, e.word))  # (B, T, D)
    position = do("position", place)(batch.positions, stored(e.position))  # (B, T, D)
    summed = do("add", place)(word, position, do("token_type", place)(stored(e.token_type)))  # (B, T, D)
    output = _norm_at(do, place, e.layer_norm, model)(summed)  # (B, T, D)
    found = {"word": word, "position": position, "summed": summed, "output": output}
    return {name: do("round", place)(x) for name, x in found.items()}


def attention(
    do: Recipe, place: str, hidden: Array, embedded: Array, batch: Batch, model: SentenceModel, i: int
) -> dict[str, Array]:
    """Self-attention of layer i, its residual and LayerNorm."""
    config, p = model.config, do("weights", place)(model.params, i).attention
    norm, rounded = _norm_at(do, place, p.layer_norm, model), do("round", place)
    x = do("before", place)(norm, hidden)  # (B, T, D)
    found = {name: _linear_at(do, place, name, getattr(p, name), x) for name in ("query", "key", "value")}
    q, k, v = (do("split", place)(found[name], config.num_attention_heads) for name in found)  # (B, H, T, K)
    scores = do("scale", place)(do("scores", place)(q, k), config.head_size, config.hidden_size)  # (B, H, T, T)
    found["probs"] = rounded(do("softmax", place)(do("mask", place)(scores, batch.allowed)))  # (B, H, T, T)
    found["context"] = rounded(do("join", place)(do("gather", place)(found["probs"], v)))  # (B, T, D)
    found["projected"] = _linear_at(do, place, "projected", p.output, found["context"])  # (B, T, D)
    found["summed"] = rounded(do("residual", place)(hidden, found["projected"], hidden, embedded))
    return {**found, "output": rounded(do("behind", place)(norm, found["summed"]))}


def feed_forward(
    do: Recipe, place: str, hidden: Array, first: Array, embedded: Array, model: SentenceModel, i: int
) -> dict[str, Array]:
    """The feed-forward network of layer i, whose input was ``first``; its residual and LayerNorm."""
    p, act = do("weights", place)(model.params, i).feed_forward, do("activation", place)
    norm, rounded = _norm_at(do, place, p.layer_norm, model), do("round", place)
    if act is RIGHT["activation"]:
        act = ops.ACTIVATIONS[model.config.activation][0]
    found = {"expanded": _linear_at(do, place, "expanded", p.expand, do("before", place)(norm, hidden))}  # (B, T, F)
    found["activated"] = rounded(act(found["expanded"]))  # (B, T, F)
    found["projected"] = do("after", place)(_linear_at(do, place, "projected", p.contract, found["activated"]))
    found["summed"] = rounded(do("residual", place)(hidden, found["projected"], first, embedded))  # (B, T, D)
    return {**found, "output": rounded(do("behind", place)(norm, found["summed"]))}


def _linear_at(do: Recipe, place: str, name: str, part: LinearParams, x: Array) -> Array:
    weight, bias = map(do("stored", place), (part.weight, part.bias))
    return do("round", place)(do("linear", f"{place}.{name}")(x, weight, bias))


def _norm_at(do: Recipe, place: str, part: LayerNormParams, model: SentenceModel) -> Operation:
    weight, bias = map(do("stored", place), (part.weight, part.bias))
    return lambda x: do("layer_norm", place)(x, weight, bias, model.config.layer_norm_eps)


def blocks_of(layer_count: int) -> list[str]:
    """The blocks of a model, as :func:`forward` counts them.

    >>> blocks_of(1)
    ['embeddings', 'layers.0.attention', 'layers.0.feed_forward', 'modules']
    """
    halves = [f"layers.{i}.{half}" for i in range(layer_count) for half in ("attention", "feed_forward")]
    return ["embeddings", *halves, "modules"]


def forward(
    batch: Batch,
    model: SentenceModel,
    do: Recipe | None = None,
    known: Mapping[str, Array] | None = None,
    since: int = 0,
    until: int | None = None,
) -> dict[str, Array]:
    """Every tensor by its name in the ledger, padded; ``known`` ones stand for the blocks before ``since``.

    Blocks count from 0: the embeddings, then attention and feed-forward of each layer, then pooling and what follows.

    >>> from minisbert import SentenceEncoder
    >>> ids = [np.array([101, 1045, 2293, 11350, 102])]
    >>> forward(Batch.of(ids), SentenceEncoder().model)["sentence_embedding"].shape
    (1, 384)
    """
    do = do or Recipe()
    order = list(do("layers", "layers")(model.config.num_hidden_layers))
    *names, _ = blocks_of(len(order))
    if until is None or until > 2 * model.config.num_hidden_layers:  # all, even where a layer runs twice
        until = len(names)
    t = {key: x for key, x in (known or {}).items() if key.rpartition(".")[0] in names[:since]}
    for b, place in list(enumerate(names))[since : until + 1]:
        if b == 0:
            found = embed(do, place, batch, model)
        else:
            hidden, embedded, i = t[f"{names[b - 1]}.output"], t["embeddings.output"], order[(b - 1) // 2]
            if b % 2:
                found = attention(do, place, hidden, embedded, batch, model, i)
            else:
                found = feed_forward(do, place, hidden, t[f"{names[b - 2]}.output"], embedded, model, i)
        t |= {f"{place}.{name}": x for name, x in found.items()}
    if until >= len(names):
        t |= pooled(do, [t[f"{name}.output"] for name in ("embeddings", *names[2::2])], batch, model)
    return t


def pooled(do: Recipe, outputs: list[Array], batch: Batch, model: SentenceModel) -> dict[str, Array]:
    """The modules after BERT: ``outputs`` are those of the embeddings and of each layer."""
    hidden, mask = do("token_embeddings", "modules")(outputs), batch.mask
    if len(batch.places) > len(batch.ids):  # a strip: each text gets a row
        parts = [hidden[place] for place in batch.places]
        mask = Batch.of([part[:, 0] for part in parts]).mask
        hidden = np.zeros((*mask.shape, hidden.shape[-1]), hidden.dtype)
        hidden[mask] = np.concatenate(parts)
    x, results = hidden, []
    for module in model.modules:
        if isinstance(module, Pooling):
            if (wrong := do("pool", "modules")) is RIGHT["pool"]:
                x = pool(hidden[mask], mask.sum(1), module.modes)
            else:  # in place of each mode
                x = np.tile(wrong(hidden, mask), len(module.modes))
        elif isinstance(module, Dense):
            x = dense(x, module)
        else:
            x = do("normalize", "modules")(x)
        results.append(do("round", "modules")(x.astype(hidden.dtype, copy=False)))
    named = {f"modules.{i}": x for i, x in enumerate(results[:-1])}
    return {**named, "sentence_embedding": results[-1]}
