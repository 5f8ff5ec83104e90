"""Clusters: found where they are, scored as scikit-learn scores, named by words and texts, the same each time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from minisbert.analysis import clusters, maps
from minisbert.analysis.clusters import agreement, check_settings, cluster, silhouette
from minisbert.analysis.maps import unit_rows
from minisbert.analysis.naming import (
    ClusterName,
    Groups,
    class_tf_idf,
    find_words,
    name_clusters,
    typical_texts,
    typical_words,
)
from minisbert.evaluation.classification import read_labelled


def clouds(sizes=(30, 20, 10), width=8, spread=0.3, seed=0):
    """Vectors in groups of these sizes, in a random order, and the group of each."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return 2 * np.eye(width)[ids] + spread * rng.standard_normal((len(ids), width)), ids


def same_partition(a, b):
    return len({*zip(a.tolist(), b.tolist(), strict=True)}) == len({*a.tolist()}) == len({*b.tolist()})


# ------------------------------------------------------------------------------------------------ clustering


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "kmeans", "k": 3},
        {"method": "kmeans"},
        {"method": "agglomerative", "k": 3},
        {"method": "agglomerative", "distance": 0.5},
        {"method": "agglomerative"},
        {"method": "community", "threshold": 0.6},
    ],
)
def test_groups_that_are_there_are_found_and_numbered_by_size(settings, sklearn):
    vectors, expected = clouds()
    before = vectors.copy()
    found = cluster(vectors, **settings)
    assert np.array_equal(found.ids, expected) and found.sizes.tolist() == [30, 20, 10] and found.count == 3
    assert np.array_equal(vectors, before) and found.ids.dtype == np.intp
    scaled = cluster(vectors * np.random.default_rng(1).uniform(0.01, 100, (60, 1)), **settings)  # directions alone
    assert np.array_equal(scaled.ids, expected)


def test_equally_large_groups_are_numbered_by_their_first_text(sklearn):
    vectors, ids = clouds((8, 8, 8))
    found = cluster(vectors, k=3)
    firsts = [int(np.flatnonzero(found.ids == c)[0]) for c in range(3)]
    assert firsts == sorted(firsts) and same_partition(found.ids, ids)


def test_k_is_the_one_with_the_best_silhouette(sklearn):
    vectors, _ = clouds()
    found = cluster(vectors, k=(2, 6))
    assert [k for k, _ in found.tried] == [2, 3, 4, 5, 6] and found.settings == {"k": 3, "seed": 0}
    for k, score in found.tried:
        assert score == pytest.approx(cluster(vectors, k=k).silhouette, abs=1e-12)
    assert max(found.tried, key=lambda pair: pair[1])[0] == 3
    few = cluster(vectors[:5])  # 2 to 20 of 5 texts
    assert [k for k, _ in few.tried] == [2, 3, 4, 5]
    assert cluster(vectors, k=3).tried == ()


def test_the_same_whatever_the_threads_and_the_dtype(sklearn):
    vectors, _ = clouds((200, 200, 200), spread=1.5)
    for settings in ({"k": 7}, {"method": "agglomerative", "k": 7}):
        found = []
        for threads in (1, 2):
            with threadpool_limits(threads):
                found.append(cluster(vectors, **settings).ids)
        np.testing.assert_array_equal(*found)
    assert not np.array_equal(cluster(vectors, k=7, seed=1).ids, cluster(vectors, k=7).ids)


def test_kmeans_and_agglomerative_are_scikit_learns_on_unit_rows(sklearn):
    from sklearn.cluster import AgglomerativeClustering, KMeans

    vectors, _ = clouds((40, 40, 40), spread=1.0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    theirs = KMeans(5, n_init=10, random_state=2).fit_predict(unit)
    assert same_partition(cluster(vectors, k=5, seed=2).ids, theirs)
    cosines = 1 - unit @ unit.T
    theirs = AgglomerativeClustering(None, distance_threshold=0.8, metric="precomputed", linkage="average")
    assert same_partition(
        cluster(vectors, "agglomerative", distance=0.8).ids, theirs.fit_predict(np.maximum(cosines, 0))
    )


def test_communities_leave_the_rest_out_and_need_no_scikit_learn(monkeypatch):
    monkeypatch.setattr(maps, "has_sklearn", lambda: False)
    vectors = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.05, 1.0], [-1.0, -1.0]]
    found = cluster(vectors, "community", threshold=0.9, min_community_size=2)
    assert found.ids.tolist() == [1, 1, 0, 0, 0, -1] and found.sizes.tolist() == [3, 2]
    assert found.silhouettes[5] == found.similarity[5] == 0 and found.silhouette > 0.9
    assert found.silhouette == pytest.approx(silhouette(vectors[:5], [1, 1, 0, 0, 0]).mean())
    nobody = cluster(vectors, "community", threshold=1.0, min_community_size=3)
    assert nobody.count == 0 and nobody.silhouette is None and (nobody.ids == -1).all()
    with pytest.raises(ValueError, match=r"kmeans needs scikit-learn: pip install -e '\.\[apps\]'$"):
        cluster(vectors)


