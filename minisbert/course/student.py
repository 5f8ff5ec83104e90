"""Write the students' edition of the course: ``python -m minisbert.course.student OUT``.

Ten notebooks without outputs. Predictions are cells to fill in, and stand beside what is measured later: the metadata
of the cell that asks has the questions (``predict``), and that of a later cell what answers them (``measured``, pairs
of question and expression). Answers are folded, and nothing says where the solutions are. ``my_bert.py`` and a page for
students lie beside them. Answers and checks carry nbgrader's metadata: what a student fills in, and what is locked.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from minisbert.course.exercises import exercises
from minisbert.files import folder_written_whole

__all__ = ["answer_cells", "edition"]

Notebook = dict[str, Any]
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def answer_cells(notebook: Notebook) -> Iterator[tuple[Any, Any, list[str]]]:
    """Each cell to be filled in, the cell that checks it, and the exercises that are checked.

    >>> cells = [{"cell_type": "code", "source": text} for text in ("def f(x): ...", "check(chapter_01.COSINES, f)")]
    >>> [(answer["source"], names) for answer, _, names in answer_cells({"cells": cells})]
    [('def f(x): ...', ['COSINES'])]
    """
    before = None
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            names = re.findall(r"\bcheck\(chapter_\d\d\.(\w+), ", "".join(cell["source"]))
            if names and before:
                yield before, cell, names
            before = cell


def edition(notebook: Notebook, number: int) -> Notebook:
    """The students' version of one of the ten notebooks; the notebook itself is left as it is."""
    new: Notebook = copy.deepcopy(notebook)
    for answer, check, names in answer_cells(new):
        points = sum(exercises(number)[name].level for name in names)
        tags = {"schema_version": 3, "cell_type": "code", "task": False}
        name = f"chapter_{number:02}-{names[0]}"
        answer["metadata"]["nbgrader"] = tags | {"grade": False, "solution": True, "locked": False, "grade_id": name}
        check["metadata"]["nbgrader"] = tags | {"grade": True, "solution": False, "locked": True, "points": points}
        check["metadata"]["nbgrader"]["grade_id"] = f"check-{name}"
    cells: list[Notebook] = []
    predicted: dict[str, int] = {}  # question to the number of the cell that asks for it
    for cell in new["cells"]:
        asked, measured = cell["metadata"].pop("predict", []), cell["metadata"].pop("measured", [])
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
        else:
            cell["source"] = _lines(_folded("".join(cell["source"])))
        cells.append(cell)
        if asked:
            i = len({*predicted.values()}) + 1
            predicted |= dict.fromkeys(asked, i)
            rows = "".join(f"    {question!r}: ...,\n" for question in asked)
            text = f"# your prediction, in place of each ...\nprediction_{i} = {{\n{rows}}}"
            cells.append(_code(f"prediction-{i}", text))
        if measured:
            i = predicted[measured[0][0]]
            rows = "".join(f"    {question!r}: {value},\n" for question, value in measured)
            text = f"from minisbert.course.checking import beside\n\nbeside(prediction_{i}, {{\n{rows}}})"
            cells.append(_code(f"beside-{i}-{cell['id']}", text))
    return new | {"cells": cells}


def _code(name: str, source: str) -> Notebook:
    kind = {"cell_type": "code", "id": name, "metadata": {"tags": ["prediction"]}}
    return kind | {"execution_count": None, "outputs": [], "source": _lines(source)}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _folded(text: str) -> str:
    """A Markdown cell with its answer folded, and without the place of the solutions."""
    text = re.sub(r"(The s|S)olutions stand in\s+`[^`]+`[^.]*\.( They are worth nothing[^.]*\.)?[ \n]?", "", text)
    title = "<details><summary><b>The answer</b>: write yours first, then open this one</summary>"
    return re.sub(r"(?s)## The answer\n\n(.*?)\n*(?=\n## |\Z)", rf"{title}\n\n\1\n\n</details>\n", text)


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
def main(out: Path) -> None:
    """Write the students' edition into OUT, a new folder."""
    files = sorted(NOTEBOOKS.glob("*.ipynb"))
    if not files:
        raise click.ClickException(
            f"{NOTEBOOKS}: no notebooks; they are in a checkout of minisbert, not in the package"
        )
    if out.exists() and any(out.iterdir()):
        raise click.ClickException(f"{out}: is not empty, and might hold a student's work; choose a new folder")
    page = (NOTEBOOKS / "students.md").read_text(encoding="utf-8")
    with folder_written_whole(out) as folder:
        for number, file in enumerate(files, 1):
            notebook = json.loads(file.read_text(encoding="utf-8"))
            text = json.dumps(edition(notebook, number), ensure_ascii=False, indent=1)
            (folder / file.name).write_text(text + "\n", encoding="utf-8")
            first = "".join(notebook["cells"][0]["source"])
            title = first.splitlines()[0].removeprefix("# ").partition(". ")[2]
            page += (
                f"| {number} | [{title}]({file.name}) | {re.findall(r'[0-9]+', first.partition('inutes')[2])[0]} |\n"
            )
        shutil.copy(NOTEBOOKS / "my_bert.py", folder)
        (folder / "README.md").write_text(page, encoding="utf-8")
    click.echo(f"{out}: {len(files)} notebooks, my_bert.py and README.md")


if __name__ == "__main__":
    main()
