"""The verbs that are taught, and those that look at many texts: what they print and write.

Everything runs in the world of test_golden.py, which has what they give as JSON; test_cli.py has what they refuse.
"""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from running import run, told
from test_golden import set_up
from tiny import write_model
from wcwidth import wcswidth

from minisbert import SentenceEncoder
from minisbert.analysis.classifier import load_classifier
from minisbert.analysis.clusters import cluster
from minisbert.analysis.entities import load_tagger
from minisbert.search import read_routes

WORDS = ["soup", "love", "cat", "dog", "mat", "ran"]
TEXTS = [f"the {a} sat on the {b}" for a in WORDS for b in WORDS[:3]]
LABELS = ["food" if "soup" in text else "animal" for text in TEXTS]


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    set_up(monkeypatch.setenv)
    rows = zip(LABELS, TEXTS, strict=True)
    Path("many.tsv").write_text("kind\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows))


@pytest.fixture
def vectors():
    return SentenceEncoder("model").encode(TEXTS)


# ------------------------------------------------------------------------------------------------------------ route


def test_routes_as_a_table(monkeypatch):
    asked = ["route", "ask", "routes.yaml", "--threshold", "0.97"]
    head, sat, ran, empty, _, legend = run(*asked, "the cat sat on the mat", "the cat ran", "").stdout.splitlines()
    assert head.split() == ["route", "score", "needs", "query", "most", "similar", "example"]
    assert re.match(r"pets +0\.98\d\d +0\.97 +the cat sat on the mat +the cat sat$", sat)
    assert re.match(r"none \(soup\) +0\.9\d\d\d +0\.97 +the cat ran +i love the soup$", ran)
    assert empty.startswith("none (") and "(empty)" in empty and legend.startswith("none (x): out-of-scope")
    assert run("route", "ask", "routes.yaml", "5 5 5").stdout.splitlines()[1].split()[2] == "any"
    monkeypatch.setenv("COLUMNS", "90")
    Path("wide.yaml").write_text(f"{'w' * 50}: [好き 好き 好き 好き 好き 好き 好き 好き 好き]\n")
    shown = run("route", "ask", "wide.yaml", "the cat sat on the mat " * 2, "a\x1b[31m\n b").stdout
    assert max(map(wcswidth, shown.splitlines())) <= 90 and "\x1b" not in shown


def test_options_override_the_routes_of_a_file():
    Path("own.yaml").write_text("soup: {examples: [soup!], threshold: 0.9999, metadata: {team: zoo}}")
    assert told("route", "ask", "own.yaml", "5 5 5")["choices"][0]["route"] is None
    found = told("route", "ask", "own.yaml", "5 5 5", "--threshold", "-1")["choices"][0]
    assert found["route"] == "soup" and found["metadata"] == {"team": "zoo"}
    asked = ["route", "ask", "routes.yaml", "the cat ran"]
    nearest, centroid = (told(*asked, "--scoring", scoring) for scoring in ("nearest", "centroid"))
    assert centroid["scoring"] == "centroid" and centroid["choices"][0]["score"] != nearest["choices"][0]["score"]
    assert told("route", "ask", "queries.tsv", "the cat sat")["choices"][0]["best"] == "pets"  # a label is a route
    Path("unlike.csv").write_text("intent,query\npets,the cat sat\npets,the cat ran\nfish,5 5 5\n-,6 5\n")
    found = told("route", "evaluate", "routes.yaml", "unlike.csv", "--none-label", "-", "--unknown-is-none")
    assert (found["queries"], found["out_of_scope"], found["left_out"]) == (3, 2, 1)


def test_thresholds_that_were_fitted_are_replaced_by_options(sklearn):
    other = write_model(Path("other"), seed=1)
    run("route", "ask", "fitted.yaml", "x", "--model", other, "--threshold", "0.5")
    run("route", "ask", "fitted.yaml", "x", "--scoring", "centroid", "--threshold", "0.5")
    shown = run("route", "fit", "fitted.yaml", "queries.tsv", "--model", other, "-o", "new.yaml").stdout
    assert "fitted.yaml: 2 routes, 4 examples, nearest example\n" in shown
    assert "held out (95 % interval)\n  accuracy " in shown and read_routes("new.yaml").origin.model == "other"


def test_evaluated_routes_show_every_figure():
    shown = run("route", "evaluate", "routes.yaml", "queries.tsv", "--threshold", "1").stdout
    figures = dict(re.findall(r"^ +(\S.*?)  +([\d.]+)", shown, re.MULTILINE))
    assert figures["out-of-scope queries rejected"] == "100.00" and "of those, correct" not in figures
    assert "2 more are examples and left out" in shown and re.search(r"\n +1  pets -> none\n", shown)


# --------------------------------------------------------------------------------------------------------- classify


def test_a_classifier_says_which_strength_was_chosen_and_what_to_expect(sklearn):
    command = ["classify", "train", "train.tsv", "--strength", "10", "--strength", "1", "--folds", 3]
    command += ["--class-weight", "good=3", "-o", "m"]
    lines = run(*command).stdout.splitlines()
    assert lines[0] == "train.tsv: 16 texts, 2 classes; model"
    assert re.match(r"C 10?, the best of 1, 10: log loss \d\.\d{4}, 3 folds; try others beyond it$", lines[1])
    assert any(re.match(r"accuracy \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\), 16 texts", line) for line in lines)
    before = {file.name: file.read_bytes() for file in Path("m").iterdir()}
    said = told(*command, "--force")
    assert {file.name: file.read_bytes() for file in Path("m").iterdir()} == before  # the same command, the same bytes
    assert said["class_weight"] == {"good": 3.0} and said["strengths"] == [1, 10]
    Path("four.csv").write_text("label,text\na,fine day\na,lovely sun\nb,bad night\nb,awful rain\n")
    assert ", 2 folds" in run("classify", "train", "four.csv", "-o", "four").stdout


def test_a_threshold_leaves_texts_undecided(sklearn):
    arguments = ["--threshold-for", "good", "--precision", "0.6"]
    lines = run("classify", "train", "train.tsv", "-o", "strict", *arguments).stdout.splitlines()
    assert re.match(r"'good' is predicted from a probability of 0\.\d{4}: precision \d", lines[-1])
    # a bound that nothing reaches: what would be good is undecided
    head = json.loads(Path("strict/classifier.json").read_text())
    assert head["facts"]["threshold"]["precision"] >= 0.6
    head["facts"]["threshold"]["probability"] = 1.0
    Path("strict/classifier.json").write_text(json.dumps(head))
    asked = ["classify", "predict", "strict", "-i", "train.tsv", "--column", "text"]
    found = told(*asked)
    assert {one["label"] for one in found} == {None, "bad"}
    assert all(one["probability"] == one["probabilities"][one["label"] or "good"] for one in found)
    assert "\nundecided  " in run(*asked).stdout
    assert "undecided, counted as wrong" in run("classify", "evaluate", "strict", "test.tsv").stdout


def test_classes_are_the_same_however_they_are_asked():
    Path("gaps.csv").write_text('text\n""\ni love soup\n"hate\nit, ""so"" \x1b"\n')
    texts = ["i love soup", 'hate\nit, "so" \x1b']
    asked = ["classify", "predict", "mood", "-i", "gaps.csv"]
    found, shown = told(*asked), run(*asked)
    assert [one["text"] for one in found] == texts and "gaps.csv, line 2: skipped 1 row" in shown.stderr
    classifier, vectors = load_classifier("mood"), SentenceEncoder("model").encode(texts)
    expected = classifier.predict_proba(vectors)
    np.testing.assert_allclose([list(one["probabilities"].values()) for one in found], expected, rtol=1e-6)
    assert [one["label"] for one in found] == classifier.predict(vectors)
    for name in ("m.csv", "m.tsv", "m.jsonl"):
        assert run(*asked, "-o", name).stdout == ""
    assert [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()] == found
    for name, delimiter in (("m.csv", ","), ("m.tsv", "\t")):
        with Path(name).open(newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter=delimiter))
        assert [(row["text"], row["label"]) for row in rows] == [(one["text"], one["label"]) for one in found]
        assert [float(row["p(good)"]) for row in rows] == [one["probabilities"]["good"] for one in found]
    lines = shown.stdout.splitlines()[1:]
    assert [line.split()[1] for line in lines] == [f"{one['probability']:.3f}" for one in found]
    assert "\x1b" not in shown.stdout


