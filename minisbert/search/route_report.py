"""Evaluate a router on labelled queries.

Two questions are kept apart. Is the closest route the right one? (``best_is_right``, whatever the threshold.) Are
out-of-scope queries told from the others? (``auroc``, whatever the threshold; ``none_recall`` and ``precision`` with
it.) ``accuracy`` is both at once. Queries that equal an example are left out: they find themselves.

Letters: ``Q`` queries, ``R`` routes, ``E`` examples, ``D`` width of a vector.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from minisbert.evaluation.classification import LabelledTexts
from minisbert.evaluation.measures import Estimate
from minisbert.evaluation.sts import rank
from minisbert.model import Array
from minisbert.search.router import Router, best_routes, centroids
from minisbert.similarity import SIMILARITIES

__all__ = [
    "NONE",
    "RouteReport",
    "RouteScore",
    "ScoredQueries",
    "auroc",
    "report",
    "score_examples",
    "score_queries",
    "share",
]

NONE = -1
"""Instead of a route's number: none of these."""

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True, eq=False)
class ScoredQueries:
    """Queries, where they belong, and their score under each route.

    >>> found = ScoredQueries(("a", "e"), ("x", "y"), np.array([0, NONE]), np.array([[0.9, 0.1], [0.2, 0.3]]))
    >>> found.best, found.top, found.is_right
    (array([0, 1]), array([0.9, 0.3]), array([ True, False]))
    """

    names: tuple[str, ...]  # of the routes
    texts: tuple[str, ...]
    expected: Array  # (Q,) numbers of routes, NONE for none of these
    scores: Array  # (Q, R)
    left_out: int = 0  # queries that equal an example
    kinds: tuple[str, ...] | None = None  # Q labels of out-of-scope queries, "" for others; None: all ""

    @property
    def best(self) -> Array:
        """The best route of each query: (Q,)."""
        return best_routes(self.scores)

    @property
    def top(self) -> Array:
        """The score of the best route: (Q,)."""
        return self.scores[np.arange(len(self.scores)), self.best]

    @property
    def is_right(self) -> Array:
        """Whether the best route is the query's own: (Q,) bool."""
        return self.best == self.expected

    def of(self, rows: Array) -> ScoredQueries:
        """Select queries."""
        kept = np.arange(len(self.texts))[rows]
        return replace(
            self,
            texts=tuple(self.texts[i] for i in kept),
            expected=self.expected[rows],
            scores=self.scores[rows],
            kinds=None if self.kinds is None else tuple(self.kinds[i] for i in kept),
        )


# ------------------------------------------------------------------------------------------------------ scoring


