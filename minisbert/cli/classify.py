"""``minisbert classify``: train a text classifier, apply it, and evaluate it, also beside TF-IDF."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert import __version__
from minisbert.cli import LazyGroup
from minisbert.cli.inputs import TextSource, input_options, label_options, read_options
from minisbert.cli.options import ModelChoice, cut_option, json_option, model_options
from minisbert.cli.outputs import Target, echo_json, plain, progress, written_whole
from minisbert.cli.table import display_width, matrix_lines, pad, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.analysis.classifier import Baseline, ClassifierReport, TextClassifier
    from minisbert.evaluation.measures import Estimate

VERBS = {
    "train": ("classify", "Train a classifier on labelled texts."),
    "predict": ("classify", "Classify texts, with probabilities."),
    "evaluate": ("classify", "Evaluate a classifier, and compare it with TF-IDF."),
}
SCORINGS = {"log_loss": "log loss", "accuracy": "accuracy", "macro_f1": "macro-F1"}
UNDECIDED = "undecided"
LABEL_WIDTH = 30  # columns of a class, at most
LEAST_TEXT = 20  # columns of a text, at least
LINE_WIDTH = 100
MOST_CLASSES = 12  # in a confusion matrix; for more classes the most frequent confusions are listed


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Train and apply text classifiers.")
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


@click.command(short_help=VERBS["train"][1])
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

    Each row of FILE has a label and a text: CSV, TSV, JSONL, JSON or Parquet, plain or .gz. The
    regularisation strength, the temperature of the probabilities and the threshold for a minimum precision are chosen
    by cross-validation; the figures shown are for held-out texts.

    \b
    Examples:
      minisbert classify train train.tsv -o mood
      minisbert classify train train.tsv -o fair --class-weight balanced --scoring macro_f1
      minisbert classify train train.tsv -o strict --threshold-for good --precision 0.8
    """
    from minisbert.analysis.classifier import KIND, STRENGTHS, report_scores, train_classifier
    from minisbert.evaluation.classification import read_labelled
    from minisbert.saved import check_place

    if (threshold_for is None) != (precision is None):
        raise click.UsageError("--threshold-for and --precision must be given together.")
    check_place(output, KIND, force=force)
    data = read_labelled(file, **read_options(column_names, no_header))
    trained = train_classifier(
        choice.encoder("float32"),
        data,
        encode_options={"overflow": overflow, "show_progress_bar": progress},
        strengths=strengths or STRENGTHS,
        class_weight=read_weights(class_weights),
        threshold_for=threshold_for,
        precision=precision,
        **settings,
    )
    classifier = trained.classifier
    classifier.save(output, force=force)
    click.echo(f"wrote {output}", err=True)
    report = report_scores(classifier, trained.held_out, trained.labels, name=data.name)
    if as_json:
        about = {name: getattr(classifier, name) for name in ("unescape", "threshold")}
        model = None if classifier.origin is None else classifier.origin.model
        fitted = classifier.calibration._asdict()
        echo_json({**classifier.facts, **about, "model": model, **fitted, "out_of_fold": report})
    else:
        click.echo("\n".join(_training_lines(classifier, report)))


def read_weights(said: Sequence[str]) -> str | dict[str, float] | None:
    """Parse class weights.

    >>> read_weights(["hate=3", "a=b=0.5"]), read_weights(["balanced"]), read_weights([])
    ({'hate': 3.0, 'a=b': 0.5}, 'balanced', None)
    """
    if list(said) in ([], ["balanced"]):
        return said[0] if said else None
    weights = {}
    for pair in said:
        label, _, number = pair.rpartition("=")
        try:
            weights[label] = float(number) if label else math.nan
        except ValueError:
            label = ""
        if not label:
            raise click.UsageError(f"--class-weight must be balanced or CLASS=WEIGHT, got {pair!r}.")
    return weights


