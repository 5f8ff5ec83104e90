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

from minisbert.course.answers import Cell, exercises, results
from minisbert.course.exercises import Exercise, Verdict, judge
from minisbert.encoder import SentenceEncoder
from minisbert.files import written_whole
from minisbert.proof.ladder import Rung, climb
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
    notebooks: dict[int, list[Cell]] = field(default_factory=dict)
    my_bert: bytes | None = None
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
    chapters = sorted({number for one in handed_in for number in one.notebooks})
    asks_for_bert = any(one.my_bert is not None for one in handed_in)
    if asks_for_bert and encoder is None:
        encoder = SentenceEncoder(dtype="float64")
    for one in handed_in:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(_marks, number, one.notebooks.get(number), seed, seconds) for number in chapters]
            marks = [mark for job in jobs for mark in job.result()]
        if asks_for_bert and encoder is not None:
            marks += _marks_of_bert(one.my_bert, encoder, seed, seconds)
        notes = [*one.notes, *(f"{mark.exercise}: {mark.says}" for mark in marks if mark.says)]
        if not one.notebooks and one.my_bert is None:
            notes.append("nothing to mark")
        elif all(mark.state in ("to do", "missing") for mark in marks):
            notes.append("no exercise is filled in")
        points, of = sum(mark.points for mark in marks), sum(mark.of for mark in marks)
        yield Row(one.student, points, of, tuple(marks), tuple(notes))


# ----------------------------------------------------------------------------------------------------------- marks


def _marks(number: int, cells: Sequence[Cell] | None, seed: int, seconds: float) -> list[Mark]:
    """One mark for each exercise of a notebook."""
    asked = exercises(number)
    rng = np.random.default_rng([seed, number])
    hidden = {name: [one.draw(rng) for _ in range(HIDDEN)] if one.draw else [] for name, one in asked.items()}
    cases = {name: [*one.cases, *hidden[name]] for name, one in asked.items()}
    found = results(cells, number, cases, seconds) if cells is not None else {}
    marks = []
    for name, one in asked.items():
        verdict = _verdict(replace(one, cases=cases[name]), len(one.cases), found[name]) if found else None
        state = verdict.state if verdict else "missing"
        says = verdict.message.partition(": ")[2] if verdict and state == "wrong" else ""
        marks.append(Mark(f"{number} {name}", state, one.level * (state == "right"), one.level, says))
    return marks


def _verdict(exercise: Exercise, shown: int, outcomes: Sequence[Outcome]) -> Verdict:
    """First as in the notebook, on the cases shown there, then on all."""
    visible = judge(replace(exercise, cases=exercise.cases[:shown]), outcomes[:shown])
    if visible.state != "right" or len(outcomes) == shown == len(exercise.cases):
        return visible
    whole = judge(exercise, outcomes)
    if whole.state == "right":
        return whole
    name, _, says = whole.message.partition(": ")
    return Verdict("wrong", f"{name}: right on the notebook's own cases, not on others: {says}")


def _marks_of_bert(source: bytes | None, encoder: SentenceEncoder, seed: int, seconds: float) -> list[Mark]:
    """One point for each function of my_bert.py, and more for all of them together."""
    if source is None:
        points = dict.fromkeys(RIGHT, 1) | {"together": TOGETHER}
        return [Mark(f"{BERT} {name}", "missing", 0, of) for name, of in points.items()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "my_bert.py"
        file.write_bytes(source)
        report = climb(file, encoder, seed=seed + 1, seconds=seconds)
    rungs = {rung.name: rung for rung in report.rungs} or {name: Rung(name, 1, "wrong") for name in RIGHT}
    marks = []
    for name, rung in rungs.items():
        says = f"{rung.says} ({rung.line})" if rung.line else rung.says
        right = rung.state == "right"
        marks.append(Mark(f"{BERT} {name}", rung.state, int(right), 1, says if rung.state == "wrong" else ""))
    states = {both.state for both in report.together}
    state = "wrong" if "wrong" in states or report.problem else "right" if states else "to do"
    says = report.problem or next((both.says for both in report.together if both.state == "wrong"), "")
    return [*marks, Mark(f"{BERT} together", state, TOGETHER * (state == "right"), TOGETHER, says)]


# --------------------------------------------------------------------------------------------------- what was handed in


def _is_submission(place: Path) -> bool:
    """Folders, zip files, and what looks like a student's; not marks.csv."""
    wanted = place.is_dir() or place.is_symlink() or place.suffix.lower() in (".zip", ".ipynb", ".py")
    return wanted and not place.name.startswith((".", "__"))


def _read(place: Path) -> _Submission:
    """A student's notebooks and my_bert.py; what is wrong with a file becomes a note."""
    one = _Submission(place.stem if place.suffix.lower() == ".zip" else place.name)
    taken: dict[Any, str] = {}
    try:
        files = sorted(_files(place), key=lambda file: (len(file[0]), file[0]))
    except OSError as error:
        files = []
        one.notes.append(f"cannot be read: {error.strerror}")
    for name, content in files:
        try:
            if isinstance(content, str):
                raise ValueError(content)
            if name.lower().endswith(".py"):
                part: Any = BERT
                if not content.strip():
                    raise ValueError("is empty")
            else:
                cells = _cells(content)
                part = _number(name, cells)
            if part in taken:
                raise ValueError(f"is left out, since {taken[part]} is there as well")
            taken[part] = name
            if part == BERT:
                one.my_bert = content
            else:
                one.notebooks[part] = cells
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


def _cells(content: bytes) -> list[Cell]:
    """The code cells of a notebook; ValueError if it is none."""
    if not content.strip():
        raise ValueError("is empty")
    try:
        notebook = json.loads(content)
        metadata = notebook.get("metadata", {})
        language = metadata.get("kernelspec", {}).get("language") or metadata.get("language_info", {}).get("name")
        cells = []
        for number, cell in enumerate(notebook["cells"], 1):
            if cell["cell_type"] == "code":
                source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
                name = cell.get("metadata", {}).get("nbgrader", {}).get("grade_id", "")
                cells.append(Cell(number, source, str(name).partition("-")[2]))
    except json.JSONDecodeError as error:
        raise ValueError(f"is no notebook: its JSON breaks off or is damaged at line {error.lineno}") from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise ValueError("is no notebook of format 4: there are no cells that can be read") from None
    if language and not str(language).lower().startswith("python"):
        raise ValueError(f"its kernel is {language}, not Python")
    return cells


def _number(name: str, cells: Sequence[Cell]) -> int:
    """Which notebook it is: the one whose exercises it checks, or that its name says."""
    asked = [int(number) for cell in cells for number in re.findall(r"\bchapter_(\d\d)\.[A-Z]", cell.source)]
    named = [int(number) for number in re.findall(r"(?<!\d)\d{1,2}(?!\d)", Path(name).stem)]
    for number in [*sorted(set(asked), key=asked.count, reverse=True), *named]:
        if 1 <= number <= 10:
            return number
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
