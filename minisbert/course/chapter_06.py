"""The exercises of notebook 6, "Why average the tokens?": masked mean and softmax, and the price of padding.

Each comes with its solution and with the results of typical mistakes: read it after the notebook. The package itself
has no padding and so no mask: what it does instead is :func:`minisbert.model.pooling.pool_mean` and
:func:`minisbert.model.bert.equal_length_runs`.

Letters: ``B`` texts, ``T`` tokens of the longest of them, ``D`` the width of a vector.
"""

from __future__ import annotations

import numpy as np

from minisbert.course.exercises import Exercise, Mistake, array
from minisbert.model import Array
from minisbert.model.ops import softmax

__all__ = ["MASKED_MEAN", "MASKED_SOFTMAX", "WASTED"]


# ------------------------------------------------------------------------------------------- a mean


def _masked_sum(x: Array, mask: Array) -> Array:
    return (x * mask[:, :, None]).sum(axis=1)


def _masked_mean(x: Array, mask: Array) -> Array:
    return _masked_sum(x, mask) / mask.sum(axis=1)[:, None]


MASKED_MEAN = Exercise(
    "masked_mean",
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
    ],
    [
        Mistake(
            lambda x, mask: x.mean(axis=1),
            "padding is averaged as well: what stands in its rows is no part of the text, and it is not zero",
        ),
        Mistake(
            lambda x, mask: _masked_sum(x, mask) / mask.shape[1],
            "padding is left out of the sum, but still counted: a short text is divided by the longest text's length. "
            "Its direction is right, its length is not",
        ),
        Mistake(
            _masked_sum,
            "these are the sums; each is still to be divided, by how many tokens its own text has",
        ),
        Mistake(
            lambda x, mask: _masked_sum(x, mask) / mask.sum(),
            "divided by the tokens of all texts together; each text has a number of its own. See axis= in mask.sum",
        ),
        Mistake(
            lambda x, mask: _masked_sum(x, mask) / np.sqrt(mask.sum(axis=1))[:, None],
            "divided by the square root of the number of tokens: that is another pooling, mean_sqrt_len_tokens",
        ),
        Mistake(
            lambda x, mask: x[mask].mean(axis=0),
            "one mean over the tokens of all texts; a vector for each text is wanted, (B, D)",
        ),
        Mistake(
            lambda x, mask: _masked_mean(x, ~mask),
            "this is the mean of the padding: the mask is True where there is a token",
        ),
        Mistake(
            lambda x, mask: np.array([text[0] for text in x]),
            "this is the first token of each text, [CLS]; the mean of all its tokens is wanted",
        ),
    ],
)


# ------------------------------------------------------------------------------------------- a softmax


def _masked_softmax(scores: Array, mask: Array) -> Array:
    return softmax(np.where(mask, scores, -np.inf))  # (T, T), the mask along the last axis


def _after(scores: Array, mask: Array) -> Array:
    return softmax(scores) * mask


def _without_padded_rows(scores: Array, mask: Array) -> Array:
    return _masked_softmax(scores, mask) * mask[:, None]


def _rows_left_out(scores: Array, mask: Array) -> Array:
    """Mask whole query rows: a row of nothing but -inf becomes NaN."""
    with np.errstate(all="ignore"):
        return softmax(np.where(mask[:, None], scores, -np.inf))


_SCORES = array([1, 2, 0.5, 3], [0, -1, 2, 1], [2, 2, 1, 0], [0.3, 1, 1, 4])
_LOW = _SCORES - 50.0  # only differences between scores matter: softmax is the same


MASKED_SOFTMAX = Exercise(
    "masked_softmax",
    _masked_softmax,
    [
        (_SCORES, np.array([True, True, True, False])),
        (_SCORES, np.array([True, False, True, True])),
        (_LOW, np.array([True, True, False, False])),
    ],
    [
        Mistake(
            lambda scores, mask: softmax(scores),
            "the mask is not used: every token looks at the padding, too",
        ),
        Mistake(
            _after,
            "padding gets nothing, but the rows do not add up to 1 any more: what it took was taken before",
        ),
        Mistake(
            lambda scores, mask: softmax(scores * mask),
            "a score of 0 is not nothing: exp(0) is 1, and beside scores of -50 it takes everything",
        ),
        Mistake(
            lambda scores, mask: softmax(scores + mask),
            "tokens get 1 more than padding, that is, e times as much; padding must get nothing at all",
        ),
        Mistake(
            lambda scores, mask: softmax(np.where(mask, scores, -10.0)),
            "-10 is small beside some scores and large beside others; what is so small that its exp is 0 always?",
        ),
        Mistake(
            _rows_left_out,
            "the mask is at the rows, the tokens that look; what must be left out is what is looked at, the columns",
        ),
        Mistake(
            _without_padded_rows,
            "the rows of the padding are cleared as well; nobody reads them, and every row has to add up to 1",
        ),
        Mistake(
            lambda scores, mask: softmax(np.where(mask, -np.inf, scores)),
            "the mask is the wrong way round: only the padding is looked at",
        ),
    ],
)


# ------------------------------------------------------------------------------------------- its price


def _rows(lengths: Array, batch_size: int) -> int:
    """Count the rows of all batches, padding included."""
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return sum(len(batch) * int(batch.max()) for batch in batches)


def _wasted(lengths: Array, batch_size: int) -> float:
    return 1.0 - float(lengths.sum()) / _rows(lengths, batch_size)


def _last_batch_full(lengths: Array, batch_size: int) -> float:
    rows = sum(batch_size * int(lengths[i : i + batch_size].max()) for i in range(0, len(lengths), batch_size))
    return 1.0 - float(lengths.sum()) / rows


def _last_batch_lost(lengths: Array, batch_size: int) -> float:
    whole = lengths[: len(lengths) // batch_size * batch_size]
    return _wasted(whole, batch_size)


WASTED = Exercise(
    "wasted",
    _wasted,
    [
        (np.array([5, 6, 40, 7]), 2),
        (np.array([12, 3, 9, 30, 4, 4, 8]), 3),
        (np.array([8, 8, 8]), 2),
    ],
    [
        Mistake(
            lambda lengths, batch_size: 1.0 - float(lengths.sum()) / (len(lengths) * int(lengths.max())),
            "every batch is padded to the longest text of all; it is the longest of its own batch that counts",
        ),
        Mistake(
            lambda lengths, batch_size: 1.0 - _wasted(lengths, batch_size),
            "this is the share of the rows that hold a token; the share that is padding was asked for",
        ),
        Mistake(
            lambda lengths, batch_size: _rows(lengths, batch_size) / float(lengths.sum()) - 1.0,
            "divided by the number of tokens; the share of all rows was asked for, so divide by the number of rows",
        ),
        Mistake(
            lambda lengths, batch_size: _wasted(np.sort(lengths), batch_size),
            "sorted by length first: that is a good idea, and its result is smaller. The texts come in the order given",
        ),
        Mistake(
            _last_batch_full,
            "the last batch is filled up with texts that do not exist; it has only as many as are left",
        ),
        Mistake(
            _last_batch_lost,
            "the last batch is left out where it is not full",
        ),
        Mistake(
            lambda lengths, batch_size: _rows(lengths, batch_size) - int(lengths.sum()),
            "this is the number of padded rows; their share of all rows was asked for",
        ),
    ],
)
