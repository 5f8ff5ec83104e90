"""Cluster texts by meaning, with k-means, agglomerative clustering or communities; score the clusters, and name them.

All three compare directions alone: rows are scaled to length 1. Between such rows the squared Euclidean distance is
``2 - 2 cos``, so k-means goes by the cosine too. scikit-learn runs on one thread here, since the order in which threads
add up would decide close calls; another processor, another release, or vectors that differ in the last digit (see
``SentenceEncoder.encode(deterministic=True)``) may still move one.

What is a cluster about? Its most typical texts, those nearest to its centroid, and the words it has more of than the
others, by counting (class-based TF-IDF, :func:`class_tf_idf`): lower case, letters and digits, two characters or more,
without contractions ("don't", "I'm") and scikit-learn's English stop words. Chinese, Japanese and Korean have no spaces
between words; there every two adjacent characters count as one. Letters: ``M`` texts, ``D`` width of a vector, ``C``
clusters, ``W`` words.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from minisbert.checks import check_choice, check_vectors, check_whole, each_text, require
from minisbert.model import Array
from minisbert.nearest import community_detection

METHODS = ("kmeans", "agglomerative", "community")
K_RANGE = (2, 20)
"""Numbers of clusters that k-means tries by default."""
DISTANCE = 0.5
"""Default of agglomerative clustering: a mean cosine of 0.5."""
THRESHOLD, MIN_COMMUNITY_SIZE = 0.75, 3
MOST_TEXTS = 20_000
"""For agglomerative clustering, whose table of all pairs takes 1.6 GB then."""
SAMPLE = 10_000
"""Texts whose silhouettes choose k; of more, which would take all pairs for every k, so many are drawn."""
SAME = 1e-6
"""Unit vectors that differ by less are the same but for rounding."""
_STARTS = 10  # of k-means; the best is kept
WORDS, NAME_WORDS = 5, 3  # of a cluster, and those in its title
LETTERS = 30  # of a text that stands in for missing words
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_CONTRACTION = re.compile(r"n['’]t$|['’](?:m|re|ve|ll|d)$")
_NO_BLANKS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+")


@dataclass(frozen=True, eq=False)
class Clustering:
    """The cluster of each text, the largest cluster first."""

    ids: Array  # (M,) intp, from 0; -1: in no cluster
    method: str
    settings: dict[str, Any]  # as asked for or chosen
    similarity: Array  # (M,) cosine with the mean of its cluster; 0 for texts in none
    silhouettes: Array | None  # (M,) ``(b - a) / max(a, b)``; 0 in no cluster; None for fewer than 2
    tried: tuple[tuple[int, float], ...] = ()  # (k, mean silhouette), if k was chosen

    @property
    def sizes(self) -> Array:
        """Texts in each cluster: (C,)."""
        return np.bincount(self.ids[self.ids >= 0])

    @property
    def count(self) -> int:
        """Number of clusters."""
        return len(self.sizes)

    @property
    def silhouette(self) -> float | None:
        """Mean over the texts that are in a cluster, in [-1, 1]; None for fewer than 2 clusters."""
        return None if self.silhouettes is None else float(self.silhouettes[self.ids >= 0].mean())

    def silhouette_of(self, group: int) -> float | None:
        """Mean silhouette of one cluster, in [-1, 1]; None for fewer than 2 clusters."""
        return None if self.silhouettes is None else float(self.silhouettes[self.ids == group].mean())


@dataclass(frozen=True)
class Agreement:
    """How far clusters agree with known labels; every score is 1 for the same partition."""

    v_measure: float  # harmonic mean of the next two, in [0, 1]; many clusters raise it even by chance
    homogeneity: float  # each cluster holds texts of one label, in [0, 1]
    completeness: float  # texts of one label are in one cluster, in [0, 1]
    adjusted_mutual_info: float  # 0 is chance, whatever the number of clusters; at most 1
    labels: int  # distinct ones


def cluster(
    vectors: ArrayLike,
    method: str = "kmeans",
    *,
    k: int | tuple[int, int] | None = None,
    distance: float | None = None,
    threshold: float = THRESHOLD,
    min_community_size: int = MIN_COMMUNITY_SIZE,
    seed: int = 0,
) -> Clustering:
    """Cluster texts by meaning.

    Parameters
    ----------
    vectors : array_like, shape (M, D)
        One per text. Only directions count.
    method : {"kmeans", "agglomerative", "community"}
        ``kmeans`` puts every text into one of ``k`` clusters. ``agglomerative`` starts with each text alone and merges
        the two clusters with the least mean cosine distance (average linkage), up to :data:`MOST_TEXTS` texts.
        ``community`` finds texts around a centre, and leaves the rest in no cluster, -1.
    k : int or (int, int), optional
        Number of clusters, at most that of distinct vectors. k-means also takes a range, by default :data:`K_RANGE`,
        and chooses the ``k`` with the largest mean silhouette.
    distance : float, optional
        For agglomerative clustering instead of ``k``: clusters at this mean cosine distance or more are not merged; in
        (0, 2], by default :data:`DISTANCE`.
    threshold : float
        For communities: minimum cosine with the centre, in [-1, 1].
    min_community_size : int
        For communities: minimum number of texts.
    seed : int
        For k-means, which starts at random :data:`_STARTS` times and keeps the tightest clusters.

    Returns
    -------
    Clustering
        Clusters by size, ties by their first text.

    Raises
    ------
    ValueError
        For no vectors, NaN, or rows of zeros; fewer distinct vectors than clusters; too many texts for agglomerative
        clustering; settings of another method; scikit-learn not installed.

    Notes
    -----
    **Source**: ``sklearn.cluster.KMeans(k, n_init=10)`` on unit rows, whose means are not scaled to length 1 again, as
    spherical k-means would; ``sklearn.cluster.AgglomerativeClustering(metric="cosine", linkage="average")``;
    ``sentence_transformers.util.community_detection``.

    Examples
    --------
    >>> east, north = [1.0, 0.0], [0.0, 1.0]
    >>> found = cluster([east, north, [0.9, 0.1], [0.8, 0.1], [-1.0, 0.0]], "community", min_community_size=1)
    >>> found.ids, found.sizes
    (array([0, 1, 0, 0, 2]), array([3, 1, 1]))
    """
    check_settings(method, k, distance)
    unit = unit_rows(vectors, "cluster: vectors")
    require("sklearn", "apps", "clustering")
    tried: tuple[tuple[int, float], ...] = ()
    settings: dict[str, Any]
    with threadpool_limits(1):
        if method == "community":
            settings = {"threshold": threshold, "min_community_size": min_community_size}
            raw = np.full(len(unit), -1)
            for group, rows in enumerate(community_detection(unit, threshold, min_community_size)):
                raw[rows] = group
        elif method == "agglomerative":
            distance = DISTANCE if k is None and distance is None else distance
            settings = {"distance": distance} if k is None else {"k": k}
            raw = _agglomerative(unit, k, distance)
        else:
            raw, tried = _kmeans(unit, k, seed)
            settings = {"k": int(raw.max()) + 1, "seed": seed}
        # the largest first, ties by their first text
        values, first, sizes = np.unique(raw[raw >= 0], return_index=True, return_counts=True)
        ids = np.full(len(raw), -1, np.intp)  # (M,)
        for new, old in enumerate(np.lexsort((first, -sizes))):
            ids[raw == values[old]] = new
        silhouettes = _silhouettes(unit, ids) if len(sizes) > 1 else None
    similarity = np.zeros(len(unit))
    for group in range(len(sizes)):
        members = unit[ids == group].astype(np.float64)
        mean = members.mean(axis=0)
        similarity[ids == group] = np.clip(members @ mean / (np.linalg.norm(mean) or 1.0), -1.0, 1.0)
    return Clustering(ids, method, settings, similarity, silhouettes, tried)


def unit_rows(vectors: ArrayLike, what: str) -> Array:
    """Scale vectors to length 1, (M, D) -> (M, D); ValueError for no rows, NaN, Inf and rows of zeros.

    >>> unit_rows([[3.0, 4.0]], "cluster: vectors")
    array([[0.6, 0.8]])
    """
    rows = check_vectors(vectors, what)
    if not len(rows):
        raise ValueError(f"{what}: expected at least one row, got shape {rows.shape}")
    largest = np.abs(rows).max(axis=1, keepdims=True)  # (M, 1)
    if not largest.all():
        raise ValueError(
            f"{what}: row {int(largest.argmin())} is all zeros; no encoder returns that, was it not filled?"
        )
    rows = rows / largest  # so that squares neither overflow nor underflow
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def check_settings(method: str, k: int | tuple[int, int] | None, distance: float | None) -> None:
    """Raise for impossible settings and those of another method, before minutes of work."""
    check_choice("cluster: method", method, METHODS)
    for name, value, methods in (("k", k, METHODS[:2]), ("distance", distance, METHODS[1:2])):
        if value is not None and method not in methods:
            raise ValueError(
                f"cluster: {name} is for {' and '.join(methods)}, and the method is {method}; leave it out"
            )
    if isinstance(k, tuple):
        if method != "kmeans":
            raise ValueError(f"cluster: only kmeans takes a range of k; give {method} one number, or a distance")
        if len(k) != 2 or not check_whole("cluster: k", k[0], 2) <= check_whole("cluster: k", k[1], 2):
            raise ValueError(
                f"cluster: k must be (low, high) with 2 <= low <= high, got {k!r}; one cluster has no silhouette"
            )
    elif k is not None:
        check_whole("cluster: k", k, 1)
    if distance is not None and k is not None:
        raise ValueError("cluster: give k or distance, not both: each is a stopping rule")
    if distance is not None and not 0 < distance <= 2:
        raise ValueError(f"cluster: distance must be a cosine distance, in (0, 2], got {distance!r}; it is 1 - cosine")


def _kmeans(unit: Array, k: int | tuple[int, int] | None, seed: int) -> tuple[Array, tuple[tuple[int, float], ...]]:
    """The cluster of each text, and the silhouette of each k that was tried; on ties the fewest clusters."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    is_one = float(np.abs(unit - unit[0]).max()) < SAME  # but for rounding
    different = 1 if is_one else len({row.tobytes() for row in unit + 0.0})  # -0.0 becomes 0.0
    least, most = k if isinstance(k, tuple) else K_RANGE if k is None else (k, k)
    if least > different:
        raise ValueError(
            f"cluster: k = {least:,} clusters need as many different vectors, got {different:,} among {len(unit):,}; "
            "use a smaller k, or more texts"
        )
    best, found, tried = -math.inf, np.zeros(0), []
    for size in range(least, min(most, different) + 1):
        raw = KMeans(size, n_init=_STARTS, random_state=seed).fit_predict(unit)
        if k is not None and not isinstance(k, tuple):
            return raw, ()
        if len(unit) <= SAMPLE:
            score = float(_silhouettes(unit, raw).mean())
        else:
            score = float(silhouette_score(unit, raw, metric="cosine", sample_size=SAMPLE, random_state=seed))
        tried.append((size, score))
        if score > best:
            best, found = score, raw
    return found, tuple(tried)


