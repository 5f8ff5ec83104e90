"""``minisbert index`` and ``minisbert search``: what they print, refuse, and leave behind.

Everything runs on a random model of some 4,000 weights.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from running import refused, run, stand_in, told
from tiny import write_model
from wcwidth import wcswidth

from minisbert import SentenceEncoder
from minisbert.search.database import EmbeddingDatabase

NOTES = ["i love soup", "", "the cat sat on the mat", "the dog ran"]
ARTICLES = "id,body,lang,year\n1,the cat sat,en,2021\n2,the dog ran on the mat,fr,2019\n3,i love the cat,en,2018\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("search-cli") / "tiny-model")


@pytest.fixture(scope="module")
def built(model, tmp_path_factory, duckdb):
    """Two databases, built once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("built")
        stand_in(folder, patch, model)
        write_files()
        run("index", "build", "notes.duckdb", "notes.txt")
        run("index", "build", "articles.duckdb", "articles.csv", "--text-column", "body")
    return folder


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model, duckdb):
    stand_in(tmp_path / "work", monkeypatch, model)
    write_files()


def write_files():
    Path("notes.txt").write_text("\n".join(NOTES) + "\n")
    Path("more.txt").write_text("soup on the mat\n")
    Path("articles.csv").write_text(ARTICLES)


@pytest.fixture
def both(built):
    for name in ("notes.duckdb", "articles.duckdb"):
        shutil.copy(built / name, name)


# ------------------------------------------------------------------------------------------------ index


def test_build_again_add_change_and_move(monkeypatch):
    first = run("index", "build", "notes.duckdb", "notes.txt")
    expected = "notes.duckdb: 3 documents added, 0 replaced, 0 unchanged; 3 chunks embedded; 3 documents in all\n"
    assert (first.stdout, first.stderr) == (expected, "")
    again = run("index", "build", "notes.duckdb", "notes.txt").stdout
    assert "0 documents added, 0 replaced, 3 unchanged; 0 chunks embedded" in again
    Path("notes.txt").write_text("\n".join([*NOTES[:-1], "the dog sat"]))
    monkeypatch.delenv("MINISBERT_MODEL")  # the model is the one that made the database
    changed = run("index", "add", "notes.duckdb", "notes.txt", "more.txt").stdout
    assert "1 document added, 1 replaced, 2 unchanged; 2 chunks embedded; 4 documents in all" in changed
    assert sorted(os.listdir()) == ["articles.csv", "more.txt", "notes.duckdb", "notes.txt"]
    Path("notes.duckdb").rename("moved.duckdb")
    found = {hit["id"]: hit for hit in told("search", "moved.duckdb", "soup")["hits"]}
    assert found["notes.txt:4"]["text"] == "the dog sat" and found["more.txt:1"]["source"] == "more.txt"


def test_options_decide_what_a_document_is():
    Path("notes.md").write_text("\n".join(NOTES))
    built = run("index", "build", "one.duckdb", "notes.md", "--chunk-tokens", "8", "--overlap", "2").stdout
    assert built.startswith("one.duckdb: 1 document added")
    assert "not 9" in refused("index", "build", "one.duckdb", "notes.md", "--chunk-tokens", 9)
    run("index", "build", "two.duckdb", "articles.csv", "--text-column", "body", "--id-column", "year")
    with EmbeddingDatabase.open("two.duckdb") as index:
        assert index.get("2019").metadata == {"id": "2", "lang": "fr"}


def test_info_says_what_is_in_it(both):
    lines = run("index", "info", "articles.duckdb").stdout.splitlines()
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in lines)
    assert shown["documents"] == shown["chunks"] == "3" and shown["chunk tokens"] == "16"
    assert shown["fields"] == "lang (3), year (3)" and shown["sources"] == "articles.csv (3)"


