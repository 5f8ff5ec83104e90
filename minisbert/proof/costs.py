"""What a forward pass must compute and move: FLOP and bytes of every operation, by formula, from sizes alone.

**FLOP** are counted as they are on paper. A matrix product of ``(n, k)`` and ``(k, m)`` has ``2 n k m``: with a bias
that is exact (``k`` multiplications, ``k - 1`` additions, one more for the bias). For the rest, every ``+ - * /``,
comparison, square root, ``exp``, ``tanh`` and ``erfc`` that the formula asks for counts as one for each number it is
done on; what is done once a row is left out. So softmax has 5 a score (maximum, minus, exp, sum, divide), LayerNorm 7
a number (mean 1, minus 1, square and sum 2, times 1/std, weight, plus bias), GELU in float32 the 17 of its formula.

**Bytes** are the fewest that could do: each input, each weight and each output once, and nothing for temporary arrays
that a perfect program would not need. Attention's split into heads and its joining are copies, and count as such.

``OPERATIONS`` is the whole pass in the order of computation. Each names the function that does it and the variables
that it makes there: ``profile.py``, next, finds the lines by these and holds a clock to them.

Letters: ``B`` texts, ``N`` tokens in the strip, ``T`` tokens of one text, ``D`` hidden size, ``F`` feed-forward size,
``H`` heads, ``K`` = D/H, ``W`` width of a sentence vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minisbert.model import Array
from minisbert.model.bert import attention, embed, feed_forward
from minisbert.model.config import BertConfig
from minisbert.model.ops import normalize
from minisbert.model.pooling import Dense, Module, Normalize, Pooling, dense, pool
from minisbert.model.tokens import Tokenizer

_LAYER_NORM_FLOP, _SOFTMAX_FLOP, _NORMALIZE_FLOP = 7, 5, 3
_ACTIVATION_FLOP = {"identity": 0, "relu": 1, "tanh": 1, "sigmoid": 4, "silu": 5, "gelu_tanh": 9, "gelu": 17}
_GELU_FLOAT64_FLOP = 4  # x / -sqrt(2), erfc, times a half, times x
_POOLING_FLOP = {"mean": 1, "max": 1, "mean_sqrt_len_tokens": 1, "weightedmean": 2, "cls": 0, "lasttoken": 0}
_ID_BYTES = 8  # token ids are int64


@dataclass(frozen=True)
class Cost:
    """What something takes, at the least."""

    flop: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Take one after the other."""
        return Cost(self.flop + other.flop, self.bytes + other.bytes)

    def times(self, count: int) -> Cost:
        """Take the same so many times."""
        return Cost(count * self.flop, count * self.bytes)


@dataclass(frozen=True)
class Batch:
    """The sizes on which the cost of one batch depends."""

    lengths: Array  # (B,) tokens of each text
    config: BertConfig
    modules: tuple[Module, ...]
    dtype: np.dtype[Any]

    @property
    def tokens(self) -> int:
        """``N``."""
        return int(self.lengths.sum())

    @property
    def scores(self) -> int:
        """Numbers in one layer's attention scores: every token looks at each of its own text, ``H`` times."""
        return self.config.num_attention_heads * int((self.lengths.astype(np.int64) ** 2).sum())

    @property
    def hidden(self) -> int:
        """``N * D``: numbers in a layer's input."""
        return self.tokens * self.config.hidden_size

    @property
    def layers(self) -> int:
        """``L``."""
        return self.config.num_hidden_layers

    def cost(self, flop: int, numbers: int) -> Cost:
        """Say what so many FLOP and so many numbers, read or written, cost in this dtype."""
        return Cost(flop, numbers * self.dtype.itemsize)

    def linear(self, rows: int, d_in: int, d_out: int, bias: bool = True) -> Cost:
        """Cost of ``x @ weight.T + bias``."""
        numbers = rows * d_in + d_out * d_in + d_out * bias + rows * d_out
        return self.cost(2 * rows * d_in * d_out, numbers)

    def layer_norm(self) -> Cost:
        """Cost of one LayerNorm over the strip."""
        return self.cost(_LAYER_NORM_FLOP * self.hidden, 2 * self.hidden + 2 * self.config.hidden_size)

    def activation(self, name: str, count: int) -> Cost:
        """Cost of an activation of so many numbers."""
        exact = name == "gelu" and self.dtype == np.float64
        return self.cost((_GELU_FLOAT64_FLOP if exact else _ACTIVATION_FLOP[name]) * count, 2 * count)


