"""The router: which route does a query belong to, or to none? Asked, evaluated, and its thresholds fitted.

Each example is embedded once. The score of a route is, by the model's own similarity (usually the cosine),

=========  =======================================================  ==================================================
scoring    score of route r for the query q                         for
=========  =======================================================  ==================================================
nearest    max over the examples e of r of similarity(q, e)         routes with varied texts; more examples help
centroid   similarity(q, mean of the examples of r)                 few, noisy examples of one kind
=========  =======================================================  ==================================================

The route with the highest score is the **best**. If its score is below its threshold the answer is *none of these*;
the second-best route never takes its place. So a threshold only splits the queries whose best route it belongs to, and
with these sorted by score there are at most ``Q + 1`` splits: all are counted, and the fit is exact. Scores within
`TIE`, float32's rounding, are equal, and the first route in the file wins: neither the batch of a query nor the number
of threads decides.

Letters: ``Q`` queries, ``R`` routes, ``E`` examples, ``D`` width of a vector, ``V`` distinct scores.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from minisbert.checks import check_choice, check_vectors, check_whole, each_text, require
from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.classification import LabelledTexts
from minisbert.evaluation.measures import ClassReport, Estimate, class_report, share
from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.saved import origin_of
from minisbert.search.routes import as_table
from minisbert.similarity import SIMILARITIES

TIE = 1e-6
"""Scores this close are equal; relative to the score if that is above 1 in size."""

OBJECTIVES = ("accuracy", "balanced", "precision")
_BLOCK_QUERIES = 1024  # compared with all examples at a time
EDGE = 0.01  # distance from the outermost score of a threshold that takes or rejects all; 1 % of scores above 1


@dataclass(frozen=True)
class RouteChoice:
    """Where a query belongs, and why."""

    query: str
    route: str | None  # None: none of these
    best: str  # the route with the highest score, taken or not
    score: float  # of the best route
    threshold: float | None  # minimum score; None: any
    runner_up: str | None  # the second-best route, if any
    margin: float | None  # how far the best score is above the second's
    example: str  # the best route's most similar example
    metadata: Mapping[str, Any]  # of the best route
    scores: Mapping[str, float]  # of all routes, highest first


class Router:
    """Embedded routes: queries in, routes out.

    Parameters
    ----------
    encoder : SentenceEncoder, or anything whose ``encode(list of str)`` gives ``(Q, D)``
        Without a similarity of its own, ``similarity_fn_name`` is required.
    routes : RouteTable, or what `as_table` takes
        Such as ``{"refund": ["I want my money back"], "hours": ["when do you open?"]}``; a file by `read_routes`.
    similarity_fn_name : {"cosine", "dot", "euclidean", "manhattan"}, optional
        By default the model's own.
    **options
        Of ``encode``, for examples and queries: ``prompt_name``, ``overflow``, ``num_threads``, ...

    Raises
    ------
    ValueError
        If the thresholds were fitted with another model or are no cosines, if a route's examples cancel out under
        "centroid", and as `as_table` and ``encode``.

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
    >>> [(choice.route, choice.best, round(choice.score, 3)) for choice in router.route_all(["papaya", "dog"])]
    [('a', 'a', 1.0), (None, 'e', 0.894)]
    """

    def __init__(self, encoder: Any, routes: Any, *, similarity_fn_name: str | None = None, **options: Any) -> None:
        self.encoder, self.options = encoder, options
        self.table = table = as_table(routes)
        self.similarity_fn_name = similarity_fn_name or encoder.model.similarity_fn_name
        check_choice("Router: similarity_fn_name", self.similarity_fn_name, SIMILARITIES)
        self._compare = SIMILARITIES[self.similarity_fn_name].matrix
        is_cosine = self.similarity_fn_name == "cosine"
        limit = 1 if table.fitted is None else 1 + EDGE  # a fit may close a route
        for route, threshold in zip(table.routes, self.thresholds.tolist(), strict=True):
            if is_cosine and limit < abs(threshold) < math.inf:
                where = "threshold" if route.threshold is None else f"routes.{route.name}.threshold"
                raise ValueError(
                    f"{table.file or 'Router'}: {where} must be a cosine, from -1 to 1, not a percentage; got "
                    f"{threshold:g}"
                )
        if table.origin is not None:
            way_out = "fit the thresholds again with this model (minisbert route fit), or remove them from the file"
            table.origin.check(encoder, "this file of routes", way_out)
        if table.fitted is not None and table.fitted.get("digest", table.digest()) != table.digest():
            message = "the examples or the scoring of these routes have changed since their thresholds were fitted"
            warnings.warn(f"{message}: fit them again (minisbert route fit)", UserWarning, stacklevel=2)
        self.vectors = self.embed(table.examples)  # (E, D)
        self.starts = np.cumsum([0, *(len(route.examples) for route in table.routes)])  # (R + 1,)
        if table.scoring == "centroid" and is_cosine:
            lost = np.linalg.norm(centroids(self.vectors, self.starts, "cosine"), axis=1) < TIE  # (R,)
            if lost.any():
                raise ValueError(
                    f"Router: the examples of route {table.names[np.argmax(lost)]!r} cancel out: their mean is zero "
                    "and has no direction; score by the nearest example, or give other examples"
                )

    def __repr__(self) -> str:
        routes, examples = len(self.table.routes), len(self.table.examples)
        return f"Router({routes} routes, {examples} examples, {self.table.scoring}, {self.similarity_fn_name})"

    @property
    def thresholds(self) -> Array:
        """Minimum score of each route: (R,) float64, -inf where any score will do."""
        found = [self.table.threshold if route.threshold is None else route.threshold for route in self.table.routes]
        return np.array([-np.inf if threshold is None else threshold for threshold in found])

    def route(self, query: str) -> RouteChoice:
        """Find the route of a query; a text without any word belongs to none."""
        if not isinstance(query, str):
            raise ValueError(f"route: expected a string, got {type(query).__name__}; for several queries use route_all")
        return self.route_all([query])[0]

    def route_all(self, queries: Iterable[str]) -> list[RouteChoice]:
        """Find the route of each query; they are embedded together."""
        texts = list(each_text(queries, "route_all: queries"))
        if not texts:
            return []
        vectors, names, thresholds = self.embed(texts), self.table.names, self.thresholds.tolist()  # (Q, D)
        all_scores, choices = self.score(vectors), []  # (Q, R)
        for text, vector, row, best in zip(texts, vectors, all_scores, best_routes(all_scores)[0], strict=True):
            route, threshold = self.table.routes[best], thresholds[best]
            order = [best, *(r for r in np.argsort(-row, kind="stable") if r != best)]
            scores = {names[r]: float(row[r]) for r in order}
            score, *others = scores.values()
            near = self._compare(vector, self.vectors[self.starts[best] : self.starts[best + 1]])[0]
            choices.append(
                RouteChoice(
                    query=text,
                    route=route.name if score >= threshold and text.strip() else None,
                    best=route.name,
                    score=score,
                    threshold=threshold if math.isfinite(threshold) else None,
                    runner_up=[*scores, None][1],
                    margin=max(0.0, score - others[0]) if others else None,
                    example=route.examples[int(np.argmax(near))],
                    metadata=dict(route.metadata),
                    scores=scores,
                )
            )
        return choices

    def embed(self, queries: Iterable[str]) -> Array:
        """Turn Q queries into vectors ``(Q, D)`` as the router does."""
        texts = list(each_text(queries, "embed: queries"))
        return check_vectors(self.encoder.encode(texts, **self.options), "Router: encode", rows=len(texts))

    def score(self, vectors: Array) -> Array:
        """Similarity of query vectors with each route, larger for closer, float64: (Q, D) -> (Q, R)."""
        if self.table.scoring == "centroid":
            found = self._compare(vectors, centroids(self.vectors, self.starts, self.similarity_fn_name))
        else:
            found = np.empty((len(vectors), len(self.starts) - 1))
            for start in range(0, len(vectors), _BLOCK_QUERIES):
                block = slice(start, start + _BLOCK_QUERIES)
                scores = self._compare(vectors[block], self.vectors)  # (q, E) of all E examples
                found[block] = np.maximum.reduceat(scores, self.starts[:-1], axis=1)
        return found.astype(np.float64)


def centroids(vectors: Array, starts: Array, similarity_fn_name: str) -> Array:
    """``centroid_r = mean_(e in r) v_e``, under the cosine of ``v_e / |v_e|``, so that long vectors count no more.

    (E, D), (R + 1,) -> (R, D)

    **Source**: Snell et al. 2017 (prototypical networks), equation 1.
    """
    rows = normalize(vectors) if similarity_fn_name == "cosine" else vectors  # (E, D)
    return np.add.reduceat(rows, starts[:-1], axis=0) / np.diff(starts)[:, None].astype(rows.dtype)  # (R, D)


def best_routes(scores: Array) -> tuple[Array, Array]:
    """The route with the highest score, of equal scores the first, and its score: (Q, R) -> (Q,), (Q,)

    >>> best_routes(np.array([[0.2, 0.5, 0.4], [0.5, 0.5 + 1e-8, 0.1]]))
    (array([1, 0]), array([0.5, 0.5]))
    """
    highest = scores.max(axis=1, keepdims=True)  # (Q, 1)
    best = np.argmax(scores >= highest - TIE * np.maximum(1.0, np.abs(highest)), axis=1)
    return best, scores[np.arange(len(scores)), best]


# ------------------------------------------------------------------------------------------------------- evaluated


@dataclass(frozen=True, eq=False)
class ScoredQueries:
    """Queries, where they belong, and their best route; the number R stands for *none of these*."""

    names: tuple[str, ...]  # R routes, and the label of out-of-scope queries
    texts: Sequence[str]
    expected: Array  # (Q,) numbers of routes, or R
    best: Array  # (Q,) the best route of each
    top: Array  # (Q,) its score
    groups: Sequence[str]  # Q; folds keep equal ones together: texts, or labels that are no route
    left_out: int = 0  # queries that equal an example

    @property
    def is_none(self) -> Array:
        """Whether the query is out-of-scope: (Q,) bool."""
        return self.expected == len(self.names) - 1

    def decide(self, thresholds: Array) -> Array:
        """The best route where it reaches its threshold, else R: (R,) -> (Q,)."""
        return np.where(self.top >= thresholds[self.best], self.best, len(thresholds))

    def of(self, rows: Array) -> ScoredQueries:
        """Select queries by their numbers, for a fit, which asks for no texts."""
        return replace(self, expected=self.expected[rows], best=self.best[rows], top=self.top[rows])


class RoutedQuery(NamedTuple):
    """A query, where it belongs and where it was sent; None is none of these."""

    query: str
    expected: str | None
    route: str | None
    best: str
    score: float


@dataclass(frozen=True, eq=False)
class RouteReport:
    """Where queries were sent, and where they belong; shares with their 95 % interval, NaN where undefined."""

    queries: int
    out_of_scope: int  # of them
    left_out: int  # more that equal an example
    in_scope_accuracy: Estimate  # in-scope queries sent to their own route
    best_is_right: Estimate  # the same, whatever the thresholds: an upper limit
    none_recall: Estimate  # out-of-scope queries rejected
    answered: Estimate  # queries sent to a route
    precision: Estimate  # of those, right
    labels: ClassReport  # the classifier's report with one more class, out-of-scope
    results: list[RoutedQuery]


def evaluate_routes(
    router: Router, queries: LabelledTexts, *, none_label: str = "none", unknown_is_none: bool = False
) -> RouteReport:
    """Route labelled queries, and count what is right.

    Parameters
    ----------
    router : Router
    queries : LabelledTexts
        With the name of a route each. Those that equal an example are left out: they find themselves.
    none_label : str
        Stands for *none of these*.
    unknown_is_none : bool
        So does every other label that is not a route; else it is an error.

    Examples
    --------
    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[1.0 + s.count("a"), 1.0 + s.count("e")] for s in sentences])
    >>> router = Router(Letters(), {"a": ["banana"], "e": ["eve"]}, similarity_fn_name="cosine")
    >>> report = evaluate_routes(router, LabelledTexts("asked", ["papaya", "dog", "eve"], ["a", "none", "e"]))
    >>> report.labels.accuracy.mean, report.best_is_right.mean, report.left_out
    (0.5, 1.0, 1)
    """
    scored = score_queries(router, queries, none_label, unknown_is_none)
    return report(scored, scored.decide(router.thresholds))


def score_queries(router: Router, queries: LabelledTexts, none_label: str, unknown_is_none: bool) -> ScoredQueries:
    """Score labelled queries under each route."""
    number = {name: r for r, name in enumerate(router.table.names)}
    if none_label in number:
        raise ValueError(
            f"{queries.name}: the out-of-scope label {none_label!r} is also the name of a route; choose another one "
            "(none_label)"
        )
    unknown = Counter(label for label in queries.labels if label not in number and label != none_label)
    if unknown and not unknown_is_none:
        listed = ", ".join(f"{label!r:.40} ({count})" for label, count in unknown.most_common(5))
        raise ValueError(
            f"{queries.name}: not among the routes: {listed}{', ...' * (len(unknown) > 5)}; {none_label!r} means "
            "out-of-scope; check the spelling, or treat all such labels as out-of-scope (unknown_is_none)"
        )
    examples = set(router.table.examples)
    kept = [(text, label) for text, label in zip(queries.texts, queries.labels, strict=True) if text not in examples]
    if not kept:
        raise ValueError(
            f"{queries.name}: all {len(queries.texts)} queries are examples of the routes; give other queries"
        )
    texts = [text for text, _ in kept]
    return ScoredQueries(
        (*router.table.names, none_label),
        texts,
        np.array([number.get(label, len(number)) for _, label in kept]),
        *best_routes(router.score(router.embed(texts))),
        # users ask what nobody has thought of: a kind of out-of-scope query is judged without having seen its kind
        [f"label {label}" if label in unknown else f"text {text}" for text, label in kept],
        len(queries.texts) - len(kept),
    )


def report(queries: ScoredQueries, decided: Array) -> RouteReport:
    """Count what was sent where; ``decided`` (Q,) are numbers of routes, or R."""
    is_none, names = queries.is_none, (*queries.names[:-1], None)
    correct, is_sent = decided == queries.expected, decided != len(names) - 1
    numbers = (queries.expected.tolist(), decided.tolist(), queries.best.tolist(), queries.top.tolist())
    return RouteReport(
        queries=len(decided),
        out_of_scope=int(is_none.sum()),
        left_out=queries.left_out,
        in_scope_accuracy=share(correct[~is_none]),
        best_is_right=share((queries.best == queries.expected)[~is_none]),
        none_recall=share(correct[is_none]),
        answered=share(is_sent),
        precision=share(correct[is_sent]),
        labels=class_report(queries.expected, decided, queries.names),
        results=[
            RoutedQuery(text, names[e], names[d], queries.names[b], score)
            for text, e, d, b, score in zip(queries.texts, *numbers, strict=True)
        ],
    )


# ---------------------------------------------------------------------------------------------------------- fitted


@dataclass(frozen=True, eq=False)
class ThresholdFit:
    """Fitted thresholds, and their results on queries that they were not fitted to."""

    threshold: float  # of all routes without their own
    own: dict[str, float]  # by route
    held_out: RouteReport  # each query judged by thresholds fitted without it
    seen_accuracy: float  # on the queries fitted to: optimistic


def fit_thresholds(
    router: Router,
    queries: LabelledTexts,
    *,
    objective: str = "accuracy",
    precision: float = 0.95,
    per_route: bool = False,
    folds: int = 5,
    seed: int = 0,
    none_label: str = "none",
    unknown_is_none: bool = False,
) -> tuple[Router, ThresholdFit]:
    """Fit a router's thresholds to labelled queries.

    Parameters
    ----------
    router : Router
    queries : LabelledTexts
        With the name of a route each, or ``none_label``; as :func:`evaluate_routes`.
    objective : {"accuracy", "balanced", "precision"}
        Most queries right: taken by their own route, or rejected if out-of-scope; the same with both kinds weighted
        equally; or the lowest threshold with at least ``precision`` of right answers among those given.
    per_route : bool
        A threshold for each route where that is better than the common one. They learn where the out-of-scope queries
        of the fit lie, and are no better for kinds that come later.
    folds, seed : int
        Of the cross-validation. Equal texts stay in one fold, and so do, with ``unknown_is_none``, queries of a label.

    Returns
    -------
    Router, ThresholdFit
        The router with these thresholds, its model's `Origin`, and how they were fitted.

    Raises
    ------
    ValueError
        If a kind of query is missing, or the best threshold routes no query right.

    Examples
    --------
    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[1.0 + s.count("a"), 1.0 + s.count("e")] for s in sentences])
    >>> router = Router(Letters(), {"a": ["banana"], "e": ["eve"]}, similarity_fn_name="cosine")
    >>> asked = LabelledTexts("asked", ["papaya", "degree", "bread", "table"], ["a", "e", "none", "none"])
    >>> fitted, fit = fit_thresholds(router, asked)
    >>> fit.threshold, [choice.route for choice in fitted.route_all(asked.texts)]
    (0.9, ['a', 'e', None, None])
    """
    check_choice("fit_thresholds: objective", objective, OBJECTIVES)
    if not 0 < precision <= 1:
        raise ValueError(f"fit_thresholds: precision must be in (0, 1], got {precision!r}")
    check_whole("fit_thresholds: folds", folds, 2)
    target = precision if objective == "precision" else None
    scored = score_queries(router, queries, none_label, unknown_is_none)
    missing = "in-scope" if scored.is_none.all() else "out-of-scope"
    if scored.is_none.all() or (target is None and not scored.is_none.any()):
        raise ValueError(
            f"fit_thresholds: no query is {missing}; add some, or "
            + ("check the labels" if missing == "in-scope" else "ask for a precision alone (objective='precision')")
        )
    one, each = best_thresholds(scored, objective, target, per_route)
    decided = scored.decide(each)
    if not (decided == scored.expected)[~scored.is_none].any():
        cause = "rejecting every query would be the most accurate" if target is None else "no threshold reaches it"
        raise ValueError(
            f"fit_thresholds: objective={objective!r}: {cause}: the scores do not separate right answers from wrong "
            "ones; give better examples, lower the precision, or weight both kinds equally (objective='balanced')"
        )
    held_out = report(scored, _held_out(scored, folds, seed, objective, target, per_route))
    own = {name: float(t) for name, t in zip(router.table.names, each, strict=True) if t != one}
    fit = ThresholdFit(one, own, held_out, float((decided == scored.expected).mean()))
    fitted = copy.copy(router)
    fitted.table = replace(
        router.table,
        routes=[replace(route, threshold=own.get(route.name)) for route in router.table.routes],
        threshold=one,
        origin=origin_of(router.encoder) if isinstance(router.encoder, SentenceEncoder) else None,
        fitted={
            "objective": objective if target is None else f"precision {target:g}",
            "to": queries.name,
            "queries": held_out.queries,
            "out_of_scope": held_out.out_of_scope,
            "held_out_accuracy": round(held_out.labels.accuracy.mean, 4),
            "digest": router.table.digest(),
        },
    )
    return fitted, fit


def best_thresholds(
    queries: ScoredQueries, objective: str, target: float | None, per_route: bool
) -> tuple[float, Array]:
    """The best threshold for all routes, and that of each: (R,), its own only where that is better."""
    best, top, is_none = queries.best, queries.top, queries.is_none
    right = best == queries.expected
    gain = right * 1.0 - is_none  # (Q,) of taking a query instead of rejecting it; whole numbers, so sums are exact
    if objective == "balanced":
        gain *= np.where(is_none, (~is_none).sum(), is_none.sum())
    one = _best_cut(top, right, gain, target, None)
    each = np.full(len(queries.names) - 1, one)
    for r in np.unique(best) if per_route else ():
        rows = best == r
        each[r] = _best_cut(top[rows], right[rows], gain[rows], target, one)
    return one, each


def _best_cut(top: Array, right: Array, gain: Array, target: float | None, near: float | None) -> float:
    """The threshold that gains most, or the lowest with a precision of ``target``: every split of the queries is tried.

    Of equally good ones the closest to ``near``; without it the widest gap between scores, then the lowest.
    (Q,), (Q,), (Q,) -> scalar
    """
    values, place = np.unique(top, return_inverse=True)  # (V,)
    low, high = np.append(-np.inf, values), np.append(values, np.inf)  # (V + 1,): a split takes scores >= high, > low

    def taken(weights: Array) -> Array:
        return np.append(np.cumsum(np.bincount(place, weights)[::-1])[::-1], 0.0)  # (V + 1,)

    worth = taken(gain)
    if target is not None:
        count = taken(np.ones(len(top)))
        is_precise = taken(right) / np.maximum(count, 1) >= target
        worth = np.where(is_precise | (count == 0), count, -1.0)
    is_best = worth == worth.max()
    if near is None:
        width = np.where(np.isfinite(low) & np.isfinite(high), high - low, 0.0)
        chosen = int(np.argmax(np.where(is_best, width, -1.0)))
    elif (is_best & (low < near) & (near <= high)).any():
        return near
    else:
        chosen = int(np.argmin(np.where(is_best, np.maximum(low - near, near - high), np.inf)))
    a, b = float(low[chosen]), float(high[chosen])
    a = b - EDGE * max(1.0, abs(b)) if math.isinf(a) else a
    b = a + EDGE * max(1.0, abs(a)) if math.isinf(b) else b
    rounded = (round((a + b) / 2, digits) for digits in range(16))
    return next((x for x in rounded if a < x <= b), b)  # the fewest digits


def _held_out(queries: ScoredQueries, folds: int, seed: int, *settings: Any) -> Array:
    """Where each query is sent by thresholds fitted to the other folds: (Q,)."""
    model_selection = require("sklearn.model_selection", "apps", "cross-validation")
    most = min(len(set(queries.groups)), int(np.bincount(queries.expected).max()))
    if most < 2:
        raise ValueError("fit_thresholds: cross-validation needs two queries of a route; give more queries")
    decided = np.empty(len(queries.expected), np.intp)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a route with fewer queries than folds is in fewer folds
        splitter = model_selection.StratifiedGroupKFold(min(folds, most), shuffle=True, random_state=seed)
        for others, fold in splitter.split(queries.top, queries.expected, queries.groups):
            decided[fold] = queries.of(fold).decide(best_thresholds(queries.of(others), *settings)[1])
    return decided
