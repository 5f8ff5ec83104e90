"""The exercises of notebook 2, "What does BERT actually read?": WordPiece, what is cut, and three vectors added.

Each comes with its solution, and typical mistakes as changes of its text: read it after the notebook. The package's
own versions are :func:`minisbert.model.wordpiece.split_word`, :class:`minisbert.model.tokens.Tokenizer` and
:func:`minisbert.model.bert.embed`.

Letters: ``B`` texts, ``N`` tokens in the strip, ``V`` vocabulary, ``P`` positions, ``D`` hidden size.
"""

import itertools
from collections.abc import Collection

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array

CLS, SEP = 101, 102  # the ids of the two special tokens in BERT's vocabulary


def _going_back(word: str, vocabulary: Collection[str], before: str = "") -> list[str]:
    """The first way to cut a word into pieces, long pieces first, that does not leave a rest."""
    for end in range(len(word), 0, -1):
        if before + word[:end] in vocabulary:
            rest = _going_back(word[end:], vocabulary, "##") if end < len(word) else []
            if rest != ["[UNK]"]:
                return [before + word[:end], *rest]
    return ["[UNK]"]


def _pieces(word: str, vocabulary: Collection[str]) -> list[str]:
    pieces: list[str] = []
    start = 0
    while start < len(word):
        before = "##" if start else ""
        fitting = [end for end in range(len(word), start, -1) if before + word[start:end] in vocabulary]
        if not fitting:
            return ["[UNK]"]
        pieces.append(before + word[start : fitting[0]])
        start = fitting[0]
    return pieces


_WORDS = ["un", "unw", "w", "a", "play", "pla", "soup", "y"]
_WORDS += ["##want", "##ed", "##w", "##a", "##nt", "##y", "##yn", "##ing"]


