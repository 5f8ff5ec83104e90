"""Mark a class: ``python -m minisbert.course.grade SUBMISSIONS -o marks.csv``.

SUBMISSIONS has a folder or a zip file for each student, with some of the ten notebooks and perhaps ``my_bert.py``. What
a notebook prints is not looked at. Its answers are run again (:mod:`minisbert.course.answers`), in a process of their
own, with the cases that the notebook shows and with others; what they return is judged here, where no student's code
runs. A right answer counts as many points as its exercise has levels, 1 to 3. What cannot be read becomes a note in the
student's row, and the class goes on.

A process of its own is no jail: whoever does not trust the code runs all of this in a container without network.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert.course.answers import Cell, results
from minisbert.course.exercises import Exercise, Verdict, exercises, judge
from minisbert.encoder import SentenceEncoder
from minisbert.files import written_whole
from minisbert.proof.ladder import climb
from minisbert.proof.rungs import RIGHT
from minisbert.proof.student import Outcome

__all__ = ["Mark", "Row", "grade"]

LARGEST = 2**26  # bytes of one file
HIDDEN = 5  # cases that are drawn
BERT = "my_bert"
TOGETHER = 4  # points for a BERT that is right as a whole


@dataclass(frozen=True)
class Mark:
    """One exercise of a student: "right", "wrong", "to do", or "missing" if its file is not there."""

    exercise: str  # such as "1 COSINES" or "my_bert softmax"
    state: str
    points: int
    of: int
    says: str = ""


@dataclass(frozen=True)
class Row:
    """A student; ``notes`` say what is wrong with answers and files."""

    student: str
    points: int
    of: int
    marks: tuple[Mark, ...]
    notes: tuple[str, ...]


@dataclass
class _Submission:
    student: str
    parts: dict[Any, tuple[str, Any]] = field(default_factory=dict)  # the number of a notebook, or BERT: file, content
    notes: list[str] = field(default_factory=list)


def grade(
    submissions: Path, *, seed: int = 0, seconds: float = 10.0, encoder: SentenceEncoder | None = None
) -> Iterator[Row]:
    """Mark a class, and give one row a student, by name.

    Parameters
    ----------
    submissions : Path
        A folder with a folder or a zip file for each student.
    seed : int
        Draws the hidden cases; the same ones for all students.
    seconds : float
        After which a call is stopped.
    encoder : SentenceEncoder, optional
        For ``my_bert.py``, in float64; by default all-MiniLM-L6-v2.

    Yields
    ------
    Row
        Everything that at least one student handed in is asked of all.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "anna").mkdir()
    ...     _ = (Path(folder) / "anna" / "notebook_1.ipynb").write_text("")
    ...     [row] = grade(Path(folder))
    >>> row.points, row.notes
    (0, ('notebook_1.ipynb: is empty', 'nothing to mark'))
    """
    handed_in = [_read(place) for place in sorted(submissions.iterdir()) if _is_submission(place)]
    asked = {part for one in handed_in for part in one.parts}
    if BERT in asked and encoder is None:
        encoder = SentenceEncoder(dtype="float64")
    for one in handed_in:
        given = {part: content for part, (_, content) in one.parts.items()}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(_marks, part, given.get(part), seed, seconds) for part in sorted(asked - {BERT})]
            marks = [mark for job in jobs for mark in job.result()]
        if BERT in asked:
            marks += _marks_of_bert(given.get(BERT), encoder, seed, seconds)
        notes = [*one.notes, *(f"{mark.exercise}: {mark.says}" for mark in marks if mark.says)]
        if not given:
            notes.append("nothing to mark")
        elif all(mark.state in ("to do", "missing") for mark in marks):
            notes.append("no exercise is filled in")
        points, of = sum(mark.points for mark in marks), sum(mark.of for mark in marks)
        yield Row(one.student, points, of, tuple(marks), tuple(notes))


# ----------------------------------------------------------------------------------------------------------- marks


def _mark(exercise: str, of: int, state: str = "missing", says: str = "") -> Mark:
    return Mark(exercise, state, of if state == "right" else 0, of, says if state == "wrong" else "")


def _marks(number: int, cells: Sequence[Cell] | None, seed: int, seconds: float) -> list[Mark]:
    """One mark for each exercise of a notebook."""
    asked, rng = exercises(number), np.random.default_rng([seed, number])
    if cells is None:
        return [_mark(f"{number} {name}", one.level) for name, one in asked.items()]
    hidden = {name: [one.draw(rng) for _ in range(HIDDEN)] if one.draw else [] for name, one in asked.items()}
    found = results(cells, number, {name: [*one.cases, *hidden[name]] for name, one in asked.items()}, seconds)
    marks = []
    for name, one in asked.items():
        verdict = _verdict(one, hidden[name], found[name])
        marks.append(_mark(f"{number} {name}", one.level, verdict.state, verdict.message.partition(": ")[2]))
    return marks


def _verdict(exercise: Exercise, hidden: Sequence[tuple[Any, ...]], outcomes: Sequence[Outcome]) -> Verdict:
    """First as in the notebook, on the cases shown there, then on all."""
    verdict = judge(exercise, outcomes[: len(exercise.cases)])
    if verdict.state == "right" and hidden:
        verdict = judge(replace(exercise, cases=[*exercise.cases, *hidden]), outcomes)
        if verdict.state != "right":
            says = verdict.message.replace(": ", ": right on the notebook's own cases, not on others: ", 1)
            return Verdict("wrong", says)
    return verdict


def _marks_of_bert(source: bytes | None, encoder: SentenceEncoder | None, seed: int, seconds: float) -> list[Mark]:
    """One point for each function of my_bert.py, and more for all of them together."""
    found: dict[str, Any] = dict.fromkeys([*RIGHT, "together"], ())  # state, and what is said
    if source is not None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "my_bert.py"
            file.write_bytes(source)
            report = climb(file, encoder, seed=seed + 1, seconds=seconds)
        if report.problem:
            found = dict.fromkeys(RIGHT, ("wrong", "")) | {"together": ("wrong", report.problem)}
        for rung in report.rungs:
            found[rung.name] = rung.state, f"{rung.says} ({rung.line})" if rung.line else rung.says
        for both in reversed(report.together):  # of two that are wrong, what is said of the first
            if both.state == "wrong" or not found["together"]:
                found["together"] = both.state, both.says
        found["together"] = found["together"] or ("to do",)
    return [_mark(f"{BERT} {name}", TOGETHER if name == "together" else 1, *what) for name, what in found.items()]


# --------------------------------------------------------------------------------------------------- what was handed in


def _is_submission(place: Path) -> bool:
    """Folders, zip files, and what looks like a student's; not marks.csv."""
    wanted = place.is_dir() or place.is_symlink() or place.suffix.lower() in (".zip", ".ipynb", ".py")
    return wanted and not place.name.startswith((".", "__"))