def _agglomerative(unit: Array, k: int | tuple[int, int] | None, distance: float | None) -> Array:
    """Merge clusters until there are k, or none are near."""
    from sklearn.cluster import AgglomerativeClustering

    if len(unit) > MOST_TEXTS:
        raise ValueError(
            f"cluster: agglomerative clustering compares all pairs, and takes at most {MOST_TEXTS:,} texts, got "
            f"{len(unit):,}; use kmeans or community, or a sample"
        )
    if isinstance(k, (int, np.integer)) and k > len(unit):
        raise ValueError(f"cluster: k = {k:,} clusters need as many texts, got {len(unit):,}; use a smaller k")
    if len(unit) == 1:
        return np.zeros(1, np.intp)  # scikit-learn needs two
    model = AgglomerativeClustering(k, distance_threshold=distance, metric="cosine", linkage="average")
    return model.fit_predict(unit.astype(np.float64))


def _silhouettes(unit: Array, ids: Array) -> Array:
    """``(b - a) / max(a, b)`` of each text, (M, D), (M,) -> (M,): is it nearer to its own cluster than to the next one?

    ``a`` is the mean cosine distance to the other texts of its cluster, ``b`` that to the nearest other cluster: 1 is
    well inside, 0 between two, or alone in its cluster, or in none.
    """
    from sklearn.metrics import silhouette_samples

    found, inside = np.zeros(len(unit)), ids >= 0
    if len(np.unique(ids[inside])) < inside.sum():  # else each text is alone
        found[inside] = silhouette_samples(unit[inside].astype(np.float64), ids[inside], metric="cosine")
    return found


