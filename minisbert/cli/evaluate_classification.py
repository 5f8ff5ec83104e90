"""``minisbert evaluate classification``: how far a few labelled texts per class go on the model's vectors."""

from __future__ import annotations

import math
import sys
import textwrap
from pathlib import Path

import click

from minisbert import __version__
from minisbert.checks import require
from minisbert.cli.labelled import label_options, read_options
from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.outputs import plain
from minisbert.cli.retrieval_output import choose_file, columns, give, interval, signed
from minisbert.cli.table import printable, shorten
from minisbert.evaluation.classification import (
    CLASSIFIERS,
    PUBLISHED,
    evaluate_classification,
    read_labelled,
)
from minisbert.evaluation.measures import RESAMPLES
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
    help="May be repeated.  [default: all]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random seed of the draws; use the same one to compare models.",
)
@label_options
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
    require("sklearn", "apps", "evaluate classification")
    read = read_options(column_names, no_header)
    sets = read_labelled(train, **read), read_labelled(test, **read)
    encoder = choice.encoder("float32")
    results = evaluate_classification(
        encoder,
        *sets,
        classifiers=tuple(dict.fromkeys(classifiers)) or tuple(CLASSIFIERS),
        examples_per_class=examples_per_class,
        draws=draws,
        seed=seed,
        show_progress_bar=sys.stderr.isatty(),
    )
    first = next(iter(results.values()))
    protocol = (*(len(one.texts) for one in sets), len(first.classes), examples_per_class, draws)
    published = {}
    if choice.max_seq_length is None and is_default_model(encoder.folder):
        published = {name: PUBLISHED[key][1] for name in results if (key := (*protocol, name)) in PUBLISHED}
    whole = {
        "model": encoder.folder,
        "max_seq_length": encoder.max_seq_length,
        "train": {"name": sets[0].name, "texts": len(sets[0].texts)},
        "test": {"name": sets[1].name, "texts": len(sets[1].texts), "also_in_train": first.test_in_train},
        "classes": first.classes,
        "examples_per_class": examples_per_class,
        "draws": draws,
        "seed": seed,
        "classifiers": {
            name: {
                "accuracy": result.accuracies.mean(),
                "over_draws": result.over_draws(),
                "over_texts": result.over_texts(),
                "macro_f1": result.macro_f1.mean(),
                "published": published.get(name),
                "per_draw": result.accuracies,
                "per_text": result.correct.mean(axis=0),
            }
            for name, result in results.items()
        },
        "minisbert": __version__,
    }
    rows = [["classifier", "accuracy", "over draws", "over test texts", "macro-F1"]]
    if published:
        rows[0] += ["published", "difference"]
    for name, result in results.items():
        over = result.over_draws()
        row = [name, f"{100 * over.mean:.2f}", "none" if math.isnan(over.low) else interval(over)]
        row += [interval(result.over_texts()), f"{100 * result.macro_f1.mean():.2f}"]
        if name in published:
            row += [f"{100 * published[name]:.2f}", signed(over.mean - published[name])]
        rows.append(row)
    names = [shorten(printable(one.name), 40) for one in sets]
    remarks = [
        f"{names[1]}: {len(sets[1].texts):,} texts, {len(first.classes):,} classes; examples from {names[0]}: "
        f"{len(sets[0].texts):,} texts, {examples_per_class:,} per class in each of {draws:,} "
        f"draw{'' if draws == 1 else 's'}, seed {seed}; the model is not trained",
        "95 % intervals: over draws, for other examples and the same test texts (t, on the logit scale"
        + ("; one draw has none" if draws == 1 else "")
        + f"); over test texts, for other test texts and the same draws (bootstrap, {RESAMPLES:,} resamples)",
    ]
    if first.test_in_train:
        remarks.append(
            f"{first.test_in_train:,} of {len(sets[1].texts):,} test texts also occur in {names[0]}: the figures may "
            "be too optimistic"
        )
    if published:
        remarks.append("published: MTEB's results repository, all-MiniLM-L6-v2, with its own draws")
    wrapped = [line for remark in remarks for line in textwrap.wrap(remark, LINE_WIDTH, subsequent_indent="  ")]
    lines = [f"{encoder.folder.name}: accuracy x 100", "", *columns(rows), "", *wrapped]
    give(lines, plain(whole), as_json, target)
