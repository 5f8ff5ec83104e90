"""The benchmark: its arithmetic, its processes, what it writes. How fast anything is, no test says."""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from running import refused, run, stand_in
from tiny import COMPANY, TEXTS, write_model
from torch_oracle import THIRD_PARTY_WARNINGS

from minisbert import SentenceEncoder
from minisbert.bench import engines, worker
from minisbert.bench.engines import (
    LEARNING_RATE,
    MAX_NORM,
    TOTAL_STEPS,
    WARMUP_STEPS,
    WEIGHT_DECAY,
    Setting,
    check_installed,
    export_graph,
    train_minisbert,
)
from minisbert.bench.run import (
    CHECKED_STEPS,
    LENGTHS,
    Row,
    default_texts,
    make_batches,
    make_texts,
    run_cold,
)
from minisbert.bench.worker import Worker
from minisbert.cli.bench import format_report
from minisbert.model.pooling import Normalize, Pooling
from minisbert.training.data import Examples, make_epoch
from minisbert.training.finetune import Settings, finetune

PAIRS = [["the cat sat", "i love soup", "dog", "a b c"], ["the cat", "soup", "the dog ran", "c b a d"]]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    place = tmp_path_factory.mktemp("bench")
    folder = write_model(place / "tiny-model", modules=(Pooling(), Normalize()), seed=3)
    return Setting("minisbert", folder, place / "model.onnx", 1, 16)


def test_ratios_are_taken_within_a_round():
    # the machine was twice as slow in the second round: the medians' ratio is 1/3, the rounds' ratio is 1/2
    rows = [Row("s", {"minisbert": [1.0, 4.0, 1.0], "peer": [2.0, 8.0, 3.0]}), Row("d", {"peer": [2.1e-7]}, False)]
    about = {"model": "m", "texts": 8, "source": "made", "tokens": 80, "num_threads": 1, "rounds": 2}
    about |= {"processor": "p", "processors": 2, "system": "s", "versions": {"numpy": "2"}, "blas": []}
    *_, head, first, second = format_report(about, rows).splitlines()
    assert [head.split(), first.split()] == [["minisbert", "peer"], ["s", "1", "3", "(0.50)"]]
    assert second.split() == ["d", "2.1e-07"]


def test_made_texts_have_the_tokens_asked_for(weights_folder):
    encoder = SentenceEncoder(weights_folder)
    texts = make_texts(encoder, LENGTHS, np.random.default_rng(0))
    assert encoder.tokenize(texts, overflow="error").lengths.tolist() == [*LENGTHS]
    lengths = encoder.tokenize(default_texts(encoder, 3000), overflow="error").lengths
    assert lengths.min() >= 5 and lengths.max() <= 60 and abs(lengths.mean() - 14) < 0.5


# ------------------------------------------------------------------------------------------------ processes


def die(_):
    os._exit(3)


def test_a_worker_computes_what_the_encoder_computes_and_says_why_it_failed(setting):
    with Worker(setting) as one:
        vectors = one.ask(worker.embed, TEXTS)
        ours = SentenceEncoder(setting.folder).encode(TEXTS, overflow="truncate")
        np.testing.assert_allclose(vectors, ours, atol=COMPANY)
        with pytest.raises(ValueError, match="minisbert: BrokenProcessPool"):
            one.ask(die)
    nowhere = replace(setting, folder=setting.folder / "nowhere")
    with Worker(nowhere) as lost, pytest.raises(ValueError, match=r"minisbert: .*nowhere"):
        lost.ask(worker.embed, TEXTS)


def test_a_cold_start_measures_its_own_memory(setting):
    ballast = np.ones(2**28, np.uint8)  # 256 MiB in this process
    seconds, peak = run_cold(setting)
    assert ballast[-1] == 1 and seconds > 0 and (peak < 200 or not sys.platform.startswith("linux"))


