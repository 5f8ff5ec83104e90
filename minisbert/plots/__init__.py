"""Pictures: matrices, attention heads, vectors in the plane, curves, bars; in one style, for notebooks and files.

Each is a function ``draw(stream, ...)`` that writes a PNG; ``picture(draw, ...)`` keeps it in memory, and Jupyter shows
it. matplotlib (extra ``plots`` or ``notebooks``) is imported when something is drawn.

**How they stay readable.** In black and white and for colour-blind readers: values are told by lightness, lines by
dashes and marks, groups by shapes, and names stand at what they name. Labels do not overlap; what finds no room is left
out, and the caption says so. Any text in any script is drawn as it is, ``$`` and ``_`` too.

Other kinds of picture stand with the figures that they show, such as ``analysis/map_picture.py``. First file:
``style.py``.
"""

from __future__ import annotations

from importlib.util import find_spec

from minisbert.plots.bar_chart import bars
from minisbert.plots.heads import attention_heads
from minisbert.plots.heat import heat_map
from minisbert.plots.line_chart import curves
from minisbert.plots.matrix import similarity_matrix
from minisbert.plots.picture import Picture, picture
from minisbert.plots.plane import vectors_in_plane
from minisbert.plots.style import (
    BOX,
    DIVERGING,
    DPI,
    FONT_SIZE,
    INSTALL,
    LABEL_LETTERS,
    LETTER,
    NEEDS,
    NO_COLOUR,
    NO_NUMBER,
    SEQUENTIAL,
    colour_map,
    contrasting,
    find_fonts,
    one_line,
    write_head,
    written,
)

__all__ = [
    "BOX",
    "DIVERGING",
    "DPI",
    "FONT_SIZE",
    "INSTALL",
    "LABEL_LETTERS",
    "LETTER",
    "NO_COLOUR",
    "NO_NUMBER",
    "SEQUENTIAL",
    "Picture",
    "attention_heads",
    "bars",
    "colour_map",
    "contrasting",
    "curves",
    "find_fonts",
    "heat_map",
    "one_line",
    "picture",
    "require_matplotlib",
    "similarity_matrix",
    "vectors_in_plane",
    "write_head",
    "written",
]


def require_matplotlib() -> None:
    """Refuse early, before anything is computed, where a picture could not be drawn in the end.

    Raises
    ------
    ValueError
        With the command that installs it.

    Examples
    --------
    >>> require_matplotlib()  # doctest: +SKIP
    """
    if find_spec("matplotlib") is None:
        raise ValueError(NEEDS)
