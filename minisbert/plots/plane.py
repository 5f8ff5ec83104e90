"""Vectors in the plane: arrows from the origin, or from where points are to where they go, each with its name.

Both axes have one scale, so that angles are what they look like. Where all vectors have length 1, the circle that they
lie on is drawn. Names stand beyond the tips of their arrows, cover neither each other nor, if there is room, an arrow;
what finds no room is left out, and the caption counts it. Next file: ``line_chart.py``.

Letters: ``n`` points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from minisbert.model import Array
from minisbert.plots.placing import place_labels
from minisbert.plots.style import DPI, FONT_SIZE, LINE_COLOURS, SHAPES, Page, page

SIDE_INCHES = 6.0  # the longer side of the axes
SHORT_SIDE_INCHES = 3.0  # the other one, at least
LABEL_LETTERS = 28  # longer names are cut
_ROOM = 0.16  # of the side, left free around the points for names
_UNIT_LENGTH = 0.005  # how far a length may be from 1 for the circle to be drawn
_SAMPLES = 24  # points along an arrow that names should not cover
_MARK = 32.0  # square points


def vectors_in_plane(
    stream: IO[bytes],
    points: Array,
    labels: Sequence[str],
    *,
    title: str,
    caption: str = "",
    groups: Sequence[str] | None = None,
    from_origin: bool = True,
    targets: Array | None = None,
) -> None:
    """Draw points of the plane as arrows from the origin, as arrows to their targets, or as marks.

    Parameters
    ----------
    stream : binary file
        Gets a PNG.
    points : Array, shape (n, 2)
        Finite numbers, at least one point.
    labels : sequence of str, length n
        Any text; long ones are cut, and an empty one writes nothing.
    title : str
        Any text, wrapped.
    caption : str
        Smaller, below the title, wrapped.
    groups : sequence of str, length n, optional
        Points of one group have the same mark and colour; a legend names them.
    from_origin : bool
        Whether arrows come from the origin; without it, and without targets, there are only marks.
    targets : Array, shape (n, 2), optional
        Where arrows from the points lead: how points move. ``from_origin`` then does not matter.

    Raises
    ------
    ValueError
        If matplotlib is missing, shapes do not fit, or a number is not finite.

    Examples
    --------
    >>> with open("plane.png", "wb") as stream:  # doctest: +SKIP
    ...     vectors_in_plane(stream, np.array([[1.0, 0.0], [0.6, 0.8]]), ["soup", "stew"], title="a small angle")
    """
    points = _checked("points", points, labels)
    if targets is not None:
        targets = _checked("targets", targets, labels)
    if groups is not None and len(groups) != len(labels):
        raise ValueError(f"vectors_in_plane: expected {len(labels)} groups, one a point, got {len(groups)}")
    with page(title, caption, [*labels, *(groups or ())]) as paper:
        starts = np.zeros_like(points) if targets is None and from_origin else points
        figure, axes, width = _draw(paper, points, starts, points if targets is None else targets, labels, groups)
        paper.save(stream, figure, axes, width)


def _checked(name: str, points: Array, labels: Sequence[str]) -> Array:
    """Refuse what is no list of points with their labels."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape != (len(labels), 2) or not points.size:
        raise ValueError(
            f"vectors_in_plane: expected {name} (n, 2) and n labels, n at least 1, got {points.shape} and "
            f"{len(labels)} labels; vectors of more numbers must first be projected onto a plane"
        )
    if not np.isfinite(points).all():
        i, j = np.argwhere(~np.isfinite(points))[0].tolist()
        raise ValueError(f"vectors_in_plane: {name} must be finite numbers, got {points[i, j]} at ({i}, {j})")
    return points


