"""``minisbert classify``: what its verbs print, refuse, and leave behind. Everything runs on a tiny random model."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from running import refused, run
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.analysis.classifier import load_classifier
from minisbert.cli import LazyGroup
from minisbert.cli.classify import VERBS, classify
from minisbert.evaluation.classification import read_labelled


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


def train_all():
    """The classifiers that the examples of help use."""
    run("classify", "train", "train.tsv", "-o", "mood")


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


@pytest.fixture
def mood(sklearn):
    train_all()
    return Path("mood")


# ---------------------------------------------------------------------------------------------------- train


def test_train_says_which_strength_was_chosen_and_what_to_expect(sklearn):
    result = run("classify", "train", "train.tsv", "-o", "mood", "--strength", "10", "--strength", "1", "--folds", 3)
    assert result.stderr == "wrote mood\n"
    lines = result.stdout.splitlines()
    assert lines[0] == "train.tsv: 12 texts, 2 classes; tiny-model"
    assert lines[2] == "strength C  log loss, mean of 3 folds"
    assert [line.split()[0] for line in lines[3:5]] == ["1", "10"] and sum(" * " in line for line in lines[3:5]) == 1
    assert "On held-out texts:" in lines
    assert any(re.match(r"accuracy \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\), 12 texts", line) for line in lines)
    assert [line.split()[0] for line in lines if re.match(r"(bad|good) +6 ", line)] == ["bad", "good"]
    assert any(line.startswith("calibrated ") for line in lines)
    loaded = load_classifier("mood")
    assert loaded.classes == ("bad", "good") and loaded.origin.model == "tiny-model"
    assert len(loaded.learnt) == 12 and loaded.facts["folds"] == 3


def test_train_as_json_says_everything(sklearn):
    result = run(
        "classify", "train", "train.tsv", "-o", "m", "--json", "--class-weight", "good=3", "--scoring", "macro_f1"
    )
    said = json.loads(result.stdout)
    assert said["class_weight"] == {"good": 3.0} and said["scoring"] == "macro_f1" and said["texts"] == 12
    assert said["strength"] in said["strengths"] and len(said["scores"]) == len(said["strengths"]) == 3
    assert said["offset"][0] == pytest.approx(-said["offset"][1]) and said["offset"][0] != 0
    out = said["out_of_fold"]
    assert out["texts"] == 12 and sum(map(sum, out["confusion"])) == 12
    assert set(out["probabilities"]["calibrated"]) == {"log_loss", "brier", "calibration_error"}
    recall = out["classes"]["good"]["recall"]
    assert recall[0] == out["confusion"][1][1] / 6 and recall[1] <= recall[0] <= recall[2]


def test_the_same_command_writes_the_same_bytes(mood):
    first = {file.name: file.read_bytes() for file in mood.iterdir()}
    run("classify", "train", "train.tsv", "-o", "mood", "--force")
    assert {file.name: file.read_bytes() for file in mood.iterdir()} == first


def test_a_threshold_is_told_and_leaves_texts_undecided(sklearn):
    arguments = ["--threshold-for", "good", "--precision", "0.6"]
    lines = run("classify", "train", "train.tsv", "-o", "strict", *arguments).stdout.splitlines()
    assert re.match(r"'good' is predicted from a probability of 0\.\d{4}: precision \d", lines[-1])
    classifier = load_classifier("strict")
    assert classifier.threshold.label == "good" and classifier.threshold.precision >= 0.6
    # a bound that nothing reaches: what would be good is undecided
    head = json.loads(Path("strict/classifier.json").read_text())
    head["facts"]["threshold"]["probability"] = 1.0
    Path("strict/classifier.json").write_text(json.dumps(head))
    found = json.loads(run("classify", "predict", "strict", "-i", "train.tsv", "--column", "text", "--json").stdout)
    assert {one["label"] for one in found} == {None, "bad"}
    assert all(one["probability"] == one["probabilities"][one["label"] or "good"] for one in found)
    table = run("classify", "predict", "strict", "-i", "train.tsv", "--column", "text").stdout
    assert "\nundecided  " in table
    report = run("classify", "evaluate", "strict", "test.tsv").stdout
    assert "undecided, counted as wrong" in report and re.search(r"bad +good +undecided\n", report)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--threshold-for", "good"], 2, "--threshold-for and --precision must"),
        (["--precision", "0.9"], 2, "--threshold-for and --precision must"),
        (["--threshold-for", "fine", "--precision", "0.9"], 1, "must be one of the classes 'bad', 'good', got 'fine'"),
        (["--precision", "90", "--threshold-for", "good"], 2, "90"),
        (["--class-weight", "fair"], 2, "--class-weight must be balanced or CLASS=WEIGHT, got 'fair'"),
        (["--class-weight", "good=much"], 2, "got 'good=much'"),
        (["--class-weight", "good=0"], 1, "positive weights"),
        (["--class-weight", "fine=2"], 1, "--class-weight must name the classes 'bad', 'good', got 'fine'"),
        (["--strength", "0"], 2, "0"),
        (["--folds", "1"], 2, "1"),
        (["--columns", "text"], 2, "must name two"),
        (["--no-header"], 2, "with --columns"),
        (["--columns", "mood,text"], 1, "no column 'mood'"),
        (["-o", "train.tsv"], 1, "train.tsv: expected a folder, got a file"),
    ],
)
def test_train_refuses_what_makes_no_sense(sklearn, arguments, code, message):
    assert message in refused("classify", "train", "train.tsv", "-o", "mood", *arguments, code=code)
    assert not Path("mood").exists()


def test_train_replaces_only_by_force_and_only_a_classifier(mood):
    assert "already exists" in refused("classify", "train", "train.tsv", "-o", "mood")
    Path("mood/notes.txt").write_text("mine")
    assert "notes.txt" in refused("classify", "train", "train.tsv", "-o", "mood", "--force")
    assert Path("mood/notes.txt").read_text() == "mine"


def test_four_texts_are_enough(sklearn):
    Path("four.tsv").write_text("label\ttext\na\tfine day\na\tlovely sun\nb\tbad night\nb\tawful rain\n")
    assert "log loss, mean of 2 folds" in run("classify", "train", "four.tsv", "-o", "m").stdout
    assert load_classifier("m").facts["folds"] == 2


def test_labels_that_cannot_be_learnt_are_refused(sklearn):
    Path("one.tsv").write_text("label\ttext\na\tx\na\ty\n")
    assert "all 2 texts belong to one class" in refused("classify", "train", "one.tsv", "-o", "m")
    Path("few.tsv").write_text("label\ttext\na\tx\na\ty\nb\tz\n")
    assert "'b' (1) have fewer than two different texts" in refused("classify", "train", "few.tsv", "-o", "m")


# -------------------------------------------------------------------------------------------------- predict


def test_predict_needs_no_scikit_learn(mood, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    lines = run("classify", "predict", "mood", "i love soup", "hate it").stdout.splitlines()
    assert lines[0] == "label  prob.  text"
    assert [line.split(maxsplit=2)[2] for line in lines[1:]] == ["i love soup", "hate it"]


def test_predict_gives_the_same_however_it_is_asked(mood, model):
    as_json = json.loads(run("classify", "predict", "mood", "-i", "texts.txt", "--json").stdout)
    assert run("classify", "predict", "mood", "-i", "texts.txt", "-o", "m.csv").stdout == ""
    run("classify", "predict", "mood", "-i", "texts.txt", "-o", "m.jsonl")
    assert [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()] == as_json
    with Path("m.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == [one["label"] for one in as_json]
    assert [float(row["p(good)"]) for row in rows] == [one["probabilities"]["good"] for one in as_json]
    classifier = load_classifier("mood")
    vectors = SentenceEncoder(model).encode(["i love soup", "hate it"])
    expected = classifier.predict_proba(vectors)
    np.testing.assert_allclose([list(one["probabilities"].values()) for one in as_json], expected, rtol=1e-6)
    assert [one["label"] for one in as_json] == classifier.predict(vectors)
    table = run("classify", "predict", "mood", "-i", "texts.txt").stdout.splitlines()[1:]
    assert [line.split()[1] for line in table] == [f"{one['probability']:.3f}" for one in as_json]


def test_predict_keeps_texts_whole_in_csv_and_safe_on_a_terminal(mood):
    text = 'two\nlines, "quotes" \x1b[31m'
    run("classify", "predict", "mood", text, "", "-o", "m.csv")
    with Path("m.csv").open(newline="") as stream:
        assert [row["text"] for row in csv.DictReader(stream)] == [text, ""]
    shown = run("classify", "predict", "mood", text, "").stdout
    assert "\x1b" not in shown and "(empty)" in shown and len(shown.splitlines()) == 3


def test_predict_unescapes_as_it_was_trained(sklearn):
    Path("html.tsv").write_text(Path("train.tsv").read_text().replace("the", "&amp;"))
    run("classify", "train", "html.tsv", "-o", "m", "--unescape")
    assert load_classifier("m").unescape
    one, other = json.loads(run("classify", "predict", "m", "love &amp; cat", "love & cat", "--json").stdout)
    assert one["probabilities"] == pytest.approx(other["probabilities"], rel=1e-6)
    assert one["text"] == "love &amp; cat"
    report = run("classify", "evaluate", "m", "html.tsv").stdout
    assert "12 of 12 texts are identical to training texts\n" in report


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["mood"], 2, "Nothing to classify"),
        (["mood", "x", "-i", "texts.txt"], 2, "not both"),
        (["mood", "x", "-o", "m.txt"], 2, "-o must end in .csv or .jsonl"),
        (["mood", "x", "-o", "train.csv.jsonl/m.csv"], 1, "does not exist"),
        (["none", "x"], 1, "no such folder"),
        (["train.tsv", "x"], 1, "train.tsv"),
        (["mood", "x", "--max-seq-length", "8"], 1, "--max-seq-length = 16"),
        (["mood", "-i", "none.txt"], 1, "none.txt"),
    ],
)
def test_predict_refuses_what_makes_no_sense(mood, arguments, code, message):
    assert message in refused("classify", "predict", *arguments, code=code)


def test_predict_replaces_no_file_and_takes_no_other_model(mood, tmp_path):
    Path("m.csv").write_text("mine")
    assert "already exists" in refused("classify", "predict", "mood", "x", "-o", "m.csv")
    run("classify", "predict", "mood", "x", "-o", "m.csv", "--force")
    assert Path("m.csv").read_text().startswith("text,label,probability,p(bad),p(good)\n")
    other = write_model(tmp_path / "other", seed=3)
    assert "this classifier is of the model 'tiny-model'" in refused(
        "classify", "predict", "mood", "x", "--model", other
    )


# ------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_says_what_its_json_says(mood):
    text = run("classify", "evaluate", "mood", "test.tsv", "--baseline", "train.tsv", "-o", "r.json").stdout
    said = json.loads(Path("r.json").read_text())
    assert (
        json.loads(run("classify", "evaluate", "mood", "test.tsv", "--baseline", "train.tsv", "--json").stdout) == said
    )
    assert said["texts"] == 4 and said["learnt"] == 1 and said["model"] == "tiny-model"
    right = np.mean(np.array(said["expected"]) == said["predicted"])
    assert said["accuracy"][0] == right and f"accuracy {100 * right:.2f} (" in text
    assert "1 of 4 texts are identical to training texts; accuracy on the others" in text
    baseline = said["baseline"]
    theirs = np.mean(np.array(said["expected"]) == baseline["predicted"])
    assert baseline["accuracy"][0] == theirs
    assert baseline["difference"]["accuracy"][0] == pytest.approx(right - theirs)
    assert re.search(rf"^accuracy +{100 * right:.2f} +{100 * theirs:.2f} ", text, re.MULTILINE)
    assert f"TF-IDF: {baseline['features']:,} words and word pairs" in text
    assert said["confusion"][0][-1] == 0 and np.sum(said["confusion"]) == 4


def test_evaluate_of_many_classes_names_the_most_frequent_confusions(sklearn):
    words = [f"{a} {b}" for a in "abcdefghijklmn" for b in ("cat", "dog", "mat")]
    rows = "".join(f"class {i // 3}\t{word}\n" for i, word in enumerate(words))
    Path("many.tsv").write_text("label\ttext\n" + rows)
    run("classify", "train", "many.tsv", "-o", "many", "--folds", "3", "--strength", "1")
    text = run("classify", "evaluate", "many", "many.tsv").stdout
    assert "rows: true class" not in text and text.count("class 13") >= 1
    assert ("most frequent confusions:" in text) and "42 of 42 texts are identical to training texts\n" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mood", "labelled.csv"], "does not know the labels 'so-so' (5)"),
        (
            ["mood", "test.tsv", "--baseline", "test.tsv"],
            "must be trained on the classifier's own",
        ),
        (["none", "test.tsv"], "no such folder"),
        (["mood", "test.tsv", "-o", "train.tsv"], "already exists"),
    ],
)
def test_evaluate_refuses_what_makes_no_sense(mood, arguments, message):
    assert message in refused("classify", "evaluate", *arguments)


# ---------------------------------------------------------------------------------------------------- split


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
def test_split_loses_nothing_and_doubles_nothing(suffix):
    said = run("classify", "split", "labelled.csv", f"a.{suffix}", f"b.{suffix}", "--hold-out", "0.25").stdout
    sides = [read_labelled(f"{name}.{suffix}") for name in "ab"]
    pairs = [list(zip(side.labels, side.texts, strict=True)) for side in sides]
    whole = read_labelled("labelled.csv")
    assert sorted(pairs[0] + pairs[1]) == sorted(zip(whole.labels, whole.texts, strict=True))
    assert len(pairs[1]) == 4 and not set(pairs[0]) & set(pairs[1])
    assert f"b.{suffix}: 4 texts (" in said
    again = [Path(f"{name}.{suffix}").read_bytes() for name in "ab"]
    run("classify", "split", "labelled.csv", f"a.{suffix}", f"b.{suffix}", "--hold-out", "0.25", "--force")
    assert [Path(f"{name}.{suffix}").read_bytes() for name in "ab"] == again


def test_split_merges_classes_and_keeps_equal_texts_on_one_side():
    Path("twice.tsv").write_text(
        "label\ttext\n" + "".join(f"{c}\ttext {i}\n" * 2 for i in range(20) for c in "ab"[i % 2])
    )
    run("classify", "split", "twice.tsv", "a.tsv", "b.tsv", "--merge", "ab=a,b", "--hold-out", "0.5")
    one, other = read_labelled("a.tsv"), read_labelled("b.tsv")
    assert set(one.labels) == {"ab"} and len(one.texts) == len(other.texts) == 20
    assert not set(one.texts) & set(other.texts)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a.tsv", "a.tsv"], 2, "must be different files"),
        (["a.txt", "b.tsv"], 2, "'a.txt' must end in .tsv, .csv or .jsonl"),
        (["a.tsv", "b.tsv.gz"], 2, "'b.tsv.gz' must end in"),
        (["a.tsv", "train.tsv"], 1, "already exists"),
        (["a.tsv", "b.tsv", "--merge", "x"], 2, "--merge must be NAME=CLASS,CLASS"),
        (["a.tsv", "b.tsv", "--merge", "x=good,fine"], 2, "the file has no class 'fine'"),
        (["a.tsv", "b.tsv", "--hold-out", "1"], 2, "1"),
        (["a.tsv", "b.tsv", "--hold-out", "0.01"], 1, "leaves texts on both sides"),
    ],
)
def test_split_refuses_what_makes_no_sense(arguments, code, message):
    assert message in refused("classify", "split", "labelled.csv", *arguments, code=code)
    assert not Path("b.tsv").exists()


def test_split_writes_no_tsv_that_could_not_be_read():
    Path("tabs.csv").write_text('label,text\na,"x\ty"\na,z\nb,"u\nv"\nb,w\n')
    assert "a TSV cannot hold" in refused_after("classify", "split", "tabs.csv", "a.tsv", "b.tsv", "--hold-out", "0.5")
    assert not Path("a.tsv").exists() and not Path("b.tsv").exists()
    run("classify", "split", "tabs.csv", "a.csv", "b.csv", "--hold-out", "0.5")
    assert sorted([*read_labelled("a.csv").texts, *read_labelled("b.csv").texts]) == ["u\nv", "w", "x\ty", "z"]


def refused_after(*arguments):
    """As `refused`, of what may have said something before."""
    return run(*arguments, code=1).stderr


# ----------------------------------------------------------------------------------------------------- help


def test_every_verb_has_help_that_runs(mood):
    import shutil

    shutil.rmtree("mood")
    context = classify.make_context("classify", [], resilient_parsing=True)
    assert isinstance(classify, LazyGroup) and classify.list_commands(context) == list(VERBS)
    for verb in ("train", "predict", "evaluate", "split"):
        text = run("classify", verb, "--help").stdout
        assert VERBS[verb][1].rstrip(".") in " ".join([text, run("classify", "--help").stdout])
        if verb != "train" and not Path("mood").exists():
            train_all()
        examples = re.findall(r"^ +minisbert (classify .*)$", text, re.MULTILINE)
        assert len(examples) >= 2
        for example in examples:
            run(*shlex.split(example))
        if verb == "train":
            assert Path("mood").is_dir() and Path("fair").is_dir() and Path("strict").is_dir()