def _training_lines(classifier: TextClassifier, report: ClassifierReport) -> list[str]:
    """Which penalty was chosen, and what to expect of the classifier."""
    from minisbert.cli.table import grid

    facts, origin, threshold = classifier.facts, classifier.origin, classifier.threshold
    tried, chosen = facts["strengths"], facts["strength"]
    rows = [["strength C", f"{SCORINGS[facts['scoring']]}, {facts['folds']} folds"]]
    for strength, score in zip(tried, facts["scores"], strict=True):
        rows.append([f"{strength:g}{' *' * (strength == chosen)}", f"{score:.4f}"])
    at_edge = len(tried) > 1 and chosen in (tried[0], tried[-1])
    lines = [
        f"{report.set}: {counted(facts['texts'], 'text')}, {len(report.classes):,} classes; "
        f"{origin.model if origin is not None else 'vectors'}",
        "",
        *grid(rows),
        "* chosen" + (": at the edge of the grid, a value beyond it may be better" if at_edge else ""),
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
    return lines


# ----------------------------------------------------------------------------------------------------- predict


@click.command(short_help=VERBS["predict"][1])
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@input_options
@click.option("-o", "--output", metavar="FILE", help="Write a .csv or .jsonl with the probabilities of all classes.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@cut_option
@model_options
def predict(
    folder: Path,
    source: TextSource,
    output: str | None,
    force: bool,
    as_json: bool,
    overflow: str,
    choice: ModelChoice,
) -> None:
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
    from minisbert.analysis.classifier import load_classifier

    target = None
    if output is not None:
        kind = Path(output).suffix.lower()
        if kind not in (".csv", ".jsonl"):
            raise click.UsageError(f"-o must end in .csv or .jsonl, got {output!r}.")
        target = Target(Path(output), kind, force)
        target.check()
    source.check()
    classifier = load_classifier(folder)
    texts = list(source.read(filled=True))
    if not texts:
        raise click.UsageError("Nothing to classify: give texts, or a file of texts (-i).")
    encoder = choice.encoder("float32")
    vectors = classifier.encode(encoder, texts, overflow=overflow, show_progress_bar=progress)
    found = describe(classifier, texts, vectors)
    if target is not None and target.file is not None:
        stream = io.StringIO()
        if target.kind == ".csv":  # the label of an undecided text is empty
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["text", "label", "probability", *(f"p({name})" for name in classifier.classes)])
            writer.writerows([*list(one.values())[:3], *one["probabilities"].values()] for one in found)
        else:
            stream.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in found)
        with written_whole(target.file) as whole:
            whole.write(stream.getvalue().encode())
        click.echo(f"wrote {target.file}", err=True)
    if as_json:
        echo_json(found)
    elif target is None:
        click.echo("\n".join(table(found, terminal_width())))


def describe(classifier: TextClassifier, texts: list[str], vectors: Any) -> list[dict[str, Any]]:
    """What is known of each text; label None is undecided."""
    labels, probs = classifier.predict(vectors), classifier.predict_proba(vectors).tolist()
    strict = classifier.threshold.label if classifier.threshold is not None else ""
    found = []
    for text, label, row in zip(texts, labels, probs, strict=True):
        by_class = dict(zip(classifier.classes, row, strict=True))
        probability = by_class[strict if label is None else label]
        found.append({"text": text, "label": label, "probability": probability, "probabilities": by_class})
    return found


def table(found: list[dict[str, Any]], width: int) -> list[str]:
    """Columns of label, probability and text.

    >>> table([{"text": "what a feast", "label": "good", "probability": 0.91234}], 80)
    ['label  prob.  text', 'good   0.912  what a feast']
    """
    names = [_shown(one["label"] or UNDECIDED) for one in found]
    widest = max(map(display_width, ["label", *names]))
    room = max(LEAST_TEXT, width - widest - 9)
    rows = [f"{pad('label', widest)}  prob.  text"]
    for name, one in zip(names, found, strict=True):
        rows.append(f"{pad(name, widest)}  {one['probability']:.3f}  {shorten(printable(one['text']), room)}")
    return rows


# ---------------------------------------------------------------------------------------------------- evaluate


