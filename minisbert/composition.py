"""The vectors of a text's chunks -> one vector of the whole.

Either the chunks' sentence vectors become one (:func:`compose`), or, in **late composition**, their token vectors are
pooled as if they were the tokens of one long text (:func:`share_out`, :func:`pool_shares`, :func:`compose_shares`).
What sends chunks through BERT is ``pipeline.py``; how a name becomes a model comes next, in ``sources.py``.

Letters: ``N`` tokens in the strip, ``C`` chunks, ``D`` hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.model.pooling import POOLINGS

Composition = str | Callable[[Array, Array], Array]
LATE = "late"
"""The composition that pools token vectors, and so has to know the model."""


def compose(
    embeddings: Array, new_tokens: Array, composition: Composition = "weighted_mean", normalized: bool = True
) -> Array:
    """Make one vector of the vectors of a text's chunks.

    Parameters
    ----------
    embeddings : Array, shape (C, D)
        The chunks' vectors, at least one.
    new_tokens : Array, shape (C,)
        Tokens of each chunk that the chunk before does not have.
    composition : {"weighted_mean", "mean", "max", "first"} or callable
        ``weighted_mean`` counts a chunk by its new tokens, so that no word counts twice and a short rest counts
        little. A callable takes ``(C, D)`` and ``(C,)`` and gives ``(D,)``.
    normalized : bool
        Scale the result to length 1, as the chunks' vectors are. A single chunk is left as it is.

    Returns
    -------
    Array, shape (D,)
        dtype of the embeddings.

    Raises
    ------
    ValueError
        If there is no such composition, or a callable gives something that is no finite vector ``(D,)``.

    Examples
    --------
    >>> chunks = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> compose(chunks, np.array([30, 10]), normalized=False)
    array([0.75, 0.25])
    >>> compose(chunks, np.array([30, 10]), lambda embeddings, new_tokens: embeddings[-1])
    array([0., 1.])
    """
    check_composition(composition, COMPOSITIONS)
    if len(embeddings) == 1:
        only: Array = embeddings[0].copy()
        return only
    weights = (new_tokens / new_tokens.sum()).astype(embeddings.dtype)
    if callable(composition):
        whole = _checked(composition(embeddings.copy(), new_tokens.copy()), embeddings)
    else:
        whole = COMPOSITIONS[composition](embeddings, weights)
    return normalize(whole) if normalized else whole


COMPOSITIONS: dict[str, Callable[[Array, Array], Array]] = {
    "weighted_mean": lambda embeddings, weights: weights @ embeddings,
    "mean": lambda embeddings, weights: embeddings.mean(axis=0),
    "max": lambda embeddings, weights: embeddings.max(axis=0),
    "first": lambda embeddings, weights: embeddings[0],
}
"""Compositions by name: ``(C, D)`` and weights ``(C,)`` that sum to 1, to ``(D,)``."""


def check_composition(composition: Composition, known: Iterable[str]) -> None:
    """Refuse what is no composition.

    Parameters
    ----------
    composition : str or callable
    known : iterable of str
        The names to choose from.

    Raises
    ------
    ValueError
        If it is neither one of them nor callable.

    Examples
    --------
    >>> check_composition("sum", ["mean", "max"])
    Traceback (most recent call last):
        ...
    ValueError: composition must be 'mean', 'max' or a callable (C, D), (C,) -> (D,), got 'sum'
    """
    if not callable(composition) and composition not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"composition must be {names} or a callable (C, D), (C,) -> (D,), got {composition!r}")


def _checked(result: object, embeddings: Array) -> Array:
    """Refuse what a stranger's composition gives, if it is no vector."""
    try:
        one = np.asarray(result, embeddings.dtype)
    except (TypeError, ValueError):
        raise ValueError(f"composition: expected a vector (D,), got {type(result).__name__}") from None
    if one.shape != embeddings.shape[1:]:
        raise ValueError(
            f"composition: expected a vector of shape (D,) = {embeddings.shape[1:]} of chunks {embeddings.shape}, got "
            f"shape {one.shape}; is it reduced over axis 0, the chunks?"
        )
    if not np.isfinite(one).all():
        raise ValueError("composition: the vector that it gave is NaN or infinite; does it divide by zero?")
    return one


# ------------------------------------------------------------------------------------- late composition


@dataclass(frozen=True)
class Share:
    """The tokens of a window that are pooled: where windows overlap, each token counts once."""

    first: int  # row of the window, special tokens included
    stop: int  # the row behind the last
    before: int  # tokens of the text, [CLS] included, that stand before the first


