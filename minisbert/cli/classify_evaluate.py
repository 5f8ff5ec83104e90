"""``minisbert classify evaluate``: a classifier on labelled texts, also beside TF-IDF."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert import __version__
from minisbert.cli.labelled import label_options, read_options
from minisbert.cli.options import ModelChoice, cut_option, json_option, model_options
from minisbert.cli.table import matrix_lines, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.analysis.classifier_report import Baseline, ClassScores, Quality, Report
    from minisbert.evaluation.measures import Estimate

LABEL_WIDTH = 30  # columns of a class, at most
MOST_CLASSES = 12  # in a confusion matrix; for more classes the most frequent confusions are listed
LINE_WIDTH = 100
UNDECIDED = "undecided"


@click.command(short_help="Evaluate a classifier, and compare it with TF-IDF.")
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
    before and after calibration, with 95 % bootstrap intervals over the texts. Test texts that were also training texts
    are counted. With --baseline, TF-IDF of words and word pairs is compared with the vectors on the same texts.

    \b
    Examples:
      minisbert classify evaluate mood test.tsv
      minisbert classify evaluate mood test.tsv --baseline train.tsv
      minisbert classify evaluate mood test.tsv -o result.json --json
    """
    from minisbert.analysis.classifier import load_classifier
    from minisbert.analysis.classifier_report import check_same_texts, compare_with_tfidf, evaluate_classifier
    from minisbert.cli.retrieval_output import choose_file, give
    from minisbert.evaluation.classification import read_labelled, require_sklearn

    target = choose_file(output, force)
    classifier = load_classifier(folder)
    how = read_options(column_names, no_header)
    data = read_labelled(file, **how)
    train = None if baseline is None else read_labelled(baseline, **how)
    if train is not None:
        require_sklearn()
        check_same_texts(classifier, train)
    encoder = choice.encoder("float32")
    report = evaluate_classifier(classifier, encoder, data, overflow=overflow, show_progress_bar=sys.stderr.isatty())
    beside = None if train is None else compare_with_tfidf(classifier, train, data, report)
    lines = [f"{folder.name}, {encoder.folder.name}, on {report.name}", "", *report_lines(report)]
    if beside is not None:
        lines += ["", *baseline_lines(report, beside)]
    result = {"classifier": folder.name, "model": encoder.folder.name, **report_to_json(report)}
    result |= {"baseline": None if beside is None else baseline_to_json(beside, report), "minisbert": __version__}
    give(lines, result, as_json, target)


# ------------------------------------------------------------------------------------------------- what is said


def counted(count: int, one: str) -> str:
    """A number with its noun.

    >>> counted(1, "text"), counted(2000, "text")
    ('1 text', '2,000 texts')
    """
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def report_lines(report: Report) -> list[str]:
    """Format everything about one classifier."""
    from minisbert.cli.retrieval_output import columns, interval

    texts, scores = len(report.expected), report.scores
    lines = [f"accuracy {100 * report.accuracy.mean:.2f} ({interval(report.accuracy)}), {counted(texts, 'text')}"]
    undecided = int((report.predicted < 0).sum())
    if undecided:
        lines.append(f"{counted(undecided, 'text')} undecided, counted as wrong")
    if report.learnt is not None and report.learnt.any():
        lines.append(_learnt(report))
    lines.append(f"macro-F1 {100 * scores.macro_f1.mean:.2f} ({interval(scores.macro_f1)})")
    lines += ["", *_class_lines(report, scores), "", *_confusion_lines(report)]
    rows = [["probabilities", "log loss", "Brier", "calibration error"]]
    rows += [[name, *_quality(q)] for name, q in (("uncalibrated", report.before), ("calibrated", report.after))]
    return [*lines, "", *columns(rows)]


def _learnt(report: Report) -> str:
    """How many of the texts were in training, and so are no test."""
    from minisbert.cli.retrieval_output import interval

    known = 0 if report.learnt is None else int(report.learnt.sum())
    unseen = report.accuracy_unseen
    said = f"{known:,} of {len(report.expected):,} texts are identical to training texts"
    return said + (f"; accuracy on the others {100 * unseen.mean:.2f} ({interval(unseen)})" if unseen else "")


def _names(report: Report) -> list[str]:
    """Class names, printable."""
    return [shorten(printable(name), LABEL_WIDTH) or "(empty)" for name in report.classes]


def _class_lines(report: Report, scores: ClassScores) -> list[str]:
    """Format precision, recall and F1 of each class."""
    import numpy as np

    counts = np.bincount(report.expected, minlength=len(report.classes)).tolist()
    cells = [
        [f"{count:,}", *(_share(measure[c]) for measure in (scores.precision, scores.recall, scores.f1))]
        for c, count in enumerate(counts)
    ]
    return matrix_lines(
        _names(report), ["texts", "precision", "recall", "F1"], cells, max(LINE_WIDTH, terminal_width())
    )


def _share(estimate: Estimate) -> str:
    """A share x 100 with its interval."""
    if math.isnan(estimate.mean):
        return "none"
    return f"{100 * estimate.mean:.1f} ({100 * estimate.low:.1f}-{100 * estimate.high:.1f})"


