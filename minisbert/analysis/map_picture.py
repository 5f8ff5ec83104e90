"""A 2-D map of texts as a PNG: groups told apart by more than colour, and labels that do not overlap.

Groups differ in shape and in colour (eight of each, Okabe and Ito's for colour-blind readers). Up to eight groups have
a legend; more are labelled on the map. Labels go where they cover no other and few points, the largest group first;
those without room are left out and counted in the caption. Both axes share one scale. matplotlib (extra ``apps``) is
imported when something is drawn, without pyplot. Letters: ``M`` texts, ``C`` groups, ``n`` boxes, ``G`` candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from minisbert.analysis.maps import Projection
from minisbert.analysis.naming import Groups
from minisbert.checks import each_text
from minisbert.model import Array
from minisbert.plots import require_matplotlib
from minisbert.plots.style import BOX, DPI, find_fonts, one_line, write_head

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
"""Okabe & Ito 2008: distinct for colour-blind readers, and of different lightness."""
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
"""matplotlib's names: circle, square, triangle, diamond, inverted triangle, plus, cross, star."""
NO_GROUP = "#999999"
LEGEND_GROUPS = 8
"""Up to this many groups have a legend; more are labelled on the map."""
ALL_TEXTS = 40
"""Up to this many texts are all labelled, if there is room; of more, the typical ones."""
TYPICAL = 12
"""Typical texts on a map, at most; a map of more than :data:`LEGEND_GROUPS` groups is full of names and has none."""
WIDTH_INCHES, HEIGHT_INCHES = 10.0, (4.5, 9.0)  # of the map; its height depends on the points
NAME_SIZE, SMALL_NAME_SIZE, TEXT_SIZE = 8.5, 7.5, 7.0  # points
MANY_NAMES = 25  # or more are written small
TEXT_LETTERS, NAME_LETTERS = 44, 36
_GAP = 4.0  # pixels between two boxes
_MARK = 12.0  # pixels for the mark before a name
_CELL = 6  # pixels of a cell of the table in which points are counted
_RINGS, _DIRECTIONS = 16, 16
_FARTHEST = 170.0  # pixels from a point to its label


