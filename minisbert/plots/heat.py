"""Heat maps of any matrix, of how similar texts are to each other, and of which token attends to which.

All are readable in black and white and in any script.

A cell has a size in inches and everything else is arranged around the cells, so that numbers and labels are as large
for 30 rows as for 3; cells shrink only past a bound. Negative cells without a number carry a dash.
Letters: ``L`` layers, ``H`` heads, ``T`` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from minisbert.model import Array
from minisbert.plots.style import (
    FONT_SIZE,
    LABEL_LETTERS,
    LETTER,
    colour_bar,
    colour_map,
    contrasting,
    finite,
    inches,
    one_line,
    page,
    written,
)

BODY_INCHES = (10.0, 8.5)  # maximum width and height of all cells together
CELL_INCHES = (0.45, 0.3)  # one cell, unless numbers need more or the bound less
SHORT_LETTERS = 7  # of a text that stands over its column, at most
_WORTH_A_DASH = 0.02  # of the scale: smaller negative numbers have no dash
_HARDLY_NEGATIVE = -0.2


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
    >>> from minisbert.plots import picture
    >>> picture(heat_map, np.eye(2), ["soup", "tea"], ["broth", "chai"], title="similarity")
    Picture()
    """
    values = np.asarray(values, np.float64)
    hint = "; are rows and columns swapped?" if values.shape == (len(columns), len(rows)) else ""
    finite(np.where(np.isnan(values), 0.0, values), "heat_map: values", len(rows), len(columns), hint=hint)
    if np.isnan(values).all():
        raise ValueError("heat_map: values: expected at least one number, got NaN alone")
    if value_range is not None and not value_range[0] < value_range[1]:
        raise ValueError(f"heat_map: value_range must be (low, high) with low < high, got {value_range}")
    if marked is not None and not (0 <= marked[0] < len(rows) and 0 <= marked[1] < len(columns)):
        raise ValueError(f"heat_map: marked must be a row and a column of {values.shape}, counted from 0, got {marked}")
    low, high = value_range or (float(np.nanmin(values)), float(np.nanmax(values)))
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    low, high = (low, high) if low < high else (low - 0.5, low + 0.5)
    numbers = written(values, number_format)
    needed = (max(len(cell) for row in numbers for cell in row) + 1) * LETTER  # inches
    width = min(BODY_INCHES[0], len(columns) * max(CELL_INCHES[0], needed))
    height = min(BODY_INCHES[1], len(rows) * CELL_INCHES[1])
    cell_width, cell_height = width / len(columns), height / len(rows)
    has_numbers = cell_width >= 0.8 * needed and cell_height >= 0.16  # slightly tighter is still readable
    dashed = values < -_WORTH_A_DASH * high if diverging and not has_numbers else np.zeros(values.shape, bool)
    with page(title, caption, [*rows, *columns]) as paper:
        from matplotlib.patches import Rectangle

        axes = paper.axes(width, height)
        look: dict[str, Any] = {"cmap": colour_map(diverging), "vmin": low, "vmax": high}
        image = axes.imshow(values, aspect="auto", interpolation="nearest", **look)

        # labels, or every n-th of them where they would overlap
        names = [paper.label(label) for label in rows]
        line = 1.35 * FONT_SIZE / 72  # inches
        step = max(1, math.ceil(line / cell_height))
        axes.set_yticks(range(0, len(rows), step), names[::step], parse_math=False)
        names = [paper.label(label) for label in columns]
        is_long = max(map(inches, names)) > 0.95 * cell_width
        step = max(1, math.ceil(line * (1.4 if is_long else 1.0) / cell_width))
        turned = {"rotation": 45, "ha": "right", "va": "top", "rotation_mode": "anchor"} if is_long else {}
        axes.set_xticks(range(0, len(columns), step), names[::step], parse_math=False, **turned)
        axes.tick_params(length=0 if step == 1 else 2)
        axes.spines[:].set(color="0.6", linewidth=0.5)  # the lightest cells are white

        inks = contrasting(image.to_rgba(image.get_array()))  # (R, C)
        if has_numbers:
            for (i, j), ink in np.ndenumerate(inks):
                axes.text(j, i, numbers[i][j], ha="center", va="center", color=ink, parse_math=False)
        if dashed.any():
            paper.captions.append("cells with a dash are negative")
            i, j = np.nonzero(dashed)
            points = 72 * min(cell_width, cell_height)
            thick = min(1.0, 0.12 * points)
            axes.scatter(j, i, marker="_", c=inks[dashed], s=(0.5 * points) ** 2, linewidths=thick)
        if marked is not None:  # black inside white shows on any colour
            for colour, thick in (("white", 4.5), ("black", 2.2)):
                place = (marked[1] - 0.5, marked[0] - 0.5)
                look = {"edgecolor": colour, "linewidth": thick, "clip_on": False, "zorder": 3}
                axes.add_patch(Rectangle(place, 1, 1, fill=False, **look))
        is_beyond = bool((values < low).any()), bool((values > high).any())
        extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
        colour_bar(image, width, height, extend=extend[is_beyond])
        paper.save(stream, axes, width)


