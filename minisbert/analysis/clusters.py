"""Groups of texts that mean the like: k-means, agglomerative, communities; and how good the groups are.

All three look at directions alone, as the cosine does: rows are scaled to length 1 first. Between such rows the squared
Euclidean distance is ``2 - 2 cos``, so that k-means, which knows no other, goes by the cosine, too.

- **k-means**: every text into one of ``k`` groups. Where ``k`` is not said, each of a range is tried, and the one with
  the largest mean silhouette is taken.
- **agglomerative**: starts with each text alone, and joins the two groups whose texts have the least mean cosine
  distance (average linkage) until there are ``k`` groups, or none nearer than ``distance``. It compares all with all.
- **community**: texts around a centre that they are closer to than a threshold; the others are in no group, -1. See
  ``search/communities.py``.

**Silhouette** of a text: is it nearer to its own group than to the next one? With ``a`` the mean distance to the other
texts of its group, and ``b`` that to the nearest other group: ``(b - a) / max(a, b)``, in [-1, 1]. Usually that takes
all pairs of texts. With the cosine distance it does not: the mean distance of ``u`` to a group is
``1 - u . (mean of the group)``, so that the exact silhouette of any number of texts needs only the groups' means.

**The same groups each time**: scikit-learn runs on one thread here, since the order in which threads add up would
decide close calls. With another processor or release of scikit-learn a close call may still go another way, and so it
may if the vectors differ in their last digit: ``SentenceEncoder.encode(deterministic=True)`` keeps it.

Left out on purpose: HDBSCAN, which throws away half of what has 384 dimensions unless a map is made first, and spectral
clustering. Next file: ``map_picture.py``.

Letters: ``M`` texts, ``D`` width of a vector, ``C`` groups.
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
from minisbert.model import Array
from minisbert.search.communities import community_detection
from minisbert.search.scoring import check_count

METHODS = ("kmeans", "agglomerative", "community")
K_RANGE = (2, 20)
"""Numbers of groups that k-means tries where none is said."""
DISTANCE = 0.5
"""Of agglomerative clustering where neither distance nor k is said: a mean cosine of 0.5."""
THRESHOLD, MIN_COMMUNITY_SIZE = 0.75, 3
MOST_TEXTS = 20_000
"""For agglomerative clustering: its table of all pairs is 1.6 GB then."""
_STARTS = 10  # of k-means; the best is kept
_NOTHING = 1e-12  # a mean distance below is rounding: the texts are the same
_BLOCK = 2**22  # numbers of a block of the table texts x groups


@dataclass(frozen=True, eq=False)
class Clustering:
    """Which group each text is in, the largest group first."""

    ids: Array  # (M,) intp, from 0; -1: in no group
    method: str
    settings: dict[str, Any]  # what was asked for or chosen, by name
    similarity: Array  # (M,) cosine with the mean of its group, in [-1, 1]; 0 for texts in none
    silhouettes: Array | None  # (M,) in [-1, 1]; 0 for texts in no group or alone in theirs; None of fewer than 2
    tried: tuple[tuple[int, float], ...] = ()  # (k, mean silhouette) of each k, where k was chosen

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.ids.max(initial=-1)) + 1

    @property
    def sizes(self) -> Array:
        """Texts of each group: (C,)."""
        return np.bincount(self.ids[self.ids >= 0], minlength=self.count)

    @property
    def silhouette(self) -> float | None:
        """Mean over the texts that are in a group, in [-1, 1]; None of fewer than 2 groups."""
        return None if self.silhouettes is None else float(self.silhouettes[self.ids >= 0].mean())

    def silhouette_of(self, group: int) -> float | None:
        """Average the silhouettes of one group.

        Parameters
        ----------
        group : int

        Returns
        -------
        float or None
            In [-1, 1]; None of fewer than 2 groups.

        Examples
        --------
        >>> found = cluster([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], "community", threshold=0.9, min_community_size=1)
        >>> round(found.silhouette_of(0), 2)
        0.99
        """
        return None if self.silhouettes is None else float(self.silhouettes[self.ids == group].mean())


@dataclass(frozen=True)
class Agreement:
    """How far groups agree with labels that are known; all are 1 for the same partition."""

    v_measure: float  # harmonic mean of the next two, in [0, 1]; many groups raise it even by chance
    homogeneity: float  # each group holds texts of one label, in [0, 1]
    completeness: float  # texts of one label are in one group, in [0, 1]
    adjusted_mutual_info: float  # 0 is chance, whatever the number of groups; at most 1
    labels: int  # different ones


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
    """Put texts into groups of like meaning.

    Parameters
    ----------
    vectors : array_like, shape (M, D)
        One a text. Only directions count.
    method : {"kmeans", "agglomerative", "community"}
    k : int or (int, int), optional
        Number of groups, at most that of different vectors; for k-means also the least and the most to try, by default
        :data:`K_RANGE`, of which the one with the largest silhouette is taken.
    distance : float, optional
        Of agglomerative clustering, in place of ``k``: groups with a mean cosine distance of so much or more are not
        joined; in (0, 2], by default :data:`DISTANCE`.
    threshold : float
        Of communities: least cosine with the centre, in [-1, 1].
    min_community_size : int
        Texts of a community, at least.
    seed : int
        Of k-means, which starts at random :data:`_STARTS` times and keeps the tightest groups.

    Returns
    -------
    Clustering
        Groups by size, equally large ones by their first text.

    Raises
    ------
    ValueError
        For no vectors, NaN, rows of zeros; fewer different texts than groups; k to be chosen where all vectors are the
        same; too many texts for agglomerative clustering; settings of another method; scikit-learn not installed
        (communities do not need it).

    Notes
    -----
    **Source**: ``sklearn.cluster.KMeans(k, n_init=10)`` on unit rows, whose means are not scaled to length 1 again, as
    spherical k-means would; ``sklearn.cluster.AgglomerativeClustering(metric="cosine", linkage="average")``;
    ``sentence_transformers.util.community_detection``. Silhouette: Rousseeuw 1987.

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
    """Refuse settings that another method has, and values that make no sense, before minutes of work.

    Parameters
    ----------
    method : {"kmeans", "agglomerative", "community"}
    k : int or (int, int) or None
    distance : float or None
        As :func:`cluster`.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> check_settings("kmeans", (2, 20), None)
    """
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
        if len(k) != 2 or not 2 <= check_count("cluster", "k", k[0], 2) <= check_count("cluster", "k", k[1], 2):
            raise ValueError(
                f"cluster: k must be (low, high) with 2 <= low <= high, got {k!r}; one cluster has no silhouette"
            )
    elif k is not None:
        check_count("cluster", "k", k)
    if distance is not None and k is not None:
        raise ValueError("cluster: give k or distance, not both: each is a stopping rule")
    if distance is not None and not 0 < distance <= 2:
        raise ValueError(f"cluster: distance must be a cosine distance, in (0, 2], got {distance!r}; it is 1 - cosine")


