"""What the notebooks lean on: checks that must fail, outputs that are stale, recorded steps of training."""

import numpy as np
import pytest

from minisbert import SentenceEncoder
from minisbert.course.checking import data_file, it_fails
from minisbert.course.run import differences, same_text
from minisbert.proof.steps import our_steps, read_steps, sample


def test_a_check_that_must_fail(capsys):
    with it_fails("a wrong sum"):
        assert False, "one line\nanother"  # noqa: B011
    assert capsys.readouterr().out == "a wrong sum: the check fails, as it should: one line\n"
    with pytest.raises(AssertionError, match="the check should fail"), it_fails("nothing"):
        pass
    with pytest.raises(ZeroDivisionError), it_fails("a crash is no failed check"):
        1 / 0  # noqa: B018


def test_data_is_found_where_it_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("MINISBERT_DATA", str(tmp_path))
    assert data_file("x.tsv") is None
    (tmp_path / "x.tsv").touch()
    assert data_file("x.tsv") == tmp_path / "x.tsv"


# ----------------------------------------------------------------------------------------------- stale outputs


TEXTS = [
    ("max |error| 1.2e-07", "max |error| 9.0e-07", True),
    ("max |error| 1.2e-07", "max |error| 1.2e-05", False),
    ("82.03 of 100", "82.04 of 100", True),
    ("82.03 of 100", "82.33 of 100", False),
    ("82.03 of 100", "82.03 of 101", False),
    ("the error is 0.1", "the mistake is 0.1", False),
    ("−0.25", "0.25", False),
    ("1,234.5 texts", "1,234.6 texts", True),
    ("[CLS] 101", "[CLS] 102", False),
    ("torch 2.13.0", "torch 2.13.1", False),
    ("a   b", "a b", True),
]


def test_what_may_differ_between_processors():
    for a, b, same in TEXTS:
        assert same_text(a, b) is same, (a, b)


def cell(*outputs, tags=()):
    return {"cell_type": "code", "source": "", "metadata": {"tags": list(tags)}, "outputs": list(outputs)}


def printed(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def test_stale_outputs_are_found():
    stored = {"cells": [cell(printed("a 1\nb 2\n")), cell(printed("3.2 s"), tags=["varies"]), cell(printed("x"))]}
    assert differences(stored, stored) == []
    fresh = {"cells": [cell(printed("a 1\nb 3\n")), cell(printed("9.9 s"), tags=["varies"]), cell()]}
    assert differences(stored, fresh) == [
        "cell 1: 'b 2' is stored, 'b 3' comes out now",
        "cell 3: 1 outputs are stored, 0 come out now",
    ]


# ----------------------------------------------------------------------------------------------- recorded steps


def test_our_training_steps_are_the_recorded_ones(weights_folder):
    recorded, ours = read_steps(), our_steps(SentenceEncoder(weights_folder, dtype="float64").model, steps=2)
    # measured 2e-16 and 1.4e-15, on the machine that made the record; ten thousand times as much for other kernels
    assert np.abs(ours.losses - recorded.losses[:2]).max() < 1e-11
    assert np.abs(ours.norms / recorded.norms[:2] - 1).max() < 1e-11
    assert recorded.largest_difference(ours)[1] < 1e-11
    assert list(ours.gradients) == list(recorded.gradients)


def test_a_wrong_gradient_is_named(weights_folder):
    recorded = read_steps()
    name = "encoder.layer.3.attention.self.key.weight"
    wrong = {**recorded.gradients, name: 1.01 * recorded.gradients[name]}
    ours = type(recorded)(recorded.losses, recorded.norms, wrong, recorded.lengths, "ours")
    assert recorded.largest_difference(ours)[0] == name


def test_a_sample_is_the_same_in_either_order_of_memory():
    x = np.random.default_rng(0).standard_normal((30, 40))
    np.testing.assert_array_equal(sample(x), sample(np.asfortranarray(x)))
