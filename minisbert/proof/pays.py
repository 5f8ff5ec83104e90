"""Does training pay? One model before and after, on texts that it was not trained on, with several seeds.

Behind ``minisbert demo intents``: a model is fine-tuned on pairs of texts of a class, drawn from a training set alone,
and a simple classifier on its frozen vectors is scored on a test set, before and after, on the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.bootstrap import Estimate, bootstrap_mean, paired_difference
from minisbert.evaluation.classification import ClassificationResult, LabelledTexts, evaluate_classification
from minisbert.training.data import Examples
from minisbert.training.finetune import Settings, StepReport, finetune


@dataclass(frozen=True)
class Gain:
    """What training changed, for one classifier, in parts of all test texts."""

    classifier: str
    before: Estimate
    after: tuple[float, ...]  # one a seed
    after_all: Estimate  # of all seeds together
    difference: Estimate  # after all minus before, text by text


@dataclass(frozen=True)
class Tuned:
    """One seed's run."""

    seed: int
    steps: int
    seconds: float
    results: Mapping[str, ClassificationResult]  # by classifier


def tune_with_seeds(
    encoder: SentenceEncoder,
    examples: Examples,
    train: LabelledTexts,
    test: LabelledTexts,
    settings: Settings,
    *,
    seeds: Sequence[int],
    classifiers: Sequence[str],
    on_step: Callable[[StepReport], object] | None = None,
) -> tuple[dict[str, ClassificationResult], list[Tuned]]:
    """Score a model, fine-tune it once a seed, and score each result.

    Parameters
    ----------
    encoder : SentenceEncoder
    examples : Examples
        Texts with labels, of the training set.
    train, test : LabelledTexts
        What the classifiers learn from, and what they are asked.
    settings : Settings
        Their seed is replaced.
    seeds : sequence of int
    classifiers : sequence of str
    on_step : callable, optional
        As in :func:`~minisbert.training.finetune.finetune`.

    Returns
    -------
    before : dict of str to ClassificationResult
    tuned : list of Tuned

    Examples
    --------
    ``minisbert demo intents`` shows it on real data.
    """
    before = evaluate_classification(encoder, train, test, classifiers=classifiers)
    tuned = []
    for seed in seeds:
        done = finetune(encoder, examples, replace(settings, seed=seed), on_step=on_step)
        results = evaluate_classification(done.encoder, train, test, classifiers=classifiers)
        tuned.append(Tuned(seed, done.progress.step, done.progress.seconds, results))
    return before, tuned


def gain(before: ClassificationResult, after: Sequence[ClassificationResult]) -> Gain:
    """Compare one classifier's results before training with those after it, one a seed.

    Parameters
    ----------
    before : ClassificationResult
    after : sequence of ClassificationResult
        Of the same draws and test texts.

    Returns
    -------
    Gain
        Intervals are 95 % bootstrap intervals over the test texts; draws and seeds are averaged first.

    Examples
    --------
    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[1 + s.count("a"), 1 + s.count("e")] for s in sentences])
    >>> texts = LabelledTexts("both", ["banana", "alabama", "beetle", "eve"], ["a", "a", "e", "e"])
    >>> result = evaluate_classification(Letters(), texts, texts, examples_per_class=1)["centroid"]
    >>> gain(result, [result]).difference.mean
    0.0
    """
    was = before.correct.mean(axis=0)  # (B,)
    now = np.mean([result.correct.mean(axis=0) for result in after], axis=0)  # (B,)
    return Gain(
        before.classifier,
        bootstrap_mean(was),
        tuple(float(result.accuracies.mean()) for result in after),
        bootstrap_mean(now),
        paired_difference(now, was),
    )
