"""``minisbert evaluate``: score a model on benchmarks, beside published figures."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from minisbert import __version__
from minisbert.checks import require
from minisbert.cli import LazyGroup
from minisbert.cli.inputs import DIALECT_OPTIONS, dialect, label_options, read_options
from minisbert.cli.options import TEXT, ModelChoice, decorate, json_option, model_options, result_options
from minisbert.cli.outputs import Target, choose_file, give, plain, progress, written_whole
from minisbert.cli.table import grid, interval, printable, shorten, signed
from minisbert.evaluation.classification import (
    CLASSIFIERS,
    PUBLISHED,
    evaluate_classification,
    read_labelled,
)
from minisbert.evaluation.measures import RESAMPLES
from minisbert.hub import is_default_model

# ----------------------------------------------------------------------------------------------------------- evaluate


VERBS = {
    "sts": ("evaluate", "Correlate similarities with human scores."),
    "layers": ("evaluate", "Score every layer with every pooling, as a heat map."),
    "retrieval": ("evaluate", "Measure retrieval quality: nDCG, MAP, MRR, recall."),
    "classification": ("evaluate", "Classify texts from a few examples per class."),
}
LINE_WIDTH = 100


@click.group(
    cls=LazyGroup, verbs=VERBS, short_help="Evaluate the model on labelled test sets, next to published figures."
)
def evaluate() -> None:
    """Evaluate the model on labelled test sets, next to published figures.

    \b
    Examples:
      minisbert evaluate sts data/sts12 data/stsb/stsb_test.tsv
      minisbert evaluate layers data/stsb/stsb_test.tsv
      minisbert evaluate retrieval scifact

    `minisbert evaluate COMMAND --help` describes a command and shows more examples.
    """


# --------------------------------------------------------------------------------------------------------- sts

_pair_options = [
    click.option(
        "--columns",
        "column_names",
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


def _read_sets(paths: Sequence[Path], column_names: str | None, scale: str | None, no_header: bool) -> list[Any]:
    """Read sets of pairs as (what is known of the set or None, pairs); a known one has its own name and scale."""
    from minisbert.evaluation.published import find_sets
    from minisbert.evaluation.sts import read_sts

    names = column_names.split(",") if column_names is not None else None
    if names is not None and len(names) != 3:
        raise click.UsageError(
            f"--columns must name three columns: score, first and second sentence; got {column_names!r}."
        )
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
    sets = []
    for known, files in (one for path in paths for one in find_sets(path)):
        name, own = (str(files[0]), None) if known is None else (known.name, known.scale)
        pairs = read_sts(files, name=name, columns=names, scale=limits or own, has_header=not no_header, **dialect())
        sets.append((known, pairs))
    return sets


@click.command(short_help="Correlate similarities with human scores.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True, path_type=Path))
@lambda verb: decorate(verb, _pair_options)
@result_options
@model_options
def sts(
    paths: tuple[Path, ...],
    column_names: str | None,
    scale: str | None,
    no_header: bool,
    output: str | None,
    force: bool,
    as_json: bool,
    choice: ModelChoice,
) -> None:
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
    from minisbert.evaluation.published import MTEB_SOURCE, PAPER_NOTE, PAPER_SOURCE, PAPER_STSB
    from minisbert.evaluation.sts import PROTOCOL, evaluate_sts
    from minisbert.hub import is_default_model

    target = choose_file(output, force)
    sets = _read_sets(paths, column_names, scale, no_header)
    encoder = choice.encoder("float32")
    comparable = choice.max_seq_length is None and is_default_model(encoder.folder)
    rows = []
    for known, pairs in sets:
        found = evaluate_sts(encoder, pairs, show_progress_bar=progress)
        published = known.published if comparable and known is not None and known.pairs == found.pairs else None
        rows.append((known if comparable else None, found, published))
    whole = {
        "model": str(encoder.folder),
        "max_seq_length": encoder.max_seq_length,
        "protocol": PROTOCOL,
        "sets": [
            {
                "name": found.name,
                "pairs": found.pairs,
                "sentences": found.sentences,
                "spearman": found.spearman,
                "pearson": found.pearson,
                "published": published,
                "difference": None if published is None else found.spearman["cosine"] - published,
                "note": known.note if known and published is not None else "",
            }
            for known, found, published in rows
        ],
        "published_source": MTEB_SOURCE,
        "quoted_stsb": PAPER_STSB,
        "quoted_source": f"{PAPER_SOURCE}. {PAPER_NOTE}",
        "minisbert": __version__,
    }
    give(_sts_lines(rows, encoder.folder.name), whole, as_json, target)


def _sts_lines(rows: Sequence[tuple[Any, Any, float | None]], model: str) -> list[str]:
    """Lay out the figures beside published ones, and say why they differ."""
    from minisbert.evaluation.published import MTEB_SOURCE, PAPER_NOTE, PAPER_SOURCE, PAPER_STSB
    from minisbert.evaluation.sts import PROTOCOL, SIMILARITIES

    is_compared = any(published is not None for _, _, published in rows)
    table = [["set", "pairs", *SIMILARITIES, "r cosine", *(["published", "difference"] if is_compared else [])]]
    said = [f"protocol: {PROTOCOL}", *([f"published: {MTEB_SOURCE}"] if is_compared else [])]
    for known, found, published in rows:
        row = [shorten(printable(found.name), 30), f"{found.pairs:,}"]
        row += [f"{found.spearman[name]:.3f}" for name in SIMILARITIES] + [f"{found.pearson['cosine']:.3f}"]
        if published is not None:
            row += [f"{published:.3f}", signed((found.spearman["cosine"] - published) / 100, 3)]
            said += [known.note] if known.note and known.note not in said else []
        elif known is not None and known.pairs != found.pairs:
            said.append(f"{known.name} has {found.pairs:,} pairs here and {known.pairs:,} as published: not compared")
        table.append(row)
    if any(found.name == "STSb" for _, found, _ in rows):
        quoted = ", ".join(f"{name} {figure:.2f}" for name, figure in PAPER_STSB.items())
        said.append(f"quoted for STSb: {quoted} ({PAPER_SOURCE}). {PAPER_NOTE}")
    head = f"{model}: Spearman x 100 by similarity; r cosine: Pearson x 100"
    return [head, "", *grid(table), "", *(line for words in said for line in _wrapped(words))]


def _wrapped(words: str) -> list[str]:
    """Wrap a paragraph; model names stay whole."""
    return textwrap.wrap(words, LINE_WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


# ------------------------------------------------------------------------------------------------------- layers


@click.command(short_help="Score every layer with every pooling, as a heat map.")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@lambda verb: decorate(verb, _pair_options)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw a heat map (extra `plots`)."
)
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@model_options
def layers(
    path: Path | None,
    column_names: str | None,
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
    from minisbert.evaluation.sts import PROTOCOL, layer_scores
    from minisbert.plots import heat_map

    if output is not None:
        Target(output, "png", force).check()
        require("matplotlib", "plots", "a heat map")
    if path is None and not os.environ.get("MINISBERT_DATA"):
        raise click.UsageError("Give a file of pairs, or set MINISBERT_DATA to the folder with stsb/stsb_test.tsv.")
    path = path or Path(os.environ["MINISBERT_DATA"], "stsb", "stsb_test.tsv")
    sets = _read_sets([path], column_names, scale, no_header)
    if len(sets) != 1:
        raise click.UsageError(f"{path}: expected one set, found {', '.join(pairs.name for _, pairs in sets)}.")
    [(_, pairs)] = sets
    encoder = choice.encoder("float32")
    total = len({*pairs.sentences1, *pairs.sentences2})
    with progress(total=total, unit="text", desc="layers") as bar:
        found = layer_scores(encoder, pairs, progress=bar.update)
    names = ["embeddings (0)", *(f"layer {place}" for place in range(1, len(found.values)))]
    has_none = bool(found.values.size and any(map(math.isnan, found.values.ravel())))
    because = "all pairs are equally similar, because [CLS] is the same in every text before attention."
    if output is not None:
        caption = ["Spearman x 100 of the cosine with human scores."]
        caption += ["Framed: the model's own layer and pooling."] * (found.own is not None)
        caption += [f"none: {because}"] * has_none
        title = f"{encoder.folder.name} on {found.name}: layer x pooling"
        with written_whole(output) as stream:
            heat_map(
                stream, found.values, names, found.poolings, title=title, caption=" ".join(caption), marked=found.own
            )
        click.echo(f"wrote {output}", err=True)
    table = [["", *found.poolings]]
    for place, (name, scores) in enumerate(zip(names, found.values, strict=True)):
        cells = ["none" if math.isnan(score) else f"{score:.2f}" for score in scores]
        if found.own is not None and found.own[0] == place:
            cells[found.own[1]] = f"*{cells[found.own[1]]}"
        table.append([name, *cells])
    said = ["* is the model's own layer and pooling."] * (found.own is not None) + [f"none: {because}"] * has_none
    said.append("mean and mean_sqrt_len_tokens differ by a factor, to which the cosine is invariant.")
    head = f"{encoder.folder.name} on {found.name}, {found.pairs:,} pairs: Spearman x 100 of the cosine"
    whole = {
        "model": str(encoder.folder),
        "set": found.name,
        "pairs": found.pairs,
        "measure": "Spearman x 100 of the cosine",
        "protocol": PROTOCOL,
        "poolings": found.poolings,
        "layers": found.values,
        "own": None if found.own is None else {"layer": found.own[0], "pooling": found.poolings[found.own[1]]},
        "minisbert": __version__,
    }
    give([head, "", *grid(table), "", *textwrap.wrap(" ".join(said), LINE_WIDTH)], whole, as_json, None)


# ---------------------------------------------------------------------------------------------------- retrieval


@click.command(short_help="Measure retrieval quality: nDCG, MAP, MRR, recall.")
@click.argument("folder", metavar="FOLDER")
@click.option("--split", default="test", show_default=True, help="Judgements to use: qrels/SPLIT.tsv.")
@click.option("--grade-column", metavar="NAME", help="Column of the judgements with the grade.")
@click.option("--without-title", is_flag=True, help="Leave out the titles of documents.")
@click.option("--query-prompt", metavar="TEXT", type=TEXT, help="Prepend this to every query.")
@click.option("--document-prompt", metavar="TEXT", type=TEXT, help="Prepend this to every document.")
@click.option(
    "--chunk-tokens",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Also read documents whole, in chunks of this length, and compare with cutting them.",
)
@click.option(
    "--composition",
    type=click.Choice(["weighted_mean", "mean", "max", "first", "late", "best"]),
    help="How a document's chunks are combined; best: each keeps its vector, and the best one counts.  "
    "[default: weighted_mean]",
)
@result_options
@model_options
def retrieval(
    folder: str,
    split: str,
    grade_column: str | None,
    without_title: bool,
    query_prompt: str | None,
    document_prompt: str | None,
    chunk_tokens: int | None,
    composition: str | None,
    output: str | None,
    force: bool,
    as_json: bool,
    choice: ModelChoice,
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
    from minisbert.evaluation.measures import RESAMPLES, paired_difference
    from minisbert.evaluation.retrieval import evaluate_retrieval, read_retrieval
    from minisbert.hub import is_default_model

    if chunk_tokens is None and composition is not None:
        raise click.UsageError("--composition is for chunks; give --chunk-tokens, too.")
    composition = composition or "weighted_mean"
    target = choose_file(output, force)
    found = read_retrieval(folder, split, with_title=not without_title, grade_column=grade_column)
    encoder = choice.encoder("float32")
    options: dict[str, Any] = {"query_prompt": query_prompt, "document_prompt": document_prompt}
    options["show_progress_bar"] = progress
    result = evaluate_retrieval(encoder, found, **options)
    # MTEB's figures are for these weights, the model's own limit, titles, and no prompts
    as_published = choice.max_seq_length is None and not (without_title or query_prompt or document_prompt)
    published = found.published if as_published and is_default_model(encoder.folder) else {}
    estimates = result.estimates()
    rows = [["measure", "ours", "interval", *(["published", "difference"] if published else [])]]
    for name, estimate in estimates.items():
        row = [name, f"{100 * estimate.mean:.2f}", interval(estimate)]
        if name in published:
            row += [f"{100 * published[name]:.2f}", signed(estimate.mean - published[name])]
        rows.append(row)
    lines = [*_set_lines(found, split), *_protocol_lines(result, encoder, RESAMPLES), "", *grid(rows)]
    if published:
        lines += ["", "published: MTEB's results repository, all-MiniLM-L6-v2, title + text, cut at 256 tokens"]
    whole = {
        "set": found.name,
        "documents": len(found.documents),
        "queries": len(found.queries),
        "queries_left_out": found.queries_left_out,
        "judgements": found.judgements,
        "judgements_source": found.source,
        "with_title": found.with_title,
        "titles_repeated": found.titles_repeated,
        "split": split,
        "query_prompt": query_prompt,
        "document_prompt": document_prompt,
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
        chunked = evaluate_retrieval(encoder, found, chunk_tokens=chunk_tokens, composition=composition, **options)
        rows = [["measure", "in chunks", "interval", "difference", "interval"]]
        measures = {}
        for name, estimate in chunked.estimates().items():
            gap = paired_difference(chunked.measures[name], result.measures[name])
            mark = " *" if gap.excludes_zero else ""
            told = [signed(gap.mean), f"{signed(gap.low)} to {signed(gap.high)}{mark}"]
            rows.append([name, f"{100 * estimate.mean:.2f}", interval(estimate), *told])
            measures[name] = {**estimate._asdict(), "difference": gap}
        head = (
            f"documents whole, in chunks of at most {chunk_tokens} tokens, {composition}: {chunked.vectors:,} vectors"
        )
        lines += ["", f"{head}; difference: to the documents cut", *grid(rows)]
        chunks = {"chunk_tokens": chunk_tokens, "composition": composition, "vectors": chunked.vectors}
        whole["chunks"] = {**chunks, "measures": measures, "per_query": _per_query(chunked)}
    give(lines, whole, as_json, target)


def _set_lines(found: Any, split: str) -> list[str]:
    """Describe the set, and how documents were formed."""
    left_out = f"; {found.queries_left_out:,} queries without judgements left out" if found.queries_left_out else ""
    document = "title + text" if found.with_title else "text without title"
    if found.with_title and found.titles_repeated * 2 > len(found.documents):
        document += (
            f"; {found.titles_repeated:,} texts repeat their title at the start (--without-title leaves it there once)"
        )
    return [
        f"{found.name}, {split}: {len(found.queries):,} queries, {len(found.documents):,} documents, "
        f"{found.judgements:,} judgements ({found.source}){left_out}",
        f"document: {document}",
    ]


def _protocol_lines(result: Any, encoder: Any, resamples: int) -> list[str]:
    """How texts were compared and measured."""
    said = []
    for cut, one, many in ((result.documents_cut, "document", "documents"), (result.queries_cut, "query", "queries")):
        are = "is" if cut.texts_cut == 1 else "are"
        whole = f"{cut.texts_cut:,} of {cut.texts:,} {one if cut.texts == 1 else many} {are} cut and "
        lost = f"{100 * cut.share_lost:.1f} % of all tokens are lost"
        said.append(whole + lost if cut.texts_cut else f"no {one} is cut")
    return [
        f"model: {encoder.folder.name}, {encoder.dtype}; {encoder.similarity_fn_name} similarity, exact search",
        f"cut at {result.max_seq_length} tokens: {'; '.join(said)}",
        f"measures: trec_eval's, x 100, mean over queries; interval: 95 %, bootstrap, {resamples:,} resamples",
    ]


def _per_query(result: Any) -> dict[str, dict[str, float]]:
    """Each query's measures."""
    return {
        query: {name: float(values[i]) for name, values in result.measures.items()}
        for i, query in enumerate(result.retrieval_set.query_ids)
    }


