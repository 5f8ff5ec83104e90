"""Attention as small squares, one per head: which token attends to which.

White is 0 and the darkest blue is 1, in every picture, so that heads and pictures compare. If squares are too
small for labels, the tokens are listed once, in the caption. Letters: ``L`` layers, ``H`` heads, ``T`` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from minisbert.model import Array
from minisbert.plots.style import DPI, FONT_SIZE, LETTER, colour_bar, colour_map, contrasting, finite, inches, page

WIDTH_INCHES = 7.8  # of all squares together, at most: with their names about a notebook's width
SQUARE_INCHES = (0.55, 6.0)  # one square: at least the width of its name
CELL_INCHES = 0.42  # one token of a square, at most
TOKEN_LETTERS = 16  # longer labels are cut
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
    share = (WIDTH_INCHES - (columns - 1) * _GAP) / columns
    square = max(min(share, SQUARE_INCHES[1], count * CELL_INCHES), min(share, SQUARE_INCHES[0]))
    width, height = columns * square + (columns - 1) * _GAP, rows * (square + above)
    points = min(max(72 * square / count / _LINE, _LETTER_POINTS[0]), _LETTER_POINTS[1])
    step = math.ceil(_LINE * points / 72 / (square / count) - 1e-9)  # every step-th token has a label
    has_numbers = square / count >= 5 * LETTER and probs.size <= _MANY_NUMBERS
    with page(title, caption, tokens) as paper:
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        paper.captions.append("each row is a token that looks, each column one that is looked at")
        if step > 1:
            paper.captions.append("the tokens, from the upper left: " + " · ".join(map(paper.label, tokens)))
        # one pair of axes for all squares, in inches from the upper left: dozens of them would take seconds
        figure = Figure(figsize=(width, height), dpi=DPI)
        axes: Any = figure.add_axes((0.0, 0.0, 1.0, 1.0), frameon=False, xticks=[], yticks=[])
        axes.set(xlim=(0.0, width), ylim=(height, 0.0))
        labels = [paper.label(token, TOKEN_LETTERS) for token in tokens]
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
                inks = np.reshape(contrasting(image.to_rgba(head).reshape(-1, 4)), head.shape)
                for (query, key), ink in np.ndenumerate(inks):
                    place = {"ha": "center", "va": "center", "color": ink}
                    axes.text(left + centres[key], top + centres[query], f"{head[query, key]:.2f}", **place)
        colour_bar(figure, image, width, height, gap=0.2 + 0.55 * has_layers)  # next to the layers' names
        paper.save(stream, figure, axes, width)
