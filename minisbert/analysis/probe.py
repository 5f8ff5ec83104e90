"""Logistic regression on vectors: its penalty by cross-validation, its probabilities calibrated on out-of-fold scores.

``p = softmax(x W^T + b)``, fitted by scikit-learn (extra ``apps``) with an L2 penalty. A strong penalty makes
probabilities too low, a weak one too high, and class weights shift them towards the classes that count for more.
:func:`fit_calibration` corrects both and leaves the labels alone.

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
from minisbert.parallel import threads

STRENGTHS = (1.0, 10.0, 100.0)
"""scikit-learn's ``C``, one over the strength of the penalty. Steps of 10 are fine enough: the temperature makes up for
what is left, and on banking77 the accuracies lie within 2 points of each other."""

SCORINGS = {"log_loss": -1, "accuracy": 1, "macro_f1": 1}
"""Scores to choose a strength by, and whether higher (1) or lower (-1) is better."""

Rows = Callable[[Array, Array], tuple[Any, Any]]
"""Features of the texts of two sets of indices; anything fitted is fitted on the first set alone."""

# scikit-learn's own tolerance, 1e-4, ends so early that of two weak penalties the second fit would not move at all
_TOLERANCE = 1e-5
_MOST_ITERATIONS = 5000  # L-BFGS needs a few hundred at the weakest penalty


# ----------------------------------------------------------------------------------------------------- settings


def class_weights(classes: Array, choice: str | Mapping[int, float] | None = None) -> Array:
    """Weight of a text of each class; "balanced": ``w_c = M / (C M_c)``, so that all classes count alike.

    (M,) -> (C,)

    >>> class_weights(np.array([0, 0, 0, 1]), "balanced").round(2), class_weights(np.array([0, 1]), {1: 5.0})
    (array([0.67, 2.  ]), array([1., 5.]))
    """
    counts = np.bincount(classes)  # (C,)
    if choice == "balanced":
        return len(classes) / (len(counts) * counts)
    if choice is not None and not isinstance(choice, Mapping):
        raise ValueError(f"class_weight must be 'balanced', a mapping from class to weight, or None, got {choice!r}")
    weights = np.ones(len(counts))
    for c, weight in (choice or {}).items():
        if not 0 <= c < len(counts) or not 0 < weight < math.inf:
            raise ValueError(
                f"class_weight must be positive weights of classes from 0 to {len(counts) - 1}, got {c!r}: {weight!r}"
            )
        weights[c] = weight
    return weights


def stratified_folds(classes: Array, folds: int, seed: int, groups: Array | None = None) -> Array:
    """Assign texts to folds: every fold has its share of every class, and texts of one group share a fold.

    (M,), (M,) -> (M,). A group counts as of the class of its first text, and scikit-learn's StratifiedKFold distributes
    groups instead of texts; its StratifiedGroupKFold looks at every group for every fold, and takes minutes for tens of
    thousands of texts. If no class has as many groups as there are folds, there are fewer folds.
    """
    require_sklearn()
    from sklearn.model_selection import StratifiedKFold

    first, group_of_text = _grouped(classes, groups)
    most = int(np.unique(classes[first], return_counts=True)[1].max())
    if isinstance(folds, bool) or folds < 2 or most < 2:
        raise ValueError(f"expected at least 2 folds, and a class with 2 different texts, got {folds!r} folds")
    fold_of_group = np.empty(len(first), np.intp)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        splits = StratifiedKFold(min(folds, most), shuffle=True, random_state=seed).split(first, classes[first])
        for k, (_, asked) in enumerate(splits):
            fold_of_group[asked] = k
    return fold_of_group[group_of_text]


def hold_out(classes: Array, share: float, seed: int, groups: Array | None = None) -> Array:
    """Choose texts to test on: a share of every class to within a text, and each group on one side.

    (M,), (M,) -> (M,) bool, True for held-out texts. Unlike ``train_test_split(stratify=classes)`` it accepts classes
    of a single text, and needs no scikit-learn.
    """
    first, group_of_text = _grouped(classes, groups)
    ends = np.floor(np.arange(len(first) + 1) * share + 1e-9)  # how many of the first n are held out
    shuffled = np.random.default_rng(seed).permutation(len(first))
    class_by_class = shuffled[np.argsort(classes[first][shuffled], kind="stable")]
    held = np.empty(len(first), bool)
    held[class_by_class] = np.diff(ends) > 0
    if not 0 < share < 1 or held.all() or not held.any():
        raise ValueError(
            f"hold_out: expected a share in (0, 1) that leaves texts on both sides of {len(first):,}, got {share!r}"
        )
    return held[group_of_text]


def _grouped(classes: Array, groups: Array | None) -> tuple[Array, Array]:
    """The first text of each group, and the group of each text."""
    numbers = np.arange(len(classes)) if groups is None else np.asarray(groups)
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)  # some releases of NumPy give another shape


# ------------------------------------------------------------------------------------------------------ fitting


def logistic_path(
    features: Any, classes: Array, strengths: Sequence[float], weights: Array
) -> Iterator[tuple[Array, Array]]:
    """Fit scikit-learn's LogisticRegression for each strength, rising, warm-started from the one before.

    ``minimise  sum_i w_(y_i) (-log p_i(y_i)) + |W|^2 / (2 C)``

    (M, D), (M,), S, (C,) -> S times (C, D), (C,). With two classes one is the other's negative:
    ``softmax((-s/2, s/2))`` is ``sigmoid(s)``.
    """
    require_sklearn()
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    by_class = dict(enumerate(weights.tolist()))
    model = LogisticRegression(class_weight=by_class, tol=_TOLERANCE, max_iter=_MOST_ITERATIONS, warm_start=True)
    for strength in strengths:
        # the products are tall and thin: several threads would wait for each other
        with threads.hold(1), warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.set_params(C=strength).fit(features, classes)
            except ConvergenceWarning as error:
                raise ValueError(
                    f"logistic regression did not converge for strength {strength:g} in {_MOST_ITERATIONS:,} "
                    "steps; use a smaller strength"
                ) from error
        weight, bias = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
        if len(weight) == 1:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        yield weight, bias


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """How each strength did on held-out texts."""

    strengths: tuple[float, ...]  # S, rising
    scoring: str
    scores: Array  # (S, K) of each fold; for log_loss nats per text, else in [0, 1]
    best: int  # index of the chosen strength
    out_of_fold: Array  # (M, C) scores before softmax at the best strength, each text's from where it was held out

    @property
    def strength(self) -> float:
        """The strength that was chosen."""
        return self.strengths[self.best]

    @property
    def at_edge(self) -> bool:
        """Whether the best lies at the end of the grid, so that a better one may lie beyond."""
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
    """Classify every text by a classifier that was not trained on it, for each strength, and choose the best one.

    Like scikit-learn's LogisticRegressionCV, which returns no out-of-fold scores. The mean over the folds counts; log
    loss is weighted as the fit is. On ties the strongest penalty is chosen.
    """
    if scoring not in SCORINGS:
        raise ValueError(f"scoring must be one of {', '.join(SCORINGS)}, got {scoring!r}")
    grid = tuple(sorted({float(strength) for strength in strengths}))
    if not grid or not all(0 < strength < math.inf for strength in grid):
        raise ValueError(f"expected positive strengths, at least one, got {tuple(strengths)!r}")
    by_class = np.ones(int(classes.max()) + 1) if weights is None else weights
    scores = np.empty((len(grid), int(folds.max()) + 1))  # (S, K)
    logits = np.empty((len(grid), len(classes), len(by_class)))  # (S, M, C)
    for k in range(scores.shape[1]):
        learnt, asked = np.flatnonzero(folds != k), np.flatnonzero(folds == k)
        features, others = rows(learnt, asked)
        for s, (weight, bias) in enumerate(logistic_path(features, classes[learnt], grid, by_class)):
            logits[s, asked] = others @ weight.T + bias
            scores[s, k] = _score(logits[s, asked], classes[asked], scoring, by_class)
    best = int(np.argmax(SCORINGS[scoring] * scores.mean(axis=1)))
    return CrossValidation(grid, scoring, scores, best, logits[best])


def _score(logits: Array, classes: Array, scoring: str, weights: Array) -> float:
    """Score one fold."""
    if scoring == "log_loss":
        return log_loss(logits, classes, weights)
    predicted = np.argmax(logits, axis=1)
    return macro_f1(classes, predicted) if scoring == "macro_f1" else float((predicted == classes).mean())


def log_loss(logits: Array, classes: Array, weights: Array | None = None) -> float:
    """Mean of ``-log p(true class)``, in nats; finite, where sklearn.metrics.log_loss must clip probabilities.

    (B, C), (B,), (C,) -> a number
    """
    losses = -log_softmax(logits)[np.arange(len(classes)), classes]  # (B,)
    return float(np.average(losses, weights=None if weights is None else weights[classes]))


def log_softmax(logits: Array) -> Array:
    """``z - log sum exp z``, the logarithm of the softmax without its zeros; (B, C) -> (B, C)."""
    shifted: Array = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


# -------------------------------------------------------------------------------------------------- calibration


class Calibration(NamedTuple):
    """Temperature scaling: probabilities are ``softmax(scores / temperature + offset)``."""

    temperature: float  # above 1: the scores were overconfident; below 1: underconfident
    offset: Array  # (C,) sums to 0; zeros without class weights

    def apply(self, logits: Array) -> Array:
        """Calibrated logits: ``(B, C)`` for ``(B, C)``."""
        return logits / self.temperature + self.offset


def fit_calibration(logits: Array, classes: Array, weights: Array | float = 1.0) -> Calibration:
    """Undo class weights in out-of-fold scores, and find the temperature with the least log loss.

    ``minimise over T  mean_i -log softmax(z_i / T - log w)_(y_i)``

    (M, C), (M,), (C,) -> T, (C,). Class weights make a classifier learn ``w_c p_c`` instead of ``p_c`` (Elkan 2001).
    The temperature is that of Guo et al. 2017, section 4.2, and of ``CalibratedClassifierCV(method="temperature",
    ensemble=False)``. If no text is misclassified it would go to 0, that is, to certainty. There the log loss becomes
    ``log((M + 2) / (M + 1))``, that of Laplace's rule of succession after M right answers, or stays at that of the
    scores themselves if that is less.
    """
    from scipy.optimize import brentq, minimize_scalar  # comes with scikit-learn

    offset = np.zeros(logits.shape[1]) - np.log(weights)
    offset -= offset.mean()

    def loss(log_temperature: float) -> float:
        return log_loss(logits / np.exp(log_temperature) + offset, classes)

    others = logits.copy()
    others[np.arange(len(classes)), classes] = -np.inf
    margins = logits[np.arange(len(classes)), classes] - others.max(axis=1)  # (M,)
    if (margins <= 0).any():
        found = minimize_scalar(loss, bounds=(-10, 10)).x
    else:
        coldest = np.log(margins.min()) - 10  # every text is certain there
        wanted = min(math.log((len(classes) + 2) / (len(classes) + 1)), log_loss(logits, classes))
        hottest = coldest + 100
        found = brentq(lambda t: loss(t) - wanted, coldest, hottest) if loss(hottest) > wanted else coldest
    return Calibration(float(np.exp(found)), offset)