# -------------------------------------------------------------------------------------------- evaluate_classification


@click.command(short_help="Classify texts from a few examples per class.")
@click.argument("train", metavar="TRAIN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("test", metavar="TEST", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--examples-per-class",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="COUNT",
    help="Training examples per class.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="COUNT",
    help="Number of random draws of the examples; the figures are means.",
)
@click.option(
    "--classifier",
    "classifiers",
    type=click.Choice(list(CLASSIFIERS)),
    multiple=True,
    help="May be repeated.  [default: all]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random seed of the draws; use the same one to compare models.",
)
@label_options
@click.option("-o", "--output", metavar="FILE", help="Write the result as JSON, with every draw and text.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@model_options
def classification(
    train: Path,
    test: Path,
    examples_per_class: int,
    draws: int,
    classifiers: tuple[str, ...],
    seed: int,
    column_names: str | None,
    no_header: bool,
    output: str | None,
    force: bool,
    as_json: bool,
    choice: ModelChoice,
) -> None:
    """Classify the texts of TEST from a few examples per class in TRAIN, on the frozen model's vectors.

    Each row of both files has a label and a text: CSV, TSV, JSONL, JSON or Parquet, plain or .gz. Examples
    are drawn several times, as in MTEB, and the figures are means over the draws. The model itself is not trained.

    \b
    Examples:
      minisbert evaluate classification train.tsv test.tsv
      minisbert evaluate classification train.tsv test.tsv --examples-per-class 1 --draws 3 -o result.json
      minisbert evaluate classification train.tsv test.tsv --columns label,text --classifier centroid
    """
    target = choose_file(output, force)
    require("sklearn", "apps", "evaluate classification")
    read = read_options(column_names, no_header)
    sets = read_labelled(train, **read), read_labelled(test, **read)
    encoder = choice.encoder("float32")
    results = evaluate_classification(
        encoder,
        *sets,
        classifiers=tuple(dict.fromkeys(classifiers)) or tuple(CLASSIFIERS),
        examples_per_class=examples_per_class,
        draws=draws,
        seed=seed,
        show_progress_bar=progress,
    )
    first = next(iter(results.values()))
    protocol = (*(len(one.texts) for one in sets), len(first.classes), examples_per_class, draws)
    published = {}
    if choice.max_seq_length is None and is_default_model(encoder.folder):
        published = {name: PUBLISHED[key][1] for name in results if (key := (*protocol, name)) in PUBLISHED}
    whole = {
        "model": encoder.folder,
        "max_seq_length": encoder.max_seq_length,
        "train": {"name": sets[0].name, "texts": len(sets[0].texts)},
        "test": {"name": sets[1].name, "texts": len(sets[1].texts), "also_in_train": first.test_in_train},
        "classes": first.classes,
        "examples_per_class": examples_per_class,
        "draws": draws,
        "seed": seed,
        "classifiers": {
            name: {
                "accuracy": result.accuracies.mean(),
                "over_draws": result.over_draws(),
                "over_texts": result.over_texts(),
                "macro_f1": result.macro_f1.mean(),
                "published": published.get(name),
                "per_draw": result.accuracies,
                "per_text": result.correct.mean(axis=0),
            }
            for name, result in results.items()
        },
        "minisbert": __version__,
    }
    rows = [["classifier", "accuracy", "over draws", "over test texts", "macro-F1"]]
    if published:
        rows[0] += ["published", "difference"]
    for name, result in results.items():
        over = result.over_draws()
        row = [name, f"{100 * over.mean:.2f}", "none" if math.isnan(over.low) else interval(over)]
        row += [interval(result.over_texts()), f"{100 * result.macro_f1.mean():.2f}"]
        if name in published:
            row += [f"{100 * published[name]:.2f}", signed(over.mean - published[name])]
        rows.append(row)
    names = [shorten(printable(one.name), 40) for one in sets]
    remarks = [
        f"{names[1]}: {len(sets[1].texts):,} texts, {len(first.classes):,} classes; examples from {names[0]}: "
        f"{len(sets[0].texts):,} texts, {examples_per_class:,} per class in each of {draws:,} "
        f"draw{'' if draws == 1 else 's'}, seed {seed}; the model is not trained",
        "95 % intervals: over draws, for other examples and the same test texts (t, on the logit scale"
        + ("; one draw has none" if draws == 1 else "")
        + f"); over test texts, for other test texts and the same draws (bootstrap, {RESAMPLES:,} resamples)",
    ]
    if first.test_in_train:
        remarks.append(
            f"{first.test_in_train:,} of {len(sets[1].texts):,} test texts also occur in {names[0]}: the figures may "
            "be too optimistic"
        )
    if published:
        remarks.append("published: MTEB's results repository, all-MiniLM-L6-v2, with its own draws")
    wrapped = [line for remark in remarks for line in textwrap.wrap(remark, LINE_WIDTH, subsequent_indent="  ")]
    lines = [f"{encoder.folder.name}: accuracy x 100", "", *grid(rows), "", *wrapped]
    give(lines, plain(whole), as_json, target)
