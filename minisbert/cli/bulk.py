"""``minisbert embed --engine ray``: Parquet to a folder of Parquet files, on as many machines as a Ray cluster has.

As for a file, the output appears whole or not at all: until then the hidden folder ``.NAME.parts`` has what is done,
and ``job.json``, which says of what.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from minisbert.checks import require
from minisbert.cli.inputs import TextSource
from minisbert.cli.job import START_OVER, differences
from minisbert.cli.options import ModelChoice
from minisbert.cli.outputs import OutputError, check_no_input, locked
from minisbert.cli.vectors import INPUT, parquet_schema, recorded
from minisbert.files import written_whole
from minisbert.tables import InputError, read_table

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
