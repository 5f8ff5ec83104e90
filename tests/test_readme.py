"""Every README is true: its examples run and print what it says, its commands and files exist."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from minisbert.cli import main

README = Path(__file__).resolve().parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
PAGES = [README, *sorted((README.parent / "minisbert").rglob("README.md"))]  # of the project, and of each room
# a measured difference differs from processor to processor
FIGURE = re.compile(r"\d\.\de[-+]\d\d +|\d+ %")
NEEDED = {"index": "duckdb"}
"""Verb to the fixture of what it needs beside the core."""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if ">>> " in page.read_text("utf-8")], ids=lambda p: p.parent.name
)
def test_python_blocks_print_what_they_say(page, weights_folder):
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0 and result.attempted


def test_links_lead_to_files():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text("utf-8"))]
    assert len(links) > 25
    assert [(page, link) for page, link in links if not (page.parent / link).exists()] == []


def consoles():
    """Each block's commands, with what the page says that they print."""
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
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


def test_the_reading_path_names_twelve_files_that_are_there():
    path = TEXT.partition("## The reading path")[2].partition("\n## ")[0]
    files = re.findall(r"^\| \d+ \| \[`.*?`\]\((.*?)\)", path, re.MULTILINE)
    assert len(files) == 12 and all((README.parent / file).is_file() for file in files)