def test_remove_by_id_and_by_condition(both):
    assert "nothing was removed" in refused("index", "remove", "notes.duckdb", "notes.txt:1", "nope")
    assert run("index", "remove", "notes.duckdb", "notes.txt:1").stdout == "notes.duckdb: 1 document removed, 2 left\n"
    assert "2 documents removed, 1 left" in run("index", "remove", "articles.duckdb", "--where", "lang = 'en'").stdout
    assert run("index", "remove", "articles.duckdb", "2").stdout.endswith("0 left\n")
    assert "contains no documents yet" in refused("search", "articles.duckdb", "cat")


@pytest.mark.parametrize(
    ("line", "code", "key"),
    [
        ("index build new.duckdb bad.csv", 1, "documents[1] (bad.csv): the id '1'"),
        ("index build new.duckdb stars.csv", 1, "--text-column NAME"),
        ("index build new.duckdb missing.txt", 1, "missing.txt: No such file"),
        ("index build new.duckdb empty.txt empty.csv", 1, "empty.txt, empty.csv: no documents"),
        ("index add notes.duckdb more.txt --model other", 1, "two models"),
        ("index build notes.txt more.txt", 1, "notes.txt: not a DuckDB file"),
        ("search no.duckdb cat", 1, "no.duckdb: does not exist; create it"),
        ("index add no.duckdb more.txt", 1, "no.duckdb: does not exist; create it"),
        ("index remove notes.duckdb", 2, "Nothing to remove"),
    ],
)
def test_what_is_refused(both, line, code, key):
    write_model(Path("other"), seed=1)
    for name, content in (
        ("bad.csv", "id,text\n1,soup\n1,tea\n"), ("empty.txt", "\n\n"), ("empty.csv", "id,text\n"),
        ("stars.csv", "id,stars\n1,5\n"),
    ):  # fmt: skip
        Path(name).write_text(content)
    assert key in refused(*line.split(), code=code)
    assert not Path("new.duckdb").exists() and Path("notes.txt").read_text().startswith("i love soup")


def test_what_is_missing_is_asked_for_in_one_line(both, monkeypatch):
    for package, line in (("duckdb", "search notes.duckdb cat"), ("pyarrow", "index build x.duckdb notes.txt")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            said = refused(*line.split())
        assert said == f"Error: the embedding database needs {package}: pip install -e '.[search]'\n"
    assert not Path("x.duckdb").exists()


# ------------------------------------------------------------------------------------------------ search


def test_search_prints_what_the_index_finds(model, both, monkeypatch):
    shown = run("search", "articles.duckdb", "the mat").stdout.splitlines()
    assert shown[0].split() == ["score", "id", "characters", "text"] and len(shown) == 4
    with EmbeddingDatabase.open("articles.duckdb", SentenceEncoder(model)) as index:
        hits = index.search("the mat")
    for line, hit in zip(shown[1:], hits, strict=True):
        score, key, place, text = re.split(r"  +", line)
        assert abs(float(score) - hit.score) <= 0.51e-4 + 1e-6
        assert (key, place, text) == (hit.id, f"{hit.start}-{hit.stop}", hit.text)
    # a long document is there once, with its best chunk, on one line
    Path("long.md").write_text("the dog ran.\n\n" * 40 + "i love soup \x1b[31m.\n" + "the dog ran. " * 40)
    run("index", "build", "long.duckdb", "long.md", "articles.csv", "--text-column", "body")
    monkeypatch.setenv("COLUMNS", "40")
    shown = run("search", "long.duckdb", "i love soup").stdout
    assert "\x1b" not in shown and len(shown.splitlines()) == 5 and shown.count("long.md") == 1
    assert all(wcswidth(line) <= 60 for line in shown.splitlines())


def test_conditions_and_duckdbs_own_caret(both):
    none = ["search", "articles.duckdb", "cat", "--where", "year > 3000"]
    assert run(*none).stdout == "no document meets the condition\n" and told(*none)["hits"] == []
    said = refused("search", "articles.duckdb", "cat", "--where", "lang = 'en' AND yaer > 2000")
    assert said.startswith("Error: articles.duckdb: where: ") and 'Candidate bindings: "year"' in said
    line, caret = said.splitlines()[-2:]
    assert line[caret.index("^") :].startswith("yaer > 2000")
