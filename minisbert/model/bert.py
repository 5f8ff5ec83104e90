"""BERT on a packed strip of tokens, forward and backward: embed -> L x (attention -> feed_forward).

Texts lie end to end in one strip, without padding and so without a mask. Everything but attention works row by row and
does not know where a text ends; attention looks at ``lengths``. Each block returns a **trace**, a frozen dataclass with
one field per tensor, declared right above it; the last field, ``output``, is what the next block reads. Inference
takes ``output`` and drops the rest, so it holds one layer's activations at a time.

Directly under each block stands its **backward**: the forward read from the bottom up, with the forward line that is
being inverted quoted above each step.

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
from minisbert.model.ops import (
    ACTIVATIONS,
    dropout_mask,
    layer_norm,
    layer_norm_backward,
    linear,
    linear_backward,
    softmax,
    softmax_backward,
)
from minisbert.model.params import (
    AttentionParams,
    BertGradients,
    BertParams,
    EmbeddingGradients,
    EmbeddingParams,
    FeedForwardParams,
    LayerNormParams,
    LayerParams,
    LinearParams,
    sum_rows,
)


def starts(lengths: Array) -> Array:
    """Where each text begins in the strip.

    (B,) -> (B,)

    >>> starts(np.array([3, 2, 4]))
    array([0, 3, 5])
    """
    return np.cumsum(lengths) - lengths


def places(lengths: Array) -> Array:
    """Number the tokens of each text from 0.

    (B,) -> (N,)

    >>> places(np.array([3, 2]))
    array([0, 1, 2, 0, 1])
    """
    return np.arange(lengths.sum()) - np.repeat(starts(lengths), lengths)


@dataclass(frozen=True)
class Dropout:
    """Dropout rates, and the generator that draws the masks; only training has them."""

    rng: np.random.Generator
    hidden: float = 0.1  # rate, behind the embeddings and before each residual
    attention: float = 0.1  # rate, of attention probabilities


def _mask(dropout: Dropout | None, rate: str, like: Array) -> Array | None:
    """Draw a mask of an array's shape; None without dropout."""
    if dropout is None:
        return None
    return dropout_mask(like.shape, getattr(dropout, rate), dropout.rng, like.dtype)


def _drop(x: Array, mask: Array | None) -> Array:
    """Multiply an activation, or its gradient, by the mask, if there is one."""
    return x if mask is None else x * mask


@dataclass(frozen=True)
class EmbeddingTrace:
    """What :func:`embed` computed."""

    word: Array  # (N, D) the row of each token's piece
    position: Array  # (N, D) the row of its place in its own text
    summed: Array  # (N, D) word + position + token type, before LayerNorm
    mask: Array | None  # (N, D) what dropout multiplied by
    output: Array  # (N, D) what layer 0 reads


def embed(
    token_ids: Array, lengths: Array, params: EmbeddingParams, eps: float, dropout: Dropout | None = None
) -> EmbeddingTrace:
    """``output = LayerNorm(word[id] + position[t] + token_type[0])``: which piece, at which place, in which part.

    **Source**: Devlin et al. 2019, figure 2; ``transformers`` ``BertEmbeddings``.
    """
    word = params.word[token_ids]  # (N, D)
    position = params.position[places(lengths)]  # (N, D)
    # every token of a single text is of type 0; type 1 is for the second text of a pair
    summed = word + position + params.token_type[0]  # (N, D)
    output = layer_norm(summed, params.layer_norm.weight, params.layer_norm.bias, eps)  # (N, D)
    mask = _mask(dropout, "hidden", output)
    return EmbeddingTrace(word, position, summed, mask, _drop(output, mask))


