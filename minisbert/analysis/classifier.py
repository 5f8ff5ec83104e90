"""A classifier of texts: a linear probe on sentence vectors, with calibrated probabilities, saved without pickle.

Training needs scikit-learn; a :class:`TextClassifier` is a matrix, and asking it is one product in NumPy. Three things
are kept apart that are often mixed up:

- **The label** is the class with the highest score. Class weights have moved the scores: a class whose mistakes cost
  more is named sooner, even if it is not the most probable one.
- **The probability** is calibrated: of texts like the training texts that get 0.8 for a class, four in five are of it.
  Calibration never changes a label.
- **The threshold** makes one class strict: it is named where its probability reaches a bound that was chosen for its
  precision, and only there. A text that would have been of that class otherwise is left undecided.

What is saved knows the model whose vectors it learnt from, and refuses another. It also keeps a number of eight bytes
for each training text, so that an evaluation can tell which of its texts were learnt (somebody who guesses a text can
see from it whether it was among them).

Left out on purpose: training the model itself (``training/``). Next file: ``classifier_report.py``, which measures.

Letters: ``M`` training texts, ``B`` other texts, ``C`` classes, ``D`` the width of a vector.
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
from minisbert.analysis.saved import SavedError, load_folder, origin_from, origin_to_json, save_folder
from minisbert.checks import each_text
from minisbert.evaluation.classification import LabelledTexts, require_sklearn
from minisbert.model import Array
from minisbert.model.ops import softmax
from minisbert.origin import Origin, origin_of

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

KIND = "classifier"
"""The name of the files that a classifier is saved in."""

VERSION = 2
"""Of what they say; 1, which is not written, smoothed the targets that a calibration was fitted to."""


@dataclass(frozen=True)
class Threshold:
    """From which probability on a class is named, and what that reached on texts that were not learnt."""

    label: str
    probability: float  # in [0, 1]
    precision: float  # of the texts that get the class, the share that are of it
    recall: float  # of the texts of the class, the share that get it


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """What tells classes of texts apart by their vectors; made by :func:`train_classifier`."""

    classes: tuple[str, ...]  # C names
    weight: Array  # (C, D) float64
    bias: Array  # (C,) float64
    calibration: Calibration
    threshold: Threshold | None = None
    origin: Origin | None = None  # None: of vectors of no known model, and not checked
    unescape: bool = False  # HTML entities in texts, such as &amp;, are turned into characters first
    learnt: Array | None = None  # (M',) uint64, sorted: a number for each different training text
    facts: Mapping[str, Any] | None = None  # how it was trained, for people

    def scores(self, vectors: Array) -> Array:
        """Give each class its score: ``x W^T + b``.

        Parameters
        ----------
        vectors : Array, shape (B, D)

        Returns
        -------
        Array, shape (B, C)
            Before the softmax, float64; the highest names the label.

        Raises
        ------
        ValueError
            For vectors of another width, and for NaN and Inf.

        Examples
        --------
        >>> classifier = TextClassifier(("a", "b"), np.eye(2), np.zeros(2), Calibration(1.0, np.zeros(2)))
        >>> classifier.scores(np.array([[3.0, 1.0]]))
        array([[3., 1.]])
        """
        x = np.asarray(vectors, np.float64)
        if x.ndim != 2 or x.shape[1] != self.weight.shape[1] or not np.isfinite(x).all():
            raise ValueError(
                f"scores: expected finite vectors (B, {self.weight.shape[1]}), got shape {x.shape}"
                + ("" if np.isfinite(x).all() else " with NaN or infinity")
                + "; do they come from the model that the classifier was trained with?"
            )
        found: Array = x @ self.weight.T + self.bias  # (B, C)
        return found

    def predict_proba(self, vectors: Array) -> Array:
        """Give calibrated probabilities: ``softmax(scores / temperature + offset)``.

        Parameters
        ----------
        vectors : Array, shape (B, D)

        Returns
        -------
        Array, shape (B, C)
            Each in [0, 1], float64; every row sums to 1.

        Raises
        ------
        ValueError
            As :meth:`scores`.

        Examples
        --------
        >>> classifier = TextClassifier(("a", "b"), np.eye(2), np.zeros(2), Calibration(2.0, np.zeros(2)))
        >>> classifier.predict_proba(np.array([[2.0, 0.0]])).round(2)
        array([[0.73, 0.27]])
        """
        return softmax(self.calibration.apply(self.scores(vectors)))

    def predict(self, vectors: Array) -> list[str | None]:
        """Name the class of each text.

        Parameters
        ----------
        vectors : Array, shape (B, D)

        Returns
        -------
        list of str or None
            None: undecided, because the class that has a threshold would have been named and does not reach it.

        Raises
        ------
        ValueError
            As :meth:`scores`.

        Examples
        --------
        >>> strict = Threshold("b", 0.9, 1.0, 0.5)
        >>> classifier = TextClassifier(("a", "b"), np.eye(2), np.zeros(2), Calibration(1.0, np.zeros(2)), strict)
        >>> classifier.predict(np.array([[3.0, 1.0], [1.0, 2.0], [1.0, 9.0]]))
        ['a', None, 'b']
        """
        scores = self.scores(vectors)  # (B, C)
        chosen = decide(scores, self.calibration, self.classes, self.threshold)  # (B,)
        return [None if c < 0 else self.classes[c] for c in chosen]

    def encode(self, encoder: SentenceEncoder, texts: Iterable[str], **options: Any) -> Array:
        """Turn texts into the vectors that this classifier asks for.

        Parameters
        ----------
        encoder : SentenceEncoder
            Of the model that it was trained with.
        texts : sequence of str
        **options
            Of :meth:`SentenceEncoder.encode`, such as ``overflow``.

        Returns
        -------
        Array, shape (B, D)

        Raises
        ------
        OriginError
            For another model, or another length limit.

        Examples
        --------
        >>> from minisbert import SentenceEncoder
        >>> classifier = TextClassifier(("a", "b"), np.eye(2, 384), np.zeros(2), Calibration(1.0, np.zeros(2)))
        >>> classifier.encode(SentenceEncoder(), ["soup"]).shape
        (1, 384)
        """
        if self.origin is not None:
            self.origin.check(encoder, "this classifier", "train one with this model")
        vectors: Array = encoder.encode(cleaned(texts, self.unescape), **options)
        return vectors

    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Write a folder that :func:`load_classifier` reads.

        Parameters
        ----------
        folder : str or path
            New or empty; it appears whole or not at all.
        force : bool
            Replace a classifier that is there.

        Raises
        ------
        SavedError
            As :func:`minisbert.analysis.saved.save_folder`.

        Examples
        --------
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
            "origin": origin_to_json(self.origin),
            "unescape": self.unescape,
            "training": dict(self.facts or {}),
        }
        tensors = {"weight": self.weight, "bias": self.bias, "offset": self.calibration.offset}
        if self.learnt is not None:
            tensors["learnt"] = self.learnt
        save_folder(Path(folder), KIND, facts, tensors, force=force)


def decide(scores: Array, calibration: Calibration, classes: Sequence[str], threshold: Threshold | None) -> Array:
    """Name classes by their scores: the highest, except that a class with a threshold is named where it reaches it.

    Parameters
    ----------
    scores : Array, shape (B, C)
    calibration : Calibration
        Makes the probabilities that a threshold is about.
    classes : sequence of str
        ``C`` names.
    threshold : Threshold or None

    Returns
    -------
    Array, shape (B,)
        Whole numbers from 0 to C - 1, and -1: undecided. Of equal scores the first.

    Examples
    --------
    >>> scores = np.array([[3.0, 1.0], [1.0, 2.0]])
    >>> decide(scores, Calibration(1.0, np.zeros(2)), ("a", "b"), Threshold("b", 0.9, 1.0, 0.5))
    array([ 0, -1])
    """
    chosen: Array = np.argmax(scores, axis=1)  # (B,)
    if threshold is None:
        return chosen
    strict = classes.index(threshold.label)
    reaches = softmax(calibration.apply(scores))[:, strict] >= threshold.probability  # (B,)
    named: Array = np.where(reaches, strict, np.where(chosen == strict, -1, chosen))
    return named


def cleaned(texts: Iterable[str], unescape: bool) -> list[str]:
    """Turn HTML entities into characters, where that was asked for.

    Parameters
    ----------
    texts : sequence of str
    unescape : bool

    Returns
    -------
    list of str

    Examples
    --------
    >>> cleaned(["bread &amp; soup"], True), cleaned(["bread &amp; soup"], False)
    (['bread & soup'], ['bread &amp; soup'])
    """
    checked = each_text(texts, "texts")
    return [html.unescape(text) for text in checked] if unescape else list(checked)


def text_numbers(texts: Sequence[str]) -> Array:
    """Give each text a number of eight bytes, the same for the same text; two texts hardly ever share one.

    Parameters
    ----------
    texts : sequence of str

    Returns
    -------
    Array, shape (B,)
        uint64: of BLAKE2b.

    Examples
    --------
    >>> one, other, again = text_numbers(["soup", "tea", "soup"])
    >>> one == again, one == other
    (np.True_, np.False_)
    """
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


# ----------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True, eq=False)
class Training:
    """A classifier, and what was seen of it on texts that were not learnt."""

    classifier: TextClassifier
    labels: Array  # (M,) the right classes, whole numbers
    validation: CrossValidation  # with the out-of-fold scores, before calibration


def train_classifier(
    encoder: SentenceEncoder,
    data: LabelledTexts,
    *,
    unescape: bool = False,
    encode_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Training:
    """Learn from labelled texts.

    Parameters
    ----------
    encoder : SentenceEncoder
    data : LabelledTexts
        At least two classes, with two different texts each.
    unescape : bool
        Turn HTML entities into characters first, here and whenever the classifier is asked.
    encode_options : mapping, optional
        Of :meth:`SentenceEncoder.encode`.
    **settings
        Of :func:`fit_classifier`.

    Returns
    -------
    Training

    Raises
    ------
    ValueError
        As :func:`fit_classifier`.

    Notes
    -----
    Each different text is encoded once.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> texts = ["what a feast", "i loved it", "so good", "awful food", "i hated it", "so bad"]
    >>> data = LabelledTexts("mood", texts, ["good"] * 3 + ["bad"] * 3)
    >>> trained = train_classifier(SentenceEncoder(), data, folds=3)  # doctest: +SKIP
    >>> trained.classifier.predict(SentenceEncoder().encode(["wonderful soup"]))  # doctest: +SKIP
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
    """Learn from labelled vectors: choose the strength, calibrate on out-of-fold scores, then learn from all.

    Parameters
    ----------
    vectors : Array, shape (M, D)
        Finite.
    labels : sequence of str
        ``M`` names; at least two classes.
    strengths, scoring
        As in :func:`minisbert.analysis.probe.cross_validate`.
    folds : int
        Of the cross-validation; fewer where no class has that many different texts.
    seed : int
        Of the folds.
    class_weight : "balanced", mapping of str to float, or None
        How much a text of each class counts.
    calibrate : bool
        Otherwise the probabilities are the softmax of the scores.
    threshold_for, precision : str, float, optional
        Name this class only from a probability on that reaches this precision, in (0, 1].
    groups : Array, shape (M,), optional
        Equal numbers for equal texts, which then stay in one fold.
    name : str
        Of the training set.
    **about
        Fields of :class:`TextClassifier`: ``origin``, ``unescape``, ``learnt``.

    Returns
    -------
    Training

    Raises
    ------
    ValueError
        For a single class, a class with a single text, vectors with NaN, settings that make no sense, a precision that
        no threshold reaches, and where scikit-learn is not installed.

    Notes
    -----
    The calibration and the threshold come from classifiers that learnt from all folds but one, and are used for one
    that learnt from all: as scikit-learn's ``CalibratedClassifierCV(ensemble=False)``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = ["low", "high"] * 50
    >>> vectors = rng.standard_normal((100, 2)) + np.array([[-1.0, 0.0], [1.0, 0.0]] * 50)
    >>> fit_classifier(vectors, labels).classifier.predict(np.array([[-2.0, 0.0], [3.0, 1.0]]))  # doctest: +SKIP
    ['low', 'high']
    """
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
    # choosing may be rough and fast, in the vectors' own float32; what is kept is fitted in float64
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
    """Say how a classifier was trained, as JSON holds it."""
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
    """Refuse what cannot be learnt from, before texts are encoded.

    Parameters
    ----------
    data : LabelledTexts

    Raises
    ------
    ValueError
        For a single class, and classes with fewer than two different texts.

    Examples
    --------
    >>> check_labels(LabelledTexts("mood", ["good", "fine", "bad", "bad"], ["+", "+", "-", "-"]))
    Traceback (most recent call last):
        ...
    ValueError: mood: '-' (1) have fewer than two different texts, and cross-validation holds one of them out; add
    texts, or leave these classes out
    """
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
    """Refuse what is no table of finite numbers, one row a label."""
    x = np.asarray(vectors)
    if x.ndim != 2 or len(x) != count or not np.isfinite(x).all():
        raise ValueError(
            f"fit_classifier: expected finite vectors (M, D) for {count:,} labels, got shape {x.shape}"
            + ("" if np.isfinite(x).all() else " with NaN or infinity; are the weights damaged?")
        )
    return x


