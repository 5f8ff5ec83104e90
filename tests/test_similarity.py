"""Similarities, their gradients and distances: by hand, against other libraries, by properties, and errors."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch_oracle import THIRD_PARTY_WARNINGS, Figures, relative

from minisbert import similarity
from minisbert.similarity import (
    CONVERSIONS,
    ROUNDING,
    angular_distance,
    cos_sim,
    dot_score,
    euclidean_sim,
    pairwise_cos_sim,
    to_distance,
    to_similarity,
)

pytestmark = [pytest.mark.usefixtures("one_thread"), *(pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS)]

NAMES = ["cos_sim", "dot_score", "euclidean_sim", "manhattan_sim"]
MATRIX = [*NAMES, "angular_distance"]
BACKWARD = ["cos_sim", "dot_score", "pairwise_cos_sim", "pairwise_euclidean_sim", "pairwise_manhattan_sim"]
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# Largest relative errors, measured, times 10: another processor may add in another order.
AUTOGRAD = {np.float64: 8e-15, np.float32: 2.5e-6}  # measured 7.7e-16, 2.3e-7


def call(name, *arguments):
    return getattr(similarity, name)(*arguments)


def both(name):
    """The function for all rows against all rows, and the one for pairs."""
    return getattr(similarity, name), getattr(similarity, f"pairwise_{name}")


def random_rows(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ----------------------------------------------------------------------------------------------------- by hand

A = [[3.0, 4.0], [0.0, -2.0]]
B = [[4.0, 3.0], [-3.0, -4.0], [5.0, 0.0]]
BY_HAND = {
    "cos_sim": [[0.96, -1, 0.6], [-0.6, 0.8, 0]],
    "dot_score": [[24, -25, 15], [-6, 8, 0]],
    "euclidean_sim": [[-math.sqrt(2), -10, -math.sqrt(20)], [-math.sqrt(41), -math.sqrt(13), -math.sqrt(29)]],
    "manhattan_sim": [[-2, -14, -6], [-9, -5, -7]],
    "angular_distance": np.arccos([[0.96, -1, 0.6], [-0.6, 0.8, 0]]) / math.pi,
}


@pytest.mark.parametrize("name", MATRIX)
def test_numbers_worked_by_hand(name):
    matrix, pairwise = both(name)
    close = {"rtol": 1e-14, "atol": 1e-15}
    np.testing.assert_allclose(matrix(A, B), BY_HAND[name], **close)
    np.testing.assert_allclose(pairwise(A, B[:2]), np.diag(BY_HAND[name]), **close)
    assert matrix(A, B[0]).shape == (2, 1) and pairwise(A[0], B[0]).shape == (1,)  # a vector counts as one row
    none = np.empty((0, 2), np.float32)
    assert matrix(none, B).shape == (0, 3) and matrix(A, none).shape == (2, 0) and pairwise(none, none).shape == (0,)


# --------------------------------------------------------------------------------------------- other libraries


@pytest.mark.parametrize("name", NAMES)
@FLOATS
def test_equal_to_sentence_transformers(name, dtype, sentence_transformers):
    util = sentence_transformers.util
    # dot products of 384 numbers in float32: measured 3e-5 where they are added one after the other
    rtol, atol = (1e-12, 1e-12) if dtype == np.float64 else (2e-6, 1e-4 if name == "dot_score" else 1e-6)
    for width in (1, 7, 384):
        a, b = random_rows(20, width, dtype=dtype), random_rows(23, width, dtype=dtype, seed=1)
        for function, rows in ((name, b), (f"pairwise_{name}", b[:20])):
            theirs = getattr(util, function)(a, rows).numpy()
            assert call(function, a, rows).dtype == theirs.dtype
            np.testing.assert_allclose(call(function, a, rows), theirs, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", BACKWARD)
@FLOATS
def test_gradients_equal_to_autograd(name, dtype, sentence_transformers, torch, record_property):
    for width in (2, 6, 384):
        a, b = random_rows(20, width), random_rows(20 if name.startswith("pairwise") else 25, width, seed=1)
        b[3], a[4, 0] = a[3], b[4, 0]  # kinks
        upstream = random_rows(*call(name, a, b).shape, seed=2)
        if name.endswith("cos_sim"):
            b[3] += 1.0  # where PyTorch differentiates its clamp of |u|, and nothing else differs
        given = [x.astype(dtype) for x in (upstream, a, b)]
        x, y = (torch.from_numpy(rows.astype(np.float64)).requires_grad_() for rows in given[1:])
        getattr(sentence_transformers.util, name)(x, y).backward(torch.from_numpy(given[0].astype(np.float64)))
        for ours, theirs in zip(call(f"{name}_backward", *given), (x.grad, y.grad), strict=True):
            assert ours.dtype == dtype
            Figures(record_property)(f"{name}, D = {width}", relative(ours, theirs.numpy()), AUTOGRAD[dtype])


# ------------------------------------------------------------------------------------------------- properties


SIZE = st.floats(np.float32(1e-3).item(), 1000, width=32)
ENTRY = st.one_of(st.just(0.0), SIZE, SIZE.map(lambda value: -value))
FOUR_ROWS = st.integers(1, 6).flatmap(lambda width: arrays(np.float32, (4, width), elements=ENTRY))
DTYPES = ["f2", "f4", ">f4", "f8", "i1", "i8", "u1", "?"]


@given(st.sampled_from(MATRIX), st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 99))
def test_any_dtype_and_order_give_the_numbers_of_float64(name, of_a, of_b, by_columns, seed):
    matrix, pairwise = both(name)
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(1, 100, (4, 3)).astype(dtype, order="F" if by_columns else "C") for dtype in (of_a, of_b))
    wide = a.astype(np.float64), b.astype(np.float64)
    narrow = {of_a, of_b} <= {"f2", "f4", ">f4"}
    a.flags.writeable = b.flags.writeable = False
    for function in (matrix, pairwise):
        result = function(a, b)
        assert result.dtype == (np.float32 if narrow else np.float64) and result.dtype.isnative
        np.testing.assert_allclose(result, function(*wide), rtol=1e-5, atol=1e-6)
        assert result.flags.writeable and not (np.shares_memory(result, a) or np.shares_memory(result, b))
    np.testing.assert_allclose(pairwise(a, b), np.diag(matrix(a, b)), rtol=1e-5, atol=1e-6)
    if f"{name}_backward" in similarity.__all__:
        for d_x in call(f"{name}_backward", np.ones((4, 4)), a, b):
            assert d_x.dtype == (np.float32 if narrow else np.float64) and d_x.shape == (4, 3)


@given(FOUR_ROWS.filter(lambda x: x.any(axis=1).all()))
def test_ranges_symmetry_and_exact_zeros(x):
    zero = np.zeros_like(x)
    assert not cos_sim(x, zero).any() and not pairwise_cos_sim(zero, x).any()  # a row of zeros is like nothing
    for negated in (x, -x):
        assert (np.abs(cos_sim(x, negated)) <= 1).all() and (euclidean_sim(x, negated) <= 0).all()
        assert ((angular_distance(x, negated) >= 0) & (angular_distance(x, negated) <= 1)).all()
    for name in MATRIX:
        matrix, pairwise = both(name)
        np.testing.assert_allclose(matrix(x[:2], x), matrix(x, x[:2]).T, rtol=1e-6, atol=1e-6)
        if name in ("euclidean_sim", "manhattan_sim", "angular_distance"):
            assert not np.diag(matrix(x, x.copy())).any() and not pairwise(x, x.copy()).any()


@FLOATS
def test_cosine_and_angle_do_not_overflow_or_vanish(dtype):
    x, limits = random_rows(4, 384, dtype=dtype), np.finfo(dtype)
    for scale in (dtype(limits.max) / 8, dtype(limits.tiny), dtype(limits.max) ** dtype(0.7)):
        for one, other in ((x * scale, x), (x, x * scale), (x * scale, x * scale)):
            np.testing.assert_allclose(cos_sim(one, other), cos_sim(x, x), rtol=0, atol=8 * limits.eps)
            close = {"rtol": 0, "atol": 2 * limits.eps}
            np.testing.assert_allclose(angular_distance(one, other), angular_distance(x, x), **close)
    assert cos_sim([dtype(limits.smallest_subnormal)], [dtype(limits.max)]) == 1


def test_cosines_are_clipped_and_the_clipping_is_not_differentiated():
    x = random_rows(300, 384, dtype=np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert (unit @ unit.T).max() > 1  # otherwise the next lines would prove nothing
    assert cos_sim(x, x).max() == pairwise_cos_sim(x, x).max() == 1 == -cos_sim(x, -x).min()
    near = x + np.float32(1e-4) * random_rows(300, 384, dtype=np.float32, seed=1)
    assert (pairwise_cos_sim(x, near) == 1).any()
    ours, _ = similarity.pairwise_cos_sim_backward(np.ones(300, np.float32), x, near)
    exact, _ = similarity.pairwise_cos_sim_backward(np.ones(300), x.astype(float), near.astype(float))
    assert np.abs(ours).max(axis=1).min() > 0
    np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-7 / 15)  # an eps of a unit vector, over |x|


@FLOATS
def test_small_angles_and_small_distances_keep_their_digits(dtype):
    eps = np.finfo(dtype).eps
    angles = np.logspace(-7 if dtype == np.float32 else -15, -1, 50)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(dtype)
    expected = np.arctan2(*x.T[::-1].astype(np.float64)) / math.pi  # the angle of the rounded vector
    np.testing.assert_allclose(angular_distance([[dtype(1), dtype(0)]], x)[0], expected, rtol=0, atol=eps)
    with np.errstate(invalid="ignore"):
        naive = np.arccos((x / np.linalg.norm(x, axis=1, keepdims=True))[:, 0]) / math.pi
    assert (~(np.abs(naive - expected) <= 10 * eps)).sum() > 10  # arccos does not pass this test
    x = random_rows(1, 384, dtype=dtype) + dtype(10)
    y = x + (random_rows(1, 384, seed=1) * 200 * eps).astype(dtype)
    difference = x.astype(np.longdouble) - y
    exact = np.linalg.norm(difference)
    np.testing.assert_allclose(-euclidean_sim(x, y), exact, rtol=20 * eps)
    assert abs(((x * x).sum() + (y * y).sum() - 2 * (x @ y.T)).item() - exact**2) > exact**2 / 2  # the shortcut
    d_x, _ = similarity.pairwise_euclidean_sim_backward([1.0], x, y)
    np.testing.assert_allclose(d_x, (-difference / exact).astype(float), rtol=0, atol=20 * eps)


def test_blocks_do_not_show_and_save_memory(monkeypatch):
    a, b = random_rows(200, 256, dtype=np.float32), random_rows(300, 256, dtype=np.float32, seed=1)
    for name in ("euclidean_sim", "manhattan_sim", "angular_distance"):
        tracemalloc.start()
        try:
            whole = call(name, a, b)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * 200 * 300 * 256 / 10  # an (A, B, D) array would hold 61 MB
        for numbers in (1, 25 * 256, 300 * 256 - 1):
            with monkeypatch.context() as patch:
                patch.setattr(similarity, "BLOCK_NUMBERS", numbers)
                np.testing.assert_allclose(call(name, a[:3], b), whole[:3], rtol=1e-6)  # measured 0


# ----------------------------------------------------------------------------------------------------- errors

GOOD = np.ones((3, 2))
ALL = [name for name in similarity.__all__ if name.islower() and not name.startswith("to_")]
LONG = [name for name in ALL if "cos" not in name and "angular" not in name]  # those that add up squares
TURN = [name for name in ALL if "angular" in name or "cos_sim_backward" in name]  # those that need a direction
REFUSED = {
    "another width": (np.ones((3, 4)), "b: expected shape", ALL),
    "another count": (np.ones((1, 2)), "expected as many rows in b", [n for n in ALL if n.startswith("pairwise")]),
    "NaN": (np.where(np.eye(3, 2), np.nan, 1.0), "b: NaN or infinity in row 0, 1", ALL),
    "too large": (np.full((3, 2), 1e200), "b: entries must be at most", LONG),
    "zeros": (np.array([[1.0, 1], [0, 0], [1, 1]]), "b: every row must have a direction, but row 1", TURN),
    "three axes": (np.ones((2, 3, 2)), "b: expected shape", ALL),
    "texts": (["soup", "dog"], "b: expected numbers", ALL),
    "ragged": ([[1.0], [1.0, 2.0]], "b: expected rows of one width", ALL),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind):
    bad, message, names = REFUSED[kind]
    for name in names:
        pairs = name.startswith("pairwise")
        upstream = [np.ones(3) if pairs else np.ones((3, 3))] if name.endswith("_backward") else []
        with pytest.raises(ValueError, match=f"^{name}: {message}"):
            call(name, *upstream, GOOD, bad)
        if not (message.startswith(("expected", "b: expected shape")) or pairs):
            with pytest.raises(ValueError, match=f"^{name}: a: "):
                call(name, *upstream, bad, GOOD)
        for wrong in (np.ones(9), np.full(np.shape(upstream), np.nan)):
            if upstream:
                with pytest.raises(ValueError, match=f"^{name}: d_scores"):
                    call(name, wrong, GOOD, GOOD)


def test_the_largest_entries_that_are_taken():
    for dtype in (np.float32, np.float64):
        good = np.ones((2, 100), dtype) * dtype(math.sqrt(float(np.finfo(dtype).max) / 100) / 2 * 0.999)
        for name in (name for name in LONG if not name.endswith("_backward")):
            assert np.isfinite(call(name, good, -good)).all()
            with pytest.raises(ValueError, match="could overflow"):
                call(name, good * dtype(1.01), good)
    assert dot_score([[120, -128]], np.array([[-120, 100]], np.int8)).item() == -120 * 120 - 128 * 100  # no wrapping


# --------------------------------------------------------------------------------------------- distances

OF_COSINES = [kind for kind, conversion in CONVERSIONS.items() if conversion.similarities == (-1.0, 1.0)]


def similarities(kind, dtype):
    """Numbers of a kind's domain, its ends and their surroundings included."""
    low, high = (min(max(end, -1e6), 1e6) for end in CONVERSIONS[kind].similarities)
    low = 1e-6 if kind == "inverse" else low  # where the distance is a million, and has digits left
    near = st.floats(-18.0, 0.0).map(lambda exponent: 10.0**exponent)
    anywhere = st.floats(dtype(low).item(), high, width=np.finfo(dtype).bits)
    close = [near.map(lambda step: high - step), near.map(lambda step: low + step)]
    return st.one_of(anywhere, *close).map(lambda x: dtype(min(max(x, low), high)))


