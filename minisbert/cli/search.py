"""A database of documents to search by meaning: ``minisbert index`` and ``minisbert search``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli import Group, options, outputs
from minisbert.cli.options import KINDS, ModelChoice, dialect_options, take_dialect
from minisbert.cli.outputs import give
from minisbert.cli.table import align, counted, grid_with_texts, printable, shorten, terminal_width
from minisbert.tables import EmptyTextWarning

if TYPE_CHECKING:
    from minisbert.search.documents import Document


# -------------------------------------------------------------------------------------------------------------- index


@click.group(cls=Group)
def index() -> None:
    """Maintain a database of documents and their vectors, which `minisbert search` searches by meaning.

    The database is one DuckDB file. Needs duckdb: pip install -e '.[search]'

    \b
    Examples:
      minisbert index build notes.duckdb notes.txt
      minisbert index info notes.duckdb

    `minisbert index COMMAND --help` describes a command and shows more examples.
    """


documents_options = options.together(
    click.argument("database", metavar="DB"),
    click.argument("files", metavar="FILES...", nargs=-1, required=True),
    click.option("--text-column", metavar="NAME", help="Column of the text.  [default: text, or the only column]"),
    click.option("--id-column", metavar="NAME", help="Column of the id.  [default: id or _id, else file and line]"),
    click.option("--input-format", type=click.Choice(KINDS), help="[default: by the files' suffixes, else text]"),
    dialect_options,
    click.option("--block-documents", type=options.COUNT, default=1024, help="Documents saved at a time."),
    options.progress_option,
)


@index.command(short_help="Build a database of documents, or continue.")
@options.chunk_option(help="Chunk length for long documents.  [default: the model's limit]")
@options.overlap_option(help="Tokens shared with the previous chunk.  [default: 0]")
@click.option("--document-prompt", type=options.TEXT, help="Prepend this to documents.  [default: the model's]")
@click.option("--query-prompt", type=options.TEXT, help="Prepend this to queries.  [default: the model's]")
@documents_options
@options.model_options
def build(**given: Any) -> None:
    """Build a database of documents, or continue one that was interrupted.

    In a .txt file each line is a document; any other text file, such as .md, is one document. In a CSV, TSV, JSONL or
    Parquet file each row is one: one column is the text, one may be the id, and the others are kept as metadata, by
    which a search can be filtered. Long documents are split into chunks; nothing is cut off.

    All files are read and their errors reported before the work begins. Documents are stored a block at a time: you can
    interrupt at any time, and the same command continues. Documents already in the database with the same content are
    not embedded again; those with different content are replaced; none are removed.

    \b
    Examples:
      minisbert index build notes.duckdb notes.txt
      minisbert index build articles.duckdb articles.csv --text-column body
      minisbert index build posts.duckdb posts.jsonl --text-column post.title --chunk-tokens 16
    """
    names = ("chunk_tokens", "overlap", "document_prompt", "query_prompt")
    _add(settings={name: given.pop(name) for name in names}, **given)


@index.command(short_help="Add documents, and replace changed ones.")
@documents_options
@options.model_options
def add(**given: Any) -> None:
    """Add documents to a database, and replace those whose content has changed.

    Files are read as by `minisbert index build`, which also set chunks and prompts. The model is the one that built
    the database.

    \b
    Examples:
      minisbert index add notes.duckdb more.txt
      minisbert index add notes.duckdb articles.csv --text-column body
    """
    choice_for(given["database"], given["choice"])  # one that is not there shows before the files are read
    _add(settings={}, **given)


@index.command(short_help="Remove documents.")
@click.argument("database", metavar="DB")
@click.argument("ids", metavar="[ID]...", nargs=-1, type=options.TEXT)
@click.option("--where", metavar="CONDITION", type=options.TEXT, help="All that match; see `minisbert search --help`.")
def remove(database: str, ids: tuple[str, ...], where: str | None) -> None:
    """Remove documents by id or by metadata; if an id is unknown, nothing is removed.

    \b
    Examples:
      minisbert index remove notes.duckdb notes.txt:1
      minisbert index remove articles.duckdb --where "lang = 'fr'"
    """
    if not ids and where is None:
        raise click.UsageError("Nothing to remove: give ids, or a condition (--where).")
    from minisbert.search.database import EmbeddingDatabase

    with EmbeddingDatabase.open(database) as opened:
        removed = opened.remove(ids, where=where)
        click.echo(f"{database}: {counted(removed, 'document')} removed, {len(opened):,} left")


@index.command(short_help="Show the contents of a database.")
@click.argument("database", metavar="DB")
@options.json_option
def info(database: str, as_json: bool) -> None:
    """Show the contents of a database: documents, chunks, the model, settings, and metadata fields.

    \b
    Examples:
      minisbert index info notes.duckdb
      minisbert index info articles.duckdb --json
    """
    from minisbert.search.database import EmbeddingDatabase

    with EmbeddingDatabase.open(database, read_only=True) as opened:
        about = opened.info()
    rows = []
    for name, value in {**vars(about), **vars(about.settings)}.items():
        if name != "settings":
            if name in ("fields", "sources"):  # with their numbers of documents
                value = ", ".join(f"{printable(key) or '(none)'} ({count:,})" for key, count in value.items()) or "none"
            rows.append((name.replace("_", " "), "none" if value == "" else str(value)))
    give(as_json, [shorten(line, max(40, terminal_width())) for line in align(rows, indent="")], about)


def choice_for(database: str, choice: ModelChoice) -> ModelChoice:
    """The model that made a database, unless another is given."""
    from minisbert.search.database import EmbeddingDatabase

    with EmbeddingDatabase.open(database, read_only=True) as opened:
        return choice if choice.model is not None else replace(choice, model=opened.info().model)


def _add(
    database: str,
    files: tuple[str, ...],
    block_documents: int,
    progress: bool | None,
    choice: ModelChoice,
    settings: dict[str, Any],
    **reading: Any,
) -> None:
    """Add the documents of all files, and report what happened to them."""
    from minisbert.hub import DEFAULT_MODEL
    from minisbert.search.database import EmbeddingDatabase, check_duckdb
    from minisbert.search.documents import check_documents, read_documents

    reading |= take_dialect(reading)

    def read() -> Iterator[Document]:
        return check_documents(read_documents(files, **reading))

    check_duckdb()
    with warnings.catch_warnings():  # the second reading says the same
        warnings.simplefilter("ignore", EmptyTextWarning)
        total = sum(1 for _ in read())  # so that mistakes show before the work begins
    if not total:
        raise ValueError(f"{', '.join(files)}: no documents: only blank lines, or only a header")
    name = choice.model or DEFAULT_MODEL
    if Path(name).expanduser().is_dir():
        name = str(Path(name).expanduser().resolve())  # found again from another folder
    if Path(database).exists():
        choice = choice_for(database, choice)
    with EmbeddingDatabase.open(database, choice.encoder(), model_name=name, **settings) as opened:
        shown = outputs.progress if progress is None else progress
        report = opened.add(read(), total=total, show_progress_bar=shown, block_documents=block_documents)
        click.echo(
            f"{opened.path}: {counted(report.added, 'document')} added, {report.replaced:,} replaced, "
            f"{report.unchanged:,} unchanged; {counted(report.chunks, 'chunk')} embedded; "
            f"{counted(len(opened), 'document')} in all"
        )


# ------------------------------------------------------------------------------------------------------------- search


ID_WIDTH = 30  # columns of an id, at most


@click.command()
@click.argument("database", metavar="DB")
@click.argument("query", type=options.TEXT)
@click.option("-k", "--top-k", type=options.COUNT, default=10, metavar="K", help="Documents to return.")
@click.option("--where", metavar="CONDITION", type=options.TEXT, help="Search only documents that meet this condition.")
@options.json_option
@options.model_options
def search(database: str, query: str, top_k: int, where: str | None, as_json: bool, choice: ModelChoice) -> None:
    """Find the documents of a database that are closest in meaning to a query.

    The search is exact: every document is compared. Each result has its score (by default the cosine, at most 1), its
    id, and its best chunk: the characters it spans, and its text. The model is the one that built the database.

    A condition is DuckDB's SQL. Its columns are the fields of the metadata, id, source (the file, unless the metadata
    has a field of this name), and metadata, all of it as JSON; a field that is itself named id, metadata or rowid is
    (metadata->>'id'). A column of a CSV whose cells are all numbers, or all true or false, is such. Strings are in
    single quotes, names with spaces or dashes in double quotes; a.b is b inside a.

    \b
    Examples:
      minisbert search notes.duckdb "what to cook"
      minisbert search articles.duckdb "animals" -k 3 --where "lang = 'en' AND year >= 2020"
      minisbert search notes.duckdb "what to cook" --json
    """
    from minisbert.search.database import EmbeddingDatabase

    encoder = choice_for(database, choice).encoder()
    with EmbeddingDatabase.open(database, encoder, read_only=True) as opened:
        hits = opened.search(query, top_k=top_k, where=where)
        similarity = opened.settings.similarity
    cells = [(f"{hit.score:.4f}", printable(hit.id, ID_WIDTH), f"{hit.start}-{hit.stop}") for hit in hits]
    lines = grid_with_texts([("score", "id", "characters"), *cells], ["text", *(hit.text for hit in hits)])
    about = {"query": query, "where": where, "top_k": top_k, "similarity_fn_name": similarity}
    give(as_json, lines if hits else ["no document meets the condition"], {**about, "hits": hits})
