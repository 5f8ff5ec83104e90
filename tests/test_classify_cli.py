"""``minisbert classify``: what its verbs print, refuse, and leave behind. Everything runs on a tiny random model."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import refused, run
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.analysis.classifier import load_classifier


def write_classify_files():
    """The files that the examples of help use."""
    good = ["what a feast", "i love soup", "love it on the mat", "so good a soup", "i love the cat", "love the dog"]
    bad = ["what a mess", "i hate tea", "hate it on the mat", "so bad a tea", "i hate the rat", "hate the fog"]
    rows = [("good", text) for text in good] + [("bad", text) for text in bad]
    Path("train.tsv").write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows))
    Path("test.tsv").write_text("label\ttext\ngood\ti love tea\nbad\ti hate soup\nbad\thate the fog\ngood\tlove\n")
    Path("texts.txt").write_text("i love soup\nhate it\n")
    more = [("so-so", text) for text in ("it is soup", "tea", "a mat", "it is, well", "so, so")]
    with Path("labelled.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("label", "text"), *rows, *more])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("classify-cli") / "tiny-model", seed=1)


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    monkeypatch.setenv("COLUMNS", "100")
    write_classify_files()


@pytest.fixture(scope="module")
def trained(sklearn, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MINISBERT_MODEL", str(model))
        write_classify_files()
        run("classify", "train", "train.tsv", "-o", "mood")
    return folder / "mood"


@pytest.fixture
def mood(trained):
    return Path(shutil.copytree(trained, "mood"))


# ---------------------------------------------------------------------------------------------------- train


def test_train_says_which_strength_was_chosen_and_what_to_expect(sklearn):
    options = ["--strength", "10", "--strength", "1", "--folds", 3, "--class-weight", "good=3"]
    result = run("classify", "train", "train.tsv", "-o", "m", *options)
    assert result.stderr == "wrote m\n"
    lines = result.stdout.splitlines()
    assert lines[0] == "train.tsv: 12 texts, 2 classes; tiny-model" and lines[2] == "strength C  log loss, 3 folds"
    assert [line.split()[0] for line in lines[3:5]] == ["1", "10"] and sum(" * " in line for line in lines[3:5]) == 1
    assert any(re.match(r"accuracy \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\), 12 texts", line) for line in lines)
    loaded = load_classifier("m")
    assert loaded.classes == ("bad", "good") and loaded.origin.model == "tiny-model"
    assert len(loaded.learnt) == 12 and loaded.facts["folds"] == 3

    said = json.loads(run("classify", "train", "train.tsv", "-o", "m", "--force", "--json", *options).stdout)
    assert said["class_weight"] == {"good": 3.0} and said["strengths"] == [1, 10] and said["temperature"] > 0
    assert said["offset"][0] == pytest.approx(-said["offset"][1]) and said["offset"][0] != 0
    assert said["out_of_fold"]["texts"] == 12 and np.sum(said["out_of_fold"]["confusion"]) == 12


def test_the_same_command_writes_the_same_bytes(mood):
    first = {file.name: file.read_bytes() for file in mood.iterdir()}
    run("classify", "train", "train.tsv", "-o", "mood", "--force")
    assert {file.name: file.read_bytes() for file in mood.iterdir()} == first


def test_a_threshold_is_told_and_leaves_texts_undecided(sklearn):
    arguments = ["--threshold-for", "good", "--precision", "0.6"]
    lines = run("classify", "train", "train.tsv", "-o", "strict", *arguments).stdout.splitlines()
    assert re.match(r"'good' is predicted from a probability of 0\.\d{4}: precision \d", lines[-1])
    assert load_classifier("strict").threshold.precision >= 0.6
    # a bound that nothing reaches: what would be good is undecided
    head = json.loads(Path("strict/classifier.json").read_text())
    head["facts"]["threshold"]["probability"] = 1.0
    Path("strict/classifier.json").write_text(json.dumps(head))
    asked = ["classify", "predict", "strict", "-i", "train.tsv", "--column", "text"]
    found = json.loads(run(*asked, "--json").stdout)
    assert {one["label"] for one in found} == {None, "bad"}
    assert all(one["probability"] == one["probabilities"][one["label"] or "good"] for one in found)
    assert "\nundecided  " in run(*asked).stdout
    report = run("classify", "evaluate", "strict", "test.tsv").stdout
    assert "undecided, counted as wrong" in report and re.search(r"bad +good +undecided\n", report)


@pytest.mark.parametrize(
    ("arguments", "code", "key"),
    [
        (["--threshold-for", "good"], 2, "--precision"),
        (["--precision", "0.9"], 2, "--threshold-for"),
        (["--threshold-for", "fine", "--precision", "0.9"], 1, "'fine'"),
        (["--precision", "90", "--threshold-for", "good"], 2, "90"),
        (["--class-weight", "fair"], 2, "'fair'"),
        (["--class-weight", "good=much"], 2, "'good=much'"),
        (["--class-weight", "good=0"], 1, "'good': 0"),
        (["--class-weight", "fine=2"], 1, "--class-weight must name the classes 'bad', 'good'"),
        (["--strength", "0"], 2, "0"),
        (["--folds", "1"], 2, "1"),
        (["--columns", "text"], 2, "LABEL,TEXT"),
        (["--no-header"], 2, "--columns"),
        (["--columns", "mood,text"], 1, "'mood'"),
        (["-o", "train.tsv"], 1, "train.tsv: expected a folder"),
    ],
)
def test_train_refuses_what_makes_no_sense(sklearn, arguments, code, key):
    assert key in refused("classify", "train", "train.tsv", "-o", "mood", *arguments, code=code)
    assert not Path("mood").exists()


def test_four_texts_are_enough_and_one_class_is_not(sklearn):
    Path("four.tsv").write_text("label\ttext\na\tfine day\na\tlovely sun\nb\tbad night\nb\tawful rain\n")
    assert "log loss, 2 folds" in run("classify", "train", "four.tsv", "-o", "m").stdout
    Path("one.tsv").write_text("label\ttext\na\tx\na\ty\n")
    assert "one.tsv: all 2 texts belong to one class" in refused("classify", "train", "one.tsv", "-o", "m2")
    assert "already exists" in refused("classify", "train", "four.tsv", "-o", "m")


# -------------------------------------------------------------------------------------------------- predict


def test_predict_gives_the_same_however_it_is_asked(mood, model):
    as_json = json.loads(run("classify", "predict", "mood", "-i", "texts.txt", "--json").stdout)
    assert run("classify", "predict", "mood", "-i", "texts.txt", "-o", "m.csv").stdout == ""
    run("classify", "predict", "mood", "-i", "texts.txt", "-o", "m.jsonl")
    assert [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()] == as_json
    with Path("m.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == [one["label"] for one in as_json]
    assert [float(row["p(good)"]) for row in rows] == [one["probabilities"]["good"] for one in as_json]
    Path("gaps.csv").write_text('text\n""\ni love soup\nhate it\n')
    found = run("classify", "predict", "mood", "-i", "gaps.csv", "--json")
    assert json.loads(found.stdout) == as_json and "gaps.csv, line 2: skipped 1 row without a text" in found.stderr
    classifier = load_classifier("mood")
    vectors = SentenceEncoder(model).encode(["i love soup", "hate it"])
    expected = classifier.predict_proba(vectors)
    np.testing.assert_allclose([list(one["probabilities"].values()) for one in as_json], expected, rtol=1e-6)
    assert [one["label"] for one in as_json] == classifier.predict(vectors)
    table = run("classify", "predict", "mood", "-i", "texts.txt").stdout.splitlines()[1:]
    assert [line.split()[1] for line in table] == [f"{one['probability']:.3f}" for one in as_json]


def test_predict_keeps_texts_whole_in_csv_and_safe_on_a_terminal(mood):
    text = 'two\nlines, "quotes" \x1b[31m'
    run("classify", "predict", "mood", text, "-o", "m.csv")
    with Path("m.csv").open(newline="") as stream:
        assert [row["text"] for row in csv.DictReader(stream)] == [text]
    shown = run("classify", "predict", "mood", text).stdout
    assert "\x1b" not in shown and len(shown.splitlines()) == 2


def test_predict_unescapes_as_it_was_trained(sklearn):
    Path("html.tsv").write_text(Path("train.tsv").read_text().replace("the", "&amp;"))
    run("classify", "train", "html.tsv", "-o", "m", "--unescape")
    one, other = json.loads(run("classify", "predict", "m", "love &amp; cat", "love & cat", "--json").stdout)
    assert one["probabilities"] == pytest.approx(other["probabilities"], rel=1e-6)
    assert one["text"] == "love &amp; cat"
    report = run("classify", "evaluate", "m", "html.tsv").stdout
    assert "12 of 12 texts are identical to training texts\n" in report


@pytest.mark.parametrize(
    ("arguments", "code", "key"),
    [
        (["mood"], 2, "Nothing to classify"),
        (["mood", "x", ""], 1, "text 2 of 2, '': nothing but blanks"),
        (["mood", "x", "-i", "texts.txt"], 2, "not both"),
        (["mood", "x", "-o", "m.txt"], 2, ".jsonl"),
        (["mood", "x", "-o", "train.csv.jsonl/m.csv"], 1, "does not exist"),
        (["mood", "x", "-o", "labelled.csv"], 1, "already exists"),
        (["none", "x"], 1, "no such folder"),
        (["train.tsv", "x"], 1, "train.tsv"),
        (["mood", "x", "--max-seq-length", "8"], 1, "--max-seq-length = 16"),
        (["mood", "x", "--model", "other"], 1, "'tiny-model'"),
        (["mood", "-i", "none.txt"], 1, "none.txt"),
    ],
)
def test_predict_refuses_what_makes_no_sense(mood, arguments, code, key):
    if "other" in arguments:
        write_model(Path("other"), seed=3)
    assert key in refused("classify", "predict", *arguments, code=code)


# ------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_says_what_its_json_says(mood):
    text = run("classify", "evaluate", "mood", "test.tsv", "--baseline", "train.tsv", "-o", "r.json").stdout
    said = json.loads(Path("r.json").read_text())
    again = run("classify", "evaluate", "mood", "test.tsv", "--baseline", "train.tsv", "--json").stdout
    assert json.loads(again) == said
    assert said["texts"] == 4 and said["learnt"] == 1 and said["model"] == "tiny-model"
    right = np.mean(np.array(said["expected"]) == said["predicted"])
    assert said["accuracy"]["mean"] == right and f"accuracy {100 * right:.2f} (" in text
    assert "1 of 4 texts are identical to training texts; accuracy on the others" in text
    baseline = said["baseline"]
    theirs = np.mean(np.array(said["expected"]) == baseline["predicted"])
    assert baseline["tfidf"]["accuracy"]["mean"] == theirs
    assert baseline["accuracy_difference"]["mean"] == pytest.approx(right - theirs)
    assert re.search(rf"^accuracy +{100 * right:.2f} +{100 * theirs:.2f} ", text, re.MULTILINE)
    assert f"TF-IDF: {baseline['features']:,} words and word pairs" in text


def test_evaluate_of_many_classes_names_the_most_frequent_confusions(sklearn):
    words = [f"{a} {b}" for a in "abcdefghijklmn" for b in ("cat", "dog", "mat")]
    rows = "".join(f"class {i // 3}\t{word}\n" for i, word in enumerate(words))
    Path("many.tsv").write_text("label\ttext\n" + rows)
    run("classify", "train", "many.tsv", "-o", "many", "--folds", "3", "--strength", "1")
    text = run("classify", "evaluate", "many", "many.tsv").stdout
    assert "rows: true class" not in text and text.count("class 13") >= 1 and "most frequent confusions:" in text


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["mood", "labelled.csv"], "'so-so', on 5 texts"),
        (["mood", "test.tsv", "--baseline", "test.tsv"], "classifier's own training set"),
        (["none", "test.tsv"], "no such folder"),
        (["mood", "test.tsv", "-o", "train.tsv"], "already exists"),
    ],
)
def test_evaluate_refuses_what_makes_no_sense(mood, arguments, key):
    assert key in refused("classify", "evaluate", *arguments)