def _kmeans(unit: Array, k: int | tuple[int, int] | None, seed: int) -> tuple[Array, tuple[tuple[int, float], ...]]:
    """Give the groups, and the silhouette of each k that was tried."""
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
        if score > best[0]:  # of equal ones the fewest groups
            best = score, raw
    return best[1], tuple(tried)


def _count_different(unit: Array) -> int:
    """Count the different vectors; 1 where they differ by rounding alone."""
    if float(np.abs(unit - unit[0]).max()) < SAME:
        return 1
    return len({row.tobytes() for row in unit + 0.0})  # -0.0 becomes 0.0


def _check_k(k: int, different: int, count: int) -> None:
    """Refuse more groups than there are different vectors."""
    if k > different:
        raise ValueError(
            f"cluster: k = {k:,} clusters need as many different vectors, got {different:,} among {count:,}; "
            "use a smaller k, or more texts"
        )


def _fit_kmeans(unit: Array, k: int, seed: int) -> Array:
    """Run k-means."""
    from sklearn.cluster import KMeans

    raw: Array = KMeans(k, n_init=_STARTS, random_state=seed).fit_predict(unit)
    return raw


def _agglomerative(unit: Array, k: int | tuple[int, int] | None, distance: float | None) -> Array:
    """Join groups until there are k, or none are near."""
    from sklearn.cluster import AgglomerativeClustering

    if len(unit) > MOST_TEXTS:
        raise ValueError(
            f"cluster: agglomerative clustering compares all pairs, and takes at most {MOST_TEXTS:,} texts, got "
            f"{len(unit):,}; use kmeans or community, or a sample"
        )
    if isinstance(k, (int, np.integer)):
        _check_k(int(k), len(unit), len(unit))
    if len(unit) == 1:
        return np.zeros(1, np.intp)  # scikit-learn wants two
    model = AgglomerativeClustering(k, distance_threshold=distance, metric="cosine", linkage="average")
    raw: Array = model.fit_predict(unit.astype(np.float64))
    return raw


