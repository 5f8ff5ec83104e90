"""``minisbert embed``: any number of texts to vectors, to a file or stdout, a block at a time.

With ``--engine ray`` Parquet becomes a folder of Parquet files, on as many machines as a Ray cluster has. As for a
file, the output appears whole or not at all: until then the hidden folder ``.NAME.parts`` has what is done, and
``job.json``, which says of what.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import sha256
from itertools import islice, tee
from pathlib import Path
from typing import Any

import click

from minisbert import __version__
from minisbert.checks import require
from minisbert.cli import options, outputs
from minisbert.cli.options import ModelChoice, TextSource, input_options
from minisbert.cli.outputs import OutputError, Target, check_no_input, locked
from minisbert.cli.vectors import (
    INPUT,
    KINDS,
    NOTHING_CUT,
    START_OVER,
    claim,
    differences,
    parquet_schema,
    recorded,
    write_stdout,
)
from minisbert.encoder import SentenceEncoder
from minisbert.files import written_whole
from minisbert.model import Array
from minisbert.model.tokens import OverflowReport
from minisbert.tables import InputError, read_table


@click.command()
@input_options
@click.option("-o", "--output", metavar="FILE", help="A .npy, .safetensors, .jsonl or .parquet.  [default: stdout]")
@options.choice_option(
    "--engine", ["local", "ray"], "ray: files and folders of Parquet, on a Ray cluster, to the folder -o."
)
@click.option(
    "--address", envvar="RAY_ADDRESS", show_envvar=True, help="HOST:PORT of Ray, or auto.  [default: a new one]"
)
@click.option("--force", is_flag=True, help="Overwrite the output file and the leftovers of an earlier run.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run, if there is one.")
@click.option("--id", "id_column", metavar="NAME|N", help="Column of ids.  [default: the row's number; ray: id or _id]")
@click.option("--normalize", "normalize_embeddings", is_flag=True, help="Scale vectors to length 1.")
@click.option("--truncate-dim", type=options.COUNT, metavar="D", help="Keep the first D dimensions.")
@click.option("--prompt", metavar="TEXT", type=options.TEXT, help="Prepend this to every text.")
@click.option("--prompt-name", metavar="NAME", help="Prepend the model's prompt of this name to every text.")
@click.option("--batch-size", type=options.COUNT, metavar="B", help="Maximum number of texts in a batch.")
# 2048: a few seconds of work, so that little is lost if a job is killed
@click.option("--block-texts", type=options.COUNT, default=2048, help="Texts in memory, and saved, at a time.")
@options.num_threads_option
@options.progress_option
@click.option("--deterministic", is_flag=True, help="Bit-identical for any threads and blocks; slower.")
@options.computing_options
@options.model_options
def embed(
    source: TextSource,
    output: str | None,
    engine: str,
    address: str | None,
    force: bool,
    resume: bool,
    id_column: str | None,
    progress: bool | None,
    choice: ModelChoice,
    dtype: str,
    **encoding: Any,
) -> None:
    """Turn texts into vectors.

    Texts are arguments, or come from a file (-i) or from stdin. In a text file each line is a text, and an empty line
    an empty text, so vector n belongs to line n. A row without a text is an error with its line number: in a file
    before the work begins, on stdin when it is reached.

    Memory use does not grow with the number of texts. The output file appears whole or not at all; until then the
    hidden folder .FILE.parts holds what is done. If the run is interrupted, the same command with --resume continues
    it; if there is nothing to continue, it starts, and if the file is complete, it says so. Before, it compares texts,
    model and settings as far as the file records them: .safetensors and .parquet do.

    --engine ray reads Parquet and writes a folder of Parquet files, in no order, with a worker on each of the cluster's
    processors (or on each N, with --num-threads N). Files, output and model must be in the same place on all machines,
    and each row needs an id of its own. On one machine the local engine is faster.

    \b
    Examples:
      minisbert embed "i love soup"
      minisbert embed -i texts.txt -o vectors.npy
      minisbert embed -i texts.txt -o vectors.npy --resume
      minisbert embed -i reviews.csv --column review -o vectors.safetensors
      minisbert embed -i reviews.csv --id id -o vectors.parquet
      minisbert embed -i posts.jsonl --field post.title -o vectors.jsonl
      minisbert embed -i texts.txt -o vectors.npy --overflow chunk
      minisbert embed texts.parquet -o vectors/ --engine ray
      echo "soup is my favorite" | minisbert embed --normalize
    """
    if encoding["prompt"] is not None and encoding["prompt_name"] is not None:
        raise click.UsageError("Give --prompt or --prompt-name, not both.")
    # What determines a vector besides its text; not threads, batches and blocks, which affect its last digit at
    # most, nor --overflow, unless it splits texts: otherwise it decides whether a text is rejected.
    of_chunks = ("chunk_tokens", "overlap", "composition")

    def settings_of(encoder: SentenceEncoder, kind: str, id_column: str | None) -> dict[str, Any]:
        return {
            "minisbert": __version__,
            "format": kind,
            "id": id_column,
            "dtype": str(encoder.dtype),
            "dimensions": encoding["truncate_dim"] or encoder.get_sentence_embedding_dimension(),
            "name": encoder.folder.name,
            "model": encoder.fingerprint(),
            "max_seq_length": encoder.max_seq_length,
            **{name: encoding[name] for name in ("prompt", "prompt_name", "normalize_embeddings", "deterministic")},
            **{name: encoding[name] if encoding["overflow"] == "chunk" else None for name in of_chunks},
        }

    if engine == "ray":
        if source.input_format not in (None, "parquet"):
            raise click.UsageError("--engine ray reads Parquet.")
        if output is None or not (source.arguments or source.file):
            raise click.UsageError("--engine ray needs files or folders of Parquet, and a folder to write, with -o.")
        how: dict[str, Any] = {"id_column": id_column, "address": address or "local", "progress": progress}
        embed_with_ray(source, Path(output), settings_of, choice, dtype, encoding, force=force, resume=resume, **how)
        return
    target = Target.at(output, force, KINDS)
    if output is None and resume:
        raise click.UsageError("--resume continues an output file; give it with -o.")
    if id_column is not None and (target.kind != "parquet" or source.file is None):
        raise click.UsageError("--id is a column of a file, -i, for a .parquet, -o.")
    if not source.arguments and source.file is None:
        if sys.stdin.isatty():
            raise click.UsageError("Nothing to embed: give texts, a file (-i), or pipe them in.")
        source = replace(source, file="-")
    usual = None if output is None and sys.stdout.isatty() else outputs.progress  # it would be drawn over
    encoding["show_progress_bar"] = usual if progress is None else progress
    if output is None:
        encoding["total"] = source.count()
        _embed(choice.encoder(dtype), source.rows(), NOTHING_CUT, encoding, write_stdout)
        return
    ids = [] if id_column is None else [id_column]
    with claim(target, resume) as job:
        encoding["total"] = source.count(*ids)
        encoder, rows = choice.encoder(dtype), source.rows(*ids)
        settings = settings_of(encoder, target.kind, id_column)
        if job.is_complete:
            said = job.check_complete(settings, rows)
            click.echo(f"{target.file}: already complete, {said}; --force starts over", err=True)
            return
        job.begin(settings, rows)
        resumed = job.rows
        _embed(encoder, rows, job.cut, encoding, job.add)
        job.finish()
    kept = f", {resumed:,} of them from an earlier run" if resumed else ""
    width = settings["dimensions"]
    click.echo(f"wrote {job.rows:,} {dtype} vectors of {width} dimensions to {target.file}{kept}", err=True)


def _embed(
    encoder: SentenceEncoder,
    rows: Iterator[tuple[Any, ...]],
    cut: Sequence[int],
    encoding: dict[str, Any],
    take: Callable[[list[tuple[Any, ...]], Array, Sequence[int]], object],
) -> None:
    """Embed texts, and give away each block: rows, vectors, and what was cut so far, an earlier run's included."""
    report = OverflowReport(encoder.max_seq_length, encoding["overflow"], cut)
    given, texts = tee(rows)  # the encoder takes texts before it gives their vectors
    blocks: Any = encoder.encode_stream((text for text, *_ in texts), report=report, **encoding)
    with closing(blocks):
        for vectors in blocks:
            take(list(islice(given, len(vectors))), vectors, report.counts)


