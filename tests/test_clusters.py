"""Clusters: found where they are, as scikit-learn finds and scores them, named by words and texts."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from minisbert.analysis import cluster, clusters, name_clusters
from minisbert.analysis.clusters import ClusterName, agreement, class_tf_idf, find_words, unit_rows


def clouds(sizes=(30, 20, 10), width=8, spread=0.3):
    """Vectors in groups of these sizes, in a random order, and the group of each."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return 2 * np.eye(width)[ids] + spread * rng.standard_normal((len(ids), width)), ids


def same_partition(a, b):
    return len({*zip(a.tolist(), b.tolist(), strict=True)}) == len({*a.tolist()}) == len({*b.tolist()})


SETTINGS = [{"method": "kmeans"}, {"method": "agglomerative"}, {"method": "community", "threshold": 0.6}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_groups_that_are_there_are_found_and_numbered_by_size(settings, sklearn):
    vectors, expected = clouds()
    before = vectors.copy()
    found = cluster(vectors, **settings)
    assert np.array_equal(found.ids, expected) and found.sizes.tolist() == [30, 20, 10] and found.count == 3
    assert np.array_equal(vectors, before)
    scaled = cluster(vectors * np.random.default_rng(1).uniform(0.01, 100, (60, 1)), **settings)  # directions alone
    assert np.array_equal(scaled.ids, expected)
    unit = unit_rows(vectors, "test")
    means = np.stack([unit[expected == c].mean(axis=0) for c in range(3)])[expected]
    np.testing.assert_allclose(found.similarity, (unit * means).sum(axis=1) / np.linalg.norm(means, axis=1), atol=1e-12)


def test_k_is_the_one_with_the_best_silhouette_of_a_sample_if_there_are_many(sklearn, monkeypatch):
    vectors, _ = clouds()
    found = cluster(vectors, k=(2, 6))
    assert [k for k, _ in found.tried] == [2, 3, 4, 5, 6] and found.settings == {"k": 3, "seed": 0}
    for k, score in found.tried:
        assert score == pytest.approx(cluster(vectors, k=k).silhouette, abs=1e-12)
    monkeypatch.setattr(clusters, "SAMPLE", 40)
    sampled = cluster(vectors, k=(2, 6))
    assert np.array_equal(sampled.ids, found.ids) and sampled.tried != found.tried


def test_as_scikit_learn_on_unit_rows_whatever_the_threads(sklearn):
    from sklearn.cluster import AgglomerativeClustering, KMeans
    from sklearn.metrics import silhouette_samples

    vectors, _ = clouds((70, 70, 70), spread=1.5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    tree = AgglomerativeClustering(7, metric="cosine", linkage="average")
    for settings, theirs in (
        ({"k": 7}, KMeans(7, n_init=10, random_state=0).fit_predict(unit)),
        ({"k": 7, "method": "agglomerative"}, tree.fit_predict(unit)),
    ):
        found = []
        for threads in (1, 2):
            with threadpool_limits(threads):
                found.append(cluster(vectors, **settings))
        assert same_partition(found[0].ids, theirs) and np.array_equal(found[0].ids, found[1].ids)
        theirs = silhouette_samples(unit, found[0].ids, metric="cosine")
        np.testing.assert_allclose(found[0].silhouettes, theirs, atol=1e-12)
        assert found[0].silhouette_of(2) == pytest.approx(theirs[found[0].ids == 2].mean())


def test_communities_leave_the_rest_out(sklearn):
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.05, 1.0], [-1.0, -1.0]])
    found = cluster(vectors, "community", threshold=0.9, min_community_size=2)
    assert found.ids.tolist() == [1, 1, 0, 0, 0, -1] and found.sizes.tolist() == [3, 2]
    assert found.silhouettes[5] == found.similarity[5] == 0 and found.silhouette > 0.9
    nobody = cluster(vectors, "community", threshold=1.0, min_community_size=3)
    assert nobody.count == 0 and nobody.silhouette is None and (nobody.ids == -1).all()


