"""Fine-tuning: every loss learns, a run that was stopped goes on bit for bit, nothing that is not finite is stepped on.

NumPy alone, on a random model of some 3,000 weights. That the numbers are PyTorch's is in `test_torch_finetune.py`; the
command line, real processes that are killed included, is in `test_train_cli.py`.
"""

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from safetensors import safe_open
from test_retrieval import write_set
from tiny import TINY, read_raw_safetensors, tiny_dense, write_model

from minisbert import SentenceEncoder
from minisbert.cli.demo_intents import gain, tune_with_seeds
from minisbert.evaluation.classification import ClassificationResult, LabelledTexts
from minisbert.evaluation.measures import bootstrap_mean, paired_difference
from minisbert.evaluation.retrieval import evaluate_retrieval, read_retrieval
from minisbert.evaluation.sts import StsPairs, evaluate_sts
from minisbert.model.bert import Dropout
from minisbert.model.params import RowGradient
from minisbert.model.pooling import Normalize, Pooling
from minisbert.model.tokens import TruncationWarning
from minisbert.training.data import Batch, Examples
from minisbert.training.finetune import (
    CheckpointError,
    DevSet,
    Progress,
    Settings,
    TrainingError,
    TrainingState,
    check_fit,
    finetune,
    fitting_losses,
    new_head,
    objective,
    read_checkpoint,
    read_dev,
    untrained_model,
    write_checkpoint,
)
from minisbert.training.losses import LOSSES, multiple_negatives_ranking
from minisbert.training.optim import init_adamw, warmup_linear
from minisbert.training.step import (
    copy_parameters,
    named_parameters,
    replace_parameters,
)

module = sys.modules["minisbert.training.finetune"]  # the room gives its name to the function

