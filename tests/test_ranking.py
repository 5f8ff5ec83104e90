"""Ranking measures: hand-worked cases, a slow reference, sklearn as oracle; ties; what is refused."""

import math

import numpy as np
import pytest
from conftest import _optional_import
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.evaluation.ranking import average_precision, id_order, ndcg, precision, rank, recall, reciprocal_rank


@pytest.fixture(scope="module")
def metrics():
    """scikit-learn, which comes with sentence-transformers."""
    return _optional_import("sklearn.metrics")


# ------------------------------------------------------------------------------------------- worked by hand


def test_one_query_worked_by_hand():
    # judged: grades 3, 2, 1, 1 and a 0; the ranking finds 2 at rank 1, 3 at rank 3, a 1 at rank 5
    ranked, judged = [[2, 0, 3, 0, 1]], [[3, 0, 1, 2, 1]]
    dcg = 2 / 1 + 3 / 2 + 1 / math.log2(6)
    ideal = 3 / 1 + 2 / math.log2(3) + 1 / 2 + 1 / math.log2(5)
    assert ndcg(ranked, judged, 5) == pytest.approx([dcg / ideal], abs=1e-15)
    # only three ranks count, above and below the line
    assert ndcg(ranked, judged, 3) == pytest.approx([3.5 / (3 + 2 / math.log2(3) + 1 / 2)], abs=1e-15)
    assert average_precision(ranked, judged, 5) == pytest.approx([(1 / 1 + 2 / 3 + 3 / 5) / 4], abs=1e-15)
    assert average_precision(ranked, judged, 4) == pytest.approx([(1 / 1 + 2 / 3) / 4], abs=1e-15)
    assert recall(ranked, judged, 3).tolist() == [0.5]
    assert precision(ranked, 4).tolist() == [0.5]
    assert reciprocal_rank(ranked, 10).tolist() == [1.0]


def test_the_gain_is_linear_and_the_exponential_one_is_another_number():
    ranked, judged = np.array([[1, 2]]), [np.array([2, 1])]
    linear = (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))
    exponential = (1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3))
    assert ndcg(ranked, judged, 2)[0] == pytest.approx(linear, abs=1e-15)
    assert ndcg(2**ranked - 1, [2**grades - 1 for grades in judged], 2)[0] == pytest.approx(exponential, abs=1e-15)


def test_the_ideal_counts_what_was_not_found():
    assert ndcg([[1]], [[1, 1]], 10)[0] == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert average_precision([[1]], [[1, 1]], 10)[0] == 0.5
    # but no more than k of them fit
    assert ndcg([[1]], [[1, 1, 1]], 1)[0] == 1.0
    assert recall([[1]], [[1, 1, 1, 1]], 1)[0] == 0.25  # not "capped"


def test_the_first_relevant_rank_and_the_cutoff():
    ranked = [[0, 1, 1], [0, 0, 2], [0, 0, 0]]
    assert reciprocal_rank(ranked, 3).tolist() == [1 / 2, 1 / 3, 0]
    assert reciprocal_rank(ranked, 2).tolist() == [1 / 2, 0, 0]


def test_a_query_without_a_relevant_document_scores_0():
    ranked, judged = [[0, 0]], [[0, 0, 0]]
    for measured in (ndcg(ranked, judged, 5), average_precision(ranked, judged, 5), recall(ranked, judged, 5)):
        assert measured.tolist() == [0.0]
    assert ndcg([[0]], [[]], 5).tolist() == [0.0]


def test_no_queries_and_no_documents():
    assert ndcg(np.zeros((0, 5)), [], 10).shape == (0,)
    nothing = np.zeros((2, 0))
    judged = [[1], [1, 2]]
    for measured in (ndcg(nothing, judged, 3), recall(nothing, judged, 3), average_precision(nothing, judged, 3)):
        assert measured.tolist() == [0.0, 0.0]
    assert precision(nothing, 3).tolist() == reciprocal_rank(nothing, 3).tolist() == [0.0, 0.0]


# -------------------------------------------------------------------------------------- a slow reference


