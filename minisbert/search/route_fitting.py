"""Fit thresholds to labelled queries, or to the routes' own examples.

**Data.** Queries with the name of a route each, some of them out-of-scope (*none of these*). Without queries each
example is asked twice: against the others of its route, where it belongs, and against the other routes alone, where it
is out-of-scope. The latter are harder than real queries, because the subject is the same; so such thresholds are rather
high.

**Search.** A query's best route does not depend on thresholds, so a threshold only splits the queries of its route into
taken and rejected. With the queries sorted by score there are at most ``Q + 1`` splits, and all are counted: the fit is
exact.

==========  =========================================================================================================
objective   the threshold
==========  =========================================================================================================
accuracy    most queries right: taken by their own route, or rejected if out-of-scope
balanced    the same, with in-scope and out-of-scope queries weighted equally
precision   the lowest (which answers most queries) with at least a target share of right answers among those given;
            needs no out-of-scope queries
==========  =========================================================================================================

A threshold lies between the last score below and the first above, and is the number with the fewest digits there.

**One, or one per route.** One threshold is hard to overfit. A route gets its own only where that gets more queries
right. Both ways are cross-validated, and by default per-route thresholds are used only if better beyond chance.

**Held-out figures.** `ThresholdFit.held_out` is the report of a cross-validation: each query is judged by thresholds
fitted without it and without any query of the same text. Out-of-scope queries with labels of their own
(``unknown_is_none``) stay together by label, because users ask what nobody has thought of: each is judged without
having seen its kind. For examples, which are asked twice, intervals are somewhat too narrow.

**Measured** on banking77, 58 routes of 8 examples, 19 intents without a route. On a test set with *the same* 19 intents
per-route thresholds get 74.9 % right (a single one 70.2) and reject 82 % of the out-of-scope queries (63): they have
learnt where those intents lie. Of unseen intents (10 of the 19 for fitting, 9 for the test) they reject about as many
as a single threshold: 62, 40 and 53 % in three draws, against 64, 47 and 46.

Letters: ``Q`` queries, ``R`` routes, ``C`` cuts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.classification import LabelledTexts
from minisbert.evaluation.measures import Estimate, paired_difference
from minisbert.model import Array
from minisbert.saved import origin_of
from minisbert.search.route_report import NONE, RouteReport, ScoredQueries, report, score_examples, score_queries
from minisbert.search.router import Router

__all__ = ["OBJECTIVES", "ThresholdFit", "cuts", "fit_router", "fit_thresholds"]

OBJECTIVES = ("accuracy", "balanced", "precision")

EDGE = 0.01  # distance from the outermost score of a threshold that takes or rejects all; 1 % of scores above 1


@dataclass(frozen=True, eq=False)
class ThresholdFit:
    """Fitted thresholds, and their results on queries that they were not fitted to."""

    threshold: float  # of all routes without their own
    own: dict[str, float]  # by name; empty if all have the same
    objective: str
    precision: float | None  # the target of that objective
    seen: RouteReport  # on the queries fitted to: optimistic
    held_out: RouteReport  # on the same queries, each held out
    gain_of_own: Estimate | None  # of per-route thresholds over a single one, held out; None if not computed


def fit_thresholds(
    queries: ScoredQueries,
    *,
    objective: str = "accuracy",
    precision: float = 0.95,
    per_route: bool | None = None,
    folds: int = 5,
    seed: int = 0,
) -> ThresholdFit:
    """Find the best thresholds for scored queries.

    Parameters
    ----------
    queries : ScoredQueries
        From `score_queries` or `score_examples`. At least two; for ``accuracy`` and ``balanced`` both in-scope and
        out-of-scope.
    objective : {"accuracy", "balanced", "precision"}
        See the top of this module.
    precision : float
        Target of the objective of that name, in (0, 1].
    per_route : bool, optional
        Whether routes get thresholds of their own; by default if that is better on held-out queries beyond chance (the
        95 % interval of the difference is above 0). With ``precision`` there is always one for all.
    folds : int
        Of the cross-validation, at least 2, stratified by route.
    seed : int
        Of the folds.

    Returns
    -------
    ThresholdFit

    Raises
    ------
    ValueError
        If a kind of query is missing, no threshold reaches the target, the best threshold routes no query right, or a
        setting is out of range.

    Examples
    --------
    >>> scores = np.array([[0.9, 0.2], [0.7, 0.1], [0.1, 0.81], [0.3, 0.4], [0.5, 0.1]])
    >>> queries = ScoredQueries(("a", "e"), tuple("vwxyz"), np.array([0, 0, 1, NONE, NONE]), scores)
    >>> fit_thresholds(queries, per_route=False).threshold
    0.6
    """
    _check_settings(queries, objective, precision, per_route, folds)
    target = precision if objective == "precision" else None
    gains = _gains(queries, objective)  # (Q,)
    one = _fit_one(queries, gains, target)
    _check_found(queries, one, target)
    held_one = _cross_validate(queries, gains, target, False, folds, seed)
    held_own, gain = held_one, None
    if target is None and per_route is not False:
        held_own = _cross_validate(queries, gains, target, True, folds, seed)
        weights = _weights(queries, objective)
        gain = paired_difference(held_own.correct * weights, held_one.correct * weights)
    with_own = target is None and (per_route is True or (gain is not None and gain.low > 0))
    own = _fit_own(queries, gains, one) if with_own else {}
    thresholds = np.array([own.get(r, one) for r in range(len(queries.names))])
    return ThresholdFit(
        threshold=one,
        own={queries.names[r]: threshold for r, threshold in own.items()},
        objective=objective,
        precision=target,
        seen=report(queries, thresholds),
        held_out=held_own if with_own else held_one,
        gain_of_own=gain,
    )


def _check_settings(queries: ScoredQueries, objective: str, precision: float, per_route: Any, folds: int) -> None:
    """Reject what cannot be fitted."""
    if objective not in OBJECTIVES:
        raise ValueError(f"fit_thresholds: objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if not 0 < precision <= 1:
        raise ValueError(f"fit_thresholds: precision must be in (0, 1], got {precision!r}")
    if isinstance(folds, bool) or folds < 2 or len(set(queries.texts)) < 2:
        raise ValueError(
            f"fit_thresholds: expected at least 2 different queries and 2 folds, got {len(set(queries.texts))} and "
            f"{folds!r}"
        )
    if objective == "precision" and per_route:
        raise ValueError("fit_thresholds: a target precision needs one threshold for all routes; leave per_route out")
    none = int((queries.expected == NONE).sum())
    if none == len(queries.expected):
        raise ValueError("fit_thresholds: all queries are out-of-scope; give some that belong to a route")
    if objective != "precision" and none == 0:
        raise ValueError(
            "fit_thresholds: no query is out-of-scope, so the best choice is to reject nothing, without a threshold; "
            "give queries labelled none, or set a precision (objective='precision'), "
            "or fit on the examples alone"
        )


def _check_found(queries: ScoredQueries, threshold: float, target: float | None) -> None:
    """Reject a threshold with which no taken query is right."""
    if (queries.is_right & (queries.top >= threshold)).any():
        return
    if target is None:
        raise ValueError(
            "fit_thresholds: rejecting every query would be the most accurate: the scores do not separate in-scope "
            "from out-of-scope queries; give better examples, or weight both kinds equally (objective='balanced')"
        )
    _, _, right, taken = _suffixes(queries)
    reached = float((right / taken).max())
    raise ValueError(
        f"fit_thresholds: no threshold reaches a precision of {target:g} on these {len(queries.texts)} queries; the "
        f"highest is {reached:.4f}; lower the precision, or give better examples"
    )


def _weights(queries: ScoredQueries, objective: str) -> Array:
    """Weights of the queries, with mean 1: (Q,)."""
    if objective != "balanced":
        return np.ones(len(queries.expected))
    is_none = queries.expected == NONE
    return np.where(is_none, 0.5 / is_none.mean(), 0.5 / (~is_none).mean())


def _gains(queries: ScoredQueries, objective: str) -> Array:
    """Gain of taking a query instead of rejecting it: (Q,) intp, so that equal sums are equal."""
    is_none = queries.expected == NONE
    gains: Array = queries.is_right.astype(np.intp) - is_none
    if objective == "balanced":
        gains = np.asarray(gains * np.where(is_none, (~is_none).sum(), is_none.sum()))
    return gains


def cuts(top: Array, gains: Array) -> tuple[Array, Array, Array]:
    """Every way to split scores into taken and rejected: thresholds in ``(low, high]`` and the sum of gains taken.

    (Q,), (Q,) -> (C,), (C,), (C,)

    >>> cuts(np.array([0.9, 0.2, 0.9, 0.5]), np.array([1, -1, 1, 1]))
    (array([-inf,  0.2,  0.5,  0.9]), array([0.2, 0.5, 0.9, inf]), array([2, 3, 2, 0]))
    """
    values, place = np.unique(top, return_inverse=True)
    gained: Array = np.zeros(len(values) + 1, np.intp)
    np.add.at(gained, place.ravel(), gains)
    total = np.cumsum(gained[::-1])[::-1]
    return np.concatenate([[-np.inf], values]), np.concatenate([values, [np.inf]]), total


def _fit_one(queries: ScoredQueries, gains: Array, target: float | None) -> float:
    """One threshold for all: of equally good cuts the widest, then the lowest."""
    if target is not None:
        return _fit_precision(queries, target)
    low, high, total = cuts(queries.top, gains)
    width = np.where(np.isfinite(low) & np.isfinite(high), high - low, 0.0)
    width[total < total.max()] = -1.0
    chosen = int(np.argmax(width))
    return _between(float(low[chosen]), float(high[chosen]))


def _suffixes(queries: ScoredQueries) -> tuple[Array, Array, Array, Array]:
    """Count, for each cut that takes something, how many are right and how many are taken."""
    low, high, right = cuts(queries.top, queries.is_right.astype(np.intp))
    _, _, taken = cuts(queries.top, np.ones(len(queries.top), np.intp))
    return low[:-1], high[:-1], right[:-1], taken[:-1]


def _fit_precision(queries: ScoredQueries, target: float) -> float:
    """The lowest threshold with the target precision; inf if there is none."""
    low, high, right, taken = _suffixes(queries)
    reached = np.flatnonzero(right / taken >= target)
    return _between(float(low[reached[0]]), float(high[reached[0]])) if len(reached) else math.inf


def _fit_own(queries: ScoredQueries, gains: Array, one: float) -> dict[int, float]:
    """Thresholds of routes for which their own gets more right; of equally good ones the closest to the common one."""
    own = {}
    best, top = queries.best, queries.top
    for r in np.unique(best).tolist():
        rows = best == r
        low, high, total = cuts(top[rows], gains[rows])
        if total.max() > gains[rows][top[rows] >= one].sum():
            distance = np.maximum(0.0, np.maximum(low - one, one - high))
            distance[total < total.max()] = np.inf
            chosen = int(np.argmin(distance))
            own[r] = _between(float(low[chosen]), float(high[chosen]))
    return own


def _between(low: float, high: float) -> float:
    """The number with the fewest digits near the middle of ``(low, high]``."""
    if math.isinf(low):
        low = high - EDGE * max(1.0, abs(high))
    if math.isinf(high):
        high = low + EDGE * max(1.0, abs(low))
    middle = (low + high) / 2
    for digits in range(16):
        if low < (rounded := round(middle, digits)) <= high:
            return rounded
    return high


def _cross_validate(
    queries: ScoredQueries, gains: Array, target: float | None, with_own: bool, folds: int, seed: int
) -> RouteReport:
    """Judge each query by thresholds fitted to the other folds."""
    part = _parts(queries, folds, seed)  # (Q,)
    decided = np.full(len(part), NONE)
    for fold in np.unique(part):
        others, own = queries.of(part != fold), {}
        one = _fit_one(others, gains[part != fold], target)
        if with_own:
            own = _fit_own(others, gains[part != fold], one)
        thresholds = np.array([own.get(r, one) for r in range(len(queries.names))])
        decided[part == fold] = report(queries.of(part == fold), thresholds).decided
    return RouteReport(queries, decided)


def _parts(queries: ScoredQueries, folds: int, seed: int) -> Array:
    """Assign the queries of each route to folds in turn, equal texts and out-of-scope labels to the same: (Q,)."""
    kinds = queries.kinds or ("",) * len(queries.texts)
    together = [f"kind {kind}" if kind else f"text {text}" for kind, text in zip(kinds, queries.texts, strict=True)]
    _, first, place = np.unique(np.array(together, dtype=object), return_index=True, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    dealt = shuffled[np.argsort(queries.expected[first][shuffled], kind="stable")]
    part = np.empty(len(first), np.intp)
    part[dealt] = np.arange(len(first)) % folds
    return part[place.ravel()]


def fit_router(
    router: Router,
    queries: LabelledTexts | None = None,
    *,
    none_label: str = "none",
    unknown_is_none: bool = False,
    **settings: Any,
) -> tuple[Router, ThresholdFit]:
    """Fit a router's thresholds to labelled queries, or to its own examples (`score_examples`).

    Settings as `fit_thresholds`. The new router has the thresholds, the model's `Origin` and, in its table, how they
    were fitted.

    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[1.0 + s.count("a"), 1.0 + s.count("e")] for s in sentences])
    >>> router = Router(Letters(), {"a": ["banana"], "e": ["eve"]}, similarity_fn_name="cosine")
    >>> asked = LabelledTexts("asked", ["papaya", "degree", "bread", "table"], ["a", "e", "none", "none"])
    >>> fitted, fit = fit_router(router, asked)
    >>> fitted.table.threshold, fit.seen.accuracy().mean, [choice.name for choice in fitted.route_all(asked.texts)]
    (0.9, 1.0, ['a', 'e', None, None])
    """
    if queries is None:
        scored = score_examples(router)
    else:
        scored = score_queries(router, queries, none_label=none_label, unknown_is_none=unknown_is_none)
    fit = fit_thresholds(scored, **settings)
    held_out = float(fit.held_out.correct.mean())
    said: dict[str, Any] = {"objective": fit.objective}
    if fit.precision is not None:
        said["precision"] = fit.precision
    said |= {
        "to": "examples, each left out" if queries is None else queries.name,
        "queries": len(scored.texts),
        "of_none": int((scored.expected == NONE).sum()),
        "held_out_accuracy": round(held_out, 4),
        "digest": router.table.digest(),
    }
    is_model = isinstance(router.encoder, SentenceEncoder)
    table = replace(
        router.table,
        routes=[replace(route, threshold=fit.own.get(route.name)) for route in router.table.routes],
        threshold=fit.threshold,
        origin=origin_of(router.encoder) if is_model else None,
        fitted=said,
    )
    return router.with_table(table), fit