def _check_threshold(names: Sequence[str], label: str | None, precision: float | None) -> None:
    """Refuse half a wish, and one that makes no sense."""
    if (label is None) != (precision is None):
        raise ValueError("fit_classifier: threshold_for and precision must be given together")
    if label is not None and label not in names:
        raise ValueError(f"fit_classifier: threshold_for must be one of the classes {_listed(names)}, got {label!r}")
    if precision is not None and not 0 < precision <= 1:
        raise ValueError(f"fit_classifier: precision must be in (0, 1], got {precision!r}")


def _numbered(choice: str | Mapping[str, float] | None, number: Mapping[str, int]) -> str | dict[int, float] | None:
    """Turn class weights by name into weights by number."""
    if not isinstance(choice, Mapping):
        return choice
    unknown = [label for label in choice if label not in number]
    if unknown:
        raise ValueError(f"fit_classifier: class_weight must name the classes {_listed(number)}, got {unknown[0]!r}")
    return {number[label]: weight for label, weight in choice.items()}


def _listed(names: Sequence[str] | Mapping[str, int]) -> str:
    """Name a few classes."""
    return ", ".join(f"{name!r:.40}" for name in list(names)[:8]) + (", ..." if len(names) > 8 else "")


def find_threshold(probs: Array, is_label: Array, precision: float, label: str) -> Threshold:
    """Find the lowest probability from which on a class is named with this precision: that with the largest recall.

    Parameters
    ----------
    probs : Array, shape (M,)
        Of the class, for texts that were not learnt.
    is_label : Array of bool, shape (M,)
        Whether they are of it; at least one is.
    precision : float
        In (0, 1].
    label : str
        The class's name.

    Returns
    -------
    Threshold

    Raises
    ------
    ValueError
        If no threshold reaches it, with the best that was reached.

    Notes
    -----
    **Source**: ``sklearn.metrics.precision_recall_curve``. The best of many thresholds on these texts is a little
    worse on others; an evaluation on other texts says how much.

    Examples
    --------
    >>> find_threshold(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]), 0.75, "toxic")
    Threshold(label='toxic', probability=0.6, precision=0.75, recall=1.0)
    """
    order = np.argsort(-probs, kind="stable")
    hits = np.cumsum(is_label[order])  # (M,)
    reached = hits / np.arange(1, len(probs) + 1)  # (M,) precision, if all down to here are named
    # texts of equal probability are named together
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

    A calibrated classifier of more than two classes that was saved before version 2 is refused: its probabilities are
    far too low, and nothing but training mends them.

    Parameters
    ----------
    folder : str or path

    Returns
    -------
    TextClassifier

    Raises
    ------
    SavedError
        A ValueError: for a folder of another kind or of a newer version, missing, damaged and mixed files.

    Examples
    --------
    >>> load_classifier("no/such/folder")
    Traceback (most recent call last):
        ...
    minisbert.analysis.saved.SavedError: no/such/folder: no such folder; expected one of kind 'classifier'
    """
    facts, tensors = load_folder(Path(folder), KIND)
    where = f"{Path(folder).as_posix()}/{KIND}.json"
    try:
        names = _checked_names(facts["classes"])
        temperature = float(facts["temperature"])
        threshold = None if facts["threshold"] is None else Threshold(**facts["threshold"])
        origin, unescape = origin_from(facts["origin"], where), facts["unescape"]
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
    """Refuse what a newer minisbert wrote, and probabilities that an older one calibrated wrongly."""
    if isinstance(version, bool) or version not in range(1, VERSION + 1):
        raise SavedError(f"{where}: expected version 1 to {VERSION}, got {version!r:.40}; update minisbert")
    if version == 1 and not is_right_in_1:
        raise SavedError(
            f"{where}: this classifier was trained by an older minisbert, and its probabilities are wrong for more "
            "than two classes; train it again with `minisbert classify train`"
        )


def _checked_names(said: Any) -> tuple[str, ...]:
    """Read the names of the classes."""
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said) or len(said) < 2:
        raise ValueError(f"expected a list of at least two class names, got {said!r:.60}")
    if len(set(said)) < len(said):
        raise ValueError(f"class {Counter(said).most_common(1)[0][0]!r} occurs twice")
    return tuple(said)


def _check_numbers(names: Sequence[str], weight: Array, bias: Array, offset: Array, temperature: float) -> None:
    """Refuse numbers that do not fit the classes."""
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
    """Refuse a threshold that is none."""
    numbers = (threshold.probability, threshold.precision, threshold.recall)
    if threshold.label not in names or not all(isinstance(x, float | int) and 0 <= x <= 1 for x in numbers):
        raise ValueError(f"the threshold is {threshold}")
