"""``minisbert evaluate``: score a model on benchmarks, beside published figures."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert import SentenceEncoder, __version__, hub
from minisbert.checks import require
from minisbert.cli import Group, options
from minisbert.cli.options import columns_options, label_options
from minisbert.cli.outputs import Target, output_options, progress, result_options
from minisbert.cli.table import beside, counted, figures, fixed, grid, hundred, interval, printable, signed, wrapped
from minisbert.evaluation.classification import CLASSIFIERS, PUBLISHED, evaluate_classification, read_labelled
from minisbert.evaluation.measures import RESAMPLES, paired_difference
from minisbert.evaluation.published import MTEB_SOURCE, PAPER_NOTE, PAPER_SOURCE, PAPER_STSB, Benchmark, find_sets
from minisbert.evaluation.retrieval import RetrievalResult, evaluate_retrieval, read_retrieval
from minisbert.evaluation.sts import PROTOCOL, SIMILARITIES, StsPairs, evaluate_sts, layer_scores, read_sts
from minisbert.plots import heat_map


@click.group(cls=Group)
def evaluate() -> None:
    """Evaluate the model on labelled test sets, next to published figures.

    \b
    Examples:
      minisbert evaluate sts data/sts12 data/stsb/stsb_test.tsv
      minisbert evaluate layers data/stsb/stsb_test.tsv
      minisbert evaluate retrieval scifact

    `minisbert evaluate COMMAND --help` describes a command and shows more examples.
    """


def _is_comparable(choice: options.ModelChoice, encoder: SentenceEncoder) -> bool:
    """Whether published figures are for this model: these weights, with its own limit."""
    return choice.max_seq_length is None and hub.is_default_model(encoder.folder)


# --------------------------------------------------------------------------------------------------------- sts


Sets = list[tuple[Benchmark | None, StsPairs]]  # with what is known of a set


def pair_options(verb: options.Verb) -> options.Verb:
    """Add PATH and the options about files of pairs to a verb, which receives the ``sets`` in them."""

    @click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True, path_type=Path))
    @columns_options("score", "sentence1", "sentence2")
    @click.option(
        "--scale",
        type=options.Numbers(float, 2),
        metavar="LOW,HIGH",
        help="Range of the scores; a score outside is an error.  [default: known for known sets, else not checked]",
    )
    @functools.wraps(verb)
    def gathered(
        paths: tuple[Path, ...], reading: dict[str, Any], scale: tuple[float, float] | None, **rest: Any
    ) -> None:
        if scale is not None and not scale[0] < scale[1]:
            raise click.UsageError(f"--scale must be LOW,HIGH, such as 0,5, got {scale[0]:g},{scale[1]:g}.")
        sets: Sets = []
        for known, files in (one for path in paths for one in find_sets(path)):
            name, own = (str(files[0]), None) if known is None else (known.name, known.scale)
            sets.append((known, read_sts(files, name=name, scale=scale or own, **reading)))
        verb(sets=sets, **rest)

    return gathered


@evaluate.command(short_help="Correlate similarities with human scores.")
@result_options
@pair_options
@options.model_options
def sts(sets: Sets, target: Target, choice: options.ModelChoice) -> None:
    """Correlate the model's similarities with human scores, next to the published figures.

    A PATH is a file of pairs (CSV, TSV, JSONL, JSON or Parquet, plain or .gz), or a folder with well-known test sets.
    These are recognised by file name: STS12_test.tsv to STS16_test.tsv, stsb_test.tsv, biosses.tsv, and sick_train.tsv,
    sick_trial.tsv, sick_test.tsv in one folder, which together form SICK-R.

    \b
    Examples:
      minisbert evaluate sts data/sts12 data/stsb/stsb_test.tsv
      minisbert evaluate sts data -o result.json
      minisbert evaluate sts pairs.csv --columns 3,1,2 --scale 0,5 --no-header
    """
    encoder = choice.encoder()
    comparable = _is_comparable(choice, encoder)
    whole: list[dict[str, Any]] = []
    rows, notes = [["set", "pairs", *SIMILARITIES, "r cosine"]], []
    for known, pairs in sets:
        found = evaluate_sts(encoder, pairs, show_progress_bar=progress)
        row = [printable(found.name, 30), f"{found.pairs:,}", *(f"{found.spearman[name]:.3f}" for name in SIMILARITIES)]
        row.append(f"{found.pearson['cosine']:.3f}")
        told: dict[str, Any] = {"published": None, "difference": None, "note": ""}
        if known is not None and comparable and known.pairs != found.pairs:
            notes.append(f"{known.name} has {found.pairs:,} pairs here and {known.pairs:,} as published: not compared")
        elif known is not None and comparable and known.published is not None:
            difference = found.spearman["cosine"] - known.published
            told = {"published": known.published, "difference": difference, "note": known.note}
            row += [f"{known.published:.3f}", signed(difference / 100, 3)]
            notes += [known.note] * bool(known.note)
        rows.append(row)
        whole.append({**vars(found), "protocol": PROTOCOL, **told})
    remarks = [f"protocol: {PROTOCOL}"]
    if any(one["published"] is not None for one in whole):
        rows[0] += ["published", "difference"]
        remarks.append(f"published: {MTEB_SOURCE}")
    remarks += dict.fromkeys(notes)
    if any(one["name"] == "STSb" for one in whole):
        quoted = ", ".join(f"{name} {figure:.2f}" for name, figure in PAPER_STSB.items())
        remarks.append(f"quoted for STSb: {quoted} ({PAPER_SOURCE}). {PAPER_NOTE}")
    result = {"model": encoder.folder, "max_seq_length": encoder.max_seq_length, "sets": whole}
    result |= {"published_source": MTEB_SOURCE, "minisbert": __version__}
    title = f"{encoder.folder.name}: Spearman x 100 by similarity; r cosine: Pearson x 100"
    target.report([title, "", *grid(rows), "", *wrapped(remarks)], result)


# ------------------------------------------------------------------------------------------------------- layers


_NO_SCORE = "none: all pairs are equally similar, because [CLS] is the same in every text before attention."
_SAME_COSINE = "mean and mean_sqrt_len_tokens differ by a factor, to which the cosine is invariant."


@evaluate.command(short_help="Score every layer with every pooling, as a heat map.")
@output_options("Draw a heat map (extra `plots`).", "png", metavar="FILE.png")
@pair_options
@options.model_options
def layers(sets: Sets, target: Target, choice: options.ModelChoice) -> None:
    """Score every hidden layer with every pooling on a set of pairs: Spearman of the cosine, x 100.

    Layer 0 is the output of the embeddings, before any attention. The model's own layer and pooling are marked.

    \b
    Examples:
      minisbert evaluate layers data/stsb/stsb_test.tsv
      minisbert evaluate layers pairs.tsv -o layers.png
    """
    if len(sets) != 1:
        raise click.UsageError(f"Expected one set of pairs, found {', '.join(pairs.name for _, pairs in sets)}.")
    [(_, pairs)] = sets
    encoder = choice.encoder()
    with progress(total=len({*pairs.sentences1, *pairs.sentences2}), unit="text", desc="layers") as bar:
        found = layer_scores(encoder, pairs, progress=bar.update)
    names = ["embeddings (0)", *(f"layer {place}" for place in range(1, len(found.values)))]
    cells = [[fixed(score) for score in scores] for scores in found.values.tolist()]
    said = [_NO_SCORE] * bool(np.isnan(found.values).any())
    own, framed, starred = None, [], []
    if found.own is not None:
        place, column = found.own
        own = {"layer": place, "pooling": found.poolings[column]}
        cells[place][column] = f"*{cells[place][column]}"
        framed, starred = ["Framed: the model's own layer and pooling."], ["* is the model's own layer and pooling."]
    caption = " ".join(["Spearman x 100 of the cosine with human scores.", *framed, *said])
    about = {"title": f"{encoder.folder.name} on {found.name}: layer x pooling", "marked": found.own}
    target.write(heat_map, found.values, names, found.poolings, caption=caption, **about)
    rows = [["", *found.poolings], *([name, *line] for name, line in zip(names, cells, strict=True))]
    remark = " ".join([*starred, *said, _SAME_COSINE])
    measure = "Spearman x 100 of the cosine"
    result = {"model": encoder.folder, "set": found.name, "pairs": found.pairs, "measure": measure, "own": own}
    result |= {"protocol": PROTOCOL, "poolings": found.poolings, "layers": found.values, "minisbert": __version__}
    title = f"{encoder.folder.name} on {found.name}, {found.pairs:,} pairs: {measure}"
    target.give([title, "", *grid(rows), "", *wrapped([remark])], result)


# ---------------------------------------------------------------------------------------------------- retrieval


@evaluate.command(short_help="Measure retrieval quality: nDCG, MAP, MRR, recall.")
@click.argument("folder", metavar="FOLDER")
@click.option("--split", default="test", help="Judgements to use: qrels/SPLIT.tsv.")
@click.option("--without-title", is_flag=True, help="Leave out the titles of documents.")
@click.option("--query-prompt", metavar="TEXT", type=options.TEXT, help="Prepend this to every query.")
@click.option("--document-prompt", metavar="TEXT", type=options.TEXT, help="Prepend this to every document.")
@options.chunk_option(help="Also read documents whole, in chunks of this length, and compare with cutting them.")
@click.option(
    "--composition",
    type=click.Choice(["weighted_mean", "mean", "max", "first", "late", "best"]),
    help="How a document's chunks are combined; best: each keeps its vector, and the best one counts.  "
    "[default: weighted_mean]",
)
@result_options
@options.model_options
def retrieval(
    folder: str,
    split: str,
    without_title: bool,
    chunk_tokens: int | None,
    composition: str | None,
    target: Target,
    choice: options.ModelChoice,
    **prompts: str | None,
) -> None:
    """Measure how well a model retrieves documents: nDCG, MAP, MRR and recall, next to MTEB's figures.

    FOLDER has BEIR's layout: corpus.jsonl, queries.jsonl and qrels/test.tsv (or qrels_test.tsv, qrels.tsv), each plain
    or .gz. The measures are trec_eval's. Intervals come from resampling the queries (bootstrap); with --chunk-tokens, *
    marks a difference whose interval excludes 0.

    \b
    Examples:
      minisbert evaluate retrieval scifact
      minisbert evaluate retrieval scifact --chunk-tokens 16 --composition late
      minisbert evaluate retrieval scifact --max-seq-length 16 -o result.json
    """
    if chunk_tokens is None and composition is not None:
        raise click.UsageError("--composition is for chunks; give --chunk-tokens, too.")
    composition = composition or "weighted_mean"
    found = read_retrieval(folder, split, with_title=not without_title)
    encoder = choice.encoder()
    encoding: dict[str, Any] = {**prompts, "show_progress_bar": progress}
    result = evaluate_retrieval(encoder, found, **encoding)
    # MTEB's figures are with titles and without prompts
    as_published = _is_comparable(choice, encoder) and not (without_title or any(prompts.values()))
    published = found.published if as_published else {}
    estimates = result.estimates()
    rows = [["measure", "ours", "interval", *(["published", "difference"] if published else [])]]
    rows += [[name, *figures(one), *beside(one.mean, published.get(name))] for name, one in estimates.items()]
    left_out = f"; {found.queries_left_out:,} queries without judgements left out" if found.queries_left_out else ""
    said = [
        f"{cut.texts_cut:,} of {counted(cut.texts, one)}, with {100 * cut.share_lost:.1f} % of all tokens"
        for cut, one in ((result.documents_cut, "document"), (result.queries_cut, "query"))
    ]
    lines = [
        f"{found.name}, {split}: {len(found.queries):,} queries, {len(found.documents):,} documents, "
        f"{found.judgements:,} judgements ({found.source}){left_out}",
        f"document: {'title + text' if found.with_title else 'text without title'}",
        f"model: {encoder.folder.name}, {encoder.dtype}; {encoder.similarity_fn_name} similarity, exact search",
        f"cut at {result.max_seq_length} tokens: {'; '.join(said)}",
        f"measures: trec_eval's, x 100, mean over queries; interval: 95 %, bootstrap, {RESAMPLES:,} resamples",
        "",
        *grid(rows),
    ]
    if published:
        lines += ["", "published: MTEB's results repository, all-MiniLM-L6-v2, title + text, cut at 256 tokens"]
    answer = {
        "set": found.name,
        "documents": len(found.documents),
        "queries": len(found.queries),
        "queries_left_out": found.queries_left_out,
        "judgements": found.judgements,
        "judgements_source": found.source,
        "with_title": found.with_title,
        "split": split,
        **prompts,
        "model": encoder.folder.name,
        "dtype": str(encoder.dtype),
        "similarity_fn_name": encoder.similarity_fn_name,
        "max_seq_length": encoder.max_seq_length,
        "versions": {"minisbert": __version__},
        "bootstrap": {"resamples": RESAMPLES, "confidence": 0.95},
        "documents_cut": result.documents_cut,
        "queries_cut": result.queries_cut,
        "measures": {name: {**one._asdict(), "published": published.get(name)} for name, one in estimates.items()},
        "per_query": _per_query(result),
    }
    if chunk_tokens is not None:
        chunks: dict[str, Any] = {"chunk_tokens": chunk_tokens, "composition": composition}
        chunked = evaluate_retrieval(encoder, found, **chunks, **encoding)
        rows, measures = [["measure", "in chunks", "interval", "difference", "interval"]], {}
        for name, estimate in chunked.estimates().items():
            gap = paired_difference(chunked.measures[name], result.measures[name])
            measures[name] = {**estimate._asdict(), "difference": gap}
            rows.append([name, *figures(estimate), signed(gap.mean), interval(gap, signed) + " *" * gap.excludes_zero])
        head = (
            f"documents whole, in chunks of at most {chunk_tokens} tokens, {composition}: {chunked.vectors:,} vectors"
        )
        lines += ["", f"{head}; difference: to the documents cut", *grid(rows)]
        chunks |= {"vectors": chunked.vectors, "measures": measures, "per_query": _per_query(chunked)}
        answer["chunks"] = chunks
    target.report(lines, answer)


def _per_query(result: RetrievalResult) -> dict[str, dict[str, float]]:
    """Each query's measures."""
    rows = zip(*(values.tolist() for values in result.measures.values()), strict=True)
    return {
        query: dict(zip(result.measures, row, strict=True))
        for query, row in zip(result.retrieval_set.query_ids, rows, strict=True)
    }


