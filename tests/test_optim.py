"""AdamW without PyTorch: steps by hand, threads, rows that come and go, clipping, refusals."""

import copy
import math

import numpy as np
import pytest

from minisbert.model.params import RowGradient
from minisbert.training import optim
from minisbert.training.optim import adamw, clip_gradients, decays, init_adamw, warmup_linear

pytestmark = pytest.mark.usefixtures("one_thread")

TABLE, BIAS, HEAD = "embeddings.word_embeddings.weight", "embeddings.LayerNorm.bias", "head.weight"
SHAPES = {TABLE: (23, 6), "embeddings.LayerNorm.weight": (6,), BIAS: (6,), "dense.weight": (10, 6), HEAD: (3, 18)}
FORTRAN = ("dense.weight", HEAD)
# rows of the table that have a gradient, step by step: row 4 is used once and no more, row 7 comes late, most never
ROWS = [[0, 4, 9], [0, 9], [9, 22], [], [0, 7, 9], [7], [0], [0, 1, 2, 3, 5], [9], [0, 22]]


@pytest.fixture
def many_blocks(monkeypatch):
    """Cut these small tensors into blocks as a large model's are, of a length that divides no size."""
    monkeypatch.setattr(optim, "_BLOCK", 13)


def lying(arrays):
    return arrays | {name: np.asfortranarray(arrays[name]) for name in FORTRAN}


def make_params(dtype=np.float64):
    rng = np.random.default_rng(0)
    return lying({name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()})


def make_grads(rows, dtype=np.float64, seed=0):
    """Gradients of every size, as a network's are; that of the table for these rows."""
    rng = np.random.default_rng(seed)
    grads = {name: (rng.normal(size=s) * 10.0 ** rng.integers(-6, 2)).astype(dtype) for name, s in SHAPES.items()}
    return lying(grads) | {TABLE: RowGradient(np.array(rows, np.int64), grads[TABLE][rows], 23)}


def dense(grads):
    return {name: grad.dense() if isinstance(grad, RowGradient) else grad for name, grad in grads.items()}


def train(dtype=np.float64, make=lambda step, grads: grads, **options):
    """Ten steps: everything that they make."""
    params = make_params(dtype)
    state = init_adamw(params)
    for step, rows in enumerate(ROWS):
        grads = make(step, make_grads(rows, dtype, step))
        adamw(params, grads, state, learning_rate=0.01, weight_decay=0.1, **options)
    assert state.step == 10
    for arrays in (params, state.m, state.v):
        assert all(x.dtype == dtype and x.flags.fnc == (name in FORTRAN) for name, x in arrays.items())
    return [arrays[name] for arrays in (params, state.m, state.v) for name in SHAPES]


def same(found, wanted):
    return all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_two_steps_of_adamw_by_hand():
    params = {"w": np.array([2.0])}
    state, numbers = init_adamw(params), {"betas": (0.75, 0.75), "eps": 0.5, "weight_decay": 0.25}
    adamw(params, {"w": np.array([4.0])}, state, learning_rate=0.1, **numbers)
    # m = 0.25 * 4 = 1, v = 0.25 * 16 = 4; both corrected: m 4, sqrt(v) 4; 2 * 0.975 - 0.1 * 4 / (4 + 0.5)
    assert (state.step, state.m["w"][0], state.v["w"][0]) == (1, 1.0, 4.0)
    first = 2 * 0.975 - 0.4 / 4.5
    np.testing.assert_allclose(params["w"], [first], rtol=1e-15)
    adamw(params, {"w": np.array([-2.0])}, state, learning_rate=0.1, **numbers)
    # m = 0.75 * 1 - 0.25 * 2, v = 0.75 * 4 + 0.25 * 4; to be corrected by 1 - 0.75^2 = 0.4375
    assert (state.step, state.m["w"][0], state.v["w"][0]) == (2, 0.25, 4.0)
    second = first * 0.975 - 0.1 * (0.25 / 0.4375) / (2 / math.sqrt(0.4375) + 0.5)
    np.testing.assert_allclose(params["w"], [second], rtol=1e-15)


