"""``minisbert entities``: train an entity tagger, apply it, and evaluate it beside baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from minisbert import __version__
from minisbert.analysis.entities import (
    KIND,
    EntityReport,
    EntityTagger,
    SpanScore,
    evaluate_tagger,
    load_tagger,
    train_tagger,
)
from minisbert.analysis.tagging import read_tagged
from minisbert.cli import Group, options
from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice
from minisbert.cli.outputs import Target, give, output_options, progress, result_options
from minisbert.cli.table import (
    NAME_WIDTH,
    estimated,
    figures,
    grid,
    hundred,
    printable,
    signed,
    terminal_width,
    wrapped,
)


@click.group(cls=Group)
def entities() -> None:
    """Find names of people, places and things with a linear probe on word vectors.

    The model stays frozen; only one matrix is learnt. That makes training quick, and shows what the vectors encode. A
    tagger with all layers fine-tuned is better. The default model is uncased.

    \b
    Examples:
      minisbert entities train names_train.jsonl --dev names_dev.jsonl -o names
      minisbert entities predict names "Ada met Charles in London."
      minisbert entities evaluate names names_test.jsonl --baselines names_train.jsonl

    `minisbert entities COMMAND --help` describes a command and shows more examples.
    """


@contextmanager
def _telling() -> Iterator[Callable[[str], object]]:
    """Show what is being fitted."""
    with progress(bar_format="{desc}", leave=False) as bar:

        def tell(words: str) -> None:
            bar.set_description_str(f"fitted: {words}", refresh=False)
            bar.update()

        yield tell


# ------------------------------------------------------------------------------------------------------- train


@entities.command(short_help="Train a tagger on sentences with tagged words.")
@click.argument("train", metavar="TRAIN", type=options.FILE)
@output_options("Output folder.", metavar="FOLDER", required=True, folder=KIND)
@click.option("--dev", type=options.FILE, help="Where C and offset are chosen.  [default: folds of TRAIN]")
@click.option(
    "--layer",
    type=click.IntRange(0),
    help="Layer whose vectors are used; 0 is the embeddings.  [default: the middle]",
)
@options.strength_option("0.003, 0.01, 0.03, 0.1")
@click.option(
    "--offset", "offsets", type=click.FloatRange(0), multiple=True, help="Lower the score of O. May be repeated."
)
@options.folds_option(3)
@options.seed_option
@options.model_options
def train(train: Path, target: Target, dev: Path | None, choice: ModelChoice, **settings: Any) -> None:
    """Train a tagger on TRAIN, sentences with tagged words, and write it to a folder.

    Files are JSONL with the lists "tokens" and "tags" in each line, or CoNLL (.conll): a word per line, the first
    column is the word and the last its tag, an empty line after each sentence. Tags are IOB2 (B-person begins an
    entity, I-person continues it, O is outside), IOB1, BIOES or BILOU. Long sentences are read in windows; nothing is
    cut off. Needs scikit-learn.

    \b
    Examples:
      minisbert entities train names_train.jsonl --dev names_dev.jsonl -o names
      minisbert entities train names_train.conll -o names
      minisbert entities train names_train.jsonl -o names --layer 1 --strength 0.01 --offset 1
    """
    data = read_tagged(train)
    settings["dev"] = None if dev is None else read_tagged(dev)
    given = {name: value for name, value in settings.items() if value != ()}  # options that may be repeated, and are
    with _telling() as tell:
        tagger = train_tagger(choice.encoder(), data, show_progress_bar=progress, progress=tell, **given)
    target.save(tagger)
    told = tagger.training
    sizes = f"{told['sentences']:,} sentences, {told['words']:,} words"
    chosen = "as given"
    if told["f1"]:
        best, count = max(map(max, told["f1"])), len(told["strengths"]) * len(told["offsets"])
        chosen = f"the best of {count}: F1 of spans {hundred(best)} on {told['chosen_on']}, slightly optimistic"
    lines = [
        f"{tagger.origin.model}, layer {tagger.layer}; {told['data']}: {sizes}; types: {', '.join(tagger.types)}",
        f"C {told['strength']:g}, offset {tagger.offset:g}, {chosen}",
    ]
    target.give(lines, {"model": tagger.origin.model, "layer": tagger.layer, "types": tagger.types, **told})


# ----------------------------------------------------------------------------------------------------- predict


@entities.command(short_help="Find entities in texts.")
@click.argument("folder", metavar="FOLDER", type=options.PLACE)
@input_options
@options.json_option
@options.model_options
def predict(folder: Path, source: TextSource, as_json: bool, choice: ModelChoice) -> None:
    """Find entities in texts with the tagger in FOLDER and the model it was trained with.

    Each name is shown with its start and end in characters (from 0, end exclusive) and the probability that exactly
    these words are an entity of this type. --json prints one object per text, in order.

    \b
    Examples:
      minisbert entities predict names "Ada met Charles in London."
      minisbert entities predict names -i texts.txt
      minisbert entities predict names "Ada met Charles." "soup" --json
    """
    source.check("search")
    tagger = load_tagger(folder)
    texts = source.read()
    found = tagger.find(choice.encoder(), texts, show_progress_bar=progress)
    for text, names in zip(texts, found, strict=True):
        rows = [
            ["", printable(one.text, NAME_WIDTH), one.type, f"{one.start}-{one.stop}", f"{one.probability:.2f}"]
            for one in names
        ]
        lines = [printable(text, terminal_width()), *grid(rows or [["", "(none)"]], "<<<>>")]
        give(as_json, lines, {"text": text, "entities": names})


# ---------------------------------------------------------------------------------------------------- evaluate


@entities.command(short_help="Evaluate a tagger, and compare it with baselines.")
@click.argument("folder", metavar="FOLDER", type=options.PLACE)
@click.argument("test", metavar="TEST", type=options.FILE)
@click.option("--baselines", "train", type=options.FILE, help="The training file; baselines are trained on it, too.")
@click.option("--dev", type=options.FILE, help="Where the baseline by spelling is tuned.  [default: folds of TRAIN]")
@result_options
@options.model_options
def evaluate(
    folder: Path, test: Path, train: Path | None, dev: Path | None, target: Target, choice: ModelChoice
) -> None:
    """Evaluate the tagger in FOLDER on TEST: precision, recall and F1 of spans, with 95 % intervals.

    A span is correct if its first word, last word and type are. The baselines are a lexicon of the tags of words in
    TRAIN, logistic regression on the spelling of words, and no entities at all. Files are as for `minisbert entities
    train`.

    \b
    Examples:
      minisbert entities evaluate names names_test.jsonl
      minisbert entities evaluate names names_test.jsonl --baselines names_train.jsonl --dev names_dev.jsonl
      minisbert entities evaluate names names_test.conll -o result.json
    """
    if dev is not None and train is None:
        raise click.UsageError("--dev is for the baselines: give their training file with --baselines.")
    tagger, data = load_tagger(folder), read_tagged(test)
    others: dict[str, Any] = {"show_progress_bar": progress}
    others |= {name: file and read_tagged(file) for name, file in (("train", train), ("dev", dev))}
    with _telling() as tell:
        report = evaluate_tagger(tagger, choice.encoder(), data, progress=tell, **others)
    about = {"tagger": folder.name, "model": tagger.origin.model, "layer": tagger.layer, "training": tagger.training}
    target.report(_report_lines(report, tagger), {**vars(report), **about, "minisbert": __version__})


def _report_lines(report: EntityReport, tagger: EntityTagger) -> list[str]:
    """Format all systems, each type, and how to read the figures."""

    def row(name: str, score: SpanScore, *more: str) -> list[str]:
        return [name, *figures(score.f1), hundred(score.precision.mean), hundred(score.recall.mean), *more]

    heads = "F1", "95 %", "precision", "recall"
    ahead = [(one, [] if one.tagger_ahead is None else [estimated(one.tagger_ahead, signed)]) for one in report.systems]
    rows = [["system", *heads, "probe's lead"], *(row(one.name, one.spans, *lead) for one, lead in ahead)]
    by_type = report.systems[0].by_type.items()
    types = [["type", *heads, "entities"], *(row(name, one, f"{one.expected:,}") for name, one in by_type)]
    published = report.published
    if published is not None:
        rows.append(["published", hundred(published.f1)])
    remarks = [
        f"linear probe: {tagger.origin.model}, layer {tagger.layer}, trained on {tagger.training.get('data')}",
        *(f"{one.name}: {one.note}" for one in report.systems if one.note),
        f"intervals: bootstrap over sentences; accuracy of tags per word: {hundred(report.tags_right)}, and "
        f"{hundred(report.outside)} if all are O",
    ]
    if report.unseen is not None:
        remarks.append(f"{hundred(report.unseen)} % of the entities do not occur with their type in the training file")
    if published is not None:
        remarks.append(f"published: {published.name}")
    heading = f"{report.set}: {report.sentences:,} sentences, {report.words:,} words, {report.entities:,} entities"
    return [heading, "", *grid(rows), "", "linear probe, by type", "", *grid(types), "", *wrapped(remarks)]
