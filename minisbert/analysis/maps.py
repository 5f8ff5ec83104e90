"""Project texts onto a 2-D map, and draw it: nearby points have similar meaning, mostly.

384 dimensions do not fit on a plane, so each map says how far it can be trusted. Only directions count (rows are scaled
to length 1). **PCA**, the default: ``(x - mean) @ axes.T`` onto the plane of largest variance; linear, nothing to tune,
reproducible, and distances on the map are at most the true ones, but for sentence vectors it often shows no more than a
tenth of the variance. **t-SNE** keeps neighbours together at the cost of everything else: the size of a group, the
distance between groups and the axes mean nothing.
**Trustworthiness**: are a point's ``k`` neighbours on the map true neighbours? With ``r(i, j)`` the rank of ``j`` among
the true neighbours of ``i``, ``T = 1 - 2 / (M k (2 M - 3 k - 1)) sum_i sum_(j near i on the map) max(0, r(i, j) - k)``:
1 is perfect, random points have about 0.5. scikit-learn runs on one thread, since the order of adding up moves last
digits; with another processor or release a map may still differ, in the last digits with PCA, visibly with the others.

Groups differ in shape and in colour (eight of each, Okabe and Ito's for colour-blind readers). :func:`draw_map` makes a
PNG: up to eight groups have a legend, more are labelled on the map. Labels go where they cover no other and few points,
the largest group first; those without room are left out and counted. :func:`write_map_page` makes a page, for mouse,
touch, keyboard and screen reader: ``map_page.html``, beside this file, some 400 lines of plain JavaScript.
Letters: ``M`` texts, ``D`` width of a vector, ``C`` groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from minisbert.analysis.clusters import SAME, Groups, unit_rows
from minisbert.checks import check_choice, each_text, require
from minisbert.html_page import assemble
from minisbert.model import Array
from minisbert.plots.plane import Label, write_labels
from minisbert.plots.style import DPI, SHAPES, one_line, page

METHODS = ("pca", "tsne")
PERPLEXITY = 30.0
"""Of t-SNE: about how many neighbours each text has; a third of fewer than 91 texts."""
NEIGHBOURS = 5
"""Neighbours that trustworthiness looks at."""
SAMPLE = 2_000
"""Texts that trustworthiness, which compares all pairs, is measured on; more are sampled."""
_LEAST_TEXTS = 4  # for t-SNE


@dataclass(frozen=True, eq=False)
class Projection:
    """Where each text is on the map, and how far the map can be trusted."""

    points: Array  # (M, 2)
    method: str
    explained: tuple[float, float] | None  # share of the variance along each axis; PCA only
    trustworthiness: float | None  # in [0, 1]; None for fewer than 3 texts, or if all vectors are the same
    neighbours: int  # of trustworthiness
    measured: int  # texts it was measured on
    perplexity: float | None = None  # of t-SNE

    def describe(self) -> str:
        """How the map was made, and how far it can be trusted.

        >>> Projection(np.zeros((9, 2)), "pca", (0.08, 0.05), 0.72, 5, 9).describe()
        'PCA: the axes show 8.0 % and 5.0 % of the variance; trustworthiness 0.720 (1 is perfect, 0.5 is chance)'
        """
        if self.explained is not None and self.method == "pca":
            first, second = (f"{100 * share:.1f} %" for share in self.explained)
            made = f"PCA: the axes show {first} and {second} of the variance"
        elif self.method == "tsne":
            made = f"t-SNE, perplexity {self.perplexity:g}: neighbours are meaningful, distances between groups are not"
        else:
            made = "one text" if len(self.points) == 1 else "all texts have the same vector"
        if self.trustworthiness is None:
            return made
        sample = "" if self.measured == len(self.points) else f"; on {self.measured:,} sampled texts"
        return f"{made}; trustworthiness {self.trustworthiness:.3f} (1 is perfect, 0.5 is chance{sample})"


def project(vectors: ArrayLike, method: str = "pca", *, seed: int = 0) -> Projection:
    """Project texts onto a 2-D map.

    Parameters
    ----------
    vectors : array_like, shape (M, D)
        One per text, at least one. Only directions count.
    method : {"pca", "tsne"}
    seed : int
        For t-SNE, and the sample that trustworthiness is measured on. PCA needs none.

    Returns
    -------
    Projection
        Points in the dtype of the vectors, float16 as float64. All zeros for one text, or if all vectors are the same.

    Raises
    ------
    ValueError
        For no vectors, NaN, or rows of zeros; t-SNE of fewer than 4 texts; without scikit-learn.

    Notes
    -----
    **Source**: Pearson 1901; van der Maaten & Hinton 2008; trustworthiness: Venna & Kaski 2001.
    ``sklearn.decomposition.PCA(2, svd_solver="full")`` on unit rows, each axis turned so that its largest entry is
    positive; ``sklearn.manifold.TSNE(init=the PCA map, scaled)``; ``sklearn.manifold.trustworthiness`` with the cosine.

    Examples
    --------
    >>> vectors = [[1.0, 0.0, 0.1], [1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.1, 1.0, 0.1]]
    >>> found = project(vectors)
    >>> found.points[:, 0].round(1), found.describe()
    (array([ 0.7,  0.6, -0.7, -0.6]), 'PCA: the axes show 99.2 % and 0.5 % of the variance; trustworthiness 1.000 ...')
    """
    require("sklearn", "apps", "a map")
    unit = unit_rows(vectors, "project: vectors")
    count = len(unit)
    check_method(method, count)
    perplexity = min(PERPLEXITY, (count - 1) / 3) if method == "tsne" else None
    if float(np.abs(unit - unit[0]).max()) < SAME:
        share = (0.0, 0.0) if method == "pca" and count > 1 else None
        return Projection(np.zeros((count, 2), unit.dtype), "none", share, None, NEIGHBOURS, count)
    with threadpool_limits(1):
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE, trustworthiness

        model = PCA(min(2, *unit.shape), svd_solver="full")
        axes = model.fit(unit.astype(np.float64)).components_  # (1 or 2, D)
        # the sign of an axis is arbitrary, and scikit-learn's rule for it changed in release 1.5
        signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
        points = model.transform(unit.astype(np.float64)) * signs
        points = np.pad(points, ((0, 0), (0, 2 - len(axes))))  # (M, 2)
        shares = [*model.explained_variance_ratio_.tolist(), 0.0]
        if method == "tsne":
            small = (1e-4 * points / points[:, 0].std()).astype(np.float32)  # as small as in the paper
            settings = {"init": small, "learning_rate": "auto", "perplexity": perplexity}
            points = TSNE(random_state=seed, n_jobs=1, **settings).fit_transform(unit)
        drawn = np.arange(count)
        if count > SAMPLE:
            drawn = np.sort(np.random.default_rng(seed).choice(count, SAMPLE, replace=False))
        # the formula is only defined below half of the texts
        near, trust = min(NEIGHBOURS, math.ceil(len(drawn) / 2) - 1), None
        if near > 0:
            trust = float(trustworthiness(unit[drawn], points[drawn], n_neighbors=near, metric="cosine"))
    explained = (shares[0], shares[1]) if method == "pca" else None
    return Projection(points.astype(unit.dtype), method, explained, trust, near or NEIGHBOURS, len(drawn), perplexity)


def check_method(method: str, count: int) -> None:
    """Raise ValueError if this method cannot map so many texts, before minutes of work."""
    check_choice("project: method", method, METHODS)
    if method == "tsne" and count < _LEAST_TEXTS:
        raise ValueError(f"project: tsne needs at least {_LEAST_TEXTS} texts, got {count}; 'pca' takes any number")


# --------------------------------------------------------------------------------------------------- the plot

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
    texts, points, ids = _checked("draw_map", projection, texts, groups)
    count = len(texts)
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


def _checked(
    function: str, projection: Projection, texts: Sequence[str], groups: Groups | None
) -> tuple[list[str], Array, Array]:
    """Texts, points (M, 2) and groups (M,) of a map; ValueError unless they are equally many, at least one."""
    texts = list(each_text(texts, f"{function}: texts"))
    ids = np.zeros(len(texts), np.intp) if groups is None else groups.ids
    counts = [len(projection.points), len(texts), len(ids)]
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            f"{function}: expected equally many points, texts and group ids, at least one, got "
            f"{', '.join(f'{count:,}' for count in counts)}; do they belong to the same file?"
        )
    return texts, projection.points.astype(np.float64), ids


# --------------------------------------------------------------------------------------------------- the page

TEMPLATE = Path(__file__).with_name("map_page.html")
_DIGITS = 5  # of a coordinate in [-1, 1]: less than a pixel at any useful zoom


def write_map_page(
    stream: IO[bytes],
    projection: Projection,
    texts: Sequence[str],
    groups: Groups | None = None,
    *,
    typical: Sequence[int] = (),
    title: str = "Map of texts",
    caption: str = "",
) -> None:
    r"""Write a 2-D map of texts as a web page.

    Parameters
    ----------
    stream : binary file
        Receives UTF-8.
    projection, texts, groups, title, caption
        As in :func:`draw_map`; the page holds all of each text.
    typical : sequence of int
        Rows of texts to label, the most important first; others are labelled when zoomed in.

    Examples
    --------
    >>> import io
    >>> stream = io.BytesIO()
    >>> points = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> write_map_page(stream, Projection(points, "pca", (0.7, 0.3), None, 5, 2), ["soup", "</script>"])
    >>> b'"texts":["soup","\\u003c/script\\u003e"]' in stream.getvalue()
    True
    """
    texts, points, ids = _checked("write_map_page", projection, texts, groups)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = float((high - low).max()) / 2 or 1.0
    places = np.round((points - (low + high) / 2) / scale, _DIGITS) + 0.0  # (M, 2) in [-1, 1], no -0.0
    names = [""] if groups is None else list(groups.names)
    members = [places[ids == group] for group in range(len(names))]
    middles = [middle(some if len(some) else np.zeros((1, 2))).tolist() for some in members]
    content = {
        "points": places.tolist(),
        "half": np.maximum(np.abs(places).max(axis=0), 0.05).tolist(),
        "texts": texts,
        "ids": ids.tolist(),
        "names": names,
        "kind": "" if groups is None else groups.kind,
        "styles": [style(group) for group in range(len(names))],
        "none": style(-1),
        "middles": middles,
        "typical": [int(row) for row in typical][:TYPICAL] if len(names) <= LEGEND_GROUPS else [],
        "title": title,
        "captions": [line for line in (caption, projection.describe()) if line],
    }
    stream.write(assemble(TEMPLATE, title, content).encode())