def _read(place: Path) -> _Submission:
    """A student's notebooks and my_bert.py; what is wrong with a file becomes a note."""
    one = _Submission(place.stem if place.suffix.lower() == ".zip" else place.name)
    for name, content in sorted(_files(place), key=lambda file: (len(file[0]), file[0])):
        try:
            if isinstance(content, str):
                raise ValueError(content)
            if not content.strip():
                raise ValueError("is empty")
            part, read = (BERT, content) if name.lower().endswith(".py") else _notebook(name, content)
            if part in one.parts:
                raise ValueError(f"is left out, since {one.parts[part][0]} is there as well")
            one.parts[part] = name, read
        except ValueError as problem:
            one.notes.append(f"{name}: {problem}")
    return one


def _files(place: Path) -> Iterator[tuple[str, bytes | str]]:
    """Name and content of each file that may be marked, or a sentence about it."""
    if place.is_dir() and not place.is_symlink():
        for folder, folders, names in os.walk(place):
            folders[:] = [name for name in folders if not name.startswith((".", "__"))]
            for name in names:
                file = Path(folder) / name
                if name.lower().endswith(".zip"):
                    yield from _zipped(file)
                elif _is_wanted(name):
                    yield file.relative_to(place).as_posix(), _content(file)
    elif place.suffix.lower() == ".zip":
        yield from _zipped(place)
    else:
        yield place.name, "is no folder; every student has a folder or a zip file"


def _is_wanted(name: str) -> bool:
    return name.lower().endswith((".ipynb", f"{BERT}.py")) and not name.startswith(".")


