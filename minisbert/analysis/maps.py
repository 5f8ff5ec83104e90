"""Project texts onto a 2-D map; nearby points have similar meaning, mostly.

384 dimensions do not fit on a plane, so each map says how far it can be trusted. Only directions count (rows are scaled
to length 1). **PCA**, the default: ``(x - mean) @ axes.T`` onto the plane of largest variance; linear, nothing to tune,
reproducible, and distances on the map are at most the true ones, but for sentence vectors it often shows no more than a
tenth of the variance. **t-SNE** keeps neighbours together at the cost of everything else: the size of a group, the
distance between groups and the axes mean nothing. **UMAP** (package umap-learn): like t-SNE, faster on many texts.
**Trustworthiness**: are a point's ``k`` neighbours on the map true neighbours? With ``r(i, j)`` the rank of ``j`` among
the true neighbours of ``i``, ``T = 1 - 2 / (M k (2 M - 3 k - 1)) sum_i sum_(j near i on the map) max(0, r(i, j) - k)``:
1 is perfect, random points have about 0.5. scikit-learn runs on one thread, since the order of adding up moves last
digits; with another processor or release a map may still differ, in the last digits with PCA, visibly with the others.
Letters: ``M`` texts, ``D`` width of a vector.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from minisbert.checks import check_vectors
from minisbert.evaluation.classification import INSTALL, has_sklearn
from minisbert.model import Array

METHODS = ("pca", "tsne", "umap")
INSTALL_UMAP = "pip install umap-learn"
PERPLEXITY = 30.0
"""Of t-SNE: about how many neighbours each text has; a third of fewer than 91 texts."""
NEIGHBOURS = 5
"""Neighbours that trustworthiness looks at."""
SAMPLE = 2_000
"""Texts that trustworthiness, which compares all pairs, is measured on; more are sampled."""
SAME = 1e-6
"""Unit vectors that differ by less are the same but for rounding."""
_LEAST_TEXTS = 4  # for t-SNE and UMAP


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
        if self.method == "pca" and self.explained is not None:
            first, second = (f"{100 * share:.1f} %" for share in self.explained)
            made = f"PCA: the axes show {first} and {second} of the variance"
        elif self.method == "tsne" and self.perplexity is not None:
            made = f"t-SNE, perplexity {self.perplexity:g}: neighbours are meaningful, distances between groups are not"
        elif self.method in METHODS[1:]:
            name = {"tsne": "t-SNE", "umap": "UMAP"}[self.method]
            made = f"{name}: neighbours are meaningful, distances between groups are not"
        else:
            made = "one text" if len(self.points) == 1 else "all texts have the same vector"
        if self.trustworthiness is None:
            return made
        sample = "" if self.measured == len(self.points) else f"; on {self.measured:,} sampled texts"
        return f"{made}; trustworthiness {self.trustworthiness:.3f} (1 is perfect, 0.5 is chance{sample})"


def require_sklearn(what: str) -> None:
    """Raise ValueError, with the command that installs it, if scikit-learn is missing; ``what`` needs it."""
    if not has_sklearn():
        raise ValueError(f"{what} needs scikit-learn: {INSTALL}")


def unit_rows(function: str, vectors: ArrayLike) -> Array:
    """Scale vectors to length 1, (M, D) -> (M, D); ValueError for no rows, NaN, Inf and rows of zeros.

    >>> unit_rows("project", [[3.0, 4.0]])
    array([[0.6, 0.8]])
    """
    rows = check_vectors(vectors, f"{function}: vectors")
    if not len(rows):
        raise ValueError(f"{function}: expected vectors (M, D) of at least one text, got {rows.shape}")
    rows = rows.astype(np.float32 if rows.dtype in (np.float32, np.float16) else np.float64)
    is_finite = np.isfinite(rows).all(axis=1)  # (M,)
    if not is_finite.all():
        raise ValueError(
            f"{function}: vectors {rows.shape} must be finite, but there is NaN or Inf in row "
            f"{int(is_finite.argmin())} ({int((~is_finite).sum())} such rows); check what computed them, or drop them"
        )
    largest = np.abs(rows).max(axis=1, keepdims=True)  # (M, 1)
    if not largest.all():
        raise ValueError(
            f"{function}: vectors {rows.shape} must have a direction, but row {int(largest.argmin())} is all zeros "
            f"({int((largest == 0).sum())} such rows); no encoder returns such a vector: was an np.zeros not filled?"
        )
    rows = rows / largest  # so that squares neither overflow nor underflow
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def project(
    vectors: ArrayLike,
    method: str = "pca",
    *,
    seed: int = 0,
    perplexity: float | None = None,
    neighbours: int = NEIGHBOURS,
) -> Projection:
    """Project texts onto a 2-D map.

    Parameters
    ----------
    vectors : array_like, shape (M, D)
        One per text, at least one. Only directions count.
    method : {"pca", "tsne", "umap"}
    seed : int
        For t-SNE, UMAP, and the sample that trustworthiness is measured on. PCA needs none.
    perplexity : float, optional
        For t-SNE: about how many neighbours each text has, from 1 to below M; by default :data:`PERPLEXITY`, or
        ``(M - 1) / 3`` if that is less.
    neighbours : int
        Of trustworthiness; fewer if there are fewer than ``2 neighbours + 1`` texts.

    Returns
    -------
    Projection
        Points in the dtype of the vectors, float16 as float32. All zeros for one text, or if all vectors are the same.

    Raises
    ------
    ValueError
        For no vectors, NaN, or rows of zeros; t-SNE and UMAP of fewer than 4 texts; a perplexity out of range; a
        package that is not installed.

    Notes
    -----
    **Source**: Pearson 1901; van der Maaten & Hinton 2008; McInnes et al. 2018; trustworthiness: Venna & Kaski 2001.
    ``sklearn.decomposition.PCA(2, svd_solver="full")`` on unit rows, each axis turned so that its largest entry is
    positive; ``sklearn.manifold.TSNE(init=the PCA map, scaled)``; ``sklearn.manifold.trustworthiness`` with the cosine.

    Examples
    --------
    >>> vectors = [[1.0, 0.0, 0.1], [1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.1, 1.0, 0.1]]
    >>> found = project(vectors)
    >>> found.points[:, 0].round(1), found.describe()
    (array([ 0.7,  0.6, -0.7, -0.6]), 'PCA: the axes show 99.2 % and 0.5 % of the variance; trustworthiness 1.000 ...')
    """
    require_sklearn("a map")
    unit = unit_rows("project", vectors)
    count = len(unit)
    perplexity = check_method(method, perplexity, count)
    if neighbours < 1:
        raise ValueError(f"project: neighbours must be at least 1, got {neighbours!r}")
    if float(np.abs(unit - unit[0]).max()) < SAME:
        share = (0.0, 0.0) if method == "pca" and count > 1 else None
        return Projection(np.zeros((count, 2), unit.dtype), "none", share, None, neighbours, count)
    with threadpool_limits(1):
        points, explained = _pca(unit)
        if method == "tsne":
            points = _tsne(unit, points, float(perplexity or 0.0), seed)
        elif method == "umap":
            points = _umap(unit, seed)
        trust, near, measured = _trustworthiness(unit, points, neighbours, seed)
    shown = explained if method == "pca" else None
    return Projection(points.astype(unit.dtype), method, shown, trust, near, measured, perplexity)


def check_method(method: str, perplexity: float | None, count: int) -> float | None:
    """Raise if this method cannot run, before minutes of work; return t-SNE's perplexity, None for the others."""
    if method not in METHODS:
        raise ValueError(f"project: method must be one of {', '.join(METHODS)}, got {method!r}")
    if perplexity is not None and method != "tsne":
        raise ValueError(f"project: perplexity is for t-SNE, and the method is {method!r}; leave it out")
    if method == "umap" and find_spec("umap") is None:
        raise ValueError(f"project: UMAP needs the package umap-learn: {INSTALL_UMAP}; 'tsne' needs no extra package")
    if method != "pca" and count < _LEAST_TEXTS:
        raise ValueError(f"project: {method} needs at least {_LEAST_TEXTS} texts, got {count}; 'pca' takes any number")
    if method != "tsne":
        return None
    if perplexity is None:
        return min(PERPLEXITY, (count - 1) / 3)
    if not 1 <= perplexity < count:
        raise ValueError(
            f"project: perplexity must be at least 1 and below the number of texts, {count:,}, got {perplexity!r}: it "
            "is roughly the number of neighbours per text; 5 to 50 is usual"
        )
    return float(perplexity)


