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
from tiny import TEXTS, TINY, tiny_dense, write_model

from minisbert import SentenceEncoder
from minisbert.model.bert import bert_backward
from minisbert.model.folder import load_model
from minisbert.model.params import RowGradient, tensor_shapes
from minisbert.model.pooling import Normalize, Pooling
from minisbert.model.tokens import OverflowReport, Tokens, TruncationWarning
from minisbert.training import step as step_module
from minisbert.training.losses import multiple_negatives_ranking, simcse, softmax_classification
from minisbert.training.step import (
    DropoutPlan,
    copy_parameters,
    make_shards,
    named_parameters,
    replace_parameters,
    value_and_gradients,
)

DTYPES = [np.float32, np.float64]
ANCHORS = ["the cat sat on the mat", "i love soup", "", "dog", "a b c d e f g", "the dog ran!", "soup", "un able mat"]
POSITIVES = ["a cat on a mat", "soup", "-", "the dog", "g f e d c b a", "dog, run", "i love the soup", "mat"]
COLUMNS = [ANCHORS, POSITIVES]


def contrast(vectors):
    return multiple_negatives_ranking(*vectors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    modules = (Pooling(("mean", "max")), tiny_dense(24, 9, "tanh", use_residual=True), Normalize())
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


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_nothing_but_rounding(dtype, folder):
    model = load_model(folder, dtype)
    alone = value_and_gradients(model, COLUMNS, contrast, num_threads=1)
    # measured, with a shard for each text: 2.1e-15 and 1.1e-6; the margin is 5
    bound = 1.1e-14 if dtype == np.float64 else 5.5e-6
    for num_threads in (2, 5, 40):
        shared = value_and_gradients(model, COLUMNS, contrast, num_threads=num_threads)
        assert abs(shared.value / alone.value - 1) < bound
        assert difference(shared, alone) < bound
        for a, b in zip(shared.embeddings, alone.embeddings, strict=True):
            assert np.abs(a - b).max() < bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_the_same_number_of_threads_gives_the_same_bits(num_threads, dtype, folder):
    """However the threads were scheduled: shards are added up in their order."""
    model, plan = load_model(folder, dtype), DropoutPlan((7,))
    steps = [value_and_gradients(model, COLUMNS, contrast, num_threads=num_threads, dropout=plan) for _ in range(6)]
    assert all(same_bits(again, steps[0]) for again in steps[1:])


def test_shards_are_added_in_order_even_if_the_first_is_the_last_to_be_done(model, monkeypatch):
    """The order is turned round by force; the bits stay."""
    expected = value_and_gradients(model, COLUMNS, contrast, num_threads=3)
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
    assert same_bits(value_and_gradients(model, COLUMNS, contrast, num_threads=3), expected)
    assert first == [0]


def test_dtype_shapes_and_names(folder):
    for dtype in DTYPES:
        model = load_model(folder, dtype)
        for num_threads in (1, 3):
            step = value_and_gradients(model, COLUMNS, contrast, num_threads=num_threads)
            params = named_parameters(model)
            assert type(step.value) is float and list(step.gradients) == list(params)
            for name, gradient in step.gradients.items():
                assert arrays(gradient)[-1].dtype == dtype
                dense = gradient.dense() if isinstance(gradient, RowGradient) else gradient
                assert dense.shape == params[name].shape
            assert [v.shape for v in step.embeddings] == [(8, 9)] * 2
            assert all(v.dtype == dtype for v in step.embeddings)
            words = step.gradients["embeddings.word_embeddings.weight"]
            used = np.unique(model.tokenizer([*ANCHORS, *POSITIVES], 16).token_ids)
            np.testing.assert_array_equal(words.rows, used)


def test_vectors_are_those_of_encode(folder):
    encoder = SentenceEncoder(folder, dtype="float64")
    step = value_and_gradients(encoder.model, COLUMNS, contrast, num_threads=2)
    for column, vectors in zip(COLUMNS, step.embeddings, strict=True):
        np.testing.assert_allclose(vectors, encoder.encode(column), rtol=0, atol=1e-14)


def test_the_model_stays_as_it_is(model):
    before = copy_parameters(named_parameters(model))
    value_and_gradients(model, COLUMNS, contrast, num_threads=2, dropout=DropoutPlan((0,)), cache_tokens=20)
    for name, array in named_parameters(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_steps_share_no_memory(model):
    first, second = (value_and_gradients(model, COLUMNS, contrast, num_threads=2) for _ in range(2))
    params = named_parameters(model)
    for name, gradient in first.gradients.items():
        mine = arrays(gradient)[-1]
        assert not np.shares_memory(mine, arrays(second.gradients[name])[-1])
        assert not np.shares_memory(mine, params[name])


def test_three_columns_and_a_loss_with_weights_of_its_own(model):
    rng = np.random.default_rng(0)
    head = rng.normal(size=(3, 27)), rng.normal(size=3)
    step = value_and_gradients(
        model, COLUMNS, lambda v: softmax_classification(*v, [0, 1, 2, 0, 1, 2, 0, 1], *head), num_threads=2
    )
    assert list(step.gradients)[-2:] == ["head.weight", "head.bias"]
    assert step.gradients["head.weight"].shape == (3, 27)
    hard = value_and_gradients(model, [*COLUMNS, ANCHORS[::-1]], contrast)
    assert len(hard.embeddings) == 3 and hard.value > value_and_gradients(model, COLUMNS, contrast).value


# ------------------------------------------------------------------------------------------------ gradient caching

DROPPED = [None, DropoutPlan((3, 5), 0.3, 0.2)]


@pytest.mark.parametrize("cache_tokens", [1, 7, 20, 1000])
def test_caching_changes_nothing_but_rounding(cache_tokens, model):
    plain = value_and_gradients(model, COLUMNS, contrast, num_threads=2)
    cached = value_and_gradients(model, COLUMNS, contrast, num_threads=2, cache_tokens=cache_tokens)
    assert abs(cached.value / plain.value - 1) < 1.1e-14
    assert difference(cached, plain) < 1.1e-14  # measured: 2.1e-15; the margin is 5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("plan", DROPPED, ids=["no_dropout", "dropout"])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_caching_with_the_same_shards_gives_the_same_bits(num_threads, plan, dtype, folder, monkeypatch):
    """Also with dropout: the second forward pass drops what the first one dropped."""
    model = load_model(folder, dtype)
    monkeypatch.setattr(step_module, "SHARD_TOKENS", 20)
    options = {"num_threads": num_threads, "dropout": plan}
    plain = value_and_gradients(model, COLUMNS, contrast, **options)
    assert same_bits(value_and_gradients(model, COLUMNS, contrast, cache_tokens=20, **options), plain)
    # and this would be seen: other shards, other masks
    if plan:
        assert difference(value_and_gradients(model, COLUMNS, contrast, cache_tokens=9, **options), plain) > 1e-3


def count_traces(monkeypatch):
    """How many traces were made, and how many lived at the same time at most."""
    found, original, made, lock = {"made": 0, "alive": 0}, step_module.trace_bert, [], threading.Lock()

    def counted(*arguments):
        trace = original(*arguments)
        with lock:
            made.append(weakref.ref(trace))
            found["made"] += 1
            found["alive"] = max(found["alive"], sum(reference() is not None for reference in made))
        return trace

    monkeypatch.setattr(step_module, "trace_bert", counted)
    return found


@pytest.mark.parametrize("num_threads", [1, 2])
def test_caching_holds_few_traces_and_makes_each_twice(num_threads, model, monkeypatch):
    shards = len(make_shards(model.tokenizer([*ANCHORS, *POSITIVES], 16), num_threads, 10))
    assert shards >= 8
    found = count_traces(monkeypatch)
    value_and_gradients(model, COLUMNS, contrast, num_threads=num_threads, cache_tokens=10)
    assert found["made"] == 2 * shards
    # those at work, and those of the group before that are just being let go
    assert found["alive"] <= 2 * num_threads
    monkeypatch.setattr(step_module, "SHARD_TOKENS", 10)
    found.update(made=0, alive=0)
    value_and_gradients(model, COLUMNS, contrast, num_threads=num_threads)
    assert found == {"made": shards, "alive": shards}


@pytest.mark.parametrize("cache_tokens", [None, 10])
def test_the_loss_is_asked_once_and_sees_all_texts(cache_tokens, model):
    seen = []

    def loss(vectors):
        seen.append([v.shape for v in vectors])
        return contrast(vectors)

    value_and_gradients(model, COLUMNS, loss, num_threads=2, cache_tokens=cache_tokens)
    assert seen == [[(8, 9), (8, 9)]]


# -------------------------------------------------------------------------------------------------------- dropout


def test_two_views_of_a_text_differ_by_dropout_alone(model):
    def views(plan, num_threads=2):
        return value_and_gradients(
            model, [ANCHORS, ANCHORS], lambda v: simcse(*v), num_threads=num_threads, dropout=plan
        ).embeddings

    first, second = views(None)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-14)
    first, second = views(DropoutPlan((1,)))
    assert (np.abs(first - second).max(axis=1) > 1e-3).all()
    for a, b in zip(views(DropoutPlan((1,))), (first, second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(views(DropoutPlan((2,)))[0] - first).max() > 1e-3


def test_shards_draw_from_generators_of_their_own():
    plan = DropoutPlan((4, 2), 0.3, 0.25)
    drawn = {i: plan.for_shard(i).rng.random(5) for i in range(4)}
    for i in range(4):
        np.testing.assert_array_equal(plan.for_shard(i).rng.random(5), drawn[i])
        assert all((drawn[i] != drawn[j]).all() for j in range(i))
        assert (DropoutPlan((4, 3)).for_shard(i).rng.random(5) != drawn[i]).all()
    assert (plan.for_shard(0).hidden, plan.for_shard(0).attention) == (0.3, 0.25)


def test_dropout_of_rate_zero_changes_no_bit(model):
    plain = value_and_gradients(model, COLUMNS, contrast, num_threads=2)
    dropped = value_and_gradients(model, COLUMNS, contrast, num_threads=2, dropout=DropoutPlan((1,), 0.0, 0.0))
    assert same_bits(dropped, plain)


# ------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("columns", [[], [[]], [[], []], [["soup"], []], [["a", "b"], ["a"]], [["a"], ["b"], []]])
def test_columns_that_do_not_fit_are_refused(columns, model):
    with pytest.raises(ValueError, match="value_and_gradients: expected columns of equally many texts, at least one"):
        value_and_gradients(model, columns, contrast)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_what_the_loss_refuses_is_refused(num_threads, model):
    with pytest.raises(ValueError, match="multiple_negatives_ranking: a batch must have B >= 2"):
        value_and_gradients(model, [["soup"], ["mat"]], contrast, num_threads=num_threads)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_an_error_in_a_thread_comes_out(num_threads, model, monkeypatch):
    def broken(*arguments):
        raise MemoryError("no room")

    monkeypatch.setattr(step_module, "bert_backward", broken)
    with pytest.raises(MemoryError, match="no room"):
        value_and_gradients(model, COLUMNS, contrast, num_threads=num_threads)
    monkeypatch.setattr(step_module, "bert_backward", bert_backward)
    value_and_gradients(model, COLUMNS, contrast, num_threads=num_threads)


LONG = ["the cat sat on the mat and " * 3, "soup"]  # 3 x 10 tokens and two, the limit is 16


def test_a_text_that_is_too_long_is_cut_and_it_is_said(model):
    with pytest.warns(TruncationWarning, match="1 of 4 texts is longer than max_seq_length = 16") as caught:
        cut = value_and_gradients(model, [LONG, ["a", "b"]], contrast, num_threads=1)
    assert caught[0].filename == __file__  # the caller's line, not one of the package's
    ids = model.tokenizer(LONG[:1], 16).token_ids
    report = OverflowReport(16, "truncate")
    again = value_and_gradients(model, [LONG, ["a", "b"]], contrast, num_threads=1, report=report)
    assert same_bits(again, cut)
    assert len(ids) == 16 and (report.texts, report.cut) == (4, 1) and report.lost > 0
    with pytest.raises(ValueError, match="text 0 lost"):
        value_and_gradients(model, [LONG, ["a", "b"]], contrast, report=OverflowReport(16, "error"))


def test_a_report_counts_over_batches_and_warns_at_its_owners_word(model):
    report = OverflowReport(16, "warn")
    for _ in range(3):
        value_and_gradients(model, [LONG, ["a", "b"]], contrast, report=report)
    assert (report.texts, report.cut) == (12, 3)
    with pytest.warns(TruncationWarning, match="3 of 12"):
        report.warn()


def test_a_smaller_limit(model):
    columns = [["the cat sat", "soup"], ["the cat", "dog"]]
    cut = value_and_gradients(
        model, columns, contrast, max_seq_length=4, num_threads=1, report=OverflowReport(4, "truncate")
    )
    short = value_and_gradients(model, [["the cat", "soup"], ["the cat", "dog"]], contrast, num_threads=1)
    assert same_bits(cut, short)


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


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 100))
def test_shards_depend_on_nothing_else(lengths, least_count, most_tokens):
    first, second = (make_shards(packed(lengths), least_count, most_tokens) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.texts, b.texts)


# --------------------------------------------------------------------------------------------------------- names


def test_parameters_go_out_and_come_back(folder):
    for dtype in DTYPES:
        encoder = SentenceEncoder(folder, dtype=np.dtype(dtype).name)
        model = encoder.model
        named = named_parameters(model)
        assert list(named)[: len(tensor_shapes(TINY))] == list(tensor_shapes(TINY))
        assert list(named)[len(tensor_shapes(TINY)) :] == [
            f"modules.1.{ending}" for ending in ("linear.weight", "linear.bias", "residual.weight")
        ]
        assert named["encoder.layer.1.output.dense.weight"] is model.params.layers[1].feed_forward.contract.weight
        copies = copy_parameters(named)
        back = replace_parameters(model, copies)
        assert all(array is copies[name] for name, array in named_parameters(back).items())
        np.testing.assert_array_equal(encoder.with_model(back).encode(TEXTS), encoder.encode(TEXTS))
        for field in ("config", "tokenizer", "max_seq_length", "prompts"):
            assert getattr(back, field) is getattr(model, field)


def test_each_name_is_the_tensor_that_it_says(model):
    """Every tensor by itself: another one in its place moves the vectors, and back again restores them."""
    step = value_and_gradients(model, COLUMNS, contrast, num_threads=1)
    named = named_parameters(model)
    for name, array in named.items():
        # no constant: a LayerNorm would take it away again
        other = array + np.random.default_rng(0).normal(0.0, 0.1, array.shape)
        changed = replace_parameters(model, {**named, name: other})
        assert named_parameters(changed)[name] is other
        assert all(same is named[key] for key, same in named_parameters(changed).items() if key != name)
        moved = value_and_gradients(changed, COLUMNS, contrast, num_threads=1)
        if not name.endswith("key.bias"):  # it moves all scores of a row alike
            assert np.abs(moved.embeddings[0] - step.embeddings[0]).max() > 1e-6, name
    assert same_bits(value_and_gradients(model, COLUMNS, contrast, num_threads=1), step)


def test_copies_keep_their_order_in_memory_and_are_ours_to_change(model):
    named = named_parameters(model)
    copied = copy_parameters(named)
    for name, array in copied.items():
        assert not np.shares_memory(array, named[name])
        assert array.flags.writeable and array.strides == named[name].strides
    assert copied["encoder.layer.0.output.dense.weight"].flags.f_contiguous
    assert copied["embeddings.word_embeddings.weight"].flags.c_contiguous


@pytest.mark.parametrize(
    "name", ["embeddings.word_embeddings.weight", "encoder.layer.1.attention.self.key.bias", "modules.1.linear.weight"]
)
def test_weights_of_another_model_are_refused(name, model):
    named = named_parameters(model)
    with pytest.raises(ValueError, match=f"replace_parameters: '{name}' is missing; are these the weights of another"):
        replace_parameters(model, {key: array for key, array in named.items() if key != name})
    with pytest.raises(ValueError, match=rf"replace_parameters: expected {name} of shape \(.*\), got \(3, 5\)"):
        replace_parameters(model, {**named, name: np.zeros((3, 5))})


def test_a_residual_that_is_missing_is_refused(model):
    named = named_parameters(model)
    del named["modules.1.residual.weight"]
    with pytest.raises(ValueError, match=r"'modules\.1\.residual\.weight' is missing"):
        replace_parameters(model, named)


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        (["ab", "cd"], {}, "got a single text"),
        ("ab", {}, "got a single text"),
        ([["a", 3], ["b", "c"]], {}, "expected a text"),
        ([["a", "b"], ["c", "d"]], {"num_threads": -1}, "num_threads must be at least 1, got -1"),
        ([["a", "b"], ["c", "d"]], {"cache_tokens": 0}, "cache_tokens must be at least 1, got 0"),
        ([["a", "b"], ["c", "d"]], {"max_seq_length": 2}, "from 3 to 16, got 2"),
        ([["a", "b"], ["c", "d"]], {"max_seq_length": 17}, "from 3 to 16, got 17"),
    ],
)
def test_bad_arguments_are_refused(columns, options, words, tmp_path):
    model = load_model(write_model(tmp_path / "model"), np.float64)
    with pytest.raises(ValueError, match=words):
        value_and_gradients(model, columns, lambda vectors: multiple_negatives_ranking(*vectors), **options)
