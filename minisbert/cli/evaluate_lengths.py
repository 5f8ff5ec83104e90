"""``minisbert evaluate lengths``: what is lost beyond the length limit, and what chunks recover."""

from __future__ import annotations

import sys
from typing import Any

import click

from minisbert.cli.options import ModelChoice, model_options
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
from minisbert.evaluation.lengths import LENGTH_MEASURES, LengthStudy, compare_lengths, summarise
from minisbert.evaluation.measures import RESAMPLES
from minisbert.evaluation.retrieval import read_retrieval


@click.command(short_help="Measure what truncating long documents costs.")
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...")
@set_options
@click.option(
    "--cut",
    "cuts",
    type=click.IntRange(min=1),
    multiple=True,
    default=(64, 128),
    show_default=True,
    metavar="TOKENS",
    help="Length limit to try; may be repeated. The model's own limit is always included.",
)
@click.option(
    "--chunk-tokens",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="TOKENS",
    help="Chunk length to try; may be repeated.  [default: the model's own limit]",
)
@model_options
def lengths(
    folders: tuple[str, ...],
    split: str,
    grade_column: str | None,
    without_title: bool,
    as_json: bool,
    output: str | None,
    force: bool,
    cuts: tuple[int, ...],
    chunk_tokens: tuple[int, ...],
    choice: ModelChoice,
) -> None:
    """Measure what truncating long documents costs, and what chunking recovers.

    Retrieval with the same queries and documents cut at several limits, with one vector composed of a document's chunks
    (by each composition, and late), and with the best single chunk. Each FOLDER is as for `evaluate retrieval`. * marks
    a difference from the model's own limit whose 95 % interval excludes 0.

    \b
    Examples:
      minisbert evaluate lengths scifact --cut 8 --chunk-tokens 16
      minisbert evaluate lengths scifact cranfield --cut 8 --chunk-tokens 8 --chunk-tokens 16 -o lengths.json
    """
    target = choose_file(output, force)
    found = [read_retrieval(one, split, with_title=not without_title, grade_column=grade_column) for one in folders]
    encoder = choice.encoder("float32")
    whole: list[dict[str, Any]] = []
    lines: list[str] = []
    for one in found:
        study = compare_lengths(
            encoder, one, cuts=cuts, chunk_tokens=chunk_tokens or None, show_progress_bar=sys.stderr.isatty()
        )
        whole.append({**describe_set(one), "split": split, **describe_model(encoder), **_study_json(study)})
        lines += [*([""] if lines else []), *heading(one, split), *_study_lines(study, encoder)]
    give(lines, whole, as_json, target)


def _study_lines(study: LengthStudy, encoder: SentenceEncoder) -> list[str]:
    """Lay out a study: a table per measure, for all queries and for those with something to lose."""
    chunks = "; ".join(f"{count:,} chunks of at most {size} tokens" for size, count in study.chunks.items())
    beyond, all_queries = int(study.beyond_limit.sum()), len(study.beyond_limit)
    lines = [
        f"model: {encoder.folder.name}, {encoder.dtype}; {encoder.model.similarity_fn_name} similarity, exact search",
        f"at its limit of {study.max_seq_length} tokens: {in_words(study.documents_cut, 'document')}",
        *([f"chunked documents: {chunks}"] if chunks else []),
        f"queries with a relevant document beyond the limit: {beyond:,} of {all_queries:,}",
        f"x 100; intervals: 95 %, bootstrap, {RESAMPLES:,} resamples of queries; * difference's interval excludes 0",
    ]
    for only_beyond, count in ((False, all_queries), (True, beyond)):
        if only_beyond and beyond in (0, all_queries):
            continue
        what = "queries with a relevant document beyond the limit" if only_beyond else "all queries"
        for name in LENGTH_MEASURES:
            rows = [["", name, "interval", f"vs {study.reference}", "interval", ""]]
            for system, estimate, difference in summarise(study, name, beyond_limit_only=only_beyond):
                row = [system, f"{100 * estimate.mean:.2f}", interval(estimate)]
                if difference is not None:
                    mark = "*" if difference.excludes_zero else " "
                    row += [signed(difference.mean), f"{signed(difference.low)} to {signed(difference.high)}", mark]
                rows.append(row)
            lines += ["", f"{name}, {what} ({count:,})", *(line.rstrip() for line in columns(rows))]
    return lines


def _study_json(study: LengthStudy) -> dict[str, Any]:
    """Every system's measures in [0, 1], their differences from the reference, and each query's."""
    tables: dict[str, Any] = {}
    for key, only_beyond in (("all_queries", False), ("queries_beyond_limit", True)):
        if only_beyond and not study.beyond_limit.any():
            continue
        tables[key] = {
            name: {
                system: {**estimate._asdict(), "difference": difference._asdict() if difference else None}
                for system, estimate, difference in summarise(study, name, beyond_limit_only=only_beyond)
            }
            for name in LENGTH_MEASURES
        }
    return {
        "documents_cut": describe_cut(study.documents_cut),
        "reference": study.reference,
        "chunks": {str(size): count for size, count in study.chunks.items()},
        **tables,
        "per_query": {
            query: {
                "beyond_limit": bool(study.beyond_limit[i]),
                **{system: {name: float(one[name][i]) for name in one} for system, one in study.systems.items()},
            }
            for i, query in enumerate(study.retrieval_set.query_ids)
        },
    }
