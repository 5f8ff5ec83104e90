r"""A 2-D map of texts as a self-contained web page, for mouse, touch, keyboard and screen reader.

``map_page.html``, beside this file, is the page: some 400 lines of plain JavaScript that draw on a canvas. **Texts come
from strangers**: they stand in the page as JSON inside a ``<script>`` that no browser runs, with ``<``, ``>`` and ``&``
written as ``\u003c`` and so on, and are inserted as text, never as HTML. A content security policy lets the browser run
only the script with this hash, and fetch nothing. Letters: ``M`` texts, ``C`` groups.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from minisbert.analysis.map_picture import LEGEND_GROUPS, TYPICAL, check_sizes, style
from minisbert.analysis.maps import Projection
from minisbert.analysis.naming import Groups
from minisbert.checks import each_text

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
    page = TEMPLATE.read_text(encoding="utf-8")
    points = projection.points.astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = float((high - low).max()) / 2 or 1.0
    places = np.round((points - (low + high) / 2) / scale, _DIGITS) + 0.0  # (M, 2) in [-1, 1], no -0.0
    names = [""] if groups is None else list(groups.names)
    ids = np.zeros(len(points), np.intp) if groups is None else groups.ids
    middles = []  # of each group: its point nearest to the median
    for group in range(len(names)):
        members = places[ids == group] if (ids == group).any() else np.zeros((1, 2))
        distances = np.linalg.norm(members - np.median(members, axis=0), axis=1)
        middles.append(members[distances.argmin()].tolist())
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
    # a content security policy: the page's own script and style, and nothing else
    rules = ["default-src 'none'", "base-uri 'none'", "form-action 'none'"]
    for name in ("script", "style"):
        (inside,) = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        rules.append(f"{name}-src 'sha256-{digest}'")
    filling = {"policy": "; ".join(rules), "title": html.escape(title), "data": json_for_html(content)}
    # in one pass, so that {{title}} in a text is not filled in
    filled = re.sub(r"\{\{(policy|title|data)\}\}", lambda found: filling[found[1]], page)
    stream.write(filled.encode())


def json_for_html(value: Any) -> str:
    r"""JSON that may stand inside a ``<script>``: nothing in it ends the element or begins another.

    >>> print(json_for_html("</script><!-- & 好き"))
    "\u003c/script\u003e\u003c!-- \u0026 好き"
    """
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # lone surrogates have no UTF-8, and U+2028 and U+2029 end a line in some parsers
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", written)
