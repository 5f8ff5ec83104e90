"""``minisbert similarity``: every text against every text, as a matrix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, computing_options, json_option, model_options
from minisbert.cli.table import display_width, pad, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.model import Array

METRICS = {
    "cosine": "cosine similarity: 1 same direction, 0 unrelated, -1 opposite",
    "dot": "dot product: larger is more alike",
    "euclidean": "negative Euclidean distance: 0 is the same vector, further below is less alike",
    "manhattan": "negative Manhattan distance: 0 is the same vector, further below is less alike",
    "angular": "angular distance: 0 same direction, 0.5 unrelated, 1 opposite",
}
LABEL_WIDTH = (20, 40)  # columns of a text, at least and at most


@click.command(short_help="Show how alike texts are.")
@input_options
@click.option("--metric", type=click.Choice(list(METRICS)), help="[default: the model's own, mostly cosine]")
@json_option
@computing_options
@model_options
def similarity(
    source: TextSource, metric: str | None, as_json: bool, choice: ModelChoice, dtype: str, **long_texts: Any
) -> None:
    """Show how alike texts are: every text against every text.

    \b
    Examples:
      minisbert similarity "i love soup" "soup is my favorite" "london is far away"
      minisbert similarity --metric angular "i love soup" "i hate soup"
      minisbert similarity -i texts.txt --json
    """
    texts = list(source.read())
    if len(texts) < 2:
        raise click.UsageError(f"There is nothing to compare: expected at least two texts, got {len(texts)}.")
    from minisbert.similarity import SIMILARITIES, angular_distance

    encoder = choice.encoder(dtype)
    name = metric or encoder.model.similarity_fn_name
    compare = angular_distance if name == "angular" else SIMILARITIES[name].matrix
    embeddings = encoder.encode(texts, **long_texts)
    scores = compare(embeddings, embeddings)
    if as_json:
        rows = [[float(f"{score:.9g}") for score in row] for row in scores.tolist()]
        result = {"texts": texts, "similarity_fn_name": name, "scores": rows}
        click.echo(json.dumps(result, ensure_ascii=False).encode())
        return
    click.echo(f"{METRICS[name]}\n")
    for line in matrix_lines(texts, scores, terminal_width()):
        click.echo(line)
    if len(texts) > 2:
        click.echo(f"\n{most_similar(scores, is_distance=name == 'angular')}")


def matrix_lines(texts: list[str], scores: Array, width: int) -> list[str]:
    """Lay out a matrix with its texts; in several parts where the terminal is too narrow for one."""
    cells = [[_number(score) for score in row] for row in scores.tolist()]
    cell_width = 2 + max(len(cell) for row in cells for cell in row)
    number_width = len(str(len(texts)))
    least, most = LABEL_WIDTH
    room = max(least, min(most, width - number_width - 2 - len(texts) * cell_width))
    labels = [shorten(printable(text), room) or "(empty)" for text in texts]
    label_width = max(display_width(label) for label in labels)
    columns = max(1, (width - number_width - 2 - label_width) // cell_width)
    lines: list[str] = []
    for start in range(0, len(texts), columns):
        part = range(start, min(start + columns, len(texts)))
        head = "".join(f"{column + 1:>{cell_width}}" for column in part)
        lines += [""] * bool(lines) + [" " * (number_width + 2 + label_width) + head]
        for i, (label, row) in enumerate(zip(labels, cells, strict=True), 1):
            numbers = "".join(f"{row[column]:>{cell_width}}" for column in part)
            lines.append(f"{i:>{number_width}}  {pad(label, label_width)}{numbers}")
    return lines


def _number(score: float) -> str:
    """Write a score with four digits, and no zero with a minus sign."""
    written = f"{score:.4f}"
    return "0.0000" if written == "-0.0000" else written


def most_similar(scores: Array, is_distance: bool) -> str:
    """Name the closest pair of different texts."""
    import numpy as np

    first, second = np.triu_indices(len(scores), 1)
    pairs = scores[first, second]
    best = int(pairs.argmin() if is_distance else pairs.argmax())
    return f"most similar: {first[best] + 1} and {second[best] + 1} ({_number(float(pairs[best]))})"
