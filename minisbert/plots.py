"""A matrix as a picture: a heat map that can be read in black and white, by colour-blind readers, in any script.

matplotlib is imported when something is drawn (extra ``plots``). pyplot is left out on purpose: it looks for a screen
and keeps figures alive. Other kinds of picture stand with the figures that they show, such as ``bench/picture.py``.

**How it stays readable.** A cell has a size in inches and everything else is arranged around the cells, so that
numbers and labels are as large for 30 rows as for 3; only past a bound do cells shrink. Values are told by lightness:
from light to dark. A diverging map runs from orange over white to a much darker blue, and where sign is not written in
the cells, negative ones carry a dash. Text is never read as mathematics, and a character that no installed font has
becomes an empty box, which a line under the title explains.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import IO, Any

import numpy as np

from minisbert.model import Array

INSTALL = "pip install -e '.[plots]'"
BODY_INCHES = (10.0, 8.5)  # all cells together are at most so wide and high
CELL_INCHES = (0.45, 0.3)  # one cell, unless numbers need more or the bound less
FONT_SIZE = 8.0  # points, of labels and numbers
LETTER = 0.62 * FONT_SIZE / 72  # inches, what a letter or digit takes in width
LABEL_LETTERS = 40  # longer labels are cut
DPI = 150
NO_NUMBER, NO_COLOUR = "none", "0.85"  # what stands in a cell without a number
BOX = "□"  # stands for a character that no font has
SEQUENTIAL = "viridis_r"  # perceptually uniform; light is low, dark is high
# Orange, white, blue: hues that colour-blind readers tell apart, and the dark end is dark enough to tell in grey.
DIVERGING = ("#d98324", "#eebc86", "#f7f7f7", "#8fb2d3", "#3b6ea5", "#08306b")
_DIVERGING_PLACES = (0.0, 0.25, 0.5, 0.67, 0.83, 1.0)
_NO_FONT = "Last Resort"  # comes with matplotlib, and has a box with a letter in it for every character there is
_WORTH_A_DASH = 0.02  # of the scale: below that a negative number is hardly one


def require_matplotlib() -> None:
    """Refuse early where the picture could not be drawn in the end.

    Raises
    ------
    ValueError
        With the command that installs it.

    Examples
    --------
    >>> require_matplotlib()  # doctest: +SKIP
    """
    if find_spec("matplotlib") is None:
        raise ValueError(f"the picture needs matplotlib: {INSTALL}")


def heat_map(
    stream: IO[bytes],
    values: Array,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    caption: str = "",
    value_range: tuple[float, float] | None = None,
    diverging: bool = False,
    marked: tuple[int, int] | None = None,
    number_format: str = "{:.2f}",
) -> None:
    """Draw a matrix as coloured cells, with its numbers where there is room for them.

    Parameters
    ----------
    stream : binary file
        Gets a PNG.
    values : Array, shape (R, C)
        Finite numbers, at least one. NaN is a cell that has none: grey, with the word.
    rows, columns : sequence of str, of lengths R and C
        Labels, any text; long ones are cut, and where rows are too thin for letters only every so-manieth is shown.
    title : str
        Any text, wrapped.
    caption : str
        Smaller, below the title, wrapped.
    value_range : (float, float), optional
        The values at the two ends of the colours; by default the smallest and the largest. What lies beyond has the
        colour of the end, and the colour bar says so by an arrow.
    diverging : bool
        Zero is white, and sign counts. The range is then made symmetric.
    marked : (int, int), optional
        Row and column of a cell to frame.
    number_format : str
        For :meth:`str.format`.

    Raises
    ------
    ValueError
        If matplotlib is missing, shapes and labels do not fit, a number is infinite, or there is none at all.

    Examples
    --------
    >>> with open("heat.png", "wb") as stream:  # doctest: +SKIP
    ...     heat_map(stream, np.eye(2), ["a", "b"], ["c", "d"], title="who is alike")
    """
    require_matplotlib()
    values = _checked(values, rows, columns, value_range, marked)
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: it would look for a screen

    numbers = written(values, number_format)
    width, height, shown = _size(numbers)
    low, high = _limits(values, value_range, diverging)
    captions = caption.splitlines()
    dashed = values < -_WORTH_A_DASH * high if diverging and not shown else np.zeros(values.shape, bool)
    if dashed.any():
        captions.append("cells with a dash are negative")
    families, drawable = find_fonts([title, caption, *rows, *columns])
    rows, columns = ([drawable(one_line(label)) for label in names] for names in (rows, columns))
    title, captions = drawable(title), [drawable(line) for line in captions]
    if BOX in "".join([title, *captions, *rows, *columns]):
        captions.append(f"{BOX} is a character that no installed font has")
    with matplotlib.rc_context({"font.family": families, "text.usetex": False, "font.size": FONT_SIZE}):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # the cells fill the figure; saving adds what stands around them
        colours = colour_map(diverging)
        image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
        _label(axes, rows, columns, width, height)
        if shown:
            _write_numbers(axes, numbers, image)
        if dashed.any():
            _draw_dashes(axes, dashed, image, min(width / values.shape[1], height / values.shape[0]))
        if marked is not None:
            _frame(axes, *marked)
        _colour_bar(figure, image, width, height, bool((values < low).any()), bool((values > high).any()))
        write_head(axes, title, captions, width)
        figure.savefig(stream, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.15, facecolor="white")


def _checked(
    values: Array,
    rows: Sequence[str],
    columns: Sequence[str],
    value_range: tuple[float, float] | None,
    marked: tuple[int, int] | None,
) -> Array:
    """Refuse what is no matrix with its labels."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or 0 in values.shape or values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"heat_map: expected values (R, C) of at least one cell, R rows and C columns, got {values.shape}, "
            f"{len(rows)} and {len(columns)}; are rows and columns the wrong way round? values.T turns the matrix"
        )
    if np.isinf(values).any() or np.isnan(values).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"heat_map: expected finite numbers, got {values[bad]} at {bad}; a colour needs a number")
    if value_range is not None and not value_range[0] < value_range[1]:
        raise ValueError(f"heat_map: value_range must be (low, high) with low < high, got {value_range}")
    if marked is not None and not (0 <= marked[0] < len(rows) and 0 <= marked[1] < len(columns)):
        raise ValueError(f"heat_map: marked must be a row and a column of {values.shape}, counted from 0, got {marked}")
    return values


