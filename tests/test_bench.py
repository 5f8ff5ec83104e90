"""The benchmark: its arithmetic, its processes, what it writes. How fast anything is, no test says."""

import json
import sys

import numpy as np
import pytest
from running import run
from tiny import COMPANY, TEXTS, write_model
from torch_oracle import THIRD_PARTY_WARNINGS

from minisbert import SentenceEncoder
from minisbert.bench import run as bench
from minisbert.bench.engines import Setting, export_graph
from minisbert.bench.report import format_report, ratio
from minisbert.bench.run import (
    CHECKED_STEPS,
    DROPOUT,
    PARTS,
    ROUND_STEPS,
    Row,
    choose_engines,
    choose_parts,
    default_texts,
    in_rounds,
    make_batches,
    make_texts,
    measure_training,
    run_cold,
)
from minisbert.bench.trainers import LEARNING_RATE, MAX_NORM, TOTAL_STEPS, WARMUP_STEPS, WEIGHT_DECAY, train_minisbert
from minisbert.bench.worker import Worker, WorkerError
from minisbert.model.pooling import Normalize, Pooling
from minisbert.training.data import Examples, make_epoch
from minisbert.training.finetune import Settings, finetune

PEERS = ("sentence-transformers", "onnxruntime")
PAIRS = [["the cat sat", "i love soup", "dog", "a b c"], ["the cat", "soup", "the dog ran", "c b a d"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("bench") / "tiny-model", modules=(Pooling(), Normalize()), seed=3)


# ------------------------------------------------------------------------------------------------ arithmetic


def test_another_engine_begins_each_round_and_ratios_are_taken_within_a_round():
    order = []
    found = in_rounds("abc", 4, lambda name: order.append(name) or len(order))
    assert "".join(order) == "abcbcacababc" and found["a"] == [1, 6, 8, 10]
    # the machine was twice as slow in the second round: the medians' ratio is 1/3, the rounds' ratio is 1/2
    row = Row("s", {"minisbert": [1.0, 4.0, 1.0], "peer": [2.0, 8.0, 3.0], "other": [1.0]})
    assert ratio(row, "peer") == 0.5
    about = {"model": "m", "texts": 8, "source": "made", "tokens": 80, "num_threads": 1, "rounds": 2}
    about |= {"processor": "p", "processors": 2, "system": "s", "versions": {"numpy": "2"}, "blas": []}
    rows = [Row("s", {"minisbert": [1234.0], "peer": [2.0]}), Row("d", {"peer": [2.1e-7]}, ratios=False)]
    *_, head, first, second = format_report(about, rows).splitlines()
    assert head.split() == ["minisbert", "peer"] and first.split() == ["s", "1,234", "2", "(617.00)"]
    assert second.split() == ["d", "2.1e-07"]


def test_made_texts_have_the_tokens_asked_for(folder, weights_folder):
    for encoder, lengths in (
        (SentenceEncoder(folder), [3, 16, 7]),
        (SentenceEncoder(weights_folder), [*bench.LENGTHS]),
    ):
        texts = make_texts(encoder, lengths, np.random.default_rng(0))
        assert encoder.tokenize(texts, overflow="error").lengths.tolist() == lengths
        with pytest.raises(ValueError, match="more than 2 tokens"):
            make_texts(encoder, [3, 2], np.random.default_rng(0))
    lengths = encoder.tokenize(default_texts(encoder, 3000), overflow="error").lengths
    assert lengths.min() >= 5 and lengths.max() <= 60 and abs(lengths.mean() - 14) < 0.5


def test_engines_and_parts_that_cannot_be_are_named(monkeypatch):
    able = ["a", "b", "c", "d"]
    assert choose_parts((), ("minisbert", "onnxruntime"), able) == PARTS
    assert choose_parts((), ("onnxruntime", "minisbert-deterministic"), able) == PARTS[:-1]
    assert choose_parts((), ("minisbert",), able[:3]) == PARTS[:-1]
    for engine, texts, key in (("onnxruntime", able, "onnxruntime"), ("minisbert", able[:3], "four different texts")):
        with pytest.raises(ValueError, match=key):
            choose_parts(("training",), (engine,), texts)
    monkeypatch.setattr(bench, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=r"sentence-transformers needs torch, .*pip install -e '.\[bench\]'.*--engine"):
        choose_engines(())
    assert choose_engines(["minisbert-deterministic"]) == ("minisbert-deterministic",)


# ------------------------------------------------------------------------------------------------ processes


def test_a_worker_computes_what_the_encoder_computes_and_is_not_left_behind(folder, tmp_path):
    with Worker("minisbert", Setting(folder, tmp_path, 1), tmp_path / "said.txt") as worker:
        vectors = worker.ask("embed", texts=TEXTS)
        np.testing.assert_allclose(vectors, SentenceEncoder(folder).encode(TEXTS, overflow="truncate"), atol=COMPANY)
        assert len(worker.ask("seconds_each", texts=TEXTS)) == len(TEXTS) and worker.ask("sgemm") > 0
        with pytest.raises(WorkerError, match=r"minisbert: the process ended with 1: .*KeyError: 'nothing'"):
            worker.ask("nothing")
    assert worker._process.poll() is not None
    nowhere = Setting(tmp_path / "nowhere", tmp_path, 1)
    with Worker("minisbert", nowhere, tmp_path / "said.txt") as lost, pytest.raises(WorkerError, match="nowhere"):
        lost.ask("peak_mib")


def test_a_cold_start_measures_its_own_memory_and_says_why_it_failed(folder, tmp_path):
    ballast = np.ones(2**28, np.uint8)  # 256 MiB in this process
    seconds, peak = run_cold("minisbert", Setting(folder, tmp_path, 1))
    assert ballast[-1] == 1 and seconds > 0 and (peak < 200 or not sys.platform.startswith("linux"))
    with pytest.raises(WorkerError, match="nowhere"):
        run_cold("minisbert", Setting(tmp_path / "nowhere", tmp_path, 1))


# ------------------------------------------------------------------------------------------------ the whole


def test_the_command_measures_every_part_and_replaces_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS * 5))
    command = ["bench", "-i", "texts.txt", "--engine", "minisbert", "--rounds", 2, "--num-threads", 1]
    command += ["--model", folder, "-o", "figures.json"]
    shown = run(*command).stdout
    written = json.loads((tmp_path / "figures.json").read_text())
    rows = {row["what"].strip(): row["rounds"] for row in written["rows"]}
    for what in (
        *("many texts, texts/s", "texts of 8 tokens, texts/s", "one text at a time, ms"),
        *("process start to first vector, s", "a training step of 4 pairs, ms", "forward", "backward", "optimizer"),
    ):
        assert what in shown and len(rows[what]["minisbert"]) == 2 and min(rows[what]["minisbert"]) > 0
    assert rows["largest difference of a number"] == {"minisbert": [0.0]}
    assert "from texts.txt" in shown and written["about"]["rounds"] == 2
    assert "figures.json: already exists" in run(*command, code=1).stderr
    (tmp_path / "texts.txt").write_text("")
    assert "no texts" in run(*command, "--force", code=2).stderr


