"""The verbs of `minisbert entities`: train, predict, evaluate, as tables and as JSON, and what they refuse."""

import json
from pathlib import Path

import pytest
from running import refused, run, stand_in, told
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.analysis.entities import load_tagger

SENTENCES = [
    ("the cat sat", "O B-animal O"),
    ("i love soup", "O O B-dish"),
    ("the dog ran on the mat", "O B-animal O O O O"),
    ("soup !", "B-dish O"),
    ("Bo Cat ran", "B-person I-person O"),
    ("love on the mat", "O O O O"),
]


def write_files():
    rows = [(words.split(), tags.split()) for words, tags in SENTENCES]
    lines = [json.dumps({"tokens": [*words, x], "tags": [*tags, "O"]}) for words, tags in rows for x in "abc"]
    for name in ("train.jsonl", "dev.jsonl", "test.jsonl"):
        Path(name).write_text("\n".join(lines) + "\n")
    blocks = ["\n".join(f"{w}\t{t}" for w, t in zip(words, tags, strict=True)) for words, tags in rows * 2]
    Path("train.conll").write_text("\n\n".join(blocks) + "\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("entities") / "tiny-model")


@pytest.fixture(scope="module")
def names(model, tmp_path_factory, sklearn):
    """A tagger, trained once."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(tmp_path_factory.mktemp("trained"), patch, model)
        write_files()
        where = ["train.jsonl", "--dev", "dev.jsonl", "-o", "names", "--layer", 0]
        run("entities", "train", *where, "--strength", 1, "--strength", 10)
        return Path("names").resolve()


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    stand_in(tmp_path, monkeypatch, model)
    write_files()


def test_training_says_what_was_tried_and_chosen(sklearn):
    result = run("entities", "train", "train.jsonl", "-o", "names", "--strength", "0.1", "--strength", "1")
    lines, tagger = result.stdout.splitlines(), load_tagger("names")
    assert lines[0] == "tiny-model, layer 1; train.jsonl: 18 sentences, 81 words; types: animal, dish, person"
    assert "on cross-validation, 3 folds" in lines[2] and lines[4].split()[:2] == ["offset", "0"]
    rows = [line.split() for line in lines[5:7]]
    assert [row[:2] for row in rows] == [["C", "0.1"], ["C", "1"]]
    assert [row[2:] for row in rows] == [[f"{100 * f1:.2f}" for f1 in row] for row in tagger.training["f1"]]
    assert f"chosen: C {tagger.training['strength']:g}, offset {tagger.offset:g}." in result.stdout
    assert "C is at the edge of the values tried" in result.stdout and result.stderr == "wrote names\n"


def test_training_with_settings_as_said(sklearn):
    said = ["--layer", 0, "--strength", 1, "--offset", 1]
    found = told("entities", "train", "train.conll", "-o", "names", *said)
    assert (found["layer"], found["strength"], found["offset"], found["f1"], found["sentences"]) == (
        0,
        1.0,
        1.0,
        [],
        12,
    )
    text = run("entities", "train", "train.conll", "-o", "names", *said, "--force").stdout
    assert text.endswith("C 1, offset 1, as given\n")


def test_entities_as_a_table_and_as_json(names, model):
    shown = run("entities", "predict", names, "The  dog ran", "love", "", "i love soup").stdout.splitlines()
    assert shown[0] == "The dog ran" and shown[2:6] == ["love", "  (none)", "(empty)", "  (none)"] and len(shown) == 8
    name, kind, place, probability = shown[1].split()
    assert (name, kind, place) == ("dog", "animal", "5-8") and shown[7].split()[:3] == ["soup", "dish", "7-11"]
    Path("texts.txt").write_text("The  dog ran\n\ná  Soup!\n", encoding="utf-8")
    lines = run("entities", "predict", names, "-i", "texts.txt", "--json").stdout.splitlines()
    found, texts = [json.loads(line) for line in lines], ["The  dog ran", "", "á  Soup!"]
    assert [one["text"] for one in found] == texts
    assert [one["entities"] for one in found] == [
        [{**vars(entity), "probability": pytest.approx(entity.probability, abs=1e-6)} for entity in entities]
        for entities in load_tagger(names).find(SentenceEncoder(model), texts)
    ]
    assert probability == f"{found[0]['entities'][0]['probability']:.2f}"


def test_evaluation_beside_baselines(names):
    said = ["entities", "evaluate", names, "test.jsonl", "--baselines", "train.jsonl", "--dev", "dev.jsonl"]
    text = run(*said, "-o", "result.json").stdout
    written, lines = json.loads(Path("result.json").read_text()), text.splitlines()
    assert told(*said) == written
    assert lines[0] == "test.jsonl: 18 sentences, 81 words, 15 entities"
    shown = {line[:12].strip(): line[12:].split() for line in lines[3:7]}
    assert list(shown) == ["linear probe", "spelling", "lexicon", "all O"]
    for one in written["systems"]:
        spans, cells = one["spans"], shown[one["name"]]
        figures = [spans["f1"]["mean"], spans["f1"]["low"], spans["f1"]["high"], spans["precision"]["mean"]]
        assert [cells[i] for i in (0, 1, 3, 4)] == [f"{100 * figure:.2f}" for figure in figures]
    assert shown["all O"][0] == "0.00" and shown["lexicon"][0] == "100.00" and float(shown["linear probe"][0]) > 60
    assert [line.split()[0] for line in lines[11:14]] == ["animal", "dish", "person"]
    assert "0.00 % of the entities do not occur with their type in the training file" in text
    assert "lexicon" not in run("entities", "evaluate", names, "train.conll").stdout


@pytest.mark.parametrize(
    ("line", "code", "key"),
    [
        ("train bad.jsonl -o x", 1, "bad.jsonl, line 2"),
        ("train train.jsonl --dev bad.jsonl -o x", 1, "bad.jsonl, line 2"),
        ("train bad.jsonl -o NAMES", 1, "already exists"),  # before the file is read
        ("train train.jsonl -o x --layer 3", 1, "to 2"),
        ("predict NAMES", 2, "Nothing to search"),
        ("predict NAMES x -i y.txt", 2, "not both"),
        ("predict nowhere x", 1, "no such folder"),
        ("predict NAMES x --model other", 1, "'tiny-model'"),
        ("predict NAMES x --max-seq-length 8", 1, "--max-seq-length"),
        ("evaluate NAMES test.jsonl --dev dev.jsonl", 2, "--baselines"),
        ("evaluate NAMES none.conll", 1, "nothing to find"),
        ("evaluate NAMES train.conll -o none.conll", 1, "already exists"),
    ],
)
def test_what_is_refused_and_where(names, line, code, key):
    Path("bad.jsonl").write_text('{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n')
    Path("none.conll").write_text("a O\n")
    write_model("other", seed=1)
    assert key in refused("entities", *line.replace("NAMES", str(names)).split(), code=code)
    assert not Path("x").exists()
