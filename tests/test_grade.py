"""A class is marked: five invented students, of whom one is right, and one does what nobody should."""

import csv
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import TINY, write_model

from minisbert import SentenceEncoder
from minisbert.course import grade as grading
from minisbert.course.exercises import check, exercises
from minisbert.course.grade import grade, main
from minisbert.course.student import answer_cells, edition

COSINES = """def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)

def cosines_of_rows(a, b):
    return unit(a) @ unit(b).T"""
NEAREST = """def nearest(query, documents, k):
    return np.argsort(-cosines_of_rows(query[None], documents)[0])[:k]"""
CONTRIBUTIONS = """def contributions(t, u):
    return t @ u.T / np.linalg.norm(t.sum(0)) / np.linalg.norm(u.sum(0))"""
TO_DO = 'def {}(*arguments):\n    """What is asked."""\n    ...'
CHECKS = ["COSINES, cosines_of_rows", "NEAREST, nearest", "CONTRIBUTIONS, contributions"]


def notebook(*answers, before=(), chapter=1, checks=CHECKS, kernel="python"):
    """A notebook as Jupyter stores it: some cells, then an answer and a check each."""
    imports = f"import numpy as np\nfrom minisbert.course import chapter_{chapter:02}\n"
    imports += "from minisbert.course.exercises import check"
    sources = [imports, *before]
    for answer, asked in zip(answers, checks, strict=False):
        sources += [answer, f"check(chapter_{chapter:02}.{asked})"]
    cells = [{"cell_type": "code", "source": source, "metadata": {}, "outputs": []} for source in sources]
    return json.dumps({"cells": cells, "metadata": {"kernelspec": {"language": kernel}}, "nbformat": 4})


