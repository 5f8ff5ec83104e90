"""Pearson and Spearman: by hand, against SciPy with heavy ties, and where no correlation exists."""

import math

import numpy as np
import pytest
from conftest import _optional_import
from hypothesis import assume, given
from hypothesis import strategies as st

from minisbert.evaluation.sts import pearson, rank, spearman

tied = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30)


@pytest.fixture(scope="module")
def stats():
    _optional_import("scipy")
    import scipy.stats

    return scipy.stats


def columns(pairs):
    x, y = np.array(pairs, dtype=np.float64).T
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    return x, y


def test_ranks_by_hand():
    assert rank([3, 1, 2]).tolist() == [3, 1, 2]
    assert rank([5, 5, 5]).tolist() == [2, 2, 2]
    assert rank([1, 0, 1, 7, 0, 1]).tolist() == [4, 1.5, 4, 6, 1.5, 4]
    assert rank([-0.0, 0.0]).tolist() == [1.5, 1.5]
    assert rank([]).tolist() == []
    assert rank(np.float32([0.1, -1])).dtype == np.float64


def test_correlations_by_hand():
    # centred: (-1.5, -.5, .5, 1.5) and (-1.5, .5, -.5, 1.5); 4 / 5
    assert pearson([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8, abs=1e-15)
    assert spearman([1, 2, 3, 4], [1, 30, 20, 4000]) == pytest.approx(0.8, abs=1e-15)
    # ranks (1.5, 1.5, 3) and (1, 2, 3): centred (-.5, -.5, 1) and (-1, 0, 1); 1.5 / sqrt(1.5 * 2)
    assert spearman([7, 7, 8], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3), abs=1e-15)
    # the short formula, 1 - 6 sum d^2 / (B^3 - B), would say 1 - 6 * 0.5 / 24 = 0.875
    assert pearson([0, 1], [9, 4]) == spearman([0, 1], [9, 4]) == -1.0
    assert pearson([1, 0, 0], [0, 1, 0]) == pytest.approx(-0.5, abs=1e-15)


@given(tied)
def test_heavy_ties_as_scipy(stats, pairs):
    x, y = columns(pairs)
    np.testing.assert_array_equal(rank(x), stats.rankdata(x))
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)


@pytest.mark.parametrize("factor", [1e-300, 1e-20, 1e20, 1e300])
def test_numbers_of_any_size(factor):
    x = np.array([1.0, 2, 3, 4]) * factor
    assert pearson(x, [1, 3, 2, 4]) == pytest.approx(0.8, abs=1e-14)
    assert spearman(x, [1, 3, 2, 4]) == pytest.approx(0.8, abs=1e-14)


@pytest.mark.parametrize("correlation", [pearson, spearman])
@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1, 2, 3], [1, 2], "same length"),
        ([1], [1], "at least 2"),
        ([5, 5], [1, 2], "x is constant"),
        ([1, 2, 3], [1, 2, math.inf], "y must be finite"),
        (["1", "2"], [1, 2], "x must be (B,)"),
    ],
)
def test_what_has_no_correlation(correlation, x, y, words):
    with pytest.raises(ValueError) as caught:
        correlation(x, y)
    assert words in str(caught.value) and str(caught.value).startswith(correlation.__name__)
