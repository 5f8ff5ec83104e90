"""The bootstrap interval: it covers as often as it says, is scipy's, and pairs what belongs together."""

import numpy as np
import pytest
from conftest import _optional_import
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.evaluation import bootstrap
from minisbert.evaluation.bootstrap import bootstrap_mean, paired_difference


def test_it_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(400):
        estimate = bootstrap_mean(rng.beta(0.5, 0.5, 100), resamples=400, seed=i)
        covered += estimate.low <= 0.5 <= estimate.high
    # 95 % of 400 is 380; three standard deviations of a binomial are 13, the percentile method is a little short
    assert 360 <= covered <= 394
    covered = sum(
        e.low <= 0.5 <= e.high
        for e in (bootstrap_mean(rng.beta(0.5, 0.5, 100), confidence=0.5, resamples=400, seed=i) for i in range(400))
    )
    assert 165 <= covered <= 235


def test_its_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).standard_normal(500)
    estimate = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(500)
    assert estimate.mean == values.mean()
    assert estimate.low == pytest.approx(estimate.mean - half, rel=0.06)
    assert estimate.high == pytest.approx(estimate.mean + half, rel=0.06)


def test_scipy_agrees():
    stats = _optional_import("scipy.stats")
    values = np.random.default_rng(2).beta(0.5, 0.5, 120)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0))
    ours = bootstrap_mean(values, resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.002)


def test_pairing_sees_a_difference_that_two_intervals_hide():
    rng = np.random.default_rng(3)
    easy_and_hard = rng.uniform(0, 1, 200)
    better = easy_and_hard + 0.02 + 0.02 * rng.standard_normal(200)
    one, other = bootstrap_mean(better), bootstrap_mean(easy_and_hard)
    assert one.low < other.high  # they overlap
    difference = paired_difference(better, easy_and_hard)
    assert difference.excludes_zero and 0.01 < difference.low < difference.high < 0.03
    assert paired_difference(easy_and_hard, better).high < 0
    assert not paired_difference(easy_and_hard, rng.permutation(easy_and_hard)).excludes_zero
    assert not paired_difference(better, better).excludes_zero


def test_the_seed_decides_and_the_block_size_does_not_matter_for_what_is_known(monkeypatch):
    values = np.random.default_rng(4).uniform(0, 1, 64)
    assert bootstrap_mean(values) == bootstrap_mean(values, seed=np.random.default_rng(0))
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
    whole = bootstrap_mean(values, resamples=1001)
    monkeypatch.setattr(bootstrap, "_BLOCK_NUMBERS", 640)  # the draws are the same ones, ten at a time
    assert bootstrap_mean(values, resamples=1001) == whole


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.floats(-5, 5))
@settings(max_examples=60)
def test_it_moves_with_the_values_and_holds_the_mean(values, shift):
    estimate = bootstrap_mean(values, resamples=300)
    tolerance = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - tolerance <= estimate.low <= estimate.high <= max(values) + tolerance
    moved = bootstrap_mean(np.array(values) + shift, resamples=300)
    np.testing.assert_allclose(moved, np.array(estimate) + shift, atol=1e-9)


def test_one_query_has_no_interval():
    assert bootstrap_mean([0.5]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bootstrap_mean([]), "at least one"),
        (lambda: bootstrap_mean([[1.0]]), "shape (1, 1)"),
        (lambda: bootstrap_mean([1.0, np.nan]), "1 NaN"),
        (lambda: bootstrap_mean([1.0], confidence=95), "confidence in (0, 1)"),
        (lambda: bootstrap_mean([1.0], resamples=0), "resamples"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "same queries"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=r"^(bootstrap_mean|paired_difference): ") as raised:
        call()
    assert words in str(raised.value)