def test_a_classifier_unescapes_as_it_was_trained(sklearn):
    Path("html.tsv").write_text(Path("train.tsv").read_text().replace("the", "&amp;"))
    run("classify", "train", "html.tsv", "-o", "m", "--unescape")
    one, other = told("classify", "predict", "m", "love &amp; cat", "love & cat")
    assert one["probabilities"] == pytest.approx(other["probabilities"], rel=1e-6) and one["text"] == "love &amp; cat"
    assert "16 of 16 texts are identical to training texts\n" in run("classify", "evaluate", "m", "html.tsv").stdout


def test_an_evaluation_says_what_its_json_says(sklearn):
    asked = ["classify", "evaluate", "mood", "test.tsv", "--baseline", "train.tsv"]
    text, said = run(*asked, "-o", "r.json").stdout, json.loads(Path("r.json").read_text())
    assert told(*asked) == said
    right, theirs = (np.mean(np.array(said["expected"]) == x["predicted"]) for x in (said, said["baseline"]))
    assert said["accuracy"]["mean"] == right and f"accuracy {100 * right:.2f} (" in text
    assert "1 of 4 texts are identical to training texts; accuracy on the others" in text
    gap, low, high = (f"{100 * x + 0.0:+.2f}" for x in said["baseline"]["accuracy_difference"].values())
    row = ["accuracy", f"{100 * right:.2f}", f"{100 * theirs:.2f}", gap, low, "to", high]
    assert row in [line.split() for line in text.splitlines()]


