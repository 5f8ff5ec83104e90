"""Texts for the benchmark: random words of the model's vocabulary, with a given number of tokens each.

What a text says does not matter for the time it takes; how long it is does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minisbert.encoder import SentenceEncoder
from minisbert.model import Array


def sentence_lengths(count: int, rng: np.random.Generator) -> Array:
    """Draw sentence lengths (count,) in tokens, special ones included: log-normal, 5 to 60, mean 14, as in STSb test.

    >>> round(sentence_lengths(10_000, np.random.default_rng(0)).mean())
    14
    """
    return np.clip(np.rint(rng.lognormal(2.55, 0.4, count)), 5, 60).astype(np.intp)


def make_texts(encoder: SentenceEncoder, lengths: Sequence[int] | Array, rng: np.random.Generator) -> list[str]:
    """Make texts of random words with these numbers of tokens, special ones included.

    ValueError if a length leaves no room for a word, or the vocabulary has no words.

    >>> encoder = SentenceEncoder()
    >>> texts = make_texts(encoder, [8, 32], np.random.default_rng(0))
    >>> encoder.tokenize(texts).lengths
    array([ 8, 32])
    """
    tokenizer = encoder.model.tokenizer
    special = tokenizer.special_count
    words = sorted(word for word in tokenizer.library.get_vocab() if word.isascii() and word.isalpha())
    if tokenizer.lower_case or not any(word.isupper() for word in words):
        words = [word for word in words if word.islower()]
    if not words or min(lengths, default=special + 1) <= special:
        raise ValueError(
            f"make_texts: expected texts of more than {special} tokens and words in the vocabulary, got "
            f"{min(lengths, default=0)} tokens and {len(words)} words"
        )
    return [" ".join(rng.choice(words, int(length) - special)) for length in lengths]
