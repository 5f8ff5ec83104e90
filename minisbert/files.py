"""A file or a folder that appears whole or not at all, and errors of the disk that name it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def named_errors(place: str | Path) -> Iterator[None]:
    """Name the file in errors that know none, such as a full disk's while a stream is written.

    >>> with named_errors("soup.npy"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
        ...
    OSError: [Errno 28] No space left on device: 'soup.npy'
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno not in (None, errno.EPIPE):
            raise OSError(error.errno, error.strerror, str(place)) from error
        raise


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
        with named_errors(file):
            with unfinished.open("wb") as stream:  # overwrites what a killed process of the same number left
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Fill a hidden folder beside ``folder``, which takes its place at the end; an old one is replaced.

    Replacing takes two renames: a process killed between them leaves the old folder, whole, as ``.NAME.replaced``.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "soup"
    >>> with folder_written_whole(folder) as unfinished:
    ...     _ = (unfinished / "ladle.txt").write_text("soup")
    >>> [file.name for file in folder.iterdir()]
    ['ladle.txt']
    """
    target = folder.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    aside = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a killed process of the same number left
    try:
        with named_errors(folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished.mkdir()
            yield unfinished
            for file in unfinished.rglob("*"):
                if file.is_file():
                    with file.open("rb") as stream:
                        os.fsync(stream.fileno())
            if not target.exists():
                unfinished.replace(target)
                return
            shutil.rmtree(aside, ignore_errors=True)
            target.replace(aside)
            try:
                unfinished.replace(target)
            except BaseException:
                aside.replace(target)
                raise
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
