"""``minisbert bench``: our encoder beside sentence-transformers and ONNX Runtime on the command line."""

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


@click.command(short_help="Measure speed and memory beside PyTorch and ONNX Runtime.")
@input_options
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(list(ENGINES)),
    help="Measure this one; may be given several times.  [default: all but minisbert-deterministic]",
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(PARTS),
    help="Measure this; may be given several times.  [default: all that engines and texts allow]",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Turns of every engine.")
@click.option("--num-threads", type=click.IntRange(min=1), help="For every engine.  [default: one a processor]")
@click.option(
    "--growth",
    type=click.IntRange(min=100),
    default=100_000,
    show_default=True,
    help="The most texts of the part growth; a tenth and a hundredth of them come before.",
)
@click.option(
    "-o",
    "--output",
    metavar="NAME",
    default="bench",
    show_default=True,
    help="Write NAME.json, every round in it, and the picture NAME.png.",
)
@click.option("--force", is_flag=True, help="Replace these files if they exist.")
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
    """Measure our encoder beside sentence-transformers (PyTorch) and ONNX Runtime.

    Same texts, same threads, float32 on the CPU, each engine in a process of its own, in interleaved rounds. Texts are
    read like those of `embed`, or made on the spot with lengths as sentences have them. Parts: throughput of many
    texts, the same by length, a single text at a time, cold start, growth to many more texts, and steps of training on
    neighbouring texts as pairs, for which ONNX Runtime has no gradients. All of it takes about a quarter of an hour on
    two cores.

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
        raise click.UsageError("There is nothing to measure: the input has no texts.")
    order = Order(
        chosen,
        choose_parts(parts, chosen, texts),
        rounds,
        num_threads or threads.usable(),
        lengths=tuple(length for length in LENGTHS if length <= encoder.max_seq_length),
        growth=(growth // 100, growth // 10, growth),
        source=_describe(source) if given else "made on the spot",
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
    column = source.column or source.field
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
