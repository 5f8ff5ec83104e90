"""Curves, each named at its end, and bars, one number per name.

Curves differ in colour, dashes and marks. Their names stand to the right of the axes at the height where each ends,
moved apart where they would overlap, with a sample of the curve before each. Bars are horizontal, so that names of any
length can be read, and begin at 0: otherwise they would mislead about proportions. Negative ones are hatched.
Letters: ``n`` points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array
from minisbert.plots.style import DIVERGING, FONT_SIZE, LETTER, LINE_COLOURS, SHAPES, finite, page, written

CURVES_INCHES = (6.2, 3.6)  # of the axes; higher if there are many names
BARS_INCHES = (5.0, 9.0)  # of the axes: width, and height at most
BAR_INCHES = 0.28  # from bar to bar; less if there are many
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
    levels: Mapping[str, float] | None = None,
    x_levels: Mapping[str, float] | None = None,
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
    levels : mapping of str to float, optional
        Heights of horizontal lines to compare with, and their names.
    x_levels : mapping of str to float, optional
        Places of vertical lines, and their names, which stand at their upper ends.

    Raises
    ------
    ValueError
        If matplotlib is missing, there is no curve, ``x`` and ``y`` differ in length, or a number is not finite or has
        no logarithm where one is needed.

    Examples
    --------
    >>> from minisbert.plots import picture
    >>> picture(curves, {"loss": ([0, 1, 2], [3.0, 1.0, 0.5])}, x_label="step", y_label="loss", title="it learns")
    Picture()
    """
    if not lines:
        raise ValueError("curves: expected at least one curve, {name: (x, y)}, got none")
    found = {}
    for name, pair in lines.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f"curves: expected (x, y) for {name!r}, got {type(pair).__name__}; is x missing?")
        x = finite(pair[0], f"curves: x of {name!r}", -1)
        y = finite(pair[1], f"curves: y of {name!r}", len(x), hint=f" for x of shape {x.shape}")
        if (log_x and x.min() <= 0) or (log_y and y.min() < 0):
            raise ValueError(f"curves: {name!r} must have positive numbers on a logarithmic axis; leave the others out")
        found[name] = (x, y)
    heights = dict(levels or {})
    for name, level in heights.items():
        if not math.isfinite(level) or (log_y and level <= 0):
            wanted = "positive on a logarithmic axis" if log_y else "a finite number"
            raise ValueError(f"curves: level {name!r} must be {wanted}, got {level:g}; leave it out")
    uprights = dict(x_levels or {})
    finite(list(uprights.values()) or [0.0], "curves: x_levels", -1)
    looks = [_look(i) for i in range(len(found))]
    with page(title, caption, [*found, *heights, *uprights, x_label, y_label]) as paper:
        from matplotlib.ticker import MaxNLocator

        width, height = CURVES_INCHES[0], max(CURVES_INCHES[1], 1.05 * _LINE * (len(found) + len(heights)))
        axes = paper.axes(width, height)
        axes.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        axes.margins(x=0.03, y=0.06)
        for (x, y), look in zip(found.values(), looks, strict=True):
            every = 1 if len(x) <= _MANY_POINTS else max(1, len(x) // 10)
            axes.plot(x, np.where((y == 0) & log_y, np.nan, y), markevery=every, **look)
        for level in heights.values():
            axes.axhline(level, **_LEVEL)
        for name, level in uprights.items():
            axes.axvline(level, **_LEVEL)
            above = {"transform": axes.get_xaxis_transform(), "ha": "left", "va": "top", "parse_math": False}
            axes.text(level, 1.0, f" {paper.label(name)}", **above)
        every_x = np.concatenate([x for x, _ in found.values()])
        if not log_x and (every_x == np.rint(every_x)).all():
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))  # there is no step 1.25

        # the limits as the drawing so far wants them, with all of x inside, and y if nothing else is
        axes.update_datalim(np.stack([every_x, np.full(len(every_x), axes.dataLim.y0)], axis=1), updatey=False)
        axes.autoscale_view()
        if log_y and not any(y.any() for _, y in found.values()):  # all are 0
            axes.set_ylim(0.1, 1.0)
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
        zeros = [(x[y == 0], look) for (x, y), look in zip(found.values(), looks, strict=True) if (y == 0).any()]
        if log_y and zeros:  # one triangle around the other
            paper.captions.append("a triangle at the lower edge stands for exactly 0, which has no logarithm")
            place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 4}
            for i, (x, look) in enumerate(zeros):
                mark = {"marker": "v", "markersize": 5 + 4 * (len(zeros) - i), "markerfacecolor": "white"}
                axes.plot(x, np.full(len(x), 0.015), linestyle="", color=look["color"], **mark, **place)
        axes.set_xlabel(paper.label(x_label, 80), parse_math=False)
        axes.set_ylabel(paper.label(y_label, 60), parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)

        # each name to the right of its curve's end, with a sample of the curve before it
        bottom, right = axes.get_ylim()[0], axes.get_xlim()[1]
        ends = [(float(x[-1]), bottom if log_y and y[-1] == 0 else float(y[-1])) for x, y in found.values()]
        ends += [(right, level) for level in heights.values()]
        points = axes.transAxes.inverted().transform(axes.transData.transform(np.array(ends)))  # 0 to 1 in the axes
        left = 1 + _ROOM / width
        sample = np.linspace(left, left + _SAMPLE / width, 3)
        place = {"transform": axes.transAxes, "clip_on": False}
        looks += [_LEVEL] * len(heights)
        free = spread(points[:, 1], _LINE / height, 0.0, 1.0)
        for name, look, point, high in zip([*found, *heights], looks, points, free, strict=True):
            axes.plot(sample, np.full(3, high), markevery=[1], **look, **place)
            text_at = sample[-1] + 0.06 / width
            axes.text(text_at, high, paper.label(name), va="center_baseline", parse_math=False, **place)
            if point[0] < 0.9 or abs(point[1] - high) > 0.3 * _LINE / height:  # else the name is next to the end
                axes.plot(
                    [point[0] + 0.05 / width, sample[0]],
                    [point[1], high],
                    color="0.6",
                    linewidth=0.5,
                    zorder=1,
                    **place,
                )
        paper.save(stream, axes, width + 1.0)


