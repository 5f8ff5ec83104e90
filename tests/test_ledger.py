"""The agreement ledger agrees where it should, and goes red, at the right row, for every planted mistake."""

import dataclasses
import re

import numpy as np
import pytest
from running import run, told
from torch_oracle import quiet

from minisbert import SentenceEncoder
from minisbert.model import bert, ops, pooling
from minisbert.proof import ledger
from minisbert.proof.ledger import (
    Reference,
    compare,
    first_disagreement,
    format_ledger,
    made_by,
    read_recorded,
    trace_tensors,
    verdict,
)
from minisbert.proof.steps import read_steps


@pytest.fixture(scope="module")
def encoder(weights_folder):
    return SentenceEncoder(weights_folder)


@pytest.fixture(scope="module")
def recorded():
    return read_recorded()


def test_the_recorded_file_is_small_and_says_what_made_it(recorded):
    assert ledger.RECORDED.stat().st_size < 600_000 and len(recorded.tensors) == 91
    assert "torch" in recorded.origin and "sentence-transformers" in recorded.origin


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_tensor_of_the_trace_has_a_row_and_agrees(weights_folder, recorded, dtype):
    ours = trace_tensors(SentenceEncoder(weights_folder, dtype=dtype).trace(recorded.texts))
    rows = compare(ours, recorded, dtype)
    assert list(ours) == [row.name for row in rows] == list(recorded.tensors)
    assert first_disagreement(rows) is None, verdict(rows)
    assert all(tensor.dtype == dtype for name, tensor in ours.items() if name != "token_ids")


def one_text_of_all(lengths):
    return iter([(slice(0, lengths.sum()), 1, lengths.sum())])


PLANTED = [  # what takes the place of which function, and the first tensor that is wrong
    (bert, "layer_norm", lambda x, weight, bias, eps: ops.layer_norm(x, weight, bias, 1e-5), "embeddings.output"),
    (bert.math, "sqrt", lambda _: 1.0, "layers.0.attention.probs.0"),
    (bert, "equal_length_runs", one_text_of_all, "layers.0.attention.probs.0"),
    (bert, "ACTIVATIONS", {"gelu": ops.ACTIVATIONS["gelu_tanh"]}, "layers.0.feed_forward.activated"),
    (pooling, "normalize", lambda x: x, "sentence_embedding"),
]


def test_a_planted_mistake_is_found_where_it_was_planted(encoder, recorded, monkeypatch):
    for owner, name, wrong, first in PLANTED:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, wrong)
            rows = compare(trace_tensors(encoder.trace(recorded.texts)), recorded, "float32")
        assert first_disagreement(rows).name == first, name
        assert first in verdict(rows) and made_by(first) in verdict(rows)
        assert "<-- differs" in format_ledger(rows)


def test_a_nan_or_another_shape_never_agrees():
    reference = Reference(("a",), {"embeddings.word": np.zeros((2, 3))}, 1, "by hand")
    for wrong in (np.full((2, 3), np.nan), np.zeros((3, 2)), np.zeros(6)):
        (row,) = compare({"embeddings.word": wrong}, reference, "float32")
        assert not row.agrees
    with pytest.raises(ValueError, match="none of the names"):
        compare({"something": np.zeros(1)}, reference, "float32")


def test_between_its_columns_a_recording_is_filled_with_our_trace_and_its_own_stay(encoder, recorded):
    name = "layers.0.attention.query"
    changed = dataclasses.replace(recorded, tensors={**recorded.tensors, name: recorded.tensors[name] + 1})
    trace = encoder.trace(recorded.texts)
    filled, ours = ledger.whole(changed, trace).tensors[name], trace_tensors(trace)[name]
    assert np.abs(filled - ours)[:, ::13].min() > 0.99 and np.array_equal(filled[:, 1:13], ours[:, 1:13])


def test_the_command_exits_1_and_names_the_first_tensor(weights_folder, monkeypatch):
    monkeypatch.setitem(ops.ACTIVATIONS, "gelu", ops.ACTIVATIONS["gelu_tanh"])
    first = "layers.0.feed_forward.activated"
    shown = run("verify", "--model", weights_folder, code=1).stdout
    assert f"The first is {first}" in shown and len(re.findall(r"  (?:ok|<-- differs)\n", shown)) == 91
    found = told("verify", "--model", weights_folder, code=1)
    assert found["agrees"] is False and found["first_disagreement"] == first


@pytest.mark.filterwarnings("ignore")
def test_live_pytorch_agrees_on_other_texts(weights_folder, sentence_transformers):
    long = "Sentence vectors without padding. " * 40
    run("verify", "--model", weights_folder, "--against", "torch", "--dtype", "float64", "short", "", long)


@pytest.mark.filterwarnings("ignore")
def test_the_recorded_tensors_and_steps_can_be_remade(weights_folder, sentence_transformers, recorded):
    from minisbert.proof.reference import TEXTS, torch_reference, torch_steps

    quiet(threads=1)
    remade = torch_reference(weights_folder, TEXTS, "float64", 256)
    assert list(remade.tensors) == list(recorded.tensors)
    rows = compare(remade.tensors, recorded, "float64")
    assert first_disagreement(rows) is None, format_ledger(rows)
    steps, remade_steps = read_steps(), torch_steps(weights_folder)
    assert list(remade_steps.gradients) == list(steps.gradients)
    assert np.abs(remade_steps.losses - steps.losses).max() < 1e-9  # measured 1e-13 between versions
    assert steps.largest_difference(remade_steps)[1] < 1e-9
