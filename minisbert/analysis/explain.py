"""Which words made two texts alike: the cosine as a sum over all pairs of tokens, exactly.

Mean pooling makes a text's vector of its token vectors by adding them up, and a dot product of two sums is the sum of
all dot products. So with token vectors ``t_i`` of text A and ``u_j`` of text B, whose means are ``a`` and ``b``,

``cos(A, B) = sum_ij  t_i . u_j / (T_a T_b |a| |b|)``

and each summand is what one pair of tokens contributes. Nothing is approximated, and nothing is left over: the special
tokens [CLS] and [SEP] stand in the table with what they carry, which is not little.

**What it is not.** A token's vector is not the word alone: BERT has mixed the whole text into it. So the table says
where in the sum the cosine comes from, and not what it would be without a word. Leave the word out and encode again to
learn that.

Left out on purpose: gradients and attention as explanations, which do not add up to anything, and models with other
poolings or a Dense module, for which there is no such sum.

Letters: ``A`` and ``B`` tokens of the two texts, ``D`` hidden size.
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
"""How a piece begins that continues the word of the piece before."""

# They differ by a factor, the square root of the number of tokens, which the cosine does not see.
_MEANS = ("mean", "mean_sqrt_len_tokens")


@dataclass(frozen=True)
class Explanation:
    """What each pair of tokens contributes to the cosine of two texts."""

    pieces_a: tuple[str, ...]  # A strings: tokens, or words
    pieces_b: tuple[str, ...]  # B strings
    contributions: Array  # (A, B) float64; all of them add up to the cosine
    cosine: float  # of the two texts' vectors, as the encoder makes them

    def by_word(self) -> Explanation:
        """Join the pieces of a word, and add up what they contribute.

        Returns
        -------
        Explanation
            With the same sum. Punctuation stays apart: BERT takes it for words of its own.

        Examples
        --------
        >>> pieces = Explanation(("[CLS]", "un", "##able"), ("soup",), np.array([[0.1], [0.2], [0.3]]), 0.6)
        >>> words = pieces.by_word()
        >>> words.pieces_a, words.contributions.round(2).tolist()
        (('[CLS]', 'unable'), [[0.1], [0.5]])
        """
        starts_a, starts_b = _word_starts(self.pieces_a), _word_starts(self.pieces_b)
        rows = np.add.reduceat(self.contributions, starts_a, axis=0)
        return Explanation(
            _join(self.pieces_a, starts_a),
            _join(self.pieces_b, starts_b),
            np.add.reduceat(rows, starts_b, axis=1),
            self.cosine,
        )

    def strongest(self, count: int) -> list[tuple[int, int]]:
        """Find the pairs that contribute most, positive or negative.

        Parameters
        ----------
        count : int

        Returns
        -------
        list of (int, int)
            Places in :attr:`pieces_a` and :attr:`pieces_b`, the largest contribution in size first.

        Examples
        --------
        >>> Explanation(("a", "b"), ("c",), np.array([[0.2], [-0.3]]), -0.1).strongest(1)
        [(1, 0)]
        """
        order = np.argsort(-np.abs(self.contributions), axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, self.contributions.shape)
        return list(zip(rows.tolist(), columns.tolist(), strict=True))


def explain(
    encoder: SentenceEncoder, text_a: str, text_b: str, *, by_word: bool = False, overflow: Overflow = "warn"
) -> Explanation:
    """Split the cosine of two texts into what each pair of tokens contributes.

    ``c_ij = t_i . u_j / (T_a T_b |a| |b|)``, see the head of this module.

    Parameters
    ----------
    encoder : SentenceEncoder
        Of a model with mean pooling and nothing but Normalize behind it.
    text_a, text_b : str
    by_word : bool
        Join word pieces into words.
    overflow : {"warn", "error", "truncate"}
        What to do about texts that are too long; what is cut contributes nothing.

    Returns
    -------
    Explanation
        Of all tokens that are read: special tokens, and the model's default prompt where it has one. Contributions
        are float64, computed from token vectors in the encoder's dtype: their sum is the cosine within 1e-6
        (float32) or 1e-12 (float64).

    Raises
    ------
    ValueError
        For models for which there is no such sum, and for what ``encode`` refuses.

    Notes
    -----
    **Source**: the dot product is linear in both sides; Reimers & Gurevych 2019, section 3, for the mean. In
    sentence-transformers: ``t @ u.T / (len(t) * len(u) * t.mean(0).norm() * u.mean(0).norm())`` for the two
    results of ``encode(text, output_value="token_embeddings")``.

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
    _check_modules(model.modules, model.default_prompt_name)
    prefix = model.prompts[model.default_prompt_name] if model.default_prompt_name else ""
    texts = [prefix + text for text in each_text([text_a, text_b], "explain: texts")]
    token_vectors = encoder.encode(texts, prompt="", output_value="token_embeddings", overflow=overflow)
    lengths = np.array([len(vectors) for vectors in token_vectors])
    sentences = apply_modules(np.concatenate(token_vectors), lengths, model.modules)[-1][:, : model.width]
    cosine = float(pairwise_cos_sim(sentences[0], sentences[1])[0])
    t, u = (vectors[:, : model.width].astype(np.float64) for vectors in token_vectors)  # (A, D), (B, D)
    scale = np.linalg.norm(t.sum(axis=0)) * np.linalg.norm(u.sum(axis=0))  # T_a T_b |a| |b|
    tokens = encoder.tokenize(texts, overflow="truncate").split()
    pieces_a, pieces_b = (tuple(model.tokenizer.pieces(ids)) for ids in tokens)
    explained = Explanation(pieces_a, pieces_b, t @ u.T / scale, cosine)
    return explained.by_word() if by_word else explained


def _check_modules(modules: Sequence[Module], default_prompt_name: str | None) -> None:
    """Refuse models whose cosine is no sum over pairs of tokens."""
    pooling = modules[0]
    if isinstance(pooling, Pooling) and pooling.modes not in [(mean,) for mean in _MEANS]:
        raise ValueError(
            f"explain: expected mean pooling, got {' + '.join(pooling.modes)}: only with a mean of token vectors is "
            "the cosine a sum over token pairs"
        )
    if any(isinstance(module, Dense) for module in modules):
        raise ValueError(
            "explain: this model has a Dense module after its pooling, a non-linear mix of the token vectors: the "
            "cosine is not a sum over token pairs"
        )
    if isinstance(pooling, Pooling) and not pooling.include_prompt and default_prompt_name is not None:
        raise ValueError(
            f"explain: this model excludes its default prompt {default_prompt_name!r} from the mean, which is not "
            "supported here"
        )


def _word_starts(pieces: Sequence[str]) -> Array:
    """Give the places at which words begin."""
    return np.array([i for i, piece in enumerate(pieces) if i == 0 or not piece.startswith(CONTINUES)])


def _join(pieces: Sequence[str], starts: Array) -> tuple[str, ...]:
    """Join pieces from each start to the next."""
    ends = [*starts[1:].tolist(), len(pieces)]
    return tuple(
        pieces[start] + "".join(piece.removeprefix(CONTINUES) for piece in pieces[start + 1 : end])
        for start, end in zip(starts.tolist(), ends, strict=True)
    )
