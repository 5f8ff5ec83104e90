"""Fine-tuning: a run that was stopped goes on bit for bit, nothing that is not finite is stepped on.

NumPy alone, on a random model of some 3,000 weights. That the numbers are PyTorch's is in `test_torch_finetune.py`; the
command line, real processes that are killed included, is in `test_train_cli.py`.
"""

import errno
import io
import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from test_retrieval import write_set
from tiny import TINY, tiny_dense, write_model

from minisbert import SentenceEncoder
from minisbert.evaluation.retrieval import evaluate_retrieval, read_retrieval
from minisbert.evaluation.sts import StsPairs, evaluate_sts
from minisbert.model.bert import Dropout
from minisbert.model.params import RowGradient
from minisbert.model.pooling import Normalize, Pooling
from minisbert.model.tokens import TruncationWarning
from minisbert.training.data import Examples
from minisbert.training.finetune import (
    CheckpointError,
    DevSet,
    Progress,
    Settings,
    TrainingError,
    TrainingState,
    finetune,
    read_checkpoint,
    read_dev,
    untrained_model,
    write_checkpoint,
)
from minisbert.training.losses import LOSSES, multiple_negatives_ranking
from minisbert.training.optim import init_adamw, warmup_linear
from minisbert.training.step import copy_parameters, named_parameters, replace_parameters

pytestmark = pytest.mark.usefixtures("one_thread")
module = sys.modules["minisbert.training.finetune"]  # the room gives its name to the function

LETTERS = "abcdefghjk"
ANCHORS = tuple(f"the cat {x} sat on" for x in LETTERS)
POSITIVES = tuple(f"i love {x} soup" for x in LETTERS)
NEGATIVES = tuple(f"the dog ran {x}" for x in LETTERS[::-1])
CLASSES = np.arange(10) % 2
# a word tells what the class is
MIXED = tuple(f"the cat {x}" if c else f"i ran {x}" for x, c in zip(LETTERS, CLASSES, strict=True))
DATA = {
    "pairs": Examples("pairs", (ANCHORS, POSITIVES)),
    "triplets": Examples("triplets", (ANCHORS, POSITIVES, NEGATIVES)),
    "labelled": Examples("labelled", (ANCHORS, MIXED), labels=CLASSES, label_names=("0", "1")),
    "classes": Examples("texts", (ANCHORS,), labels=np.arange(10) % 3, label_names=("x", "y", "z")),
    "texts": Examples("texts", (ANCHORS,)),
}
PAIRS = DATA["pairs"]
# 10 examples in batches of 4: 3 batches an epoch
QUICK = Settings(batch_size=4, learning_rate=5e-3, num_threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    modules = (Pooling(("mean", "cls")), tiny_dense(24, 9, "tanh"), Normalize())
    return write_model(tmp_path_factory.mktemp("model") / "tiny", modules=modules)


@pytest.fixture(scope="module")
def encoder(folder):
    return SentenceEncoder(folder)


def sts(seed=0, name="dev.tsv"):
    """Pairs with random scores: a score on them goes up and down as the weights move."""
    rng = np.random.default_rng(seed)
    return DevSet(name, StsPairs(name, ANCHORS, POSITIVES, rng.permutation(10).astype(float)))


def weights(encoder):
    return named_parameters(encoder.model)


def same_weights(a, b):
    a, b = (weights(x) if isinstance(x, SentenceEncoder) else x for x in (a, b))
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


def outcome(done):
    """All that a run gave, but for the time that it took."""
    return replace(done.progress, seconds=0.0), done.best_step, done.is_finished


def contents(file):
    """A checkpoint's tensors as bytes, and how far it is."""
    with np.load(file) as stored:
        about = json.loads(str(stored["about"]))
        about["progress"].pop("seconds")
        return about, {name: stored[name].tobytes() for name in stored.files if name != "about"}


def step_of(file):
    return len(contents(file)[0]["progress"]["losses"])


def stop_after(count):
    """Ask a run to stop at its n-th question."""
    asked = []

    def should_stop():
        asked.append(True)
        return len(asked) >= count

    return should_stop


# -------------------------------------------------------------------------------------------------------- losses


def test_texts_of_a_class_and_copies_are_no_negatives():
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 4, 3))
    labels = np.array([0, 1, 0, 2])
    of_batch = LOSSES["multiple_negatives_ranking"].of_batch
    mask = (labels[:, None] == labels) & ~np.eye(4, dtype=bool)
    wanted = multiple_negatives_ranking(u, v, false_negatives=mask).value
    assert of_batch([[*"abcd"], [*"efgh"]], labels)([u, v]).value == wanted
    assert of_batch([[*"abad"], [*"efgh"]])([u, v]).value == wanted != multiple_negatives_ranking(u, v).value


