"""A database of documents to search by meaning: ``minisbert index`` and ``minisbert search``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli import LazyGroup, outputs
from minisbert.cli.inputs import DIALECT_OPTIONS, KINDS, dialect
from minisbert.cli.options import TEXT, ModelChoice, Verb, decorate, json_option, model_options
from minisbert.cli.outputs import echo_json
from minisbert.cli.table import align, display_width, pad, printable, shorten, terminal_width
from minisbert.tables import EmptyTextWarning

if TYPE_CHECKING:
    from minisbert.search.database import Document, Hit, IndexInfo


# -------------------------------------------------------------------------------------------------------------- index


# Name -> module and short help, as in every group.
VERBS = {
    "build": ("search", "Build a database of documents, or continue."),
    "add": ("search", "Add documents, and replace changed ones."),
    "remove": ("search", "Remove documents."),
    "info": ("search", "Show the contents of a database."),
}
SHOWN = 10  # fields and sources listed


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Maintain a database of documents to search by meaning.")
def index() -> None:
    """Maintain a database of documents and their vectors, which `minisbert search` searches by meaning.

    The database is one DuckDB file. Needs duckdb: pip install -e '.[search]'

    \b
    Examples:
      minisbert index build notes.duckdb notes.txt
      minisbert index info notes.duckdb

    `minisbert index COMMAND --help` describes a command and shows more examples.
    """


def documents_options(verb: Verb) -> Verb:
    """Add FILES and their reading options to a verb."""
    options = [
        click.argument("database", metavar="DB"),
        click.argument("files", metavar="FILES...", nargs=-1, required=True),
        click.option("--text-column", metavar="NAME", help="Column of the text.  [default: text, or the only column]"),
        click.option(
            "--id-column", metavar="NAME", help="Column of the id.  [default: id or _id, else file and line are the id]"
        ),
        click.option(
            "--text-as",
            type=click.Choice(["lines", "file"]),
            help="What is a document in a text file.  [default: a line of a .txt, the whole of any other]",
        ),
        click.option(
            "--input-format",
            type=click.Choice(KINDS),
            help="[default: by the files' suffixes, else text]",
        ),
        *DIALECT_OPTIONS,
        click.option(
            "--block-documents",
            type=click.IntRange(min=1),
            default=1024,
            show_default=True,
            metavar="B",
            help="Number of documents embedded and stored at a time.",
        ),
        click.option("--progress/--no-progress", default=None, help="Progress on stderr.  [default: on a terminal]"),
    ]
    return decorate(verb, options)


@click.command(short_help=VERBS["build"][1])
@documents_options
@click.option(
    "--chunk-tokens",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Chunk length for long documents.  [default: the model's limit]",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    metavar="TOKENS",
    help="Tokens shared with the previous chunk.  [default: 0]",
)
@click.option(
    "--document-prompt", metavar="TEXT", type=TEXT, help="Prepend this to every document.  [default: the model's]"
)
@click.option("--query-prompt", metavar="TEXT", type=TEXT, help="Prepend this to every query.  [default: the model's]")
@model_options
def build(
    database: str,
    files: tuple[str, ...],
    block_documents: int,
    progress: bool | None,
    choice: ModelChoice,
    **options: Any,
) -> None:
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
    settings = {name: options.pop(name) for name in ("chunk_tokens", "overlap", "document_prompt", "query_prompt")}
    _add(database, files, block_documents, progress, choice, options, **settings)


@click.command(short_help=VERBS["add"][1])
@documents_options
@model_options
def add(
    database: str,
    files: tuple[str, ...],
    block_documents: int,
    progress: bool | None,
    choice: ModelChoice,
    **options: Any,
) -> None:
    """Add documents to a database, and replace those whose content has changed.

    Files are read as by `minisbert index build`, which also set chunks and prompts. The model is the one that built
    the database.

    \b
    Examples:
      minisbert index add notes.duckdb more.txt
      minisbert index add notes.duckdb articles.csv --text-column body
    """
    choice_for(database, choice)  # a database that is not there shows before the files are read
    _add(database, files, block_documents, progress, choice, options)


@click.command(short_help=VERBS["remove"][1])
@click.argument("database", metavar="DB")
@click.argument("ids", metavar="[ID]...", nargs=-1, type=TEXT)
@click.option(
    "--where", metavar="CONDITION", type=TEXT, help="Also remove documents that match; see `minisbert search --help`."
)
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
        click.echo(f"{database}: {_documents(removed)} removed, {len(opened):,} left")


@click.command(short_help=VERBS["info"][1])
@click.argument("database", metavar="DB")
@json_option
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
    if as_json:
        echo_json(about)
        return
    click.echo("\n".join(shorten(line, max(40, terminal_width())) for line in align(_described(about), indent="")))


# ------------------------------------------------------------------------------------------------ helpers


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
    options: dict[str, Any],
    **settings: Any,
) -> None:
    """Add the documents of all files, and report what happened to them."""
    from minisbert.hub import DEFAULT_MODEL
    from minisbert.search.database import EmbeddingDatabase, check_duckdb
    from minisbert.search.documents import check_documents, read_documents

    def read() -> Iterator[Document]:
        return check_documents(read_documents(files, **options, **dialect()))

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
    shown = outputs.progress if progress is None else progress
    with EmbeddingDatabase.open(database, choice.encoder("float32"), model_name=name, **settings) as opened:
        report = opened.add(read(), total=total, show_progress_bar=shown, block_documents=block_documents)
        click.echo(
            f"{opened.path}: {_documents(report.added)} added, {report.replaced:,} replaced, "
            f"{report.unchanged:,} unchanged; {report.chunks:,} chunk{'' if report.chunks == 1 else 's'} embedded; "
            f"{_documents(len(opened))} in all"
        )


def _documents(count: int) -> str:
    """A number of documents, in words."""
    return f"{count:,} document{'' if count == 1 else 's'}"


def _described(about: IndexInfo) -> list[tuple[str, str]]:
    """What is in a database, as lines."""
    settings = about.settings
    rows = [
        ("documents", f"{about.documents:,}"),
        ("chunks", f"{about.chunks:,}, of at most {settings.chunk_tokens} tokens, overlap {settings.overlap}"),
        ("vectors", f"{about.width} dimensions, float32, compared by {settings.similarity}"),
        ("model", f"{about.model} ({about.fingerprint[:12]}…)"),
        ("file", f"{about.file_bytes / 1e6:,.1f} MB, schema version {about.schema_version}"),
    ]
    for name in ("document_prompt", "query_prompt"):
        if getattr(settings, name):
            rows.append((name.replace("_", " "), repr(getattr(settings, name))))
    rows.append(("metadata", _listed(about.fields) or "none"))
    rows.append(("sources", _listed(about.sources) or "none"))
    return rows


def _listed(counts: dict[str, int]) -> str:
    """Names with their numbers of documents, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    named = [f"{printable(name) or '(none)'} ({count:,})" for name, count in ordered[:SHOWN]]
    return ", ".join(named) + (f", and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else "")


# ------------------------------------------------------------------------------------------------------------- search


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