def written(values: Array, number_format: str) -> list[list[str]]:
    """Write the numbers of a matrix, with a real minus sign, and none before a zero.

    Parameters
    ----------
    values : Array, shape (R, C)
        NaN is written as a word.
    number_format : str
        For :meth:`str.format`.

    Returns
    -------
    list of list of str

    Examples
    --------
    >>> written(np.array([[-0.001, np.nan]]), "{:.2f}")
    [['0.00', 'none']]
    """
    cells = [[NO_NUMBER if value != value else number_format.format(value) for value in row] for row in values.tolist()]
    zeros = {number_format.format(-0.0): number_format.format(0.0)}
    return [[zeros.get(cell, cell).replace("-", "\N{MINUS SIGN}") for cell in row] for row in cells]


def _size(numbers: list[list[str]]) -> tuple[float, float, bool]:
    """Give the width and the height of all cells in inches, and whether the numbers fit into them."""
    longest = max(len(cell) for row in numbers for cell in row)
    needed = (longest + 1) * LETTER
    width = min(BODY_INCHES[0], len(numbers[0]) * max(CELL_INCHES[0], needed))
    height = min(BODY_INCHES[1], len(numbers) * CELL_INCHES[1])
    # a little tighter than wanted is still read
    fits = width / len(numbers[0]) >= 0.8 * needed and height / len(numbers) >= 0.16
    return width, height, fits


def _limits(values: Array, value_range: tuple[float, float] | None, diverging: bool) -> tuple[float, float]:
    """Choose the values at the two ends of the colours."""
    low, high = value_range or (float(np.nanmin(values)), float(np.nanmax(values)))
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    if low == high:  # all equal: any range around it will do
        low, high = low - 0.5, high + 0.5
    return low, high


def colour_map(diverging: bool) -> Any:
    """Give matplotlib's colour map for a matrix, light for low.

    Parameters
    ----------
    diverging : bool
        Whether zero is white and sign counts.

    Returns
    -------
    matplotlib.colors.Colormap

    Examples
    --------
    >>> colour_map(diverging=True).name  # doctest: +SKIP
    'signed'
    """
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    if not diverging:
        return matplotlib.colormaps[SEQUENTIAL].with_extremes(bad=NO_COLOUR)
    signed = LinearSegmentedColormap.from_list("signed", list(zip(_DIVERGING_PLACES, DIVERGING, strict=True)))
    return signed.with_extremes(bad=NO_COLOUR)


# ---------------------------------------------------------------------------------------------------- text


def one_line(label: str, letters: int = LABEL_LETTERS) -> str:
    r"""Make one line of a label, of bounded length.

    Parameters
    ----------
    label : str
    letters : int
        At most; 1 or more.

    Returns
    -------
    str

    Examples
    --------
    >>> one_line("soup\nis my favorite", 10)
    'soup is m…'
    """
    line = " ".join(label.split())
    return line if len(line) <= letters else f"{line[: letters - 1].rstrip()}…"


