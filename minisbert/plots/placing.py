"""Where labels go so that none covers another: along a line, and around points in the plane.

Arithmetic on boxes alone; nothing is drawn here. Lengths are in any one unit, such as pixels. Left out on purpose:
the best of all arrangements, which nobody would see; one label after the other takes the best place that is left.
Next file: ``heat.py``, the first picture.

Letters: ``n`` labels, ``G`` places that are tried, ``M`` points that should stay free.
"""

from __future__ import annotations

import math

import numpy as np

from minisbert.model import Array

_DIRECTIONS = 24
_RINGS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 8.0, 11.0)  # of a label's height, how much farther away than needed
_ALONG = np.linspace(0.1, 1.0, 8)  # places on the line from an anchor to its label
_COST_TURNED, _COST_ANYWHERE = 0.6, 0.2  # at a right angle to the wanted direction; to the right, if none is wanted
_COST_CROSSED = 3.0  # a line that crosses another label


def spread(wanted: Array, gap: float, low: float, high: float) -> Array:
    """Move numbers apart until neighbours have a gap, as little as possible, and keep their order.

    The sum of squared moves is the smallest there is: numbers that are too close form a block around their mean.

    Parameters
    ----------
    wanted : Array, shape (n,)
        Where labels should be. Equal ones keep the order in which they are given.
    gap : float
        Between neighbours, at least.
    low, high : float
        Nothing lies beyond. With less room than ``(n - 1) * gap`` the gap is as small as the room makes it.

    Returns
    -------
    Array, shape (n,)

    Notes
    -----
    **Source**: isotonic regression by pooling adjacent violators; ``sklearn.isotonic.isotonic_regression`` of
    ``wanted - gap * rank``.

    Examples
    --------
    >>> spread(np.array([5.0, 5.0, 9.0]), 2.0, 0.0, 10.0)
    array([4., 6., 9.])
    >>> spread(np.array([9.0, 9.5, 1.0]), 3.0, 0.0, 10.0)
    array([ 7., 10.,  1.])
    """
    if not len(wanted):
        return np.zeros(0)
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    blocks: list[tuple[float, int]] = []  # mean and size; without their steps all of a block are equal
    for mean in (wanted[order] - steps).tolist():
        size = 1
        while blocks and blocks[-1][0] > mean:
            other, count = blocks.pop()
            mean = (mean * size + other * count) / (size + count)
            size += count
        blocks.append((mean, size))
    level = np.repeat([mean for mean, _ in blocks], [size for _, size in blocks])
    places: Array = np.empty(len(wanted))
    places[order] = np.clip(level, low, high - steps[-1]) + steps
    return places


def place_labels(
    anchors: Array,
    ways: Array,
    sizes: Array,
    bounds: tuple[float, float],
    free: Array,
    weights: Array,
    gap: float,
) -> list[Array | None]:
    """Find a place for each label around what it names, so that no two overlap and little is covered.

    Parameters
    ----------
    anchors : Array, shape (n, 2)
        What the labels name, such as the tips of arrows.
    ways : Array, shape (n, 2)
        In which direction from its anchor a label should stand; zeros if it does not matter.
    sizes : Array, shape (n, 2)
        Width and height of each label.
    bounds : (float, float)
        Width and height of the whole; labels stay inside.
    free : Array, shape (M, 2)
        Points that should not be covered, such as points along the arrows.
    weights : Array, shape (M,)
        How bad it is to cover each: 1 is as bad as to stand a label's height farther away.
    gap : float
        Between a label and its anchor, and between two labels.

    Returns
    -------
    list of (Array, shape (2,), or None)
        The middle of each label; None where it would cover another one everywhere.

    Examples
    --------
    >>> anchors, up = np.array([[50.0, 50.0]]), np.array([[0.0, 1.0]])
    >>> place_labels(anchors, up, np.array([[20.0, 10.0]]), (100.0, 100.0), anchors, np.ones(1), 3.0)
    [array([50., 58.])]
    >>> place_labels(anchors, up, np.array([[20.0, 200.0]]), (100.0, 100.0), anchors, np.ones(1), 3.0)
    [None]
    """
    taken: list[tuple[Array, Array]] = []
    places: list[Array | None] = []
    for anchor, way, size in zip(anchors, ways, sizes, strict=True):
        middles, costs = _candidates(anchor, way, size, gap)  # (G, 2), (G,)
        is_free = (middles - size / 2 >= 0).all(axis=1) & (middles + size / 2 <= bounds).all(axis=1)
        for other, other_size in taken:
            is_free &= (np.abs(middles - other) >= (size + other_size) / 2 + gap / 2).any(axis=1)
        if not is_free.any():
            places.append(None)
            continue
        middles, costs = middles[is_free], costs[is_free]
        covers = (np.abs(free - middles[:, None]) < size / 2 + gap / 3).all(axis=2)  # (G, M)
        leaders = anchor + _ALONG[:, None, None] * (nearest(anchor, middles, size) - anchor)  # (_ALONG, G, 2)
        crosses = np.zeros(len(middles))
        for other, other_size in taken:
            crosses += (np.abs(leaders - other) < other_size / 2).all(axis=2).any(axis=0)
        best = int((costs + covers @ weights + _COST_CROSSED * crosses).argmin())
        taken.append((middles[best], size))
        places.append(middles[best])
        # where a line leads from the anchor to its label nothing else should stand
        free, weights = np.concatenate([free, leaders[:, best]]), np.concatenate([weights, np.full(len(_ALONG), 0.5)])
    return places


def nearest(anchor: Array, middles: Array, size: Array) -> Array:
    """Find the point of each box that is nearest to an anchor.

    Parameters
    ----------
    anchor : Array, shape (2,)
    middles : Array, shape (G, 2)
    size : Array, shape (2,)
        Width and height of every box.

    Returns
    -------
    Array, shape (G, 2)

    Examples
    --------
    >>> nearest(np.zeros(2), np.array([[10.0, 1.0]]), np.array([4.0, 4.0]))
    array([[8., 0.]])
    """
    return np.clip(anchor, middles - size / 2, middles + size / 2)


def _candidates(anchor: Array, way: Array, size: Array, gap: float) -> tuple[Array, Array]:
    """List places for a label around its anchor, and what each costs for being far or in another direction."""
    angles = np.arange(_DIRECTIONS) * (2 * math.pi / _DIRECTIONS)
    length = float(np.hypot(*way))
    if length > 0:  # the first direction is the wanted one
        angles = angles + math.atan2(way[1], way[0])
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # to where the box is just a gap away: a wide one must go farther to the side than up
    half = size / 2 + gap
    reach = 1.0 / np.maximum(np.abs(ways) / half, 1e-12).max(axis=1)
    rings = size[1] * np.array(_RINGS)
    middles = anchor + ((reach + rings[:, None])[..., None] * ways).reshape(-1, 2)
    turned = (1 - np.cos(angles - angles[0])) * (_COST_TURNED if length > 0 else _COST_ANYWHERE)
    costs: Array = (np.array(_RINGS)[:, None] + turned).reshape(-1)
    return middles, costs
