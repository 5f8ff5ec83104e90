"""A file of vectors written as they come, that appears whole or not at all, and can be resumed after any crash.

Rows are appended to ``NAME.partial`` beside the output. After each block the file is flushed to disk, and only then the
journal, ``NAME.partial.json``, is replaced atomically by one that counts the block. So the journal never promises what
the disk does not hold; anything in the partial file beyond its count is an incomplete block, and is overwritten. At the
end the header gets the final number of rows, and the partial file is renamed to the output. To resume, the texts
already done are read again and compared by their sha256, as are the bytes already written and everything that
determines a vector (:class:`Journal`). ``NAME.partial.lock`` keeps other processes away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from minisbert.cli.outputs import OutputError, Target, body, header

if TYPE_CHECKING:
    from minisbert.model import Array

NOTHING_CUT = (0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Journal:
    """How far a job is: everything that was on disk when this was written."""

    decided_by: Mapping[str, Any]  # everything besides the texts that determines a vector or how it is written
    rows: int
    size: int  # bytes of the partial file, header included
    texts_sha256: str
    body_sha256: str  # without the header, which changes at the end
    cut: Sequence[int]  # OverflowReport.counts

    @classmethod
    def read(cls, file: Path) -> Journal:
        """Read a journal, and raise for one that no run can have written."""
        try:
            journal = cls(**json.loads(file.read_bytes()))
            counts = (journal.rows, journal.size, *journal.cut)
            if not all(type(count) is int and count >= 0 for count in counts):
                raise ValueError("a count is not a whole number")
            if not isinstance(journal.decided_by, dict) or len(journal.cut) != 6 or journal.cut[0] != journal.rows:
                raise ValueError("its counts do not agree")
        except (ValueError, TypeError, RecursionError) as error:
            raise OutputError(
                f"{file}: damaged journal ({error}); the rows of the earlier run cannot be trusted: start over with "
                "--force, without --resume"
            ) from error
        return journal


_NOTHING_DONE = Journal({}, 0, 0, hashlib.sha256().hexdigest(), hashlib.sha256().hexdigest(), NOTHING_CUT)


class Job:
    """One output file in progress; made by :func:`claim`, which holds the lock."""

    def __init__(self, target: Target, file: Path, resume: bool) -> None:
        self.target = target
        self.file = file
        self.partial = file.with_name(f"{file.name}.partial")
        self.journal_file = file.with_name(f"{file.name}.partial.json")
        self.begun = False
        self.kept = self.partial  # what an earlier run left
        self.journal = self._find_earlier(resume)

    @property
    def rows(self) -> int:
        """Rows that are safely on disk."""
        return self.journal.rows

    @property
    def cut(self) -> Sequence[int]:
        """What was truncated in the texts of these rows."""
        return self.journal.cut

    def _find_earlier(self, resume: bool) -> Journal:
        """Find what an earlier run left, and raise if it can neither be resumed nor replaced."""
        if self.target.force and not resume:
            return _NOTHING_DONE
        if not self.journal_file.exists():
            if self.partial.exists():
                raise OutputError(
                    f"{self.partial}: already exists, without a journal to continue from; move it, or overwrite it "
                    "with --force, without --resume"
                )
            return _NOTHING_DONE
        if resume:
            journal = Journal.read(self.journal_file)
            is_moved = not self.partial.exists() and self.file.exists() and self.file.stat().st_size == journal.size
            if journal.rows and is_moved:  # killed between the last two steps
                self.kept = self.file
            return journal if journal.rows and self.kept.exists() else _NOTHING_DONE
        with contextlib.suppress(OutputError):
            if not Journal.read(self.journal_file).rows or not self.partial.exists():
                return _NOTHING_DONE  # killed before the first block, or after the last
        raise OutputError(
            f"{self.partial}: an earlier run was interrupted; continue it with --resume, or start over with --force"
        )

    def begin(self, decided_by: Mapping[str, Any], texts: Iterator[str]) -> None:
        """Start a partial file, or resume the earlier one and skip the texts that it has."""
        self.dtype, self.width = decided_by["dtype"], decided_by["dimensions"]
        self.texts_digest, self.body_digest = hashlib.sha256(), hashlib.sha256()
        if not self.rows:
            self._start(decided_by)
            return
        self._compare(self.journal.decided_by, decided_by)
        self._check_kept(self.journal)
        read = 0
        for text in islice(texts, self.journal.rows):
            self.texts_digest.update(_framed(text))
            read += 1
        if self.texts_digest.hexdigest() != self.journal.texts_sha256:
            fewer = f"the input has only {read:,} texts" if read < self.journal.rows else "the input has changed"
            raise OutputError(
                f"{self.partial}: holds the vectors of {self.journal.rows:,} texts, but {fewer}; give the same input, "
                "or start over with --force, without --resume"
            )
        self.begun = True
        self.kept.replace(self.partial)  # if it is already the output, the last steps are repeated

    def _start(self, decided_by: Mapping[str, Any]) -> None:
        """Write an empty journal, then the partial file: never a partial file without a journal."""
        start = header(self.target.kind, 0, self.width, self.dtype)
        self.partial.unlink(missing_ok=True)  # --force, or never counted
        self.begun = True
        self._record(replace(_NOTHING_DONE, decided_by=decided_by, size=len(start)))
        with _named(self.partial), self.partial.open("xb") as stream:
            stream.write(start)

    def _compare(self, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raise if the new vectors would not belong with the earlier ones."""
        differing = [name for name in {**earlier, **now} if earlier.get(name) != now.get(name)]
        if differing:
            changes = ", ".join(
                f"{name} was {earlier.get(name)!r:.60}, now {now.get(name)!r:.60}" for name in differing
            )
            raise OutputError(
                f"{self.partial}: was started with other settings: {changes}; use the same ones, or start over with "
                "--force, without --resume"
            )

    def _check_kept(self, journal: Journal) -> None:
        """Raise for a partial file that has lost or changed a byte of what the journal counts."""
        found, size = self.body_digest, 0
        with self.kept.open("rb") as stream:
            size = len(stream.read(len(header(self.target.kind, 0, self.width, self.dtype))))
            while chunk := stream.read(max(0, min(1 << 20, journal.size - size))):
                found.update(chunk)
                size += len(chunk)
        if size != journal.size or found.hexdigest() != journal.body_sha256:
            what = f"has {size:,} bytes" if size < journal.size else "has other bytes"
            raise OutputError(
                f"{self.kept}: damaged: {what} where the journal counts {journal.size:,}; start over with --force, "
                "without --resume"
            )

    def add(self, texts: Sequence[str], embeddings: Array, cut: Sequence[int]) -> None:
        """Write more rows, then count them; each is on disk before the next step."""
        journal = self.journal
        for text in texts:
            self.texts_digest.update(_framed(text))
        with _named(self.partial), self.partial.open("r+b") as stream:
            stream.seek(journal.size)  # overwrite what a crash left after the counted rows
            for chunk in body(self.target.kind, texts, embeddings):
                stream.write(chunk)
                self.body_digest.update(chunk)
            size = stream.tell()
            _to_disk(stream)
        digests = self.texts_digest.hexdigest(), self.body_digest.hexdigest()
        self._record(Journal(journal.decided_by, journal.rows + len(texts), size, *digests, list(cut)))

    def finish(self) -> None:
        """Write the final number of rows and rename the file to the output."""
        journal = self.journal
        with _named(self.partial), self.partial.open("r+b") as stream:
            stream.truncate(journal.size)  # the same if no row was left to overwrite it
            stream.write(header(self.target.kind, journal.rows, self.width, self.dtype))
            _to_disk(stream)
        self.target.check_free()  # again: the file may have appeared in the meantime
        self.partial.replace(self.file)
        _folder_to_disk(self.file.parent)
        self.tidy()

    def tidy(self) -> None:
        """Remove partial file and journal, in this order: wherever it stops, nothing useless is left."""
        self.partial.unlink(missing_ok=True)
        self.journal_file.unlink(missing_ok=True)
        self._draft().unlink(missing_ok=True)

    def leave(self) -> None:
        """After an error: keep what is worth resuming and say how, or remove everything."""
        if self.begun and self.rows:
            click.echo(
                f"{self.rows:,} rows are saved in {self.partial}; to continue, run the same command with --resume",
                err=True,
            )
        elif self.begun:
            self.tidy()

    def _record(self, journal: Journal) -> None:
        """Replace the journal atomically."""
        draft = self._draft()
        with _named(draft), draft.open("wb") as stream:
            stream.write(json.dumps(asdict(journal), indent=1).encode())
            _to_disk(stream)
        draft.replace(self.journal_file)
        self.journal = journal

    def _draft(self) -> Path:
        """Where the next journal is written before it replaces the current one."""
        return self.journal_file.with_name(f"{self.journal_file.name}.new")