def test_one_group_and_as_many_as_texts(sklearn):
    vectors, _ = clouds()
    for found in (cluster(vectors, k=1), cluster(vectors, "agglomerative", distance=2.0), cluster(vectors[:1], k=1)):
        assert found.count == 1 and found.silhouettes is found.silhouette is found.silhouette_of(0) is None
    for method in ("kmeans", "agglomerative"):
        found = cluster(np.eye(4), method, k=4)
        assert found.ids.tolist() == [0, 1, 2, 3] and found.silhouette == 0  # equally large: by their first text


def test_agreement_by_hand(sklearn):
    same = agreement(["a", "b", "a", "c"], [5, 2, 5, 0])
    assert (same.v_measure, same.homogeneity, same.completeness, same.labels) == pytest.approx((1, 1, 1, 3))
    # each label split in two: homogeneous, completeness = I / H(group) = ln 2 / ln 4
    split = agreement(["a", "a", "b", "b"], [0, 1, 2, -1])
    assert (split.homogeneity, split.completeness, split.v_measure) == pytest.approx((1, 0.5, 2 / 3))
    rng = np.random.default_rng(0)
    chance = agreement([str(x) for x in rng.integers(0, 5, 2000)], rng.integers(0, 50, 2000))
    assert abs(chance.adjusted_mutual_info) < 0.01 < chance.v_measure  # many groups raise V even by chance


def test_eight_intents_of_banking77_are_found_and_named(sklearn, weights_folder, data_folder):
    """The first eight labels, every second text."""
    from minisbert import SentenceEncoder

    lines = (data_folder / "banking77" / "banking77_test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    kept = sorted({label for label, _ in rows})[:8]
    labels, texts = zip(*[row for row in rows if row[0] in kept][::2], strict=True)
    vectors = SentenceEncoder(weights_folder).encode(list(texts))
    found = cluster(vectors, k=8)
    assert agreement(labels, found.ids).v_measure > 0.8 and found.silhouette > 0.2
    words = {word for name in name_clusters(texts, vectors, found.ids) for word in name.words}
    assert {"age", "refund"} <= words


# ----------------------------------------------------------------------------------------------------- names


def test_words_as_they_are_counted():
    assert find_words("It's SOUP, isn't it? I’m sure we'll eat_it") == ["it", "soup", "it", "sure", "eat", "it"]
    assert find_words("東京都へ 行く a好きb cafés") == ["東京", "京都", "都へ", "行く", "好き", "cafés"]
    assert find_words("👩‍🍳 !!! _ a 1") == [] == find_words("")


def test_class_tf_idf_is_the_formula():
    counts = np.random.default_rng(0).integers(0, 9, (4, 3))
    counts[1] = counts[:, 2] = 0  # an empty cluster, an unused word
    found, mean = class_tf_idf(counts), counts.sum() / 4
    for row, own in zip(counts, found, strict=True):
        for t, n in enumerate(row):
            expected = n / row.sum() * np.log(1 + mean / counts[:, t].sum()) if n else 0
            assert own[t] == pytest.approx(expected)


TEXTS = ["the hot soup", "soup and the soups", "a cat", "cats and the dog", "the and", "soup dog"]
VECTORS = [[1, 0.2], [1, 0.1], [0.1, 1], [0, 1], [-1, 0], [-1, 1]]
IDS = [0, 0, 1, 1, 2, -1]


def test_names_leave_out_stop_words_plurals_and_what_all_have(sklearn):
    names = name_clusters(TEXTS, VECTORS, IDS, typical=1)
    assert names[0] == ClusterName(("soup", "hot"), (0,), "soup, hot") and names[1].title == "cat, dog"
    assert names[2] == ClusterName((), (4,), "the and")  # without words the text is the name
    assert name_clusters([""], [[1.0]], [0])[0].title == "(empty)"
    assert len(name_clusters(["!" * 500], [[1.0]], [0])[0].title) == 30


def test_typical_texts_are_nearest_the_centroid_and_different(sklearn):
    vectors, texts = [[1, 0.5], [1, 0.1], [1, 0.1], [1, -0.4], [0, 1]], ["far", "near", " near ", "other", "alone"]
    assert [name.typical for name in name_clusters(texts, vectors, [0, 0, 0, 0, 1])] == [(1, 0, 3), (4,)]