# --------------------------------------------------------------------------------------------------- what one run is


def test_the_start_stays_as_it_was_and_reports_tell_each_step(encoder):
    before, reports = copy_parameters(weights(encoder)), []
    settings = replace(QUICK, epochs=4, warmup=0.3, max_grad_norm=0.5)
    done = finetune(encoder, PAIRS, settings, dev=sts(), on_step=reports.append)
    assert same_weights(weights(encoder), before)
    assert [(r.step, r.total_steps, r.epoch) for r in reports] == [(i + 1, 12, i // 3) for i in range(12)]
    assert [r.loss for r in reports] == done.progress.losses
    # 30 % of 12 steps are 3.6, so 4
    assert [r.learning_rate for r in reports] == [5e-3 * warmup_linear(i, 4, 12) for i in range(12)]
    assert max(r.gradient_norm for r in reports) > 0.5  # as it was before it was shortened
    scored = [(r.step, r.dev_score) for r in reports if r.dev_score is not None]
    assert [step for step, _ in scored] == [3, 6, 9, 12] and scored == done.progress.dev_scores[1:]


def test_each_step_drops_something_else(encoder, monkeypatch):
    """Two steps, or two shards, with the same mask would be half a dropout."""
    drawn = []

    class Watched(Dropout):
        def __init__(self, rng, hidden, attention):
            drawn.append((rng.bit_generator.state["state"]["state"], hidden, attention))
            super().__init__(rng, hidden, attention)

    monkeypatch.setattr("minisbert.training.step.Dropout", Watched)
    finetune(encoder, PAIRS, replace(QUICK, epochs=3, dropout=0.2, num_threads=2))
    assert len(drawn) == len(set(drawn)) == 9 * 2 and {rates for _, *rates in drawn for rates in rates} == {0.2}
    drawn.clear()
    finetune(encoder, PAIRS, replace(QUICK, dropout=0.0))
    assert not drawn


def test_what_is_cut_is_said_once_and_training_goes_on(encoder):
    long = tuple(f"{anchor} {'soup ' * 40}" for anchor in ANCHORS)
    with pytest.warns(TruncationWarning, match="10 of 20") as caught:
        done = finetune(encoder, Examples("pairs", (long, POSITIVES)), replace(QUICK, epochs=2), dev=sts())
    assert len(caught) == 1 and np.isfinite(done.progress.losses).all()
    with pytest.warns(TruncationWarning, match="20 of 20 .* 4 "):
        short = finetune(encoder, PAIRS, replace(QUICK, max_seq_length=4))
    assert short.encoder.max_seq_length == 16  # training's limit, not the model's


# ------------------------------------------------------------------------------------------------------ resuming

RUNS = {  # of what, and where it is stopped
    "head": ("labelled", {"loss": "softmax"}, None, (3, 4)),
    "cached": ("triplets", {"cache_tokens": 16, "num_threads": 2}, None, (2, 5)),
    "dev": ("classes", {"evaluate_every": 2}, sts(), (1, 4, 7, 9)),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_was_stopped_anywhere_goes_on_bit_for_bit(run, encoder, tmp_path):
    """Also behind the score that is taken before the first step, at the end of an epoch, and around scores."""
    data, options, dev, stops = RUNS[run]
    settings = replace(QUICK, epochs=3, dropout=0.1, **options)
    file, whole = tmp_path / "stopped", tmp_path / "whole"
    expected = finetune(encoder, DATA[data], settings, dev=dev, checkpoint=whole, checkpoint_every=9)
    assert expected.is_finished and expected.progress.step == 9
    for count in stops:
        stopped = finetune(encoder, DATA[data], settings, dev=dev, checkpoint=file, should_stop=stop_after(count))
        assert not stopped.is_finished and stopped.progress.step == count - (dev is not None)
        assert stopped.progress.losses == expected.progress.losses[: stopped.progress.step]
        steps = []
        resumed = finetune(
            encoder,
            DATA[data],
            settings,
            dev=dev,
            checkpoint=file,
            checkpoint_every=9,
            resume=True,
            on_step=lambda report, steps=steps: steps.append(report.step),
        )
        assert steps == list(range(stopped.progress.step + 1, 10))
        assert outcome(resumed) == outcome(expected) and same_weights(resumed.encoder, expected.encoder)
        assert contents(file) == contents(whole)  # optimiser, best weights and head, too
        file.unlink()


def test_memory_order_comes_back_with_the_numbers(encoder, tmp_path):
    """On it depend the last digits of matrix products."""
    params = copy_parameters(weights(encoder))
    state = TrainingState(params, init_adamw(params), Progress([0.1, 0.3], [(0, 1.5)], 2.5), params)
    write_checkpoint(tmp_path / "c", state, {"a": (1, 2), "b": None})
    found = read_checkpoint(tmp_path / "c", {"a": [1, 2], "b": None})
    assert found.progress == state.progress and same_weights(found.params, params)
    assert {param.flags.fnc for param in params.values()} == {True, False}
    for name, param in params.items():
        for array in (found.params[name], found.best[name], found.optimizer.m[name], found.optimizer.v[name]):
            assert (array.flags.fnc, array.dtype, array.flags.writeable) == (param.flags.fnc, param.dtype, True)


def test_a_full_disk_keeps_the_last_checkpoint(encoder, tmp_path, monkeypatch):
    """And a model that is trained is given to the caller, even if its last checkpoint cannot be written."""
    file, calls, synced = tmp_path / "run.checkpoint", [], os.fsync
    settings = replace(QUICK, epochs=3)

    def full(number):
        calls.append(number)
        if len(calls) % 3 == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(number)

    monkeypatch.setattr("minisbert.files.os.fsync", full)
    with pytest.raises(OSError, match=r"No space left.*run\.checkpoint"):
        finetune(encoder, PAIRS, settings, checkpoint=file, checkpoint_every=2)
    assert step_of(file) == 4 and os.listdir(tmp_path) == ["run.checkpoint"]
    calls.append(0)
    with pytest.warns(UserWarning, match=r"run\.checkpoint"):
        done = finetune(encoder, PAIRS, settings, checkpoint=file, checkpoint_every=8, resume=True)
    assert done.is_finished and step_of(file) == 8
    assert same_weights(done.encoder, finetune(encoder, PAIRS, settings).encoder)


# ------------------------------------------------------------------------------------------------ what is refused


def changed(encoder, **changes):
    return encoder.with_model(replace(encoder.model, **changes))


def one_bit_off(encoder):
    params = copy_parameters(weights(encoder))
    array = params["encoder.layer.1.output.dense.weight"]
    array[0, 0] = np.nextafter(array[0, 0], np.float32(9))
    return encoder.with_model(replace_parameters(encoder.model, params))


OTHERS = {
    "a weight": (lambda e: (one_bit_off(e), PAIRS, QUICK, sts()), ["model"]),
    "eps": (
        lambda e: (changed(e, config=replace(e.model.config, layer_norm_eps=1e-6)), PAIRS, QUICK, sts()), ["model"]
    ),
    "order": (lambda e: (e, Examples("pairs", (ANCHORS[::-1], POSITIVES[::-1])), QUICK, sts()), ["examples"]),
    "dev scores": (lambda e: (e, PAIRS, QUICK, sts(seed=1)), ["dev"]),
    "settings": (
        lambda e: (e, PAIRS, replace(QUICK, loss_options={"scale": 10.0}, epochs=2, batch_size=5, learning_rate=1e-5,
                                     warmup=0.2, weight_decay=0.1, max_grad_norm=2.0, dropout=0.0, seed=3,
                                     max_seq_length=15, cache_tokens=9, num_threads=2, evaluate_every=7), sts()),
        ["loss_options", "epochs", "batch_size", "learning_rate", "warmup", "weight_decay", "max_grad_norm", "dropout",
         "seed", "max_seq_length", "cache_tokens", "num_threads", "evaluate_every"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def stopped(encoder, tmp_path_factory):
    file = tmp_path_factory.mktemp("stopped") / "run.checkpoint"
    finetune(encoder, PAIRS, QUICK, dev=sts(), checkpoint=file, should_stop=stop_after(2))
    return file


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_run_is_refused_with_every_difference(what, encoder, stopped, monkeypatch):
    make, differing = OTHERS[what]
    other, examples, settings, dev = make(encoder)
    monkeypatch.setattr(np, "__version__", "9.9")  # another NumPy may add in another order
    with pytest.raises(CheckpointError, match=f"^{stopped}: ") as caught:
        finetune(other, examples, settings, dev=dev, checkpoint=stopped, resume=True)
    clauses = str(caught.value).split("another run: ")[1].split("; remove")[0].split("; ")
    assert sorted(clause.split(" was ")[0] for clause in clauses) == sorted([*differing, "numpy"])


def test_a_damaged_checkpoint_is_refused(encoder, stopped, folder, tmp_path):
    """Cut short, a tensor or a bit of it lost, or of another kind. A bit that means nothing (a date) may be any."""
    content, rng, file = stopped.read_bytes(), np.random.default_rng(0), tmp_path / "broken.checkpoint"
    identity = contents(stopped)[0]["identity"]
    broken = [content[:size] for size in (0, 1, 8, 100, len(content) // 2, len(content) - 1)]
    for place in [*rng.integers(0, len(content), 10), *rng.integers(len(content) - 3000, len(content), 24)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        broken.append(bytes(flipped))
    broken += [(folder / "model.safetensors").read_bytes(), b"anchor\tpositive\na\tb\n" * 9]
    with np.load(stopped) as stored, io.BytesIO() as less:
        np.savez(less, **{name: stored[name] for name in stored.files[:-1]})
        broken.append(less.getvalue())
    refused = 0
    for damaged in broken:
        file.write_bytes(damaged)
        try:
            read_checkpoint(file, identity)
            assert contents(file) == contents(stopped)
        except CheckpointError as error:
            assert str(file) in str(error) and "allow_pickle" not in str(error)
            refused += 1
    assert refused > 25
    with pytest.raises(CheckpointError, match="broken"):
        finetune(encoder, PAIRS, QUICK, dev=sts(), checkpoint=file, resume=True)
    assert file.read_bytes() == damaged and os.listdir(tmp_path) == [file.name]


NAMED = Examples("labelled", (ANCHORS, POSITIVES), labels=CLASSES, label_names=("no", "yes"))
FLAT = DevSet("flat", StsPairs("flat", ["soup"] * 3, ["the cat"] * 3, np.arange(3.0)))
REFUSED = {
    "loss": ("loss .*'triplets'", {"loss": "triplets"}),
    "NaN": ("scale .*nan", {"loss_options": {"scale": np.nan}}),
    "half an epoch": ("epochs .*1.5", {"epochs": 1.5}),
    "batch_size": ("batch_size .*1", {"batch_size": 1}),
    "a loss for named labels": ("contrastive .*no, yes", {"loss": "contrastive", "examples": NAMED}),
    "simcse without dropout": ("dropout 0", {"loss": "simcse", "dropout": 0.0, "examples": DATA["texts"]}),
    "resume from nothing": ("checkpoint", {"resume": True}),
    "more than the model reads": ("max_seq_length.* 17", {"max_seq_length": 17}),
    "a dev set without a score": (r"step 0, .*flat", {"dev": FLAT}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what, encoder):
    words, options = REFUSED[what]
    of_run = {key: options[key] for key in ("dev", "resume") if key in options}
    of_settings = {key: value for key, value in options.items() if key not in (*of_run, "examples")}
    with pytest.raises(ValueError, match=words):
        finetune(encoder, options.get("examples", PAIRS), replace(QUICK, **of_settings), **of_run)


# -------------------------------------------------------------------------------------------------- not a number


@pytest.mark.parametrize("name", ["", "encoder.layer.1.output.dense.weight", "embeddings.word_embeddings.weight"])
def test_nothing_is_changed_by_a_batch_that_is_not_finite(name, encoder, tmp_path, monkeypatch):
    """In the fifth step, so the second of the second epoch."""
    file, good = tmp_path / "c", tmp_path / "good"
    settings = replace(QUICK, epochs=3)
    finetune(encoder, PAIRS, settings, checkpoint=good, should_stop=stop_after(4))
    whole, calls = module.value_and_gradients, []

    def spoilt(*arguments, **options):
        step = whole(*arguments, **options)
        calls.append(arguments[1])
        if len(calls) < 5:
            return step
        if not name:
            return replace(step, value=np.nan)
        gradient = step.gradients[name]
        (gradient.values if isinstance(gradient, RowGradient) else gradient)[1, 1] = np.inf
        return step

    monkeypatch.setattr(module, "value_and_gradients", spoilt)
    with pytest.raises(TrainingError, match=rf"^step 5 \(epoch 2, batch 2\): .*{name or 'nan'}") as caught:
        finetune(encoder, PAIRS, settings, checkpoint=file, checkpoint_every=1)
    rows = [int(i) for i in str(caught.value).split("examples ")[1].split(", from 0")[0].split(", ")]
    assert [ANCHORS[i] for i in rows] == list(calls[4][0])  # the very batch
    assert contents(file) == contents(good)


# ------------------------------------------------------------------------------------------------------- dev sets


class Scripted:
    """A dev set whose scores are known beforehand, and that remembers the weights that it was shown."""

    name, measure, data = "scripted", "points", Progress()

    def __init__(self, *scores):
        self.scores, self.shown = scores, []

    def score(self, encoder):
        self.shown.append(copy_parameters(weights(encoder)))
        return self.scores[len(self.shown) - 1]


@pytest.mark.parametrize(("scores", "best"), [((-3, -9, -2, -5), 6), ((1, 4, 4, 4), 3), ((2, 2, 2, 2), 0)])
def test_the_best_weights_are_kept_of_equals_the_first(scores, best, encoder, tmp_path):
    settings, dev = replace(QUICK, epochs=3), Scripted(*scores)
    done = finetune(encoder, PAIRS, settings, dev=dev)
    assert done.progress.dev_scores == list(zip((0, 3, 6, 9), scores, strict=True)) and done.best_step == best
    assert same_weights(weights(done.encoder), dev.shown[best // 3])
    assert not same_weights(dev.shown[0], dev.shown[1]) and same_weights(dev.shown[0], weights(encoder))
    first, second = Scripted(*scores), Scripted(*scores)  # the best outlives a stop
    finetune(encoder, PAIRS, settings, dev=first, checkpoint=tmp_path / "c", should_stop=stop_after(5))
    second.shown = list(first.shown)
    resumed = finetune(encoder, PAIRS, settings, dev=second, checkpoint=tmp_path / "c", resume=True)
    assert outcome(resumed) == outcome(done) and same_weights(resumed.encoder, done.encoder)


def test_scores_are_taken_as_often_as_asked_and_change_nothing(encoder, tmp_path):
    """On a file of scored pairs, and on a folder of a retrieval set."""
    file = tmp_path / "dev.tsv"
    rows = [f"{i % 4}\t{a}\t{p}\n" for i, (a, p) in enumerate(zip(ANCHORS, POSITIVES, strict=True))]
    file.write_text("a\tb\tc\n" + "".join(rows))
    pairs, folder = read_dev(file, ["a", "b", "c"]), read_dev(write_set(tmp_path / "beir"))
    expected = evaluate_sts(encoder, StsPairs("dev", ANCHORS, POSITIVES, np.arange(10) % 4.0)).spearman["cosine"]
    ranked = evaluate_retrieval(encoder, read_retrieval(tmp_path / "beir")).measures["nDCG@10"].mean()
    alone = finetune(encoder, PAIRS, replace(QUICK, epochs=2))
    assert alone.best_step == 6 and alone.progress.dev_scores == []
    for dev, first, every, steps in ((pairs, expected, 4, [0, 4, 6]), (folder, 100.0 * ranked, None, [0, 3, 6])):
        done = finetune(encoder, PAIRS, replace(QUICK, epochs=2, evaluate_every=every), dev=dev)
        assert [step for step, _ in done.progress.dev_scores] == steps
        assert done.progress.dev_scores[0][1] == pytest.approx(first, abs=1e-12)
        assert done.progress.losses == alone.progress.losses


# ------------------------------------------------------------------------------------ from nothing; does it pay?


def test_an_untrained_model_learns(encoder):
    sizes = {"num_hidden_layers": 1, "hidden_size": 40, "num_attention_heads": 5}
    like = replace(encoder.model, truncate_dim=3)
    model, again, other = (untrained_model(like, seed=seed, **sizes) for seed in (7, 7, 8))
    assert model.modules == (Pooling(), Normalize()) and model.width == 40 and model.config.intermediate_size == 160
    assert model.tokenizer is like.tokenizer and model.config.vocab_size == TINY.vocab_size
    for name, array in named_parameters(model).items():
        std, mean = (0.0, float("LayerNorm.weight" in name)) if array.ndim == 1 else (0.02, 0.0)
        assert abs(array.std() - std) <= 0.1 * std and abs(array.mean() - mean) < 0.002, name
        assert array.flags.fnc == (array.ndim == 2 and not name.startswith("embeddings.")), name  # as loaded weights
    first, same, different = map(named_parameters, (model, again, other))
    assert same_weights(first, same) and not same_weights(first, different)
    settings = replace(QUICK, epochs=12, dropout=0.0, learning_rate=1e-2)
    done = finetune(encoder.with_model(model), DATA["triplets"], settings)
    assert np.mean(done.progress.losses[-6:]) < 0.5 * np.mean(done.progress.losses[:6])