def test_of_many_classes_the_worst_and_the_most_frequent_confusions_are_listed(sklearn):
    rows = [f"class {i}\t{a} {b}\n" for i, a in enumerate("abcdefghijklmnopqrstuv") for b in "xy"]
    Path("classes.tsv").write_text("".join(["label\ttext\n", *rows]))
    run("classify", "train", "classes.tsv", "-o", "m", "--folds", "2", "--strength", "1")
    asked = ["classify", "evaluate", "m", "classes.tsv"]
    text, report = run(*asked).stdout, told(*asked)
    scores = re.findall(r"^class \d+ .* (\d+\.\d) \([^)]*\)$", text, re.MULTILINE)
    assert [float(score) for score in scores] == sorted(map(float, scores)) and len(scores) == 20
    assert "\nand 2 more (--json)\n" in text
    count, true, predicted = re.search(r"predicted class\n +(\d+)  class (\d+) -> class (\d+)\n", text).groups()
    names, wrong = list(report["classes"]), np.array(report["confusion"])[:, :22] * (1 - np.eye(22))
    assert int(count) == wrong.max() == wrong[names.index(f"class {true}"), names.index(f"class {predicted}")]


# --------------------------------------------------------------------------------------------------------- entities


def test_a_tagger_says_what_was_chosen(sklearn):
    result = run("entities", "train", "names.jsonl", "-o", "new", "--strength", "0.1", "--strength", "1")
    (about, chosen), tagger = result.stdout.splitlines(), load_tagger("new")
    assert about == "model, layer 1; names.jsonl: 6 sentences, 33 words; types: LOC, PER"
    assert chosen.startswith(f"C {tagger.training['strength']:g}, offset {tagger.offset:g}, the best of ")
    assert f"F1 of spans {100 * max(map(max, tagger.training['f1'])):.2f} on cross-validation, 2 folds" in chosen
    command = ["entities", "train", "names.jsonl", "-o", "new", "--force", "--layer", 2]
    command += ["--strength", 1, "--offset", 1]
    found = told(*command)
    assert (found["layer"], found["strength"], found["offset"], found["f1"]) == (2, 1.0, 1.0, [])
    assert run(*command).stdout.endswith("C 1, offset 1, as given\n")


def test_entities_as_a_table_and_as_json():
    texts = ["the", "", "á  Ada  met Bob"]
    Path("t.txt").write_text("\n".join(texts), encoding="utf-8")
    asked = ["entities", "predict", "names"]
    found = list(map(json.loads, run(*asked, "-i", "t.txt", "--json").stdout.splitlines()))
    assert [one["text"] for one in found] == texts
    assert [one["entities"] for one in found] == [
        [{**vars(entity), "probability": pytest.approx(entity.probability, abs=1e-6)} for entity in entities]
        for entities in load_tagger("names").find(SentenceEncoder("model"), texts)
    ]
    shown = run(*asked, *texts).stdout.splitlines()
    assert shown[:5] == ["the", "  (none)", "(empty)", "  (none)", "á Ada met Bob"]
    words = [(one["text"], f"{one['start']}-{one['stop']}") for one in found[2]["entities"]]
    assert ("Ada", "3-6") in words and [(line.split()[0], line.split()[2]) for line in shown[5:]] == words


