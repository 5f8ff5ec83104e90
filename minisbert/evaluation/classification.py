"""Few-shot classification on frozen vectors, MTEB's protocol (Banking77: 8 texts per class, 10 draws).

A few training texts of each class are drawn, a simple classifier learns from their vectors, and every test text is
classified; the mean over several draws is the result. Classifiers: the **nearest centroid** by cosine, with nothing to
tune, and scikit-learn's **logistic regression** (extra ``apps``), which MTEB uses. Two intervals answer two questions,
over the *draws* (other training texts) and over the *test texts*.

Letters: ``M`` training texts, ``B`` test texts, ``C`` classes, ``R`` draws, ``E`` texts of a draw, ``D`` width of a
vector.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.checks import check_vectors, check_whole, each_text, require
from minisbert.evaluation.measures import Estimate, bootstrap_mean, macro_f1
from minisbert.evaluation.sts import distinct
from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.similarity import cos_sim
from minisbert.tables import InputError, checked_text, read_columns

PUBLISHED: dict[tuple[object, ...], tuple[str, float]] = {(10_003, 3_080, 77, 8, 10, "logistic"): ("Banking77", 0.8004)}
"""all-MiniLM-L6-v2 in MTEB's results repository, by training texts, test texts, classes and protocol."""

Classifier = Callable[[Array, Array, Array], Array]


