"""``minisbert index`` and ``minisbert search``: what they print, refuse, and leave behind.

Everything runs on a random model of some 4,000 weights.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import refused, run
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.cli.table import display_width
from minisbert.search.database import EmbeddingDatabase

NOTES = ["i love soup", "", "the cat sat on the mat", "the dog ran"]
ARTICLES = "id,body,lang,year\n1,the cat sat,en,2021\n2,the dog ran on the mat,fr,2019\n3,i love the cat,en,2018\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("search-cli") / "tiny-model")


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model, duckdb):
    """Each test stands in a folder with some files, and the tiny model is the default."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    monkeypatch.setenv("COLUMNS", "100")
    write_search_files()


def write_search_files():
    """The files that the examples of help use."""
    Path("notes.txt").write_text("\n".join(NOTES) + "\n")
    Path("more.txt").write_text("soup on the mat\n")
    Path("articles.csv").write_text(ARTICLES)
    Path("posts.jsonl").write_text('{"post": {"title": "the soup"}}\n')


def build_both():
    """The databases that the examples of help use."""
    run("index", "build", "notes.duckdb", "notes.txt")
    run("index", "build", "articles.duckdb", "articles.csv", "--text-column", "body")


# ------------------------------------------------------------------------------------------------ index


def test_build_again_add_and_change(monkeypatch):
    first = run("index", "build", "notes.duckdb", "notes.txt")
    assert first.stdout == (
        "notes.duckdb: 3 documents added, 0 replaced, 0 unchanged; 3 chunks embedded; 3 documents in all\n"
    )
    assert first.stderr == ""
    again = run("index", "build", "notes.duckdb", "notes.txt").stdout
    assert "0 documents added, 0 replaced, 3 unchanged; 0 chunks embedded" in again
    Path("notes.txt").write_text("\n".join([*NOTES[:-1], "the dog sat"]))
    monkeypatch.delenv("MINISBERT_MODEL")  # the model is the one that made the database
    changed = run("index", "add", "notes.duckdb", "notes.txt", "more.txt").stdout
    assert "1 document added, 1 replaced, 2 unchanged; 2 chunks embedded; 4 documents in all" in changed
    with EmbeddingDatabase.open("notes.duckdb") as index:
        assert index.get("notes.txt:4").text == "the dog sat" and index.get("more.txt:1").source == "more.txt"
    assert sorted(os.listdir()) == ["articles.csv", "more.txt", "notes.duckdb", "notes.txt", "posts.jsonl"]


def test_the_bar_goes_to_stderr_and_counts_all_documents():
    shown = run("index", "build", "notes.duckdb", "notes.txt", "--progress", "--block-documents", "2")
    assert "3/3" in shown.stderr and shown.stdout.startswith("notes.duckdb: 3 documents added")


def test_options_decide_what_a_document_is():
    run("index", "build", "one.duckdb", "notes.txt", "--text-as", "file", "--chunk-tokens", "8", "--overlap", "2")
    about = json.loads(run("index", "info", "one.duckdb", "--json").stdout)
    assert about["documents"] == 1 and about["chunks"] > 1
    assert about["settings"] | {"similarity": ""} == {
        "chunk_tokens": 8,
        "overlap": 2,
        "document_prompt": "",
        "query_prompt": "",
        "similarity": "",
    }
    assert "built with --chunk-tokens = 8, not 9" in refused(
        "index", "build", "one.duckdb", "notes.txt", "--chunk-tokens", 9
    )
    run("index", "build", "two.duckdb", "articles.csv", "--text-column", "body", "--id-column", "year")
    with EmbeddingDatabase.open("two.duckdb") as index:
        assert index.get("2019").metadata == {"id": "2", "lang": "fr"}


def test_info_says_what_is_in_it(model):
    build_both()
    shown = dict(
        re.split(r"  +", line, maxsplit=1) for line in run("index", "info", "articles.duckdb").stdout.splitlines()
    )
    assert shown["documents"] == "3" and shown["chunks"].startswith("3, of at most 16 tokens")
    assert shown["vectors"] == "12 dimensions, float32, compared by cosine"
    assert shown["metadata"] == "lang (3), year (3)" and shown["sources"] == "articles.csv (3)"
    about = json.loads(run("index", "info", "articles.duckdb", "--json").stdout)
    assert about["model"] == str(model.resolve()) and about["fields"] == {"lang": 3, "year": 3}
    assert about["width"] == 12 and about["file_bytes"] == Path("articles.duckdb").stat().st_size


