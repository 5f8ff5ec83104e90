"""The exercises of notebook 2, "What does BERT actually read?": WordPiece, what is cut, and three vectors added.

Each comes with its solution, whose keyword arguments make typical mistakes: read it after the notebook. The package's
own versions are :func:`minisbert.model.wordpiece.split_word`, :class:`minisbert.model.tokens.Tokenizer` and
:func:`minisbert.model.bert.embed`.

Letters: ``B`` texts, ``N`` tokens in the strip, ``V`` vocabulary, ``P`` positions, ``D`` hidden size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array

__all__ = ["PIECES", "READ", "SUMMED"]

CLS, SEP = 101, 102  # the ids of the two special tokens in BERT's vocabulary


def _all_ways(word: str, vocabulary: Collection[str], before: str = "") -> list[list[str]]:
    """Every way to cut a word into pieces, those with long first pieces first."""
    if not word:
        return [[]]
    ends = (end for end in range(len(word), 0, -1) if before + word[:end] in vocabulary)
    return [[before + word[:end], *rest] for end in ends for rest in _all_ways(word[end:], vocabulary, "##")]


def _pieces(
    word: str,
    vocabulary: Collection[str],
    *,
    prefix: str = "##",
    written: str = "##",
    longest: bool = True,
    of_unknown: Callable[[list[str]], list[str]] = lambda pieces: ["[UNK]"],
    only_whole: bool = False,
    goes_back: bool = False,
) -> list[str]:
    if goes_back:
        return next(iter(_all_ways(word, vocabulary)), ["[UNK]"])
    pieces: list[str] = []
    start = 0
    while start < len(word):
        ends = range(len(word), start, -1) if longest else range(start + 1, len(word) + 1)
        ends = range(len(word), len(word) - 1, -1) if only_whole else ends
        fitting = [end for end in ends if (prefix if start else "") + word[start:end] in vocabulary]
        if not fitting:
            return of_unknown(pieces)
        pieces.append((written if start else "") + word[start : fitting[0]])
        start = fitting[0]
    return pieces


_WORDS = [
    "un",
    "unw",
    "w",
    "a",
    "play",
    "pla",
    "soup",
    "y",
    "##want",
    "##ed",
    "##w",
    "##a",
    "##nt",
    "##y",
    "##yn",
    "##ing",
]


def _draw_word(rng: np.random.Generator) -> tuple[str, list[str]]:
    """A word of two letters, and half of all pieces of up to three."""
    pieces = ["".join(piece) for size in (1, 2, 3) for piece in itertools.product("ab", repeat=size)]
    pieces += ["##" + piece for piece in pieces]
    return "".join(rng.choice(["a", "b"], 7)), sorted(rng.choice(pieces, len(pieces) // 2, replace=False).tolist())


PIECES = Exercise(
    "pieces",
    _pieces,
    [
        *(("soup", _WORDS), ("soupy", _WORDS), ("playing", _WORDS), ("unwed", _WORDS), ("unwanted", _WORDS)),
        ("playn", _WORDS),  # pla ##yn would do, but the longest piece comes first, and nobody goes back
        *(("soups", _WORDS), ("london", frozenset(_WORDS))),
    ],
    {
        "a piece that continues a word is looked up, and written, with ## before it": {"prefix": "", "written": ""},
        "the right cuts, but the ## is missing: without it nobody can tell where a word begins": {"written": ""},
        "## is written, but not looked up: a piece that continues a word is another entry": {"prefix": ""},
        "these are the shortest pieces that fit; try the longest first": {"longest": False},
        "if a rest has no piece, the whole word is unknown": {"of_unknown": lambda pieces: [*pieces, "[UNK]"]},
        "if a rest has no piece, something has to stand for the word": {"of_unknown": lambda pieces: pieces},
        "only whole words are looked up; the point of WordPiece is what happens to the others": {"only_whole": True},
        "this goes back to a shorter piece if the rest does not fit; WordPiece never goes back": {"goes_back": True},
    },
    level=3,
    minutes=25,
    draw=_draw_word,
    hints=(
        "two loops: the outer one walks to the end of the word, the inner one shortens the piece until it is found",
        "keep start; for end from len(word) down to start + 1, look up word[start:end], with ## if start > 0. "
        "Found: append it, and go on from end. None found: what comes out for the whole word?",
    ),
    instead=("split_word", "wordpiece"),
)


def _read(
    ids: list[int],
    limit: int,
    *,
    room: Callable[[int], int] = lambda limit: limit - 2,
    before: tuple[int, ...] = (CLS,),
    after: tuple[int, ...] = (SEP,),
    late: bool = False,
    end: bool = False,
) -> list[int]:
    if late:
        return [*before, *ids, *after][:limit]
    kept = ids[max(0, len(ids) - room(limit)) :] if end else ids[: room(limit)]
    return [*before, *kept, *after]


READ = Exercise(
    "read",
    _read,
    [
        *(([2293, 1045, 11350], 8), ([7, 8, 9], 5), ([7, 8, 9, 10], 5), ([7, 8, 9, 10, 11, 12], 5)),
        *(([], 5), ([7, 8], 2), ([7, 8, 9], 3)),
    ],
    {
        "the limit counts all tokens, and the two special ones are tokens, too": {"room": lambda limit: limit},
        "room is left for one special token, and there are two": {"room": lambda limit: limit - 1},
        "cut after the special tokens were added: of a long text [SEP] is lost": {"late": True},
        "the beginning is cut off; the end has to go": {"end": True},
        "the text's own tokens are right; [CLS] before and [SEP] behind are missing": {"before": (), "after": ()},
        "[CLS] is missing: every text begins with it": {"before": ()},
        "[SEP] is missing: every text ends with it": {"after": ()},
        "[CLS] and [SEP] have changed places": {"before": (SEP,), "after": (CLS,)},
        "nothing is cut; the table of positions has no rows for more tokens": {"room": lambda limit: 512},
    },
    level=1,
    minutes=5,
    draw=lambda rng: (rng.integers(1000, 30000, rng.integers(12)).tolist(), int(rng.integers(2, 12))),
    hints=(
        "how many of the text's own tokens may stay, if two special ones are to fit as well?",
        "cut the ids with a slice first, and put the two special ids around what is left",
    ),
    instead=("Tokenizer", "tokens"),
)


def _places(lengths: Array) -> Array:
    return np.concatenate([np.arange(length) for length in lengths])


def _summed(
    ids: Array,
    lengths: Array,
    word: Array,
    position: Array,
    token_type: Array,
    *,
    places: Callable[[Array, Array], Array] = lambda ids, lengths: _places(lengths),
    kind: Callable[[Array], Array | int] = lambda lengths: 0,
    with_position: bool = True,
    with_type: bool = True,
) -> Array:
    total = word[ids] + (position[places(ids, lengths)] if with_position else 0.0)
    return total + token_type[kind(lengths)] if with_type else total


_IDS, _LENGTHS = np.array([1, 3, 2, 1, 2]), np.array([3, 2])
_WORD = array([0.25, 0, 9], [1, 2.75, 3], [4, -7, 1], [2, 2.75, 5])  # (V, D)
_POSITION = array([10, 0, 0], [0, 20, 0], [0, 0, 30], [40, 0, 0], [0, 50, 0])  # (P, D)
_TOKEN_TYPE = array([0.5, 0.5, 0.5], [0.25, 0.25, 0])  # (2, D)


def _draw_strip(rng: np.random.Generator) -> tuple[Array, ...]:
    lengths = rng.integers(1, 5, 3, np.intp)  # (B,)
    return (rng.integers(0, 12, lengths.sum()), lengths, *(rng.normal(size=(rows, 3)) for rows in (13, 13, 3)))


SUMMED = Exercise(
    "summed",
    _summed,
    [
        (_IDS, _LENGTHS, _WORD, _POSITION, _TOKEN_TYPE),
        (np.array([2, 2, 3]), np.array([1, 2]), _WORD, _POSITION, _TOKEN_TYPE),
        (np.array([1, 1, 2, 3, 0]), np.array([2, 1, 2]), _WORD, _POSITION, array([0.5, 0, 0], [1, 2, 3], [0, 0, 4])),
    ],
    {
        "positions are counted on; every text begins anew": {"places": lambda ids, lengths: np.arange(len(ids))},
        "positions are counted from 1; BERT's begin at 0": {"places": lambda ids, lengths: _places(lengths) + 1},
        "the id chooses the position; it is the place in the text": {"places": lambda ids, lengths: ids},
        "the vector of the token type is missing; every token has one": {"with_type": False},
        "type 1 is for the second text of a pair; a single text is of the other type": {"kind": lambda lengths: 1},
        "the texts of a strip are no pair: each of them is a single text, and all are of the same type": {
            "kind": lambda lengths: np.repeat(np.arange(len(lengths)), lengths)
        },
        "positions are missing: the order of the words is lost": {"with_position": False},
    },
    level=2,
    minutes=15,
    draw=_draw_strip,
    hints=(
        "three lookups of whole arrays: which row of each table belongs to each token of the strip?",
        "positions 0, 1, 2, ... begin anew with every text: np.concatenate over np.arange of each length",
    ),
    instead=("embed",),
)
