"""What the retrieval verbs of `minisbert evaluate` share: options, wording, tables, JSON, and output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from minisbert import __version__
from minisbert.cli.options import Verb, decorate, json_option
from minisbert.cli.outputs import Target, written_whole
from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.measures import RESAMPLES, Estimate
from minisbert.evaluation.retrieval import Cut
from minisbert.evaluation.retrieval_set import RetrievalSet


def set_options(verb: Verb) -> Verb:
    """Add the shared options about folders and output to a verb."""
    options = [
        click.option("--split", default="test", show_default=True, help="Judgements to use: qrels/SPLIT.tsv."),
        click.option("--grade-column", metavar="NAME", help="Column of the judgements with the grade."),
        click.option("--without-title", is_flag=True, help="Leave out the titles of documents."),
        json_option,
        click.option("-o", "--output", metavar="FILE", help="Write the result as JSON, with every query."),
        click.option("--force", is_flag=True, help="Overwrite the file if it exists."),
    ]
    return decorate(verb, options)


def heading(found: RetrievalSet, split: str) -> list[str]:
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


def in_words(cut: Cut, one: str, many: str | None = None) -> str:
    """Write how many texts are cut, and how much is lost.

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


def interval(estimate: Estimate) -> str:
    """An interval, x 100."""
    return f"{100 * estimate.low:.2f} to {100 * estimate.high:.2f}"


def signed(difference: float) -> str:
    """Write a difference, x 100; zero is +0.00.

    >>> signed(0.0123), signed(-0.00001)
    ('+1.23', '+0.00')
    """
    return f"{round(100 * difference, 2) + 0.0:+.2f}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align a table: the first column to the left, the others to the right; short rows end early."""
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(max(map(len, rows)))]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths[: len(row)], strict=True))
        )
        for row in rows
    ]


# ------------------------------------------------------------------------------------------------- as JSON


def describe_set(found: RetrievalSet) -> dict[str, Any]:
    """What was read, as JSON."""
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


def describe_model(encoder: SentenceEncoder) -> dict[str, Any]:
    """What computed the vectors, and how intervals were drawn, as JSON."""
    return {
        "model": encoder.folder.name,
        "dtype": str(encoder.dtype),
        "similarity_fn_name": encoder.model.similarity_fn_name,
        "max_seq_length": encoder.max_seq_length,
        "versions": {"minisbert": __version__},
        "bootstrap": {"resamples": RESAMPLES, "confidence": 0.95},
    }


def describe_cut(cut: Cut) -> dict[str, Any]:
    """What a limit cut off, as JSON."""
    return {
        "texts": cut.texts,
        "texts_cut": cut.texts_cut,
        "tokens": cut.tokens,
        "tokens_lost": cut.tokens_lost,
        "share_lost": cut.share_lost,
    }


# -------------------------------------------------------------------------------------------------- output


def choose_file(output: str | None, force: bool) -> Target | None:
    """Raise for a file that cannot be written, before minutes of work."""
    if output is None:
        return None
    target = Target(Path(output), "json", force)
    target.check()
    return target


def give(lines: Sequence[str], whole: Any, as_json: bool, target: Target | None) -> None:
    """Print the table or the JSON, and write the file."""
    if target is not None and target.file is not None:
        with written_whole(target.file) as stream:
            stream.write(json.dumps(whole, indent=1, ensure_ascii=False).encode() + b"\n")
        click.echo(f"wrote {target.file}", err=True)
    click.echo(json.dumps(whole, indent=2) if as_json else "\n".join(lines))