# ------------------------------------------------------------------------------------------------------- --engine ray


NEEDS = "ray", "--engine ray"  # the extra, and what needs it


def input_files(source: TextSource, output: Path) -> list[Path]:
    """The Parquet files that are named, and those in folders that are named, but for hidden ones and the output."""
    files: list[Path] = []
    for path in map(Path, source.arguments or (str(source.file),)):
        place = path.resolve()
        if place == output or place in output.parents or output in place.parents:
            raise OutputError(f"{output}: belongs to the input {path}; choose another place")
        found = sorted(place.rglob("[!._]*.parquet")) if place.is_dir() else [place]
        found = [file for file in found if not any(name.startswith(".") for name in file.relative_to(place).parts)]
        if not found or not all(file.is_file() for file in found):
            raise InputError(f"{path}: expected a file of Parquet, or a folder of them")
        files += found
    return files


def checked_ids(files: Sequence[Path], column: str) -> tuple[Any, int, str]:
    """The type of the ids, their number, and a hash of the files' tables of contents; ids must tell the rows apart."""
    arrow, parquet = require("pyarrow", *NEEDS), require("pyarrow.parquet", *NEEDS)
    contents, parts = sha256(), []
    for file in files:
        try:
            about = parquet.read_metadata(file)
            if column not in about.schema.to_arrow_schema().names:
                raise InputError(f"{file}: no column {column!r}; there are {', '.join(about.schema.names)}")
            parts += parquet.read_table(file, columns=[column])[column].chunks
        except (arrow.ArrowException, OSError) as error:
            raise InputError(f"{file}: not readable as Parquet: {str(error).splitlines()[0]}") from None
        contents.update(json.dumps(about.to_dict(), default=str).encode())
    kinds = {part.type for part in parts} or {arrow.int64()}
    is_number, is_string, is_large = arrow.types.is_integer, arrow.types.is_string, arrow.types.is_large_string
    if not (all(map(is_number, kinds)) or all(is_string(kind) or is_large(kind) for kind in kinds)):
        said = " and ".join(map(str, kinds))
        raise InputError(f"{files[0]}: the ids in {column!r} must be whole numbers or strings, got {said}")
    kind = arrow.int64() if all(map(is_number, kinds)) else arrow.string()
    try:
        ids = arrow.chunked_array([part.cast(kind) for part in parts], kind)
    except arrow.ArrowInvalid as error:
        raise InputError(f"{files[0]}: the ids in {column!r} must fit in 64 bits: {error}") from None
    if ids.null_count:
        raise InputError(f"{files[0]}: {ids.null_count:,} of {len(ids):,} rows have no id in {column!r}")
    counts = ids.value_counts()
    if len(counts) < len(ids):
        twice = counts.filter(arrow.compute.greater(counts.field("counts"), 1))[0].as_py()
        raise InputError(
            f"{files[0]}: the id {twice['values']!r} in {column!r} stands in {twice['counts']:,} rows; after a crash, "
            "rows are told apart by their ids: give each its own"
        )
    return kind, len(ids), contents.hexdigest()


