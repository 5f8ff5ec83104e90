"""AdamW without PyTorch: steps by hand, purity, threads, rows that come and go, clipping, refusals."""

import copy
import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minisbert.model.params import RowGradient
from minisbert.training import optim
from minisbert.training.optim import (
    AdamWState,
    adamw,
    clip_gradients,
    decays,
    init_adamw,
    state_from_arrays,
    state_to_arrays,
    warmup_linear,
)

TABLE = "embeddings.word_embeddings.weight"
SHAPES = {
    TABLE: (23, 6),
    "embeddings.LayerNorm.weight": (6,),
    "embeddings.LayerNorm.bias": (6,),
    "encoder.layer.0.intermediate.dense.weight": (10, 6),
    "encoder.layer.0.intermediate.dense.bias": (10,),
    "head.weight": (3, 18),
}
FORTRAN = ("encoder.layer.0.intermediate.dense.weight", "head.weight")
NUMBERS = {"learning_rate": 0.01, "weight_decay": 0.1}
# rows of the table that have a gradient, step by step: row 4 is used once and no more, row 7 comes late, most never
ROWS = [[0, 4, 9], [0, 9], [9, 22], [], [0, 7, 9], [7], [0], [0, 1, 2, 3, 5], [9], [0, 22]]


@pytest.fixture
def many_blocks(monkeypatch):
    """Cut these small tensors into blocks as a large model's are, of a length that divides no size."""
    monkeypatch.setattr(optim, "_BLOCK", 13)


