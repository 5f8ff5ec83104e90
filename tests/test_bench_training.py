"""The benchmark of training: its pairs, that the step timed is the real one, what becomes of the figures."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from test_bench import PEERS
from tiny import TEXTS, write_model
from torch_oracle import THIRD_PARTY_WARNINGS

from minisbert import SentenceEncoder
from minisbert.bench import engines
from minisbert.bench.engines import Setting
from minisbert.bench.measure import Plan
from minisbert.bench.report import format_report
from minisbert.bench.run import PARTS, Order, choose_parts, count_steps, default_texts, run_benchmark
from minisbert.bench.trainers import LEARNING_RATE, MAX_NORM, TOTAL_STEPS, WARMUP_STEPS, WEIGHT_DECAY, train_minisbert
from minisbert.bench.training import BATCH_PAIRS, CHECKED_STEPS, DROPOUT, ROUND_STEPS, make_batches, measure_training
from minisbert.bench.worker import Worker
from minisbert.cli import main
from minisbert.model.pooling import Normalize, Pooling
from minisbert.training.data import Examples, make_epoch
from minisbert.training.finetune import Settings, finetune

PAIRS = [["the cat sat", "i love soup", "dog", "a b c"], ["the cat", "soup", "the dog ran", "c b a d"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("bench") / "tiny-model", modules=(Pooling(), Normalize()), seed=3)


class Fake:
    """A worker whose n-th step takes 1, 2 and 3 times n (and a slow one ten times that), and who notes what it gets."""

    def __init__(self, name, times=1, loss=0.5, slow=()):
        self.name, self.times, self.loss, self.slow = name, times, loss, slow
        self.steps = []

    def ask(self, what, **about):
        if what == "peak_mib":
            return 100.0 + len(self.steps)
        assert what == "step"
        self.steps.append((about["columns"][0][0], about["dropout"]))
        unit = self.times * (10 if len(self.steps) - 1 in self.slow else 1) / 1000
        return {"loss": self.loss / len(self.steps), "forward": unit, "backward": 2 * unit, "optimizer": 3 * unit}


# ------------------------------------------------------------------------------------------------ pairs


@given(st.lists(st.sampled_from([f"text {i}" for i in range(200)]), max_size=300))
def test_batches_are_neighbours_equally_many_and_no_text_twice(texts):
    batches = make_batches(texts)
    neighbours = set(zip(texts[::2], texts[1::2], strict=False))
    seen = [text for columns in batches for column in columns for text in column]
    assert len(seen) == len(set(seen))
    assert len({len(column) for columns in batches for column in columns}) <= 1
    assert all(pair in neighbours for columns in batches for pair in zip(*columns, strict=True))
    assert all(2 <= len(columns[0]) <= BATCH_PAIRS for columns in batches)


def test_no_text_stands_in_two_pairs():
    texts = ["a", "b", "b", "c", "d", "d", "e", "a", "f", "g", "h", "i"]
    assert make_batches(texts) == [[["a", "f", "h"], ["b", "g", "i"]]]
    assert make_batches(["a", "b", "c", "c", "b", "e"]) == []  # one pair is left, and has no negatives
    many = make_batches([f"text {i}" for i in range(2 * (2 * BATCH_PAIRS + 5) + 1)])
    assert [len(column) for columns in many for column in columns] == [BATCH_PAIRS] * 4


def test_training_is_left_out_where_it_cannot_be_and_refused_where_it_was_asked_for():
    able = ["a", "b", "c", "d"]
    assert choose_parts((), ("minisbert", "onnxruntime"), able) == PARTS
    assert choose_parts((), ("onnxruntime", "minisbert-deterministic"), able) == PARTS[:-1]
    assert choose_parts((), ("minisbert",), able[:3]) == PARTS[:-1]
    assert choose_parts(("single",), ("onnxruntime",), able) == ("single",)
    with pytest.raises(ValueError, match="onnxruntime"):
        choose_parts(("training",), ("onnxruntime",), able)
    with pytest.raises(ValueError, match="four different texts"):
        choose_parts(("training", "single"), ("minisbert",), able[:3])


# ------------------------------------------------------------------------------------------------ rounds


def test_everybody_gets_the_same_batches_and_begins_in_turn():
    batches = [[[f"{i}"], ["x"]] for i in range(3)]
    order = []

    class Watched(Fake):
        def ask(self, what, **about):
            if what == "step":
                order.append(self.name)
            return super().ask(what, **about)

    fakes = [Watched("minisbert"), Watched("sentence-transformers")]
    measure_training(fakes, batches, Plan(2, 1, lambda what: None))
    assert fakes[0].steps == fakes[1].steps
    checked, timed = fakes[0].steps[:CHECKED_STEPS], fakes[0].steps[CHECKED_STEPS:]
    assert checked == [("0", 0.0)] * CHECKED_STEPS
    assert timed == [(str(i % 3), DROPOUT) for i in range(2 * ROUND_STEPS)]  # round after round, then from the first
    ours, theirs = ["minisbert"] * ROUND_STEPS, ["sentence-transformers"] * ROUND_STEPS
    assert order[2 * CHECKED_STEPS :] == [*ours, *theirs, *theirs, *ours]


def test_figures_are_medians_of_a_round_and_losses_are_compared():
    slow = range(CHECKED_STEPS, CHECKED_STEPS + 3)  # three of the first round's eight steps
    fakes = [Fake("sentence-transformers", 2, loss=0.5), Fake("minisbert", 1, loss=0.25, slow=slow)]
    ticks = []
    result = measure_training(fakes, [PAIRS], Plan(2, 1, ticks.append))
    assert len(ticks) == 2 + 2
    assert result["milliseconds"] == {"minisbert": [6.0, 6.0], "sentence-transformers": [12.0, 12.0]}
    assert result["split"]["sentence-transformers"] == {
        "forward": [2.0, 2.0],
        "backward": [4.0, 4.0],
        "optimizer": [6.0, 6.0],
    }
    assert result["losses"]["minisbert"] == [0.25 / (i + 1) for i in range(CHECKED_STEPS)]
    assert result["difference"] == {"minisbert": 0.0, "sentence-transformers": 0.25}
    assert (result["loaded_mib"]["minisbert"], result["peak_mib"]["minisbert"]) == (100.0, 121.0)
    about = {"model": "m", "texts": 8, "source": "made", "tokens": 80, "num_threads": 1, "rounds": 2, "blas": {}}
    about |= {"processor": "p", "processors": 2, "system": "s", "versions": {"numpy": "2"}}
    said = format_report({"about": about, "training": {**result, "tokens": [900, 1000, 1200]}})
    line = next(line for line in said.splitlines() if line.startswith("sentence-transformers"))
    assert line.split() == ["sentence-transformers", "12", "2", "4", "6", "0.50", "of", "it", "121", "100", "2.5e-01"]
    assert "4 pairs, 1,000 tokens, dropout 0.1" in said


# ------------------------------------------------------------------------------------------------ the step


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


def test_the_loss_falls_from_the_second_step(folder, tmp_path):
    train = train_minisbert(Setting(folder, tmp_path, 1))
    losses = np.array([train(PAIRS, 0.0).loss for _ in range(6)])
    assert losses[0] == losses[1]  # the first step has a learning rate of 0
    assert (np.diff(losses[1:]) < -1e-4).all()  # measured: 2.9e-4 and more


def test_dropout_drops_other_numbers_in_every_step(folder, tmp_path):
    train = train_minisbert(Setting(folder, tmp_path, 1))
    first, second = train(PAIRS, 0.5), train(PAIRS, 0.5)  # the first step changes no weight
    assert abs(first.loss - second.loss) > 1e-4
    assert min(first.forward, first.backward, first.optimizer) > 0


# ------------------------------------------------------------------------------------------------ the whole


def test_training_is_measured_reported_and_drawn(folder, tmp_path, matplotlib):
    ticks = []
    order = Order(("minisbert",), ("training",), 2, 1, (), (), "made")
    result = run_benchmark(SentenceEncoder(folder), TEXTS, order, tmp_path, ticks.append)
    assert len(ticks) == count_steps(order) == 3
    measured = json.loads(json.dumps(result))["training"]
    assert measured["pairs"] == 4
    lengths = SentenceEncoder(folder).tokenize(TEXTS, overflow="truncate").lengths
    assert measured["tokens"] == [lengths.sum()]
    rounds = measured["milliseconds"]["minisbert"]
    assert len(rounds) == 2
    for parts in measured["split"]["minisbert"].values():  # no part is longer than the whole, in any round
        assert (np.array(parts) <= rounds).all()
    assert result["about"]["blas"]["minisbert"] != []
    assert "a training step" in format_report(result)
    from minisbert.bench.picture import draw

    measured["milliseconds"]["sentence-transformers"] = rounds
    measured["peak_mib"]["sentence-transformers"] = None
    with (tmp_path / "training.png").open("wb") as stream:
        draw({**result, "training": measured}, stream)
    assert (tmp_path / "training.png").stat().st_size > 10_000


def test_the_command_trains(folder, tmp_path, monkeypatch, matplotlib):
    monkeypatch.chdir(tmp_path)
    command = ["bench", "--engine", "minisbert", "--part", "training", "--rounds", "1", "--num-threads", "1"]
    command += ["--model", str(folder)]
    done = CliRunner().invoke(main, [*command, *TEXTS[:2], *TEXTS[3:5]])
    assert done.exit_code == 0, done.output
    assert "a training step" in done.stdout
    assert "2 pairs, " in done.stdout
    written = json.loads((tmp_path / "bench.json").read_text())["training"]
    lengths = SentenceEncoder(folder).tokenize([*TEXTS[:2], *TEXTS[3:5]], overflow="truncate").lengths
    assert written["tokens"] == [lengths.sum()]
    assert len(written["milliseconds"]["minisbert"]) == 1
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    few = CliRunner().invoke(main, [*command, "--force", "soup", "dog"])
    assert few.exit_code != 0
    assert "four different texts" in few.stderr


# ------------------------------------------------------------------------------------------------ beside PyTorch


@pytest.mark.filterwarnings(*THIRD_PARTY_WARNINGS)
def test_pytorch_computes_the_same_losses(sentence_transformers, weights_folder, tmp_path, capsys):
    from conftest import skip_or_fail

    if absent := engines.missing(PEERS[0]):
        skip_or_fail("torch", f"{', '.join(absent)} not installed (pip install -e '.[bench]')")
    batches = [
        [column[:8] for column in columns]
        for columns in make_batches(default_texts(SentenceEncoder(weights_folder), 64))
    ]
    setting = Setting(weights_folder, tmp_path, 1)
    trainers = [Worker(name, setting, tmp_path / name, "train") for name in ("minisbert", PEERS[0])]
    with trainers[0], trainers[1]:
        result = measure_training(trainers, batches, Plan(0, 1, lambda what: None))
        with_dropout = [worker.ask("step", columns=batches[0], dropout=0.5)["loss"] for worker in trainers]
    found = result["losses"]["minisbert"]
    assert found[0] - found[-1] > 0.05  # it has learned something in these steps
    print(f"losses {found[0]:.4f} to {found[-1]:.4f}, difference {result['difference'][PEERS[0]]:.1e}")
    assert result["difference"][PEERS[0]] < 1e-5  # measured: 6e-7
    # dropout is on in both, when asked for: one more step without it would have a lower loss
    print(f"with half of the numbers dropped: {with_dropout}")
    assert min(with_dropout) > found[-1] + 0.1