# ------------------------------------------------------------------------------------------------ training


def test_everybody_gets_the_same_batches_and_figures_are_medians_of_a_round():
    batches = [[[f"{i}"], ["x"]] for i in range(3)]

    class Fake:
        """A worker whose step takes 1, 2 and 3 ms times ``slow``."""

        def __init__(self, name, slow, loss):
            self.name, self.slow, self.loss, self.steps = name, slow, loss, []

        def ask(self, what, batches=(), dropout=None):
            if what == "peak_mib":
                return 100.0 + len(self.steps)
            self.steps += [(columns[0][0], dropout) for columns in batches]
            times = [self.slow * (10 if i < 3 else 1) / 1000 for i in range(len(batches))]  # three of eight are slow
            return [(self.loss, t, 2 * t, 3 * t) for t in times]

    fakes = [Fake("minisbert", 1, 0.25), Fake("sentence-transformers", 2, 0.5)]
    rows = {row.what.strip(): row.rounds for row in measure_training(fakes, batches, 2)}
    timed = [(str(i % 3), DROPOUT) for i in range(2 * ROUND_STEPS)]  # round after round, then from the first
    assert fakes[0].steps == fakes[1].steps == [("0", 0.0)] * CHECKED_STEPS + timed
    assert rows["a training step of 1 pairs, ms"] == {"minisbert": [6, 6], "sentence-transformers": [12, 12]}
    assert rows["backward"]["sentence-transformers"] == [4, 4]
    assert rows["largest difference of 5 losses"] == {"minisbert": [0.0], "sentence-transformers": [0.25]}
    assert rows["peak memory, MiB"]["minisbert"] == [121] and rows["of it before the first step"]["minisbert"] == [100]