def test_remove_by_id_and_by_condition():
    build_both()
    assert "no document 'nope'; nothing was removed" in refused(
        "index", "remove", "notes.duckdb", "notes.txt:1", "nope"
    )
    assert run("index", "remove", "notes.duckdb", "notes.txt:1").stdout == "notes.duckdb: 1 document removed, 2 left\n"
    assert "2 documents removed, 1 left" in run("index", "remove", "articles.duckdb", "--where", "lang = 'en'").stdout
    assert "Nothing to remove" in refused("index", "remove", "notes.duckdb", code=2)
    assert run("index", "remove", "articles.duckdb", "2").stdout.endswith("0 left\n")
    assert "contains no documents yet" in refused("search", "articles.duckdb", "cat")


def test_mistakes_in_files_show_before_the_work_begins():
    Path("bad.csv").write_text("id,text\n1,soup\n1,tea\n")
    Path("empty.txt").write_text("\n\n")
    Path("empty.csv").write_text("id,text\n")
    Path("stars.csv").write_text("id,stars\n1,5\n")
    for arguments, message in (
        (["bad.csv"], "documents[1] (bad.csv): the id '1' occurs twice"),
        (["notes.txt", "bad.csv"], "documents[4] (bad.csv): the id '1' occurs twice"),
        (["notes.txt", "notes.txt"], "is a file listed twice?"),
        (["stars.csv"], "there are 1 'id', 2 'stars'; --text-column NAME says which"),
        (["missing.txt"], "missing.txt: No such file"),
        (["missing.parquet"], "missing.parquet: No such file"),
        (["empty.txt", "empty.csv"], "empty.txt, empty.csv: no documents"),
        (["articles.csv", "--text-column", "body", "--id-column", "nope"], "no column 'nope'"),
    ):
        assert message in refused("index", "build", "new.duckdb", *arguments)
    assert not Path("new.duckdb").exists()
    assert "Missing argument 'FILES...'" in refused("index", "build", "new.duckdb", code=2)


def test_another_model_and_what_is_no_database(tmp_path):
    build_both()
    other = write_model(tmp_path / "other", seed=1)
    for verb in (
        ["search", "notes.duckdb", "cat"],
        ["index", "add", "notes.duckdb", "more.txt"],
        ["index", "build", "notes.duckdb", "more.txt"],
    ):
        assert "vectors of two models cannot be compared" in refused(*verb, "--model", other)
    for verb in (
        ["search", "notes.txt", "cat"],
        ["index", "info", "notes.txt"],
        ["index", "remove", "notes.txt", "1"],
        ["index", "build", "notes.txt", "more.txt"],
    ):
        assert "notes.txt: not a DuckDB file" in refused(*verb)
    for verb in (
        ["search", "no.duckdb", "cat"],
        ["index", "info", "no.duckdb"],
        ["index", "add", "no.duckdb", "more.txt"],
        ["index", "remove", "no.duckdb", "1"],
    ):
        assert "no.duckdb: does not exist; create it with `minisbert index build no.duckdb FILES...`" in refused(*verb)
    assert Path("notes.txt").read_text().startswith("i love soup")


def test_without_duckdb_one_line_says_what_to_install(monkeypatch):
    build_both()
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for verb in (
        ["search", "notes.duckdb", "cat"],
        ["index", "info", "notes.duckdb"],
        ["index", "remove", "notes.duckdb", "1"],
        ["index", "build", "x.duckdb", "notes.txt"],
        ["index", "add", "notes.duckdb", "notes.txt"],
    ):
        assert refused(*verb) == "Error: the embedding database needs duckdb: pip install -e '.[search]'\n"


# ------------------------------------------------------------------------------------------------ search


def test_search_prints_what_the_index_finds(model):
    build_both()
    shown = run("search", "articles.duckdb", "the mat").stdout.splitlines()
    assert shown[0].split() == ["score", "id", "characters", "text"] and len(shown) == 4
    with EmbeddingDatabase.open("articles.duckdb", SentenceEncoder(model)) as index:
        hits = index.search("the mat")
    for line, hit in zip(shown[1:], hits, strict=True):
        score, key, place, text = re.split(r"  +", line)
        assert abs(float(score) - hit.score) <= 0.51e-4 + 1e-6 and key == hit.id
        assert place == f"{hit.start}-{hit.stop}" and text == hit.text


