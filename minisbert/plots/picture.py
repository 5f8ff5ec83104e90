"""A picture that is kept instead of written: a notebook shows it, a file may get it.

Left out on purpose: every other format than PNG. Next file: ``__init__.py``, the list of all pictures.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minisbert.files import written_whole
from minisbert.plots.style import DPI

SCREEN_DPI = 110
"""Dots of a screen for an inch of a picture: its letters are then about as large as a notebook's."""


@dataclass(frozen=True)
class Picture:
    """A PNG that Jupyter shows as a picture."""

    png: bytes = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as the head of the PNG has them."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Give Jupyter the PNG and how wide to show it: an inch of each picture takes as much of the screen."""
        return self.png, {"width": round(self.size[0] * SCREEN_DPI / DPI)}

    def save(self, file: str | Path) -> None:
        """Write the PNG to a file, which is whole or not there.

        Parameters
        ----------
        file : str or Path
            What was there is replaced.

        Examples
        --------
        >>> picture(heat_map, values, rows, columns, title="who is alike").save("heat.png")  # doctest: +SKIP
        """
        with written_whole(Path(file)) as stream:
            stream.write(self.png)


def picture(draw: Callable[..., None], *args: Any, **kwargs: Any) -> Picture:
    """Draw into memory.

    Parameters
    ----------
    draw : callable
        Takes a binary file first, as :func:`~minisbert.plots.heat_map` does.
    *args, **kwargs
        What else it takes.

    Returns
    -------
    Picture

    Raises
    ------
    ValueError
        What ``draw`` refuses.

    Examples
    --------
    >>> picture(lambda stream, text: stream.write(text), b"no PNG, but bytes").png
    b'no PNG, but bytes'
    """
    stream = io.BytesIO()
    draw(stream, *args, **kwargs)
    return Picture(stream.getvalue())
