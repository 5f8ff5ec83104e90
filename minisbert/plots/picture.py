"""A PNG in memory: a notebook shows it, ``save`` writes it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minisbert.files import written_whole
from minisbert.plots.style import DPI

SCREEN_DPI = 110
"""Screen dots per inch of a picture: its letters are then about as large as a notebook's."""


@dataclass(frozen=True)
class Picture:
    """A PNG that Jupyter shows as a picture."""

    png: bytes = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the PNG's header."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The PNG for Jupyter, and its width: an inch of every picture takes the same room on the screen."""
        return self.png, {"width": round(self.size[0] * SCREEN_DPI / DPI)}

    def save(self, file: str | Path) -> None:
        """Write the PNG to a file, whole or not at all."""
        with written_whole(Path(file)) as stream:
            stream.write(self.png)


def picture(draw: Callable[..., None], *args: Any, **kwargs: Any) -> Picture:
    """Draw into memory.

    Parameters
    ----------
    draw : callable
        Takes a binary file first, as :func:`~minisbert.plots.heat_map` does.
    *args, **kwargs
        Its other arguments.

    Examples
    --------
    >>> picture(lambda stream, text: stream.write(text), b"no PNG, but bytes").png
    b'no PNG, but bytes'
    """
    stream = io.BytesIO()
    draw(stream, *args, **kwargs)
    return Picture(stream.getvalue())
