"""``minisbert classify`` and ``minisbert entities``: what is learnt on the frozen model's vectors, of texts or words.

Both are trained, applied, and evaluated beside baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from minisbert import __version__
from minisbert.analysis import classifier as learning
from minisbert.analysis import entities as tagging
from minisbert.analysis.tagging import read_tagged
from minisbert.cli import Group, options
from minisbert.cli.options import ModelChoice, TextSource, input_options, label_options
from minisbert.cli.outputs import Target, give, output_options, progress, result_options
from minisbert.cli.table import (
    NAME_WIDTH,
    class_lines,
    counted,
    estimated,
    figures,
    fixed,
    grid,
    grid_with_texts,
    hundred,
    printable,
    signed,
    terminal_width,
    wrapped,
)
from minisbert.evaluation.classification import read_labelled

UNDECIDED = "undecided"


@click.group(cls=Group)
def classify() -> None:
    """Train text classifiers on examples, and predict classes with probabilities.

    A classifier is logistic regression on the model's vectors; the model itself stays frozen. Training needs
    scikit-learn, prediction does not.

    \b
    Examples:
      minisbert classify train train.tsv -o mood --class-weight balanced
      minisbert classify predict mood "what a wonderful evening" "never again"
      minisbert classify evaluate mood test.tsv --baseline train.tsv

    `minisbert classify COMMAND --help` describes a command and shows more examples.
    """


# ----------------------------------------------------------------------------------------------------- classify train


@classify.command("train", short_help="Train a classifier on labelled texts.")
@click.argument("file", metavar="FILE", type=options.FILE)
@output_options("Output folder.", metavar="FOLDER", required=True, folder=learning.KIND)
@label_options
@click.option("--unescape", is_flag=True, help="Decode HTML entities such as &amp;, in training and in prediction.")
@click.option(
    "--class-weight", multiple=True, metavar="balanced|CLASS=WEIGHT", help="More weight for rare or important classes."
)
@options.strength_option("1, 10, 100")
@options.folds_option(5)
@options.seed_option
@click.option("--threshold-for", metavar="CLASS", help="Predict this class only above a threshold; needs --precision.")
@click.option("--precision", type=options.PRECISION, help="Minimum precision for this class; sets the threshold.")
@options.cut_option
@options.model_options
def classify_train(
    file: Path, target: Target, reading: dict[str, Any], overflow: str, choice: ModelChoice, **settings: Any
) -> None:
    """Train logistic regression on the model's vectors of the labelled texts in FILE.

    Each row of FILE has a label and a text: CSV, TSV, JSONL, JSON or Parquet, plain or .gz. The regularisation
    strength, the temperature of the probabilities and the threshold for a minimum precision are chosen by
    cross-validation; the figures shown are for held-out texts.

    \b
    Examples:
      minisbert classify train train.tsv -o mood
      minisbert classify train train.tsv -o fair --class-weight balanced
      minisbert classify train train.tsv -o strict --threshold-for good --precision 0.8
    """
    if (settings["threshold_for"] is None) != (settings["precision"] is None):
        raise click.UsageError("--threshold-for and --precision must be given together.")
    data = read_labelled(file, **reading)
    settings["encode_options"] = {"overflow": overflow, "show_progress_bar": progress}
    settings["strengths"] = settings["strengths"] or learning.STRENGTHS
    settings["class_weight"] = read_weights(settings["class_weight"])
    trained = learning.train_classifier(choice.encoder(), data, **settings)
    classifier = trained.classifier
    target.save(classifier)
    report = learning.report_scores(classifier, trained.held_out, trained.labels, name=data.name)
    facts, threshold, model = classifier.facts, classifier.threshold, classifier.origin and classifier.origin.model
    tried, chosen = facts["strengths"], facts["strength"]
    at_edge = len(tried) > 1 and chosen in (tried[0], tried[-1])
    lines = [
        f"{report.set}: {counted(facts['texts'], 'text')}, {len(report.classes):,} classes; {model or 'vectors'}",
        f"C {chosen:g}, the best of {', '.join(f'{one:g}' for one in tried)}: log loss "
        f"{facts['scores'][tried.index(chosen)]:.4f}, {facts['folds']} folds{'; try others beyond it' * at_edge}",
        "",
        "On held-out texts:",
        "",
        *classifier_lines(report),
    ]
    if threshold is not None:
        lines.append(
            f"{threshold.label!r} is predicted from a probability of {threshold.probability:.4f}: precision "
            f"{threshold.precision:.3f}, recall {threshold.recall:.3f}, chosen on these texts, so slightly optimistic"
        )
    held_out = {name: value for name, value in vars(report).items() if name != "baseline"}  # which is for test sets
    about = {"unescape": classifier.unescape, "threshold": threshold, "model": model, "out_of_fold": held_out}
    target.give(lines, {**facts, **about, **classifier.calibration._asdict()})


def read_weights(said: Sequence[str]) -> str | dict[str, float] | None:
    """Parse class weights.

    >>> read_weights(["hate=3", "a=b=0.5"]), read_weights(["balanced"]), read_weights([])
    ({'hate': 3.0, 'a=b': 0.5}, 'balanced', None)
    """
    if list(said) == ["balanced"]:
        return "balanced"
    try:
        return {label: float(number) for label, _, number in (pair.rpartition("=") for pair in said)} or None
    except ValueError:
        raise click.UsageError(f"--class-weight must be balanced or CLASS=WEIGHT, got {', '.join(said)}.") from None


# --------------------------------------------------------------------------------------------------- classify predict


@classify.command("predict", short_help="Classify texts, with probabilities.")
@click.argument("folder", metavar="FOLDER", type=options.PLACE)
@input_options
@output_options("Write a .csv, .tsv or .jsonl with the probabilities of all classes.", "csv", "tsv", "jsonl")
@options.cut_option
@options.model_options
def classify_predict(folder: Path, source: TextSource, target: Target, overflow: str, choice: ModelChoice) -> None:
    """Predict the class of each text with the classifier in FOLDER, written by `classify train`.

    The probability shown is that of the predicted class. If the class with a threshold would be predicted but stays
    below its threshold, the text is undecided and that class's probability is shown. With class weights, the predicted
    class need not be the most probable one.

    \b
    Examples:
      minisbert classify predict mood "what a wonderful evening" "never again"
      minisbert classify predict mood -i texts.txt -o moods.csv
      minisbert classify predict mood -i texts.txt --json
    """
    source.check("classify")
    classifier = learning.load_classifier(folder)
    texts = source.read(filled=True)
    if not texts:
        raise click.UsageError("Nothing to classify: the input has no texts.")
    vectors = classifier.encode(choice.encoder(), texts, overflow=overflow, show_progress_bar=progress)
    labels, probs = classifier.predict(vectors), classifier.predict_proba(vectors).tolist()
    strict = classifier.threshold.label if classifier.threshold is not None else ""
    found, rows, cells = [], [], [("label", "prob.")]
    for text, label, row in zip(texts, labels, probs, strict=True):
        by_class = dict(zip(classifier.classes, row, strict=True))
        one = {"text": text, "label": label, "probability": by_class[strict if label is None else label]}
        found.append({**one, "probabilities": by_class})
        rows.append({**one, **{f"p({name})": p for name, p in by_class.items()}})  # an undecided text's label is empty
        cells.append((printable(label or UNDECIDED, NAME_WIDTH), f"{one['probability']:.3f}"))
    target.write_rows(found if target.kind == "jsonl" else rows)
    if target.as_json or target.file is None:
        target.give(grid_with_texts(cells, ["text", *texts]), found)


# -------------------------------------------------------------------------------------------------- classify evaluate


@classify.command("evaluate", short_help="Evaluate a classifier, and compare it with TF-IDF.")
@click.argument("folder", metavar="FOLDER", type=options.PLACE)
@click.argument("file", metavar="FILE", type=options.FILE)
@click.option(
    "--baseline", type=options.FILE, help="The training file: TF-IDF with logistic regression learns it, too."
)
@label_options
@output_options("Write the result as JSON, with every text.")
@options.cut_option
@options.model_options
def classify_evaluate(
    folder: Path,
    file: Path,
    baseline: Path | None,
    reading: dict[str, Any],
    target: Target,
    choice: ModelChoice,
    **encoding: Any,
) -> None:
    """Evaluate the classifier in FOLDER on the labelled texts in FILE.

    Shows accuracy, precision, recall and F1 per class, the most frequent confusions, and the quality of the
    probabilities before and after calibration, with 95 % intervals over the texts. Test texts that were also training
    texts are counted. With --baseline, TF-IDF of words and word pairs is compared with the vectors on the same texts.

    \b
    Examples:
      minisbert classify evaluate mood test.tsv
      minisbert classify evaluate mood test.tsv --baseline train.tsv
      minisbert classify evaluate mood test.tsv -o result.json --json
    """
    classifier = learning.load_classifier(folder)
    data = read_labelled(file, **reading)
    train = None if baseline is None else read_labelled(baseline, **reading)
    encoder = choice.encoder()
    encoding["show_progress_bar"] = progress
    report = learning.evaluate_classifier(classifier, encoder, data, train=train, **encoding)
    lines = [f"{folder.name}, {encoder.folder.name}, on {report.set}", "", *classifier_lines(report)]
    if report.baseline is not None:
        lines += ["", *baseline_lines(report, report.baseline)]
    about = {"classifier": folder.name, "model": encoder.folder.name, "minisbert": __version__}
    target.report(lines, {**about, **vars(report)})


def classifier_lines(report: learning.ClassifierReport) -> list[str]:
    """Format everything about one classifier."""
    lines = [f"accuracy {estimated(report.accuracy)}, {counted(report.texts, 'text')}"]
    if report.undecided:
        lines.append(f"{counted(report.undecided, 'text')} undecided, counted as wrong")
    if report.learnt:
        unseen = report.accuracy_unseen
        others = f"; accuracy on the others {estimated(unseen)}" if unseen else ""
        lines.append(f"{report.learnt:,} of {report.texts:,} texts are identical to training texts{others}")
    rows = [["probabilities", "log loss", "Brier", "calibration error"]]
    for key, name in (("as_fitted", "uncalibrated"), ("calibrated", "calibrated")):
        rows.append([name, *(f"{number:.4f}" for number in report.probabilities[key])])
    return [*lines, f"macro-F1 {estimated(report.macro_f1)}", "", *class_lines(report), "", *grid(rows)]


def baseline_lines(report: learning.ClassifierReport, beside: learning.Baseline) -> list[str]:
    """Format both classifiers and their difference."""
    ours, theirs = beside.vectors, beside.tfidf
    gaps = beside.accuracy_difference, beside.f1_difference
    rows = [
        ["", "vectors", "TF-IDF", "difference", "95 %"],
        ["accuracy", hundred(ours.accuracy.mean), hundred(theirs.accuracy.mean), *figures(gaps[0], signed)],
        ["macro-F1", hundred(ours.macro_f1.mean), hundred(theirs.macro_f1.mean), *figures(gaps[1], signed)],
        ["log loss", fixed(report.probabilities["calibrated"].log_loss, 4), fixed(beside.probabilities.log_loss, 4)],
    ]
    remark = (
        f"TF-IDF: {beside.features:,} words and word pairs, logistic regression with strength {beside.strength:g}, "
        "same folds, strengths, class weights and calibration"
    )
    if (report.predicted != report.without_threshold).any():
        remark += "; compared without the threshold"
    return [*grid(rows), *wrapped([remark])]


# ---------------------------------------------------------------------------------------------------------- entities


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


# ----------------------------------------------------------------------------------------------------- entities train


@entities.command("train", short_help="Train a tagger on sentences with tagged words.")
@click.argument("train", metavar="TRAIN", type=options.FILE)
@output_options("Output folder.", metavar="FOLDER", required=True, folder=tagging.KIND)
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
def entities_train(train: Path, target: Target, dev: Path | None, choice: ModelChoice, **settings: Any) -> None:
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
        tagger = tagging.train_tagger(choice.encoder(), data, show_progress_bar=progress, progress=tell, **given)
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


# --------------------------------------------------------------------------------------------------- entities predict


@entities.command("predict", short_help="Find entities in texts.")
@click.argument("folder", metavar="FOLDER", type=options.PLACE)
@input_options
@options.json_option
@options.model_options
def entities_predict(folder: Path, source: TextSource, as_json: bool, choice: ModelChoice) -> None:
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
    tagger = tagging.load_tagger(folder)
    texts = source.read()
    found = tagger.find(choice.encoder(), texts, show_progress_bar=progress)
    for text, names in zip(texts, found, strict=True):
        rows = [
            ["", printable(one.text, NAME_WIDTH), one.type, f"{one.start}-{one.stop}", f"{one.probability:.2f}"]
            for one in names
        ]
        lines = [printable(text, terminal_width()), *grid(rows or [["", "(none)"]], "<<<>>")]
        give(as_json, lines, {"text": text, "entities": names})


# -------------------------------------------------------------------------------------------------- entities evaluate


@entities.command("evaluate", short_help="Evaluate a tagger, and compare it with baselines.")
@click.argument("folder", metavar="FOLDER", type=options.PLACE)
@click.argument("test", metavar="TEST", type=options.FILE)
@click.option("--baselines", "train", type=options.FILE, help="The training file; baselines are trained on it, too.")
@click.option("--dev", type=options.FILE, help="Where the baseline by spelling is tuned.  [default: folds of TRAIN]")
@result_options
@options.model_options
def entities_evaluate(
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
    tagger, data = tagging.load_tagger(folder), read_tagged(test)
    others: dict[str, Any] = {"show_progress_bar": progress}
    others |= {name: file and read_tagged(file) for name, file in (("train", train), ("dev", dev))}
    with _telling() as tell:
        report = tagging.evaluate_tagger(tagger, choice.encoder(), data, progress=tell, **others)
    about = {"tagger": folder.name, "model": tagger.origin.model, "layer": tagger.layer, "training": tagger.training}
    target.report(tagger_lines(report, tagger), {**vars(report), **about, "minisbert": __version__})


def tagger_lines(report: tagging.EntityReport, tagger: tagging.EntityTagger) -> list[str]:
    """Format all systems, each type, and how to read the figures."""

    def row(name: str, score: tagging.SpanScore, *more: str) -> list[str]:
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
