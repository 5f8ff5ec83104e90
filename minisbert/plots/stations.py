"""The stations of a text on its way through Sentence-BERT, with a marker where a notebook of the course is."""

from __future__ import annotations

from collections.abc import Collection
from typing import IO, Any

from minisbert.plots.style import FONT_SIZE, Picture, page, picture

STATIONS = (  # name, what leaves the station for one text, notebooks
    ("text", "letters", (2, 7)),
    ("pieces", "T pieces", (2, 7)),
    ("ids", "(T,)", (2,)),
    ("embeddings", "(T, D)", (2,)),
    ("self-\nattention", "(T, D)", (3,)),
    ("feed-\nforward", "(T, D)", (4,)),
    ("pooling", "(D,)", (1, 6, 7)),
    ("normalise", "(D,)", (1,)),
    ("cosine", "a number", (1, 8)),
    ("loss", "a number", (10,)),
)
LAYER, GRADIENTS = "the whole layer", "gradients"  # drawn as a frame around two stations, and as the way back
_MORE = {4: (LAYER,), 5: tuple(name for name, _, _ in STATIONS[:8]), 9: (GRADIENTS,), 10: (GRADIENTS,)}
_WIDTH, _HEIGHT, _GAP = 0.72, 0.44, 0.13  # inches: a station, and between two
_LOW, _BACK = 0.75, 0.2  # inches: the lower edge of the stations, and the height of the way back
_MARK, _PLAIN, _SMALL = "#08306b", "0.3", FONT_SIZE - 1.5


def where_we_are(notebook: int) -> Picture:
    """Draw the stations from text to cosine and loss, and mark those of a notebook of the course.

    Parameters
    ----------
    notebook : int
        1 to 10.

    Examples
    --------
    >>> where_we_are(3).alt.partition(".")[0]
    'Where we are: self-attention'
    """
    if notebook not in range(1, 11):
        raise ValueError(f"where_we_are: notebook must be 1 to 10, got {notebook!r}")
    marked = [name for name, _, notebooks in STATIONS if notebook in notebooks]
    marked += _MORE.get(notebook, ())
    here, all_names = (", ".join(some).replace("\n", "") for some in (marked, [name for name, _, _ in STATIONS]))
    drawn = picture(_draw, marked)
    return Picture(
        drawn.png, f"Where we are: {here}. The stations in their order: {all_names}; then gradients go back."
    )


def _draw(stream: IO[bytes], marked: Collection[str]) -> None:
    step, count = _WIDTH + _GAP, len(STATIONS)
    width, height = count * step - _GAP, _LOW + _HEIGHT + 0.3
    caption = "T tokens of one text, D numbers for each. Dark: this notebook."
    with page("Where we are", caption, []) as paper:
        from matplotlib.patches import FancyBboxPatch

        axes = paper.axes(width, height)
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.axis("off")
        middle: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.1}
        arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0}

        def box(left: float, low: float, wide: float, high: float, **look: Any) -> None:
            style = "round,pad=0,rounding_size=0.06"
            axes.add_patch(FancyBboxPatch((left, low), wide, high, boxstyle=style, clip_on=False, **look))

        for i, (name, shape, notebooks) in enumerate(STATIONS):
            left, centre, is_here = i * step, i * step + _WIDTH / 2, name in marked
            box(left, _LOW, _WIDTH, _HEIGHT, facecolor=_MARK if is_here else "white", edgecolor=_PLAIN)
            ink = "white" if is_here else "black"
            axes.text(centre, _LOW + _HEIGHT / 2, name, color=ink, fontsize=FONT_SIZE - 0.5, **middle)
            axes.text(centre, _LOW - 0.13, shape, color=_PLAIN, fontsize=_SMALL, **middle)
            axes.text(centre, _LOW - 0.26, ", ".join(map(str, notebooks)), color=_PLAIN, fontsize=_SMALL, **middle)
            if i:
                ends = (left, _LOW + _HEIGHT / 2), (left - _GAP, _LOW + _HEIGHT / 2)
                axes.annotate("", *ends, arrowprops=arrow | {"color": _PLAIN})
        axes.text(-0.06, _LOW - 0.26, "notebook", ha="right", va="center", color=_PLAIN, fontsize=_SMALL)

        def look(name: str) -> dict[str, Any]:
            return {"color": _MARK, "linewidth": 2.0} if name in marked else {"color": "0.5", "linewidth": 1.0}

        left, ink = 4 * step - _GAP / 3, look(LAYER)["color"]
        box(left, _LOW - 0.05, 2 * step - _GAP / 3, _HEIGHT + 0.1, fill=False, linestyle="--", **look(LAYER))
        axes.text(left + step, _LOW + _HEIGHT + 0.17, "one layer, repeated L times (4)", color=ink, **middle)

        first, last, ink = 3 * step + _WIDTH / 2, (count - 0.5) * step - _GAP / 2, look(GRADIENTS)["color"]
        axes.plot([last, last, first], [_LOW - 0.34, _BACK, _BACK], linestyle="--", **look(GRADIENTS))
        axes.annotate("", (first, _LOW - 0.34), (first, _BACK), arrowprops=arrow | look(GRADIENTS))
        said = "training: gradients go back through all stations (9) and change the weights (10)"
        axes.text((first + last) / 2, _BACK - 0.13, said, color=ink, **middle)
        paper.save(stream, axes, width)
