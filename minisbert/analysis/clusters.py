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

from minisbert.analysis.maps import SAME, unit_rows
from minisbert.analysis.naming import checked_ids
from minisbert.checks import check_choice, check_whole, require
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
_STARTS = 10  # of k-means; the best is kept


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
            raw = _agglomerative(unit, k, distance)
            settings = {"distance": distance} if k is None else {"k": k}
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


def check_settings(method: str, k: int | tuple[int, int] | None, distance: float | None) -> None:
    """Raise for impossible settings and those of another method, before minutes of work."""
    check_choice("cluster: method", method, METHODS)
    if k is not None and method == "community":
        raise ValueError(
            "cluster: k is for kmeans and agglomerative; community finds their number itself: see threshold"
        )
    if distance is not None and method != "agglomerative":
        raise ValueError(f"cluster: distance is for agglomerative, and the method is {method}; leave it out")
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
