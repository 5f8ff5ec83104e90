"""The exercises of notebook 7, "What is lost beyond the limit?": windows, a fair mean, and which window owns a token.

Each comes with its solution and with the results of typical mistakes: read it after the notebook. The package's own
versions are :func:`minisbert.long_texts.cut`, which looks for the ends of sentences as well,
:func:`minisbert.long_texts.compose` and :func:`minisbert.long_texts.share_out`.

Letters: ``T`` tokens of the text, ``C`` chunks, ``D`` width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minisbert.course.exercises import Exercise, Mistake, array
from minisbert.long_texts import compose
from minisbert.model import Array

__all__ = ["COMPOSED", "OWNERS", "WINDOWS"]

Window = tuple[int, int]


# ------------------------------------------------------------------------------------------------- windows


def _windows(count: int, room: int, overlap: int) -> list[Window]:
    windows = [(0, min(room, count))]
    while windows[-1][1] < count:
        first = windows[-1][1] - overlap
        windows.append((first, min(first + room, count)))
    return windows


def _from_each_step(count: int, room: int, overlap: int) -> list[Window]:
    return [(first, min(first + room, count)) for first in range(0, count, room - overlap)]


WINDOWS = Exercise(
    "windows",
    _windows,
    [(10, 4, 0), (10, 4, 1), (11, 5, 2), (4, 4, 1), (5, 4, 3), (3, 8, 2)],
    [
        Mistake(
            lambda count, room, overlap: _windows(count, room, 0),
            "no two windows share a token: what is overlap= for?",
        ),
        Mistake(
            _from_each_step,
            "the last window may hold nothing but what the one before has already; who has reached the end is done",
        ),
        Mistake(
            lambda count, room, overlap: [(first, first + room) for first, _ in _windows(count, room, overlap)],
            "the last window ends behind the text: there are only count tokens",
        ),
        Mistake(
            lambda count, room, overlap: (
                [(first, stop) for first, stop in _windows(count, room, overlap)][:-1] or [(0, count)]
            ),
            "the rest of the text is missing: a last window may be shorter than the others",
        ),
        Mistake(
            lambda count, room, overlap: [(first, stop - 1) for first, stop in _windows(count, room, overlap)],
            "stop is the token behind the last one, as in Python's slices; this gives the last one itself",
        ),
        Mistake(
            lambda count, room, overlap: [
                (first, min(first + room + overlap, count)) for first in range(0, max(1, count - overlap), room)
            ],
            "these windows are longer than room: the tokens that are shared need room as well",
        ),
        Mistake(
            lambda count, room, overlap: _windows(count, room - 2, min(overlap, room - 3)),
            "room is what there is for the text's own tokens: [CLS] and [SEP] are taken off already",
        ),
    ],
)


# ------------------------------------------------------------------------------------------------- one vector


def _unit(vector: Array) -> Array:
    return vector / np.linalg.norm(vector)


COMPOSED = Exercise(
    "composed",
    lambda vectors, new_tokens: compose(vectors, new_tokens),
    [
        (array([0.6, 0.8], [1, 0]), np.array([30, 10])),
        (array([1, 0, 0], [0, 0.6, -0.8], [0, 0.28, 0.96]), np.array([100, 90, 7])),
    ],
    [
        Mistake(
            lambda vectors, new_tokens: _unit(vectors.mean(axis=0)),
            "every chunk counts the same: a rest of three words then counts as much as a full page",
        ),
        Mistake(
            lambda vectors, new_tokens: new_tokens @ vectors / new_tokens.sum(),
            "the right direction, but shorter than 1: the mean of unit vectors that differ lies inside the sphere",
        ),
        Mistake(
            lambda vectors, new_tokens: new_tokens @ vectors,
            "the right direction, but the longer the text, the longer the vector; the chunks' vectors have length 1",
        ),
        Mistake(
            lambda vectors, new_tokens: _unit((1.0 / new_tokens) @ vectors),
            "the other way round: the fewer new tokens, the more a chunk counts here",
        ),
        Mistake(
            lambda vectors, new_tokens: _unit(np.sqrt(new_tokens) @ vectors),
            "chunks are counted by the square roots of their tokens; a token shall count the same wherever it stands",
        ),
        Mistake(
            lambda vectors, new_tokens: _unit(vectors.max(axis=0)),
            "the largest number of each dimension is no mean: the more chunks, the more all texts look the same",
        ),
        Mistake(
            lambda vectors, new_tokens: vectors[0],
            "this is the first chunk alone: what stands behind it is lost, as by a cut",
        ),
        Mistake(
            lambda vectors, new_tokens: new_tokens @ vectors / (new_tokens @ vectors).sum(),
            "divided by the sum of the numbers; a length is the square root of the sum of their squares",
        ),
    ],
)


# ------------------------------------------------------------------------------------------------- who owns a token


def _best(windows: Sequence[Window], neighbours: Callable[[int, int, int], float]) -> list[int]:
    """The best window for each token; on ties the first."""
    owners = []
    for token in range(windows[-1][1]):
        holding = [i for i, (first, stop) in enumerate(windows) if first <= token < stop]
        owners.append(max(holding, key=lambda i: neighbours(token, *windows[i])))
    return owners


def _fewer_side(token: int, first: int, stop: int) -> int:
    return min(token - first, stop - 1 - token)


def _owners(windows: Sequence[Window]) -> list[int]:
    return _best(windows, _fewer_side)


OWNERS = Exercise(
    "owners",
    _owners,
    [([(0, 8), (4, 10)],), ([(0, 8), (5, 9)],), ([(0, 3), (1, 7)],), ([(0, 6), (3, 9), (7, 12)],), ([(0, 3), (3, 5)],)],
    [
        Mistake(
            lambda windows: _best(windows, lambda token, first, stop: -first),
            "always the first window that holds the token: there it may be the last, and see nothing of what follows",
        ),
        Mistake(
            lambda windows: _best(windows, lambda token, first, stop: first),
            "always the last window that holds the token: there it may be the first, and see nothing of what precedes",
        ),
        Mistake(
            lambda windows: [
                max(
                    (i for i, (first, stop) in enumerate(windows) if first <= token < stop),
                    key=lambda i: (_fewer_side(token, *windows[i]), i),
                )
                for token in range(windows[-1][1])
            ],
            "right but for ties: where both windows have equally many neighbours, the first one gets the token",
        ),
        Mistake(
            lambda windows: _best(windows, lambda token, first, stop: stop - first),
            "the longer window gets all; what counts is how many neighbours the token has on its poorer side",
        ),
        Mistake(
            lambda windows: _best(windows, lambda token, first, stop: -abs(token - (first + stop - 1) / 2)),
            "the window whose middle is nearer; in a short window a token near the middle is near the edge, too",
        ),
        Mistake(
            lambda windows: [sum(owner == i for owner in _owners(windows)) for i in range(len(windows))],
            "this counts how many tokens each window owns; asked for is the window of each token",
        ),
        Mistake(
            lambda windows: _best(windows, lambda token, first, stop: -_fewer_side(token, first, stop)),
            "the wrong way round: each token is taken where it has the fewest neighbours",
        ),
    ],
)
