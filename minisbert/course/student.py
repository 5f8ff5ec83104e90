"""Write the students' edition of the course: ``python -m minisbert.course.student OUT``.

Ten notebooks without outputs. Predictions are cells to fill in, and stand beside what is measured later; answers are
folded, and nothing says where the solutions are. ``my_bert.py`` and a page for students lie beside them. Answers and
checks carry nbgrader's metadata: what a student fills in, and what is locked.
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

from minisbert.course.answers import exercises
from minisbert.files import folder_written_whole

__all__ = ["answer_cells", "edition"]

Notebook = dict[str, Any]
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

PREDICTIONS: dict[int, list[tuple[str, list[tuple[str, str, str]]]]] = {
    # notebook: [(the cell that asks, [(question, the cell that measures, expression)])]
    1: [
        (
            "cell-02",
            [
                ("the cosine of the two soups", "cell-03", "cosines[0, 1]"),
                ("the cosine of 'i love soup' and 'london is far away'", "cell-03", "cosines[0, 2]"),
            ],
        ),
        (
            "cell-06",
            [
                ("the sentence closest to 'I love soup.'", "cell-09", "dozen[np.argsort(-alike[0])[1]]"),
                ("the cosine of 'I love soup.' and 'I hate soup.'", "cell-09", "alike[0, 3]"),
                ("the cosine of the two bites", "cell-09", "alike[10, 11]"),
            ],
        ),
        ("cell-10", [("what 'I need a loan' finds", "cell-11", "dozen[best[0]]")]),
    ],
    2: [
        (
            "cell-02",
            [
                ("the pieces of 'Soupy embeddings'", "cell-03", "' '.join(read_by_the_model('Soupy embeddings'))"),
                ("the pieces of 'CAFÉ au lait'", "cell-03", "' '.join(read_by_the_model('CAFÉ au lait'))"),
            ],
        ),
        (
            "cell-10",
            [
                ("the cosine of the bowl and the pizza", "cell-11", "noodles @ pizza"),
                ("the cosine of an English sentence and its German translation", "cell-11", "cosines[2]"),
            ],
        ),
    ],
    3: [
        (
            "cell-03",
            [
                ("how many numbers say who attends to whom, of 5 tokens", "cell-05", "5 * 5"),
                ("the token that gets most attention", "cell-19", "pieces[int(received.argmax())]"),
            ],
        ),
        ("cell-22", [("the length at which both cost the same", "t-squared", "6 * D")]),
    ],
    4: [
        (
            "cell-03",
            [
                ("LayerNorm of (20, 20, 60, 60)", "cell-04", "layer_norm(10 * x, np.ones(4), np.zeros(4), eps)[0]"),
                (
                    "the half that adds the longer vector",
                    "cell-14",
                    "['attention', 'feed-forward'][int(np.mean(second_adds) > np.mean(attention_adds))]",
                ),
                ("the feed-forward network's share of a layer's weights, from 0 to 1", "cost", "share"),
            ],
        )
    ],
    5: [
        (
            "cell-02",
            [
                ("how many times the error grows over the layers", "cell-11", "float32_errors[6] / float32_errors[1]"),
                ("softmax's part of the whole error, from 0 to 1", "cell-13", "costs['softmax'] / everything"),
            ],
        )
    ],
    6: [
        (
            "cell-02",
            [
                (
                    "the cosine, if all 17 rows are averaged",
                    "cell-13",
                    "normalize(padded_bert(ids, mask)[0][-1].mean(axis=1))[0] @ right[0]",
                ),
                ("the share of attention that goes to padding", "cell-15", "on_padding[0]"),
            ],
        )
    ],
    7: [
        (
            "cell-02",
            [
                ("the cosine of the page, cut at 256, with its fifth paragraph", "cell-07", "knows['cut at 256'][4]"),
                ("the same with the limit at 512", "cell-07", "knows['cut at 512'][4]"),
            ],
        )
    ],
    8: [
        (
            "cell-02",
            [
                ("newspaper: how many percent of the pairs are below 0.3", "cell-11", "of_news.percentile(0.3)"),
                ("soup: how many percent", "cell-11", "of_soups.percentile(0.3)"),
                ("a, the medicine", "cell-15", "cosines['negation'][0]"),
                ("c, no money", "cell-15", "cosines['same meaning, other words'][0]"),
                ("e, Anna and Peter", "cell-15", "cosines['who did it to whom'][0]"),
            ],
        )
    ],
    9: [
        (
            "356a192b",
            [
                ("how far off the slope of x^3 is", "da4b9237", "two_sided - 12"),
                (
                    "the wrong ones that a test with ones finds",
                    "b1d57811",
                    "', '.join(n for n in softmaxes if off['softmax', n, 'ones'] > BOUND)",
                ),
            ],
        ),
        ("77de68da", [("the best step h", "1b645389", "steps[errors['two steps, float64'].argmin()]")]),
    ],
    10: [
        ("77de68da", [("how many of six anchors find their positive", "1b645389", "seen.found(-1)")]),
        ("17ba0791", [("the cosine of soup and London, after pulling alone", "7b52009b", "table['pull alone'][4]")]),
        ("bd307a3e", [("the score before any training, of 30", "fa35e192", "int(before[0].sum())")]),
        (
            "f1abd670",
            [
                ("the score of the control, of 30", "twelve-seeds", "np.mean(RECORDED['control'][0])"),
                ("the score after training, of 30", "twelve-seeds", "np.mean(RECORDED['trained'][0])"),
            ],
        ),
    ],
}

PAGE = """# Sentence-BERT, one question at a time

Ten notebooks and a file of your own. You need NumPy, and nothing of neural networks. With minisbert and its extra
`notebooks` installed, `jupyter lab` in this folder opens them.

**In each notebook.** Read from the top and run one cell after the other. Where a cell says `prediction`, put a number
or a word in place of each `...` *before* you go on; a later cell shows it beside what was measured. A wrong
prediction costs nothing, and is what you learn most from. "The answer" near the end is folded: write two sentences of
your own first.

**Exercises.** Fill in a cell and run the one below. It says what is wrong, and never the solution. When you are
stuck, `from minisbert.course.exercises import hint` and `hint(chapter_01.COSINES)`; `hint(chapter_01.COSINES, 2)`
says more. Do not rename the functions, and leave the cells with `check` in place.

**Your own BERT.** `my_bert.py` has functions to write; `minisbert verify --mine my_bert.py` says which are right.

**Handing in.** Save the notebooks under their own names and hand in the folder, or a zip file of it. Your answers are
run again in a fresh process, on the cases that `check` uses and on others. An answer may use whatever its notebook
imports or defines, but must not depend on the order in which you happened to run the cells.

| | question | minutes |
|---|---|---|
"""


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
    cells = []
    asked = dict(PREDICTIONS[number])
    for cell in new["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
        else:
            cell["source"] = _lines(_folded("".join(cell["source"])))
        cells.append(cell)
        for i, (place, questions) in enumerate(asked.items(), 1):
            if place == cell["id"]:
                rows = "".join(f"    {question!r}: ...,\n" for question, _, _ in questions)
                text = f"# your prediction, in place of each ...\nprediction_{i} = {{\n{rows}}}"
                cells.append(_code(f"prediction-{i}", text))
            measured = [(question, value) for question, where, value in questions if where == cell["id"]]
            if measured:
                rows = "".join(f"    {question!r}: {value},\n" for question, value in measured)
                text = "from minisbert.course.checking import beside\n\n"
                cells.append(_code(f"beside-{i}-{cell['id']}", f"{text}beside(prediction_{i}, {{\n{rows}}})"))
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
    page = PAGE
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
