"""``minisbert search``: the documents of a database that are closest in meaning to a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from minisbert.cli.index import choice_for
from minisbert.cli.options import TEXT, ModelChoice, json_option, model_options
from minisbert.cli.outputs import echo_json
from minisbert.cli.table import display_width, pad, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.search.database import Hit

ID_WIDTH = 30  # columns of an id, at most
LEAST_TEXT = 20  # columns of a text, at least


@click.command(short_help="Find documents by meaning.")
@click.argument("database", metavar="DB")
@click.argument("query", type=TEXT)
@click.option(
    "-k", "--top-k", type=click.IntRange(min=1), default=10, show_default=True, metavar="K", help="Documents to return."
)
@click.option("--where", metavar="CONDITION", type=TEXT, help="Search only documents that meet this condition.")
@json_option
@model_options
def search(database: str, query: str, top_k: int, where: str | None, as_json: bool, choice: ModelChoice) -> None:
    """Find the documents of a database that are closest in meaning to a query.

    The search is exact: every document is compared. Each result has its score (by default the cosine, at most 1), its
    id, and its best chunk: the characters it spans, and its text. The model is the one that built the database.

    A condition is DuckDB's SQL. Its columns are the fields of the metadata, id, source, and metadata, all of it as
    JSON. A column of a CSV whose cells are all numbers, or all true or false, is such. Strings are in single quotes,
    names with spaces or dashes in double quotes; a.b is b inside a.

    \b
    Examples:
      minisbert search notes.duckdb "what to cook"
      minisbert search articles.duckdb "animals" -k 3 --where "lang = 'en' AND year >= 2020"
      minisbert search notes.duckdb "what to cook" --json
    """
    from minisbert.search.database import EmbeddingDatabase

    encoder = choice_for(database, choice).encoder("float32")
    with EmbeddingDatabase.open(database, encoder, read_only=True) as opened:
        hits = opened.search(query, top_k=top_k, where=where)
        similarity = opened.settings.similarity
    if as_json:
        said = {"query": query, "where": where, "top_k": top_k, "similarity_fn_name": similarity, "hits": hits}
        echo_json(said)
    else:
        click.echo("\n".join(_table(hits, terminal_width())) if hits else "no document meets the condition")


def _table(hits: list[Hit], width: int) -> list[str]:
    """Format hits in columns; the text takes the rest of the line."""
    heads = ["score", "id", "characters"]
    rows = [[f"{hit.score:.4f}", shorten(printable(hit.id), ID_WIDTH), f"{hit.start}-{hit.stop}"] for hit in hits]
    widths = [max(display_width(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    room = max(LEAST_TEXT, width - sum(widths) - 2 * len(widths))
    lines = []
    for row, text in zip([heads, *rows], ["text", *(hit.text for hit in hits)], strict=True):
        cells = [pad(cell, widths[i]) for i, cell in enumerate(row)]
        lines.append("  ".join([*cells, shorten(printable(text[: 4 * room]), room)]).rstrip())
    return lines