def test_similarity_is_the_cosine_with_the_mean(sklearn):
    vectors, ids = clouds()
    found = cluster(vectors, k=3)
    unit = unit_rows("t", vectors)
    for row in range(60):
        mean = unit[ids == ids[row]].mean(axis=0)
        assert found.similarity[row] == pytest.approx(unit[row] @ mean / np.linalg.norm(mean), abs=1e-12)


def test_one_group_has_no_silhouette(sklearn):
    vectors, _ = clouds()
    for found in (cluster(vectors, k=1), cluster(vectors, "agglomerative", distance=2.0), cluster(vectors[:1], k=1)):
        assert found.count == 1 and found.silhouettes is found.silhouette is found.silhouette_of(0) is None
    equal = cluster(np.ones((4, 3)), "agglomerative")
    assert equal.ids.tolist() == [0, 0, 0, 0] and equal.similarity == pytest.approx(1)


def test_as_many_groups_as_texts(sklearn):
    for method in ("kmeans", "agglomerative"):
        found = cluster(np.eye(4), method, k=4)
        assert sorted(found.ids) == [0, 1, 2, 3] and found.silhouette == 0


@pytest.mark.parametrize(
    ("vectors", "settings", "words"),
    [
        (np.eye(3), {"k": 4}, "k = 4 clusters need as many different vectors, got 3 among 3"),
        (np.eye(3), {"k": 4, "method": "agglomerative"}, "k = 4 clusters"),
        (np.eye(3), {"k": (5, 9)}, "k = 5 clusters"),
        ([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], {"k": 3}, "got 2 among 3"),
        ([[1.0, 0.0], [1.0, -0.0]], {"k": 2}, "got 1 among 2"),
        (np.ones((4, 3)), {}, "at least 2 different vectors, got 4"),
        (np.ones((1, 3)), {}, "at least 2 different vectors"),
        (np.empty((0, 3)), {}, "at least one text"),
        ([[np.nan, 1.0], [1.0, 0.0]], {"k": 2}, "NaN or Inf in row 0"),
        ([[0.0, 0.0], [1.0, 0.0]], {"k": 2}, "row 0 is all zeros"),
        (np.eye(3), {"k": 0}, "k must be a whole number of at least 1"),
        (np.eye(3), {"k": True}, "k must be a whole number"),
        (np.eye(3), {"k": (1, 3)}, "at least 2, got 1"),
        (np.eye(3), {"k": (3, 2)}, r"k must be \(low, high\)"),
        (np.eye(3), {"k": (2, 3), "method": "agglomerative"}, "only kmeans takes a range of k"),
        (np.eye(3), {"k": 2, "method": "community"}, "k is for kmeans and agglomerative"),
        (np.eye(3), {"distance": 0.5}, "distance is for agglomerative"),
        (np.eye(3), {"distance": 0.5, "k": 2, "method": "agglomerative"}, "not both"),
        (np.eye(3), {"distance": 0.0, "method": "agglomerative"}, "in \\(0, 2\\]"),
        (np.eye(3), {"distance": np.nan, "method": "agglomerative"}, "in \\(0, 2\\]"),
        (np.eye(3), {"method": "hdbscan"}, "one of kmeans, agglomerative, community"),
        (np.eye(3), {"method": "community", "threshold": 3}, "must be a cosine"),
    ],
)
def test_what_cannot_be_clustered(vectors, settings, words, sklearn):
    with pytest.raises(ValueError, match=words):
        cluster(vectors, **settings)


def test_too_many_texts_for_all_pairs(sklearn, monkeypatch):
    monkeypatch.setattr(clusters, "MOST_TEXTS", 59)
    with pytest.raises(ValueError, match="at most 59 texts, got 60"):
        cluster(clouds()[0], "agglomerative")


