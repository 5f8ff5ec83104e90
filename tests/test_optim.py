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


def test_no_argument_changes(many_blocks):
    params, grads = make_params(), make_grads(ROWS[0])
    state = init_adamw(params)
    for _ in range(2):  # the second time there is a mask of rows
        kept = copy.deepcopy((params, state, grads))
        for array in [*params.values(), *dense_arrays(grads), *state_to_arrays(state).values()]:
            array.flags.writeable = False
        result = adamw(params, grads, state, **NUMBERS)
        assert contents(params, state) == contents(*kept[:2])
        assert [x.tobytes() for x in dense_arrays(grads)] == [x.tobytes() for x in dense_arrays(kept[2])]
        assert result[0].keys() == params.keys() and not any(
            np.shares_memory(a, b) for a in state_and(result) for b in [*state_and((params, state))]
        )
        params, state = result


def dense_arrays(grads):
    return [g.values if isinstance(g, RowGradient) else g for g in grads.values()]


def state_and(result):
    params, state = result
    parts = [params, *(part for kind, part in vars(state).items() if kind != "step")]
    return [array for part in parts for array in part.values()]


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


def test_a_table_in_fortran_order_and_tensors_with_gaps(many_blocks):
    params = make_params()
    odd = dict(params) | {TABLE: np.asfortranarray(params[TABLE]), "head.weight": np.zeros((6, 18))[::2]}
    odd["head.weight"][:] = params["head.weight"]
    state, odd_state = init_adamw(params), init_adamw(odd)
    for step, rows in enumerate(ROWS):
        grads = make_grads(rows, seed=step)
        params, state = adamw(params, grads, state, learning_rate=0.01)
        odd, odd_state = adamw(odd, grads, odd_state, learning_rate=0.01)
    for name in SHAPES:
        np.testing.assert_array_equal(odd[name], params[name])
    assert odd[TABLE].flags.fnc and odd["head.weight"].flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept(dtype):
    assert {array.dtype for array in state_and(train(dtype, steps=2))} == {np.dtype(dtype), np.dtype(bool)}


# --------------------------------------------------------------------------------- rows that come and go


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_gradient_gives_what_its_dense_gradient_gives(dtype, many_blocks):
    params, state = train(dtype)
    wanted_params, wanted = train(dtype, make=dense)
    assert not wanted.seen
    for key in SHAPES:
        np.testing.assert_array_equal(params[key], wanted_params[key], err_msg=key)
        for part in set(vars(state)) - {"step", "seen"}:
            np.testing.assert_array_equal(vars(state)[part][key], vars(wanted)[part][key], err_msg=f"{part} {key}")


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


def test_only_rows_ever_seen_are_worked_on():
    """Moments of a row outside the mask are not read: zeros there are what the mask promises."""
    params = make_params()
    _, state = adamw(params, make_grads([4]), init_adamw(params), learning_rate=0.1)
    state.m[TABLE][11] = np.nan
    new, _ = adamw(params, make_grads([9]), state, learning_rate=0.1)
    assert np.isfinite(new[TABLE]).all()


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


@pytest.mark.parametrize("numbers", [(-1, 0, 5), (0, -1, 5), (0, 6, 5), (0, 0, 0)])
def test_a_schedule_that_cannot_be_is_refused(numbers):
    with pytest.raises(ValueError, match="warmup_linear: expected step >= 0"):
        warmup_linear(*numbers)


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


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_a_length_that_is_not_above_zero_is_refused(max_norm):
    with pytest.raises(ValueError, match="clip_gradients: expected max_norm above 0"):
        clip_gradients({"x": np.ones(2)}, max_norm)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("in_place", [False, True])
def test_gradients_that_are_not_finite_are_refused_by_name(broken, in_place, many_blocks):
    for names in ([TABLE], ["head.weight", TABLE], ["embeddings.LayerNorm.bias"]):
        grads = make_grads(ROWS[0])
        for name in names:
            array = grads[name].values if name == TABLE else grads[name]
            array[(-1,) * array.ndim] = broken
        said = ", ".join(repr(name) for name in SHAPES if name in names)
        with pytest.raises(ValueError, match=f"clip_gradients: .* in {said};"):
            clip_gradients(grads, 1.0, in_place=in_place)
        params = make_params()
        state = init_adamw(params)
        before = contents(params, state)
        with pytest.raises(ValueError, match=f"adamw: .* in {said};"):
            adamw(params, grads, state, learning_rate=0.1, in_place=in_place)
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


def test_a_state_of_something_else_is_refused():
    params = make_params()
    state, arrays = init_adamw(params), state_to_arrays(init_adamw(params))
    with pytest.raises(ValueError, match="is this the state of another optimiser"):
        state_from_arrays({f"momentum.{name}": x for name, x in params.items()}, params)
    with pytest.raises(ValueError, match=r"missing 'head\.weight'"):
        state_from_arrays({k: v for k, v in arrays.items() if k != "m.head.weight"}, params)
    with pytest.raises(ValueError, match=r"unknown 'new\.weight'"):
        state_from_arrays(arrays | {"v.new.weight": np.ones(2)}, params)
    with pytest.raises(ValueError, match=r"the state of 'head.weight' with shape \(3, 18\)"):
        state_from_arrays(arrays | {"v.head.weight": np.ones((18, 3))}, params)
    with pytest.raises(ValueError, match="expected 'step'"):
        state_from_arrays({k: v for k, v in arrays.items() if k != "step"}, params)
    for mask in (np.ones(22, bool), np.ones(23)):
        with pytest.raises(ValueError, match=r"rows seen of 'embeddings\.word"):
            state_from_arrays(arrays | {f"seen.{TABLE}": mask}, params)
    with pytest.raises(ValueError, match="rows seen of 'other'"):
        state_from_arrays(arrays | {"seen.other": np.ones(23, bool)}, params)
    with pytest.raises(ValueError, match="adamw: expected a state from init_adamw, got dict"):
        adamw(params, make_grads([0]), vars(state), learning_rate=0.1)
    other = {name: np.ones((2, 2)) for name in SHAPES}
    with pytest.raises(ValueError, match=r"the state of 'embeddings\.word.*another model"):
        adamw(params, make_grads([0]), init_adamw(other), learning_rate=0.1)


