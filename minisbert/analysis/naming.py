"""What is a cluster about? Its most typical texts, and the words it has more of than the others.

Typical texts are those nearest to the cluster's centroid. Words are chosen by counting (c-TF-IDF,
:func:`class_tf_idf`): lower case, letters and digits, two characters or more, without contractions ("don't", "I'm") and
scikit-learn's English stop words. Chinese, Japanese and Korean have no spaces between words; there every two adjacent
characters count as one. Letters: ``M`` texts, ``D`` width of a vector, ``C`` clusters, ``W`` words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from minisbert.analysis.maps import require_sklearn, unit_rows
from minisbert.checks import each_text
from minisbert.model import Array

TYPICAL_TEXTS, NAME_WORDS = 3, 3
LETTERS = 30  # of a text that stands in for missing words
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_CONTRACTION = re.compile(r"n['’]t$|['’](?:m|re|ve|ll|d)$")
_NO_BLANKS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+")


@dataclass(frozen=True)
class ClusterName:
    """What a cluster is about."""

    words: tuple[str, ...]  # the highest weight first; none if all are stop words
    typical: tuple[int, ...]  # rows, the nearest to the centroid first
    title: str  # the first words, or else the beginning of the most typical text


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each text, and the groups' names; for colours on a map.

    ``ids`` (M,) count from 0, -1 is none; there is a name for each. ``kind`` is what a group is, in one word, for
    captions.

    >>> Groups([0, 0, 1, -1], ["soup", "cat"], "cluster").sizes
    array([2, 1])
    """

    ids: Array  # (M,) intp
    names: Sequence[str]
    kind: str = "label"

    def __post_init__(self) -> None:
        ids = checked_ids("Groups", self.ids, len(self.ids))
        if int(ids.max(initial=-1)) >= len(self.names):
            raise ValueError(f"Groups: {len(self.names):,} names for {int(ids.max()) + 1:,} groups; give one per group")
        object.__setattr__(self, "ids", ids)

    @property
    def sizes(self) -> Array:
        """Texts in each group: (C,)."""
        return np.bincount(self.ids[self.ids >= 0], minlength=len(self.names))

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Groups:
        """One group per label, the largest first, ties in alphabetical order."""
        counts = Counter(labels)
        names = sorted(counts, key=lambda name: (-counts[name], name))
        number = {name: i for i, name in enumerate(names)}
        return cls(np.array([number[label] for label in labels], np.intp), names, "label")


def name_clusters(
    texts: Sequence[str],
    vectors: ArrayLike,
    ids: ArrayLike,
    *,
    words: int = 5,
    typical: int = TYPICAL_TEXTS,
    stop_words: str | Sequence[str] | None = "english",
) -> list[ClusterName]:
    """Label each cluster by its typical words and texts.

    Parameters
    ----------
    texts : sequence of str
        ``M`` of them.
    vectors : array_like, shape (M, D)
    ids : array_like, shape (M,)
        The cluster of each text, from 0; -1 is none.
    words, typical : int
        How many per cluster, at most.
    stop_words : "english", sequence of str, or None
        Words to leave out.

    Returns
    -------
    list of ClusterName
        Of clusters 0 to C - 1.

    Raises
    ------
    ValueError
        For sequences of different lengths, invalid ids, vectors with NaN or rows of zeros, and without scikit-learn.

    Examples
    --------
    >>> texts, vectors = ["hot soup", "soup", "a cat"], [[1.0, 0.2], [1.0, 0.1], [0.0, 1.0]]
    >>> [name.title for name in name_clusters(texts, vectors, [0, 0, 1])]
    ['soup, hot', 'cat']
    """
    unit = unit_rows("name_clusters", vectors)
    groups = checked_ids("name_clusters", ids, len(unit))
    texts = list(each_text(texts, "name_clusters: texts"))
    if len(texts) != len(unit):
        raise ValueError(
            f"name_clusters: expected as many texts as vectors, got {len(texts):,} and {len(unit):,}; do they belong "
            "to the same file?"
        )
    heaviest = typical_words(texts, groups, words, stop_words=stop_words)
    nearest = typical_texts(texts, unit, groups, typical)
    return [
        ClusterName(of_group, rows, ", ".join(of_group[:NAME_WORDS]) or _beginning(texts[rows[0]] if rows else ""))
        for of_group, rows in zip(heaviest, nearest, strict=True)
    ]


def checked_ids(function: str, ids: ArrayLike, count: int) -> Array:
    """Cluster ids as intp, (M,) -> (M,); ValueError unless they are ``count`` integers from -1."""
    groups = np.asarray(ids)
    if groups.shape != (count,) or groups.dtype.kind not in "iu" or (count and int(groups.min()) < -1):
        raise ValueError(
            f"{function}: ids must be {count:,} whole numbers from -1 (no group), one for each text, got "
            f"{groups.dtype} of shape {groups.shape}"
        )
    return groups.astype(np.intp)


