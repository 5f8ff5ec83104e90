"""Vectors in the plane: named arrows from the origin, or from points to their targets.

Both axes have one scale, so that angles are true. If all vectors have length 1, the unit circle is drawn. Names stand
beyond the tips of their arrows and cover neither each other nor, if there is room, an arrow; one that finds no room is
left out, and the caption counts it.

Letters: ``n`` points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from minisbert.model import Array
from minisbert.plots.placing import nearest, place_labels
from minisbert.plots.style import DPI, FONT_SIZE, LINE_COLOURS, SHAPES, Page, page

SIDE_INCHES = 5.0  # the longer side of the axes
SHORT_SIDE_INCHES = 2.6  # the other one, at least
LABEL_LETTERS = 28  # longer names are cut
_ROOM = 0.16  # of the side, left free around the points for names
_UNIT_LENGTH = 0.005  # tolerance of length 1 for the circle
_SAMPLES = 24  # points along an arrow that names should not cover
_MANY_SAMPLES = 3000  # of all arrows together
_MARK_SIZE = 6.0  # points
_LARGER = {"*": 1.6, "P": 1.25, "X": 1.25, "D": 0.9}  # so that all shapes look equally large
_TIP, _SHAFT = 8.0, 1.3  # cost of a name that covers a mark or tip, or a point of an arrow
_EDGE: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6}


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
        Receives a PNG.
    points : Array, shape (n, 2)
        Finite, at least one point.
    labels : sequence of str, length n
        Long ones are cut; "" writes nothing.
    title, caption : str
        Any text, wrapped; the caption is smaller, below the title.
    groups : sequence of str, length n, optional
        Points of a group share mark and colour; a legend names them.
    from_origin : bool
        Draw arrows from the origin; without it, and without targets, only marks.
    targets : Array, shape (n, 2), optional
        Draw arrows from the points to these; ``from_origin`` then does not matter.

    Raises
    ------
    ValueError
        If matplotlib is missing, shapes do not fit, or a number is not finite.

    Examples
    --------
    >>> from minisbert.plots.picture import picture
    >>> picture(vectors_in_plane, np.array([[1.0, 0.0], [0.6, 0.8]]), ["soup", "stew"], title="a small angle")
    Picture()
    """
    points = _checked("points", points, labels)
    if targets is not None:
        targets = _checked("targets", targets, labels)
    if groups is not None and len(groups) != len(labels):
        raise ValueError(f"vectors_in_plane: expected {len(labels)} groups, one per point, got {len(groups)}")
    with page(title, caption, [*labels, *(groups or ())]) as paper:
        kinds = list(dict.fromkeys(groups or ()))
        members = [0] * len(points) if groups is None else [kinds.index(group) for group in groups]
        is_star = targets is None and from_origin
        starts, ends = np.zeros_like(points) if is_star else points, points if targets is None else targets
        scene = _Scene(points, starts, ends, members, has_marks=bool(kinds) or not is_star)
        figure, axes, width = _draw(paper, scene, labels, kinds)
        paper.save(stream, figure, axes, width)


def _checked(name: str, points: Array, labels: Sequence[str]) -> Array:
    """Check that these are finite points with their labels."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape != (len(labels), 2) or not points.size:
        raise ValueError(
            f"vectors_in_plane: expected {name} (n, 2) and n labels with n >= 1, got {points.shape} and "
            f"{len(labels)} labels; project vectors of more dimensions onto a plane first"
        )
    if not np.isfinite(points).all():
        i, j = np.argwhere(~np.isfinite(points))[0].tolist()
        raise ValueError(f"vectors_in_plane: {name} must be finite numbers, got {points[i, j]} at ({i}, {j})")
    return points


@dataclass(frozen=True)
class _Scene:
    """What is drawn: n arrows, each with the mark of its group."""

    points: Array  # (n, 2) of the marks
    starts: Array  # (n, 2) of the arrows
    ends: Array  # (n, 2) same as starts without an arrow
    members: list[int]  # n, numbers of groups
    has_marks: bool  # without groups a tip is enough

    def look(self, i: int) -> dict[str, Any]:
        """Colour and shape of a point's group."""
        member = self.members[i]
        shape = SHAPES[member % len(SHAPES)]
        size = _MARK_SIZE * _LARGER.get(shape, 1.0)
        return {"color": LINE_COLOURS[member % len(LINE_COLOURS)], "marker": shape, "markersize": size, **_EDGE}


