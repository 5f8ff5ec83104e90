"""A 2-D map of texts as a self-contained web page, for mouse, touch, keyboard and screen reader.

``map_page.html``, beside this file, is the page: some 400 lines of plain JavaScript that draw on a canvas.
:mod:`minisbert.html_page` puts it together. Letters: ``M`` texts, ``C`` groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from minisbert.analysis.clusters import Groups
from minisbert.analysis.map_picture import LEGEND_GROUPS, TYPICAL, check_sizes, middle, style
from minisbert.analysis.maps import Projection
from minisbert.checks import each_text
from minisbert.html_page import assemble

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
    projection : Projection
        Of ``M`` texts.
    texts : sequence of str
        ``M`` of them, any text of any length; the page holds all of it.
    groups : Groups, optional
        Of the same texts.
    typical : sequence of int
        Rows of texts to label, the most important first; others are labelled when zoomed in.
    title, caption : str
        Any text. How far the map can be trusted is added to the caption.

    Raises
    ------
    ValueError
        If points, texts and groups differ in number, or there are none.

    Examples
    --------
    >>> import io
    >>> stream = io.BytesIO()
    >>> points = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> write_map_page(stream, Projection(points, "pca", (0.7, 0.3), None, 5, 2), ["soup", "</script>"])
    >>> b'"texts":["soup","\\u003c/script\\u003e"]' in stream.getvalue()
    True
    """
    texts = list(each_text(texts, "write_map_page: texts"))
    check_sizes("write_map_page", projection, texts, groups)
    points = projection.points.astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = float((high - low).max()) / 2 or 1.0
    places = np.round((points - (low + high) / 2) / scale, _DIGITS) + 0.0  # (M, 2) in [-1, 1], no -0.0
    names = [""] if groups is None else list(groups.names)
    ids = np.zeros(len(points), np.intp) if groups is None else groups.ids
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