def agreement(labels: Sequence[str], ids: ArrayLike) -> Agreement:
    """Measure how far clusters agree with labels; texts in no cluster (-1) count as one more cluster.

    **Source**: Rosenberg & Hirschberg 2007; Vinh et al. 2010; ``sklearn.metrics.homogeneity_completeness_v_measure``
    and ``adjusted_mutual_info_score``. MTEB's clustering tasks report the V-measure with ``k`` the number of labels.
    """
    require("sklearn", "apps", "comparing clusters with labels")
    from sklearn.metrics import adjusted_mutual_info_score, homogeneity_completeness_v_measure

    groups = checked_ids("agreement", ids, len(labels))
    if not len(groups):
        raise ValueError("agreement: expected at least one label, got none")
    numbers = np.unique(np.asarray(labels), return_inverse=True)[1]
    with threadpool_limits(1):
        homogeneity, completeness, v_measure = homogeneity_completeness_v_measure(numbers, groups)
        mutual = float(adjusted_mutual_info_score(numbers, groups))
    return Agreement(float(v_measure), float(homogeneity), float(completeness), mutual, int(numbers.max()) + 1)


def checked_ids(function: str, ids: ArrayLike, count: int) -> Array:
    """Cluster ids as intp, (M,) -> (M,); ValueError unless they are ``count`` integers from -1."""
    groups = np.asarray(ids)
    if groups.shape != (count,) or groups.dtype.kind not in "iu" or (count and int(groups.min()) < -1):
        raise ValueError(
            f"{function}: ids must be {count:,} whole numbers from -1 (no group), one for each text, got "
            f"{groups.dtype} of shape {groups.shape}"
        )
    return groups.astype(np.intp)


