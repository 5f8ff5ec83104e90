"""BERT's forward pass on a packed strip of tokens: embed -> L x (attention -> feed_forward).

Texts lie end to end in one strip, without padding and so without a mask. All but attention works row by row and
neither knows nor cares where a text ends; attention looks at ``lengths``. Each block returns a **trace**, a frozen
dataclass declared right above it with one field per tensor; the last field, ``output``, is what the next block
reads. Inference takes ``output`` and drops the rest, so that it holds one layer's activations at a time; proofs and
notebooks keep the traces. Dropout is a matter of training and is not here. Next comes ``pooling.py``.

Letters: ``B`` texts, ``N`` tokens in the strip, ``T`` tokens of one text, ``c`` neighbours of equal length,
``D`` hidden size, ``H`` heads, ``K`` = D/H, ``F`` feed-forward size.

**Source**: Devlin et al. 2019 (arXiv 1810.04805), section 3; ``transformers.BertModel``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minisbert.model import Array
from minisbert.model.config import BertConfig
from minisbert.model.ops import ACTIVATIONS, layer_norm, linear, softmax
from minisbert.model.params import (
    AttentionParams,
    BertParams,
    EmbeddingParams,
    FeedForwardParams,
    LayerParams,
)


def starts(lengths: Array) -> Array:
    """Say where each text begins in the strip.

    Parameters
    ----------
    lengths : Array, shape (B,)
        Tokens of each text.

    Returns
    -------
    Array, shape (B,)

    Examples
    --------
    >>> starts(np.array([3, 2, 4]))
    array([0, 3, 5])
    """
    first: Array = np.cumsum(lengths) - lengths  # (B,)
    return first


def places(lengths: Array) -> Array:
    """Number the tokens of each text from 0.

    Parameters
    ----------
    lengths : Array, shape (B,)
        Tokens of each text.

    Returns
    -------
    Array, shape (N,)

    Examples
    --------
    >>> places(np.array([3, 2]))
    array([0, 1, 2, 0, 1])
    """
    place: Array = np.arange(lengths.sum()) - np.repeat(starts(lengths), lengths)  # (N,)
    return place


@dataclass(frozen=True)
class EmbeddingTrace:
    """What :func:`embed` computed."""

    word: Array  # (N, D) the row of each token's piece
    position: Array  # (N, D) the row of its place in its own text
    summed: Array  # (N, D) word + position + token type, before LayerNorm
    output: Array  # (N, D) what layer 0 reads


def embed(token_ids: Array, lengths: Array, params: EmbeddingParams, eps: float) -> EmbeddingTrace:
    """Look up three vectors per token (which piece, which place, which part), add and normalise them.

    ``output = LayerNorm(word[id] + position[t] + token_type[0])``

    Parameters
    ----------
    token_ids : Array, shape (N,)
        Rows of the word table, each text with its special tokens.
    lengths : Array, shape (B,)
        Tokens of each text; ``sum(lengths) == N``.
    params : EmbeddingParams
    eps : float
        Of LayerNorm.

    Returns
    -------
    EmbeddingTrace

    Notes
    -----
    **Source**: Devlin et al. 2019, figure 2; ``transformers`` ``BertEmbeddings``.

    Examples
    --------
    >>> from minisbert.model.params import random_params
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1,
    ...                     intermediate_size=6, max_position_embeddings=5)
    >>> params = random_params(config, np.random.default_rng(0)).embeddings
    >>> embed(np.array([1, 2, 3, 1, 3]), np.array([3, 2]), params, eps=1e-12).output.shape
    (5, 4)
    """
    word = params.word[token_ids]  # (N, D)
    position = params.position[places(lengths)]  # (N, D)
    # every token of a single text is of type 0; type 1 is for the second text of a pair
    summed = word + position + params.token_type[0]  # (N, D)
    output = layer_norm(summed, params.layer_norm.weight, params.layer_norm.bias, eps)  # (N, D)
    return EmbeddingTrace(word, position, summed, output)


@dataclass(frozen=True)
class AttentionTrace:
    """What :func:`attention` computed."""

    query: Array  # (N, D) what each token looks for
    key: Array  # (N, D) what each token offers to be found by
    value: Array  # (N, D) what each token passes on
    probs: tuple[Array, ...]  # one (c, H, T, T) per run of equal lengths: how much token t looks at token s
    context: Array  # (N, D) values averaged by probs, heads side by side
    projected: Array  # (N, D) context through the output matrix
    summed: Array  # (N, D) with the residual, before LayerNorm
    output: Array  # (N, D) what feed_forward reads


def attention(hidden: Array, lengths: Array, params: AttentionParams, config: BertConfig) -> AttentionTrace:
    """Let each token gather from the tokens of its own text what its heads look for.

    Per text and head: ``probs = softmax(query @ key.T / sqrt(K))``, ``context = probs @ value``; then
    ``output = LayerNorm(hidden + context @ W.T + b)``.

    Parameters
    ----------
    hidden : Array, shape (N, D)
    lengths : Array, shape (B,)
        Tokens of each text: the only thing here that knows where one ends.
    params : AttentionParams
    config : BertConfig

    Returns
    -------
    AttentionTrace

    Notes
    -----
    **Source**: Vaswani et al. 2017, section 3.2; ``transformers`` ``BertAttention``, per text
    ``torch.nn.functional.scaled_dot_product_attention``.

    Examples
    --------
    >>> from minisbert.model.params import random_params
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1,
    ...                     intermediate_size=6, max_position_embeddings=5)
    >>> layer = random_params(config, np.random.default_rng(0)).layers[0]
    >>> trace = attention(np.ones((5, 4)), np.array([3, 2]), layer.attention, config)
    >>> [probs.shape for probs in trace.probs]
    [(1, 2, 3, 3), (1, 2, 2, 2)]
    """
    query = linear(hidden, params.query.weight, params.query.bias)  # (N, D)
    key = linear(hidden, params.key.weight, params.key.bias)  # (N, D)
    value = linear(hidden, params.value.weight, params.value.bias)  # (N, D)
    context = np.empty_like(query)  # (N, D)
    all_probs = []
    for rows, count, length in equal_length_runs(lengths):
        heads = (count, length, config.num_attention_heads, config.head_size)
        # a dot product of K random numbers grows like sqrt(K); undone here so that softmax does not saturate
        q = query[rows].reshape(heads).swapaxes(1, 2) / math.sqrt(config.head_size)  # (c, H, T, K)
        k = key[rows].reshape(heads).swapaxes(1, 2)  # (c, H, T, K)
        v = value[rows].reshape(heads).swapaxes(1, 2)  # (c, H, T, K)
        scores = q @ k.swapaxes(2, 3)  # (c, H, T, T)
        probs = softmax(scores, out=scores)  # (c, H, T, T) in place: a long text's scores are megabytes
        gathered = probs @ v  # (c, H, T, K)
        context[rows] = gathered.swapaxes(1, 2).reshape(count * length, config.hidden_size)
        all_probs.append(probs)
    projected = linear(context, params.output.weight, params.output.bias)  # (N, D)
    summed = hidden + projected  # (N, D)
    output = layer_norm(summed, params.layer_norm.weight, params.layer_norm.bias, config.layer_norm_eps)  # (N, D)
    return AttentionTrace(query, key, value, tuple(all_probs), context, projected, summed, output)


def equal_length_runs(lengths: Array) -> Iterator[tuple[slice, int, int]]:
    """Group neighbours of equal length, so that attention takes them in one matrix product.

    Parameters
    ----------
    lengths : Array, shape (B,)
        Tokens of each text.

    Yields
    ------
    rows : slice
        The run's rows of the strip.
    count : int
        ``c``, texts in the run.
    length : int
        ``T``, tokens of each.

    Examples
    --------
    >>> list(equal_length_runs(np.array([3, 3, 2])))
    [(slice(0, 6, None), 2, 3), (slice(6, 8, None), 1, 2)]
    """
    changes = np.flatnonzero(np.diff(lengths)) + 1
    start = 0
    for run in np.split(lengths, changes) if len(lengths) else []:
        count, length = len(run), int(run[0])
        yield slice(start, start + count * length), count, length
        start += count * length


@dataclass(frozen=True)
class FeedForwardTrace:
    """What :func:`feed_forward` computed."""

    expanded: Array  # (N, F) before the activation
    activated: Array  # (N, F) after it
    projected: Array  # (N, D) back at width D
    summed: Array  # (N, D) with the residual, before LayerNorm
    output: Array  # (N, D) the layer's result


def feed_forward(hidden: Array, params: FeedForwardParams, config: BertConfig) -> FeedForwardTrace:
    """Think about each token alone: widen it from D to F, bend it, narrow it again.

    ``output = LayerNorm(hidden + act(hidden @ W1.T + b1) @ W2.T + b2)``

    Parameters
    ----------
    hidden : Array, shape (N, D)
    params : FeedForwardParams
    config : BertConfig

    Returns
    -------
    FeedForwardTrace

    Notes
    -----
    **Source**: Vaswani et al. 2017, section 3.3 (with GELU); ``transformers`` ``BertIntermediate`` and ``BertOutput``.

    Examples
    --------
    >>> from minisbert.model.params import random_params
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1,
    ...                     intermediate_size=6, max_position_embeddings=5)
    >>> layer = random_params(config, np.random.default_rng(0)).layers[0]
    >>> feed_forward(np.ones((5, 4)), layer.feed_forward, config).expanded.shape
    (5, 6)
    """
    expanded = linear(hidden, params.expand.weight, params.expand.bias)  # (N, F)
    activated = ACTIVATIONS[config.activation](expanded)  # (N, F)
    projected = linear(activated, params.contract.weight, params.contract.bias)  # (N, D)
    summed = hidden + projected  # (N, D)
    output = layer_norm(summed, params.layer_norm.weight, params.layer_norm.bias, config.layer_norm_eps)  # (N, D)
    return FeedForwardTrace(expanded, activated, projected, summed, output)


@dataclass(frozen=True)
class LayerTrace:
    """What :func:`layer` computed: its two halves."""

    attention: AttentionTrace
    feed_forward: FeedForwardTrace

    @property
    def output(self) -> Array:
        """(N, D) what the next layer reads."""
        return self.feed_forward.output


def layer(hidden: Array, lengths: Array, params: LayerParams, config: BertConfig) -> LayerTrace:
    """One layer: tokens look at each other, then each thinks alone.

    Parameters
    ----------
    hidden : Array, shape (N, D)
    lengths : Array, shape (B,)
    params : LayerParams
    config : BertConfig

    Returns
    -------
    LayerTrace

    Notes
    -----
    **Source**: Vaswani et al. 2017, figure 1, left; ``transformers`` ``BertLayer``.

    Examples
    --------
    >>> from minisbert.model.params import random_params
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1,
    ...                     intermediate_size=6, max_position_embeddings=5)
    >>> params = random_params(config, np.random.default_rng(0)).layers[0]
    >>> layer(np.ones((5, 4)), np.array([3, 2]), params, config).output.shape
    (5, 4)
    """
    looked = attention(hidden, lengths, params.attention, config)
    thought = feed_forward(looked.output, params.feed_forward, config)
    return LayerTrace(looked, thought)


@dataclass(frozen=True)
class BertTrace:
    """Every tensor of one forward pass."""

    embeddings: EmbeddingTrace
    layers: tuple[LayerTrace, ...]

    @property
    def output(self) -> Array:
        """(N, D) the token embeddings after the last layer."""
        return self.layers[-1].output


def bert(token_ids: Array, lengths: Array, params: BertParams, config: BertConfig) -> Array:
    """Turn a strip of token ids into a strip of token embeddings.

    Parameters
    ----------
    token_ids : Array, shape (N,)
        All texts end to end, special tokens included.
    lengths : Array, shape (B,)
        Tokens of each text, each from 1 to P; ``sum(lengths) == N``.
    params : BertParams
    config : BertConfig

    Returns
    -------
    Array, shape (N, D)
        The last layer's output, dtype of the parameters.

    Notes
    -----
    **Source**: ``transformers.BertModel(...).last_hidden_state`` without its padded rows.

    Examples
    --------
    >>> from minisbert.model.params import random_params
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1,
    ...                     intermediate_size=6, max_position_embeddings=5)
    >>> params = random_params(config, np.random.default_rng(0))
    >>> bert(np.array([1, 2, 3, 1, 3]), np.array([3, 2]), params, config).shape
    (5, 4)
    """
    hidden = embed(token_ids, lengths, params.embeddings, config.layer_norm_eps).output  # (N, D)
    for layer_params in params.layers:
        hidden = layer(hidden, lengths, layer_params, config).output  # (N, D)
    return hidden


def trace_bert(token_ids: Array, lengths: Array, params: BertParams, config: BertConfig) -> BertTrace:
    """Compute what :func:`bert` computes, by the same blocks, and keep every tensor.

    Parameters
    ----------
    token_ids : Array, shape (N,)
    lengths : Array, shape (B,)
    params : BertParams
    config : BertConfig

    Returns
    -------
    BertTrace
        ``trace.output`` equals ``bert(...)`` bit for bit.

    Examples
    --------
    >>> from minisbert.model.params import random_params
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1,
    ...                     intermediate_size=6, max_position_embeddings=5)
    >>> params = random_params(config, np.random.default_rng(0))
    >>> trace_bert(np.array([1, 2, 3]), np.array([3]), params, config).layers[0].attention.probs[0].shape
    (1, 2, 3, 3)
    """
    embeddings = embed(token_ids, lengths, params.embeddings, config.layer_norm_eps)
    hidden = embeddings.output  # (N, D)
    layers = []
    for layer_params in params.layers:
        layers.append(layer(hidden, lengths, layer_params, config))
        hidden = layers[-1].output  # (N, D)
    return BertTrace(embeddings, tuple(layers))
