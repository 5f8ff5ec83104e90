"""The results of a benchmark as text: medians, and the median of the ratios within each round."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from minisbert.bench.measure import OURS, Result


def times_as_fast(result: Result, peer: str) -> float:
    """How many times as many texts per second our encoder embeds: the median of the rounds' ratios.

    >>> times_as_fast({"seconds": {"minisbert": [1.0, 2.0, 1.0], "peer": [2.0, 4.0, 3.0]}}, "peer")
    2.0
    """
    ours, theirs = result["seconds"][OURS], result["seconds"][peer]
    return float(median(their / our for our, their in zip(ours, theirs, strict=True)))


def share_of_ceiling(result: Result, kind: str = "one product") -> float:
    """Share of this machine's matrix product speed that the whole encoder reaches, in [0, 1]; median over the rounds.

    ``kind`` is one product on all threads, or one on each thread at the same time.

    >>> share_of_ceiling({"gflop": 50.0, "seconds": {"minisbert": [1.0]}, "ceilings": {"one product": [100.0]}})
    0.5
    """
    pairs = zip(result["seconds"][OURS], result["ceilings"][kind], strict=True)
    return float(median(result["gflop"] / seconds / ceiling for seconds, ceiling in pairs))


def format_report(result: Result) -> str:
    """Format the result of :func:`~minisbert.bench.run.run_benchmark`.

    >>> one = {"texts": 10, "milliseconds": {"minisbert": [1.0, 3.0], "peer": [4.0, 4.0]}}
    >>> about = {"model": "m", "texts": 10, "source": "made", "tokens": 80, "num_threads": 2, "rounds": 2, "blas": {}}
    >>> about |= {"processor": "p", "processors": 2, "system": "s", "versions": {"numpy": "2"}}
    >>> print(format_report({"about": about, "single": one}))
    m: 10 texts, made, 80 tokens (8.0 a text)
    2 threads, float32, 2 rounds; medians
    p, 2 processors, s
    numpy 2
    <BLANKLINE>
    one text at a time  ms a text  minisbert takes
    ----------------------------------------------
    minisbert                 2.0
    peer                      4.0       0.50 of it
    """
    parts = {
        "throughput": _throughput_lines,
        "lengths": _lengths_lines,
        "single": _single_lines,
        "cold": _cold_lines,
        "growth": _growth_lines,
        "training": _training_lines,
    }
    lines = _about_lines(result)
    for part, lay_out in parts.items():
        if part in result:
            lines += ["", *lay_out(result)]
    return "\n".join(lines)


def _about_lines(result: Result) -> list[str]:
    """What was measured, and on which machine."""
    about = result["about"]
    lines = [
        f"{about['model']}: {about['texts']:,} texts, {about['source']}, {about['tokens']:,} tokens "
        f"({about['tokens'] / about['texts']:.1f} a text)",
        f"{about['num_threads']} threads, float32, {about['rounds']} rounds; medians",
        f"{about['processor']}, {about['processors']} processors, {about['system']}",
        ", ".join(f"{library} {number}" for library, number in about["versions"].items()),
    ]
    lines += [f"{name}: {', '.join(found)}" for name, found in about["blas"].items() if name.startswith(OURS) and found]
    return lines


def _throughput_lines(result: Result) -> list[str]:
    """Many texts: texts per second, ratios, memory, agreement."""
    measured = result["throughput"]
    rows = [["many texts", "texts/s", "its best batch", "minisbert is", "peak MiB", "max |difference|"]]
    for name, seconds in measured["seconds"].items():
        rows.append(
            [
                name,
                f"{measured['texts'] / median(seconds):,.0f}",
                measured["batch_size"][name] or "-",
                f"{times_as_fast(measured, name):.2f}x" if OURS in measured["seconds"] and name != OURS else "",
                _mebibytes(measured["peak_mib"][name]),
                "" if name == OURS else f"{measured['difference'][name]:.1e}",
            ]
        )
    return [*_columns(rows), *_ceiling_lines(measured)]


def _ceiling_lines(measured: Result) -> list[str]:
    """The share of the machine's ceiling that our encoder reaches."""
    if not measured["ceilings"]:
        return []
    reached = measured["gflop"] / median(measured["seconds"][OURS])
    said = [
        f"{share_of_ceiling(measured, kind):.0%} of {median(ceiling):.0f} ({kind})"
        for kind, ceiling in measured["ceilings"].items()
    ]
    return [f"minisbert computes {reached:.0f} GFLOP/s; sgemm reaches, in the same process: {', '.join(said)}"]


