"""How good are labels and probabilities, and how sure is that? Measures with 95 % intervals over the texts.

Another few hundred texts would have given other figures. A **share** (accuracy, precision, recall) has a formula for
its interval, which stays honest where all of a few texts are right. For everything else the **bootstrap** draws the
texts again, with replacement, thousands of times. Two systems on the *same* texts are compared text by text: easy and
hard ones cancel, and the interval of the difference is often far narrower than those of the figures.

Letters: ``Q`` queries or texts, ``C`` classes, ``R`` resamples, ``U`` distinct outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array

RESAMPLES = 10_000
"""Enough that the ends of the interval are stable to the third digit."""

_BLOCK_NUMBERS = 2**20  # numbers drawn at a time: 8 MiB
_Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


class Estimate(NamedTuple):
    """A figure and the 95 % interval around it, in the unit of the values; NaN where undefined."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


# ---------------------------------------------------------------------------------------------------- intervals


def share(values: ArrayLike) -> Estimate:
    """The share of texts for which something holds, with Wilson's interval: (Q,) bool -> Estimate.

    ``(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)``, ``z = 1.96``

    **Source**: Wilson 1927; ``scipy.stats.binomtest(k, n).proportion_ci(method="wilson")``. A bootstrap would claim
    certainty where all of a few texts are right.

    >>> [round(end, 3) for end in share([True] * 7)]
    [1.0, 0.646, 1.0]
    """
    array = np.asarray(values, bool)
    return _share(int(array.sum()), len(array))


