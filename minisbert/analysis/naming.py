"""What is a cluster about? Its most typical texts, and the words it has more of than the others.

Typical texts are those nearest to the cluster's centroid. Words are chosen by counting (class-based TF-IDF,
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

from minisbert.analysis.maps import unit_rows
from minisbert.checks import check_whole, each_text, require
from minisbert.model import Array

NAME_WORDS = 3
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
    typical: int = 3,
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
        How many per cluster, at most; at least 1.
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
    unit = unit_rows(vectors, "name_clusters: vectors")
    groups = checked_ids("name_clusters", ids, len(unit))
    texts = list(each_text(texts, "name_clusters: texts"))
    if len(texts) != len(unit):
        raise ValueError(
            f"name_clusters: expected as many texts as vectors, got {len(texts):,} and {len(unit):,}; do they belong "
            "to the same file?"
        )
    if isinstance(stop_words, str) and stop_words != "english":
        raise ValueError(f"name_clusters: stop_words must be 'english', a list of words, or None, got {stop_words!r}")
    words, typical = check_whole("name_clusters: words", words, 1), check_whole("name_clusters: typical", typical, 1)
    require("sklearn", "apps", "naming clusters")
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

    left_out = ENGLISH_STOP_WORDS if isinstance(stop_words, str) else frozenset(stop_words or ())
    members = [np.flatnonzero(groups == c) for c in range(int(groups.max(initial=-1)) + 1)]
    found = [[word for row in rows for word in find_words(texts[row]) if word not in left_out] for rows in members]
    vocabulary, weights = np.zeros(0, str), np.zeros((len(members), 0))
    if any(found):
        vectorizer = CountVectorizer(analyzer=lambda words: words)  # they are found already
        weights = class_tf_idf(vectorizer.fit_transform(found).toarray())  # (C, W)
        vocabulary = vectorizer.get_feature_names_out()  # in alphabetical order
    names = []
    for rows, own in zip(members, weights, strict=True):
        heavy: dict[str, str] = {}  # one of singular and plural, the heavier
        for i in np.argsort(-own, kind="stable")[: np.count_nonzero(own)]:
            heavy.setdefault(str(vocabulary[i]).removesuffix("s"), str(vocabulary[i]))
            if len(heavy) == words:
                break
        vectors_of = unit[rows].astype(np.float64)
        nearness = vectors_of @ vectors_of.mean(axis=0) if len(rows) else np.zeros(0)
        near: dict[str, int] = {}  # one of equal texts; equal vectors are equally near, but for rounding
        for row in rows[np.argsort(-np.round(nearness, 9), kind="stable")].tolist():
            near.setdefault(" ".join(texts[row].split()), row)
            if len(near) == typical:
                break
        line = next(iter(near), "")
        beginning = line if len(line) <= LETTERS else f"{line[: LETTERS - 1].rstrip()}…"
        title = ", ".join(list(heavy.values())[:NAME_WORDS]) or beginning or "(empty)"
        names.append(ClusterName(tuple(heavy.values()), tuple(near.values()), title))
    return names


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
