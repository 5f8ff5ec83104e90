"""One training step up to the gradient: shards, threads, gradient caching, dropout, and weights by their names.

NumPy alone. That the gradients are right is in `test_backward.py` and `test_torch_backward.py`; here it is that they do
not depend on how the work was cut up.
"""

import math
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_dense, write_model

from minisbert import SentenceEncoder
from minisbert.model.folder import load_model
from minisbert.model.params import RowGradient
from minisbert.model.pooling import Normalize, Pooling
from minisbert.model.tokens import OverflowReport, Tokens, TruncationWarning
from minisbert.training import step as step_module
from minisbert.training.losses import multiple_negatives_ranking
from minisbert.training.step import (
    DropoutPlan,
    copy_parameters,
    make_shards,
    named_parameters,
    replace_parameters,
    value_and_gradients,
)

ANCHORS = ["the cat sat on the mat", "i love soup", "", "dog", "a b c d e f g", "the dog ran!", "soup", "un able mat"]
POSITIVES = ["a cat on a mat", "soup", "-", "the dog", "g f e d c b a", "dog, run", "i love the soup", "mat"]
COLUMNS = [ANCHORS, POSITIVES]


def contrast(vectors):
    return multiple_negatives_ranking(*vectors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    modules = (Pooling(("mean", "max")), tiny_dense(24, 9, "tanh"), Normalize())
    return write_model(tmp_path_factory.mktemp("model"), modules=modules)


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, np.float64)


def arrays(gradient):
    return (gradient.rows, gradient.values) if isinstance(gradient, RowGradient) else (gradient,)


def same_bits(a, b):
    """Whether two steps gave the same numbers, to the last bit."""
    assert a.gradients.keys() == b.gradients.keys()
    pairs = [*zip(a.embeddings, b.embeddings, strict=True)]
    for name, gradient in a.gradients.items():
        pairs += zip(arrays(gradient), arrays(b.gradients[name]), strict=True)
    return a.value == b.value and all(np.array_equal(x, y) for x, y in pairs)


def difference(a, b):
    """Largest difference of two steps' gradients, in units of the largest number of all."""
    assert a.gradients.keys() == b.gradients.keys()
    dense = [{n: g.dense() if isinstance(g, RowGradient) else g for n, g in s.gradients.items()} for s in (a, b)]
    whole = max(np.abs(g).max() for g in dense[1].values())
    return max(np.abs(g - dense[1][name]).max() for name, g in dense[0].items()) / whole


# ------------------------------------------------------------------------------------------------------- threads


def test_threads_change_nothing_but_rounding(model):
    alone = value_and_gradients(model, COLUMNS, contrast, num_threads=1)
    bound = 1.1e-14  # measured, with a shard for each text: 2.1e-15; the margin is 5
    for num_threads in (2, 40):
        shared = value_and_gradients(model, COLUMNS, contrast, num_threads=num_threads)
        assert abs(shared.value / alone.value - 1) < bound
        assert difference(shared, alone) < bound
        for a, b in zip(shared.embeddings, alone.embeddings, strict=True):
            assert np.abs(a - b).max() < bound


def test_the_same_number_of_threads_gives_the_same_bits_even_if_the_first_shard_is_the_last_to_be_done(
    model, monkeypatch
):
    """Shards are added up in their order: it is turned round by force, and the bits stay."""
    plan = DropoutPlan((7,))
    expected = value_and_gradients(model, COLUMNS, contrast, num_threads=3, dropout=plan)
    backward, done, first = step_module._backward, threading.Event(), []

    def slow_first(model, shard, *rest):
        result = backward(model, shard, *rest)
        if shard.index == 0:
            assert done.wait(timeout=60)
            first.append(shard.index)
        elif shard.index == 2:
            assert not first
            done.set()
        return result

    monkeypatch.setattr(step_module, "_backward", slow_first)
    assert same_bits(value_and_gradients(model, COLUMNS, contrast, num_threads=3, dropout=plan), expected)
    assert first == [0]


