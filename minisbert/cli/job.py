"""A file of vectors that appears whole or not at all, and whose making can be continued after any crash.

Each block of vectors is a file of its own in the hidden folder ``.NAME.parts`` beside the output, together with its
texts; like every file here it is there whole or not at all. At the end the parts are joined, the output takes its name,
and the folder goes. To continue, the parts' texts are compared with the input, and ``job.json``, which has what
determines a vector, with the present options; a finished file is compared as far as it records them.
``.NAME.parts.lock`` keeps other processes away.
"""

from __future__ import annotations

import glob
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert.cli.outputs import OutputError, Target, locked
from minisbert.cli.vectors import INPUT, add_rows, recorded, write_vectors
from minisbert.files import written_whole
from minisbert.model import Array

NOTHING_CUT = (0, 0, 0, 0, 0, 0)
Rows = Sequence[Sequence[Any]]  # a text each, and perhaps its id
START_OVER = "start over with --force, without --resume"


class Job:
    """One output file in progress; made by :func:`claim`, which holds the lock."""

    def __init__(self, target: Target, file: Path, resume: bool) -> None:
        self.target, self.file = target, file
        self.folder = file.with_name(f".{file.name}.parts")
        self.manifest = self.folder / "job.json"
        self.parts = sorted(self.folder.glob("*.npz"))
        self.rows, self.hash = 0, sha256()  # of the finished parts
        self.cut: Sequence[int] = NOTHING_CUT  # of the finished parts: their number, and OverflowReport.counts
        self.begun = False
        self.earlier: dict[str, Any] = {}  # settings of the run that is continued
        self.replaces = target.force
        if resume and self.parts and self.manifest.exists():  # without it the parts were being removed
            try:
                earlier = json.loads(self.manifest.read_bytes())
                self.earlier = earlier["settings"]
                self.replaces |= earlier["replaces"]  # a run that was to replace a file goes on to do so
            except (ValueError, KeyError, TypeError) as error:
                raise OutputError(f"{self.manifest}: damaged: {error}; {START_OVER}") from None
        elif not target.force and not resume:
            target.check_free()
            if self.parts:
                said = "continue it with --resume, or start over with --force"
                raise OutputError(f"{target.file}: an earlier run was interrupted; {said}")
        # what a run finds, it or an earlier one has made, unless it is there to be replaced
        self.is_complete = resume and file.exists() and not self.replaces

    def check_complete(self, settings: Mapping[str, Any], rows: Iterator[Sequence[Any]]) -> str:
        """Compare the output with what is asked for, and say how far that goes; its parts may be there after a kill."""
        found = recorded(self.file, self.target.kind)
        texts, self.rows = add_rows(self.hash, rows), found.pop("rows")
        asked = {**settings, INPUT: self.hash.hexdigest()}
        changes = differences(found, {name: asked.get(name) for name in found})
        if texts != self.rows:
            changes = f"it has {self.rows:,} vectors, but the input has {texts:,} texts"
        if changes:
            raise OutputError(
                f"{self.target.file}: already exists, of other texts or settings: {changes}; choose another name, or "
                "overwrite it with --force"
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        compared = "" if "model" in found else f"; only {' and '.join(found)} are recorded in it and were compared"
        return f"{self.rows:,} vectors{compared}"

    def begin(self, settings: Mapping[str, Any], rows: Iterator[Sequence[Any]]) -> None:
        """Start, or compare the finished parts with the input and skip what they have."""
        self.settings = settings
        if not self.earlier:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            self.begun, self.parts = True, []
            with written_whole(self.manifest) as stream:
                stream.write(json.dumps({"settings": dict(settings), "replaces": self.replaces}, indent=1).encode())
            return
        if changes := differences(self.earlier, settings):
            raise OutputError(
                f"{self.target.file}: was started with other settings: {changes}; use the same ones, or {START_OVER}"
            )
        for part in self.parts:
            done, _, self.cut = read_part(part)
            if int(part.stem) != self.rows or done != [list(row) for row in islice(rows, len(done))]:
                raise OutputError(
                    f"{self.target.file}: the input has changed since the run that is to be continued, or {part.name} "
                    f"does not follow; give the same input, or {START_OVER}"
                )
            self.rows += add_rows(self.hash, done)
        self.begun = True

    def add(self, rows: Rows, vectors: Array, cut: Sequence[int]) -> None:
        """Write a part."""
        part = self.folder / f"{self.rows:015}.npz"
        said = np.frombuffer(json.dumps([list(row) for row in rows]).encode(), np.uint8)
        with written_whole(part) as stream:
            np.savez(stream, rows=said, vectors=vectors, cut=np.array(cut))
        self.parts.append(part)
        self.rows += add_rows(self.hash, rows)

    def finish(self) -> None:
        """Join the parts."""
        if not self.replaces:
            self.target.check_free()  # again: the file may have appeared in the meantime
        with written_whole(self.file) as stream:
            settings = {**self.settings, INPUT: self.hash.hexdigest()}
            write_vectors(
                stream, self.target.kind, lambda: (read_part(part)[:2] for part in self.parts), self.rows, settings
            )
        shutil.rmtree(self.folder)

    def leave(self) -> None:
        """After an error: keep what is worth continuing and say how, or remove everything."""
        if self.begun and self.rows:
            click.echo(
                f"{self.rows:,} rows are saved in {self.folder}; to continue, run the same command with --resume",
                err=True,
            )
        elif self.begun:
            shutil.rmtree(self.folder, ignore_errors=True)


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say which settings are others than those of an earlier run."""
    names = [name for name in {**earlier, **now} if earlier.get(name) != now.get(name)]
    return ", ".join(f"{name} was {earlier.get(name)!r:.60}, now {now.get(name)!r:.60}" for name in names)


def read_part(part: Path) -> tuple[list[list[Any]], Array, tuple[int, ...]]:
    """The rows, vectors and counts of a part."""
    try:
        with part.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            rows, vectors, cut = json.loads(found["rows"].tobytes()), found["vectors"], found["cut"].tolist()
        if len(rows) != len(vectors):
            raise ValueError("its sizes do not agree")
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise OutputError(f"{part}: damaged: {error}; {START_OVER}") from None
    return rows, vectors, tuple(cut)


@contextmanager
def claim(target: Target, resume: bool) -> Iterator[Job]:
    """Lock an output file while a job writes it; after an error, clean up or say what is kept."""
    target.check_place()
    file = Path(str(target.file)).resolve()  # keeps links
    with locked(file.with_name(f".{file.name}.parts.lock"), f"{target.file}: another process is writing it"):
        for killed in file.parent.glob(f".{glob.escape(file.name)}.*.unfinished"):
            killed.unlink()  # while its parts were joined
        job = Job(target, file, resume)
        try:
            yield job
        except BaseException:  # Ctrl-C too
            job.leave()
            raise
