"""Project texts onto a 2-D map; nearby points have similar meaning, mostly.

384 dimensions do not fit on a plane, so each map says how far it can be trusted. Only directions count (rows are scaled
to length 1). **PCA**, the default: ``(x - mean) @ axes.T`` onto the plane of largest variance; linear, nothing to tune,
reproducible, and distances on the map are at most the true ones, but for sentence vectors it often shows no more than a
tenth of the variance. **t-SNE** keeps neighbours together at the cost of everything else: the size of a group, the
distance between groups and the axes mean nothing.
**Trustworthiness**: are a point's ``k`` neighbours on the map true neighbours? With ``r(i, j)`` the rank of ``j`` among
the true neighbours of ``i``, ``T = 1 - 2 / (M k (2 M - 3 k - 1)) sum_i sum_(j near i on the map) max(0, r(i, j) - k)``:
1 is perfect, random points have about 0.5. scikit-learn runs on one thread, since the order of adding up moves last
digits; with another processor or release a map may still differ, in the last digits with PCA, visibly with the others.
Letters: ``M`` texts, ``D`` width of a vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from minisbert.checks import check_choice, check_vectors, require
from minisbert.model import Array

METHODS = ("pca", "tsne")
PERPLEXITY = 30.0
"""Of t-SNE: about how many neighbours each text has; a third of fewer than 91 texts."""
NEIGHBOURS = 5
"""Neighbours that trustworthiness looks at."""
SAMPLE = 2_000
"""Texts that trustworthiness, which compares all pairs, is measured on; more are sampled."""
SAME = 1e-6
"""Unit vectors that differ by less are the same but for rounding."""
_LEAST_TEXTS = 4  # for t-SNE


@dataclass(frozen=True, eq=False)
class Projection:
    """Where each text is on the map, and how far the map can be trusted."""

    points: Array  # (M, 2)
    method: str
    explained: tuple[float, float] | None  # share of the variance along each axis; PCA only
    trustworthiness: float | None  # in [0, 1]; None for fewer than 3 texts, or if all vectors are the same
    neighbours: int  # of trustworthiness
    measured: int  # texts it was measured on
    perplexity: float | None = None  # of t-SNE

    def describe(self) -> str:
        """How the map was made, and how far it can be trusted.

        >>> Projection(np.zeros((9, 2)), "pca", (0.08, 0.05), 0.72, 5, 9).describe()
        'PCA: the axes show 8.0 % and 5.0 % of the variance; trustworthiness 0.720 (1 is perfect, 0.5 is chance)'
        """
        if self.explained is not None and self.method == "pca":
            first, second = (f"{100 * share:.1f} %" for share in self.explained)
            made = f"PCA: the axes show {first} and {second} of the variance"
        elif self.method == "tsne":
            made = f"t-SNE, perplexity {self.perplexity:g}: neighbours are meaningful, distances between groups are not"
        else:
            made = "one text" if len(self.points) == 1 else "all texts have the same vector"
        if self.trustworthiness is None:
            return made
        sample = "" if self.measured == len(self.points) else f"; on {self.measured:,} sampled texts"
        return f"{made}; trustworthiness {self.trustworthiness:.3f} (1 is perfect, 0.5 is chance{sample})"


def unit_rows(vectors: ArrayLike, what: str) -> Array:
    """Scale vectors to length 1, (M, D) -> (M, D); ValueError for no rows, NaN, Inf and rows of zeros.

    >>> unit_rows([[3.0, 4.0]], "project: vectors")
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


