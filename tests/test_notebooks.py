"""The course: every notebook runs, prints what is stored, checks what it says, and has the form that it promises.

A notebook is executed from top to bottom and compared with its file, so that a stale output is a failure. How many
asserts each has stands here, so that one that was taken out is missed.
"""

import ast
import inspect
import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import _optional_import

from minisbert.course import student
from minisbert.course.exercises import exercises
from minisbert.course.run import differences, execute, tagged_pictures
from minisbert.course.run import main as run_main
from minisbert.course.student import answer_cells, edition

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
FILES = sorted(FOLDER.glob("*.ipynb"))
ASSERTS = {"01": 23, "02": 36, "03": 29, "04": 35, "05": 25, "06": 23, "07": 34, "08": 28, "09": 37, "10": 29}
"""Number of the notebook to the asserts in it."""
MOST_CELLS = 41  # notebook 5 has a cell of two lines for each of twelve mistakes


@pytest.fixture(scope="session")
def nbformat():
    """Jupyter's file format, and with it what executes notebooks."""
    _optional_import("nbclient", "notebooks", "notebooks")
    _optional_import("ipykernel", "notebooks", "notebooks")
    return _optional_import("nbformat", "notebooks", "notebooks")


@pytest.fixture(params=FILES, ids=lambda file: file.stem[:2])
def notebook(request, nbformat):
    """One notebook after the other, as it is stored."""
    stored = nbformat.read(request.param, as_version=4)
    stored["file"] = request.param
    return stored