def slow(name, ranked, judged, k):
    """One query, in plain words."""
    relevant = sum(grade > 0 for grade in judged)
    if name == "precision":
        return sum(grade > 0 for grade in ranked[:k]) / k
    if name == "reciprocal_rank":
        return next((1 / r for r, grade in enumerate(ranked[:k], 1) if grade > 0), 0.0)
    if relevant == 0:
        return 0.0
    if name == "recall":
        return sum(grade > 0 for grade in ranked[:k]) / relevant
    if name == "average_precision":
        found, total = 0, 0.0
        for r, grade in enumerate(ranked[:k], 1):
            if grade > 0:
                found += 1
                total += found / r
        return total / relevant
    gain = sum(grade / math.log2(1 + r) for r, grade in enumerate(ranked[:k], 1))
    return gain / sum(grade / math.log2(1 + r) for r, grade in enumerate(sorted(judged, reverse=True)[:k], 1))


grades = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@st.composite
def queries(draw):
    """Some queries: the grades of all documents of each in ranked order, and which of them the ranking holds."""
    width = draw(st.integers(1, 12))
    rows = draw(st.lists(st.lists(st.integers(0, 4), min_size=width, max_size=width), min_size=1, max_size=4))
    shown = draw(st.integers(0, width))
    return np.array(rows), np.array(rows)[:, :shown]


@given(queries(), st.integers(1, 15))
@settings(max_examples=300)
def test_all_measures_equal_the_slow_reference(drawn, k):
    judged, ranked = drawn
    for measure in (ndcg, average_precision, recall):
        expected = [slow(measure.__name__, *row, k) for row in zip(ranked.tolist(), judged.tolist(), strict=True)]
        np.testing.assert_allclose(measure(ranked, judged, k), expected, rtol=0, atol=1e-14)
        measured = measure(ranked, judged, k)
        assert measured.min() >= 0 and measured.max() <= 1 + 1e-15
    for measure in (precision, reciprocal_rank):
        expected = [slow(measure.__name__, row, [], k) for row in ranked.tolist()]
        np.testing.assert_allclose(measure(ranked, k), expected, rtol=0, atol=1e-15)