def test_decay_is_for_all_but_biases_and_layer_norms():
    assert {name for name in SHAPES if not decays(name)} == {BIAS, "embeddings.LayerNorm.weight"}
    assert not decays("bias") and not decays("x.layer_norm.gamma") and decays("biased.weight")
    params, start = make_params(), make_params()
    zeros = {name: np.zeros_like(param) for name, param in params.items()}
    adamw(params, zeros, init_adamw(params), learning_rate=0.5, weight_decay=0.25)
    for name, param in params.items():
        np.testing.assert_array_equal(param, start[name] * (0.875 if decays(name) else 1.0), err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_blocks_order_and_rows_do_not_change_a_bit(dtype, monkeypatch):
    """A row gradient gives what its dense gradient gives; the two may take turns."""

    def turned(_, grads):
        rows = grads[TABLE]
        other = RowGradient(rows.rows, np.asfortranarray(rows.values), rows.row_count)
        return {name: np.ascontiguousarray(x) for name, x in grads.items() if name != TABLE} | {TABLE: other}

    wanted = train(dtype)
    for block in (optim._BLOCK, 13):
        monkeypatch.setattr(optim, "_BLOCK", block)
        assert same(train(dtype, num_threads=3), wanted)
        assert same(train(dtype, make=turned), wanted)
        assert same(train(dtype, make=lambda _, grads: dense(grads)), wanted)
        for start in range(3):
            mixed = train(dtype, make=lambda i, grads, start=start: dense(grads) if (i + start) % 3 == 0 else grads)
            assert same(mixed, wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_shortens_and_keeps_the_direction(dtype, many_blocks):
    grads = make_grads(ROWS[0], dtype)
    before = np.concatenate([x.ravel() for x in dense(grads).values()])
    length = float(np.linalg.norm(before.astype(np.float64)))
    shared = copy.deepcopy(grads)
    assert clip_gradients(grads, 1.001 * length) == clip_gradients(grads, math.inf)  # a short one stays as it is
    assert np.array_equal(np.concatenate([x.ravel() for x in dense(grads).values()]), before)
    norm = clip_gradients(grads, length / 3)
    assert isinstance(norm, float) and math.isclose(norm, length, rel_tol=1e-14)
    after = np.concatenate([x.ravel() for x in dense(grads).values()])
    assert after.dtype == dtype
    np.testing.assert_allclose(after, before * (length / 3 / (length + 1e-6)), rtol=4 * np.finfo(dtype).eps)
    assert clip_gradients(shared, length / 3, num_threads=3) == norm
    assert np.array_equal(np.concatenate([x.ravel() for x in dense(shared).values()]), after)


def test_clipping_at_the_edges(monkeypatch, many_blocks):
    for size in (1e30, 1e-30):  # float32 squares neither overflow nor vanish
        assert math.isclose(clip_gradients({"x": np.full(4, size, np.float32)}, size), 2 * size, rel_tol=1e-6)
    zeros = {"x": np.zeros((2, 3)), "none": np.zeros((0, 3))}
    assert clip_gradients(zeros, 1.0) == 0.0 == clip_gradients({}, 1.0) and not zeros["x"].any()

    def norms():
        return [clip_gradients(make_grads(ROWS[0], seed=seed), math.inf) for seed in range(20)]

    wanted = norms()  # whichever thread is first
    monkeypatch.setattr(optim, "work_through", lambda jobs, work, _: [(job, work(job)) for job in jobs[::-1]])
    assert norms() == wanted


# ------------------------------------------------------------------------------------------------ refusals


def step_with(grads=None, state_of=None, params=None, **options):
    params = params or make_params()
    grads = make_grads([0]) | (grads or {}) if set(params) == set(SHAPES) else grads
    adamw(params, grads, init_adamw(state_of or params), **{"learning_rate": 0.1, **options})


def rows(numbers, width=6, count=23, value=1.0):
    return {TABLE: RowGradient(np.array(numbers), np.full((len(numbers), width), value), count)}


def frozen(x):
    x.flags.writeable = False
    return x


X = {"x": np.ones((4, 3))}
REFUSED = {
    "the state of another model": (TABLE, lambda: step_with(state_of={n: np.ones((2, 2)) for n in SHAPES})),
    "a gradient missing": ("'x'", lambda: step_with({}, params=X)),
    "a gradient's shape": (rf"{HEAD}.*\(18, 3\)", lambda: step_with({HEAD: np.ones((18, 3))})),
    "a gradient's dtype": (f"{HEAD}.*float32", lambda: step_with({HEAD: np.ones((3, 18), np.float32)})),
    "rows twice": (TABLE, lambda: step_with(rows([1, 1]))),
    "a row below 0": (TABLE, lambda: step_with(rows([-1, 1]))),
    "a row too many": (TABLE, lambda: step_with(rows([1, 23]))),
    "read-only": ("'x'.*writeable", lambda: step_with(X, params={"x": frozen(np.ones((4, 3)))})),
    "moments in another order": ("'x'.*order", lambda: step_with(X, {"x": np.asfortranarray(X["x"])}, X)),
    "NaN": (f"adamw: .*{BIAS}", lambda: step_with({BIAS: np.full(6, np.nan)})),
    "NaN in a row": (f"adamw: .*{TABLE}", lambda: step_with(rows([1], value=np.nan))),
    "infinity": ("clip_gradients: .*x", lambda: clip_gradients({"x": np.array([1, -np.inf])}, 1.0)),
    "a warm-up longer than training": ("warmup_steps 6", lambda: warmup_linear(0, 6, 5)),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    words, call = REFUSED[what]
    with pytest.raises(ValueError, match=words):
        call()


def test_what_is_refused_has_not_been_begun():
    params, grads = make_params(), make_grads(ROWS[0])
    state = init_adamw(params)
    grads[HEAD][-1, -1] = -math.inf  # in the last tensor
    with pytest.raises(ValueError, match=HEAD):
        adamw(params, grads, state, learning_rate=0.1)
    assert state.step == 0 and not state.seen and not any(x.any() for x in state.m.values())
    assert same(params.values(), make_params().values())
