"""A 2-D map of texts as a PNG: groups told apart by more than colour, and labels that do not overlap.

Groups differ in shape and in colour (eight of each, Okabe and Ito's for colour-blind readers). Up to eight groups have
a legend; more are labelled on the map. Labels go where they cover no other and few points, the largest group first;
those without room are left out and counted in the caption. Both axes share one scale. matplotlib (extra ``apps``) is
imported when something is drawn, without pyplot. Letters: ``M`` texts, ``C`` groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from minisbert.analysis.clusters import Groups
from minisbert.analysis.maps import Projection
from minisbert.checks import each_text
from minisbert.model import Array
from minisbert.plots.plane import Label, write_labels
from minisbert.plots.style import DPI, SHAPES, one_line, page

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
"""Okabe & Ito 2008: distinct for colour-blind readers, and of different lightness."""
NO_GROUP = "#999999"
LEGEND_GROUPS = 8
"""Up to this many groups have a legend; more are labelled on the map."""
ALL_TEXTS = 40
"""Up to this many texts are all labelled, if there is room; of more, the typical ones."""
TYPICAL = 12
"""Typical texts on a map, at most; a map of more than :data:`LEGEND_GROUPS` groups is full of names and has none."""
WIDTH_INCHES, HEIGHT_INCHES = 10.0, (4.5, 9.0)  # of the map; its height depends on the points
MANY_NAMES = 25  # or more are written small
TEXT_LETTERS, NAME_LETTERS = 44, 36


def style(group: int) -> tuple[str, int]:
    """Colour (``#rrggbb``) and shape (index into ``SHAPES``) of a group: 64 distinct styles; -1 is no group.

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
    texts = list(each_text(texts, "draw_map: texts"))
    check_sizes("draw_map", projection, texts, groups)
    points, count = projection.points.astype(np.float64), len(texts)
    ids = np.zeros(count, np.intp) if groups is None else groups.ids
    names = [] if groups is None else [one_line(name, NAME_LETTERS) for name in groups.names]
    has_legend, has_all = len(names) <= LEGEND_GROUPS, count <= ALL_TEXTS
    rows = list(range(count)) if has_all else list(typical)[:TYPICAL] if has_legend else []
    captions = [caption, projection.describe()]
    if hidden := count - len(np.unique(points, axis=0)):
        captions.append(f"{hidden:,} {'point lies' if hidden == 1 else 'points lie'} exactly on another point")
    if len(names) > len(COLOURS) * len(SHAPES):
        captions.append(f"some of the {len(names):,} groups share colour and shape")

    # one scale for both axes, on which the points fill the map
    spans = np.ptp(points, axis=0)
    tall = WIDTH_INCHES * spans[1] / spans[0] if spans[0] > 0 else HEIGHT_INCHES[int(spans[1] > 0)]
    inches = np.array([WIDTH_INCHES, np.clip(tall, *HEIGHT_INCHES)])
    half = inches * (1.12 * float((spans / inches).max()) or 1.0) / 2
    low, high = (points.min(axis=0) + points.max(axis=0)) / 2 + half * np.array([[-1.0], [1.0]])
    words = [one_line(texts[row], TEXT_LETTERS) or "(empty)" for row in rows]
    with page(title, "\n".join(captions), [*names, *words]) as paper:
        from matplotlib.lines import Line2D

        axes = paper.axes(*inches)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
        axes.spines[:].set_color("0.8")
        area = float(np.clip(9_000 / count, 8, 55))  # of a mark: small if there are many
        edge: dict[str, Any] = {"linewidths": 0.5 if count < 500 else 0.25, "edgecolors": "0.2"}
        for group in range(-1, int(ids.max()) + 1):  # small groups on top of large ones
            colour, shape = style(group)
            larger = 0.5 if group < 0 else 1.5 if SHAPES[shape] == "*" else 1.0  # a star looks smaller
            look = {"s": larger * area, "c": colour, "marker": SHAPES[shape], "alpha": 0.85}
            axes.scatter(*points[ids == group].T, **look, zorder=2 + group / 1e4, **edge)

        labels = []
        for group in [] if groups is None or (has_all and has_legend) else np.argsort(-groups.sizes, kind="stable"):
            members = points[ids == group]
            if len(members):
                look = {"fontsize": 8.5 if len(names) <= MANY_NAMES else 7.5, "weight": "bold"}
                name = paper.label(names[group]) or "(empty)"
                labels.append(Label(name, middle(members), np.zeros(2), look, _mark(group, 5)))
        for row, text in zip(rows, words, strict=True):
            look = {"fontsize": 7.0, "color": "0.15"}
            labels.append(Label(paper.label(text, TEXT_LETTERS) or "(empty)", points[row], np.zeros(2), look))
        free, beside = axes.transData.transform(points), 5.0 + np.sqrt(area) / 2 * DPI / 72  # pixels
        missing = write_labels(axes, labels, free, np.full(count, min(8.0, 100 / count)), beside)
        left_out = sum(label.mark is not None for label in missing)
        for many, what in ((left_out, "name"), (len(missing) - left_out, "text")):
            if many:
                paper.captions.append(f"{many:,} {what}{'' if many == 1 else 's'} left out for lack of space")

        if groups is not None and has_legend:
            counted = [(i, f"{paper.label(name) or '(empty)'} ({groups.sizes[i]:,})") for i, name in enumerate(names)]
            if alone := int((ids < 0).sum()):
                counted.append((-1, f"in no {groups.kind} ({alone:,})"))
            handles = [Line2D([], [], linestyle="", label=text, **_mark(group, 7)) for group, text in counted]
            legend = axes.legend(
                handles=handles, loc="upper left", bbox_to_anchor=(0.0, -0.005), ncols=2 if len(handles) < 7 else 3,
                frameon=False, borderpad=0.2, handletextpad=0.2, fontsize=8.5,
            )  # fmt: skip
            for text in legend.get_texts():
                text.set_parse_math(False)
        paper.save(stream, axes, WIDTH_INCHES)


def middle(points: Array) -> Array:
    """The point nearest to the median of all: (M, 2) -> (2,)."""
    return points[np.linalg.norm(points - np.median(points, axis=0), axis=1).argmin()]


def _mark(group: int, size: float) -> dict[str, Any]:
    """The mark of a group in the legend or before its name."""
    colour, shape = style(group)
    edge = {"markeredgecolor": "0.2", "markeredgewidth": 0.6}
    return {"marker": SHAPES[shape], "color": colour, "markersize": size, **edge}


def check_sizes(function: str, projection: Projection, texts: Sequence[str], groups: Groups | None) -> None:
    """Raise ValueError unless points, texts and groups are equally many."""
    counts = [len(projection.points), len(texts), len(texts) if groups is None else len(groups.ids)]
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            f"{function}: expected equally many points, texts and group ids, at least one, got "
            f"{', '.join(f'{count:,}' for count in counts)}; do they belong to the same file?"
        )
