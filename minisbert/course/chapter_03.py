"""The exercises of notebook 3, "How does a token look at the others?": one head, its split, and a search among heads.

Each comes with its solution, and typical mistakes as changes of its text: read it after the notebook. The package's
own version is :func:`minisbert.model.bert.attention`.

Letters: ``L`` layers, ``H`` heads, ``T`` tokens of one text, ``D`` hidden size, ``K`` = D/H.
"""

import math

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array
from minisbert.model.ops import softmax


def _look(query: Array, key: Array, value: Array) -> Array:
    scores = query @ key.T / math.sqrt(query.shape[1])
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probs = powers / powers.sum(axis=1, keepdims=True)
    return probs @ value


LOOK = Exercise(
    _look,
    [
        (array([1, 0], [0, 2], [1, 1]), array([2, 1], [0, 1], [1, -1]), array([1, 0, 2], [0, 1, 3], [5, 5, -1])),
        (array([1, 0, 2, 0], [0, 1, 1, 3]), array([1, 1, 0, 2], [0, 2, 1, 0]), array([1, 2, 3, 4], [4, 3, 2, 1])),
        (array([50, 0], [0, 1]), array([50, 0], [50.01, 1]), array([1, 2], [3, 4])),  # large, and close to each other
        (array([900, 0], [-900, 1]), array([900, 1], [1, 900]), array([1, 2], [3, 4])),
    ],
    {
        "the scores are not scaled: dot products grow with the width": {" / math.sqrt(query.shape[1])": ""},
        "the scores are divided by K; they grow more slowly": {"math.sqrt(query.shape[1])": "query.shape[1]"},
        "the scores are multiplied by sqrt(K), not divided by it": {"/ math": "* math"},
        "the scores are scaled by the number of tokens": {"query.shape[1]": "len(query)"},
        "the scores are scaled by the width of the values": {"query.shape[1]": "value.shape[1]"},
        "softmax runs down the columns; rows have to add up to 1": {"axis=1": "axis=0"},
        "query and key have changed places: row t is for the token that looks": {"query @ key.T": "key @ query.T"},
        "all probabilities together add up to 1; every row has to do so by itself. See axis= and keepdims=":
            {"axis=1, keepdims=True": ""},
        "right for small scores, but exp(900) is too large for a number. Softmax does not change when the same "
        "number is taken from a whole row first": {" - scores.max(axis=1, keepdims=True)": ""},
        "the largest number of all scores is taken away; in a row that is far below it every exp is then 0. Each row "
        "has a largest number of its own": {"max(axis=1, keepdims=True)": "max()"},
        "each probability is divided by the sum of another row: the sums lie along the columns. See keepdims=":
            {"sum(axis=1, keepdims=True)": "sum(axis=1)"},
        "the values are weighed by the scores; where is the softmax?": {"probs @": "scores @"},
        "the probabilities weigh the keys; something else is passed on": {"@ value": "@ key"},
        "these are the probabilities; the last step is missing": {" @ value": ""},
        "a token sees only itself and those before it: that is the causal mask of a text generator":
            {"probs @": "softmax(np.where(np.tri(len(scores), dtype=bool), scores, -np.inf)) @"},
    },
    level=2, minutes=20, instead=("minisbert",),
    draw=lambda rng: tuple(rng.normal(size=(3, 3, 4))),
    hint="three lines: scores (T, T) from query and key, probabilities from the scores, a weighted mean of the values",
    more="divide query @ key.T by sqrt(K); take away each row's largest number before exp, and divide by the row's sum",
)  # fmt: skip


def _split_heads(x: Array, head_count: int) -> Array:
    return x.reshape(len(x), head_count, -1).swapaxes(0, 1)


HEADS = Exercise(
    _split_heads,
    [(np.arange(12.0).reshape(3, 4), 2), (np.arange(30.0).reshape(5, 6), 3)],
    {
        "the shape is right, but numbers of different tokens are mixed: reshape reads row by row. Print "
        "head 0: does it hold the first K numbers of every token?":
            {"len(x), head_count, -1).swapaxes(0, 1)": "head_count, len(x), -1)"},
        "the axis of heads comes second; it has to come first": {".swapaxes(0, 1)": ""},
        "head 0 holds every H-th number; it has K neighbours":
            {"head_count, -1).swapaxes(0, 1)": "-1, head_count).transpose(2, 0, 1)"},
        "every head is turned, (K, T); tokens have to be its rows":
            lambda x, head_count: x.T.reshape(head_count, -1, len(x)),
        "there are H heads of K columns each, not K heads of H":
            lambda x, head_count: np.stack(np.split(x, x.shape[1] // head_count, axis=1)),
        "the axis of heads comes last; it has to come first": {"swapaxes(0, 1)": "swapaxes(1, 2)"},
        "this is one head alone; all of them are wanted": lambda x, head_count: x[:, : x.shape[1] // head_count],
    },
    level=2, minutes=10, instead=("minisbert",),
    draw=lambda rng: (rng.normal(size=(4, 6)), 3),
    hint="reshape reads row by row: first cut each row into heads, then move the axis of heads to the front",
    more="reshape to (T, H, K), and swap the first two axes",
)  # fmt: skip


def _on_average(probs: Array, step: int) -> Array:
    """(L, H): mean attention paid ``step`` places away, over the tokens that have such a place."""
    return np.diagonal(probs, step, axis1=2, axis2=3).mean(axis=-1)


def _previous_head(probs: Array) -> tuple[int, ...]:
    share = _on_average(probs, -1)  # (L, H)
    return tuple(map(int, np.unravel_index(share.argmax(), share.shape)))


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
    _previous_head,
    [
        (_some_probs(3, 4, 6, {(1, 3): -1, (2, 0): 1, (0, 2): 0}, seed=0),),
        (_some_probs(2, 5, 7, {(1, 2): -1, (0, 3): 1, (1, 4): 0}, seed=1),),
        (_lookalikes(),),
        (_decoys(),),
    ],
    {
        "this head looks at the next token: which diagonal is that?": {"probs, -1": "probs, 1"},
        "this head looks at the token itself: the main diagonal": {"probs, -1": "probs, 0"},
        "only layer 0 is searched; there are L of them": {"(probs, -1)": "(probs, -1)[:1]"},
        "only the last layer is searched; and layers are counted from the first": {"(probs, -1)": "(probs, -1)[-1:]"},
        "a place in the flattened array: see np.unravel_index":
            {"tuple(map(int, np.unravel_index(share.argmax(), share.shape)))": "int(share.argmax())"},
        "in this head one single token looks back strongly; all tokens count, on average":
            {"_on_average(probs, -1)": "np.diagonal(probs, -1, axis1=2, axis2=3).max(axis=-1)"},
        "this head looks at all tokens that came before; only the one just before counts":
            {"_on_average(probs, -1)": "np.tril(probs, -1).sum(axis=(2, 3))"},
        "the first token has none before it, and column -1 is the last; it must not count":
            {"_on_average(probs, -1)": "_on_average(np.roll(probs, 1, axis=-1), 0)"},
    },
    level=2, minutes=15,
    draw=lambda rng: (softmax(2 * rng.normal(size=(3, 4, 6, 6))),),
    hint="for one head: where in its (T, T) stand the probabilities with which each token looks at the one before?",
    more="a diagonal beside the main one: np.diagonal(probs, -1, axis1=2, axis2=3); its mean is (L, H), then argmax",
)  # fmt: skip
