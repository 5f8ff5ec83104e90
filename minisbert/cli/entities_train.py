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


@click.command(short_help="Learn entities from sentences with tagged words.")
@click.argument("train", metavar="TRAIN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, metavar="FOLDER", type=click.Path(path_type=Path), help="Where to.")
@click.option("--force", is_flag=True, help="Replace a tagger that is there.")
@click.option(
    "--dev",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What strength and offset are chosen on.  [default: cross-validation on TRAIN]",
)
@click.option(
    "--layer",
    "layers",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="N",
    help="Whose vectors; 0 is the embeddings. May be given several times.  [default: the one in the middle]",
)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "first"]),
    default="mean",
    show_default=True,
    help="Of the pieces of a word.",
)
@click.option(
    "--decoder",
    type=click.Choice(["viterbi", "greedy"]),
    default="viterbi",
    show_default=True,
    help="The best valid sequence of tags, or the best tag of each word, mended.",
)
@click.option(
    "--strength",
    "strengths",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    metavar="C",
    help="Of the penalty, as scikit-learn's C: smaller is stronger. May be given several times.",
)
@click.option(
    "--offset",
    "offsets",
    type=click.FloatRange(min=0),
    multiple=True,
    metavar="NATS",
    help="Taken off the score of O, so that more is found. May be given several times.",
)
@click.option("--folds", type=click.IntRange(min=2), default=3, show_default=True, help="Of the cross-validation.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the folds.")
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
    """Learn entities from TRAIN, sentences with tagged words, and write a tagger into a folder.

    Files are JSONL with the lists "tokens" and "tags" in each line, or CoNLL (.conll): a line a word, the word and its
    tag, an empty line behind each sentence. Tags are IOB2: B-person begins an entity, I-person continues it, O is none.
    Long sentences are read in windows; nothing is cut. Needs scikit-learn.

    \b
    Examples:
      minisbert entities train names_train.jsonl --dev names_dev.jsonl -o names
      minisbert entities train names_train.conll -o names
      minisbert entities train names_train.jsonl -o names --layer 1 --layer 2 --strength 0.01 --offset 1
    """
    from minisbert.analysis.entities import KIND, train_tagger
    from minisbert.analysis.saved import check_place
    from minisbert.analysis.tag_probe import OFFSETS, STRENGTHS
    from minisbert.analysis.tagging import read_tagged

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
            f"chosen: C {fit.strength:g}, offset {fit.offset:g}. The best of many is a little too good: see "
            "`minisbert entities evaluate`.",
        ]
        edge = fit.strength in (fit.strengths[0], fit.strengths[-1]) and len(fit.strengths) > 1
        if edge:
            lines.append("C lies at the end of what was tried: try others with --strength.")
    else:
        lines.append(f"C {fit.strength:g}, offset {fit.offset:g}, as said")
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