def style(group: int) -> tuple[str, int]:
    """Colour (``#rrggbb``) and shape (index into :data:`SHAPES`) of a group: 64 distinct styles; -1 is no group.

    >>> style(0), style(8), len({style(group) for group in range(64)})
    (('#0072B2', 0), ('#0072B2', 1), 64)
    """
    if group < 0:
        return NO_GROUP, 0
    return COLOURS[group % 8], (group + group // 8) % 8


def draw_map(
    stream: IO[bytes],
    projection: Projection,
    texts: Sequence[str],
    groups: Groups | None = None,
    *,
    typical: Sequence[int] = (),
    title: str = "",
    caption: str = "",
) -> None:
    """Draw a 2-D map of texts as a PNG.

    Parameters
    ----------
    stream : binary file
        Receives the PNG.
    projection : Projection
        Of ``M`` texts.
    texts : sequence of str
        ``M`` of them, any text of any length.
    groups : Groups, optional
        Of the same texts.
    typical : sequence of int
        Rows of texts to label, the most important first. Up to :data:`ALL_TEXTS` texts are all labelled.
    title, caption : str
        Any text, wrapped. How far the map can be trusted is added to the caption.

    Raises
    ------
    ValueError
        If matplotlib is missing, or points, texts and groups differ in number.

    Examples
    --------
    >>> from io import BytesIO
    >>> projection = Projection(np.array([[0.0, 1.0], [1.0, 0.0]]), "pca", (0.7, 0.3), None, 5, 2)
    >>> draw_map(BytesIO(), projection, ["soup", "tea"], title="menu")
    """
    require_matplotlib()
    texts = list(each_text(texts, "draw_map: texts"))
    check_sizes("draw_map", projection, texts, groups)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    rows = _texts_to_write(texts, groups, typical)
    names = [] if groups is None else list(groups.names)
    captions = [caption, projection.describe(), *_remarks(projection, groups)]
    families, drawable = find_fonts([title, *captions, *names, *(one_line(texts[row], TEXT_LETTERS) for row in rows)])
    with matplotlib.rc_context({"font.family": families, "text.usetex": False, "font.size": NAME_SIZE}):
        figure = Figure(figsize=(WIDTH_INCHES, _height(projection.points)), dpi=DPI)
        renderer = FigureCanvasAgg(figure).get_renderer()
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        _limit(axes, projection.points)
        _draw_points(axes, projection.points, groups)
        written = _name_groups(projection, groups, len(texts), drawable)
        written += [
            _Written(drawable(one_line(texts[row], TEXT_LETTERS)) or "(empty)", projection.points[row], -2)
            for row in rows
        ]
        left_out = _write(axes, renderer, written, projection.points)
        captions += [drawable(line) for line in left_out]
        if groups is not None and len(groups.names) <= LEGEND_GROUPS:
            _draw_legend(axes, groups, drawable)
        if BOX in "".join([drawable(title), *map(drawable, names), *(one.text for one in written)]):
            captions.append(f"{BOX} is a character that no installed font has")
        write_head(axes, drawable(title), [drawable(line) for line in captions if line], WIDTH_INCHES)
        figure.savefig(stream, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.15, facecolor="white")


def _texts_to_write(texts: Sequence[str], groups: Groups | None, typical: Sequence[int]) -> list[int]:
    """Rows of the texts to label."""
    if len(texts) <= ALL_TEXTS:
        return list(range(len(texts)))
    has_names = groups is not None and len(groups.names) > LEGEND_GROUPS
    return [] if has_names else list(typical)[:TYPICAL]


def check_sizes(function: str, projection: Projection, texts: Sequence[str], groups: Groups | None) -> None:
    """Raise ValueError unless points, texts and groups are equally many."""
    counts = [len(projection.points), len(texts), len(texts) if groups is None else len(groups.ids)]
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            f"{function}: expected equally many points, texts and group ids, at least one, got "
            f"{', '.join(f'{count:,}' for count in counts)}; do they belong to the same file?"
        )


def _remarks(projection: Projection, groups: Groups | None) -> list[str]:
    """What the picture alone would hide."""
    remarks = []
    different = len(np.unique(projection.points, axis=0))
    if different < len(projection.points):
        hidden = len(projection.points) - different
        remarks.append(f"{hidden:,} {'point lies' if hidden == 1 else 'points lie'} exactly on another point")
    if groups is not None and len(groups.names) > len(COLOURS) * len(SHAPES):
        remarks.append(f"some of the {len(groups.names):,} groups share colour and shape")
    return remarks


# --------------------------------------------------------------------------------------------------- the points


def _height(points: Array) -> float:
    """Height of the map in inches at which one scale fills it both ways."""
    width, height = np.ptp(points.astype(np.float64), axis=0).tolist()
    least, most = HEIGHT_INCHES
    wanted = WIDTH_INCHES * height / width if width > 0 else most if height > 0 else least
    return float(np.clip(wanted, least, most))


def _limit(axes: Any, points: Array) -> None:
    """Set limits that hold all points, with room for labels, on one scale."""
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    middle, half = (low + high) / 2, (high - low) / 2
    shape = np.array(axes.figure.get_size_inches())
    unit = 1.12 * float((half / shape).max()) or 1.0  # half an inch in data units
    (left, bottom), (right, top) = middle - unit * shape, middle + unit * shape
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    axes.spines[:].set_color("0.8")


def _mark_area(count: int) -> float:
    """Area of a mark in square points: small if there are many."""
    return float(np.clip(9_000 / count, 8, 55))


def _draw_points(axes: Any, points: Array, groups: Groups | None) -> None:
    """Draw each text as a mark, small groups on top of large ones."""
    count = len(points)
    size = _mark_area(count)
    ids = np.zeros(count, np.intp) if groups is None else groups.ids
    edge = {"linewidths": 0.5 if count < 500 else 0.25, "edgecolors": "0.2"}
    for group in range(-1, int(ids.max(initial=-1)) + 1):
        rows = np.flatnonzero(ids == group)
        colour, shape = style(group)
        larger = 1.5 if SHAPES[shape] == "*" else 1.0  # a star of the same size looks smaller
        area = larger * size if group >= 0 else 0.5 * size
        axes.scatter(
            *points[rows].T, s=area, c=colour, marker=SHAPES[shape], alpha=0.85, zorder=2 + group / 1e4, **edge
        )


