"""Every backward pass against finite differences, with NumPy alone: operations, poolings, modules, blocks, the whole.

The upstream gradient is always drawn at random: with all ones, the gradients of a softmax and of a LayerNorm are zero,
so that a backward that gives back zeros passes. `test_an_upstream_gradient_of_ones_shows_nothing` holds on to that.
The bound is a relative error of 1e-7; 3.8e-9 was
measured at most. Whatever has settings is checked with several, each
tensor by itself. The same against PyTorch is in `test_torch_backward.py`.
"""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from tiny import TINY, tiny_dense, write_model

from minisbert import SentenceEncoder
from minisbert.model import ops
from minisbert.model.bert import (
    Dropout,
    attention,
    attention_backward,
    bert,
    bert_backward,
    embed,
    embed_backward,
    feed_forward,
    feed_forward_backward,
    layer,
    layer_backward,
    trace_bert,
)
from minisbert.model.folder import load_model
from minisbert.model.params import RowGradient, add_gradients, flatten, random_params, sum_rows, tensor_shapes
from minisbert.model.pooling import (
    POOLINGS,
    Dense,
    Normalize,
    Pooling,
    apply_modules,
    dense,
    dense_backward,
    modules_backward,
    pool,
    pool_backward,
)
from minisbert.training.gradcheck import check_backward, check_gradients
from minisbert.training.losses import LOSSES
from minisbert.training.step import DropoutPlan, named_parameters, replace_parameters, value_and_gradients

DTYPES = [np.float32, np.float64]
BOUND = 1e-7


def rng(seed=0):
    return np.random.default_rng(seed)


def passes(report):
    assert report.ok, str(report)
    assert report.worst.error <= BOUND


def relative(a, b):
    """Largest |difference| in units of the largest |b|."""
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)


# --------------------------------------------------------------------------------------------------- operations

