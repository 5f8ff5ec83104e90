"""Many token vectors -> one vector per text, in six ways.

Each function takes the strip ``(N, D)`` and the lengths ``(B,)`` and gives ``(B, D)``. There is no padding, so there
is none to leak into a mean. Which one a model was trained with stands in its folder; ``modules.py``, next, reads it.

**Source**: Reimers & Gurevych 2019 (arXiv 1908.10084), section 3; ``sentence_transformers``' ``Pooling``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minisbert.model import Array
from minisbert.model.bert import places, starts


def pool_mean(token_embeddings: Array, lengths: Array) -> Array:
    """Average a text's token vectors.

    Parameters
    ----------
    token_embeddings : Array, shape (N, D)
    lengths : Array, shape (B,)
        Tokens of each text, at least 1.

    Returns
    -------
    Array, shape (B, D)

    Examples
    --------
    >>> pool_mean(np.array([[1.0], [3.0], [5.0]]), np.array([2, 1]))
    array([[2.],
           [5.]])
    """
    total = np.add.reduceat(token_embeddings, starts(lengths), axis=0)  # (B, D)
    # the counts in the vectors' own dtype: float32 / int64 would be float64
    mean: Array = total / lengths[:, None].astype(total.dtype)  # (B, D)
    return mean


def pool_mean_sqrt_len(token_embeddings: Array, lengths: Array) -> Array:
    """Add a text's token vectors and divide by the square root of their number.

    Parameters
    ----------
    token_embeddings : Array, shape (N, D)
    lengths : Array, shape (B,)

    Returns
    -------
    Array, shape (B, D)

    Examples
    --------
    >>> pool_mean_sqrt_len(np.array([[1.0], [3.0], [1.0], [3.0]]), np.array([4]))
    array([[4.]])
    """
    total = np.add.reduceat(token_embeddings, starts(lengths), axis=0)  # (B, D)
    scaled: Array = total / np.sqrt(lengths[:, None].astype(total.dtype))  # (B, D)
    return scaled


def pool_weighted_mean(token_embeddings: Array, lengths: Array, skipped: int | Array = 0) -> Array:
    """Average with weights 1, 2, 3, ..: later tokens count more (SGPT, Muennighoff 2022, section 3).

    Parameters
    ----------
    token_embeddings : Array, shape (N, D)
    lengths : Array, shape (B,)
    skipped : int or Array, shape (B,)
        Tokens that were taken off the front: the rest keep the weights of their places.

    Returns
    -------
    Array, shape (B, D)

    Examples
    --------
    >>> pool_weighted_mean(np.array([[0.0], [3.0]]), np.array([2]))
    array([[2.]])
    """
    first = starts(lengths)  # (B,)
    place = places(lengths) + np.repeat(np.broadcast_to(skipped, lengths.shape), lengths) + 1  # (N,)
    weights = place.astype(token_embeddings.dtype)[:, None]  # (N, 1)
    total: Array = np.add.reduceat(token_embeddings * weights, first, axis=0)  # (B, D)
    mean: Array = total / np.add.reduceat(weights, first, axis=0)  # (B, D)
    return mean


def pool_max(token_embeddings: Array, lengths: Array) -> Array:
    """Take the largest value of each dimension over a text's tokens.

    Parameters
    ----------
    token_embeddings : Array, shape (N, D)
    lengths : Array, shape (B,)

    Returns
    -------
    Array, shape (B, D)

    Examples
    --------
    >>> pool_max(np.array([[1.0, 9.0], [3.0, -2.0]]), np.array([2]))
    array([[3., 9.]])
    """
    largest: Array = np.maximum.reduceat(token_embeddings, starts(lengths), axis=0)
    return largest


def pool_cls(token_embeddings: Array, lengths: Array) -> Array:
    """Take a text's first token vector, that of [CLS].

    Parameters
    ----------
    token_embeddings : Array, shape (N, D)
    lengths : Array, shape (B,)

    Returns
    -------
    Array, shape (B, D)

    Examples
    --------
    >>> pool_cls(np.array([[1.0], [2.0], [3.0]]), np.array([2, 1]))
    array([[1.],
           [3.]])
    """
    first: Array = token_embeddings[starts(lengths)]  # (B, D)
    return first


def pool_last_token(token_embeddings: Array, lengths: Array) -> Array:
    """Take a text's last token vector, in BERT that of [SEP].

    Parameters
    ----------
    token_embeddings : Array, shape (N, D)
    lengths : Array, shape (B,)

    Returns
    -------
    Array, shape (B, D)

    Examples
    --------
    >>> pool_last_token(np.array([[1.0], [2.0], [3.0]]), np.array([2, 1]))
    array([[2.],
           [3.]])
    """
    last: Array = token_embeddings[np.cumsum(lengths) - 1]  # (B, D)
    return last


POOLINGS: dict[str, Callable[[Array, Array], Array]] = {
    "cls": pool_cls,
    "max": pool_max,
    "mean": pool_mean,
    "mean_sqrt_len_tokens": pool_mean_sqrt_len,
    "weightedmean": pool_weighted_mean,
    "lasttoken": pool_last_token,
}
"""sentence-transformers' names, in the order in which it puts several side by side."""


def pool(token_embeddings: Array, lengths: Array, modes: tuple[str, ...] = ("mean",), prompt_length: int = 0) -> Array:
    """Pool in one or several ways and put the results side by side.

    Parameters
    ----------
    token_embeddings : Array, shape (N, D)
    lengths : Array, shape (B,)
        Tokens of each text, each at least 1.
    modes : tuple of str
        Keys of :data:`POOLINGS`.
    prompt_length : int
        Tokens at the front of each text to leave out: the prompt's, for models with ``include_prompt: false``.
        A text that holds nothing else keeps its last token.

    Returns
    -------
    Array, shape (B, len(modes) * D)

    Raises
    ------
    ValueError
        If lengths and token vectors do not fit each other, or a length is below 1.

    Examples
    --------
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
        skipped = np.minimum(prompt_length, lengths - 1)
        token_embeddings = token_embeddings[places(lengths) >= np.repeat(skipped, lengths)]
        lengths = lengths - skipped
    pooled = [
        pool_weighted_mean(token_embeddings, lengths, prompt_length)
        if mode == "weightedmean"
        else POOLINGS[mode](token_embeddings, lengths)
        for mode in modes
    ]
    return np.concatenate(pooled, axis=1)