def _quality(quality: Quality) -> list[str]:
    """Format the quality of the probabilities."""
    return [f"{number:.4f}" for number in quality]


def _confusion_lines(report: Report) -> list[str]:
    """Format the confusion matrix."""
    names, table = _names(report), report.confusion
    if len(names) > MOST_CLASSES:
        return _most_confused(names, table)
    heads = list(names) + [UNDECIDED] * bool(table[:, -1].any())
    cells = [[f"{count:,}" for count in row[: len(heads)]] for row in table.tolist()]
    return ["rows: true class; columns: predicted class", *matrix_lines(names, heads, cells, terminal_width())]


def _most_confused(names: Sequence[str], table: Any) -> list[str]:
    """The most frequent confusions."""
    pairs = [
        (-int(table[i, j]), i, j) for i in range(len(names)) for j in range(len(names)) if i != j and table[i, j] > 0
    ]
    most = sorted(pairs)[:10]
    return ["most frequent confusions:", *(f"  {-count:,}  {names[i]} predicted as {names[j]}" for count, i, j in most)]


def baseline_lines(report: Report, beside: Baseline) -> list[str]:
    """Format both classifiers and their difference."""
    from minisbert.cli.retrieval_output import columns, signed

    ours, theirs, gaps = beside.scores_of_classifier, beside.scores, beside.f1_difference
    compared = [
        ("accuracy", beside.accuracy_of_classifier, beside.accuracy, beside.accuracy_difference),
        ("macro-F1", ours.macro_f1, theirs.macro_f1, gaps.macro),
    ]
    names = [f"F1 {name}" for name in _names(report)[:MOST_CLASSES]]
    compared += list(zip(names, ours.f1, theirs.f1, gaps.by_class, strict=False))
    rows = [["", "vectors", "TF-IDF", "difference", "95 %"]]
    for name, one, other, gap in compared:
        told = ["none"] if math.isnan(gap.low) else [signed(gap.mean), f"{signed(gap.low)} to {signed(gap.high)}"]
        rows.append([name, *("none" if math.isnan(x.mean) else f"{100 * x.mean:.2f}" for x in (one, other)), *told])
    rows.append(["log loss", f"{report.after.log_loss:.4f}", f"{beside.quality.log_loss:.4f}"])
    remark = (
        f"TF-IDF: {beside.features:,} words and word pairs, logistic regression with strength {beside.strength:g}, "
        "same folds, strengths and class weights; its probabilities are not calibrated"
    )
    if bool((report.predicted != report.unbound).any()):
        remark += "; compared without the threshold"
    return [*columns(rows), *textwrap.wrap(remark, LINE_WIDTH)]


# ------------------------------------------------------------------------------------------------------ as JSON


def report_to_json(report: Report) -> dict[str, Any]:
    """Everything about one classifier as JSON; shares in [0, 1], null where undefined."""
    unseen = report.accuracy_unseen
    return {
        "set": report.name,
        "texts": len(report.expected),
        "undecided": int((report.predicted < 0).sum()),
        "learnt": None if report.learnt is None else int(report.learnt.sum()),
        "accuracy": _ends(report.accuracy),
        "accuracy_unseen": None if unseen is None else _ends(unseen),
        "macro_f1": _ends(report.scores.macro_f1),
        "classes": _scores_to_json(report, report.scores),
        "confusion": report.confusion.tolist(),
        "probabilities": {"as_fitted": report.before._asdict(), "calibrated": report.after._asdict()},
        "expected": report.expected.tolist(),
        "predicted": report.predicted.tolist(),
    }


def baseline_to_json(beside: Baseline, report: Report) -> dict[str, Any]:
    """Everything about the comparison as JSON."""
    gaps = beside.f1_difference
    return {
        "features": beside.features,
        "strength": beside.strength,
        "accuracy": _ends(beside.accuracy),
        "macro_f1": _ends(beside.scores.macro_f1),
        "classes": _scores_to_json(report, beside.scores),
        "probabilities": beside.quality._asdict(),
        "predicted": beside.predicted.tolist(),
        "without_threshold": {
            "accuracy": _ends(beside.accuracy_of_classifier),
            "macro_f1": _ends(beside.scores_of_classifier.macro_f1),
        },
        "difference": {
            "accuracy": _ends(beside.accuracy_difference),
            "macro_f1": _ends(gaps.macro),
            "f1": {name: _ends(gap) for name, gap in zip(report.classes, gaps.by_class, strict=True)},
        },
    }


def _scores_to_json(report: Report, scores: ClassScores) -> dict[str, Any]:
    """Precision, recall and F1 of each class as JSON."""
    return {
        name: {"precision": _ends(precision), "recall": _ends(recall), "f1": _ends(f1)}
        for name, precision, recall, f1 in zip(report.classes, scores.precision, scores.recall, scores.f1, strict=True)
    }


def _ends(estimate: Estimate) -> list[float | None]:
    """A value and the ends of its interval."""
    return [None if math.isnan(number) else number for number in estimate]
