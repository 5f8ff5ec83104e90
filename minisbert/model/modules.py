"""What follows BERT in a sentence model: Pooling, Dense and Normalize, one after the other.

Each module is a dataclass of its settings and weights; :func:`apply_modules` is their forward pass, and the way back
stands under it. How they stand in a model folder is the business of ``modules_json.py``, next.

Letters: ``N`` tokens, ``B`` texts, ``D`` hidden size.
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
    """Token vectors to one vector a text: the pooled vectors of all modes side by side."""

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True)
class Dense:
    """``activation(x @ weight.T + bias)``, plus the input (through ``residual``, if any) with ``use_residual``."""

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
    """Turn token vectors into sentence vectors, module by module.

    Parameters
    ----------
    token_embeddings : Array, shape (N, D)
    lengths : Array, shape (B,)
        Tokens of each text.
    modules : tuple of Module
        The first is a Pooling.
    prompt_length : int
        Tokens of the prompt, [CLS] included; left out of the pooling where the model says so.

    Returns
    -------
    list of Array, each of shape (B, width)
        The result of each module; the last one holds the sentence vectors.

    Notes
    -----
    **Source**: ``sentence_transformers.SentenceTransformer.forward`` after its first module.

    Examples
    --------
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
    """Send a gradient back through :func:`apply_modules`: from sentence vectors to token vectors.

    Parameters
    ----------
    d_embeddings : Array, shape (B, width)
        Upstream gradient of the last result.
    results : list of Array
        What the forward gave: each module reads the one before its own.
    token_embeddings : Array, shape (N, D)
    lengths : Array, shape (B,)
    modules : tuple of Module
    prompt_length : int

    Returns
    -------
    d_tokens : Array, shape (N, D)
    d_modules : list of DenseGradients or None
        Of the modules' weights; None for those that have none.

    Notes
    -----
    **Source**: ``torch.autograd`` through ``sentence_transformers``' modules.

    Examples
    --------
    >>> import numpy as np
    >>> strip, lengths, modules = np.array([[3.0, 3.0], [3.0, 5.0]]), np.array([2]), (Pooling(), Normalize())
    >>> results = apply_modules(strip, lengths, modules)
    >>> modules_backward(np.array([[1.0, 0.0]]), results, strip, lengths, modules)[0].round(3)
    array([[ 0.064, -0.048],
           [ 0.064, -0.048]])
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
    """Send sentence vectors through one Dense module.

    Parameters
    ----------
    x : Array, shape (B, d_in)
    module : Dense

    Returns
    -------
    Array, shape (B, d_out)

    Notes
    -----
    **Source**: ``sentence_transformers``' ``Dense``.

    Examples
    --------
    >>> import numpy as np
    >>> dense(np.ones((1, 2)), Dense(np.array([[1.0, 2.0]]), np.array([-5.0]), "relu"))
    array([[0.]])
    """
    y = ACTIVATIONS[module.activation](linear(x, module.weight, module.bias))
    if module.use_residual:
        y = y + (x if module.residual is None else x @ module.residual.T)
    return y


@dataclass(frozen=True)
class DenseGradients:
    """Of a Dense module's weights, with the shapes of a :class:`Dense`; None for what it does not have."""

    weight: Array  # (d_out, d_in)
    bias: Array | None  # (d_out,)
    residual: Array | None  # (d_out, d_in)


def dense_backward(d_y: Array, x: Array, module: Dense) -> tuple[Array, DenseGradients]:
    """Send a gradient back through :func:`dense`.

    Parameters
    ----------
    d_y : Array, shape (B, d_out)
        Upstream gradient.
    x : Array, shape (B, d_in)
    module : Dense

    Returns
    -------
    d_x : Array, shape (B, d_in)
    d_module : DenseGradients

    Examples
    --------
    >>> import numpy as np
    >>> module = Dense(np.array([[1.0, 2.0]]), np.array([0.0]), "relu")
    >>> d_x, d_module = dense_backward(np.array([[10.0]]), np.ones((1, 2)), module)
    >>> d_x, d_module.weight, d_module.bias
    (array([[10., 20.]]), array([[10., 10.]]), array([10.]))
    """
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
    """Say how wide a sentence vector is after all modules.

    Parameters
    ----------
    modules : tuple of Module
    hidden_size : int
        ``D``.

    Returns
    -------
    int

    Examples
    --------
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