def _share(count: int, n: int) -> Estimate:
    """Wilson's interval of ``count`` in ``n``; NaN for none in none."""
    if not n:
        return Estimate(math.nan, math.nan, math.nan)
    p, spread = count / n, _Z**2 / n
    middle = (p + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(p * (1 - p) / n + (spread / _Z / 2) ** 2) / (1 + spread)
    return Estimate(p, min(p, middle - half), max(p, middle + half))  # rounding could leave p just outside


def percentiles(value: float, draws: Array) -> Estimate:
    """A figure with the middle 95 % of its resamples, those where it is undefined left out: (R,) -> Estimate."""
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(finite):
        return Estimate(float(value), math.nan, math.nan)
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


def bootstrap_mean(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Mean of a measure over queries, with its percentile bootstrap interval: (Q,) -> Estimate.

    For a single query the interval is its value and says nothing; with fewer than about 30 it is too narrow.

    **Source**: Efron & Tibshirani 1993, chapter 13; ``scipy.stats.bootstrap((values,), numpy.mean,
    method="percentile")``. For retrieval: Sakai 2006, "Evaluating evaluation metrics based on the bootstrap".

    >>> estimate = bootstrap_mean([0.0, 1.0] * 50)
    >>> estimate.mean, round(estimate.low, 1), round(estimate.high, 1)
    (0.5, 0.4, 0.6)
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        raise ValueError(
            f"bootstrap_mean: expected at least one finite number, one per query, got shape {array.shape}"
            + ("" if np.isfinite(array).all() else f" with {np.count_nonzero(~np.isfinite(array))} NaN or infinite")
        )
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK_NUMBERS // len(array))
    blocks = (min(rows, resamples - start) for start in range(0, resamples, rows))
    means = [array[rng.integers(0, len(array), (block, len(array)))].mean(axis=1) for block in blocks]
    return percentiles(float(array.mean()), np.concatenate(means))


def paired_difference(values: ArrayLike, others: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Mean of ``values - others`` over the same queries, with its interval; positive if ``values`` are higher.

    (Q,), (Q,) -> Estimate. **Source**: as :func:`bootstrap_mean`, on the differences.

    One system is better by 0.1 on every query, however much the queries differ:

    >>> queries = np.linspace(0.0, 0.9, 50)
    >>> [round(x, 6) for x in paired_difference(queries + 0.1, queries)]
    [0.1, 0.1, 0.1]
    """
    one, other = np.asarray(values, np.float64), np.asarray(others, np.float64)
    if one.shape != other.shape:
        raise ValueError(
            f"paired_difference: expected both systems on the same queries, got shapes {one.shape} and {other.shape}"
        )
    return bootstrap_mean(one - other, resamples=resamples, seed=seed)


# ------------------------------------------------------------------------------------------------------- labels


@dataclass(frozen=True)
class ClassScore:
    """How one class was found."""

    texts: int  # that belong to it
    predicted: int  # that were given it
    right: int
    precision: Estimate  # right / predicted
    recall: Estimate  # right / texts
    f1: Estimate  # 2 right / (texts + predicted)


@dataclass(frozen=True, eq=False)
class ClassReport:
    """Labels beside the true ones."""

    accuracy: Estimate
    macro_f1: Estimate  # over the classes that occur or are predicted
    classes: dict[str, ClassScore]  # C of them
    confusion: Array  # (C, C + 1) texts by true class (rows) and predicted class; the last column is undecided


def class_report(expected: Array, predicted: Array, names: Sequence[str], *, seed: int = 0) -> ClassReport:
    """Accuracy, precision, recall and F1 of each class with 95 % intervals, and the confusions.

    (Q,), (Q,), C -> ClassReport

    Classes are numbered as ``names``; -1 among the predicted is undecided, and wrong. **Source**:
    ``sklearn.metrics.precision_recall_fscore_support``, which does not know intervals.

    >>> report = class_report(np.array([0, 0, 1, 1]), np.array([0, 1, 1, -1]), ["bad", "good"])
    >>> report.accuracy.mean, report.classes["good"].precision.mean, report.confusion.tolist()
    (0.5, 0.5, [[1, 1, 0], [0, 1, 1]])
    """
    size = len(names)
    column = np.where(predicted < 0, size, predicted)
    confusion = np.bincount(expected * (size + 1) + column, minlength=size * (size + 1)).reshape(size, size + 1)
    hits, texts, called = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)[:size]  # (C,)
    [f1] = _f1_draws(expected, [predicted], size, seed)  # (1 + R, C)
    macro = np.nanmean(f1, axis=1)  # (1 + R,) over the classes that occur or are predicted
    classes = {
        name: ClassScore(
            texts=int(texts[c]),
            predicted=int(called[c]),
            right=int(hits[c]),
            precision=_share(int(hits[c]), int(called[c])),
            recall=_share(int(hits[c]), int(texts[c])),
            f1=percentiles(f1[0, c], f1[1:, c]),
        )
        for c, name in enumerate(names)
    }
    accuracy = _share(int(hits.sum()), len(expected))
    return ClassReport(accuracy, percentiles(macro[0], macro[1:]), classes, confusion)


def macro_f1(expected: Array, predicted: Array) -> float:
    """Mean F1 over the classes that occur or are predicted, rare ones weighted the same: (Q,), (Q,).

    ``F1_c = 2 TP_c / (texts of c + texts called c)``

    **Source**: ``sklearn.metrics.f1_score(expected, predicted, average="macro")``.

    >>> macro_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    0.7333333333333334
    """
    size = int(max(expected.max(), predicted.max())) + 1
    hits = np.bincount(expected[expected == predicted], minlength=size)  # (C,)
    total = np.bincount(expected, minlength=size) + np.bincount(predicted, minlength=size)  # (C,)
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def f1_difference(expected: Array, predicted: Array, other: Array, size: int, *, seed: int = 0) -> Estimate:
    """How much higher the macro F1 of ``predicted`` is than the other's, by a paired bootstrap: (Q,), (Q,), (Q,), C."""
    ours, theirs = (np.nanmean(f1, axis=1) for f1 in _f1_draws(expected, [predicted, other], size, seed))  # (1 + R,)
    return percentiles(ours[0] - theirs[0], (ours - theirs)[1:])


def _f1_draws(expected: Array, systems: Sequence[Array], size: int, seed: int) -> list[Array]:
    """Each system's F1 on the texts, and below it on the same resamples of them: (1 + R, C); NaN for absent classes."""
    outcomes, times = np.unique(np.stack([expected, *systems], axis=1), axis=0, return_counts=True)  # (U, 1 + systems)
    of_class, *called = (column[:, None] == np.arange(size) for column in outcomes.T)  # (U, C) each
    found = []
    for named in called:
        counts = np.stack([of_class & named, of_class.astype(np.intp) + named], axis=1)  # (U, 2, C)
        both = np.concatenate([np.tensordot(times, counts, 1)[None], resampled(counts, seed, times)])  # (1 + R, 2, C)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
            found.append(2 * both[:, 0] / both[:, 1])
    return found


def resampled(counts: Array, seed: int = 0, times: Array | None = None) -> Array:
    """Sums of the counts of texts over bootstrap resamples of them: (Q, ...) -> (R, ...).

    F1 is no mean over texts but a ratio of sums, so each resample sums first. To resample Q texts is to draw how often
    each distinct row occurs; ``times`` says so of rows that are distinct. **Source**: Efron & Tibshirani 1993, chapter
    13; Berg-Kirkpatrick et al. 2012.
    """
    rows = counts.reshape(len(counts), -1)
    if times is None:
        rows, times = np.unique(rows, axis=0, return_counts=True)  # (U, ...), (U,)
    rng, total, size = np.random.default_rng(seed), int(times.sum()), max(1, _BLOCK_NUMBERS // len(times))
    blocks = (min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size))
    sums = [rng.multinomial(total, times / total, block) @ rows.astype(np.float64) for block in blocks]
    return np.concatenate(sums).reshape(-1, *counts.shape[1:])


# ------------------------------------------------------------------------------------------------ probabilities


class Quality(NamedTuple):
    """How good probabilities are; lower is better."""

    log_loss: float  # nats per text
    brier: float  # in [0, 2]
    calibration_error: float  # in [0, 1]


def log_softmax(logits: Array) -> Array:
    """``z - log sum exp z``, the logarithm of the softmax without its zeros; (Q, C) -> (Q, C)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def probability_quality(logits: Array, classes: Array, bins: int = 15) -> Quality:
    """``log loss = mean -log p(true class);  Brier = mean sum_c (p_c - [c is true])^2``, and the calibration error.

    ``ECE = sum_b Q_b / Q |accuracy of bin b - mean confidence of bin b|`` over bins of equal width, closed on the right

    (Q, C), (Q,) -> Quality of softmax(logits). Log loss and Brier score are proper: nobody gains by reporting another
    probability than the one believed. The calibration error is not, but is easy to read: by how much, on average, 0.8
    is not 0.8. With few texts a bin it is above 0 even for perfect probabilities. **Source**: Brier 1950, over all
    classes (for two, twice ``sklearn.metrics.brier_score_loss``'s default); Guo et al. 2017, equation 3.

    >>> probability_quality(np.zeros((2, 2)), np.array([0, 1]))
    Quality(log_loss=0.6931471805599453, brier=0.5, calibration_error=0.0)
    """
    log_probs = log_softmax(np.asarray(logits, np.float64))  # (Q, C)
    probs, is_true = np.exp(log_probs), np.arange(log_probs.shape[1]) == classes[:, None]  # (Q, C)
    confidence = probs.max(axis=1)  # (Q,)
    right = probs.argmax(axis=1) == classes  # (Q,)
    number = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)  # (Q,)
    gaps = np.bincount(number, weights=right - confidence, minlength=bins)  # of each bin, times its texts
    return Quality(
        log_loss=float(-log_probs[is_true].mean()),
        brier=float(((probs - is_true) ** 2).sum(axis=1).mean()),
        calibration_error=float(np.abs(gaps).sum() / len(classes)),
    )