def test_search_as_json_and_under_a_condition():
    build_both()
    found = json.loads(
        run("search", "articles.duckdb", "cat", "-k", 1, "--where", "lang = 'en' AND year >= 2020", "--json").stdout
    )
    (hit,) = found.pop("hits")
    assert found == {
        "query": "cat",
        "where": "lang = 'en' AND year >= 2020",
        "top_k": 1,
        "similarity_fn_name": "cosine",
    }
    assert hit.pop("score") <= 1
    assert hit == {
        "id": "1",
        "text": "the cat sat",
        "start": 0,
        "stop": 11,
        "chunk": 0,
        "metadata": {"lang": "en", "year": "2021"},
        "source": "articles.csv",
    }
    none = ["search", "articles.duckdb", "cat", "--where", "year > 3000"]
    assert run(*none).stdout == "no document meets the condition\n"
    assert json.loads(run(*none, "--json").stdout)["hits"] == []


def test_conditions_that_are_refused():
    build_both()
    said = refused("search", "articles.duckdb", "cat", "--where", "lang = 'en'; DROP TABLE documents")
    assert said.startswith("Error: articles.duckdb: where: ") and "one condition" in said
    said = refused("search", "articles.duckdb", "cat", "--where", "lang = 'en' AND yaer > 2000")
    assert "articles.duckdb: where: " in said and 'Candidate bindings: "year"' in said
    line, caret = said.splitlines()[-2:]
    assert line[caret.index("^") :].startswith("yaer > 2000")  # DuckDB's own caret
    assert "x>=1" in refused("search", "articles.duckdb", "cat", "-k", "0", code=2)


def test_a_long_document_shows_its_best_chunk_on_one_line(monkeypatch):
    Path("long.md").write_text("the dog ran.\n\n" * 40 + "i love soup \x1b[31m.\n" + "the dog ran. " * 40)
    run("index", "build", "long.duckdb", "long.md", "articles.csv", "--text-as", "file", "--text-column", "body")
    for columns in ("100", "40"):
        monkeypatch.setenv("COLUMNS", columns)
        shown = run("search", "long.duckdb", "i love soup").stdout
        assert "\x1b" not in shown and len(shown.splitlines()) == 5
        assert all(display_width(line) <= max(int(columns), 60) for line in shown.splitlines())
    assert run("search", "long.duckdb", "i love soup").stdout.count("long.md") == 1  # a document once


def test_an_interrupted_build_is_finished_by_the_same_command(model):
    """A real process that is killed between two blocks, as far as it can be told from outside."""
    Path("many.txt").write_text("".join(f"the cat sat on mat {i}\n" for i in range(300)))
    command = [sys.executable, "-m", "minisbert", "index", "build", "many.duckdb", "many.txt"]
    with subprocess.Popen([*command, "--block-documents", "3", "--progress"], stderr=subprocess.PIPE) as process:
        while b"/300 [" not in process.stderr.read(40):
            pass
        process.kill()
    done = run(*command[3:], "--block-documents", "3").stdout
    added, unchanged = map(int, re.search(r"(\d+) documents? added, 0 replaced, (\d+) unchanged", done).groups())
    assert added + unchanged == 300 and done.endswith("300 documents in all\n")
    assert "0 documents added, 0 replaced, 300 unchanged" in run(*command[3:]).stdout


# ------------------------------------------------------------------------------------------------ help


def test_help_needs_neither_duckdb_nor_numpy():
    code = (
        "import sys; from minisbert.cli import search; "
        "print(sorted({'duckdb', 'minisbert.search.database'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_database_may_be_copied_and_moved():
    build_both()
    Path("elsewhere").mkdir()
    shutil.move("notes.duckdb", "elsewhere/notes.duckdb")
    assert "i love soup" in run("search", "elsewhere/notes.duckdb", "soup").stdout


def test_true_as_a_csv_writes_it_is_found(model):
    Path("b.csv").write_text("text,active\ncats sleep,True\ndogs run,FALSE\nbirds fly,true\nfish swim,yes\n")
    run("index", "build", "b.duckdb", "b.csv", "--no-progress", "--model", model)
    Path("c.csv").write_text("text,active\ncats sleep,True\ndogs run,FALSE\n")
    run("index", "build", "c.duckdb", "c.csv", "--no-progress", "--model", model)
    for file, condition, expected in (
        ("c", "active", {"cats sleep"}),
        ("c", "active = FALSE", {"dogs run"}),
        ("b", "active = 'True'", {"cats sleep"}),  # not all of its cells are true or false
        ("b", "lower(active) IN ('true', 'yes')", {"cats sleep", "birds fly", "fish swim"}),
    ):
        found = run("search", f"{file}.duckdb", "pets", "--where", condition, "--json", "--model", model).stdout
        assert {hit["text"] for hit in json.loads(found)["hits"]} == expected
