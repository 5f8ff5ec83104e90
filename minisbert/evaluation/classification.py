"""Classification: how far do a few labelled texts a class go, on the model's vectors as they are?

The model stays frozen. A few training texts of each class are drawn, a simple classifier learns from their vectors, and
every test text is classified. Since the result depends on which texts were drawn, it is done several times, and the
mean over the draws is the figure. This is MTEB's protocol for Banking77, say: 8 texts a class, 10 draws.

Two classifiers: the **nearest centroid** by cosine, a few lines of NumPy with nothing to tune, and **logistic
regression**, scikit-learn's (extra ``apps``), which is what MTEB uses.

**Two intervals**, of two questions. Over the *draws*: had other training texts been drawn? Over the *test texts*: had
other texts been asked? Two models on the same draws are compared text by text: `accuracy_difference`.

Left out on purpose: k nearest neighbours, several labels a text, tuning, and training the model itself (``training/``).
Next file: ``retrieval_set.py``.

Letters: ``M`` training texts, ``B`` test texts, ``C`` classes, ``R`` draws, ``E`` texts of a draw, ``D`` the width of a
vector.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.checks import check_sequence, each_text
from minisbert.evaluation.bootstrap import Estimate, bootstrap_mean, paired_difference
from minisbert.evaluation.sts import Encodes
from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.similarity import cos_sim
from minisbert.tables import InputError, checked_text, read_names, read_records

INSTALL = "pip install -e '.[apps]'"
SYNONYMS = {
    "label": ("label", "label_text", "class", "category", "intent"),
    "text": ("text", "sentence", "query", "utterance"),
}
"""Names of columns that are looked for, the first one that a file has, where none are given."""

PUBLISHED = {(10_003, 3_080, 77, 8, 10, "logistic"): ("Banking77", 0.8004)}
"""What MTEB's results repository says of all-MiniLM-L6-v2, by training texts, test texts, classes and protocol."""

Classifier = Callable[[Array, Array, Array], Array]


