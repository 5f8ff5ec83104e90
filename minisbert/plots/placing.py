"""Where labels go so that none covers another: along a line, and around points in the plane.

Labels are placed greedily, each at the best place left. Letters: ``n`` labels, ``G`` candidate places, ``M`` points to
keep free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minisbert.model import Array
from minisbert.plots.style import DPI, FONT_SIZE

_DIRECTIONS = 24
_RINGS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 8.0, 11.0)  # extra distance as a multiple of a label's height
_ALONG = np.linspace(0.1, 1.0, 8)  # points on the line from an anchor to its label
_COST_TURNED, _COST_ANYWHERE = 0.6, 0.2  # at right angles to the wanted direction; if none, to the right
_COST_CROSSED = 3.0  # a line that crosses another label
_MARK, _MARK_WIDE = 15.0, 11.0  # pixels: room for the mark before a label, and the mark


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
