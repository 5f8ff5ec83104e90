"""Token vectors -> one vector per text, in six ways, and what follows: Dense and Normalize.

Each pooling takes the strip ``x (N, D)`` and the lengths ``(B,)``; directly under each stands its gradient. There is no
padding, so none can leak into a mean. ``skipped`` says how many tokens were removed from the front of each text, one
number or ``(B,)``; only the weighted mean needs it. :func:`apply_modules` runs a sentence model's modules in turn.

**Source**: Reimers & Gurevych 2019 (arXiv 1908.10084), section 3; ``sentence_transformers``' ``Pooling``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minisbert.model import Array
from minisbert.model.bert import places, starts
from minisbert.model.ops import ACTIVATIONS, linear, linear_backward, normalize, normalize_backward


def pool_mean(x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """The mean of a text's token vectors.

    (N, D), (B,) -> (B, D)

    >>> pool_mean(np.array([[1.0], [3.0], [5.0]]), np.array([2, 1]))
    array([[2.],
           [5.]])
    """
    total = np.add.reduceat(x, starts(lengths), axis=0)  # (B, D)
    # the counts in the vectors' own dtype: float32 / int64 would be float64
    return total / lengths[:, None].astype(total.dtype)


def pool_mean_backward(d_pooled: Array, x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """Each token gets its text's gradient, divided by the number of tokens.

    (B, D), (N, D), (B,) -> (N, D)
    """
    d_total = d_pooled / lengths[:, None].astype(d_pooled.dtype)  # (B, D)
    return np.repeat(d_total, lengths, axis=0)


def pool_mean_sqrt_len(x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """The sum of a text's token vectors, divided by the square root of their number.

    (N, D), (B,) -> (B, D)
    """
    total = np.add.reduceat(x, starts(lengths), axis=0)  # (B, D)
    return total / np.sqrt(lengths[:, None].astype(total.dtype))


def pool_mean_sqrt_len_backward(d_pooled: Array, x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """Each token gets its text's gradient, divided by the square root of the number of tokens.

    (B, D), (N, D), (B,) -> (N, D)
    """
    d_total = d_pooled / np.sqrt(lengths[:, None].astype(d_pooled.dtype))  # (B, D)
    return np.repeat(d_total, lengths, axis=0)


def pool_weighted_mean(x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """The mean with weights 1, 2, 3, ..: later tokens count more (SGPT, Muennighoff 2022, section 3).

    (N, D), (B,) -> (B, D)

    >>> pool_weighted_mean(np.array([[0.0], [3.0]]), np.array([2]))
    array([[2.]])
    """
    first = starts(lengths)  # (B,)
    weights = _place_weights(lengths, skipped, x.dtype)  # (N, 1)
    total = np.add.reduceat(x * weights, first, axis=0)  # (B, D)
    return total / np.add.reduceat(weights, first, axis=0)


def pool_weighted_mean_backward(d_pooled: Array, x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """Each token gets its text's gradient, times its share of the weights.

    (B, D), (N, D), (B,) -> (N, D)
    """
    weights = _place_weights(lengths, skipped, d_pooled.dtype)  # (N, 1)
    d_total = d_pooled / np.add.reduceat(weights, starts(lengths), axis=0)  # (B, D)
    return np.repeat(d_total, lengths, axis=0) * weights


def _place_weights(lengths: Array, skipped: int | Array, dtype: npt.DTypeLike) -> Array:
    """Number the tokens of each text from 1."""
    place = places(lengths) + np.repeat(np.broadcast_to(skipped, lengths.shape), lengths) + 1  # (N,)
    return place.astype(dtype)[:, None]


def pool_max(x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """The largest value of each dimension over a text's tokens.

    (N, D), (B,) -> (B, D)
    """
    return np.maximum.reduceat(x, starts(lengths), axis=0)


def pool_max_backward(d_pooled: Array, x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """In each dimension the token with the largest value gets everything; of equals the first, as in PyTorch.

    (B, D), (N, D), (B,) -> (N, D)

    >>> pool_max_backward(np.array([[5.0, 7.0]]), np.array([[1.0, 9.0], [3.0, -2.0]]), np.array([2]))
    array([[0., 7.],
           [5., 0.]])
    """
    d_tokens = np.zeros_like(x)  # (N, D)
    dimensions = np.arange(x.shape[1])  # (D,)
    for start, length, d_text in zip(starts(lengths), lengths, d_pooled, strict=True):
        largest = start + x[start : start + length].argmax(axis=0)  # (D,)
        d_tokens[largest, dimensions] = d_text
    return d_tokens


def pool_cls(x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """A text's first token vector, that of [CLS].

    (N, D), (B,) -> (B, D)
    """
    return x[starts(lengths)]


def pool_cls_backward(d_pooled: Array, x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """The first token gets everything.

    (B, D), (N, D), (B,) -> (N, D)
    """
    d_tokens = np.zeros_like(x)  # (N, D)
    d_tokens[starts(lengths)] = d_pooled
    return d_tokens


def pool_last_token(x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """A text's last token vector, in BERT that of [SEP].

    (N, D), (B,) -> (B, D)
    """
    return x[np.cumsum(lengths) - 1]


def pool_last_token_backward(d_pooled: Array, x: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """The last token gets everything.

    (B, D), (N, D), (B,) -> (N, D)
    """
    d_tokens = np.zeros_like(x)  # (N, D)
    d_tokens[np.cumsum(lengths) - 1] = d_pooled
    return d_tokens


# sentence-transformers' names, in the order in which it puts several side by side
POOLINGS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "cls": (pool_cls, pool_cls_backward),
    "max": (pool_max, pool_max_backward),
    "mean": (pool_mean, pool_mean_backward),
    "mean_sqrt_len_tokens": (pool_mean_sqrt_len, pool_mean_sqrt_len_backward),
    "weightedmean": (pool_weighted_mean, pool_weighted_mean_backward),
    "lasttoken": (pool_last_token, pool_last_token_backward),
}


def pool(token_embeddings: Array, lengths: Array, modes: tuple[str, ...] = ("mean",), prompt_length: int = 0) -> Array:
    """Pool in one or several ways (keys of :data:`POOLINGS`) and put the results side by side: ``(B, len(modes) * D)``.

    ``prompt_length`` tokens at the front of each text are left out: the prompt's, for models with
    ``include_prompt: false``. A text that holds nothing else keeps its last token.

    >>> pool(np.array([[1.0], [3.0]]), np.array([2]), ("mean", "max"))
    array([[2., 3.]])
    """
    if len(lengths) and (lengths.min() < 1 or lengths.sum() != len(token_embeddings)):
        raise ValueError(
            f"pool: expected lengths (B,) of at least 1 that sum to N, got {len(lengths)} lengths from {lengths.min()} "
            f"that sum to {lengths.sum()}, and N = {len(token_embeddings)}; are special tokens left out of one of them?"
        )
    if not len(lengths):
        return np.empty((0, len(modes) * token_embeddings.shape[1]), dtype=token_embeddings.dtype)
    if prompt_length:
        kept, lengths = _behind_prompt(lengths, prompt_length)
        token_embeddings = token_embeddings[kept]
    return np.concatenate([POOLINGS[mode][0](token_embeddings, lengths, prompt_length) for mode in modes], axis=1)


def pool_backward(
    d_pooled: Array, token_embeddings: Array, lengths: Array, modes: tuple[str, ...] = ("mean",), prompt_length: int = 0
) -> Array:
    """A token gets the sum of what comes back through all modes; tokens that were left out get zero.

    >>> pool_backward(np.array([[2.0, 7.0]]), np.array([[1.0], [3.0]]), np.array([2]), ("mean", "max")).T
    array([[1., 8.]])
    """
    if not len(lengths):
        return np.zeros_like(token_embeddings)
    kept, rest = _behind_prompt(lengths, prompt_length)
    d_tokens = np.zeros_like(token_embeddings)  # (N, D)
    for mode, d_mode in zip(modes, np.split(d_pooled, len(modes), axis=1), strict=True):
        _, backward = POOLINGS[mode]
        d_tokens[kept] += backward(d_mode, token_embeddings[kept], rest, prompt_length)
    return d_tokens


def _behind_prompt(lengths: Array, prompt_length: int) -> tuple[Array, Array]:
    """Which tokens (N,) come after the prompt, and how many of each text, (B,); the last one always does."""
    skipped = np.minimum(prompt_length, lengths - 1)  # (B,)
    kept = places(lengths) >= np.repeat(skipped, lengths)  # (N,)
    return kept, lengths - skipped


@dataclass(frozen=True)
class Pooling:
    """Token vectors to one vector a text: the results of all modes side by side."""

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True)
class Dense:
    """``activation(x @ weight.T + bias)``."""

    weight: Array  # (d_out, d_in)
    bias: Array | None  # (d_out,)
    activation: str


@dataclass(frozen=True)
class Normalize:
    """Scale each sentence vector to length 1."""


Module = Pooling | Dense | Normalize


def apply_modules(
    token_embeddings: Array, lengths: Array, modules: tuple[Module, ...], prompt_length: int = 0
) -> list[Array]:
    """Turn token vectors (N, D) into sentence vectors: the result of each module, (B, width); the last are the vectors.

    ``prompt_length`` counts the prompt's tokens, [CLS] included. **Source**:
    ``sentence_transformers.SentenceTransformer.forward`` after its first module.

    >>> strip = np.array([[3.0, 3.0], [3.0, 5.0]])
    >>> apply_modules(strip, np.array([2]), (Pooling(), Normalize()))
    [array([[3., 4.]]), array([[0.6, 0.8]])]
    """
    results: list[Array] = []
    for module in modules:
        if isinstance(module, Pooling):
            left_out = 0 if module.include_prompt else prompt_length
            results.append(pool(token_embeddings, lengths, module.modes, left_out))
        elif isinstance(module, Dense):
            results.append(dense(results[-1], module))
        else:
            results.append(normalize(results[-1]))
    return results


def modules_backward(
    d_embeddings: Array,
    results: list[Array],
    token_embeddings: Array,
    lengths: Array,
    modules: tuple[Module, ...],
    prompt_length: int = 0,
) -> tuple[Array, list[DenseGradients | None]]:
    """From the gradient of the sentence vectors to that of the token vectors, (N, D), and of each module's weights.

    ``results`` is what the forward gave: each module reads the result before its own.
    """
    d_modules: list[DenseGradients | None] = [None] * len(modules)
    d_y = d_embeddings
    for i, module in reversed(list(enumerate(modules))):
        if isinstance(module, Normalize):
            d_y = normalize_backward(d_y, results[i - 1])
        elif isinstance(module, Dense):
            d_y, d_modules[i] = dense_backward(d_y, results[i - 1], module)
        else:
            left_out = 0 if module.include_prompt else prompt_length
            d_y = pool_backward(d_y, token_embeddings, lengths, module.modes, left_out)
    return d_y, d_modules


def dense(x: Array, module: Dense) -> Array:
    """``y = activation(x @ weight.T + bias)``."""
    activation, _ = ACTIVATIONS[module.activation]
    return activation(linear(x, module.weight, module.bias))


@dataclass(frozen=True)
class DenseGradients:
    """The gradients of a :class:`Dense` module's weights; None for a weight that it does not have."""

    weight: Array  # (d_out, d_in)
    bias: Array | None  # (d_out,)


def dense_backward(d_y: Array, x: Array, module: Dense) -> tuple[Array, DenseGradients]:
    """Gradients of what the module read and of its weights."""
    before = linear(x, module.weight, module.bias)
    _, activation_backward = ACTIVATIONS[module.activation]
    d_before = activation_backward(d_y, before)
    d_x, d_weight, d_bias = linear_backward(d_before, x, module.weight)
    return d_x, DenseGradients(d_weight, None if module.bias is None else d_bias)


def output_width(modules: tuple[Module, ...], hidden_size: int) -> int:
    """The length of a sentence vector after these modules.

    >>> output_width((Pooling(("mean", "max")), Normalize()), 384)
    768
    """
    width = hidden_size
    for module in modules:
        if isinstance(module, Pooling):
            width *= len(module.modes)
        elif isinstance(module, Dense):
            width = len(module.weight)
    return width