# ------------------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Texts and the name of each one's class, checked.

    Parameters
    ----------
    name : str
        Of the set, for tables and messages.
    texts, labels : sequence of str
        ``B`` each.

    Raises
    ------
    ValueError
        For sequences of unequal length, and for none at all.

    Examples
    --------
    >>> LabelledTexts("tiny", ["where is my card", "hello"], ["card", "greeting"]).labels
    ['card', 'greeting']
    """

    name: str
    texts: Sequence[str]
    labels: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", list(each_text(self.texts, f"{self.name}: texts")))
        check_sequence(self.labels, f"{self.name}: labels", "an iterable of labels")
        object.__setattr__(self, "labels", list(self.labels))
        if len(self.texts) != len(self.labels) or not len(self.texts):
            raise ValueError(
                f"{self.name}: expected as many labels as texts, and at least one, got {len(self.labels):,} and "
                f"{len(self.texts):,}"
            )


def read_labelled(
    file: str | Path,
    *,
    columns: Sequence[str] | None = None,
    input_format: str | None = None,
    has_header: bool = True,
) -> LabelledTexts:
    r"""Read texts and their labels.

    Parameters
    ----------
    file : str or path
        TSV (no quoting), CSV or JSONL, plain or .gz.
    columns : sequence of two str, optional
        The label and the text: names, or numbers from "1". By default the first of :data:`SYNONYMS` that the file has.
    input_format : {"csv", "tsv", "jsonl"}, optional
        By default as the file's name ends.
    has_header : bool
        Without a row of names on top, ``columns`` must be numbers.

    Returns
    -------
    LabelledTexts

    Raises
    ------
    InputError
        A ValueError that names file and line: an empty text or label, a row with too few or too many columns, a column
        that is not there, a file without rows.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "intents.csv"
    >>> _ = file.write_text("text,intent\nwhere is my card,card\nhello,greeting\n")
    >>> found = read_labelled(file)
    >>> found.texts, found.labels
    (['where is my card', 'hello'], ['card', 'greeting'])
    """
    if columns is not None and (isinstance(columns, str) or len(columns) != 2):
        raise ValueError(f"read_labelled: columns must be two, label and text; got {columns!r}")
    chosen = tuple(columns) if columns is not None else _find_columns(file, input_format, has_header)
    texts, labels = [], []
    for line, (label, text) in read_records(file, chosen, input_format=input_format, has_header=has_header):
        where = f"{file}, line {line}"
        labels.append(checked_label(label, chosen[0], where))
        if not checked_text(text, chosen[1], where).strip():
            raise InputError(f"{where}: the text in column {chosen[1]!r} is empty; fix or drop this row")
        texts.append(text)
    if not texts:
        raise InputError(f"{file}: no labelled texts: the file has no rows")
    return LabelledTexts(Path(file).name, texts, labels)


def _find_columns(file: str | Path, input_format: str | None, has_header: bool) -> tuple[str, ...]:
    """Find the columns by their usual names."""
    if not has_header:
        raise ValueError(f"{file}: without a header row, give the columns of label and text by number")
    names = read_names(file, input_format)
    found = []
    for meaning, usual in SYNONYMS.items():
        # where there are no names at all, read_records says so better
        column = next((n for n in usual if n in names), None if names else usual[0])
        if column is None:
            raise InputError(
                f"{file}: no column for the {meaning}: looked for {', '.join(usual)}; there are "
                f"{', '.join(f'{n!r:.40}' for n in names)}; give the columns of label and text"
            )
        found.append(column)
    return tuple(found)


def checked_label(value: object, column: str, where: str) -> str:
    """Give a label as a name; JSON's whole numbers, true and false are names too.

    Parameters
    ----------
    value : object
        From `read_records`.
    column : str
        Its name, for messages.
    where : str
        File and line, for messages.

    Returns
    -------
    str
        Without blanks around it, which would make another class of it.

    Raises
    ------
    InputError
        For what is neither text nor a whole number nor true or false, and for an empty label.

    Examples
    --------
    >>> checked_label(" card ", "label", "t.csv, line 2"), checked_label(3, "label", "t.jsonl, line 1")
    ('card', '3')
    """
    if isinstance(value, int):
        return str(value).lower()  # true and false as JSON writes them
    if not isinstance(value, str):
        raise InputError(f"{where}: the label in column {column!r} must be a name or a whole number, got {value!r:.60}")
    name = checked_text(value, column, where).strip()
    if not name:
        raise InputError(f"{where}: the label in column {column!r} is empty; fix or drop this row")
    return name


# -------------------------------------------------------------------------------------------------- classifiers


def nearest_centroid(vectors: Array, classes: Array, others: Array) -> Array:
    """Give each vector the class whose centroid points in the most similar direction.

    ``centroid_c = mean of v / |v| over the class;  class(u) = argmax_c cos(u, centroid_c)``

    Parameters
    ----------
    vectors : Array, shape (E, D)
        Of the examples; no row may be all zeros.
    classes : Array, shape (E,)
        Whole numbers from 0 to C - 1, each at least once.
    others : Array, shape (B, D)
        What to classify.

    Returns
    -------
    Array, shape (B,)
        Classes. Of equally similar ones the first.

    Raises
    ------
    ValueError
        If the examples of a class point in opposite directions, so that their centroid has none, and as `cos_sim`.

    Notes
    -----
    **Source**: Snell et al. 2017 (prototypical networks), equation 1, with the cosine; Rocchio's classifier. Not quite
    ``sklearn.neighbors.NearestCentroid``, whose distance is Euclidean and so prefers short centroids.

    Examples
    --------
    >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    >>> nearest_centroid(vectors, np.array([0, 1, 1]), np.array([[5.0, 1.0], [1.0, 2.0]]))
    array([0, 1])
    """
    units = normalize(vectors)
    centroids = np.stack([units[classes == c].mean(axis=0) for c in range(int(classes.max()) + 1)])  # (C, D)
    lost = np.flatnonzero(~np.any(centroids, axis=1))
    if len(lost):
        raise ValueError(
            f"nearest_centroid: the examples of class {lost[0]} cancel out: their mean is all zeros and has no "
            "direction; draw other examples (seed), or more of them"
        )
    chosen: Array = np.argmax(cos_sim(others, centroids), axis=1)  # (B,)
    return chosen


def logistic_regression(vectors: Array, classes: Array, others: Array) -> Array:
    """Classify by multinomial logistic regression, scikit-learn's with its defaults.

    Parameters
    ----------
    vectors : Array, shape (E, D)
        Of the examples.
    classes : Array, shape (E,)
        At least two different ones.
    others : Array, shape (B, D)
        What to classify.

    Returns
    -------
    Array, shape (B,)
        Classes.

    Raises
    ------
    ValueError
        If scikit-learn is not installed, with the command that installs it.

    Notes
    -----
    **Source**: ``sklearn.linear_model.LogisticRegression(max_iter=100)``: an L2 penalty of strength C = 1, L-BFGS, no
    randomness. MTEB's evaluator calls it so.

    Examples
    --------
    >>> examples = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> logistic_regression(examples, np.array([0, 1]), np.array([[5.0, 1.0]]))  # doctest: +SKIP
    array([0])
    """
    require_sklearn()
    from sklearn.linear_model import LogisticRegression

    predicted: Array = LogisticRegression(max_iter=100).fit(vectors, classes).predict(others)  # (B,)
    return predicted


CLASSIFIERS: dict[str, Classifier] = {"centroid": nearest_centroid, "logistic": logistic_regression}
"""By name: what learns from ``(E, D)`` vectors and ``(E,)`` classes, and gives ``(B, D)`` others their classes."""


def has_sklearn() -> bool:
    """Tell whether scikit-learn is installed, without importing it.

    Examples
    --------
    >>> has_sklearn()  # doctest: +SKIP
    True
    """
    return find_spec("sklearn") is not None


def require_sklearn() -> None:
    """Refuse early where logistic regression could not be had in the end.

    Raises
    ------
    ValueError
        With the command that installs it.

    Examples
    --------
    >>> require_sklearn()  # doctest: +SKIP
    """
    if not has_sklearn():
        raise ValueError(f"logistic regression needs scikit-learn: {INSTALL}; the classifier 'centroid' does not")


# --------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """Which test texts a classifier got right, draw by draw."""

    name: str
    classifier: str
    classes: tuple[str, ...]  # C names
    examples_per_class: int
    seed: int
    train_texts: int  # M, those that examples are drawn from
    test_in_train: int  # test texts that stand in the training set as well, letter by letter
    drawn: Array  # (R, E) the training texts of each draw, as indices
    expected: Array  # (B,) the class of each test text
    correct: Array  # (R, B) bool
    macro_f1: Array  # (R,)

    @property
    def accuracies(self) -> Array:
        """Share of test texts that are right, of each draw: (R,), in [0, 1]."""
        shares: Array = self.correct.mean(axis=1)
        return shares

    def over_draws(self) -> Estimate:
        """Give the mean accuracy and its 95 % interval over the draws of training texts; NaN ends for one draw.

        ``low, high = sigmoid(logit(a) -+ t(0.975, R - 1) s / (a (1 - a) sqrt(R)))``

        Student's t interval on the logit scale (delta method), so that it stays within [0, 1]; the test texts are
        taken as given. Where all draws agree it is their accuracy.
        """
        values, draws = self.accuracies, len(self.accuracies)
        mean = float(values.mean())
        if draws == 1:
            return Estimate(mean, math.nan, math.nan)
        if not np.ptp(values):
            return Estimate(mean, mean, mean)
        half = student_t(0.975, draws - 1) * float(values.std(ddof=1)) / math.sqrt(draws) / (mean * (1 - mean))
        odds = mean / (1 - mean)
        # sigmoid(logit(mean) -+ half), without an exponential that overflows
        low = odds * math.exp(-half) / (1 + odds * math.exp(-half))
        return Estimate(mean, low, odds / (odds + math.exp(-half)))

    def over_texts(self) -> Estimate:
        """Give the mean accuracy and its 95 % bootstrap interval over the test texts; the draws are taken as given."""
        return bootstrap_mean(self.correct.mean(axis=0))


def evaluate_classification(
    encoder: Encodes,
    train: LabelledTexts,
    test: LabelledTexts,
    *,
    classifiers: Sequence[str] = ("centroid",),
    examples_per_class: int = 8,
    draws: int = 10,
    seed: int = 0,
    **options: Any,
) -> dict[str, ClassificationResult]:
    """Learn from a few texts of each class, on frozen vectors, and classify the test texts; several times.

    Parameters
    ----------
    encoder : SentenceEncoder, or anything whose ``encode(list of str)`` gives ``(B, D)``
    train : LabelledTexts
        What examples are drawn from; at least two classes.
    test : LabelledTexts
        What is classified.
    classifiers : sequence of str
        Of :data:`CLASSIFIERS`; all see the same draws.
    examples_per_class : int
        Drawn without replacement, anew for each draw.
    draws : int
    seed : int
        The same seed and training set give the same draws, whatever the model.
    **options
        Passed on to ``encode``: ``show_progress_bar``, ``prompt``, ``num_threads``, ...

    Returns
    -------
    dict of str to ClassificationResult
        By classifier.

    Raises
    ------
    ValueError
        For a class with fewer texts than ``examples_per_class``, a label of the test set that the training set does not
        have, a single class, logistic regression without scikit-learn, and vectors with NaN or of the wrong shape.

    Notes
    -----
    **Source**: Muennighoff et al. 2023 (MTEB), section 3.2, "Classification"; ``mteb``'s ``AbsTaskClassification`` with
    ``samples_per_label=8, n_experiments=10``. As there, all training texts are shuffled and the first ones of each
    class kept, the test set is whole, and a text is encoded once. Differences: MTEB shuffles the order that the draw
    before has left, with a seed of its own, so that its draws are others than ours, equally likely; of a class that has
    too few texts MTEB silently takes them all, and here that is an error; and MTEB's interval is none.

    Examples
    --------
    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[1 + s.count("a"), 1 + s.count("e")] for s in sentences])
    >>> train = LabelledTexts("train", ["banana", "alabama", "beetle", "eve"], ["a", "a", "e", "e"])
    >>> test = LabelledTexts("test", ["papaya", "degree", "bread"], ["a", "e", "a"])
    >>> result = evaluate_classification(Letters(), train, test, examples_per_class=2, draws=3)["centroid"]
    >>> result.correct[0], result.over_draws().mean
    (array([ True,  True, False]), 0.6666666666666666)
    """
    _check_settings(classifiers, examples_per_class, draws)
    names, classes, expected = _number_labels(train, test, examples_per_class)
    rng = np.random.default_rng(seed)
    drawn = np.stack([draw_examples(classes, examples_per_class, rng) for _ in range(draws)])  # (R, E)
    vectors, row = _encode(encoder, [*(train.texts[i] for i in np.unique(drawn)), *test.texts], options)
    queries = vectors[[row[text] for text in test.texts]]  # (B, D)
    known = set(train.texts)
    results = {}
    for name in classifiers:
        predicted = np.empty((draws, len(expected)), np.intp)  # (R, B)
        for r, indices in enumerate(drawn):
            examples = vectors[[row[train.texts[i]] for i in indices]]  # (E, D)
            predicted[r] = CLASSIFIERS[name](examples, classes[indices], queries)
        results[name] = ClassificationResult(
            name=test.name,
            classifier=name,
            classes=names,
            examples_per_class=examples_per_class,
            seed=seed,
            train_texts=len(train.texts),
            test_in_train=sum(text in known for text in test.texts),
            drawn=drawn,
            expected=expected,
            correct=predicted == expected,
            macro_f1=np.array([macro_f1(expected, classes_of_draw) for classes_of_draw in predicted]),
        )
    return results


def _check_settings(classifiers: Sequence[str], examples_per_class: int, draws: int) -> None:
    """Refuse settings that make no sense, before minutes of work."""
    unknown = [name for name in classifiers if name not in CLASSIFIERS]
    if isinstance(classifiers, str) or unknown or not classifiers:
        raise ValueError(
            f"evaluate_classification: classifiers must be a sequence of {', '.join(CLASSIFIERS)}, got {classifiers!r}"
        )
    for name, value in (("examples_per_class", examples_per_class), ("draws", draws)):
        if isinstance(value, bool) or value < 1:
            raise ValueError(f"evaluate_classification: {name} must be at least 1, got {value!r}")
    if "logistic" in classifiers:
        require_sklearn()


def _number_labels(
    train: LabelledTexts, test: LabelledTexts, examples_per_class: int
) -> tuple[tuple[str, ...], Array, Array]:
    """Number the classes in sorted order; refuse sets that do not fit together."""
    counts = Counter(train.labels)
    names = tuple(sorted(counts))
    if len(names) == 1:
        raise ValueError(
            f"{train.name}: all {len(train.labels):,} texts belong to one class, {names[0]!r}: nothing to learn"
        )
    unknown = Counter(label for label in test.labels if label not in counts)
    if unknown:
        raise ValueError(
            f"{test.name}: the labels {_listed(unknown)} do not occur in {train.name}, so no classifier can learn "
            f"them; it has {', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''}; is the label column "
            "the same in both files, and spelled the same?"
        )
    few = {name: counts[name] for name in names if counts[name] < examples_per_class}
    if few:
        raise ValueError(
            f"{train.name}: cannot draw {examples_per_class} examples per class: {_listed(few)} have fewer texts; draw "
            "fewer per class (examples_per_class, --examples-per-class), or add texts"
        )
    number = {name: c for c, name in enumerate(names)}
    return names, np.array([number[x] for x in train.labels]), np.array([number[x] for x in test.labels])


def _listed(counts: dict[str, int]) -> str:
    """Name a few labels with their numbers of texts."""
    named = ", ".join(f"{name!r:.40} ({count})" for name, count in list(counts.items())[:5])
    return named + (f" and {len(counts) - 5} more" if len(counts) > 5 else "")


def _encode(encoder: Encodes, texts: list[str], options: dict[str, Any]) -> tuple[Array, dict[str, int]]:
    """Encode each distinct text once, and say which row is whose."""
    distinct = list(dict.fromkeys(texts))
    vectors = np.asarray(encoder.encode(distinct, **options))
    if vectors.ndim != 2 or len(vectors) != len(distinct):
        raise ValueError(
            f"evaluate_classification: encode must return a vector per text, ({len(distinct)}, D), got {vectors.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(
            f"evaluate_classification: {len(bad)} of {len(distinct)} vectors contain NaN or infinity, the first for "
            f"{distinct[bad[0]]!r:.60}; are the weights damaged, or has training diverged?"
        )
    return vectors, {text: i for i, text in enumerate(distinct)}


def draw_examples(classes: Array, examples_per_class: int, rng: np.random.Generator) -> Array:
    """Draw equally many examples of each class, without replacement: shuffle all, and keep the first of each class.

    Parameters
    ----------
    classes : Array, shape (M,)
        Whole numbers; each class has at least ``examples_per_class``.
    examples_per_class : int
    rng : numpy.random.Generator

    Returns
    -------
    Array, shape (E,)
        Indices, class by class.

    Examples
    --------
    >>> drawn = draw_examples(np.array([0, 1, 0, 1, 0]), 2, np.random.default_rng(0))
    >>> drawn[:2], np.sort(drawn[2:])
    (array([2, 4]), array([1, 3]))
    """
    shuffled = rng.permutation(len(classes))  # (M,)
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]  # (M,)
    _, first = np.unique(classes[by_class], return_index=True)  # (C,)
    drawn: Array = by_class[np.add.outer(first, np.arange(examples_per_class)).ravel()]  # (E,)
    return drawn


def macro_f1(expected: Array, predicted: Array) -> float:
    """Mean over the classes of the harmonic mean of precision and recall: each class counts alike, rare ones too.

    ``F1_c = 2 TP_c / (texts of c + texts called c)``

    Parameters
    ----------
    expected, predicted : Array, shape (B,)
        Classes, whole numbers from 0.

    Returns
    -------
    float
        In [0, 1]; over the classes that occur in one of the two.

    Notes
    -----
    **Source**: ``sklearn.metrics.f1_score(expected, predicted, average="macro")``.

    Examples
    --------
    >>> macro_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    0.7333333333333334
    """
    size = int(max(expected.max(), predicted.max())) + 1
    hits = np.bincount(expected[expected == predicted], minlength=size)  # (C,)
    total = np.bincount(expected, minlength=size) + np.bincount(predicted, minlength=size)  # (C,)
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def accuracy_difference(result: ClassificationResult, other: ClassificationResult) -> Estimate:
    """Compare two models, or two classifiers, text by text: how much more of the test texts does the first get right?

    Parameters
    ----------
    result, other : ClassificationResult
        Of the same draws and the same test texts.

    Returns
    -------
    Estimate
        Difference of the mean accuracies and its 95 % interval, test texts resampled; in [-1, 1].

    Raises
    ------
    ValueError
        If the draws or the test sets differ.

    Notes
    -----
    **Source**: `paired_difference`. Easy and hard texts cancel, and so do lucky and unlucky draws.

    Examples
    --------
    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[1 + s.count("a"), 1 + s.count("e")] for s in sentences])
    >>> texts = LabelledTexts("both", ["banana", "alabama", "beetle", "eve"], ["a", "a", "e", "e"])
    >>> result = evaluate_classification(Letters(), texts, texts, examples_per_class=1)["centroid"]
    >>> accuracy_difference(result, result)
    Estimate(mean=0.0, low=0.0, high=0.0)
    """
    same = np.array_equal(result.drawn, other.drawn) and np.array_equal(result.expected, other.expected)
    if not same or result.classes != other.classes:
        raise ValueError(
            f"accuracy_difference: expected two results of the same draws and test texts, got {result.name!r} (seed "
            f"{result.seed}, {len(result.drawn)} draws) and {other.name!r} (seed {other.seed}, {len(other.drawn)} "
            "draws); evaluate both models with the same files and settings"
        )
    return paired_difference(result.correct.mean(axis=0), other.correct.mean(axis=0))


def student_t(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution with a whole number of degrees of freedom.

    Parameters
    ----------
    probability : float
        In (0.5, 1).
    degrees : int
        At least 1.

    Returns
    -------
    float

    Notes
    -----
    **Source**: Abramowitz & Stegun, 26.7.3 and 26.7.4, a finite sum in the angle ``theta = arctan(t / sqrt(degrees))``,
    solved by bisection; ``scipy.stats.t.ppf(probability, degrees)``.

    Examples
    --------
    >>> round(student_t(0.975, 9), 6)
    2.262157
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # each step halves the interval: 60 leave nothing of it in float64
        theta = (low + high) / 2
        low, high = (theta, high) if _t_cdf(theta, degrees) < probability else (low, theta)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _t_cdf(theta: float, degrees: int) -> float:
    """Probability of a value below ``sqrt(degrees) tan(theta)``."""
    is_odd = degrees % 2
    term = math.cos(theta) if is_odd else 1.0
    total = 0.0
    for k in range(2 if is_odd else 1, degrees, 2):
        total += term
        term *= k / (k + 1) * math.cos(theta) ** 2
    within = 2 / math.pi * (theta + math.sin(theta) * total) if is_odd else math.sin(theta) * total
    return (1 + within) / 2
