"""A linear probe: logistic regression on vectors, its strength chosen by cross-validation, its probabilities mended.

``p = softmax(x W^T + b)``, fitted by scikit-learn (extra ``apps``) with an L2 penalty. Three questions come with it.

**How strong a penalty?** :func:`cross_validate` splits the texts into folds, learns from all but one and asks that one,
for each strength of a grid. Equal texts stay in one fold, so that none is asked after it was learnt. The plain best
wins, and of equally good ones the strongest penalty. The one-standard-error rule is not used: it buys a simpler model,
and of 384 weights none is easier to read for being smaller, while it costs score.

**Which mistakes cost more?** Class weights count the texts of a rare class for more, so that more of them are found.

**What does 0.9 mean?** A penalty makes a classifier timid, too weak a one makes it boast, and class weights make it
speak of a world in which the rare class is frequent. :func:`fit_calibration` mends that on out-of-fold scores: one
temperature, and with class weights one offset a class. Platt's and isotonic curves have more freedom than the harm has
causes, treat each class by itself, and need not leave the order of the classes as it is.

Left out on purpose: other classifiers, and several labels a text. Next file: ``classifier.py``, which saves one.

Letters: ``M`` training texts, ``B`` other texts, ``C`` classes, ``D`` the width of a vector, ``S`` strengths, ``K``
folds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minisbert.evaluation.classification import macro_f1, require_sklearn
from minisbert.model import Array
from minisbert.model.ops import softmax

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""What is tried: scikit-learn's ``C``, one over the strength of the penalty. On vectors of length 1 the best is mostly
between 1 and 30."""

SCORINGS = {"log_loss": -1, "accuracy": 1, "macro_f1": 1}
"""What a strength is judged by, and whether more of it is better (1) or less (-1)."""

Rows = Callable[[Array, Array], tuple[Any, Any]]
"""Gives the features of the texts of two sets of indices; what must be learnt for them, from the first set alone."""

# scikit-learn's own tolerance, 1e-4, ends so early that of two weak penalties the second fit would not move at all
_TOLERANCE = 1e-5
_MOST_ITERATIONS = 5000  # L-BFGS needs a few hundred at the weakest penalty
_LEAST_SHARPNESS = 0.01  # one over the highest temperature: scores that are worth nothing give nearly the frequencies


# ----------------------------------------------------------------------------------------------------- settings


def class_weights(classes: Array, choice: str | Mapping[int, float] | None = None) -> Array:
    """Say how much a text of each class counts.

    ``balanced: w_c = M / (C M_c)``, so that all classes count alike together

    Parameters
    ----------
    classes : Array, shape (M,)
        Whole numbers from 0 to C - 1, each at least once.
    choice : "balanced", mapping of int to float, or None
        A class that a mapping leaves out counts 1; None: all do.

    Returns
    -------
    Array, shape (C,)
        Positive, float64.

    Raises
    ------
    ValueError
        For weights that are not positive, and classes that are not there.

    Notes
    -----
    **Source**: ``sklearn.utils.class_weight.compute_class_weight``.

    Examples
    --------
    >>> class_weights(np.array([0, 0, 0, 1]), "balanced").round(2), class_weights(np.array([0, 1]), {1: 5.0})
    (array([0.67, 2.  ]), array([1., 5.]))
    """
    counts = np.bincount(classes)  # (C,)
    if choice == "balanced":
        balanced: Array = len(classes) / (len(counts) * counts)  # (C,)
        return balanced
    if choice is not None and not isinstance(choice, Mapping):
        raise ValueError(f"class_weights: expected 'balanced', a mapping from class to weight, or None, got {choice!r}")
    weights = np.ones(len(counts))
    for c, weight in (choice or {}).items():
        if not 0 <= c < len(counts) or not 0 < weight < math.inf:
            raise ValueError(
                f"class_weights: expected classes from 0 to {len(counts) - 1} and positive weights, got {c!r}: "
                f"{weight!r}"
            )
        weights[c] = weight
    return weights


