"""``minisbert explain``: what each pair of words contributes to the cosine of two texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.options import TEXT, ModelChoice, cut_option, dtype_option, json_option, model_options
from minisbert.cli.outputs import Target, written_whole
from minisbert.cli.table import align, matrix_lines, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.analysis.explain import Explanation

STRONGEST = 5
LABEL_WIDTH = 16  # columns of a word, at most


@click.command(short_help="Show which words make two texts similar.")
@click.argument("text_a", metavar="TEXT_A", type=TEXT)
@click.argument("text_b", metavar="TEXT_B", type=TEXT)
@click.option("--words/--pieces", default=True, help="Whole words, or the model's tokens.  [default: words]")
@click.option("-o", "--output", metavar="FILE.png", help="Also draw a heat map (extra `plots`).")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@dtype_option
@cut_option
@model_options
def explain(
    text_a: str,
    text_b: str,
    words: bool,
    output: str | None,
    force: bool,
    as_json: bool,
    choice: ModelChoice,
    dtype: str,
    overflow: str,
) -> None:
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
    target = Target(None if output is None else Path(output), "png", force)
    if target.file is not None:
        from minisbert.plots import require_matplotlib

        require_matplotlib()
        target.check()
    from minisbert.analysis.explain import explain as split_up

    found = split_up(choice.encoder(dtype), text_a, text_b, by_word=words, overflow=overflow)  # type: ignore[arg-type]
    if target.file is not None:
        _draw(found, text_a, text_b, target.file)
    if as_json:
        click.echo(json.dumps(_to_json(found, text_a, text_b), ensure_ascii=False).encode())
    else:
        click.echo("\n".join(_report(found)))


def _report(found: Explanation) -> list[str]:
    """Format the table with its sums, and the pairs that contribute most."""
    rows, columns = ([shorten(printable(piece), LABEL_WIDTH) for piece in p] for p in (found.pieces_a, found.pieces_b))
    table = [[*row, sum(row)] for row in found.contributions.tolist()]
    table.append([sum(column) for column in zip(*table, strict=True)])
    cells = [[_hundredths(value) for value in row] for row in table]
    strongest = [
        (_hundredths(found.contributions[i, j]).rjust(6), f"{rows[i]} - {columns[j]}")
        for i, j in found.strongest(STRONGEST)
    ]
    return [
        f"cosine {found.cosine:.4f}: the sum of all cells, in hundredths",
        "",
        *matrix_lines([*rows, "sum"], [*columns, "sum"], cells, terminal_width()),
        "",
        "strongest pairs",
        *align(strongest),
    ]


def _hundredths(value: float) -> str:
    """A contribution in hundredths, without a negative zero."""
    written = f"{100 * value:.2f}"
    return "0.00" if written == "-0.00" else written


def _draw(found: Explanation, text_a: str, text_b: str, file: Path) -> None:
    """Write the heat map."""
    from minisbert.plots import heat_map

    title = f"cosine {found.cosine:.4f}: all cells, in hundredths"
    with written_whole(file) as stream:
        heat_map(
            stream,
            100 * found.contributions,
            found.pieces_a,
            found.pieces_b,
            title=title,
            caption=f"rows: {printable(text_a)}\ncolumns: {printable(text_b)}",
            diverging=True,
        )
    click.echo(f"wrote {file}", err=True)


def _to_json(found: Explanation, text_a: str, text_b: str) -> dict[str, Any]:
    """Everything as JSON, in parts of the cosine."""
    return {
        "texts": [text_a, text_b],
        "cosine": found.cosine,
        "pieces_a": found.pieces_a,
        "pieces_b": found.pieces_b,
        "contributions": found.contributions.tolist(),
    }
