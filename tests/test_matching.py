"""Matching two lists: every permutation of small ones, prices as a proof, scipy as oracle, what is refused."""

import itertools

import numpy as np
import pytest
from conftest import _optional_import
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.search.exact import search_arrays
from minisbert.search.matching import assign, match


@pytest.fixture(scope="module")
def optimize():
    """scipy.optimize, which comes with the extra verify."""
    return _optional_import("scipy.optimize")


def pairs(found):
    return list(zip(found.a_ids.tolist(), found.b_ids.tolist(), strict=True))


def vectors(rows, width=8, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(dtype)


# ----------------------------------------------------------------------------------------------- assignment


def test_worked_by_hand():
    # greedy takes 1 and then must pay 10; the optimum is 2 + 2
    assert assign([[1, 2], [2, 10]]).tolist() == [1, 0]
    assert assign([[5.0]]).tolist() == [0]
    assert assign([[3, 1, 2]]).tolist() == [1]
    assert assign([[0, 0], [0, 0]]).tolist() == [0, 1]
    assert assign(np.empty((0, 3))).tolist() == []
    assert assign(np.empty((0, 0))).tolist() == []


@settings(max_examples=100)
@given(st.data())
def test_no_permutation_is_cheaper(data):
    rows = data.draw(st.integers(1, 5))
    columns = data.draw(st.integers(rows, 6))
    values = st.integers(-3, 3) if data.draw(st.booleans()) else st.integers(-(10**6), 10**6)
    costs = np.array(data.draw(st.lists(values, min_size=rows * columns, max_size=rows * columns)))
    costs = costs.reshape(rows, columns)
    found = assign(costs)
    assert len(set(found.tolist())) == rows
    cheapest = min(costs[range(rows), order].sum() for order in itertools.permutations(range(columns), rows))
    assert costs[np.arange(rows), found].sum() == cheapest


@pytest.mark.parametrize("kind", ["random", "ties", "cosines", "constant rows", "nearly sorted"])
@pytest.mark.parametrize("shape", [(1, 1), (40, 40), (60, 90), (150, 150)])
def test_equals_scipy(optimize, kind, shape):
    rng = np.random.default_rng(shape[1])
    costs = {
        "random": rng.standard_normal(shape),
        "ties": rng.integers(0, 4, shape).astype(float),
        "cosines": -vectors(shape[0], 5, 1, np.float64) @ vectors(shape[1], 5, 2, np.float64).T,
        "constant rows": np.repeat(rng.standard_normal((shape[0], 1)), shape[1], axis=1),
        "nearly sorted": np.outer(np.arange(shape[0]), np.arange(shape[1])) + 0.01 * rng.random(shape),
    }[kind]
    rows, columns = optimize.linear_sum_assignment(costs)
    found = assign(costs)
    assert sorted(set(found.tolist())) == sorted(found.tolist())
    # sums of up to 150 numbers in another order
    assert costs[np.arange(shape[0]), found].sum() == pytest.approx(costs[rows, columns].sum(), rel=1e-12, abs=1e-12)
    if kind in ("random", "cosines"):
        np.testing.assert_array_equal(found, columns)  # the optimum is unique


def test_an_assignment_refuses():
    for wrong in (np.ones((3, 2)), np.ones(3), np.array([[1.0, np.nan]]), np.array([[np.inf, 1.0]])):
        with pytest.raises(ValueError, match=r"assign: costs must be \(A, B\), finite, with A <= B"):
            assign(wrong)
    costs = np.arange(6.0).reshape(2, 3)
    costs.flags.writeable = False
    assign(costs)


# ------------------------------------------------------------------------------------------------- matching


def test_best_is_the_search():
    a, b = vectors(20), vectors(30, seed=1)
    b[17] = b[2]
    a[5] = b[2]
    found = match(a, b)
    ids, scores = search_arrays(a, b, 1)
    np.testing.assert_array_equal(found.a_ids, np.arange(20))
    np.testing.assert_array_equal(found.b_ids, ids[:, 0])
    np.testing.assert_array_equal(found.scores, scores[:, 0])
    assert found.b_ids[5] == 2


@settings(max_examples=50)
@given(st.integers(1, 15), st.integers(1, 15), st.integers(0, 2**32 - 1))
def test_mutual_is_symmetric_and_best_on_both_sides(rows_a, rows_b, seed):
    rng = np.random.default_rng(seed)
    # small whole numbers: many ties and copies
    a, b = (rng.integers(1, 3, (rows, 3)).astype(np.float32) for rows in (rows_a, rows_b))
    found = match(a, b, "mutual")
    there, back = search_arrays(a, b, 1)[0][:, 0], search_arrays(b, a, 1)[0][:, 0]
    assert pairs(found) == [(i, int(there[i])) for i in range(rows_a) if back[there[i]] == i]
    assert sorted(pairs(found)) == sorted((j, i) for i, j in pairs(match(b, a, "mutual")))
    assert len(found.a_ids) >= 1  # the closest pair of all, with the smallest ids, is mutual


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1), st.sampled_from([None, -0.5, 0.0, 0.4, 1.0]))
def test_optimal_has_the_largest_gain(rows_a, rows_b, seed, min_score):
    a, b = vectors(rows_a, 3, seed), vectors(rows_b, 3, seed + 1)
    found = match(a, b, "optimal", min_score=min_score)
    scores = np.array([[match(a[[i]], b[[j]]).scores[0] for j in range(rows_b)] for i in range(rows_a)], np.float64)
    assert len(set(found.a_ids.tolist())) == len(set(found.b_ids.tolist())) == len(found.scores)
    assert found.a_ids.tolist() == sorted(found.a_ids.tolist())
    np.testing.assert_array_equal(found.scores, scores[found.a_ids, found.b_ids].astype(np.float32))
    gains = scores if min_score is None else np.maximum(scores - min_score, 0)
    if rows_a > rows_b:
        gains = gains.T
    orders = itertools.permutations(range(gains.shape[1]), len(gains))
    best = max(gains[range(len(gains)), order].sum() for order in orders)
    gained = (found.scores.astype(np.float64) - (min_score or 0.0)).sum()
    assert gained == pytest.approx(best, rel=1e-12, abs=1e-12)
    if min_score is None:
        assert len(found.scores) == min(rows_a, rows_b)
    else:
        assert (found.scores >= min_score).all()