@contextmanager
def claim(target: Target, resume: bool) -> Iterator[Job]:
    """Lock an output file while a job writes it; after an error, clean up or say what is kept."""
    from filelock import FileLock, Timeout

    target.check_place()
    file = Path(str(target.file)).resolve()  # keeps links
    lock_file = file.with_name(f"{file.name}.partial.lock")
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(f"{target.file}: another process is writing it ({lock_file} is locked)") from None
    try:
        job = Job(target, file, resume)
        if job.kept != file:
            target.check_free()
        try:
            yield job
        except BaseException:  # Ctrl-C too
            job.leave()
            raise
    finally:
        with contextlib.suppress(OSError):  # while it is held, so that no other process's lock is removed
            lock_file.unlink()
        lock.release()


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Add the file name to disk errors, a full disk above all."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(file)) from error


def _to_disk(stream: IO[bytes]) -> None:
    """Wait until the bytes are on disk."""
    stream.flush()
    os.fsync(stream.fileno())


def _folder_to_disk(folder: Path) -> None:
    """Wait until a rename is on disk, where the system supports it."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some file systems cannot; the file itself is on disk
            os.fsync(opened)
        os.close(opened)


def _framed(text: str) -> bytes:
    """Prefix a text with its length, so that no two lists of texts give the same bytes."""
    content = text.encode("utf-8", "surrogatepass")
    return len(content).to_bytes(8, "little") + content
