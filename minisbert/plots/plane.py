"""Vectors in the plane: named arrows from the origin, or from points to their targets.

Both axes have one scale, so that angles are true. If all points have length 1, the unit circle is drawn. Names stand
beyond the tips of their arrows and cover neither each other nor, if there is room, an arrow; one that finds no room is
left out, and the caption counts it. Letters: ``n`` points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from minisbert.model import Array
from minisbert.plots.placing import Label, write_labels
from minisbert.plots.style import DPI, LINE_COLOURS, SHAPES, finite, page

SIDE_INCHES, SHORT_SIDE_INCHES = 5.0, 2.6  # the longer side of the axes, and the other one, at least
LABEL_LETTERS = 28  # longer names are cut
_ROOM = 0.16  # of the side, left free around the points for names
_UNIT_LENGTH = 0.005  # tolerance of length 1 for the circle
_SAMPLES, _MANY_SAMPLES = 24, 3000  # points that names should not cover: along an arrow, and of all arrows together
_MARK_SIZE = 6.0  # points
_LARGER = {"*": 1.6, "P": 1.25, "X": 1.25, "D": 0.9}  # so that all shapes look equally large
_TIP, _SHAFT = 8.0, 1.3  # cost of a name that covers a mark or tip, or a point of an arrow


def vectors_in_plane(
    stream: IO[bytes],
    points: Array,
    labels: Sequence[str],
    *,
    title: str,
    caption: str = "",
    groups: Sequence[str] | None = None,
    targets: Array | None = None,
) -> None:
    """Draw points of the plane as arrows from the origin, or as arrows to their targets.

    Parameters
    ----------
    stream : binary file
        Receives a PNG.
    points : Array, shape (n, 2)
        Finite, at least one point.
    labels : sequence of str, length n
        Long ones are cut; "" writes nothing.
    title, caption : str
        Any text, wrapped; the caption is smaller, below the title.
    groups : sequence of str, length n, optional
        Points of a group share mark and colour; a legend names them.
    targets : Array, shape (n, 2), optional
        Draw arrows from the points to these, not from the origin to the points.

    Raises
    ------
    ValueError
        If matplotlib is missing, shapes do not fit, or a number is not finite.

    Examples
    --------
    >>> from minisbert.plots import picture
    >>> picture(vectors_in_plane, np.array([[1.0, 0.0], [0.6, 0.8]]), ["soup", "stew"], title="a small angle")
    Picture()
    """
    hint = f" and {len(labels)} labels; project vectors of more dimensions onto a plane first"
    points = finite(points, "vectors_in_plane: points", len(labels), 2, hint=hint)
    is_star = targets is None
    starts = np.zeros_like(points) if is_star else points
    ends = points if targets is None else finite(targets, "vectors_in_plane: targets", len(labels), 2)
    if groups is not None and len(groups) != len(labels):
        raise ValueError(f"vectors_in_plane: expected {len(labels)} groups, one per point, got {len(groups)}")
    kinds = list(dict.fromkeys(groups or ()))
    has_marks = bool(kinds) or not is_star  # of a star without groups a tip is enough
    looks = [_look(kinds.index(group)) for group in groups] if groups else [_look(0)] * len(points)

    # corners of the axes: all points, the origin, the circle, and room for names around them
    everything = np.concatenate([points, ends, np.zeros((1, 2))])
    has_circle = bool((np.abs(np.linalg.norm(points, axis=1) - 1) < _UNIT_LENGTH).all())
    if has_circle:
        everything = np.concatenate([everything, [[-1.0, -1.0], [1.0, 1.0]]])
    low, high = everything.min(axis=0), everything.max(axis=0)
    side = float((high - low).max()) or 1.0
    middle, half = (low + high) / 2, np.maximum(high - low, side * SHORT_SIDE_INCHES / SIDE_INCHES) / 2
    low, high = middle - half - _ROOM * side, middle + half + _ROOM * side
    width, height = (SIDE_INCHES * (high - low) / (high - low).max()).tolist()
    with page(title, caption, [*labels, *kinds]) as paper:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
        from matplotlib.patches import Circle

        axes: Any = Figure(figsize=(width, height), dpi=DPI).add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
        axes.axvline(0.0, color="0.8", linewidth=0.8, zorder=0)
        axes.spines[:].set_color("0.8")
        axes.tick_params(length=2, colors="0.35")
        if has_circle:
            axes.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor="0.75", linestyle=(0, (4, 3)), zorder=0))
        for point, start, end, look in zip(points, starts, ends, looks, strict=True):
            if (start != end).any():
                gap = _MARK_SIZE / 2 if has_marks and (end == point).all() else 0  # the tip ends at the mark's edge
                arrow = {"color": look["color"], "shrinkA": 0, "shrinkB": gap, "linewidth": 1.3}
                arrow |= {"arrowstyle": "-|>", "mutation_scale": 9, "joinstyle": "miter"}
                axes.annotate("", end, start, arrowprops=arrow, zorder=3)
            if has_marks or (start == end).all():
                axes.plot(*point, linestyle="", **look, zorder=2)
        if kinds:
            handles = [Line2D([], [], linestyle="", **_look(i)) for i in range(len(kinds))]
            place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
            names = [paper.label(kind) for kind in kinds]
            for text in axes.legend(handles, names, frameon=False, handletextpad=0.2, **place).get_texts():
                text.set_parse_math(False)

        # names beyond the tips of their arrows; they should cover no arrow, tip or mark
        to_pixels = axes.transData.transform
        along = np.linspace(0, 1, max(2, min(_SAMPLES, _MANY_SAMPLES // len(labels))))[:, None, None]
        from_pixels, tips = to_pixels(starts), to_pixels(ends)
        shafts = (from_pixels + along * (tips - from_pixels)).reshape(-1, 2)
        free = np.concatenate([shafts, tips, to_pixels(points)])
        weights = np.where(np.arange(len(free)) < len(shafts), _SHAFT, _TIP)
        written = [paper.label(label, LABEL_LETTERS) for label in labels]
        named = [
            Label(text, end, way) for text, end, way in zip(written, ends, tips - from_pixels, strict=True) if text
        ]
        if missing := len(write_labels(axes, named, free, weights)):
            paper.captions.append(f"{missing} {'name' if missing == 1 else 'names'} left out for lack of space")
        paper.save(stream, axes.figure, axes, max(width, 4.0))


def _look(group: int) -> dict[str, Any]:
    """Colour and shape of a group's marks."""
    shape = SHAPES[group % len(SHAPES)]
    size = _MARK_SIZE * _LARGER.get(shape, 1.0)
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.6}
    return {"color": LINE_COLOURS[group % len(LINE_COLOURS)], "marker": shape, "markersize": size, **edge}
