"""``minisbert profile``: one forward pass by operation, compared with this machine's ceilings."""

from __future__ import annotations

import platform
import warnings
from importlib.metadata import version
from itertools import groupby

import click

from minisbert import __version__
from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.outputs import echo_json
from minisbert.cli.table import grid
from minisbert.encoder import SentenceEncoder
from minisbert.parallel import BATCH_TOKENS, advice, libraries
from minisbert.proof.profile import OPERATIONS, Cost, Profile
from minisbert.proof.profile import profile as measure

MOST_TOKENS = 2 * BATCH_TOKENS
"""Tokens that are profiled: two full batches; a third would add nothing."""

HEAD = ("operation", "shapes", "calls", "ms", "share", "MFLOP", "MB", "FLOP/byte", "GFLOP/s", "of ceiling", "bound by")
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
    texts: list[str] = []
    tokens, left_out = 0, False
    for text in source.read():
        tokens += len(encoder.model.tokenizer([text], encoder.max_seq_length).token_ids)
        if left_out := bool(texts) and tokens > MOST_TOKENS:
            break
        texts.append(text)
    if not texts:
        raise ValueError("profile: the input has no texts; an empty line of a text file would count as one")
    encoder.tokenize(texts)  # warns about what is cut off
    if left_out:
        click.echo(f"profiled: the first {len(texts):,} texts; more than {MOST_TOKENS:,} tokens add nothing", err=True)
    found = measure(encoder, texts, num_threads=num_threads, passes=repeat)
    if as_json:
        _echo_json(found, encoder)
    else:
        click.echo("\n".join([*_heading(found, encoder), "", *_table(found, encoder), "", *_verdict(found)]))
    if sentence := advice():
        warnings.warn(sentence, stacklevel=1)


def _heading(found: Profile, encoder: SentenceEncoder) -> list[str]:
    """What was measured, on which machine, and the sizes that the letters stand for."""
    config, ceilings = encoder.model.config, found.ceilings
    work = [_count(found.texts, "text"), _count(found.tokens, "token"), _count(found.batches, "batch", "batches")]
    versions = [f"minisbert {__version__}", f"Python {platform.python_version()}", f"NumPy {version('numpy')}"]
    for blas in libraries():
        kernel = f" ({blas['architecture']})" if blas.get("architecture") else ""
        versions.append(f"{blas['internal_api']} {blas['version']}{kernel}")
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


def _count(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _table(found: Profile, encoder: SentenceEncoder) -> list[str]:
    """Format the operations under their blocks, the rest, and the sum."""

    def times(seconds: float) -> list[str]:
        return [f"{1e3 * seconds:.3f}", f"{100 * seconds / found.seconds:.1f} %"]

    def rates(cost: Cost, seconds: float, least: float) -> list[str]:
        """MFLOP, MB, FLOP/byte, GFLOP/s and the share of the ceiling; what does not apply stays empty."""
        megabytes, share = _number(cost.bytes / 1e6) if cost.bytes else "", f"{100 * least / seconds:.0f} %"
        if not cost.flop:
            return ["", megabytes, "", "", share if least else ""]
        return [
            *(_number(cost.flop / 1e6), megabytes),
            *(f"{cost.flop / cost.bytes:.1f}", _number(cost.flop / seconds / 1e9), share),
        ]

    lines = [list(HEAD)]
    for block, members in groupby(found.rows, key=lambda row: row.block):
        rows = list(members)
        if len(rows) > 1:
            lines.append([block, "", "", *times(sum(row.seconds for row in rows)), *[""] * 6])
        for row in rows:
            name = encoder.model.config.hidden_act if row.name == "activation" else row.name
            least = found.ceilings.least_seconds(row.cost)
            figures = [*times(row.seconds), *rates(row.cost, row.seconds, least)]
            bound = found.ceilings.bound(row.cost) if least else ""
            shapes = OPERATIONS[row.block, row.name]
            lines.append([f"  {name}" if len(rows) > 1 else block, shapes, f"{row.calls:,}", *figures, bound])
    lines.append(["other", "", "", *times(found.other), *[""] * 6])
    lines.append(["total", "", "", *times(found.seconds), *rates(found.cost, found.seconds, found.least_seconds), ""])
    lines.insert(-1, ["-" * max(map(len, column)) for column in zip(*lines, strict=True)])
    return grid(lines, "<<>>>>>>>><")


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


def _echo_json(found: Profile, encoder: SentenceEncoder) -> None:
    """Everything, in seconds, FLOP and bytes."""
    ceilings = found.ceilings
    measured = ("texts", "tokens", "batches", "num_threads", "passes", "ceilings")
    operations = [
        {
            **{"block": row.block, "name": row.name, "calls": row.calls, "seconds": row.seconds, **vars(row.cost)},
            "least_seconds": ceilings.least_seconds(row.cost),
            "bound_by": ceilings.bound(row.cost) if row.cost.bytes else None,
        }
        for row in found.rows
    ]
    echo_json(
        {"model": encoder.folder, "dtype": str(encoder.dtype)}
        | {name: getattr(found, name) for name in measured}
        | {"operations": operations, "seconds_other": found.other, "seconds": found.seconds}
        | {"seconds_without_clock": found.unclocked, **vars(found.cost), "least_seconds": found.least_seconds}
        | {"versions": {"minisbert": __version__, "python": platform.python_version(), "numpy": version("numpy")}}
        | {"blas": [{key: x.get(key) for key in ("internal_api", "version", "architecture")} for x in libraries()]}
    )