def _pca(unit: Array) -> tuple[Array, tuple[float, float]]:
    """Points ``(M, 2)`` on the plane of largest variance, and the share of the variance along its axes."""
    from sklearn.decomposition import PCA

    model = PCA(min(2, *unit.shape), svd_solver="full")
    points = np.zeros((len(unit), 2))
    found = model.fit_transform(unit.astype(np.float64))  # (M, 1 or 2)
    axes = model.components_  # (1 or 2, D)
    # the sign of an axis is arbitrary, and scikit-learn's rule for it changed in release 1.5
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    points[:, : found.shape[1]] = found * signs
    shares = [*model.explained_variance_ratio_.tolist(), 0.0]
    return points, (shares[0], shares[1])


def _tsne(unit: Array, start: Array, perplexity: float, seed: int) -> Array:
    """t-SNE from the PCA map on: ``(M, 2)``."""
    from sklearn.manifold import TSNE

    small = (1e-4 * start / start[:, 0].std()).astype(np.float32)  # (M, 2) as small as in the paper
    model = TSNE(init=small, learning_rate="auto", perplexity=perplexity, random_state=seed, n_jobs=1)
    return model.fit_transform(unit)


def _umap(unit: Array, seed: int) -> Array:
    """Lay out a graph of neighbours: ``(M, 2)``."""
    umap = importlib.import_module("umap")
    settings: dict[str, Any] = {"init": "random"} if len(unit) < 16 else {}  # its spectral start needs more texts
    near = min(15, len(unit) - 1)
    model = umap.UMAP(n_neighbors=near, metric="cosine", random_state=seed, n_jobs=1, **settings)
    return model.fit_transform(unit)


def _trustworthiness(unit: Array, points: Array, neighbours: int, seed: int) -> tuple[float | None, int, int]:
    """Trustworthiness, of how many neighbours, measured on how many texts."""
    from sklearn.manifold import trustworthiness

    if len(unit) > SAMPLE:
        drawn = np.sort(np.random.default_rng(seed).choice(len(unit), SAMPLE, replace=False))
        unit, points = unit[drawn], points[drawn]
    near = min(neighbours, math.ceil(len(unit) / 2) - 1)  # the formula is only defined below half of the texts
    if near < 1:
        return None, neighbours, len(unit)
    return float(trustworthiness(unit, points, n_neighbors=near, metric="cosine")), near, len(unit)