def similarity_matrix(stream: IO[bytes], values: Array, texts: Sequence[str], *, title: str, caption: str = "") -> None:
    """Draw how similar texts are to each other; darker is more similar.

    Rows carry the texts; columns too if they are short, otherwise numbers, so that no text has to be read sideways.

    Parameters
    ----------
    stream : binary file
        Receives a PNG.
    values : Array, shape (B, B)
        Finite; ``(i, j)`` compares text ``i`` with text ``j``. For cosines, numbers in [-1, 1], the colours go from 0
        (from the smallest, if that is below -0.2) to 1; for others from the smallest to the largest.
    texts : sequence of str, length B
        Long ones are cut.
    title, caption : str
        Any text, wrapped; the caption is smaller, below the title.

    Raises
    ------
    ValueError
        If matplotlib is missing, values are not a square of finite numbers, or there are not B texts.

    Examples
    --------
    >>> from minisbert.plots import picture
    >>> picture(similarity_matrix, np.array([[1.0, 0.3], [0.3, 1.0]]), ["soup", "tea"], title="similar?")
    Picture()
    """
    hint = "; to compare texts with other texts, use heat_map"
    values = finite(values, "similarity_matrix: values", len(texts), len(texts), hint=hint)
    low, high = float(values.min()), float(values.max())
    if low >= -1.001 and high <= 1.001:  # cosines, up to rounding
        low, high = (low if low < _HARDLY_NEGATIVE else 0.0), 1.0
    rows = columns = list(texts)
    if any(len(one_line(text, SHORT_LETTERS + 1)) > SHORT_LETTERS for text in texts):
        columns = [str(number) for number in range(1, len(texts) + 1)]
        pairs = zip(texts, columns, strict=True)
        rows = [f"{one_line(text, LABEL_LETTERS - 6)} · {number}" for text, number in pairs]
    limits = (low, high) if low < high else None
    heat_map(stream, values, rows, columns, title=title, caption=caption, value_range=limits)


# ------------------------------------------------------------------------------------------------ attention
#
# Small squares, one per head. White is 0 and the darkest blue is 1, in every picture, so that heads and pictures
# compare. If squares are too small for labels, the tokens are listed once, in the caption.

_ALL_INCHES = 7.8  # of all squares together, at most: with their names about a notebook's width
_SQUARE_INCHES = (0.55, 6.0)  # one square: at least the width of its name
_TOKEN_INCHES = 0.42  # one token of a square, at most
_TOKEN_LETTERS = 16  # longer labels are cut
_LETTER_POINTS = (6.5, FONT_SIZE)  # of token labels
_LINE = 1.25  # line height as a multiple of the letters' size
_GAP, _HEAD = 0.08, 0.2  # inches: between squares, and above one with a name
_MANY_NUMBERS = 600