@pytest.mark.parametrize(
    ("kind", "similarity", "distance"),
    [
        ("angular", [1, 0.5, 0, -0.5, -1], [0, 1 / 3, 0.5, 2 / 3, 1]),
        ("chord", [1, 0.5, 0, -1], [0, 1, math.sqrt(2), 2]),
        ("cosine", [1, 0.25, 0, -1], [0, 0.75, 1, 2]),
        ("negated", [0, -2.5, -1e300], [0, 2.5, 1e300]),
        ("inverse", [1, 0.5, 0.25], [0, 1, 3]),
    ],
)
def test_conversions_worked_by_hand(kind, similarity, distance):
    np.testing.assert_allclose(to_distance(similarity, kind), distance, rtol=1e-15, atol=1e-16)
    np.testing.assert_allclose(to_similarity(distance, kind), similarity, rtol=1e-15, atol=1e-15)
    assert to_distance(similarity, kind)[0] == 0 and not np.signbit(to_distance(similarity, kind)[0])
    most_alike = similarity[:1]
    for dtype, expected in {">f4": "f4", "f2": "f4", "i8": "f8", "u1": "f8"}.items():
        found = to_similarity(to_distance(np.array(most_alike, dtype), kind), kind)
        assert found.dtype == expected and found == most_alike and not np.signbit(found)


