"""Which words made two texts similar: the cosine as a sum over all pairs of tokens, exactly.

``cos(A, B) = sum_ij t_i . u_j / (T_a T_b |a| |b|)``

Mean pooling adds up token vectors, ``t_i`` of text A with mean ``a`` and ``u_j`` of text B with mean ``b``, and a dot
product of two sums is the sum of all dot products. Nothing is approximated; [CLS] and [SEP] stand in the table with
what they carry, which is not little. But a token's vector is not the word alone, since BERT has mixed the whole text
into it: the table says where the cosine comes from, not what it would be without a word (leave the word out and encode
again for that). Letters: ``A`` and ``B`` tokens of the two texts, ``D`` hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minisbert.checks import each_text
from minisbert.model import Array
from minisbert.model.pooling import Dense, Module, Pooling, apply_modules
from minisbert.model.tokens import Overflow
from minisbert.similarity import pairwise_cos_sim

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

CONTINUES = "##"
"""Prefix of a piece that continues a word."""

# They differ by a factor, the square root of the number of tokens, that cancels in the cosine.
_MEANS = ("mean", "mean_sqrt_len_tokens")


@dataclass(frozen=True)
class Explanation:
    """What each pair of tokens contributes to the cosine of two texts."""

    pieces_a: tuple[str, ...]  # A strings: tokens, or words
    pieces_b: tuple[str, ...]  # B strings
    contributions: Array  # (A, B) float64; their sum is the cosine
    cosine: float  # of the encoder's vectors

    def by_word(self) -> Explanation:
        """Join the pieces of words, and add up their contributions; punctuation stays apart, as BERT's own words.

        >>> pieces = Explanation(("[CLS]", "un", "##able"), ("soup",), np.array([[0.1], [0.2], [0.3]]), 0.6)
        >>> words = pieces.by_word()
        >>> words.pieces_a, words.contributions.round(2).tolist()
        (('[CLS]', 'unable'), [[0.1], [0.5]])
        """
        (words_a, starts_a), (words_b, starts_b) = _words(self.pieces_a), _words(self.pieces_b)
        rows = np.add.reduceat(self.contributions, starts_a, axis=0)
        return Explanation(words_a, words_b, np.add.reduceat(rows, starts_b, axis=1), self.cosine)

    def strongest(self, count: int) -> list[tuple[int, int]]:
        """The pairs that contribute most in absolute value, as indices into ``pieces_a`` and ``pieces_b``."""
        order = np.argsort(-np.abs(self.contributions), axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, self.contributions.shape)
        return list(zip(rows.tolist(), columns.tolist(), strict=True))


def explain(
    encoder: SentenceEncoder, text_a: str, text_b: str, *, by_word: bool = False, overflow: Overflow = "warn"
) -> Explanation:
    """Split the cosine of two texts into contributions of token pairs: ``c_ij = t_i . u_j / (T_a T_b |a| |b|)``.

    Parameters
    ----------
    encoder : SentenceEncoder
        Its model must have mean pooling, followed by nothing but Normalize.
    text_a, text_b : str
    by_word : bool
        Join word pieces into words.
    overflow : {"warn", "error", "truncate"}
        For texts that are too long; what is cut contributes nothing.

    Returns
    -------
    Explanation
        Of all tokens read, special tokens and a default prompt included. Contributions are float64, from token vectors
        in the encoder's dtype: their sum is the cosine to 1e-6 (float32) or 1e-12 (float64).

    Raises
    ------
    ValueError
        For models without such a sum, and what ``encode`` raises.

    Notes
    -----
    **Source**: the dot product is bilinear; Reimers & Gurevych 2019, section 3, for the mean. In sentence-transformers:
    ``t @ u.T / (len(t) * len(u) * t.mean(0).norm() * u.mean(0).norm())`` for the two results of
    ``encode(text, output_value="token_embeddings")``.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> found = explain(SentenceEncoder(), "i love soup", "soup is my favorite")
    >>> found.contributions.shape, round(float(found.contributions.sum()), 4), round(found.cosine, 4)
    ((5, 6), 0.924, 0.924)
    >>> [(found.pieces_a[i], found.pieces_b[j]) for i, j in found.strongest(2)]
    [('soup', 'soup'), ('love', 'favorite')]
    """
    model = encoder.model
    if why := why_no_pairs(model.modules, model.default_prompt_name):
        raise ValueError(f"explain: {why}")
    prefix = model.prompts[model.default_prompt_name] if model.default_prompt_name else ""
    texts = [prefix + text for text in each_text([text_a, text_b], "explain: texts")]
    token_vectors = encoder.encode(texts, prompt="", output_value="token_embeddings", overflow=overflow)
    lengths = np.array([len(vectors) for vectors in token_vectors])
    sentences = apply_modules(np.concatenate(token_vectors), lengths, model.modules)[-1][:, : model.width]
    cosine = float(pairwise_cos_sim(sentences[0], sentences[1])[0])
    contributions = pair_contributions(*(vectors[:, : model.width] for vectors in token_vectors))
    tokens = encoder.tokenize(texts, overflow="truncate").split()
    pieces_a, pieces_b = (tuple(model.tokenizer.pieces(ids)) for ids in tokens)
    explained = Explanation(pieces_a, pieces_b, contributions, cosine)
    return explained.by_word() if by_word else explained


def pair_contributions(t: Array, u: Array) -> Array:
    """``c_ij = t_i . u_j / (T_a T_b |a| |b|)`` of token vectors: float64, and their sum is the cosine of the means.

    (A, D), (B, D) -> (A, B)
    """
    t, u = t.astype(np.float64), u.astype(np.float64)
    return t @ u.T / (np.linalg.norm(t.sum(axis=0)) * np.linalg.norm(u.sum(axis=0)))  # |sum of t| = T_a |a|


def why_no_pairs(modules: Sequence[Module], prompt_name: str | None = None) -> str | None:
    """Why a model's cosine is no sum over pairs of tokens; None where it is one."""
    pooling = modules[0]
    if isinstance(pooling, Pooling) and pooling.modes not in [(mean,) for mean in _MEANS]:
        return (
            f"expected mean pooling, got {' + '.join(pooling.modes)}: only with a mean of token vectors is the cosine "
            "a sum over token pairs"
        )
    if any(isinstance(module, Dense) for module in modules):
        return (
            "this model has a Dense module after its pooling, a non-linear mix of the token vectors: the cosine is "
            "not a sum over token pairs"
        )
    if isinstance(pooling, Pooling) and not pooling.include_prompt and prompt_name is not None:
        return f"this model excludes its default prompt {prompt_name!r} from the mean, which is not supported here"
    return None


def _words(pieces: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """The words that pieces make, and where each begins."""
    starts = [i for i, piece in enumerate(pieces) if i == 0 or not piece.startswith(CONTINUES)]
    ends = [*starts[1:], len(pieces)]
    words = [
        pieces[start] + "".join(piece.removeprefix(CONTINUES) for piece in pieces[start + 1 : end])
        for start, end in zip(starts, ends, strict=True)
    ]
    return tuple(words), starts
