"""Does training pay? A model before and after, on texts that it was not trained on, with several seeds.

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
from minisbert.training.finetune import StepReport, finetune
from minisbert.training.settings import Settings


@dataclass(frozen=True)
class Gain:
    """What training changed for one classifier; accuracies from 0 to 1."""

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
    """Score a model, fine-tune it once for each seed (in place of the settings' own), and score each result."""
    before = evaluate_classification(encoder, train, test, classifiers=classifiers)
    tuned = []
    for seed in seeds:
        done = finetune(encoder, examples, replace(settings, seed=seed), on_step=on_step)
        results = evaluate_classification(done.encoder, train, test, classifiers=classifiers)
        tuned.append(Tuned(seed, done.progress.step, done.progress.seconds, results))
    return before, tuned


def gain(before: ClassificationResult, after: Sequence[ClassificationResult]) -> Gain:
    """Compare one classifier's results before training with those after it, one a seed, on the same draws and texts.

    Intervals are 95 % bootstrap intervals over the test texts; draws and seeds are averaged first.
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
