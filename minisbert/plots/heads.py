"""Attention as small squares, one per head: which token attends to which.

White is 0 and the darkest blue is the largest probability of all heads, so that squares compare. If squares are too
small for labels, the tokens are listed once, in the caption.

Letters: ``L`` layers, ``H`` heads, ``T`` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from minisbert.model import Array
from minisbert.plots.style import DPI, FONT_SIZE, LETTER, Page, amount_map, colour_bar, contrasting, inches, page

WIDTH_INCHES = 7.8  # of all squares together, at most: with their names about a notebook's width
ALONE_INCHES = 6.0  # one square, at most
CELL_INCHES = 0.42  # one token of a square, at most
TOKEN_LETTERS = 16  # longer labels are cut
_LEAST_INCHES = 0.55  # one square: the width of its name
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
    >>> from minisbert.plots.picture import picture
    >>> picture(attention_heads, np.array([[[1.0, 0.0], [0.3, 0.7]]]), ["soup", "tea"], title="one head")
    Picture()
    """
    probs = _checked(probs, tokens)
    with page(title, caption, tokens) as paper:
        figure, axes, width = _draw(paper, probs, tokens)
        paper.save(stream, figure, axes, width)


def _checked(probs: Array, tokens: Sequence[str]) -> Array:
    """Check that these are the attention probabilities of these tokens."""
    probs = np.asarray(probs, np.float64)
    if probs.ndim not in (3, 4) or not probs.size or probs.shape[-2:] != (len(tokens), len(tokens)):
        raise ValueError(
            f"attention_heads: expected probs (H, T, T) or (L, H, T, T) of T tokens, got {probs.shape} and "
            f"{len(tokens)} tokens; one head (T, T) is probs[None]"
        )
    is_one = (probs >= 0) & (probs <= 1.001)  # False for NaN
    if not is_one.all():
        where = tuple(np.argwhere(~is_one)[0].tolist())
        raise ValueError(
            f"attention_heads: expected probabilities, numbers in [0, 1], got {probs[where]:g} at {where}; "
            "are these scores, before the softmax?"
        )
    return probs


def _draw(paper: Page, probs: Array, tokens: Sequence[str]) -> tuple[Any, Any, float]:
    """A square per head, placed on the page by the grid."""
    from matplotlib.figure import Figure

    if probs.ndim == 4 and len(probs) == 1:
        probs = probs[0]
    grid = _Grid.of(probs)
    paper.captions.append("each row is a token that looks, each column one that is looked at")
    if grid.step > 1:
        paper.captions.append("the tokens, from the upper left: " + " · ".join(map(paper.label, tokens)))
    figure = Figure(figsize=(grid.width, grid.height), dpi=DPI)
    whole = figure.add_axes((0.0, 0.0, 1.0, 1.0), frameon=False, xticks=[], yticks=[])
    labels = [paper.label(token, TOKEN_LETTERS) for token in tokens]
    look = {"cmap": amount_map(), "vmin": 0.0, "vmax": _top(probs), "interpolation": "nearest"}
    for row, column, name, head in grid.squares(probs):
        axes = figure.add_axes(grid.place(row, column), label=name)
        image = axes.imshow(head, aspect="auto", **look)
        axes.spines[:].set(color="0.6", linewidth=0.5)
        if probs.ndim == 3 or row == 0:
            axes.set_title(name.split(", ")[-1], fontsize=FONT_SIZE, pad=3)
        if probs.ndim == 4 and column == grid.columns - 1:
            axes.text(1.0 + 0.08 / grid.square, 0.5, f"layer {row}", transform=axes.transAxes, va="center")
        _label(axes, labels, grid, is_left=column == 0, is_low=grid.is_low(row, column, probs))
        if grid.has_numbers:
            _write_numbers(axes, head, image)
    colour_bar(figure, image, grid.width, grid.height, gap=0.2 + 0.55 * (probs.ndim == 4))  # next to the layers' names
    return figure, whole, grid.width


def _top(probs: Array) -> float:
    """The probability of the darkest blue: a round one near 1."""
    largest = float(probs.max())
    return largest if 0 < largest < 0.9 else 1.0


@dataclass(frozen=True)
class _Grid:
    """How squares are arranged; lengths in inches."""

    rows: int
    columns: int
    square: float  # side of a square
    step: int  # every step-th token has a label
    letter_points: float
    head: float  # above each row
    has_numbers: bool

    @classmethod
    def of(cls, probs: Array) -> _Grid:
        """Choose for these heads."""
        count, heads = probs.shape[-1], probs.shape[-3]
        if probs.ndim == 4:
            rows, columns, head = len(probs), heads, _GAP
        else:
            rows = math.ceil(heads / 4)
            columns, head = math.ceil(heads / rows), _HEAD
        width = (WIDTH_INCHES - (columns - 1) * _GAP) / columns
        square = max(min(width, ALONE_INCHES, count * CELL_INCHES), min(width, _LEAST_INCHES))
        cell = square / count
        least, most = _LETTER_POINTS
        points = min(max(72 * cell / _LINE, least), most)
        step = math.ceil(_LINE * points / 72 / cell - 1e-9)
        has_numbers = cell >= 5 * LETTER and probs.size <= _MANY_NUMBERS
        return cls(rows, columns, square, step, points, head, has_numbers)

    @property
    def width(self) -> float:
        """Of all squares together."""
        return self.columns * self.square + (self.columns - 1) * _GAP

    @property
    def height(self) -> float:
        """Of all squares together, with the names above each row."""
        return self.rows * (self.square + self.head)

    def place(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a square, as fractions of the whole."""
        left, top = column * (self.square + _GAP), row * (self.square + self.head) + self.head
        low = self.height - top - self.square
        return left / self.width, low / self.height, self.square / self.width, self.square / self.height

    def squares(self, probs: Array) -> Iterator[tuple[int, int, str, Array]]:
        """Yield row, column, name and numbers of each square."""
        if probs.ndim == 4:
            for layer, heads in enumerate(probs):
                for head, numbers in enumerate(heads):
                    yield layer, head, f"layer {layer}, head {head}", numbers
        else:
            for head, numbers in enumerate(probs):
                yield *divmod(head, self.columns), f"head {head}", numbers

    def is_low(self, row: int, column: int, probs: Array) -> bool:
        """Whether no square stands below."""
        return row == self.rows - 1 or (probs.ndim == 3 and (row + 1) * self.columns + column >= len(probs))


def _label(axes: Any, labels: list[str], grid: _Grid, *, is_left: bool, is_low: bool) -> None:
    """Write tokens to the left of the leftmost squares and below the lowest ones."""
    look: dict[str, Any] = {"fontsize": grid.letter_points, "parse_math": False}
    turned = max(inches(label, grid.letter_points) for label in labels) > 0.95 * grid.square / len(labels)
    places, shown = range(0, len(labels), grid.step), labels[:: grid.step]
    axes.set_yticks(places if is_left else [], shown if is_left else [], **look)
    axes.set_xticks(places if is_low else [], shown if is_low else [], rotation=90 if turned else 0, **look)
    axes.tick_params(length=0 if grid.step == 1 else 2, pad=2)


def _write_numbers(axes: Any, head: Array, image: Any) -> None:
    """Write each probability into its cell."""
    colours = contrasting(image.to_rgba(head).reshape(-1, 4))
    for place, number in enumerate(head.reshape(-1).tolist()):
        i, j = divmod(place, len(head))
        axes.text(j, i, f"{number:.2f}", ha="center", va="center", color=colours[place])
