"""A heat map, readable in black and white, by colour-blind readers, in any script.

A cell has a size in inches and everything else is arranged around the cells, so that numbers and labels are as large
for 30 rows as for 3; cells shrink only past a bound. Negative cells without a number carry a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

from minisbert.model import Array
from minisbert.plots.style import DPI, FONT_SIZE, LETTER, colour_bar, colour_map, contrasting, inches, page, written

BODY_INCHES = (10.0, 8.5)  # maximum width and height of all cells together
CELL_INCHES = (0.45, 0.3)  # one cell, unless numbers need more or the bound less
_ARROWS = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
_WORTH_A_DASH = 0.02  # of the scale: smaller negative numbers have no dash


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
    """Draw a matrix as coloured cells, with its numbers where they fit.

    Parameters
    ----------
    stream : binary file
        Receives a PNG.
    values : Array, shape (R, C)
        At least one finite number. NaN is a grey cell with the word "none".
    rows, columns : sequence of str, of lengths R and C
        Labels, any text; long ones are cut, and only every n-th is shown if rows are too thin.
    title, caption : str
        Any text, wrapped; the caption is smaller, below the title.
    value_range : (float, float), optional
        Values at the two ends of the colours, by default the smallest and the largest. Values beyond have the end's
        colour, and the colour bar an arrow.
    diverging : bool
        Zero is white, and the range symmetric.
    marked : (int, int), optional
        Row and column of a cell to frame.
    number_format : str
        For :meth:`str.format`.

    Raises
    ------
    ValueError
        If matplotlib is missing, shapes and labels do not fit, a number is infinite, or there is none.

    Examples
    --------
    >>> from minisbert.plots.picture import picture
    >>> picture(heat_map, np.eye(2), ["soup", "tea"], ["broth", "chai"], title="similarity")
    Picture()
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
    """Draw a checked matrix ``(R, C)``, its row and column names, title and caption (``head``) in given colours.

    ``colours()`` makes matplotlib's colour map once matplotlib is known to be there; ``limits`` are the values at its
    ends.
    """
    numbers, (low, high) = written(values, number_format), limits
    width, height, shown = _size(numbers)
    dashed = values < -_WORTH_A_DASH * high if is_signed and not shown else np.zeros(values.shape, bool)
    with page(*head, [*names[0], *names[1]]) as paper:
        from matplotlib.figure import Figure  # not pyplot, which looks for a screen

        if dashed.any():
            paper.captions.append("cells with a dash are negative")
        figure = Figure(figsize=(width, height), dpi=DPI)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # the cells fill the figure; saving adds what is around them
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
    """Check a matrix and its labels."""
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
    """Width and height of all cells in inches, and whether the numbers fit into them."""
    longest = max(len(cell) for row in numbers for cell in row)
    needed = (longest + 1) * LETTER
    width = min(BODY_INCHES[0], len(numbers[0]) * max(CELL_INCHES[0], needed))
    height = min(BODY_INCHES[1], len(numbers) * CELL_INCHES[1])
    # slightly tighter is still readable
    fits = width / len(numbers[0]) >= 0.8 * needed and height / len(numbers) >= 0.16
    return width, height, fits


def _limits(values: Array, value_range: tuple[float, float] | None, diverging: bool) -> tuple[float, float]:
    """The values at the two ends of the colours."""
    low, high = value_range or (float(np.nanmin(values)), float(np.nanmax(values)))
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    if low == high:  # all equal: any range around it
        low, high = low - 0.5, high + 0.5
    return low, high


def _label(axes: Any, rows: list[str], columns: list[str], width: float, height: float) -> None:
    """Write the labels of rows and columns, or of every n-th where they would overlap."""
    line = 1.35 * FONT_SIZE / 72  # line height in inches
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
    """Draw a minus sign half as wide as the cell."""
    colours = np.array(contrasting(image.to_rgba(image.get_array()).reshape(-1, 4))).reshape(dashed.shape)
    i, j = np.nonzero(dashed)
    points = 72 * cell
    axes.scatter(j, i, marker="_", s=(0.5 * points) ** 2, c=colours[dashed], linewidths=min(1.0, 0.12 * points))


def _frame(axes: Any, row: int, column: int) -> None:
    """Frame a cell, black inside white, so that it shows on any colour."""
    from matplotlib.patches import Rectangle

    for colour, width in (("white", 4.5), ("black", 2.2)):
        place = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=3))
