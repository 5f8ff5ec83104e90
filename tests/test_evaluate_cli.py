"""``minisbert evaluate``: the group, the table, the JSON file, known sets, layers, and wrong usage."""

import json
import os
import re
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from running import run as run_program
from tiny import tiny_tokenizer, write_model

from minisbert import SentenceEncoder, hub
from minisbert.cli import main
from minisbert.evaluation.published import BENCHMARKS, PAPER_STSB
from minisbert.evaluation.sts import SIMILARITIES, evaluate_sts, read_sts

ROWS = "4.5\tthe cat sat\ti love soup\n1\tthe dog\tthe cat sat\n3\tthe mat\tthe dog\n"
TSV = f"score\tsentence1\tsentence2\n{ROWS}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("evaluate") / "tiny-model", tokenizer=tiny_tokenizer(truncation=7))


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    monkeypatch.delenv("MINISBERT_DATA", raising=False)
    Path("pairs.tsv").write_text(TSV)


def run(*arguments, code=0):
    return run_program("evaluate", *arguments, code=code)


def test_the_group_lists_its_verbs_without_importing_them():
    shown = run("--help").stdout
    group = main.get_command(click.Context(main), "evaluate")
    for verb, command in group.commands.items():
        assert re.search(rf"{verb} +{re.escape(command.short_help)}", shown)
        assert re.search(r"Examples?:\n +minisbert evaluate ", run(verb, "--help").stdout)
    assert "Did you mean 'layers'" in run("layer", code=2).stderr
    assert "No such command" in run("frobnicate", code=2).stderr


def test_the_table_is_what_the_function_says(model):
    result = run("sts", "pairs.tsv")
    head, row = (line.split() for line in result.stdout.splitlines()[2:4])
    assert head == ["set", "pairs", *SIMILARITIES, "r", "cosine"] and result.stderr == ""
    found = evaluate_sts(SentenceEncoder(model), read_sts("pairs.tsv"))
    expected = [*found.spearman.values(), found.pearson["cosine"]]
    assert row == ["pairs.tsv", "3", *(f"{value:.3f}" for value in expected)]
    assert "protocol: one correlation over all pairs" in result.stdout
    assert "published" not in result.stdout and "quoted" not in result.stdout


def test_json_on_stdout_and_in_a_file():
    printed = json.loads(run("sts", "pairs.tsv", "--json").stdout)
    result = run("sts", "pairs.tsv", "pairs.tsv", "-o", "result.json")
    assert result.stderr == "wrote result.json\n"
    written = json.loads(Path("result.json").read_text())
    assert written["sets"][0] == printed["sets"][0] == written["sets"][1]
    assert set(printed["sets"][0]["spearman"]) == set(SIMILARITIES) and printed["sets"][0]["published"] is None
    assert "all pairs" in printed["protocol"] and printed["quoted_stsb"] == PAPER_STSB
    assert "already exists" in run("sts", "pairs.tsv", "-o", "result.json", code=1).stderr
    run("sts", "pairs.tsv", "-o", "result.json", "--force")
    assert sorted(os.listdir()) == ["pairs.tsv", "result.json"]


def test_a_failure_writes_nothing():
    Path("bad.tsv").write_text(TSV + "x\ta\tb\n")
    said = run("sts", "pairs.tsv", "bad.tsv", "-o", "result.json", code=1).stderr
    assert said.startswith("Error: bad.tsv, line 5: the score in column 'score' must be a number, got 'x'")
    assert sorted(os.listdir()) == ["bad.tsv", "pairs.tsv"]


def known_set(name, pairs):
    """Write pairs under the name of a known set."""
    known = next(known for known in BENCHMARKS if known.name == name)
    Path(name).mkdir()
    rows = [f"{i % 4 + 1}\tthe cat sat {i}\tthe dog {i * i}\n" for i in range(pairs)]
    Path(name, known.files[0]).write_text("score\tsentence1\tsentence2\n" + "".join(rows))
    return known


def test_published_figures_stand_beside_ours_for_their_own_model_only(monkeypatch):
    known = known_set("BIOSSES", 100)
    assert "published" not in run("sts", "BIOSSES").stdout  # another model
    monkeypatch.setattr(hub, "is_default_model", lambda folder: True)
    shown = run("sts", "BIOSSES", "pairs.tsv").stdout
    lines = shown.splitlines()
    assert lines[2].split()[-2:] == ["published", "difference"]
    cosine, published, difference = (float(lines[3].split()[i]) for i in (2, -2, -1))
    assert published == known.published and difference == pytest.approx(cosine - published, abs=1.1e-3)
    assert len(lines[4].split()) == 8  # pairs.tsv has none
    flat = " ".join(shown.split())
    assert "published: MTEB results repository" in flat and known.note in flat
    assert json.loads(run("sts", "BIOSSES", "--json").stdout)["sets"][0]["published"] == known.published
    assert "published" not in run("sts", "BIOSSES", "--max-seq-length", 9).stdout


