"""``minisbert route``: what its verbs print, refuse and leave behind.

Everything runs on a random model of some 4,000 weights, for which "5 5 5" is like nothing else.
"""

import re
from pathlib import Path

import pytest
from running import refused, run, stand_in
from running import told as said
from tiny import write_model

from minisbert.cli.table import display_width
from minisbert.search import read_routes

ROUTES = """routes:
  soup:
    - soup!
    - i love the soup
  pets:
    examples: [the cat sat, the dog ran]
    metadata: {team: zoo}
threshold: 0.95
"""
QUERIES = [
    ("soup", "i love the soup!"),
    ("soup", "soup?"),
    ("pets", "the cat ran"),
    ("pets", "the cat sat on the mat"),
    ("none", "5 5 5"),
    ("none", "6 5"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("route-cli") / "tiny-model")


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    stand_in(tmp_path / "work", monkeypatch, model)
    files = {
        "routes.yaml": ROUTES,
        "plain.yaml": ROUTES.replace("threshold: 0.95\n", ""),
        "percent.yaml": "pets: {examples: [the cat sat], threshold: 2}",
        "twice.yaml": "pets: [the cat sat]\npets: [the dog ran]",
        "queries.tsv": "label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in QUERIES),
        "unlike.csv": "intent,query\npets,the cat sat\npets,the cat ran\nfish,5 5 5\n-,6 5\n",
        "texts.txt": "i love soup\nthe cat sat\n",
    }
    for name, text in files.items():
        Path(name).write_text(text)


def told(*arguments):
    return said("route", *arguments)


def test_a_table_of_choices(monkeypatch):
    head, cat, five, empty, _, legend = run(
        "route", "ask", "routes.yaml", "the cat ran", "5 5 5", ""
    ).stdout.splitlines()
    assert head.split() == ["route", "score", "needs", "query", "most", "similar", "example"]
    assert re.match(r"pets +0\.99\d\d +0\.95 +the cat ran +the dog ran$", cat)
    assert re.match(r"none \(soup\) +0\.8\d\d\d +0\.95 +5 5 5 +i love the soup$", five)
    assert empty.startswith("none (") and "(empty)" in empty and legend.startswith("none (x): out-of-scope")
    assert "none" not in run("route", "ask", "routes.yaml", "the cat ran").stdout
    assert run("route", "ask", "plain.yaml", "-i", "texts.txt").stdout.splitlines()[1].split()[2] == "any"
    monkeypatch.setenv("COLUMNS", "90")
    Path("wide.yaml").write_text(f"{'w' * 50}: [好き 好き 好き 好き 好き 好き 好き 好き 好き]\n")
    shown = run("route", "ask", "wide.yaml", "the cat sat on the mat and the dog ran " * 9, "a\x1b[31m\n b").stdout
    assert max(map(display_width, shown.splitlines())) <= 90 and "\x1b" not in shown


def test_answers_as_json_and_with_all_scores():
    choice, other = told("ask", "routes.yaml", "the cat ran", "5 5 5", "--all")["choices"]
    assert (choice["route"], choice["best"], choice["example"], choice["runner_up"]) == (
        "pets", "pets", "the dog ran", "soup"
    )  # fmt: skip
    assert choice["metadata"] == {"team": "zoo"} and choice["threshold"] == 0.95
    assert list(choice["scores"]) == ["pets", "soup"] and choice["scores"]["pets"] == choice["score"]
    assert other["route"] is None and other["best"] == "soup"
    shown = run("route", "ask", "routes.yaml", "the cat ran", "--all").stdout.splitlines()
    assert shown[3] == "the cat ran" and [line.split()[0] for line in shown[4:]] == ["pets", "soup"]
    asked = told("ask", "routes.yaml", "-i", "texts.txt")["choices"]
    assert [one["query"] for one in asked] == ["i love soup", "the cat sat"] and "scores" not in asked[0]


def test_options_override_the_file():
    assert told("ask", "routes.yaml", "5 5 5", "--threshold", "-1")["choices"][0]["route"] == "soup"
    Path("own.yaml").write_text("soup: {examples: [soup!], threshold: 0.999}")
    assert told("ask", "own.yaml", "5 5 5", "--threshold", "-1")["choices"][0]["route"] == "soup"
    found, centroid = (told("ask", "routes.yaml", "the cat ran", *more) for more in ([], ["--scoring", "centroid"]))
    assert centroid["scoring"] == "centroid" and centroid["choices"][0]["score"] != found["choices"][0]["score"]
    assert told("ask", "queries.tsv", "the cat sat")["choices"][0]["best"] == "pets"  # a label is a route
    Path("empty.txt").write_text("")
    assert told("ask", "routes.yaml", "-i", "empty.txt")["choices"] == []
    assert run("route", "ask", "routes.yaml", "-i", "empty.txt").stdout.split()[0] == "route"
    labels = ["unlike.csv", "--none-label", "-", "--unknown-is-none"]
    shown = run("route", "evaluate", "routes.yaml", *labels, "--show", "0").stdout
    assert "3 queries, 2 of them out-of-scope; 1 more are examples and left out" in shown and "lowest F1" not in shown


def test_fit_writes_a_file_that_evaluates_better(tmp_path, sklearn):
    before = told("evaluate", "plain.yaml", "queries.tsv")
    result = run("route", "fit", "plain.yaml", "queries.tsv", "-o", "fitted.yaml")
    assert result.stderr == "wrote fitted.yaml\n"
    assert "plain.yaml: 2 routes, 4 examples, nearest example\n6 queries, 2 of them out-of-scope\n" in result.stdout
    assert "held out (95 % interval)\n  accuracy " in result.stdout
    after = told("evaluate", "fitted.yaml", "queries.tsv")
    assert before["none_recall"]["mean"] == 0 and before["labels"]["accuracy"]["mean"] == 4 / 6
    assert after["labels"]["accuracy"]["mean"] == 1
    table = read_routes("fitted.yaml")
    assert 0.95 < table.threshold < 0.985 and table.origin.model == "tiny-model" and table.fitted["queries"] == "6"
    assert dict(table.routes[1].metadata) == {"team": "zoo"}
    assert "already exists" in refused("route", "fit", "plain.yaml", "queries.tsv", "-o", "fitted.yaml")

    other = write_model(tmp_path / "other", seed=1)
    for arguments in (["ask", "fitted.yaml", "x"], ["evaluate", "fitted.yaml", "queries.tsv"]):
        assert "is of the model 'tiny-model'" in refused("route", *arguments, "--model", other)
    run("route", "ask", "fitted.yaml", "x", "--model", other, "--threshold", "0.5")  # which was not fitted
    run("route", "fit", "fitted.yaml", "queries.tsv", "--model", other, "--objective", "balanced")

    run("route", "fit", "fitted.yaml", "queries.tsv", "-o", "fitted.yml", "--scoring", "centroid")
    again = ["route", "ask", "fitted.yml", "x", "--scoring", "nearest"]
    assert "were fitted for the scoring 'centroid'" in refused(*again, code=2)
    run(*again, "--threshold", "0.5")


def test_fit_to_a_precision(sklearn):
    found = told("fit", "routes.yaml", "queries.tsv", "--objective", "precision", "--precision", "0.6", "--per-route")
    assert found["fitted"]["objective"] == "precision 0.6" and found["threshold"] < 0.87  # all taken: 4 of 6 are right
    assert set(found["own"]) == {"soup"}  # 2 of its 4 are right; of the 2 of pets both


def test_evaluate_lays_out_every_figure():
    shown = run("route", "evaluate", "routes.yaml", "queries.tsv", "--threshold", "0.9999", "--mistakes", "2").stdout
    assert "6 queries, 2 of them out-of-scope" in shown
    figures = dict(re.findall(r"^ +(\S.*?)  +([\d.]+)", shown, re.MULTILINE))
    assert figures["accuracy"] == "33.33" and figures["out-of-scope queries rejected"] == "100.00"
    assert figures["the same, if nothing were rejected"] == "100.00" and figures["queries routed"] == "0.00"
    assert "of those, correct" not in figures and re.search(r"\n +2  pets -> none\n", shown)
    listed = [float(score) for score in re.findall(r"^ +(0\.\d{4})  ", shown, re.MULTILINE)]
    assert listed == sorted(listed, reverse=True) and len(listed) == 2

    found = told("evaluate", "routes.yaml", "queries.tsv", "--threshold", "-1")
    assert (found["queries"], found["out_of_scope"], found["left_out"]) == (6, 2, 0)
    assert [row["expected"] for row in found["results"]] == [x if x != "none" else None for x, _ in QUERIES]
    assert sum(row["route"] != row["expected"] for row in found["results"]) == 2
    none = found["labels"]["classes"]["none"]
    assert (none["texts"], none["predicted"]) == (2, 0) and none["precision"]["mean"] is None
    assert found["none_recall"]["mean"] == 0


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("ask routes.yaml", 2, "Nothing to route"),
        ("ask no.yaml x", 2, "'no.yaml' does not exist"),
        ("ask routes.yaml x --threshold 60", 1, "--threshold must be"),
        ("ask percent.yaml x", 1, "percent.yaml: routes.pets.threshold"),
        ("ask percent.yaml x --threshold 60", 1, "--threshold must be"),
        ("evaluate twice.yaml queries.tsv", 1, "twice.yaml: the key 'pets'"),
        ("evaluate routes.yaml unlike.csv --none-label -", 1, "--unknown-is-none"),
        ("evaluate routes.yaml queries.tsv --no-header", 2, "--columns"),
        ("fit routes.yaml queries.tsv -o x.txt", 2, "-o must end in .yaml"),
        ("fit routes.yaml queries.tsv -o no/x.yaml", 1, "the folder no does not exist"),
    ],
)
def test_what_is_refused(line, code, words):
    assert words in refused("route", *line.split(), code=code)
