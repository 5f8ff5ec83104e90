"""The router: which route does a query belong to, or to none?

Each example is embedded once. The score of a route is, by the model's own similarity (usually the cosine),

=========  =======================================================  ==================================================
scoring    score of route r for the query q                         for
=========  =======================================================  ==================================================
nearest    max over the examples e of r of similarity(q, e)         routes with varied texts; more examples help
centroid   similarity(q, mean of the examples of r)                 few, noisy examples of one kind
=========  =======================================================  ==================================================

The route with the highest score is the **best**. If its score is below its threshold the answer is *none of these*,
``name = None``; the second-best route never takes its place. So a threshold only decides about queries whose best route
it belongs to, which lets ``route_fitting.py`` find the best thresholds exactly. Scores within `TIE`, float32's
rounding, are equal, and the first route in the file wins: neither the batch of a query nor the number of threads
decides.

Letters: ``B`` queries, ``R`` routes, ``E`` examples, ``D`` width of a vector.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from minisbert.checks import each_text
from minisbert.evaluation.sts import Encodes
from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.search.route_files import as_table, read_routes, write_routes
from minisbert.search.routes import Route, RouteTable
from minisbert.similarity import SIMILARITIES

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

__all__ = ["RouteChoice", "Router", "best_routes", "centroids", "nearest"]

TIE = 1e-6
"""Scores this close are equal; relative to the score if that is above 1 in size."""

_BLOCK_QUERIES = 1024  # compared with all examples at a time


@dataclass(frozen=True)
class RouteChoice:
    """Where a query belongs, and why."""

    query: str
    name: str | None  # None: none of these
    best: str  # the route with the highest score, taken or not
    score: float  # of the best route
    threshold: float | None  # minimum score; None: any
    example: str  # the best route's most similar example
    scores: Mapping[str, float]  # of all routes, highest first

    @property
    def runner_up(self) -> str | None:
        """The second-best route, if any."""
        return next((name for name in self.scores if name != self.best), None)

    @property
    def margin(self) -> float | None:
        """How far the best route's score is above the second's, if any."""
        return None if self.runner_up is None else max(0.0, self.score - self.scores[self.runner_up])


class Router:
    """Embedded routes: queries in, routes out.

    Parameters
    ----------
    encoder : SentenceEncoder, or anything whose ``encode(list of str)`` gives ``(B, D)``
        Without a similarity of its own, ``similarity_fn_name`` is required.
    routes : RouteTable, or what `as_table` takes
        Such as ``{"refund": ["I want my money back"], "hours": ["when do you open?"]}``.
    similarity_fn_name : {"cosine", "dot", "euclidean", "manhattan"}, optional
        By default the model's own.
    **options
        Of ``encode``, for examples and queries: ``prompt_name``, ``overflow``, ``num_threads``, ...

    Raises
    ------
    ValueError
        If the thresholds were fitted with another model, if a route's examples cancel out under "centroid", and as
        `as_table` and ``encode``.

    Warns
    -----
    UserWarning
        If examples have changed since the thresholds were fitted.

    Examples
    --------
    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[1.0 + s.count("a"), 1.0 + s.count("e")] for s in sentences])
    >>> routes = {"routes": {"a": ["banana", "alabama"], "e": ["beetle", "eve"]}, "threshold": 0.95}
    >>> router = Router(Letters(), routes, similarity_fn_name="cosine")
    >>> choice = router.route("papaya")
    >>> choice.name, round(choice.score, 3), choice.example
    ('a', 1.0, 'banana')
    >>> choice = router.route("dog")
    >>> choice.name, choice.best, round(choice.score, 3)
    (None, 'e', 0.894)
    """

    def __init__(
        self,
        encoder: Encodes,
        routes: Any,
        *,
        similarity_fn_name: str | None = None,
        **options: Any,
    ) -> None:
        self.encoder = model = cast(Any, encoder)
        self.table: RouteTable = as_table(routes)
        self.options = options
        self.similarity_fn_name: str = similarity_fn_name or model.model.similarity_fn_name
        if self.similarity_fn_name not in SIMILARITIES:
            raise ValueError(
                f"Router: similarity_fn_name must be one of {', '.join(SIMILARITIES)}, got {similarity_fn_name!r}"
            )
        self._check_thresholds()
        self._check_fitted()
        self.vectors = self._encode(list(self.table.examples))  # (E, D)
        self._embed_centroids()

    def _check_thresholds(self) -> None:
        """Reject thresholds that no cosine or every cosine reaches; fitted ones may lie just outside."""
        said = self.thresholds[np.isfinite(self.thresholds)]
        far = said[np.abs(said) > 1.01]
        if len(far) and self.similarity_fn_name == "cosine":
            raise ValueError(f"Router: threshold must be a cosine, from -1 to 1, not a percentage; got {far[0]:g}")

    def _check_fitted(self) -> None:
        """Reject thresholds fitted with another model; warn if the examples have changed."""
        if self.table.origin is not None:
            way_out = "fit the thresholds again with this model (minisbert route fit), or remove them from the file"
            self.table.origin.check(self.encoder, "this file of routes", way_out)
        fitted = self.table.fitted or {}
        if fitted.get("digest", self.table.digest()) != self.table.digest():
            message = (
                "the examples or the scoring of these routes have changed since their thresholds were fitted: fit "
                "them again (minisbert route fit)"
            )
            warnings.warn(message, UserWarning, stacklevel=3)

    def _embed_centroids(self) -> None:
        """Average each route's examples if routes are scored by centroid."""
        self.starts: Array = np.cumsum([0, *(len(route.examples) for route in self.table.routes)])  # (R + 1,)
        self.centroids: Array | None = None
        if self.table.scoring == "centroid":
            self.centroids = centroids(self.vectors, self.starts, self.similarity_fn_name)
            lost = np.flatnonzero(np.linalg.norm(self.centroids, axis=1) < TIE)
            if len(lost) and self.similarity_fn_name == "cosine":
                raise ValueError(
                    f"Router: the examples of route {self.table.names[lost[0]]!r} cancel out: their mean is zero and "
                    "has no direction; score by the nearest example, or give other examples"
                )

    def __repr__(self) -> str:
        routes, examples = len(self.table.routes), len(self.table.examples)
        return f"Router({routes} routes, {examples} examples, {self.table.scoring}, {self.similarity_fn_name})"

    def __getitem__(self, name: str) -> Route:
        """Look up a route by name: ``router[choice.name].metadata``."""
        for route in self.table.routes:
            if route.name == name:
                return route
        raise KeyError(name)

    @classmethod
    def from_file(cls, encoder: SentenceEncoder, file: str | Path, **options: Any) -> Router:
        """Read routes from a file (`read_routes`) and embed them; options as `Router`."""
        return cls(encoder, read_routes(file), **options)

    def save(self, file: str | Path) -> None:
        """Write routes and thresholds to a file (`write_routes`), for :meth:`from_file`."""
        write_routes(self.table, file)

    def with_table(self, table: RouteTable) -> Router:
        """A router with other thresholds and the same names, examples and scoring, without embedding again."""
        if table.digest() != self.table.digest():
            raise ValueError("with_table: names, examples and scoring must be the router's own; make a new Router")
        other = object.__new__(Router)
        other.__dict__.update(self.__dict__, table=table)
        other._check_thresholds()
        return other

    @property
    def thresholds(self) -> Array:
        """Minimum score of each route: (R,) float64, -inf where any score will do."""
        found = [self._threshold(route) for route in self.table.routes]
        return np.array([-np.inf if threshold is None else threshold for threshold in found])

    def _threshold(self, route: Route) -> float | None:
        return self.table.threshold if route.threshold is None else route.threshold

    def route(self, query: str) -> RouteChoice:
        """Find the route of a query."""
        if not isinstance(query, str):
            raise ValueError(f"route: expected a string, got {type(query).__name__}; for several queries use route_all")
        return self.route_all([query])[0]

    def route_all(self, queries: Iterable[str]) -> list[RouteChoice]:
        """Find the route of each query; they are embedded together."""
        texts = list(each_text(queries, "route_all: queries"))
        if not texts:
            return []
        vectors = self._encode(texts)  # (B, D)
        scores = self.score(vectors)  # (B, R)
        best = best_routes(scores)  # (B,)
        rows = zip(texts, vectors, scores, best.tolist(), strict=True)
        return [self._choose(text, vector, row, route) for text, vector, row, route in rows]

    def score(self, vectors: Array) -> Array:
        """Similarity of query vectors with each route, larger for closer, float64.

        (B, D) -> (B, R)
        """
        compare = SIMILARITIES[self.similarity_fn_name].matrix
        found = np.empty((len(vectors), len(self.table.routes)))  # (B, R)
        for start in range(0, len(vectors), _BLOCK_QUERIES):
            rows = slice(start, start + _BLOCK_QUERIES)
            if self.centroids is None:
                found[rows] = nearest(compare(vectors[rows], self.vectors), self.starts)
            else:
                found[rows] = compare(vectors[rows], self.centroids)
        return found

    def _choose(self, query: str, vector: Array, scores: Array, best: int) -> RouteChoice:
        """Take the best route, or none."""
        route = self.table.routes[best]
        examples = self.vectors[self.starts[best] : self.starts[best + 1]]
        closest = int(np.argmax(SIMILARITIES[self.similarity_fn_name].matrix(vector, examples)[0]))
        threshold, score = self._threshold(route), float(scores[best])
        falling = [best, *(r for r in np.argsort(-scores, kind="stable").tolist() if r != best)]
        return RouteChoice(
            query=query,
            name=route.name if threshold is None or score >= threshold else None,
            best=route.name,
            score=score,
            threshold=threshold,
            example=route.examples[closest],
            scores={self.table.names[r]: float(scores[r]) for r in falling},
        )

    def embed(self, queries: Iterable[str]) -> Array:
        """Turn B queries into vectors ``(B, D)`` as the router does."""
        return self._encode(list(each_text(queries, "embed: queries")))

    def _encode(self, texts: list[str]) -> Array:
        """Encode texts, and check that there is a vector for each."""
        vectors = np.asarray(self.encoder.encode(texts, **self.options))
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError(f"Router: encode must return one vector per text, ({len(texts)}, D), got {vectors.shape}")
        return vectors


