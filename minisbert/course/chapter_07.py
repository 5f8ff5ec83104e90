"""The exercises of notebook 7, "What is lost beyond the limit?": windows, a fair mean, and which window owns a token.

Each comes with its solution, whose keyword arguments make typical mistakes: read it after the notebook. The package's
own versions are :func:`minisbert.long_texts.cut`, which looks for the ends of sentences as well,
:func:`minisbert.long_texts.compose` and :func:`minisbert.long_texts.share_out`.

Letters: ``T`` tokens of the text, ``C`` chunks, ``D`` width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array

__all__ = ["COMPOSED", "OWNERS", "WINDOWS"]

Window = tuple[int, int]


def _windows(
    count: int,
    room: int,
    overlap: int,
    *,
    shared: Callable[[int], int] = lambda overlap: overlap,
    taken: int = 0,
    longer: bool = False,
    beyond: bool = False,
    stop: Callable[[int, int], int] = min,
    last: Callable[[list[Window], int], list[Window]] = lambda windows, room: windows,
) -> list[Window]:
    room -= taken
    step = max(1, room - shared(overlap))
    firsts = range(0, count if beyond else max(1, count - (room - step)), step)
    size = room + overlap if longer else room
    return last([(first, stop(first + size, count)) for first in firsts], room)


def _draw_windows(rng: np.random.Generator) -> tuple[int, int, int]:
    room = int(rng.integers(3, 9))
    return int(rng.integers(1, 30)), room, int(rng.integers(room))


WINDOWS = Exercise(
    "windows",
    _windows,
    [(10, 4, 0), (10, 4, 1), (11, 5, 2), (4, 4, 1), (5, 4, 3), (3, 8, 2)],
    {
        "no two windows share a token: what is overlap= for?": {"shared": lambda overlap: 0},
        "the last window has nothing that is new: who has reached the end is done": {"beyond": True},
        "the last window ends behind the text: there are only count tokens": {"stop": lambda stop, count: stop},
        "the rest is missing: a last window may be shorter": {"last": lambda windows, room: windows[:-1] or windows},
        "the last window is moved back until it is full; it begins overlap tokens before the end of the one before": {
            "last": lambda windows, room: [*windows[:-1], (max(0, windows[-1][1] - room), windows[-1][1])]
        },
        "stop is the token behind the last one, as in slices": {"stop": lambda stop, count: min(stop, count) - 1},
        "each pair is (first, how many); the token behind the last one is wanted": {
            "last": lambda windows, room: [(first, stop - first) for first, stop in windows]
        },
        "these windows are longer than room: shared tokens need room": {"longer": True, "shared": lambda overlap: 0},
        "room is what there is for the text's own tokens: [CLS] and [SEP] are taken off already": {"taken": 2},
    },
    level=2,
    minutes=20,
    draw=_draw_windows,
    hints=(
        "where does the second window begin, and how far are two beginnings apart? When is it over?",
        "begin with (0, min(room, count)); while the last stop is below count, the next begins at that stop - overlap",
    ),
    instead=("windows", "cut"),
)


def _composed(
    vectors: Array,
    new_tokens: Array,
    *,
    weights: Callable[[Array], Array] = lambda n: n,
    mixed: Callable[[Array, Array], Array] = lambda weights, vectors: weights @ vectors,
    length: Callable[[Array, Array], Any] = lambda x, weights: np.linalg.norm(x),
) -> Array:
    chosen = weights(np.asarray(new_tokens, np.float64))
    total = mixed(chosen, np.asarray(vectors))
    return total / length(total, chosen)


def _unit(x: Array) -> Array:
    return x / np.linalg.norm(x)


COMPOSED = Exercise(
    "composed",
    _composed,
    [
        (array([0.6, 0.8], [1, 0]), np.array([30, 10])),
        (array([1, 0, 0], [0, 0.6, -0.8], [0, 0.28, 0.96]), np.array([100, 90, 7])),
    ],
    {
        "every chunk counts the same: a rest of three words as much as a page": {"weights": np.ones_like},
        "the right direction, but shorter than 1": {"length": lambda x, weights: weights.sum()},
        "the right direction, but longer than 1": {"length": lambda x, weights: 1.0},
        "the other way round: the fewer new tokens, the more a chunk counts here": {"weights": lambda n: 1.0 / n},
        "weighed by square roots; a token shall count the same anywhere": {"weights": np.sqrt},
        "the largest number of each dimension is no mean": {"mixed": lambda weights, vectors: vectors.max(axis=0)},
        "this is the first chunk alone: the rest is lost": {"mixed": lambda weights, vectors: vectors[0]},
        "divided by the sum of the numbers, which is no length": {"length": lambda x, weights: x.sum()},
    },
    level=1,
    minutes=10,
    draw=lambda rng: (np.array([*map(_unit, rng.normal(size=(3, 4)))]), rng.integers(1, 100, 3, np.intp)),
    hints=(
        "a chunk with three times as many new tokens counts three times as much. And the length at the end?",
        "new_tokens @ vectors is the weighted sum; divide it by its own length",
    ),
    instead=("compose",),
)


def _owners(
    windows: Sequence[Window],
    *,
    score: Callable[[int, int, int], float] = lambda token, first, stop: min(token - first, stop - 1 - token),
    later: bool = False,
) -> list[int]:
    owners = []
    for token in range(windows[-1][1]):
        holding = [i for i, (first, stop) in enumerate(windows) if first <= token < stop]
        owners.append(max(reversed(holding) if later else holding, key=lambda i: score(token, *windows[i])))
    return owners


OWNERS = Exercise(
    "owners",
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
        "always the first window: there the token may be the last": {"score": lambda token, first, stop: -first},
        "always the last window: there the token may be the first": {"score": lambda token, first, stop: first},
        "right but for ties: of windows with equally many neighbours the first gets it": {"later": True},
        "the longer window gets all; count the neighbours": {"score": lambda token, first, stop: stop - first},
        "the window whose middle is nearer; in a short window a token near the middle is near the edge, too": {
            "score": lambda token, first, stop: -abs(token - (first + stop - 1) / 2)
        },
        "the side with more neighbours is counted; the side with fewer decides": {
            "score": lambda token, first, stop: max(token - first, stop - 1 - token)
        },
        "stop is behind the last token: one fewer": {
            "score": lambda token, first, stop: min(token - first, stop - token)
        },
    },
    level=3,
    minutes=20,
    draw=lambda rng: (_windows(int(rng.integers(8, 25)), 7, int(rng.integers(1, 6))),),
    hints=(
        "for one token: which windows hold it, and how many neighbours has it in each, to the left and to the right?",
        "the largest min(token - first, stop - 1 - token) of the windows that hold it; max keeps the first of equals",
    ),
    instead=("share_out",),
)