def embed_backward(
    d_output: Array, trace: EmbeddingTrace, token_ids: Array, lengths: Array, params: EmbeddingParams, eps: float
) -> EmbeddingGradients:
    """Gradients of the tables; token ids have none. Of the word table only the rows of the pieces in these texts."""
    # output = drop(layer_norm(summed))
    d_normed = _drop(d_output, trace.mask)  # (N, D)
    d_summed, *d_norm = layer_norm_backward(d_normed, trace.summed, params.layer_norm.weight, eps)
    # summed = word + position + token_type[0]: each of the three gets the whole of it
    d_token_type = np.zeros_like(params.token_type)  # (S, D)
    d_token_type[0] = d_summed.sum(axis=0)
    # position = params.position[places(lengths)]
    d_position = sum_rows(places(lengths), d_summed, len(params.position)).dense()  # (P, D)
    # word = params.word[token_ids]
    d_word = sum_rows(token_ids, d_summed, len(params.word))
    return EmbeddingGradients(d_word, d_position, d_token_type, LayerNormParams(*d_norm))


@dataclass(frozen=True)
class AttentionTrace:
    """What :func:`attention` computed."""

    query: Array  # (N, D) what each token looks for
    key: Array  # (N, D) what each token offers to be found by
    value: Array  # (N, D) what each token passes on
    probs: tuple[Array, ...]  # one (c, H, T, T) per run of equal lengths: how much token t looks at token s
    probs_masks: tuple[Array | None, ...]  # what dropout multiplied them by, run by run
    context: Array  # (N, D) values averaged by probs, heads side by side
    projected: Array  # (N, D) context through the output matrix
    mask: Array | None  # (N, D) what dropout multiplied projected by
    summed: Array  # (N, D) with the residual, before LayerNorm
    output: Array  # (N, D) what feed_forward reads


def attention(
    hidden: Array, lengths: Array, params: AttentionParams, config: BertConfig, dropout: Dropout | None = None
) -> AttentionTrace:
    """Self-attention: each token gathers from the tokens of its own text what its heads look for.

    Per text and head: ``probs = softmax(query @ key.T / sqrt(K))``, ``context = probs @ value``; then
    ``output = LayerNorm(hidden + context @ W.T + b)``.

    **Source**: Vaswani et al. 2017, section 3.2; ``transformers`` ``BertAttention``.
    """
    query = linear(hidden, params.query.weight, params.query.bias)  # (N, D)
    key = linear(hidden, params.key.weight, params.key.bias)  # (N, D)
    value = linear(hidden, params.value.weight, params.value.bias)  # (N, D)
    context = np.empty_like(query)  # (N, D)
    all_probs = []
    all_masks = []
    for rows, count, length in equal_length_runs(lengths):
        heads = (count, length, config.num_attention_heads, config.head_size)
        # a dot product of K random numbers grows like sqrt(K); undone here so that softmax does not saturate
        q = query[rows].reshape(heads).swapaxes(1, 2) / math.sqrt(config.head_size)  # (c, H, T, K)
        k = key[rows].reshape(heads).swapaxes(1, 2)  # (c, H, T, K)
        v = value[rows].reshape(heads).swapaxes(1, 2)  # (c, H, T, K)
        scores = q @ k.swapaxes(2, 3)  # (c, H, T, T)
        probs = softmax(scores, out=scores)  # (c, H, T, T) in place: a long text's scores are megabytes
        all_masks.append(_mask(dropout, "attention", probs))
        gathered = _drop(probs, all_masks[-1]) @ v  # (c, H, T, K)
        context[rows] = gathered.swapaxes(1, 2).reshape(count * length, config.hidden_size)
        all_probs.append(probs)
    projected = linear(context, params.output.weight, params.output.bias)  # (N, D)
    mask = _mask(dropout, "hidden", projected)
    summed = hidden + _drop(projected, mask)  # (N, D)
    output = layer_norm(summed, params.layer_norm.weight, params.layer_norm.bias, config.layer_norm_eps)  # (N, D)
    return AttentionTrace(
        query, key, value, tuple(all_probs), tuple(all_masks), context, projected, mask, summed, output
    )


