"""Curves: one number over another, each curve named at its end.

Curves differ in colour, dashes and marks. Their names stand to the right of the axes, at the height where each curve
ends, moved apart where they would overlap, with a piece of the curve before each. Next file: ``bar_chart.py``.

Letters: ``n`` points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array
from minisbert.plots.placing import spread
from minisbert.plots.style import FONT_SIZE, LINE_COLOURS, SHAPES, Page, page

WIDTH_INCHES, HEIGHT_INCHES = 6.2, 3.6  # of the axes; higher for more names than there is room for
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.3, 1.3)), (0, (6, 1.4, 1.2, 1.4)), (0, (9, 2.5)))
_MANY_POINTS = 25  # of a curve: more do not all have a mark
_LINE = 1.3 * FONT_SIZE / 72  # inches that a line of letters takes
_SAMPLE, _ROOM = 0.28, 0.12  # inches: the piece of a curve before its name, and the room left of it


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
        Gets a PNG.
    lines : mapping of str to (array_like, array_like), each of shape (n,)
        Name to ``x`` and ``y``, finite numbers, in the order in which they are joined.
    x_label, y_label : str
        What the axes count, and in which unit.
    title : str
        Any text, wrapped.
    caption : str
        Smaller, below the title, wrapped.
    log_y, log_x : bool
        Whether an axis is logarithmic. Its numbers must be positive; a ``y`` of exactly 0 is allowed and becomes a
        triangle at the lower edge.
    levels : mapping of str to float, or sequence of float, optional
        Heights of horizontal lines to compare with, and their names.

    Raises
    ------
    ValueError
        If matplotlib is missing, there is no curve, ``x`` and ``y`` are not equally long, a number is not finite, or it
        has no logarithm where one is needed.

    Examples
    --------
    >>> with open("loss.png", "wb") as stream:  # doctest: +SKIP
    ...     curves(stream, {"loss": ([0, 1, 2], [3.0, 1.0, 0.5])}, x_label="step", y_label="loss", title="it learns")
    """
    found = _checked(lines, log_x, log_y)
    heights = _checked_levels(levels, log_y)
    with page(title, caption, [*found, *heights, x_label, y_label]) as paper:
        figure, axes = _draw(paper, found, heights, (x_label, y_label), (log_x, log_y))
        paper.save(stream, figure, axes, WIDTH_INCHES + 1.0)


def _checked(
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]], log_x: bool, log_y: bool
) -> dict[str, tuple[Array, Array]]:
    """Refuse what is no curve."""
    if not lines:
        raise ValueError("curves: expected at least one curve, {name: (x, y)}, got none")
    found = {}
    for name, pair in lines.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f"curves: expected (x, y) for {name!r}, got {type(pair).__name__}; is x missing?")
        x, y = (np.asarray(numbers, np.float64) for numbers in pair)
        if x.ndim != 1 or x.shape != y.shape or not x.size:
            raise ValueError(f"curves: {name!r} must have x (n,) and y (n,), n at least 1, got {x.shape} and {y.shape}")
        for axis, numbers, is_log in (("x", x, log_x), ("y", y, log_y)):
            allowed = np.isfinite(numbers) & ((numbers > 0) | (axis == "y") & (numbers == 0) | (not is_log))
            if not allowed.all():
                i = int(np.argmin(allowed))
                wanted = "positive numbers on a logarithmic axis" if np.isfinite(numbers[i]) else "finite numbers"
                raise ValueError(f"curves: {axis} of {name!r} must be {wanted}, got {numbers[i]:g} at {i}; leave it out")
        found[name] = (x, y)
    return found


def _checked_levels(levels: Mapping[str, float] | Sequence[float] | None, log_y: bool) -> dict[str, float]:
    """Give levels their names, and refuse what has no height."""
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
    """Build the figure."""
    from matplotlib.figure import Figure

    height = max(HEIGHT_INCHES, 1.05 * _LINE * (len(lines) + len(levels)))
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=100)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xscale("log" if logs[0] else "linear")
    axes.set_yscale("log" if logs[1] else "linear")
    looks = [_look(i) for i in range(len(lines))]
    for (x, y), look in zip(lines.values(), looks, strict=True):
        axes.plot(x, np.where((y > 0) | (not logs[1]), y, np.nan), **look, markevery=max(1, len(x) // 10) if len(x) > _MANY_POINTS else 1)
    for level in levels.values():
        axes.axhline(level, **_LEVEL)
    axes.set_xlabel(paper.label(names[0], 80), parse_math=False)
    axes.set_ylabel(paper.label(names[1], 60), parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    _name(axes, paper, lines, levels, looks, height)
    return figure, axes


_LEVEL: dict[str, Any] = {"color": "0.35", "linestyle": (0, (1, 2)), "linewidth": 1.0}


def _look(number: int) -> dict[str, Any]:
    """Choose how a curve is drawn: 280 ways before one comes again."""
    return {
        "color": LINE_COLOURS[number % len(LINE_COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": SHAPES[number % len(SHAPES)],
        "markersize": 3.5,
        "linewidth": 1.4,
    }


def _name(axes: Any, paper: Page, lines: Any, levels: dict[str, float], looks: list[Any], height: float) -> None:
    """Write the names at the ends of the curves."""
    ends = [(float(x[-1]), float(y[-1])) for x, y in lines.values()] + [(axes.get_xlim()[1], y) for y in levels.values()]
    low, high = axes.get_ylim()
    wanted = axes.transAxes.inverted().transform(axes.transData.transform(np.array(ends)))
    places = spread(np.nan_to_num(wanted[:, 1], nan=0.0), _LINE / height, 0.0, 1.0)
    for name, look, place in zip([*lines, *levels], [*looks, *[_LEVEL] * len(levels)], places, strict=True):
        left = 1 + _ROOM / WIDTH_INCHES
        right = left + _SAMPLE / WIDTH_INCHES
        axes.plot([left, right], [place, place], transform=axes.transAxes, clip_on=False, **look)
        axes.text(right + 0.05 / WIDTH_INCHES, place, paper.label(name), transform=axes.transAxes, va="center_baseline", parse_math=False)
    axes.set_ylim(low, high)