def project(
    vectors: ArrayLike,
    method: str = "pca",
    *,
    seed: int = 0,
    perplexity: float | None = None,
) -> Projection:
    """Project texts onto a 2-D map.

    Parameters
    ----------
    vectors : array_like, shape (M, D)
        One per text, at least one. Only directions count.
    method : {"pca", "tsne"}
    seed : int
        For t-SNE, and the sample that trustworthiness is measured on. PCA needs none.
    perplexity : float, optional
        For t-SNE: about how many neighbours each text has, from 1 to below M; by default :data:`PERPLEXITY`, or
        ``(M - 1) / 3`` if that is less.

    Returns
    -------
    Projection
        Points in the dtype of the vectors, float16 as float64. All zeros for one text, or if all vectors are the same.

    Raises
    ------
    ValueError
        For no vectors, NaN, or rows of zeros; t-SNE of fewer than 4 texts; a perplexity out of range; without
        scikit-learn.

    Notes
    -----
    **Source**: Pearson 1901; van der Maaten & Hinton 2008; trustworthiness: Venna & Kaski 2001.
    ``sklearn.decomposition.PCA(2, svd_solver="full")`` on unit rows, each axis turned so that its largest entry is
    positive; ``sklearn.manifold.TSNE(init=the PCA map, scaled)``; ``sklearn.manifold.trustworthiness`` with the cosine.

    Examples
    --------
    >>> vectors = [[1.0, 0.0, 0.1], [1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.1, 1.0, 0.1]]
    >>> found = project(vectors)
    >>> found.points[:, 0].round(1), found.describe()
    (array([ 0.7,  0.6, -0.7, -0.6]), 'PCA: the axes show 99.2 % and 0.5 % of the variance; trustworthiness 1.000 ...')
    """
    require("sklearn", "apps", "a map")
    unit = unit_rows(vectors, "project: vectors")
    count = len(unit)
    perplexity = check_method(method, perplexity, count)
    if float(np.abs(unit - unit[0]).max()) < SAME:
        share = (0.0, 0.0) if method == "pca" and count > 1 else None
        return Projection(np.zeros((count, 2), unit.dtype), "none", share, None, NEIGHBOURS, count)
    with threadpool_limits(1):
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE, trustworthiness

        model = PCA(min(2, *unit.shape), svd_solver="full")
        axes = model.fit(unit.astype(np.float64)).components_  # (1 or 2, D)
        # the sign of an axis is arbitrary, and scikit-learn's rule for it changed in release 1.5
        signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
        points = model.transform(unit.astype(np.float64)) * signs
        points = np.pad(points, ((0, 0), (0, 2 - len(axes))))  # (M, 2)
        shares = [*model.explained_variance_ratio_.tolist(), 0.0]
        if method == "tsne":
            small = (1e-4 * points / points[:, 0].std()).astype(np.float32)  # as small as in the paper
            settings = {"init": small, "learning_rate": "auto", "perplexity": perplexity}
            points = TSNE(random_state=seed, n_jobs=1, **settings).fit_transform(unit)
        drawn = np.arange(count)
        if count > SAMPLE:
            drawn = np.sort(np.random.default_rng(seed).choice(count, SAMPLE, replace=False))
        # the formula is only defined below half of the texts
        near, trust = min(NEIGHBOURS, math.ceil(len(drawn) / 2) - 1), None
        if near > 0:
            trust = float(trustworthiness(unit[drawn], points[drawn], n_neighbors=near, metric="cosine"))
    explained = (shares[0], shares[1]) if method == "pca" else None
    return Projection(points.astype(unit.dtype), method, explained, trust, near or NEIGHBOURS, len(drawn), perplexity)


def check_method(method: str, perplexity: float | None, count: int) -> float | None:
    """Raise if this method cannot run, before minutes of work; return t-SNE's perplexity, None for the others."""
    check_choice("project: method", method, METHODS)
    if perplexity is not None and method != "tsne":
        raise ValueError(f"project: perplexity is for t-SNE, and the method is {method!r}; leave it out")
    if method != "tsne":
        return None
    if count < _LEAST_TEXTS:
        raise ValueError(f"project: tsne needs at least {_LEAST_TEXTS} texts, got {count}; 'pca' takes any number")
    if perplexity is None:
        return min(PERPLEXITY, (count - 1) / 3)
    if not 1 <= perplexity < count:
        raise ValueError(
            f"project: perplexity must be at least 1 and below the number of texts, {count:,}, got {perplexity!r}: it "
            "is roughly the number of neighbours per text; 5 to 50 is usual"
        )
    return float(perplexity)
