"""The results of a benchmark as a picture: one panel per part, readable in black and white."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import IO, Any

from minisbert.bench.measure import OURS, Result
from minisbert.bench.report import times_as_fast

# Distinct in brightness and hatching; ours is the darkest.
_STYLES: dict[str, dict[str, Any]] = {
    "minisbert": {"color": "#0b3954"},
    "minisbert-own-kernel": {"color": "#4a7c9b", "hatch": ".."},
    "minisbert-deterministic": {"color": "#9db9cc", "hatch": "--"},
    "sentence-transformers": {"color": "#e07a3f", "hatch": "//"},
    "onnxruntime": {"color": "#e8d8a8", "hatch": "xx"},
}


def draw(result: Result, stream: IO[bytes]) -> None:
    """Draw all parts of :func:`~minisbert.bench.run.run_benchmark`'s result as a PNG."""
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    panels: list[tuple[str, Callable[[Any, Result], None]]] = [
        ("throughput", _draw_throughput),
        ("throughput", _draw_memory),
        ("lengths", _draw_lengths),
        ("single", _draw_single),
        ("cold", _draw_cold),
        ("growth", _draw_growth),
        ("training", _draw_training),
    ]
    wanted = [panel for part, panel in panels if part in result]
    columns = min(2, len(wanted))
    rows = -(-len(wanted) // columns)
    figure = Figure(figsize=(5.6 * columns, 0.6 + 2.9 * rows), layout="constrained")
    for i, panel in enumerate(wanted, 1):
        axes = figure.add_subplot(rows, columns, i)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        panel(axes, result)
    about = result["about"]
    figure.suptitle(
        f"{about['model']}, {about['num_threads']} threads, float32\n{about['processor']}", fontsize="medium"
    )
    figure.savefig(stream, format="png", dpi=150)


def _bars(axes: Any, values: dict[str, float], notes: dict[str, str], title: str) -> None:
    """Draw a horizontal bar for each engine, with its value after it."""
    for i, (name, value) in enumerate(values.items()):
        axes.barh(i, value, 0.6, edgecolor="black", linewidth=0.6, **_STYLES[name])
        axes.text(value, i, f" {notes[name]}", va="center", fontsize="small")
    axes.set_yticks(range(len(values)), list(values), fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max(values.values()))
    axes.set_title(title, loc="left", fontsize="medium")


def _draw_throughput(axes: Any, result: Result) -> None:
    """Texts per second."""
    measured = result["throughput"]
    speeds = {name: measured["texts"] / median(seconds) for name, seconds in measured["seconds"].items()}
    notes = {name: f"{speed:,.0f}" for name, speed in speeds.items()}
    if OURS in speeds:
        notes |= {
            name: f"{speeds[name]:,.0f} (minisbert {times_as_fast(measured, name):.2f}x)"
            for name in speeds
            if name != OURS
        }
    _bars(axes, speeds, notes, f"{measured['texts']:,} texts: texts a second")


def _draw_memory(axes: Any, result: Result) -> None:
    """Peak memory of the processes that embedded many texts."""
    peaks = {name: peak for name, peak in result["throughput"]["peak_mib"].items() if peak is not None}
    if peaks:
        _bars(axes, peaks, {name: f"{peak:,.0f} MiB" for name, peak in peaks.items()}, "the same: peak memory, MiB")
    else:
        axes.set_axis_off()  # this system does not report it


def _draw_lengths(axes: Any, result: Result) -> None:
    """Tokens per second by the length of the texts: a bar for each engine at each length."""
    measured = result["lengths"]
    names = list(next(iter(measured.values()))["seconds"])
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        speeds = [int(length) * one["texts"] / median(one["seconds"][name]) / 1000 for length, one in measured.items()]
        places = [place + (i - (len(names) - 1) / 2) * width for place in range(len(measured))]
        axes.bar(places, speeds, width, label=name, edgecolor="black", linewidth=0.6, **_STYLES[name])
    axes.set_xticks(range(len(measured)), list(measured))
    axes.set_xlabel("tokens of each text", fontsize="small")
    axes.set_title("by length: thousand tokens a second", loc="left", fontsize="medium")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    axes.legend(fontsize="x-small", ncols=2, loc="upper left", frameon=False)


def _draw_single(axes: Any, result: Result) -> None:
    """Milliseconds of one text."""
    times = {name: median(rounds) for name, rounds in result["single"]["milliseconds"].items()}
    _bars(axes, times, {name: f"{time:.1f} ms" for name, time in times.items()}, "one text at a time: milliseconds")


def _draw_cold(axes: Any, result: Result) -> None:
    """Seconds from process start to the first vector."""
    measured = result["cold"]
    times = {name: median(rounds) for name, rounds in measured["seconds"].items()}
    notes = {}
    for name, time in times.items():
        peaks = [peak for peak in measured["peak_mib"][name] if peak is not None]
        notes[name] = f"{time:.2f} s" + (f", {median(peaks):.0f} MiB" if peaks else "")
    _bars(axes, times, notes, "process start to first vector: seconds")


def _draw_growth(axes: Any, result: Result) -> None:
    """Seconds over the number of texts, beside proportional growth."""
    counts = [int(count) for count in result["growth"]]
    times = [median(one["seconds"]) for one in result["growth"].values()]
    axes.loglog(counts, [times[0] * count / counts[0] for count in counts], "--", color="0.6", label="in proportion")
    axes.loglog(counts, times, "o-", color=_STYLES[OURS]["color"], label=OURS)
    for count, time, one in zip(counts, times, result["growth"].values(), strict=True):
        memory = f", {one['peak_mib']:.0f} MiB" if one["peak_mib"] is not None else ""
        axes.annotate(
            f"{time:.3g} s{memory}", (count, time), xytext=(8, -4), textcoords="offset points", fontsize="small"
        )
    axes.margins(x=0.3, y=0.15)
    axes.set_xlabel("texts", fontsize="small")
    axes.set_title("growth: seconds", loc="left", fontsize="medium")
    axes.legend(fontsize="small", frameon=False)


def _draw_training(axes: Any, result: Result) -> None:
    """Milliseconds and memory of a training step."""
    measured = result["training"]
    times = {name: median(rounds) for name, rounds in measured["milliseconds"].items()}
    notes = {}
    for name, time in times.items():
        peak = measured["peak_mib"][name]
        notes[name] = f"{time:.0f} ms" + ("" if peak is None else f", {peak:,.0f} MiB")
    _bars(axes, times, notes, f"a training step of {measured['pairs']} pairs: milliseconds")