def stratified_folds(classes: Array, folds: int, seed: int, groups: Array | None = None) -> Array:
    """Deal the texts out to folds, so that each has its share of every class and equal texts lie in one fold.

    Parameters
    ----------
    classes : Array, shape (M,)
        Whole numbers from 0.
    folds : int
        ``K``, at least 2.
    seed : int
        Of the shuffling.
    groups : Array, shape (M,), optional
        Texts with the same number stay together. A group counts as of the class of its first text.

    Returns
    -------
    Array, shape (M,)
        The fold of each text, from 0 to K - 1.

    Raises
    ------
    ValueError
        For fewer than two folds, and fewer groups than folds.

    Notes
    -----
    **Source**: ``sklearn.model_selection.StratifiedKFold(shuffle=True)``, where no group has two texts: the folds are
    others, with the same shares. With groups ``StratifiedGroupKFold``, which takes minutes for 60,000 groups.

    Examples
    --------
    >>> stratified_folds(np.array([0, 0, 1, 1, 1, 1]), 2, seed=0)
    array([0, 1, 1, 0, 1, 0])
    """
    first, group_of_text = _grouped(classes, groups)
    if isinstance(folds, bool) or not 2 <= folds <= len(first):
        raise ValueError(f"stratified_folds: expected 2 folds or more, and at most {len(first):,} texts, got {folds!r}")
    fold_of_group = np.empty(len(first), np.intp)
    fold_of_group[_class_by_class(np.asarray(classes)[first], seed)] = np.arange(len(first)) % folds  # dealt like cards
    fold_of_text: Array = fold_of_group[group_of_text]  # (M,)
    return fold_of_text


def hold_out(classes: Array, share: float, seed: int, groups: Array | None = None) -> Array:
    """Choose texts to be tested on: a share of every class, equal texts on one side.

    Parameters
    ----------
    classes : Array, shape (M,)
        Whole numbers from 0.
    share : float
        In (0, 1).
    seed : int
        Of the choice.
    groups : Array, shape (M,), optional
        As in :func:`stratified_folds`.

    Returns
    -------
    Array of bool, shape (M,)
        True: held out.

    Raises
    ------
    ValueError
        For a share that leaves one side empty.

    Notes
    -----
    **Source**: ``sklearn.model_selection.train_test_split(stratify=classes)``; the choice is another one, of the same
    shares to within a text.

    Examples
    --------
    >>> hold_out(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, seed=0)
    array([False,  True, False, False, False, False, False,  True])
    """
    first, group_of_text = _grouped(classes, groups)
    ends = np.floor(np.arange(len(first) + 1) * share + 1e-9)  # as many as that are held out of the first so many
    held = np.empty(len(first), bool)
    held[_class_by_class(np.asarray(classes)[first], seed)] = np.diff(ends) > 0
    if not 0 < share < 1 or held.all() or not held.any():
        raise ValueError(
            f"hold_out: expected a share in (0, 1) that leaves texts on both sides of {len(first):,}, got {share!r}"
        )
    held_texts: Array = held[group_of_text]  # (M,)
    return held_texts


def _grouped(classes: Array, groups: Array | None) -> tuple[Array, Array]:
    """Give the first text of each group, and the group of each text."""
    numbers = np.arange(len(classes)) if groups is None else np.asarray(groups)
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)  # some releases of NumPy give another shape


def _class_by_class(classes: Array, seed: int) -> Array:
    """Order texts by class, and at random within a class."""
    shuffled = np.random.default_rng(seed).permutation(len(classes))
    order: Array = shuffled[np.argsort(classes[shuffled], kind="stable")]
    return order


# ------------------------------------------------------------------------------------------------------ fitting


