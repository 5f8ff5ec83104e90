"""``minisbert evaluate``: the table, the JSON file, known sets, layers, and what is refused."""

import os
import sys
from pathlib import Path

import pytest
from running import refused, run, stand_in, told
from tiny import tiny_tokenizer, write_model

from minisbert import hub
from minisbert.evaluation.published import BENCHMARKS
from minisbert.model.pooling import Pooling

TSV = "score\tsentence1\tsentence2\n4.5\tthe cat sat\ti love soup\n1\tthe dog\tthe cat sat\n3\tthe mat\tthe dog\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("evaluate") / "tiny-model", tokenizer=tiny_tokenizer(truncation=7))


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    stand_in(tmp_path, monkeypatch, model)
    Path("pairs.tsv").write_text(TSV)


def known_set(name, pairs):
    """Write pairs under the name of a known set."""
    known = next(known for known in BENCHMARKS if known.name == name)
    Path(name).mkdir()
    rows = [f"{i % 4 + 1}\tthe cat sat {i}\tthe dog {i * i}\n" for i in range(pairs)]
    Path(name, known.files[0]).write_text("score\tsentence1\tsentence2\n" + "".join(rows))
    return known


def test_published_figures_stand_beside_ours_for_their_own_model_and_pairs_only(monkeypatch):
    known = known_set("BIOSSES", 100)
    known_set("STSb", 5)
    assert "published" not in run("evaluate", "sts", "BIOSSES").stdout  # another model
    monkeypatch.setattr(hub, "is_default_model", lambda folder: True)
    shown = run("evaluate", "sts", "BIOSSES", "pairs.tsv", "STSb").stdout
    lines, flat = shown.splitlines(), " ".join(shown.split())
    cosine, published, difference = (float(lines[3].split()[i]) for i in (2, -2, -1))
    assert published == known.published and difference == pytest.approx(cosine - published, abs=1.1e-3)
    assert len(lines[4].split()) == len(lines[5].split()) == 8  # pairs.tsv and STSb have none
    assert "published: MTEB results repository" in flat and known.note in flat
    assert "STSb has 5 pairs here and 1,379 as published" in flat and "SBERT-NLI-base 77.03" in flat
    assert told("evaluate", "sts", "BIOSSES")["sets"][0]["published"] == known.published
    assert "published" not in run("evaluate", "sts", "BIOSSES", "--max-seq-length", 9).stdout


def test_columns_and_scale_are_obeyed():
    Path("BIOSSES").mkdir()
    Path("BIOSSES", "biosses.tsv").write_text("the cat,i love soup,4.5\nthe dog,the cat,1\n".replace(",", "\t"))
    command = ["evaluate", "sts", "BIOSSES", "--columns", "3,1,2", "--no-header"]
    assert "line 1: the score 4.5" in refused(*command)  # its own scale is from 0 to 4
    run(*command, "--scale", "0,5")


@pytest.mark.parametrize(
    ("line", "code", "key"),
    [
        ("layers pairs.tsv pairs.tsv", 2, "one set"),
        ("sts pairs.tsv --columns a,b", 1, "--columns must be 3"),
        ("sts pairs.tsv --no-header", 1, "by number"),
        ("sts pairs.tsv --scale 5,0", 2, "LOW,HIGH"),
        ("sts pairs.tsv bad.tsv -o new.json", 1, "bad.tsv, line 5"),
        ("sts pairs.tsv -o bad.tsv", 1, "already exists"),
        ("layers pairs.tsv -o new.jpg", 2, ".png"),
        ("retrieval folder --composition late", 2, "--chunk-tokens"),
    ],
)
def test_what_is_refused(line, code, key):
    Path("bad.tsv").write_text(TSV + "x\ta\tb\n")
    before = sorted(os.listdir())
    assert key in refused("evaluate", *line.split(), code=code)
    assert sorted(os.listdir()) == before


def test_layers_are_a_table_and_a_picture_or_say_what_is_missing_before_any_work(matplotlib, monkeypatch, tmp_path):
    first = write_model(tmp_path / "first", tokenizer=tiny_tokenizer(truncation=7), modules=(Pooling(("cls",)),))
    starred = run("evaluate", "layers", "pairs.tsv", "--model", first).stdout.splitlines()[5].split()
    assert [cell[0] == "*" for cell in starred[2:]] == [True, *5 * [False]]  # row layer 2, column cls
    shown, got = run("evaluate", "layers", "pairs.tsv").stdout, told("evaluate", "layers", "pairs.tsv")
    lines = shown.splitlines()
    assert lines[3].split()[2] == "none" and "[CLS] is the same in every text" in " ".join(shown.split())
    assert f"*{got['layers'][2][2]:.2f}" in lines[5].split()
    run("evaluate", "layers", "pairs.tsv", "-o", "layers.png")
    assert Path("layers.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setenv("MINISBERT_MODEL", "./no-such-folder")
    assert "pip install" in refused("evaluate", "layers", "pairs.tsv", "-o", "other.png")