def codes(notebook):
    return [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(notebook):
    return [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def nodes(notebook, kind):
    return [node for code in codes(notebook) for node in ast.walk(ast.parse(code)) if isinstance(node, kind)]


def test_the_students_edition_runs_and_prints_what_is_stored(
    notebook, matplotlib, weights_folder, request, monkeypatch, tmp_path
):
    """With empty answers and predictions; but for the cells in which these are asked, it is the notebook."""
    if any("data_file(" in code for code in codes(notebook)):
        monkeypatch.setenv("MINISBERT_DATA", str(request.getfixturevalue("data_folder")))
    source = json.loads(notebook["file"].read_text(encoding="utf-8"))
    students = tmp_path / notebook["file"].name
    students.write_text(json.dumps(edition(source, int(students.name[:2]))), encoding="utf-8")
    executed = execute(students)
    predictions = [cell for cell in executed["cells"] if "prediction" in cell["metadata"].get("tags", [])]
    assert {cell["source"].split("(")[0].split("\n")[0] for cell in predictions} <= {
        "# your prediction, in place of each ...", "from minisbert.course.checking import beside"
    }  # fmt: skip
    shown = [output["text"] for cell in predictions for output in cell["outputs"]]
    assert shown and all(text.startswith("predicted") and "nothing" in text for text in shown)
    for _, check, _ in answer_cells(executed):
        assert "… " in str(check["outputs"]) and not {"✓", "✗"} & {*str(check["outputs"])}
    executed["cells"] = [cell for cell in executed["cells"] if cell not in predictions]
    stale = differences(notebook, executed)
    assert not stale, "\n".join([f"run `python -m minisbert.course.run --in-place {notebook['file'].name}`:", *stale])


def test_the_students_edition_tells_nothing(nbformat, tmp_path):
    run = CliRunner().invoke(student.main, [str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    files = sorted((tmp_path / "out").glob("*.ipynb"))
    assert [file.name for file in files] == [file.name for file in FILES] and (tmp_path / "out" / "my_bert.py").exists()
    ids = set()
    for file in files:
        made = nbformat.read(file, as_version=4)
        nbformat.validate(made)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in made["cells"])
        everything = "\n".join(texts(made))
        assert (
            "olutions stand" not in everything and everything.count("<details>") == everything.count("</details>") == 1
        )
        for cell in made["cells"]:
            if tags := cell["metadata"].get("nbgrader"):
                assert tags["grade_id"] not in ids and tags["solution"] != tags["grade"] == tags["locked"]
                ids.add(tags["grade_id"])
    assert len(ids) == 2 * 10 * 3
    refused = CliRunner().invoke(student.main, [str(tmp_path / "out")])
    assert refused.exit_code == 1 and "not empty" in refused.output


def test_run_does_not_write_into_a_students_file(nbformat, tmp_path, monkeypatch):
    mine = json.loads(FILES[0].read_text(encoding="utf-8"))
    next(answer_cells(mine))[0]["source"] = "def cosines_of_rows(a, b):\n    return a @ b.T"
    file = tmp_path / FILES[0].name
    file.write_text(json.dumps(mine))
    monkeypatch.setattr("minisbert.course.run.execute", lambda file: nbformat.read(file, as_version=4))
    before = file.read_bytes()
    for options, code, said in (([], 0, "up to date"), (["--in-place"], 1, "filled in")):
        result = CliRunner().invoke(run_main, [str(file), *options])
        assert (result.exit_code, said in result.output, file.read_bytes()) == (code, True, before), result.output


def no_assert_was_taken_out(notebook):
    asserts = nodes(notebook, ast.Assert)
    assert len(asserts) == ASSERTS[notebook["file"].stem[:2]]
    for node in asserts:  # `assert True` proves nothing
        assert any(isinstance(part, (ast.Name, ast.Call)) for part in ast.walk(node.test)), ast.unparse(node)


def it_has_the_form_of_the_course(notebook):
    first = texts(notebook)[0]
    title = first.splitlines()[0]
    assert title.startswith("# ") and title.rstrip().endswith("?")
    assert re.search(r"\d+ minutes|[Mm]inutes\W+\d+", first) and "minisbert/" in first
    assert len(notebook["cells"]) <= MOST_CELLS
    everything = "\n".join([*codes(notebook), *texts(notebook)])
    assert "it_fails(" in everything  # something is broken, and the check is watched failing
    assert not re.search(r"!\[[^\]]*\]\(https?:|<img[^>]+http", everything), "a picture from the network"


def it_needs_nothing_but_the_package_and_redefines_nothing_of_it(notebook):
    modules = {alias.name for node in nodes(notebook, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes(notebook, ast.ImportFrom)}
    assert {name.split(".")[0] for name in modules} <= {"minisbert", "numpy"} | sys.stdlib_module_names
    imported = {alias.asname or alias.name for node in nodes(notebook, ast.ImportFrom) for alias in node.names}
    defined = {node.name for node in nodes(notebook, (ast.FunctionDef, ast.ClassDef))}
    assert not imported & defined


def it_is_stored_as_it_was_run(notebook):
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    shown = str([cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"])
    assert "'output_type': 'error'" not in shown
    assert not re.search(r"(?<![\w.])/(?:work|home|root|Users|tmp)/", shown), "a path of one machine"
    pictures = [
        output["metadata"].get("image/png", {})
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert all(picture.get("alt") for picture in pictures), "a picture without an alternative text"
    here = f"where_we_are({int(notebook['file'].stem[:2])})"
    assert any(here in code for code in codes(notebook)), "the diagram of the stations is missing"


def every_exercise_is_asked_and_checked(notebook):
    found = exercises(int(notebook["file"].stem[:2]))
    functions = {node.name: node for node in nodes(notebook, ast.FunctionDef)}
    asked = {}
    for node in nodes(notebook, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id == "check":
            asked[ast.unparse(node.args[0]).split(".")[-1]] = ast.unparse(node.args[1])
    assert set(asked) == set(found) and len(found) >= 2
    for name, answer in asked.items():
        if answer in functions:  # what is to be filled in takes what the solution takes
            given = [argument.arg for argument in functions[answer].args.args]
            wanted = inspect.signature(found[name].solution).parameters
            assert given == list(wanted)[: len(given)]
            assert all(
                wanted[argument].default is not inspect.Parameter.empty for argument in list(wanted)[len(given) :]
            )


def test_its_form(notebook):
    for holds in (
        *(no_assert_was_taken_out, it_has_the_form_of_the_course, it_is_stored_as_it_was_run),
        *(it_needs_nothing_but_the_package_and_redefines_nothing_of_it, every_exercise_is_asked_and_checked),
    ):
        holds(notebook)


def test_pictures_that_pages_show_are_those_of_the_notebooks(nbformat):
    found = {}
    for file in FILES:
        found |= tagged_pictures(nbformat.read(file, as_version=4))
    stored = {file.stem: file.read_bytes() for file in (FOLDER / "pictures").glob("*.png")}
    assert stored.pop("page")  # of a browser: test_page.py
    assert stored == found, "run `python -m minisbert.course.run --in-place notebooks/*.ipynb`"
    shown = re.findall(r"notebooks/pictures/(\w+)\.png", (FOLDER.parent / "README.md").read_text(encoding="utf-8"))
    assert shown and set(shown) <= {*stored, "page"}


def test_the_page_lists_every_notebook():
    listed = re.findall(r"\]\((\d\d_\w+\.ipynb)\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert sorted(set(listed)) == [file.name for file in FILES]


def test_every_word_of_the_glossary_is_in_bold_where_the_glossary_says(nbformat):
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| (\d+) \|$", (FOLDER / "README.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) > 50
    for word, number in rows:
        (file,) = FOLDER.glob(f"{int(number):02}_*.ipynb")
        bold = re.findall(r"\*\*([^*]+)\*\*", "\n".join(texts(nbformat.read(file, as_version=4))).lower())
        assert any(word.lower() in " ".join(some.split()) for some in bold), f"{word} in notebook {number}"