HOSTILE = notebook(
    "import os\ndef cosines_of_rows(a, b):\n    os._exit(0)",
    "def nearest(query, documents, k):\n    while True:\n        print('x' * 1000)",
    "contributions = chapter_01.CONTRIBUTIONS.solution",
    before=[
        "import minisbert.course.exercises as e\ne.check = check = lambda *_: print('right')",
        "import sys\nsys.exit()",
        "while True:\n    pass",
    ],
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The five, marked; by name."""
    folder = tmp_path_factory.mktemp("class")
    for name in ("anna", "ben", "dora", "=emil", ".hidden"):
        (folder / name).mkdir()
    two = ["def gap_at(x):\n    return float(np.spacing(np.float32(abs(x))))", "agrees = None", 'culprit = "B "']
    (folder / "anna" / "Anna_01_can_a_vector_hold_a_meaning (1).ipynb").write_text(
        notebook(COSINES, NEAREST, CONTRIBUTIONS)
    )
    five = notebook(*two, chapter=5, checks=["GAP, gap_at", "AGREES, agrees", "SUSPECT_1, culprit"])
    (folder / "anna" / "fuenf.ipynb").write_text(five)
    (folder / "anna" / "my_bert.py").write_text("def mean_pool(hidden):\n    return hidden.mean(axis=0)\n")
    stubs = [TO_DO.format(name) for name in ("cosines_of_rows", "nearest", "contributions")]
    (folder / "ben" / "notebook 1.ipynb").write_text(notebook(*stubs))
    (folder / "ben" / "notebook 1-Copy1.ipynb").write_text(notebook(COSINES))
    with zipfile.ZipFile(folder / "carl.zip", "w") as archive:
        learned = {3: [1, 4, 0], 2: [1, 2], 5: [9, 10, 3, 1, 0]}
        shown = f"def nearest(query, documents, k):\n    return {learned}.get(k, [0] * k)"
        wrong = notebook(
            "def cosines_of_rows(a, b):\n    return a @ b.T", shown, "def contributions(t, u)\n    return 1"
        )
        archive.writestr("carl/01.ipynb", wrong)
        archive.writestr("__MACOSX/carl/01.ipynb", "x")
    (folder / "dora" / "01.ipynb").write_text(HOSTILE)
    (folder / "dora" / "my_bert.py").write_text("import os\nos._exit(3)\n")
    (folder / "=emil" / "01.ipynb").write_text(notebook(COSINES)[:-40])
    (folder / "=emil" / "02.ipynb").write_text("")
    (folder / "=emil" / "03.ipynb").write_text(notebook("f = 1", chapter=3, kernel="R"))
    (folder / "=emil" / "04.ipynb").write_text("[1]")
    (folder / "=emil" / "thoughts.ipynb").write_text(notebook("f = 1").replace("chapter_01", "chapter"))
    with (folder / "=emil" / "06.ipynb").open("wb") as stream:
        stream.truncate(grading.LARGEST + 1)
    (folder / "=emil" / "all.zip").write_bytes(b"PK")
    (folder / "=emil" / "05.ipynb").symlink_to(folder / "anna" / "fuenf.ipynb")
    (folder / "marks.csv").write_text("of last year")
    (folder / "frieda_01.ipynb").write_text(notebook(COSINES))
    config = replace(TINY, max_position_embeddings=64)  # for three texts, letter by letter
    encoder = SentenceEncoder(write_model(tmp_path_factory.mktemp("model"), config=config), dtype="float64")
    return {row.student: row for row in grade(folder, seconds=1.0, encoder=encoder)}


def test_who_is_right_gets_the_points(rows):
    anna = rows["anna"]
    states = {mark.exercise: mark.state for mark in anna.marks}
    assert [states[f"1 {name}"] for name in exercises(1)] == ["right"] * 3
    assert [states[f"5 {name}"] for name in exercises(5)] == ["right", "to do", "right", "to do"]
    assert states["my_bert mean_pool"] == "right" and states["my_bert embed"] == "to do"
    assert anna.points == 1 + 1 + 2 + 2 + 3 + 1 and anna.notes == ()
    assert {row.of for row in rows.values()} == {4 + 10 + 16 + 4}  # the same for all, whatever they handed in
    left_out = "notebook 1-Copy1.ipynb: is left out, since notebook 1.ipynb is there as well"
    assert rows["ben"].points == 0 and rows["ben"].notes == (left_out, "no exercise is filled in")


def test_mistakes_are_named(rows):
    cosines, nearest, contributions = rows["carl"].notes
    assert "dot products" in cosines
    assert "right on the notebook's own cases, not on others" in nearest
    assert "is not Python" in contributions and rows["carl"].points == 0


def test_what_a_student_does_to_the_checks_is_without_effect(rows):
    dora = rows["dora"]
    assert dora.points == 0 and [mark.state for mark in dora.marks[:3]] == ["wrong"] * 3
    said = " ".join(dora.notes)
    assert all(part in said for part in ("ends the program", "does not end", "the solution itself", "my_bert together"))


def test_what_cannot_be_read_is_a_sentence(rows):
    said = dict(note.partition(": ")[::2] for note in rows["=emil"].notes if ": " in note)
    expected = {
        "01": "damaged",
        "02": "empty",
        "03": "R, not",
        "04": "no notebook",
        "05": "a link",
        "thoughts": "none of",
    }
    for name, part in expected.items():
        assert part in said[f"{name}.ipynb"], said
    assert "cannot be unpacked" in said["all.zip"]
    assert "every student has a folder" in rows["frieda_01.ipynb"].notes[0]
    assert list(rows) == ["=emil", "anna", "ben", "carl", "dora", "frieda_01.ipynb"]


# the answer, other cells; the state, and what is said
NEEDS = {
    "broken cells": ("%%time\n" + COSINES, ["def (", "1 / 0", "return 1", "await x", "%pip x"], "right", ""),
    "deep": (COSINES, ["x = " + "+".join("1" * 3000)], "right", ""),
    "an expression": ("", ["def ("], "wrong", "dot products"),
    "a local name": (
        "def cosines_of_rows(a, b):\n    slow = unit(a)\n    return slow @ unit(b).T",
        ["slow = setattr(np.linalg, 'norm', None)"], "right", "",
    ),
    "a table that is filled": (
        "def cosines_of_rows(a, b):\n    return by[0](a, b)",
        [COSINES.replace("cosines_of_rows", "right"), "by = []", "by.append(right)"], "right", "",
    ),
    "what it needs": ("cosines_of_rows = made()", ["def made():\n    return 1 / 0"], "wrong", "(cell 2, line 2"),
    "no function": ("cosines_of_rows = 0.5", [], "wrong", "hand over the function"),
    "an endless one": ("cosines_of_rows = [0 for _ in iter(int, 1)]", [], "wrong", "does not end"),
    "an import": ("from minisbert.course.chapter_01 import _cosines as cosines_of_rows", [], "wrong", "ImportError"),
    "the package": ("from minisbert import cos_sim as cosines_of_rows", [], "wrong", "write it yourself"),
}  # fmt: skip


def test_an_answer_is_run_with_what_it_needs(tmp_path):
    for case, (answer, before, _, _) in NEEDS.items():
        (tmp_path / case).mkdir()
        asked = "COSINES, lambda a, b: a**1 @ b.T" if case == "an expression" else CHECKS[0]
        made = notebook(answer, before=[*before, COSINES.partition("\n\n")[0]], checks=[asked])
        (tmp_path / case / "1.ipynb").write_text(made)
    for row in grade(tmp_path, seconds=0.5):
        _, _, state, said = NEEDS[row.student]
        assert row.marks[0].state == state and said in row.marks[0].says, row


def test_the_command_writes_a_table_that_a_spreadsheet_can_open(tmp_path):
    (tmp_path / "class" / "=HYPERLINK(1)").mkdir(parents=True)
    (tmp_path / "class" / "=HYPERLINK(1)" / "1.ipynb").write_text(notebook(COSINES))
    result = CliRunner().invoke(main, [str(tmp_path / "class"), "-o", str(tmp_path / "marks.csv")])
    assert result.exit_code == 0 and "=HYPERLINK(1): 1 of 4" in result.output, result.output
    heading, row = csv.reader(io.StringIO((tmp_path / "marks.csv").read_text()))
    assert heading == ["student", "points", "of", "1 COSINES", "1 NEAREST", "1 CONTRIBUTIONS", "notes"]
    assert row == ["'=HYPERLINK(1)", "1", "4", "right", "to do", "to do", ""]
    result = CliRunner().invoke(main, [str(tmp_path / "class"), "--json"])
    assert json.loads(result.output)[0]["marks"][0] == {
        "exercise": "1 COSINES", "state": "right", "points": 1, "of": 1, "says": ""
    }  # fmt: skip


def test_the_students_edition_is_marked_and_so_is_one_whose_checks_were_deleted(tmp_path):
    file = next(Path(__file__).parent.parent.joinpath("notebooks").glob("01_*.ipynb"))
    for name in ("all", "no checks"):
        made = edition(json.loads(file.read_text(encoding="utf-8")), 1)
        pairs = list(answer_cells(made))
        for (answer, asks, _), source in zip(pairs, (COSINES, NEAREST, CONTRIBUTIONS), strict=True):
            answer["source"] = source
            if name == "no checks":
                made["cells"].remove(asks)
        (tmp_path / name).mkdir()
        (tmp_path / name / file.name).write_text(json.dumps(made), encoding="utf-8")
    assert [(row.points, row.notes) for row in grade(tmp_path)] == [(4, ())] * 2


def test_under_nbgrader_a_wrong_answer_raises(monkeypatch):
    one = exercises(1)["COSINES"]
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert check(one, one.solution).state == "right"
    with pytest.raises(AssertionError, match="dot products"):
        check(one, lambda a, b: a @ b.T)