def logistic_path(
    features: Any, classes: Array, strengths: Sequence[float], weights: Array
) -> Iterator[tuple[Array, Array]]:
    """Fit logistic regression for each strength, each from where the one before ended.

    ``minimise  sum_i w_(y_i) (-log p_i(y_i)) + |W|^2 / (2 C)``

    Parameters
    ----------
    features : Array or sparse matrix, shape (M, D)
        Of the training texts.
    classes : Array, shape (M,)
        Whole numbers from 0 to C - 1, each at least once.
    strengths : sequence of float
        scikit-learn's ``C``; rising, so that each start is near.
    weights : Array, shape (C,)
        From :func:`class_weights`.

    Yields
    ------
    weight : Array, shape (C, D)
    bias : Array, shape (C,)
        With two classes one is the other's negative: ``softmax((-s/2, s/2))`` is ``sigmoid(s)``.

    Raises
    ------
    ValueError
        If scikit-learn is not installed, and where the fit does not converge.

    Notes
    -----
    **Source**: ``sklearn.linear_model.LogisticRegression(C=C, class_weight=..., tol=1e-5)``, L-BFGS, no randomness.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> [(w, b)] = logistic_path(x, np.array([0, 1, 0, 1]), [1.0], np.ones(2))  # doctest: +SKIP
    >>> w.round(3), b.round(2)  # doctest: +SKIP
    (array([[-0.226],
           [ 0.226]]), array([ 0.34, -0.34]))
    """
    require_sklearn()
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    by_class = dict(enumerate(weights.tolist()))
    model = LogisticRegression(class_weight=by_class, tol=_TOLERANCE, max_iter=_MOST_ITERATIONS, warm_start=True)
    for strength in strengths:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.set_params(C=strength).fit(features, classes)
            except ConvergenceWarning as error:
                raise ValueError(
                    f"logistic regression has not converged for the strength {strength:g} in {_MOST_ITERATIONS:,} "
                    "steps; leave so weak a penalty out"
                ) from error
        weight, bias = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
        if len(weight) == 1:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        yield weight, bias  # (C, D), (C,)


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What each strength reached on texts that were not learnt."""

    strengths: tuple[float, ...]  # S, rising
    scoring: str
    scores: Array  # (S, K) of each fold; for log_loss nats a text, else in [0, 1]
    best: int  # the strength that was chosen, as an index
    out_of_fold: Array  # (M, C) scores before the softmax at the best strength, each text's from where it was left out

    @property
    def strength(self) -> float:
        """The strength that was chosen."""
        return self.strengths[self.best]

    @property
    def at_edge(self) -> bool:
        """Whether the best lies at the end of the grid, so that beyond it there may be a better one."""
        return len(self.strengths) > 1 and self.best in (0, len(self.strengths) - 1)


def cross_validate(
    rows: Rows,
    classes: Array,
    folds: Array,
    *,
    strengths: Sequence[float] = STRENGTHS,
    scoring: str = "log_loss",
    weights: Array | None = None,
) -> CrossValidation:
    """Ask every text of a classifier that has not learnt it, for each strength, and choose the best one.

    Parameters
    ----------
    rows : callable
        ``rows(learnt, asked)`` gives the features of two sets of texts, told by their indices.
    classes : Array, shape (M,)
        Whole numbers from 0 to C - 1.
    folds : Array, shape (M,)
        From :func:`stratified_folds`; each class lies in two folds at least.
    strengths : sequence of float
        scikit-learn's ``C``: the larger, the weaker the penalty.
    scoring : {"log_loss", "accuracy", "macro_f1"}
        ``log_loss`` sees probabilities and not just their order; it is weighted like the fit. Mean over the folds.
    weights : Array, shape (C,), optional
        From :func:`class_weights`; all 1 by default.

    Returns
    -------
    CrossValidation

    Raises
    ------
    ValueError
        For settings that make no sense, a class in a single fold, and as :func:`logistic_path`.

    Notes
    -----
    **Source**: ``sklearn.linear_model.LogisticRegressionCV``; Hastie, Tibshirani & Friedman 2009, section 7.10. The
    scores of the chosen strength are the best of ``S``, and so a little too good.

    Examples
    --------
    >>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    >>> folds = np.array([0, 1, 0, 1])
    >>> cross_validate(lambda learnt, asked: (x[learnt], x[asked]), y, folds).strength  # doctest: +SKIP
    100.0
    """
    grid = _checked_grid(strengths, scoring, classes, folds)
    count = int(classes.max()) + 1
    by_class = np.ones(count) if weights is None else weights
    scores = np.empty((len(grid), int(folds.max()) + 1))  # (S, K)
    logits = np.empty((len(grid), len(classes), count))  # (S, M, C)
    for k in range(scores.shape[1]):
        learnt, asked = np.flatnonzero(folds != k), np.flatnonzero(folds == k)
        features, others = rows(learnt, asked)
        for s, (weight, bias) in enumerate(logistic_path(features, classes[learnt], grid, by_class)):
            logits[s, asked] = others @ weight.T + bias
            scores[s, k] = _score(logits[s, asked], classes[asked], scoring, by_class)
    best = int(np.argmax(SCORINGS[scoring] * scores.mean(axis=1)))  # of equal ones the first: the strongest penalty
    return CrossValidation(grid, scoring, scores, best, logits[best])


def _checked_grid(strengths: Sequence[float], scoring: str, classes: Array, folds: Array) -> tuple[float, ...]:
    """Refuse settings that make no sense, before minutes of work; give the strengths, rising, each once."""
    if scoring not in SCORINGS:
        raise ValueError(f"cross_validate: scoring must be one of {', '.join(SCORINGS)}, got {scoring!r}")
    grid = tuple(sorted({float(strength) for strength in strengths}))
    if not grid or not all(0 < strength < math.inf for strength in grid):
        raise ValueError(f"cross_validate: expected positive strengths, at least one, got {tuple(strengths)!r}")
    for c in range(int(classes.max()) + 1):
        if len(np.unique(folds[classes == c])) < 2:
            raise ValueError(
                f"cross_validate: class {c} lies in a single fold, and could not be learnt where that one is left out; "
                "each class needs two different texts or more"
            )
    return grid


def _score(logits: Array, classes: Array, scoring: str, weights: Array) -> float:
    """Judge the scores of one fold."""
    if scoring == "log_loss":
        return log_loss(logits, classes, weights)
    predicted = np.argmax(logits, axis=1)
    return macro_f1(classes, predicted) if scoring == "macro_f1" else float((predicted == classes).mean())


def log_loss(logits: Array, classes: Array, weights: Array | None = None) -> float:
    """Mean of ``-log p`` of the right class: what probabilities cost that are too low, or too sure and wrong.

    Parameters
    ----------
    logits : Array, shape (B, C)
        Scores before the softmax.
    classes : Array, shape (B,)
        The right ones.
    weights : Array, shape (C,), optional
        How much a text of each class counts; all 1 by default.

    Returns
    -------
    float
        Nats a text, from 0; finite for finite scores.

    Notes
    -----
    **Source**: ``sklearn.metrics.log_loss``, which sees probabilities and must cut those that are 0.

    Examples
    --------
    >>> log_loss(np.zeros((3, 4)), np.array([0, 1, 3])) == math.log(4)
    True
    """
    losses = -log_softmax(logits)[np.arange(len(classes)), classes]  # (B,)
    return float(np.average(losses, weights=None if weights is None else weights[classes]))


def log_softmax(logits: Array) -> Array:
    """Logarithm of the softmax, without the softmax's zeros: ``z - log sum exp z``.

    Parameters
    ----------
    logits : Array, shape (B, C)

    Returns
    -------
    Array, shape (B, C)
        At most 0.

    Notes
    -----
    **Source**: ``torch.log_softmax(logits, dim=-1)``.

    Examples
    --------
    >>> log_softmax(np.array([[0.0, -1000.0]]))
    array([[    0., -1000.]])
    """
    shifted: Array = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


# -------------------------------------------------------------------------------------------------- calibration


class Calibration(NamedTuple):
    """What makes probabilities of scores: ``softmax(scores / temperature + offset)``."""

    temperature: float  # above 1: the scores boasted; below 1: they were timid
    offset: Array  # (C,) sums to 0; all zeros without class weights

    def apply(self, logits: Array) -> Array:
        """Give scores whose softmax is calibrated: ``(B, C)`` for ``(B, C)``."""
        mended: Array = logits / self.temperature + self.offset
        return mended


def fit_calibration(logits: Array, classes: Array, *, with_offset: bool = False) -> Calibration:
    """Find the temperature, and if asked for the offsets, with which out-of-fold scores fit what was right.

    ``minimise  mean_i -sum_c t_ic log softmax(z_i / T + b)_c``, with ``t = (M_c + 1) / (M_c + C)`` for the right class
    and ``1 / (M_c + C)`` for each other one.

    Parameters
    ----------
    logits : Array, shape (M, C)
        Scores before the softmax, of classifiers that have not learnt the text.
    classes : Array, shape (M,)
        The right ones, from 0 to C - 1.
    with_offset : bool
        Fit ``b``, too. Class weights shift the score of a class, which no temperature can undo.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        For scores that are not finite, or of another shape.

    Notes
    -----
    **Source**: Guo et al. 2017, section 4.2 (temperature); Alexandari, Kundaje & Shrikumar 2020 (with an offset a
    class: "bias-corrected temperature scaling"); Platt 1999 for the targets ``t``, which for two classes are his: where
    every text is right they keep the temperature from going to 0, that is, from certainty. The problem is convex in
    (1 / T, b) and solved by Newton's method. ``1 / T`` is kept at 0.01 or more: with less the order of the classes
    would be lost, or turned round.

    Examples
    --------
    Right in 3 of 4 cases, and scores that say 95 %:

    >>> logits = np.array([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [3.0, 0.0]] * 500)
    >>> found = fit_calibration(logits, np.array([0, 0, 0, 1] * 500))
    >>> softmax(found.apply(logits))[0].round(2)
    array([0.75, 0.25])
    """
    z = np.asarray(logits, np.float64)
    if z.ndim != 2 or len(z) != len(classes) or not np.isfinite(z).all():
        raise ValueError(
            f"fit_calibration: expected finite scores (M, C) for {len(classes):,} texts, got shape {z.shape}"
            + ("" if np.isfinite(z).all() else " with NaN or infinity")
        )
    counts = np.bincount(classes, minlength=z.shape[1])[classes]  # (M,)
    targets = np.repeat(1.0 / (counts[:, None] + z.shape[1]), z.shape[1], axis=1)  # (M, C)
    targets[np.arange(len(classes)), classes] *= counts + 1
    theta = _newton(z, targets, np.r_[1.0, np.zeros(z.shape[1])], np.r_[True, np.full(z.shape[1], with_offset)])
    if theta[0] < _LEAST_SHARPNESS:
        free = np.r_[False, np.full(z.shape[1], with_offset)]
        theta = _newton(z, targets, np.r_[_LEAST_SHARPNESS, np.zeros(z.shape[1])], free)
    return Calibration(1.0 / float(theta[0]), theta[1:] - theta[1:].mean())


def _newton(z: Array, targets: Array, theta: Array, free: Array) -> Array:
    """Minimise the cross-entropy of ``softmax(theta_0 z + theta_1..C)`` over the parameters that are free."""
    if not free.any():
        return theta
    loss = _cross_entropy(z, targets, theta)
    for _ in range(100):  # a dozen are enough; the loss is convex and falls in every step
        probs = softmax(z * theta[0] + theta[1:])  # (M, C)
        error = probs - targets  # (M, C)
        gradient = np.r_[(error * z).sum(axis=1).mean(), error.mean(axis=0)][free]
        hessian = _hessian(z, probs)[np.ix_(free, free)]
        # equal offsets for all classes change nothing: the least of all solutions leaves them out
        step = np.zeros_like(theta)
        step[free] = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        size = 1.0
        while size > 1e-10 and _cross_entropy(z, targets, theta - size * step) > loss:
            size /= 2
        if size <= 1e-10:
            return theta
        theta = theta - size * step
        before, loss = loss, _cross_entropy(z, targets, theta)
        if before - loss <= 1e-14 * max(1.0, loss):
            return theta
    return theta


def _cross_entropy(z: Array, targets: Array, theta: Array) -> float:
    """Mean cross-entropy with targets that are probabilities."""
    return float(-(targets * log_softmax(z * theta[0] + theta[1:])).sum(axis=1).mean())


def _hessian(z: Array, probs: Array) -> Array:
    """Second derivatives of the cross-entropy: the covariances of the scores and of the classes, under ``probs``."""
    centred = z - (probs * z).sum(axis=1, keepdims=True)  # (M, C)
    count = z.shape[1]
    hessian = np.empty((count + 1, count + 1))
    hessian[0, 0] = (probs * centred**2).sum(axis=1).mean()
    hessian[0, 1:] = hessian[1:, 0] = (probs * centred).mean(axis=0)
    hessian[1:, 1:] = np.diag(probs.mean(axis=0)) - probs.T @ probs / len(z)
    return hessian
