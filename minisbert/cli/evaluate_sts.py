"""``minisbert evaluate sts`` and ``minisbert evaluate layers``: similarities beside human scores."""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from minisbert import __version__, hub
from minisbert.cli.inputs import DIALECT_OPTIONS, dialect
from minisbert.cli.options import ModelChoice, decorate, json_option, model_options
from minisbert.cli.outputs import Target, written_whole
from minisbert.cli.table import display_width, pad, printable, shorten
from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.layers import LayerScores, layer_scores
from minisbert.evaluation.published import (
    MTEB_SOURCE,
    PAPER_NOTE,
    PAPER_SOURCE,
    PAPER_STSB,
    Benchmark,
    find_sets,
)
from minisbert.evaluation.sts import PROTOCOL, SIMILARITIES, StsPairs, StsResult, evaluate_sts, read_sts

NAME_WIDTH = 30
LINE_WIDTH = 100
DEFAULT_SET = Path("stsb", "stsb_test.tsv")

_format_options = [
    click.option(
        "--columns",
        metavar="SCORE,SENTENCE1,SENTENCE2",
        help="Names or numbers of the columns.  [default: score, sentence1, sentence2 or a usual synonym]",
    ),
    click.option(
        "--scale",
        metavar="LOW,HIGH",
        help="Range of the scores; a score outside is an error.  [default: known for known sets, else not checked]",
    ),
    click.option("--no-header", is_flag=True, help="The files have no header row; columns are numbered from 1."),
    *DIALECT_OPTIONS,
]


