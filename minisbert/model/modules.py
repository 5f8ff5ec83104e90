"""What follows BERT in a sentence model: Pooling, then any number of Dense and Normalize.

Each module is a dataclass of its settings and weights; :func:`apply_modules` runs them one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisbert.model import Array
from minisbert.model.ops import (
    ACTIVATION_BACKWARDS,
    ACTIVATIONS,
    linear,
    linear_backward,
    normalize,
    normalize_backward,
)
from minisbert.model.pooling import pool, pool_backward


@dataclass(frozen=True)
class Pooling:
    """Token vectors to one vector a text: the results of all modes side by side."""

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True)
class Dense:
    """``activation(x @ weight.T + bias)``; plus ``x`` or ``x @ residual.T`` with ``use_residual``."""

    weight: Array  # (d_out, d_in)
    bias: Array | None  # (d_out,)
    activation: str
    use_residual: bool = False
    residual: Array | None = None  # (d_out, d_in), where the two widths differ


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

    >>> import numpy as np
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
    """``y = activation(x @ weight.T + bias)``, plus the residual where the module has one."""
    y = ACTIVATIONS[module.activation](linear(x, module.weight, module.bias))
    if module.use_residual:
        y = y + (x if module.residual is None else x @ module.residual.T)
    return y


@dataclass(frozen=True)
class DenseGradients:
    """The gradients of a :class:`Dense` module's weights; None for a weight that it does not have."""

    weight: Array  # (d_out, d_in)
    bias: Array | None  # (d_out,)
    residual: Array | None  # (d_out, d_in)


def dense_backward(d_y: Array, x: Array, module: Dense) -> tuple[Array, DenseGradients]:
    """Gradients of what the module read and of its weights."""
    before = linear(x, module.weight, module.bias)
    d_before = ACTIVATION_BACKWARDS[module.activation](d_y, before)
    d_x, d_weight, d_bias = linear_backward(d_before, x, module.weight)
    d_residual = None
    if module.use_residual and module.residual is None:
        d_x = d_x + d_y
    elif module.use_residual and module.residual is not None:
        d_more, d_residual, _ = linear_backward(d_y, x, module.residual)
        d_x = d_x + d_more
    return d_x, DenseGradients(d_weight, None if module.bias is None else d_bias, d_residual)


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