def attention_backward(
    d_output: Array, trace: AttentionTrace, hidden: Array, lengths: Array, params: AttentionParams, config: BertConfig
) -> tuple[Array, AttentionParams]:
    """Gradients of ``hidden``, (N, D), and of the block's weights.

    The key bias gets zero: it moves all scores of a row alike, which softmax ignores.
    """
    # output = layer_norm(summed)
    d_summed, *d_norm = layer_norm_backward(d_output, trace.summed, params.layer_norm.weight, config.layer_norm_eps)
    # summed = hidden + drop(projected)
    d_projected = _drop(d_summed, trace.mask)  # (N, D)
    # projected = linear(context)
    d_context, *d_out = linear_backward(d_projected, trace.context, params.output.weight)
    # context = gathered over all runs
    d_query, d_key, d_value = _gather_backward(d_context, trace, lengths, config)
    # query, key, value = linear(hidden), three times
    d_from_value, *d_value_params = linear_backward(d_value, hidden, params.value.weight)
    d_from_key, *d_key_params = linear_backward(d_key, hidden, params.key.weight)
    d_from_query, *d_query_params = linear_backward(d_query, hidden, params.query.weight)
    # hidden was read four times: by the residual and by the three products
    d_hidden = d_summed + d_from_query + d_from_key + d_from_value  # (N, D)
    gradients = AttentionParams(
        query=LinearParams(*d_query_params),
        key=LinearParams(*d_key_params),
        value=LinearParams(*d_value_params),
        output=LinearParams(*d_out),
        layer_norm=LayerNormParams(*d_norm),
    )
    return d_hidden, gradients


def _gather_backward(
    d_context: Array, trace: AttentionTrace, lengths: Array, config: BertConfig
) -> tuple[Array, Array, Array]:
    """Back through the loop over runs of equal length: gradients of query, key and value, each (N, D)."""
    d_query, d_key, d_value = (np.empty_like(d_context) for _ in range(3))
    runs = zip(equal_length_runs(lengths), trace.probs, trace.probs_masks, strict=True)
    for (rows, count, length), probs, mask in runs:
        heads = (count, length, config.num_attention_heads, config.head_size)
        q = trace.query[rows].reshape(heads).swapaxes(1, 2) / math.sqrt(config.head_size)  # (c, H, T, K)
        k = trace.key[rows].reshape(heads).swapaxes(1, 2)  # (c, H, T, K)
        v = trace.value[rows].reshape(heads).swapaxes(1, 2)  # (c, H, T, K)
        # context[rows] = gathered
        d_gathered = d_context[rows].reshape(heads).swapaxes(1, 2)  # (c, H, T, K)
        # gathered = drop(probs) @ v
        d_v = _drop(probs, mask).swapaxes(2, 3) @ d_gathered  # (c, H, T, K)
        d_probs = _drop(d_gathered @ v.swapaxes(2, 3), mask)  # (c, H, T, T)
        # probs = softmax(scores)
        d_scores = softmax_backward(d_probs, probs)  # (c, H, T, T)
        # scores = q @ k.T
        d_q = d_scores @ k  # (c, H, T, K)
        d_k = d_scores.swapaxes(2, 3) @ q  # (c, H, T, K)
        # q = query / sqrt(K), k = key, v = value, each split into heads
        d_query[rows] = _join_heads(d_q / math.sqrt(config.head_size))
        d_key[rows] = _join_heads(d_k)
        d_value[rows] = _join_heads(d_v)
    return d_query, d_key, d_value


def _join_heads(heads: Array) -> Array:
    """(c, H, T, K) -> (c T, D): the heads side by side again."""
    count, head_count, length, head_size = heads.shape
    return heads.swapaxes(1, 2).reshape(count * length, head_count * head_size)


