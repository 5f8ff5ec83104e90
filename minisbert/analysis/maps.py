"""A map of texts: each vector becomes a point on a plane, near the points of texts that mean the like. Mostly.

384 dimensions do not fit on a plane. What is near on the map may be far apart, and the other way round, so each map
says how far it can be trusted. Three ways to make one, all on directions alone (rows scaled to length 1):

- **PCA** (the default): the plane on which the cloud is widest, ``(x - mean) @ axes.T``. Linear, nothing to tune, the
  same picture each time: distances on the map are at most those between the vectors. It shows the few coarsest
  differences, and says which share of the variance it shows: for sentence vectors often no more than a tenth.
- **t-SNE**: keeps neighbours together at the cost of everything else. Groups are seen well; the size of a group, the
  distance between two groups and the axes mean nothing.
- **UMAP**, if the package umap-learn is installed: as t-SNE, faster on many texts.

**How far to trust it.** Trustworthiness asks of each point: are its nearest neighbours on the map near in truth? For
``k`` neighbours of ``M`` points, with ``r(i, j)`` the rank of ``j`` among the true neighbours of ``i``:

``T = 1 - 2 / (M k (2 M - 3 k - 1)) sum_i sum_(j near i on the map) max(0, r(i, j) - k)``

1 is perfect, and points strewn at random have about 0.5.

scikit-learn does the work (extra ``apps``), on one thread: more of them add up in another order and move last digits.
With another processor or release of scikit-learn a map may still differ, in the last digits with PCA, visibly with
t-SNE and UMAP.

Left out on purpose: three dimensions, and adding a text to a map that is there. Next file: ``naming.py``, what a group
of texts is about.

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

from minisbert.evaluation.classification import INSTALL, has_sklearn
from minisbert.model import Array
from minisbert.search.scoring import as_vectors

METHODS = ("pca", "tsne", "umap")
INSTALL_UMAP = "pip install umap-learn"
PERPLEXITY = 30.0
"""Of t-SNE: about how many neighbours each text has. Of fewer than 91 texts it is a third."""
NEIGHBOURS = 5
"""Whose trustworthiness is measured."""
SAMPLE = 2_000
"""Texts that trustworthiness is measured on; of more so many are drawn, for it compares all with all."""
SAME = 1e-6
"""Vectors of length 1 that differ by less are the same but for rounding: there is nothing to spread out."""
_LEAST_TEXTS = 4  # for t-SNE and UMAP


@dataclass(frozen=True, eq=False)
class Projection:
    """Where each text is on the map, and how far the map can be trusted."""

    points: Array  # (M, 2)
    method: str
    explained: tuple[float, float] | None  # share of the variance along each axis, in [0, 1]; PCA alone has it
    trustworthiness: float | None  # in [0, 1]; None of fewer than 3 texts, and where all vectors are the same
    neighbours: int  # that trustworthiness looks at
    measured: int  # texts that it was measured on
    perplexity: float | None = None  # of t-SNE

    def describe(self) -> str:
        """Say how the map was made and how far it can be trusted.

        Returns
        -------
        str

        Examples
        --------
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
    """Refuse early what could not be computed in the end.

    Parameters
    ----------
    what : str
        What needs it, such as "a map".

    Raises
    ------
    ValueError
        With the command that installs scikit-learn.

    Examples
    --------
    >>> require_sklearn("a map")  # doctest: +SKIP
    """
    if not has_sklearn():
        raise ValueError(f"{what} needs scikit-learn: {INSTALL}")