def find_words(text: str) -> list[str]:
    """The words of a text that are counted.

    **Source**: as ``sklearn.feature_extraction.text.CountVectorizer``, except for contractions, of which that keeps
    "don" and "ve", and for pairs of characters, as in Lucene's ``CJKAnalyzer``.

    >>> find_words("I don't like Anna's soup at 5:30, 東京都!")
    ['like', 'anna', 'soup', 'at', '30', '東京', '京都']
    """
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if _CONTRACTION.search(word):
            continue
        for run in _NO_BLANKS.findall(word):
            found += [run[i : i + 2] for i in range(max(1, len(run) - 1))]
        found += [part for part in _NO_BLANKS.sub(" ", re.split("['’]", word)[0]).split() if len(part) > 1]
    return found


def class_tf_idf(counts: ArrayLike) -> Array:
    """``weight(t, c) = n(t, c) / sum_t n(t, c) * log(1 + A / n(t))``: frequent in this cluster, rare elsewhere.

    (C, W) -> (C, W)

    ``n(t, c)`` counts word ``t`` in cluster ``c``, ``n(t)`` in all; ``A`` is the mean number of words of a cluster.
    Zeros for an empty cluster and an unused word. **Source**: Grootendorst 2022 (BERTopic), section 3.3;
    ``bertopic.vectorizers.ClassTfidfTransformer``, which rounds ``A`` to an integer.

    >>> class_tf_idf([[3, 1], [0, 4]]).round(2)
    array([[0.64, 0.15],
           [0.  , 0.59]])
    """
    n = np.asarray(counts, np.float64)
    of_group = n.sum(axis=1, keepdims=True)  # (C, 1)
    of_word = n.sum(axis=0)  # (W,)
    share = n / np.maximum(of_group, 1.0)
    return share * np.log1p(float(of_group.mean()) / np.maximum(of_word, 1.0))


def typical_words(
    texts: Sequence[str],
    ids: Array,
    count: int = 5,
    *,
    stop_words: str | Sequence[str] | None = "english",
) -> list[tuple[str, ...]]:
    """The highest-weighted words of each cluster (M ids), ties in alphabetical order, one of singular and plural."""
    require_sklearn("naming clusters")
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

    if isinstance(stop_words, str) and stop_words != "english":
        raise ValueError(f"typical_words: stop_words must be 'english', a list of words, or None, got {stop_words!r}")
    left_out = ENGLISH_STOP_WORDS if isinstance(stop_words, str) else frozenset(stop_words or ())
    groups = int(ids.max(initial=-1)) + 1
    kept = np.flatnonzero(ids >= 0)

    def analyse(row: int) -> list[str]:
        return [word for word in find_words(texts[row]) if word not in left_out]

    if not any(analyse(row) for row in kept.tolist()):  # CountVectorizer raises for that
        return [()] * groups
    vectorizer = CountVectorizer(analyzer=analyse)
    table = vectorizer.fit_transform(kept.tolist()).tocsr()  # (kept, W) sparse, columns in alphabetical order
    names = vectorizer.get_feature_names_out()
    counts = np.stack([np.asarray(table[ids[kept] == c].sum(axis=0)).ravel() for c in range(groups)])
    return [_heaviest(names, weights, count) for weights in class_tf_idf(counts)]


def _heaviest(names: Array, weights: Array, count: int) -> tuple[str, ...]:
    """The words with the highest weights, one of singular and plural."""
    chosen: dict[str, str] = {}
    for i in np.argsort(-weights, kind="stable"):
        if weights[i] <= 0 or len(chosen) == count:
            break
        word = str(names[i])
        chosen.setdefault(word.removesuffix("s"), word)
    return tuple(chosen.values())


def typical_texts(texts: Sequence[str], unit: Array, ids: Array, count: int = TYPICAL_TEXTS) -> list[tuple[int, ...]]:
    """Rows of the distinct texts nearest to each cluster's centroid, ties by row; ``unit`` (M, D) has rows of length 1.

    >>> unit = np.array([[1.0, 0.0], [0.8, 0.6], [0.8, 0.6], [0.0, 1.0]])
    >>> typical_texts(["soup", "hot soup", "hot soup", "cat"], unit, np.array([0, 0, 0, 1]), 2)
    [(1, 0), (3,)]
    """
    found = []
    for c in range(int(ids.max(initial=-1)) + 1):
        rows = np.flatnonzero(ids == c)
        members = unit[rows].astype(np.float64)
        # equal vectors are equally near, but for rounding
        nearness = np.round(members @ members.mean(axis=0), 9) if len(rows) else np.zeros(0)
        chosen: dict[str, int] = {}
        for i in np.argsort(-nearness, kind="stable"):
            if len(chosen) == count:
                break
            row = int(rows[i])
            chosen.setdefault(" ".join(texts[row].split()), row)
        found.append(tuple(chosen.values()))
    return found


def _beginning(text: str) -> str:
    """The beginning of a text, as a title."""
    line = " ".join(text.split())
    return (line if len(line) <= LETTERS else f"{line[: LETTERS - 1].rstrip()}…") or "(empty)"
