"""Similarity: by hand, against sentence-transformers, by properties that must hold for all vectors, and its errors."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minisbert import similarity
from minisbert.similarity import (
    SIMILARITIES,
    angular_distance,
    cos_sim,
    cos_sim_backward,
    dot_score,
    euclidean_sim,
    manhattan_sim,
    pairwise_angular_distance,
    pairwise_cos_sim,
    pairwise_cos_sim_backward,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
)

SCALE_FREE = [(cos_sim, pairwise_cos_sim), (angular_distance, pairwise_angular_distance)]
WITH_LENGTH = [
    (dot_score, pairwise_dot_score),
    (euclidean_sim, pairwise_euclidean_sim),
    (manhattan_sim, pairwise_manhattan_sim),
]
PAIRS = SCALE_FREE + WITH_LENGTH
MATRIX = [matrix for matrix, _ in PAIRS]
PAIRWISE = [pairwise for _, pairwise in PAIRS]
BOTH = MATRIX + PAIRWISE
FLOATS = [np.float32, np.float64]


def random_rows(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ------------------------------------------------------------------------------------------------- by hand


A = [[3.0, 4.0], [0.0, -2.0]]
B = [[4.0, 3.0], [-3.0, -4.0], [5.0, 0.0]]
BY_HAND = {
    cos_sim: [[0.96, -1, 0.6], [-0.6, 0.8, 0]],
    dot_score: [[24, -25, 15], [-6, 8, 0]],
    euclidean_sim: [[-math.sqrt(2), -10, -math.sqrt(20)], [-math.sqrt(41), -math.sqrt(13), -math.sqrt(29)]],
    manhattan_sim: [[-2, -14, -6], [-9, -5, -7]],
    angular_distance: [
        [math.acos(0.96) / math.pi, 1, math.acos(0.6) / math.pi],
        [math.acos(-0.6) / math.pi, math.acos(0.8) / math.pi, 0.5],
    ],
}


@pytest.mark.parametrize(("matrix", "pairwise"), PAIRS)
def test_numbers_worked_by_hand(matrix, pairwise):
    np.testing.assert_allclose(matrix(A, B), BY_HAND[matrix], rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(pairwise(A, B[:2]), np.diag(BY_HAND[matrix]), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(("matrix", "pairwise"), PAIRS)
def test_a_vector_counts_as_one_row(matrix, pairwise):
    np.testing.assert_array_equal(matrix(A[0], B), matrix(A[:1], B))
    np.testing.assert_array_equal(matrix(A, B[0]), matrix(A, B[:1]))
    assert matrix(A[0], B[0]).shape == (1, 1)
    np.testing.assert_array_equal(pairwise(A[0], B[0]), pairwise(A[:1], B[:1]))
    assert pairwise(A[0], B[0]).shape == (1,)


@pytest.mark.parametrize(("matrix", "pairwise"), PAIRS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_pairwise_is_the_diagonal_of_the_matrix(matrix, pairwise, dtype):
    a, b = random_rows(9, 50, dtype=dtype), random_rows(9, 50, dtype=dtype, seed=1)
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(pairwise(a, b), np.diag(matrix(a, b)), rtol=tolerance, atol=tolerance)


def test_lengths_count_for_dot_and_not_for_cosine():
    assert dot_score([1, 0], [[1, 1], [9, 9]]).argmax() == 1
    np.testing.assert_allclose(cos_sim([1, 0], [[1, 1], [9, 9]]), math.sqrt(0.5), rtol=1e-15)


# ------------------------------------------------------------------------------------------------- other libraries


NAMES = ["cos_sim", "dot_score", "euclidean_sim", "manhattan_sim"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1, 2, 7, 384])
def test_equal_to_sentence_transformers(name, width, sentence_transformers):
    from sentence_transformers import util

    a, b = random_rows(20, width), random_rows(23, width, seed=1)  # above 25 rows torch.cdist loses digits
    ours, theirs = getattr(similarity, name), getattr(util, name)
    np.testing.assert_allclose(ours(a, b), theirs(a, b).numpy(), rtol=1e-12, atol=1e-12)
    ours, theirs = getattr(similarity, f"pairwise_{name}"), getattr(util, f"pairwise_{name}")
    np.testing.assert_allclose(ours(a, b[:20]), theirs(a, b[:20]).numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_sentence_transformers_in_float32(name, sentence_transformers):
    from sentence_transformers import util

    a, b = random_rows(20, 384, dtype=np.float32), random_rows(23, 384, dtype=np.float32, seed=1)
    for function, rows in ((name, b), (f"pairwise_{name}", b[:20])):
        ours, theirs = getattr(similarity, function)(a, rows), getattr(util, function)(a, rows).numpy()
        assert ours.dtype == theirs.dtype == np.float32
        # dot products of 384 numbers: measured 3e-5 where they are added one after the other
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-4 if "dot" in name else 1e-6)


def test_equal_to_torch(torch):
    a, b = random_rows(9, 50), random_rows(7, 50, seed=1)
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    cosine = torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=-1)
    np.testing.assert_allclose(cos_sim(x, y), cosine, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(angular_distance(x, y), torch.acos(cosine) / torch.pi, rtol=1e-12)
    np.testing.assert_allclose(euclidean_sim(x, y), -torch.cdist(x, y), rtol=1e-12)
    np.testing.assert_allclose(manhattan_sim(x, y), -torch.cdist(x, y, p=1), rtol=1e-12)


def test_the_table_has_the_names_of_sentence_transformers(sentence_transformers):
    theirs = sentence_transformers.SimilarityFunction
    for name, (matrix, pairwise) in SIMILARITIES.items():
        assert matrix.__name__ == theirs.to_similarity_fn(name).__name__.replace("pytorch_", "")
        assert pairwise.__name__ == theirs.to_similarity_pairwise_fn(name).__name__.replace("pytorch_", "")


def test_in_the_table_larger_is_closer_and_it_cannot_change():
    assert list(SIMILARITIES) == ["cosine", "dot", "euclidean", "manhattan"]
    for matrix, pairwise in SIMILARITIES.values():
        near, far = matrix([1, 0], [[1, 0.1], [0.1, 1]])[0]
        assert near > far
        assert pairwise.__name__ == f"pairwise_{matrix.__name__}"
    assert SIMILARITIES["dot"].matrix is dot_score and SIMILARITIES["dot"].pairwise is pairwise_dot_score
    with pytest.raises(TypeError):
        SIMILARITIES["angular"] = SIMILARITIES["cosine"]


# ------------------------------------------------------------------------------------------------- properties


def some_vectors(rows, dtype=np.float64, least=1e-3):
    """Arrays ``(rows, D)``; every row has a direction, entries are 0 or from 1e-3 to 1e3 in size."""
    width = 32 if dtype == np.float32 else 64
    size = st.floats(np.float32(least).item(), 1000, width=width)
    entry = st.one_of(st.just(0.0), size, size.map(lambda value: -value))
    shapes = st.integers(1, 6).map(lambda columns: (rows, columns))
    return shapes.flatmap(lambda shape: arrays(dtype, shape, elements=entry)).filter(lambda x: x.any(axis=1).all())


def nearly_parallel(rows, dtype):
    """Arrays ``(rows, D)`` whose rows differ in direction by 1e-1 down to 1e-18, and in length by anything."""

    def build(seed, columns, exponent):
        generator = np.random.default_rng(seed)
        noise = generator.standard_normal((rows, columns)) * 10.0**exponent
        lengths = 10.0 ** generator.uniform(-6, 6, (rows, 1))
        return ((generator.standard_normal(columns) + noise) * lengths).astype(dtype)

    return st.builds(build, st.integers(0, 2**32), st.integers(2, 50), st.floats(-18, -1))


@given(some_vectors(2))
def test_all_of_them_are_symmetric(x):
    for matrix in MATRIX:
        np.testing.assert_allclose(matrix(x, x), matrix(x, x).T, rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(matrix(x[:1], x[1:]), matrix(x[1:], x[:1]), rtol=1e-14, atol=1e-14)


@given(some_vectors(3), st.floats(1e-100, 1e100), st.floats(1e-100, 1e100))
def test_cosine_and_angle_do_not_depend_on_lengths(x, c, d):
    np.testing.assert_allclose(cos_sim(c * x, d * x), cos_sim(x, x), rtol=0, atol=4e-16 * x.shape[1])
    np.testing.assert_allclose(angular_distance(c * x, d * x), angular_distance(x, x), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", FLOATS)
def test_cosine_and_angle_do_not_overflow_or_vanish(dtype):
    x = random_rows(4, 384, dtype=dtype)
    limits = np.finfo(dtype)
    for scale in (dtype(limits.max) / 8, dtype(limits.tiny), dtype(limits.max) ** dtype(0.7)):
        for one, other in ((x * scale, x), (x, x * scale), (x * scale, x * scale)):
            np.testing.assert_allclose(cos_sim(one, other), cos_sim(x, x), rtol=0, atol=8 * limits.eps)
            np.testing.assert_allclose(
                angular_distance(one, other), angular_distance(x, x), rtol=0, atol=2 * limits.eps
            )
    smallest = limits.smallest_subnormal
    assert cos_sim([dtype(smallest)], [dtype(limits.max)]) == 1


@given(some_vectors(4, np.float32))
def test_ranges(x):
    for negated in (x, -x):
        cosine, angle = cos_sim(x, negated), angular_distance(x, negated)
        assert (cosine >= -1).all() and (cosine <= 1).all()
        assert (angle >= 0).all() and (angle <= 1).all()
        assert (euclidean_sim(x, negated) <= 0).all() and (manhattan_sim(x, negated) <= 0).all()
    np.testing.assert_array_equal(np.diag(angular_distance(x, -x)), 1)


def test_unclipped_cosines_would_leave_the_range():
    x = random_rows(200, 384, dtype=np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert (unit @ unit.T).max() > 1  # otherwise the next lines would prove nothing
    assert cos_sim(x, x).max() == 1 and pairwise_cos_sim(x, x).max() == 1
    assert cos_sim(x, -x).min() == -1 and pairwise_cos_sim(x, -x).min() == -1


@given(some_vectors(3))
def test_equal_rows_are_at_distance_exactly_zero(x):
    for matrix, pairwise in (PAIRS[1], *WITH_LENGTH[1:]):
        np.testing.assert_array_equal(np.diag(matrix(x, x.copy())), 0)
        np.testing.assert_array_equal(pairwise(x, x.copy()), 0)


@given(some_vectors(2))
def test_the_angle_is_zero_only_for_the_same_direction(x):
    u, v = x
    crossed = np.outer(u, v) - np.outer(v, u)  # all zeros if and only if u and v lie on one line
    on_one_ray = np.abs(crossed).max() <= 1e-9 * np.abs(np.outer(u, v)).max() and u @ v > 0
    assume(on_one_ray == (np.abs(crossed).max() == 0 and u @ v > 0))  # not in between
    assert (pairwise_angular_distance(u, v)[0] < 1e-15) == on_one_ray


@given(some_vectors(3))
def test_the_angle_ranks_as_cosine_does_the_other_way_round(x):
    cosine, angle = cos_sim(x, x).ravel(), angular_distance(x, x).ravel()
    steps = np.subtract.outer(cosine, cosine)
    clear = steps > 1e-14  # where the cosines differ by more than rounding
    assert (np.subtract.outer(angle, angle)[clear] < 0).all()


# Measured over 150 sets of 12 vectors per dtype and width, directions 1 to 1e-20 apart: the triangle inequality is
# missed by at most 1.0 eps, a distance is off by at most 0.9 eps. The tests allow 4 eps.
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_angle_obeys_the_triangle_inequality(dtype):
    tolerance = 4 * np.finfo(dtype).eps

    @given(st.one_of(some_vectors(4, dtype), nearly_parallel(4, dtype)))
    def check(x):
        direct = angular_distance(x, x)
        detour = direct[:, :, None] + direct[None, :, :]  # [i, j, k]: from i over j to k
        assert (direct[:, None, :] <= detour + tolerance).all()
        np.testing.assert_array_equal(direct, direct.T)

    check()


def test_cosine_distance_breaks_the_triangle_inequality():
    east, north_east, north = np.eye(2)[0], np.ones(2), np.eye(2)[1]

    def cosine_distance(u, v):
        return 1 - cos_sim(u, v).item()

    direct = cosine_distance(east, north)
    detour = cosine_distance(east, north_east) + cosine_distance(north_east, north)
    assert direct == 1 and detour == pytest.approx(2 - math.sqrt(2))  # 0.586
    # It is no accident of right angles: halving a small angle quarters 1 - cos, so a stop half-way halves the way.
    u, middle, v = ([math.cos(angle), math.sin(angle)] for angle in (0.0, 0.01, 0.02))
    detour = cosine_distance(u, middle) + cosine_distance(middle, v)
    assert cosine_distance(u, v) == pytest.approx(2 * detour, rel=1e-4)
    assert angular_distance(u, v) == pytest.approx(angular_distance(u, middle) + angular_distance(middle, v))


# ------------------------------------------------------------------------------------------------- rounding


@pytest.mark.parametrize("dtype", FLOATS)
def test_small_angles_keep_their_digits(dtype):
    angles = np.logspace(-7 if dtype == np.float32 else -15, -1, 50)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(dtype)
    expected = np.arctan2(*x.T[::-1].astype(np.float64)) / math.pi  # the angle of the rounded vector
    measured = angular_distance([[dtype(1), dtype(0)]], x)[0]
    np.testing.assert_allclose(measured, expected, rtol=0, atol=np.finfo(dtype).eps)
    with np.errstate(invalid="ignore"):
        naive = np.arccos((x / np.linalg.norm(x, axis=1, keepdims=True))[:, 0]) / math.pi
    assert (~(np.abs(naive - expected) <= 10 * np.finfo(dtype).eps)).sum() > 10  # arccos does not pass this test


@pytest.mark.parametrize("dtype", FLOATS)
def test_distances_of_close_rows_keep_their_digits(dtype):
    x = random_rows(1, 384, dtype=dtype) + dtype(10)
    step = (random_rows(1, 384, seed=1) * 20 * np.finfo(dtype).eps * 10).astype(dtype)
    y = x + step
    exact = np.linalg.norm(x.astype(np.longdouble) - y)
    assert exact > 0
    np.testing.assert_allclose(-euclidean_sim(x, y), exact, rtol=20 * np.finfo(dtype).eps)
    squares = (x * x).sum() + (y * y).sum() - 2 * (x @ y.T)
    assert abs(squares.item() - exact**2) > exact**2 / 2  # the shortcut has no digit left here


def test_above_25_rows_sentence_transformers_is_off_where_we_are_not(sentence_transformers):
    x = random_rows(200, 384, dtype=np.float32)
    theirs = -sentence_transformers.util.euclidean_sim(x, x).numpy().diagonal()
    assert theirs.max() > 1e-3
    np.testing.assert_array_equal(euclidean_sim(x, x).diagonal(), 0)


@pytest.mark.parametrize("matrix", [euclidean_sim, manhattan_sim, angular_distance])
def test_blocks_do_not_show(matrix, monkeypatch):
    a, b = random_rows(3, 10, dtype=np.float32), random_rows(26, 10, dtype=np.float32, seed=1)
    whole = matrix(a, b)
    for numbers in (1, 10, 25, 130, 259, 260, 261):
        monkeypatch.setattr(similarity, "BLOCK_NUMBERS", numbers)
        np.testing.assert_allclose(matrix(a, b), whole, rtol=1e-6)  # measured 0


@pytest.mark.parametrize("matrix", MATRIX)
def test_memory_does_not_grow_with_all_three_sizes(matrix):
    a, b = random_rows(200, 256, dtype=np.float32), random_rows(300, 256, dtype=np.float32, seed=1)
    tracemalloc.start()
    try:
        matrix(a, b)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 200 * 300 * 256 / 10  # an (A, B, D) array would hold 61 MB


# ------------------------------------------------------------------------------------------------- dtypes, shapes


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize(
    ("dtype_a", "dtype_b", "expected"),
    [
        (np.float32, np.float32, np.float32),
        (np.float16, np.float16, np.float32),
        (np.float16, np.float32, np.float32),
        (np.float32, np.float64, np.float64),
        (np.float64, np.float16, np.float64),
        (np.float64, np.float64, np.float64),
        (np.int8, np.int8, np.float64),
        (np.int64, np.float32, np.float64),
        (np.uint8, np.float32, np.float64),
        (bool, np.float32, np.float64),
        (">f4", "<f4", np.float32),
    ],
)
def test_dtypes(function, dtype_a, dtype_b, expected):
    a, b = np.array([[1, 0, 1]], dtype=dtype_a), np.array([[1, 1, 0]], dtype=dtype_b)
    result = function(a, b)
    assert result.dtype == expected and result.dtype.isnative
    np.testing.assert_allclose(result, function(a.astype(float), b.astype(float)), rtol=1e-6)


@pytest.mark.parametrize("function", BOTH)
def test_small_integers_do_not_wrap_around(function):
    a, b = np.array([[120, -128]], dtype=np.int8), np.array([[-120, 100]], dtype=np.int8)
    np.testing.assert_array_equal(function(a, b), function(a.tolist(), b.tolist()))
    assert dot_score(a, b).item() == -120 * 120 - 128 * 100


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("dtype", FLOATS)
def test_arguments_are_not_changed_and_not_returned(function, dtype):
    a, b = random_rows(4, 5, dtype=dtype), random_rows(4, 5, dtype=dtype, seed=1)
    copies = a.copy(), b.copy()
    a.flags.writeable = b.flags.writeable = False
    result = function(a, b)
    assert not np.shares_memory(result, a) and not np.shares_memory(result, b) and result.flags.writeable
    np.testing.assert_array_equal(a, copies[0])
    np.testing.assert_array_equal(b, copies[1])


@pytest.mark.parametrize("function", BOTH)
def test_memory_order_is_free(function):
    a, b = random_rows(6, 5), random_rows(6, 5, seed=1)
    expected = function(a, b)
    backwards = np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1]
    np.testing.assert_allclose(function(np.asfortranarray(a), backwards), function(a, a), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(function(a.tolist(), list(b)), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
def test_no_rows_give_no_rows(dtype):
    none, some = np.empty((0, 5), dtype=dtype), random_rows(3, 5, dtype=dtype)
    for matrix, pairwise in PAIRS:
        assert matrix(none, some).shape == (0, 3) and matrix(none, some).dtype == dtype
        assert matrix(some, none).shape == (3, 0)
        assert matrix(none, none).shape == (0, 0)
        assert pairwise(none, none).shape == (0,) and pairwise(none, none).dtype == dtype


def test_zero_vectors_are_fine_where_length_counts():
    np.testing.assert_array_equal(dot_score([0, 0], A), [[0, 0]])
    np.testing.assert_array_equal(euclidean_sim([0, 0], A), [[-5, -2]])
    np.testing.assert_array_equal(manhattan_sim([0, 0], A), [[-7, -2]])


# ------------------------------------------------------------------------------------------------- errors


def message(function, a, b):
    with pytest.raises(ValueError) as caught:
        function(a, b)
    assert caught.value.__cause__ is None and str(caught.value).startswith(f"{function.__name__}: ")
    return str(caught.value)


@pytest.mark.parametrize("function", BOTH)
def test_widths_that_differ(function):
    text = message(function, np.ones((3, 384)), np.ones((3, 768)))
    assert "same width D" in text and "a is (3, 384) and b is (3, 768)" in text and "same model" in text
    assert f"a ({'B' if function in PAIRWISE else 'A'}, D)" in text


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_counts_that_differ(pairwise):
    text = message(pairwise, np.ones((3, 2)), np.ones((1, 2)))
    assert "equally many rows, but a is (3, 2) and b is (1, 2)" in text
    assert text.endswith(f"use the matrix function instead: {pairwise.__name__.removeprefix('pairwise_')}.")


def test_the_cosine_of_a_zero_vector_is_zero():
    rows = np.array([[0.0, -0.0], [3.0, 4.0]], np.float32)
    np.testing.assert_array_equal(cos_sim(rows, rows), [[0, 0], [0, 1]])
    np.testing.assert_array_equal(pairwise_cos_sim(rows, rows), [0, 1])
    assert cos_sim(rows, rows).dtype == np.float32
    for backward, upstream in ((cos_sim_backward, np.ones((2, 2))), (pairwise_cos_sim_backward, np.ones(2))):
        with pytest.raises(ValueError, match=r"must have a direction, but a \(2, 2\) is all zeros in row 0"):
            backward(upstream, rows, rows)


def test_rows_without_a_direction():
    good, bad = np.ones((9, 4)), np.ones((9, 4))
    bad[[1, 4]] = 0
    for function in (angular_distance, pairwise_angular_distance):
        assert "every row of b must have a direction, but b (9, 4) is all zeros in rows 1, 4 (2 of 9 rows)" in message(
            function, good, bad
        )
        assert "every row of a must have a direction" in message(function, bad, good)
        assert "in rows 0, 1, 2, 3, 4, ... (9 of 9 rows)" in message(function, good * 0, good)
        assert "in row 0 (1 of 1 rows)" in message(function, np.zeros(4), good[0])
        assert "all zeros" in message(function, np.full(4, -0.0), good[0])


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("dtype", [np.float16, *FLOATS])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(function, dtype, value):
    good, bad = np.ones((3, 4), dtype=dtype), np.ones((3, 4), dtype=dtype)
    bad[2, 1] = value
    assert "a (3, 4) must hold finite numbers, but there is NaN or Inf in row 2 (1 of 3 rows)" in message(
        function, bad, good
    )
    assert "b (3, 4) must hold finite numbers" in message(function, good, bad)


@pytest.mark.parametrize("pair", WITH_LENGTH)
@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_too_large_to_square(pair, dtype):
    largest, width = float(np.finfo(dtype).max), 100
    limit = dtype(math.sqrt(largest / width) / 2 * 0.999)
    good = np.ones((2, width), dtype=dtype)
    for function in pair:
        assert np.isfinite(function(good * limit, -good * limit)).all()
        for a, b in ((good * limit * dtype(1.01), good), (good, -good * dtype(largest))):
            text = message(function, a, b)
            assert np.dtype(dtype).name in text and "D = 100" in text and "overflow" in text


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (1.0, "its shape is ()"),
        (np.ones((2, 3, 4)), "its shape is (2, 3, 4). Token embeddings have to be pooled"),
        ([], "its shape is (0,)"),
        (np.ones((3, 0)), "its shape is (3, 0)"),
        ("i love soup", "a str that NumPy reads as <U11. Texts have to be embedded first"),
        (["soup", "london"], "a list that NumPy reads as <U6"),
        ([[1 + 2j]], "a list that NumPy reads as complex128"),
        ([[None]], "a list that NumPy reads as object"),
        (None, "a NoneType that NumPy reads as object"),
        ([[1.0], [1.0, 2.0]], "rows of one width, but NumPy says"),
        (np.array([["2020-01-01"]], dtype="M8[D]"), "a ndarray that NumPy reads as datetime64[D]"),
    ],
)
def test_what_is_no_rows_of_numbers(function, bad, words):
    letters = ("(B, D)" if function in PAIRWISE else "(A, D)"), "(B, D)"
    for name, letter, arguments in zip("ab", letters, ((bad, A), (A, bad)), strict=True):
        text = message(function, *arguments)
        assert text.startswith(f"{function.__name__}: {name} must be {letter}")
        assert words in text
