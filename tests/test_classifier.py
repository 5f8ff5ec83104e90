"""Classifiers: folds, calibration and thresholds by brute force and beside scikit-learn, saved and asked again."""

import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.analysis.classifier import (
    Calibration,
    TextClassifier,
    Threshold,
    cleaned,
    cross_validate,
    evaluate_classifier,
    find_threshold,
    fit_calibration,
    fit_classifier,
    load_classifier,
    logistic_fit,
    report_scores,
    stratified_folds,
    text_numbers,
    train_classifier,
)
from minisbert.evaluation.classification import LabelledTexts
from minisbert.evaluation.measures import probability_quality
from minisbert.model.ops import softmax
from minisbert.saved import OriginError

NONE = Calibration(1.0, np.zeros(3))


def clouds(texts=300, width=5, classes=3, spread=1.0, seed=0):
    """Points around the corners of a simplex, and which corner is whose."""
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(classes), np.arange(classes), rng.choice(classes, texts - 2 * classes)]
    return np.eye(width)[y] + spread * rng.standard_normal((texts, width)), y


def named(classes):
    return ["abcd"[c] for c in classes]


def drawn(logits, seed=0):
    """Draw a class for each text by its probabilities, so that they are right by construction."""
    rng = np.random.default_rng(seed)
    return (softmax(logits).cumsum(axis=1) > rng.random((len(logits), 1))).argmax(axis=1)


def loss(logits, classes):
    return probability_quality(logits, classes).log_loss


# ------------------------------------------------------------------------------------------- folds and weights


@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(2, 4), st.integers(1, 3))
@settings(max_examples=12)
def test_folds_have_their_share_of_each_class_and_keep_equal_texts_together(sklearn, seed, folds, classes, copies):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.r_[np.arange(classes), rng.integers(0, classes, 40)], copies)
    groups = np.arange(len(y)) // copies
    fold = stratified_folds(y, folds, seed, groups)
    assert all(len(np.unique(fold[groups == group])) == 1 for group in range(len(y) // copies))
    counts = np.array([[np.sum((y == c) & (fold == k)) for k in range(folds)] for c in range(classes)])
    assert np.ptp(counts, axis=1).max() <= copies and np.ptp(counts.sum(axis=0)) <= copies
    np.testing.assert_array_equal(fold, stratified_folds(y, folds, seed, groups))


# ---------------------------------------------------------------------------------------------- calibration


@given(st.floats(0.1, 10), st.sampled_from([2, 3, 30]), st.sampled_from([None, 8.0]))
@settings(max_examples=12)
def test_the_temperature_finds_how_far_scores_are_off_and_takes_weights_out(sklearn, factor, classes, weight):
    true = np.random.default_rng(1).standard_normal((4000, classes)) * 1.5
    y = drawn(true)
    weights = np.ones(classes)
    weights[0] = weight or 1.0
    scores = factor * (true + np.log(weights))
    found = fit_calibration(scores, y, weights)
    # 4,000 draws: the standard error of 1 / T, relative, is about 3 %
    assert abs(found.temperature / factor - 1) < 0.12
    np.testing.assert_allclose(found.offset, np.log(weights).mean() - np.log(weights), atol=1e-12)
    for step in (0.99, 1.01):
        near = found._replace(temperature=found.temperature * step)
        assert loss(near.apply(scores), y) > loss(found.apply(scores), y)


@pytest.mark.parametrize(("classes", "size", "weights"), [(2, 5, 1.0), (150, 3, 1.0), (3, 50, [1.0, 5.0, 30.0])])
def test_scores_that_are_always_right_become_as_sure_as_their_number_allows(sklearn, classes, size, weights):
    """After M right answers of M the next one is right with (M + 1) / (M + 2): neither 0.21 nor certainty."""
    y = np.tile(np.arange(classes), size)
    z = (np.arange(classes) == y[:, None]) + 0.3 * np.random.default_rng(0).uniform(size=(len(y), classes))
    for scale in (1e-6, 1e5):
        found = fit_calibration(scale * z, y, np.array(weights)).apply(scale * z)
        assert loss(found, y) == pytest.approx(np.log((len(y) + 2) / (len(y) + 1)), rel=0.01)
        assert found.argmax(1).tolist() == y.tolist()


# ---------------------------------------------------------------------------------- decisions, thresholds


scores_and_truth = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9])),
        hnp.arrays(bool, n).filter(lambda truth: truth.any()),
    )
)