def equal_length_runs(lengths: Array) -> Iterator[tuple[slice, int, int]]:
    """Group neighbours of equal length, so that attention takes them in one matrix product.

    Yields ``(rows, c, T)``: the run's slice of the strip, how many texts it has, and how many tokens each.

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
    mask: Array | None  # (N, D) what dropout multiplied projected by
    summed: Array  # (N, D) with the residual, before LayerNorm
    output: Array  # (N, D) the layer's result


def feed_forward(
    hidden: Array, params: FeedForwardParams, config: BertConfig, dropout: Dropout | None = None
) -> FeedForwardTrace:
    """Feed-forward network: process each token independently: expand D -> F, activate, project back.

    ``output = LayerNorm(hidden + activation(hidden @ W1.T + b1) @ W2.T + b2)``

    **Source**: Vaswani et al. 2017, section 3.3 (with GELU); ``transformers`` ``BertIntermediate`` and ``BertOutput``.
    """
    expanded = linear(hidden, params.expand.weight, params.expand.bias)  # (N, F)
    activation, _ = ACTIVATIONS[config.activation]
    activated = activation(expanded)  # (N, F)
    projected = linear(activated, params.contract.weight, params.contract.bias)  # (N, D)
    mask = _mask(dropout, "hidden", projected)
    summed = hidden + _drop(projected, mask)  # (N, D)
    output = layer_norm(summed, params.layer_norm.weight, params.layer_norm.bias, config.layer_norm_eps)  # (N, D)
    return FeedForwardTrace(expanded, activated, projected, mask, summed, output)


def feed_forward_backward(
    d_output: Array, trace: FeedForwardTrace, hidden: Array, params: FeedForwardParams, config: BertConfig
) -> tuple[Array, FeedForwardParams]:
    """Gradients of ``hidden``, (N, D), and of the block's weights."""
    # output = layer_norm(summed)
    d_summed, *d_norm = layer_norm_backward(d_output, trace.summed, params.layer_norm.weight, config.layer_norm_eps)
    # summed = hidden + drop(projected)
    d_projected = _drop(d_summed, trace.mask)  # (N, D)
    # projected = linear(activated)
    d_activated, *d_contract = linear_backward(d_projected, trace.activated, params.contract.weight)
    # activated = activation(expanded)
    _, activation_backward = ACTIVATIONS[config.activation]
    d_expanded = activation_backward(d_activated, trace.expanded)  # (N, F)
    # expanded = linear(hidden)
    d_from_expanded, *d_expand = linear_backward(d_expanded, hidden, params.expand.weight)
    # hidden was read twice: by the residual and by the product
    d_hidden = d_summed + d_from_expanded  # (N, D)
    gradients = FeedForwardParams(
        expand=LinearParams(*d_expand),
        contract=LinearParams(*d_contract),
        layer_norm=LayerNormParams(*d_norm),
    )
    return d_hidden, gradients


@dataclass(frozen=True)
class LayerTrace:
    """What :func:`layer` computed: its two halves."""

    attention: AttentionTrace
    feed_forward: FeedForwardTrace

    @property
    def output(self) -> Array:
        """(N, D) what the next layer reads."""
        return self.feed_forward.output


def layer(
    hidden: Array, lengths: Array, params: LayerParams, config: BertConfig, dropout: Dropout | None = None
) -> LayerTrace:
    """One layer: self-attention, then the feed-forward network.

    **Source**: Vaswani et al. 2017, figure 1, left; ``transformers`` ``BertLayer``.
    """
    looked = attention(hidden, lengths, params.attention, config, dropout)
    thought = feed_forward(looked.output, params.feed_forward, config, dropout)
    return LayerTrace(looked, thought)