# ------------------------------------------------------------------------------------------------------- names


@dataclass(frozen=True)
class ClusterName:
    """What a cluster is about."""

    words: tuple[str, ...]  # the highest weight first; none if all are stop words
    typical: tuple[int, ...]  # rows, the nearest to the centroid first
    title: str  # the first words, or else the beginning of the most typical text


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each text, and the groups' names; for colours on a map.

    ``ids`` (M,) count from 0, -1 is none; there is a name for each. ``kind`` is what a group is, in one word, for
    captions.

    >>> Groups([0, 0, 1, -1], ["soup", "cat"], "cluster").sizes
    array([2, 1])
    """

    ids: Array  # (M,) intp
    names: Sequence[str]
    kind: str = "label"

    def __post_init__(self) -> None:
        ids = checked_ids("Groups", self.ids, len(self.ids))
        if int(ids.max(initial=-1)) >= len(self.names):
            raise ValueError(f"Groups: {len(self.names):,} names for {int(ids.max()) + 1:,} groups; give one per group")
        object.__setattr__(self, "ids", ids)

    @property
    def sizes(self) -> Array:
        """Texts in each group: (C,)."""
        return np.bincount(self.ids[self.ids >= 0], minlength=len(self.names))

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Groups:
        """One group per label, the largest first, ties in alphabetical order."""
        counts = Counter(labels)
        names = sorted(counts, key=lambda name: (-counts[name], name))
        number = {name: i for i, name in enumerate(names)}
        return cls(np.array([number[label] for label in labels], np.intp), names, "label")


def name_clusters(texts: Sequence[str], vectors: ArrayLike, ids: ArrayLike, *, typical: int = 3) -> list[ClusterName]:
    """Label each cluster by its typical words and texts.

    Parameters
    ----------
    texts : sequence of str
        ``M`` of them.
    vectors : array_like, shape (M, D)
    ids : array_like, shape (M,)
        The cluster of each text, from 0; -1 is none.
    typical : int
        Texts per cluster, at most; at least 1.

    Returns
    -------
    list of ClusterName
        Of clusters 0 to C - 1.

    Raises
    ------
    ValueError
        For sequences of different lengths, invalid ids, vectors with NaN or rows of zeros, and without scikit-learn.

    Examples
    --------
    >>> texts, vectors = ["hot soup", "soup", "a cat"], [[1.0, 0.2], [1.0, 0.1], [0.0, 1.0]]
    >>> [name.title for name in name_clusters(texts, vectors, [0, 0, 1])]
    ['soup, hot', 'cat']
    """
    unit = unit_rows(vectors, "name_clusters: vectors")
    groups = checked_ids("name_clusters", ids, len(unit))
    texts = list(each_text(texts, "name_clusters: texts"))
    if len(texts) != len(unit):
        raise ValueError(
            f"name_clusters: expected as many texts as vectors, got {len(texts):,} and {len(unit):,}; do they belong "
            "to the same file?"
        )
    check_whole("name_clusters: typical", typical, 1)
    require("sklearn", "apps", "naming clusters")
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

    members = [np.flatnonzero(groups == c) for c in range(int(groups.max(initial=-1)) + 1)]
    said = [[word for row in rows for word in find_words(texts[row])] for rows in members]
    found = [[word for word in words if word not in ENGLISH_STOP_WORDS] for words in said]
    vocabulary, weights = np.zeros(0, str), np.zeros((len(members), 0))
    if any(found):
        vectorizer = CountVectorizer(analyzer=lambda words: words)  # they are found already
        weights = class_tf_idf(vectorizer.fit_transform(found).toarray())  # (C, W)
        vocabulary = vectorizer.get_feature_names_out()  # in alphabetical order
    names = []
    for rows, own in zip(members, weights, strict=True):
        heavy: dict[str, str] = {}  # one of singular and plural, the heavier
        for word in vocabulary[np.argsort(-own, kind="stable")[: np.count_nonzero(own)]].tolist():
            heavy.setdefault(word.removesuffix("s"), word)
        vectors_of = unit[rows].astype(np.float64)
        nearness = vectors_of @ vectors_of.mean(axis=0) if len(rows) else np.zeros(0)
        near: dict[str, int] = {}  # one of equal texts; equal vectors are equally near, but for rounding
        for row in rows[np.argsort(-np.round(nearness, 9), kind="stable")].tolist():
            near.setdefault(" ".join(texts[row].split()), row)
        line = next(iter(near), "")
        beginning = line if len(line) <= LETTERS else f"{line[: LETTERS - 1].rstrip()}…"
        best = tuple(heavy.values())[:WORDS]
        title = ", ".join(best[:NAME_WORDS]) or beginning or "(empty)"
        names.append(ClusterName(best, tuple(near.values())[:typical], title))
    return names


def find_words(text: str) -> list[str]:
    """The words of a text that are counted.

    **Source**: as ``sklearn.feature_extraction.text.CountVectorizer``, except for contractions, of which that keeps
    "don" and "ve", and for pairs of characters, as in Lucene's ``CJKAnalyzer``.

    >>> find_words("I don't like Anna's soup at 5:30, 東京都!")
    ['like', 'anna', 'soup', 'at', '30', '東京', '京都']
    """
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if _CONTRACTION.search(word):
            continue
        for run in _NO_BLANKS.findall(word):
            found += [run[i : i + 2] for i in range(max(1, len(run) - 1))]
        found += [part for part in _NO_BLANKS.sub(" ", re.split("['’]", word)[0]).split() if len(part) > 1]
    return found


def class_tf_idf(counts: ArrayLike) -> Array:
    """``weight(t, c) = n(t, c) / sum_t n(t, c) * log(1 + A / n(t))``: frequent in this cluster, rare elsewhere.

    (C, W) -> (C, W)

    ``n(t, c)`` counts word ``t`` in cluster ``c``, ``n(t)`` in all; ``A`` is the mean number of words of a cluster.
    Zeros for an empty cluster and an unused word. **Source**: Grootendorst 2022 (BERTopic), section 3.3;
    ``bertopic.vectorizers.ClassTfidfTransformer``, which rounds ``A`` to an integer.

    >>> class_tf_idf([[3, 1], [0, 4]]).round(2)
    array([[0.64, 0.15],
           [0.  , 0.59]])
    """
    n = np.asarray(counts, np.float64)
    of_group = n.sum(axis=1, keepdims=True)  # (C, 1)
    of_word = n.sum(axis=0)  # (W,)
    share = n / np.maximum(of_group, 1.0)
    return share * np.log1p(float(of_group.mean()) / np.maximum(of_word, 1.0))
