"""A file that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def written_whole(file: Path) -> Iterator[IO[bytes]]:
    """Write to a temporary file and rename it at the end, so that the file appears whole or not at all.

    Its bytes reach the disk before it takes the name: after a crash or power cut the old file is there, or the new one.
    A link stays a link, and its target is replaced.

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
        with unfinished.open("wb") as stream:  # overwrites what a killed process of the same number left
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