# name -> forward and backward, both of the same arguments, and the arguments
OPERATIONS = {
    "linear": (
        ops.linear,
        lambda d_y, x, weight, bias: ops.linear_backward(d_y, x, weight),
        lambda draw: {"x": draw(5, 4), "weight": draw(3, 4), "bias": draw(3)},
    ),
    "linear, one row": (
        ops.linear,
        lambda d_y, x, weight, bias: ops.linear_backward(d_y, x, weight),
        lambda draw: {"x": draw(1, 4), "weight": np.asfortranarray(draw(6, 4)), "bias": draw(6)},
    ),
    "softmax": (
        ops.softmax,
        lambda d_y, x: ops.softmax_backward(d_y, ops.softmax(x)),
        lambda draw: {"x": 2.0 * draw(3, 2, 4, 5)},
    ),
    "softmax, sharp": (
        ops.softmax,
        lambda d_y, x: ops.softmax_backward(d_y, ops.softmax(x)),
        lambda draw: {"x": 8.0 * draw(6, 7)},
    ),
    "layer_norm": (
        ops.layer_norm,
        lambda d_y, x, weight, bias, eps: ops.layer_norm_backward(d_y, x, weight, eps),
        lambda draw: {"x": 3.0 + draw(6, 5), "weight": draw(5), "bias": draw(5), "eps": 1e-12},
    ),
    "layer_norm, an eps that matters": (
        ops.layer_norm,
        lambda d_y, x, weight, bias, eps: ops.layer_norm_backward(d_y, x, weight, eps),
        lambda draw: {"x": draw(6, 5), "weight": draw(5), "bias": draw(5), "eps": 0.7},
    ),
    "normalize": (ops.normalize, ops.normalize_backward, lambda draw: {"x": draw(6, 5)}),
    "normalize, three axes": (ops.normalize, ops.normalize_backward, lambda draw: {"x": draw(2, 3, 5)}),
    # a row shorter than eps is divided by eps: a constant, through which no gradient goes back
    "normalize, long and short rows": (
        lambda x: ops.normalize(x, 1.5),
        lambda d_y, x: ops.normalize_backward(d_y, x, 1.5),
        lambda draw: {"x": np.concatenate([3.0 + draw(3, 5), 0.1 * draw(3, 5)])},
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name, seed):
    forward, backward, arguments = OPERATIONS[name]
    generator = rng(seed)
    passes(check_backward(forward, backward, arguments(lambda *shape: generator.normal(size=shape)), rng=generator))


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activation(name):
    # evenly spaced, so that no number is so close to relu's kink at 0 that a step crosses it
    x = np.linspace(-5.9, 6.0, 60).reshape(12, 5)
    passes(check_backward(*ops.ACTIVATIONS[name], {"x": x}, rng=rng(), directions=5))


def test_relu_counts_its_kink_as_zero():
    np.testing.assert_array_equal(ops.relu_backward(np.array([7.0, 7.0]), np.array([0.0, -0.0])), [0.0, 0.0])


def arguments_of_all(dtype, extreme=False):
    """Each backward of ops.py -> its arguments, d_y first; ``extreme``: the numbers that break implementations."""
    x = rng(1).normal(0.0, 2.0, (12, 6))
    if extreme:
        x[0], x[1], x[2], x[3] = 1e4, -1e4, 0.0, -0.0  # constant rows, all of them
        x[4] = rng(2).choice([-1e4, 1e4], 6)
        x[5] = rng(3).normal(size=6) * (1e-310 if dtype == np.float64 else 1e-40)  # denormal
        x[6, ::2] = 1e4
        x[7] = [1e4, -1e4, 1e-30, -1e-30, 90.0, -90.0]
    x = x.astype(dtype)
    d_y, weight, scale = (rng(i).normal(size=shape).astype(dtype) for i, shape in ((4, x.shape), (5, (6, 6)), (6, 6)))
    found = {f"{name}_backward": (f, (d_y, x)) for name, (_, f) in ops.ACTIVATIONS.items()}
    found |= {
        "linear_backward": (ops.linear_backward, (d_y, x, weight)),
        "softmax_backward": (ops.softmax_backward, (d_y, ops.softmax(x))),
        "layer_norm_backward": (lambda *a: ops.layer_norm_backward(*a, 1e-12), (d_y, x, scale)),
        "normalize_backward": (ops.normalize_backward, (d_y, x)),
    }
    return found


BACKWARDS = list(arguments_of_all(np.float64))


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("extreme", [False, True], ids=["ordinary", "extreme"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BACKWARDS)
def test_dtype_shape_and_arguments_stay_and_numbers_are_finite(name, dtype, extreme):
    backward, arguments = arguments_of_all(dtype, extreme)[name]
    before = [a.copy() for a in arguments]
    gradients = as_tuple(backward(*arguments))
    for gradient, argument in zip(gradients, arguments[1:], strict=False):
        assert gradient.shape == argument.shape
    assert all(gradient.dtype == dtype and np.isfinite(gradient).all() for gradient in gradients)
    for argument, old in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(argument, old)


@pytest.mark.parametrize("name", BACKWARDS)
def test_float32_agrees_with_float64(name):
    backward, arguments = arguments_of_all(np.float32)[name]
    ours = as_tuple(backward(*arguments))
    exact = as_tuple(backward(*(a.astype(np.float64) for a in arguments)))
    # measured: 1.4e-7 at most (layer_norm's); float32 rounds to 6e-8. The margin is 3
    assert max(relative(a, b) for a, b in zip(ours, exact, strict=True)) < 4.2e-7


def test_linear_backward_gives_weights_gradients_as_weights_lie_in_memory():
    d_y, x, weight = rng(0).normal(size=(5, 3)), rng(1).normal(size=(5, 4)), rng(2).normal(size=(3, 4))
    _, d_weight, _ = ops.linear_backward(d_y, x, np.asfortranarray(weight))
    assert d_weight.flags.f_contiguous
    np.testing.assert_allclose(d_weight, d_y.T @ x, rtol=1e-13)


def exact_gelu_slope(x):
    x = x.astype(np.float64)
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2.0)) for v in x])
    return cdf + x * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def test_gelu_backward_over_the_whole_line():
    x = np.linspace(-14.0, 14.0, 560_001).astype(np.float32)
    error = np.abs(ops.gelu_backward(np.ones_like(x), x) - exact_gelu_slope(x))
    assert error.max() <= 6e-7  # what the docstring says
    assert error.max() <= 2.9e-7  # measured: 2.23e-7, at 1.18; the margin is 1.3
    assert error[x < -6].max() <= 3e-9  # measured: 9.6e-10
    double = np.linspace(-14.0, 14.0, 20_001)
    assert np.abs(ops.gelu_backward(np.ones_like(double), double) - exact_gelu_slope(double)).max() <= 1e-15
    # the tanh form has another slope: taken by mistake, it would be seen
    assert np.abs(ops.gelu_tanh_backward(np.ones_like(double), double) - exact_gelu_slope(double)).max() > 1e-4


@pytest.mark.parametrize("shape", [(), (1,), (33,), (2, 3, 5), (0, 4), (5000, 7)], ids=str)
def test_gelu_backward_takes_any_shape_and_memory_order(shape):
    x, d_y = (rng(i).normal(size=shape).astype(np.float32) for i in (0, 1))
    ours = ops.gelu_backward(d_y, x)
    assert ours.shape == shape and ours.dtype == np.float32
    exact = ops.gelu_backward(d_y.astype(np.float64), x.astype(np.float64))
    assert np.abs(ours - exact).max(initial=0.0) <= 6e-7 * max(1.0, np.abs(d_y).max(initial=0.0))
    columns = ops.gelu_backward(np.asfortranarray(d_y), np.asfortranarray(x))
    np.testing.assert_allclose(columns, ours, rtol=1e-6, atol=1e-6)  # measured 0, as in test_ops


def test_an_upstream_gradient_of_ones_shows_nothing():
    """The trap: whatever the input, rows of probabilities sum to 1 and standardised rows to 0."""
    x = rng(0).normal(size=(5, 8))
    ones = np.ones_like(x)
    assert np.abs(ops.softmax_backward(ones, ops.softmax(x))).max() < 1e-15
    d_x, d_weight, d_bias = ops.layer_norm_backward(ones, x, np.ones(8), 1e-12)
    assert np.abs(d_x).max() < 1e-14
    assert np.abs(d_weight).max() > 0.1 and (d_bias == 5).all()  # these two it does show
    # what a random one shows: rows that sum to zero, and are not zero
    d_y = rng(1).normal(size=x.shape)
    for gradient in (ops.softmax_backward(d_y, ops.softmax(x)), ops.layer_norm_backward(d_y, x, np.ones(8), 1e-12)[0]):
        assert np.abs(gradient.sum(axis=1)).max() < 1e-14 and np.abs(gradient).max() > 0.1


