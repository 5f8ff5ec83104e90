"""How good is a text classifier? Measures of its labels and of its probabilities, with 95 % bootstrap intervals.

**Labels.** Accuracy says little if one class is frequent, so precision, recall and F1 of each class stand beside it.
All of them follow from the confusion matrix, and resampling texts is resampling that matrix: exactly a multinomial.
**Probabilities.** Log loss and Brier score are proper: nobody gains by reporting another probability than the one
believed. Expected calibration error is not, but is easy to read: by how much, on average, 0.8 is not 0.8.
**The baseline** is TF-IDF of unigrams and bigrams with the same logistic regression, folds, penalties and class
weights. Letters: ``B`` test texts, ``C`` classes, ``R`` bootstrap resamples, ``U`` distinct outcomes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minisbert.analysis.classifier import TextClassifier, cleaned, decide, text_numbers
from minisbert.analysis.probe import (
    class_weights,
    cross_validate,
    log_loss,
    log_softmax,
    logistic_path,
    stratified_folds,
)
from minisbert.evaluation.classification import LabelledTexts, require_sklearn
from minisbert.evaluation.measures import RESAMPLES, Estimate, bootstrap_mean, paired_difference
from minisbert.model import Array

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

BINS = 15
"""Bins of the expected calibration error, as in Guo et al."""

_BLOCK_NUMBERS = 2**20  # numbers drawn at a time: 8 MiB


# ------------------------------------------------------------------------------------------------ probabilities


class Quality(NamedTuple):
    """How good probabilities are; lower is better."""

    log_loss: float  # nats per text
    brier: float  # in [0, 2]
    calibration_error: float  # in [0, 1]


def probability_quality(logits: Array, classes: Array) -> Quality:
    """``log loss = mean -log p(true class);  Brier = mean sum_c (p_c - [c is true])^2``, of softmax(logits).

    (B, C), (B,) -> Quality

    **Source**: Brier 1950, over all classes (for two classes twice ``sklearn.metrics.brier_score_loss``'s default).

    >>> probability_quality(np.zeros((2, 2)), np.array([0, 1]))
    Quality(log_loss=0.6931471805599453, brier=0.5, calibration_error=0.0)
    """
    probs: Array = np.exp(log_softmax(np.asarray(logits, np.float64)))  # (B, C)
    right = np.zeros_like(probs)
    right[np.arange(len(classes)), classes] = 1.0
    brier = float(((probs - right) ** 2).sum(axis=1).mean())
    return Quality(log_loss(logits, classes), brier, expected_calibration_error(probs, classes))


def expected_calibration_error(probs: Array, classes: Array, bins: int = BINS) -> float:
    """``ECE = sum_b B_b / B |accuracy of bin b - mean confidence of bin b|``, in [0, 1].

    (B, C), (B,) -> a number

    Bins have equal width and are closed on the right. With few texts a bin it is above 0 even for perfect
    probabilities. **Source**: Guo et al. 2017, equation 3 (Naeini et al. 2015).

    >>> expected_calibration_error(np.array([[1.0, 0.0]] * 4), np.array([0, 0, 0, 1]))
    0.25
    """
    confidence = probs.max(axis=1)  # (B,)
    right = probs.argmax(axis=1) == classes  # (B,)
    number = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)  # (B,)
    gaps = np.bincount(number, weights=right - confidence, minlength=bins)  # of each bin, times its texts
    return float(np.abs(gaps).sum() / len(classes))


# ------------------------------------------------------------------------------------------------------- labels


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Precision, recall and F1 of each class; an interval is NaN if the denominator is 0."""

    precision: tuple[Estimate, ...]  # C of them
    recall: tuple[Estimate, ...]
    f1: tuple[Estimate, ...]  # C
    macro_f1: Estimate


def class_scores(expected: Array, predicted: Array, count: int, *, seed: int = 0) -> ClassScores:
    """``precision = TP / predicted;  recall = TP / true;  F1 = 2 TP / (predicted + true)``, with bootstrap intervals.

    (B,), (B,) -> ClassScores

    Predictions may be -1, undecided. **Source**: ``sklearn.metrics.precision_recall_fscore_support``; ``macro_f1`` is
    the mean over the classes that occur or are predicted. Resamples with a denominator of 0 are left out of the
    interval.

    >>> found = class_scores(np.array([0, 0, 1, 1]), np.array([0, 1, 1, -1]), 2)
    >>> [e.mean for e in found.precision], [e.mean for e in found.recall]
    ([1.0, 0.5], [0.5, 0.5])
    """
    exact, drawn = _measures(expected, [predicted], count, seed)
    (means,), (draws,) = exact, drawn
    precision, recall, f1 = (tuple(_estimate(means[m][c], draws[m][:, c]) for c in range(count)) for m in range(3))
    return ClassScores(precision, recall, f1, _estimate(_mean_present(means[2][None])[0], _mean_present(draws[2])))


class F1Difference(NamedTuple):
    """How much higher one classifier's F1 is than another's, on the same resamples of the same texts."""

    by_class: tuple[Estimate, ...]
    macro: Estimate


def f1_difference(expected: Array, predicted: Array, other: Array, count: int, *, seed: int = 0) -> F1Difference:
    """Compare two classifiers' F1 by a paired bootstrap: positive if ``predicted`` is better.

    (B,), (B,), (B,) -> F1Difference
    """
    (ours, theirs), (our_draws, their_draws) = _measures(expected, [predicted, other], count, seed)
    gaps = our_draws[2] - their_draws[2]  # (R, C)
    macro = _mean_present(ours[2][None])[0] - _mean_present(theirs[2][None])[0]
    return F1Difference(
        tuple(_estimate(ours[2][c] - theirs[2][c], gaps[:, c]) for c in range(count)),
        _estimate(macro, _mean_present(our_draws[2]) - _mean_present(their_draws[2])),
    )


def _measures(expected: Array, predictions: Sequence[Array], count: int, seed: int) -> tuple[list[Any], list[Any]]:
    """(precision, recall, F1) of each classifier: on the texts, each (C,), and on resamples, each (R, C)."""
    outcomes, times = np.unique(np.stack([expected, *predictions], axis=1), axis=0, return_counts=True)  # (U, 1 + P)
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK_NUMBERS // len(times))
    blocks: list[list[tuple[Array, Array, Array]]] = []
    for start in range(0, RESAMPLES, rows):
        # to resample B texts is to draw how often each distinct outcome occurs
        drawn = rng.multinomial(len(expected), times / len(expected), min(rows, RESAMPLES - start))  # (rows, U)
        blocks.append([_shares(drawn, outcomes[:, 0], column, count) for column in outcomes.T[1:]])
    exact = [tuple(m[0] for m in _shares(times[None], outcomes[:, 0], x, count)) for x in outcomes.T[1:]]
    joined = [
        tuple(np.concatenate([block[p][m] for block in blocks]) for m in range(3)) for p in range(len(predictions))
    ]
    return exact, joined


def _shares(times: Array, expected: Array, predicted: Array, count: int) -> tuple[Array, Array, Array]:
    """Precision, recall and F1, each (R, C), from how often each outcome occurs, (R, U)."""
    classes = np.arange(count)
    of_class, named = expected[:, None] == classes, predicted[:, None] == classes  # (U, C)
    hits, actual, called = (times @ x.astype(np.float64) for x in (of_class & named, of_class, named))  # (R, C)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return hits / called, hits / actual, 2 * hits / (called + actual)


def _mean_present(f1: Array) -> Array:
    """Mean over the classes that occur or are predicted, (R, C) -> (R,); NaN marks the others."""
    present = np.isfinite(f1)
    return np.where(present, f1, 0.0).sum(axis=1) / present.sum(axis=1)


def _estimate(value: float, draws: Array) -> Estimate:
    """A value with the middle 95 % of its resamples."""
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(finite):
        return Estimate(float(value), np.nan, np.nan)
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


# ------------------------------------------------------------------------------------------------------- report


@dataclass(frozen=True, eq=False)
class Report:
    """How a classifier did on labelled texts."""

    name: str
    classes: tuple[str, ...]  # C
    expected: Array  # (B,)
    predicted: Array  # (B,) -1: undecided
    unbound: Array  # (B,) without the threshold
    learnt: Array | None  # (B,) bool: was a training text; None: unknown
    accuracy: Estimate  # undecided counts as wrong
    scores: ClassScores
    before: Quality  # of the softmax of the scores
    after: Quality  # of the calibrated probabilities

    @property
    def confusion(self) -> Array:
        """How many texts of each class (rows) got each class (columns), the last column undecided: (C, C + 1)."""
        count = len(self.classes)
        column = np.where(self.predicted < 0, count, self.predicted)
        table: Array = np.bincount(self.expected * (count + 1) + column, minlength=count * (count + 1))
        return table.reshape(count, count + 1)

    @property
    def accuracy_unseen(self) -> Estimate | None:
        """Accuracy on texts that were not in training; None if none was, or all were."""
        if self.learnt is None or not self.learnt.any() or self.learnt.all():
            return None
        return bootstrap_mean((self.predicted == self.expected)[~self.learnt])


def evaluate_classifier(
    classifier: TextClassifier, encoder: SentenceEncoder, data: LabelledTexts, **options: Any
) -> Report:
    """Evaluate a classifier on labelled texts; ValueError for unknown labels and another model."""
    expected = numbered_labels(data, classifier.classes)
    scores = classifier.scores(classifier.encode(encoder, data.texts, **options))  # (B, C)
    learnt = None
    if classifier.learnt is not None:
        learnt = np.isin(text_numbers(cleaned(data.texts, classifier.unescape)), classifier.learnt)
    return report_scores(classifier, scores, expected, learnt=learnt, name=data.name)


def report_scores(
    classifier: TextClassifier, scores: Array, expected: Array, *, learnt: Array | None = None, name: str = ""
) -> Report:
    """Measure the labels and probabilities that follow from scores before calibration.

    (B, C), (B,) -> Report
    """
    calibration, names = classifier.calibration, classifier.classes
    predicted = decide(scores, calibration, names, classifier.threshold)  # (B,)
    return Report(
        name=name,
        classes=names,
        expected=expected,
        predicted=predicted,
        unbound=np.argmax(scores, axis=1),
        learnt=learnt,
        accuracy=bootstrap_mean(predicted == expected),
        scores=class_scores(expected, predicted, len(names)),
        before=probability_quality(scores, expected),
        after=probability_quality(calibration.apply(scores), expected),
    )


def numbered_labels(data: LabelledTexts, classes: Sequence[str]) -> Array:
    """Labels as the classifier's class indices, (B,); ValueError for a label it does not have."""
    number = {label: c for c, label in enumerate(classes)}
    unknown = Counter(label for label in data.labels if label not in number)
    if unknown:
        named = ", ".join(f"{label!r:.40} ({count:,})" for label, count in unknown.most_common(5))
        known = ", ".join(f"{label!r:.40}" for label in list(classes)[:8])
        raise ValueError(
            f"{data.name}: the classifier does not know the labels {named}; it knows {known}"
            f"{', ...' if len(classes) > 8 else ''}; is it the right column of labels, and are they spelled the same?"
        )
    return np.array([number[label] for label in data.labels])


# ----------------------------------------------------------------------------------------------------- baseline


@dataclass(frozen=True, eq=False)
class Baseline:
    """TF-IDF with logistic regression on the same texts, and how a classifier compares; both without a threshold."""

    predicted: Array  # (B,)
    strength: float
    features: int  # distinct unigrams and bigrams
    accuracy: Estimate
    scores: ClassScores
    quality: Quality  # of its uncalibrated probabilities
    accuracy_of_classifier: Estimate
    scores_of_classifier: ClassScores
    accuracy_difference: Estimate  # classifier minus baseline
    f1_difference: F1Difference


def compare_with_tfidf(
    classifier: TextClassifier, train: LabelledTexts, test: LabelledTexts, report: Report
) -> Baseline:
    """Train the baseline as the classifier was trained, test it on the same texts, and compare text by text.

    ValueError if the classifier was trained on other texts, and without scikit-learn. **Source**:
    ``TfidfVectorizer(ngram_range=(1, 2))``, fitted anew in each fold, and ``LogisticRegression``.
    """
    require_sklearn()
    check_same_texts(classifier, train)
    facts: Mapping[str, Any] = classifier.facts or {}
    texts, asked = (cleaned(x.texts, classifier.unescape) for x in (train, test))
    classes = numbered_labels(train, classifier.classes)  # (M,)
    choice = facts.get("class_weight")
    if isinstance(choice, Mapping):
        choice = {classifier.classes.index(label): weight for label, weight in choice.items()}
    weights = class_weights(classes, choice)
    _, groups = np.unique(texts, return_inverse=True)
    validation = cross_validate(
        lambda one, other: _tfidf([texts[i] for i in one], [texts[i] for i in other]),
        classes,
        stratified_folds(classes, facts["folds"], facts["seed"], groups),
        strengths=facts["strengths"],
        scoring=facts["scoring"],
        weights=weights,
    )
    features, others = _tfidf(texts, asked)
    weight, bias = next(logistic_path(features, classes, [validation.strength], weights))
    return _compared(report, others @ weight.T + bias, validation.strength, features.shape[1])


def _tfidf(texts: Sequence[str], others: Sequence[str]) -> tuple[Any, Any]:
    """TF-IDF of unigrams and bigrams, fitted on the first texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(ngram_range=(1, 2))
    return counter.fit_transform(texts), counter.transform(others)


def _compared(report: Report, scores: Array, strength: float, features: int) -> Baseline:
    """Compare a classifier with the baseline's scores, text by text."""
    expected, ours, theirs = report.expected, report.unbound, np.argmax(scores, axis=1)
    count = len(report.classes)
    return Baseline(
        predicted=theirs,
        strength=strength,
        features=features,
        accuracy=bootstrap_mean(theirs == expected),
        scores=class_scores(expected, theirs, count),
        quality=probability_quality(scores, expected),
        accuracy_of_classifier=bootstrap_mean(ours == expected),
        scores_of_classifier=class_scores(expected, ours, count),
        accuracy_difference=paired_difference(ours == expected, theirs == expected),
        f1_difference=f1_difference(expected, ours, theirs, count),
    )


def check_same_texts(classifier: TextClassifier, train: LabelledTexts) -> None:
    """Raise ValueError unless these are the texts that the classifier was trained on."""
    numbers = np.unique(text_numbers(cleaned(train.texts, classifier.unescape)))
    known = np.empty(0, np.uint64) if classifier.learnt is None else classifier.learnt
    apart = len(np.setxor1d(numbers, known))
    counts = (classifier.facts or {}).get("texts_by_class")
    by_class = [list(train.labels).count(label) for label in classifier.classes]
    if apart or (counts is not None and counts != by_class):
        raise ValueError(
            f"{train.name}: the baseline must be trained on the classifier's own training set, but "
            + (f"{apart:,} different texts are in only one of the two sets" if apart else "the labels differ")
            + "; give the file that the classifier was trained on"
        )