def _draw_legend(axes: Any, groups: Groups, drawable: Any) -> None:
    """List the groups below the map, with their sizes."""
    from matplotlib.lines import Line2D

    entries = [
        (i, one_line(name), int(size)) for i, (name, size) in enumerate(zip(groups.names, groups.sizes, strict=True))
    ]
    if alone := int((groups.ids < 0).sum()):
        entries.append((-1, f"in no {groups.kind}", alone))
    handles = []
    for group, name, size in entries:
        colour, shape = style(group)
        label = f"{drawable(name) or '(empty)'} ({size:,})".replace("$", r"\$")  # no mathtext
        mark: dict[str, Any] = {
            "marker": SHAPES[shape],
            "color": colour,
            "markeredgecolor": "0.2",
            "markeredgewidth": 0.5,
        }
        handles.append(Line2D([], [], linestyle="", markersize=7, label=label, **mark))
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.0, -0.005), ncols=2 if len(handles) < 7 else 3,
        frameon=False, borderpad=0.2, handletextpad=0.2,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- what is written


@dataclass(frozen=True, eq=False)
class _Written:
    """A label, and what it is about."""

    text: str
    anchor: Array  # (2,) on the map
    group: int  # whose mark precedes it; -2: a text, without one


def _name_groups(projection: Projection, groups: Groups | None, count: int, drawable: Any) -> list[_Written]:
    """Each group's name and middle point, the largest group first."""
    if groups is None or (count <= ALL_TEXTS and len(groups.names) <= LEGEND_GROUPS):
        return []  # few texts are labelled themselves, and the legend has the names
    found = []
    for group in np.argsort(-groups.sizes, kind="stable").tolist():
        members = projection.points[groups.ids == group]
        if len(members):
            middle = np.median(members, axis=0)
            nearest = members[np.linalg.norm(members - middle, axis=1).argmin()]
            name = drawable(one_line(groups.names[group], NAME_LETTERS)) or "(empty)"
            found.append(_Written(name, nearest, group))
    return found


def _write(axes: Any, renderer: Any, written: list[_Written], points: Array) -> list[str]:
    """Write the labels that have room, and report how many did not."""
    from matplotlib import patheffects

    halo = [patheffects.withStroke(linewidth=2.2, foreground="white")]
    drawn, sizes = [], []
    for one in written:
        is_name = one.group >= -1
        name_size = NAME_SIZE if len(written) <= MANY_NAMES else SMALL_NAME_SIZE
        look = {"fontsize": name_size, "weight": "bold"} if is_name else {"fontsize": TEXT_SIZE, "color": "0.15"}
        artist = axes.text(
            0, 0, one.text, ha="left", va="center_baseline", parse_math=False, path_effects=halo, zorder=6, **look
        )
        box = artist.get_window_extent(renderer)
        sizes.append((box.width + _MARK * is_name, box.height))
        drawn.append(artist)
    if not written:
        return []
    bounds = (float(axes.bbox.width), float(axes.bbox.height))
    anchors = axes.transData.transform(np.stack([one.anchor for one in written]))
    beside = 4.0 + math.sqrt(_mark_area(len(points))) / 2 * DPI / 72  # pixels
    places = place_boxes(anchors, np.array(sizes), bounds, axes.transData.transform(points), beside)
    missing = {True: 0, False: 0}
    for one, artist, size, anchor, place in zip(written, drawn, sizes, anchors, places, strict=True):
        if place is None:
            artist.remove()
            missing[one.group >= -1] += 1
        else:
            _put(axes, one, artist, np.array(size), anchor, place)
    return [
        f"{count:,} {what}{'' if count == 1 else 's'} left out for lack of space"
        for what, count in (("name", missing[True]), ("text", missing[False]))
        if count
    ]