# ---------------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("block", [2**22, 7])
def test_silhouettes_are_scikit_learns(block, sklearn, monkeypatch):
    """Measured: 5e-16 in float64 and 2e-7 in float32; the tolerances are 20 times that."""
    from sklearn.metrics import silhouette_samples

    monkeypatch.setattr(clusters, "_BLOCK", block)
    rng = np.random.default_rng(0)
    for sizes, width in (((30, 20, 10), 8), ((1, 1, 40), 3), ((5, 5), 2)):
        vectors, ids = clouds(sizes, width, spread=1.0)
        np.testing.assert_allclose(
            silhouette(vectors, ids), silhouette_samples(vectors, ids, metric="cosine"), atol=1e-14
        )
        low = silhouette(vectors.astype(np.float32), ids)
        np.testing.assert_allclose(low, silhouette_samples(vectors, ids, metric="cosine"), atol=4e-6)
        shuffled = rng.permutation(ids)
        theirs = silhouette_samples(vectors, shuffled, metric="cosine")
        np.testing.assert_allclose(silhouette(vectors, shuffled), theirs, atol=1e-14)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, -1])), min_size=2, max_size=20))
def test_silhouettes_of_equal_vectors_and_loners_stay_in_range(rows):
    vectors = np.array([[1.0, 0.1, 0.0], [0.3, 1.0, 0.7], [-1.0, 0.2, 0.1], [0.3, 1.0, 0.7]])[
        [kind for kind, _ in rows]
    ]
    ids = np.array([group for _, group in rows])
    if len({*ids.tolist()} - {-1}) < 2:
        with pytest.raises(ValueError, match="at least 2 clusters"):
            silhouette(vectors, ids)
        return
    found = silhouette(vectors, ids)
    assert np.isfinite(found).all() and (np.abs(found) <= 1).all()
    assert not found[ids == -1].any()
    for group in range(3):
        if (ids == group).sum() == 1:
            assert not found[ids == group].any()


def test_ids_that_are_none():
    for ids in ([0, 1], [0.0, 1.0, 2.0], [0, -2, 1], [[0, 1, 2]]):
        with pytest.raises(ValueError, match="3 whole numbers from -1"):
            silhouette(np.eye(3), ids)


def test_agreement_by_hand(sklearn):
    same = agreement(["a", "b", "a", "c"], [5, 2, 5, 0])
    assert (same.v_measure, same.homogeneity, same.completeness, same.labels) == pytest.approx((1, 1, 1, 3))
    assert same.adjusted_mutual_info == pytest.approx(1)
    # one group of two labels, halves: H(label | group) = H(label), so nothing is homogeneous and all is complete
    one = agreement(["a", "a", "b", "b"], [0, 0, 0, 0])
    assert (one.homogeneity, one.completeness, one.v_measure) == (0, 1, 0)
    # each label split in two: homogeneous, completeness = I / H(group) = ln 2 / ln 4
    split = agreement(["a", "a", "b", "b"], [0, 1, 2, -1])
    assert split.homogeneity == pytest.approx(1) and split.completeness == pytest.approx(0.5)
    assert split.v_measure == pytest.approx(2 / 3)
    rng = np.random.default_rng(0)
    chance = agreement([str(x) for x in rng.integers(0, 5, 2000)], rng.integers(0, 50, 2000))
    assert abs(chance.adjusted_mutual_info) < 0.01 < chance.v_measure  # many groups raise V even by chance
    with pytest.raises(ValueError, match="at least one label"):
        agreement([], np.empty(0, int))


def test_eight_intents_of_banking77_are_found_and_named(sklearn, weights_folder, data_folder):
    """The first eight labels; measured V-measure 0.936, silhouette 0.397."""
    from minisbert import SentenceEncoder

    known = read_labelled(data_folder / "banking77" / "banking77_test.tsv")
    kept = sorted({*known.labels})[:8]
    rows = [i for i, label in enumerate(known.labels) if label in kept]
    labels = [known.labels[i] for i in rows]
    vectors = SentenceEncoder(weights_folder).encode([known.texts[i] for i in rows])
    found = cluster(vectors, k=8)
    assert agreement(labels, found.ids).v_measure > 0.8
    assert found.silhouette > 0.2
    names = name_clusters([known.texts[i] for i in rows], vectors, found.ids)
    assert any({"age"} & {*name.words} for name in names) and any({"refund"} & {*name.words} for name in names)


# ----------------------------------------------------------------------------------------------------- names