def share_out(windows: Sequence[tuple[int, int]], front: int, back: int, skipped: int = 0) -> list[Share]:
    """Give each token to the window in which it has most neighbours on both sides.

    [CLS] and prompt are taken from the first window, [SEP] from the last, as if the text had been read in one.

    Parameters
    ----------
    windows : sequence of (first, stop)
        From :func:`~minisbert.chunking.cut`.
    front, back : int
        Tokens that are put before and behind each window.
    skipped : int
        Of those in front, tokens that are left out of the pooling.

    Returns
    -------
    list of Share

    Examples
    --------
    >>> share_out([(0, 8), (4, 10)], front=1, back=1)
    [Share(first=0, stop=7, before=0), Share(first=3, stop=8, before=7)]
    """
    shares: list[Share] = []
    begin, before = 0, skipped
    for i, (first, stop) in enumerate(windows):
        end, behind = stop, back
        if i + 1 < len(windows):  # to the middle of the overlap; one token at least
            end, behind = max(begin + 1, (stop + windows[i + 1][0] + 1) // 2), 0
        ahead = 0 if i else front - skipped
        shares.append(Share(front + begin - first - ahead, front + end - first + behind, before))
        before += shares[-1].stop - shares[-1].first
        begin = end
    return shares


def pool_shares(token_embeddings: Array, lengths: Array, shares: Sequence[Share], modes: tuple[str, ...]) -> Array:
    """Pool each window's share of its tokens.

    Parameters
    ----------
    token_embeddings : Array, shape (N, D)
        Of several windows, end to end.
    lengths : Array, shape (C,)
        Tokens of each window.
    shares : sequence of Share
    modes : tuple of str
        Keys of :data:`~minisbert.model.pooling.POOLINGS`.

    Returns
    -------
    Array, shape (C, len(modes) * D)

    Examples
    --------
    >>> strip = np.array([[1.0], [2.0], [9.0], [9.0], [4.0]])
    >>> pool_shares(strip, np.array([3, 2]), [Share(0, 2, 0), Share(1, 2, 2)], ("mean",))
    array([[1.5],
           [4. ]])
    """
    starts = np.cumsum(lengths) - lengths  # (C,)
    rows = [np.arange(start + share.first, start + share.stop) for start, share in zip(starts, shares, strict=True)]
    counts = np.array([len(row) for row in rows], np.intp)  # (C,)
    before = np.array([share.before for share in shares], np.intp)  # (C,)
    owned = token_embeddings[np.concatenate(rows)]
    return np.concatenate([POOLINGS[mode][0](owned, counts, before) for mode in modes], axis=1)


def compose_shares(pooled: Array, shares: Sequence[Share], modes: tuple[str, ...]) -> Array:
    """Make of the windows' pooled vectors what pooling all tokens at once would give.

    A mean of all tokens is the mean of the windows' means, each counted by its tokens; and so for the other poolings.

    Parameters
    ----------
    pooled : Array, shape (C, len(modes) * D)
        From :func:`pool_shares`.
    shares : sequence of Share
    modes : tuple of str

    Returns
    -------
    Array, shape (len(modes) * D,)

    Notes
    -----
    **Source**: Günther et al. 2024 (arXiv 2409.04701), "long late chunking", for windows that overlap; there the
    chunks are kept apart, here they are the whole text.

    Examples
    --------
    >>> compose_shares(np.array([[1.5], [4.0]]), [Share(0, 2, 0), Share(1, 2, 2)], ("mean",))  # of 1, 2 and 4
    array([2.33333333])
    """
    counts = np.array([share.stop - share.first for share in shares], pooled.dtype)  # (C,)
    before = np.array([share.before for share in shares], pooled.dtype)  # (C,)
    whole = []
    for mode, part in zip(modes, np.split(pooled, len(modes), axis=1), strict=True):
        if mode == "cls":
            whole.append(part[0])
        elif mode == "lasttoken":
            whole.append(part[-1])
        elif mode == "max":
            whole.append(part.max(axis=0))
        elif mode == "mean_sqrt_len_tokens":
            whole.append(np.sqrt(counts / counts.sum()) @ part)
        else:
            # the places of a share's tokens, counted from 1, add up to count * (before + (count + 1) / 2)
            mass = counts * (before + (counts + 1) / 2) if mode == "weightedmean" else counts
            whole.append((mass / mass.sum()) @ part)
    return np.concatenate(whole)
