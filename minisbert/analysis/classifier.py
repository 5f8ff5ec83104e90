"""A text classifier: logistic regression on sentence vectors, with calibrated probabilities, saved without pickle.

Training needs scikit-learn; prediction is one matrix product in NumPy. Three things are kept apart: the **label** is
the class with the highest score, which class weights may have shifted; the **probability** is calibrated, and never
changes a label; the **threshold** makes one class strict: it is predicted only where its probability reaches a bound
chosen for its precision, and a text that would otherwise have been of that class is left undecided.
A saved classifier knows the model whose vectors it was trained on, and rejects another. It also keeps an eight-byte
hash of each training text, so that an evaluation can tell which of its texts were seen in training (and so can anyone
who guesses a text). Letters: ``M`` training texts, ``B`` other texts, ``C`` classes, ``D`` the width of a vector.
"""

from __future__ import annotations

import hashlib
import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minisbert.analysis.probe import (
    STRENGTHS,
    Calibration,
    CrossValidation,
    class_weights,
    cross_validate,
    fit_calibration,
    logistic_path,
    stratified_folds,
)
from minisbert.checks import check_flag, check_whole, each_text
from minisbert.evaluation.classification import LabelledTexts, require_sklearn
from minisbert.model import Array
from minisbert.model.ops import softmax
from minisbert.saved import Origin, SavedError, load_folder, origin_of, save_folder

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

KIND = "classifier"
"""The name of the files in a classifier's folder."""

VERSION = 2
"""Format version; files of version 1, which carry no number, smoothed the targets of the calibration."""


@dataclass(frozen=True)
class Threshold:
    """The probability from which a class is predicted, and the out-of-fold precision and recall it reached."""

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
    weight : Array, shape (C, D)
    bias : Array, shape (C,)
        Both float64.
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
    facts : mapping, optional
        How it was trained, for display.

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
    facts: Mapping[str, Any] | None = None

    def scores(self, vectors: Array) -> Array:
        """Scores before softmax, ``x W^T + b``, float64; the highest gives the label.

        (B, D) -> (B, C)

        ValueError for vectors of another width, NaN and Inf.
        """
        x = np.asarray(vectors, np.float64)
        if x.ndim != 2 or x.shape[1] != self.weight.shape[1] or not np.isfinite(x).all():
            raise ValueError(
                f"scores: expected finite vectors (B, {self.weight.shape[1]}), got shape {x.shape}"
                + ("" if np.isfinite(x).all() else " with NaN or infinity")
                + "; do they come from the model that the classifier was trained with?"
            )
        return x @ self.weight.T + self.bias

    def predict_proba(self, vectors: Array) -> Array:
        """Calibrated probabilities, ``softmax(scores / temperature + offset)``, float64, rows summing to 1.

        (B, D) -> (B, C)
        """
        return softmax(self.calibration.apply(self.scores(vectors)))

    def predict(self, vectors: Array) -> list[str | None]:
        """Predict classes of vectors (B, D); None (undecided) if the top class does not reach its threshold."""
        scores = self.scores(vectors)  # (B, C)
        chosen = decide(scores, self.calibration, self.classes, self.threshold)  # (B,)
        return [None if c < 0 else self.classes[c] for c in chosen]

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
            "classes": list(self.classes),
            "temperature": self.calibration.temperature,
            "threshold": None if self.threshold is None else vars(self.threshold),
            "origin": self.origin,
            "unescape": self.unescape,
            "training": dict(self.facts or {}),
        }
        tensors = {"weight": self.weight, "bias": self.bias, "offset": self.calibration.offset}
        if self.learnt is not None:
            tensors["learnt"] = self.learnt
        save_folder(Path(folder), KIND, facts, tensors, force=force)


def decide(scores: Array, calibration: Calibration, classes: Sequence[str], threshold: Threshold | None) -> Array:
    """Index of the highest score, except that a class with a threshold is chosen where it reaches it.

    (B, C) -> (B,)

    -1 is undecided.

    >>> scores = np.array([[3.0, 1.0], [1.0, 2.0]])
    >>> decide(scores, Calibration(1.0, np.zeros(2)), ("a", "b"), Threshold("b", 0.9, 1.0, 0.5))
    array([ 0, -1])
    """
    chosen: Array = np.argmax(scores, axis=1)  # (B,)
    if threshold is None:
        return chosen
    strict = classes.index(threshold.label)
    reaches = softmax(calibration.apply(scores))[:, strict] >= threshold.probability  # (B,)
    return np.where(reaches, strict, np.where(chosen == strict, -1, chosen))