def test_the_step_that_is_timed_is_the_one_that_finetuning_takes(folder, tmp_path):
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
    finetune(SentenceEncoder(folder), examples, settings, on_step=reports.append, should_stop=lambda: len(reports) == 8)
    train, ours = train_minisbert(Setting(folder, tmp_path, 1)), []
    for epoch in range(8):  # an epoch is one batch, whose texts come in a new order
        (batch,) = make_epoch(examples, len(examples), np.random.default_rng([settings.seed, 0, epoch]))
        ours.append(train([list(column) for column in batch.texts], settings.dropout).loss)
    assert ours == [report.loss for report in reports]
    assert {report.learning_rate for report in reports} >= {0.0, LEARNING_RATE}  # the warm-up is part of this


# ------------------------------------------------------------------------------------------------ beside the peers


@pytest.fixture
def peers(sentence_transformers):
    """Both peers, or the test is skipped; with MINISBERT_REQUIRE=torch it fails."""
    from conftest import skip_or_fail

    try:
        return choose_engines(PEERS)
    except ValueError as error:
        skip_or_fail("torch", str(error))


def test_all_engines_compute_the_same_vectors(peers, weights_folder, tmp_path):
    texts = default_texts(SentenceEncoder(weights_folder), 50)
    setting = Setting(weights_folder, tmp_path / "model.onnx", 2)
    export_graph(weights_folder, setting.graph)
    vectors = []
    for name in ("minisbert", *peers):
        with Worker(name, setting, tmp_path / name) as worker:
            vectors.append(worker.ask("embed", texts=texts))
            assert worker.ask("seconds", texts=texts, batch_size=7) > 0
        np.testing.assert_allclose(vectors[-1], vectors[0], atol=1e-6)
    for name in peers:
        assert run_cold(name, setting)[0] > 0


@pytest.mark.filterwarnings(*THIRD_PARTY_WARNINGS)
def test_pytorch_computes_the_same_losses(peers, weights_folder, tmp_path):
    made = make_batches(default_texts(SentenceEncoder(weights_folder), 64))
    batches = [[column[:8] for column in columns] for columns in made]
    trainers = [Worker(n, Setting(weights_folder, tmp_path, 1), tmp_path / n, "train") for n in ("minisbert", PEERS[0])]
    with trainers[0], trainers[1]:
        losses = [worker.ask("steps", batches=batches[:1] * CHECKED_STEPS, dropout=0.0) for worker in trainers]
        dropped = [worker.ask("steps", batches=batches[:1], dropout=0.5)[0][0] for worker in trainers]
    ours, theirs = np.array(losses)[:, :, 0]
    assert ours[0] == ours[1] and ours[0] - ours[-1] > 0.05  # the first step has a rate of 0, then it learns
    np.testing.assert_allclose(theirs, ours, atol=1e-5)  # measured: 6e-7
    assert min(dropped) > ours[-1] + 0.1  # dropout is on in both: one more step without it would have a lower loss
