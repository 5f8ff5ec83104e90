"""``minisbert evaluate classification``: how far a few labelled texts per class go on the model's vectors."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from minisbert import __version__
from minisbert.cli.inputs import DIALECT_OPTIONS
from minisbert.cli.labelled import read_options
from minisbert.cli.options import ModelChoice, decorate, json_option, model_options
from minisbert.cli.retrieval_output import choose_file, columns, give, interval, signed
from minisbert.cli.table import printable, shorten
from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.bootstrap import RESAMPLES, Estimate
from minisbert.evaluation.classification import (
    CLASSIFIERS,
    INSTALL,
    PUBLISHED,
    ClassificationResult,
    LabelledTexts,
    evaluate_classification,
    has_sklearn,
    read_labelled,
)
from minisbert.hub import is_default_model

LINE_WIDTH = 100


@click.command(short_help="Classify texts from a few examples per class.")
@click.argument("train", metavar="TRAIN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("test", metavar="TEST", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--examples-per-class",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="COUNT",
    help="Training examples per class.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="COUNT",
    help="Number of random draws of the examples; the figures are means.",
)
@click.option(
    "--classifier",
    "classifiers",
    type=click.Choice(list(CLASSIFIERS)),
    multiple=True,
    help="May be repeated.  [default: centroid, and logistic if scikit-learn is installed]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random seed of the draws; use the same one to compare models.",
)
@click.option(
    "--columns",
    "column_names",
    metavar="LABEL,TEXT",
    help="Names or numbers of the columns of both files.  [default: label, text or a usual synonym]",
)
@click.option("--no-header", is_flag=True, help="The files have no header row; columns are numbered from 1.")
@lambda verb: decorate(verb, DIALECT_OPTIONS)
@click.option("-o", "--output", metavar="FILE", help="Write the result as JSON, with every draw and text.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@model_options
def classification(
    train: Path,
    test: Path,
    examples_per_class: int,
    draws: int,
    classifiers: tuple[str, ...],
    seed: int,
    column_names: str | None,
    no_header: bool,
    output: str | None,
    force: bool,
    as_json: bool,
    choice: ModelChoice,
) -> None:
    """Classify the texts of TEST from a few examples per class in TRAIN, on the frozen model's vectors.

    Each row of both files has a label and a text: TSV (without quoting), CSV or JSONL, plain or .gz. Examples are drawn
    several times, as in MTEB, and the figures are means over the draws. The model itself is not trained.

    \b
    Examples:
      minisbert evaluate classification train.tsv test.tsv
      minisbert evaluate classification train.tsv test.tsv --examples-per-class 1 --draws 3 -o result.json
      minisbert evaluate classification train.tsv test.tsv --columns label,text --classifier centroid
    """
    target = choose_file(output, force)
    chosen = tuple(dict.fromkeys(classifiers)) or tuple(
        name for name in CLASSIFIERS if name != "logistic" or has_sklearn()
    )
    read = read_options(column_names, no_header)
    sets = read_labelled(train, **read), read_labelled(test, **read)
    encoder = choice.encoder("float32")
    results = evaluate_classification(
        encoder,
        *sets,
        classifiers=chosen,
        examples_per_class=examples_per_class,
        draws=draws,
        seed=seed,
        show_progress_bar=sys.stderr.isatty(),
    )
    published = {}
    if choice.max_seq_length is None and is_default_model(encoder.folder):
        published = {name: found for name, result in results.items() if (found := published_for(result)) is not None}
    lines = report_lines(results, *sets, encoder, published)
    give(lines, _to_json(results, *sets, encoder, published), as_json, target)


def published_for(result: ClassificationResult) -> float | None:
    """The published accuracy, if data and protocol are those of the publication."""
    key = (
        result.train_texts,
        len(result.expected),
        len(result.classes),
        result.examples_per_class,
        len(result.drawn),
        result.classifier,
    )
    return PUBLISHED[key][1] if key in PUBLISHED else None


# ------------------------------------------------------------------------------------------------- what is said


def report_lines(
    results: Mapping[str, ClassificationResult],
    train: LabelledTexts,
    test: LabelledTexts,
    encoder: SentenceEncoder,
    published: Mapping[str, float],
) -> list[str]:
    """Format the figures, what they are, and what may surprise."""
    rows = [["classifier", "accuracy", "over draws", "over test texts", "macro-F1"]]
    if published:
        rows[0] += ["published", "difference"]
    for name, result in results.items():
        draws = result.over_draws()
        row = [name, f"{100 * draws.mean:.2f}", _interval(draws), interval(result.over_texts())]
        row.append(f"{100 * float(result.macro_f1.mean()):.2f}")
        if name in published:
            row += [f"{100 * published[name]:.2f}", signed(draws.mean - published[name])]
        rows.append(row)
    lines = [f"{encoder.folder.name}: accuracy x 100", "", *columns(rows), ""]
    remarks = _remarks(next(iter(results.values())), train, test)
    if published:
        remarks.append("published: MTEB's results repository, all-MiniLM-L6-v2, with its own draws")
    if not has_sklearn():
        remarks.append(f"logistic regression needs scikit-learn: {INSTALL}")
    wrapped = (textwrap.wrap(remark, LINE_WIDTH, subsequent_indent="  ") for remark in remarks)
    return [*lines, *(line for paragraph in wrapped for line in paragraph)]


def _interval(estimate: Estimate) -> str:
    """An interval, or that there is none."""
    return "none" if math.isnan(estimate.low) else interval(estimate)


def _remarks(result: ClassificationResult, train: LabelledTexts, test: LabelledTexts) -> list[str]:
    """What was done to which texts."""
    draws = len(result.drawn)
    names = [shorten(printable(labelled.name), 40) for labelled in (train, test)]
    remarks = [
        f"{names[1]}: {len(test.texts):,} texts, {len(result.classes):,} classes; examples from {names[0]}: "
        f"{len(train.texts):,} texts, {result.examples_per_class:,} per class in each of {draws:,} "
        f"draw{'' if draws == 1 else 's'}, seed {result.seed}; the model is not trained",
        "95 % intervals: over draws, for other examples and the same test texts (t, on the logit scale"
        + ("; one draw has none" if draws == 1 else "")
        + f"); over test texts, for other test texts and the same draws (bootstrap, {RESAMPLES:,} resamples)",
    ]
    if result.test_in_train:
        remarks.append(
            f"{result.test_in_train:,} of {len(test.texts):,} test texts also occur in {names[0]}: the figures may "
            "be too optimistic"
        )
    return remarks


def _to_json(
    results: Mapping[str, ClassificationResult],
    train: LabelledTexts,
    test: LabelledTexts,
    encoder: SentenceEncoder,
    published: Mapping[str, float],
) -> dict[str, Any]:
    """Everything as JSON; shares in [0, 1], null if there is no interval."""
    first = next(iter(results.values()))
    return {
        "model": str(encoder.folder),
        "max_seq_length": encoder.max_seq_length,
        "train": {"name": train.name, "texts": len(train.texts)},
        "test": {"name": test.name, "texts": len(test.texts), "also_in_train": first.test_in_train},
        "classes": list(first.classes),
        "examples_per_class": first.examples_per_class,
        "draws": len(first.drawn),
        "seed": first.seed,
        "classifiers": {
            name: {
                "accuracy": float(result.accuracies.mean()),
                "over_draws": _ends(result.over_draws()),
                "over_texts": _ends(result.over_texts()),
                "macro_f1": float(result.macro_f1.mean()),
                "published": published.get(name),
                "per_draw": result.accuracies.tolist(),
                "per_text": result.correct.mean(axis=0).tolist(),
            }
            for name, result in results.items()
        },
        "intervals": {
            "confidence": 0.95,
            "over_draws": "t, logit scale",
            "over_texts": "bootstrap",
            "resamples": RESAMPLES,
        },
        "minisbert": __version__,
    }


def _ends(estimate: Estimate) -> list[float | None]:
    """The ends of an interval."""
    return [None if math.isnan(end) else end for end in (estimate.low, estimate.high)]
