"""Vectors in the plane: named arrows from the origin, or from points to their targets.

Both axes have one scale, so that angles are true. If all points have length 1, the unit circle is drawn. Names stand
beyond the tips of their arrows and cover neither each other nor, if there is room, an arrow; one that finds no room is
left out, and the caption counts it. Letters: ``n`` points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from minisbert.model import Array
from minisbert.plots.style import DPI, FONT_SIZE, LINE_COLOURS, SHAPES, finite, page

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
        from matplotlib.lines import Line2D
        from matplotlib.patches import Circle

        axes = paper.axes(width, height)
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
        paper.save(stream, axes, max(width, 4.0))


def _look(group: int) -> dict[str, Any]:
    """Colour and shape of a group's marks."""
    shape = SHAPES[group % len(SHAPES)]
    size = _MARK_SIZE * _LARGER.get(shape, 1.0)
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.6}
    return {"color": LINE_COLOURS[group % len(LINE_COLOURS)], "marker": shape, "markersize": size, **edge}


# ------------------------------------------------------------------------------------------------ labels
#
# Labels are placed greedily, each at the best place left.
# Letters: ``n`` labels, ``G`` candidate places, ``M`` points to keep free.

_DIRECTIONS = 24
_RINGS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 8.0, 11.0)  # extra distance as a multiple of a label's height
_ALONG = np.linspace(0.1, 1.0, 8)  # points on the line from an anchor to its label
_COST_TURNED, _COST_ANYWHERE = 0.6, 0.2  # at right angles to the wanted direction; if none, to the right
_COST_CROSSED = 3.0  # a line that crosses another label
_MARK, _MARK_WIDE = 15.0, 11.0  # pixels: room for the mark before a label, and the mark


def place_labels(
    anchors: Array, ways: Array, sizes: Array, bounds: tuple[float, float], free: Array, weights: Array, gap: float
) -> list[Array | None]:
    """Centres of labels near their anchors, so that no two overlap and little is covered; None without room.

    Labels ``(n, 2)`` have an anchor, a wanted direction (zeros: any) and a size; ``bounds`` is the size of the whole.
    ``free`` (M, 2) are points to keep clear; a weight of 1 is as bad as standing a label's height farther away. ``gap``
    is between a label and its anchor, and between two labels.

    >>> anchors, up = np.array([[50.0, 50.0]]), np.array([[0.0, 1.0]])
    >>> place_labels(anchors, up, np.array([[20.0, 10.0]]), (100.0, 100.0), anchors, np.ones(1), 3.0)
    [array([50., 58.])]
    """
    taken: list[tuple[Array, Array]] = []
    places: list[Array | None] = []
    for anchor, way, size in zip(anchors, ways, sizes, strict=True):
        # candidates stand on rings around the anchor, the first where the box is one gap away from it: a wide box must
        # go farther sideways than up. They cost their distance, and how far they turn from the wanted direction
        length = float(np.hypot(*way))
        start = math.atan2(way[1], way[0]) if length > 0 else 0.0
        angles = start + np.arange(_DIRECTIONS) * (2 * math.pi / _DIRECTIONS)
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        reach = 1.0 / np.maximum(np.abs(directions) / (size / 2 + gap), 1e-12).max(axis=1)
        rings = size[1] * np.array(_RINGS)
        middles = anchor + ((reach + rings[:, None])[..., None] * directions).reshape(-1, 2)  # (G, 2)
        turned = (1 - np.cos(angles - angles[0])) * (_COST_TURNED if length > 0 else _COST_ANYWHERE)
        costs = (np.array(_RINGS)[:, None] + turned).reshape(-1)  # (G,)

        is_free = (middles - size / 2 >= 0).all(axis=1) & (middles + size / 2 <= bounds).all(axis=1)
        for other, other_size in taken:
            is_free &= (np.abs(middles - other) >= (size + other_size) / 2 + gap / 2).any(axis=1)
        if not is_free.any():
            places.append(None)
            continue
        middles, costs = middles[is_free], costs[is_free]
        reachable = np.abs(middles - anchor).max(axis=0) + size / 2 + gap / 3
        near = (np.abs(free - anchor) < reachable).all(axis=1)  # what no candidate covers need not be compared
        covers = (np.abs(free[near] - middles[:, None]) < size / 2 + gap / 3).all(axis=2)  # (G, M)
        leaders = anchor + _ALONG[:, None, None] * (nearest(anchor, middles, size) - anchor)  # (_ALONG, G, 2)
        crosses = np.zeros(len(middles))
        for other, other_size in taken:
            crosses += (np.abs(leaders - other) < other_size / 2).all(axis=2).any(axis=0)
        best = int((costs + covers @ weights[near] + _COST_CROSSED * crosses).argmin())
        taken.append((middles[best], size))
        places.append(middles[best])
        # nothing else should cover the line from the anchor to its label
        free, weights = np.concatenate([free, leaders[:, best]]), np.concatenate([weights, np.full(len(_ALONG), 0.5)])
    return places


def nearest(anchor: Array, middles: Array, size: Array) -> Array:
    """The point of each box that is nearest to an anchor; all boxes have one size.

    (2,), (G, 2), (2,) -> (G, 2)
    """
    return np.clip(anchor, middles - size / 2, middles + size / 2)


@dataclass(frozen=True, eq=False)
class Label:
    """A name to write near a point of the plane."""

    text: str
    anchor: Array  # (2,) in data units
    way: Array  # (2,) wanted direction in pixels; zeros: any
    look: dict[str, Any] = field(default_factory=dict)  # of matplotlib's text
    mark: dict[str, Any] | None = None  # of a matplotlib line, drawn before the text


def write_labels(
    axes: Any, labels: Sequence[Label], free: Array, weights: Array, gap: float = 0.5 * FONT_SIZE * DPI / 72
) -> list[Label]:
    """Write labels where they find room, with a line to the anchor unless that is near; return those without room.

    ``free`` (M, 2), ``weights`` (M,) and ``gap`` as for :func:`place_labels`, in pixels.
    """
    from matplotlib import patheffects
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if not labels:
        return []
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    halo = [patheffects.withStroke(linewidth=2.0, foreground="white")]
    look: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False, "path_effects": halo, "zorder": 5}
    artists = [axes.text(0, 0, label.text, **{**look, **label.look}) for label in labels]
    boxes = [text.get_window_extent(renderer) for text in artists]
    rooms = [0.0 if label.mark is None else _MARK for label in labels]  # pixels
    sizes = np.array([[box.width + room, box.height] for box, room in zip(boxes, rooms, strict=True)])
    to_pixels, to_plane = axes.transData.transform, axes.transData.inverted().transform
    anchors = to_pixels(np.stack([label.anchor for label in labels]))
    bounds = (float(axes.bbox.width), float(axes.bbox.height))
    places = place_labels(anchors, np.stack([label.way for label in labels]), sizes, bounds, free, weights, gap)
    missing = []
    for label, artist, size, room, anchor, place in zip(labels, artists, sizes, rooms, anchors, places, strict=True):
        if place is None:
            artist.remove()
            missing.append(label)
            continue
        artist.set_position(to_plane(place + np.array([room / 2, 0.0])))
        if label.mark is not None:
            axes.plot(
                *to_plane(place - np.array([(size[0] - _MARK_WIDE) / 2, 0.0])), linestyle="", **label.mark, zorder=5
            )
        edge = nearest(anchor, place[None], size)[0]
        if np.hypot(*(edge - anchor)) > 2 * gap:  # too far away without a line
            axes.plot(*to_plane(np.stack([anchor, edge])).T, "-", color="0.45", linewidth=0.5, zorder=1)
    return missing