@given(grades, st.integers(1, 12), st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_the_order_of_judgements_and_added_zeros_change_nothing(judged, k, random):
    ranked = [judged]
    other = [*judged, 0, 0]
    random.shuffle(other)
    for measure in (ndcg, average_precision, recall):
        assert measure(ranked, [judged], k) == measure(ranked, [other], k)


def test_sklearn_agrees(metrics):
    rng = np.random.default_rng(5)
    judged = rng.integers(0, 4, (40, 30))
    judged[:, 0] = 1  # nobody is without a relevant document
    scores = rng.standard_normal((40, 30))
    found = rank(scores, np.arange(30), 30)
    ranked = np.take_along_axis(judged, found, axis=1)
    for k in (1, 5, 10, 30):
        expected = metrics.ndcg_score(judged, scores, k=k)
        assert ndcg(ranked, judged, k).mean() == pytest.approx(expected, abs=1e-12)
    expected = [metrics.average_precision_score(j > 0, s) for j, s in zip(judged, scores, strict=True)]
    np.testing.assert_allclose(average_precision(ranked, judged, 30), expected, atol=1e-12)
    labels = np.argmax(judged == 3, axis=1)
    hits = metrics.top_k_accuracy_score(labels, scores, k=5, labels=np.arange(30))
    one = np.eye(30)[labels]
    assert recall(np.take_along_axis(one, found, axis=1), one, 5).mean() == pytest.approx(hits)


# -------------------------------------------------------------------------------------------------- ranking


def test_ties_go_by_document_id_descending_character_by_character():
    ids = ["9", "10", "é", "a", "B"]
    assert [ids[i] for i in np.argsort(id_order(ids))] == ["é", "a", "B", "9", "10"]
    ranked = rank([[0.5] * 5], id_order(ids), 5)
    assert [ids[i] for i in ranked[0]] == ["é", "a", "B", "9", "10"]
    # the cut goes through a group of equals: the ids decide who is in
    scores = [[1.0, 0.5, 0.5, 0.5, 0.0]]
    assert [ids[i] for i in rank(scores, id_order(ids), 3)[0]] == ["9", "é", "a"]


@given(
    st.integers(1, 4).flatmap(
        lambda rows: st.integers(0, 9).flatmap(
            lambda width: st.lists(
                st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=width, max_size=width),
                min_size=rows,
                max_size=rows,
            )
        )
    ),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
@settings(max_examples=200)
def test_ranking_equals_sorting_and_does_not_depend_on_the_order_of_the_corpus(scores, k, random):
    matrix = np.array(scores).reshape(len(scores), -1)
    ids = [f"d{i}" for i in range(matrix.shape[1])]
    expected = [sorted(ids, key=lambda name: (row[ids.index(name)], name), reverse=True)[:k] for row in matrix]
    assert [[ids[i] for i in row] for row in rank(matrix, id_order(ids), k)] == expected
    order = list(range(len(ids)))
    random.shuffle(order)
    shuffled = [ids[i] for i in order]
    assert [[shuffled[i] for i in row] for row in rank(matrix[:, order], id_order(shuffled), k)] == expected


# -------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ndcg([[1]], [[1]], 0), "k must be"),
        (lambda: ndcg([[1]], [[1]], True), "k must be"),
        (lambda: ndcg([1, 0], [[1]], 3), "one row per query"),
        (lambda: ndcg([[1], [0]], [[1]], 3), "2 rankings, but judged_grades for 1"),
        (lambda: ndcg([[np.nan]], [[1]], 3), "got nan"),
        (lambda: recall([[1]], [[-1, 1]], 3), "write 0"),
        (lambda: recall([[1]], [[[1]]], 3), "judged_grades[0]: expected a row"),
        (lambda: recall([[1, 1]], [[1]], 3), "ranked twice"),
        (lambda: ndcg([[3]], [[1]], 3), "ranked twice"),
        (lambda: precision([[np.inf]], 3), "got inf"),
        (lambda: rank([[1.0, np.nan]], [0, 1], 1), "query 0 and document 1"),
        (lambda: rank([[1.0]], [0, 1], 1), "shapes"),
        (lambda: rank([[1.0]], [0], 0), "k must be"),
    ],
)
def test_bad_input_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=r"^(ndcg|recall|precision|rank): ") as raised:
        call()
    assert words in str(raised.value)


def test_sentence_transformers_agrees_on_binary_judgements(sentence_transformers):
    from sentence_transformers.evaluation import InformationRetrievalEvaluator

    rng = np.random.default_rng(6)
    judged = (rng.uniform(size=(20, 30)) < 0.1).astype(int)
    judged[:, 3] = 1
    scores = rng.standard_normal((20, 30))
    names = [f"d{i}" for i in range(30)]
    evaluator = InformationRetrievalEvaluator(
        queries={str(q): "" for q in range(20)},
        corpus=dict.fromkeys(names, ""),
        relevant_docs={str(q): {names[i] for i in np.flatnonzero(row)} for q, row in enumerate(judged)},
        accuracy_at_k=[10],
        precision_recall_at_k=[5],
        map_at_k=[30],  # it divides by min(k, relevant), so only a deep cut is trec_eval's
        mrr_at_k=[10],
        ndcg_at_k=[10],
    )
    results = [[{"corpus_id": n, "score": float(s)} for n, s in zip(names, row, strict=True)] for row in scores]
    theirs = evaluator.compute_metrics(results)
    ranked = np.take_along_axis(judged, rank(scores, id_order(names), 30), axis=1)
    assert ndcg(ranked, judged, 10).mean() == pytest.approx(theirs["ndcg@k"][10], abs=1e-12)
    assert average_precision(ranked, judged, 30).mean() == pytest.approx(theirs["map@k"][30], abs=1e-12)
    assert reciprocal_rank(ranked, 10).mean() == pytest.approx(theirs["mrr@k"][10], abs=1e-12)
    assert recall(ranked, judged, 5).mean() == pytest.approx(theirs["recall@k"][5], abs=1e-12)
    assert precision(ranked, 5).mean() == pytest.approx(theirs["precision@k"][5], abs=1e-12)