def rows_in(folder: Path) -> int:
    parquet = require("pyarrow.parquet", *NEEDS)
    return sum(parquet.read_metadata(file).num_rows for file in folder.glob("*.parquet"))


def check_output(output: Path, force: bool) -> None:
    """Raise for a place that cannot be written, and for a folder of something else, which is never replaced."""
    if output.suffix.lower() in (".parquet", ".pq", ".npy", ".jsonl", ".safetensors"):
        raise click.UsageError(f"With --engine ray, -o is a folder, got {output}.")
    check_no_input(output)
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: not a folder; choose another name")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: the folder {output.parent} does not exist; create it first")
    if force and output.exists():
        files = list(output.iterdir())
        if any(file.suffix != ".parquet" for file in files) or not (files and recorded(files[0], "parquet").get(INPUT)):
            raise OutputError(
                f"{output}: not only vectors of `embed --engine ray`, so not overwritten; remove it first"
            )


def embed_with_ray(
    source: TextSource,
    output: Path,
    settings_of: Callable[..., dict[str, Any]],
    choice: ModelChoice,
    dtype: str,
    encoding: dict[str, Any],
    *,
    id_column: str | None,
    address: str,
    force: bool,
    resume: bool,
    progress: bool | None,
) -> None:
    """Check everything, have Ray work in the hidden folder, and rename what it has written."""
    require("ray.data", *NEEDS)
    output = output.resolve()
    check_output(output, force)
    files = input_files(source, output)
    table = read_table(files[0], input_format="parquet")
    id_column = table.find("id", id_column, hint="--id NAME says which")
    text_column = source.column_of(table)
    id_type, rows, contents = checked_ids(files, id_column)
    parts = output.with_name(f".{output.name}.parts")
    manifest, vectors = parts / "job.json", parts / "vectors"
    with locked(output.with_name(f"{parts.name}.lock"), f"{output}: another process is writing it"):
        encoder = choice.encoder(dtype)
        settings = {**settings_of(encoder, "parquet", id_column), INPUT: contents}
        job: dict[str, Any] = {"settings": settings, "replaces": force}
        if vectors.exists() and resume:
            job = json.loads(manifest.read_bytes())
        elif vectors.exists() and not force:
            raise OutputError(f"{output}: an earlier run was interrupted; continue it with --resume, or {START_OVER}")
        elif output.exists() and resume and not force:
            found = next((recorded(file, "parquet") for file in output.glob("*.parquet")), {})
            job = {"settings": {name: found.get(name) for name in settings}}
        if changes := differences(job["settings"], settings):
            raise OutputError(f"{output}: was made with other settings: {changes}; use the same, or {START_OVER}")
        if "replaces" not in job:
            if rows_in(output) != rows:
                raise OutputError(f"{output}: has {rows_in(output):,} rows, but the input {rows:,}; {START_OVER}")
            shutil.rmtree(parts, ignore_errors=True)
            click.echo(f"{output}: already complete, {rows:,} vectors; --force starts over", err=True)
            return
        if output.exists() and not job["replaces"]:
            raise OutputError(f"{output}: already exists; choose another name, or overwrite it with --force")
        if not (vectors.exists() and resume):
            shutil.rmtree(parts, ignore_errors=True)
            parts.mkdir()
            with written_whole(manifest) as stream:
                stream.write(json.dumps(job, indent=1).encode())
            vectors.mkdir()
        num_cpus, file_rows = encoding.pop("num_threads") or 1, encoding.pop("block_texts")
        worker = {
            **{"model": str(encoder.folder.resolve()), "fingerprint": encoder.fingerprint(), "dtype": dtype},
            **{"max_seq_length": encoder.max_seq_length, "id_column": id_column, "text_column": text_column},
            **encoding,
        }
        try:
            with cluster(address, progress):
                from minisbert.bulk import embed_parquet

                embed_parquet(
                    list(map(str, files)), vectors, worker, parquet_schema(settings, id_type), num_cpus, file_rows
                )
                written = rows_in(vectors)
                if written != rows:
                    raise OutputError(
                        f"{vectors}: {written:,} rows instead of {rows:,}: did the input change? {START_OVER}"
                    )
        except BaseException:  # Ctrl-C too
            click.echo(f"what is done is saved in {parts}; to continue, run the same command with --resume", err=True)
            raise
        if job["replaces"] and output.exists():
            shutil.rmtree(output)
        vectors.rename(output)
        shutil.rmtree(parts)
    click.echo(f"wrote {rows:,} {dtype} vectors of {settings['dimensions']} dimensions to {output}", err=True)


@contextmanager
def cluster(address: str, progress: bool | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this machine; what fails in a worker is raised as what it is."""
    ray = require("ray", *NEEDS)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports over the network what it is used for
    try:
        ray.init(address, log_to_driver=True, **({"include_dashboard": False} if address == "local" else {}))
    except Exception as error:  # Ray raises plain ones
        raise OutputError(f"Ray at {address!r} cannot be had: {str(error).splitlines()[0]}") from error
    ray.data.DataContext.get_current().enable_progress_bars = sys.stderr.isatty() if progress is None else progress
    try:
        yield
    except ray.exceptions.RayError as error:
        first = re.search(r"^\w*Error: (.*)", str(error), re.MULTILINE)  # Ray keeps of its cause only the traceback
        raise OutputError(f"a worker failed: {first[1] if first else error}") from error
    finally:
        ray.shutdown()