@given(scores_and_truth, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_the_threshold_is_the_best_of_all(sklearn, case, precision):
    probs, truth = case
    fits = [bound for bound in np.unique(probs) if truth[probs >= bound].mean() >= precision]
    if not fits:
        highest = max(truth[probs >= bound].mean() for bound in probs)
        with pytest.raises(ValueError, match=f"'x': the highest is {highest:.3f}"):
            find_threshold(probs, truth, precision, "x")
        return
    found = find_threshold(probs, truth, precision, "x")
    chosen = probs >= found.probability
    recalls = [truth[probs >= bound].sum() / truth.sum() for bound in fits]
    assert found == Threshold("x", min(fits), truth[chosen].mean(), max(recalls))


def test_a_threshold_names_its_class_where_it_is_reached_and_only_there():
    logits = np.log(np.array([[0.6, 0.3, 0.1], [0.1, 0.5, 0.4], [0.1, 0.85, 0.05], [0.5, 0.4, 0.1]]))
    exactly = float(softmax(logits)[1, 1])
    for bound, expected in ((0.8, [0, -1, 1, 0]), (0.35, [0, 1, 1, 1]), (exactly, [0, 1, 1, 0])):
        classifier = TextClassifier(("a", "b", "c"), np.eye(3), np.zeros(3), NONE, Threshold("b", bound, 1.0, 0.5))
        assert classifier.decide(logits).tolist() == expected
        assert classifier.predict(logits) == [None if c < 0 else "abc"[c] for c in expected]


def test_calibration_changes_no_label():
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((3, 4)), rng.standard_normal((50, 4))
    plain = TextClassifier(("a", "b", "c"), weight, rng.standard_normal(3), NONE)
    shifted = replace(plain, calibration=Calibration(7.0, np.array([3.0, 0.0, -3.0])))
    assert plain.predict(x) == shifted.predict(x)
    assert np.abs(plain.predict_proba(x) - shifted.predict_proba(x)).max() > 0.3


# ------------------------------------------------------------------------------------------------- report


def test_a_report_counts_undecided_texts_as_wrong_and_tells_learnt_ones_apart():
    strict = Threshold("b", 0.9, 1.0, 0.5)
    classifier = TextClassifier(("a", "b"), np.eye(2), np.zeros(2), Calibration(1.0, np.zeros(2)), strict)
    scores, expected = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 5.0], [3.0, 0.0]]), np.array([0, 1, 1, 1])
    report = report_scores(classifier, scores, expected, learnt=np.array([True, False, False, False]))
    assert report.predicted.tolist() == [0, -1, 1, 0] and report.without_threshold.tolist() == [0, 1, 1, 0]
    assert report.accuracy.mean == 0.5 and report.accuracy_unseen.mean == pytest.approx(1 / 3)
    assert report.confusion.tolist() == [[1, 0, 0], [1, 1, 1]] and (report.undecided, report.learnt) == (1, 1)
    for learnt in (None, np.ones(4, bool), np.zeros(4, bool)):
        assert report_scores(classifier, scores, expected, learnt=learnt).accuracy_unseen is None


# ------------------------------------------------------------------------------------------------ saving


