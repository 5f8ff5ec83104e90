"""The style of all pictures: fonts for any script, colours readable without colour, title and caption.

Lightness shows values, light to dark; a diverging map runs from orange over white to a much darker blue. Lines and
marks differ in dashes and shapes as well as in colour. Text is never read as mathematics, and a character that no
installed font has becomes an empty box, explained below the title. No pyplot, which looks for a screen and keeps
figures alive, and no style sheets, which the reader's own settings would change.
"""

from __future__ import annotations

import io
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import require
from minisbert.model import Array

FONT_SIZE = 8.0  # points, of labels and numbers
LETTER = 0.62 * FONT_SIZE / 72  # inches, width of a letter or digit
LABEL_LETTERS = 40  # longer labels are cut
DPI, SCREEN_DPI = 150, 110  # of the file, and of the screen: letters are then about as large as a notebook's
NO_NUMBER, NO_COLOUR = "none", "0.85"  # of a cell without a number
BOX = "□"  # for a character that no font has
# Orange, white, blue: distinct to colour-blind readers, and in grey by the much darker end.
DIVERGING = ("#d98324", "#eebc86", "#f7f7f7", "#8fb2d3", "#3b6ea5", "#08306b")
LINE_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito 2008, distinct to colour-blind readers, without yellow, which is invisible on white."""
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
"""matplotlib's names: circle, square, triangle, diamond, inverted triangle, plus, cross, star."""
_DIVERGING_PLACES = (0.0, 0.25, 0.5, 0.67, 0.83, 1.0)
_NO_FONT = "Last Resort"  # comes with matplotlib; a box with a letter in it for every character


@dataclass(frozen=True)
class Picture:
    """A PNG that Jupyter shows as a picture, and a text for whoever cannot see it."""

    png: bytes = field(repr=False)
    alt: str = field(repr=False, default="")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the PNG's header."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")

    def _repr_png_(self) -> tuple[bytes, dict[str, int | str]]:
        """The PNG for Jupyter, its alternative text, and its width: an inch takes the same room in every picture."""
        return self.png, {"width": round(self.size[0] * SCREEN_DPI / DPI), "alt": self.alt}


def picture(draw: Callable[..., None], *args: Any, alt: str = "", **kwargs: Any) -> Picture:
    """Draw into memory.

    Parameters
    ----------
    draw : callable
        Takes a binary file first, as :func:`~minisbert.plots.heat_map` does.
    *args, **kwargs
        Its other arguments.
    alt : str
        What the picture shows, for whoever cannot see it; without it, the title and caption.

    Examples
    --------
    >>> picture(lambda stream, text: stream.write(text), b"no PNG, but bytes").png
    b'no PNG, but bytes'
    """
    stream = io.BytesIO()
    draw(stream, *args, **kwargs)
    said = alt or ": ".join(kwargs[key] for key in ("title", "caption") if kwargs.get(key))
    return Picture(stream.getvalue(), said)


def finite(values: ArrayLike, what: str, *shape: int, hint: str = "") -> Array:
    """Take finite numbers of a shape, at least one, as float64; -1 is any length.

    >>> finite([[1, np.nan]], "heat_map: values", 1, -1)
    Traceback (most recent call last):
        ...
    ValueError: heat_map: values: expected finite numbers, got nan at (0, 1)
    """
    array = np.asarray(values, np.float64)
    fits = array.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or not array.size:
        said = ", ".join("n" if n == -1 else str(n) for n in shape) + "," * (len(shape) == 1)
        raise ValueError(f"{what}: expected numbers of shape ({said}), at least one, got {array.shape}{hint}")
    if not np.isfinite(array).all():
        where = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise ValueError(f"{what}: expected finite numbers, got {array[where]:g} at {where}")
    return array


@dataclass
class Page:
    """A picture's title, captions and fonts while it is drawn; from :func:`page`."""

    title: str
    captions: list[str]  # lines below the title; a picture may add its own
    drawable: Callable[[str], str]
    boxes: bool = field(default=False)  # whether a label has a BOX

    def label(self, text: str, letters: int = LABEL_LETTERS) -> str:
        """Make a label drawable: on one line, cut, with boxes for what no font has.

        >>> Page("", [], str).label("i love soup", 7)
        'i love…'
        """
        drawn = self.drawable(one_line(text, letters))
        self.boxes |= BOX in drawn
        return drawn

    def axes(self, width: float, height: float, **options: Any) -> Any:
        """Axes that fill a figure of this size in inches; saving adds what stands around them."""
        from matplotlib.figure import Figure  # not pyplot, which looks for a screen

        return Figure(figsize=(width, height), dpi=DPI).add_axes((0.0, 0.0, 1.0, 1.0), **options)

    def save(self, stream: IO[bytes], axes: Any, width: float) -> None:
        """Write title and captions above the axes, wrapped to a width in inches, and the whole as a PNG."""
        title, captions = self.drawable(self.title), [self.drawable(line) for line in self.captions]
        if self.boxes or BOX in "".join([title, *captions]):
            captions.append(f"{BOX} is a character that no installed font has")
        letters, title_size = round(max(width, 5.0) / LETTER), FONT_SIZE + 3
        cut: dict[str, Any] = {"max_lines": 3, "placeholder": " …"}
        small = [line for text in captions for line in textwrap.wrap(text, letters, **cut)]
        large = textwrap.wrap(title, round(letters * FONT_SIZE / title_size), **cut)
        height = 8.0  # points above the axes
        for lines, size, colour in ((small, FONT_SIZE, "0.3"), (large, title_size, "black")):
            for line in reversed(lines):
                place = {"xycoords": "axes fraction", "xytext": (0, height), "textcoords": "offset points"}
                axes.annotate(line, (0, 1), **place, fontsize=size, color=colour, va="bottom", parse_math=False)
                height += 1.4 * size
            height += 3.0 * bool(lines)
        axes.figure.savefig(stream, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.15, facecolor="white")