@click.command(short_help=VERBS["evaluate"][1])
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--baseline",
    metavar="TRAIN",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The training file; TF-IDF with logistic regression is trained on it as a baseline.",
)
@label_options
@click.option("-o", "--output", metavar="FILE", help="Write the result as JSON, with every text.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@cut_option
@model_options
def evaluate(
    folder: Path,
    file: Path,
    baseline: Path | None,
    column_names: str | None,
    no_header: bool,
    output: str | None,
    force: bool,
    as_json: bool,
    overflow: str,
    choice: ModelChoice,
) -> None:
    """Evaluate the classifier in FOLDER on the labelled texts in FILE.

    Shows accuracy, precision, recall and F1 per class, the confusion matrix, and the quality of the probabilities
    before and after calibration, with 95 % intervals over the texts. Test texts that were also training texts are
    counted. With --baseline, TF-IDF of words and word pairs is compared with the vectors on the same texts.

    \b
    Examples:
      minisbert classify evaluate mood test.tsv
      minisbert classify evaluate mood test.tsv --baseline train.tsv
      minisbert classify evaluate mood test.tsv -o result.json --json
    """
    from minisbert.analysis.classifier import (
        check_same_texts,
        compare_with_tfidf,
        evaluate_classifier,
        load_classifier,
    )
    from minisbert.cli.outputs import choose_file, give
    from minisbert.evaluation.classification import read_labelled

    target = choose_file(output, force)
    classifier = load_classifier(folder)
    how = read_options(column_names, no_header)
    data = read_labelled(file, **how)
    train = None if baseline is None else read_labelled(baseline, **how)
    if train is not None:
        check_same_texts(classifier, train)
    encoder = choice.encoder("float32")
    report = evaluate_classifier(classifier, encoder, data, overflow=overflow, show_progress_bar=progress)
    beside = None if train is None else compare_with_tfidf(classifier, train, data, report)
    lines = [f"{folder.name}, {encoder.folder.name}, on {report.set}", "", *report_lines(report)]
    if beside is not None:
        lines += ["", *baseline_lines(report, beside)]
    result = {"classifier": folder.name, "model": encoder.folder.name, **vars(report)}
    give(lines, plain({**result, "baseline": beside, "minisbert": __version__}), as_json, target)


def counted(count: int, one: str) -> str:
    """A number with its noun.

    >>> counted(1, "text"), counted(2000, "text")
    ('1 text', '2,000 texts')
    """
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def _shown(label: str) -> str:
    return shorten(printable(label), LABEL_WIDTH) or "(empty)"


def report_lines(report: ClassifierReport) -> list[str]:
    """Format everything about one classifier."""
    from minisbert.cli.table import grid, interval
    from minisbert.evaluation.measures import confusions

    names = [_shown(name) for name in report.classes]
    accuracy, macro, unseen = report.accuracy, report.macro_f1, report.accuracy_unseen
    lines = [f"accuracy {100 * accuracy.mean:.2f} ({interval(accuracy)}), {counted(report.texts, 'text')}"]
    if report.undecided:
        lines.append(f"{counted(report.undecided, 'text')} undecided, counted as wrong")
    if report.learnt:
        others = f"; accuracy on the others {100 * unseen.mean:.2f} ({interval(unseen)})" if unseen else ""
        lines.append(f"{report.learnt:,} of {report.texts:,} texts are identical to training texts{others}")
    lines += [f"macro-F1 {100 * macro.mean:.2f} ({interval(macro)})", ""]
    cells = [[f"{one.texts:,}", *map(_share, (one.precision, one.recall, one.f1))] for one in report.classes.values()]
    lines += matrix_lines(names, ["texts", "precision", "recall", "F1"], cells, max(LINE_WIDTH, terminal_width()))
    if len(names) > MOST_CLASSES:
        lines += ["", "most frequent confusions:"]
        for count, true, called in confusions(report.confusion, names)[:10]:
            lines.append(f"  {count:,}  {true} predicted as {called}")
    else:
        heads = names + [UNDECIDED] * bool(report.undecided)
        cells = [[f"{count:,}" for count in row[: len(heads)]] for row in report.confusion.tolist()]
        lines += ["", "rows: true class; columns: predicted class"]
        lines += matrix_lines(names, heads, cells, terminal_width())
    rows = [["probabilities", "log loss", "Brier", "calibration error"]]
    for key, name in (("as_fitted", "uncalibrated"), ("calibrated", "calibrated")):
        rows.append([name, *(f"{number:.4f}" for number in report.probabilities[key])])
    return [*lines, "", *grid(rows)]


def _share(estimate: Estimate) -> str:
    """A share x 100 with its interval."""
    if math.isnan(estimate.mean):
        return "none"
    return f"{100 * estimate.mean:.1f} ({100 * estimate.low:.1f}-{100 * estimate.high:.1f})"


def baseline_lines(report: ClassifierReport, beside: Baseline) -> list[str]:
    """Format both classifiers and their difference."""
    from minisbert.cli.table import grid, signed

    ours, theirs, gaps = beside.vectors, beside.tfidf, beside.f1_difference
    compared = [
        ("accuracy", ours.accuracy, theirs.accuracy, beside.accuracy_difference),
        ("macro-F1", ours.macro_f1, theirs.macro_f1, gaps.macro),
    ]
    for name, gap in list(zip(report.classes, gaps.by_class, strict=True))[:MOST_CLASSES]:
        compared.append((f"F1 {_shown(name)}", ours.classes[name].f1, theirs.classes[name].f1, gap))
    rows = [["", "vectors", "TF-IDF", "difference", "95 %"]]
    for name, one, other, gap in compared:
        told = ["none"] if math.isnan(gap.low) else [signed(gap.mean), f"{signed(gap.low)} to {signed(gap.high)}"]
        rows.append([name, *("none" if math.isnan(x.mean) else f"{100 * x.mean:.2f}" for x in (one, other)), *told])
    losses = (report.probabilities["calibrated"].log_loss, beside.probabilities.log_loss)
    rows.append(["log loss", *(f"{loss:.4f}" for loss in losses)])
    remark = (
        f"TF-IDF: {beside.features:,} words and word pairs, logistic regression with strength {beside.strength:g}, "
        "same folds, strengths, class weights and calibration"
    )
    if (report.predicted != report.without_threshold).any():
        remark += "; compared without the threshold"
    return [*grid(rows), *textwrap.wrap(remark, LINE_WIDTH)]
