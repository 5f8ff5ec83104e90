"""The benchmark of training: which batches, which engines, the same losses. How fast a step is, no test says."""

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny import write_model
from torch_oracle import THIRD_PARTY_WARNINGS

from minisbert.bench.engines import Setting
from minisbert.bench.measure import Plan
from minisbert.bench.run import choose_parts
from minisbert.bench.trainers import TRAINERS
from minisbert.bench.training import BATCH_PAIRS, make_batches, measure_training
from minisbert.bench.worker import Worker
from minisbert.cli import main
from minisbert.model.modules import Normalize, Pooling

COLUMNS = [["the cat", "i love soup", "dog"], ["the cat sat", "soup", "the dog ran"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("training") / "tiny-model", modules=(Pooling(), Normalize()))


def setting(folder, tmp_path):
    return Setting(folder, tmp_path / "no.onnx", 1)


@given(st.lists(st.sampled_from([f"text {i}" for i in range(200)]), max_size=300))
def test_batches_are_neighbours_equally_many_and_no_text_twice(texts):
    batches = make_batches(texts)
    neighbours = set(zip(texts[::2], texts[1::2], strict=False))
    seen = [text for columns in batches for column in columns for text in column]
    assert len(seen) == len(set(seen))
    assert len({len(column) for columns in batches for column in columns}) <= 1
    assert all(pair in neighbours for columns in batches for pair in zip(*columns, strict=True))
    assert all(2 <= len(columns[0]) <= BATCH_PAIRS for columns in batches)


def test_what_cannot_be_trained_is_left_out_or_refused():
    texts = ["a", "b", "c", "d"]
    assert "training" in choose_parts((), ("minisbert", "onnxruntime"), texts)
    assert "training" not in choose_parts((), ("onnxruntime",), texts)
    assert "training" not in choose_parts((), ("minisbert",), texts[:3])
    with pytest.raises(ValueError, match="onnxruntime cannot train"):
        choose_parts(("training",), ("onnxruntime",), texts)
    with pytest.raises(ValueError, match="two pairs of four different texts"):
        choose_parts(("training",), ("minisbert",), ["a", "a", "b", "c"])


def test_a_worker_trains_and_dropout_is_another_step(folder, tmp_path):
    with Worker("minisbert", setting(folder, tmp_path), tmp_path / "said.txt", "train") as worker:
        steps = [worker.ask("step", columns=COLUMNS, dropout=0.0) for _ in range(4)]
        assert steps[0]["loss"] == steps[1]["loss"]  # the first step of the warm-up has a rate of 0
        assert steps[3]["loss"] < steps[2]["loss"] < steps[1]["loss"]
        assert all(step[part] > 0 for step in steps for part in ("forward", "backward", "optimizer"))
        assert worker.ask("step", columns=COLUMNS, dropout=0.5)["loss"] != pytest.approx(steps[3]["loss"], rel=1e-3)
        assert worker.ask("peak_mib") is None or worker.ask("peak_mib") > 10


def test_the_verb_prints_and_writes_it(folder, tmp_path, monkeypatch, matplotlib):
    monkeypatch.chdir(tmp_path)
    texts = [text for pair in zip(*COLUMNS, strict=True) for text in pair]
    command = ["bench", "--part", "training", "--engine", "minisbert", "--rounds", "1", "--num-threads", "1"]
    printed = CliRunner().invoke(
        main, [*command, "--model", str(folder), "-o", "quick", *texts], catch_exceptions=False
    )
    assert printed.exit_code == 0
    assert "a training step" in printed.output and "3 pairs, " in printed.output
    written = json.loads((tmp_path / "quick.json").read_text())["training"]
    assert written["tokens"] == [25] and len(written["milliseconds"]["minisbert"]) == 1
    assert (tmp_path / "quick.png").read_bytes().startswith(b"\x89PNG")


def test_the_measurement_has_all_of_it(folder, tmp_path):
    texts = [text for pair in zip(*COLUMNS, strict=True) for text in pair]
    with Worker("minisbert", setting(folder, tmp_path), tmp_path / "said.txt", "train") as worker:
        measured = measure_training([worker], make_batches(texts), Plan(2, 1, lambda words: None))
    assert measured["pairs"] == 3 and len(measured["milliseconds"]["minisbert"]) == 2
    assert measured["difference"] == {"minisbert": 0.0}
    assert len(measured["losses"]["minisbert"]) == 5


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in TRAINERS if name.startswith("sentence")])
@pytest.mark.filterwarnings(*THIRD_PARTY_WARNINGS)
def test_both_engines_compute_the_same_losses(name, folder, tmp_path, sentence_transformers):
    losses = {}
    for engine in ("minisbert", name):
        with Worker(engine, setting(folder, tmp_path), tmp_path / f"{engine}.txt", "train") as worker:
            losses[engine] = [worker.ask("step", columns=COLUMNS, dropout=0.0)["loss"] for _ in range(6)]
    assert losses["minisbert"] == pytest.approx(losses[name], rel=1e-5)
    assert losses[name][0] > losses[name][-1]