def _draw_word(rng: np.random.Generator) -> tuple[str, list[str]]:
    """A word of two letters, and half of all pieces of up to three."""
    pieces = ["".join(piece) for size in (1, 2, 3) for piece in itertools.product("ab", repeat=size)]
    pieces += ["##" + piece for piece in pieces]
    return "".join(rng.choice(["a", "b"], 7)), sorted(rng.choice(pieces, len(pieces) // 2, replace=False).tolist())


PIECES = Exercise(
    _pieces,
    [
        *(("soup", _WORDS), ("soupy", _WORDS), ("playing", _WORDS), ("unwed", _WORDS), ("unwanted", _WORDS)),
        ("playn", _WORDS),  # pla ##yn would do, but the longest piece comes first, and nobody goes back
        *(("soups", _WORDS), ("london", frozenset(_WORDS))),
    ],
    {
        "a piece that continues a word is looked up, and written, with ## before it": {'"##" if start else ""': '""'},
        "the right cuts, but the ## is missing: without it nobody can tell where a word begins":
            {"append(before + ": "append("},
        "## is written, but not looked up: a piece that continues a word is another entry":
            {"if before + word": "if word"},
        "these are the shortest pieces that fit; try the longest first":
            {"range(len(word), start, -1)": "range(start + 1, len(word) + 1)"},
        "if a rest has no piece, the whole word is unknown": {'return ["[UNK]"]': 'return [*pieces, "[UNK]"]'},
        "if a rest has no piece, something has to stand for the word": {'return ["[UNK]"]': "return pieces"},
        "only whole words are looked up; the point of WordPiece is what happens to the others":
            {"range(len(word), start, -1)": "[len(word)]"},
        "this goes back to a shorter piece if the rest does not fit; WordPiece never goes back": _going_back,
    },
    level=3, minutes=25, instead=("split_word", "wordpiece"),
    draw=_draw_word,
    hint="two loops: the outer one walks to the end of the word, the inner one shortens the piece until it is found",
    more="keep start; for end from len(word) down to start + 1, look up word[start:end], with ## if start > 0. "
    "Found: append it, and go on from end. None found: what comes out for the whole word?",
)  # fmt: skip


def _read(ids: list[int], limit: int) -> list[int]:
    kept = ids[: limit - 2]
    return [CLS, *kept, SEP]


READ = Exercise(
    _read,
    [
        *(([2293, 1045, 11350], 8), ([7, 8, 9], 5), ([7, 8, 9, 10], 5), ([7, 8, 9, 10, 11, 12], 5)),
        *(([], 5), ([7, 8], 2), ([7, 8, 9], 3)),
    ],
    {
        "the limit counts all tokens, and the two special ones are tokens, too": {"limit - 2": "limit"},
        "room is left for one special token, and there are two": {"limit - 2": "limit - 1"},
        "cut after the special tokens were added: of a long text [SEP] is lost":
            {"[: limit - 2]": "", "SEP]": "SEP][:limit]"},
        "the beginning is cut off; the end has to go": {"[: limit - 2]": "[max(0, len(ids) - limit + 2) :]"},
        "the text's own tokens are right; [CLS] before and [SEP] behind are missing": {"CLS, ": "", ", SEP": ""},
        "[CLS] is missing: every text begins with it": {"CLS, ": ""},
        "[SEP] is missing: every text ends with it": {", SEP": ""},
        "[CLS] and [SEP] have changed places": {"CLS, *kept, SEP": "SEP, *kept, CLS"},
        "nothing is cut; the table of positions has no rows for more tokens": {"[: limit - 2]": ""},
    },
    level=1, minutes=5, instead=("Tokenizer", "tokens"),
    draw=lambda rng: (rng.integers(1000, 30000, rng.integers(12)).tolist(), int(rng.integers(2, 12))),
    hint="how many of the text's own tokens may stay, if two special ones are to fit as well?",
    more="cut the ids with a slice first, and put the two special ids around what is left",
)  # fmt: skip


def _places(lengths: Array) -> Array:
    return np.concatenate([np.arange(length) for length in lengths])


def _summed(ids: Array, lengths: Array, word: Array, position: Array, token_type: Array) -> Array:
    places = np.concatenate([np.arange(length) for length in lengths])  # (N,)
    return word[ids] + position[places] + token_type[0]


_IDS, _LENGTHS = np.array([1, 3, 2, 1, 2]), np.array([3, 2])
_WORD = array([0.25, 0, 9], [1, 2.75, 3], [4, -7, 1], [2, 2.75, 5])  # (V, D)
_POSITION = array([10, 0, 0], [0, 20, 0], [0, 0, 30], [40, 0, 0], [0, 50, 0])  # (P, D)
_TOKEN_TYPE = array([0.5, 0.5, 0.5], [0.25, 0.25, 0])  # (2, D)


def _draw_strip(rng: np.random.Generator) -> tuple[Array, ...]:
    lengths = rng.integers(1, 5, 3, np.intp)  # (B,)
    return (rng.integers(0, 12, lengths.sum()), lengths, *(rng.normal(size=(rows, 3)) for rows in (13, 13, 3)))


SUMMED = Exercise(
    _summed,
    [
        (_IDS, _LENGTHS, _WORD, _POSITION, _TOKEN_TYPE),
        (np.array([2, 2, 3]), np.array([1, 2]), _WORD, _POSITION, _TOKEN_TYPE),
        (np.array([1, 1, 2, 3, 0]), np.array([2, 1, 2]), _WORD, _POSITION, array([0.5, 0, 0], [1, 2, 3], [0, 0, 4])),
    ],
    {
        "positions are counted on; every text begins anew": {"[places]": "[np.arange(len(ids))]"},
        "positions are counted from 1; BERT's begin at 0": {"[places]": "[places + 1]"},
        "the id chooses the position; it is the place in the text": {"[places]": "[ids]"},
        "the vector of the token type is missing; every token has one": {" + token_type[0]": ""},
        "type 1 is for the second text of a pair; a single text is of the other type":
            {"token_type[0]": "token_type[1]"},
        "the texts of a strip are no pair: each of them is a single text, and all are of the same type":
            {"[0]": "[np.repeat(np.arange(len(lengths)), lengths)]"},
        "positions are missing: the order of the words is lost": {" + position[places]": ""},
    },
    level=2, minutes=15, instead=("embed",),
    draw=_draw_strip,
    hint="three lookups of whole arrays: which row of each table belongs to each token of the strip?",
    more="positions 0, 1, 2, ... begin anew with every text: np.concatenate over np.arange of each length",
)  # fmt: skip
