"""A text classifier: logistic regression on sentence vectors, with calibrated probabilities, saved without pickle.

Training and the TF-IDF baseline are scikit-learn's work (extra ``apps``); a prediction is one matrix product in NumPy.
Three things are kept apart: the **label** is the class with the highest score, which class weights may have shifted;
the **probability** is calibrated, and never changes a label; the **threshold** makes one class strict: it is predicted
only where its probability reaches a bound chosen for its precision, and a text that would otherwise have been of that
class is left undecided. A saved classifier knows the model whose vectors it was trained on, and rejects another. It
keeps an eight-byte hash of each training text, so that an evaluation can tell which of its texts were seen in training
(and so can anyone who guesses a text).

Letters: ``M`` training texts, ``B`` other texts, ``C`` classes, ``D`` the width of a vector.
"""

from __future__ import annotations

import hashlib
import html
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minisbert.checks import check_choice, check_vectors, check_whole, each_text, require
from minisbert.evaluation.classification import LabelledTexts, class_names, listed, numbered_labels
from minisbert.evaluation.measures import (
    ClassReport,
    ClassScore,
    Estimate,
    Quality,
    class_report,
    f1_difference,
    paired_difference,
    probability_quality,
    share,
)
from minisbert.evaluation.sts import distinct
from minisbert.model import Array
from minisbert.model.ops import softmax
from minisbert.parallel import threads
from minisbert.saved import Origin, SavedError, check_parts, origin_of, restored, save_folder

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

KIND = "classifier"
"""The name of the files in a classifier's folder."""

VERSION = 2
"""Format version; version 1, which carries no number, calibrated more than two classes wrongly."""

STRENGTHS = (1.0, 10.0, 100.0)
"""scikit-learn's ``C``, one over the strength of the penalty. Steps of 10 are fine enough: the temperature makes up for
what is left."""

_MOST_ITERATIONS = 5000  # L-BFGS needs a few hundred at the weakest penalty


class Calibration(NamedTuple):
    """Temperature scaling: probabilities are ``softmax(scores / temperature + offset)``."""

    temperature: float  # above 1: the scores were overconfident; below 1: underconfident
    offset: Array  # (C,) sums to 0; zeros without class weights

    def apply(self, logits: Array) -> Array:
        """Calibrated logits: ``(B, C)`` for ``(B, C)``."""
        return logits / self.temperature + self.offset