def _content(file: Path) -> bytes | str:
    """What is in a file, or what is wrong with it."""
    try:
        about = file.lstat()
        if stat.S_ISLNK(about.st_mode):
            return "is a link, which is not followed"
        if not stat.S_ISREG(about.st_mode):
            return "is no regular file"
        return file.read_bytes() if about.st_size <= LARGEST else _too_large(about.st_size)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _zipped(file: Path) -> Iterator[tuple[str, bytes | str]]:
    """The same of a zip file; nothing is written to disk."""
    content = _content(file)
    if isinstance(content, str):
        yield file.name, content
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = [(Path(info.filename).parts, info) for info in archive.infolist()]
            wanted = [info for names, info in parts if names and _is_wanted(names[-1]) and names[0] != "__MACOSX"]
            for info in wanted[:100]:
                if info.file_size > LARGEST:
                    yield info.filename, _too_large(info.file_size)
                    continue
                with archive.open(info) as stream:
                    yield info.filename, stream.read(LARGEST)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, ValueError) as error:
        yield file.name, f"cannot be unpacked: {error}"


def _too_large(size: int) -> str:
    return f"has {size / 2**20:.0f} MB, and {LARGEST >> 20} are read; clear the outputs of its cells"


def _notebook(name: str, content: bytes) -> tuple[Any, Any]:
    """Which notebook it is: the one whose exercises it checks, or that its name says; and its code cells."""
    try:
        notebook = json.loads(content)
        metadata = notebook.get("metadata", {})
        language = metadata.get("kernelspec", {}).get("language") or metadata.get("language_info", {}).get("name")
        cells = []
        for number, cell in enumerate(notebook["cells"], 1):
            if cell["cell_type"] == "code":
                grade_id = cell.get("metadata", {}).get("nbgrader", {}).get("grade_id", "")
                cells.append(Cell(number, "".join(cell["source"]), str(grade_id).partition("-")[2]))
    except json.JSONDecodeError as error:
        raise ValueError(f"is no notebook: its JSON breaks off or is damaged at line {error.lineno}") from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise ValueError("is no notebook of format 4: there are no cells that can be read") from None
    if language and not str(language).lower().startswith("python"):
        raise ValueError(f"its kernel is {language}, not Python")
    asked = [int(number) for cell in cells for number in re.findall(r"\bchapter_(\d\d)\.[A-Z]", cell.source)]
    named = [int(number) for number in re.findall(r"(?<!\d)\d{1,2}(?!\d)", Path(name).stem)]
    for number in [*sorted(set(asked), key=asked.count, reverse=True), *named]:
        if 1 <= number <= 10:
            return number, cells
    raise ValueError("is none of the ten notebooks: it checks no exercise, and its name has no number from 1 to 10")


# ------------------------------------------------------------------------------------------------------ the command


def _table(rows: Sequence[Row]) -> str:
    """CSV: a student a row; text that a spreadsheet would take for a formula is quoted."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [mark.exercise for mark in rows[0].marks] if rows else []
    writer.writerow(["student", "points", "of", *names, "notes"])
    for row in rows:
        texts = [row.student, *(mark.state for mark in row.marks), " | ".join(row.notes)]
        student, *states, notes = (f"'{text}" if text.startswith(("=", "+", "-", "@")) else text for text in texts)
        writer.writerow([student, row.points, row.of, *states, " ".join(notes.split())])
    return stream.getvalue()


@click.command()
@click.argument("submissions", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a table as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print all rows as JSON.")
@click.option("--seed", default=0, show_default=True, help="Draw other hidden cases.")
def main(submissions: Path, output: Path | None, as_json: bool, seed: int) -> None:
    """Mark a class: SUBMISSIONS has a folder or a zip file for each student."""
    rows = []
    try:
        for row in grade(submissions, seed=seed):
            rows.append(row)
            if not as_json:
                click.echo(f"{row.student}: {row.points} of {row.of}")
                click.echo("".join(f"  {note}\n" for note in row.notes), nl=False)
        if output:
            with written_whole(output) as stream:
                stream.write(_table(rows).encode())
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], ensure_ascii=False))


if __name__ == "__main__":
    main()