def test_a_permuted_list_is_found_again():
    a = vectors(200, 16)
    order = np.random.default_rng(3).permutation(200)
    b = a[order] + np.float32(0.05) * vectors(200, 16, seed=4)
    for method in ("best", "mutual", "optimal"):
        found = match(a, b, method)
        assert (order[found.b_ids] == found.a_ids).all()
        assert len(found.a_ids) == 200


def test_optimal_equals_scipy_on_scores(optimize):
    a, b = vectors(70, dtype=np.float64), vectors(50, seed=1, dtype=np.float64)
    for score_function in ("cosine", "dot", "euclidean"):
        found = match(a, b, "optimal", score_function=score_function)
        scores = search_arrays(a, b, 50, score_function)
        matrix = np.empty((70, 50))
        np.put_along_axis(matrix, *scores, axis=1)
        rows, columns = optimize.linear_sum_assignment(matrix, maximize=True)
        assert pairs(found) == list(zip(rows.tolist(), columns.tolist(), strict=True))
        np.testing.assert_array_equal(found.scores, matrix[rows, columns])


def test_a_threshold_drops_pairs():
    a, b = vectors(30), vectors(30, seed=1)
    for method in ("best", "mutual"):
        everything, some = match(a, b, method), match(a, b, method, min_score=0.7)
        assert pairs(some) == [p for p, s in zip(pairs(everything), everything.scores, strict=True) if s >= 0.7]
        assert 0 < len(some.scores) < len(everything.scores)
    # a good pair is not given up so that two poor ones can be
    a, b = [[1.0, 0.0], [0.6, 0.8]], [[1.0, 0.05], [0.0, -1.0]]
    assert pairs(match(a, b, "optimal", min_score=0.5)) == [(0, 0)]


@pytest.mark.parametrize("method", ["best", "mutual", "optimal"])
def test_empty_lists(method):
    some, none = vectors(4), vectors(0)
    for a, b in ((some, none), (none, some), (none, none)):
        found = match(a, b, method)
        assert [len(part) for part in found] == [0, 0, 0]
        assert (found.b_ids.dtype, found.scores.dtype) == (np.intp, np.float32)


@pytest.mark.parametrize("method", ["best", "mutual", "optimal"])
def test_a_match_refuses(method):
    some = vectors(4)
    with pytest.raises(ValueError, match=r"match: a and b must have the same width D"):
        match(some, some[:, :3], method)
    bad = some.copy()
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"match: a .* row 2\."):
        match(bad, some, method)
    with pytest.raises(ValueError, match=r"match: b .* row 2\."):
        match(some, bad, method)
    with pytest.raises(ValueError, match="min_score must be a finite number"):
        match(some, some, method, min_score=np.nan)
    with pytest.raises(ValueError, match="method must be best, mutual or optimal, got 'greedy'"):
        match(some, some, "greedy")
