"""BERT's backward as a whole, with NumPy alone: finite differences over several architectures, texts and dropouts.

That every line of it is right is in `test_mutants.py`, which breaks each of them; that it is PyTorch's, in
`test_torch_backward.py`. Upstream gradients are drawn at random: with all ones, the gradients of a softmax and of a
LayerNorm are zero, so that a backward that gives back zeros passes.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from tiny import TINY, leaves, with_leaves

from minisbert.model import ops
from minisbert.model.bert import Dropout, bert_backward, layer, layer_backward, trace_bert
from minisbert.model.params import RowGradient, add_gradients, flatten, random_params
from minisbert.training.gradcheck import check_gradients

pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 1e-7  # of a relative error; 3.8e-9 was measured at most
CONFIG = replace(TINY, vocab_size=17, num_hidden_layers=2, max_position_embeddings=7)
# runs of equal lengths, neighbours that differ, one-token texts; pieces that stand twice, in one text and in two
LENGTHS = np.array([4, 1, 1, 3, 3, 2])


def rng(seed=0):
    return np.random.default_rng(seed)


IDS = rng(21).integers(1, 12, 14)
UPSTREAM = rng(23).normal(size=(14, 12))


@pytest.mark.parametrize(
    "changes", [{"hidden_act": "relu", "num_attention_heads": 4}, {"layer_norm_eps": 1e-2}], ids=str
)
def test_bert(changes):
    config = replace(CONFIG, **changes)
    params = random_params(config, rng(30), scale=0.4)

    def forward(params):
        # made anew at each forward, so that it drops the same
        return trace_bert(IDS, LENGTHS, params, config, Dropout(rng(24), 0.3, 0.4))

    def loss(named):
        return float(np.vdot(UPSTREAM, forward(with_leaves(params, iter(named.values()))).output))

    gradients = leaves(bert_backward(UPSTREAM, forward(params), IDS, LENGTHS, params, config))
    report = check_gradients(loss, leaves(params), gradients, rng=rng(), directions=1)
    assert report.ok and report.worst.error <= BOUND, str(report)


def batch(dtype=np.float64, dropout=None):
    """Parameters, trace and all gradients of one batch."""
    params = random_params(CONFIG, rng(31), dtype, scale=0.4)
    trace = trace_bert(IDS, LENGTHS, params, CONFIG, dropout)
    return params, trace, bert_backward(UPSTREAM.astype(dtype), trace, IDS, LENGTHS, params, CONFIG)


def numbers(gradient):
    return gradient.values if isinstance(gradient, RowGradient) else gradient


def test_gradients_have_dtype_shape_and_memory_order_of_the_parameters():
    params, trace, gradients = batch(np.float32, Dropout(rng(0)))
    named = leaves(params)
    for name, gradient in leaves(gradients).items():
        values = gradient.dense() if isinstance(gradient, RowGradient) else gradient
        assert values.dtype == np.float32 and values.shape == named[name].shape, name
        if name.startswith("layers") and values.ndim == 2:
            assert values.flags.f_contiguous, name  # as load_params lays the weights
    assert {tensor.dtype for tensor in leaves(trace).values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(gradients.embeddings.word.rows, np.unique(IDS))


def test_the_gradient_of_a_batch_is_the_sum_of_its_texts():
    """No text sees another: what the strip gives back is what its texts give back alone."""
    params, _, together = batch()
    alone = None
    bounds = LENGTHS.cumsum()[:-1]
    for ids, upstream in zip(np.split(IDS, bounds), np.split(UPSTREAM, bounds), strict=True):
        length = np.array([len(ids)])
        trace = trace_bert(ids, length, params, CONFIG)
        gradients = leaves(bert_backward(upstream, trace, ids, length, params, CONFIG))
        alone = gradients if alone is None else {name: add_gradients(alone[name], g) for name, g in gradients.items()}
    whole = max(np.abs(numbers(gradient)).max() for gradient in alone.values())
    for name, gradient in leaves(together).items():
        # measured: 6.4e-16 of the largest number of all; the margin is 15
        assert np.abs(numbers(gradient) - numbers(alone[name])).max() <= 1e-14 * whole, name
    with pytest.raises(TypeError, match="RowGradient"):
        add_gradients(together.embeddings.word, together.embeddings.word.dense())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_finite_where_hidden_states_are_extreme(dtype):
    params = random_params(CONFIG, rng(31), dtype, scale=0.4).layers[0]
    for scale in (1e4, -1e4, 0.0, 1e-310 if dtype == np.float64 else 1e-40):
        hidden = (np.sign(UPSTREAM) * scale).astype(dtype)
        hidden[::2] = dtype(scale)  # every other row is constant
        trace = layer(hidden, LENGTHS, params, CONFIG)
        d_hidden, gradients = layer_backward(UPSTREAM.astype(dtype), trace, hidden, LENGTHS, params, CONFIG)
        assert all(np.isfinite(a).all() for a in (d_hidden, *flatten(gradients)))
        assert d_hidden.any()


# ------------------------------------------------------------------------------------------------------ dropout


def test_a_mask_holds_zeros_and_one_over_what_is_kept():
    for rate, dtype in ((0.0, np.float32), (0.1, np.float32), (0.5, np.float64), (0.9, np.float64)):
        mask = ops.dropout_mask((300, 400), rate, rng(), dtype)
        assert mask.dtype == dtype and mask.shape == (300, 400)
        kept = np.asarray(1.0 / (1.0 - rate), dtype)
        np.testing.assert_array_equal(np.unique(mask), [kept] if rate == 0 else [0, kept])
        # its mean is 1: a number has variance rate / (1 - rate); 5 standard errors are passed by 1 seed in 2 million
        assert abs(mask.mean(dtype=np.float64) - 1.0) <= 5 * math.sqrt(rate / (1 - rate) / mask.size) + 1e-7
        # and so is that of each row and column: nothing is dropped in stripes. 700 of them: 6 standard errors
        for axis, count in ((0, 300), (1, 400)):
            bound = 6 * math.sqrt(rate / (1 - rate) / count) + 1e-6
            assert np.abs(mask.mean(axis=axis, dtype=np.float64) - 1.0).max() <= bound


def test_each_place_has_a_mask_of_its_own_and_of_its_rate():
    _, trace, _ = batch(dropout=Dropout(rng(5), hidden=0.25, attention=0.5))
    masks = {name: mask for name, mask in leaves(trace).items() if "mask" in name}
    assert len(masks) == 1 + 2 * (2 + 4)  # of each layer: two, and one for each run of equal lengths
    for name, mask in masks.items():
        assert set(np.unique(mask)) <= ({0.0, 2.0} if "probs_masks" in name else {0.0, 4.0 / 3.0}), name
    hidden = [mask.tobytes() for name, mask in masks.items() if "probs_masks" not in name]
    assert len(set(hidden)) == len(hidden) == 5