@pytest.mark.parametrize("kind", CONVERSIONS)
@FLOATS
def test_less_alike_is_never_nearer_and_a_similarity_comes_back(kind, dtype):
    # float64 angles alone may be out of order, by the last digit: the C library's arccos and sine are not exact
    slack = 2 * np.finfo(dtype).eps if (kind, dtype) == ("angular", np.float64) else 0.0

    @given(similarities(kind, dtype), similarities(kind, dtype))
    def check(s, t):
        for one, other in ((s, t), (s, np.nextafter(s, t))):  # any two, and neighbours
            low, high = min(one, other), max(one, other)
            far, near = to_distance(low, kind), to_distance(high, kind)
            assert near <= far + slack
            assert to_similarity(far, kind) <= to_similarity(near, kind) + slack
            if high - low > 1e-3 * max(1.0, abs(low)):
                assert near < far and to_similarity(far, kind) < to_similarity(near, kind)
        back = to_similarity(to_distance(s, kind), kind)
        assert back.dtype == dtype
        # the angle's own rounding counts pi times: 2.5 eps is the most among four million float64 cosines
        assert abs(float(back) - float(s)) <= 4 * np.finfo(dtype).eps * max(1.0, abs(s))

    check()


# ------------------------------------------------------------------------------------------------- metrics