def score_queries(
    router: Router, queries: LabelledTexts, *, none_label: str = "none", unknown_is_none: bool = False
) -> ScoredQueries:
    """Score labelled queries under each route; those that equal an example are left out.

    ``none_label`` stands for *none of these*; with ``unknown_is_none`` so does every label that is not a route (kept as
    the query's kind), otherwise it is an error.

    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[1.0 + s.count("a"), 1.0 + s.count("e")] for s in sentences])
    >>> router = Router(Letters(), {"a": ["banana"], "e": ["eve"]}, similarity_fn_name="cosine")
    >>> found = score_queries(router, LabelledTexts("asked", ["papaya", "dog", "eve"], ["a", "none", "e"]))
    >>> found.expected, found.scores.round(2), found.left_out
    (array([ 0, -1]), array([[1.  , 0.54],
           [0.86, 0.89]]), 1)
    """
    number = {name: r for r, name in enumerate(router.table.names)}
    if none_label in number:
        raise ValueError(
            f"{queries.name}: the out-of-scope label {none_label!r} is also the name of a route; choose another one "
            "(none_label)"
        )
    unknown = Counter(label for label in queries.labels if label not in number and label != none_label)
    if unknown and not unknown_is_none:
        listed = ", ".join(f"{label!r:.40} ({count})" for label, count in list(unknown.items())[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(
            f"{queries.name}: {listed}{more} {'is not a route' if len(unknown) == 1 else 'are not routes'}; the "
            f"routes are {', '.join(map(repr, router.table.names[:5]))}{', ...' if len(number) > 5 else ''}, and "
            f"{none_label!r} means out-of-scope; check the spelling, or treat all such labels as out-of-scope "
            "(unknown_is_none)"
        )
    examples = set(router.table.examples)
    kept = [i for i, text in enumerate(queries.texts) if text not in examples]
    if not kept:
        raise ValueError(
            f"{queries.name}: all {len(queries.texts)} queries are examples of the routes; give other queries"
        )
    texts = tuple(queries.texts[i] for i in kept)
    expected = np.array([number.get(queries.labels[i], NONE) for i in kept])
    kinds = tuple(label if label in unknown else "" for label in (queries.labels[i] for i in kept))
    scores = router.score(router.embed(texts))
    return ScoredQueries(router.table.names, texts, expected, scores, len(queries.texts) - len(kept), kinds)


def score_examples(router: Router) -> ScoredQueries:
    """Use each example as a query twice, itself left out: as one of its route, and as an out-of-scope query.

    First the examples of routes that have others, scored against those; then all examples against the other routes
    alone, with -inf for their own. Takes two routes, and one with two examples.
    """
    counts = np.diff(router.starts)  # (R,)
    if len(counts) < 2 or counts.max() < 2:
        raise ValueError(
            f"score_examples: with {len(counts)} route(s) of at most {counts.max()} example(s) each, there is nothing "
            "to compare an example with; give more routes and examples, or labelled queries"
        )
    owners = np.repeat(np.arange(len(counts)), counts)  # (E,)
    own = np.arange(len(owners)), owners
    among_others = router.score(router.vectors)  # (E, R)
    inside = among_others.copy()
    among_others[own] = -np.inf
    inside[own] = _scores_without_self(router, owners)
    is_asked = counts[owners] > 1
    texts = np.array(router.table.examples, dtype=object)
    expected = np.concatenate([owners[is_asked], np.full(len(owners), NONE)])
    scores = np.concatenate([inside[is_asked], among_others])
    return ScoredQueries(router.table.names, (*texts[is_asked], *texts), expected, scores)


def _scores_without_self(router: Router, owners: Array) -> Array:
    """Score each example under its own route, without itself: (E,); -inf if it is the only one."""
    compare = SIMILARITIES[router.similarity_fn_name].matrix
    found = np.full(len(owners), -np.inf)
    for start, stop in pairwise(router.starts):
        rows, count = router.vectors[start:stop], stop - start
        if count == 1:
            continue
        if router.centroids is None:
            similarities = compare(rows, rows).astype(np.float64)
            np.fill_diagonal(similarities, -np.inf)
            found[start:stop] = similarities.max(axis=1)
            continue
        for i in range(count):
            others = np.delete(rows, i, axis=0)
            centroid = centroids(others, np.array([0, count - 1]), router.similarity_fn_name)
            found[start + i] = compare(rows[i], centroid)[0, 0]
    return found


# ------------------------------------------------------------------------------------------------------ reports


class RouteScore(NamedTuple):
    """Results of one route; shares in [0, 1], NaN where undefined."""

    name: str | None  # None: none of these
    queries: int  # that belong there
    routed: int  # that were sent there
    right: int
    precision: float  # right / routed
    recall: float  # right / queries
    f1: float  # 2 right / (queries + routed)


@dataclass(frozen=True, eq=False)
class RouteReport:
    """Where queries were sent, and where they belong.

    Every estimate has a 95 % interval over the queries (`share`, `auroc`), and is None if there are no such queries.
    """

    queries: ScoredQueries
    decided: Array  # (Q,) numbers of routes, NONE for none of these

    @property
    def correct(self) -> Array:
        """Whether each query was sent to its own route, or rejected if out-of-scope: (Q,) bool."""
        return self.decided == self.queries.expected

    def _share(self, values: Array, among: Array) -> Estimate | None:
        return share(values[among]) if among.any() else None

    def accuracy(self) -> Estimate:
        """Share of all queries that are right."""
        return share(self.correct)

    def in_scope_accuracy(self) -> Estimate | None:
        """Share of in-scope queries sent to their own route."""
        return self._share(self.correct, self.queries.expected != NONE)

    def best_is_right(self) -> Estimate | None:
        """Share of in-scope queries whose best route is their own, whatever the threshold: an upper limit."""
        return self._share(self.queries.is_right, self.queries.expected != NONE)

    def none_recall(self) -> Estimate | None:
        """Share of out-of-scope queries rejected."""
        return self._share(self.correct, self.queries.expected == NONE)

    def precision(self) -> Estimate | None:
        """Share of right answers among the queries sent to a route."""
        return self._share(self.correct, self.decided != NONE)

    def answered(self) -> Estimate:
        """Share of all queries sent to a route."""
        return share(self.decided != NONE)

    def auroc(self) -> Estimate | None:
        """How well the best score separates in-scope from out-of-scope queries, whatever the threshold."""
        is_none, top = self.queries.expected == NONE, self.queries.top
        return auroc(top[~is_none], top[is_none]) if 0 < is_none.sum() < len(is_none) else None

    def by_route(self) -> list[RouteScore]:
        """Results per route in the order of the table, *none of these* last."""
        return [self._score_route(r, name) for r, name in [*enumerate(self.queries.names), (NONE, None)]]

    def _score_route(self, r: int, name: str | None) -> RouteScore:
        belong, sent = self.queries.expected == r, self.decided == r
        queries, routed, right = int(belong.sum()), int(sent.sum()), int((belong & sent).sum())
        return RouteScore(
            name,
            queries,
            routed,
            right,
            precision=right / routed if routed else math.nan,
            recall=right / queries if queries else math.nan,
            f1=2 * right / (queries + routed) if queries + routed else math.nan,
        )

    def macro_f1(self) -> float:
        """Mean F1 over the routes and *none of these* that occur, rare ones weighted the same."""
        return float(np.mean([score.f1 for score in self.by_route() if not math.isnan(score.f1)]))

    def confusions(self) -> list[tuple[str | None, str | None, int]]:
        """Count the mistakes by expected and chosen route, most frequent first."""
        names = (*self.queries.names, None)  # NONE, -1, is the last
        wrong = np.flatnonzero(~self.correct)
        counts = Counter((int(self.queries.expected[i]), int(self.decided[i])) for i in wrong)
        falling = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [(names[expected], names[decided], count) for (expected, decided), count in falling]


def report(queries: ScoredQueries, thresholds: Array) -> RouteReport:
    """Send scored queries to their best route if it reaches its threshold, one of ``Router.thresholds`` (R,).

    >>> found = ScoredQueries(("a", "e"), ("x", "y"), np.array([0, NONE]), np.array([[0.9, 0.1], [0.2, 0.3]]))
    >>> report(found, np.array([0.5, 0.5])).decided
    array([ 0, -1])
    """
    best = queries.best
    return RouteReport(queries, np.where(queries.top >= thresholds[best], best, NONE))


def share(values: Array) -> Estimate:
    """The share of queries for which something holds, with its 95 % interval.

    ``(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)``, ``z = 1.96``

    **Source**: Wilson 1927; ``scipy.stats.binomtest(k, n).proportion_ci(method="wilson")``. Yes or no per query allows
    a formula, which stays honest where all of a few queries are right: a bootstrap would claim certainty.

    >>> [round(end, 3) for end in share(np.array([True] * 7))]
    [1.0, 0.646, 1.0]
    """
    n, p = len(values), float(np.mean(values))
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return Estimate(p, min(p, middle - half), max(p, middle + half))  # rounding could leave p just outside


def auroc(inside: Array, outside: Array) -> Estimate:
    """Probability that an in-scope query scores higher than an out-of-scope one, ties half, with a 95 % interval.

    ``AUROC = mean over pairs of [s > t] + [s = t] / 2``

    The ends are NaN if there is no variance: every pair is won, or there is one query of each kind.

    **Source**: Mann & Whitney 1947; ``sklearn.metrics.roc_auc_score``. The interval: DeLong et al. 1988, from the
    variances of each query's share of pairs won, ``+- 1.96 sqrt(var_inside / m + var_outside / n)``, kept in [0, 1].

    >>> auroc(np.array([0.9, 0.8, 0.4]), np.array([0.1, 0.4])).mean
    0.9166666666666666
    """
    m, n = len(inside), len(outside)
    ranks = rank(np.concatenate([inside, outside]))  # (m + n,)
    won = (ranks[:m] - rank(inside)) / n  # (m,) of each in-scope query, the share of pairs won
    lost = 1.0 - (ranks[m:] - rank(outside)) / m  # (n,)
    mean = float(won.mean())
    variance = sum(float(share.var(ddof=1)) / len(share) for share in (won, lost) if len(share) > 1)
    half = Z * math.sqrt(variance)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half)) if half else Estimate(mean, math.nan, math.nan)