def test_what_is_loaded_predicts_bit_for_bit_without_scikit_learn(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    weight, bias, offset = rng.standard_normal((3, 4)), rng.standard_normal(3), rng.standard_normal(3)
    given = {"unescape": True, "learnt": np.unique(text_numbers(["soup", "tea"])), "facts": {"strength": 3.0}}
    strict = Threshold("b", 0.6, 0.9, 0.4)
    classifier = TextClassifier(("a", "b", "c"), weight, bias, Calibration(1.7, offset), strict, **given)
    classifier.save(tmp_path / "c")
    for name in {"sklearn", *(name for name in sys.modules if name.startswith("sklearn."))}:
        monkeypatch.setitem(sys.modules, name, None)  # an import of scikit-learn fails from here on
    loaded = load_classifier(tmp_path / "c")
    x = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
    assert loaded.predict_proba(x).tobytes() == classifier.predict_proba(x).tobytes()
    assert loaded.predict(x) == classifier.predict(x) and None in loaded.predict(x)
    same = ("classes", "threshold", "origin", "unescape", "facts")
    assert [getattr(loaded, n) for n in same] == [getattr(classifier, n) for n in same]
    np.testing.assert_array_equal(loaded.learnt, classifier.learnt)


def test_texts_have_stable_numbers_entities_where_asked_and_something_to_read():
    # numbers stand in files: another one for the same text would make every text unknown
    assert text_numbers(["soup", ""]).tolist() == [13335228896641332165, 13020603013274838756]
    assert cleaned(["&lt;b&gt; &#8220;x&#8221; &amp;amp;"], True) == ["<b> “x” &amp;"]
    assert cleaned(("&amp;", "&nbsp;"), False) == ["&amp;", "&nbsp;"]
    with pytest.raises(ValueError, match="text 2 of 3, ' ', and 1 more: "):
        cleaned(["soup", " ", "&nbsp;"], True)


# ------------------------------------------------------------------------------------- with scikit-learn


@pytest.mark.parametrize(("classes", "weight"), [(2, None), (4, None), (3, "balanced")])
def test_scores_and_calibrated_probabilities_equal_scikit_learns(sklearn, classes, weight):
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression

    x, y = clouds(width=8, classes=classes, spread=0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing warns
        ours = fit_classifier(x, named(y), strengths=[3.0], class_weight=weight).classifier
    theirs = LogisticRegression(C=3.0, class_weight=weight, max_iter=5000).fit(x, y)
    asked, _ = clouds(seed=5, width=8, classes=classes)
    np.testing.assert_allclose(softmax(ours.scores(asked)), theirs.predict_proba(asked), rtol=1e-9, atol=1e-12)
    assert ours.predict(asked) == named(theirs.predict(asked))
    if weight is None:  # which calibration would undo
        folds = stratified_folds(y, 5, 0, np.arange(300))
        cv = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(5)]
        theirs = CalibratedClassifierCV(LogisticRegression(C=3.0), method="temperature", cv=cv, ensemble=False)
        try:
            theirs.fit(x, y)
        except ValueError:
            pytest.skip("temperature came with scikit-learn 1.8")
        np.testing.assert_allclose(ours.predict_proba(asked), theirs.predict_proba(asked), atol=1e-3)


def test_cross_validation_asks_no_text_of_a_classifier_that_has_learnt_it(sklearn):
    x, y = clouds(texts=240, spread=0.7)
    folds = stratified_folds(y, 4, 0, np.arange(240))
    grid = (0.1, 1.0, 30.0)
    found = cross_validate(x, y, folds, np.ones(3), grid)
    expected = {}
    for strength in grid:
        held_out = np.empty((240, 3))
        for k in range(4):
            weight, bias = logistic_fit(x[folds != k], y[folds != k], strength, np.ones(3))
            held_out[folds == k] = x[folds == k] @ weight.T + bias
        expected[strength] = loss(fit_calibration(held_out, y).apply(held_out), y)
        if strength == found.strength:
            np.testing.assert_allclose(found.held_out, held_out, rtol=1e-9)
    assert found.scores == pytest.approx(expected) and found.strength == min(expected, key=expected.get)


# ------------------------------------------------------------------------------------------ from text to text


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return SentenceEncoder(write_model(tmp_path_factory.mktemp("classifier") / "tiny-model"))


def sentences(count, seed):
    """Texts about cats or about dogs, and which."""
    rng = np.random.default_rng(seed)
    words = {"cat": ["the cat sat", "cat on mat", "cat love"], "dog": ["the dog ran", "dog soup", "dog unable"]}
    fill = ["i", "the", "on", "love", "soup &amp; a", "a", "b", "c d"]
    labels = rng.choice(["cat", "dog"], count).tolist()
    texts = [f"{rng.choice(fill)} {rng.choice(words[label])} {rng.choice(fill)}" for label in labels]
    return LabelledTexts(f"sentences {seed}", texts, labels)


def test_from_texts_to_labels_through_a_folder(sklearn, encoder, tmp_path):
    trained = train_classifier(encoder, sentences(120, 0), unescape=True, folds=4)
    other = SentenceEncoder(write_model(tmp_path / "other", seed=5))
    with pytest.raises(OriginError, match="'tiny-model'"):
        trained.classifier.encode(other, ["cat"])
    trained.classifier.save(tmp_path / "pets")
    loaded = load_classifier(tmp_path / "pets")
    data = sentences(150, 1)
    report = evaluate_classifier(loaded, encoder, data)
    assert report.accuracy.low > 0.65 and report.set == "sentences 1"
    known, texts = ([t.replace("&amp;", "&") for t in one.texts] for one in (sentences(120, 0), data))
    assert report.learnt == sum(text in known for text in texts) and 0 < report.learnt < 150
    labels = loaded.predict(encoder.encode(texts))
    assert np.mean(np.array(labels) == data.labels) == report.accuracy.mean
    train = sentences(120, 0)
    assert evaluate_classifier(loaded, encoder, data, train=train).baseline.tfidf.accuracy.mean == 1.0
    for other, key in (
        (data, "the texts differ"),
        (LabelledTexts("swapped", train.texts, ["cat"] * 60 + ["dog"] * 60), "the labels differ"),
    ):
        with pytest.raises(ValueError, match=key):
            evaluate_classifier(loaded, None, data, train=other)


def test_equal_texts_are_encoded_once_and_stay_in_one_fold(sklearn, encoder, monkeypatch):
    asked = []
    encode = SentenceEncoder.encode
    monkeypatch.setattr(SentenceEncoder, "encode", lambda self, s, **o: asked.append(list(s)) or encode(self, s, **o))
    data = sentences(60, 2)
    twice = LabelledTexts("twice", [*data.texts, *data.texts], [*data.labels, *data.labels])
    out = train_classifier(encoder, twice, folds=3, strengths=[1.0], unescape=True).held_out
    assert len(asked) == 1 and len(asked[0]) == len(set(data.texts)) < 60
    np.testing.assert_allclose(out[:60], out[60:], rtol=0, atol=1e-6)  # equal vectors, in other company
