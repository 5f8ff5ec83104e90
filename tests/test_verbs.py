"""The verbs that are taught, and those that look at many texts: what they print, write and refuse.

Everything runs on a random model of some 4,000 weights, for which "5 5 5" is like nothing else. test_golden.py has what
they give as JSON.
"""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from running import refused, run, stand_in, told
from tiny import write_model
from wcwidth import wcswidth

from minisbert import SentenceEncoder
from minisbert.analysis.classifier import load_classifier
from minisbert.analysis.clusters import cluster
from minisbert.analysis.entities import load_tagger
from minisbert.analysis.maps import project
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
QUERIES = ["soup	i love the soup!", "soup	soup?", "pets	the cat ran", "pets	the cat sat on the mat"]
QUERIES += ["none	5 5 5", "none	6 5"]
GOOD = ["what a feast", "i love soup", "love it on the mat", "so good a soup", "i love the cat", "love the dog"]
BAD = ["what a mess", "i hate tea", "hate it on the mat", "so bad a tea", "i hate the rat", "hate the fog"]
TRAIN = [*(f"good\t{text}" for text in GOOD), *(f"bad\t{text}" for text in BAD)]
TAGGED = [
    ("the cat sat", "O B-animal O"),
    ("i love soup", "O O B-dish"),
    ("the dog ran on the mat", "O B-animal O O O O"),
    ("soup !", "B-dish O"),
    ("Bo Cat ran", "B-person I-person O"),
    ("love on the mat", "O O O O"),
]
WORDS = ["soup", "love", "cat", "dog", "mat", "ran"]
TEXTS = [f"the {a} sat on the {b}" for a in WORDS for b in WORDS[:3]]
LABELS = ["food" if "soup" in text else "animal" for text in TEXTS]


def write_files():
    tagged = [(words.split(), tags.split()) for words, tags in TAGGED]
    names = [json.dumps({"tokens": [*words, x], "tags": [*tags, "O"]}) for words, tags in tagged for x in "abc"]
    blocks = ["\n".join(f"{w}\t{t}" for w, t in zip(words, tags, strict=True)) for words, tags in tagged * 2]
    for name, lines in {
        "routes.yaml": [ROUTES],
        "plain.yaml": [ROUTES.replace("threshold: 0.95\n", "")],
        "one.yaml": ["pets: [the cat sat]"],
        "percent.yaml": ["pets: {examples: [the cat sat], threshold: 2}"],
        "queries.tsv": ["label\ttext", *QUERIES],
        "unlike.csv": ["intent,query", "pets,the cat sat", "pets,the cat ran", "fish,5 5 5", "-,6 5"],
        "train.tsv": ["label\ttext", *TRAIN],
        "test.tsv": ["label\ttext", "good\ti love tea", "bad\ti hate soup", "bad\thate the fog", "good\tlove"],
        "other.tsv": ["label\ttext", *TRAIN, "so-so\tit is soup", "so-so\ttea"],
        "same.tsv": ["label\ttext", "a\tx", "a\ty"],
        "names.jsonl": names,
        "bad.jsonl": ['{"tokens": ["a"], "tags": ["O"]}', '{"tokens": ["a", "b"], "tags": ["O"]}'],
        "names.conll": ["\n\n".join(blocks)],
        "none.conll": ["a O"],
        "texts.txt": TEXTS,
        "texts.tsv": ["kind\ttext", *(f"{label}\t{text}" for label, text in zip(LABELS, TEXTS, strict=True))],
        "texts.jsonl": [json.dumps({"post": {"text": text}}) for text in TEXTS],
        "gaps.txt": ["", *TEXTS[:5], " ", *TEXTS[5:]],
        "few.txt": ["soup", "cat"],
        "empty.txt": [],
        "stars.csv": ["stars,grade", "5,1"],
    }.items():
        Path(name).write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("verbs") / "tiny-model")


@pytest.fixture(scope="module")
def vectors(model):
    return SentenceEncoder(model).encode(TEXTS)


