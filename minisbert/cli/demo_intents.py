"""``minisbert demo intents``: fine-tune on pairs from one class, and see how much better the classes separate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.outputs import echo_json, training_bar
from minisbert.cli.table import align
from minisbert.evaluation.classification import CLASSIFIERS, evaluate_classification, has_sklearn, read_labelled
from minisbert.evaluation.measures import bootstrap_mean, paired_difference
from minisbert.parallel import threads
from minisbert.training.data import read_examples
from minisbert.training.finetune import Settings, finetune


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
    labelled, tested = read_labelled(train), read_labelled(test)
    classifiers = [name for name in CLASSIFIERS if name == "centroid" or has_sklearn()]
    encoder = choice.encoder("float32")
    before = evaluate_classification(encoder, labelled, tested, classifiers=classifiers)
    runs, after = [], []
    with training_bar() as on_step:
        for seed in range(seeds):
            runs.append(finetune(encoder, examples, replace(settings, seed=seed), on_step=on_step))
            # the same draws as before, so that the comparison is paired
            after.append(evaluate_classification(runs[-1].encoder, labelled, tested, classifiers=classifiers))
    result: dict[str, Any] = {
        "examples": len(examples),
        "classes": len(examples.label_names),
        "test_texts": len(tested.texts),
        "steps": runs[0].progress.step,
        "seconds": [round(run.progress.seconds, 1) for run in runs],
        "settings": asked,
        "classifiers": {},
    }
    for name in classifiers:  # draws and seeds are averaged first, then bootstrapped over the test texts
        was = before[name].correct.mean(axis=0)  # (B,)
        now = np.mean([results[name].correct.mean(axis=0) for results in after], axis=0)  # (B,)
        result["classifiers"][name] = {
            "before": list(bootstrap_mean(was)),
            "after": [float(results[name].accuracies.mean()) for results in after],
            "after_all": list(bootstrap_mean(now)),
            "difference": list(paired_difference(now, was)),
        }
    if as_json:
        echo_json(result)
        return
    seconds = ", ".join(f"{one:.0f}" for one in result["seconds"])
    lines = [
        f"{len(examples):,} texts of {result['classes']} classes, {result['steps']} steps per seed, {seconds} s",
        f"accuracy x 100 on {len(tested.texts):,} test texts, 8 examples per class, 10 draws; 95 % intervals",
    ]
    for name, found in result["classifiers"].items():
        rows = [
            ("untuned", _interval(found["before"])),
            *((f"tuned, seed {seed}", f"{100 * one:.2f}") for seed, one in enumerate(found["after"])),
            ("tuned, all seeds", _interval(found["after_all"])),
            ("gain", _interval(found["difference"], signed=True)),
        ]
        lines += ["", {"centroid": "nearest centroid", "logistic": "logistic regression"}[name], *align(rows)]
    click.echo("\n".join(lines))


def _interval(estimate: list[float], signed: bool = False) -> str:
    """A mean with its interval."""
    mean, low, high = (f"{100 * number:{'+' if signed else ''}.2f}" for number in estimate)
    return f"{mean}  ({low} to {high})"
