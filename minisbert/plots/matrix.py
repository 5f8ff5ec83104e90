"""A heat map of how similar texts are to each other.

Rows carry the texts; columns too if they are short, otherwise numbers, so that no text has to be read sideways. Darker
is more similar.

Letters: ``B`` texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

import numpy as np

from minisbert.model import Array
from minisbert.plots.heat import draw_cells
from minisbert.plots.style import LABEL_LETTERS, amount_map, one_line

SHORT_LETTERS = 7  # texts up to this length stand over their column
_HARDLY_NEGATIVE = -0.2


def similarity_matrix(stream: IO[bytes], values: Array, texts: Sequence[str], *, title: str, caption: str = "") -> None:
    """Draw how similar texts are to each other.

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
    >>> from minisbert.plots.picture import picture
    >>> picture(similarity_matrix, np.array([[1.0, 0.3], [0.3, 1.0]]), ["soup", "tea"], title="similar?")
    Picture()
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size or values.shape != (len(texts), len(texts)):
        raise ValueError(
            f"similarity_matrix: expected values (B, B) of B texts, at least one, got {values.shape} and {len(texts)} "
            "texts; to compare texts with other texts, use heat_map"
        )
    if not np.isfinite(values).all():
        i, j = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(
            f"similarity_matrix: expected finite numbers, got {values[i, j]} at ({i}, {j}); a zero vector?"
        )
    low, high = float(values.min()), float(values.max())
    if low >= -1.001 and high <= 1.001:  # cosines, up to rounding
        low, high = (low if low < _HARDLY_NEGATIVE else 0.0), 1.0
    elif low == high:  # all equal: any range around it
        low, high = low - 0.5, high + 0.5
    draw_cells(stream, values, _names(texts), (title, caption), limits=(low, high), colours=amount_map)


def _names(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Labels of rows and columns: the texts, or numbered texts and their numbers."""
    short = [one_line(text, SHORT_LETTERS + 1) for text in texts]
    if max(map(len, short)) <= SHORT_LETTERS:
        return list(texts), list(texts)
    numbers = [str(number) for number in range(1, len(texts) + 1)]
    return [
        f"{one_line(text, LABEL_LETTERS - 6)} · {number}" for text, number in zip(texts, numbers, strict=True)
    ], numbers