# ------------------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Texts and their class labels, B each, checked; ``name`` is for tables and messages.

    >>> LabelledTexts("tiny", ["where is my card", "hello"], ["card", "greeting"]).labels
    ['card', 'greeting']
    """

    name: str
    texts: Sequence[str]
    labels: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", list(each_text(self.texts, f"{self.name}: texts")))
        object.__setattr__(self, "labels", list(each_text(self.labels, f"{self.name}: labels")))
        if len(self.texts) != len(self.labels) or not len(self.texts):
            raise ValueError(
                f"{self.name}: expected as many labels as texts, and at least one, got {len(self.labels):,} and "
                f"{len(self.texts):,}"
            )


def read_labelled(
    file: str | Path,
    *,
    columns: Sequence[str] | None = None,
    **reading: Any,
) -> LabelledTexts:
    r"""Read texts and their labels from a table.

    ``columns`` are label and text: names, or numbers from "1"; by default the first of `minisbert.tables.MEANINGS` in
    the file. Rows without a text are skipped, and counted in a warning. ``reading`` is of `tables.read_table`.
    InputError, a ValueError, names file and line of a mistake.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "intents.csv"
    >>> _ = file.write_text("text,intent\nwhere is my card,card\nhello,greeting\n")
    >>> found = read_labelled(file)
    >>> found.texts, found.labels
    (['where is my card', 'hello'], ['card', 'greeting'])
    """
    table, chosen = read_columns(file, {"label": (), "text": ()}, columns, **reading)
    texts, labels = [], []
    for line, (label, text) in table.pick(chosen, filled=chosen[1:]):
        labels.append(checked_label(label, chosen[0], table.where(line)))
        texts.append(text)
    if not texts:
        raise InputError(f"{file}: no labelled texts: the file has no rows")
    return LabelledTexts(Path(file).name, texts, labels)


def checked_label(value: object, column: str, where: str) -> str:
    """A label as text without surrounding blanks; JSON's integers, true and false are labels too.

    >>> checked_label(" card ", "label", "t.csv, line 2"), checked_label(3, "label", "t.jsonl, line 1")
    ('card', '3')
    """
    if isinstance(value, int):
        return str(value).lower()  # true and false, as in JSON
    if not isinstance(value, str):
        raise InputError(f"{where}: the label in column {column!r} must be a name or a whole number, got {value!r:.60}")
    name = checked_text(value, column, where).strip()
    if not name:
        raise InputError(f"{where}: the label in column {column!r} is empty; fix or drop this row")
    return name


# -------------------------------------------------------------------------------------------------- classifiers


def nearest_centroid(vectors: Array, classes: Array, others: Array) -> Array:
    """Assign each vector to the class whose centroid is closest by cosine; of equal ones the first.

    ``centroid_c = mean of v / |v| over the class;  class(u) = argmax_c cos(u, centroid_c)``

    (E, D), (E,), (B, D) -> (B,)

    **Source**: Snell et al. 2017 (prototypical networks), equation 1, with the cosine; Rocchio's classifier. Unlike
    ``sklearn.neighbors.NearestCentroid``, whose Euclidean distance prefers short centroids.

    >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    >>> nearest_centroid(vectors, np.array([0, 1, 1]), np.array([[5.0, 1.0], [1.0, 2.0]]))
    array([0, 1])
    """
    units = normalize(vectors)
    centroids = np.stack([units[classes == c].mean(axis=0) for c in range(int(classes.max()) + 1)])  # (C, D)
    return np.argmax(cos_sim(others, centroids), axis=1)


def logistic_regression(vectors: Array, classes: Array, others: Array) -> Array:
    """Classify by scikit-learn's multinomial logistic regression with its defaults, as MTEB's evaluator does.

    (E, D), (E,), (B, D) -> (B,)
    """
    require("sklearn", "apps", "logistic regression")
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=100).fit(vectors, classes).predict(others)


CLASSIFIERS: dict[str, Classifier] = {"centroid": nearest_centroid, "logistic": logistic_regression}
"""By name: learn from vectors ``(E, D)`` and classes ``(E,)``, and classify others ``(B, D)``."""


# --------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """Which test texts a classifier got right, draw by draw."""

    classes: tuple[str, ...]  # C names
    test_in_train: int  # test texts that equal a training text
    drawn: Array  # (R, E) indices of the training texts of each draw
    correct: Array  # (R, B) bool
    macro_f1: Array  # (R,)

    @property
    def accuracies(self) -> Array:
        """Share of test texts that are right, per draw: (R,), in [0, 1]."""
        return self.correct.mean(axis=1)

    def over_draws(self) -> Estimate:
        """Mean accuracy and its 95 % interval over the draws, the test texts given; NaN ends for one draw.

        Student's t interval, ``scipy.stats.t.interval(0.95, R - 1, mean, scipy.stats.sem(accuracies))``, within [0, 1].
        """
        values, draws = self.accuracies, len(self.accuracies)
        mean = float(values.mean())
        if draws == 1:
            return Estimate(mean, math.nan, math.nan)
        stats = require("scipy.stats", "apps", "the interval over draws")
        half = stats.t.ppf(0.975, draws - 1) * values.std(ddof=1) / math.sqrt(draws)
        return Estimate(mean, *np.clip([mean - half, mean + half], 0.0, 1.0).tolist())

    def over_texts(self) -> Estimate:
        """Mean accuracy and its 95 % bootstrap interval over the test texts, the draws given."""
        return bootstrap_mean(self.correct.mean(axis=0))


def evaluate_classification(
    encoder: Any,
    train: LabelledTexts,
    test: LabelledTexts,
    *,
    classifiers: Sequence[str] = ("centroid",),
    examples_per_class: int = 8,
    draws: int = 10,
    seed: int = 0,
    **options: Any,
) -> dict[str, ClassificationResult]:
    """Classify test texts by a few training texts of each class, on frozen vectors, in several draws.

    Parameters
    ----------
    encoder : SentenceEncoder, or anything whose ``encode(list of str)`` gives ``(B, D)``
    train : LabelledTexts
        Examples are drawn from it; at least two classes.
    test : LabelledTexts
    classifiers : sequence of str
        Of :data:`CLASSIFIERS`; all see the same draws.
    examples_per_class : int
        Drawn without replacement in each draw.
    draws, seed : int
        Seed and training set determine the draws, whatever the model.
    **options
        Of ``encode``: ``show_progress_bar``, ``prompt``, ``num_threads``, ...

    Returns
    -------
    dict of str to ClassificationResult
        By classifier.

    Raises
    ------
    ValueError
        For a class with fewer texts than ``examples_per_class``, a label that only the test set has, a single class.

    Notes
    -----
    **Source**: Muennighoff et al. 2023 (MTEB), section 3.2, "Classification"; ``mteb``'s ``AbsTaskClassification`` with
    ``samples_per_label=8, n_experiments=10``. As there, all training texts are shuffled and the first of each class
    kept, and the test set is whole. MTEB reshuffles the previous draw's order with its own seed, so its draws differ
    from ours, equally likely; of a class with too few texts it silently takes all; and it reports no interval.

    Examples
    --------
    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[1 + s.count("a"), 1 + s.count("e")] for s in sentences])
    >>> train = LabelledTexts("train", ["banana", "alabama", "beetle", "eve"], ["a", "a", "e", "e"])
    >>> test = LabelledTexts("test", ["papaya", "degree", "bread"], ["a", "e", "a"])
    >>> result = evaluate_classification(Letters(), train, test, examples_per_class=2, draws=3)["centroid"]
    >>> result.correct[0], float(result.correct.mean())
    (array([ True,  True, False]), 0.6666666666666666)
    """
    unknown = [name for name in classifiers if name not in CLASSIFIERS]
    if isinstance(classifiers, str) or unknown or not classifiers:
        raise ValueError(
            f"evaluate_classification: classifiers must be a sequence of {', '.join(CLASSIFIERS)}, got {classifiers!r}"
        )
    check_whole("evaluate_classification: examples_per_class", examples_per_class, 1)
    check_whole("evaluate_classification: draws", draws, 1)
    if "logistic" in classifiers:
        require("sklearn", "apps", "logistic regression")
    names = class_names(train.name, train.labels)
    classes, expected = numbered_labels(train, names), numbered_labels(test, names)  # (M,), (B,)
    few = [name for name, count in zip(names, np.bincount(classes), strict=True) if count < examples_per_class]
    if few:
        raise ValueError(
            f"{train.name}: cannot draw {examples_per_class} examples per class: {listed(few)} have fewer texts; draw "
            "fewer per class (examples_per_class), or add texts"
        )
    rng = np.random.default_rng(seed)
    drawn = np.stack([draw_examples(classes, examples_per_class, rng) for _ in range(draws)])  # (R, E)
    needed, numbers = distinct([*(train.texts[i] for i in drawn.ravel()), *test.texts])  # each is encoded once
    found = check_vectors(encoder.encode(needed, **options), "evaluate_classification: vectors", rows=len(needed))
    examples, queries = np.split(found[numbers], [drawn.size])  # (R E, D), (B, D)
    known = set(train.texts)
    repeated = sum(text in known for text in test.texts)
    results = {}
    for name in classifiers:
        learners = zip(np.split(examples, draws), classes[drawn], strict=True)  # (E, D), (E,) of each draw
        predicted = np.array([CLASSIFIERS[name](vectors, own, queries) for vectors, own in learners])  # (R, B)
        scores = np.array([macro_f1(expected, classes_of_draw) for classes_of_draw in predicted])
        results[name] = ClassificationResult(names, repeated, drawn, predicted == expected, scores)
    return results


def class_names(name: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The classes among labels, sorted; ValueError, naming the set, if there is only one."""
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise ValueError(f"{name}: all {len(labels):,} texts belong to one class, {names[0]!r:.40}: nothing to learn")
    return names


def numbered_labels(data: LabelledTexts, classes: Sequence[str]) -> Array:
    """Labels as numbers of classes, (B,); ValueError for a label that is none of them."""
    number = {label: c for c, label in enumerate(classes)}
    unknown = Counter(label for label in data.labels if label not in number)
    if unknown:
        raise ValueError(
            f"{data.name}: {len(unknown)} labels are not known: {listed(unknown)}, on {unknown.total():,} texts; known "
            f"are {listed(classes)}; is it the right column of labels, and are they spelled the same?"
        )
    return np.array([number[label] for label in data.labels])


def listed(names: Iterable[str]) -> str:
    """A few names, for messages."""
    shown = [f"{name!r:.40}" for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def draw_examples(classes: Array, examples_per_class: int, rng: np.random.Generator) -> Array:
    """Draw equally many examples per class without replacement: shuffle all, keep the first of each class.

    (M,) -> (E,)
    """
    shuffled = rng.permutation(len(classes))  # (M,)
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]  # (M,)
    _, first = np.unique(classes[by_class], return_index=True)  # (C,)
    return by_class[np.add.outer(first, np.arange(examples_per_class)).ravel()]