def _by_size(raw: Array) -> Array:
    """Number groups anew, the largest first, equally large ones by their first text."""
    values, first, sizes = np.unique(raw[raw >= 0], return_index=True, return_counts=True)
    ids = np.full(len(raw), -1, np.intp)  # (M,)
    for new, old in enumerate(np.lexsort((first, -sizes))):
        ids[raw == values[old]] = new
    return ids


# ------------------------------------------------------------------------------------------------------- scores


def _sums(unit: Array, ids: Array) -> Array:
    """Add up the vectors of each group: ``(C, D)``, float64."""
    return np.stack([unit[ids == c].sum(axis=0, dtype=np.float64) for c in range(int(ids.max()) + 1)])


def _to_means(unit: Array, ids: Array) -> Array:
    """Compare each text with the mean of its group: cosines ``(M,)``, 0 in no group."""
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
    """Ask of each text whether it is nearer to its own group than to the next one.

    ``(b - a) / max(a, b)`` with the mean cosine distances ``a`` to the others of its group and ``b`` to the nearest
    other group.

    Parameters
    ----------
    vectors : array_like, shape (M, D)
        Only directions count.
    ids : array_like, shape (M,)
        The group of each text, from 0, at least 2 groups. Texts with -1 are in none, and no group's distance counts
        them.

    Returns
    -------
    Array, shape (M,), float64
        In [-1, 1]: 1 well inside its group, 0 between two, below 0 nearer to another one. 0 for a text that is alone in
        its group, and for those in none.

    Raises
    ------
    ValueError
        For fewer than 2 groups, and as `unit_rows`.

    Notes
    -----
    **Source**: Rousseeuw 1987; ``sklearn.metrics.silhouette_samples(metric="cosine")``, which compares all pairs; here
    they are compared with each group's mean, which is the same for this distance.

    Examples
    --------
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
    """Give silhouettes of some texts from their products with the groups' sums, ``(m, C)``."""
    totals = np.maximum(sizes - products, 0.0)  # (m, C) of the distances to all texts of a group
    row = np.arange(len(own))
    others = np.maximum(sizes[own] - 1, 1)
    a = totals[row, own] / others  # (m,) its distance to itself is 0
    means = totals / sizes
    means[row, own] = math.inf
    b = means.min(axis=1)  # (m,)
    larger = np.maximum(a, b)
    is_told = (sizes[own] > 1) & (larger > _NOTHING)
    found: Array = np.where(is_told, (b - a) / np.where(is_told, larger, 1.0), 0.0)
    return found


def agreement(labels: Sequence[str], ids: ArrayLike) -> Agreement:
    """Measure how far groups agree with labels.

    Parameters
    ----------
    labels : sequence of str
        ``M`` of them.
    ids : array_like, shape (M,)
        Groups; texts in none (-1) count as one more group.

    Returns
    -------
    Agreement

    Raises
    ------
    ValueError
        For sequences of unequal length or none, and without scikit-learn.

    Notes
    -----
    **Source**: Rosenberg & Hirschberg 2007; Vinh et al. 2010. ``sklearn.metrics.homogeneity_completeness_v_measure``
    and ``adjusted_mutual_info_score``. MTEB's clustering tasks report the V-measure with ``k`` the number of labels.

    Examples
    --------
    >>> round(agreement(["a", "a", "b", "b"], [1, 1, 0, 2]).homogeneity, 2)  # doctest: +SKIP
    1.0
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