def sets_of_vectors(dtype):
    """Five vectors of 1 to 384 numbers: random, nearly equal, nearly opposite, or some of each, of any length."""

    def build(seed, columns, exponent, flips, alone):
        generator = np.random.default_rng(seed)
        around = np.where(alone, generator.standard_normal((5, columns)), generator.standard_normal(columns))
        x = around * np.where(flips, -1, 1) + generator.standard_normal((5, columns)) * 10.0**exponent
        return (x * 10.0 ** generator.uniform(-6, 6, (5, 1))).astype(dtype)

    five = st.lists(st.booleans(), min_size=5, max_size=5).map(lambda flags: np.array(flags)[:, None])
    columns = st.one_of(st.integers(1, 5), st.sampled_from([50, 384]))
    made = st.builds(build, st.integers(0, 2**32), columns, st.floats(-18, 0), five, five)
    return made.filter(lambda x: x.any(axis=1).all())


@FLOATS
def test_the_angle_is_a_metric(dtype):
    # 4 eps: measured 1.0 for the triangle inequality
    tolerance = 4 * np.finfo(dtype).eps

    @settings(max_examples=100)
    @given(sets_of_vectors(dtype))
    def check(x):
        direct = angular_distance(x, x)
        assert direct.dtype == dtype and (direct >= 0).all() and (direct <= 1).all()
        np.testing.assert_array_equal(np.diag(direct), 0)  # identity, one way
        np.testing.assert_array_equal(direct, direct.T)  # symmetry
        detour = direct[:, :, None] + direct[None, :, :]  # [i, j, k]: from i over j to k
        assert (direct[:, None, :] <= detour + tolerance).all()
        np.testing.assert_array_equal(np.diag(angular_distance(x, -x)), 1)
        np.testing.assert_allclose(direct + angular_distance(x, -x), 1, rtol=0, atol=tolerance)

    check()