# ------------------------------------------------------------------------------------------------------ scoring


def nearest(similarities: Array, starts: Array) -> Array:
    """``score_r = max_(e in r) similarity_e``; the examples of route r are ``[starts[r], starts[r + 1])``.

    (B, E), (R + 1,) -> (B, R)

    >>> nearest(np.array([[0.1, 0.7, 0.3]]), np.array([0, 2, 3]))
    array([[0.7, 0.3]])
    """
    return np.maximum.reduceat(similarities, starts[:-1], axis=1)


def centroids(vectors: Array, starts: Array, similarity_fn_name: str) -> Array:
    """``centroid_r = mean_(e in r) v_e``, under the cosine of ``v_e / |v_e|``, so that long vectors count no more.

    (E, D), (R + 1,) -> (R, D)

    **Source**: Snell et al. 2017 (prototypical networks), equation 1.
    """
    rows = normalize(vectors) if similarity_fn_name == "cosine" else vectors  # (E, D)
    return np.stack([rows[a:b].mean(axis=0) for a, b in pairwise(starts)])  # (R, D)


def best_routes(scores: Array) -> Array:
    """The route with the highest score; of equal scores the first.

    (B, R) -> (B,)

    >>> best_routes(np.array([[0.2, 0.5, 0.4], [0.5, 0.5 + 1e-8, 0.1]]))
    array([1, 0])
    """
    highest = scores.max(axis=1, keepdims=True)  # (B, 1)
    return np.argmax(scores >= highest - TIE * np.maximum(1.0, np.abs(highest)), axis=1)
