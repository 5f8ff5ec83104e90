"""README is true: its examples run and print what it says, its commands exist, its table is what the code makes."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import minisbert
from minisbert.cli import main
from minisbert.proof import reading_path

README = Path(__file__).resolve().parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
# a measured difference differs from processor to processor
FIGURE = re.compile(r"\d\.\de[-+]\d\d +|\d+ %")
NEEDED = {"index": "duckdb"}
"""Verb to the fixture of what it needs beside the core."""


def test_python_blocks_print_what_they_say(weights_folder):
    result = doctest.testfile(str(README), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0 and result.attempted >= 10


def consoles():
    """Each block's commands, with what the README says that they print."""
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        yield [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


@pytest.mark.parametrize("commands", consoles(), ids=lambda commands: commands[-1][0][:30])
def test_console_blocks_print_what_they_say(commands, weights_folder, tmp_path, request):
    for verb, library in NEEDED.items():
        if any(f"minisbert {verb} " in command for command, _ in commands):
            request.getfixturevalue(library)
    for command, expected in commands:
        run = command.replace("minisbert ", f"'{sys.executable}' -m minisbert ", 1)
        done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert FIGURE.sub("", done.stdout).rstrip() == FIGURE.sub("", expected).rstrip(), done.stderr


def test_the_two_commands_are_there():
    for name, part in (("run", "minisbert similarity"), ("test", "-m pytest")):
        found = re.search(rf"<!-- command: {name} -->\n```sh\n(.*?)\n```", TEXT, re.DOTALL)
        assert found and part in found[1] and "\n" not in found[1]


def test_every_verb_that_readme_names_exists_and_the_other_way_round():
    named = set(re.findall(r"^\| `minisbert (\w+)", TEXT, re.MULTILINE))
    listed = set(main.list_commands(None)) if hasattr(main, "list_commands") else set()
    assert named == listed
    for verb in named:
        assert CliRunner().invoke(main, [verb, "--help"]).exit_code == 0


def test_the_reading_path_is_what_the_code_makes(weights_folder):
    table = TEXT.partition(reading_path.BEGIN)[2].partition(reading_path.END)[0]
    fresh = reading_path.same_table(table.strip(), reading_path.make_table())
    assert fresh, "stale: run `python -m minisbert.proof.reading_path README.md`"
    assert not reading_path.same_table(table.replace("what the checkpoint", "which checkpoint"), table)
    for stop in reading_path.PATH:
        assert (reading_path.PACKAGE / stop.file).is_file()


def test_the_package_names_the_same_path_in_the_same_order():
    listed = re.findall(r"^\d+\. ``(\S+)``", minisbert.__doc__, re.MULTILINE)
    assert listed == [stop.file for stop in reading_path.PATH]
    # what is not on the path is not needed to understand it
    others = {
        *(
            "__init__.py",
            "__main__.py",
            "model/__init__.py",
            "model/unicode_ages.py",
            "tables.py",
            "files.py",
        ),
        *(f"plots/{name}.py" for name in ("__init__", "style", "placing", "heat", "matrix", "heads", "plane")),
        *(f"plots/{name}.py" for name in ("line_chart", "bar_chart", "picture")),
        *("training/__init__.py", "training/descent_picture.py", "search/__init__.py", "origin.py", "transformer.py"),
    }
    applications = {  # what is built on search, each with a file that says where to begin
        *(f"search/{name}.py" for name in ("errors", "storage", "documents", "filters", "indexing", "memory")),
        *("search/searching.py", "search/database.py"),
        *(f"search/{name}.py" for name in ("routes", "route_files", "router", "route_report", "route_fitting")),
    }
    rooms = {path.relative_to(reading_path.PACKAGE).as_posix() for path in reading_path.PACKAGE.rglob("*.py")}
    assert {
        room
        for room in rooms
        if not room.startswith(("cli/", "proof/", "bench/", "evaluation/", "analysis/", "course/"))
    } == set(listed) | others | applications