def test_normalize_backward_is_at_right_angles():
    x, d_y = rng(0).normal(size=(6, 5)), rng(1).normal(size=(6, 5))
    assert np.abs((ops.normalize_backward(d_y, x) * x).sum(axis=1)).max() < 1e-14
    np.testing.assert_allclose(ops.normalize_backward(d_y, 4 * x), ops.normalize_backward(d_y, x) / 4, rtol=1e-14)


# ------------------------------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_a_mask_holds_zeros_and_one_over_what_is_kept(rate, dtype):
    mask = ops.dropout_mask((300, 400), rate, rng(), dtype)
    assert mask.dtype == dtype and mask.shape == (300, 400)
    kept = np.asarray(1.0 / (1.0 - rate), dtype)
    np.testing.assert_array_equal(np.unique(mask), [kept] if rate == 0 else [0, kept])
    # its mean is 1: a number has variance rate / (1 - rate), and 5 standard errors are passed by 1 seed in 2 million
    n = mask.size
    assert abs(mask.mean(dtype=np.float64) - 1.0) <= 5 * math.sqrt(rate / (1 - rate) / n) + 1e-7
    # and so is that of each row and column: nothing is dropped in stripes. 700 of them: 6 standard errors
    for axis, count in ((0, 300), (1, 400)):
        bound = 6 * math.sqrt(rate / (1 - rate) / count) + 1e-6
        assert np.abs(mask.mean(axis=axis, dtype=np.float64) - 1.0).max() <= bound


def test_a_mask_comes_from_its_generator():
    def draw(seed):
        return ops.dropout_mask((50, 60), 0.3, rng(seed), np.float32)

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()
    generator = rng(1)
    first, second = (ops.dropout_mask((50, 60), 0.3, generator, np.float32) for _ in range(2))
    # two masks are independent: of 3,000 numbers 0.3^2 are dropped by both
    both = ((first == 0) & (second == 0)).mean()
    assert abs(both - 0.09) <= 5 * math.sqrt(0.09 * 0.91 / 3000)


def test_dropout_keeps_the_mean_of_what_it_drops():
    """Through one product, the only place where a mean survives: E[(x * mask) @ w] = x @ w."""
    x, weight = rng(1).normal(size=50), rng(2).normal(size=50)
    generator, rate, count = rng(3), 0.2, 20_000
    masks = ops.dropout_mask((count, 50), rate, generator, np.float64)
    found = ((x * masks) @ weight).mean()
    spread = math.sqrt(rate / (1 - rate) * np.sum((x * weight) ** 2) / count)
    assert abs(found - x @ weight) <= 5 * spread


# ------------------------------------------------------------------------------------------------------ pooling

LENGTHS = np.array([4, 1, 1, 3, 3, 2])  # runs of equal lengths, neighbours that differ, one-token texts
STRIP = rng(10).normal(size=(14, 5))
MODES = [*((mode,) for mode in POOLINGS), ("mean", "max"), ("weightedmean", "mean", "cls"), tuple(POOLINGS)]


@pytest.mark.parametrize("mode", POOLINGS)
def test_pooling(mode):
    for lengths in (LENGTHS, np.array([14]), np.ones(14, int), np.array([1, 13])):
        arguments = {"token_embeddings": STRIP, "lengths": lengths}
        passes(check_backward(*POOLINGS[mode], arguments, rng=rng()))


@pytest.mark.parametrize("prompt_length", [0, 1, 2, 3, 9])
@pytest.mark.parametrize(
    "modes",
    [*((m,) for m in POOLINGS), ("mean", "max"), ("weightedmean", "mean", "cls"), tuple(POOLINGS)],
    ids="+".join,
)
def test_poolings_side_by_side_behind_a_prompt(modes, prompt_length):
    """A text that is all prompt keeps its last token: with 9 that is every text."""
    arguments = {"token_embeddings": STRIP, "lengths": LENGTHS, "modes": modes, "prompt_length": prompt_length}
    passes(check_backward(pool, pool_backward, arguments, rng=rng()))
    d_tokens = pool_backward(rng(1).normal(size=(6, 5 * len(modes))), *arguments.values())
    place = np.concatenate([np.arange(length) for length in LENGTHS])
    last = place == np.repeat(LENGTHS - 1, LENGTHS)
    assert not d_tokens[(place < prompt_length) & ~last].any()


def test_pooling_one_token_gives_it_everything():
    d_pooled = rng(0).normal(size=(3, 5))
    for mode, (_, backward) in POOLINGS.items():
        np.testing.assert_allclose(backward(d_pooled, STRIP[:3], np.ones(3, int)), d_pooled, rtol=1e-15, err_msg=mode)


