"""``minisbert classify train``: train a classifier on labelled texts, and save it in a folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.labelled import label_options, read_options
from minisbert.cli.options import ModelChoice, cut_option, json_option, model_options

if TYPE_CHECKING:
    from minisbert.analysis.classifier import Training
    from minisbert.analysis.classifier_report import Report

SCORINGS = {"log_loss": "log loss", "accuracy": "accuracy", "macro_f1": "macro-F1"}


@click.command(short_help="Train a classifier on labelled texts.")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", metavar="FOLDER", required=True, type=click.Path(path_type=Path), help="Output folder.")
@click.option("--force", is_flag=True, help="Overwrite an existing classifier.")
@label_options
@click.option("--unescape", is_flag=True, help="Decode HTML entities such as &amp;, in training and in prediction.")
@click.option(
    "--class-weight",
    "class_weights",
    multiple=True,
    metavar="balanced|CLASS=WEIGHT",
    help="Give rare or important classes more weight; CLASS=WEIGHT may be repeated.",
)
@click.option(
    "--strength",
    "strengths",
    multiple=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="C",
    help="C to try, as in scikit-learn: larger is a weaker penalty. May be repeated.  [default: 1, 10, 100]",
)
@click.option(
    "--scoring",
    type=click.Choice(list(SCORINGS)),
    default="log_loss",
    show_default=True,
    help="Score on held-out texts by which C is chosen.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Cross-validation folds; fewer if no class has that many texts.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the folds.")
@click.option("--calibrate/--no-calibrate", default=True, show_default=True, help="Calibrate the probabilities.")
@click.option("--threshold-for", metavar="CLASS", help="Predict this class only above a threshold; needs --precision.")
@click.option(
    "--precision",
    type=click.FloatRange(min=0, max=1, min_open=True),
    metavar="SHARE",
    help="Minimum precision for this class, such as 0.9; sets the threshold.",
)
@json_option
@cut_option
@model_options
def train(
    file: Path,
    output: Path,
    force: bool,
    column_names: str | None,
    no_header: bool,
    class_weights: tuple[str, ...],
    strengths: tuple[float, ...],
    threshold_for: str | None,
    precision: float | None,
    as_json: bool,
    overflow: str,
    choice: ModelChoice,
    **settings: Any,
) -> None:
    """Train logistic regression on the model's vectors of the labelled texts in FILE.

    Each row of FILE has a label and a text: TSV (without quoting), CSV or JSONL, plain or .gz. The regularisation
    strength, the temperature of the probabilities and the threshold for a minimum precision are chosen by
    cross-validation; the figures shown are for held-out texts.

    \b
    Examples:
      minisbert classify train train.tsv -o mood
      minisbert classify train train.tsv -o fair --class-weight balanced --scoring macro_f1
      minisbert classify train train.tsv -o strict --threshold-for good --precision 0.8
    """
    from minisbert.analysis.classifier import KIND, train_classifier
    from minisbert.analysis.classifier_report import report_scores
    from minisbert.analysis.probe import STRENGTHS
    from minisbert.evaluation.classification import read_labelled
    from minisbert.saved import check_place

    if (threshold_for is None) != (precision is None):
        raise click.UsageError("--threshold-for and --precision must be given together.")
    check_place(output, KIND, force=force)
    data = read_labelled(file, **read_options(column_names, no_header))
    trained = train_classifier(
        choice.encoder("float32"),
        data,
        encode_options={"overflow": overflow, "show_progress_bar": sys.stderr.isatty()},
        strengths=strengths or STRENGTHS,
        class_weight=read_weights(class_weights),
        threshold_for=threshold_for,
        precision=precision,
        **settings,
    )
    trained.classifier.save(output, force=force)
    click.echo(f"wrote {output}", err=True)
    report = report_scores(trained.classifier, trained.validation.out_of_fold, trained.labels, name=data.name)
    if as_json:
        click.echo(json.dumps(_to_json(trained, report), ensure_ascii=False).encode())
    else:
        click.echo("\n".join(_lines(trained, report)))


def read_weights(said: Sequence[str]) -> str | dict[str, float] | None:
    """Parse class weights.

    >>> read_weights(["hate=3", "a=b=0.5"]), read_weights(["balanced"]), read_weights([])
    ({'hate': 3.0, 'a=b': 0.5}, 'balanced', None)
    """
    if list(said) in ([], ["balanced"]):
        return said[0] if said else None
    weights = {}
    for pair in said:
        label, equals, number = pair.rpartition("=")
        try:
            weights[label] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise click.UsageError(f"--class-weight must be balanced or CLASS=WEIGHT, got {pair!r}.")
    return weights


def _lines(trained: Training, report: Report) -> list[str]:
    """Which penalty was chosen, and what to expect of the classifier."""
    from minisbert.cli.classify_evaluate import counted, report_lines
    from minisbert.cli.retrieval_output import columns

    classifier, validation = trained.classifier, trained.validation
    facts, origin = dict(classifier.facts or {}), classifier.origin
    rows = [["strength C", f"{SCORINGS[validation.scoring]}, mean of {validation.scores.shape[1]} folds"]]
    for s, strength in enumerate(validation.strengths):
        mark = " *" if s == validation.best else ""
        rows.append([f"{strength:g}{mark}", f"{validation.scores[s].mean():.4f}"])
    lines = [
        f"{report.name}: {counted(facts['texts'], 'text')}, {len(report.classes):,} classes; "
        f"{origin.model if origin is not None else 'vectors'}",
        "",
        *columns(rows),
        "* chosen" + (": at the edge of the grid, a value beyond it may be better" if validation.at_edge else ""),
        "",
        "On held-out texts:",
        "",
        *report_lines(report),
    ]
    threshold = classifier.threshold
    if threshold is not None:
        lines.append(
            f"{threshold.label!r} is predicted from a probability of {threshold.probability:.4f}: precision "
            f"{threshold.precision:.3f}, recall {threshold.recall:.3f}, chosen on these texts, so slightly optimistic"
        )
    return lines


def _to_json(trained: Training, report: Report) -> dict[str, Any]:
    """Everything as JSON."""
    from minisbert.cli.classify_evaluate import report_to_json

    classifier = trained.classifier
    return {
        **dict(classifier.facts or {}),
        "unescape": classifier.unescape,
        "model": None if classifier.origin is None else classifier.origin.model,
        "temperature": classifier.calibration.temperature,
        "offset": classifier.calibration.offset.tolist(),
        "threshold": None if classifier.threshold is None else vars(classifier.threshold),
        "out_of_fold": report_to_json(report),
    }
