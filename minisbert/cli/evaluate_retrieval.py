"""``minisbert evaluate retrieval`` and ``lengths``: how well documents are found, and what cutting them costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from minisbert import __version__
from minisbert.cli.options import ModelChoice, Verb, decorate, json_option, model_options
from minisbert.cli.outputs import Target, written_whole
from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.bootstrap import RESAMPLES, Estimate
from minisbert.evaluation.retrieval import (
    Cut,
    RetrievalResult,
    RetrievalSet,
    evaluate_retrieval,
    published_for,
    read_retrieval,
)


def _set_options(verb: Verb) -> Verb:
    """Give a verb the options about folders and output that both verbs share."""
    options = [
        click.option("--split", default="test", show_default=True, help="Which judgements: qrels/SPLIT.tsv."),
        click.option("--grade-column", metavar="NAME", help="The column of the judgements that holds the grade."),
        click.option("--without-title", is_flag=True, help="Leave the titles of documents out."),
        json_option,
        click.option("-o", "--output", metavar="FILE", help="Write the result as JSON, query by query."),
        click.option("--force", is_flag=True, help="Replace the file if it exists."),
    ]
    return decorate(verb, options)


@click.command(short_help="Measure how well a model finds documents.")
@click.argument("folder", metavar="FOLDER")
@_set_options
@click.option("--query-prompt", metavar="TEXT", help="Put this before every query.")
@click.option("--document-prompt", metavar="TEXT", help="Put this before every document.")
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
    """Measure how well a model finds documents: nDCG, MAP, MRR and recall, beside what MTEB publishes.

    FOLDER is in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/test.tsv (or qrels_test.tsv, qrels.tsv), each
    plain or .gz. The measures are trec_eval's. The interval comes from drawing the queries anew (bootstrap).

    \b
    Examples:
      minisbert evaluate retrieval scifact
      minisbert evaluate retrieval scifact --json
      minisbert evaluate retrieval scifact --max-seq-length 16 -o result.json
    """
    target = _target(output, force)
    found = read_retrieval(folder, split, with_title=not without_title, grade_column=grade_column)
    encoder = choice.encoder("float32")
    result = evaluate_retrieval(
        encoder,
        found,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        show_progress_bar=sys.stderr.isatty(),
    )
    described = {"split": split, "query_prompt": query_prompt, "document_prompt": document_prompt}
    whole = {**_describe_set(found), **described, **_describe_model(encoder), **_result_json(result)}
    lines = [*_heading(found, split), *_protocol(result, encoder), "", *_table(result)]
    _give(lines, whole, as_json, target)


# ------------------------------------------------------------------------------------------------ in words


def _heading(found: RetrievalSet, split: str) -> list[str]:
    """Say what was read, and how documents were made of it."""
    left_out = f"; queries without: {found.queries_left_out:,}, left out" if found.queries_left_out else ""
    document = "title + text" if found.with_title else "text without title"
    if found.with_title and found.titles_repeated * 2 > len(found.documents):
        document += (
            f"; {found.titles_repeated:,} texts begin with their title again (--without-title has it there only once)"
        )
    return [
        f"{found.name}, {split}: {len(found.queries):,} queries, {len(found.documents):,} documents, "
        f"{found.judgements:,} judgements ({found.source}){left_out}",
        f"document: {document}",
    ]


def _protocol(result: RetrievalResult, encoder: SentenceEncoder) -> list[str]:
    """Say how texts were compared and measured."""
    return [
        f"model: {encoder.folder.name}, {encoder.dtype}; {result.similarity_fn_name} similarity, exact search",
        f"cut at {result.max_seq_length} tokens: {in_words(result.documents_cut, 'document')}; "
        f"{in_words(result.queries_cut, 'query', 'queries')}",
        f"measures: trec_eval's, x 100, mean over queries; interval: 95 %, bootstrap, {RESAMPLES:,} draws of queries",
    ]


def in_words(cut: Cut, one: str, many: str | None = None) -> str:
    """Say how many texts are cut, and how much is lost.

    Examples
    --------
    >>> in_words(Cut(texts=2000, texts_cut=500, tokens=300_000, tokens_lost=30_000), "document")
    '500 of 2,000 documents are cut and 10.0 % of all tokens are lost'
    >>> in_words(Cut(texts=1, texts_cut=0, tokens=3, tokens_lost=0), "query", "queries")
    'no query is cut'
    """
    if not cut.texts_cut:
        return f"no {one} is cut"
    are = "is" if cut.texts_cut == 1 else "are"
    return (
        f"{cut.texts_cut:,} of {cut.texts:,} {one if cut.texts == 1 else many or one + 's'} {are} cut and "
        f"{100 * cut.share_lost:.1f} % of all tokens are lost"
    )


def _table(result: RetrievalResult) -> list[str]:
    """Put the measures beside what is published."""
    published = published_for(result.retrieval_set)
    rows = [["measure", "ours", "interval", *(["published", "difference"] if published else [])]]
    for name, estimate in result.estimates().items():
        row = [name, f"{100 * estimate.mean:.2f}", interval(estimate)]
        if name in published:
            row += [f"{100 * published[name]:.2f}", f"{100 * (estimate.mean - published[name]):+.2f}"]
        rows.append(row)
    lines = columns(rows)
    if published:
        lines += ["", "published: MTEB's results repository, all-MiniLM-L6-v2, title + text, cut at 256 tokens"]
    return lines


def interval(estimate: Estimate) -> str:
    """Write an interval, x 100.

    Examples
    --------
    >>> interval(Estimate(0.645, 0.6, 0.6912))
    '60.00 to 69.12'
    """
    return f"{100 * estimate.low:.2f} to {100 * estimate.high:.2f}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table: the first column to the left, the others to the right; short rows end early.

    Examples
    --------
    >>> columns([["measure", "ours"], ["MRR@10", "5.00"]])
    ['measure  ours', 'MRR@10   5.00']
    """
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(max(map(len, rows)))]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths[: len(row)], strict=True))
        )
        for row in rows
    ]