def test_the_command_measures_every_part_and_replaces_nothing(setting, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, setting.folder)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS * 5))
    command = ["bench", "-i", "texts.txt", "--engine", "minisbert", "--rounds", 2, "--num-threads", 1]
    shown = run(*command, "-o", "figures.json").stdout
    written = json.loads((tmp_path / "figures.json").read_text())
    rows = {row["what"].strip(): row["rounds"] for row in written["rows"]}
    for what in ("many texts, texts/s", "process start to first vector, s", "a training step of 4 pairs, ms"):
        assert what in shown and len(rows[what]["minisbert"]) == 2 and min(rows[what]["minisbert"]) > 0
    assert rows["largest difference of a number"] == {"minisbert": [0.0]}


def test_what_cannot_be_measured_is_refused(setting, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, setting.folder)
    (tmp_path / "none.txt").write_text("")
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    ours = ["bench", "--engine", "minisbert", "--part"]
    assert "no texts" in refused(*ours, "single", "-i", "none.txt", code=2)
    assert "four different texts" in refused(*ours, "training", "-i", "three.txt", code=2)
    monkeypatch.setattr(engines, "find_spec", lambda module: None)
    assert "sentence-transformers needs torch" in refused("bench")


# ------------------------------------------------------------------------------------------------ training


def test_the_step_that_is_timed_is_the_one_that_finetuning_takes(setting):
    """The same losses to the last bit: dropout, clipping, schedule, weight decay and the optimiser's state included."""
    examples, reports = Examples("pairs", tuple(map(tuple, PAIRS))), []
    settings = Settings(
        epochs=TOTAL_STEPS,
        batch_size=len(examples),
        learning_rate=LEARNING_RATE,
        warmup=WARMUP_STEPS / TOTAL_STEPS,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=MAX_NORM,
        num_threads=1,
    )
    encoder = SentenceEncoder(setting.folder)
    finetune(encoder, examples, settings, on_step=reports.append, should_stop=lambda: len(reports) == 8)
    train, ours = train_minisbert(setting), []
    for epoch in range(8):  # an epoch is one batch, whose texts come in a new order
        (batch,) = make_epoch(examples, len(examples), np.random.default_rng([settings.seed, 0, epoch]))
        ours.append(train([list(column) for column in batch.texts], settings.dropout).loss)
    assert ours == [report.loss for report in reports]
    assert {report.learning_rate for report in reports} >= {0.0, LEARNING_RATE}  # the warm-up is part of this


# ------------------------------------------------------------------------------------------------ beside the peers


@pytest.mark.filterwarnings(*THIRD_PARTY_WARNINGS)
def test_the_peers_compute_the_same_vectors_and_losses(sentence_transformers, weights_folder, tmp_path):
    from conftest import skip_or_fail

    names = ("minisbert", "sentence-transformers", "onnxruntime")
    try:
        check_installed(names)
    except ValueError as error:
        skip_or_fail("torch", str(error))
    settings = [Setting(name, weights_folder, tmp_path / "model.onnx", 1, 256) for name in names]
    texts = default_texts(SentenceEncoder(weights_folder), 50)
    batches = [[column[:8] for column in make_batches(texts)[0]]]
    export_graph(settings[2])
    vectors, losses = [], []
    for setting in settings:
        with Worker(setting) as one:
            vectors.append(one.ask(worker.embed, texts))
            assert one.ask(worker.seconds, texts, 7) > 0 and run_cold(setting)[0] > 0
            if setting.engine != "onnxruntime":
                losses.append([step.loss for step in one.ask(worker.steps, batches * CHECKED_STEPS, 0.0)])
                assert one.ask(worker.steps, batches, 0.5)[0].loss > losses[-1][-1] + 0.1  # dropout is on
    for theirs in vectors:
        np.testing.assert_allclose(theirs, vectors[0], atol=1e-6)
    ours, theirs = losses
    assert ours[0] == ours[1] and ours[0] - ours[-1] > 0.05  # the first step has a rate of 0, then it learns
    np.testing.assert_allclose(theirs, ours, atol=1e-5)  # measured: 6e-7
