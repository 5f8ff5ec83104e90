"""``minisbert route``: a verb and a group in one; what it prints, refuses and leaves behind.

Everything runs on a random model of some 4,000 weights, for which "5 5 5" is like nothing else.
"""

import json
import re
import shlex
from pathlib import Path

import pytest
from running import refused, run
from tiny import write_model

from minisbert.cli.route import VERBS
from minisbert.cli.table import display_width
from minisbert.search.route_files import read_routes

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
    """Each test stands in a folder with some files, and the tiny model is the default."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    monkeypatch.setenv("COLUMNS", "100")
    write_route_files()


def write_route_files():
    """The files that the examples of help use."""
    Path("routes.yaml").write_text(ROUTES)
    Path("queries.tsv").write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in QUERIES))
    Path("texts.txt").write_text("i love soup\nthe cat sat\n")
    labelled = [f"{label},{start} {x}" for label, start in (("cat", "the cat"), ("soup", "i love")) for x in "abcdefgh"]
    Path("train.tsv").write_text("label,text\n".replace(",", "\t") + "\n".join(labelled).replace(",", "\t") + "\n")


def asked(*arguments):
    return json.loads(run("route", *arguments, "--json").stdout)


# ------------------------------------------------------------------------------------------- a verb and a group


def test_help_is_one_page_for_both(monkeypatch):
    shown = run("route", "--help").stdout
    assert shown.startswith(
        "Usage: main route [OPTIONS] ROUTES [TEXT]...\n       main route fit|evaluate|draw ...\n"
    ) or re.match(r"Usage: \S+ route \[OPTIONS\] ROUTES \[TEXT\]\.\.\.\n +\S+ route fit\|evaluate\|draw \.\.\.", shown)
    assert "--threshold" in shown and "Commands:\n  fit" in shown and "ask" not in re.findall(r"\w+", shown)
    assert run("route", "routes.yaml", "--help").stdout == shown == run("route", "-h").stdout
    for verb, (_, words) in VERBS.items():
        assert words in shown
        page = run("route", verb, "--help").stdout
        assert re.search(r"Examples:\n +minisbert route " + verb, page) and f"route {verb} [OPTIONS]" in page


def test_what_is_no_verb_is_a_file(capsys):
    expected = run("route", "routes.yaml", "the cat ran").stdout
    for arguments in (["--", "routes.yaml", "the cat ran"], ["./routes.yaml", "the cat ran"]):
        assert run("route", *arguments).stdout == expected
    Path("fit").write_text("x")
    assert "Missing argument 'ROUTES'" in refused("route", "fit", code=2)
    for name in ("fit", "evaluat", "ask"):
        Path(name).write_text("x")
        assert "expected a name that ends in .yaml" in refused("route", f"./{name}", "x")
    assert "expected a name that ends in .yaml" in refused("route", "evaluat", "x")
    Path("evaluat").unlink()
    assert "Did you mean 'evaluate'?" in refused("route", "evaluat", "routes.yaml", "queries.tsv", code=2)
    wrong = refused("route", "no.yaml", "x", code=2)
    assert "File 'no.yaml' does not exist" in wrong and " route ask" not in wrong
    assert "Nothing to route" in refused("route", "routes.yaml", code=2)
    assert "not both" in refused("route", "routes.yaml", "x", "-i", "texts.txt", code=2)
    assert "No such option" in refused("route", "--frobnicate", "routes.yaml", "x", code=2)


# --------------------------------------------------------------------------------------------------------- ask


def test_a_table_of_choices():
    result = run("route", "routes.yaml", "the cat ran", "5 5 5", "")
    head, cat, five, empty, _, legend = result.stdout.splitlines()
    assert head.split() == ["route", "score", "needs", "query", "most", "similar", "example"]
    assert re.match(r"pets +0\.99\d\d +0\.95 +the cat ran +the dog ran$", cat)
    assert re.match(r"none \(soup\) +0\.8\d\d\d +0\.95 +5 5 5 +i love the soup$", five)
    assert "(empty)" in empty and legend == "none (x): out-of-scope; x is the closest route"
    assert result.stderr == ""
    assert "none" not in run("route", "routes.yaml", "the cat ran").stdout


def test_json_and_all_scores():
    choice, other = asked("routes.yaml", "the cat ran", "5 5 5", "--all")["choices"]
    assert choice["route"] == choice["best"] == "pets" and choice["example"] == "the dog ran"
    assert choice["metadata"] == {"team": "zoo"} and choice["threshold"] == 0.95 and choice["runner_up"] == "soup"
    assert list(choice["scores"]) == ["pets", "soup"] and choice["scores"]["pets"] == choice["score"]
    assert choice["margin"] == pytest.approx(choice["score"] - choice["scores"]["soup"], abs=1e-8)
    assert other["route"] is None and other["best"] == "soup"
    assert "scores" not in asked("routes.yaml", "x")["choices"][0]
    shown = run("route", "routes.yaml", "the cat ran", "5 5 5", "--all").stdout.splitlines()
    assert shown[0] == "the cat ran" and shown[1].startswith("> pets  ") and shown[1].endswith("like 'the dog ran'")
    assert shown[2].startswith("  soup") and shown[3] == "" and shown[-1] == "> none (out-of-scope)"
    Path("one.yaml").write_text("pets: [the cat sat]")
    assert asked("one.yaml", "x")["choices"][0]["margin"] is None


def test_texts_from_a_file_and_what_is_said_in_place_of_the_file():
    choices = asked("routes.yaml", "-i", "texts.txt")["choices"]
    assert [one["query"] for one in choices] == ["i love soup", "the cat sat"]
    assert asked("routes.yaml", "5 5 5", "--threshold", "-1")["choices"][0]["route"] == "soup"
    centroid = asked("routes.yaml", "the cat ran", "--scoring", "centroid")
    assert centroid["scoring"] == "centroid"
    assert centroid["choices"][0]["score"] != asked("routes.yaml", "the cat ran")["choices"][0]["score"]
    assert asked("train.tsv", "the cat x")["choices"][0]["best"] == "cat"
    assert run("route", "train.tsv", "the cat x").stdout.splitlines()[1].split()[2] == "any"


def test_a_table_fits_the_terminal(monkeypatch):
    Path("wide.yaml").write_text(f"{'w' * 50}: [好き 好き 好き 好き 好き 好き 好き 好き 好き]\n")
    monkeypatch.setenv("COLUMNS", "90")
    lines = run(
        "route", "wide.yaml", "the cat sat on the mat and the dog ran " * 9, "a\x1b[31m\n b"
    ).stdout.splitlines()
    assert max(map(display_width, lines)) <= 90 and "\x1b" not in "".join(lines)


# --------------------------------------------------------------------------------------------------------- fit


def test_fit_writes_a_file_that_evaluates_better():
    Path("plain.yaml").write_text(ROUTES.replace("threshold: 0.95\n", ""))
    before = json.loads(run("route", "evaluate", "plain.yaml", "queries.tsv", "--json").stdout)
    result = run("route", "fit", "plain.yaml", "queries.tsv", "-o", "fitted.yaml", "--one")
    assert result.stderr == "wrote fitted.yaml\n"
    assert "plain.yaml: 2 routes, 4 examples, nearest example\n6 queries, 2 of them out-of-scope\n" in result.stdout
    assert "objective  accuracy" in result.stdout and "held out" in result.stdout
    after = json.loads(run("route", "evaluate", "fitted.yaml", "queries.tsv", "--json").stdout)
    assert before["none_recall"][0] == 0 and before["accuracy"][0] == 4 / 6 and after["accuracy"][0] == 1
    table = read_routes("fitted.yaml")
    assert 0.95 < table.threshold < 0.985 and table.origin.model == "tiny-model" and table.fitted["queries"] == 6
    assert dict(table.routes[1].metadata) == {"team": "zoo"}
    assert "already exists" in refused("route", "fit", "plain.yaml", "queries.tsv", "-o", "fitted.yaml")
    run("route", "fit", "plain.yaml", "queries.tsv", "-o", "fitted.yaml", "--force", "--scoring", "centroid")
    assert read_routes("fitted.yaml").scoring == "centroid"
    assert "were fitted for the scoring 'centroid'" in refused(
        "route", "fitted.yaml", "x", "--scoring", "nearest", code=2
    )
    run("route", "fitted.yaml", "x", "--scoring", "nearest", "--threshold", "0.5")
    run("route", "fit", "fitted.yaml", "queries.tsv", "-o", "again.json", "--scoring", "nearest")
    assert read_routes("again.json").scoring == "nearest"


def test_fitted_thresholds_are_refused_with_another_model(tmp_path):
    run("route", "fit", "routes.yaml", "queries.tsv", "-o", "fitted.yaml")
    other = write_model(tmp_path / "other", seed=1)
    for arguments in (["fitted.yaml", "x"], ["evaluate", "fitted.yaml", "queries.tsv"]):
        assert "is of the model 'tiny-model'" in refused("route", *arguments, "--model", other)
    run("route", "fitted.yaml", "x", "--model", other, "--threshold", "0.5")  # a threshold that was not fitted
    run("route", "fit", "fitted.yaml", "queries.tsv", "--model", other, "--one", "--objective", "balanced")


def test_fit_to_the_examples_alone_and_to_a_precision():
    found = json.loads(run("route", "fit", "routes.yaml", "--one", "--json").stdout)
    assert 0.938 < found["threshold"] < 0.983 and found["fitted"]["queries"] == 8 and found["own"] == {}
    assert found["held_out"]["accuracy"][0] == found["seen_accuracy"] == 1 and found["gain_of_own"] is None
    found = json.loads(
        run(
            "route", "fit", "routes.yaml", "queries.tsv", "--objective", "precision", "--precision", "0.6", "--json"
        ).stdout
    )
    assert found["fitted"]["precision"] == 0.6 and found["threshold"] < 0.87  # all taken: 4 of 6 are right
    said = run("route", "fit", "routes.yaml", "queries.tsv", "--objective", "precision", "--precision", "0.6").stdout
    assert "objective  precision of 0.6" in said
    found = json.loads(run("route", "fit", "routes.yaml", "queries.tsv", "--per-route", "--json").stdout)
    assert len(found["gain_of_own"]) == 3


def test_what_fit_refuses():
    assert "-o must end in .yaml" in refused("route", "fit", "routes.yaml", "-o", "x.txt", code=2)
    assert "the folder no does not exist" in refused("route", "fit", "routes.yaml", "-o", "no/x.yaml")
    assert "one threshold for all" in refused("route", "fit", "routes.yaml", "--objective", "precision", "--per-route")
    Path("one.yaml").write_text("pets: [the cat sat]")
    assert "nothing to compare" in refused("route", "fit", "one.yaml")
    Path("bad.yaml").write_text("pets: [the cat sat]\npets: [the dog ran]")
    for arguments in (["bad.yaml", "x"], ["fit", "bad.yaml"], ["evaluate", "bad.yaml", "queries.tsv"]):
        assert "bad.yaml, line 2: 'pets' already occurs on line" in refused("route", *arguments)
    Path("other.csv").write_text("label,text\npets,x\nfish,y\n")
    assert "other.csv: 'fish' (1) is not a route" in refused("route", "fit", "routes.yaml", "other.csv")
    Path("all.csv").write_text("label,text\npets,x\npets,y\n")
    assert "no query is out-of-scope" in refused("route", "fit", "routes.yaml", "all.csv")


# ---------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_lays_out_every_figure():
    shown = run("route", "evaluate", "routes.yaml", "queries.tsv", "--threshold", "0.9999", "--mistakes", "2").stdout
    assert "queries.tsv: 6 queries, 2 of them out-of-scope" in shown
    figures = dict(re.findall(r"^ +(\S.*?)  +([\d.]+)", shown, re.MULTILINE))
    assert figures["accuracy"] == "33.33" and figures["out-of-scope queries rejected"] == "100.00"
    assert figures["the same, if nothing were rejected"] == "100.00" and figures["queries routed"] == "0.00"
    assert "of those, correct" not in figures
    assert "none (out-of-scope)" in shown and re.search(r"\n +2  pets -> none \(out-of-scope\)", shown)
    assert shown.count(" -> ") == 1 + 2 + 2
    listed = [float(score) for score in re.findall(r"^ +(0\.\d{4})  ", shown, re.MULTILINE)]
    assert listed == sorted(listed, reverse=True) and len(listed) == 2


def test_evaluate_as_json_tells_each_query():
    found = json.loads(run("route", "evaluate", "routes.yaml", "queries.tsv", "--threshold", "-1", "--json").stdout)
    assert found["queries"] == 6 and found["of_none"] == 2 and found["left_out"] == 0
    assert [row["expected"] for row in found["results"]] == [x if x != "none" else None for x, _ in QUERIES]
    wrong = [row for row in found["results"] if row["route"] != row["expected"]]
    assert sum(one["count"] for one in found["confusions"]) == len(wrong) == 2
    assert found["routes"][-1] == {
        "name": None, "queries": 2, "routed": 0, "right": 0, "precision": None, "recall": 0.0, "f1": 0.0
    }  # fmt: skip
    assert found["none_recall"][0] == 0 and found["auroc"] == [1.0, None, None]


def test_labels_that_mean_none_and_queries_that_are_examples():
    Path("asked.csv").write_text("intent,query\npets,the cat sat\npets,the cat ran\nfish,5 5 5\n-,6 5\n")
    found = json.loads(
        run("route", "evaluate", "routes.yaml", "asked.csv", "--none-label", "-", "--unknown-is-none", "--json").stdout
    )
    assert (found["queries"], found["of_none"], found["left_out"]) == (3, 2, 1)
    shown = run("route", "evaluate", "routes.yaml", "asked.csv", "--unknown-is-none", "--show", "0").stdout
    assert "3 queries, 2 of them out-of-scope; 1 more are examples and left out" in shown and "lowest F1" not in shown
    assert "treat all such labels as out-of-scope" in refused(
        "route", "evaluate", "routes.yaml", "asked.csv", "--none-label", "-"
    )
    Path("bare.tsv").write_text("the cat ran\tpets\n")
    run("route", "evaluate", "routes.yaml", "bare.tsv", "--columns", "2,1", "--no-header")
    assert "with --columns" in refused("route", "evaluate", "routes.yaml", "bare.tsv", "--no-header", code=2)
    assert "must name two" in refused("route", "evaluate", "routes.yaml", "bare.tsv", "--columns", "1", code=2)


# -------------------------------------------------------------------------------------------------------- draw


def test_draw_writes_or_prints_routes():
    result = run("route", "draw", "train.tsv", "--per-route", "4", "-o", "drawn.yaml")
    assert result.stdout == "" and result.stderr == "wrote drawn.yaml: 2 routes, 8 examples, nearest example\n"
    table = read_routes("drawn.yaml")
    assert table.names == ("cat", "soup") and {len(route.examples) for route in table.routes} == {4}
    printed = run("route", "draw", "train.tsv", "--per-route", "4")
    assert printed.stdout == Path("drawn.yaml").read_text()
    held = run("route", "draw", "train.tsv", "--hold-out", "1", "--scoring", "centroid", "--seed", "3")
    assert re.search(r"held out: (cat|soup)\n", held.stderr) and "scoring: centroid" in held.stdout
    assert "--hold-out must be at least 0 and less than" in refused("route", "draw", "train.tsv", "--hold-out", "2")
    drawn = run("route", "draw", "queries.tsv").stdout
    assert "none" not in drawn and "none" in run("route", "draw", "queries.tsv", "--none-label", "soup").stdout


def test_the_examples_of_help_run():
    for page in ([], ["fit"], ["evaluate"], ["draw"]):
        shown = run("route", *page, "--help").stdout
        lines = re.findall(r"^ +minisbert (route .*)$", shown, re.MULTILINE)
        assert len(lines) >= 2
        for line in lines:
            for file in ("fitted.yaml", "drawn.yaml"):
                Path(file).unlink(missing_ok=True)
            words = shlex.split(line)
            result = run(*words)
            assert Path(words[words.index("-o") + 1]).stat().st_size if "-o" in words else result.stdout