# ------------------------------------------------------------------------------------------------- as JSON


def _describe_set(found: RetrievalSet) -> dict[str, Any]:
    return {
        "set": found.name,
        "documents": len(found.documents),
        "queries": len(found.queries),
        "queries_left_out": found.queries_left_out,
        "judgements": found.judgements,
        "judgements_source": found.source,
        "with_title": found.with_title,
        "titles_repeated": found.titles_repeated,
    }


def _describe_model(encoder: SentenceEncoder) -> dict[str, Any]:
    return {
        "model": encoder.folder.name,
        "dtype": str(encoder.dtype),
        "similarity_fn_name": encoder.model.similarity_fn_name,
        "max_seq_length": encoder.max_seq_length,
        "versions": {"minisbert": __version__},
        "bootstrap": {"resamples": RESAMPLES, "confidence": 0.95},
    }


def _result_json(result: RetrievalResult) -> dict[str, Any]:
    """Give the measures in [0, 1], and each query's."""
    published = published_for(result.retrieval_set)
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


def describe_cut(cut: Cut) -> dict[str, Any]:
    """Give what a limit cut off to a program.

    Examples
    --------
    >>> describe_cut(Cut(4, 2, 100, 25))
    {'texts': 4, 'texts_cut': 2, 'tokens': 100, 'tokens_lost': 25, 'share_lost': 0.25}
    """
    return {
        "texts": cut.texts,
        "texts_cut": cut.texts_cut,
        "tokens": cut.tokens,
        "tokens_lost": cut.tokens_lost,
        "share_lost": cut.share_lost,
    }


# -------------------------------------------------------------------------------------------------- output


def _target(output: str | None, force: bool) -> Target | None:
    """Refuse a file that could not be written, before minutes of work."""
    if output is None:
        return None
    target = Target(Path(output), "json", force)
    target.check()
    return target


def _give(lines: Sequence[str], whole: Any, as_json: bool, target: Target | None) -> None:
    """Print the table or JSON, and write the file."""
    if target is not None and target.file is not None:
        with written_whole(target.file) as stream:
            stream.write(json.dumps(whole, indent=1, ensure_ascii=False).encode() + b"\n")
        click.echo(f"wrote {target.file}", err=True)
    click.echo(json.dumps(whole, indent=2) if as_json else "\n".join(lines))
