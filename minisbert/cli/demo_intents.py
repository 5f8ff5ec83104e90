"""``minisbert demo intents``: fine-tune on pairs from one class, and see how much better the classes separate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.outputs import echo_json, training_bar
from minisbert.cli.table import align
from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.bootstrap import Estimate, bootstrap_mean, paired_difference
from minisbert.evaluation.classification import (
    CLASSIFIERS,
    ClassificationResult,
    LabelledTexts,
    evaluate_classification,
    has_sklearn,
    read_labelled,
)
from minisbert.parallel import threads
from minisbert.training.data import Examples, read_examples
from minisbert.training.finetune import Settings, StepReport, finetune


@click.command(short_help="Fine-tune on labelled texts: accuracy before and after.")
@click.argument("train", metavar="TRAIN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("test", metavar="TEST", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seeds", type=click.IntRange(1, 20), default=3, show_default=True, help="Runs, with seeds from 0 on.")
@click.option("--epochs", type=click.IntRange(1), default=1, show_default=True, help="Passes over the texts.")
@click.option("--batch-size", type=click.IntRange(2), default=32, show_default=True, help="Pairs per step.")
@click.option(
    "--learning-rate", type=click.FloatRange(0, 1), default=1e-4, show_default=True, help="Peak learning rate."
)
@json_option
@model_options
def intents(
    train: Path,
    test: Path,
    seeds: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    as_json: bool,
    choice: ModelChoice,
) -> None:
    """Fine-tune on pairs of texts of one class, and see how much better a simple classifier separates the classes.

    TRAIN and TEST are tables with a label and a text, such as banking77's. Pairs come from TRAIN alone. Before and
    after, nearest centroid (with the extra `apps` also logistic regression) learns from 8 texts per class and is tested
    on all of TEST, 10 times with different texts. Intervals: 95 %, bootstrap over the texts of TEST.

    \b
    Examples:
      minisbert demo intents banking77_train.tsv banking77_test.tsv
      minisbert demo intents train.csv test.csv --seeds 1 --epochs 3 --json
    """
    asked: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    settings = Settings(**asked, num_threads=threads.usable())
    examples = read_examples(train, kind="texts")
    classifiers = [name for name in CLASSIFIERS if name == "centroid" or has_sklearn()]
    with training_bar() as on_step:
        before, tuned = tune_with_seeds(
            choice.encoder("float32"),
            examples,
            read_labelled(train),
            read_labelled(test),
            settings,
            seeds=range(seeds),
            classifiers=classifiers,
            on_step=on_step,
        )
    gains = [gain(before[name], [run.results[name] for run in tuned]) for name in classifiers]
    result: dict[str, Any] = {
        "examples": len(examples),
        "classes": len(examples.label_names),
        "test_texts": len(before["centroid"].expected),
        "steps": tuned[0].steps,
        "seconds": [round(run.seconds, 1) for run in tuned],
        "settings": asked,
        "classifiers": {
            found.classifier: {
                "before": list(found.before),
                "after": list(found.after),
                "after_all": list(found.after_all),
                "difference": list(found.difference),
            }
            for found in gains
        },
    }
    if as_json:
        echo_json(result)
    else:
        click.echo("\n".join(_report(result)))


def _report(result: dict[str, Any]) -> list[str]:
    """Format the improvement."""
    seconds = ", ".join(f"{one:.0f}" for one in result["seconds"])
    lines = [
        f"{result['examples']:,} texts of {result['classes']} classes, {result['steps']} steps per seed, {seconds} s",
        f"accuracy x 100 on {result['test_texts']:,} test texts, 8 examples per class, 10 draws; 95 % intervals",
    ]
    for name, found in result["classifiers"].items():
        rows = [("untuned", _interval(found["before"]))]
        rows += [(f"tuned, seed {seed}", f"{100 * one:.2f}") for seed, one in enumerate(found["after"])]
        rows += [("tuned, all seeds", _interval(found["after_all"]))]
        rows += [("gain", _interval(found["difference"], signed=True))]
        lines += ["", {"centroid": "nearest centroid", "logistic": "logistic regression"}[name], *align(rows)]
    return lines


def _interval(estimate: list[float], signed: bool = False) -> str:
    """A mean with its interval."""
    mean, low, high = (f"{100 * number:{'+' if signed else ''}.2f}" for number in estimate)
    return f"{mean}  ({low} to {high})"


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
