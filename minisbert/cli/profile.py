"""``minisbert profile``: one forward pass by operation, compared with this machine's ceilings."""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from itertools import groupby
from typing import Any

import click

from minisbert import __version__
from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.encoder import SentenceEncoder
from minisbert.parallel import BATCH_TOKENS, advice, libraries
from minisbert.proof.profile import OPERATIONS, Cost, Profile, Row
from minisbert.proof.profile import profile as measure

MOST_TOKENS = 2 * BATCH_TOKENS
"""Tokens that are profiled: two full batches; a third would add nothing."""

HEAD = ("operation", "shapes", "calls", "ms", "share", "MFLOP", "MB", "FLOP/byte", "GFLOP/s", "of ceiling", "bound by")
_WORDS = ("operation", "shapes", "bound by")  # left-aligned columns
_WORTH_A_WORD = 1.05  # above the ceiling by more than the ceiling's own noise


@click.command(short_help="Show where the time of a forward pass goes.")
@input_options
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option(
    "--num-threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads for matrix products; everything else runs on one.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    metavar="N",
    help="Passes; their median is shown.  [default: as many as fit into 2 seconds, 3 to 100]",
)
@json_option
@model_options
def profile(
    source: TextSource, choice: ModelChoice, dtype: str, num_threads: int, repeat: int | None, as_json: bool
) -> None:
    """Show where the time of a forward pass goes, operation by operation.

    The production code is timed. FLOP and bytes are computed by formula; each necessary read or write of a byte counts
    once. The two ceilings of the roofline are measured on the spot: the speed of a matrix product and of a memory copy.
    An operation's ceiling is what both allow, and `bound by` says which one limits it.

    \b
    Examples:
      minisbert profile "i love soup"
      minisbert profile -i texts.txt
      minisbert profile -i texts.txt --num-threads 2 --json
    """
    if source.file is None and not source.arguments:
        raise click.UsageError("Nothing to profile: give texts, or a file (-i).")
    encoder = choice.encoder(dtype)
    texts, left_out = _enough(source.read(), encoder)
    if not texts:
        raise ValueError("profile: the input has no texts; an empty line of a text file would count as one")
    encoder.tokenize(texts)  # warns about what is cut off
    if left_out:
        click.echo(f"profiled: the first {len(texts):,} texts; more than {MOST_TOKENS:,} tokens add nothing", err=True)
    found = measure(encoder, texts, num_threads=num_threads, passes=repeat)
    if as_json:
        click.echo(json.dumps(_to_json(found, encoder), indent=2))
    else:
        click.echo("\n".join([*_heading(found, encoder), "", *_table(found, encoder), "", *_verdict(found)]))
    if sentence := advice():
        warnings.warn(sentence, stacklevel=1)


def _enough(texts: Iterable[str], encoder: SentenceEncoder) -> tuple[list[str], bool]:
    """Take texts until there are enough tokens, and report whether any were left."""
    taken: list[str] = []
    tokens = 0
    for text in texts:
        tokens += len(encoder.model.tokenizer([text], encoder.max_seq_length).token_ids)
        if taken and tokens > MOST_TOKENS:
            return taken, True
        taken.append(text)
    return taken, False


def _heading(found: Profile, encoder: SentenceEncoder) -> list[str]:
    """What was measured, on which machine, and the sizes that the letters stand for."""
    config, ceilings = encoder.model.config, found.ceilings
    work = [_count(found.texts, "text"), _count(found.tokens, "token"), _count(found.batches, "batch", "batches")]
    blas = [f"{library['internal_api']} {library['version']}{_kernel(library)}" for library in libraries()]
    versions = [f"minisbert {__version__}", f"Python {platform.python_version()}", f"NumPy {version('numpy')}", *blas]
    average = " on average" if found.batches > 1 else ""
    return [
        f"{encoder.folder.name}, {encoder.dtype}: {', '.join(work)}, {_count(found.num_threads, 'thread')}; "
        f"median of {_count(found.passes, 'pass', 'passes')}",
        f"ceilings: matrix product {ceilings.gflop_per_s:.1f} GFLOP/s, memory copy {ceilings.gb_per_s:.1f} GB/s",
        f"versions: {', '.join(versions)}",
        f"N = {found.tokens // found.batches} tokens in a batch{average}, T in a text; D = {config.hidden_size}, "
        f"H = {config.num_attention_heads}, K = {config.head_size}, F = {config.intermediate_size}; "
        f"{_count(config.num_hidden_layers, 'layer')}",
    ]


def _kernel(library: dict[str, Any]) -> str:
    """The kernel, if BLAS reports it."""
    return f" ({library['architecture']})" if library.get("architecture") else ""


