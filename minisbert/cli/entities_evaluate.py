"""``minisbert entities evaluate``: span F1 of a tagger with its interval, compared with baselines."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert import __version__
from minisbert.cli.options import ModelChoice, json_option, model_options

if TYPE_CHECKING:
    from minisbert.analysis.entities import EntityTagger
    from minisbert.analysis.entity_report import EntityReport, SystemScore
    from minisbert.analysis.tagging import SpanScore

LINE_WIDTH = 100


@click.command(short_help="Evaluate a tagger, and compare it with baselines.")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.argument("test", metavar="TEST", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--baselines",
    "train",
    metavar="TRAIN",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare with baselines trained on these sentences, the tagger's own training set.",
)
@click.option(
    "--dev",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Where the settings of the word-shape baseline are chosen.  [default: cross-validation on TRAIN]",
)
@click.option("-o", "--output", metavar="FILE", help="Write the result as JSON.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@model_options
def evaluate(
    folder: Path,
    test: Path,
    train: Path | None,
    dev: Path | None,
    output: str | None,
    force: bool,
    as_json: bool,
    choice: ModelChoice,
) -> None:
    """Evaluate the tagger in FOLDER on TEST: precision, recall and F1 of spans, with 95 % intervals.

    A span is correct if its first word, last word and type are. The baselines are a lexicon of the tags of words in
    TRAIN, logistic regression on word shapes (capitals, digits, endings), and no entities at all. Surface F1 counts
    each name once, as the WNUT 2017 shared task does. Files are as for `minisbert entities train`.

    \b
    Examples:
      minisbert entities evaluate names names_test.jsonl
      minisbert entities evaluate names names_test.jsonl --baselines names_train.jsonl --dev names_dev.jsonl
      minisbert entities evaluate names names_test.conll -o result.json
    """
    from minisbert.analysis.entities import load_tagger
    from minisbert.analysis.entity_report import evaluate_tagger
    from minisbert.analysis.tagging import read_tagged
    from minisbert.cli.outputs import choose_file, give

    if dev is not None and train is None:
        raise click.UsageError("--dev is for the baselines: give their training file with --baselines.")
    target = choose_file(output, force)
    tagger = load_tagger(folder)
    sets = [None if file is None else read_tagged(file) for file in (test, train, dev)]
    on_terminal = sys.stderr.isatty()
    report = evaluate_tagger(
        tagger,
        choice.encoder("float32"),
        sets[0],  # type: ignore[arg-type]  # TEST is always given
        train=sets[1],
        dev=sets[2],
        progress=(lambda words: click.echo(f"word shapes: {words}", err=True)) if on_terminal else None,
        show_progress_bar=on_terminal,
    )
    give(report_lines(report, tagger), to_json(report, tagger), as_json, target)


def report_lines(report: EntityReport, tagger: EntityTagger) -> list[str]:
    """Format all systems, each type, and how to read the figures."""
    from minisbert.cli.table import grid, interval, signed

    rows = [["system", "F1", "95 %", "precision", "recall", "surface F1", "probe's lead"]]
    for one in report.systems:
        row = [one.name, _hundred(one.score.f1), interval(one.f1), _hundred(one.score.precision)]
        row += [_hundred(one.score.recall), _hundred(one.surface.f1)]
        if one.behind is not None:
            row.append(f"{signed(one.behind.mean)} ({interval(one.behind)})")
        rows.append(row)
    if report.published is not None:
        name, f1, surface = report.published
        rows.append(["published", _hundred(f1), "", "", "", _hundred(surface)])
    own = report.systems[0]
    types = [["type", "F1", "precision", "recall", "entities"]]
    for name, score in own.by_type.items():
        types.append([name, *map(_hundred, (score.f1, score.precision, score.recall)), f"{score.expected:,}"])
    heading = f"{report.name}: {report.sentences:,} sentences, {report.words:,} words, {report.entities:,} entities"
    wrapped = (textwrap.wrap(text, LINE_WIDTH, subsequent_indent="  ") for text in _remarks(report, tagger))
    remarks = [line for paragraph in wrapped for line in paragraph]
    return [heading, "", *grid(rows), "", "linear probe, by type", "", *grid(types), "", *remarks]


def _remarks(report: EntityReport, tagger: EntityTagger) -> list[str]:
    """What the figures measure, and what may surprise."""
    notes = [
        f"linear probe: {tagger.origin.model}, layer {', '.join(map(str, tagger.layers))}, {tagger.decoder}, trained "
        f"on {tagger.training.get('data')}",
        *(f"{one.name}: {one.note}" for one in report.systems if one.note),
        f"intervals: bootstrap over sentences; accuracy of tags per word: {_hundred(report.tags_right)}, and "
        f"{_hundred(report.outside)} if all are O",
    ]
    if report.unseen is not None:
        notes.append(f"{_hundred(report.unseen)} % of the entities do not occur with their type in the training file")
    if report.published is not None:
        notes.append(f"published: {report.published[0]}")
    return notes


def _hundred(value: float) -> str:
    """A share, x 100."""
    return f"{100 * value:.2f}"


# ------------------------------------------------------------------------------------------------------ as JSON


def to_json(report: EntityReport, tagger: EntityTagger) -> dict[str, Any]:
    """All figures as JSON, in [0, 1]."""
    published = report.published
    return {
        "set": report.name,
        "sentences": report.sentences,
        "words": report.words,
        "entities": report.entities,
        "tags_right": report.tags_right,
        "outside": report.outside,
        "unseen": report.unseen,
        "published": None if published is None else dict(zip(("name", "f1", "surface_f1"), published, strict=True)),
        "model": tagger.origin.model,
        "layers": list(tagger.layers),
        "training": dict(tagger.training),
        "systems": [_system(one) for one in report.systems],
        "versions": {"minisbert": __version__},
    }


def _system(one: SystemScore) -> dict[str, Any]:
    """One system's figures."""
    behind = one.behind
    return {
        "name": one.name,
        **_counts(one.score),
        "f1_interval": [one.f1.low, one.f1.high],
        "surface": _counts(one.surface),
        "by_type": {name: _counts(score) for name, score in one.by_type.items()},
        "probe_ahead_by": None if behind is None else {"f1": behind.mean, "interval": [behind.low, behind.high]},
        "note": one.note,
    }


def _counts(score: SpanScore) -> dict[str, Any]:
    """Counts, and the scores that follow."""
    return {**score._asdict(), "precision": score.precision, "recall": score.recall, "f1": score.f1}
