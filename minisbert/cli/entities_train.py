"""``minisbert entities train``: a linear probe on word vectors, trained on tagged sentences."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.table import matrix_lines, terminal_width

if TYPE_CHECKING:
    from minisbert.analysis.entities import EntityTagger
    from minisbert.analysis.tag_probe import ProbeFit


@click.command(short_help="Train a tagger on sentences with tagged words.")
@click.argument("train", metavar="TRAIN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, metavar="FOLDER", type=click.Path(path_type=Path), help="Output folder.")
@click.option("--force", is_flag=True, help="Overwrite an existing tagger.")
@click.option(
    "--dev",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Where strength and offset are chosen.  [default: cross-validation on TRAIN]",
)
@click.option(
    "--layer",
    "layers",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="N",
    help="Layer whose vectors are used; 0 is the embeddings. May be repeated.  [default: the middle one]",
)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "first"]),
    default="mean",
    show_default=True,
    help="How the tokens of a word become one vector.",
)
@click.option(
    "--decoder",
    type=click.Choice(["viterbi", "greedy"]),
    default="viterbi",
    show_default=True,
    help="The best valid tag sequence, or the best tag of each word, repaired.",
)
@click.option(
    "--strength",
    "strengths",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    metavar="C",
    help="C to try, as in scikit-learn: larger is a weaker penalty. May be repeated.",
)
@click.option(
    "--offset",
    "offsets",
    type=click.FloatRange(min=0),
    multiple=True,
    metavar="NATS",
    help="Offset to try; it lowers the score of O, so that more is found. May be repeated.",
)
@click.option("--folds", type=click.IntRange(min=2), default=3, show_default=True, help="Cross-validation folds.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the folds.")
@json_option
@model_options
def train(
    train: Path,
    output: Path,
    force: bool,
    dev: Path | None,
    layers: tuple[int, ...],
    strengths: tuple[float, ...],
    offsets: tuple[float, ...],
    as_json: bool,
    choice: ModelChoice,
    **settings: Any,
) -> None:
    """Train a tagger on TRAIN, sentences with tagged words, and write it to a folder.

    Files are JSONL with the lists "tokens" and "tags" in each line, or CoNLL (.conll): a word and its tag per line, an
    empty line after each sentence. Tags are IOB2: B-person begins an entity, I-person continues it, O is outside. Long
    sentences are read in windows; nothing is cut off. Needs scikit-learn.

    \b
    Examples:
      minisbert entities train names_train.jsonl --dev names_dev.jsonl -o names
      minisbert entities train names_train.conll -o names
      minisbert entities train names_train.jsonl -o names --layer 1 --layer 2 --strength 0.01 --offset 1
    """
    from minisbert.analysis.entities import KIND, train_tagger
    from minisbert.analysis.tag_probe import OFFSETS, STRENGTHS
    from minisbert.analysis.tagging import read_tagged
    from minisbert.saved import check_place

    check_place(output, KIND, force=force)
    data = read_tagged(train)
    others = None if dev is None else read_tagged(dev)
    on_terminal = sys.stderr.isatty()
    tagger, fit = train_tagger(
        choice.encoder("float32"),
        data,
        dev=others,
        layers=layers or None,
        strengths=strengths or STRENGTHS,
        offsets=offsets or OFFSETS,
        show_progress_bar=on_terminal,
        progress=(lambda words: click.echo(words, err=True)) if on_terminal else None,
        **settings,
    )
    tagger.save(output, force=force)
    if as_json:
        click.echo(json.dumps(_to_json(tagger), ensure_ascii=False).encode())
    else:
        click.echo("\n".join(_report(tagger, fit)))
    click.echo(f"wrote {output}", err=True)


def _report(tagger: EntityTagger, fit: ProbeFit) -> list[str]:
    """What it was trained on, and how penalty and offset were chosen."""
    told = tagger.training
    numbers = ", ".join(map(str, tagger.layers))
    lines = [
        f"{tagger.origin.model}, layer{'' if len(tagger.layers) == 1 else 's'} {numbers}; {told['data']}: "
        f"{told['sentences']:,} sentences, {told['words']:,} words; types: {', '.join(tagger.types)}",
        "",
    ]
    if fit.f1.size:
        cells = [[f"{100 * value:.2f}" for value in row] for row in fit.f1.tolist()]
        heads = [f"offset {value:g}" for value in fit.offsets]
        lines += [
            f"F1 of spans, x 100, on {fit.chosen_on}:",
            "",
            *matrix_lines([f"C {value:g}" for value in fit.strengths], heads, cells, terminal_width()),
            "",
            f"chosen: C {fit.strength:g}, offset {fit.offset:g}. The best of many scores is slightly optimistic: see "
            "`minisbert entities evaluate`.",
        ]
        edge = fit.strength in (fit.strengths[0], fit.strengths[-1]) and len(fit.strengths) > 1
        if edge:
            lines.append("C is at the edge of the values tried: try others with --strength.")
    else:
        lines.append(f"C {fit.strength:g}, offset {fit.offset:g}, as given")
    return lines


def _to_json(tagger: EntityTagger) -> dict[str, Any]:
    """What was trained, as JSON."""
    return {
        "model": tagger.origin.model,
        "layers": list(tagger.layers),
        "pooling": tagger.pooling,
        "decoder": tagger.decoder,
        "types": list(tagger.types),
        **tagger.training,
    }