# ----------------------------------------------------------------------------------------------- classification


@evaluate.command(short_help="Classify texts from a few examples per class.")
@click.argument("train", metavar="TRAIN", type=options.FILE)
@click.argument("test", metavar="TEST", type=options.FILE)
@click.option(
    "--examples-per-class", type=options.COUNT, default=8, metavar="COUNT", help="Training examples per class."
)
@click.option(
    "--draws",
    type=options.COUNT,
    default=10,
    metavar="COUNT",
    help="Number of random draws of the examples; the figures are means.",
)
@options.seed_option
@label_options
@result_options
@options.model_options
def classification(
    train: Path, test: Path, reading: dict[str, Any], target: Target, choice: options.ModelChoice, **draw: Any
) -> None:
    """Classify the texts of TEST from a few examples per class in TRAIN, on the frozen model's vectors.

    Each row of both files has a label and a text: CSV, TSV, JSONL, JSON or Parquet, plain or .gz. Examples
    are drawn several times, as in MTEB, and the figures are means over the draws. The model itself is not trained.

    \b
    Examples:
      minisbert evaluate classification train.tsv test.tsv
      minisbert evaluate classification train.tsv test.tsv --examples-per-class 1 --draws 3 -o result.json
      minisbert evaluate classification train.tsv test.tsv --columns label,text
    """
    require("sklearn", "apps", "evaluate classification")
    sets = read_labelled(train, **reading), read_labelled(test, **reading)
    encoder = choice.encoder()
    results = evaluate_classification(encoder, *sets, classifiers=list(CLASSIFIERS), show_progress_bar=progress, **draw)
    first, draws, per_class = results["centroid"], draw["draws"], draw["examples_per_class"]
    protocol = (*(len(one.texts) for one in sets), len(first.classes), per_class, draws)
    published = {}
    if _is_comparable(choice, encoder):
        published = {name: PUBLISHED[key][1] for name in results if (key := (*protocol, name)) in PUBLISHED}
    rows = [["classifier", "accuracy", "over draws", "over test texts", "macro-F1"]]
    rows[0] += ["published", "difference"] if published else []
    by_name = {}
    for name, result in results.items():
        over_draws, over_texts, macro_f1 = result.over_draws(), result.over_texts(), result.macro_f1.mean()
        theirs = beside(over_draws.mean, published.get(name))
        rows.append([name, *figures(over_draws), interval(over_texts), hundred(macro_f1), *theirs])
        by_name[name] = {
            "accuracy": result.accuracies.mean(),
            "over_draws": over_draws,
            "over_texts": over_texts,
            "macro_f1": macro_f1,
            "published": published.get(name),
            "per_draw": result.accuracies,
            "per_text": result.correct.mean(axis=0),
        }
    trained, tested = (printable(one.name, 40) for one in sets)
    one_draw = "; one draw has none" if draws == 1 else ""
    remarks = [
        f"{tested}: {len(sets[1].texts):,} texts, {len(first.classes):,} classes; examples from {trained}: "
        f"{len(sets[0].texts):,} texts, {per_class:,} per class in each of {counted(draws, 'draw')}, seed "
        f"{draw['seed']}; the model is not trained",
        f"95 % intervals: over draws, for other examples and the same test texts (Student's t{one_draw}); "
        f"over test texts, for other test texts and the same draws (bootstrap, {RESAMPLES:,} resamples)",
    ]
    if first.test_in_train:
        remarks.append(
            f"{first.test_in_train:,} of {len(sets[1].texts):,} test texts also occur in {trained}: the figures may be "
            "too optimistic"
        )
    if published:
        remarks.append("published: MTEB's results repository, all-MiniLM-L6-v2, with its own draws")
    whole = {
        "model": encoder.folder,
        "max_seq_length": encoder.max_seq_length,
        "train": {"name": sets[0].name, "texts": len(sets[0].texts)},
        "test": {"name": sets[1].name, "texts": len(sets[1].texts), "also_in_train": first.test_in_train},
        "classes": first.classes,
        **draw,
        "classifiers": by_name,
        "minisbert": __version__,
    }
    target.report([f"{encoder.folder.name}: accuracy x 100", "", *grid(rows), "", *wrapped(remarks)], whole)