@click.command(short_help="Correlate similarities with human scores.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True, path_type=Path))
@lambda verb: decorate(verb, _format_options)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Also write the result as JSON.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@model_options
def sts(
    paths: tuple[Path, ...],
    columns: str | None,
    scale: str | None,
    no_header: bool,
    output: Path | None,
    force: bool,
    as_json: bool,
    choice: ModelChoice,
) -> None:
    """Correlate the model's similarities with human scores, next to the published figures.

    A PATH is a file of pairs (TSV without quoting, CSV or JSONL, plain or .gz), or a folder with well-known test sets.
    These are recognised by file name: STS12_test.tsv to STS16_test.tsv, stsb_test.tsv, biosses.tsv, and
    sick_train.tsv, sick_trial.tsv, sick_test.tsv in one folder, which together form SICK-R.

    \b
    Examples:
      minisbert evaluate sts data/sts12 data/stsb/stsb_test.tsv
      minisbert evaluate sts data -o result.json
      minisbert evaluate sts pairs.csv --columns 3,1,2 --scale 0,5 --no-header
    """
    if output is not None:
        Target(output, "json", force).check()
    options = _read_options(columns, scale, no_header)
    found = [(known, read_set(known, files, options)) for path in paths for known, files in find_sets(path)]
    encoder = choice.encoder("float32")
    is_published = choice.max_seq_length is None and hub.is_default_model(encoder.folder)
    results = [evaluate_sts(encoder, pairs, show_progress_bar=sys.stderr.isatty()) for _, pairs in found]
    rows = [(known if is_published else None, result) for (known, _), result in zip(found, results, strict=True)]
    written = json.dumps(_to_json(rows, encoder), indent=2, ensure_ascii=False)
    if output is not None:
        with written_whole(output) as stream:
            stream.write(f"{written}\n".encode())
        click.echo(f"wrote {output}", err=True)
    if as_json:
        click.echo(written.encode())
    else:
        click.echo("\n".join(report_lines(rows, encoder)))


def _read_options(columns: str | None, scale: str | None, no_header: bool) -> dict[str, Any]:
    """Parse the options about the files."""
    names = columns.split(",") if columns is not None else None
    if names is not None and len(names) != 3:
        raise click.UsageError(f"--columns must name three columns: score, first and second sentence; got {columns!r}.")
    if no_header and names is None:
        raise click.UsageError("With --no-header, give the columns of the score and the sentences with --columns.")
    limits = None
    if scale is not None:
        try:
            low, high = map(float, scale.split(","))
        except ValueError:
            low = high = math.nan
        if not -math.inf < low < high < math.inf:
            raise click.UsageError(f"--scale must be LOW,HIGH, such as 0,5, got {scale!r}.")
        limits = (low, high)
    return {"columns": names, "scale": limits, "has_header": not no_header, **dialect()}


def read_set(known: Benchmark | None, files: Sequence[Path], options: dict[str, Any]) -> StsPairs:
    """Read one set; a known one has its own name and scale unless another is given."""
    if known is None:
        return read_sts(files, name=str(files[0]), **options)
    return read_sts(files, name=known.name, **{**options, "scale": options["scale"] or known.scale})


# ------------------------------------------------------------------------------------------------- what is said


def report_lines(rows: Sequence[tuple[Benchmark | None, StsResult]], encoder: SentenceEncoder) -> list[str]:
    """Format the figures beside published ones, and why they differ."""
    published = [_published(known, result) for known, result in rows]
    is_compared = any(figure is not None for figure in published)
    head = ["set", "pairs", *SIMILARITIES, "r cosine", *(["published", "difference"] if is_compared else [])]
    table = [head]
    for (_, result), figure in zip(rows, published, strict=True):
        cells = [shorten(printable(result.name), NAME_WIDTH), f"{result.pairs:,}"]
        cells += [f"{result.spearman[name]:.3f}" for name in SIMILARITIES] + [f"{result.pearson['cosine']:.3f}"]
        if is_compared:
            cells += ["", ""] if figure is None else [f"{figure:.3f}", _signed(result.spearman["cosine"] - figure)]
        table.append(cells)
    lines = [
        f"{encoder.folder.name}: Spearman x 100 by similarity; r cosine: Pearson x 100",
        "",
        *columns_of(table),
        "",
    ]
    said = [f"protocol: {PROTOCOL}"]
    if is_compared:
        said.append(f"published: {MTEB_SOURCE}")
        said += dict.fromkeys(
            known.note for known, result in rows if known and _published(known, result) and known.note
        )
    for known, result in rows:
        if known is not None and known.pairs != result.pairs:
            said.append(f"{known.name} has {result.pairs:,} pairs here and {known.pairs:,} as published: not compared")
    if any(result.name == "STSb" for _, result in rows):
        quoted = ", ".join(f"{name} {figure:.2f}" for name, figure in PAPER_STSB.items())
        said += [f"quoted for STSb: {quoted} ({PAPER_SOURCE}). {PAPER_NOTE}"]
    return [*lines, *(line for words in said for line in _wrapped(words))]


def _signed(difference: float) -> str:
    """A difference with its sign, and none if it rounds to zero."""
    written = f"{difference:+.3f}"
    return written if float(written) else "0.000"


def _published(known: Benchmark | None, result: StsResult) -> float | None:
    """The published figure, if it is for the same number of pairs."""
    return known.published if known is not None and known.pairs == result.pairs else None


def _wrapped(words: str) -> list[str]:
    """Wrap a paragraph; model names stay whole."""
    return textwrap.wrap(words, LINE_WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def columns_of(table: Sequence[Sequence[str]]) -> list[str]:
    """Align a table: the first column left, figures right."""
    widths = [max(map(display_width, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            [pad(row[0], widths[0]), *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in table
    ]


def _to_json(rows: Sequence[tuple[Benchmark | None, StsResult]], encoder: SentenceEncoder) -> dict[str, Any]:
    """Everything as JSON."""
    sets = []
    for known, result in rows:
        published = _published(known, result)
        sets.append(
            {
                "name": result.name,
                "pairs": result.pairs,
                "sentences": result.sentences,
                "spearman": dict(result.spearman),
                "pearson": dict(result.pearson),
                "published": published,
                "difference": None if published is None else result.spearman["cosine"] - published,
                "note": known.note if known and published is not None else "",
            }
        )
    return {
        "model": str(encoder.folder),
        "max_seq_length": encoder.max_seq_length,
        "protocol": PROTOCOL,
        "sets": sets,
        "published_source": MTEB_SOURCE,
        "quoted_stsb": PAPER_STSB,
        "quoted_source": f"{PAPER_SOURCE}. {PAPER_NOTE}",
        "minisbert": __version__,
    }


# ------------------------------------------------------------------------------------------------------- layers


@click.command(short_help="Score every layer with every pooling, as a heat map.")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@lambda verb: decorate(verb, _format_options)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw a heat map (extra `plots`)."
)
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@model_options
def layers(
    path: Path | None,
    columns: str | None,
    scale: str | None,
    no_header: bool,
    output: Path | None,
    force: bool,
    as_json: bool,
    choice: ModelChoice,
) -> None:
    """Score every hidden layer with every pooling on a set of pairs: Spearman of the cosine, x 100.

    Layer 0 is the output of the embeddings, before any attention. The model's own layer and pooling are marked. Without
    PATH the set is the STSb test set in the folder MINISBERT_DATA.

    \b
    Examples:
      minisbert evaluate layers data/stsb/stsb_test.tsv
      minisbert evaluate layers pairs.tsv -o layers.png
    """
    from minisbert.plots import require_matplotlib

    if output is not None:
        Target(output, "png", force).check()
        require_matplotlib()
    sets = find_sets(path or _default_set())
    if len(sets) != 1:
        raise click.UsageError(
            f"{path}: expected one set, found {', '.join(known.name for known, _ in sets if known)}."
        )
    pairs = read_set(*sets[0], _read_options(columns, scale, no_header))
    encoder = choice.encoder("float32")
    found = _with_bar(encoder, pairs)
    if output is not None:
        with written_whole(output) as stream:
            draw(stream, found, encoder.folder.name)
        click.echo(f"wrote {output}", err=True)
    if as_json:
        click.echo(json.dumps(_layers_to_json(found, encoder), indent=2).encode())
    else:
        click.echo("\n".join(layer_lines(found, encoder.folder.name)))


def _default_set() -> Path:
    """Find STSb test in the evaluation data."""
    folder = os.environ.get("MINISBERT_DATA")
    if not folder:
        raise click.UsageError("Give a file of pairs, or set MINISBERT_DATA to the folder with stsb/stsb_test.tsv.")
    return Path(folder) / DEFAULT_SET


def _with_bar(encoder: SentenceEncoder, pairs: StsPairs) -> LayerScores:
    """Compute, with a progress bar in a terminal."""
    if not sys.stderr.isatty():
        return layer_scores(encoder, pairs)
    from tqdm import tqdm

    total = len({*pairs.sentences1, *pairs.sentences2})
    with tqdm(total=total, unit="text", desc="layers") as bar:
        return layer_scores(encoder, pairs, progress=bar.update)


def layer_lines(found: LayerScores, model: str) -> list[str]:
    """Format the scores, layers from the first to the last."""
    table = [["", *found.poolings]]
    for place, scores in enumerate(found.values):
        cells = [f"{'none' if math.isnan(score) else f'{score:.2f}'}" for score in scores]
        if found.own is not None and found.own[0] == place:
            cells[found.own[1]] = f"*{cells[found.own[1]]}"
        table.append([_layer_name(place), *cells])
    return [
        f"{model} on {found.name}, {found.pairs:,} pairs: Spearman x 100 of the cosine",
        "",
        *columns_of(table),
        "",
        *textwrap.wrap(" ".join(_remarks(found)), LINE_WIDTH),
    ]


def _layer_name(place: int) -> str:
    """A layer's name, for display."""
    return "embeddings (0)" if place == 0 else f"layer {place}"


def _remarks(found: LayerScores) -> list[str]:
    """What may surprise."""
    remarks = []
    if found.own is not None:
        remarks.append("* is the model's own layer and pooling.")
    if any(map(math.isnan, found.values.ravel())):
        remarks.append("none: all pairs are equally similar, because [CLS] is the same in every text before attention.")
    remarks.append("mean and mean_sqrt_len_tokens differ by a factor, to which the cosine is invariant.")
    return remarks


def draw(stream: Any, found: LayerScores, model: str) -> None:
    """Draw the heat map, the first layer at the top."""
    from minisbert.plots import heat_map

    caption = "Spearman x 100 of the cosine with human scores."
    if found.own is not None:
        caption += " Framed: the model's own layer and pooling."
    if any(map(math.isnan, found.values.ravel())):
        caption += " none: no correlation exists, because [CLS] is the same vector in every text before attention."
    heat_map(
        stream,
        found.values,
        [_layer_name(place) for place in range(len(found.values))],
        found.poolings,
        title=f"{model} on {found.name}: layer x pooling",
        caption=caption,
        marked=found.own,
    )


def _layers_to_json(found: LayerScores, encoder: SentenceEncoder) -> dict[str, Any]:
    """The table as JSON; null if the correlation is undefined."""
    return {
        "model": str(encoder.folder),
        "set": found.name,
        "pairs": found.pairs,
        "measure": "Spearman x 100 of the cosine",
        "protocol": PROTOCOL,
        "poolings": list(found.poolings),
        "layers": [[None if math.isnan(score) else score for score in scores] for scores in found.values.tolist()],
        "own": None if found.own is None else {"layer": found.own[0], "pooling": found.poolings[found.own[1]]},
        "minisbert": __version__,
    }