def test_what_a_step_gives(folder):
    encoder = SentenceEncoder(folder)
    params = named_parameters(encoder.model)
    before = copy_parameters(params)
    step = value_and_gradients(encoder.model, COLUMNS, contrast, num_threads=2)
    assert type(step.value) is float and list(step.gradients) == list(params)
    for name, gradient in step.gradients.items():
        assert arrays(gradient)[-1].dtype == np.float32
        np.testing.assert_array_equal(params[name], before[name])  # the model stays as it is
    used = np.unique(encoder.model.tokenizer([*ANCHORS, *POSITIVES], 16).token_ids)
    np.testing.assert_array_equal(step.gradients["embeddings.word_embeddings.weight"].rows, used)
    for column, vectors in zip(COLUMNS, step.embeddings, strict=True):
        np.testing.assert_allclose(vectors, encoder.encode(column), rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------ gradient caching


def test_caching_with_the_same_shards_gives_the_same_bits(model, monkeypatch):
    """Also with dropout: the second forward pass drops what the first one dropped."""
    monkeypatch.setattr(step_module, "SHARD_TOKENS", 20)
    for num_threads in (1, 2):
        options = {"num_threads": num_threads, "dropout": DropoutPlan((3, 5), 0.3, 0.2)}
        plain = value_and_gradients(model, COLUMNS, contrast, **options)
        assert same_bits(value_and_gradients(model, COLUMNS, contrast, cache_tokens=20, **options), plain)
        # and this would be seen: other shards, other masks
        assert difference(value_and_gradients(model, COLUMNS, contrast, cache_tokens=9, **options), plain) > 1e-3


def test_caching_holds_few_traces_and_makes_each_twice(model, monkeypatch):
    shards = len(make_shards(model.tokenizer([*ANCHORS, *POSITIVES], 16), 2, 10))
    original, made, most, lock = step_module.trace_bert, [], [0], threading.Lock()

    def counted(*arguments):
        trace = original(*arguments)
        with lock:
            made.append(weakref.ref(trace))
            most[0] = max(most[0], sum(reference() is not None for reference in made))
        return trace

    monkeypatch.setattr(step_module, "trace_bert", counted)
    value_and_gradients(model, COLUMNS, contrast, num_threads=2, cache_tokens=10)
    assert len(made) == 2 * shards >= 16
    assert most[0] <= 4  # those at work on two threads, and those of the group before that are just being let go


# ------------------------------------------------------------------------------------------------------ bad input


LONG = ["the cat sat on the mat and " * 3, "soup"]  # 3 x 10 tokens and two, the limit is 16


def test_a_text_that_is_too_long_is_cut_and_it_is_said(model):
    with pytest.warns(TruncationWarning, match="1 of 4 texts is longer than max_seq_length = 16") as caught:
        cut = value_and_gradients(model, [LONG, ["a", "b"]], contrast, num_threads=1)
    assert caught[0].filename == __file__  # the caller's line, not one of the package's
    report = OverflowReport(16, "truncate")
    again = value_and_gradients(model, [LONG, ["a", "b"]], contrast, num_threads=1, report=report)
    assert same_bits(again, cut)
    assert (report.texts, report.cut) == (4, 1) and report.lost > 0
    with pytest.raises(ValueError, match="text 0 lost"):
        value_and_gradients(model, [LONG, ["a", "b"]], contrast, report=OverflowReport(16, "error"))


# --------------------------------------------------------------------------------------------------------- shards


def packed(lengths):
    lengths = np.array(lengths, np.int64)
    ids = np.concatenate([np.full(n, 100 * i) + np.arange(n) for i, n in enumerate(lengths)])
    return Tokens(ids, lengths, np.zeros_like(lengths))


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=40),
    st.integers(1, 12),
    st.integers(1, 400),
)
def test_shards(lengths, least_count, most_tokens):
    """Each text in one shard, with its own tokens; shards about equally large; long texts first."""
    tokens = packed(lengths)
    shards = make_shards(tokens, least_count, most_tokens)
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert sorted(np.concatenate([shard.texts for shard in shards])) == list(range(len(lengths)))
    texts = tokens.split()
    for shard in shards:
        assert len(shard.texts) and (np.diff(shard.lengths) <= 0).all()
        np.testing.assert_array_equal(shard.lengths, tokens.lengths[shard.texts])
        np.testing.assert_array_equal(shard.token_ids, np.concatenate([texts[i] for i in shard.texts]))
    count = min(len(lengths), max(least_count, math.ceil(sum(lengths) / most_tokens)))
    assert len(shards) <= count
    for shard in shards:  # off by half a text at each end, at most
        assert abs(len(shard.token_ids) - sum(lengths) / count) <= max(lengths)
        if count < len(lengths):  # as many shards as the budget asks for
            assert len(shard.token_ids) <= most_tokens + max(lengths)
    if max(lengths) * count <= sum(lengths):  # no text is longer than a shard, so none takes a shard's place
        assert len(shards) == count


# ------------------------------------------------------------------------------------------------------ refusals


REFUSED = [
    ([], {}, "columns"),
    ([["a", "b"], ["a"]], {}, r"columns .*\[2, 1\]"),
    (["ab", "cd"], {}, r"columns\[0\]"),
    ([["soup"], ["mat"]], {}, "multiple_negatives_ranking"),  # what the loss refuses
    (COLUMNS, {"cache_tokens": 0}, "cache_tokens .* 0"),
    (COLUMNS, {"max_seq_length": 17}, "max_seq_length .* 17"),
]


def test_bad_arguments_and_weights_of_another_model_are_refused(model):
    for columns, options, words in REFUSED:
        with pytest.raises(ValueError, match=words):
            value_and_gradients(model, columns, contrast, **options)
    named = named_parameters(model)
    for name in ("encoder.layer.1.attention.self.key.bias", "modules.1.linear.weight"):
        with pytest.raises(ValueError, match=f"'{name}'"):
            replace_parameters(model, {key: array for key, array in named.items() if key != name})
        with pytest.raises(ValueError, match=rf"{name}' .*\(3, 5\)"):
            replace_parameters(model, {**named, name: np.zeros((3, 5))})