@contextmanager
def page(title: str, caption: str, labels: Iterable[str]) -> Iterator[Page]:
    """Set fonts for title, caption and labels; what is drawn and saved inside has them."""
    matplotlib = require("matplotlib", "plots", "a plot")
    families, drawable = find_fonts([title, caption, *labels])
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # independent of the reader's own settings
        matplotlib.rcParams.update({"font.family": families, "text.usetex": False, "font.size": FONT_SIZE})
        yield Page(title, caption.splitlines(), drawable)


def colour_bar(image: Any, width: float, height: float, gap: float = 0.2, extend: str = "neither") -> None:
    """Draw the scale to the right of an image, from the top down; lengths in inches, ``extend`` as in matplotlib."""
    tall = min(max(height, 1.2), 4.0)  # a scale as low as one row has no room for its numbers
    place = (1 + gap / width, 1 - tall / height, 0.14 / width, tall / height)
    bar = image.figure.colorbar(image, cax=image.figure.add_axes(place, label="scale"), extend=extend)
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(length=2)


def contrasting(colours: Array) -> Array:
    """Black or white text for each colour RGBA, whichever has more contrast: ``(..., 4)`` -> ``(...)`` names.

    >>> contrasting(np.array([[1.0, 1.0, 0.9, 1.0], [0.0, 0.2, 0.4, 1.0]])).tolist()
    ['black', 'white']
    """
    # Relative luminance as WCAG 2 defines it; at 0.179 black and white have the same contrast, 4.6 : 1.
    rgb = colours[..., :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.where(linear @ np.array([0.2126, 0.7152, 0.0722]) > 0.179, "black", "white")


def colour_map(diverging: bool) -> Any:
    """matplotlib's colour map for a matrix: zero is white and the sign shows; else only the half from white to blue."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = list(zip(_DIVERGING_PLACES, DIVERGING, strict=True))
    if not diverging:
        middle = len(stops) // 2 - 1
        stops = [(0.0, "white"), *((2 * place - 1, colour) for place, colour in stops[middle + 1 :])]
    return LinearSegmentedColormap.from_list("signed" if diverging else "amount", stops).with_extremes(bad=NO_COLOUR)


def written(values: Array, number_format: str) -> list[list[str]]:
    """Format the numbers of a matrix, with a real minus sign (never before a zero); NaN becomes a word.

    >>> written(np.array([[-0.001, np.nan]]), "{:.2f}")
    [['0.00', 'none']]
    """
    cells = [[NO_NUMBER if value != value else number_format.format(value) for value in row] for row in values.tolist()]
    zeros = {number_format.format(-0.0): number_format.format(0.0)}
    return [[zeros.get(cell, cell).replace("-", "\N{MINUS SIGN}") for cell in row] for row in cells]


def one_line(label: str, letters: int = LABEL_LETTERS) -> str:
    r"""Put a label on one line of at most ``letters`` characters.

    >>> one_line("soup\nis my favorite", 10)
    'soup is m…'
    """
    line = " ".join(label.split())
    return line if len(line) <= letters else f"{line[: letters - 1].rstrip()}…"


def find_fonts(texts: Iterable[str]) -> tuple[list[str], Callable[[str], str]]:
    """Find installed fonts for all characters: matplotlib's ``font.family``, and a function that makes a text drawable.

    The function puts a text on one line, with :data:`BOX` for each character that no font has.
    """
    from matplotlib import font_manager

    ours = ["DejaVu Sans"]  # comes with matplotlib
    wanted = {ord(c) for text in texts for c in text if c.isprintable() and not c.isspace()} | {ord(BOX), ord("…")}
    missing = wanted - _characters(font_manager.findfont(ours[0]))
    if missing:
        for font in sorted(font_manager.fontManager.ttflist, key=lambda f: (f.name, f.style != "normal", f.weight)):
            if font.name in ours or not missing or font.name.startswith(_NO_FONT):
                continue
            if found := missing & _characters(font.fname):
                ours.append(font.name)
                missing -= found

    def drawable(text: str) -> str:
        """Put boxes for what no font has; drop characters that only join or direct others."""
        kept = (c for c in " ".join(text.split()) if unicodedata.category(c) != "Cf")
        return "".join(BOX if ord(c) in missing or not c.isprintable() else c for c in kept)

    return ours, drawable


def _characters(file: str) -> set[int]:
    """Characters that a font file can draw; none if it cannot be read."""
    from matplotlib import font_manager

    try:
        return set(font_manager.get_font(file).get_charmap())
    except (OSError, RuntimeError):
        return set()


def inches(text: str, size: float = FONT_SIZE) -> float:
    """Estimate the width in inches of a line of text, generously.

    >>> round(inches("soup"), 2), round(inches("汁物"), 2)
    (0.28, 0.22)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)  # as wide as high
    return (LETTER / FONT_SIZE * (len(text) - wide) + wide / 72) * size
