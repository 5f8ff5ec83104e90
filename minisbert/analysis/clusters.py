"""Cluster texts by meaning, with k-means, agglomerative clustering or communities, and score the clusters.

All three compare directions alone: rows are scaled to length 1. Between such rows the squared Euclidean distance is
``2 - 2 cos``, so k-means goes by the cosine too. scikit-learn runs on one thread here, since the order in which threads
add up would decide close calls; another processor, another release, or vectors that differ in the last digit (see
``SentenceEncoder.encode(deterministic=True)``) may still move one.
Letters: ``M`` texts, ``D`` width of a vector, ``C`` clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from minisbert.analysis.maps import SAME, require_sklearn, unit_rows
from minisbert.analysis.naming import checked_ids
from minisbert.checks import check_whole
from minisbert.model import Array
from minisbert.search.nearest import community_detection

METHODS = ("kmeans", "agglomerative", "community")
K_RANGE = (2, 20)
"""Numbers of clusters that k-means tries by default."""
DISTANCE = 0.5
"""Default of agglomerative clustering: a mean cosine of 0.5."""
THRESHOLD, MIN_COMMUNITY_SIZE = 0.75, 3
MOST_TEXTS = 20_000
"""For agglomerative clustering, whose table of all pairs takes 1.6 GB then."""
_STARTS = 10  # of k-means; the best is kept
_NOTHING = 1e-12  # a mean distance below is rounding: the texts are the same
_BLOCK = 2**22  # numbers in a block of the table texts x clusters


@dataclass(frozen=True, eq=False)
class Clustering:
    """The cluster of each text, the largest cluster first."""

    ids: Array  # (M,) intp, from 0; -1: in no cluster
    method: str
    settings: dict[str, Any]  # as asked for or chosen
    similarity: Array  # (M,) cosine with the mean of its cluster; 0 for texts in none
    silhouettes: Array | None  # (M,) see silhouette; None for fewer than 2 clusters
    tried: tuple[tuple[int, float], ...] = ()  # (k, mean silhouette), if k was chosen

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.ids.max(initial=-1)) + 1

    @property
    def sizes(self) -> Array:
        """Texts in each cluster: (C,)."""
        return np.bincount(self.ids[self.ids >= 0], minlength=self.count)

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
        ``community`` finds texts around a centre, and leaves the rest in no cluster, -1, without scikit-learn.
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
    unit = unit_rows("cluster", vectors)
    check_settings(method, k, distance)
    tried: tuple[tuple[int, float], ...] = ()
    settings: dict[str, Any]
    if method == "community":
        settings = {"threshold": threshold, "min_community_size": min_community_size}
        raw = np.full(len(unit), -1)
        for group, rows in enumerate(community_detection(unit, threshold, min_community_size)):
            raw[rows] = group
    else:
        require_sklearn(f"clustering by {method}")
        with threadpool_limits(1):
            if method == "kmeans":
                raw, tried = _kmeans(unit, k, seed)
                settings = {"k": int(raw.max()) + 1, "seed": seed}
            else:
                if k is None and distance is None:
                    distance = DISTANCE
                raw = _agglomerative(unit, k, distance)
                settings = {"distance": distance} if k is None else {"k": k}
    ids = _by_size(raw)
    has_two = int(ids.max(initial=-1)) > 0
    return Clustering(ids, method, settings, _to_means(unit, ids), silhouette(unit, ids) if has_two else None, tried)


def check_settings(method: str, k: int | tuple[int, int] | None, distance: float | None) -> None:
    """Raise for impossible settings and those of another method, before minutes of work."""
    if method not in METHODS:
        raise ValueError(f"cluster: method must be one of {', '.join(METHODS)}, got {method!r}")
    if k is not None and method == "community":
        raise ValueError(
            "cluster: k is for kmeans and agglomerative; community finds their number itself: see threshold"
        )
    if distance is not None and method != "agglomerative":
        raise ValueError(f"cluster: distance is for agglomerative, and the method is {method}; leave it out")
    if isinstance(k, tuple):
        if method != "kmeans":
            raise ValueError(f"cluster: only kmeans takes a range of k; give {method} one number, or a distance")
        if len(k) != 2 or not 2 <= check_whole("cluster: k", k[0], 2) <= check_whole("cluster: k", k[1], 2):
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
    """The cluster of each text, and the silhouette of each k that was tried."""
    different = _count_different(unit)
    if isinstance(k, (int, np.integer)):
        _check_k(int(k), different, len(unit))
        return _fit_kmeans(unit, int(k), seed), ()
    if different < 2:
        raise ValueError(
            f"cluster: choosing k needs at least 2 different vectors, got {len(unit):,} identical ones; are the texts "
            "identical? k=1 makes one cluster of them"
        )
    least, most = k or K_RANGE
    _check_k(least, different, len(unit))
    best: tuple[float, Array] = (-math.inf, np.zeros(0))
    tried = []
    for size in range(least, min(most, different) + 1):
        raw = _fit_kmeans(unit, size, seed)
        score = float(silhouette(unit, raw).mean())
        tried.append((size, score))
        if score > best[0]:  # on ties the fewest clusters
            best = score, raw
    return best[1], tuple(tried)


def _count_different(unit: Array) -> int:
    """Count distinct vectors; 1 if they differ by rounding alone."""
    if float(np.abs(unit - unit[0]).max()) < SAME:
        return 1
    return len({row.tobytes() for row in unit + 0.0})  # -0.0 becomes 0.0


def _check_k(k: int, different: int, count: int) -> None:
    """Raise if there are more clusters than distinct vectors."""
    if k > different:
        raise ValueError(
            f"cluster: k = {k:,} clusters need as many different vectors, got {different:,} among {count:,}; "
            "use a smaller k, or more texts"
        )


def _fit_kmeans(unit: Array, k: int, seed: int) -> Array:
    """Run k-means."""
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=_STARTS, random_state=seed).fit_predict(unit)


def _agglomerative(unit: Array, k: int | tuple[int, int] | None, distance: float | None) -> Array:
    """Merge clusters until there are k, or none are near."""
    from sklearn.cluster import AgglomerativeClustering

    if len(unit) > MOST_TEXTS:
        raise ValueError(
            f"cluster: agglomerative clustering compares all pairs, and takes at most {MOST_TEXTS:,} texts, got "
            f"{len(unit):,}; use kmeans or community, or a sample"
        )
    if isinstance(k, (int, np.integer)):
        _check_k(int(k), len(unit), len(unit))
    if len(unit) == 1:
        return np.zeros(1, np.intp)  # scikit-learn needs two
    model = AgglomerativeClustering(k, distance_threshold=distance, metric="cosine", linkage="average")
    return model.fit_predict(unit.astype(np.float64))


def _by_size(raw: Array) -> Array:
    """Renumber clusters, the largest first, ties by their first text."""
    values, first, sizes = np.unique(raw[raw >= 0], return_index=True, return_counts=True)
    ids = np.full(len(raw), -1, np.intp)  # (M,)
    for new, old in enumerate(np.lexsort((first, -sizes))):
        ids[raw == values[old]] = new
    return ids


# ------------------------------------------------------------------------------------------------------- scores


def _sums(unit: Array, ids: Array) -> Array:
    """Sum the vectors of each cluster: ``(C, D)``, float64."""
    return np.stack([unit[ids == c].sum(axis=0, dtype=np.float64) for c in range(int(ids.max()) + 1)])


def _to_means(unit: Array, ids: Array) -> Array:
    """Cosine of each text with the mean of its cluster, ``(M,)``; 0 in no cluster."""
    found = np.zeros(len(unit))
    inside = np.flatnonzero(ids >= 0)
    if len(inside):
        sums = _sums(unit, ids)
        means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), _NOTHING)
        for group, mean in enumerate(means):
            rows = ids == group
            found[rows] = np.clip(unit[rows].astype(np.float64) @ mean, -1.0, 1.0)
    return found


def silhouette(vectors: ArrayLike, ids: ArrayLike) -> Array:
    """``(b - a) / max(a, b)``: is each text nearer to its own cluster than to the next one?

    (M, D), (M,) -> (M,)

    ``a`` is the mean cosine distance to the other texts of its cluster, ``b`` that to the nearest other cluster. 1 is
    well inside, 0 between two, below 0 nearer to another; 0 also for a text alone in its cluster, or in none. That
    usually takes all pairs. With the cosine the mean distance of ``u`` to a cluster with mean ``m`` is ``1 - u . m``,
    so the means are enough for the exact value. ValueError for fewer than 2 clusters. **Source**: Rousseeuw 1987;
    ``sklearn.metrics.silhouette_samples(metric="cosine")``.

    >>> silhouette([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 2.0]], [0, 0, 1, 1]).round(2)
    array([1.  , 1.  , 0.89, 0.81])
    """
    unit = unit_rows("silhouette", vectors)
    groups = checked_ids("silhouette", ids, len(unit))
    _, groups[groups >= 0] = np.unique(groups[groups >= 0], return_inverse=True)
    if int(groups.max(initial=-1)) < 1:
        raise ValueError(
            f"silhouette: expected at least 2 clusters, got {int(groups.max(initial=-1)) + 1}: a silhouette compares a "
            "text's own cluster with the nearest other one"
        )
    sums = _sums(unit, groups)  # (C, D)
    sizes = np.bincount(groups[groups >= 0])  # (C,)
    found = np.zeros(len(unit))
    block = max(1, _BLOCK // len(sizes))
    inside = np.flatnonzero(groups >= 0)
    for start in range(0, len(inside), block):
        rows = inside[start : start + block]
        found[rows] = _silhouettes(unit[rows].astype(np.float64) @ sums.T, groups[rows], sizes)
    return found


def _silhouettes(products: Array, own: Array, sizes: Array) -> Array:
    """Silhouettes of m texts from their products with the clusters' sums, (m, C)."""
    totals = np.maximum(sizes - products, 0.0)  # (m, C) of the distances to all texts of a cluster
    row = np.arange(len(own))
    others = np.maximum(sizes[own] - 1, 1)
    a = totals[row, own] / others  # (m,) its distance to itself is 0
    means = totals / sizes
    means[row, own] = math.inf
    b = means.min(axis=1)  # (m,)
    larger = np.maximum(a, b)
    is_told = (sizes[own] > 1) & (larger > _NOTHING)
    return np.where(is_told, (b - a) / np.where(is_told, larger, 1.0), 0.0)


def agreement(labels: Sequence[str], ids: ArrayLike) -> Agreement:
    """Measure how far clusters agree with labels; texts in no cluster (-1) count as one more cluster.

    **Source**: Rosenberg & Hirschberg 2007; Vinh et al. 2010; ``sklearn.metrics.homogeneity_completeness_v_measure``
    and ``adjusted_mutual_info_score``. MTEB's clustering tasks report the V-measure with ``k`` the number of labels.
    """
    require_sklearn("comparing clusters with labels")
    from sklearn.metrics import adjusted_mutual_info_score, homogeneity_completeness_v_measure

    groups = checked_ids("agreement", ids, len(labels))
    if not len(groups):
        raise ValueError("agreement: expected at least one label, got none")
    numbers = np.unique(np.asarray(labels), return_inverse=True)[1]
    with threadpool_limits(1):
        homogeneity, completeness, v_measure = homogeneity_completeness_v_measure(numbers, groups)
        mutual = float(adjusted_mutual_info_score(numbers, groups))
    return Agreement(float(v_measure), float(homogeneity), float(completeness), mutual, int(numbers.max()) + 1)
