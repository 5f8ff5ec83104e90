"""The exercises of notebook 7, "What is lost beyond the limit?": windows, a fair mean, and which window owns a token.

Each comes with its solution, and typical mistakes as changes of its text: read it after the notebook. The package's
own versions are :func:`minisbert.long_texts.cut`, which looks for the ends of sentences as well,
:func:`minisbert.long_texts.compose` and :func:`minisbert.long_texts.share_out`.

Letters: ``T`` tokens of the text, ``C`` chunks, ``D`` width of a vector.
"""

from collections.abc import Sequence

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array

Window = tuple[int, int]


def _windows(count: int, room: int, overlap: int) -> list[Window]:
    firsts = range(0, max(1, count - overlap), room - overlap)
    return [(first, min(first + room, count)) for first in firsts]


def _less_room(count: int, room: int, overlap: int) -> list[Window]:
    return _windows(count, room - 2, min(overlap, room - 3))


def _draw_windows(rng: np.random.Generator) -> tuple[int, int, int]:
    room = int(rng.integers(3, 9))
    return int(rng.integers(1, 30)), room, int(rng.integers(room))


WINDOWS = Exercise(
    _windows,
    [(10, 4, 0), (10, 4, 1), (11, 5, 2), (4, 4, 1), (5, 4, 3), (3, 8, 2)],
    {
        "no two windows share a token: what is overlap= for?": {"- overlap": "- 0"},
        "the last window has nothing that is new: who has reached the end is done":
            {"max(1, count - overlap)": "count"},
        "the last window ends behind the text: there are only count tokens":
            {"min(first + room, count)": "first + room"},
        "the rest is missing: a last window may be shorter": {"in firsts]": "in firsts][:-1] or [(0, count)]"},
        "the last window is moved back until it is full; it begins overlap tokens before the end of the one before":
            {"(first, min": "(max(0, min(first, count - room)), min"},
        "stop is the token behind the last one, as in slices": {"room, count)": "room, count) - 1"},
        "each pair is (first, how many); the token behind the last one is wanted":
            {"min(first + room, count)": "min(room, count - first)"},
        "these windows are longer than room: shared tokens need room":
            {"first + room": "first + room + overlap", "- overlap": "- 0"},
        "room is what there is for the text's own tokens: [CLS] and [SEP] are taken off already": _less_room,
    },
    level=2, minutes=20, instead=("windows", "cut"),
    draw=_draw_windows,
    hint="where does the second window begin, and how far are two beginnings apart? When is it over?",
    more="begin with (0, min(room, count)); while the last stop is below count, the next begins at that stop - overlap",
)  # fmt: skip


def _composed(vectors: Array, new_tokens: Array) -> Array:
    total = new_tokens @ vectors
    return total / np.linalg.norm(total)


def _unit(x: Array) -> Array:
    return x / np.linalg.norm(x)


COMPOSED = Exercise(
    _composed,
    [
        (array([0.6, 0.8], [1, 0]), np.array([30, 10])),
        (array([1, 0, 0], [0, 0.6, -0.8], [0, 0.28, 0.96]), np.array([100, 90, 7])),
    ],
    {
        "every chunk counts the same: a rest of three words as much as a page":
            {"new_tokens @ vectors": "vectors.sum(axis=0)"},
        "the right direction, but shorter than 1": {"np.linalg.norm(total)": "new_tokens.sum()"},
        "the right direction, but longer than 1": {" / np.linalg.norm(total)": ""},
        "the other way round: the fewer new tokens, the more a chunk counts here":
            {"new_tokens @": "(1.0 / new_tokens) @"},
        "weighed by square roots; a token shall count the same anywhere": {"new_tokens @": "np.sqrt(new_tokens) @"},
        "the largest number of each dimension is no mean": {"new_tokens @ vectors": "vectors.max(axis=0)"},
        "this is the first chunk alone: the rest is lost": {"new_tokens @ vectors": "vectors[0]"},
        "divided by the sum of the numbers, which is no length": {"np.linalg.norm(total)": "total.sum()"},
    },
    level=1, minutes=10, instead=("compose",),
    draw=lambda rng: (np.array([*map(_unit, rng.normal(size=(3, 4)))]), rng.integers(1, 100, 3, np.intp)),
    hint="a chunk with three times as many new tokens counts three times as much. And the length at the end?",
    more="new_tokens @ vectors is the weighted sum; divide it by its own length",
)  # fmt: skip


def _owners(windows: Sequence[Window]) -> list[int]:
    owners = []
    for token in range(windows[-1][1]):
        holding = [(i, first, stop) for i, (first, stop) in enumerate(windows) if first <= token < stop]
        fewer = [(min(token - first, stop - 1 - token), -i) for i, first, stop in holding]  # neighbours on one side
        owners.append(-max(fewer)[1])
    return owners


OWNERS = Exercise(
    _owners,
    [
        ([(0, 8), (4, 10)],),
        ([(0, 8), (5, 9)],),
        ([(0, 3), (1, 7)],),
        ([(0, 6), (3, 9), (7, 12)],),
        ([(0, 3), (3, 5)],),
        ([(0, 6), (2, 8), (4, 10)],),
    ],
    {
        "always the first window: there the token may be the last": {"min(token - first, stop - 1 - token)": "-first"},
        "always the last window: there the token may be the first": {"min(token - first, stop - 1 - token)": "first"},
        "right but for ties: of windows with equally many neighbours the first gets it": {"-i)": "i)", "-max": "max"},
        "the longer window gets all; count the neighbours": {"min(token - first, stop - 1 - token)": "stop - first"},
        "the window whose middle is nearer; in a short window a token near the middle is near the edge, too":
            {"min(token - first, stop - 1 - token)": "-abs(token - (first + stop - 1) / 2)"},
        "the side with more neighbours is counted; the side with fewer decides": {"(min(": "(max("},
        "stop is behind the last token: one fewer": {"stop - 1 - token": "stop - token"},
    },
    level=3, minutes=20, instead=("share_out",),
    draw=lambda rng: (_windows(int(rng.integers(8, 25)), 7, int(rng.integers(1, 6))),),
    hint="for one token: which windows hold it, and how many neighbours has it in each, to the left and to the right?",
    more="the largest min(token - first, stop - 1 - token) of the windows that hold it; max keeps the first of equals",
)  # fmt: skip