def _put(axes: Any, one: _Written, artist: Any, size: Array, anchor: Array, place: Array) -> None:
    """Write a label, with a mark before a group's name, and a line to its anchor unless that is beside it."""
    to_map = axes.transData.inverted().transform
    left = place - [size[0] / 2, 0.0]
    if one.group >= -1:
        colour, shape = style(one.group)
        x, y = to_map(left + np.array([_MARK / 2 - 2, 0.0]))
        axes.plot(
            x, y, SHAPES[shape], color=colour, markersize=5, markeredgecolor="black",
            markeredgewidth=0.6, zorder=7,
        )  # fmt: skip
        left = left + np.array([_MARK, 0.0])
    artist.set_position(to_map(left))
    nearest = np.clip(anchor, place - size / 2, place + size / 2)  # the nearest point of the box
    if np.linalg.norm(anchor - nearest) > 3:
        axes.plot(*np.stack([to_map(anchor), to_map(nearest)]).T, "-", color="0.25", linewidth=0.6, zorder=5)


def place_boxes(
    anchors: Array, sizes: Array, bounds: tuple[float, float], points: Array, beside: float = 7.0
) -> list[Array | None]:
    """Place each box near its anchor, so that no two overlap and few points are covered; None if there is no room.

    (n, 2), (n, 2), (M, 2) -> n times (2,)

    Greedy: each box in turn takes the best place left, ``distance + what it covers``. All in pixels.

    >>> anchors = np.array([[50.0, 50.0], [50.0, 50.0]])
    >>> first, second = place_boxes(anchors, np.full((2, 2), 20.0), (100.0, 100.0), anchors)
    >>> bool(np.abs(first - second).max() >= 20)
    True
    """
    table = _count_table(points, bounds)
    taken: list[tuple[Array, Array]] = []
    places: list[Array | None] = []
    for anchor, size in zip(anchors, sizes, strict=True):
        middles, distances = _candidates(anchor, size, beside)  # (G, 2), (G,)
        is_free = (middles - size / 2 >= 0).all(axis=1) & (middles + size / 2 <= bounds).all(axis=1)
        for other, other_size in taken:
            is_free &= (np.abs(middles - other) >= (size + other_size) / 2 + _GAP).any(axis=1)
        if not is_free.any():
            places.append(None)
            continue
        middles, distances = middles[is_free], distances[is_free]
        covered = _count(table, middles - size / 2, middles + size / 2)
        best = middles[(distances + 90.0 * covered / (1.0 + covered.max())).argmin()]
        taken.append((best, size))
        places.append(best)
    return places


def _candidates(anchor: Array, size: Array, beside: float) -> tuple[Array, Array]:
    """Candidate places for a box around its anchor, (G, 2), and their distances from it, (G,)."""
    angles = np.arange(_DIRECTIONS) * (2 * math.pi / _DIRECTIONS)
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # to where the box just touches the anchor: a wide box moves farther sideways than up
    reach = 1.0 / np.maximum(np.abs(ways) / np.maximum(size / 2, 1.0), 1e-9).max(axis=1)
    rings = beside + (_FARTHEST - beside) * np.linspace(0.0, 1.0, _RINGS) ** 1.5
    middles = anchor + ((reach + rings[:, None])[..., None] * ways).reshape(-1, 2)
    return middles, np.repeat(rings, _DIRECTIONS)


def _count_table(points: Array, bounds: tuple[float, float]) -> Array:
    """Count the points below and to the left of each corner of a grid, from which the count in any box follows."""
    steps = [math.ceil(bound / _CELL) for bound in bounds]
    edges = [np.arange(step + 1) * _CELL for step in steps]
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=edges)
    return np.pad(counts.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


def _count(table: Array, low: Array, high: Array) -> Array:
    """Count the points in boxes, to the cell: ``(G,)``."""
    last = np.array(table.shape) - 1
    x0, y0 = np.clip(np.floor(low / _CELL).astype(int), 0, last).T
    x1, y1 = np.clip(np.ceil(high / _CELL).astype(int), 0, last).T
    return table[x1, y1] - table[x0, y1] - table[x1, y0] + table[x0, y0]
