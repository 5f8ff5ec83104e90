"""``minisbert classify``: what its verbs print, refuse, and leave behind. Everything runs on a tiny random model."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import refused, run, stand_in, told
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.analysis.classifier import load_classifier

GOOD = ["what a feast", "i love soup", "love it on the mat", "so good a soup", "i love the cat", "love the dog"]
BAD = ["what a mess", "i hate tea", "hate it on the mat", "so bad a tea", "i hate the rat", "hate the fog"]
TEST = [("good", "i love tea"), ("bad", "i hate soup"), ("bad", "hate the fog"), ("good", "love")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("classify-cli") / "tiny-model", seed=1)


def write_table(name, rows):
    Path(name).write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows))


def write_files():
    train = [*(("good", text) for text in GOOD), *(("bad", text) for text in BAD)]
    write_table("train.tsv", train)
    write_table("test.tsv", TEST)
    write_table("other.tsv", [*train, ("so-so", "it is soup"), ("so-so", "tea")])
    Path("texts.txt").write_text("i love soup\nhate it\n")


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    stand_in(tmp_path / "work", monkeypatch, model)
    write_files()


@pytest.fixture(scope="module")
def trained(sklearn, model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trained")
        stand_in(folder, patch, model)
        write_files()
        run("classify", "train", "train.tsv", "-o", "mood")
    return folder / "mood"


@pytest.fixture
def mood(trained):
    return Path(shutil.copytree(trained, "mood"))


def test_train_says_which_strength_was_chosen_and_what_to_expect(sklearn):
    command = ["classify", "train", "train.tsv", "--strength", "10", "--strength", "1", "--folds", 3]
    command += ["--class-weight", "good=3"]
    result = run(*command, "-o", "m")
    lines, loaded = result.stdout.splitlines(), load_classifier("m")
    assert lines[0] == "train.tsv: 12 texts, 2 classes; tiny-model"
    assert re.match(r"C 10?, the best of 1, 10: try others beyond it: log loss 0\.\d{4}, 3 folds", lines[1])
    assert any(re.match(r"accuracy \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\), 12 texts", line) for line in lines)
    assert result.stderr == "wrote m\n" and loaded.classes == ("bad", "good") and loaded.origin.model == "tiny-model"
    before = {file.name: file.read_bytes() for file in Path("m").iterdir()}
    said = told(*command, "-o", "m", "--force")
    assert {file.name: file.read_bytes() for file in Path("m").iterdir()} == before  # the same command, the same bytes
    assert said["class_weight"] == {"good": 3.0} and said["strengths"] == [1, 10] and said["temperature"] > 0
    assert said["offset"][0] == pytest.approx(-said["offset"][1]) and said["offset"][0] != 0
    assert said["out_of_fold"]["texts"] == 12 and np.sum(said["out_of_fold"]["confusion"]) == 12


def test_a_threshold_is_told_and_leaves_texts_undecided(sklearn):
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
    report = run("classify", "evaluate", "strict", "test.tsv").stdout
    assert "undecided, counted as wrong" in report


def test_four_texts_are_enough(sklearn):
    write_table("four.tsv", [("a", "fine day"), ("a", "lovely sun"), ("b", "bad night"), ("b", "awful rain")])
    assert ", 2 folds\n" in run("classify", "train", "four.tsv", "-o", "m").stdout


def test_predict_gives_the_same_however_it_is_asked(mood, model):
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


def test_predict_unescapes_as_it_was_trained(sklearn):
    Path("html.tsv").write_text(Path("train.tsv").read_text().replace("the", "&amp;"))
    run("classify", "train", "html.tsv", "-o", "m", "--unescape")
    one, other = told("classify", "predict", "m", "love &amp; cat", "love & cat")
    assert one["probabilities"] == pytest.approx(other["probabilities"], rel=1e-6) and one["text"] == "love &amp; cat"
    assert "12 of 12 texts are identical to training texts\n" in run("classify", "evaluate", "m", "html.tsv").stdout


def test_evaluate_says_what_its_json_says(mood):
    asked = ["classify", "evaluate", "mood", "test.tsv", "--baseline", "train.tsv"]
    text, said = run(*asked, "-o", "r.json").stdout, json.loads(Path("r.json").read_text())
    assert told(*asked) == said
    assert said["texts"] == 4 and said["learnt"] == 1 and said["model"] == "tiny-model"
    right, theirs = (np.mean(np.array(said["expected"]) == x["predicted"]) for x in (said, said["baseline"]))
    assert said["accuracy"]["mean"] == right and f"accuracy {100 * right:.2f} (" in text
    assert "1 of 4 texts are identical to training texts; accuracy on the others" in text
    assert said["baseline"]["tfidf"]["accuracy"]["mean"] == theirs
    assert said["baseline"]["accuracy_difference"]["mean"] == pytest.approx(right - theirs)
    assert re.search(rf"^accuracy +{100 * right:.2f} +{100 * theirs:.2f} ", text, re.MULTILINE)
    assert f"TF-IDF: {said['baseline']['features']:,} words and word pairs" in text


def test_evaluate_of_many_classes_lists_the_worst_and_the_most_frequent_confusions(sklearn):
    write_table("many.tsv", [(f"class {i}", f"{a} {b}") for i, a in enumerate("abcdefghijklmnopqrstuv") for b in "xy"])
    run("classify", "train", "many.tsv", "-o", "many", "--folds", "2", "--strength", "1")
    asked = ["classify", "evaluate", "many", "many.tsv"]
    text, report = run(*asked).stdout, told(*asked)
    scores = re.findall(r"^class \d+ .* (\d+\.\d) \([^)]*\)$", text, re.MULTILINE)
    assert [float(score) for score in scores] == sorted(map(float, scores)) and len(scores) == 20
    assert "\nand 2 more (--json)\n" in text
    count, true, predicted = re.search(r"predicted class\n +(\d+)  class (\d+) -> class (\d+)\n", text).groups()
    names, wrong = list(report["classes"]), np.array(report["confusion"])[:, :22] * (1 - np.eye(22))
    assert int(count) == wrong.max() == wrong[names.index(f"class {true}"), names.index(f"class {predicted}")]


@pytest.mark.parametrize(
    ("line", "code", "key"),
    [
        ("train train.tsv -o m --threshold-for good", 2, "--precision"),
        ("train train.tsv -o m --threshold-for fine --precision 0.9", 1, "'fine'"),
        ("train train.tsv -o m --class-weight fair", 2, "'fair'"),
        ("train train.tsv -o m --class-weight fine=2", 1, "--class-weight"),
        ("train train.tsv -o m --columns text", 1, "--columns must be 2, of label, text"),
        ("train train.tsv -o m --no-header", 1, "by number"),
        ("train train.tsv -o train.tsv", 1, "train.tsv"),
        ("train train.tsv -o mood", 1, "already exists"),
        ("train one.tsv -o m", 1, "one.tsv: all 2 texts"),
        ("predict mood", 2, "Nothing to classify"),
        ("predict mood x ''", 1, "text 2 of 2"),
        ("predict mood x -o m.txt", 2, ".jsonl"),
        ("predict none x", 1, "no such folder"),
        ("predict mood x --max-seq-length 8", 1, "--max-seq-length = 16"),
        ("predict mood x --model other", 1, "'tiny-model'"),
        ("evaluate mood other.tsv", 1, "'so-so', on 2 texts"),
        ("evaluate mood test.tsv --baseline test.tsv", 1, "training set"),
    ],
)
def test_what_makes_no_sense_is_refused(mood, line, code, key):
    write_model(Path("other"), seed=3)
    write_table("one.tsv", [("a", "x"), ("a", "y")])
    assert key in refused("classify", *(word.strip("'") for word in line.split()), code=code)
    assert not Path("m").exists()
