"""``minisbert classify``: train a text classifier, apply it, and evaluate it, also beside TF-IDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from minisbert import __version__
from minisbert.analysis import classifier as learning
from minisbert.cli import Group, options
from minisbert.cli.inputs import TextSource, input_options, label_options
from minisbert.cli.options import ModelChoice
from minisbert.cli.outputs import Target, output_options, progress
from minisbert.cli.table import (
    NAME_WIDTH,
    class_lines,
    counted,
    estimated,
    figures,
    fixed,
    grid,
    grid_with_texts,
    hundred,
    printable,
    signed,
    wrapped,
)
from minisbert.evaluation.classification import read_labelled

UNDECIDED = "undecided"


@click.group(cls=Group)
def classify() -> None:
    """Train text classifiers on examples, and predict classes with probabilities.

    A classifier is logistic regression on the model's vectors; the model itself stays frozen. Training needs
    scikit-learn, prediction does not.

    \b
    Examples:
      minisbert classify train train.tsv -o mood --class-weight balanced
      minisbert classify predict mood "what a wonderful evening" "never again"
      minisbert classify evaluate mood test.tsv --baseline train.tsv

    `minisbert classify COMMAND --help` describes a command and shows more examples.
    """


# ------------------------------------------------------------------------------------------------------- train


@classify.command(short_help="Train a classifier on labelled texts.")
@click.argument("file", metavar="FILE", type=options.FILE)
@output_options("Output folder.", metavar="FOLDER", required=True, folder=learning.KIND)
@label_options
@click.option("--unescape", is_flag=True, help="Decode HTML entities such as &amp;, in training and in prediction.")
@click.option(
    "--class-weight", multiple=True, metavar="balanced|CLASS=WEIGHT", help="More weight for rare or important classes."
)
@options.strength_option("1, 10, 100")
@options.folds_option(5)
@options.seed_option
@click.option("--threshold-for", metavar="CLASS", help="Predict this class only above a threshold; needs --precision.")
@click.option("--precision", type=options.PRECISION, help="Minimum precision for this class; sets the threshold.")
@options.cut_option
@options.model_options
def train(
    file: Path, target: Target, reading: dict[str, Any], overflow: str, choice: ModelChoice, **settings: Any
) -> None:
    """Train logistic regression on the model's vectors of the labelled texts in FILE.

    Each row of FILE has a label and a text: CSV, TSV, JSONL, JSON or Parquet, plain or .gz. The regularisation
    strength, the temperature of the probabilities and the threshold for a minimum precision are chosen by
    cross-validation; the figures shown are for held-out texts.

    \b
    Examples:
      minisbert classify train train.tsv -o mood
      minisbert classify train train.tsv -o fair --class-weight balanced
      minisbert classify train train.tsv -o strict --threshold-for good --precision 0.8
    """
    if (settings["threshold_for"] is None) != (settings["precision"] is None):
        raise click.UsageError("--threshold-for and --precision must be given together.")
    data = read_labelled(file, **reading)
    settings["encode_options"] = {"overflow": overflow, "show_progress_bar": progress}
    settings["strengths"] = settings["strengths"] or learning.STRENGTHS
    settings["class_weight"] = read_weights(settings["class_weight"])
    trained = learning.train_classifier(choice.encoder(), data, **settings)
    classifier = trained.classifier
    target.save(classifier)
    report = learning.report_scores(classifier, trained.held_out, trained.labels, name=data.name)
    facts, threshold, model = classifier.facts, classifier.threshold, classifier.origin and classifier.origin.model
    tried, chosen = facts["strengths"], facts["strength"]
    at_edge = len(tried) > 1 and chosen in (tried[0], tried[-1])
    lines = [
        f"{report.set}: {counted(facts['texts'], 'text')}, {len(report.classes):,} classes; {model or 'vectors'}",
        f"C {chosen:g}, the best of {', '.join(f'{one:g}' for one in tried)}: log loss "
        f"{facts['scores'][tried.index(chosen)]:.4f}, {facts['folds']} folds{'; try others beyond it' * at_edge}",
        "",
        "On held-out texts:",
        "",
        *report_lines(report),
    ]
    if threshold is not None:
        lines.append(
            f"{threshold.label!r} is predicted from a probability of {threshold.probability:.4f}: precision "
            f"{threshold.precision:.3f}, recall {threshold.recall:.3f}, chosen on these texts, so slightly optimistic"
        )
    about = {"unescape": classifier.unescape, "threshold": threshold, "model": model, "out_of_fold": report}
    target.give(lines, {**facts, **about, **classifier.calibration._asdict()})


def read_weights(said: Sequence[str]) -> str | dict[str, float] | None:
    """Parse class weights.

    >>> read_weights(["hate=3", "a=b=0.5"]), read_weights(["balanced"]), read_weights([])
    ({'hate': 3.0, 'a=b': 0.5}, 'balanced', None)
    """
    if list(said) == ["balanced"]:
        return "balanced"
    try:
        return {label: float(number) for label, _, number in (pair.rpartition("=") for pair in said)} or None
    except ValueError:
        raise click.UsageError(f"--class-weight must be balanced or CLASS=WEIGHT, got {', '.join(said)}.") from None


# ----------------------------------------------------------------------------------------------------- predict


@classify.command(short_help="Classify texts, with probabilities.")
@click.argument("folder", metavar="FOLDER", type=options.PLACE)
@input_options
@output_options("Write a .csv, .tsv or .jsonl with the probabilities of all classes.", "csv", "tsv", "jsonl")
@options.cut_option
@options.model_options
def predict(folder: Path, source: TextSource, target: Target, overflow: str, choice: ModelChoice) -> None:
    """Predict the class of each text with the classifier in FOLDER, written by `classify train`.

    The probability shown is that of the predicted class. If the class with a threshold would be predicted but stays
    below its threshold, the text is undecided and that class's probability is shown. With class weights, the predicted
    class need not be the most probable one.

    \b
    Examples:
      minisbert classify predict mood "what a wonderful evening" "never again"
      minisbert classify predict mood -i texts.txt -o moods.csv
      minisbert classify predict mood -i texts.txt --json
    """
    source.check("classify")
    classifier = learning.load_classifier(folder)
    texts = source.read(filled=True)
    if not texts:
        raise click.UsageError("Nothing to classify: the input has no texts.")
    vectors = classifier.encode(choice.encoder(), texts, overflow=overflow, show_progress_bar=progress)
    labels, probs = classifier.predict(vectors), classifier.predict_proba(vectors).tolist()
    strict = classifier.threshold.label if classifier.threshold is not None else ""
    found, rows, cells = [], [], [("label", "prob.")]
    for text, label, row in zip(texts, labels, probs, strict=True):
        by_class = dict(zip(classifier.classes, row, strict=True))
        one = {"text": text, "label": label, "probability": by_class[strict if label is None else label]}
        found.append({**one, "probabilities": by_class})
        rows.append({**one, **{f"p({name})": p for name, p in by_class.items()}})  # an undecided text's label is empty
        cells.append((printable(label or UNDECIDED, NAME_WIDTH), f"{one['probability']:.3f}"))
    target.write_rows(found if target.kind == "jsonl" else rows)
    if target.as_json or target.file is None:
        target.give(grid_with_texts(cells, ["text", *texts]), found)


# ---------------------------------------------------------------------------------------------------- evaluate


@classify.command(short_help="Evaluate a classifier, and compare it with TF-IDF.")
@click.argument("folder", metavar="FOLDER", type=options.PLACE)
@click.argument("file", metavar="FILE", type=options.FILE)
@click.option(
    "--baseline", type=options.FILE, help="The training file: TF-IDF with logistic regression learns it, too."
)
@label_options
@output_options("Write the result as JSON, with every text.")
@options.cut_option
@options.model_options
def evaluate(
    folder: Path,
    file: Path,
    baseline: Path | None,
    reading: dict[str, Any],
    target: Target,
    choice: ModelChoice,
    **encoding: Any,
) -> None:
    """Evaluate the classifier in FOLDER on the labelled texts in FILE.

    Shows accuracy, precision, recall and F1 per class, the most frequent confusions, and the quality of the
    probabilities before and after calibration, with 95 % intervals over the texts. Test texts that were also training
    texts are counted. With --baseline, TF-IDF of words and word pairs is compared with the vectors on the same texts.

    \b
    Examples:
      minisbert classify evaluate mood test.tsv
      minisbert classify evaluate mood test.tsv --baseline train.tsv
      minisbert classify evaluate mood test.tsv -o result.json --json
    """
    classifier = learning.load_classifier(folder)
    data = read_labelled(file, **reading)
    train = None if baseline is None else read_labelled(baseline, **reading)
    if train is not None:
        learning.check_same_texts(classifier, train)
    encoder = choice.encoder()
    report = learning.evaluate_classifier(classifier, encoder, data, show_progress_bar=progress, **encoding)
    beside = None if train is None else learning.compare_with_tfidf(classifier, train, data, report)
    lines = [f"{folder.name}, {encoder.folder.name}, on {report.set}", "", *report_lines(report)]
    if beside is not None:
        lines += ["", *baseline_lines(report, beside)]
    about = {"classifier": folder.name, "model": encoder.folder.name, "minisbert": __version__}
    target.report(lines, {**about, **vars(report), "baseline": beside})


def report_lines(report: learning.ClassifierReport) -> list[str]:
    """Format everything about one classifier."""
    lines = [f"accuracy {estimated(report.accuracy)}, {counted(report.texts, 'text')}"]
    if report.undecided:
        lines.append(f"{counted(report.undecided, 'text')} undecided, counted as wrong")
    if report.learnt:
        unseen = report.accuracy_unseen
        others = f"; accuracy on the others {estimated(unseen)}" if unseen else ""
        lines.append(f"{report.learnt:,} of {report.texts:,} texts are identical to training texts{others}")
    rows = [["probabilities", "log loss", "Brier", "calibration error"]]
    for key, name in (("as_fitted", "uncalibrated"), ("calibrated", "calibrated")):
        rows.append([name, *(f"{number:.4f}" for number in report.probabilities[key])])
    return [*lines, f"macro-F1 {estimated(report.macro_f1)}", "", *class_lines(report), "", *grid(rows)]


def baseline_lines(report: learning.ClassifierReport, beside: learning.Baseline) -> list[str]:
    """Format both classifiers and their difference."""
    ours, theirs = beside.vectors, beside.tfidf
    gaps = beside.accuracy_difference, beside.f1_difference.macro
    rows = [
        ["", "vectors", "TF-IDF", "difference", "95 %"],
        ["accuracy", hundred(ours.accuracy.mean), hundred(theirs.accuracy.mean), *figures(gaps[0], signed)],
        ["macro-F1", hundred(ours.macro_f1.mean), hundred(theirs.macro_f1.mean), *figures(gaps[1], signed)],
        ["log loss", fixed(report.probabilities["calibrated"].log_loss, 4), fixed(beside.probabilities.log_loss, 4)],
    ]
    remark = (
        f"TF-IDF: {beside.features:,} words and word pairs, logistic regression with strength {beside.strength:g}, "
        "same folds, strengths, class weights and calibration"
    )
    if (report.predicted != report.without_threshold).any():
        remark += "; compared without the threshold"
    return [*grid(rows), *wrapped([remark])]
