"""``minisbert classify predict``: the class of each text and its probability."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, cut_option, json_option, model_options
from minisbert.cli.outputs import Target, written_whole
from minisbert.cli.table import display_width, pad, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.analysis.classifier import TextClassifier

UNDECIDED = "undecided"
LABEL_WIDTH = 30  # columns of a label, at most
LEAST_TEXT = 20  # columns of a text, at least
KINDS = {".csv": "csv", ".jsonl": "jsonl"}


@click.command(short_help="Classify texts, with probabilities.")
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

    target = _target(output, force)
    source.check()
    classifier = load_classifier(folder)
    texts = list(source.read())
    if not texts:
        raise click.UsageError("Nothing to classify: give texts, or a file of texts (-i).")
    encoder = choice.encoder("float32")
    vectors = classifier.encode(encoder, texts, overflow=overflow, show_progress_bar=sys.stderr.isatty())
    found = describe(classifier, texts, vectors)
    if target is not None and target.file is not None:
        with written_whole(target.file) as stream:
            stream.write(_as_csv(found, classifier) if target.kind == "csv" else _as_lines(found))
        click.echo(f"wrote {target.file}", err=True)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False).encode())
    elif target is None:
        click.echo("\n".join(table(found, terminal_width())))


def _target(output: str | None, force: bool) -> Target | None:
    """The output file and its format, checked before minutes of work."""
    if output is None:
        return None
    kind = KINDS.get(Path(output).suffix.lower())
    if kind is None:
        raise click.UsageError(f"-o must end in {' or '.join(KINDS)}, got {output!r}.")
    target = Target(Path(output), kind, force)
    target.check()
    return target


def describe(classifier: TextClassifier, texts: list[str], vectors: Any) -> list[dict[str, Any]]:
    """What is known of each text; label None is undecided."""
    labels, probs = classifier.predict(vectors), classifier.predict_proba(vectors).tolist()
    strict = classifier.threshold.label if classifier.threshold is not None else None
    found = []
    for text, label, row in zip(texts, labels, probs, strict=True):
        by_class = dict(zip(classifier.classes, row, strict=True))
        about = label if label is not None else str(strict)
        found.append({"text": text, "label": label, "probability": by_class[about], "probabilities": by_class})
    return found


def table(found: list[dict[str, Any]], width: int) -> list[str]:
    """Columns of label, probability and text.

    >>> table([{"text": "what a feast", "label": "good", "probability": 0.91234}], 80)
    ['label  prob.  text', 'good   0.912  what a feast']
    """
    names = [shorten(printable(one["label"] or UNDECIDED), LABEL_WIDTH) for one in found]
    widest = max(map(display_width, ["label", *names]))
    room = max(LEAST_TEXT, width - widest - 9)
    rows = [f"{pad('label', widest)}  prob.  text"]
    for name, one in zip(names, found, strict=True):
        text = shorten(printable(one["text"]), room) or "(empty)"
        rows.append(f"{pad(name, widest)}  {one['probability']:.3f}  {text}")
    return rows


def _as_csv(found: list[dict[str, Any]], classifier: TextClassifier) -> bytes:
    """A table with a column per class; the label of an undecided text is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["text", "label", "probability", *(f"p({name})" for name in classifier.classes)])
    for one in found:
        row = [one["text"], one["label"], one["probability"], *one["probabilities"].values()]
        writer.writerow(row)
    return stream.getvalue().encode()


def _as_lines(found: list[dict[str, Any]]) -> bytes:
    """A JSON object per line."""
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in found)
