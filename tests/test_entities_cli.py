"""The verbs of `minisbert entities`: train, predict, evaluate, as tables and as JSON, and what they refuse."""

import json
import re
from pathlib import Path

import click
import pytest
from running import run
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.analysis.entities import load_tagger
from minisbert.analysis.tagging import read_tagged

SENTENCES = [
    (["the", "cat", "sat"], ["O", "B-animal", "O"]),
    (["i", "love", "soup"], ["O", "O", "B-dish"]),
    (["the", "dog", "ran", "on", "the", "mat"], ["O", "B-animal", "O", "O", "O", "O"]),
    (["soup", "!"], ["B-dish", "O"]),
    (["Bo", "Cat", "ran"], ["B-person", "I-person", "O"]),
    (["love", "on", "the", "mat"], ["O", "O", "O", "O"]),
]


def write_entity_files():
    """Tagged sentences under the names that the examples of help use, in the folder that one stands in."""
    lines = [json.dumps({"tokens": [*words, x], "tags": [*tags, "O"]}) for words, tags in SENTENCES for x in "abc"]
    for name in ("names_train.jsonl", "names_dev.jsonl", "names_test.jsonl"):
        Path(name).write_text("\n".join(lines) + "\n")
    blocks = ["\n".join(f"{w}\t{t}" for w, t in zip(words, tags, strict=True)) for words, tags in SENTENCES * 2]
    for name in ("names_train.conll", "names_test.conll"):
        Path(name).write_text("\n\n".join(blocks) + "\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("entities") / "tiny-model")


@pytest.fixture(scope="module")
def names(model, tmp_path_factory, sklearn):
    """A tagger, trained once."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_entity_files()
        arguments = [
            "names_train.jsonl",
            "--dev",
            "names_dev.jsonl",
            "-o",
            "names",
            "--layer",
            "0",
            "--model",
            str(model),
        ]
        succeeds("train", *arguments, "--strength", "1", "--strength", "10")
    return folder / "names"


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    monkeypatch.setenv("COLUMNS", "100")


def succeeds(*arguments, input=None):
    return run("entities", *arguments, input=input)


def fails(*arguments, code=1):
    result = run("entities", *arguments, code=code)
    assert result.stdout == ""
    return result.stderr


# --------------------------------------------------------------------------------------------------------- train


def test_training_says_what_was_tried_and_chosen(sklearn):
    write_entity_files()
    result = succeeds("train", "names_train.jsonl", "-o", "names", "--strength", "0.1", "--strength", "1")
    lines = result.stdout.splitlines()
    assert lines[0] == ("tiny-model, layer 1; names_train.jsonl: 18 sentences, 81 words; types: animal, dish, person")
    assert "on cross-validation, 3 folds" in lines[2] and lines[4].split()[:2] == ["offset", "0"]
    rows = [line for line in lines if line.startswith("C ") and "edge" not in line]
    assert [row.split()[1] for row in rows] == ["0.1", "1"] and len(rows[0].split()) == 2 + 7
    tagger = load_tagger("names")
    assert f"chosen: C {tagger.training['strength']:g}, offset {tagger.offset:g}." in result.stdout
    assert "C is at the edge of the values tried" in result.stdout
    assert result.stderr == "wrote names\n"
    best = max(tagger.training["f1"])
    assert f"{100 * max(best):.2f}" in result.stdout


def test_training_as_json_with_settings_as_said(sklearn):
    write_entity_files()
    arguments = [
        "--layer",
        2,
        "--layer",
        0,
        "--pooling",
        "first",
        "--decoder",
        "greedy",
        "--strength",
        1,
        "--offset",
        1,
    ]
    said = json.loads(succeeds("train", "names_train.conll", "-o", "names", *arguments, "--json").stdout)
    assert (said["layers"], said["pooling"], said["decoder"]) == ([2, 0], "first", "greedy")
    assert (said["strength"], said["offset"], said["f1"], said["sentences"]) == (1.0, 1.0, [], 12)
    tagger = load_tagger("names")
    assert (tagger.layers, tagger.pooling, tagger.decoder, tagger.offset) == ((2, 0), "first", "greedy", 1.0)
    assert tagger.probe.weight.shape == (5, 24)
    text = succeeds("train", "names_train.conll", "-o", "names", "--strength", 1, "--offset", 1, "--force").stdout
    assert text.endswith("C 1, offset 1, as given\n")


def test_training_refuses_early_and_says_where(sklearn, names):
    write_entity_files()
    Path("bad.jsonl").write_text('{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n')
    assert "bad.jsonl, line 2" in fails("train", "bad.jsonl", "-o", "x")
    assert "bad.jsonl, line 2" in fails("train", "names_train.jsonl", "--dev", "bad.jsonl", "-o", "x")
    assert "already exists" in fails("train", "bad.jsonl", "-o", names)  # before the file is read
    assert "to 2 (the last layer)" in fails("train", "names_train.jsonl", "-o", "x", "--layer", 3)
    assert "Missing option '-o'" in fails("train", "names_train.jsonl", code=2)
    assert "does not exist" in fails("train", "none.jsonl", "-o", "x", code=2)
    assert not Path("x").exists()


# ------------------------------------------------------------------------------------------------------- predict


def test_entities_as_a_table(names):
    shown = succeeds("predict", names, "The  dog ran", "love", "", "i love soup").stdout.splitlines()
    assert shown[0] == "The dog ran" and shown[2:6] == ["love", "  (none)", "(empty)", "  (none)"]
    name, kind, place, probability = shown[1].split()
    assert (name, kind, place) == ("dog", "animal", "5-8") and 0 < float(probability) <= 1
    assert shown[7].split()[:3] == ["soup", "dish", "7-11"]
    assert len(shown) == 8


def test_entities_as_json_are_cut_out_verbatim(names, model):
    Path("texts.txt").write_text("The  dog ran\n\ná  Soup!\n", encoding="utf-8")
    lines = succeeds("predict", names, "-i", "texts.txt", "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["text"] for one in found] == ["The  dog ran", "", "á  Soup!"]
    for one in found:
        for entity in one["entities"]:
            assert one["text"][entity["start"] : entity["stop"]] == entity["text"]
    assert [e["text"] for e in found[0]["entities"]] == ["dog"] and found[1]["entities"] == []
    assert ("Soup", 3, 7) in [(e["text"], e["start"], e["stop"]) for e in found[2]["entities"]]
    expected = load_tagger(names).find(SentenceEncoder(model), ["The  dog ran"])[0][0].probability
    assert found[0]["entities"][0]["probability"] == pytest.approx(expected, abs=1e-6)
    piped = succeeds("predict", names, "-i", "-", "--json", input="The  dog ran\n").stdout
    assert json.loads(piped)["entities"][0]["text"] == "dog"


def test_predicting_refuses(names, tmp_path):
    assert "Nothing to search" in fails("predict", names, code=2)
    assert "not both" in fails("predict", names, "x", "-i", "y.txt", code=2)
    assert "no such folder" in fails("predict", "nowhere", "x")
    other = write_model(tmp_path / "other", seed=1)
    assert "this entity tagger is of the model 'tiny-model'" in fails("predict", names, "x", "--model", other)
    assert "--max-seq-length" in fails("predict", names, "x", "--max-seq-length", 8)


# ------------------------------------------------------------------------------------------------------ evaluate


def test_evaluation_beside_baselines(names):
    write_entity_files()
    arguments = ["names_test.jsonl", "--baselines", "names_train.jsonl", "--dev", "names_dev.jsonl"]
    result = succeeds("evaluate", names, *arguments, "-o", "result.json")
    lines = result.stdout.splitlines()
    assert lines[0] == "names_test.jsonl: 18 sentences, 81 words, 15 entities"
    table = {line[:12].strip(): line[12:].split() for line in lines[3:7]}
    assert list(table) == ["linear probe", "word shapes", "lexicon", "all O"]
    written = json.loads(Path("result.json").read_text())
    for one in written["systems"]:
        cells = table[one["name"]]
        assert cells[0] == f"{100 * one['f1']:.2f}" and cells[4] == f"{100 * one['precision']:.2f}"
        assert cells[1:4] == [
            f"{100 * x:.2f}" if x != "to" else x for x in (*one["f1_interval"][:1], "to", one["f1_interval"][1])
        ]
    assert table["all O"][0] == "0.00" and table["lexicon"][0] == "100.00" and float(table["linear probe"][0]) > 60
    assert [line.split()[0] for line in lines if line.startswith(("animal", "dish", "person"))] == [
        "animal",
        "dish",
        "person",
    ]
    assert "0.00 % of the entities do not occur with their type in the training file" in result.stdout
    assert written["unseen"] == 0.0 and written["published"] is None
    data = read_tagged("names_test.jsonl")
    assert (written["words"], written["entities"]) == (data.words, 15)
    assert json.loads(succeeds("evaluate", names, *arguments, "--json").stdout) == written


def test_evaluation_alone_and_what_it_refuses(names):
    write_entity_files()
    shown = succeeds("evaluate", names, "names_test.conll").stdout
    assert "lexicon" not in shown and "all O" in shown
    assert "--dev is for the baselines" in fails(
        "evaluate", names, "names_test.jsonl", "--dev", "names_dev.jsonl", code=2
    )
    Path("none.conll").write_text("a O\n")
    assert "nothing to find" in fails("evaluate", names, "none.conll")
    Path("taken.json").write_text("{}")
    assert "already exists" in fails("evaluate", names, "names_test.conll", "-o", "taken.json")


@pytest.mark.parametrize("verb", ["train", "predict", "evaluate"])
def test_help_is_listed_with_its_first_line(verb):
    from minisbert.cli.entities import VERBS, entities

    shown = succeeds(verb, "--help").stdout
    assert re.search(r"Examples:\n +minisbert entities", shown)
    assert entities.get_command(click.Context(entities), verb).short_help == VERBS[verb][1]
