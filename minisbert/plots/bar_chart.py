"""Bars: one number per name, with optional intervals.

Bars are horizontal, so that names of any length can be read, and begin at 0: otherwise they would mislead about
proportions. Negative ones go left and are hatched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import IO, Any

from minisbert.plots.style import DIVERGING, DPI, FONT_SIZE, LETTER, Page, page, written

WIDTH_INCHES = 5.0  # of the axes
BAR_INCHES = 0.28  # from bar to bar; less if there are many
HEIGHT_INCHES = 9.0  # of all bars, at most
_POSITIVE, _NEGATIVE = DIVERGING[4], DIVERGING[1]


def bars(
    stream: IO[bytes],
    values: Mapping[str, float],
    *,
    title: str,
    caption: str = "",
    value_label: str = "",
    intervals: Mapping[str, tuple[float, float]] | None = None,
    number_format: str = "{:.2f}",
) -> None:
    """Draw a bar for each number, with the number at its end.

    Parameters
    ----------
    stream : binary file
        Receives a PNG.
    values : mapping of str to float
        Finite, drawn from top to bottom.
    title, caption : str
        Any text, wrapped; the caption is smaller, below the title.
    value_label : str
        Quantity and unit.
    intervals : mapping of str to (float, float), optional
        Ends of whiskers, for all or some of the names.
    number_format : str
        For :meth:`str.format`.

    Raises
    ------
    ValueError
        If matplotlib is missing, there is no bar, a number is not finite, or an interval has no bar or does not contain
        its value.

    Examples
    --------
    >>> from minisbert.plots.picture import picture
    >>> picture(bars, {"mean": 82.03, "cls": 55.1}, title="which pooling", value_label="Spearman x 100")
    Picture()
    """
    values = {name: float(value) for name, value in values.items()}
    ends = _checked(values, intervals or {})
    with page(title, caption, [*values, value_label]) as paper:
        figure, axes = _draw(paper, values, ends, value_label, number_format)
        paper.save(stream, figure, axes, WIDTH_INCHES + 1.0)


def _checked(values: dict[str, float], intervals: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Check that every number is finite and every interval contains one."""
    if not values:
        raise ValueError("bars: expected at least one bar, {name: value}, got none")
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"bars: expected finite numbers, got {value} for {name!r}; leave it out")
    ends = {}
    for name, pair in intervals.items():
        if name not in values:
            raise ValueError(f"bars: an interval is given for {name!r}, which has no bar; the bars are {list(values)}")
        low, high = map(float, pair)
        if not (math.isfinite(low) and math.isfinite(high) and low <= values[name] <= high):
            raise ValueError(
                f"bars: the interval of {name!r} must be (low, high) around its value {values[name]:g}, got "
                f"({low:g}, {high:g}); are these distances from it instead of endpoints?"
            )
        ends[name] = (low, high)
    return ends


def _draw(
    paper: Page,
    values: dict[str, float],
    ends: dict[str, tuple[float, float]],
    value_label: str,
    number_format: str,
) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    height = min(HEIGHT_INCHES, BAR_INCHES * len(values))
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    places = range(len(values))
    for place, value in zip(places, values.values(), strict=True):
        look: dict[str, Any] = (
            {"color": _POSITIVE} if value >= 0 else {"color": _NEGATIVE, "hatch": "////", "edgecolor": "0.25"}
        )
        axes.barh(place, value, height=0.72, linewidth=0.6, **look)
    axes.axvline(0.0, color="black", linewidth=0.8)
    _whisker(axes, values, ends)
    step = max(1, math.ceil(1.3 * FONT_SIZE / 72 * len(values) / height))
    axes.set_yticks(places[::step], [paper.label(name) for name in values][::step], parse_math=False)
    axes.set_ylim(len(values) - 0.5, -0.5)
    if step == 1:
        _write_numbers(axes, values, ends, number_format)
    axes.set_xlabel(paper.label(value_label, 70), parse_math=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _whisker(axes: Any, values: dict[str, float], ends: dict[str, tuple[float, float]]) -> None:
    """Draw intervals, black inside white, so that they show on a bar."""
    for place, name in enumerate(values):
        if name in ends:
            for colour, width, cap in (("white", 3.2, 4.0), ("black", 1.2, 3.0)):
                low, high = ends[name]
                axes.errorbar(
                    values[name], place, xerr=[[values[name] - low], [high - values[name]]], fmt="none", ecolor=colour,
                    elinewidth=width, capsize=cap, capthick=width,
                )  # fmt: skip


def _write_numbers(
    axes: Any, values: dict[str, float], ends: dict[str, tuple[float, float]], number_format: str
) -> None:
    """Write each number beyond its bar and whisker, and make room for it."""
    import numpy as np

    numbers = written(np.array([list(values.values())]), number_format)[0]
    low = min(0.0, *values.values(), *(pair[0] for pair in ends.values()))
    high = max(0.0, *values.values(), *(pair[1] for pair in ends.values()))
    span = (high - low) or 1.0
    room = span * LETTER * (max(map(len, numbers)) + 1) / WIDTH_INCHES * 1.2
    axes.set_xlim(low - 1.2 * room * (min(values.values()) < 0), high + room)
    for place, ((name, value), number) in enumerate(zip(values.items(), numbers, strict=True)):
        bottom, top = ends.get(name, (value, value))
        end = max(top, value) if value >= 0 else min(bottom, value)
        axes.annotate(
            number, (end, place), xytext=(4 if value >= 0 else -4, 0), textcoords="offset points",
            ha="left" if value >= 0 else "right", va="center_baseline", parse_math=False,
        )  # fmt: skip
