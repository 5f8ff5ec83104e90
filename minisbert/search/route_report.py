"""What a router is worth: labelled queries, where they were sent, and every figure about it.

Two questions are kept apart. Does the closest route belong to the query? (``best_is_right``, whatever the threshold.)
And are queries of routes told from those that belong to none of these? (``auroc``, whatever the threshold;
``none_recall`` and ``precision`` with it.) ``accuracy`` is both at once.

Queries that are examples of the router, letter by letter, are left out: they find themselves.

Left out on purpose: calibration of scores to probabilities. Next file: ``route_fitting.py``, the thresholds.

Letters: ``Q`` queries, ``R`` routes, ``E`` examples, ``D`` the width of a vector.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from minisbert.evaluation.bootstrap import Estimate
from minisbert.evaluation.classification import LabelledTexts
from minisbert.evaluation.correlation import rank
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
"""In place of a route's number: none of these."""

Z = 1.959963984540054  # 97.5 % of a normal distribution lies below


@dataclass(frozen=True, eq=False)
class ScoredQueries:
    """Queries, where they belong, and how each route scores them.

    Examples
    --------
    >>> found = ScoredQueries(("a", "e"), ("x", "y"), np.array([0, NONE]), np.array([[0.9, 0.1], [0.2, 0.3]]))
    >>> found.best, found.top, found.is_right
    (array([0, 1]), array([0.9, 0.3]), array([ True, False]))
    """

    names: tuple[str, ...]  # of the routes
    texts: tuple[str, ...]
    expected: Array  # (Q,) numbers of routes, NONE for none of these
    scores: Array  # (Q, R)
    left_out: int = 0  # queries that are examples themselves
    kinds: tuple[str, ...] | None = None  # Q labels of queries of none, "" for all others; None: all ""

    @property
    def best(self) -> Array:
        """The best route of each query: (Q,)."""
        return best_routes(self.scores)

    @property
    def top(self) -> Array:
        """The score of the best route: (Q,)."""
        found: Array = self.scores[np.arange(len(self.scores)), self.best]
        return found

    @property
    def is_right(self) -> Array:
        """Whether the best route is the one that the query belongs to: (Q,) bool."""
        found: Array = self.best == self.expected
        return found

    def of(self, rows: Array) -> ScoredQueries:
        """Give some of the queries."""
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
    """Score labelled queries under each route.

    Parameters
    ----------
    router : Router
    queries : LabelledTexts
        The label is the name of a route, or ``none_label``.
    none_label : str
        What stands for *none of these*.
    unknown_is_none : bool
        Whether a label that is no route means *none of these*; else it is an error. The label is kept as the kind of
        query that it is.

    Returns
    -------
    ScoredQueries
        Without queries that are, letter by letter, examples of the router.

    Raises
    ------
    ValueError
        For a label that is no route, a route that is named like ``none_label``, and if no query is left.

    Examples
    --------
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
    """Ask the examples themselves, each left out of its route: once as its query, once as a query of none.

    Parameters
    ----------
    router : Router
        At least two routes.

    Returns
    -------
    ScoredQueries
        First the examples of routes that have others left, scored against those; then all examples, scored against
        the other routes alone: there the score of their own is -inf.

    Raises
    ------
    ValueError
        For a single route, beside which nothing is left, and where every route has a single example.

    Examples
    --------
    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[1.0 + s.count("a"), 1.0 + s.count("e")] for s in sentences])
    >>> router = Router(Letters(), {"a": ["banana", "papaya"], "e": ["eve"]}, similarity_fn_name="cosine")
    >>> found = score_examples(router)
    >>> found.expected, found.scores.round(2)[:3]
    (array([ 0,  0, -1, -1, -1]), array([[1.  , 0.54],
           [1.  , 0.54],
           [-inf, 0.54]]))
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
    """Score each example under its own route, without itself: (E,); -inf where it is the only one."""
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
    """How well one route is found; shares in [0, 1], NaN where there is nothing to share."""

    name: str | None  # None: none of these
    queries: int  # that belong there
    routed: int  # that were sent there
    right: int
    precision: float  # right / routed
    recall: float  # right / queries
    f1: float  # 2 right / (queries + routed)


