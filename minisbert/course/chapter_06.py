"""The exercises of notebook 6, "Why average the tokens?": masked mean and softmax, and the price of padding.

Each comes with its solution, and typical mistakes as changes of its text: read it after the notebook. The package
itself has no padding and so no mask: what it does instead is :func:`minisbert.model.pooling.pool_mean` and
:func:`minisbert.model.bert.equal_length_runs`.

Letters: ``B`` texts, ``T`` tokens of the longest of them, ``D`` the width of a vector.
"""

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array
from minisbert.model.ops import softmax


def _masked_mean(x: Array, mask: Array) -> Array:
    total = (x * mask[:, :, None]).sum(axis=1)  # (B, D)
    return total / mask.sum(axis=1, keepdims=True)


MASKED_MEAN = Exercise(
    _masked_mean,
    [
        (
            array([[4, 0], [2, 6], [0, 3]], [[1, 5], [3, 1], [9, -9]]),
            np.array([[True, True, False], [True, True, False]]),
        ),
        (
            array([[1, 2, 3], [7, 7, 8], [7, 9, 7], [-5, 7, 7]], [[2, 4, 8], [4, 0, 1], [1, 1, 1], [6, 5, 4]]),
            np.array([[True, False, False, False], [True, True, True, False]]),
        ),
        (  # padding on the left
            array([[9, 9], [2, 6], [4, 1]], [[7, -3], [8, 5], [1, 3]]),
            np.array([[False, True, True], [False, False, True]]),
        ),
    ],
    {
        "padding is averaged as well: what stands in its rows is no part of the text, and it is not zero":
            {" * mask[:, :, None]": "", "mask.sum(axis=1, keepdims=True)": "mask.shape[1]"},
        "padding is left out of the number, but still added": {" * mask[:, :, None]": ""},
        "padding is left out of the sum, but still counted": {"mask.sum(axis=1, keepdims=True)": "mask.shape[1]"},
        "these are the sums; by what is each to be divided?": {" / mask.sum(axis=1, keepdims=True)": ""},
        "divided by the tokens of all texts together: see axis= in mask.sum":
            {"mask.sum(axis=1, keepdims=True)": "mask.sum()"},
        "divided by the square root of the number of tokens: that is another pooling, mean_sqrt_len_tokens":
            {"mask.sum(axis=1, keepdims=True)": "np.sqrt(mask.sum(axis=1, keepdims=True))"},
        "one mean over all texts; a vector for each is wanted": lambda x, mask: x[mask].mean(axis=0),
        "the mean of the padding: the mask is True at tokens": lambda x, mask: _masked_mean(x, ~mask),
        "this is the first token of each text; a mean is wanted": lambda x, mask: x[:, 0],
    },
    level=1, minutes=10, instead=("pool_mean",),
    draw=lambda rng: (rng.normal(size=(2, 4, 3)), np.arange(4) < rng.integers(1, 5, (2, 1))),
    hint="a sum in which padding is multiplied by 0, divided by how many tokens there are",
    more="mask[:, :, None] has the axis that mask lacks; sum over axis 1, and divide by mask.sum(axis=1)[:, None]",
)  # fmt: skip


def _masked_softmax(scores: Array, mask: Array) -> Array:
    return softmax(np.where(mask, scores, -np.inf))


_SCORES = array([1, 2, 0.5, 3], [0, -1, 2, 1], [2, 2, 1, 0], [0.3, 1, 1, 4])

MASKED_SOFTMAX = Exercise(
    _masked_softmax,
    [
        (_SCORES, np.array([True, True, True, False])),
        (_SCORES, np.array([True, False, True, True])),
        (_SCORES - 50.0, np.array([True, True, False, False])),  # only differences matter: softmax is the same
        (np.full((2, 2), -2e5), np.array([True, False])),
    ],
    {
        "the mask is not used: every token looks at the padding, too": {"np.where(mask, scores, -np.inf)": "scores"},
        "padding gets nothing, but the rows do not add up to 1 any more: what it took was taken before":
            {"np.where(mask, scores, -np.inf))": "scores) * mask"},
        "a score of 0 is not nothing: exp(0) is 1, and beside scores of -50 it takes everything": {"-np.inf": "0.0"},
        "tokens get only e times as much as padding": {"np.where(mask, scores, -np.inf)": "scores + mask"},
        "-10 is small beside some scores, and large beside others": {"-np.inf": "-10.0"},
        "small beside most scores, but large beside some: what is smaller than any?": {"-np.inf": "-1e4"},
        "rows are masked; what is looked at are the columns": {"where(mask": "where(mask[:, None]"},
        "the padding's own rows have to add up to 1, too": {"-np.inf))": "-np.inf)) * mask[:, None]"},
        "the mask is the wrong way round: only the padding is looked at": {"where(mask": "where(~mask"},
    },
    level=2, minutes=15,
    draw=lambda rng: (3 * rng.normal(size=(4, 4)), rng.permutation(np.arange(4) < rng.integers(1, 5))),
    hint="what has to stand in a score, before softmax, for its probability to be exactly 0?",
    more="np.where(mask, scores, -np.inf): the mask (T,) is repeated for every row, that is for every token that looks",
)  # fmt: skip


def _wasted(lengths: Array, batch_size: int) -> float:
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    rows = sum(len(batch) * batch.max() for batch in batches)
    return float(1.0 - lengths.sum() / rows)


WASTED = Exercise(
    _wasted,
    [
        (np.array([5, 6, 40, 7]), 2),
        (np.array([12, 3, 9, 30, 4, 4, 8]), 3),
        (np.array([8, 8, 8]), 2),
        (np.array([3, 9, 2, 5, 1]), 4),
        (np.array([2, 3, 9, 4]), 3),
    ],
    {
        "padded to the longest of all; the longest of its own batch counts": {"batch.max()": "lengths.max()"},
        "the first text of a batch is taken for its longest": {"batch.max()": "batch[0]"},
        "divided by the tokens; the share of all rows is wanted":
            {"1.0 - lengths.sum() / rows": "rows / lengths.sum() - 1.0"},
        "the number of padded rows; their share is wanted": {"1.0 - lengths.sum() / rows": "rows - lengths.sum()"},
        "sorted by length first, a good idea; but the texts come in the order given":
            {"lengths[i :": "np.sort(lengths)[i :"},
        "the last batch is filled up with texts that do not exist; it has only as many as are left":
            {"len(batch) *": "batch_size *"},
        "the last batch is left out where it is not full":
            lambda lengths, size: _wasted(lengths[: len(lengths) // size * size], size),
    },
    level=2, minutes=15,
    draw=lambda rng: (rng.integers(1, 40, 9, np.intp), int(rng.integers(2, 5))),
    hint="how many rows has one batch, padding included? Add that up over all batches",
    more="for i in range(0, len(lengths), batch_size): a batch is lengths[i : i + batch_size], its rows len times max; "
    "what is not a token is padding",
)  # fmt: skip
