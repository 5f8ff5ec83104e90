"""``minisbert embed``: any number of texts to vectors, to a file or stdout, a block at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice, tee
from pathlib import Path
from typing import Any

import click

from minisbert import __version__
from minisbert.cli import options, outputs
from minisbert.cli.bulk import embed_with_ray
from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.job import NOTHING_CUT, claim
from minisbert.cli.options import ModelChoice
from minisbert.cli.outputs import Target
from minisbert.cli.vectors import KINDS, write_stdout
from minisbert.encoder import SentenceEncoder
from minisbert.model import Array
from minisbert.model.tokens import OverflowReport


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