def cleaned(texts: Iterable[str], unescape: bool) -> list[str]:
    """Decode HTML entities, if asked to."""
    checked = each_text(texts, "texts")
    return [html.unescape(text) for text in checked] if unescape else list(checked)


def text_numbers(texts: Sequence[str]) -> Array:
    """Eight-byte BLAKE2b hashes of texts, (B,) uint64."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


# ----------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True, eq=False)
class Training:
    """A trained classifier, and its out-of-fold scores."""

    classifier: TextClassifier
    labels: Array  # (M,) class indices
    validation: CrossValidation  # with uncalibrated out-of-fold scores


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
        Passed to :func:`fit_classifier`.

    Returns
    -------
    Training
        ``classifier``, ``labels`` and ``validation``.

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
    check_labels(data)
    require_sklearn()
    texts = cleaned(data.texts, unescape)
    different = list(dict.fromkeys(texts))
    row = {text: i for i, text in enumerate(different)}
    groups = np.array([row[text] for text in texts])  # (M,)
    vectors = encoder.encode(different, **(encode_options or {}))[groups]  # (M, D)
    return fit_classifier(
        vectors,
        data.labels,
        groups=groups,
        origin=origin_of(encoder),
        unescape=unescape,
        learnt=np.unique(text_numbers(different)),
        name=data.name,
        **settings,
    )


def fit_classifier(
    vectors: Array,
    labels: Sequence[str],
    *,
    strengths: Sequence[float] = STRENGTHS,
    scoring: str = "log_loss",
    folds: int = 5,
    seed: int = 0,
    class_weight: str | Mapping[str, float] | None = None,
    calibrate: bool = True,
    threshold_for: str | None = None,
    precision: float | None = None,
    groups: Array | None = None,
    name: str = "",
    **about: Any,
) -> Training:
    """Choose the penalty by cross-validation, calibrate on out-of-fold scores, then fit on everything.

    Vectors (M, D) must be finite, with at least two classes. ``strengths`` and ``scoring`` are those of
    :func:`minisbert.analysis.probe.cross_validate`; there are fewer than ``folds`` folds if no class has that many
    distinct texts, and texts with equal ``groups`` (M,) stay in one fold. ``class_weight`` is "balanced" or a weight
    per class name. With ``threshold_for`` that class is predicted only from the probability at which it reaches
    ``precision``, in (0, 1]. ``about`` sets ``origin``, ``unescape`` and ``learnt`` of the :class:`TextClassifier`.

    Calibration and threshold come from classifiers that were trained on all folds but one, and serve one that was
    trained on all, as in scikit-learn's ``CalibratedClassifierCV(ensemble=False)``.

    ValueError for a single class, a class with a single text, NaN, contradictory settings, a precision that no
    threshold reaches, and without scikit-learn.
    """
    labels = list(each_text(labels, "fit_classifier: labels"))
    folds = check_whole("fit_classifier: folds", folds, 2)
    check_flag("fit_classifier: calibrate", calibrate)
    x = _checked_vectors(vectors, len(labels))
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise ValueError(f"fit_classifier: expected at least two classes, got {list(names)}")
    _check_threshold(names, threshold_for, precision)
    number = {label: c for c, label in enumerate(names)}
    classes = np.array([number[label] for label in labels])  # (M,)
    weights = class_weights(classes, _numbered(class_weight, number))
    fold_of_text = stratified_folds(classes, folds, seed, groups)  # (M,)
    for c, label in enumerate(names):
        if not np.ptp(fold_of_text[classes == c]):
            raise ValueError(
                f"{label!r:.40} has too few texts: all of them are in one fold, so that none are left to train on when "
                "that fold is held out; add texts, or leave the class out"
            )
    validation = cross_validate(
        lambda learnt, asked: (x[learnt], x[asked]),
        classes,
        fold_of_text,
        strengths=strengths,
        scoring=scoring,
        weights=weights,
    )
    # model selection may be rough and fast, in float32; what is kept is fitted in float64
    weight, bias = next(logistic_path(x.astype(np.float64), classes, [validation.strength], weights))
    calibration = Calibration(1.0, np.zeros(len(names)))
    if calibrate:
        calibration = fit_calibration(validation.out_of_fold, classes, weights)
    threshold = None
    if threshold_for is not None and precision is not None:
        probs = softmax(calibration.apply(validation.out_of_fold))[:, number[threshold_for]]  # (M,)
        threshold = find_threshold(probs, classes == number[threshold_for], precision, threshold_for)
    facts = _facts(
        validation, name=name, classes=classes, folds=validation.scores.shape[1], seed=seed, class_weight=class_weight
    )
    classifier = TextClassifier(names, weight, bias, calibration, threshold, facts=facts, **about)
    return Training(classifier, classes, validation)


def _facts(validation: CrossValidation, *, classes: Array, class_weight: Any, **said: Any) -> dict[str, Any]:
    """How a classifier was trained, JSON-serialisable."""
    return {
        **said,
        "texts": len(classes),
        "texts_by_class": np.bincount(classes).tolist(),
        "class_weight": dict(class_weight) if isinstance(class_weight, Mapping) else class_weight,
        "scoring": validation.scoring,
        "strength": validation.strength,
        "strengths": list(validation.strengths),
        "scores": validation.scores.mean(axis=1).tolist(),
    }


def check_labels(data: LabelledTexts) -> None:
    """Raise for a single class, or a class with fewer than two distinct texts, before anything is encoded."""
    texts_of: dict[str, set[str]] = {label: set() for label in data.labels}
    for text, label in zip(data.texts, data.labels, strict=True):
        texts_of[label].add(text)
    if len(texts_of) < 2:
        raise ValueError(
            f"{data.name}: all {len(data.labels):,} texts belong to one class, {data.labels[0]!r}: nothing to learn"
        )
    few = [f"{label!r:.40} ({len(texts)})" for label, texts in texts_of.items() if len(texts) < 2]
    if few:
        raise ValueError(
            f"{data.name}: {', '.join(few[:5])} have fewer than two different texts, and cross-validation holds one of "
            "them out; add texts, or leave these classes out"
        )


def _checked_vectors(vectors: Array, count: int) -> Array:
    """Raise unless the vectors are finite, one row a label."""
    x = np.asarray(vectors)
    if x.ndim != 2 or len(x) != count or not np.isfinite(x).all():
        raise ValueError(
            f"fit_classifier: expected finite vectors (M, D) for {count:,} labels, got shape {x.shape}"
            + ("" if np.isfinite(x).all() else " with NaN or infinity; are the weights damaged?")
        )
    return x


def _check_threshold(names: Sequence[str], label: str | None, precision: float | None) -> None:
    """Raise if only one of class and precision is given, or if either is impossible."""
    if (label is None) != (precision is None):
        raise ValueError("fit_classifier: threshold_for and precision must be given together")
    if label is not None and label not in names:
        raise ValueError(f"fit_classifier: threshold_for must be one of the classes {_listed(names)}, got {label!r}")
    if precision is not None and not 0 < precision <= 1:
        raise ValueError(f"fit_classifier: precision must be in (0, 1], got {precision!r}")


def _numbered(choice: str | Mapping[str, float] | None, number: Mapping[str, int]) -> str | dict[int, float] | None:
    """Turn class weights by name into class weights by index."""
    if not isinstance(choice, Mapping):
        return choice
    unknown = [label for label in choice if label not in number]
    if unknown:
        raise ValueError(f"fit_classifier: class_weight must name the classes {_listed(number)}, got {unknown[0]!r}")
    return {number[label]: weight for label, weight in choice.items()}


def _listed(names: Sequence[str] | Mapping[str, int]) -> str:
    """A few class names, for messages."""
    return ", ".join(f"{name!r:.40}" for name in list(names)[:8]) + (", ..." if len(names) > 8 else "")


def find_threshold(probs: Array, is_label: Array, precision: float, label: str) -> Threshold:
    """Find the lowest probability from which a class is predicted with this precision: the one with the largest recall.

    (M,), (M,) -> Threshold

    ValueError, with the best that was reached, if no threshold reaches it. **Source**:
    ``sklearn.metrics.precision_recall_curve``. The best of many thresholds on these texts is a little worse on others;
    evaluate on other texts to see by how much.

    >>> find_threshold(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]), 0.75, "toxic")
    Threshold(label='toxic', probability=0.6, precision=0.75, recall=1.0)
    """
    order = np.argsort(-probs, kind="stable")
    hits = np.cumsum(is_label[order])  # (M,)
    reached = hits / np.arange(1, len(probs) + 1)  # (M,) precision if all down to here are predicted
    # texts of equal probability are predicted together
    is_end = np.r_[np.diff(probs[order]) != 0, True]  # (M,)
    fits = np.flatnonzero(is_end & (reached >= precision))
    if not len(fits):
        ends = np.flatnonzero(is_end)
        best = ends[np.argmax(reached[ends])]
        raise ValueError(
            f"no threshold reaches precision {precision:g} for {label!r}: the highest is {reached[best]:.3f}, at "
            f"probability {probs[order[best]]:.3f} with recall {hits[best] / hits[-1]:.3f}, on held-out texts; lower "
            "the precision, or add texts"
        )
    last = fits[-1]
    return Threshold(label, float(probs[order[last]]), float(reached[last]), float(hits[last] / hits[-1]))


# ------------------------------------------------------------------------------------------------------ reading


def load_classifier(folder: str | Path) -> TextClassifier:
    """Read what :meth:`TextClassifier.save` wrote; it predicts bit for bit as before.

    SavedError, a ValueError, for a folder of another kind or a newer version, and for missing, damaged or mixed files.
    A calibrated classifier of more than two classes from before version 2 is rejected: its probabilities are far too
    low, and only training again fixes them.
    """
    facts, tensors = load_folder(Path(folder), KIND)
    where = f"{Path(folder).as_posix()}/{KIND}.json"
    try:
        names = _checked_names(facts["classes"])
        temperature = float(facts["temperature"])
        threshold = None if facts["threshold"] is None else Threshold(**facts["threshold"])
        origin, unescape = Origin.read(facts["origin"], where), facts["unescape"]
        training = dict(facts["training"])
        weight, bias, offset = (tensors[name] for name in ("weight", "bias", "offset"))
        learnt = tensors.get("learnt")
        _check_numbers(names, weight, bias, offset, temperature)
        _check_version(facts.get("version", 1), where, is_right_in_1=len(names) == 2 or temperature == 1)
        if learnt is not None and (learnt.ndim != 1 or learnt.dtype != np.uint64):
            raise ValueError(f"expected learnt (M,) in uint64, got {learnt.shape} in {learnt.dtype}")
        if threshold is not None:
            _check_loaded_threshold(threshold, names)
        if not isinstance(unescape, bool):
            raise ValueError(f"unescape is {unescape!r:.40}")
    except SavedError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise SavedError(f"{where}: damaged: {said}; train again") from error
    calibration = Calibration(temperature, offset)
    return TextClassifier(names, weight, bias, calibration, threshold, origin, unescape, learnt, facts=training)


def _check_version(version: Any, where: str, *, is_right_in_1: bool) -> None:
    """Reject what a newer minisbert wrote, and probabilities that an older one calibrated wrongly."""
    if isinstance(version, bool) or version not in range(1, VERSION + 1):
        raise SavedError(f"{where}: expected version 1 to {VERSION}, got {version!r:.40}; update minisbert")
    if version == 1 and not is_right_in_1:
        raise SavedError(
            f"{where}: this classifier was trained by an older minisbert, and its probabilities are wrong for more "
            "than two classes; train it again with `minisbert classify train`"
        )


def _checked_names(said: Any) -> tuple[str, ...]:
    """Read the class names."""
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said) or len(said) < 2:
        raise ValueError(f"expected a list of at least two class names, got {said!r:.60}")
    if len(set(said)) < len(said):
        raise ValueError(f"class {Counter(said).most_common(1)[0][0]!r} occurs twice")
    return tuple(said)


def _check_numbers(names: Sequence[str], weight: Array, bias: Array, offset: Array, temperature: float) -> None:
    """Raise if the tensors do not fit the classes."""
    for name, array, shape in (
        ("weight", weight, (len(names), weight.shape[-1] if weight.ndim else 0)),
        ("bias", bias, (len(names),)),
        ("offset", offset, (len(names),)),
    ):
        if array.shape != shape or array.dtype != np.float64:
            raise ValueError(f"expected {name} {shape} in float64, got {array.shape} in {array.dtype}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected a temperature above 0, got {temperature!r}")


def _check_loaded_threshold(threshold: Threshold, names: Sequence[str]) -> None:
    """Raise if the threshold is impossible."""
    numbers = (threshold.probability, threshold.precision, threshold.recall)
    if threshold.label not in names or not all(isinstance(x, float | int) and 0 <= x <= 1 for x in numbers):
        raise ValueError(f"the threshold is {threshold}")
