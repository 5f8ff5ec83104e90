"""The exercises of notebook 3, "How does a token look at the others?": one head, its split, and a search among heads.

Each comes with its solution, whose keyword arguments make typical mistakes: read it after the notebook. The package's
own version is :func:`minisbert.model.bert.attention`.

Letters: ``L`` layers, ``H`` heads, ``T`` tokens of one text, ``D`` hidden size, ``K`` = D/H.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array
from minisbert.model.ops import softmax

__all__ = ["HEADS", "LOOK", "PREVIOUS"]


def _look(
    query: Array,
    key: Array,
    value: Array,
    *,
    scale: Callable[[Array, Array], float] = lambda q, v: math.sqrt(q.shape[1]),
    turned: bool = False,
    largest: Callable[[Array], Any] = lambda scores: scores.max(axis=1, keepdims=True),
    total: Callable[[Array], Any] = lambda powers: powers.sum(axis=1, keepdims=True),
    weigh: Callable[[Array], Array] | None = None,
    of: Callable[[Array, Array], Array] = lambda key, value: value,
) -> Array:
    scores = (key @ query.T if turned else query @ key.T) / scale(query, value)
    powers = np.exp(scores - largest(scores))
    return (weigh(scores) if weigh else powers / total(powers)) @ of(key, value)


LOOK = Exercise(
    "look",
    _look,
    [
        (array([1, 0], [0, 2], [1, 1]), array([2, 1], [0, 1], [1, -1]), array([1, 0, 2], [0, 1, 3], [5, 5, -1])),
        (array([1, 0, 2, 0], [0, 1, 1, 3]), array([1, 1, 0, 2], [0, 2, 1, 0]), array([1, 2, 3, 4], [4, 3, 2, 1])),
        (array([50, 0], [0, 1]), array([50, 0], [50.01, 1]), array([1, 2], [3, 4])),  # large, and close to each other
        (array([900, 0], [-900, 1]), array([900, 1], [1, 900]), array([1, 2], [3, 4])),
    ],
    {
        "the scores are not scaled: dot products grow with the width": {"scale": lambda q, v: 1.0},
        "the scores are divided by K; they grow more slowly": {"scale": lambda q, v: q.shape[1]},
        "the scores are multiplied by sqrt(K), not divided by it": {"scale": lambda q, v: 1.0 / math.sqrt(q.shape[1])},
        "the scores are scaled by the number of tokens": {"scale": lambda q, v: math.sqrt(len(q))},
        "the scores are scaled by the width of the values": {"scale": lambda q, v: math.sqrt(v.shape[1])},
        "softmax runs down the columns; rows have to add up to 1": {"weigh": lambda scores: softmax(scores.T).T},
        "query and key have changed places: row t is for the token that looks": {"turned": True},
        "all probabilities together add up to 1; every row has to do so by itself. See axis= and keepdims=": {
            "weigh": lambda scores: softmax(scores.reshape(1, -1)).reshape(scores.shape)
        },
        "right for small scores, but exp(900) is too large for a number. Softmax does not change when the same "
        "number is taken from a whole row first": {"largest": lambda scores: 0.0},
        "the largest number of all scores is taken away; in a row that is far below it every exp is then 0. Each row "
        "has a largest number of its own": {"largest": np.max},
        "each probability is divided by the sum of another row: the sums lie along the columns. See keepdims=": {
            "total": lambda powers: powers.sum(axis=1)
        },
        "the values are weighed by the scores; where is the softmax?": {"weigh": lambda scores: scores},
        "the probabilities weigh the keys; something else is passed on": {"of": lambda key, value: key},
        "these are the probabilities; the last step is missing": {"of": lambda key, value: np.eye(len(key))},
        "a token sees only itself and those before it: that is the causal mask of a text generator": {
            "weigh": lambda scores: softmax(np.where(np.tri(len(scores), dtype=bool), scores, -np.inf))
        },
    },
    level=2,
    minutes=20,
    draw=lambda rng: tuple(rng.normal(size=(3, 3, 4))),
    hints=(
        "three lines: scores (T, T) from query and key, probabilities from the scores, a weighted mean of the values",
        "divide query @ key.T by sqrt(K); take away each row's largest number before exp, and divide by the row's sum",
    ),
    instead=("minisbert",),
)


def _split(
    x: Array,
    head_count: int,
    *,
    cut: Callable[[Array, int], Array] = lambda x, h: x.reshape(len(x), h, -1).swapaxes(0, 1),
) -> Array:
    return cut(x, head_count)


HEADS = Exercise(
    "split_heads",
    _split,
    [(np.arange(12.0).reshape(3, 4), 2), (np.arange(30.0).reshape(5, 6), 3)],
    {
        "the shape is right, but numbers of different tokens are mixed: reshape reads row by row. Print "
        "head 0: does it hold the first K numbers of every token?": {"cut": lambda x, h: x.reshape(h, len(x), -1)},
        "the axis of heads comes second; it has to come first": {"cut": lambda x, h: x.reshape(len(x), h, -1)},
        "head 0 holds every H-th number; it has K neighbours": {
            "cut": lambda x, h: np.moveaxis(x.reshape(len(x), -1, h), -1, 0)
        },
        "every head is turned, (K, T); tokens have to be its rows": {"cut": lambda x, h: x.T.reshape(h, -1, len(x))},
        "there are H heads of K columns each, not K heads of H": {
            "cut": lambda x, h: np.stack(np.split(x, x.shape[1] // h, axis=1))
        },
        "the axis of heads comes last; it has to come first": {
            "cut": lambda x, h: x.reshape(len(x), h, -1).swapaxes(1, 2)
        },
        "this is one head alone; all of them are wanted": {"cut": lambda x, h: x[:, : x.shape[1] // h]},
    },
    level=2,
    minutes=10,
    draw=lambda rng: (rng.normal(size=(4, 6)), 3),
    hints=(
        "reshape reads row by row: first cut each row into heads, then move the axis of heads to the front",
        "reshape to (T, H, K), and swap the first two axes",
    ),
    instead=("minisbert",),
)


def _on_average(probs: Array, step: int) -> Array:
    """(L, H): mean attention paid ``step`` places away, over the tokens that have such a place."""
    return np.diagonal(probs, step, axis1=2, axis2=3).mean(axis=-1)


def _previous_head(
    probs: Array,
    *,
    share: Callable[[Array], Array] = lambda probs: _on_average(probs, -1),
    layers: slice = slice(None),
    place: Callable[[Array], tuple[int, ...] | int] = lambda x: tuple(map(int, np.unravel_index(x.argmax(), x.shape))),
) -> tuple[int, ...] | int:
    return place(share(probs)[layers])


def _some_probs(layers: int, heads: int, tokens: int, planted: dict[tuple[int, int], int], seed: int) -> Array:
    """Draw random attention, with planted heads that attend to a fixed offset."""
    scores = np.random.default_rng(seed).normal(size=(layers, heads, tokens, tokens))
    for place, step in planted.items():
        scores[place] += 4.0 * np.eye(tokens, k=step)
    scores[1, 0, 2, 1] = 12.0  # one token attends to its predecessor with 1.00, the rest of its head does not
    return softmax(scores)


def _lookalikes() -> Array:
    """One head looks back most; one a little less, but its first token at the last, which Python calls ``[-1]``; and in
    one every token looks back more than elsewhere, though not much."""
    probs = _some_probs(4, 3, 5, {(2, 1): -1, (3, 0): 1}, seed=2)
    probs[2, 1, 3] = [0.9, 0.025, 0.025, 0.025, 0.025]
    probs[3, 2] = 0.95 * probs[2, 1] + 0.01
    probs[3, 2, 0] = [0.0, 0.0, 0.0, 0.0, 1.0]
    probs[0, 0] = 0.3 * np.eye(5, k=-1) + 0.14
    return probs


def _decoys() -> Array:
    """Head (1, 1) looks back most, 0.56 on average. Others have the largest sum over all that came before, the largest
    share at the beginning, most shares above a half, and the largest median."""
    probs = np.broadcast_to(np.eye(9), (3, 2, 9, 9)).copy()
    probs[0, 0, 1:] = np.tril(np.ones((8, 9))) / np.arange(1, 9)[:, None]
    back = {(1, 1): [0.6] * 6 + [0.45] * 2, (0, 1): [1.0] * 3 + [0.0] * 4 + [0.9]}
    for place, shares in (back | {(2, 0): [0.55] * 7 + [0.0], (2, 1): [0.7] * 5 + [0.1] * 3}).items():
        probs[place] = np.diag(shares, -1) + np.diag([1.0, *(1.0 - share for share in shares)])
    return probs


PREVIOUS = Exercise(
    "previous_head",
    _previous_head,
    [
        (_some_probs(3, 4, 6, {(1, 3): -1, (2, 0): 1, (0, 2): 0}, seed=0),),
        (_some_probs(2, 5, 7, {(1, 2): -1, (0, 3): 1, (1, 4): 0}, seed=1),),
        (_lookalikes(),),
        (_decoys(),),
    ],
    {
        "this head looks at the next token: which diagonal is that?": {"share": lambda probs: _on_average(probs, 1)},
        "this head looks at the token itself: the main diagonal": {"share": lambda probs: _on_average(probs, 0)},
        "only layer 0 is searched; there are L of them": {"layers": slice(1)},
        "only the last layer is searched; and layers are counted from the first": {"layers": slice(-1, None)},
        "a place in the flattened array: see np.unravel_index": {"place": lambda x: int(x.argmax())},
        "in this head one single token looks back strongly; all tokens count, on average": {
            "share": lambda probs: np.diagonal(probs, -1, axis1=2, axis2=3).max(axis=-1)
        },
        "this head looks at all tokens that came before; only the one just before counts": {
            "share": lambda probs: np.tril(probs, -1).sum(axis=(2, 3))
        },
        "the first token has none before it, and column -1 is the last; it must not count": {
            "share": lambda probs: np.diagonal(np.roll(probs, 1, axis=-1), 0, axis1=2, axis2=3).mean(axis=-1)
        },
    },
    level=2,
    minutes=15,
    draw=lambda rng: (softmax(2 * rng.normal(size=(3, 4, 6, 6))),),
    hints=(
        "for one head: where in its (T, T) stand the probabilities with which each token looks at the one before?",
        "a diagonal beside the main one: np.diagonal(probs, -1, axis1=2, axis2=3); its mean is (L, H), then argmax",
    ),
)