def make_params(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    return params | {name: np.asfortranarray(params[name]) for name in FORTRAN}


def make_grads(rows, dtype=np.float64, seed=0):
    """Gradients of every size, as a network's are; that of the table for these rows."""
    rng = np.random.default_rng(seed)
    grads = {name: (rng.normal(size=s) * 10.0 ** rng.integers(-6, 2)).astype(dtype) for name, s in SHAPES.items()}
    grads |= {name: np.asfortranarray(grads[name]) for name in FORTRAN}
    return grads | {TABLE: RowGradient(np.array(rows, np.int64), grads[TABLE][rows], SHAPES[TABLE][0])}


def dense(grads):
    return {name: grad.dense() if isinstance(grad, RowGradient) else grad for name, grad in grads.items()}


def contents(params, state):
    """Everything that a step makes, as bytes in the order of memory."""
    found = {"step": state.step}
    for part in ({"params": params}, {k: v for k, v in vars(state).items() if k != "step"}):
        for kind, arrays in part.items():
            found |= {(kind, name): (x.dtype, x.shape, x.tobytes(order="A")) for name, x in arrays.items()}
    return found


def train(dtype=np.float64, steps=10, make=lambda grads: grads, **options):
    params = make_params(dtype)
    state = init_adamw(params)
    for step in range(steps):
        grads = make(make_grads(ROWS[step], dtype, step))
        params, state = adamw(params, grads, state, **NUMBERS, **options)
    return params, state


# ------------------------------------------------------------------------------------------------- by hand


def test_two_steps_of_adamw_by_hand():
    params = {"w": np.array([2.0])}
    numbers = {"learning_rate": 0.1, "betas": (0.75, 0.75), "eps": 0.5, "weight_decay": 0.25}
    new, state = adamw(params, {"w": np.array([4.0])}, init_adamw(params), **numbers)
    # m = 0.25 * 4 = 1, v = 0.25 * 16 = 4; both corrected: m 4, sqrt(v) 4; 2 * 0.975 - 0.1 * 4 / (4 + 0.5)
    assert (state.step, state.m["w"][0], state.v["w"][0]) == (1, 1.0, 4.0)
    first = 2 * 0.975 - 0.4 / 4.5
    np.testing.assert_allclose(new["w"], [first], rtol=1e-15)
    new, state = adamw(new, {"w": np.array([-2.0])}, state, **numbers)
    # m = 0.75 * 1 - 0.25 * 2, v = 0.75 * 4 + 0.25 * 4; to be corrected by 1 - 0.75^2 = 0.4375
    assert (state.step, state.m["w"][0], state.v["w"][0]) == (2, 0.25, 4.0)
    second = first * 0.975 - 0.1 * (0.25 / 0.4375) / (2 / math.sqrt(0.4375) + 0.5)
    np.testing.assert_allclose(new["w"], [second], rtol=1e-15)
    still, state = adamw(new, {"w": np.array([0.0])}, state, **numbers | {"learning_rate": 0.0})
    assert still["w"][0] == new["w"][0], "a learning rate of 0 moves nothing"
    assert (state.step, state.v["w"][0]) == (3, 3.0), "but the averages go on"


def test_without_memory_the_average_is_the_gradient_to_the_last_digit():
    """``m + 1 (g - m)`` would lose a small gradient beside a large average; so PyTorch's ``lerp`` does not do it."""
    params, state = {"w": np.ones(1, np.float32)}, init_adamw({"w": np.ones(1, np.float32)})
    for grad in (1e4, 1.2345678e-5):
        grads = {"w": np.array([grad], np.float32)}
        params, state = adamw(params, grads, state, learning_rate=0.1, betas=(0.0, 0.5))
        assert state.m["w"] == grads["w"]


def test_decay_is_for_all_but_biases_and_layer_norms():
    no = {name for name in SHAPES if not decays(name)}
    assert no == {n for n in SHAPES if n.endswith("bias") or "LayerNorm" in n}
    assert not decays("bias") and not decays("layer_norm.weight") and not decays("x.LayerNorm.gamma")
    assert decays("biased.weight") and decays("modules.1.linear.weight")
    params = make_params()
    grads = {name: np.zeros_like(param) for name, param in params.items()}
    new, _ = adamw(params, grads, init_adamw(params), learning_rate=0.5, weight_decay=0.25)
    for name, param in params.items():
        np.testing.assert_array_equal(new[name], param * (0.875 if decays(name) else 1.0), err_msg=name)


# -------------------------------------------------------------------------- purity, in place, threads, order


def state_and(result):
    params, state = result
    return [array for part in (params, state.m, state.v, state.seen) for array in part.values()]


def test_no_argument_changes(many_blocks):
    params, grads = make_params(), make_grads(ROWS[0])
    state = init_adamw(params)
    for _ in range(2):  # the second time there is a mask of rows
        kept = contents(*copy.deepcopy((params, state)))
        for array in [
            *state_and((params, state)),
            *(g.values if isinstance(g, RowGradient) else g for g in grads.values()),
        ]:
            array.flags.writeable = False
        result = adamw(params, grads, state, **NUMBERS)
        assert contents(params, state) == kept
        assert not any(np.shares_memory(a, b) for a in state_and(result) for b in state_and((params, state)))
        params, state = result


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_in_place_threads_and_blocks_do_not_change_a_bit(dtype, monkeypatch):
    pure = contents(*train(dtype))
    assert contents(*train(dtype, in_place=True)) == pure
    monkeypatch.setattr(optim, "_BLOCK", 13)
    for options in ({}, {"num_threads": 2}, {"num_threads": 3, "in_place": True}):
        assert contents(*train(dtype, **options)) == pure, options


def test_in_place_gives_the_arrays_that_were_given():
    params = make_params()
    state = init_adamw(params)
    before = [id(array) for array in state_and((params, state))]
    new, after = adamw(params, make_grads(ROWS[0]), state, **NUMBERS, in_place=True)
    assert new is params and after.step == 1
    assert [id(array) for array in state_and((new, after))][: len(before)] == before
    mask = after.seen[TABLE]
    _, last = adamw(new, make_grads(ROWS[4]), after, **NUMBERS, in_place=True)
    assert last.seen[TABLE] is mask


def test_memory_order_is_kept_and_does_not_matter(many_blocks):
    params, state = train()
    for key, array in [(n, x) for part in vars(state).values() if isinstance(part, dict) for n, x in part.items()]:
        assert array.flags.fnc == (key in FORTRAN), key
    assert all(params[key].flags.fnc == (key in FORTRAN) for key in params)

    def other_order(grads):
        turned = {n: np.ascontiguousarray(g) if n in FORTRAN else g for n, g in grads.items()}
        rows = grads[TABLE]
        return turned | {TABLE: RowGradient(rows.rows, np.asfortranarray(rows.values), rows.row_count)}

    assert contents(*train(make=other_order, in_place=True)) == contents(params, state)


def test_a_state_in_another_order_than_its_tensors():
    params, state = train(steps=3)
    turned = {part: {n: np.array(x, order="C") for n, x in vars(state)[part].items()} for part in ("m", "v")}
    grads = make_grads(ROWS[3], seed=3)
    wanted = adamw(params, grads, state, learning_rate=0.1)
    found = adamw(params, grads, AdamWState(3, **turned, seen=state.seen), learning_rate=0.1)
    assert contents(*found) == contents(*wanted)


def test_sums_do_not_depend_on_which_thread_is_first(monkeypatch, many_blocks):
    grads = make_grads(ROWS[0])
    wanted = clip_gradients(grads, 1.0)[1]

    def last_first(jobs, work, num_threads):
        return [(job, work(job)) for job in jobs][::-1]

    monkeypatch.setattr(optim, "work_through", last_first)
    assert clip_gradients(grads, 1.0)[1] == wanted
    with pytest.raises(ValueError, match=r"in 'head\.weight';"):
        clip_gradients(grads | {"head.weight": np.full((3, 18), np.nan)}, 1.0)


# --------------------------------------------------------------------------------- rows that come and go


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_gradient_gives_what_its_dense_gradient_gives(dtype, many_blocks):
    params, state = train(dtype)
    wanted_params, wanted = train(dtype, make=dense)
    assert not wanted.seen and {x.dtype for x in state_and((params, state))} == {np.dtype(dtype), np.dtype(bool)}
    for key in SHAPES:
        for found, right in ((params, wanted_params), (state.m, wanted.m), (state.v, wanted.v)):
            np.testing.assert_array_equal(found[key], right[key], err_msg=key)


def test_unused_rows_only_decay_and_used_rows_move_on():
    params = make_params()
    start, state = params[TABLE], init_adamw(params)
    params, state = adamw(params, make_grads([4]), state, learning_rate=0.5, weight_decay=0.25)
    after_one = params[TABLE]
    params, state = adamw(params, make_grads([9]), state, learning_rate=0.5, weight_decay=0.25)
    assert np.flatnonzero(state.seen[TABLE]).tolist() == [4, 9]
    never = np.setdiff1d(np.arange(23), [4, 9])
    np.testing.assert_array_equal(params[TABLE][never], start[never] * 0.875 * 0.875)
    moved = params[TABLE][4] - after_one[4] * 0.875
    assert (np.sign(moved) == -np.sign(state.m[TABLE][4])).all() and (np.abs(moved) > 0.1).all()
    assert not state.m[TABLE][never].any() and not state.v[TABLE][never].any()


def test_dense_and_row_gradients_may_take_turns(many_blocks):
    def turns(start):
        count = iter(range(start, len(ROWS) + start))
        return lambda grads: dense(grads) if next(count) % 3 == 0 else grads

    wanted = train(make=dense)[0]
    for start in range(3):
        found = train(make=turns(start))[0]
        for key in SHAPES:
            np.testing.assert_array_equal(found[key], wanted[key], err_msg=f"{key}, {start}")


# ---------------------------------------------------------------------------------------------- schedule


def test_warm_up_and_decay_at_their_edges():
    assert [warmup_linear(step, 0, 4) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert [warmup_linear(step, 4, 4) for step in range(6)] == [0.0, 0.25, 0.5, 0.75, 0.0, 0.0]
    assert warmup_linear(0, 1, 1) == 0.0 and warmup_linear(10**9, 3, 10) == 0.0
    factors = [warmup_linear(step, 7, 50) for step in range(60)]
    assert max(factors) == factors[7] == 1.0 and min(factors) == 0.0


# ---------------------------------------------------------------------------------------------- clipping


def whole(grads):
    return np.concatenate([x.ravel() for x in dense(grads).values()])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_shortens_and_keeps_the_direction(dtype, many_blocks):
    grads = make_grads(ROWS[0], dtype)
    before = whole(grads)
    length = float(np.linalg.norm(before.astype(np.float64)))
    clipped, norm = clip_gradients(grads, length / 3)
    assert isinstance(norm, float) and math.isclose(norm, length, rel_tol=1e-14)
    after = whole(clipped)
    assert after.dtype == dtype and isinstance(clipped[TABLE], RowGradient)
    np.testing.assert_allclose(after, before * (length / 3 / (length + 1e-6)), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(whole(grads), before)  # pure
    assert all(clipped[name].flags.fnc for name in FORTRAN)
    for options in ({"num_threads": 3}, {"in_place": True}):
        again, same = clip_gradients(copy.deepcopy(grads), length / 3, **options)
        assert same == norm
        np.testing.assert_array_equal(whole(again), after)
    given = copy.deepcopy(grads)
    again, _ = clip_gradients(given, length / 3, in_place=True)
    assert again["head.weight"] is given["head.weight"] and again[TABLE].values is given[TABLE].values


def test_a_short_gradient_stays_as_it_is():
    grads = make_grads(ROWS[0])
    _, length = clip_gradients(grads, 1.0)
    for max_norm in (1.001 * length, 1.5 * length, 1e6, math.inf):
        same, norm = clip_gradients(grads, max_norm)
        assert same is not grads and all(same[name] is grads[name] for name in grads) and norm > 0
    zero, norm = clip_gradients({"x": np.zeros((2, 3)), "none": np.zeros((0, 3))}, 1.0)
    assert norm == 0.0 and not zero["x"].any()
    assert clip_gradients({}, 1.0) == ({}, 0.0)


def test_float32_squares_neither_overflow_nor_vanish():
    for size in (1e30, 1e-30):
        clipped, norm = clip_gradients({"x": np.full(4, size, np.float32)}, size)
        assert math.isclose(norm, 2 * size, rel_tol=1e-6)
        assert np.isfinite(clipped["x"]).all()


@pytest.mark.parametrize("name", [TABLE, "embeddings.LayerNorm.bias"])
def test_gradients_that_are_not_finite_are_refused_by_name(name, many_blocks):
    params, grads = make_params(), make_grads(ROWS[0])
    state = init_adamw(params)
    array = grads[name].values if name == TABLE else grads[name]
    array[(-1,) * array.ndim] = -math.inf
    before = contents(params, state)
    with pytest.raises(ValueError, match=f"clip_gradients: .*'{name}'"):
        clip_gradients(grads, 1.0)
    with pytest.raises(ValueError, match=f"adamw: .*'{name}'"):
        adamw(params, grads, state, learning_rate=0.1, in_place=True)
    assert contents(params, state) == before, "nothing has been written"


# ---------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_goes_on_bit_for_bit_from_a_file(dtype, tmp_path):
    wanted = contents(*train(dtype))
    params, state = train(dtype, steps=4)
    save_file(state_to_arrays(state), tmp_path / "state.safetensors")
    again = state_from_arrays(load_file(tmp_path / "state.safetensors"), params)
    assert contents(params, again) == contents(params, state)
    for step in range(4, len(ROWS)):
        grads = make_grads(ROWS[step], dtype, step)
        params, again = adamw(params, grads, again, **NUMBERS, in_place=True)
    assert contents(params, again) == wanted


# ------------------------------------------------------------------------------------------------ refusals


def step_with(grads=None, state=None, params=None, **options):
    params = params or make_params()
    return adamw(params, make_grads([0]) | (grads or {}), state or init_adamw(params), learning_rate=0.1, **options)


def rows(numbers, width=6, count=23, dtype=np.float64):
    return {TABLE: RowGradient(np.array(numbers), np.ones((len(numbers), width), dtype), count)}


def restored(drop="", **more):
    arrays = state_to_arrays(init_adamw(make_params()))
    arrays.pop(drop, None)
    return state_from_arrays(arrays | {name.replace("__", "."): x for name, x in more.items()}, make_params())


X = {"x": np.ones((4, 3))}
REFUSED = {
    "another state": ("adamw: .* dict", lambda: step_with(state=vars(init_adamw(make_params())))),
    "the state of another model": (TABLE, lambda: step_with(state=init_adamw({n: np.ones((2, 2)) for n in SHAPES}))),
    "a momentum": ("another optimiser", lambda: restored(momentum__x=np.ones(2))),
    "no step": ("'step'", lambda: restored(drop="step")),
    "a tensor missing": ("head.weight", lambda: restored(drop="m.head.weight")),
    "a tensor too many": ("new", lambda: restored(v__new=np.ones(2))),
    "another shape": ("head.weight", lambda: restored(v__head__weight=np.ones((18, 3)))),
    "rows of another table": (TABLE, lambda: restored(**{f"seen.{TABLE}": np.ones(22, bool)})),
    "rows that are no booleans": (TABLE, lambda: restored(**{f"seen.{TABLE}": np.ones(23)})),
    "rows of no table": ("other", lambda: restored(seen__other=np.ones(23, bool))),
    "a gradient missing": ("missing 'x'", lambda: adamw(X, {}, init_adamw(X), learning_rate=0.1)),
    "a gradient too many": ("unknown 'a'", lambda: step_with({"a": np.ones(1)})),
    "a gradient's shape": (r"head.weight.*\(18, 3\)", lambda: step_with({"head.weight": np.ones((18, 3))})),
    "a gradient's dtype": ("head.weight.*float32", lambda: step_with({"head.weight": np.ones((3, 18), np.float32)})),
    "row_count": (TABLE, lambda: step_with(rows([1], count=22))),
    "width of rows": (TABLE, lambda: step_with(rows([1], width=5))),
    "dtype of rows": (TABLE, lambda: step_with(rows([1], dtype=np.float32))),
    "rows twice": (TABLE, lambda: step_with(rows([1, 1]))),
    "rows that descend": (TABLE, lambda: step_with(rows([2, 1]))),
    "a row below 0": (TABLE, lambda: step_with(rows([-1, 1]))),
    "a row too many": (TABLE, lambda: step_with(rows([1, 23]))),
    "rows in floats": (TABLE, lambda: step_with(rows([1.0]))),
    "rows of a vector": (
        "LayerNorm.bias", lambda: step_with({"embeddings.LayerNorm.bias": RowGradient(np.array([1]), np.ones(1), 6)})
    ),
    "learning_rate": ("learning_rate", lambda: adamw(X, X, init_adamw(X), learning_rate=-0.1)),
    "weight_decay": ("weight_decay", lambda: step_with(weight_decay=math.nan)),
    "num_threads": ("num_threads", lambda: step_with(num_threads=0)),
    "beta1": ("betas", lambda: step_with(betas=(1.0, 0.9))),
    "beta2": ("betas", lambda: step_with(betas=(0.9, -0.1))),
    "eps": ("eps", lambda: step_with(eps=0.0)),
    "integers": ("'ids'", lambda: init_adamw({"ids": np.arange(3)})),
    "float16": ("float16", lambda: init_adamw({"x": np.ones(3, np.float16)})),
    "max_norm 0": ("max_norm", lambda: clip_gradients(X, 0.0)),
    "max_norm NaN": ("max_norm", lambda: clip_gradients(X, math.nan)),
    "threads of clipping": ("num_threads", lambda: clip_gradients(X, 1.0, num_threads=0)),
    "a step below 0": ("step -1", lambda: warmup_linear(-1, 0, 5)),
    "a warm-up longer than training": ("warmup_steps 6", lambda: warmup_linear(0, 6, 5)),
    "no steps": ("total_steps 0", lambda: warmup_linear(0, 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    words, call = REFUSED[what]
    with pytest.raises(ValueError, match=words):
        call()


def test_what_cannot_be_overwritten_is_refused_in_place_alone():
    frozen = np.ones((4, 3))
    frozen.flags.writeable = False
    tied = np.ones(3)
    for params in ({"x": frozen}, {"x": np.ones((8, 3))[::2]}, {"x": tied, "y": tied}):
        grads = {name: np.ones_like(x) for name, x in params.items()}
        with pytest.raises(ValueError, match="in_place=True"):
            adamw(params, grads, init_adamw(params), learning_rate=0.1, in_place=True)
        adamw(params, grads, init_adamw(params), learning_rate=0.1)
    turned = init_adamw({"x": np.asfortranarray(X["x"])})
    with pytest.raises(ValueError, match="in_place=True"):
        adamw(X, X, turned, learning_rate=0.1, in_place=True)


def test_tensors_without_numbers_and_models_without_tensors():
    params = {"empty": np.ones((0, 3)), "table": np.ones((4, 0)), "number": np.array(2.0)}
    grads = {"empty": np.ones((0, 3)), "table": RowGradient(np.array([1]), np.ones((1, 0)), 4), "number": np.array(1.0)}
    new, state = adamw(params, grads, init_adamw(params), **NUMBERS)
    assert new["number"].shape == () and new["number"] < 2.0 and state.step == 1
    assert adamw({}, {}, init_adamw({}), **NUMBERS)[0] == {}
