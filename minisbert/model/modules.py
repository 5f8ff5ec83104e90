"""What follows BERT in a sentence model: Pooling, Dense and Normalize, one after the other.

Each module is a dataclass of its settings and weights; :func:`apply_modules` is their forward pass. How they stand in a
model folder is the business of ``modules_json.py``, next.

Letters: ``N`` tokens, ``B`` texts, ``D`` hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisbert.model import Array
from minisbert.model.ops import ACTIVATIONS, linear, normalize
from minisbert.model.pooling import pool


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
