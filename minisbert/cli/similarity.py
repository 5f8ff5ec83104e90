"""How similar texts are, and what that means: ``minisbert similarity``, ``explain``, ``show`` and ``calibrate``."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import click

from minisbert.cli import options
from minisbert.cli.options import ModelChoice, TextSource, input_options
from minisbert.cli.outputs import Target, echo_json, output_options, progress
from minisbert.cli.table import align, fixed, hundred, matrix_lines, printable, terminal_width

# --------------------------------------------------------------------------------------------------------- similarity


METRICS = {
    "cosine": "cosine similarity: 1 same direction, 0 unrelated, -1 opposite",
    "dot": "dot product: larger is more similar",
    "euclidean": "negative Euclidean distance: 0 is the same vector, more negative is less similar",
    "manhattan": "negative Manhattan distance: 0 is the same vector, more negative is less similar",
    "angular": "angular distance: 0 same direction, 0.5 unrelated, 1 opposite",
}
TEXT_WIDTH = (20, 40)  # columns of a text, at least and at most
NUMBER_WIDTH = 8  # columns of a cosine with its spacing


@click.command()
@input_options
@click.option("--metric", type=click.Choice(list(METRICS)), help="[default: the model's own, usually cosine]")
@click.option("--calibration", metavar="FILE", help="Also show percentiles, from a file written by `calibrate`.")
@options.json_option
@options.computing_options
@options.model_options
def similarity(
    source: TextSource, metric: str | None, calibration: str | None, as_json: bool, choice: ModelChoice, **how: Any
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
    texts = source.read()
    if len(texts) < 2:
        raise click.UsageError(f"Nothing to compare: expected at least two texts, got {len(texts)}.")
    from minisbert.similarity import SIMILARITIES, angular_distance

    calibrated = None
    if calibration is not None:  # read before minutes of work
        from minisbert.analysis.calibration import load_calibration

        calibrated = load_calibration(Path(calibration))
    encoder = choice.encoder(how.pop("dtype"))
    name = metric or encoder.model.similarity_fn_name
    if calibrated is not None:
        calibrated.check(encoder, name)
    embeddings = encoder.encode(texts, **how)
    scores = (angular_distance if name == "angular" else SIMILARITIES[name].matrix)(embeddings, embeddings)
    if as_json:  # without the table, which takes ten times as long
        rows = [[float(f"{score:.9g}") for score in row] for row in scores.tolist()]
        result: dict[str, Any] = {"texts": texts, "similarity_fn_name": name, "scores": rows}
        if calibrated is not None:
            about = {key: getattr(calibrated, key) for key in ("pairs", "texts", "seed", "resolution")}
            result |= {"percentiles": calibrated.percentile(scores), "calibration": about}
        echo_json(result)
        return
    numbers = [str(i) for i in range(1, len(texts) + 1)]
    digits = len(numbers[-1])
    room = max(TEXT_WIDTH[0], min(TEXT_WIDTH[1], terminal_width() - digits - 2 - len(texts) * NUMBER_WIDTH))
    labels = [f"{i:>{digits}}  {printable(text, room)}" for i, text in zip(numbers, texts, strict=True)]
    cells = [[fixed(score, 4) for score in row] for row in scores.tolist()]
    lines = [METRICS[name], "", *matrix_lines(labels, numbers, cells)]
    if calibrated is not None:
        cells = [[calibrated.write(one) for one in row] for row in calibrated.percentile(scores).tolist()]
        lines += ["", f"percentiles: above this % of {calibrated.pairs:,} random pairs of {calibrated.texts:,} texts"]
        lines += ["", *matrix_lines(labels, numbers, cells)]
    if len(texts) > 2:
        sign = 1 if name == "angular" else -1
        i, j = min(combinations(range(len(texts)), 2), key=lambda pair: float(sign * scores[pair]))
        lines += ["", f"most similar: {i + 1} and {j + 1} ({fixed(scores[i, j], 4)})"]
    click.echo("\n".join(lines))


# ------------------------------------------------------------------------------------------------------------ explain


STRONGEST = 5
WORD_WIDTH = 16  # columns of a word, at most


@click.command()
@click.argument("text_a", metavar="TEXT_A", type=options.TEXT)
@click.argument("text_b", metavar="TEXT_B", type=options.TEXT)
@click.option("--words/--pieces", default=True, help="Whole words, or the model's tokens.")
@output_options("Also draw a heat map (extra `plots`).", "png", metavar="FILE.png")
@options.dtype_option
@options.cut_option
@options.model_options
def explain(text_a: str, text_b: str, words: bool, target: Target, choice: ModelChoice, dtype: str, **cut: Any) -> None:
    """Show which words make two texts similar.

    With mean pooling the cosine of two texts is exactly the sum of the contributions of all token pairs. The table has
    A's words as rows, B's as columns, and contributions in hundredths: all cells add up to 100 times the cosine. A
    token's vector depends on its whole text, so this shows where the cosine comes from, not what it would be without a
    word.

    \b
    Examples:
      minisbert explain "i love soup" "soup is my favorite"
      minisbert explain "i love bouillabaisse" "soup is my favorite" --pieces
      minisbert explain "i love soup" "soup is my favorite" -o heat.png
      minisbert explain "i love soup" "soup is my favorite" --json
    """
    from minisbert.analysis.explain import explain as split_up
    from minisbert.plots import heat_map

    found = split_up(choice.encoder(dtype), text_a, text_b, by_word=words, **cut)
    title = f"cosine {found.cosine:.4f}: all cells, in hundredths"
    caption = f"rows: {printable(text_a)}\ncolumns: {printable(text_b)}"
    about: dict[str, Any] = {"title": title, "caption": caption, "diverging": True}
    target.write(heat_map, 100 * found.contributions, found.pieces_a, found.pieces_b, **about)
    rows, columns = ([printable(piece, WORD_WIDTH) for piece in p] for p in (found.pieces_a, found.pieces_b))
    table = [[*row, sum(row)] for row in found.contributions.tolist()]
    table.append([sum(column) for column in zip(*table, strict=True)])
    cells = [[hundred(value) for value in row] for row in table]
    strongest = [(cells[i][j].rjust(6), f"{rows[i]} - {columns[j]}") for i, j in found.strongest(STRONGEST)]
    lines = [f"cosine {found.cosine:.4f}: the sum of all cells, in hundredths", ""]
    lines += [*matrix_lines([*rows, "sum"], [*columns, "sum"], cells), "", "strongest pairs", *align(strongest)]
    target.give(lines, {"texts": [text_a, text_b], **vars(found)})


# --------------------------------------------------------------------------------------------------------------- show


@click.command()
@click.argument("text_a", metavar="TEXT_A", type=options.TEXT)
@click.argument("text_b", metavar="TEXT_B", type=options.TEXT)
@output_options("The page to write.", "html", metavar="PAGE.html", required=True, has_json=False)
@options.dtype_option
@options.cut_option
@options.model_options
def show(text_a: str, text_b: str, target: Target, choice: ModelChoice, dtype: str, **cut: Any) -> None:
    """Show how two texts become one number: the whole way, on a web page that needs no network.

    Pieces, ids, three tables, every layer and head, the mean, the cosine, and the pairs of words that add up to it.
    Every number is the model's, and each opens to the arithmetic that made it, which the page computes again. A token
    takes some 55 kB of the page.

    \b
    Examples:
      minisbert show "i love soup" "soup is my favorite" -o page.html
      minisbert show "the bank of the river" "money in the bank" -o bank.html --dtype float64
    """
    from minisbert.page import show as show_page

    page = show_page(choice.encoder(dtype), text_a, text_b, **cut)
    written = page.html.encode()
    target.write(lambda stream: stream.write(written))
    click.echo(f"cosine {page.cosine:.4f}; open {target.file} in a browser ({len(written) / 1e6:.1f} MB)")


# ---------------------------------------------------------------------------------------------------------- calibrate


PERCENTILES = (1, 5, 25, 50, 75, 90, 95, 99, 99.9, 99.99)


@click.command()
@input_options
@output_options("Write the calibration, for `similarity --calibration`.")
@click.option("--pairs", type=options.COUNT, default=100_000, help="Pairs to draw.")
@options.seed_option
@click.option("--metric", type=click.Choice(list(METRICS)[:-1]), help="[default: the model's own, usually cosine]")
@options.computing_options
@options.model_options
def calibrate(
    source: TextSource, target: Target, metric: str | None, choice: ModelChoice, dtype: str, **measuring: Any
) -> None:
    """Measure what a similarity score means for your texts: how similar random pairs of them are.

    Give a thousand or more texts of the kind you compare. Duplicates count once, and of more than 10,000 texts a random
    sample is taken. The table shows what percentage of random pairs each score exceeds; with the file, `similarity
    --calibration` shows it for any score.

    \b
    Examples:
      minisbert calibrate -i texts.txt -o calibration.json
      minisbert calibrate -i texts.txt --pairs 1000000 --seed 1
      minisbert calibrate -i texts.txt --json
    """
    from minisbert.analysis.calibration import fit

    texts = source.read("calibrate with", filled=True)
    measuring |= {"similarity_fn_name": metric, "show_progress_bar": progress}
    measured = fit(choice.encoder(dtype), texts, **measuring)
    target.write(lambda stream: stream.write(measured.to_json().encode()))
    name = measured.similarity_fn_name
    # the percentiles that this number of pairs can resolve
    told = [p for p in PERCENTILES if 100.0 - measured.resolution <= p <= measured.resolution]
    columns = told, measured.score_at(told).tolist(), measured.standard_error(told).tolist()
    table = [
        dict(zip(("percentile", "score", "standard_error"), row, strict=True)) for row in zip(*columns, strict=True)
    ]
    about = f"{measured.texts:,} different texts; {measured.model}, seed {measured.seed}"
    lines = [f"{name} of {measured.pairs:,} random pairs of {about}", ""]
    if table:
        rows = [[f"{one['score']:.4f}", f"{one['standard_error']:.2g}"] for one in table]
        lines += matrix_lines([f"{p:g} %" for p in told], [name, "+- points"], rows)
        lines += ["", f"{told[-1]:g} % of random pairs have a {name} below {table[-1]['score']:.4f}."]
    lines += ["", "A percentile depends on these texts. It is not the probability that two texts mean the same."]
    figures = {key: value for key, value in vars(measured).items() if key not in ("scores", "ranks")}
    target.give(lines, {**figures, "resolution": measured.resolution, "percentiles": table})
