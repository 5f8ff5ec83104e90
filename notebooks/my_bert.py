"""Your own BERT: ten functions from token ids to a sentence vector; part two: the loss, and five gradients.

    cp notebooks/my_bert.py my_bert.py
    minisbert verify --mine my_bert.py

Replace one `raise NotImplementedError` after another and run the second line again. It judges each function alone, on
the right inputs of the real model: a wrong one does not spoil the next, and may call one that is not written yet, in
whose place it finds the right one. Once all ten are right, they run together. NumPy and Python's `math` are enough.

Everything is about one text: no batch, no padding, no mask. Letters: `T` tokens, `D` hidden size, `H` heads, `K` = D/H,
`F` feed-forward size, `V` vocabulary, `P` positions, `S` token types, `B` pairs. Return new arrays; leave arguments as
they are. `weights` are the checkpoint's, under its names: those of one layer without their `encoder.layer.0.`.
"""

import math  # noqa: F401 - math.erf

import numpy as np  # noqa: F401

EPS = 1e-12  # of BERT's LayerNorm
HEADS = 12  # of all-MiniLM-L6-v2

# ------------------------------------------------------------------------------------------ part one: text to vector


def embed(token_ids, weights, eps=EPS):
    """LayerNorm of the sum of three rows: the token's piece, its position from 0, and token type 0.

    (T,) -> (T, D)

    weights: embeddings.word_embeddings.weight (V, D), embeddings.position_embeddings.weight (P, D),
    embeddings.token_type_embeddings.weight (S, D), embeddings.LayerNorm.weight and .bias (D,)
    """
    raise NotImplementedError


def layer_norm(x, weight, bias, eps=EPS):
    """Each row with mean 0 and variance 1, then times weight, plus bias; the variance divides by D, eps is added to it.

    (T, D), (D,), (D,) -> (T, D)
    """
    raise NotImplementedError


def linear(x, weight, bias):
    """Each row through a matrix, plus bias. The checkpoint stores a matrix with one row per output.

    (T, d_in), (d_out, d_in), (d_out,) -> (T, d_out)
    """
    raise NotImplementedError


def attention_scores(query, key, heads):
    """Per head, the dot products of every query with every key, over sqrt(K). Head h has the columns from hK to hK + K.

    (T, D), (T, D) -> (H, T, T), the queries' tokens down, the keys' across
    """
    raise NotImplementedError


def softmax(scores):
    """Turn each row, along the last axis, into probabilities, however large the scores are.

    (..., T) -> (..., T)
    """
    raise NotImplementedError


def attention(hidden, weights, heads=HEADS):
    """Self-attention: values averaged by probabilities, the heads joined, the output matrix, the residual, LayerNorm.

    (T, D) -> (T, D)

    weights: attention.self.query, attention.self.key, attention.self.value and attention.output.dense, each .weight
    (D, D) and .bias (D,); attention.output.LayerNorm.weight and .bias (D,)
    """
    raise NotImplementedError


def gelu(x):
    """The activation function: x times the probability that a standard normal number is below x. The exact form.

    (T, F) -> (T, F)
    """
    raise NotImplementedError


def feed_forward(hidden, weights):
    """Each token alone: expand D -> F, activate, project back, add the residual, LayerNorm.

    (T, D) -> (T, D)

    weights: intermediate.dense.weight (F, D) and .bias (F,); output.dense.weight (D, F) and .bias (D,);
    output.LayerNorm.weight and .bias (D,)
    """
    raise NotImplementedError


def mean_pool(hidden):
    """The mean of all token vectors, [CLS] and [SEP] among them.

    (T, D) -> (D,)
    """
    raise NotImplementedError


def normalize(x):
    """The vector scaled to length 1; zeros stay zeros.

    (D,) -> (D,)
    """
    raise NotImplementedError


# ---------------------------------------------------------------------------------------- given: how they fit together


def encode(token_ids, weights, heads=HEADS):
    """The sentence vector of one text.

    (T,) -> (D,)
    """
    hidden = embed(token_ids, weights)  # (T, D)
    for i in range(sum(name.endswith("intermediate.dense.bias") for name in weights)):
        start = f"encoder.layer.{i}."
        layer = {name.removeprefix(start): array for name, array in weights.items() if name.startswith(start)}
        hidden = feed_forward(attention(hidden, layer, heads), layer)  # (T, D)
    return normalize(mean_pool(hidden))


# ------------------------------------------------------------------------------- part two: the loss, and five gradients
# `d_y` is how much the loss changes with each number of `y = f(x)`; the gradient d_x has the shape of x.


def info_nce(anchors, positives, scale=20.0):
    """The mean over i of -log of the probability, by softmax over j of scale * cosine, that anchor i picks positive i.

    (B, D), (B, D), rows of length 1 -> one number
    """
    raise NotImplementedError


def softmax_backward(d_probs, probs):
    """The gradient of the scores, from that of `probs = softmax(scores)`.

    (..., T), (..., T) -> (..., T)
    """
    raise NotImplementedError


def linear_backward(d_y, x, weight):
    """The gradients of x, weight and bias, in this order, from that of `y = linear(x, weight, bias)`.

    (T, d_out), (T, d_in), (d_out, d_in) -> (T, d_in), (d_out, d_in), (d_out,)
    """
    raise NotImplementedError


def layer_norm_backward(d_y, x, weight, eps=EPS):
    """The gradients of x, weight and bias, in this order, from that of `y = layer_norm(x, weight, bias, eps)`.

    (T, D), (T, D), (D,) -> (T, D), (D,), (D,)
    """
    raise NotImplementedError


def gelu_backward(d_y, x):
    """The gradient of x, from that of `y = gelu(x)`.

    (T, F), (T, F) -> (T, F)
    """
    raise NotImplementedError


def normalize_backward(d_y, x):
    """The gradient of x, from that of `y = normalize(x)`; x is not zeros.

    (D,), (D,) -> (D,)
    """
    raise NotImplementedError
