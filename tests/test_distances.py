"""Distances: there and back, monotone, which of them are metrics, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.similarity import (
    CONVERSIONS,
    ROUNDING,
    angular_distance,
    cos_sim,
    to_distance,
    to_similarity,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FLOATS = [np.float32, np.float64]
OF_COSINES = [kind for kind, conversion in CONVERSIONS.items() if conversion.similarities == (-1.0, 1.0)]
EVERY_KIND = pytest.mark.parametrize("kind", CONVERSIONS)
BOTH_FLOATS = pytest.mark.parametrize("dtype", FLOATS)


def numbers(ends, dtype, open_at_zero=False):
    """Numbers of a domain, its ends and their surroundings included."""
    low, high = max(ends[0], -1e6), min(ends[1], 1e6)
    low = 1e-6 if open_at_zero else low  # where the distance is a million, and has digits left
    width = 32 if dtype == np.float32 else 64
    near = st.floats(-18.0, 0.0).map(lambda exponent: 10.0**exponent)
    anywhere = st.floats(dtype(low).item(), high, width=width)
    close = [near.map(lambda step: high - step), near.map(lambda step: low + step)]
    return st.one_of(anywhere, *close).map(lambda x: dtype(min(max(x, low), high)))


def similarities(kind, dtype):
    return numbers(CONVERSIONS[kind].similarities, dtype, open_at_zero=kind == "inverse")


# ---------------------------------------------------------------------------------------------- the formulas


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
def test_numbers_worked_by_hand(kind, similarity, distance):
    np.testing.assert_allclose(to_distance(similarity, kind), distance, rtol=1e-15, atol=1e-16)
    np.testing.assert_allclose(to_similarity(distance, kind), similarity, rtol=1e-15, atol=1e-15)
    assert to_distance(similarity, kind)[0] == 0 and not np.signbit(to_distance(similarity, kind)[0])
    assert to_similarity(distance, kind)[0] == similarity[0] and not np.signbit(to_similarity(distance, kind)[0])


# -------------------------------------------------------------------------------------- monotone, there and back


@EVERY_KIND
@BOTH_FLOATS
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
        assert abs(float(back) - float(s)) <= 2 * np.finfo(dtype).eps * max(1.0, abs(s))

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


@BOTH_FLOATS
def test_the_angle_is_a_metric(dtype):
    # 4 eps: measured 1.0 for the triangle inequality, see test_similarity.py
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


def distances_between(x, kind):
    return to_distance(cos_sim(x, x), kind)


@pytest.mark.parametrize("kind", OF_COSINES)
def test_the_table_says_which_are_metrics(kind):
    x = np.random.default_rng(0).standard_normal((60, 3))
    direct = distances_between(x, kind)
    gap = (direct[:, None, :] - direct[:, :, None] - direct[None, :, :]).max()
    assert gap > 0.45 if kind == "cosine" else gap < 1e-14


# ------------------------------------------------------------------------------------- dtypes, shapes, errors


@EVERY_KIND
def test_dtypes_and_shapes(kind):
    end = CONVERSIONS[kind].similarities[1]  # 0 or 1, the most alike
    for dtype, expected in {"f2": "f4", ">f4": "f4", "f4": "f4", "f8": "f8", "i8": "f8", "u1": "f8"}.items():
        for x in (np.full((2, 0, 3), end, dtype), np.array(end, dtype)):
            x.flags.writeable = False
            distance = to_distance(x, kind)
            assert distance.dtype == to_similarity(distance, kind).dtype == expected and distance.shape == x.shape
            np.testing.assert_array_equal(to_similarity(distance, kind), x)


@pytest.mark.parametrize("kind", OF_COSINES)
def test_what_is_beyond_by_rounding_is_moved_to_the_end_and_no_more(kind):
    farthest = CONVERSIONS[kind].distances[1]
    for just in (1.0000001, np.float32(1.0000001), 1 + 0.99 * ROUNDING):
        assert to_distance(just, kind) == 0
        assert to_distance(-just, kind) == farthest
        assert to_similarity(1 - just, kind) == 1 and to_similarity(farthest - 1 + just, kind) == -1
    for far in (1.1, -1.1, 1 + 1.01 * ROUNDING, np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=rf"^to_distance: kind '{kind}' expects finite numbers from -1 to 1, got"):
            to_distance([0.5, far], kind)
    for far in (-0.1, farthest + 0.1, np.nan):
        with pytest.raises(ValueError, match=r"^to_similarity: .*1 of 2 are outside"):
            to_similarity([0.5, far], kind)


REFUSED = {
    "kind must be one of angular, chord, cosine, negated, inverse, got 'eu": lambda: to_distance(0.5, "euclidean"),
    "a similarity of 0 is beyond float64": lambda: to_distance(0.0, "inverse"),
    "a similarity of 1.4013e-45 is beyond float32": lambda: to_distance(np.float32(1e-45), "inverse"),
    "finite numbers from 0 to 1, got 1.0000001 ": lambda: to_distance(1.0000001, "inverse"),
    "finite numbers from -inf to 0, got 1e-06 ": lambda: to_distance(1e-6, "negated"),
    "finite numbers from 0 to inf, got inf ": lambda: to_similarity(np.inf, "negated"),
    "got list of <U4": lambda: to_distance(["soup"]),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused(words):
    with pytest.raises(ValueError, match=words):
        REFUSED[words]()
