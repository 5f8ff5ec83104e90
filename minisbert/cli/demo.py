"""``minisbert demo``: how training works, on small examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert.cli import LazyGroup
from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.outputs import Target, echo_json, progress, training_bar, written_whole
from minisbert.cli.table import align, matrix_lines, terminal_width
from minisbert.evaluation.classification import CLASSIFIERS, evaluate_classification, has_sklearn, read_labelled
from minisbert.evaluation.measures import bootstrap_mean, paired_difference
from minisbert.parallel import threads
from minisbert.training.data import read_examples
from minisbert.training.descent import LEARNING_RATE, SCALE, SENTENCE_PAIRS, STEPS, Descent, descend, make_points
from minisbert.training.finetune import Settings, finetune

# --------------------------------------------------------------------------------------------------------------- demo


# Name -> module and short help, so that listing the verbs imports none of them.
VERBS = {
    "contrastive": ("demo", "Watch InfoNCE pull pairs together and push the rest apart."),
    "intents": ("demo", "Fine-tune on labelled texts: accuracy before and after."),
}


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Watch how training works, on small examples.")
def demo() -> None:
    """Watch how training works, on examples small enough to follow.

    \b
    Examples:
      minisbert demo contrastive
      minisbert demo contrastive -o demo.gif

    `minisbert demo COMMAND --help` describes a command and shows more examples.
    """


# --------------------------------------------------------------------------------------------------- demo_contrastive


KINDS = {".png": "png", ".gif": "gif"}
COLUMNS = {
    "loss": "loss",
    "alignment": "alignment",
    "uniformity": "uniformity",
    "positive_cosine": "cosine of pairs",
    "negative_cosine": "cosine of others",
}


@click.command(short_help="Watch InfoNCE pull pairs together and push the rest apart.")
@click.option(
    "--points", type=click.IntRange(3, 12), default=6, show_default=True, help="Pairs of points in the plane."
)
@click.option("--steps", type=click.IntRange(1, 1000), default=STEPS, show_default=True, help="Gradient descent steps.")
@click.option("--learning-rate", type=float, default=LEARNING_RATE, show_default=True, help="Step size, above 0.")
@click.option(
    "--scale",
    type=float,
    default=SCALE,
    show_default=True,
    help="Factor of the cosines, 1 / temperature, above 0. Training uses 20.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the initial points.")
@click.option("--text/--no-text", default=True, help="Include real sentences, or not.  [default: text]")
@click.option("-o", "--output", metavar="FILE.png|FILE.gif", help="Also draw a plot or an animation (extra `plots`).")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@model_options
def contrastive(
    points: int,
    steps: int,
    learning_rate: float,
    scale: float,
    seed: int,
    text: bool,
    output: str | None,
    force: bool,
    as_json: bool,
    choice: ModelChoice,
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
    target = _choose_target(output, force)
    settings: dict[str, Any] = {"steps": steps, "learning_rate": learning_rate, "scale": scale}
    import numpy as np

    on_plane = descend(*make_points(points, np.random.default_rng(seed)), **settings)
    on_text = None
    if text:
        encoder = choice.encoder("float32")
        on_text = descend(*(encoder.encode([pair[side] for pair in SENTENCE_PAIRS]) for side in (0, 1)), **settings)
    if target.file is not None:
        from minisbert.training.descent_picture import draw_animation, draw_picture, frame_steps

        with written_whole(target.file) as stream:
            if target.kind == "png":
                draw_picture(stream, on_plane, on_text, SENTENCE_PAIRS)
            else:
                with progress(total=len(frame_steps(on_plane.steps)), unit="frame", desc="drawing") as bar:
                    draw_animation(stream, on_plane, on_text, progress=bar.update)
        click.echo(f"wrote {target.file}", err=True)
    if as_json:
        points_seen = {name: getattr(on_plane, name) for name in ("anchors", "positives", "d_anchors", "d_positives")}
        plane = {"pairs": points, "seed": seed, **_measured(on_plane), **points_seen}
        spoken = None if on_text is None else {"sentences": SENTENCE_PAIRS, **_measured(on_text)}
        echo_json({"scale": scale, "learning_rate": learning_rate, "steps": steps, "plane": plane, "text": spoken})
        return
    lines = [
        f"InfoNCE, scale {scale:g}, learning rate {learning_rate:g}",
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
    click.echo("\n".join(lines))


def _choose_target(output: str | None, force: bool) -> Target:
    """The picture's file and kind; raise early if it cannot be drawn or written."""
    if output is None:
        return Target(None, "", force)
    kind = KINDS.get(Path(output).suffix.lower())
    if kind is None:
        raise click.UsageError(f"{output!r} must end in .png, for a plot, or .gif, for an animation.")
    from minisbert.checks import require

    require("matplotlib", "plots", "a plot")
    target = Target(Path(output), kind, force)
    target.check()
    return target


def _report(seen: Descent) -> list[str]:
    """Format the losses step by step (0, 1, 2, 5, 10, 20, ... and the last), and the cosines before and after."""
    usual = [digit * power for power in (1, 10, 100, 1000) for digit in (1, 2, 5)]
    shown = [0, *(step for step in usual if step < seen.steps), seen.steps]
    rows = [("step", *COLUMNS.values())]
    rows += [(str(step), *(f"{getattr(seen, name)[step]:.3f}" for name in COLUMNS)) for step in shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    count = len(seen.anchors[0])
    for step in (0, seen.steps):
        cells = [[f"{round(cosine, 2) + 0.0:.2f}" for cosine in row] for row in seen.similarities(step).tolist()]
        anchors, positives = ([f"{letter}{i}" for i in range(1, count + 1)] for letter in "ap")
        lines += [
            "",
            f"cosines at step {step}, anchors down, positives across: {seen.found(step)} of {count} anchors are "
            "closest to their own positive",
            *matrix_lines(anchors, positives, cells, terminal_width()),
        ]
    return lines


def _measured(seen: Descent) -> dict[str, Any]:
    """What was measured at every step, and the cosines before and after."""
    return {
        **{name: getattr(seen, name) for name in COLUMNS},
        "cosines_start": seen.similarities(0),
        "cosines_end": seen.similarities(-1),
        "found": [seen.found(0), seen.found(-1)],
    }


# ------------------------------------------------------------------------------------------------------- demo_intents


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