def _draw(
    paper: Page, points: Array, starts: Array, ends: Array, labels: Sequence[str], groups: Sequence[str] | None
) -> tuple[Any, Any, float]:
    """Build the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    has_circle = bool((np.abs(np.linalg.norm(np.concatenate([points, ends]), axis=1) - 1) < _UNIT_LENGTH).all())
    low, high = _limits(np.concatenate([points, starts, ends]), has_circle)
    width, height = (SIDE_INCHES * (high - low) / (high - low).max()).tolist()
    figure = Figure(figsize=(width, height), dpi=DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axes.spines[:].set_color("0.8")
    axes.tick_params(length=2, colors="0.35")
    if has_circle:
        from matplotlib.patches import Circle

        axes.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor="0.75", linestyle=(0, (4, 3)), zorder=0))
    kinds = list(dict.fromkeys(groups)) if groups is not None else []
    members = [0] * len(points) if groups is None else [kinds.index(group) for group in groups]
    _draw_arrows(axes, starts, ends, members)
    _draw_marks(axes, points, starts, ends, members)
    _draw_legend(axes, [paper.label(kind) for kind in kinds])
    missing = _write_names(axes, renderer, [paper.label(label, LABEL_LETTERS) for label in labels], points, starts, ends)
    if missing:
        paper.captions.append(f"{missing} {'name' if missing == 1 else 'names'} found no room")
    return figure, axes, max(width, 4.0)


def _limits(points: Array, has_circle: bool) -> tuple[Array, Array]:
    """Choose the corners of the axes: all points, the origin, and room for names around them."""
    corners = [points, np.zeros((1, 2))]
    if has_circle:
        corners.append(np.array([[-1.0, -1.0], [1.0, 1.0]]))
    everything = np.concatenate(corners)
    low, high = everything.min(axis=0), everything.max(axis=0)
    side = float((high - low).max()) or 1.0
    middle, half = (low + high) / 2, np.maximum(high - low, side * SHORT_SIDE_INCHES / SIDE_INCHES) / 2
    return middle - half - _ROOM * side, middle + half + _ROOM * side


def _draw_arrows(axes: Any, starts: Array, ends: Array, members: list[int]) -> None:
    """Draw an arrow from each start to its end, if they differ."""
    for start, end, member in zip(starts, ends, members, strict=True):
        if (start != end).any():
            colour = LINE_COLOURS[member % len(LINE_COLOURS)]
            look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", end, start, arrowprops={**look, "mutation_scale": 9}, zorder=2)


def _draw_marks(axes: Any, points: Array, starts: Array, ends: Array, members: list[int]) -> None:
    """Draw a mark at each point."""
    for point, member in zip(points, members, strict=True):
        look = {"c": LINE_COLOURS[member % len(LINE_COLOURS)], "marker": SHAPES[member % len(SHAPES)]}
        axes.scatter(*point, s=_MARK, edgecolors="white", linewidths=0.6, zorder=3, **look)


def _draw_legend(axes: Any, kinds: list[str]) -> None:
    """Name the groups beside the axes."""
    from matplotlib.lines import Line2D

    if kinds:
        handles = [
            Line2D([], [], linestyle="", color=LINE_COLOURS[i % len(LINE_COLOURS)], marker=SHAPES[i % len(SHAPES)])
            for i in range(len(kinds))
        ]
        legend = axes.legend(handles, kinds, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _write_names(
    axes: Any, renderer: Any, labels: list[str], points: Array, starts: Array, ends: Array
) -> int:
    """Write each name where it finds room, and count those that do not."""
    named = [i for i, label in enumerate(labels) if label]
    if not named:
        return 0
    artists = [axes.text(0, 0, labels[i], ha="center", va="center", parse_math=False, zorder=5) for i in named]
    sizes = np.array([[box.width, box.height] for box in (text.get_window_extent(renderer) for text in artists)])
    to_pixels = axes.transData.transform
    along = np.linspace(0, 1, _SAMPLES)[:, None, None]
    free = to_pixels((starts + along * (ends - starts)).reshape(-1, 2))
    anchors = to_pixels(ends)[named]
    ways = anchors - to_pixels(starts)[named]
    bounds = (float(axes.bbox.width), float(axes.bbox.height))
    places = place_labels(anchors, ways, sizes, bounds, free, 0.45 * FONT_SIZE * DPI / 72)
    for artist, place in zip(artists, places, strict=True):
        if place is None:
            artist.remove()
        else:
            artist.set_position(axes.transData.inverted().transform(place))
    return sum(place is None for place in places)