def _look(number: int) -> dict[str, Any]:
    """How a curve is drawn: 280 ways before one repeats."""
    return {
        "color": LINE_COLOURS[number % len(LINE_COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": SHAPES[number % len(SHAPES)],
        "markersize": 3.5,
        "linewidth": 1.4,
    }


def spread(wanted: Array, gap: float, low: float, high: float) -> Array:
    """Move numbers apart until neighbours have a gap, with the smallest sum of squared moves, and keep their order.

    (n,) -> (n,)

    All stay in [low, high]; with less room than ``(n - 1) * gap`` the gap shrinks. Equal numbers keep their order.

    **Source**: isotonic regression by its max-min formula; ``sklearn.isotonic.isotonic_regression`` of ``wanted - gap *
    rank``.

    >>> spread(np.array([5.0, 5.0, 9.0]), 2.0, 0.0, 10.0)
    array([4., 6., 9.])
    """
    if not len(wanted):
        return np.zeros(0)
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    sums = np.concatenate([[0.0], np.cumsum(wanted[order] - steps)])
    first, last = np.indices((len(wanted), len(wanted)))  # of a run of neighbours
    means = np.where(first <= last, (sums[last + 1] - sums[first]) / (np.abs(last - first) + 1), np.inf)
    least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]  # of all runs that go so far or farther
    level = np.where(first <= last, least, -np.inf).max(axis=0)
    places: Array = np.empty(len(wanted))
    places[order] = np.clip(level, low, high - steps[-1]) + steps
    return places


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
    >>> from minisbert.plots import picture
    >>> picture(bars, {"mean": 82.03, "cls": 55.1}, title="which pooling", value_label="Spearman x 100")
    Picture()
    """
    lengths = finite(list(values.values()), "bars: values", -1)
    ends = np.stack([lengths, lengths], axis=1)  # (n, 2) of the whiskers
    for name, pair in (intervals or {}).items():
        if name not in values:
            raise ValueError(f"bars: an interval is given for {name!r}, which has no bar; the bars are {list(values)}")
        low, high = map(float, pair)
        if not (math.isfinite(low) and math.isfinite(high) and low <= values[name] <= high):
            raise ValueError(
                f"bars: the interval of {name!r} must be (low, high) around its value {values[name]:g}, got "
                f"({low:g}, {high:g}); are these distances from it instead of endpoints?"
            )
        ends[list(values).index(name)] = low, high
    with page(title, caption, [*values, value_label]) as paper:
        width, height = BARS_INCHES[0], min(BARS_INCHES[1], BAR_INCHES * len(values))
        axes = paper.axes(width, height)
        look: dict[str, Any]
        for place, value in enumerate(lengths.tolist()):
            look = (
                {"color": DIVERGING[4]} if value >= 0 else {"color": DIVERGING[1], "hatch": "////", "edgecolor": "0.25"}
            )
            axes.barh(place, value, height=0.72, linewidth=0.6, **look)
        axes.axvline(0.0, color="black", linewidth=0.8)
        known = [place for place, name in enumerate(values) if name in (intervals or {})]
        spans = np.abs(ends - lengths[:, None])[known].T  # (2, n)
        for colour, thick, cap in (("white", 3.2, 4.0), ("black", 1.2, 3.0)):  # shows on a bar
            look = {"ecolor": colour, "elinewidth": thick, "capthick": thick, "capsize": cap}
            axes.errorbar(lengths[known], known, xerr=spans, fmt="none", **look)
        step = max(1, math.ceil(1.3 * FONT_SIZE / 72 * len(values) / height))
        names = [paper.label(name) for name in values]
        axes.set_yticks(range(0, len(names), step), names[::step], parse_math=False)
        axes.set_ylim(len(names) - 0.5, -0.5)
        if step == 1:  # each number beyond its bar and whisker, and room for it
            numbers = written(lengths[None], number_format)[0]
            low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
            room = ((high - low) or 1.0) * LETTER * (max(map(len, numbers)) + 1) / width * 1.2
            axes.set_xlim(low - 1.2 * room * bool((lengths < 0).any()), high + room)
            for place, (value, number) in enumerate(zip(lengths, numbers, strict=True)):
                side = 1 if value >= 0 else -1
                look = {"ha": "left" if side > 0 else "right", "va": "center_baseline", "parse_math": False}
                where = {"xytext": (4 * side, 0), "textcoords": "offset points"}
                axes.annotate(number, (ends[place].max() if side > 0 else ends[place].min(), place), **where, **look)
        axes.set_xlabel(paper.label(value_label, 70), parse_math=False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        paper.save(stream, axes, width + 1.0)
