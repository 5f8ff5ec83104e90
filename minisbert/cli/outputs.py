"""Vectors to a file or to stdout. A file appears whole or not at all, and replaces another only when told to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from minisbert.model import Array

FORMATS = {".npy": "npy", ".safetensors": "safetensors", ".jsonl": "jsonl", ".ndjson": "jsonl"}


# Legal inside a JSON string, but some readers of lines end a line there.
_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class OutputError(ValueError):
    """A place that cannot be written to as asked."""


@dataclass(frozen=True)
class Target:
    """Where vectors go."""

    file: Path | None  # None is stdout
    kind: str  # npy, safetensors or jsonl
    force: bool

    def check(self) -> None:
        """Refuse early, before minutes of work, what could not be written in the end."""
        if self.file is None:
            return
        if self.file.exists() and not self.file.is_file():
            # a device, a pipe, a folder; renaming our file onto /dev/null would replace it
            raise OutputError(f"{self.file}: not a regular file; leave -o out to write to stdout")
        if self.file.exists() and not self.force:
            raise OutputError(f"{self.file}: exists already; choose another name, or replace it with --force")
        if not self.file.resolve().parent.is_dir():
            raise OutputError(f"{self.file}: there is no folder {self.file.parent}; create it first")

    def write(self, texts: list[str], embeddings: Array) -> None:
        """Write vectors in the format chosen."""
        if self.file is None:
            stdout = sys.stdout.buffer
            _write_lines(stdout, texts, embeddings)
            stdout.flush()  # here, where a closed pipe is expected
            return
        self.check()  # again: the file may have come into being in the meantime
        with written_whole(self.file) as stream:
            _WRITERS[self.kind](stream, texts, embeddings)


@contextmanager
def written_whole(file: Path) -> Iterator[IO[bytes]]:
    """Write beside a file and move it there in one step at the end, so that it is whole or not there."""
    target = file.resolve()  # a link stays a link
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("xb") as stream:
            yield stream
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def choose_target(file: str | None, output_format: str | None, force: bool) -> Target:
    """Find out where to and in which format, by the file's suffix or as said."""
    if file in (None, "-"):
        if output_format not in (None, "jsonl"):
            raise click.UsageError(f"{output_format} cannot go to stdout; name a file with -o.")
        return Target(None, "jsonl", force)
    path = Path(str(file))
    kind = output_format or FORMATS.get(path.suffix.lower())
    if kind is None:
        raise click.UsageError(
            f"{str(file)!r} does not end in {', '.join(FORMATS)}; say what to write with --output-format."
        )
    return Target(path, kind, force)


def _write_npy(stream: IO[bytes], texts: list[str], embeddings: Array) -> None:
    """Write the array alone."""
    import numpy as np

    np.save(stream, embeddings, allow_pickle=False)


def _write_safetensors(stream: IO[bytes], texts: list[str], embeddings: Array) -> None:
    """Write the array as the tensor ``embeddings``."""
    import numpy as np
    from safetensors.numpy import save

    stream.write(save({"embeddings": np.ascontiguousarray(embeddings)}))


def _write_lines(stream: IO[bytes], texts: list[str], embeddings: Array) -> None:
    """Write an object per text, in UTF-8 whatever the terminal speaks."""
    stream.writelines(_lines(texts, embeddings))


def _lines(texts: Iterable[str], embeddings: Array) -> Iterator[bytes]:
    """Give JSON with so many digits that the same float32 (9) or float64 (17) is read back."""
    import json

    # one format string for a whole vector: four times as fast as json.dumps, and half as long
    digits = 9 if embeddings.dtype.itemsize <= 4 else 17
    vector = ", ".join([f"%.{digits}g"] * embeddings.shape[1])
    for text, embedding in zip(texts, embeddings, strict=True):
        quoted = json.dumps(text, ensure_ascii=False).translate(_LINE_ENDS)
        yield f'{{"text": {quoted}, "embedding": [{vector % tuple(embedding.tolist())}]}}\n'.encode()


_WRITERS = {"npy": _write_npy, "safetensors": _write_safetensors, "jsonl": _write_lines}