def _lengths_lines(result: Result) -> list[str]:
    """Texts of one length each."""
    measured = result["lengths"]
    names = list(next(iter(measured.values()))["seconds"])
    rows = [["texts/s by length", *names, *(["of sgemm"] if OURS in names else [])]]
    for length, one in measured.items():
        cells = []
        for name in names:
            ratio = f" ({times_as_fast(one, name):.2f}x)" if OURS in names and name != OURS else ""
            cells.append(f"{one['texts'] / median(one['seconds'][name]):,.1f}{ratio}")
        rows.append([f"{length} tokens", *cells, *([f"{share_of_ceiling(one):.0%}"] if OURS in names else [])])
    return [*_columns(rows), *(["in brackets: how many times as fast minisbert is"] if len(names) > 1 else [])]


def _single_lines(result: Result) -> list[str]:
    """One text at a time."""
    measured = result["single"]["milliseconds"]
    rows = [["one text at a time", "ms a text", "minisbert takes"]]
    for name, rounds in measured.items():
        rows.append([name, f"{median(rounds):.1f}", _relative(measured, name)])
    return _columns(rows)


def _cold_lines(result: Result) -> list[str]:
    """From process start to the first vector."""
    measured = result["cold"]
    rows = [["process start to first vector", "s", "minisbert takes", "peak MiB"]]
    for name, rounds in measured["seconds"].items():
        peaks = [peak for peak in measured["peak_mib"][name] if peak is not None]
        cells = [
            f"{median(rounds):.2f}",
            _relative(measured["seconds"], name),
            _mebibytes(median(peaks) if peaks else None),
        ]
        rows.append([name, *cells])
    return _columns(rows)


def _growth_lines(result: Result) -> list[str]:
    """More and more texts."""
    rows = [["minisbert, more and more texts", "s", "ms a text", "times the time before", "peak MiB"]]
    before = None
    for count, one in result["growth"].items():
        took = median(one["seconds"])
        grown = f"{took / before:.2f}" if before else ""
        rows.append(
            [
                f"{int(count):,} texts",
                f"{took:.1f}",
                f"{1000 * took / int(count):.2f}",
                grown,
                _mebibytes(one["peak_mib"]),
            ]
        )
        before = took
    return _columns(rows)


def _training_lines(result: Result) -> list[str]:
    """Training steps, their memory, and that both computed the same."""
    measured = result["training"]
    parts = ("forward", "backward", "optimizer")
    rows = [["a training step", "ms", *parts, "minisbert takes", "peak MiB", "of it loaded", "max |difference|"]]
    for name, rounds in measured["milliseconds"].items():
        rows.append(
            [
                name,
                f"{median(rounds):.0f}",
                *(f"{median(measured['split'][name][part]):.0f}" for part in parts),
                _relative(measured["milliseconds"], name),
                _mebibytes(measured["peak_mib"][name]),
                _mebibytes(measured["loaded_mib"][name]),
                "" if name == OURS else f"{measured['difference'][name]:.1e}",
            ]
        )
    losses = next(iter(measured["losses"].values()))
    return [
        *_columns(rows),
        f"{measured['pairs']} pairs, {median(measured['tokens']):,.0f} tokens, dropout {measured['dropout']}, all "
        f"weights, AdamW; a round is {measured['steps']} steps",
        f"the difference is of the losses of {len(losses)} steps on one batch, without dropout: "
        f"{losses[0]:.4f} to {losses[-1]:.4f}",
    ]


def _relative(measured: dict[str, list[float]], name: str) -> str:
    """The share of an engine's time that ours takes."""
    if name == OURS or OURS not in measured:
        return ""
    return f"{median(our / their for our, their in zip(measured[OURS], measured[name], strict=True)):.2f} of it"


def _mebibytes(number: float | None) -> str:
    """MiB, or that they are unknown."""
    return "?" if number is None else f"{number:,.0f}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align cells, the first column to the left, the others to the right; a rule under the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return [lines[0].rstrip(), "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])]
