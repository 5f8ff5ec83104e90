"""Classification on frozen vectors: exact figures by hand, draws, intervals, what is refused, and the command line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import run, stand_in
from tiny import write_model

from minisbert.cli import evaluate as verb
from minisbert.evaluation import classification as module
from minisbert.evaluation.classification import (
    PUBLISHED,
    ClassificationResult,
    LabelledTexts,
    checked_label,
    draw_examples,
    evaluate_classification,
    nearest_centroid,
    read_labelled,
)
from minisbert.tables import InputError


class Points:
    """Encodes a text such as "3,4" as the point (3, 4), and counts what it was asked."""

    def __init__(self, dtype=np.float32):
        self.dtype, self.asked = dtype, []

    def encode(self, sentences, **options):
        self.asked.append(list(sentences))
        return np.array([[float(x) for x in s.split(",")] for s in sentences], self.dtype)


TRAIN = LabelledTexts("train", ["1,0", "2,1", "0,1", "1,3"], ["east", "east", "north", "north"])
# east, north, and two on the wrong side of the line between the centroids
TEST = LabelledTexts("test", ["5,1", "1,9", "1,2", "7,1"], ["east", "north", "east", "north"])


def evaluate(train=TRAIN, test=TEST, encoder=None, classifier="centroid", **options):
    options = {"examples_per_class": 2, "draws": 1, **options}
    return evaluate_classification(encoder or Points(), train, test, classifiers=(classifier,), **options)[classifier]


# -------------------------------------------------------------------------------------------------- classifiers


def test_the_nearest_centroid_by_hand():
    # class 0: (1, 0) and (0.6, 0.8), mean (0.8, 0.4); class 1: (0, 1), however long. Both cosines are equal where
    # 0.8 x + 0.4 y = sqrt(0.8) y, that is y / x = 0.8 / (sqrt(0.8) - 0.4) = 1.618: the golden ratio
    vectors = np.array([[1.0, 0.0], [30.0, 40.0], [0.0, 0.01]])
    others = np.array([[1.0, 1.61], [1.0, 1.63], [100.0, 161.0], [-1.0, 0.0], [1.0, -1.0]])
    assert nearest_centroid(vectors, np.array([0, 0, 1]), others).tolist() == [0, 1, 0, 1, 0]
    # not the mean of the vectors, which the long one would pull to (15.5, 20), nor of Euclidean distances
    assert nearest_centroid(vectors, np.array([0, 0, 1]), np.array([[1.0, 2.0]])).tolist() == [1]


# ------------------------------------------------------------------------------------------------------ figures


def test_each_distinct_text_that_is_needed_is_encoded_once():
    train = LabelledTexts("train", [f"{i},1" for i in range(1, 81)], ["a"] * 40 + ["b"] * 40)
    test = LabelledTexts("test", ["5,1", "70,1", "70,1"], ["a", "b", "b"])
    encoder = Points()
    result = evaluate(train, test, encoder, draws=3, examples_per_class=4)
    (asked,) = encoder.asked
    drawn = {train.texts[i] for i in result.drawn.ravel()}
    assert set(asked) == drawn | set(test.texts) and len(asked) == len(set(asked)) < 30
    assert result.test_in_train == 3 and result.correct.shape == (3, 3)


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**32))
def test_draws_have_equally_many_of_each_class_and_none_twice(count, examples, seed):
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.repeat(np.arange(count), rng.integers(examples, 9, count)))
    drawn = draw_examples(classes, examples, rng)
    assert np.array_equal(classes[drawn], np.repeat(np.arange(count), examples))
    assert len(set(drawn.tolist())) == len(drawn)


def test_the_same_seed_gives_the_same_draws_whatever_the_model_and_classifiers(monkeypatch):
    train = LabelledTexts("t", [f"{i},{i * i % 7}" for i in range(1, 31)], ["a", "b", "c"] * 10)
    one, other = (evaluate(train, train, draws=4, seed=seed) for seed in (3, 4))
    assert len({tuple(row) for row in one.drawn.tolist()}) == 4  # a draw is not the one before
    assert not np.array_equal(one.drawn, other.drawn)
    monkeypatch.setitem(module.CLASSIFIERS, "first", lambda vectors, classes, others: np.zeros(len(others), int))
    again = evaluate(train, train, Points(np.float64), "first", draws=4, seed=3)
    assert np.array_equal(again.drawn, one.drawn) and again.accuracies.tolist() == [1 / 3] * 4


def result_with(correct):
    """A result with these answers; all else as plain as can be."""
    drawn = np.tile([0, 1], (len(correct), 1))
    return ClassificationResult(("a", "b"), 0, drawn, np.array(correct, bool), np.zeros(len(correct)))


def test_the_interval_over_draws_by_hand(sklearn):
    # accuracies 0.25, 0.5, 0.75: s = 0.25, t(0.975, 2) = 4.302653, half = 4.302653 * 0.25 / sqrt(3) = 0.621034
    result = result_with([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]])
    assert result.over_draws() == (0.5, 0.0, 1.0)  # no share is below 0
    near = result_with([[1] * 50 + [0] * 50, [1] * 51 + [0] * 49, [1] * 52 + [0] * 48]).over_draws()
    assert near == pytest.approx((0.51, 0.51 - 0.02484137, 0.51 + 0.02484137), abs=1e-8)  # half of s = 0.01
    assert np.isnan(result_with([[1, 0]]).over_draws()[1:]).all() and result_with([[1, 0]]).over_draws().mean == 0.5


# ------------------------------------------------------------------------------------------------------ refused


def test_what_cannot_be_evaluated_is_refused_before_any_work():
    encoder = Points()
    for change, key in (
        ({"examples_per_class": 3}, "'east', 'north' have fewer"),
        ({"test": LabelledTexts("test", ["1,1"] * 3, ["east", "west", "west"])}, "'west', on 2 texts"),
        ({"train": LabelledTexts("train", ["1,0", "2,0"], ["x", "x"])}, "one class, 'x'"),
    ):
        with pytest.raises(ValueError, match=key):
            evaluate(encoder=encoder, **change)
    assert encoder.asked == []


# ------------------------------------------------------------------------------------------------------ reading


def write(name, content, folder=Path()):
    file = folder / name
    file.write_text(content)
    return file


def test_files_are_read_and_bad_labels_are_named_with_the_line(tmp_path):
    found = read_labelled(write("a.csv", "id,utterance,intent\n1,a cat,x\n2,tea,y \n", tmp_path))
    assert (found.texts, found.labels, found.name) == (["a cat", "tea"], ["x", "y"], "a.csv")
    plain = write("b.tsv", "a cat\tx\ntea\ty\n", tmp_path)
    assert read_labelled(plain, columns=["2", "1"], has_header=False).labels == ["x", "y"]
    assert [checked_label(value, "label", "t") for value in (3, -1, True, "x y ")] == ["3", "-1", "true", "x y"]
    for value in (None, 0.5, ["x"], "  "):
        with pytest.raises(InputError, match=r"t\.jsonl, line 2: the label in column 'label'"):
            checked_label(value, "label", "t.jsonl, line 2")
    for content, key in (
        ("label\ttext\n", "no rows"),
        ("label\ttext\nx\ta\n\ttea\n", "line 3: the label in column 'label'"),
    ):
        with pytest.raises(InputError, match=key):
            read_labelled(write("a.tsv", content, tmp_path))


# ------------------------------------------------------------------------------------------------- command line


def test_the_published_figure_stands_beside_ours_for_its_own_set_and_model_only(sklearn, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, write_model(tmp_path / "tiny-model"))
    rows = [
        f"{label}\tthe {label} {extra}\n"
        for label in ("cat", "soup")
        for extra in ["the", "i", "on", "mat", "and", "dog", "sat", "ran"]
    ]
    for name in ("train.tsv", "test.tsv"):
        write(name, "label\ttext\n" + "".join(rows))
    monkeypatch.setitem(PUBLISHED, (16, 16, 2, 8, 10, "centroid"), ("tiny", 0.5))

    def shown(*arguments):
        return run("evaluate", "classification", "train.tsv", "test.tsv", *arguments).stdout

    assert "published" not in shown()  # another model
    monkeypatch.setattr(verb.hub, "is_default_model", lambda folder: True)
    row = shown().splitlines()[3].split()
    assert row[-2] == "50.00" and float(row[-1]) == pytest.approx(float(row[1]) - 50, abs=0.011)
    for other in (["--draws", 9], ["--examples-per-class", 7], ["--max-seq-length", 9]):
        assert "published" not in shown(*other)
    assert PUBLISHED[10_003, 3_080, 77, 8, 10, "logistic"] == ("Banking77", 0.8004)