def test_words_as_they_are_counted():
    assert find_words("It's Anna's SOUP, isn't it? I’m sure we'll eat_it at 5:30") == [
        *("it", "anna", "soup", "it", "sure", "eat", "it", "at", "30")
    ]
    assert find_words("東京都へ 行く a好きb cafés") == ["東京", "京都", "都へ", "行く", "好き", "cafés"]
    assert find_words("👩‍🍳 !!! _ a 1") == [] == find_words("")


def test_class_tf_idf_is_the_formula():
    counts = np.array([[4, 0, 1], [1, 2, 2], [0, 0, 0]])
    a = 10 / 3  # words of a group on average
    expected = np.zeros((3, 3))
    for c in range(2):
        for t in range(3):
            expected[c, t] = counts[c, t] / counts[c].sum() * np.log(1 + a / counts[:, t].sum())
    np.testing.assert_allclose(class_tf_idf(counts), expected, rtol=1e-14)
    assert class_tf_idf(np.zeros((2, 0))).shape == (2, 0)


TEXTS = ["the hot soup", "soup and the soups", "a cat", "cats and the dog", "the and", "soup dog"]


def test_typical_words_leave_out_stop_words_plurals_and_what_all_have(sklearn):
    words = typical_words(TEXTS, np.array([0, 0, 1, 1, 2, -1]))
    assert words == [("soup", "hot"), ("cat", "dog"), ()]
    assert typical_words(TEXTS, np.array([0, 0, 1, 1, 2, -1]), 1) == [("soup",), ("cat",), ()]
    kept = typical_words(TEXTS, np.array([0, 0, 1, 1, 2, -1]), stop_words=None)
    assert set(kept[2]) == {"the", "and"}
    assert typical_words(TEXTS, np.array([0, 0, 1, 1, 2, -1]), stop_words=["soup", "soups"])[0][0] == "hot"
    assert typical_words(["the", "!"], np.array([0, 1])) == [(), ()]
    with pytest.raises(ValueError, match="'english', a list of words, or None, got 'german'"):
        typical_words(TEXTS, np.zeros(6, int), stop_words="german")


def test_typical_texts_are_nearest_the_centroid_and_different():
    unit = unit_rows("t", [[1, 0.5], [1, 0.1], [1, 0.1], [1, -0.4], [0, 1]])
    texts = ["far", "near", " near ", "other", "alone"]
    assert typical_texts(texts, unit, np.array([0, 0, 0, 0, 1]), 3) == [(1, 0, 3), (4,)]
    assert typical_texts(texts, unit, np.array([0, 0, 0, 0, -1]), 1) == [(1,)]


def test_names_put_both_together(sklearn):
    vectors = [[1, 0.2], [1, 0.1], [0.1, 1], [0, 1], [-1, 0], [-1, 1]]
    names = name_clusters(TEXTS, vectors, [0, 0, 1, 1, 2, -1], typical=1)
    assert names[0] == ClusterName(("soup", "hot"), (0,), "soup, hot") and names[1].title == "cat, dog"
    assert names[2] == ClusterName((), (4,), "the and")  # without words the text is the name
    assert name_clusters([""], [[1.0]], [0])[0].title == "(empty)"
    assert len(name_clusters(["!" * 500], [[1.0]], [0])[0].title) == 30
    assert name_clusters(TEXTS, vectors, [-1] * 6) == []
    with pytest.raises(ValueError, match="as many texts as vectors, got 5 and 6"):
        name_clusters(TEXTS[:5], vectors, [0] * 6)


def test_groups_of_labels():
    groups = Groups.of_labels(["b", "a", "c", "c"])
    assert (groups.names, groups.ids.tolist(), groups.sizes.tolist()) == (["c", "a", "b"], [2, 1, 0, 0], [2, 1, 1])
    with pytest.raises(ValueError, match="1 names for 2 groups"):
        Groups([0, 1], ["a"])
    with pytest.raises(ValueError, match="whole numbers from -1"):
        Groups([0, -2], ["a"])


def test_settings_are_checked_before_anything_is_embedded():
    check_settings("kmeans", (2, 2), None)
    check_settings("agglomerative", 3, None)
    with pytest.raises(ValueError, match="give k or distance"):
        check_settings("agglomerative", 3, 0.5)


def test_names_are_of_the_rows_of_a_series_and_not_of_its_labels():
    pandas = pytest.importorskip("pandas")
    texts, vectors, ids = ["soup", "stew", "rain", "snow"], np.eye(2)[[0, 0, 1, 1]], [0, 0, 1, 1]
    series = pandas.Series(texts, index=[3, 2, 1, 0])
    assert name_clusters(series, vectors, ids) == name_clusters(texts, vectors, ids)
