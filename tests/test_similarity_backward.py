"""The gradients of the similarities: by finite differences, by hand, by properties, at kinks, and against autograd."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_oracle import THIRD_PARTY_WARNINGS, Figures, relative

from minisbert import similarity

pytestmark = [pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS]

NAMES = ["cos_sim", "dot_score", "pairwise_cos_sim", "pairwise_euclidean_sim", "pairwise_manhattan_sim"]
COSINES = ["cos_sim", "pairwise_cos_sim"]
FLOATS = [np.float32, np.float64]
# Largest relative errors over all tests here, measured, times 10: another processor may add in another order.
FINITE_DIFFERENCES = 7e-9  # measured 6.8e-10; the house asks for 1e-7
AUTOGRAD = 8e-15  # measured 7.7e-16 but for the angle; the house asks for 1e-9
AUTOGRAD_FLOAT32 = 2.5e-6  # measured 2.3e-7


@pytest.fixture
def figures(record_property):
    return Figures(record_property)


def both(name):
    """The function and its backward."""
    return getattr(similarity, name), getattr(similarity, f"{name}_backward")


def rows_for(name, rows_a=5, rows_b=7, width=6, seed=0, dtype=np.float64):
    """Random rows, as many on both sides where they are compared in pairs, and an upstream gradient."""
    rng = np.random.default_rng(seed)
    rows_b = rows_a if name.startswith("pairwise") else rows_b
    a, b = rng.normal(size=(rows_a, width)), rng.normal(size=(rows_b, width))
    upstream = rng.normal(size=(rows_a,) if name.startswith("pairwise") else (rows_a, rows_b))
    return upstream.astype(dtype), a.astype(dtype), b.astype(dtype)


def slope(function, step=1e-3):
    """Derivative at 0 of a function of one number: centred, of fourth order, so off by about step^4."""
    return (8 * (function(step) - function(-step)) - (function(2 * step) - function(-2 * step))) / (12 * step)


# ------------------------------------------------------------------------------------------- finite differences


# of one dimension, vectors have no angle between them but 0 and half a turn: tested below
SIZED = [(name, width) for name in NAMES for width in (1, 2, 6, 50) if width > 1 or name not in COSINES]


@pytest.mark.parametrize(("name", "width"), SIZED)
def test_slope_along_random_directions(name, width, figures):
    forward, backward = both(name)
    worst = 0.0
    for seed in range(10):
        upstream, a, b = rows_for(name, width=width, seed=seed)
        toward_a, toward_b = (np.random.default_rng(seed + 99).normal(size=x.shape) for x in (a, b))
        if not name.endswith(("cos_sim", "dot_score")):  # a step must stay away from kinks
            toward_a, toward_b = toward_a * 1e-2, toward_b * 1e-2
        d_a, d_b = backward(upstream, a, b)
        for direction_a, direction_b in ((toward_a, 0 * b), (0 * a, toward_b), (toward_a, toward_b)):
            measured = slope(lambda t: (upstream * forward(a + t * direction_a, b + t * direction_b)).sum())  # noqa: B023
            ours = (d_a * direction_a).sum() + (d_b * direction_b).sum()
            # in units of what is added up, so that a sum that happens to be small is no error
            size = np.abs(d_a * direction_a).sum() + np.abs(d_b * direction_b).sum()
            worst = max(worst, abs(ours - measured) / size)
    figures(f"{name}, D = {width}, against finite differences", worst, FINITE_DIFFERENCES)


@pytest.mark.parametrize("name", NAMES)
def test_slope_along_every_number(name, figures):
    forward, backward = both(name)
    upstream, a, b = rows_for(name, rows_a=3, rows_b=4, width=3, seed=1)
    gradients = backward(upstream, a, b)
    for which, (rows, ours) in enumerate(zip((a, b), gradients, strict=True)):
        measured = np.empty_like(rows)
        for place in np.ndindex(rows.shape):
            unit = np.zeros_like(rows)
            unit[place] = 1.0
            moved = (lambda t: (a + t * unit, b)) if which == 0 else (lambda t: (a, b + t * unit))  # noqa: B023
            measured[place] = slope(lambda t: (upstream * forward(*moved(t))).sum(), 2e-4)  # noqa: B023
        figures(f"{name}, d_{'ab'[which]}", relative(ours, measured), FINITE_DIFFERENCES)


# ------------------------------------------------------------------------------------------------------ by hand


@pytest.mark.parametrize(
    ("name", "d_u", "d_v"),  # u = (3, 4) and v = (0, 2), cosine 0.8; upstream 10
    [
        ("cos_sim", [-0.96, 0.72], [3.0, 0.0]),  # (v' - 0.8 u') / 5 * 10, (u' - 0.8 v') / 2 * 10
        ("pairwise_cos_sim", [-0.96, 0.72], [3.0, 0.0]),
        ("dot_score", [0.0, 20.0], [30.0, 40.0]),
        ("pairwise_euclidean_sim", np.array([-30, -20]) / math.sqrt(13), np.array([30, 20]) / math.sqrt(13)),
        ("pairwise_manhattan_sim", [-10.0, -10.0], [10.0, 10.0]),
    ],
)
def test_by_hand(name, d_u, d_v):
    ours = both(name)[1]([10.0] if name.startswith("pairwise") else [[10.0]], [[3, 4]], [[0, 2]])
    np.testing.assert_allclose(ours[0], [d_u], rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(ours[1], [d_v], rtol=1e-14, atol=1e-15)


# --------------------------------------------------------------------------------------------------- kinks, digits


@pytest.mark.parametrize("name", ["pairwise_euclidean_sim", "pairwise_manhattan_sim"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_rows_give_exactly_nothing(name, dtype):
    upstream, a, _ = rows_for(name, dtype=dtype)
    for d_x in both(name)[1](upstream, a, a.copy()):
        assert not d_x.any()


def test_manhattan_has_a_kink_in_each_coordinate():
    d_a, d_b = similarity.pairwise_manhattan_sim_backward([2.0], [[1.0, 5.0, 1.0]], [[1.0, 7.0, 0.0]])
    np.testing.assert_array_equal(d_a, [[0, 2, -2]])
    np.testing.assert_array_equal(d_b, [[0, -2, 2]])


@pytest.mark.parametrize("name", COSINES)
def test_in_one_dimension_nothing_can_turn(name):
    upstream, a, b = rows_for(name, width=1)
    for d_x in both(name)[1](upstream, a, b):
        assert np.abs(d_x).max() <= 1e-15


def test_the_clipping_of_the_cosine_is_not_differentiated():
    """A cosine that rounds to above 1 has a gradient of about 0, and one that does not has no other."""
    a = np.random.default_rng(0).normal(size=(300, 384)).astype(np.float32)
    unit = a / np.linalg.norm(a, axis=1, keepdims=True)
    clipped = np.einsum("bd,bd->b", unit, unit) > 1
    assert clipped.any() and not clipped.all()
    b = a + np.float32(1e-4) * np.random.default_rng(1).normal(size=a.shape).astype(np.float32)
    d_a, _ = similarity.pairwise_cos_sim_backward(np.ones(300, np.float32), a, b)
    exact, _ = similarity.pairwise_cos_sim_backward(np.ones(300), a.astype(float), b.astype(float))
    assert (similarity.pairwise_cos_sim(a, b) == 1).any()
    assert np.abs(d_a).max(axis=1).min() > 0
    np.testing.assert_allclose(d_a, exact, rtol=0, atol=1e-7 / 15)  # an eps of a unit vector, over |a|


def test_close_rows_keep_their_direction():
    rng = np.random.default_rng(0)
    a = (rng.normal(size=(1, 384)) + 10).astype(np.float32)
    b = a + (rng.normal(size=(1, 384)) * 1e-4).astype(np.float32)
    difference = a.astype(np.longdouble) - b
    exact = (-difference / np.linalg.norm(difference)).astype(float)
    d_a, d_b = similarity.pairwise_euclidean_sim_backward(np.ones(1, np.float32), a, b)
    np.testing.assert_allclose(d_a, exact, rtol=1e-5)
    np.testing.assert_allclose(d_b, -exact, rtol=1e-5)
    weight = np.float32(1 / np.linalg.norm(difference))
    shortcut = weight * b - weight * a.astype(np.float32)  # two matrix products for many rows: no digits left
    assert np.abs(shortcut - exact).max() > 1e-4  # entries are about 0.05


@pytest.mark.parametrize("name", COSINES)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_lengths_that_overflow_when_squared(name, size):
    upstream, a, b = rows_for(name, dtype=np.float32)
    size = np.float32(size)
    ours = both(name)[1](upstream, a * size, b * size)
    for d_x, expected in zip(ours, both(name)[1](upstream, a, b), strict=True):
        assert d_x.dtype == np.float32
        np.testing.assert_allclose(
            d_x.astype(float) * float(size), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
        )


# ------------------------------------------------------------------------------------------------------ properties


seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.sampled_from(COSINES), st.floats(1e-3, 1e3))
def test_the_cosine_has_gradients_at_right_angles_that_shrink_as_rows_grow(seed, name, factor):
    _, backward = both(name)
    upstream, a, b = rows_for(name, seed=seed)
    d_a, d_b = backward(upstream, a, b)
    for rows, d_rows in ((a, d_a), (b, d_b)):
        along = np.einsum("bd,bd->b", rows, d_rows)
        assert np.abs(along).max() <= 1e-13 * np.abs(rows * d_rows).sum()
    longer, _ = backward(upstream, a * factor, b)
    np.testing.assert_allclose(longer * factor, d_a, rtol=0, atol=1e-12 * np.abs(d_a).max())


@given(seeds, st.sampled_from(["pairwise_euclidean_sim", "pairwise_manhattan_sim"]))
def test_moving_everything_along_changes_no_distance(seed, name):
    upstream, a, b = rows_for(name, seed=seed)
    d_a, d_b = both(name)[1](upstream, a, b)
    np.testing.assert_allclose(d_a + d_b, 0, atol=1e-12)


@given(seeds, st.sampled_from(NAMES))
def test_linear_in_the_upstream_gradient_and_the_same_both_ways(seed, name):
    _, backward = both(name)
    upstream, a, b = rows_for(name, seed=seed)
    more = np.random.default_rng(seed + 1).normal(size=upstream.shape)
    for total, first, second in zip(
        backward(2 * upstream + more, a, b), backward(upstream, a, b), backward(more, a, b), strict=True
    ):
        np.testing.assert_allclose(total, 2 * first + second, rtol=0, atol=1e-12 * np.abs(total).max())
    d_a, d_b = backward(upstream, a, b)
    d_b_too, d_a_too = backward(upstream.T, b, a)
    np.testing.assert_allclose(d_a, d_a_too, rtol=0, atol=1e-12 * np.abs(d_a).max())
    np.testing.assert_allclose(d_b, d_b_too, rtol=0, atol=1e-12 * np.abs(d_b).max())


# ----------------------------------------------------------------------------------------- blocks, dtypes, shapes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype_a", "dtype_b", "expected"),
    [
        (np.float32, np.float32, np.float32),
        (np.float16, np.float32, np.float32),
        (np.float32, np.float64, np.float64),
        (np.int64, np.float32, np.float64),
        (np.float64, np.float64, np.float64),
    ],
)
def test_dtypes(name, dtype_a, dtype_b, expected):
    upstream = np.array([[0.5]] if not name.startswith("pairwise") else [0.5])
    a, b = np.array([[1, 0, 2]], dtype_a), np.array([[1, 1, 0]], dtype_b)
    for d_x in both(name)[1](upstream, a, b):
        assert d_x.dtype == expected and d_x.shape == (1, 3)
    assert both(name)[0](a, b).dtype == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_float32_agrees_with_float64_and_arguments_are_not_changed(name, dtype):
    upstream, a, b = rows_for(name, width=384, dtype=dtype)
    copies = upstream.copy(), a.copy(), b.copy()
    for argument in (upstream, a, b):
        argument.flags.writeable = False
    ours = both(name)[1](upstream, a, b)
    exact = both(name)[1](*(x.astype(np.float64) for x in copies))
    for d_x, expected in zip(ours, exact, strict=True):
        assert d_x.dtype == dtype
        assert not any(np.shares_memory(d_x, x) for x in (upstream, a, b))
        assert relative(d_x, expected) <= (1e-5 if dtype == np.float32 else 0)
    for argument, copy in zip((upstream, a, b), copies, strict=True):
        np.testing.assert_array_equal(argument, copy)


@pytest.mark.parametrize("name", NAMES)
def test_memory_order_is_free(name):
    upstream, a, b = rows_for(name)
    expected = both(name)[1](upstream, a, b)
    ours = both(name)[1](np.asfortranarray(upstream), np.asfortranarray(a), np.asfortranarray(b))
    for d_x, d_y in zip(ours, expected, strict=True):
        np.testing.assert_allclose(d_x, d_y, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_and_single_vectors(name):
    forward, backward = both(name)
    none = np.empty((0, 5), np.float32)
    d_a, d_b = backward(forward(none, none), none, none)
    assert d_a.shape == d_b.shape == (0, 5) and d_a.dtype == np.float32
    u, v = np.array([1.0, 2.0]), np.array([3.0, -1.0])
    upstream = 2 * np.ones_like(forward(u, v))
    for d_x, expected in zip(backward(upstream, u, v), backward(upstream, u[None], v[None]), strict=True):
        assert d_x.shape == (1, 2)
        np.testing.assert_array_equal(d_x, expected)
    if not name.startswith("pairwise"):
        d_a, d_b = backward(np.empty((0, 2)), np.empty((0, 5)), np.ones((2, 5)))
        assert d_a.shape == (0, 5) and not d_b.any() and d_b.shape == (2, 5)


# ------------------------------------------------------------------------------------------------------- the house


def test_each_backward_stands_directly_under_its_forward():
    """Or under it and its private helpers: no public function comes between."""
    named = [item for item in vars(similarity).items() if inspect.isfunction(item[1]) and not item[0].startswith("_")]
    lines = {name: f.__code__.co_firstlineno for name, f in named if f.__module__ == similarity.__name__}
    public = sorted(lines, key=lines.get)
    assert [name for name in public if name.endswith("_backward")] == [
        f"{name}_backward" for name in sorted(NAMES, key=lines.get)
    ]
    assert all(public[public.index(name) + 1] == f"{name}_backward" for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_errors_name_the_function_and_what_came(name):
    _, backward = both(name)
    upstream, a, b = rows_for(name, rows_a=2, rows_b=2)
    named = rf"^{name}_backward: "
    with pytest.raises(ValueError, match=named + r"the upstream gradient .* one for each score .* its shape is \(9,\)"):
        backward(np.ones(9), a, b)
    broken = upstream.copy()
    broken.flat[0] = np.nan
    with pytest.raises(ValueError, match=named + r"the upstream gradient must hold finite .* NaN or Inf"):
        backward(broken, a, b)
    with pytest.raises(ValueError, match=named + "a .* must have the same width"):
        backward(upstream, a, b[:, 1:])
    with pytest.raises(ValueError, match=named + ".*NaN or Inf in row 1"):
        backward(upstream, a, np.where(np.arange(2)[:, None] == 1, np.inf, b))
    if name in COSINES:
        with pytest.raises(ValueError, match=named + "every row of a must have a direction"):
            backward(upstream, a * 0, b)
    else:
        with pytest.raises(ValueError, match=named + "entries must be at most"):
            backward(upstream, a * 1e200, b)


# ------------------------------------------------------------------------------------------------ against autograd


def autograd(name, upstream, a, b):
    """PyTorch's gradients, through sentence-transformers' function."""
    import torch
    from sentence_transformers import util

    x, y = (torch.from_numpy(rows).requires_grad_() for rows in (a, b))
    scores = getattr(util, name)(x, y)
    scores.backward(torch.from_numpy(upstream))
    return x.grad.numpy(), y.grad.numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [2, 6, 384])
def test_equal_to_autograd(name, width, sentence_transformers, figures):
    upstream, a, b = rows_for(name, rows_a=20, rows_b=25, width=width)
    for which, ours, theirs in zip("ab", both(name)[1](upstream, a, b), autograd(name, upstream, a, b), strict=True):
        figures(f"{name}, D = {width}, d_{which}, float64", relative(ours, theirs), AUTOGRAD)


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_autograd_in_float32(name, sentence_transformers, figures):
    upstream, a, b = rows_for(name, rows_a=20, rows_b=25, width=384, dtype=np.float32)
    reference = autograd(name, *(x.astype(np.float64) for x in (upstream, a, b)))
    theirs = autograd(name, upstream, a, b)
    for which, ours, exact, other in zip("ab", both(name)[1](upstream, a, b), reference, theirs, strict=True):
        assert ours.dtype == other.dtype == np.float32
        figures(f"{name}, d_{which}, float32", relative(ours, exact), AUTOGRAD_FLOAT32)
        print(f"\n  PyTorch's own: {relative(other, exact):.3g}", end="")


@pytest.mark.parametrize("name", ["pairwise_euclidean_sim", "pairwise_manhattan_sim"])
def test_kinks_are_those_of_autograd(name, sentence_transformers):
    a = np.array([[1.0, 2.0], [0.0, 5.0]])
    b = np.array([[1.0, 2.0], [1.0, 5.0]])
    upstream = np.array([3.0, 2.0])
    for ours, theirs in zip(both(name)[1](upstream, a, b), autograd(name, upstream, a, b), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)
