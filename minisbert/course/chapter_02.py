"""The exercises of notebook 2, "What does BERT actually read?": WordPiece, what is cut, and three vectors added.

Each comes with its solution and with the results of typical mistakes: read it after the notebook. The package's own
versions are :func:`minisbert.model.wordpiece.split_word`, :class:`minisbert.model.tokens.Tokenizer` and
:func:`minisbert.model.bert.embed`.

Letters: ``B`` texts, ``N`` tokens in the strip, ``V`` vocabulary, ``P`` positions, ``D`` hidden size.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from minisbert.course.exercises import Exercise, Mistake, array
from minisbert.model import Array

__all__ = ["PIECES", "READ", "SUMMED"]

CLS, SEP = 101, 102  # the ids of the two special tokens in BERT's vocabulary


def _split(word: str, vocabulary: Collection[str], prefix: str = "##", longest: bool = True) -> tuple[list[str], str]:
    """Give the pieces found from the left, and the letters left over where none fits."""
    pieces: list[str] = []
    start = 0
    while start < len(word):
        ends = range(len(word), start, -1) if longest else range(start + 1, len(word) + 1)
        before = prefix if start else ""
        fitting = [end for end in ends if before + word[start:end] in vocabulary]
        if not fitting:
            break
        pieces.append(before + word[start : fitting[0]])
        start = fitting[0]
    return pieces, word[start:]


def _pieces(word: str, vocabulary: Collection[str]) -> list[str]:
    pieces, rest = _split(word, vocabulary)
    return ["[UNK]"] if rest else pieces


def _pieces_before_unknown(word: str, vocabulary: Collection[str]) -> list[str]:
    pieces, rest = _split(word, vocabulary)
    return [*pieces, "[UNK]"] if rest else pieces


def _shortest_pieces(word: str, vocabulary: Collection[str]) -> list[str]:
    pieces, rest = _split(word, vocabulary, longest=False)
    return ["[UNK]"] if rest else pieces


def _pieces_with_the_wrong_marks(word: str, vocabulary: Collection[str]) -> list[str]:
    pieces, rest = _split(word, vocabulary, prefix="")
    return ["[UNK]"] if rest else pieces


_WORDS = ["un", "unw", "w", "a", "play", "soup", "y", "##want", "##ed", "##w", "##a", "##nt", "##y", "##ing"]

PIECES = Exercise(
    "pieces",
    _pieces,
    [
        ("soup", _WORDS),
        ("soupy", _WORDS),
        ("playing", _WORDS),
        ("unwed", _WORDS),
        ("unwanted", _WORDS),
        ("soups", _WORDS),
        ("london", _WORDS),
    ],
    [
        Mistake(
            _pieces_with_the_wrong_marks,
            "a piece that continues a word is looked up, and written, with ## before it",
        ),
        Mistake(
            lambda word, vocabulary: [piece.removeprefix("##") for piece in _pieces(word, vocabulary)],
            "the right cuts, but the ## is missing: without it nobody can tell where a word begins",
        ),
        Mistake(
            _shortest_pieces,
            "these are the shortest pieces that fit; try the longest first",
        ),
        Mistake(
            _pieces_before_unknown,
            "where the rest of a word has no piece, the whole word is unknown, and its first pieces go as well",
        ),
        Mistake(
            lambda word, vocabulary: _split(word, vocabulary)[0],
            "where the rest of a word has no piece, something has to stand for the word; it may not vanish",
        ),
        Mistake(
            lambda word, vocabulary: [word] if word in vocabulary else ["[UNK]"],
            "only whole words are looked up; the point of WordPiece is what happens to the others",
        ),
    ],
)


def _read(ids: list[int], limit: int) -> list[int]:
    return [CLS, *ids[: limit - 2], SEP]


READ = Exercise(
    "read",
    _read,
    [([1045, 2293, 11350], 8), ([7, 8, 9], 5), ([7, 8, 9, 10], 5), ([7, 8, 9, 10, 11, 12], 5), ([], 5)],
    [
        Mistake(
            lambda ids, limit: [CLS, *ids[:limit], SEP],
            "the limit counts all tokens, and the two special ones are tokens too: this gives up to two too many",
        ),
        Mistake(
            lambda ids, limit: [CLS, *ids[: limit - 1], SEP],
            "room is left for one special token, and there are two",
        ),
        Mistake(
            lambda ids, limit: [CLS, *ids, SEP][:limit],
            "cut after the special tokens were added: of a long text [SEP] is lost, and the model always saw one",
        ),
        Mistake(
            lambda ids, limit: [CLS, *ids[max(0, len(ids) - limit + 2) :], SEP],
            "the beginning is cut off; the end has to go",
        ),
        Mistake(
            lambda ids, limit: ids[: limit - 2],
            "the text's own tokens are right; [CLS] before and [SEP] behind are missing",
        ),
        Mistake(
            lambda ids, limit: [CLS, *ids, SEP],
            "nothing is cut; the table of positions has no rows for more tokens",
        ),
    ],
)


def _places(lengths: Array) -> Array:
    return np.concatenate([np.arange(length) for length in lengths])


def _summed(ids: Array, lengths: Array, word: Array, position: Array, token_type: Array) -> Array:
    return word[ids] + position[_places(lengths)] + token_type[0]


_IDS, _LENGTHS = np.array([1, 3, 2, 1, 2]), np.array([3, 2])
_WORD = array([0, 0, 9], [1, 2, 3], [4, 0, 1], [2, 2, 5])  # (V, D)
_POSITION = array([10, 0, 0], [0, 20, 0], [0, 0, 30], [40, 0, 0], [0, 50, 0])  # (P, D)
_TOKEN_TYPE = array([0.5, 0.5, 0.5], [0.25, 0.25, 0])  # (2, D)

SUMMED = Exercise(
    "summed",
    _summed,
    [
        (_IDS, _LENGTHS, _WORD, _POSITION, _TOKEN_TYPE),
        (np.array([2, 2, 3]), np.array([1, 2]), _WORD, _POSITION, _TOKEN_TYPE),
    ],
    [
        Mistake(
            lambda ids, lengths, word, position, token_type: word[ids] + position[: len(ids)] + token_type[0],
            "positions are counted through the whole strip; every text starts again at its first",
        ),
        Mistake(
            lambda ids, lengths, word, position, token_type: word[ids] + position[_places(lengths) + 1] + token_type[0],
            "positions are counted from 1; in BERT the first token of a text is at position 0",
        ),
        Mistake(
            lambda ids, lengths, word, position, token_type: word[ids] + position[ids] + token_type[0],
            "the row of the position table is chosen by the id; it is the place in the text that chooses it",
        ),
        Mistake(
            lambda ids, lengths, word, position, token_type: word[ids] + position[_places(lengths)],
            "the vector of the token type is missing; it is added to every token, for a single text as well",
        ),
        Mistake(
            lambda ids, lengths, word, position, token_type: word[ids] + position[_places(lengths)] + token_type[1],
            "type 1 is for the second text of a pair; a single text is of the other type",
        ),
        Mistake(
            lambda ids, lengths, word, position, token_type: (
                word[ids] + position[_places(lengths)] + token_type[np.repeat(np.arange(len(lengths)), lengths)]
            ),
            "the texts of a strip are no pair: each of them is a single text, and all are of the same type",
        ),
        Mistake(
            lambda ids, lengths, word, position, token_type: word[ids] + token_type[0],
            "positions are missing: the order of the words is lost",
        ),
    ],
)