def test_one_minus_cosine_is_no_metric():
    x = random_rows(60, 3)
    for kind in OF_COSINES:
        direct = to_distance(cos_sim(x, x), kind)
        gap = (direct[:, None, :] - direct[:, :, None] - direct[None, :, :]).max()
        assert gap > 0.45 if kind == "cosine" else gap < 1e-14


def test_what_is_beyond_by_rounding_is_moved_to_the_end_and_no_more():
    for kind in OF_COSINES:
        farthest = CONVERSIONS[kind].distances[1]
        for just in (1.0000001, np.float32(1.0000001), 1 + 0.99 * ROUNDING):
            assert to_distance(just, kind) == 0
            assert to_distance(-just, kind) == farthest
            assert to_similarity(1 - just, kind) == 1 and to_similarity(farthest - 1 + just, kind) == -1
        for far in (-1.1, 1 + 1.01 * ROUNDING, np.nan, np.inf):
            with pytest.raises(ValueError, match=rf"^to_distance: kind '{kind}' .* from -1 to 1, .*1 of 2"):
                to_distance([0.5, far], kind)
        for far in (-0.1, farthest + 0.1, np.nan):
            with pytest.raises(ValueError, match=r"^to_similarity: .*1 of 2"):
                to_similarity([0.5, far], kind)
    for beyond in (0.0, np.float32(1e-45), 1.0000001):
        with pytest.raises(ValueError, match="to_distance"):
            to_distance(beyond, "inverse")
    for wrong in ((1e-6, "negated"), (["soup"], "angular"), (0.5, "euclidean")):
        with pytest.raises(ValueError, match="to_distance"):
            to_distance(*wrong)
