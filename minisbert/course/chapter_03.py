"""The exercises of notebook 3, "How does a token look at the others?": one head, its split, and a search among heads.

Each comes with its solution and with the results of typical mistakes: read it after the notebook. The package's own
version is :func:`minisbert.model.bert.attention`.

Letters: ``L`` layers, ``H`` heads, ``T`` tokens of one text, ``D`` hidden size, ``K`` = D/H.
"""

from __future__ import annotations

import math

import numpy as np

from minisbert.course.exercises import Exercise, Mistake, array
from minisbert.model import Array
from minisbert.model.ops import softmax

__all__ = ["HEADS", "LOOK", "PREVIOUS"]


# ------------------------------------------------------------------------------------------------- one head


def _scores(query: Array, key: Array) -> Array:
    return query @ key.T / math.sqrt(query.shape[1])


def _look(query: Array, key: Array, value: Array) -> Array:
    return softmax(_scores(query, key)) @ value


def _without_shift(query: Array, key: Array, value: Array) -> Array:
    """exp of unshifted scores; a score of 1000 overflows."""
    with np.errstate(all="ignore"):
        weights = np.exp(_scores(query, key))
        context: Array = weights / weights.sum(axis=1, keepdims=True) @ value
    return context


def _over_everything(query: Array, key: Array, value: Array) -> Array:
    scores = _scores(query, key)
    return softmax(scores.reshape(1, -1)).reshape(scores.shape) @ value


LOOK = Exercise(
    "look",
    _look,
    [
        (array([1, 0], [0, 2], [1, 1]), array([2, 1], [0, 1], [1, -1]), array([1, 0], [0, 1], [5, 5])),
        (array([1, 0, 2, 0], [0, 1, 1, 3]), array([1, 1, 0, 2], [0, 2, 1, 0]), array([1, 2, 3, 4], [4, 3, 2, 1])),
        (array([900, 0], [0, 900]), array([900, 1], [1, 900]), array([1, 2], [3, 4])),
    ],
    [
        Mistake(
            lambda query, key, value: softmax(query @ key.T) @ value,
            "the scores are not scaled; the wider the vectors, the larger their dot products grow. What undoes that?",
        ),
        Mistake(
            lambda query, key, value: softmax(query @ key.T / query.shape[1]) @ value,
            "the scores are divided by K; dot products of K random numbers grow more slowly than K",
        ),
        Mistake(
            lambda query, key, value: softmax(query @ key.T / math.sqrt(len(query))) @ value,
            "the scores are scaled by the number of tokens; it is the width of the vectors that makes them large",
        ),
        Mistake(
            lambda query, key, value: softmax(_scores(query, key).T).T @ value,
            "softmax runs down the columns; it is each token that looks, so it is each row that has to add up to 1",
        ),
        Mistake(
            lambda query, key, value: softmax(_scores(key, query)) @ value,
            "query and key have changed places: row t has to hold what token t looks for, against what others offer",
        ),
        Mistake(
            _over_everything,
            "all probabilities together add up to 1; every row has to do so by itself. See axis= and keepdims=",
        ),
        Mistake(
            _without_shift,
            "right for small scores, but exp(900) is too large for a number. Softmax does not change when the same "
            "number is taken from a whole row first",
        ),
        Mistake(
            lambda query, key, value: _scores(query, key) @ value,
            "the values are weighed by the scores themselves; scores may be negative and do not add up to 1",
        ),
        Mistake(
            lambda query, key, value: softmax(_scores(query, key)) @ key,
            "the probabilities weigh the keys; a key is for being found, and something else is passed on",
        ),
        Mistake(
            lambda query, key, value: softmax(_scores(query, key)),
            "these are the probabilities; the last step, fetching what the tokens pass on, is missing",
        ),
    ],
)


# ------------------------------------------------------------------------------------------------- the split


def _split(x: Array, head_count: int) -> Array:
    return x.reshape(len(x), head_count, -1).swapaxes(0, 1)


HEADS = Exercise(
    "split_heads",
    _split,
    [
        (np.arange(12.0).reshape(3, 4), 2),
        (np.arange(30.0).reshape(5, 6), 3),
    ],
    [
        Mistake(
            lambda x, head_count: x.reshape(head_count, len(x), -1),
            "the shape is right, but numbers of different tokens are mixed: reshape reads row by row. Print "
            "head 0: does it hold the first K numbers of every token?",
        ),
        Mistake(
            lambda x, head_count: x.reshape(len(x), head_count, -1),
            "each token's heads are apart, but the axis of heads comes second, (T, H, K); it has to come first",
        ),
        Mistake(
            lambda x, head_count: np.moveaxis(x.reshape(len(x), -1, head_count), -1, 0),
            "head 0 holds every H-th number of a token; a head is K neighbours",
        ),
        Mistake(
            lambda x, head_count: x.T.reshape(head_count, -1, len(x)),
            "every head is turned: it is (K, T), and tokens have to be its rows, (T, K)",
        ),
    ],
)


# ------------------------------------------------------------------------------------------- a search among heads


def _on_average(probs: Array, step: int) -> Array:
    """(L, H): mean attention paid ``step`` places away, over the tokens that have such a place."""
    return np.diagonal(probs, step, axis1=2, axis2=3).mean(axis=-1)


def _largest(share: Array) -> tuple[int, int]:
    layer, head = np.unravel_index(int(share.argmax()), share.shape)
    return int(layer), int(head)


def _previous_head(probs: Array) -> tuple[int, int]:
    return _largest(_on_average(probs, -1))


def _some_probs(layers: int, heads: int, tokens: int, planted: dict[tuple[int, int], int], seed: int) -> Array:
    """Draw random attention, with planted heads that attend to a fixed offset."""
    scores = np.random.default_rng(seed).normal(size=(layers, heads, tokens, tokens))
    for place, step in planted.items():
        scores[place] += 4.0 * np.eye(tokens, k=step)
    scores[0, 0, 2, 1] = 12.0  # one token attends to its predecessor with 1.00, the rest of its head does not
    return softmax(scores)


PREVIOUS = Exercise(
    "previous_head",
    _previous_head,
    [
        (_some_probs(3, 4, 6, {(1, 3): -1, (2, 0): 1, (0, 2): 0}, seed=0),),
        (_some_probs(2, 5, 7, {(1, 2): -1, (0, 3): 1, (1, 4): 0}, seed=1),),
    ],
    [
        Mistake(
            lambda probs: _largest(_on_average(probs, 1)),
            "this head looks at the next token. Rows look, columns are looked at: which diagonal is that?",
        ),
        Mistake(
            lambda probs: _largest(_on_average(probs, 0)),
            "this head looks at the token itself: that is the main diagonal, and one beside it is wanted",
        ),
        Mistake(
            lambda probs: _previous_head(probs)[::-1],
            "layer and head have changed places",
        ),
        Mistake(
            lambda probs: tuple(1 + i for i in _previous_head(probs)),
            "counted from 1; layers and heads are counted from 0, as NumPy does",
        ),
        Mistake(
            lambda probs: int(_on_average(probs, -1).argmax()),
            "this is the place in the flattened array; np.unravel_index turns it into a layer and a head",
        ),
        Mistake(
            lambda probs: _largest(np.diagonal(probs, -1, axis1=2, axis2=3).max(axis=-1)),
            "in this head one single token looks back strongly; all tokens count, on average",
        ),
    ],
)
