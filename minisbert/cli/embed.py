"""``minisbert embed``: texts to vectors, in a file or on stdout."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import click

from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, computing_options, model_options
from minisbert.cli.outputs import choose_target


@click.command(short_help="Turn texts into vectors.")
@input_options
@click.option("-o", "--output", metavar="FILE", help="A .npy, .safetensors or .jsonl file.  [default: JSONL on stdout]")
@click.option(
    "--output-format",
    type=click.Choice(["npy", "safetensors", "jsonl"]),
    help="[default: by the file's suffix]",
)
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
@click.option("--normalize", is_flag=True, help="Scale vectors to length 1.")
@click.option("--truncate-dim", type=click.IntRange(min=1), metavar="D", help="Keep the first D dimensions.")
@click.option("--prompt", metavar="TEXT", help="Put this before every text.")
@click.option("--prompt-name", metavar="NAME", help="Put the model's prompt of this name before every text.")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="B", help="At most B texts in a batch.")
@click.option("--progress/--no-progress", default=None, help="A bar on stderr.  [default: on a terminal]")
@computing_options
@model_options
def embed(
    source: TextSource,
    output: str | None,
    output_format: str | None,
    force: bool,
    progress: bool | None,
    choice: ModelChoice,
    dtype: str,
    **encode_options: Any,
) -> None:
    """Turn texts into vectors.

    Texts are arguments, or come from a file (-i), or from stdin. In a text file each line is a text, an empty line
    an empty one, so vector n belongs to line n. Rows without a text are refused by line number, and the output file
    appears whole or not at all.

    \b
    Examples:
      minisbert embed "i love soup"
      minisbert embed -i texts.txt -o vectors.npy
      minisbert embed -i reviews.csv --column review -o vectors.safetensors
      minisbert embed -i posts.jsonl --field post.title -o vectors.jsonl
      echo "soup is my favorite" | minisbert embed --normalize
    """
    if encode_options["prompt"] is not None and encode_options["prompt_name"] is not None:
        raise click.UsageError("Give --prompt or --prompt-name, not both.")
    target = choose_target(output, output_format, force)
    target.check()
    texts = list(_or_stdin(source).read())
    encoder = choice.encoder(dtype)
    show = sys.stderr.isatty() if progress is None else progress
    embeddings = encoder.encode(
        texts,
        show_progress_bar=show,
        normalize_embeddings=encode_options.pop("normalize"),
        **encode_options,
    )
    target.write(texts, embeddings)
    if target.file is not None:
        rows, width = embeddings.shape
        click.echo(f"wrote {rows:,} vectors of {width} {embeddings.dtype} numbers to {target.file}", err=True)


def _or_stdin(source: TextSource) -> TextSource:
    """Read stdin when nothing else is named and it is no keyboard."""
    if source.arguments or source.file is not None:
        return source
    if sys.stdin is None or sys.stdin.isatty():  # None: started with stdin closed
        raise click.UsageError("Nothing to embed: give texts, a file (-i), or pipe them in.")
    return replace(source, file="-")
