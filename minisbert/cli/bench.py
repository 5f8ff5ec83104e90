"""``minisbert bench``: our encoder compared with sentence-transformers and ONNX Runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from minisbert.bench.engines import ENGINES
from minisbert.bench.report import format_report
from minisbert.bench.run import PARTS, choose_engines, choose_parts, default_texts, describe, run_benchmark
from minisbert.cli import options
from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.outputs import Target, output_options, write_json
from minisbert.parallel import threads


@click.command()
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
@click.option("--rounds", type=options.COUNT, default=5, help="Rounds per engine.")
@options.num_threads_option
@output_options("Also write every round as JSON.", metavar="FILE.json", has_json=False)
@options.model_options
def bench(
    source: TextSource,
    engines: tuple[str, ...],
    parts: tuple[str, ...],
    rounds: int,
    num_threads: int | None,
    target: Target,
    choice: options.ModelChoice,
) -> None:
    """Compare our encoder with sentence-transformers (PyTorch) and ONNX Runtime.

    Same texts, same threads, float32 on the CPU, each engine in its own process, in interleaved rounds. Texts are read
    as by `embed`, or generated with realistic sentence lengths. Parts: throughput on many texts, throughput by length,
    one text at a time, cold start, and training steps with neighbouring texts as pairs (ONNX Runtime has no
    gradients). Everything together takes about ten minutes on two cores.

    \b
    Examples:
      minisbert bench -i texts.txt
      minisbert bench --part throughput --part single -o quick.json
      minisbert bench --part training --engine minisbert --engine sentence-transformers
      minisbert bench --engine minisbert --engine minisbert-deterministic --part throughput
    """
    chosen = choose_engines(engines)
    encoder = choice.encoder()
    origin = "generated"
    if given := source.arguments or source.file is not None:
        column = source.column
        name = "the command line" if source.file is None else Path(source.file).name
        origin = "from standard input" if source.file == "-" else f"from {name}" + (f", {column}" if column else "")
    texts = source.read() if given else default_texts(encoder)
    if not texts:
        raise click.UsageError("Nothing to measure: the input has no texts.")
    chosen_parts, num_threads = choose_parts(parts, chosen, texts), num_threads or threads.usable()
    about, rows = describe(encoder, texts, origin, rounds, num_threads), []
    with tempfile.TemporaryDirectory(prefix="minisbert-bench-") as folder:
        for row in run_benchmark(
            encoder, texts, chosen, chosen_parts, rounds=rounds, num_threads=num_threads, folder=Path(folder)
        ):
            click.echo(f"measured {row.what.strip()}", err=True)  # it takes minutes
            rows.append(row)
    click.echo(format_report(about, rows))
    target.write(write_json, {"about": about, "rows": rows})