def _count(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _table(found: Profile, encoder: SentenceEncoder) -> list[str]:
    """Format the operations under their blocks, the rest, and the sum."""
    lines: list[tuple[str, ...]] = [HEAD]
    for block, members in groupby(found.rows, key=lambda row: row.block):
        rows = list(members)
        if len(rows) > 1:
            lines.append((block, "", "", *_times(sum(row.seconds for row in rows), found), *[""] * 6))
        for row in rows:
            name = encoder.model.config.hidden_act if row.name == "activation" else row.name
            lines.append((f"  {name}" if len(rows) > 1 else block, *_figures(row, found)))
    lines.append(("other", "", "", *_times(found.other, found), *[""] * 6))
    rates = _rates(found.cost, found.seconds, found.least_seconds)
    lines.append(("total", "", "", *_times(found.seconds, found), *rates, ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(-1, tuple("-" * width for width in widths))
    return ["  ".join(map(_place, line, widths, HEAD)).rstrip() for line in lines]


def _place(cell: str, width: int, head: str) -> str:
    """Left-align words, right-align figures."""
    return cell.ljust(width) if head in _WORDS else cell.rjust(width)


def _figures(row: Row, found: Profile) -> tuple[str, ...]:
    """The cells of an operation, after its name."""
    least = found.ceilings.least_seconds(row.cost)
    bound = found.ceilings.bound(row.cost) if least else ""
    times, rates = _times(row.seconds, found), _rates(row.cost, row.seconds, least)
    return OPERATIONS[row.block, row.name], f"{row.calls:,}", *times, *rates, bound


def _times(seconds: float, found: Profile) -> tuple[str, str]:
    """Milliseconds and the share of the pass."""
    return f"{1e3 * seconds:.3f}", f"{100 * seconds / found.seconds:.1f} %"


def _rates(cost: Cost, seconds: float, least: float) -> tuple[str, ...]:
    """MFLOP, MB, FLOP/byte, GFLOP/s and the share of the ceiling; what does not apply stays empty."""
    return (
        _number(cost.flop / 1e6) if cost.flop else "",
        _number(cost.bytes / 1e6) if cost.bytes else "",
        f"{cost.flop / cost.bytes:.1f}" if cost.flop else "",
        _number(cost.flop / seconds / 1e9) if cost.flop else "",
        f"{100 * least / seconds:.0f} %" if least else "",
    )


def _number(value: float) -> str:
    """A number with about three digits.

    >>> _number(9201.25), _number(35.389), _number(0.81), _number(0.0019)
    ('9,201', '35.4', '0.81', '<0.01')
    """
    if value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _verdict(found: Profile) -> list[str]:
    """What the table adds up to, and what is odd about it."""
    speed, ceilings = found.cost.flop / found.seconds / 1e9, found.ceilings
    lines = [
        f"Without timers the pass takes {1e3 * found.unclocked:.3f} ms: "
        f"{found.tokens / found.unclocked:,.0f} tokens/s, {found.texts / found.unclocked:,.1f} texts/s.",
        f"It runs at {100 * speed / ceilings.gflop_per_s:.0f} % of the speed of a matrix product. "
        f"With every operation at its ceiling it would take {1e3 * found.least_seconds:.3f} ms.",
    ]
    above = {ceilings.bound(r.cost) for r in found.rows if ceilings.least_seconds(r.cost) > _WORTH_A_WORD * r.seconds}
    if "memory" in above:
        lines.append("Above 100 % of memory: the bytes were still in the CPU cache, which is faster.")
    if "compute" in above:
        lines.append("Above 100 % of compute: the machine was busy while the ceilings were measured. Measure again.")
    return lines


def _to_json(found: Profile, encoder: SentenceEncoder) -> dict[str, Any]:
    """Everything as JSON, in seconds, FLOP and bytes."""
    ceilings = found.ceilings
    return {
        "model": str(encoder.folder),
        "dtype": str(encoder.dtype),
        "texts": found.texts,
        "tokens": found.tokens,
        "batches": found.batches,
        "num_threads": found.num_threads,
        "passes": found.passes,
        "ceilings": {"gflop_per_s": ceilings.gflop_per_s, "gb_per_s": ceilings.gb_per_s},
        "operations": [
            {
                "block": row.block,
                "name": row.name,
                "calls": row.calls,
                "seconds": row.seconds,
                "flop": row.cost.flop,
                "bytes": row.cost.bytes,
                "least_seconds": ceilings.least_seconds(row.cost),
                "bound_by": ceilings.bound(row.cost) if row.cost.bytes else None,
            }
            for row in found.rows
        ],
        "seconds_other": found.other,
        "seconds": found.seconds,
        "seconds_without_clock": found.unclocked,
        "flop": found.cost.flop,
        "bytes": found.cost.bytes,
        "least_seconds": found.least_seconds,
        "versions": {"minisbert": __version__, "python": platform.python_version(), "numpy": version("numpy")},
        "blas": [{key: one.get(key) for key in ("internal_api", "version", "architecture")} for one in libraries()],
    }