def _look_up(batch: Batch) -> Cost:
    """Cost of two look-ups and two additions; the token type is one row for all."""
    ids = Cost(0, _ID_BYTES * batch.tokens)
    return ids + batch.cost(2 * batch.hidden, 3 * batch.hidden + batch.config.hidden_size)


def _square(batch: Batch) -> Cost:
    """Cost of one projection from D to D in every layer."""
    return batch.linear(batch.tokens, batch.config.hidden_size, batch.config.hidden_size).times(batch.layers)


def _scale(batch: Batch) -> Cost:
    """Cost of dividing the query by sqrt(K); key and value are only looked at in another shape."""
    return batch.cost(batch.hidden, 2 * batch.hidden).times(batch.layers)


def _heads_product(batch: Batch) -> Cost:
    """Cost of Q K^T, and of probs V as well: a dot product of K numbers, or K multiples added up, per score."""
    flop = 2 * batch.scores * batch.config.head_size
    return batch.cost(flop, 2 * batch.hidden + batch.scores).times(batch.layers)


def _softmax(batch: Batch) -> Cost:
    """Cost of the softmax of all scores."""
    return batch.cost(_SOFTMAX_FLOP * batch.scores, 2 * batch.scores).times(batch.layers)


def _join(batch: Batch) -> Cost:
    """Cost of the copy that puts the heads side by side."""
    return batch.cost(0, 2 * batch.hidden).times(batch.layers)


def _residual(batch: Batch) -> Cost:
    """Cost of one residual in every layer."""
    return batch.cost(batch.hidden, 3 * batch.hidden).times(batch.layers)


def _layer_norms(batch: Batch) -> Cost:
    """Cost of one LayerNorm in every layer."""
    return batch.layer_norm().times(batch.layers)


def _expand(batch: Batch) -> Cost:
    """Cost of the projection from D to F."""
    config = batch.config
    return batch.linear(batch.tokens, config.hidden_size, config.intermediate_size).times(batch.layers)


def _activate(batch: Batch) -> Cost:
    """Cost of the feed-forward's activation."""
    count = batch.tokens * batch.config.intermediate_size
    return batch.activation(batch.config.activation, count).times(batch.layers)


def _contract(batch: Batch) -> Cost:
    """Cost of the projection from F to D."""
    config = batch.config
    return batch.linear(batch.tokens, config.intermediate_size, config.hidden_size).times(batch.layers)


def _pool(batch: Batch) -> Cost:
    """Cost of pooling in all ways that the model asks for; [CLS] and the last token are copies of one row a text."""
    cost, rows = Cost(), len(batch.lengths) * batch.config.hidden_size
    for module in batch.modules:
        for mode in module.modes if isinstance(module, Pooling) else ():
            flop = _POOLING_FLOP[mode] * batch.hidden
            cost += batch.cost(flop, rows + (batch.hidden if flop else rows))
    return cost


def _dense(batch: Batch) -> Cost:
    """Cost of the Dense modules."""
    cost, texts = Cost(), len(batch.lengths)
    for module in batch.modules:
        if isinstance(module, Dense):
            d_out, d_in = module.weight.shape
            cost += batch.linear(texts, d_in, d_out, module.bias is not None)
            cost += batch.activation(module.activation, texts * d_out)
            if module.use_residual:
                cost += batch.cost(texts * d_out, 3 * texts * d_out)
            if module.residual is not None:
                cost += batch.linear(texts, d_in, d_out, bias=False)
    return cost