def unit_rows(function: str, vectors: ArrayLike) -> Array:
    """Scale vectors to length 1: maps and clusters look at directions, as the cosine does.

    Parameters
    ----------
    function : str
        For the message.
    vectors : array_like, shape (M, D)
        At least one, finite, none all zeros.

    Returns
    -------
    Array, shape (M, D)
        float32 for float32 and float16, else float64.

    Raises
    ------
    ValueError
        For other vectors.

    Examples
    --------
    >>> unit_rows("project", [[3.0, 4.0]])
    array([[0.6, 0.8]])
    """
    rows = as_vectors(function, "vectors", vectors)
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
    rows = rows / largest  # so that squares can neither overflow nor vanish
    unit: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def project(
    vectors: ArrayLike,
    method: str = "pca",
    *,
    seed: int = 0,
    perplexity: float | None = None,
    neighbours: int = NEIGHBOURS,
) -> Projection:
    """Lay texts out on a plane.

    Parameters
    ----------
    vectors : array_like, shape (M, D)
        One a text, at least one. Only directions count.
    method : {"pca", "tsne", "umap"}
    seed : int
        Of t-SNE and UMAP, and of the draw of texts that trustworthiness is measured on. PCA needs none.
    perplexity : float, optional
        Of t-SNE: about how many neighbours each text has, above 1 and below M; by default :data:`PERPLEXITY`, or
        ``(M - 1) / 3`` if that is less.
    neighbours : int
        Whose trustworthiness is measured; fewer where there are fewer than ``2 neighbours + 1`` texts.

    Returns
    -------
    Projection
        Points in the dtype of the vectors, float16 as float32. Of one text, and where all vectors are the same: zeros.

    Raises
    ------
    ValueError
        For no vectors, NaN, rows of zeros; t-SNE and UMAP of fewer than 4 texts; a perplexity that is out of range; a
        package that is not installed.

    Notes
    -----
    **Source**: Pearson 1901; van der Maaten & Hinton 2008; McInnes et al. 2018; trustworthiness: Venna & Kaski 2001.
    ``sklearn.decomposition.PCA(2, svd_solver="full")`` on unit rows, each axis turned so that its largest entry is
    positive; ``sklearn.manifold.TSNE(init=the PCA map, scaled)``; ``sklearn.manifold.trustworthiness`` with the cosine.

    Examples
    --------
    >>> vectors = [[1.0, 0.0, 0.1], [1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.1, 1.0, 0.1]]
    >>> found = project(vectors)  # doctest: +SKIP
    >>> found.points[:, 0].round(1)  # doctest: +SKIP
    array([-0.7, -0.6,  0.7,  0.6])
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
    """Refuse a method that cannot be had, before minutes of work.

    Parameters
    ----------
    method : {"pca", "tsne", "umap"}
    perplexity : float or None
        As :func:`project`.
    count : int
        Texts.

    Returns
    -------
    float or None
        t-SNE's perplexity; None for the others.

    Raises
    ------
    ValueError
        As :func:`project`.

    Examples
    --------
    >>> check_method("tsne", None, 31), check_method("tsne", 5, 31), check_method("pca", None, 1)
    (10.0, 5.0, None)
    """
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
    """Lay the plane through the cloud on which it is widest: points ``(M, 2)``, and the variance along its axes."""
    from sklearn.decomposition import PCA

    model = PCA(min(2, *unit.shape), svd_solver="full")
    points = np.zeros((len(unit), 2))
    found = model.fit_transform(unit.astype(np.float64))  # (M, 1 or 2)
    axes = model.components_  # (1 or 2, D)
    # an axis has no direction of its own, and the rule by which scikit-learn gave it one changed in release 1.5
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    points[:, : found.shape[1]] = found * signs
    shares = [*model.explained_variance_ratio_.tolist(), 0.0]
    return points, (shares[0], shares[1])


def _tsne(unit: Array, start: Array, perplexity: float, seed: int) -> Array:
    """Let neighbours find each other, from the PCA map on: ``(M, 2)``."""
    from sklearn.manifold import TSNE

    small = (1e-4 * start / start[:, 0].std()).astype(np.float32)  # (M, 2) as small as its authors begin
    model = TSNE(init=small, learning_rate="auto", perplexity=perplexity, random_state=seed, n_jobs=1)
    points: Array = model.fit_transform(unit)
    return points


def _umap(unit: Array, seed: int) -> Array:
    """Lay out a graph of neighbours: ``(M, 2)``."""
    umap = importlib.import_module("umap")
    settings: dict[str, Any] = {"init": "random"} if len(unit) < 16 else {}  # its own start needs more of them
    near = min(15, len(unit) - 1)
    model = umap.UMAP(n_neighbors=near, metric="cosine", random_state=seed, n_jobs=1, **settings)
    points: Array = model.fit_transform(unit)
    return points


def _trustworthiness(unit: Array, points: Array, neighbours: int, seed: int) -> tuple[float | None, int, int]:
    """Measure how far neighbours on the map are neighbours in truth; say of how many neighbours and texts."""
    from sklearn.manifold import trustworthiness

    if len(unit) > SAMPLE:
        drawn = np.sort(np.random.default_rng(seed).choice(len(unit), SAMPLE, replace=False))
        unit, points = unit[drawn], points[drawn]
    near = min(neighbours, math.ceil(len(unit) / 2) - 1)  # the formula has a meaning below half of the texts
    if near < 1:
        return None, neighbours, len(unit)
    return float(trustworthiness(unit, points, n_neighbors=near, metric="cosine")), near, len(unit)
