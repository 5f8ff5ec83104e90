"""A file that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def written_whole(file: Path) -> Iterator[IO[bytes]]:
    """Write beside a file and move it there in one step at the end, so that it is whole or not there.

    Its bytes have reached the disk before it takes the file's name: after a crash or a power cut there is the old file
    or the new one.

    Parameters
    ----------
    file : Path
        A link stays a link, and what it points to is replaced.

    Yields
    ------
    binary file

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "soup.txt"
    >>> with written_whole(file) as stream:
    ...     _ = stream.write(b"soup")
    >>> file.read_bytes()
    b'soup'
    """
    target = file.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as stream:  # over what a killed process of the same number has left
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