# ------------------------------------------------------------------------------------------------ refusals


def test_names_must_fit():
    params, grads = make_params(), make_grads([0])
    state = init_adamw(params)
    with pytest.raises(ValueError, match=r"a gradient for each of the 6 tensors .*missing 'head\.weight'"):
        adamw(params, {k: g for k, g in grads.items() if k != "head.weight"}, state, learning_rate=0.1)
    with pytest.raises(ValueError, match="unknown 'a', 'b', 'c' and 1 more"):
        adamw(params, grads | {k: np.ones(1) for k in "abcd"}, state, learning_rate=0.1)


@pytest.mark.parametrize(
    ("name", "grad", "message"),
    [
        ("head.weight", np.ones((18, 3)), r"got \(18, 3\)"),
        ("head.weight", np.ones((3, 18), np.float32), "float64, got .* float32"),
        (TABLE, RowGradient(np.array([1]), np.ones((1, 6)), 22), ""),
        (TABLE, RowGradient(np.array([1]), np.ones((1, 5)), 23), ""),
        (TABLE, RowGradient(np.array([1]), np.ones((2, 6)), 23), ""),
        (TABLE, RowGradient(np.array([1]), np.ones((1, 6), np.float32), 23), ""),
        (TABLE, RowGradient(np.array([1, 1]), np.ones((2, 6)), 23), ""),
        (TABLE, RowGradient(np.array([2, 1]), np.ones((2, 6)), 23), ""),
        (TABLE, RowGradient(np.array([-1, 1]), np.ones((2, 6)), 23), ""),
        (TABLE, RowGradient(np.array([1, 23]), np.ones((2, 6)), 23), ""),
        (TABLE, RowGradient(np.array([1.0]), np.ones((1, 6)), 23), ""),
        ("head.weight", RowGradient(np.array([1]), np.ones((1, 6)), 23), ""),
        ("embeddings.LayerNorm.bias", RowGradient(np.array([1]), np.ones(1), 6), ""),
    ],
)
def test_gradients_must_fit(name, grad, message):
    params = make_params()
    with pytest.raises(ValueError, match=f"gradient of '{name}'.*{message}" if message else f"RowGradient of '{name}'"):
        adamw(params, make_grads([0]) | {name: grad}, init_adamw(params), learning_rate=0.1)


@pytest.mark.parametrize(
    "number",
    [
        {"learning_rate": -0.1},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"weight_decay": -1.0},
        {"weight_decay": math.nan},
        {"num_threads": 0},
        {"betas": (1.0, 0.9)},
        {"betas": (0.9, -0.1)},
        {"betas": (0.9, math.nan)},
        {"eps": 0.0},
        {"eps": math.inf},
    ],
)
def test_numbers_out_of_range_are_refused(number):
    params, grads = {"x": np.ones(2)}, {"x": np.ones(2)}
    (name,) = number
    with pytest.raises(ValueError, match=f"adamw: expected .*{name}"):
        adamw(params, grads, init_adamw(params), **{"learning_rate": 0.1} | number)
    if name == "num_threads":
        with pytest.raises(ValueError, match="clip_gradients: expected num_threads"):
            clip_gradients(grads, 1.0, **number)


def test_tensors_that_cannot_be_trained_are_refused():
    with pytest.raises(ValueError, match="init_adamw: expected tensors in float32 or float64, got int64 in 'ids'"):
        init_adamw({"ids": np.arange(3)})
    with pytest.raises(ValueError, match=r"init_adamw: .* float16"):
        init_adamw({"x": np.ones(3, np.float16)})


def test_what_cannot_be_overwritten_is_refused_in_place_alone():
    grads = {"x": np.ones((4, 3))}
    frozen = np.ones((4, 3))
    frozen.flags.writeable = False
    for param in (frozen, np.ones((8, 3))[::2]):
        params = {"x": param}
        with pytest.raises(ValueError, match="adamw: expected 'x' and its state to be writeable"):
            adamw(params, grads, init_adamw(params), learning_rate=0.1, in_place=True)
        adamw(params, grads, init_adamw(params), learning_rate=0.1)
    turned = init_adamw({"x": np.asfortranarray(np.ones((4, 3)))})
    with pytest.raises(ValueError, match="adamw: expected 'x' and its state to be writeable and to lie"):
        adamw({"x": np.ones((4, 3))}, grads, turned, learning_rate=0.1, in_place=True)
    tied = {"x": np.ones(3), "y": np.ones(3)}
    tied["y"] = tied["x"]
    with pytest.raises(ValueError, match="two names share one array"):
        adamw(tied, {"x": np.ones(3), "y": np.ones(3)}, init_adamw(tied), learning_rate=0.1, in_place=True)


def test_tensors_without_numbers_and_models_without_tensors():
    params = {"empty": np.ones((0, 3)), "table": np.ones((4, 0)), "number": np.array(2.0)}
    grads = {"empty": np.ones((0, 3)), "table": RowGradient(np.array([1]), np.ones((1, 0)), 4), "number": np.array(1.0)}
    new, state = adamw(params, grads, init_adamw(params), **NUMBERS)
    assert new["number"].shape == () and new["number"] < 2.0 and state.step == 1
    assert adamw({}, {}, init_adamw({}), **NUMBERS)[0] == {}
