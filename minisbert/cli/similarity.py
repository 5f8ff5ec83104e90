"""``minisbert similarity``: all pairwise similarities of some texts, as a matrix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, computing_options, json_option, model_options
from minisbert.cli.table import matrix_lines, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.analysis.calibration import Calibration
    from minisbert.model import Array

METRICS = {
    "cosine": "cosine similarity: 1 same direction, 0 unrelated, -1 opposite",
    "dot": "dot product: larger is more similar",
    "euclidean": "negative Euclidean distance: 0 is the same vector, more negative is less similar",
    "manhattan": "negative Manhattan distance: 0 is the same vector, more negative is less similar",
    "angular": "angular distance: 0 same direction, 0.5 unrelated, 1 opposite",
}
LABEL_WIDTH = (20, 40)  # columns of a text, at least and at most
NUMBER_WIDTH = 8  # columns of a cosine with its spacing


@click.command(short_help="Show how similar texts are.")
@input_options
@click.option("--metric", type=click.Choice(list(METRICS)), help="[default: the model's own, usually cosine]")
@click.option("--calibration", metavar="FILE", help="Also show percentiles, from a file written by `calibrate`.")
@json_option
@computing_options
@model_options
def similarity(
    source: TextSource,
    metric: str | None,
    calibration: str | None,
    as_json: bool,
    choice: ModelChoice,
    dtype: str,
    **long_texts: Any,
) -> None:
    """Show how similar texts are, each compared with every other.

    What 0.3 means depends on model and texts. With --calibration each score is also shown as a percentile: the share of
    random pairs of the calibration corpus that score lower.

    \b
    Examples:
      minisbert similarity "i love soup" "soup is my favorite" "london is far away"
      minisbert similarity --metric angular "i love soup" "i hate soup"
      minisbert similarity -i texts.txt --json
      minisbert similarity --calibration calibration.json "i love soup" "i hate soup"
    """
    texts = list(source.read())
    if len(texts) < 2:
        raise click.UsageError(f"Nothing to compare: expected at least two texts, got {len(texts)}.")
    from minisbert.similarity import SIMILARITIES, angular_distance

    calibrated = _load(calibration)
    encoder = choice.encoder(dtype)
    name = metric or encoder.model.similarity_fn_name
    if calibrated is not None:
        calibrated.check(encoder, name)
    compare = angular_distance if name == "angular" else SIMILARITIES[name].matrix
    embeddings = encoder.encode(texts, **long_texts)
    scores = compare(embeddings, embeddings)
    if as_json:
        click.echo(json.dumps(_to_json(texts, name, scores, calibrated), ensure_ascii=False).encode())
        return
    labels = _labels(texts, terminal_width())
    lines = [METRICS[name], "", *_matrix(labels, [[_number(score) for score in row] for row in scores.tolist()])]
    if calibrated is not None:
        percentiles = [[calibrated.write(one) for one in row] for row in calibrated.percentile(scores).tolist()]
        lines += ["", f"percentiles: above this % of {_sample(calibrated)}", "", *_matrix(labels, percentiles)]
    if len(texts) > 2:
        lines += ["", most_similar(scores, is_distance=name == "angular")]
    click.echo("\n".join(lines))


def _load(file: str | None) -> Calibration | None:
    """Read a calibration, before minutes of work."""
    if file is None:
        return None
    from minisbert.analysis.calibration import load_calibration

    return load_calibration(Path(file))


def _sample(calibrated: Calibration) -> str:
    """What the percentiles refer to."""
    return f"{calibrated.pairs:,} random pairs of {calibrated.texts:,} texts"


def _to_json(texts: list[str], name: str, scores: Array, calibrated: Calibration | None) -> dict[str, Any]:
    """Everything as JSON."""
    rows = [[float(f"{score:.9g}") for score in row] for row in scores.tolist()]
    result: dict[str, Any] = {"texts": texts, "similarity_fn_name": name, "scores": rows}
    if calibrated is not None:
        result["percentiles"] = calibrated.percentile(scores).tolist()
        about = ("pairs", "texts", "seed", "resolution")
        result["calibration"] = {key: getattr(calibrated, key) for key in about}
    return result


def _labels(texts: list[str], width: int) -> list[str]:
    """Number the texts and shorten them, leaving room for a row of numbers."""
    number_width = len(str(len(texts)))
    least, most = LABEL_WIDTH
    room = max(least, min(most, width - number_width - 2 - len(texts) * NUMBER_WIDTH))
    return [f"{i:>{number_width}}  {shorten(printable(text), room) or '(empty)'}" for i, text in enumerate(texts, 1)]


def _matrix(labels: list[str], cells: list[list[str]]) -> list[str]:
    """Format a matrix of numbers, with the texts' numbers on top."""
    return matrix_lines(labels, [str(i) for i in range(1, len(labels) + 1)], cells, terminal_width())


def _number(score: float) -> str:
    """A score with four digits, without a negative zero."""
    written = f"{score:.4f}"
    return "0.0000" if written == "-0.0000" else written


def most_similar(scores: Array, is_distance: bool) -> str:
    """The closest pair of distinct texts."""
    import numpy as np

    first, second = np.triu_indices(len(scores), 1)
    pairs = scores[first, second]
    best = int(pairs.argmin() if is_distance else pairs.argmax())
    return f"most similar: {first[best] + 1} and {second[best] + 1} ({_number(float(pairs[best]))})"
