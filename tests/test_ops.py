"""Operations and poolings with NumPy alone: known values, dtypes, no argument changed, no NaN at the edges."""

import math

import numpy as np
import pytest

from minisbert.model import ops
from minisbert.model.bert import equal_length_runs, places, starts
from minisbert.model.pooling import POOLINGS, pool

DTYPES = [np.float32, np.float64]


def exact_gelu(x):
    return np.array([v * 0.5 * math.erfc(-v / math.sqrt(2.0)) for v in x.astype(np.float64).ravel()]).reshape(x.shape)


def test_gelu_is_the_exact_form():
    x = np.linspace(-14, 14, 40_001)
    np.testing.assert_allclose(ops.gelu(x), exact_gelu(x), rtol=1e-14)
    x = x.astype(np.float32)
    # measured: 2.0e-7 of max(1, |x|), of which two thirds are float32's rounding
    assert (np.abs(ops.gelu(x) - exact_gelu(x)) / np.maximum(1, np.abs(x))).max() < 2.3e-7
    # the tanh form is another function: were it taken by mistake, these tests would see it
    assert np.abs(ops.gelu_tanh(x) - exact_gelu(x)).max() > 4e-4


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 100])
def test_gelu_in_blocks_equals_gelu_at_once(rows):
    x = np.random.default_rng(0).normal(size=(rows, 7)).astype(np.float32)
    # measured 0; a processor may compute what is left over from its vectors another way
    np.testing.assert_allclose(ops.gelu(x), np.stack([ops.gelu(row) for row in x]), rtol=1e-6, atol=1e-6)
    assert ops.gelu(x[:0]).shape == (0, 7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activations_keep_their_dtype_their_argument_and_their_senses(name, dtype):
    x = np.array([[-1e30, -1e4, -90.0, -1.0, -0.0], [0.0, 1e-30, 1.0, 90.0, 1e4]], dtype)
    before = x.copy()
    y = ops.ACTIVATIONS[name][0](x)
    assert y.dtype == dtype and y.shape == x.shape
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_operations_keep_dtype_and_arguments(dtype):
    rng = np.random.default_rng(1)
    x, weight, bias = (rng.normal(size=shape).astype(dtype) for shape in ((5, 4), (3, 4), (3,)))
    scale, shift = rng.normal(size=(2, 4)).astype(dtype)
    before = [a.copy() for a in (x, weight, bias, scale, shift)]
    for y in (
        ops.linear(x, weight, bias),
        ops.linear(x, weight),
        ops.softmax(x),
        ops.layer_norm(x, scale, shift, 1e-12),
        ops.normalize(x),
    ):
        assert y.dtype == dtype
    for a, b in zip((x, weight, bias, scale, shift), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_softmax_rows_are_probabilities_and_shifts_do_not_matter():
    x = np.random.default_rng(2).normal(size=(3, 2, 4, 6)) * 50
    probs = ops.softmax(x)
    np.testing.assert_allclose(probs.sum(axis=-1), 1)
    assert (probs >= 0).all()
    np.testing.assert_allclose(ops.softmax(x + 1e3), probs, rtol=1e-9)
    np.testing.assert_array_equal(ops.softmax(np.array([[1e30, -1e30]], np.float32)), [[1.0, 0.0]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_makes_mean_0_and_variance_1(dtype):
    x = (np.random.default_rng(3).normal(size=(9, 64)) * 7 + 100).astype(dtype)
    y = ops.layer_norm(x, np.ones(64, dtype), np.zeros(64, dtype), 1e-12)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=tolerance)
    np.testing.assert_allclose(y.var(axis=-1), 1, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_of_a_constant_row_is_the_bias(dtype):
    bias = np.arange(4, dtype=dtype)
    np.testing.assert_array_equal(
        ops.layer_norm(np.full((2, 4), 8.0, dtype), np.ones(4, dtype), bias, 1e-12), [bias] * 2
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize_gives_length_1_and_leaves_zero(dtype):
    x = np.random.default_rng(4).normal(size=(5, 8)).astype(dtype)
    x[2] = 0
    lengths = np.linalg.norm(ops.normalize(x), axis=-1)
    np.testing.assert_allclose(lengths, [1, 1, 0, 1, 1], rtol=1e-6)


def test_where_texts_begin_and_run():
    lengths = np.array([4, 4, 2, 1, 1, 1, 4])
    np.testing.assert_array_equal(starts(lengths), [0, 4, 8, 10, 11, 12, 13])
    np.testing.assert_array_equal(places(lengths), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0, 0, 0, 0, 1, 2, 3])
    runs = list(equal_length_runs(lengths))
    assert [(count, length) for _, count, length in runs] == [(2, 4), (1, 2), (3, 1), (1, 4)]
    covered = np.concatenate([np.arange(rows.start, rows.stop) for rows, _, _ in runs])
    np.testing.assert_array_equal(covered, np.arange(lengths.sum()))
    assert list(equal_length_runs(np.array([], int))) == []


BY_HAND = {
    "cls": lambda text: text[0],
    "max": lambda text: text.max(axis=0),
    "mean": lambda text: text.mean(axis=0),
    "mean_sqrt_len_tokens": lambda text: text.sum(axis=0) / math.sqrt(len(text)),
    "weightedmean": lambda text: np.average(text, axis=0, weights=range(1, len(text) + 1)),
    "lasttoken": lambda text: text[-1],
}


@pytest.mark.parametrize("mode", POOLINGS)
def test_poolings_text_by_text(mode):
    lengths = np.array([5, 1, 3, 3])
    strip = np.random.default_rng(5).normal(size=(12, 4))
    texts = np.split(strip, np.cumsum(lengths)[:-1])
    np.testing.assert_allclose(pool(strip, lengths, (mode,)), [BY_HAND[mode](text) for text in texts], rtol=1e-12)
    assert pool(strip.astype(np.float32), lengths, (mode,)).dtype == np.float32
    assert pool(strip[:0], lengths[:0], (mode,)).shape == (0, 4)


def test_poolings_side_by_side_and_without_a_prompt():
    lengths = np.array([4, 2])
    strip = np.random.default_rng(6).normal(size=(6, 3))
    modes = tuple(POOLINGS)
    together = pool(strip, lengths, modes)
    np.testing.assert_array_equal(together, np.concatenate([pool(strip, lengths, (m,)) for m in modes], axis=1))
    # the second text is nothing but prompt: its last token stays
    np.testing.assert_allclose(pool(strip, lengths, ("mean",), prompt_length=3), [strip[3], strip[5]])


@pytest.mark.parametrize("lengths", [[3, 2], [7], [0, 6], [6, 0], [-1, 7]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ValueError, match="expected lengths"):
        pool(np.zeros((6, 2)), np.array(lengths))
