"""A matrix as a picture: a heat map that can be read in black and white, by colour-blind readers, in any script.

A cell has a size in inches and everything else is arranged around the cells, so that numbers and labels are as large
for 30 rows as for 3; only past a bound do cells shrink. Where sign is not written in the cells, negative ones carry a
dash. Next file: ``matrix.py``, the same for texts beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

from minisbert.model import Array
from minisbert.plots.style import DPI, FONT_SIZE, LETTER, colour_bar, colour_map, contrasting, inches, page, written

BODY_INCHES = (10.0, 8.5)  # all cells together are at most so wide and high
CELL_INCHES = (0.45, 0.3)  # one cell, unless numbers need more or the bound less
_ARROWS = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
_WORTH_A_DASH = 0.02  # of the scale: below that a negative number is hardly one


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
    values = _checked(values, rows, columns, value_range, marked)
    draw_cells(
        stream,
        values,
        (rows, columns),
        (title, caption),
        limits=_limits(values, value_range, diverging),
        colours=lambda: colour_map(diverging),
        is_signed=diverging,
        marked=marked,
        number_format=number_format,
    )


def draw_cells(
    stream: IO[bytes],
    values: Array,
    names: tuple[Sequence[str], Sequence[str]],
    head: tuple[str, str],
    *,
    limits: tuple[float, float],
    colours: Callable[[], Any],
    is_signed: bool = False,
    marked: tuple[int, int] | None = None,
    number_format: str = "{:.2f}",
) -> None:
    """Draw a matrix that has been checked, in given colours.

    Parameters
    ----------
    stream : binary file
        Gets a PNG.
    values : Array, shape (R, C)
    names : (sequence of str, sequence of str), of lengths R and C
    head : (str, str)
        Title and caption.
    limits : (float, float)
        The values at the two ends of the colours.
    colours : callable
        Gives matplotlib's colour map, once matplotlib is known to be there.
    is_signed : bool
        Negative cells have a dash where no number is written.
    marked, number_format
        As in :func:`heat_map`.

    Examples
    --------
    >>> with open("cells.png", "wb") as stream:  # doctest: +SKIP
    ...     draw_cells(stream, np.eye(1), (["a"], ["b"]), ("title", ""), limits=(0.0, 1.0), colours=amount_map)
    """
    numbers, (low, high) = written(values, number_format), limits
    width, height, shown = _size(numbers)
    dashed = values < -_WORTH_A_DASH * high if is_signed and not shown else np.zeros(values.shape, bool)
    with page(*head, [*names[0], *names[1]]) as paper:
        from matplotlib.figure import Figure  # not pyplot: it would look for a screen

        if dashed.any():
            paper.captions.append("cells with a dash are negative")
        figure = Figure(figsize=(width, height), dpi=DPI)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # the cells fill the figure; saving adds what stands around them
        image = axes.imshow(values, cmap=colours(), vmin=low, vmax=high, aspect="auto", interpolation="nearest")
        rows, columns = ([paper.label(label) for label in labels] for labels in names)
        _label(axes, rows, columns, width, height)
        if shown:
            _write_numbers(axes, numbers, image)
        if dashed.any():
            _draw_dashes(axes, dashed, image, min(width / values.shape[1], height / values.shape[0]))
        if marked is not None:
            _frame(axes, *marked)
        arrows = _ARROWS[bool((values < low).any()), bool((values > high).any())]
        colour_bar(figure, image, width, height, extend=arrows)
        paper.save(stream, figure, axes, width)


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
            f"{len(rows)} and {len(columns)}; are rows and columns swapped? values.T transposes the matrix"
        )
    if np.isinf(values).any() or np.isnan(values).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(
            f"heat_map: expected finite numbers, got {values[bad]} at {bad}; a NaN or infinity has no colour"
        )
    if value_range is not None and not value_range[0] < value_range[1]:
        raise ValueError(f"heat_map: value_range must be (low, high) with low < high, got {value_range}")
    if marked is not None and not (0 <= marked[0] < len(rows) and 0 <= marked[1] < len(columns)):
        raise ValueError(f"heat_map: marked must be a row and a column of {values.shape}, counted from 0, got {marked}")
    return values


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


def _label(axes: Any, rows: list[str], columns: list[str], width: float, height: float) -> None:
    """Write the labels of rows and columns, or of every so-manieth where they would overlap."""
    line = 1.35 * FONT_SIZE / 72  # inches that a line of letters takes
    step = max(1, round(np.ceil(line * len(rows) / height)))
    axes.set_yticks(range(0, len(rows), step), rows[::step], parse_math=False)
    cell = width / len(columns)
    long = max(map(inches, columns)) > 0.95 * cell
    step = max(1, round(np.ceil(line * (1.4 if long else 1.0) / cell)))
    turned = {"rotation": 45, "ha": "right", "va": "top", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(range(0, len(columns), step), columns[::step], parse_math=False, **turned)
    axes.tick_params(length=0 if step == 1 else 2)
    axes.spines[:].set(color="0.6", linewidth=0.5)  # the lightest cells are white


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
