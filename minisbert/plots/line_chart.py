"""Curves, each named at its end.

They differ in colour, dashes and marks. Names stand to the right of the axes at the height where each curve ends, moved
apart where they would overlap, with a sample of the curve before each.

Letters: ``n`` points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array
from minisbert.plots.placing import spread
from minisbert.plots.style import DPI, FONT_SIZE, LINE_COLOURS, SHAPES, Page, page

WIDTH_INCHES, HEIGHT_INCHES = 6.2, 3.6  # of the axes; higher if there are many names
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.3, 1.3)), (0, (6, 1.4, 1.2, 1.4)), (0, (9, 2.5)))
_LEVEL: dict[str, Any] = {"color": "0.3", "linestyle": (0, (2, 2)), "linewidth": 0.9}
_MANY_POINTS = 25  # of a curve: if more, not all have a mark
_LINE = 1.3 * FONT_SIZE / 72  # line height in inches
_SAMPLE, _ROOM = 0.28, 0.12  # inches: the sample of a curve before its name, and the room to its left


def curves(
    stream: IO[bytes],
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    x_label: str,
    y_label: str,
    title: str,
    caption: str = "",
    log_y: bool = False,
    log_x: bool = False,
    levels: Mapping[str, float] | Sequence[float] | None = None,
) -> None:
    """Draw curves, each named at its end.

    Parameters
    ----------
    stream : binary file
        Receives a PNG.
    lines : mapping of str to (array_like, array_like), each of shape (n,)
        Name to ``x`` and ``y``, finite numbers, in the order in which they are joined.
    x_label, y_label : str
        Quantity and unit.
    title, caption : str
        Any text, wrapped; the caption is smaller, below the title.
    log_y, log_x : bool
        Logarithmic axes, for positive numbers; a ``y`` of exactly 0 becomes a triangle at the lower edge.
    levels : mapping of str to float, or sequence of float, optional
        Heights of horizontal lines to compare with, and their names.

    Raises
    ------
    ValueError
        If matplotlib is missing, there is no curve, ``x`` and ``y`` differ in length, or a number is not finite or has
        no logarithm where one is needed.

    Examples
    --------
    >>> from minisbert.plots.picture import picture
    >>> picture(curves, {"loss": ([0, 1, 2], [3.0, 1.0, 0.5])}, x_label="step", y_label="loss", title="it learns")
    Picture()
    """
    found = _checked(lines, log_x, log_y)
    heights = _checked_levels(levels, log_y)
    with page(title, caption, [*found, *heights, x_label, y_label]) as paper:
        figure, axes = _draw(paper, found, heights, (x_label, y_label), (log_x, log_y))
        paper.save(stream, figure, axes, WIDTH_INCHES + 1.0)


def _checked(
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]], log_x: bool, log_y: bool
) -> dict[str, tuple[Array, Array]]:
    """Check that every curve has as many x as y, all finite."""
    if not lines:
        raise ValueError("curves: expected at least one curve, {name: (x, y)}, got none")
    found = {}
    for name, pair in lines.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f"curves: expected (x, y) for {name!r}, got {type(pair).__name__}; is x missing?")
        x, y = (np.asarray(numbers, np.float64) for numbers in pair)
        if x.ndim != 1 or x.shape != y.shape or not x.size:
            raise ValueError(f"curves: {name!r} must have x (n,) and y (n,) with n >= 1, got {x.shape} and {y.shape}")
        for axis, numbers, is_log in (("x", x, log_x), ("y", y, log_y)):
            allowed = np.isfinite(numbers) & ((numbers > 0) | (axis == "y") & (numbers == 0) | (not is_log))
            if not allowed.all():
                i = int(np.argmin(allowed))
                wanted = "positive numbers on a logarithmic axis" if np.isfinite(numbers[i]) else "finite numbers"
                raise ValueError(
                    f"curves: {axis} of {name!r} must be {wanted}, got {numbers[i]:g} at {i}; leave it out"
                )
        found[name] = (x, y)
    return found


def _checked_levels(levels: Mapping[str, float] | Sequence[float] | None, log_y: bool) -> dict[str, float]:
    """Levels by name, all of them drawable."""
    if not isinstance(levels, Mapping):
        levels = {f"{height:g}": height for height in levels or ()}
    for name, height in levels.items():
        if not np.isfinite(height) or (log_y and height <= 0):
            wanted = "positive on a logarithmic axis" if np.isfinite(height) else "a finite number"
            raise ValueError(f"curves: level {name!r} must be {wanted}, got {height:g}; leave it out")
    return dict(levels)


def _draw(
    paper: Page,
    lines: dict[str, tuple[Array, Array]],
    levels: dict[str, float],
    names: tuple[str, str],
    logs: tuple[bool, bool],
) -> tuple[Any, Any]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    height = max(HEIGHT_INCHES, 1.05 * _LINE * (len(lines) + len(levels)))
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xscale="log" if logs[0] else "linear", yscale="log" if logs[1] else "linear")
    axes.margins(x=0.03, y=0.06)
    looks = [_look(i) for i in range(len(lines))]
    for (x, y), look in zip(lines.values(), looks, strict=True):
        every = 1 if len(x) <= _MANY_POINTS else max(1, len(x) // 10)
        axes.plot(x, np.where((y == 0) & logs[1], np.nan, y), markevery=every, **look)
    for level in levels.values():
        axes.axhline(level, **_LEVEL)
    if not logs[0] and all((x == np.rint(x)).all() for x, _ in lines.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))  # there is no step 1.25
    _limit(axes, lines, logs)
    if logs[1] and _draw_zeros(axes, lines, looks):
        paper.captions.append("a triangle at the lower edge stands for exactly 0, which has no logarithm")
    axes.set_xlabel(paper.label(names[0], 80), parse_math=False)
    axes.set_ylabel(paper.label(names[1], 60), parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    _write_names(axes, paper, lines, levels, looks, height)
    return figure, axes


def _look(number: int) -> dict[str, Any]:
    """How a curve is drawn: 280 ways before one repeats."""
    return {
        "color": LINE_COLOURS[number % len(LINE_COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": SHAPES[number % len(SHAPES)],
        "markersize": 3.5,
        "linewidth": 1.4,
    }


def _limit(axes: Any, lines: dict[str, tuple[Array, Array]], logs: tuple[bool, bool]) -> None:
    """Fix the limits as the drawing so far wants them, with all of ``x`` inside, and ``y`` if nothing else is."""
    x = np.concatenate([x for x, _ in lines.values()])
    axes.update_datalim(np.stack([x, np.full(len(x), axes.dataLim.y0)], axis=1), updatey=False)
    axes.autoscale_view()
    if logs[1] and not any(y.any() for _, y in lines.values()):  # all are 0
        axes.set_ylim(0.1, 1.0)
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())


def _draw_zeros(axes: Any, lines: dict[str, tuple[Array, Array]], looks: list[dict[str, Any]]) -> bool:
    """Draw what has no logarithm at the lower edge, one around the other; return whether there is any."""
    found = [(x[y == 0], look) for (x, y), look in zip(lines.values(), looks, strict=True) if (y == 0).any()]
    place = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 4}
    for i, (zeros, look) in enumerate(found):
        mark = {"marker": "v", "markersize": 5 + 4 * (len(found) - i), "markerfacecolor": "white"}
        axes.plot(zeros, np.full(len(zeros), 0.015), linestyle="", color=look["color"], **mark, **place)
    return bool(found)


def _write_names(
    axes: Any,
    paper: Page,
    lines: dict[str, tuple[Array, Array]],
    levels: dict[str, float],
    looks: list[dict[str, Any]],
    height: float,
) -> None:
    """Write each name to the right of its curve's end, with a sample of the curve before it."""
    bottom, right = axes.get_ylim()[0], axes.get_xlim()[1]
    is_log = axes.get_yscale() == "log"
    ends = [(float(x[-1]), bottom if is_log and y[-1] == 0 else float(y[-1])) for x, y in lines.values()]
    ends += [(right, level) for level in levels.values()]
    points = axes.transAxes.inverted().transform(axes.transData.transform(np.array(ends)))  # 0 to 1 in the axes
    heights = spread(points[:, 1], _LINE / height, 0.0, 1.0)
    left = 1 + _ROOM / WIDTH_INCHES
    sample = np.linspace(left, left + _SAMPLE / WIDTH_INCHES, 3)
    place: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
    looks = [*looks, *[_LEVEL] * len(levels)]
    for name, look, point, high in zip([*lines, *levels], looks, points, heights, strict=True):
        axes.plot(sample, np.full(3, high), markevery=[1], **look, **place)
        axes.text(
            sample[-1] + 0.06 / WIDTH_INCHES, high, paper.label(name), va="center_baseline", parse_math=False, **place
        )
        if point[0] < 0.9 or abs(point[1] - high) > 0.3 * _LINE / height:  # else the name is next to the end
            start = point[0] + 0.05 / WIDTH_INCHES
            axes.plot([start, sample[0]], [point[1], high], color="0.6", linewidth=0.5, zorder=1, **place)