@dataclass(frozen=True)
class Threshold:
    """The probability from which a class is predicted, and the precision and recall it reached on held-out texts."""

    label: str
    probability: float
    precision: float
    recall: float


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """Logistic regression on sentence vectors, with calibrated probabilities; made by :func:`train_classifier`.

    Parameters
    ----------
    classes : tuple of str
        ``C`` names.
    weight, bias : Array, shapes (C, D) and (C,), float64
    calibration : Calibration
        Turns scores into probabilities, ``softmax(scores / temperature + offset)``.
    threshold : Threshold, optional
        The class that is predicted only from a minimum probability.
    origin : Origin, optional
        The model whose vectors it was trained on; without it vectors are not checked.
    unescape : bool
        Whether HTML entities such as ``&amp;`` are decoded before a text is encoded.
    learnt : Array of uint64, optional
        Sorted hashes of the distinct training texts.
    facts : mapping
        How it was trained, for display and for the baseline.

    Examples
    --------
    >>> strict = Threshold("b", 0.9, 1.0, 0.5)
    >>> classifier = TextClassifier(("a", "b"), np.eye(2), np.zeros(2), Calibration(1.0, np.zeros(2)), strict)
    >>> vectors = np.array([[3.0, 1.0], [1.0, 2.0], [1.0, 9.0]])
    >>> classifier.predict(vectors), classifier.predict_proba(vectors)[0].round(2)
    (['a', None, 'b'], array([0.88, 0.12]))
    """

    classes: tuple[str, ...]
    weight: Array  # (C, D) float64
    bias: Array  # (C,) float64
    calibration: Calibration
    threshold: Threshold | None = None
    origin: Origin | None = None
    unescape: bool = False
    learnt: Array | None = None  # uint64
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names, strict, (temperature, offset) = self.classes, self.threshold, self.calibration
        lists = {"weight": self.weight, "bias": self.bias, "offset": offset}  # of numbers for each class
        fits = {
            name: x.dtype == np.float64 and len(x) == len(names) and x.ndim == 1 + (name == "weight")
            for name, x in lists.items()
        }
        fits |= {
            "classes": len(set(names)) == len(names) > 1 and all(isinstance(name, str) for name in names),
            "temperature": 0 < temperature < math.inf,
            "threshold": strict is None or (strict.label in names and 0 <= strict.probability <= 1),
            "unescape": isinstance(self.unescape, bool),
        }
        check_parts("TextClassifier", fits)

    def scores(self, vectors: Array) -> Array:
        """Scores before softmax, ``x W^T + b``, float64; the highest gives the label: (B, D) -> (B, C)."""
        x = check_vectors(vectors, "classifier: vectors", width=self.weight.shape[1])
        return x.astype(np.float64) @ self.weight.T + self.bias

    def predict_proba(self, vectors: Array) -> Array:
        """Calibrated probabilities, float64, rows summing to 1: (B, D) -> (B, C)."""
        return softmax(self.calibration.apply(self.scores(vectors)))

    def predict(self, vectors: Array) -> list[str | None]:
        """Predict classes of vectors (B, D); None (undecided) if the top class does not reach its threshold."""
        return [None if c < 0 else self.classes[c] for c in self.decide(self.scores(vectors))]

    def decide(self, scores: Array) -> Array:
        """Number of the class of each row of scores, -1 being undecided: (B, C) -> (B,).

        The highest score, except that a class with a threshold is chosen where, and only where, it reaches it.
        """
        chosen = np.argmax(scores, axis=1)  # (B,)
        if self.threshold is None:
            return chosen
        strict = self.classes.index(self.threshold.label)
        reaches = softmax(self.calibration.apply(scores))[:, strict] >= self.threshold.probability  # (B,)
        return np.where(reaches, strict, np.where(chosen == strict, -1, chosen))

    def encode(self, encoder: SentenceEncoder, texts: Iterable[str], **options: Any) -> Array:
        """Encode texts to (B, D) as in training; OriginError for another model or length limit."""
        if self.origin is not None:
            self.origin.check(encoder, "this classifier", "train one with this model")
        return encoder.encode(cleaned(texts, self.unescape), **options)

    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Write a folder that :func:`load_classifier` reads, whole or not at all.

        The folder must be new or empty, or hold a classifier to be replaced with ``force``; SavedError otherwise.

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "mood"
        >>> TextClassifier(("a", "b"), np.eye(2), np.zeros(2), Calibration(2.0, np.zeros(2))).save(folder)
        >>> load_classifier(folder).calibration.temperature
        2.0
        """
        facts = {
            "version": VERSION,
            "classes": self.classes,
            "temperature": self.calibration.temperature,
            "threshold": self.threshold,
            "origin": self.origin,
            "unescape": self.unescape,
            "training": dict(self.facts),
        }
        tensors = {"weight": self.weight, "bias": self.bias, "offset": self.calibration.offset}
        if self.learnt is not None:
            tensors["learnt"] = self.learnt
        save_folder(Path(folder), KIND, facts, tensors, force=force)


def load_classifier(folder: str | Path) -> TextClassifier:
    """Read what :meth:`TextClassifier.save` wrote; it predicts bit for bit as before.

    SavedError, a ValueError, for a folder of another kind or version, and for missing, damaged or mixed files.
    """

    def make(facts: dict[str, Any], tensors: dict[str, Array], where: str) -> TextClassifier:
        version, names = facts.get("version", 1), tuple(facts["classes"])
        if version != VERSION and (version, len(names)) != (1, 2):
            raise SavedError(
                f"{where}: expected version {VERSION}, got {version!r:.40}; train it again (minisbert classify train)"
            )
        return TextClassifier(
            classes=names,
            weight=tensors["weight"],
            bias=tensors["bias"],
            calibration=Calibration(float(facts["temperature"]), tensors["offset"]),
            threshold=None if facts["threshold"] is None else Threshold(**facts["threshold"]),
            origin=Origin.read(facts["origin"], where),
            unescape=facts["unescape"],
            learnt=tensors.get("learnt"),
            facts=dict(facts["training"]),
        )

    return restored(Path(folder), KIND, make)


def cleaned(texts: Iterable[str], unescape: bool) -> list[str]:
    """Decode HTML entities, if asked to; ValueError for a text without content, which belongs to no class."""
    given = list(each_text(texts, "texts"))
    found = [html.unescape(text) if unescape else text for text in given]
    empty = [i for i, text in enumerate(found) if not text.strip()]
    if empty:
        more = f", and {len(empty) - 1:,} more" if len(empty) > 1 else ""
        raise ValueError(
            f"text {empty[0] + 1:,} of {len(found):,}, {given[empty[0]]!r:.40}{more}: nothing but blanks, which belong "
            "to no class; leave it out"
        )
    return found


def text_numbers(texts: Sequence[str]) -> Array:
    """Eight-byte BLAKE2b hashes of texts, (B,) uint64."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