def _draw(paper: Page, scene: _Scene, labels: Sequence[str], kinds: Sequence[str]) -> tuple[Any, Any, float]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    has_circle = _is_unit(scene.points) and _is_unit(scene.ends)
    low, high = _limits(np.concatenate([scene.points, scene.ends]), has_circle)
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
    _draw_arrows(axes, scene)
    _draw_marks(axes, scene)
    _draw_legend(axes, [paper.label(kind) for kind in kinds])
    missing = _write_names(axes, renderer, [paper.label(label, LABEL_LETTERS) for label in labels], scene)
    if missing:
        paper.captions.append(f"{missing} {'name' if missing == 1 else 'names'} left out for lack of space")
    return figure, axes, max(width, 4.0)


def _is_unit(points: Array) -> bool:
    """Whether all vectors have length 1."""
    return bool((np.abs(np.linalg.norm(points, axis=1) - 1) < _UNIT_LENGTH).all())


def _limits(points: Array, has_circle: bool) -> tuple[Array, Array]:
    """Corners of the axes: all points, the origin, and room for names around them."""
    corners = [points, np.zeros((1, 2))]
    if has_circle:
        corners.append(np.array([[-1.0, -1.0], [1.0, 1.0]]))
    everything = np.concatenate(corners)
    low, high = everything.min(axis=0), everything.max(axis=0)
    side = float((high - low).max()) or 1.0
    middle, half = (low + high) / 2, np.maximum(high - low, side * SHORT_SIDE_INCHES / SIDE_INCHES) / 2
    return middle - half - _ROOM * side, middle + half + _ROOM * side


def _draw_arrows(axes: Any, scene: _Scene) -> None:
    """Draw an arrow from each start to its end, if they differ."""
    for i, (start, end) in enumerate(zip(scene.starts, scene.ends, strict=True)):
        if (start != end).any():
            marked = scene.has_marks and (end == scene.points[i]).all()  # the tip ends at the mark's edge
            look = {"color": scene.look(i)["color"], "shrinkA": 0, "shrinkB": _MARK_SIZE / 2 if marked else 0}
            look |= {"arrowstyle": "-|>", "linewidth": 1.3, "mutation_scale": 9, "joinstyle": "miter"}
            axes.annotate("", end, start, arrowprops=look, zorder=3)


def _draw_marks(axes: Any, scene: _Scene) -> None:
    """Draw a mark at each point, or only at those without an arrow."""
    for i, point in enumerate(scene.points):
        if scene.has_marks or (scene.starts[i] == scene.ends[i]).all():
            axes.plot(*point, linestyle="", **scene.look(i), zorder=2)


def _draw_legend(axes: Any, kinds: list[str]) -> None:
    """Name the groups next to the axes."""
    from matplotlib.lines import Line2D

    if kinds:
        nothing = np.zeros((0, 2))
        scene = _Scene(nothing, nothing, nothing, list(range(len(kinds))), True)
        handles = [Line2D([], [], linestyle="", **scene.look(i)) for i in scene.members]
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
        legend = axes.legend(handles, kinds, frameon=False, handletextpad=0.2, **place)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _write_names(axes: Any, renderer: Any, labels: list[str], scene: _Scene) -> int:
    """Write each name where it finds room; return how many do not."""
    from matplotlib import patheffects

    named = [i for i, label in enumerate(labels) if label]
    if not named:
        return 0
    halo = [patheffects.withStroke(linewidth=2.0, foreground="white")]
    look: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False, "path_effects": halo, "zorder": 5}
    artists = [axes.text(0, 0, labels[i], **look) for i in named]
    sizes = np.array([[box.width, box.height] for box in (text.get_window_extent(renderer) for text in artists)])
    to_pixels, to_plane = axes.transData.transform, axes.transData.inverted().transform
    anchors, starts = to_pixels(scene.ends), to_pixels(scene.starts)
    along = np.linspace(0, 1, max(2, min(_SAMPLES, _MANY_SAMPLES // len(labels))))[:, None, None]
    shafts = (starts + along * (anchors - starts)).reshape(-1, 2)
    free = np.concatenate([shafts, anchors, to_pixels(scene.points)])
    weights = np.where(np.arange(len(free)) < len(shafts), _SHAFT, _TIP)
    bounds = (float(axes.bbox.width), float(axes.bbox.height))
    gap = 0.5 * FONT_SIZE * DPI / 72
    places = place_labels(anchors[named], (anchors - starts)[named], sizes, bounds, free, weights, gap)
    for i, artist, size, place in zip(named, artists, sizes, places, strict=True):
        if place is None:
            artist.remove()
            continue
        artist.set_position(to_plane(place))
        edge = nearest(anchors[i], place[None], size)[0]
        if np.hypot(*(edge - anchors[i])) > 2 * gap:  # too far away without a line
            axes.plot(*to_plane(np.stack([anchors[i], edge])).T, "-", color="0.45", linewidth=0.5, zorder=1)
    return sum(place is None for place in places)