def test_max_gives_a_tie_to_the_first_token_of_its_own_text():
    strip = np.array([[9.0], [1.0], [3.0], [3.0], [2.0], [2.0]])
    d_tokens = pool_backward(np.array([[10.0], [20.0]]), strip, np.array([2, 4]), ("max",))
    np.testing.assert_array_equal(d_tokens.T, [[10, 0, 20, 0, 0, 0]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_poolings_keep_dtype_and_arguments(dtype):
    strip, d_pooled = STRIP.astype(dtype), rng(1).normal(size=(6, 30)).astype(dtype)
    before = strip.copy(), d_pooled.copy(), LENGTHS.copy()
    for prompt_length in (0, 2):
        d_tokens = pool_backward(d_pooled, strip, LENGTHS, tuple(POOLINGS), prompt_length)
        assert d_tokens.dtype == dtype and d_tokens.shape == strip.shape
    for a, b in zip((strip, d_pooled, LENGTHS), before, strict=True):
        np.testing.assert_array_equal(a, b)
    nothing = pool_backward(d_pooled[:0], strip[:0], LENGTHS[:0], tuple(POOLINGS))
    assert nothing.shape == (0, 5) and nothing.dtype == dtype


# ------------------------------------------------------------------------------------------------------ modules


def random_dense(d_in, d_out, activation="tanh", bias=True, use_residual=False, seed=1):
    """As tests/tiny.py makes them, in float64."""
    module = tiny_dense(d_in, d_out, activation, bias, use_residual, seed)
    wide = {f: None if getattr(module, f) is None else getattr(module, f).astype(np.float64) for f in DENSE_FIELDS}
    return replace(module, **wide)


DENSE_FIELDS = ("weight", "bias", "residual")


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("residual", ["none", "as wide", "narrower"])
@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
def test_dense(activation, residual, bias):
    module = random_dense(5, 5 if residual == "as wide" else 3, activation, bias, residual != "none")
    assert (module.residual is not None) == (residual == "narrower")
    present = {f: getattr(module, f) for f in DENSE_FIELDS if getattr(module, f) is not None}
    x = rng(2).normal(size=(4, 5))
    d_y = rng(3).normal(size=(4, len(module.weight)))

    def loss(p):
        return float(np.vdot(d_y, dense(p["x"], replace(module, **{f: p[f] for f in present}))))

    d_x, d_module = dense_backward(d_y, x, module)
    gradients = {"x": d_x, **{f: getattr(d_module, f) for f in present}}
    passes(check_gradients(loss, {"x": x, **present}, gradients, rng=rng()))
    for f in set(DENSE_FIELDS) - present.keys():
        assert getattr(d_module, f) is None


MODULES = {
    "mean": (Pooling(),),
    "mean, normalize": (Pooling(), Normalize()),
    "normalize before dense": (Pooling(("mean", "cls")), Normalize(), random_dense(10, 3)),
    "two denses": (
        Pooling(("mean", "max")),
        random_dense(10, 7, "gelu", seed=1),
        random_dense(7, 4, "sigmoid", bias=False, use_residual=True, seed=2),
        Normalize(),
    ),
    "prompt left out": (Pooling(("weightedmean", "mean"), include_prompt=False), random_dense(10, 4), Normalize()),
    "prompt pooled": (Pooling(("weightedmean",)), random_dense(5, 5, "silu", use_residual=True)),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    modules, prompt_length = MODULES[name], 2
    params = {"tokens": STRIP}
    for i, module in enumerate(modules):
        if isinstance(module, Dense):
            params |= {f"{i}.{f}": getattr(module, f) for f in DENSE_FIELDS if getattr(module, f) is not None}

    def run(p):
        changed = [
            replace(m, **{key.split(".")[1]: p[key] for key in p if key.startswith(f"{i}.")})
            if isinstance(m, Dense)
            else m
            for i, m in enumerate(modules)
        ]
        return apply_modules(p["tokens"], LENGTHS, tuple(changed), prompt_length)

    results = run(params)
    d_embeddings = rng(4).normal(size=results[-1].shape)
    kept = [result.copy() for result in results]
    d_tokens, d_modules = modules_backward(d_embeddings, results, STRIP, LENGTHS, modules, prompt_length)
    assert all(np.array_equal(a, b) for a, b in zip(results, kept, strict=True))
    assert [d is not None for d in d_modules] == [isinstance(m, Dense) for m in modules]
    gradients = {"tokens": d_tokens}
    for key in list(params)[1:]:
        i, field = key.split(".")
        gradients[key] = getattr(d_modules[int(i)], field)
    passes(check_gradients(lambda p: float(np.vdot(d_embeddings, run(p)[-1])), params, gradients, rng=rng()))


# ------------------------------------------------------------------------------------------------ gradients of tables


def test_a_row_gradient_holds_the_rows_that_were_used_and_sums_what_was_used_twice():
    used, d_rows = np.array([7, 2, 7, 7, 0]), rng(0).normal(size=(5, 3))
    gradient = sum_rows(used, d_rows, 9)
    np.testing.assert_array_equal(gradient.rows, [0, 2, 7])
    expected = np.zeros((9, 3))
    np.add.at(expected, used, d_rows)
    np.testing.assert_allclose(gradient.dense(), expected, rtol=1e-15, atol=1e-15)
    assert sum_rows(used, d_rows.astype(np.float32), 9).values.dtype == np.float32


def test_row_gradients_add_up():
    parts = [sum_rows(np.array(rows), rng(i).normal(size=(len(rows), 3)), 9) for i, rows in enumerate(([7, 2], [2, 8]))]
    before = [part.values.copy() for part in parts]
    total = add_gradients(*parts)
    np.testing.assert_array_equal(total.rows, [2, 7, 8])
    np.testing.assert_allclose(total.dense(), parts[0].dense() + parts[1].dense(), rtol=1e-15)
    for part, old in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part.values, old)
    with pytest.raises(ValueError, match="add_gradients: expected two gradients of one kind"):
        add_gradients(parts[0], parts[0].dense())


# ------------------------------------------------------------------------------------------------------- blocks

CONFIG = replace(TINY, vocab_size=17, num_hidden_layers=1, max_position_embeddings=7)
SIZES = {"N": 14, "D": 12, "H": 3, "K": 4, "F": 20}
PARAMS = random_params(CONFIG, rng(20), scale=0.4)
# unequal lengths, runs of equal lengths, one-token texts; pieces that stand twice, in one text and in two
IDS = rng(21).integers(1, 12, LENGTHS.sum())
HIDDEN = rng(22).normal(size=(14, 12))
UPSTREAM = rng(23).normal(size=(14, 12))
DROPOUTS = {
    "no dropout": lambda: None,
    # made anew at each forward, so that it drops the same
    "dropout": lambda: Dropout(rng(24), hidden=0.3, attention=0.4),
    "hidden dropout": lambda: Dropout(rng(25), hidden=0.5, attention=0.0),
    "attention dropout": lambda: Dropout(rng(26), hidden=0.0, attention=0.5),
}


def leaves(tree, name=""):
    """Name every array of nested dataclasses by the path that leads to it."""
    if isinstance(tree, (np.ndarray, RowGradient)):
        return {name: tree}
    found = {}
    branches = enumerate(tree) if isinstance(tree, tuple) else ((f.name, getattr(tree, f.name)) for f in fields(tree))
    for key, branch in branches:
        found |= leaves(branch, f"{name}.{key}" if name else str(key))
    return found


def with_leaves(tree, named, name=""):
    """The same nested dataclasses around other arrays."""
    if isinstance(tree, np.ndarray):
        return named[name]
    if isinstance(tree, tuple):
        return tuple(with_leaves(b, named, f"{name}.{i}" if name else str(i)) for i, b in enumerate(tree))
    return type(tree)(
        **{
            f.name: with_leaves(getattr(tree, f.name), named, f"{name}.{f.name}" if name else f.name)
            for f in fields(tree)
        }
    )


def check_block(forward, gradients, params, hidden=None):
    """Compare a block's gradients with the slopes of ``<UPSTREAM, output>``, ``hidden`` and each weight by itself."""
    named = leaves(params) | ({} if hidden is None else {"hidden": hidden})

    def loss(p):
        return float(np.vdot(UPSTREAM, forward(p.get("hidden"), with_leaves(params, p)).output))

    passes(check_gradients(loss, named, {name: gradients[name] for name in named}, rng=rng(), sizes=SIZES))


@pytest.mark.parametrize("make_dropout", DROPOUTS.values(), ids=DROPOUTS)
@pytest.mark.parametrize("token_types", [1, 2])
def test_embed(token_types, make_dropout):
    params = replace(PARAMS.embeddings, token_type=PARAMS.embeddings.token_type[:token_types])
    trace = embed(IDS, LENGTHS, params, 1e-12, make_dropout())
    gradients = embed_backward(UPSTREAM, trace, IDS, LENGTHS, params, 1e-12)
    np.testing.assert_array_equal(gradients.word.rows, np.unique(IDS))
    assert gradients.word.row_count == 17 and gradients.position.shape == (7, 12)
    assert not gradients.position[4:].any() and not gradients.token_type[1:].any()  # no text is longer than 4
    check_block(lambda _, p: embed(IDS, LENGTHS, p, 1e-12, make_dropout()), leaves(gradients), params)


@pytest.mark.parametrize("make_dropout", DROPOUTS.values(), ids=DROPOUTS)
@pytest.mark.parametrize("heads", [1, 3])
def test_attention(heads, make_dropout):
    config, params = replace(CONFIG, num_attention_heads=heads), PARAMS.layers[0].attention
    trace = attention(HIDDEN, LENGTHS, params, config, make_dropout())
    d_hidden, gradients = attention_backward(UPSTREAM, trace, HIDDEN, LENGTHS, params, config)
    # a key's bias adds one number to all scores of a row, which softmax ignores: no gradient, up to rounding
    assert np.abs(gradients.key.bias).max() < 1e-13 * np.abs(gradients.key.weight).max()
    check_block(
        lambda hidden, p: attention(hidden, LENGTHS, p, config, make_dropout()),
        leaves(gradients) | {"hidden": d_hidden},
        params,
        HIDDEN,
    )


@pytest.mark.parametrize("make_dropout", DROPOUTS.values(), ids=DROPOUTS)
@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu", "silu"])
def test_feed_forward(act, make_dropout):
    config, params = replace(CONFIG, hidden_act=act), PARAMS.layers[0].feed_forward
    trace = feed_forward(HIDDEN, params, config, make_dropout())
    d_hidden, gradients = feed_forward_backward(UPSTREAM, trace, HIDDEN, params, config)
    check_block(
        lambda hidden, p: feed_forward(hidden, p, config, make_dropout()),
        leaves(gradients) | {"hidden": d_hidden},
        params,
        HIDDEN,
    )


@pytest.mark.parametrize("make_dropout", DROPOUTS.values(), ids=DROPOUTS)
@pytest.mark.parametrize("lengths", [LENGTHS, np.array([14]), np.array([7, 7]), np.ones(14, int)], ids=str)
def test_layer(lengths, make_dropout):
    params = PARAMS.layers[0]
    trace = layer(HIDDEN, lengths, params, CONFIG, make_dropout())
    d_hidden, gradients = layer_backward(UPSTREAM, trace, HIDDEN, lengths, params, CONFIG)
    check_block(
        lambda hidden, p: layer(hidden, lengths, p, CONFIG, make_dropout()),
        leaves(gradients) | {"hidden": d_hidden},
        params,
        HIDDEN,
    )


# -------------------------------------------------------------------------------------------------- the whole BERT

BERTS = {
    "1 layer, 1 head": replace(CONFIG, num_attention_heads=1),
    "2 layers, gelu_new, 1 token type": replace(CONFIG, num_hidden_layers=2, hidden_act="gelu_new", type_vocab_size=1),
    "3 layers, 4 heads, relu": replace(CONFIG, num_hidden_layers=3, hidden_act="relu", num_attention_heads=4),
    "2 layers, silu": replace(CONFIG, num_hidden_layers=2, hidden_act="silu"),
    "1 layer, tanh, other eps": replace(CONFIG, hidden_act="tanh", layer_norm_eps=1e-2),
    "12 heads of one number, gelu_pytorch_tanh": replace(
        CONFIG, num_attention_heads=12, hidden_act="gelu_pytorch_tanh"
    ),
}


@pytest.mark.parametrize("dropped", [False, True], ids=["no_dropout", "dropout"])
@pytest.mark.parametrize("name", BERTS)
def test_bert(name, dropped):
    config = BERTS[name]
    params = random_params(config, rng(30), scale=0.4)
    make_dropout = DROPOUTS["dropout"] if dropped else DROPOUTS["no dropout"]
    trace = trace_bert(IDS, LENGTHS, params, config, make_dropout())
    gradients = leaves(bert_backward(UPSTREAM, trace, IDS, LENGTHS, params, config))
    assert gradients.keys() == leaves(params).keys()
    check_block(lambda _, p: trace_bert(IDS, LENGTHS, p, config, make_dropout()), gradients, params)


def batch(dtype=np.float64, layers=2, dropout=None, config=CONFIG):
    """Parameters and all gradients of one batch."""
    config = replace(config, num_hidden_layers=layers)
    params = random_params(config, rng(31), dtype, scale=0.4)
    trace = trace_bert(IDS, LENGTHS, params, config, dropout)
    return params, trace, bert_backward(UPSTREAM.astype(dtype), trace, IDS, LENGTHS, params, config), config


@pytest.mark.parametrize("dropped", [False, True], ids=["no_dropout", "dropout"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_have_dtype_shape_and_memory_order_of_the_parameters(dtype, dropped):
    params, trace, gradients, _ = batch(dtype, dropout=Dropout(rng(0)) if dropped else None)
    named, found = leaves(params), leaves(gradients)
    for name, gradient in found.items():
        values = gradient.dense() if isinstance(gradient, RowGradient) else gradient
        assert values.dtype == dtype and values.shape == named[name].shape, name
        if name.startswith("layers") and values.ndim == 2:
            assert values.flags.f_contiguous, name  # as load_params lays the weights
    assert isinstance(gradients.embeddings.word, RowGradient)
    arrays = [a for a in flatten_trace(trace) if a is not None]
    assert arrays and all(a.dtype == dtype for a in arrays)
    assert (len(arrays) < len(list(flatten_trace(trace)))) == (not dropped)


def flatten_trace(tree):
    """Every array of a trace, and None for a mask that is not there."""
    if tree is None or isinstance(tree, np.ndarray):
        yield tree
        return
    for branch in tree if isinstance(tree, tuple) else [getattr(tree, f.name) for f in fields(tree)]:
        yield from flatten_trace(branch)


def test_backward_changes_none_of_its_arguments():
    config = replace(CONFIG, num_hidden_layers=2)
    params = random_params(config, rng(31), scale=0.4)
    trace = trace_bert(IDS, LENGTHS, params, config, Dropout(rng(0)))
    upstream = UPSTREAM.copy()
    arrays = [*flatten(params), *flatten_trace(trace), upstream, IDS, LENGTHS]
    before = [a.copy() for a in arrays]
    first = leaves(bert_backward(upstream, trace, IDS, LENGTHS, params, config))
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)
    again = leaves(bert_backward(upstream, trace, IDS, LENGTHS, params, config))
    for name, gradient in first.items():
        for a, b in zip(flat(gradient), flat(again[name]), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def flat(gradient):
    return (gradient.rows, gradient.values) if isinstance(gradient, RowGradient) else (gradient,)


def test_float32_gradients_agree_with_float64():
    exact, found = leaves(batch()[2]), leaves(batch(np.float32)[2])
    for name, gradient in found.items():
        a, b = flat(gradient)[-1], flat(exact[name])[-1]
        # the gradient of the key's bias is zero up to rounding: its weight's gradient is the size to hold it against
        largest = np.abs(flat(exact[name.replace("key.bias", "key.weight")])[-1]).max()
        # the parameters are rounded, too. Measured: 3.7e-6 at most; the margin is 5
        assert np.abs(a - b).max() <= 1.9e-5 * largest, name


def test_the_gradient_of_a_batch_is_the_sum_of_its_texts():
    """No text sees another: what the strip gives back is what its texts give back alone."""
    params, _, together, config = batch()
    alone = None
    for ids, upstream in zip(
        np.split(IDS, LENGTHS.cumsum()[:-1]), np.split(UPSTREAM, LENGTHS.cumsum()[:-1]), strict=True
    ):
        length = np.array([len(ids)])
        trace = trace_bert(ids, length, params, config)
        gradients = leaves(bert_backward(upstream, trace, ids, length, params, config))
        alone = gradients if alone is None else {name: add_gradients(alone[name], g) for name, g in gradients.items()}
    whole = max(np.abs(flat(g)[-1]).max() for g in alone.values())
    for name, gradient in leaves(together).items():
        a, b = (flat(g)[-1] for g in (gradient, alone[name]))
        if isinstance(gradient, RowGradient):
            np.testing.assert_array_equal(gradient.rows, alone[name].rows)
        # measured: 6.4e-16 of the largest number of all; the margin is 15
        assert np.abs(a - b).max() <= 1e-14 * whole, name


def test_a_texts_gradient_does_not_depend_on_its_neighbours():
    """Other neighbours, other upstream gradients beside it: its own rows stay, and no row of another moves for it."""
    params, mine = PARAMS.layers[0], slice(6, 9)  # the fourth text, 3 tokens, one of a run of two

    def d_hidden(hidden, upstream):
        trace = layer(hidden, LENGTHS, params, CONFIG)
        return layer_backward(upstream, trace, hidden, LENGTHS, params, CONFIG)[0]

    before = d_hidden(HIDDEN, UPSTREAM)
    hidden, upstream = rng(40).normal(size=(14, 12)), rng(41).normal(size=(14, 12))
    hidden[mine], upstream[mine] = HIDDEN[mine], UPSTREAM[mine]
    assert relative(d_hidden(hidden, upstream)[mine], before[mine]) < 1e-13
    upstream = np.zeros_like(UPSTREAM)
    upstream[mine] = UPSTREAM[mine]
    alone = d_hidden(HIDDEN, upstream)
    assert relative(alone[mine], before[mine]) < 1e-13
    assert not alone[:6].any() and not alone[9:].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_finite_where_hidden_states_are_extreme(dtype):
    for scale in (1e4, -1e4, 0.0, 1e-310 if dtype == np.float64 else 1e-40):
        params = random_params(CONFIG, rng(31), dtype, scale=0.4)
        hidden = (np.sign(HIDDEN) * scale).astype(dtype)
        hidden[::2] = dtype(scale)  # every other row is constant
        trace = layer(hidden, LENGTHS, params.layers[0], CONFIG)
        d_hidden, gradients = layer_backward(UPSTREAM.astype(dtype), trace, hidden, LENGTHS, params.layers[0], CONFIG)
        assert all(np.isfinite(a).all() for a in (d_hidden, *flatten(gradients)))
        assert d_hidden.any()


# ------------------------------------------------------------------------------------ dropout, on in training alone


def test_masks_are_where_they_belong_and_are_taken():
    """Each mask of the trace, by the line of the forward that it stands in."""
    _, trace, _, _ = batch(dropout=Dropout(rng(5), hidden=0.25, attention=0.5))
    embeddings, first = trace.embeddings, trace.layers[0]
    assert (embeddings.output[embeddings.mask == 0] == 0).all()
    hidden = [embeddings.mask]
    for done, read in zip(trace.layers, [embeddings.output, first.output], strict=True):
        looked, thought = done.attention, done.feed_forward
        hidden += [looked.mask, thought.mask]
        np.testing.assert_allclose(looked.summed, read + looked.projected * looked.mask, rtol=1e-14)
        np.testing.assert_allclose(thought.summed, looked.output + thought.projected * thought.mask, rtol=1e-14)
        assert [m.shape for m in looked.probs_masks] == [p.shape for p in looked.probs]
        for mask in looked.probs_masks:
            assert set(np.unique(mask)) <= {0.0, 2.0}
        for probs in looked.probs:  # kept as they were before the mask: the backward of softmax reads them
            np.testing.assert_allclose(probs.sum(axis=-1), 1.0, rtol=1e-14)
    assert len(hidden) == 5
    for mask in hidden:
        assert mask.shape == (14, 12) and set(np.unique(mask)) == {0.0, 4.0 / 3.0}
    assert all((a != b).any() for i, a in enumerate(hidden) for b in hidden[:i])


def test_dropout_of_rate_zero_changes_no_bit():
    params, plain, gradients, config = batch()
    trace = trace_bert(IDS, LENGTHS, params, config, Dropout(rng(0), hidden=0.0, attention=0.0))
    np.testing.assert_array_equal(trace.output, plain.output)
    dropped = leaves(bert_backward(UPSTREAM, trace, IDS, LENGTHS, params, config))
    for name, gradient in leaves(gradients).items():
        np.testing.assert_array_equal(flat(gradient)[-1], flat(dropped[name])[-1], err_msg=name)


def test_dropout_is_in_training_alone(folder):
    """Vectors, traces and hidden states are the same to the bit before and behind a training step that drops."""
    encoder = SentenceEncoder(folder)
    texts = ["the cat sat on the mat", "i love soup", "dog"]

    def everything():
        trace = encoder.trace(texts)
        tensors = trace.tensors()
        assert not any("mask" in name for name in tensors)
        model = encoder.model
        hidden = bert(trace.token_ids, trace.lengths, model.params, model.config)
        return [encoder.encode(texts), hidden, *tensors.values()]

    before = everything()
    step = value_and_gradients(
        encoder.model, [texts, texts], lambda v: LOSSES["simcse"].function(*v), dropout=DropoutPlan((1,), 0.5, 0.5)
    )
    assert not np.allclose(step.embeddings[0], step.embeddings[1])  # it did drop
    for a, b in zip(everything(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    plain = value_and_gradients(encoder.model, [texts, texts], lambda v: LOSSES["simcse"].function(*v))
    np.testing.assert_allclose(plain.embeddings[0], encoder.encode(texts), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------- the whole encoder with each loss

COLUMNS = (
    ["the cat sat on the mat", "i love soup", "dog", "a b c", "the dog ran!"],
    ["a cat on a mat", "soup, i love it", "the dog", "c b a", "unable"],
    ["the dog ran", "love", "soup on the mat", "x y z", "cat"],
)
SCORES = [0.9, 0.7, 0.2, 0.7, -0.1]


def head(width):
    return {"head.weight": rng(50).normal(size=(3, 3 * width)), "head.bias": rng(51).normal(size=3)}


# name of the loss -> how many columns, further arguments, further settings
EACH_LOSS = {
    "multiple_negatives_ranking": (3, (), {"symmetric": True, "scale": 3.0}),
    "simcse": (2, (), {"scale": 2.0}),
    "contrastive": (2, ([1, 0, 1, 1, 0],), {}),
    "triplet": (3, (), {}),
    "cosine_similarity": (2, (SCORES,), {}),
    "cosent": (2, (SCORES,), {"scale": 4.0}),
    "softmax": (2, ([0, 2, 1, 1, 0],), {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every kind of module: two poolings, a Dense with a residual, one without bias, Normalize."""
    modules = (
        Pooling(("mean", "cls")),
        tiny_dense(24, 9, "tanh", use_residual=True),
        tiny_dense(9, 7, "gelu", bias=False, seed=2),
        Normalize(),
    )
    return write_model(tmp_path_factory.mktemp("model"), modules=modules)


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, np.float64)


# without dropout, the two views of simcse are the same
RUNS = [(name, dropped) for name in LOSSES for dropped in (False, True) if dropped or name != "simcse"]


@pytest.mark.parametrize(("name", "dropped"), RUNS, ids=[f"{n}{', dropout' if d else ''}" for n, d in RUNS])
def test_encoder_and_loss(name, dropped, model):
    count, data, options = EACH_LOSS[name]
    texts = [COLUMNS[0]] * 2 if name == "simcse" else list(COLUMNS[:count])
    params = named_parameters(model) | (head(7) if LOSSES[name].has_head else {})
    plan = DropoutPlan((3, 1), hidden=0.2, attention=0.2) if dropped else None

    def step(p):
        own = {key.removeprefix("head."): array for key, array in p.items() if key.startswith("head.")}
        weights = {key: array for key, array in p.items() if not key.startswith("head.")}
        return value_and_gradients(
            replace_parameters(model, weights),
            texts,
            lambda vectors: LOSSES[name].function(*vectors, *data, **own, **options),
            dropout=plan,
            num_threads=1,
        )

    found = step(params)
    assert found.gradients.keys() == params.keys() and found.value > 1e-3
    # the dropped run looks at all tensors at once: which mask stands where is above, block by block
    only = () if dropped and name != "simcse" else None
    passes(check_gradients(lambda p: step(p).value, params, found.gradients, rng=rng(), directions=2, only=only))


def test_names_and_order_are_those_of_the_checkpoint(model):
    step = value_and_gradients(model, COLUMNS[:2], lambda v: LOSSES["multiple_negatives_ranking"].function(*v))
    assert list(step.gradients) == list(named_parameters(model))
    assert list(step.gradients)[: len(tensor_shapes(model.config))] == list(tensor_shapes(model.config))


@pytest.mark.parametrize("width", [np.int32, np.int64])
def test_lengths_of_either_width(width, monkeypatch):
    """A platform's counts have 32 or 64 bits; nothing makes wider ones of them before they count rows."""
    counted = []
    repeat = np.repeat

    def watched(array, repeats, axis=None):
        counted.append(np.asarray(repeats).dtype)
        return repeat(array, repeats, axis)

    monkeypatch.setattr(np, "repeat", watched)
    params = random_params(TINY, rng(), np.float64, scale=0.3)
    modules = (Pooling(tuple(POOLINGS), include_prompt=False), Normalize())

    def both_ways(lengths):
        token_ids = np.arange(sum(lengths))
        trace = trace_bert(token_ids, lengths, params, TINY)
        results = apply_modules(trace.output, lengths, modules, 2)
        d_tokens, _ = modules_backward(np.ones_like(results[-1]), results, trace.output, lengths, modules, 2)
        gradients = bert_backward(d_tokens, trace, token_ids, lengths, params, TINY)
        return [results[-1], d_tokens, gradients.embeddings.position, gradients.layers[0].attention.query.weight]

    expected = both_ways(np.array([4, 4, 3, 1], np.intp))
    counted.clear()
    for ours, theirs in zip(both_ways(np.array([4, 4, 3, 1], width)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert counted and set(counted) == {np.dtype(width)}
