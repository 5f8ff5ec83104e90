"""``minisbert evaluate retrieval``: how well documents are found, beside published figures."""

from __future__ import annotations

import sys
from typing import Any

import click

from minisbert.cli.options import TEXT, ModelChoice, model_options
from minisbert.cli.retrieval_output import (
    choose_file,
    columns,
    describe_cut,
    describe_model,
    describe_set,
    give,
    heading,
    in_words,
    interval,
    set_options,
    signed,
)
from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.measures import RESAMPLES
from minisbert.evaluation.retrieval import RetrievalResult, evaluate_retrieval, published_for, read_retrieval
from minisbert.hub import is_default_model


@click.command(short_help="Measure retrieval quality: nDCG, MAP, MRR, recall.")
@click.argument("folder", metavar="FOLDER")
@set_options
@click.option("--query-prompt", metavar="TEXT", type=TEXT, help="Prepend this to every query.")
@click.option("--document-prompt", metavar="TEXT", type=TEXT, help="Prepend this to every document.")
@model_options
def retrieval(
    folder: str,
    split: str,
    grade_column: str | None,
    without_title: bool,
    as_json: bool,
    output: str | None,
    force: bool,
    query_prompt: str | None,
    document_prompt: str | None,
    choice: ModelChoice,
) -> None:
    """Measure how well a model retrieves documents: nDCG, MAP, MRR and recall, next to MTEB's figures.

    FOLDER has BEIR's layout: corpus.jsonl, queries.jsonl and qrels/test.tsv (or qrels_test.tsv, qrels.tsv), each plain
    or .gz. The measures are trec_eval's. The interval comes from resampling the queries (bootstrap).

    \b
    Examples:
      minisbert evaluate retrieval scifact
      minisbert evaluate retrieval scifact --json
      minisbert evaluate retrieval scifact --max-seq-length 16 -o result.json
    """
    target = choose_file(output, force)
    found = read_retrieval(folder, split, with_title=not without_title, grade_column=grade_column)
    encoder = choice.encoder("float32")
    result = evaluate_retrieval(
        encoder,
        found,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        show_progress_bar=sys.stderr.isatty(),
    )
    # MTEB's figures are for these weights, the model's own limit, titles, and no prompts
    as_published = choice.max_seq_length is None and not (without_title or query_prompt or document_prompt)
    published = published_for(found) if as_published and is_default_model(encoder.folder) else {}
    described = {"split": split, "query_prompt": query_prompt, "document_prompt": document_prompt}
    whole = {**describe_set(found), **described, **describe_model(encoder), **_result_json(result, published)}
    lines = [*heading(found, split), *_protocol(result, encoder), "", *_table(result, published)]
    give(lines, whole, as_json, target)


def _protocol(result: RetrievalResult, encoder: SentenceEncoder) -> list[str]:
    """How texts were compared and measured."""
    return [
        f"model: {encoder.folder.name}, {encoder.dtype}; {result.similarity_fn_name} similarity, exact search",
        f"cut at {result.max_seq_length} tokens: {in_words(result.documents_cut, 'document')}; "
        f"{in_words(result.queries_cut, 'query', 'queries')}",
        f"measures: trec_eval's, x 100, mean over queries; interval: 95 %, bootstrap, {RESAMPLES:,} resamples",
    ]


def _table(result: RetrievalResult, published: dict[str, float]) -> list[str]:
    """The measures beside the published ones."""
    rows = [["measure", "ours", "interval", *(["published", "difference"] if published else [])]]
    for name, estimate in result.estimates().items():
        row = [name, f"{100 * estimate.mean:.2f}", interval(estimate)]
        if name in published:
            row += [f"{100 * published[name]:.2f}", signed(estimate.mean - published[name])]
        rows.append(row)
    lines = columns(rows)
    if published:
        lines += ["", "published: MTEB's results repository, all-MiniLM-L6-v2, title + text, cut at 256 tokens"]
    return lines


def _result_json(result: RetrievalResult, published: dict[str, float]) -> dict[str, Any]:
    """The measures in [0, 1], and each query's."""
    return {
        "documents_cut": describe_cut(result.documents_cut),
        "queries_cut": describe_cut(result.queries_cut),
        "measures": {
            name: {**estimate._asdict(), "published": published.get(name)}
            for name, estimate in result.estimates().items()
        },
        "per_query": {
            query: {name: float(values[i]) for name, values in result.measures.items()}
            for i, query in enumerate(result.retrieval_set.query_ids)
        },
    }