def _normalize(batch: Batch) -> Cost:
    """Cost of scaling the sentence vectors to length 1: square, sum and divide each number."""
    cost, width = Cost(), batch.config.hidden_size
    for module in batch.modules:
        if isinstance(module, Pooling):
            width *= len(module.modes)
        elif isinstance(module, Dense):
            width = len(module.weight)
        elif isinstance(module, Normalize):
            count = len(batch.lengths) * width
            cost += batch.cost(_NORMALIZE_FLOP * count, 2 * count)
    return cost


@dataclass(frozen=True)
class Operation:
    """One row of the table: what is done, in which function, in the lines that make which variables."""

    block: str
    name: str
    letters: str  # what goes in and comes out
    function: Callable[..., Any]
    makes: tuple[str, ...]  # none: the function as a whole
    cost: Callable[[Batch], Cost]


OPERATIONS = (
    Operation("tokenize", "tokenize", "text -> N", Tokenizer.__call__, (), lambda batch: Cost()),
    Operation("embed", "look up, add", "N -> (N,D)", embed, ("word", "position", "summed"), _look_up),
    Operation("embed", "LayerNorm", "(N,D)", embed, ("output",), Batch.layer_norm),
    Operation(
        "attention", "Q, K, V", "(N,D)(D,D)", attention, ("query", "key", "value"), lambda b: _square(b).times(3)
    ),
    Operation("attention", "split heads, scale", "(N,D) -> (H,T,K)", attention, ("q", "k", "v"), _scale),
    Operation("attention", "Q K^T", "(T,K)(K,T)", attention, ("scores",), _heads_product),
    Operation("attention", "softmax", "(H,T,T)", attention, ("probs",), _softmax),
    Operation("attention", "probs V", "(T,T)(T,K)", attention, ("gathered",), _heads_product),
    Operation("attention", "join heads", "(H,T,K) -> (N,D)", attention, ("context", "context[rows]"), _join),
    Operation("attention", "project", "(N,D)(D,D)", attention, ("projected",), _square),
    Operation("attention", "add residual", "(N,D)", attention, ("summed",), _residual),
    Operation("attention", "LayerNorm", "(N,D)", attention, ("output",), _layer_norms),
    Operation("feed-forward", "expand", "(N,D)(D,F)", feed_forward, ("expanded",), _expand),
    Operation("feed-forward", "activation", "(N,F)", feed_forward, ("activated",), _activate),
    Operation("feed-forward", "contract", "(N,F)(F,D)", feed_forward, ("projected",), _contract),
    Operation("feed-forward", "add residual", "(N,D)", feed_forward, ("summed",), _residual),
    Operation("feed-forward", "LayerNorm", "(N,D)", feed_forward, ("output",), _layer_norms),
    Operation("modules", "pooling", "(N,D) -> (B,W)", pool, (), _pool),
    Operation("modules", "dense", "(B,W)(W,W)", dense, (), _dense),
    Operation("modules", "normalize", "(B,W)", normalize, (), _normalize),
)
"""Everything that a forward pass does, in order. A model without Dense or Normalize has no such rows in its table."""


def count_costs(
    lengths: Array, config: BertConfig, modules: tuple[Module, ...] = (), dtype: npt.DTypeLike = "float32"
) -> list[Cost]:
    """Count FLOP and bytes of each operation for one batch.

    Parameters
    ----------
    lengths : Array, shape (B,)
        Tokens of each text.
    config : BertConfig
    modules : tuple of Module
        What follows BERT.
    dtype : {"float32", "float64"}
        Sets the bytes of a number, and which GELU is computed.

    Returns
    -------
    list of Cost
        One for each of :data:`OPERATIONS`.

    Examples
    --------
    >>> costs = dict(zip([op.name for op in OPERATIONS], count_costs(np.array([5]), BertConfig()), strict=True))
    >>> costs["expand"].flop == 12 * 2 * 5 * 768 * 3072  # bert-base: 12 layers
    True
    """
    batch = Batch(lengths, config, modules, np.dtype(dtype))
    return [operation.cost(batch) for operation in OPERATIONS]
