"""``minisbert bench``: our encoder compared with sentence-transformers and ONNX Runtime."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from statistics import median
from typing import Any

import click

from minisbert.bench.engines import ENGINES, check_installed
from minisbert.bench.run import OURS, PARTS, Row, default_texts, make_batches, run_benchmark
from minisbert.cli import options
from minisbert.cli.options import TextSource, input_options
from minisbert.cli.outputs import Target, output_options, write_json
from minisbert.cli.table import grid
from minisbert.parallel import libraries, read_processor, threads, usable_processors

LIBRARIES = ("minisbert", "numpy", "tokenizers", "torch", "transformers", "sentence-transformers", "onnxruntime")


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
    engines = engines or tuple(name for name in ENGINES if name != "minisbert-deterministic")
    check_installed(engines)
    encoder = choice.encoder()
    is_given = bool(source.arguments) or source.file is not None
    texts = source.read() if is_given else default_texts(encoder)
    if not texts:
        raise click.UsageError("Nothing to measure: the input has no texts.")
    trainers = [name for name, engine in ENGINES.items() if engine.train]
    if not set(engines) & set(trainers) or not make_batches(texts):
        if "training" in parts:
            able = " or ".join(trainers)
            raise click.UsageError(f"Training takes {able}, and two pairs of four different texts, line after line.")
        parts = parts or PARTS[:-1]
    num_threads = num_threads or threads.usable()
    about = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": encoder.folder.name,
        "texts": len(texts),
        "source": source.name if source.file else "the command line" if is_given else "generated",
        "tokens": int(encoder.tokenize(texts, overflow="truncate").lengths.sum()),
        "rounds": rounds,
        "num_threads": num_threads,
        "processor": read_processor().name or platform.processor(),
        "processors": usable_processors(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            **{name: found.version for name in LIBRARIES for found in distributions(name=name)},
        },
        "blas": [" ".join(str(one.get(key) or "") for key in BLAS).rstrip() for one in libraries()],
    }
    rows = []
    with tempfile.TemporaryDirectory(prefix="minisbert-bench-") as folder:
        for row in run_benchmark(
            encoder, texts, engines, parts or PARTS, rounds=rounds, num_threads=num_threads, folder=Path(folder)
        ):
            click.echo(f"measured {row.what.strip()}", err=True)  # it takes minutes
            rows.append(row)
    click.echo(format_report(about, rows))
    target.write(write_json, {"about": about, "rows": rows})


BLAS = ("internal_api", "version", "architecture")  # such as openblas 0.3.31 Haswell


def format_report(about: dict[str, Any], rows: Sequence[Row]) -> str:
    """Medians over the rounds, and the median of the ratios within each round."""
    names = list(dict.fromkeys(name for row in rows for name in row.rounds))
    table = [["", *names]]
    for row in rows:
        cells = []
        for name in names:
            middle = median(row.rounds.get(name, [0.0]))
            cell = "" if name not in row.rounds else f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}"
            has_ratio = row.ratios and cell and OURS in row.rounds and name != OURS
            cells.append(f"{cell} ({row.ratio(name):.2f})" if has_ratio else cell)
        table.append([row.what, *cells])
    lines = [
        f"{about['model']}: {about['texts']:,} texts, {about['source']}, {about['tokens']:,} tokens "
        f"({about['tokens'] / about['texts']:.1f} a text)",
        f"{about['num_threads']} threads, float32, {about['rounds']} rounds; medians; in brackets: minisbert's figure "
        "as a multiple of this one",
        f"{about['processor']}, {about['processors']} processors, {about['system']}",
        ", ".join([*(f"{library} {number}" for library, number in about["versions"].items()), *about["blas"]]),
        "",
    ]
    return "\n".join([*lines, *grid(table)])
