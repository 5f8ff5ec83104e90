"""Measures and intervals are those of scipy and scikit-learn, and pairing sees what two intervals hide."""

import numpy as np
import pytest
from conftest import _optional_import
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.evaluation import measures
from minisbert.evaluation.measures import (
    bootstrap_mean,
    class_report,
    f1_difference,
    log_softmax,
    macro_f1,
    paired_difference,
    probability_quality,
    share,
)

# ---------------------------------------------------------------------------------------------------- intervals


def test_scipy_has_the_same_intervals():
    stats = _optional_import("scipy.stats")
    values = np.random.default_rng(2).beta(0.5, 0.5, 120)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0))
    ours = bootstrap_mean(values, resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.002)
    for count, n in ((0, 9), (7, 7), (31, 90)):
        theirs = stats.binomtest(count, n).proportion_ci(method="wilson")
        assert share(np.arange(n) < count) == pytest.approx((count / n, *theirs))
    assert np.isnan(share([])).all()


def test_pairing_sees_a_difference_that_two_intervals_hide():
    rng = np.random.default_rng(3)
    easy_and_hard = rng.uniform(0, 1, 200)
    better = easy_and_hard + 0.02 + 0.02 * rng.standard_normal(200)
    assert bootstrap_mean(better).low < bootstrap_mean(easy_and_hard).high  # they overlap
    difference = paired_difference(better, easy_and_hard)
    assert difference.excludes_zero and 0.01 < difference.low < difference.high < 0.03
    assert paired_difference(easy_and_hard, better).high < 0
    assert not paired_difference(better, better).excludes_zero


# ------------------------------------------------------------------------------------------------------- labels


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_scikit_learn_has_the_same_measures(pairs):
    metrics = _optional_import("sklearn.metrics")
    expected, predicted = np.array(pairs).T
    report = class_report(expected, predicted, "abcd")
    theirs = metrics.precision_recall_fscore_support(expected, predicted, labels=range(4), zero_division=np.nan)
    ours = [(s.precision.mean, s.recall.mean, s.f1.mean, s.texts) for s in report.classes.values()]
    present = np.union1d(expected, predicted[predicted >= 0])
    np.testing.assert_allclose(np.array(ours)[present], np.array(theirs).T[present])
    assert np.isnan([s.f1.mean for c, s in enumerate(report.classes.values()) if c not in present]).all()
    assert report.accuracy.mean == pytest.approx(metrics.accuracy_score(expected, predicted))
    macro = metrics.f1_score(expected, predicted, labels=present, average="macro", zero_division=0)
    assert report.macro_f1.mean == pytest.approx(macro)
    decided = np.where(predicted < 0, 3, predicted)
    theirs = metrics.f1_score(expected, decided, average="macro", zero_division=0)
    assert macro_f1(expected, decided) == pytest.approx(theirs)
    shifted = np.where(predicted < 0, 4, predicted)
    assert np.array_equal(report.confusion, metrics.confusion_matrix(expected, shifted, labels=range(5))[:4])


def test_a_resample_of_f1_is_that_of_resampled_texts(monkeypatch):
    rng = np.random.default_rng(1)
    expected = rng.choice(4, 300, p=[0.1, 0.2, 0.3, 0.4])
    good, poor = (np.where(rng.random(300) < rate, rng.integers(0, 4, 300), expected) for rate in (0.2, 0.5))
    monkeypatch.setattr(measures, "_BLOCK_NUMBERS", 640)  # resamples are drawn a few at a time
    draws = [rng.integers(0, len(expected), len(expected)) for _ in range(1500)]
    truth, said = expected == 2, good == 2
    scored = [2 * (truth[d] & said[d]).sum() / (truth[d].sum() + said[d].sum()) for d in draws]
    gaps = [macro_f1(expected[d], good[d]) - macro_f1(expected[d], poor[d]) for d in draws]
    report = class_report(expected, good, "abcd")
    ours, gap = report.classes["c"].f1, f1_difference(expected, good, poor, 4)
    ends = [0.025, 0.975]
    assert (ours.low, ours.high) == pytest.approx(np.quantile(scored, ends), abs=0.01)
    assert (gap.low, gap.high) == pytest.approx(np.quantile(gaps, ends), abs=0.015) and gap.low > 0
    assert f1_difference(expected, good, good, 4) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------ probabilities


def test_probabilities_are_measured_as_scikit_learn_does():
    metrics = _optional_import("sklearn.metrics")
    rng = np.random.default_rng(5)
    logits, classes = 3 * rng.standard_normal((200, 3)), rng.integers(0, 3, 200)
    probs = np.exp(log_softmax(logits))
    found = probability_quality(logits, classes)
    assert found.log_loss == pytest.approx(metrics.log_loss(classes, probs))
    assert found.brier == pytest.approx(((probs - np.eye(3)[classes]) ** 2).sum(axis=1).mean())
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == classes
    bins = [(confidence > low / 15) & (confidence <= (low + 1) / 15) for low in range(15)]
    gaps = [abs(right[b].mean() - confidence[b].mean()) * b.mean() for b in bins if b.any()]
    assert found.calibration_error == pytest.approx(sum(gaps))
    certain = probability_quality(np.array([[1000.0, 0.0]]), np.array([1]))
    assert certain == (1000.0, 2.0, 1.0)  # and no infinity