def find_fonts(texts: Iterable[str]) -> tuple[list[str], Callable[[str], str]]:
    """Find installed fonts for all characters, and give a function that makes a text drawable with them.

    Parameters
    ----------
    texts : iterable of str
        Everything that will be drawn.

    Returns
    -------
    families : list of str
        For matplotlib's ``font.family``.
    drawable : callable
        Gives a text on one line, with :data:`BOX` for each character that no font has.

    Examples
    --------
    >>> families, drawable = find_fonts(["soup"])  # doctest: +SKIP
    >>> families, drawable("soup\U0010fffd")  # doctest: +SKIP
    (['DejaVu Sans'], 'soup□')
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
        """Put boxes for what no font has; what only joins or steers other characters is left out."""
        kept = (c for c in " ".join(text.split()) if unicodedata.category(c) != "Cf")
        return "".join(BOX if ord(c) in missing or not c.isprintable() else c for c in kept)

    return ours, drawable


def _characters(file: str) -> set[int]:
    """List the characters that a font file can draw; none if it cannot be read."""
    from matplotlib import font_manager

    try:
        return set(font_manager.get_font(file).get_charmap())
    except (OSError, RuntimeError):
        return set()


def _label(axes: Any, rows: list[str], columns: list[str], width: float, height: float) -> None:
    """Write the labels of rows and columns, or of every so-manieth where they would overlap."""
    line = 1.35 * FONT_SIZE / 72  # inches that a line of letters takes
    step = max(1, round(np.ceil(line * len(rows) / height)))
    axes.set_yticks(range(0, len(rows), step), rows[::step], parse_math=False)
    cell = width / len(columns)
    long = max(map(len, columns)) * LETTER > 0.95 * cell
    step = max(1, round(np.ceil(line * (1.4 if long else 1.0) / cell)))
    turned = {"rotation": 45, "ha": "right", "va": "top", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(range(0, len(columns), step), columns[::step], parse_math=False, **turned)
    axes.tick_params(length=0 if step == 1 else 2)
    axes.spines[:].set_visible(False)


def write_head(axes: Any, title: str, captions: Sequence[str], width: float) -> None:
    """Write title and captions above the axes, from the left, in lines about as long as the axes are wide.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    title : str
        Wrapped, three lines at most, as each of the captions.
    captions : sequence of str
        Smaller.
    width : float
        Inches.

    Examples
    --------
    >>> write_head(axes, "who is alike", ["cosines"], 6.0)  # doctest: +SKIP
    """
    letters = round(max(width, 5.0) / LETTER)
    small = [line for text in captions for line in textwrap.wrap(text, letters, max_lines=3, placeholder=" …")]
    title_size = FONT_SIZE + 3
    large = textwrap.wrap(title, round(letters * FONT_SIZE / title_size), max_lines=3, placeholder=" …")
    height = 8.0  # points above the cells
    for lines, size, colour in ((small, FONT_SIZE, "0.3"), (large, title_size, "black")):
        for line in reversed(lines):
            place = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (0, height), "textcoords": "offset points"}
            axes.annotate(line, **place, fontsize=size, color=colour, va="bottom", parse_math=False)
            height += 1.4 * size
        height += 3.0 * bool(lines)


# -------------------------------------------------------------------------------------------------- drawing


def contrasting(colours: Array) -> list[str]:
    """Choose black or white for what is written on each colour, whichever is told apart better.

    Parameters
    ----------
    colours : Array, shape (n, 4)
        Red, green, blue, opacity in [0, 1].

    Returns
    -------
    list of str

    Examples
    --------
    >>> contrasting(np.array([[1.0, 1.0, 0.9, 1.0], [0.0, 0.2, 0.4, 1.0]]))
    ['black', 'white']
    """
    # Relative luminance as WCAG 2 defines it; at 0.179 black and white have the same contrast, 4.6 : 1.
    linear = np.where(colours[:, :3] <= 0.04045, colours[:, :3] / 12.92, ((colours[:, :3] + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return ["black" if light > 0.179 else "white" for light in luminance]


def _write_numbers(axes: Any, numbers: list[list[str]], image: Any) -> None:
    """Write each cell's number into it."""
    colours = contrasting(image.to_rgba(image.get_array()).reshape(-1, 4))
    for i, row in enumerate(numbers):
        for j, cell in enumerate(row):
            axes.text(j, i, cell, ha="center", va="center", color=colours[i * len(row) + j], parse_math=False)


def _draw_dashes(axes: Any, dashed: Array, image: Any, cell: float) -> None:
    """Draw a minus sign into cells, as large as half of a cell."""
    colours = np.array(contrasting(image.to_rgba(image.get_array()).reshape(-1, 4))).reshape(dashed.shape)
    i, j = np.nonzero(dashed)
    points = 72 * cell
    axes.scatter(j, i, marker="_", s=(0.5 * points) ** 2, c=colours[dashed], linewidths=min(1.0, 0.12 * points))


def _frame(axes: Any, row: int, column: int) -> None:
    """Draw a line around a cell, black inside white, so that it is seen on any colour."""
    from matplotlib.patches import Rectangle

    for colour, width in (("white", 4.5), ("black", 2.2)):
        place = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=3))


def _colour_bar(figure: Any, image: Any, width: float, height: float, below: bool, above: bool) -> None:
    """Draw the scale to the right of the cells; arrows say that there are values beyond its ends."""
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    tall = max(height, 1.2)  # inches: a scale of one row would have no room for its figures
    place = (1 + 0.2 / width, (1 - tall / height) / 2, 0.14 / width, tall / height)
    bar = figure.colorbar(image, cax=figure.add_axes(place), extend=extend[below, above])
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(length=2)