@pytest.fixture(scope="module")
def trained(sklearn, model, tmp_path_factory):
    """A classifier and a tagger, trained once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trained")
        stand_in(folder, patch, model)
        write_files()
        run("classify", "train", "train.tsv", "-o", "mood")
        where = ["names.jsonl", "--dev", "names.jsonl", "-o", "names", "--layer", 0]
        run("entities", "train", *where, "--strength", 1, "--strength", 10)
    return folder


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    stand_in(tmp_path / "work", monkeypatch, model)
    write_files()


@pytest.fixture
def learnt(trained):
    for name in ("mood", "names"):
        shutil.copytree(trained / name, name)


# ------------------------------------------------------------------------------------------------------------ route


def test_routes_as_a_table(monkeypatch):
    shown = run("route", "ask", "routes.yaml", "the cat ran", "5 5 5", "").stdout.splitlines()
    head, cat, five, empty, _, legend = shown
    assert head.split() == ["route", "score", "needs", "query", "most", "similar", "example"]
    assert re.match(r"pets +0\.99\d\d +0\.95 +the cat ran +the dog ran$", cat)
    assert re.match(r"none \(soup\) +0\.8\d\d\d +0\.95 +5 5 5 +i love the soup$", five)
    assert empty.startswith("none (") and "(empty)" in empty and legend.startswith("none (x): out-of-scope")
    assert "none" not in run("route", "ask", "routes.yaml", "the cat ran").stdout
    assert run("route", "ask", "plain.yaml", "-i", "few.txt").stdout.splitlines()[1].split()[2] == "any"
    assert run("route", "ask", "plain.yaml", "-i", "empty.txt").stdout.split()[0] == "route"
    monkeypatch.setenv("COLUMNS", "90")
    Path("wide.yaml").write_text(f"{'w' * 50}: [好き 好き 好き 好き 好き 好き 好き 好き 好き]\n")
    shown = run("route", "ask", "wide.yaml", "the cat sat on the mat and the dog ran " * 9, "a\x1b[31m\n b").stdout
    assert max(map(wcswidth, shown.splitlines())) <= 90 and "\x1b" not in shown


def test_options_override_the_routes_of_a_file():
    Path("own.yaml").write_text("soup: {examples: [soup!], threshold: 0.999}")
    for file in ("routes.yaml", "own.yaml"):
        assert told("route", "ask", file, "5 5 5", "--threshold", "-1")["choices"][0]["route"] == "soup"
    asked = ["route", "ask", "routes.yaml", "the cat ran"]
    found, centroid = (told(*asked, *more) for more in ([], ["--scoring", "centroid"]))
    assert centroid["scoring"] == "centroid" and centroid["choices"][0]["score"] != found["choices"][0]["score"]
    assert found["choices"][0]["metadata"] == {"team": "zoo"} and list(found["choices"][0]["scores"]) == [
        "pets",
        "soup",
    ]
    assert told("route", "ask", "queries.tsv", "the cat sat")["choices"][0]["best"] == "pets"  # a label is a route
    labels = ["unlike.csv", "--none-label", "-", "--unknown-is-none"]
    found = told("route", "evaluate", "routes.yaml", *labels)
    assert (found["queries"], found["out_of_scope"], found["left_out"]) == (3, 2, 1)
    assert "'kind'" in refused("route", "evaluate", "routes.yaml", "unlike.csv", "--columns", "kind,query")


def test_fitted_routes_are_better_and_know_their_model_and_scoring(tmp_path, sklearn):
    before = told("route", "evaluate", "plain.yaml", "queries.tsv")
    result = run("route", "fit", "plain.yaml", "queries.tsv", "-o", "fitted.yaml")
    assert result.stderr == "wrote fitted.yaml\n"
    assert "plain.yaml: 2 routes, 4 examples, nearest example\n6 queries, 2 of them out-of-scope\n" in result.stdout
    assert "held out (95 % interval)\n  accuracy " in result.stdout
    after = told("route", "evaluate", "fitted.yaml", "queries.tsv")
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
    again = ["route", "ask", "fitted.yaml", "x", "--scoring", "centroid"]
    assert "were fitted for the scoring 'nearest'" in refused(*again, code=2)
    run(*again, "--threshold", "0.5")


def test_evaluated_routes_show_every_figure():
    shown = run("route", "evaluate", "routes.yaml", "queries.tsv", "--threshold", "0.9999").stdout
    figures = dict(re.findall(r"^ +(\S.*?)  +([\d.]+)", shown, re.MULTILINE))
    assert figures["accuracy"] == "33.33" and figures["out-of-scope queries rejected"] == "100.00"
    assert figures["the same, if nothing were rejected"] == "100.00" and figures["queries routed"] == "0.00"
    assert "of those, correct" not in figures and re.search(r"\n +2  pets -> none\n", shown)
    for row in (r"^none +2 +6 +33\.3 \(", r"^pets +2 +0 +none "):
        assert re.search(row, shown, re.MULTILINE)


# --------------------------------------------------------------------------------------------------------- classify


def test_a_classifier_says_which_strength_was_chosen_and_what_to_expect(sklearn):
    command = ["classify", "train", "train.tsv", "--strength", "10", "--strength", "1", "--folds", 3]
    command += ["--class-weight", "good=3"]
    result = run(*command, "-o", "m")
    lines, loaded = result.stdout.splitlines(), load_classifier("m")
    assert lines[0] == "train.tsv: 12 texts, 2 classes; tiny-model"
    assert re.match(r"C 10?, the best of 1, 10: log loss \d\.\d{4}, 3 folds; try others beyond it$", lines[1])
    assert any(re.match(r"accuracy \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\), 12 texts", line) for line in lines)
    assert result.stderr == "wrote m\n" and loaded.classes == ("bad", "good") and loaded.origin.model == "tiny-model"
    before = {file.name: file.read_bytes() for file in Path("m").iterdir()}
    said = told(*command, "-o", "m", "--force")
    assert {file.name: file.read_bytes() for file in Path("m").iterdir()} == before  # the same command, the same bytes
    assert said["class_weight"] == {"good": 3.0} and said["strengths"] == [1, 10] and said["temperature"] > 0
    assert said["out_of_fold"]["texts"] == 12 and np.sum(said["out_of_fold"]["confusion"]) == 12
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


def test_classes_are_the_same_however_they_are_asked(learnt, model):
    Path("gaps.csv").write_text('text\n""\ni love soup\n"hate\nit, ""so"" \x1b"\n')
    texts = ["i love soup", 'hate\nit, "so" \x1b']
    asked = ["classify", "predict", "mood", "-i", "gaps.csv"]
    found = told(*asked)
    assert [one["text"] for one in found] == texts and "gaps.csv, line 2: skipped 1 row" in run(*asked).stderr
    classifier, vectors = load_classifier("mood"), SentenceEncoder(model).encode(texts)
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
    shown = run(*asked).stdout
    assert "\x1b" not in shown
    assert [line.split()[1] for line in shown.splitlines()[1:]] == [f"{one['probability']:.3f}" for one in found]


def test_a_classifier_unescapes_as_it_was_trained(sklearn):
    Path("html.tsv").write_text(Path("train.tsv").read_text().replace("the", "&amp;"))
    run("classify", "train", "html.tsv", "-o", "m", "--unescape")
    one, other = told("classify", "predict", "m", "love &amp; cat", "love & cat")
    assert one["probabilities"] == pytest.approx(other["probabilities"], rel=1e-6) and one["text"] == "love &amp; cat"
    assert "12 of 12 texts are identical to training texts\n" in run("classify", "evaluate", "m", "html.tsv").stdout


def test_an_evaluation_says_what_its_json_says(learnt):
    asked = ["classify", "evaluate", "mood", "test.tsv", "--baseline", "train.tsv"]
    text, said = run(*asked, "-o", "r.json").stdout, json.loads(Path("r.json").read_text())
    assert told(*asked) == said
    assert said["texts"] == 4 and said["learnt"] == 1 and said["model"] == "tiny-model"
    right, theirs = (np.mean(np.array(said["expected"]) == x["predicted"]) for x in (said, said["baseline"]))
    assert said["accuracy"]["mean"] == right and f"accuracy {100 * right:.2f} (" in text
    assert "1 of 4 texts are identical to training texts; accuracy on the others" in text
    assert said["baseline"]["tfidf"]["accuracy"]["mean"] == theirs
    assert said["baseline"]["accuracy_difference"]["mean"] == pytest.approx(right - theirs)
    gap, low, high = (f"{100 * x + 0.0:+.2f}" for x in said["baseline"]["accuracy_difference"].values())
    row = ["accuracy", f"{100 * right:.2f}", f"{100 * theirs:.2f}", gap, low, "to", high]
    assert row in [line.split() for line in text.splitlines()]
    assert f"TF-IDF: {said['baseline']['features']:,} words and word pairs" in text


def test_of_many_classes_the_worst_and_the_most_frequent_confusions_are_listed(sklearn):
    rows = [f"class {i}\t{a} {b}\n" for i, a in enumerate("abcdefghijklmnopqrstuv") for b in "xy"]
    Path("many.tsv").write_text("".join(["label\ttext\n", *rows]))
    run("classify", "train", "many.tsv", "-o", "many", "--folds", "2", "--strength", "1")
    asked = ["classify", "evaluate", "many", "many.tsv"]
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
    assert about == "tiny-model, layer 1; names.jsonl: 18 sentences, 81 words; types: animal, dish, person"
    best = max(map(max, tagger.training["f1"]))
    assert chosen.startswith(f"C {tagger.training['strength']:g}, offset {tagger.offset:g}, the best of ")
    assert f"F1 of spans {100 * best:.2f} on cross-validation, 3 folds" in chosen and result.stderr == "wrote new\n"
    command = ["entities", "train", "names.conll", "-o", "new", "--force", "--layer", 2]
    command += ["--strength", 1, "--offset", 1]
    found = told(*command)
    assert (found["layer"], found["strength"], found["offset"], found["f1"]) == (2, 1.0, 1.0, [])
    assert found["sentences"] == 12 and run(*command).stdout.endswith("C 1, offset 1, as given\n")


def test_entities_as_a_table_and_as_json(learnt, model):
    shown = run("entities", "predict", "names", "The  dog ran", "love", "", "i love soup").stdout.splitlines()
    assert shown[0] == "The dog ran" and shown[2:6] == ["love", "  (none)", "(empty)", "  (none)"] and len(shown) == 8
    name, kind, place, probability = shown[1].split()
    assert (name, kind, place) == ("dog", "animal", "5-8") and shown[7].split()[:3] == ["soup", "dish", "7-11"]
    Path("t.txt").write_text("The  dog ran\n\ná  Soup!\n", encoding="utf-8")
    lines = run("entities", "predict", "names", "-i", "t.txt", "--json").stdout.splitlines()
    found, texts = [json.loads(line) for line in lines], ["The  dog ran", "", "á  Soup!"]
    assert [one["text"] for one in found] == texts
    assert [one["entities"] for one in found] == [
        [{**vars(entity), "probability": pytest.approx(entity.probability, abs=1e-6)} for entity in entities]
        for entities in load_tagger("names").find(SentenceEncoder(model), texts)
    ]
    assert probability == f"{found[0]['entities'][0]['probability']:.2f}"


def test_a_tagger_beside_baselines(learnt):
    said = ["entities", "evaluate", "names", "names.jsonl", "--baselines", "names.jsonl", "--dev", "names.jsonl"]
    text = run(*said, "-o", "result.json").stdout
    written, lines = json.loads(Path("result.json").read_text()), text.splitlines()
    assert told(*said) == written
    assert lines[0] == "names.jsonl: 18 sentences, 81 words, 15 entities"
    shown = {line[:12].strip(): line[12:].split() for line in lines[3:7]}
    assert list(shown) == ["linear probe", "spelling", "lexicon", "all O"]
    for one in written["systems"]:
        spans, cells = one["spans"], shown[one["name"]]
        figures = [spans["f1"]["mean"], spans["f1"]["low"], spans["f1"]["high"], spans["precision"]["mean"]]
        assert [cells[i] for i in (0, 1, 3, 4)] == [f"{100 * figure:.2f}" for figure in figures]
    assert shown["all O"][0] == "0.00" and shown["lexicon"][0] == "100.00" and float(shown["linear probe"][0]) > 60
    Path("fewer.jsonl").write_text(Path("names.jsonl").read_text().replace("B-dish", "O"))  # found, but not expected
    spans = told("entities", "evaluate", "names", "fewer.jsonl")["systems"][0]["spans"]
    row = run("entities", "evaluate", "names", "fewer.jsonl").stdout.splitlines()[3].split()
    precision, recall = (spans[name]["mean"] for name in ("precision", "recall"))
    assert precision < recall and row[-2:] == [f"{100 * precision:.2f}", f"{100 * recall:.2f}"]
    assert [line.split()[0] for line in lines[11:14]] == ["animal", "dish", "person"]
    assert "0.00 % of the entities do not occur with their type in the training file" in text
    assert "lexicon" not in run("entities", "evaluate", "names", "names.conll").stdout


# ----------------------------------------------------------------------------------------------------- cluster, map


def test_a_cluster_is_told_with_size_words_and_texts(vectors, sklearn):
    shown = run("cluster", "texts.txt", "--k", 3).stdout.splitlines()
    found = cluster(vectors, k=3)
    assert shown[0] == "k-means, k 3, seed 0: 18 texts, 3 clusters"
    sizes = [int(line.split()[1]) for line in shown if re.match(r" +\d  ", line)]
    assert sizes == found.sizes.tolist()
    assert sum(line.strip() in TEXTS for line in shown) == sum(min(3, size) for size in sizes)
    assert f"mean silhouette {found.silhouette:.3f}" in shown[-1]
    chosen = run("cluster", "texts.tsv", "--label", "kind", "--k", "2-3", "--show", 1).stdout
    assert "best silhouette from 2 to 3" in chosen and "more (--show" in chosen
    assert len(re.findall(r"^ +\d+ +\d+ +-?\d\.\d{3}  ", chosen, re.MULTILINE)) == 1
    assert "compared with 2 labels, x 100: V-measure" in chosen
    none = run("cluster", "texts.txt", "--method", "community", "--threshold", 1, "--min-size", 5).stdout
    assert "0 clusters, 18 in no cluster" in none and "no clusters: try a lower" in none


@pytest.mark.parametrize("name", ["out.csv", "out.ndjson"])
def test_a_row_for_every_text(name, vectors, sklearn):
    settings = ["--method", "community", "--threshold", 0.998]
    got = told("cluster", "texts.tsv", "--label", "kind", *settings, "-o", name)
    found = cluster(vectors, "community", threshold=0.998)
    assert {-1, 0, 1} <= {*found.ids.tolist()}
    assert got["ids"] == found.ids.tolist() and got["silhouette"] == pytest.approx(found.silhouette)
    assert got["in_no_cluster"] == (found.ids < 0).sum() and got["agreement"]["labels"] == 2
    assert [entry["size"] for entry in got["clusters"]] == found.sizes.tolist()
    assert all(TEXTS[one["row"]] == one["text"] for entry in got["clusters"] for one in entry["typical"])
    with Path(name).open(newline="") as stream:
        if name == "out.csv":
            rows = list(csv.DictReader(stream))
        else:
            rows = [{k: "" if v is None else str(v) for k, v in json.loads(line).items()} for line in stream]
    assert list(rows[0]) == ["text", "cluster", "title", "similarity", "silhouette", "label"]
    for i, row in enumerate(rows):
        group = found.ids[i]
        assert (row["text"], row["cluster"], row["label"]) == (TEXTS[i], str(group), LABELS[i])
        assert row["title"] == ("" if group < 0 else got["clusters"][group]["title"])
        for key, value in (("similarity", found.similarity[i]), ("silhouette", found.silhouettes[i])):
            assert row[key] == "" if group < 0 else float(row[key]) == pytest.approx(value, abs=1e-6)


def test_a_map_is_the_projection(vectors, sklearn, matplotlib):
    got = told("map", "texts.tsv", "--label", "kind", "-o", "map.html")
    expected = project(vectors)
    np.testing.assert_allclose([[p["x"], p["y"]] for p in got["points"]], expected.points, atol=1e-6)
    assert [p["group"] for p in got["points"]] == LABELS
    assert got["trustworthiness"] == pytest.approx(expected.trustworthiness, abs=1e-3)
    page = Path("map.html").read_text()
    assert all(text in page for text in TEXTS) and "<title>texts.tsv</title>" in page
    result = run("map", "texts.txt", "-o", "map.png", "--clusters", "kmeans", "--k", 3)
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")
    assert result.stdout.startswith("k-means, k 3, seed 0: 18 texts, 3 clusters\nPCA: the axes show ")
    for line, colours in (
        ("texts.txt --method tsne", "cluster"),
        ("texts.txt --clusters none", None),
        ("texts.tsv --label kind --clusters agglomerative --k 2", "cluster"),
        ("few.txt", None),
    ):
        got = told("map", *line.split(), "-o", "m.html", "--force")
        assert got["colours"] == colours and got["method"] == ("tsne" if "tsne" in line else "pca")


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("line", "code", "key"),
    [
        ("route ask routes.yaml", 2, "Nothing to route"),
        ("route ask routes.yaml x --threshold 60", 1, "--threshold must be"),
        ("route ask percent.yaml x", 1, "percent.yaml: routes.pets.threshold"),
        ("route evaluate routes.yaml unlike.csv --none-label -", 1, "--unknown-is-none"),
        ("route fit routes.yaml queries.tsv -o x.txt", 2, "-o must end in .yaml"),
        ("route fit one.yaml queries.tsv", 1, "not among the routes"),
        ("classify train train.tsv -o new --threshold-for good", 2, "--precision"),
        ("classify train train.tsv -o new --threshold-for fine --precision 0.9", 1, "'fine'"),
        ("classify train train.tsv -o new --class-weight fair", 2, "got fair"),
        ("classify train train.tsv -o new --class-weight fine=2", 1, "--class-weight"),
        ("classify train train.tsv -o new --columns text", 1, "--columns must be 2, of label, text"),
        ("classify train train.tsv -o new --no-header", 1, "by number"),
        ("classify train train.tsv -o train.tsv", 1, "train.tsv"),
        ("classify train train.tsv -o mood", 1, "already exists"),
        ("classify train same.tsv -o new", 1, "same.tsv: all 2 texts"),
        ("classify predict mood", 2, "Nothing to classify"),
        ("classify predict mood x ''", 1, "text 2 of 2"),
        ("classify predict none x", 1, "no such folder"),
        ("classify predict mood x --max-seq-length 8", 1, "--max-seq-length = 16"),
        ("classify predict mood x --model other", 1, "'tiny-model'"),
        ("classify evaluate mood other.tsv", 1, "'so-so', on 2 texts"),
        ("classify evaluate mood test.tsv --baseline test.tsv", 1, "training set"),
        ("entities train bad.jsonl -o new", 1, "bad.jsonl, line 2"),
        ("entities train bad.jsonl -o names", 1, "already exists"),  # before the file is read
        ("entities train names.jsonl -o new --layer 3", 1, "to 2"),
        ("entities predict names", 2, "Nothing to search"),
        ("entities predict names x --model other", 1, "'tiny-model'"),
        ("entities evaluate names names.jsonl --dev names.jsonl", 2, "--baselines"),
        ("entities evaluate names none.conll", 1, "nothing to find"),
        ("cluster", 2, "FILE"),
        ("cluster texts.txt --k x", 2, "2-20"),
        ("cluster texts.txt --k 19", 1, "k = 19"),
        ("cluster texts.txt --distance 0.5", 1, "distance"),
        ("cluster texts.txt --label kind", 1, "no column 'kind'"),
        ("cluster stars.csv", 1, "--column"),
        ("cluster empty.txt", 1, "empty.txt"),
        ("map few.txt -o new --method tsne", 2, ".png"),
        ("map few.txt -o new.html --method tsne", 1, "at least"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(line, code, key, request, monkeypatch):
    if not line.startswith("route"):
        request.getfixturevalue("learnt")
    write_model(Path("other"), seed=3)
    before = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}
    if line.startswith(("cluster", "map")) and "19" not in line:  # found before anything is embedded
        monkeypatch.setattr(SentenceEncoder, "encode", None)
    assert key in refused(*(word.strip("'") for word in line.split()), code=code)
    assert {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()} == before


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for line in ("cluster texts.txt", "map texts.txt -o m.html"):
        assert refused(*line.split()).endswith("needs scikit-learn: pip install -e '.[apps]'\n")