LETTERS = "abcdefghjk"
ANCHORS = tuple(f"the cat {x} sat on" for x in LETTERS)
POSITIVES = tuple(f"i love {x} soup" for x in LETTERS)
NEGATIVES = tuple(f"the dog ran {x}" for x in LETTERS[::-1])
CLASSES = np.arange(10) % 2
# a word tells what the class is, and most of the score
MIXED = tuple(f"the cat {x}" if c else f"i ran {x}" for x, c in zip(LETTERS, CLASSES, strict=True))
SCORES = CLASSES / 2 + np.arange(10) / 20
DATA = {
    "pairs": Examples("pairs", (ANCHORS, POSITIVES)),
    "triplets": Examples("triplets", (ANCHORS, POSITIVES, NEGATIVES)),
    "scored": Examples("scored", (ANCHORS, MIXED), scores=SCORES),
    "labelled": Examples("labelled", (ANCHORS, MIXED), labels=CLASSES, label_names=("0", "1")),
    "classes": Examples("texts", (ANCHORS,), labels=np.arange(10) % 3, label_names=("x", "y", "z")),
    "texts": Examples("texts", (ANCHORS,)),
}
# 10 examples in batches of 4: 3 batches an epoch
QUICK = Settings(batch_size=4, learning_rate=5e-3, num_threads=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Products this small are done before a second thread has woken up."""
    with threadpoolctl.threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    modules = (Pooling(("mean", "cls")), tiny_dense(24, 9, "tanh"), Normalize())
    return write_model(tmp_path_factory.mktemp("model") / "tiny", modules=modules)


@pytest.fixture(scope="module")
def encoder(folder):
    return SentenceEncoder(folder)


@pytest.fixture(scope="module")
def exact(folder):
    return SentenceEncoder(folder, dtype="float64")


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
    """Tensors of a checkpoint as bytes, and how far it is."""
    with safe_open(file, framework="numpy") as stored:
        said = json.loads(stored.metadata()["minisbert"])
        tensors = {name: stored.get_tensor(name).tobytes() for name in stored.keys()}  # noqa: SIM118
    said["progress"].pop("seconds")
    return said, tensors


def stop_after(count):
    """Ask a run to stop when it asks for the so-manieth time."""
    asked = []

    def should_stop():
        asked.append(True)
        return len(asked) >= count

    return should_stop


# -------------------------------------------------------------------------------------------------------- losses

CASES = [
    ("multiple_negatives_ranking", "pairs", {"symmetric": True, "scale": 10}),
    ("multiple_negatives_ranking", "classes", {}),
    ("simcse", "texts", {"scale": 19.0}),
    ("contrastive", "labelled", {"margin": 0.7}),
    ("softmax", "labelled", {}),
    ("triplet", "triplets", {"distance": "cosine", "margin": 0.5}),
    ("cosine_similarity", "scored", {}),
    ("cosent", "scored", {"scale": 5.0}),
]


@pytest.mark.parametrize(("loss", "data", "options"), CASES)
def test_every_loss_falls_on_its_data(loss, data, options, encoder, tmp_path):
    examples = DATA[data]
    epochs, dropout = 30 if loss == "softmax" else 12, 0.3 if loss == "simcse" else 0.0
    settings = replace(QUICK, loss=loss, loss_options=options, epochs=epochs, dropout=dropout)
    done = finetune(encoder, examples, settings, checkpoint=tmp_path / "c", checkpoint_every=3 * epochs)
    losses = done.progress.losses
    assert len(losses) == done.progress.step == 3 * epochs and np.isfinite(losses).all()
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    before, (_, tensors) = new_head(settings, examples, 9, np.float32), contents(tmp_path / "c")
    for name, array in before.items():  # the classifier learns, too
        assert np.abs(np.frombuffer(tensors[f"params/{name}"], np.float32) - array.ravel()).max() > 1e-2
    still = [name for name, array in weights(done.encoder).items() if np.array_equal(array, weights(encoder)[name])]
    assert all("key.bias" in name for name in still), still  # adds one number to all scores of a row


def test_texts_of_a_class_and_copies_are_no_negatives():
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 4, 3))
    labels = np.array([0, 1, 0, 2])
    by_class = objective(Settings(), Batch((("a", "b", "c", "d"), ("e", "f", "g", "h")), labels, np.arange(4)), {})
    mask = (labels[:, None] == labels) & ~np.eye(4, dtype=bool)
    assert by_class([u, v]).value == multiple_negatives_ranking(u, v, false_negatives=mask).value
    assert by_class([u, v]).value != multiple_negatives_ranking(u, v).value
    by_text = objective(Settings(), Batch((("a", "b", "a", "d"), ("e", "f", "g", "h")), None, np.arange(4)), {})
    assert by_text([u, v]).value == multiple_negatives_ranking(u, v, false_negatives=mask).value


def test_the_batch_says_the_targets():
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 4, 3))
    for loss in ("cosent", "cosine_similarity", "contrastive"):
        targets = np.array([0.0, 1.0, 0.0, 1.0])
        batch = Batch((("a", "b", "c", "d"), ("e", "f", "g", "h")), targets, np.arange(4))
        other = replace(batch, targets=1.0 - targets)
        values = [objective(Settings(loss=loss), b, {})([u, v]).value for b in (batch, other)]
        assert values[0] == LOSSES[loss].function(u, v, targets).value != values[1]


def test_the_head_is_drawn_from_the_seed_in_its_range():
    settings, examples = Settings(loss="softmax"), DATA["labelled"]
    head, again = (new_head(settings, examples, 9, np.float32) for _ in range(2))
    other = new_head(replace(settings, seed=1), examples, 9, np.float32)
    assert {name: array.shape for name, array in head.items()} == {"head.weight": (2, 27), "head.bias": (2,)}
    for name, array in head.items():
        assert array.dtype == np.float32 and 0.5 * 27**-0.5 < np.abs(array).max() <= np.float32(27**-0.5)
        assert np.array_equal(array, again[name]) and not np.array_equal(array, other[name])


# --------------------------------------------------------------------------------------------------- what one run is


def test_the_encoder_that_training_begins_with_is_as_it_was(folder):
    encoder = SentenceEncoder(folder)
    before = copy_parameters(weights(encoder))
    vectors = encoder.encode(ANCHORS)
    done = finetune(encoder, DATA["pairs"], QUICK, dev=sts())
    assert same_weights(weights(encoder), before)
    np.testing.assert_array_equal(encoder.encode(ANCHORS), vectors)
    assert not any(np.shares_memory(weights(encoder)[n], array) for n, array in weights(done.encoder).items())
    assert done.encoder.max_seq_length == encoder.max_seq_length and done.encoder.dtype == encoder.dtype


def test_reports_tell_each_step(encoder):
    reports = []
    settings = replace(QUICK, epochs=4, warmup=0.3, max_grad_norm=0.5)
    done = finetune(encoder, DATA["pairs"], settings, dev=sts(), on_step=reports.append)
    assert [(r.step, r.total_steps, r.epoch) for r in reports] == [(i + 1, 12, i // 3) for i in range(12)]
    assert tuple(r.loss for r in reports) == done.progress.losses
    # 30 % of 12 steps are 3.6, so 4
    assert [r.learning_rate for r in reports] == [5e-3 * warmup_linear(i, 4, 12) for i in range(12)]
    assert max(r.gradient_norm for r in reports) > 0.5  # as it was before it was shortened
    scored = [(r.step, r.dev_score) for r in reports if r.dev_score is not None]
    assert [step for step, _ in scored] == [3, 6, 9, 12] and tuple(scored) == done.progress.dev_scores[1:]


def test_each_step_drops_something_else(encoder, monkeypatch):
    """Two steps, or two shards, with the same mask would be half a dropout."""
    drawn = []

    class Watched(Dropout):
        def __init__(self, rng, hidden, attention):
            drawn.append((rng.bit_generator.state["state"]["state"], hidden, attention))
            super().__init__(rng, hidden, attention)

    monkeypatch.setattr("minisbert.training.step.Dropout", Watched)
    finetune(encoder, DATA["pairs"], replace(QUICK, epochs=3, dropout=0.2, cache_tokens=None, num_threads=2))
    assert len(drawn) == len(set(drawn)) == 9 * 2
    assert {rates for _, *rates in [(a, (b, c)) for a, b, c in drawn] for rates in rates} == {(0.2, 0.2)}
    drawn.clear()
    finetune(encoder, DATA["pairs"], replace(QUICK, dropout=0.0))
    assert not drawn


def test_threads_change_nothing_but_rounding(exact):
    settings = replace(QUICK, epochs=3, dropout=0.0)
    one = finetune(exact, DATA["triplets"], settings)
    done, again = (finetune(exact, DATA["triplets"], replace(settings, num_threads=2)) for _ in range(2))
    assert outcome(done) == outcome(again) and same_weights(done.encoder, again.encoder)
    np.testing.assert_allclose(done.progress.losses, one.progress.losses, rtol=1e-10)


def test_gradient_caching_changes_nothing_but_rounding(exact):
    """Dropout is off: its masks belong to the shards, and caching makes others."""
    settings, bound = replace(QUICK, loss="softmax", epochs=4, dropout=0.0, num_threads=2), 1e-10
    whole = finetune(exact, DATA["labelled"], settings)
    cached = finetune(exact, DATA["labelled"], replace(settings, cache_tokens=7))
    np.testing.assert_allclose(cached.progress.losses, whole.progress.losses, rtol=bound)
    for name, array in weights(cached.encoder).items():
        if not name.endswith("key.bias"):  # zero on paper: AdamW makes steps out of its rounding
            assert np.abs(array - weights(whole.encoder)[name]).max() < bound * np.abs(array).max(), name


def test_what_is_cut_is_said_once_and_training_goes_on(encoder):
    long = tuple(f"{anchor} {'soup ' * 40}" for anchor in ANCHORS)
    with pytest.warns(TruncationWarning) as caught:
        done = finetune(encoder, Examples("pairs", (long, POSITIVES)), replace(QUICK, epochs=2), dev=sts())
    assert len(caught) == 1 and np.isfinite(done.progress.losses).all()
    assert "10 of 20" in str(caught[0].message)
    with pytest.warns(TruncationWarning, match="20 of 20 .* 4 "):
        short = finetune(encoder, DATA["pairs"], replace(QUICK, max_seq_length=4))
    assert short.progress.losses != finetune(encoder, DATA["pairs"], QUICK).progress.losses
    assert short.encoder.max_seq_length == 16  # training's limit, not the model's
    with pytest.raises(ValueError, match=r"max_seq_length.* 17"):
        finetune(encoder, DATA["pairs"], replace(QUICK, max_seq_length=17))


# ------------------------------------------------------------------------------------------------------ resuming

RUNS = {
    "dropout": ("pairs", {}, None),
    "head": ("labelled", {"loss": "softmax"}, None),
    "cached": ("triplets", {"cache_tokens": 16, "num_threads": 2}, None),
    "dev": ("classes", {}, sts()),
    "dev_often": ("texts", {"loss": "simcse", "evaluate_every": 2}, sts()),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_was_stopped_anywhere_goes_on_bit_for_bit(run, encoder, tmp_path):
    """Also behind the score that is taken before the first step, at the end of an epoch, and around scores."""
    data, options, dev = RUNS[run]
    settings = replace(QUICK, epochs=3, dropout=0.1, **options)
    file, whole = tmp_path / "stopped", tmp_path / "whole"
    expected = finetune(encoder, DATA[data], settings, dev=dev, checkpoint=whole, checkpoint_every=9)
    assert expected.is_finished and expected.progress.step == 9
    for count in range(1, 9 if dev is None else 10):
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


@pytest.mark.parametrize("every", [3, 4])
def test_after_a_crash_it_goes_on_from_the_last_checkpoint(every, encoder, tmp_path):
    settings, file = replace(QUICK, epochs=3, evaluate_every=2), tmp_path / "run.checkpoint"
    expected = finetune(encoder, DATA["pairs"], settings, dev=sts())

    def crash(report):
        if report.step == 8:
            raise RuntimeError("a crash")

    with pytest.raises(RuntimeError, match="a crash"):
        finetune(
            encoder, DATA["pairs"], settings, dev=sts(), checkpoint=file, checkpoint_every=every, on_step=crash
        )  # fmt: skip
    assert contents(file)[0]["progress"]["step"] == 7 // every * every
    done = finetune(encoder, DATA["pairs"], settings, dev=sts(), checkpoint=file, checkpoint_every=every, resume=True)
    assert outcome(done) == outcome(expected) and same_weights(done.encoder, expected.encoder)
    # and a finished run has nothing left to do
    if 9 % every == 0:
        again = finetune(encoder, DATA["pairs"], settings, dev=sts(), checkpoint=file, resume=True, on_step=crash)
        assert outcome(again) == outcome(expected) and same_weights(again.encoder, expected.encoder)


def test_memory_order_comes_back_with_the_numbers(encoder, tmp_path):
    """On it depend the last digits of matrix products."""
    params = copy_parameters(weights(encoder))
    state = TrainingState(params, init_adamw(params), Progress(1, 2, 3, (0.1,), ((0, 1.5),), 2.5), params)
    write_checkpoint(tmp_path / "c", state, {"a": (1, 2), "b": None})
    found = read_checkpoint(tmp_path / "c", params, {"a": [1, 2], "b": None})
    assert found.progress == state.progress and same_weights(found.params, params)
    assert {param.flags.fnc for param in params.values()} == {True, False}
    for name, param in params.items():
        for array in (found.params[name], found.best[name], found.optimizer.m[name], found.optimizer.v[name]):
            assert (array.flags.f_contiguous, array.dtype) == (param.flags.f_contiguous, param.dtype)
            assert array.flags.writeable


def test_a_checkpoint_is_the_file_that_the_library_writes(encoder, tmp_path):
    from safetensors.numpy import load_file, save_file

    params = copy_parameters(weights(encoder))
    state = init_adamw(params)
    state.seen["embeddings.word_embeddings.weight"] = np.arange(TINY.vocab_size) % 3 == 0
    write_checkpoint(tmp_path / "ours", TrainingState(params, state), {"loss": "cosent"})
    with safe_open(tmp_path / "ours", framework="numpy") as stored:
        metadata = stored.metadata()
    save_file(load_file(tmp_path / "ours"), tmp_path / "theirs", metadata)
    ours, theirs = (read_raw_safetensors(tmp_path / name) for name in ("ours", "theirs"))
    assert ours == theirs and {one["dtype"] for name, one in ours[0].items() if name != "__metadata__"} == {
        "F32", "I64", "BOOL"
    }  # fmt: skip


def test_a_full_disk_keeps_the_last_checkpoint(encoder, tmp_path, monkeypatch):
    file, written = tmp_path / "run.checkpoint", []
    settings, synced = replace(QUICK, epochs=3), os.fsync

    def full(number):
        written.append(file.read_bytes() if file.exists() else None)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(number)

    monkeypatch.setattr("minisbert.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        finetune(encoder, DATA["pairs"], settings, checkpoint=file, checkpoint_every=2)
    assert file.read_bytes() == written[2] and contents(file)[0]["progress"]["step"] == 4
    assert os.listdir(tmp_path) == ["run.checkpoint"]
    monkeypatch.undo()
    done = finetune(encoder, DATA["pairs"], settings, checkpoint=file, resume=True)
    assert same_weights(done.encoder, finetune(encoder, DATA["pairs"], settings).encoder)


# ------------------------------------------------------------------------------------------------ what is refused


def changed(encoder, **changes):
    return encoder.with_model(replace(encoder.model, **changes))


def one_bit_off(encoder):
    params = copy_parameters(weights(encoder))
    array = params["encoder.layer.1.output.dense.weight"]
    array[0, 0] = np.nextafter(array[0, 0], np.float32(9))
    return encoder.with_model(replace_parameters(encoder.model, params))


def shorter(encoder):
    limited = encoder.with_model(encoder.model)
    limited.max_seq_length = 15
    return limited


PAIRS = DATA["pairs"]
OTHERS = {
    "a weight": (lambda e: (one_bit_off(e), PAIRS, QUICK, sts()), ["model"]),
    "eps": (
        lambda e: (changed(e, config=replace(e.model.config, layer_norm_eps=1e-6)), PAIRS, QUICK, sts()), ["model"]
    ),
    "limit": (lambda e: (shorter(e), PAIRS, QUICK, sts()), ["dev", "max_seq_length"]),
    "a text": (lambda e: (e, Examples("pairs", (ANCHORS, (*POSITIVES[:9], "soup"))), QUICK, sts()), ["examples"]),
    "order": (lambda e: (e, Examples("pairs", (ANCHORS[::-1], POSITIVES[::-1])), QUICK, sts()), ["examples"]),
    "dev scores": (lambda e: (e, PAIRS, QUICK, sts(seed=1)), ["dev"]),
    "dev name": (lambda e: (e, PAIRS, QUICK, sts(name="other.tsv")), ["dev"]),
    "no dev": (lambda e: (e, PAIRS, QUICK, None), ["dev"]),
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
    before = stopped.read_bytes()
    monkeypatch.setattr(np, "__version__", "9.9")  # another NumPy may add in another order
    with pytest.raises(CheckpointError) as caught:
        finetune(other, examples, settings, dev=dev, checkpoint=stopped, resume=True)
    message = str(caught.value)
    assert message.startswith(f"{stopped}: ") and stopped.read_bytes() == before
    clauses = message.split("another run: ")[1].split("; give the same")[0].split("; ")
    assert sorted(clause.split(" was ")[0] for clause in clauses) == sorted([*differing, "numpy"])


def test_labels_belong_to_the_run(encoder, tmp_path):
    settings = replace(QUICK, loss="softmax")
    finetune(encoder, DATA["labelled"], settings, checkpoint=tmp_path / "c", should_stop=stop_after(1))
    for other in ({"labels": 1 - CLASSES}, {"label_names": ("a", "b")}):
        with pytest.raises(CheckpointError, match="examples"):
            finetune(encoder, replace(DATA["labelled"], **other), settings, checkpoint=tmp_path / "c", resume=True)


def resume_from(content, encoder, tmp_path):
    file = tmp_path / "broken.checkpoint"
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        finetune(encoder, PAIRS, QUICK, dev=sts(), checkpoint=file, resume=True)
    assert str(file) in str(caught.value)
    assert file.read_bytes() == content and os.listdir(tmp_path) == ["broken.checkpoint"]


def test_a_damaged_checkpoint_is_refused(encoder, stopped, folder, tmp_path):
    """Cut short, made longer, a bit flipped in it, or of another kind."""
    content, rng = stopped.read_bytes(), np.random.default_rng(0)
    for size in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
        resume_from(content[:size], encoder, tmp_path)
    resume_from(content + b"x", encoder, tmp_path)
    header = int.from_bytes(content[:8], "little")
    for place in [*rng.integers(0, header, 40), *rng.integers(header, len(content), 9), len(content) - 1]:
        broken = bytearray(content)
        broken[place] ^= 1 << int(rng.integers(8))
        resume_from(bytes(broken), encoder, tmp_path)
    resume_from((folder / "model.safetensors").read_bytes(), encoder, tmp_path)
    resume_from(b"anchor\tpositive\na\tb\n" * 9, encoder, tmp_path)
    (tmp_path / "a-folder").mkdir()
    for name, error in (("a-folder", (CheckpointError, OSError)), ("missing", CheckpointError)):
        with pytest.raises(error, match=name):
            finetune(encoder, PAIRS, QUICK, checkpoint=tmp_path / name, resume=True)


@pytest.mark.parametrize(
    "said",
    [
        "null", "[]", "3", "{", '{"format": 1}', '{"format": 2}', '{"format": 1, "identity": []}',
        '{"format": 1, "identity": {}}', '{"format": 1, "identity": {}, "progress": {"epoch": 1}}',
        '{"format": 1, "identity": {}, "progress": 5}',
    ],
)  # fmt: skip
def test_lying_metadata_are_refused(said, tmp_path):
    """With a checksum that is right: what nobody wrote, but somebody may have."""
    from safetensors.numpy import save_file

    params = {"x": np.ones(2, np.float32)}
    tensors = {"params/x": params["x"]}
    checksum = module._checksum(said, tensors)
    save_file(tensors, tmp_path / "c", {"minisbert": said, "checksum": checksum})
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "c", params, {})


def test_tensors_that_are_not_the_models_are_refused(tmp_path):
    params = {"x": np.ones((2, 3), np.float32), "y": np.ones(2, np.float32)}
    for other, words in (
        ({"x": params["x"]}, "'y'"),
        ({**params, "z": params["y"]}, "'z'"),
        ({**params, "y": np.ones(3, np.float32)}, r"y .*\(3,\)"),
        ({**params, "x": np.ones((2, 3))}, "x .*float64"),
    ):
        write_checkpoint(tmp_path / "c", TrainingState(other, init_adamw(params)), {})
        with pytest.raises(CheckpointError, match=words):
            read_checkpoint(tmp_path / "c", params, {})
        for state in (TrainingState(params, init_adamw(other)), TrainingState(params, init_adamw(params), best=other)):
            write_checkpoint(tmp_path / "c", state, {})
            with pytest.raises(CheckpointError):
                read_checkpoint(tmp_path / "c", params, {})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "triplets"}, "loss .*'triplets'"),
        ({"loss_options": {"margin": 1.0}}, "'margin'"),
        ({"loss": "softmax", "loss_options": {"scale": 1.0}}, "'scale'"),
        ({"loss_options": {"scale": True}}, "scale .*True"),
        ({"loss_options": {"scale": np.nan}}, "scale .*nan"),
        ({"loss_options": {"scale": -1.0}}, "scale .*-1"),
        ({"loss_options": {"symmetric": "yes"}}, "symmetric .*'yes'"),
        ({"loss_options": {"similarity": "cos"}}, "similarity .*'cos'"),
        ({"epochs": 0}, "epochs .*0"),
        ({"epochs": 1.5}, "epochs .*1.5"),
        ({"batch_size": 1}, "batch_size .*1"),
        ({"learning_rate": -1e-5}, "learning_rate .*-1e-05"),
        ({"learning_rate": np.nan}, "learning_rate .*nan"),
        ({"learning_rate": None}, "learning_rate .*None"),
        ({"warmup": 1.01}, "warmup"),
        ({"weight_decay": 2}, "weight_decay"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"dropout": 1.0}, "dropout"),
        ({"seed": -1}, "seed"),
        ({"max_seq_length": 2}, "max_seq_length"),
        ({"cache_tokens": 0}, "cache_tokens"),
        ({"num_threads": True}, "num_threads"),
        ({"evaluate_every": 0}, "evaluate_every"),
    ],
)
def test_settings_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        Settings(**options)


@pytest.mark.parametrize("data", DATA)
def test_a_loss_that_does_not_fit_the_examples_is_refused(data, encoder, tmp_path):
    fitting = fitting_losses(DATA[data])
    for loss in LOSSES:
        if loss in fitting:
            check_fit(Settings(loss=loss), DATA[data])
            continue
        with pytest.raises(ValueError, match=f"{loss} .*{' or '.join(fitting)}$"):
            finetune(encoder, DATA[data], replace(QUICK, loss=loss), checkpoint=tmp_path / "c")
        assert not os.listdir(tmp_path)


def test_more_that_does_not_fit(encoder, tmp_path):
    named = Examples("labelled", (ANCHORS, POSITIVES), labels=CLASSES, label_names=("no", "yes"))
    with pytest.raises(ValueError, match=r"contrastive .*no, yes"):
        finetune(encoder, named, replace(QUICK, loss="contrastive"))
    with pytest.raises(ValueError, match="dropout 0"):
        finetune(encoder, DATA["texts"], replace(QUICK, loss="simcse", dropout=0.0))
    with pytest.raises(ValueError, match="checkpoint_every"):
        finetune(encoder, PAIRS, QUICK, checkpoint=tmp_path / "c", checkpoint_every=0)
    with pytest.raises(ValueError, match="resume=True"):
        finetune(encoder, PAIRS, QUICK, resume=True)


# -------------------------------------------------------------------------------------------------- not a number


def planted(encoder, value, where=(1, 2)):
    params = copy_parameters(weights(encoder))
    params["encoder.layer.0.attention.self.query.weight"][where] = value
    return encoder.with_model(replace_parameters(encoder.model, params))


def test_a_weight_that_is_no_number_stops_the_first_step(encoder, tmp_path):
    broken = planted(encoder, np.nan)
    with pytest.raises(TrainingError) as caught:
        finetune(broken, PAIRS, QUICK, checkpoint=tmp_path / "c", checkpoint_every=1)
    assert str(caught.value).startswith("step 1 (epoch 1, batch 1): ") and not os.listdir(tmp_path)
    with pytest.raises(TrainingError, match=r"step 0, .*dev\.tsv"):
        finetune(broken, PAIRS, QUICK, dev=sts())


@pytest.mark.parametrize("what", ["loss", "gradient", "row gradient"])
def test_nothing_is_changed_by_a_batch_that_is_not_finite(what, encoder, tmp_path, monkeypatch):
    """In the fifth step, so the second of the second epoch."""
    file, good = tmp_path / "c", tmp_path / "good"
    settings = replace(QUICK, epochs=3)
    finetune(encoder, PAIRS, settings, checkpoint=good, should_stop=stop_after(4))
    whole, updates, calls = module.value_and_gradients, [], []

    def spoilt(*arguments, **options):
        step = whole(*arguments, **options)
        calls.append(arguments[1])
        if len(calls) < 5:
            return step
        if what == "loss":
            return replace(step, value=np.nan)
        name = "encoder.layer.1.output.dense.weight" if what == "gradient" else "embeddings.word_embeddings.weight"
        gradient = step.gradients[name]
        (gradient.values if isinstance(gradient, RowGradient) else gradient)[1, 1] = np.inf
        return step

    def counted(*arguments, **options):
        updates.append(True)
        return adamw(*arguments, **options)

    adamw = module.adamw
    monkeypatch.setattr(module, "adamw", counted)
    monkeypatch.setattr(module, "value_and_gradients", spoilt)
    with pytest.raises(TrainingError) as caught:
        finetune(encoder, PAIRS, settings, checkpoint=file, checkpoint_every=1)
    message = str(caught.value)
    assert message.startswith("step 5 (epoch 2, batch 2): ")
    assert {"loss": "the loss is nan", "gradient": "layer.1.output", "row gradient": "word_embed"}[what] in message
    rows = [int(i) for i in message.split("examples ")[1].split(", from 0")[0].split(", ")]
    assert [ANCHORS[i] for i in rows] == list(calls[4][0])  # the very batch
    assert len(updates) == 4 and contents(file) == contents(good)


# ------------------------------------------------------------------------------------------------------- dev sets


class Scripted:
    """A dev set whose scores are known beforehand, and that remembers the weights that it was shown."""

    name, measure, data = "scripted", "points", Progress()

    def __init__(self, *scores):
        self.scores, self.shown = scores, []

    def score(self, encoder):
        self.shown.append(copy_parameters(weights(encoder)))
        return self.scores[len(self.shown) - 1]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((1, 2, 3, 4), 9),
        ((-3, -9, -2, -5), 6),
        ((1, 4, 4, 4), 3),  # of equals the first
        ((2, 2, 2, 2), 0),
    ],
)
def test_the_best_weights_are_kept(scores, best, encoder, tmp_path):
    settings, dev = replace(QUICK, epochs=3), Scripted(*scores)
    done = finetune(encoder, PAIRS, settings, dev=dev)
    assert done.progress.dev_scores == tuple(zip((0, 3, 6, 9), scores, strict=True)) and done.best_step == best
    assert same_weights(weights(done.encoder), dev.shown[best // 3])
    assert not same_weights(dev.shown[0], dev.shown[1]) and same_weights(dev.shown[0], weights(encoder))
    for stop in (1, 4, 5, 8):  # the best outlives a stop
        first, second = Scripted(*scores), Scripted(*scores)
        finetune(encoder, PAIRS, settings, dev=first, checkpoint=tmp_path / "c", should_stop=stop_after(stop))
        second.shown = list(first.shown)
        resumed = finetune(encoder, PAIRS, settings, dev=second, checkpoint=tmp_path / "c", resume=True)
        assert outcome(resumed) == outcome(done) and same_weights(resumed.encoder, done.encoder)


def test_scores_are_taken_as_often_as_asked(encoder):
    for every, steps in ((None, [0, 3, 6]), (1, [0, 1, 2, 3, 4, 5, 6]), (4, [0, 4, 6]), (3, [0, 3, 6]), (99, [0, 6])):
        done = finetune(encoder, PAIRS, replace(QUICK, epochs=2, evaluate_every=every), dev=sts())
        assert [step for step, _ in done.progress.dev_scores] == steps


def test_a_dev_set_does_not_change_the_training(encoder):
    settings = replace(QUICK, epochs=2)
    scored, done = (finetune(encoder, PAIRS, settings, dev=dev) for dev in (Scripted(*range(3)), None))
    assert done.best_step == 6 and done.progress.dev_scores == () and same_weights(done.encoder, scored.encoder)


def test_a_file_of_scored_pairs_is_a_dev_set(encoder, tmp_path):
    file = tmp_path / "dev.tsv"
    rows = [f"{i % 4}\t{a}\t{p}\n" for i, (a, p) in enumerate(zip(ANCHORS, POSITIVES, strict=True))]
    file.write_text("score\tsentence1\tsentence2\n" + "".join(rows))
    dev = read_dev(file)
    expected = evaluate_sts(encoder, StsPairs("dev", ANCHORS, POSITIVES, np.arange(10) % 4.0)).spearman["cosine"]
    assert dev.score(encoder) == pytest.approx(expected, abs=1e-12) and dev.measure == "Spearman x 100"
    file.write_text("a\tb\tc\n" + "".join(rows))
    assert read_dev(file, ["a", "b", "c"]).score(encoder) == dev.score(encoder)


def test_a_retrieval_folder_is_a_dev_set(encoder, tmp_path):
    folder = write_set(tmp_path / "beir")
    dev = read_dev(folder)
    assert (dev.name, dev.measure) == ("beir", "nDCG@10 x 100")
    expected = 100.0 * evaluate_retrieval(encoder, read_retrieval(folder)).measures["nDCG@10"].mean()
    assert dev.score(encoder) == expected and 0.0 < expected <= 100.0
    done = finetune(encoder, PAIRS, QUICK, dev=dev)
    assert done.progress.dev_scores[0] == (0, expected) and len(done.progress.dev_scores) == 2


def test_a_dev_set_that_gives_no_score_says_so(encoder):
    flat = DevSet("flat", StsPairs("flat", ["soup"] * 3, ["the cat"] * 3, np.arange(3.0)))
    with pytest.raises(TrainingError, match=r"step 0, .*flat"):
        finetune(encoder, PAIRS, QUICK, dev=flat)
    with pytest.raises(TrainingError, match=r"step 3, .*scripted.*nan"):
        finetune(encoder, PAIRS, QUICK, dev=Scripted(1.0, np.nan))


# ----------------------------------------------------------------------------------------------- from nothing, and back


def test_an_untrained_model(encoder):
    like = replace(encoder.model, truncate_dim=3)
    model = untrained_model(like, num_hidden_layers=3, hidden_size=40, num_attention_heads=5, seed=7)
    sizes = model.config
    assert (sizes.num_hidden_layers, sizes.hidden_size) == (3, 40)
    assert (sizes.num_attention_heads, sizes.intermediate_size) == (5, 160)
    assert (sizes.vocab_size, sizes.max_position_embeddings) == (TINY.vocab_size, TINY.max_position_embeddings)
    assert model.modules == (Pooling(), Normalize()) and model.truncate_dim is None and model.width == 40
    assert model.tokenizer is like.tokenizer and model.max_seq_length == like.max_seq_length
    drawn = []
    for name, array in named_parameters(model).items():
        assert array.dtype == np.float32
        if name.endswith("bias"):
            assert not array.any(), name
        elif "LayerNorm" in name:
            assert (array == 1.0).all(), name
        else:
            assert abs(array.std() / 0.02 - 1.0) < 0.1 and abs(array.mean()) < 0.002, name
            drawn.append(array.ravel(order="K"))
            # memory as loaded weights have it
            assert array.flags.fnc == (not name.startswith("embeddings.")), name
    whole = np.concatenate(drawn)
    assert abs(whole.mean()) < 2e-4 and len(np.unique(whole)) > 0.98 * len(whole)
    first, again, other = (
        untrained_model(encoder.model, hidden_size=16, seed=seed, dtype=dtype)
        for seed, dtype in ((1, np.float32), (1, np.float32), (2, np.float64))
    )
    assert same_weights(named_parameters(first), named_parameters(again))
    assert not same_weights(named_parameters(first), named_parameters(other))
    assert {array.dtype for array in named_parameters(other).values()} == {np.dtype(np.float64)}
    for layers, width, heads in ((0, 8, 2), (1, 0, 1), (1, 8, 3)):
        with pytest.raises(ValueError, match=f"untrained_model: .*{layers} layers"):
            untrained_model(encoder.model, num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads)


def test_from_nothing_it_learns(encoder, tmp_path):
    start = encoder.with_model(
        untrained_model(encoder.model, num_hidden_layers=1, hidden_size=16, num_attention_heads=2)
    )
    done = finetune(start, DATA["triplets"], replace(QUICK, epochs=12, dropout=0.0, learning_rate=1e-2))
    assert np.mean(done.progress.losses[-6:]) < 0.5 * np.mean(done.progress.losses[:6])
    done.encoder.save(tmp_path / "small")
    loaded = SentenceEncoder(tmp_path / "small")
    assert same_weights(loaded, done.encoder)
    np.testing.assert_array_equal(loaded.encode(ANCHORS), done.encoder.encode(ANCHORS))


# -------------------------------------------------------------------------------------------------- does it pay?


def result_of(correct):
    correct = np.array(correct, bool)
    draws, texts = correct.shape
    return ClassificationResult(
        "test", "centroid", ("a", "b"), 1, 0, 8, 0, np.zeros((draws, 2), int), np.zeros(texts, int), correct,
        np.zeros(draws),
    )  # fmt: skip


def test_a_gain_by_hand():
    before = result_of([[1, 0, 0, 0], [1, 1, 0, 0]])  # 1/4 and 2/4
    after = [result_of([[1, 1, 1, 0], [1, 1, 1, 0]]), result_of([[1, 1, 0, 0], [1, 1, 1, 1]])]  # 3/4; 1/2 and 1
    found = gain(before, after)
    assert found.classifier == "centroid" and found.after == (0.75, 0.75)
    was, now = np.array([1.0, 0.5, 0.0, 0.0]), np.array([1.0, 1.0, 0.75, 0.25])  # a text, over draws and seeds
    assert found.before.mean == 0.375 and found.after_all.mean == 0.75 and found.difference.mean == 0.375
    assert found.before == bootstrap_mean(was) and found.after_all == bootstrap_mean(now)
    assert found.difference == paired_difference(now, was)
    assert gain(before, [before]).difference == (0.0, 0.0, 0.0)
    assert gain(after[0], [before]).difference.mean == -0.375  # a loss is a loss


def test_a_model_is_tuned_once_a_seed_and_scored_before_and_after(encoder):
    texts = [f"the {word} {x} {end}" for word in ("cat", "dog") for end in ".!" for x in LETTERS]
    labels = ["cat"] * 20 + ["dog"] * 20
    examples = Examples("texts", (tuple(texts),), labels=np.arange(40) // 20, label_names=("cat", "dog"))
    train, test = (LabelledTexts(name, texts[i::2], labels[i::2]) for i, name in ((0, "train"), (1, "test")))
    steps = []
    settings = replace(QUICK, seed=99)
    before, tuned = tune_with_seeds(
        encoder, examples, train, test, settings, seeds=[0, 5], classifiers=["centroid"], on_step=steps.append
    )
    assert [run.seed for run in tuned] == [0, 5] and [run.steps for run in tuned] == [10, 10] and len(steps) == 20
    assert steps[0].loss != steps[10].loss  # a seed is a run of its own
    alone = finetune(encoder, examples, replace(settings, seed=5))
    assert tuple(report.loss for report in steps[10:]) == alone.progress.losses
    for run in tuned:  # the same draws, so that the comparison is paired
        np.testing.assert_array_equal(run.results["centroid"].drawn, before["centroid"].drawn)
        assert run.seconds > 0.0


def test_no_path_is_written_into_a_checkpoint(encoder, stopped):
    """It may be sent to somebody."""
    assert str(Path.home()).encode() not in stopped.read_bytes() and b"/tmp" not in stopped.read_bytes()
