"""``minisbert demo``: how training works, on small examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert.checks import require
from minisbert.cli import Group, options
from minisbert.cli.outputs import Target, give, output_options, progress, training_bar
from minisbert.cli.table import align, estimated, fixed, grid, hundred, matrix_lines, signed
from minisbert.evaluation.classification import CLASSIFIERS, evaluate_classification, read_labelled
from minisbert.evaluation.measures import bootstrap_mean, paired_difference
from minisbert.parallel import threads
from minisbert.training.data import read_examples
from minisbert.training.descent import LEARNING_RATE, SCALE, SENTENCE_PAIRS, STEPS, Descent, descend, make_points
from minisbert.training.descent_picture import draw_animation, draw_picture, frame_steps
from minisbert.training.finetune import Settings, finetune


@click.group(cls=Group)
def demo() -> None:
    """Watch how training works, on examples small enough to follow.

    \b
    Examples:
      minisbert demo contrastive
      minisbert demo contrastive -o demo.gif

    `minisbert demo COMMAND --help` describes a command and shows more examples.
    """


# ------------------------------------------------------------------------------------------------------- contrastive


COLUMNS = {
    "loss": "loss",
    "alignment": "alignment",
    "uniformity": "uniformity",
    "positive_cosine": "cosine of pairs",
    "negative_cosine": "cosine of others",
}


@demo.command(short_help="Watch InfoNCE pull pairs together and push the rest apart.")
@click.option("--points", type=click.IntRange(3, 12), default=6, help="Pairs of points in the plane.")
@click.option("--steps", type=click.IntRange(1, 1000), default=STEPS, help="Gradient descent steps.")
@click.option("--learning-rate", type=float, default=LEARNING_RATE, help="Step size, above 0.")
@click.option(
    "--scale", type=float, default=SCALE, help="Factor of the cosines, 1 / temperature, above 0. Training uses 20."
)
@options.seed_option
@click.option("--text/--no-text", default=True, help="Include real sentences, or not.")
@output_options("Also draw a plot or an animation (extra `plots`).", "png", "gif", metavar="FILE.png|FILE.gif")
@options.model_options
def contrastive(
    points: int, seed: int, text: bool, target: Target, choice: options.ModelChoice, **settings: Any
) -> None:
    """Watch InfoNCE, the contrastive loss, pull pairs together and push the rest apart.

    First on pairs of points in a plane, then on the vectors of sentences. No model is trained: the points and vectors
    themselves move against their gradients. Alignment (distance within pairs) and uniformity (how crowded all points
    are) fall along with the loss. In the plots each arrow is a negative gradient.

    Two of the questions, about passwords, are easily confused: compare their cosines before and after, and see what a
    scale of 20 does.

    \b
    Examples:
      minisbert demo contrastive
      minisbert demo contrastive -o demo.png
      minisbert demo contrastive --no-text -o demo.gif
      minisbert demo contrastive --scale 20 --learning-rate 0.05
    """
    on_plane = descend(*make_points(points, np.random.default_rng(seed)), **settings)
    on_text = None
    if text:
        encoder = choice.encoder()
        on_text = descend(*(encoder.encode([pair[side] for pair in SENTENCE_PAIRS]) for side in (0, 1)), **settings)
    if target.kind == "gif":
        with progress(total=len(frame_steps(on_plane.steps)), unit="frame", desc="drawing") as bar:
            target.write(draw_animation, on_plane, on_text, progress=bar.update)
    else:
        target.write(draw_picture, on_plane, on_text, SENTENCE_PAIRS)
    plane = {"pairs": points, "seed": seed, **_measured(on_plane)}
    plane |= {name: getattr(on_plane, name) for name in ("anchors", "positives", "d_anchors", "d_positives")}
    spoken = None if on_text is None else {"sentences": SENTENCE_PAIRS, **_measured(on_text)}
    lines = [
        f"InfoNCE, scale {settings['scale']:g}, learning rate {settings['learning_rate']:g}",
        "alignment: distance within pairs; uniformity: how crowded all points are; smaller is better",
        "",
        f"{points} pairs of points in a plane, seed {seed}",
        "",
        *_report(on_plane),
    ]
    if on_text is not None:
        pairs = [(str(i), f"{a}  |  {p}") for i, (a, p) in enumerate(SENTENCE_PAIRS, 1)]
        lines += ["", f"{len(pairs)} pairs of sentences, vectors of {on_text.anchors.shape[2]} dimensions", ""]
        lines += [*align(pairs), "", *_report(on_text)]
    target.give(lines, {**settings, "plane": plane, "text": spoken})


def _report(seen: Descent) -> list[str]:
    """Format the losses step by step (0, 1, 2, 5, 10, 20, ... and the last), and the cosines before and after."""
    usual = [digit * power for power in (1, 10, 100, 1000) for digit in (1, 2, 5)]
    shown = [0, *(step for step in usual if step < seen.steps), seen.steps]
    rows = [(str(step), *(f"{getattr(seen, name)[step]:.3f}" for name in COLUMNS)) for step in shown]
    lines, count = grid([("step", *COLUMNS.values()), *rows], ">"), len(seen.anchors[0])
    anchors, positives = ([f"{letter}{i}" for i in range(1, count + 1)] for letter in "ap")
    for step in (0, seen.steps):
        cells = [[fixed(cosine) for cosine in row] for row in seen.similarities(step).tolist()]
        found = f"{seen.found(step)} of {count} anchors are closest to their own positive"
        lines += ["", f"cosines at step {step}, anchors down, positives across: {found}"]
        lines += matrix_lines(anchors, positives, cells)
    return lines


def _measured(seen: Descent) -> dict[str, Any]:
    """What was measured at every step, and the cosines before and after."""
    cosines = {"cosines_start": seen.similarities(0), "cosines_end": seen.similarities(-1)}
    return {**{name: getattr(seen, name) for name in COLUMNS}, **cosines, "found": [seen.found(0), seen.found(-1)]}


# ----------------------------------------------------------------------------------------------------------- intents


@demo.command(short_help="Fine-tune on labelled texts: accuracy before and after.")
@click.argument("train", metavar="TRAIN", type=options.FILE)
@click.argument("test", metavar="TEST", type=options.FILE)
@click.option("--seeds", type=click.IntRange(1, 20), default=3, help="Runs, with seeds from 0 on.")
@click.option("--epochs", type=options.COUNT, default=1, help="Passes over the texts.")
@click.option("--batch-size", type=click.IntRange(2), default=32, help="Pairs per step.")
@click.option("--learning-rate", type=options.SHARE, default=1e-4, help="Peak learning rate.")
@options.json_option
@options.model_options
def intents(train: Path, test: Path, seeds: int, as_json: bool, choice: options.ModelChoice, **asked: Any) -> None:
    """Fine-tune on pairs of texts of one class, and see how much better a simple classifier separates the classes.

    TRAIN and TEST are tables with a label and a text, such as banking77's. Pairs come from TRAIN alone. Before and
    after, nearest centroid and logistic regression (extra `apps`) learn from 8 texts per class and are tested on all of
    TEST, 10 times with different texts. Intervals: 95 %, bootstrap over the texts of TEST.

    \b
    Examples:
      minisbert demo intents banking77_train.tsv banking77_test.tsv
      minisbert demo intents train.csv test.csv --seeds 1 --epochs 3 --json
    """
    settings = Settings(**asked, num_threads=threads.usable())
    examples = read_examples(train, kind="texts")
    labelled, tested = read_labelled(train), read_labelled(test)
    require("sklearn", "apps", "demo intents")
    encoder = choice.encoder()
    before = evaluate_classification(encoder, labelled, tested, classifiers=list(CLASSIFIERS))
    runs, after = [], []
    with training_bar() as on_step:
        for seed in range(seeds):
            runs.append(finetune(encoder, examples, replace(settings, seed=seed), on_step=on_step))
            # the same draws as before, so that the comparison is paired
            after.append(evaluate_classification(runs[-1].encoder, labelled, tested, classifiers=list(CLASSIFIERS)))
    steps, seconds = runs[0].progress.step, [round(run.progress.seconds, 1) for run in runs]
    lines = [
        f"{len(examples):,} texts of {len(examples.label_names)} classes, {steps} steps per seed, "
        f"{', '.join(f'{one:.0f}' for one in seconds)} s",
        f"accuracy x 100 on {len(tested.texts):,} test texts, 8 examples per class, 10 draws; 95 % intervals",
    ]
    by_name = {}
    for name in CLASSIFIERS:  # draws and seeds are averaged first, then bootstrapped over the test texts
        was = before[name].correct.mean(axis=0)  # (B,)
        now = np.mean([results[name].correct.mean(axis=0) for results in after], axis=0)  # (B,)
        untuned, tuned, gain = bootstrap_mean(was), bootstrap_mean(now), paired_difference(now, was)
        each = [float(results[name].accuracies.mean()) for results in after]
        by_name[name] = {"before": list(untuned), "after": each, "after_all": list(tuned), "difference": list(gain)}
        rows = [("untuned", estimated(untuned)), *((f"tuned, seed {i}", hundred(one)) for i, one in enumerate(each))]
        rows += [("tuned, all seeds", estimated(tuned)), ("gain", estimated(gain, signed))]
        lines += ["", {"centroid": "nearest centroid", "logistic": "logistic regression"}[name], *align(rows)]
    about = {"examples": len(examples), "classes": len(examples.label_names), "test_texts": len(tested.texts)}
    result = {**about, "steps": steps, "seconds": seconds, "settings": asked, "classifiers": by_name}
    give(as_json, lines, result)
