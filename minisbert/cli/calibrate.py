"""``minisbert calibrate``: similarities of random pairs of a corpus, so that a score can be read as a percentile."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, computing_options, json_option, model_options
from minisbert.cli.outputs import Target, written_whole
from minisbert.cli.table import matrix_lines, terminal_width

if TYPE_CHECKING:
    from minisbert.analysis.calibration import Calibration

PERCENTILES = (1, 5, 25, 50, 75, 90, 95, 99, 99.9, 99.99)
COSINES = tuple(i / 10 for i in range(10))
ROUGH = 1000  # pairs; with fewer, even the first digit of a percentile is unreliable


@click.command(short_help="Measure what a similarity score means for your texts.")
@input_options
@click.option("-o", "--output", metavar="FILE", help="Write the calibration, for `similarity --calibration`.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option("--pairs", type=click.IntRange(min=1), default=100_000, show_default=True, help="Pairs to draw.")
@click.option(
    "--most-texts",
    type=click.IntRange(min=2),
    default=10_000,
    show_default=True,
    help="Use a random sample of this size if there are more texts.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option(
    "--metric",
    type=click.Choice(["cosine", "dot", "euclidean", "manhattan"]),
    help="[default: the model's own, usually cosine]",
)
@json_option
@computing_options
@model_options
def calibrate(
    source: TextSource,
    output: str | None,
    force: bool,
    pairs: int,
    most_texts: int,
    seed: int,
    metric: str | None,
    as_json: bool,
    choice: ModelChoice,
    dtype: str,
    **long_texts: Any,
) -> None:
    """Measure what a similarity score means for your texts: how similar random pairs of them are.

    Give a thousand or more texts of the kind you compare. Duplicates count once. The table shows what percentage of
    random pairs each score exceeds; with the file, `similarity --calibration` shows it for any score.

    \b
    Examples:
      minisbert calibrate -i texts.txt -o calibration.json
      minisbert calibrate -i texts.txt --pairs 1000000 --seed 1
      minisbert calibrate -i texts.txt --json
    """
    if source.file is None and not source.arguments:
        raise click.UsageError("Nothing to calibrate with: give a file of texts (-i).")
    target = Target(None if output is None else Path(output), "json", force)
    target.check()
    from minisbert.analysis.calibration import fit

    measured = fit(
        choice.encoder(dtype),
        source.read(filled=True),
        pairs=pairs,
        seed=seed,
        similarity_fn_name=metric,
        most_texts=most_texts,
        **long_texts,
        show_progress_bar=sys.stderr.isatty(),
    )
    if target.file is not None:
        with written_whole(target.file) as stream:
            stream.write(measured.to_json().encode())
        click.echo(f"wrote {target.file}", err=True)
    if as_json:
        click.echo(json.dumps(_to_json(measured), ensure_ascii=False).encode())
    else:
        click.echo("\n".join(_report(measured)))


def _report(measured: Calibration) -> list[str]:
    """Format both directions, percentile to score and score to percentile, and how to read them."""
    name, told = measured.similarity_fn_name, _told(measured)
    lines = [
        f"{name} of {measured.pairs:,} random pairs of {measured.texts:,} different texts; "
        f"{measured.model}, seed {measured.seed}",
        "",
    ]
    if told:
        errors = measured.standard_error(told).tolist()
        rows = [[f"{measured.score_at(p):.4f}", f"{error:.2g}"] for p, error in zip(told, errors, strict=True)]
        lines += matrix_lines([f"{p:g} %" for p in told], [name, "+- points"], rows, terminal_width())
        high = told[-1]
        lines += ["", f"{high:g} % of random pairs have a {name} below {measured.score_at(high):.4f}."]
    if name == "cosine":
        written = [[measured.write(float(p))] for p in measured.percentile(COSINES)]
        lines += ["", *matrix_lines([f"cosine {c:.1f}" for c in COSINES], ["is above %"], written, terminal_width())]
    lines += ["", "A percentile depends on these texts. It is not the probability that two texts mean the same."]
    if measured.pairs < ROUGH:
        lines.append(f"{measured.pairs:,} pairs give a rough estimate: use more texts.")
    return lines


def _told(measured: Calibration) -> list[float]:
    """The percentiles that this number of pairs can resolve."""
    return [p for p in PERCENTILES if 100.0 - measured.resolution <= p <= measured.resolution]


def _to_json(measured: Calibration) -> dict[str, Any]:
    """The main figures as JSON; the file has all of them."""
    names = ("similarity_fn_name", "model", "fingerprint", "max_seq_length", "texts", "pairs", "seed", "resolution")
    told = _told(measured)
    rows = [
        {"percentile": p, "score": float(measured.score_at(p)), "standard_error": float(measured.standard_error(p))}
        for p in told
    ]
    return {**{name: getattr(measured, name) for name in names}, "percentiles": rows}