def test_a_tagger_beside_baselines(sklearn):
    said = ["entities", "evaluate", "names", "names.jsonl", "--baselines", "names.jsonl", "--dev", "names.jsonl"]
    text = run(*said, "-o", "result.json").stdout
    written, lines = json.loads(Path("result.json").read_text()), text.splitlines()
    assert told(*said) == written and lines[0] == "names.jsonl: 6 sentences, 33 words, 12 entities"
    shown = {line[:12].strip(): line[12:].split() for line in lines[3:7]}
    assert list(shown) == ["linear probe", "spelling", "lexicon", "all O"]
    for one in written["systems"]:
        spans, cells = one["spans"], shown[one["name"]]
        figures = [spans["f1"]["mean"], spans["f1"]["low"], spans["f1"]["high"]]
        figures += [spans["precision"]["mean"], spans["recall"]["mean"]]
        assert [cells[i] for i in (0, 1, 3, 4, 5)] == [f"{100 * figure:.2f}" for figure in figures]
    assert "0.00 % of the entities do not occur with their type in the training file" in text


# ----------------------------------------------------------------------------------------------------- cluster, map


def test_a_cluster_is_told_with_size_words_and_texts(vectors, sklearn):
    shown = run("cluster", "many.tsv", "--k", 3).stdout.splitlines()
    found = cluster(vectors, k=3)
    assert shown[0] == "k-means, k 3, seed 0: 18 texts, 3 clusters"
    assert [int(line.split()[1]) for line in shown if re.match(r" +\d  ", line)] == found.sizes.tolist()
    assert sum(line.strip() in TEXTS for line in shown) == sum(min(3, size) for size in found.sizes)
    assert f"mean silhouette {found.silhouette:.3f}" in shown[-1]
    chosen = run("cluster", "many.tsv", "--label", "kind", "--k", "2-3", "--show", 1).stdout
    assert "best silhouette from 2 to 3" in chosen and "more (--show" in chosen
    assert "compared with 2 labels, x 100: V-measure" in chosen
    none = run("cluster", "many.tsv", "--method", "community", "--threshold", 1, "--min-size", 5).stdout
    assert "0 clusters, 18 in no cluster" in none and "no clusters: try a lower" in none


def test_a_row_for_every_text(vectors, sklearn):
    settings = ["--method", "community", "--threshold", 0.993]
    got = told("cluster", "many.tsv", "--label", "kind", *settings, "-o", "out.csv")
    found = cluster(vectors, "community", threshold=0.993)
    assert {-1, 0, 1} <= {*found.ids.tolist()} and got["ids"] == found.ids.tolist()
    with Path("out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for i, (row, group) in enumerate(zip(rows, found.ids.tolist(), strict=True)):
        named = ["", "", ""] if group < 0 else [got["clusters"][group]["title"]]
        named += [] if group < 0 else [str(round(float(x[i]), 6)) for x in (found.similarity, found.silhouettes)]
        assert [*row.values()] == [TEXTS[i], str(group), *named, LABELS[i]]


def test_a_map_is_a_page_or_a_picture_in_the_colours_of_groups(sklearn, matplotlib):
    run("map", "many.tsv", "-o", "map.html")
    page = Path("map.html").read_text()
    assert all(text in page for text in TEXTS) and "<title>many.tsv</title>" in page
    result = run("map", "many.tsv", "-o", "map.png", "--clusters", "kmeans", "--k", 3)
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")
    assert result.stdout.startswith("k-means, k 3, seed 0: 18 texts, 3 clusters\nPCA: the axes show ")
    for line, colours in (
        ("many.tsv --method tsne", "cluster"),
        ("many.tsv --clusters none", None),
        ("many.tsv --label kind --clusters agglomerative --k 2", "cluster"),
        ("texts.txt", None),
    ):
        got = told("map", *line.split(), "-o", "m.html", "--force")
        assert got["colours"] == colours and got["method"] == ("tsne" if "tsne" in line else "pca")