@dataclass(frozen=True, eq=False)
class RouteReport:
    """Where queries were sent, beside where they belong.

    Every estimate has a 95 % interval over the queries (`share`, `auroc`), and is None where there is no query to ask.
    """

    queries: ScoredQueries
    decided: Array  # (Q,) numbers of routes, NONE for none of these

    @property
    def correct(self) -> Array:
        """Whether each query was sent where it belongs, or refused if it belongs to none: (Q,) bool."""
        found: Array = self.decided == self.queries.expected
        return found

    def _share(self, values: Array, among: Array) -> Estimate | None:
        return share(values[among]) if among.any() else None

    def accuracy(self) -> Estimate:
        """Share of all queries that are right."""
        return share(self.correct)

    def in_scope_accuracy(self) -> Estimate | None:
        """Share of the queries of routes that were sent to their own."""
        return self._share(self.correct, self.queries.expected != NONE)

    def best_is_right(self) -> Estimate | None:
        """Share of the queries of routes whose best route is their own, whatever the threshold: its upper limit."""
        return self._share(self.queries.is_right, self.queries.expected != NONE)

    def none_recall(self) -> Estimate | None:
        """Share of the queries of none that were refused; the others are false alarms."""
        return self._share(self.correct, self.queries.expected == NONE)

    def precision(self) -> Estimate | None:
        """Share of the queries that were sent anywhere that were sent where they belong."""
        return self._share(self.correct, self.decided != NONE)

    def answered(self) -> Estimate:
        """Share of all queries that were sent anywhere."""
        return share(self.decided != NONE)

    def auroc(self) -> Estimate | None:
        """Say how well the best score tells queries of routes from queries of none, whatever the threshold."""
        is_none, top = self.queries.expected == NONE, self.queries.top
        return auroc(top[~is_none], top[is_none]) if 0 < is_none.sum() < len(is_none) else None

    def by_route(self) -> list[RouteScore]:
        """Score each route in the order of the table, and *none of these* last."""
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
        """Mean F1 over the routes and *none of these*, as far as they occur: each counts alike, rare ones too."""
        return float(np.mean([score.f1 for score in self.by_route() if not math.isnan(score.f1)]))

    def confusions(self) -> list[tuple[str | None, str | None, int]]:
        """Count the mistakes by where a query belongs and where it was sent, most frequent first."""
        names = (*self.queries.names, None)  # NONE, -1, is the last
        wrong = np.flatnonzero(~self.correct)
        counts = Counter((int(self.queries.expected[i]), int(self.decided[i])) for i in wrong)
        falling = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [(names[expected], names[decided], count) for (expected, decided), count in falling]


def report(queries: ScoredQueries, thresholds: Array) -> RouteReport:
    """Send scored queries to their best route where its threshold is reached.

    Parameters
    ----------
    queries : ScoredQueries
    thresholds : Array, shape (R,)
        ``Router.thresholds``.

    Returns
    -------
    RouteReport

    Examples
    --------
    >>> found = ScoredQueries(("a", "e"), ("x", "y"), np.array([0, NONE]), np.array([[0.9, 0.1], [0.2, 0.3]]))
    >>> report(found, np.array([0.5, 0.5])).decided
    array([ 0, -1])
    """
    best = queries.best
    return RouteReport(queries, np.where(queries.top >= thresholds[best], best, NONE))


def share(values: Array) -> Estimate:
    """Give the share of queries for which something holds, with its 95 % interval.

    ``(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)``, ``z = 1.96``

    Parameters
    ----------
    values : Array of bool, shape (n,)
        At least one.

    Returns
    -------
    Estimate
        In [0, 1].

    Notes
    -----
    **Source**: Wilson 1927; ``scipy.stats.binomtest(k, n).proportion_ci(method="wilson")``. Where the other files of
    evaluation resample, this asks for yes or no of each query, and then a formula does it; it also stays honest where
    all of a few queries are right, of which a bootstrap would make a certainty.

    Examples
    --------
    >>> [round(end, 3) for end in share(np.array([True] * 7))]
    [1.0, 0.646, 1.0]
    """
    n, p = len(values), float(np.mean(values))
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return Estimate(p, min(p, middle - half), max(p, middle + half))  # rounding could leave p just outside


def auroc(inside: Array, outside: Array) -> Estimate:
    """Probability that a query of a route scores higher than a query of none, ties half; with a 95 % interval.

    ``AUROC = mean over pairs of [s > t] + [s = t] / 2``

    Parameters
    ----------
    inside : Array, shape (m,)
        Scores of queries of routes.
    outside : Array, shape (n,)
        Scores of queries of none.

    Returns
    -------
    Estimate
        In [0, 1]; 0.5 where the scores tell nothing. With NaN for the ends where the queries show no variance to reckon
        with: every pair is won, or there is one query of each kind.

    Notes
    -----
    **Source**: Mann & Whitney 1947; ``sklearn.metrics.roc_auc_score``. The interval: DeLong et al. 1988, from the
    variances of each query's share of pairs won, ``+- 1.96 sqrt(var_inside / m + var_outside / n)``, kept in [0, 1].

    Examples
    --------
    >>> auroc(np.array([0.9, 0.8, 0.4]), np.array([0.1, 0.4])).mean
    0.9166666666666666
    """
    m, n = len(inside), len(outside)
    ranks = rank(np.concatenate([inside, outside]))  # (m + n,)
    won = (ranks[:m] - rank(inside)) / n  # (m,) of each inside, the share of outsides that it beats
    lost = 1.0 - (ranks[m:] - rank(outside)) / m  # (n,)
    mean = float(won.mean())
    variance = sum(float(share.var(ddof=1)) / len(share) for share in (won, lost) if len(share) > 1)
    half = Z * math.sqrt(variance)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half)) if half else Estimate(mean, math.nan, math.nan)