def test_a_known_set_with_other_pairs_is_not_compared(monkeypatch):
    known_set("STSb", 5)
    monkeypatch.setattr(hub, "is_default_model", lambda folder: True)
    shown = " ".join(run("sts", "STSb").stdout.split())
    assert "STSb has 5 pairs here and 1,379 as published: not compared" in shown and "difference" not in shown
    assert (
        "quoted for STSb: average of GloVe vectors 58.02, average of BERT vectors 46.35, SBERT-NLI-base 77.03" in shown
    )


def test_the_scale_of_a_known_set_is_checked():
    known_set("BIOSSES", 2)
    with Path("BIOSSES", "biosses.tsv").open("a") as file:
        file.write("4.5\ta\tb\n")
    assert "line 4: the score 4.5 is outside the scale from 0 to 4" in run("sts", "BIOSSES", code=1).stderr
    run("sts", "BIOSSES", "--scale", "0,5")


def test_columns_and_scale_are_obeyed():
    Path("plain.csv").write_text("the cat sat,i love soup,4\nthe dog,the cat sat,1\nthe mat,the dog,3\n")
    options = ["--columns", "3,1,2", "--no-header"]
    run("sts", "plain.csv", *options, "--scale", "0,5")
    assert (
        "line 1: the score 4 is outside the scale from 0 to 3"
        in run("sts", "plain.csv", *options, "--scale", "0,3", code=1).stderr
    )
    assert "no column 'gold'" in run("sts", "pairs.tsv", "--columns", "gold,2,3", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sts"], "MINISBERT_DATA"),
        (["sts", "missing.tsv"], "does not exist"),
        (["sts", "pairs.tsv", "--columns", "a,b"], "SCORE,SENTENCE1,SENTENCE2"),
        (["sts", "pairs.tsv", "--no-header"], "with --columns"),
        (["sts", "pairs.tsv", "--scale", "5,0"], "must be LOW,HIGH"),
        (["sts", "pairs.tsv", "--scale", "high"], "--scale"),
        (["layers"], "MINISBERT_DATA"),
        (["retrieval", "folder", "--composition", "late"], "--chunk-tokens"),
    ],
)
def test_wrong_usage(arguments, words):
    assert words in run(*arguments, code=2).stderr


def test_empty_files_and_folders():
    Path("empty.tsv").write_text("")
    assert "empty.tsv: empty; expected a header row" in run("sts", "empty.tsv", code=1).stderr
    Path("folder").mkdir()
    assert "without any known test set" in run("sts", "folder", code=1).stderr
    Path("same.tsv").write_text("score\tsentence1\tsentence2\n3\ta\tb\n3\tc\td\n")
    assert "no correlation exists" in run("sts", "same.tsv", code=1).stderr


# ------------------------------------------------------------------------------------------------------- layers


def test_layers_as_a_table_and_as_json(monkeypatch):
    shown = run("layers", "pairs.tsv").stdout
    lines = shown.splitlines()
    assert lines[2].split() == ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
    assert [line[:14].strip() for line in lines[3:6]] == ["embeddings (0)", "layer 1", "layer 2"]
    assert lines[3].split()[2] == "none" and "[CLS] is the same in every text" in " ".join(shown.split())
    got = json.loads(run("layers", "pairs.tsv", "--json").stdout)
    assert got["layers"][0][0] is None and got["own"] == {"layer": 2, "pooling": "mean"}
    assert f"*{got['layers'][2][2]:.2f}" in lines[5].split()
    ours = json.loads(run("sts", "pairs.tsv", "--json").stdout)["sets"][0]["spearman"]["cosine"]
    assert got["layers"][2][2] == pytest.approx(ours, abs=1e-9)
    known_set("STSb", 9)
    Path("STSb").rename("stsb")
    monkeypatch.setenv("MINISBERT_DATA", ".")
    assert "on STSb, 9 pairs" in run("layers").stdout


def test_layers_draws_a_picture(matplotlib):
    assert run("layers", "pairs.tsv", "-o", "layers.png").stderr == "wrote layers.png\n"
    import matplotlib.image

    picture = matplotlib.image.imread("layers.png")
    assert min(picture.shape[:2]) > 300 and len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50
    assert "already exists" in run("layers", "pairs.tsv", "-o", "layers.png", code=1).stderr


def test_layers_without_matplotlib_says_so_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setenv("MINISBERT_MODEL", "./no-such-folder")
    assert "pip install" in run("layers", "pairs.tsv", "-o", "layers.png", code=1).stderr
    assert sorted(os.listdir()) == ["pairs.tsv"]
