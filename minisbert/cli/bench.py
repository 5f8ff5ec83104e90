"""``minisbert bench``: our encoder compared with sentence-transformers and ONNX Runtime."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click
from tqdm import tqdm

from minisbert.bench.engines import ENGINES
from minisbert.bench.measure import Result
from minisbert.bench.picture import draw
from minisbert.bench.report import format_report
from minisbert.bench.run import (
    LENGTHS,
    PARTS,
    Order,
    choose_engines,
    choose_parts,
    count_steps,
    default_texts,
    run_benchmark,
)
from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, model_options
from minisbert.cli.outputs import Target, written_whole
from minisbert.parallel import threads
from minisbert.plots import require_matplotlib


@click.command(short_help="Compare speed and memory with PyTorch and ONNX Runtime.")
@input_options
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(list(ENGINES)),
    help="Engine to measure; may be repeated.  [default: all but minisbert-deterministic]",
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(PARTS),
    help="Part to run; may be repeated.  [default: all that engines and texts allow]",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds per engine.")
@click.option("--num-threads", type=click.IntRange(min=1), help="Threads per engine.  [default: one per processor]")
@click.option(
    "--growth",
    type=click.IntRange(min=100),
    default=100_000,
    show_default=True,
    help="Texts in the last step of the growth part; a hundredth and a tenth of them come first.",
)
@click.option(
    "-o",
    "--output",
    metavar="NAME",
    default="bench",
    show_default=True,
    help="Write NAME.json with every round, and the plot NAME.png.",
)
@click.option("--force", is_flag=True, help="Overwrite these files if they exist.")
@model_options
def bench(
    source: TextSource,
    engines: tuple[str, ...],
    parts: tuple[str, ...],
    rounds: int,
    num_threads: int | None,
    growth: int,
    output: str,
    force: bool,
    choice: ModelChoice,
) -> None:
    """Compare our encoder with sentence-transformers (PyTorch) and ONNX Runtime.

    Same texts, same threads, float32 on the CPU, each engine in its own process, in interleaved rounds. Texts are read
    as by `embed`, or generated with realistic sentence lengths. Parts: throughput on many texts, throughput by length,
    one text at a time, cold start, growth to many more texts, and training steps with neighbouring texts as pairs
    (ONNX Runtime has no gradients). Everything together takes about a quarter of an hour on two cores.

    \b
    Examples:
      minisbert bench -i texts.txt
      minisbert bench --part throughput --part single -o quick
      minisbert bench --engine minisbert --part growth --growth 10000
      minisbert bench --part training --engine minisbert --engine sentence-transformers
      minisbert bench --engine minisbert --engine minisbert-deterministic --part throughput
    """
    chosen = choose_engines(engines)
    require_matplotlib()
    files = [Target(Path(f"{output}.{kind}"), kind, force) for kind in ("json", "png")]
    for file in files:
        file.check()
    encoder = choice.encoder("float32")
    given = source.arguments or source.file is not None
    texts = list(source.read()) if given else default_texts(encoder)
    if not texts:
        raise click.UsageError("Nothing to measure: the input has no texts.")
    order = Order(
        chosen,
        choose_parts(parts, chosen, texts),
        rounds,
        num_threads or threads.usable(),
        lengths=tuple(length for length in LENGTHS if length <= encoder.max_seq_length),
        growth=(growth // 100, growth // 10, growth),
        source=_describe(source) if given else "generated",
    )
    with tqdm(total=count_steps(order), disable=not sys.stderr.isatty(), desc="bench") as bar:

        def tick(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        with tempfile.TemporaryDirectory(prefix="minisbert-bench-") as folder:
            result = run_benchmark(encoder, texts, order, Path(folder), tick)
    click.echo(format_report(result))
    _write(result, *files)


def _describe(source: TextSource) -> str:
    """Where the texts came from, without the folder."""
    if source.file is None:
        return "from the command line"
    column = source.column
    name = "standard input" if source.file == "-" else Path(source.file).name
    return f"from {name}, {column}" if column else f"from {name}"


def _write(result: Result, json_file: Target, picture: Target) -> None:
    """Write the JSON and the picture."""
    if json_file.file is None or picture.file is None:
        return
    with written_whole(json_file.file) as stream:
        stream.write(json.dumps(result, indent=1).encode() + b"\n")
    with written_whole(picture.file) as stream:
        draw(result, stream)
    click.echo(f"wrote {json_file.file} and {picture.file}", err=True)