def attention_heads(stream: IO[bytes], probs: Array, tokens: Sequence[str], *, title: str, caption: str = "") -> None:
    """Draw the attention of one or several heads, of one or several layers: rows are queries, columns keys.

    Parameters
    ----------
    stream : binary file
        Receives a PNG.
    probs : Array, shape (H, T, T) or (L, H, T, T)
        In [0, 1]. Layers and heads are counted from 0, as in the array; a single layer is not named.
    tokens : sequence of str, length T
        Any text; long ones are cut.
    title, caption : str
        Any text, wrapped; the caption is smaller, below the title.

    Raises
    ------
    ValueError
        If matplotlib is missing, for another shape, a number that is no probability, or not T tokens.

    Examples
    --------
    >>> from minisbert.plots import picture
    >>> picture(attention_heads, np.array([[[1.0, 0.0], [0.3, 0.7]]]), ["soup", "tea"], title="one head")
    Picture()
    """
    count, any_heads = len(tokens), (-1, -1) if np.ndim(probs) == 4 else (-1,)
    hint = f" and {count} tokens; one head (T, T) is probs[None]"
    probs = finite(probs, "attention_heads: probs", *any_heads, count, count, hint=hint)
    if probs.min() < 0 or probs.max() > 1.001:
        worst = probs.flat[np.abs(probs - 0.5).argmax()]
        raise ValueError(
            f"attention_heads: expected probabilities, numbers in [0, 1], got {worst:g}; are these scores, before the "
            "softmax?"
        )
    has_layers = probs.ndim == 4 and len(probs) > 1
    heads = probs.reshape(-1, count, count)

    # how the squares are arranged, in inches
    rows = len(probs) if has_layers else math.ceil(len(heads) / 4)
    columns, above = math.ceil(len(heads) / rows), _GAP if has_layers else _HEAD
    share = (_ALL_INCHES - (columns - 1) * _GAP) / columns
    square = max(min(share, _SQUARE_INCHES[1], count * _TOKEN_INCHES), min(share, _SQUARE_INCHES[0]))
    width, height = columns * square + (columns - 1) * _GAP, rows * (square + above)
    points = min(max(72 * square / count / _LINE, _LETTER_POINTS[0]), _LETTER_POINTS[1])
    step = math.ceil(_LINE * points / 72 / (square / count) - 1e-9)  # every step-th token has a label
    has_numbers = square / count >= 5 * LETTER and probs.size <= _MANY_NUMBERS
    with page(title, caption, tokens) as paper:
        from matplotlib.patches import Rectangle

        paper.captions.append("each row is a token that looks, each column one that is looked at")
        if step > 1:
            paper.captions.append("the tokens, from the upper left: " + " · ".join(map(paper.label, tokens)))
        # one pair of axes for all squares, in inches from the upper left: dozens of them would take seconds
        axes = paper.axes(width, height, frameon=False, xticks=[], yticks=[])
        axes.set(xlim=(0.0, width), ylim=(height, 0.0))
        labels = [paper.label(token, _TOKEN_LETTERS) for token in tokens]
        turned = 90 if max(inches(label, points) for label in labels) > 0.95 * square / count else 0
        small: dict[str, Any] = {"fontsize": points, "parse_math": False, "textcoords": "offset points"}
        look = {"cmap": colour_map(False), "vmin": 0.0, "vmax": 1.0, "aspect": "auto", "interpolation": "nearest"}
        for i, head in enumerate(heads):
            row, column = divmod(i, columns)
            left, top = column * (square + _GAP), row * (square + above) + above
            image = axes.imshow(head, extent=(left, left + square, top + square, top), **look)
            axes.add_patch(
                Rectangle((left, top), square, square, fill=False, edgecolor="0.6", linewidth=0.5, clip_on=False)
            )
            centres = square / count * (np.arange(count) + 0.5)  # of rows and columns
            if not has_layers or row == 0:
                axes.text(left + square / 2, top - 0.04, f"head {column if has_layers else i}", ha="center")
            if has_layers and column == columns - 1:
                axes.text(left + square + 0.08, top + square / 2, f"layer {row}", va="center")
            for label, centre in zip(labels[::step], centres[::step], strict=True):
                if column == 0:
                    place = {"xytext": (-3, 0), "ha": "right", "va": "center_baseline"}
                    axes.annotate(label, (left, top + centre), **place, **small)
                if i + columns >= len(heads):  # no square stands below
                    place = {"xytext": (0, -3), "ha": "center", "va": "top"}
                    axes.annotate(label, (left + centre, top + square), **place, rotation=turned, **small)
            if has_numbers:
                for (query, key), ink in np.ndenumerate(contrasting(image.to_rgba(head))):
                    place = {"ha": "center", "va": "center", "color": ink}
                    axes.text(left + centres[key], top + centres[query], f"{head[query, key]:.2f}", **place)
        colour_bar(image, width, height, gap=0.2 + 0.55 * has_layers)  # next to the layers' names
        paper.save(stream, axes, width)
