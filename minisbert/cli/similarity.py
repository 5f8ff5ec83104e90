"""``minisbert similarity``: all pairwise similarities of some texts, as a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, computing_options, json_option, model_options
from minisbert.cli.outputs import echo_json
from minisbert.cli.table import matrix_lines, printable, shorten, terminal_width

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
    import numpy as np

    from minisbert.similarity import SIMILARITIES, angular_distance

    calibrated = None
    if calibration is not None:  # read before minutes of work
        from minisbert.analysis.calibration import load_calibration

        calibrated = load_calibration(Path(calibration))
    encoder = choice.encoder(dtype)
    name = metric or encoder.model.similarity_fn_name
    if calibrated is not None:
        calibrated.check(encoder, name)
    embeddings = encoder.encode(texts, **long_texts)
    scores = (angular_distance if name == "angular" else SIMILARITIES[name].matrix)(embeddings, embeddings)
    if as_json:
        rows = [[float(f"{score:.9g}") for score in row] for row in scores.tolist()]
        result: dict[str, Any] = {"texts": texts, "similarity_fn_name": name, "scores": rows}
        if calibrated is not None:
            about = {key: getattr(calibrated, key) for key in ("pairs", "texts", "seed", "resolution")}
            result |= {"percentiles": calibrated.percentile(scores), "calibration": about}
        echo_json(result)
        return
    columns, digits = terminal_width(), len(str(len(texts)))
    room = max(LABEL_WIDTH[0], min(LABEL_WIDTH[1], columns - digits - 2 - len(texts) * NUMBER_WIDTH))
    labels = [f"{i:>{digits}}  {shorten(printable(text), room) or '(empty)'}" for i, text in enumerate(texts, 1)]
    numbers = [str(i) for i in range(1, len(texts) + 1)]
    cells = [[_number(score) for score in row] for row in scores.tolist()]
    lines = [METRICS[name], "", *matrix_lines(labels, numbers, cells, columns)]
    if calibrated is not None:
        cells = [[calibrated.write(one) for one in row] for row in calibrated.percentile(scores).tolist()]
        lines += ["", f"percentiles: above this % of {calibrated.pairs:,} random pairs of {calibrated.texts:,} texts"]
        lines += ["", *matrix_lines(labels, numbers, cells, columns)]
    if len(texts) > 2:
        first, second = np.triu_indices(len(texts), 1)  # of pairs of different texts
        pairs = scores[first, second]
        best = int(pairs.argmin() if name == "angular" else pairs.argmax())
        lines += ["", f"most similar: {first[best] + 1} and {second[best] + 1} ({_number(float(pairs[best]))})"]
    click.echo("\n".join(lines))


def _number(score: float) -> str:
    """A score with four digits, without a negative zero."""
    written = f"{score:.4f}"
    return "0.0000" if written == "-0.0000" else written