# ----------------------------------------------------------------------------------------------------- training


class Training(NamedTuple):
    """A trained classifier, and how texts fared that it had not seen."""

    classifier: TextClassifier
    labels: Array  # (M,) class numbers
    held_out: Array  # (M, C) scores before calibration, each text's by a classifier that was not trained on it


def train_classifier(
    encoder: SentenceEncoder,
    data: LabelledTexts,
    *,
    unescape: bool = False,
    encode_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Training:
    """Train a classifier on labelled texts; each distinct text is encoded once.

    Parameters
    ----------
    encoder : SentenceEncoder
    data : LabelledTexts
        At least two classes, with two distinct texts each.
    unescape : bool
        Decode HTML entities, here and whenever the classifier encodes.
    encode_options : mapping, optional
        Passed to :meth:`SentenceEncoder.encode`.
    **settings
        ``strengths``, ``folds``, ``seed``, ``class_weight``, ``threshold_for``, ``precision``: see
        :func:`fit_classifier`.

    Returns
    -------
    Training
        ``classifier``, ``labels`` and ``held_out``.

    Raises
    ------
    ValueError
        As :func:`fit_classifier`, and without scikit-learn.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> texts = ["what a feast", "i loved it", "so good", "awful food", "i hated it", "so bad"]
    >>> data = LabelledTexts("mood", texts, ["good"] * 3 + ["bad"] * 3)
    >>> trained = train_classifier(SentenceEncoder(), data, folds=3)
    >>> trained.classifier.predict(SentenceEncoder().encode(["wonderful soup"]))
    ['good']
    """
    different, groups = distinct(cleaned(data.texts, unescape))  # groups: (M,)
    return fit_classifier(
        lambda: encoder.encode(different, **(encode_options or {}))[groups],  # (M, D)
        data.labels,
        groups=groups,
        origin=origin_of(encoder),
        unescape=unescape,
        learnt=np.unique(text_numbers(different)),
        name=data.name,
        **settings,
    )


def fit_classifier(
    vectors: Array | Callable[[], Array],
    labels: Sequence[str],
    *,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    seed: int = 0,
    class_weight: str | Mapping[str, float] | None = None,
    threshold_for: str | None = None,
    precision: float | None = None,
    groups: Array | None = None,
    name: str = "vectors",
    **about: Any,
) -> Training:
    """Choose the penalty by cross-validation, calibrate on held-out scores, then fit on all vectors (M, D).

    ``vectors`` may be a function that makes them, called once all else is known to be right. ``strengths`` are those of
    :func:`cross_validate`. There are fewer than ``folds`` folds if no class has that many distinct texts; texts of
    equal ``groups`` (M,) stay in one fold. ``class_weight`` is "balanced" or a weight per class name. With
    ``threshold_for`` that class is predicted only from the probability at which it reaches ``precision``, in (0, 1].
    ``about`` sets ``origin``, ``unescape`` and ``learnt`` of the :class:`TextClassifier`.

    Calibration and threshold come from classifiers that were trained on all folds but one, and serve one that was
    trained on all, as in scikit-learn's ``CalibratedClassifierCV(method="temperature", ensemble=False)``.
    """
    labels = list(each_text(labels, "fit_classifier: labels"))
    groups = np.arange(len(labels)) if groups is None else groups
    names = class_names(name, labels)
    classes = np.array([names.index(label) for label in labels])  # (M,)
    weights = class_weights(names, classes, class_weight)
    if (threshold_for is None) != (precision is None):
        raise ValueError("fit_classifier: threshold_for and precision must be given together")
    if threshold_for is not None:
        check_choice("fit_classifier: threshold_for", threshold_for, names)
    if precision is not None and not 0 < precision <= 1:
        raise ValueError(f"fit_classifier: precision must be in (0, 1], got {precision!r}")

    fold_of_text = stratified_folds(classes, folds, seed, groups)  # (M,)
    if alone := [label for c, label in enumerate(names) if not np.ptp(fold_of_text[classes == c])]:
        raise ValueError(
            f"{name}: {listed(alone)}: no text of them is left to learn from when one fold is held out; add different "
            "texts, leave these classes out, or choose other folds"
        )
    x = vectors() if callable(vectors) else vectors
    x = check_vectors(x, "fit_classifier: vectors", rows=len(labels))
    best = cross_validate(x, classes, fold_of_text, weights, strengths)
    # model selection may be rough and fast, in float32; what is kept is fitted in float64
    weight, bias = logistic_fit(x.astype(np.float64), classes, best.strength, weights)
    threshold = None
    if threshold_for is not None and precision is not None:
        strict = names.index(threshold_for)
        probs = softmax(best.calibration.apply(best.held_out))[:, strict]  # (M,)
        threshold = find_threshold(probs, classes == strict, precision, threshold_for)
    facts = {
        "name": name,
        "folds": int(fold_of_text.max()) + 1,
        "seed": seed,
        "texts": len(classes),
        "texts_by_class": np.bincount(classes).tolist(),
        "class_weight": dict(class_weight) if isinstance(class_weight, Mapping) else class_weight,
        "strength": best.strength,
        "strengths": list(best.scores),
        "scores": list(best.scores.values()),
    }
    classifier = TextClassifier(names, weight, bias, best.calibration, threshold, facts=facts, **about)
    return Training(classifier, classes, best.held_out)


def class_weights(names: Sequence[str], classes: Array, choice: str | Mapping[str, float] | None = None) -> Array:
    """Weight of a text of each class, (C,); "balanced": ``w_c = M / (C M_c)``, so that all classes count alike.

    >>> class_weights(["a", "b"], np.array([0, 0, 0, 1]), "balanced").round(2)
    array([0.67, 2.  ])
    """
    if choice == "balanced":
        return len(classes) / (len(names) * np.bincount(classes))
    if choice is not None and not isinstance(choice, Mapping):
        raise ValueError(f"class_weight must be 'balanced', a mapping from class to weight, or None, got {choice!r}")
    for label, weight in (choice or {}).items():
        if label not in names or not 0 < weight < math.inf:
            raise ValueError(
                f"class_weight must name the classes {listed(names)} and positive weights, got {label!r}: {weight!r}"
            )
    return np.array([float((choice or {}).get(label, 1)) for label in names])


def stratified_folds(classes: Array, folds: int, seed: int, groups: Array) -> Array:
    """Assign texts to folds: every fold has its share of every class, and texts of one group share a fold.

    (M,), (M,) -> (M,). scikit-learn's StratifiedKFold over groups, each counted as of the class of its first text. (Its
    StratifiedGroupKFold looks at every group for every fold: 11 s for 15,000 texts, beside 0.01 s.) If no class has as
    many groups as there are folds, there are fewer folds.
    """
    require("sklearn", "apps", "cross-validation")
    from sklearn.model_selection import StratifiedKFold

    check_whole("cross-validation: folds", folds, 2)
    _, first, group_of_text = np.unique(groups, return_index=True, return_inverse=True)
    if len(first) < 2:
        raise ValueError("cross-validation: expected at least two different texts, got one; add more")
    kinds = classes[first]
    if np.bincount(kinds).max() < 2:
        kinds = np.zeros_like(kinds)  # one text of each class: there is nothing to share out evenly
    fold_of_group = np.empty(len(first), np.intp)
    folds = max(2, min(folds, int(np.bincount(kinds).max())))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(first, kinds)
        for k, (_, asked) in enumerate(splits):
            fold_of_group[asked] = k
    return fold_of_group[group_of_text]


class Choice(NamedTuple):
    """The strength that was chosen."""

    strength: float
    calibration: Calibration
    held_out: Array  # (M, C) scores of texts by classifiers that were not trained on them
    scores: dict[float, float]  # log loss of each strength that was tried, rising strengths


def cross_validate(
    texts: Any,
    classes: Array,
    folds: Array,
    weights: Array,
    strengths: Sequence[float] = STRENGTHS,
    *,
    before: Sequence[Any] = (),
) -> Choice:
    """Classify every text by a classifier that was not trained on it, for each strength, and choose the best one.

    ``texts`` are vectors (M, D), or what the scikit-learn transformers ``before`` make features of, fitted anew without
    each fold. The best has the least log loss of calibrated probabilities; on ties the strongest penalty is chosen.
    """
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline

    grid = sorted({float(strength) for strength in strengths})
    if not grid or not all(0 < strength < math.inf for strength in grid):
        raise ValueError(f"expected positive strengths, at least one, got {tuple(strengths)!r}")
    choices, scores = [], {}
    for strength in grid:
        with fitting(strength):
            model = make_pipeline(*before, _logistic(strength, weights))
            found = cross_val_predict(model, texts, classes, cv=PredefinedSplit(folds), method="decision_function")
        logits = _two_sided(found).astype(np.float64)  # (M, C)
        calibration = fit_calibration(logits, classes, weights)
        scores[strength] = probability_quality(calibration.apply(logits), classes).log_loss
        choices.append(Choice(strength, calibration, logits, scores))
    return min(choices, key=lambda choice: scores[choice.strength])


def logistic_fit(
    features: Any, classes: Array, strength: float, weights: Array, tol: float = 1e-4
) -> tuple[Array, Array]:
    """Fit scikit-learn's LogisticRegression: (M, D), (M,), C -> weight (C, D) and bias (C,) of every class, float64.

    ``minimise  sum_i w_(y_i) (-log p_i(y_i)) + |W|^2 / (2 strength)``
    """
    with fitting(strength):
        model = _logistic(strength, weights, tol).fit(features, classes)
    return _two_sided(model.coef_.T).T.astype(np.float64), _two_sided(model.intercept_[None])[0].astype(np.float64)


def _logistic(strength: float, weights: Array, tol: float = 1e-4) -> Any:
    from sklearn.linear_model import LogisticRegression

    by_class = dict(enumerate(weights.tolist()))
    return LogisticRegression(C=strength, class_weight=by_class, tol=tol, max_iter=_MOST_ITERATIONS)


def _two_sided(scores: Array) -> Array:
    """With two classes one is the other's negative, ``softmax((-s/2, s/2))`` being ``sigmoid(s)``: (M,) -> (M, 2)."""
    column = scores.reshape(len(scores), -1)
    return np.concatenate([-column, column], axis=1) / 2 if column.shape[1] == 1 else column


@contextmanager
def fitting(strength: float) -> Iterator[None]:
    """Let scikit-learn fit, a fold a core, with one BLAS thread each; ValueError where it does not converge."""
    from joblib import parallel_backend
    from sklearn.exceptions import ConvergenceWarning

    cores = threads.usable()
    # the products are tall and thin: several threads in one would wait for each other
    with threads.hold(1), parallel_backend("threading", n_jobs=cores), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            yield
        except ConvergenceWarning as error:
            raise ValueError(
                f"logistic regression did not converge for strength {strength:g} in {_MOST_ITERATIONS:,} steps; use a "
                "smaller strength"
            ) from error


def fit_calibration(logits: Array, classes: Array, weights: Array | float = 1.0) -> Calibration:
    """Undo class weights in held-out scores, and find the temperature with the least log loss.

    ``minimise over T  (M + 1) L(T) - log(1 - exp(-L(T))),   L(T) = mean_i -log softmax(z_i / T - log w)_(y_i)``

    (M, C), (M,), (C,) -> T, (C,). Class weights make a classifier learn ``w_c p_c`` instead of ``p_c`` (Elkan 2001).
    The temperature is that of Guo et al. 2017, section 4.2, and of ``CalibratedClassifierCV(method="temperature")``.
    The second term is one text that was wrong: where no held-out text is, the temperature would go to 0, that is, to
    certainty, and ends at ``L = log((M + 2) / (M + 1))``, Laplace's rule of succession after M right answers.
    """
    from scipy.optimize import minimize_scalar  # comes with scikit-learn
    from scipy.special import logsumexp

    offset = np.zeros(logits.shape[1]) - np.log(weights)
    offset -= offset.mean()
    scale = float(logits.std()) or 1.0

    rows = np.arange(len(classes))

    def objective(log_temperature: float) -> float:
        others = Calibration(scale * math.exp(log_temperature), offset).apply(logits)
        others = others - others[rows, classes][:, None]
        others[rows, classes] = -np.inf
        # log(1 + exp x) tells a loss of 1e-300 from none, where the logarithm of a softmax has long been 0
        loss = max(float(np.logaddexp(0, logsumexp(others, axis=1)).mean()), 1e-300)
        return (len(classes) + 1) * loss - math.log(-math.expm1(-loss))

    return Calibration(scale * math.exp(minimize_scalar(objective, bounds=(-10, 10)).x), offset)


def find_threshold(probs: Array, is_label: Array, precision: float, label: str) -> Threshold:
    """Find the lowest probability from which a class is predicted with this precision: the one with the largest recall.

    (M,), (M,) -> Threshold

    ValueError, with the best that was reached, if no threshold reaches it. The best of many thresholds on these texts
    is a little worse on others; evaluate on other texts to see by how much.

    >>> find_threshold(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]), 0.75, "toxic")
    Threshold(label='toxic', probability=0.6, precision=0.75, recall=1.0)
    """
    from sklearn.metrics import precision_recall_curve

    reached, recalls, bounds = precision_recall_curve(is_label, probs)  # bounds rise, and recalls fall
    reached, recalls = reached[:-1], recalls[:-1]  # the last ones are of no text
    fits = np.flatnonzero(reached >= precision)
    if not len(fits):
        best = len(reached) - 1 - np.argmax(reached[::-1])
        raise ValueError(
            f"no threshold reaches precision {precision:g} for {label!r}: the highest is {reached[best]:.3f}, at "
            f"probability {bounds[best]:.3f} with recall {recalls[best]:.3f}, on held-out texts; lower the precision, "
            "or add texts"
        )
    return Threshold(label, *(float(numbers[fits[0]]) for numbers in (bounds, reached, recalls)))


# --------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True, eq=False)
class ClassifierReport:
    """How a classifier did on labelled texts; undecided counts as wrong."""

    set: str
    texts: int
    undecided: int
    learnt: int | None  # texts that were in training; None: unknown
    accuracy: Estimate
    accuracy_unseen: Estimate | None  # on texts that were not in training; None if none was, or all were
    macro_f1: Estimate
    classes: dict[str, ClassScore]
    confusion: Array  # (C, C + 1)
    probabilities: dict[str, Quality]  # as_fitted and calibrated
    expected: Array  # (B,) class numbers
    predicted: Array  # (B,) -1: undecided
    without_threshold: Array  # (B,)
    baseline: Baseline | None = None  # on the same texts


def evaluate_classifier(
    classifier: TextClassifier,
    encoder: SentenceEncoder,
    data: LabelledTexts,
    *,
    train: LabelledTexts | None = None,
    **options: Any,
) -> ClassifierReport:
    """Evaluate a classifier on labelled texts, and with its training set beside TF-IDF; ``options`` of ``encode``.

    ValueError for unknown labels, another model, and another training set.
    """
    if train is not None:
        check_same_texts(classifier, train)
    expected = numbered_labels(data, classifier.classes)
    scores = classifier.scores(classifier.encode(encoder, data.texts, **options))  # (B, C)
    learnt = None
    if classifier.learnt is not None:
        learnt = np.isin(text_numbers(cleaned(data.texts, classifier.unescape)), classifier.learnt)
    report = report_scores(classifier, scores, expected, learnt=learnt, name=data.name)
    return report if train is None else replace(report, baseline=compare_with_tfidf(classifier, train, data, report))


def report_scores(
    classifier: TextClassifier, scores: Array, expected: Array, *, learnt: Array | None = None, name: str = ""
) -> ClassifierReport:
    """Measure the labels and probabilities that follow from scores before calibration: (B, C), (B,)."""
    predicted = classifier.decide(scores)  # (B,)
    some_seen = learnt is not None and learnt.any() and not learnt.all()
    return ClassifierReport(
        set=name,
        texts=len(expected),
        undecided=int((predicted < 0).sum()),
        learnt=None if learnt is None else int(learnt.sum()),
        accuracy_unseen=share((predicted == expected)[~learnt]) if learnt is not None and some_seen else None,
        probabilities={
            "as_fitted": probability_quality(scores, expected),
            "calibrated": probability_quality(classifier.calibration.apply(scores), expected),
        },
        expected=expected,
        predicted=predicted,
        without_threshold=np.argmax(scores, axis=1),
        **vars(class_report(expected, predicted, classifier.classes)),
    )


@dataclass(frozen=True, eq=False)
class Baseline:
    """TF-IDF with logistic regression on the same texts, and how a classifier compares; both without a threshold."""

    features: int  # distinct unigrams and bigrams
    strength: float
    tfidf: ClassReport
    vectors: ClassReport
    accuracy_difference: Estimate  # vectors minus TF-IDF
    f1_difference: Estimate  # of macro F1
    probabilities: Quality  # of the baseline, calibrated
    predicted: Array  # (B,)


def compare_with_tfidf(
    classifier: TextClassifier, train: LabelledTexts, test: LabelledTexts, report: ClassifierReport
) -> Baseline:
    """Train the baseline as the classifier was trained, test it on the same texts, and compare text by text.

    ``TfidfVectorizer(ngram_range=(1, 2))`` and logistic regression with the same folds, penalties and class weights.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    facts, names = classifier.facts, classifier.classes
    texts, asked = (cleaned(x.texts, classifier.unescape) for x in (train, test))
    classes, groups = numbered_labels(train, names), distinct(texts)[1]  # (M,), (M,)
    weights = class_weights(names, classes, facts["class_weight"])
    folds = stratified_folds(classes, facts["folds"], facts["seed"], groups)
    counter = TfidfVectorizer(ngram_range=(1, 2))
    best = cross_validate(texts, classes, folds, weights, facts["strengths"], before=[counter])
    features = counter.fit_transform(texts)
    weight, bias = logistic_fit(features, classes, best.strength, weights)
    scores = counter.transform(asked) @ weight.T + bias  # (B, C)
    expected, ours, theirs = report.expected, report.without_threshold, np.argmax(scores, axis=1)
    return Baseline(
        features=features.shape[1],
        strength=best.strength,
        tfidf=class_report(expected, theirs, names),
        vectors=class_report(expected, ours, names),
        accuracy_difference=paired_difference(ours == expected, theirs == expected),
        f1_difference=f1_difference(expected, ours, theirs, len(names)),
        probabilities=probability_quality(best.calibration.apply(scores), expected),
        predicted=theirs,
    )


def check_same_texts(classifier: TextClassifier, train: LabelledTexts) -> None:
    """Raise ValueError unless these are the texts that the classifier was trained on, or without scikit-learn."""
    require("sklearn", "apps", "the baseline")
    numbers = np.unique(text_numbers(cleaned(train.texts, classifier.unescape)))
    by_class = [list(train.labels).count(label) for label in classifier.classes]
    same_texts = np.array_equal(numbers, classifier.learnt)  # type: ignore[arg-type]
    if not same_texts or classifier.facts.get("texts_by_class", by_class) != by_class:
        raise ValueError(
            f"{train.name}: the baseline must be trained on the classifier's own training set, but the "
            f"{'labels' if same_texts else 'texts'} differ; give the file that the classifier was trained on"
        )