def layer_backward(
    d_output: Array, trace: LayerTrace, hidden: Array, lengths: Array, params: LayerParams, config: BertConfig
) -> tuple[Array, LayerParams]:
    """Gradients of ``hidden``, (N, D), and of the layer's weights: back through the second half, then the first."""
    # thought = feed_forward(looked.output)
    d_looked, d_feed_forward = feed_forward_backward(
        d_output, trace.feed_forward, trace.attention.output, params.feed_forward, config
    )
    # looked = attention(hidden)
    d_hidden, d_attention = attention_backward(d_looked, trace.attention, hidden, lengths, params.attention, config)
    return d_hidden, LayerParams(d_attention, d_feed_forward)


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

    The ids are rows of the word table, special tokens included; each length is from 1 to P, and they sum to N. The
    result has the dtype of the parameters.

    **Source**: ``transformers.BertModel(...).last_hidden_state`` without its padded rows.

    (N,), (B,) -> (N, D)
    """
    hidden = embed(token_ids, lengths, params.embeddings, config.layer_norm_eps).output  # (N, D)
    for layer_params in params.layers:
        hidden = layer(hidden, lengths, layer_params, config).output  # (N, D)
    return hidden


def trace_bert(
    token_ids: Array, lengths: Array, params: BertParams, config: BertConfig, dropout: Dropout | None = None
) -> BertTrace:
    """Compute what :func:`bert` computes, by the same blocks, and keep every tensor.

    Parameters
    ----------
    token_ids, lengths, params, config
        As :func:`bert`; without dropout ``trace.output`` equals its result bit for bit.
    dropout : Dropout, optional
        For training.

    Examples
    --------
    Two texts, of three tokens and of two:

    >>> from minisbert.model.params import random_params
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=6)
    >>> params = random_params(config, np.random.default_rng(0))
    >>> trace = trace_bert(np.array([1, 2, 3, 1, 3]), np.array([3, 2]), params, config)
    >>> [probs.shape for probs in trace.layers[0].attention.probs]
    [(1, 2, 3, 3), (1, 2, 2, 2)]
    """
    embeddings = embed(token_ids, lengths, params.embeddings, config.layer_norm_eps, dropout)
    hidden = embeddings.output  # (N, D)
    layers = []
    for layer_params in params.layers:
        layers.append(layer(hidden, lengths, layer_params, config, dropout))
        hidden = layers[-1].output  # (N, D)
    return BertTrace(embeddings, tuple(layers))


def bert_backward(
    d_output: Array, trace: BertTrace, token_ids: Array, lengths: Array, params: BertParams, config: BertConfig
) -> BertGradients:
    """Send the gradient of the token embeddings back to every weight of BERT.

    Parameters
    ----------
    d_output : Array, shape (N, D)
        Upstream gradient of ``trace.output``.
    trace : BertTrace
        From :func:`trace_bert` on the same arguments, which follow.

    Notes
    -----
    **Source**: Rumelhart, Hinton & Williams 1986; ``loss.backward()`` on ``transformers.BertModel``.

    Examples
    --------
    >>> from minisbert.model.params import random_params
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=6)
    >>> params = random_params(config, np.random.default_rng(0))
    >>> token_ids, lengths = np.array([1, 2, 3, 1, 3]), np.array([3, 2])
    >>> trace = trace_bert(token_ids, lengths, params, config)
    >>> gradients = bert_backward(np.ones((5, 4)), trace, token_ids, lengths, params, config)
    >>> gradients.layers[0].attention.query.weight.shape, gradients.embeddings.word.rows
    ((4, 4), array([1, 2, 3]))
    """
    inputs = [trace.embeddings.output, *(done.output for done in trace.layers[:-1])]
    d_hidden, layers = d_output, []
    for done, hidden, layer_params in reversed(list(zip(trace.layers, inputs, params.layers, strict=True))):
        d_hidden, d_layer = layer_backward(d_hidden, done, hidden, lengths, layer_params, config)
        layers.append(d_layer)
    d_embeddings = embed_backward(
        d_hidden, trace.embeddings, token_ids, lengths, params.embeddings, config.layer_norm_eps
    )
    return BertGradients(d_embeddings, tuple(reversed(layers)))
