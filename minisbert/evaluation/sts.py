"""Semantic textual similarity: does the model rank sentence pairs as people do?

A set is pairs of sentences with human scores, such as 0 (unrelated) to 5 (the same). The model's similarities are
correlated with them, times 100.

**Protocol.** One correlation over all pairs of a set ("all" in the literature), as in Reimers & Gurevych 2019 and MTEB.
A set of several parts, such as the five of STS12, is pooled; the mean of the parts' correlations is another number. The
scale of the scores does not matter, so they are never rescaled.

Letters: ``B`` pairs, ``D`` width of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minisbert.checks import each_text
from minisbert.evaluation.correlation import pearson, spearman
from minisbert.model import Array
from minisbert.similarity import (
    pairwise_angular_distance,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
)
from minisbert.tables import MEANINGS, InputError, checked_number, read_table

PROTOCOL = "one correlation over all pairs of a set, x 100; each distinct sentence is encoded once"
"""Printed below every table."""

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan", "angular")
"""Correlated with the scores; distances are negated, so that larger is closer."""


class Encodes(Protocol):
    """Anything that turns texts into vectors: a `SentenceEncoder`, or your own."""

    @property
    def encode(self) -> Callable[..., Any]:
        """An array (B, D) for a list of B texts."""
        ...


@dataclass(frozen=True, eq=False)
class StsPairs:
    """B pairs of sentences with human scores on any scale, larger for more similar and not all equal.

    >>> StsPairs("tiny", ["a cat", "a cat"], ["one cat", "tea"], np.array([5.0, 0.0])).scores
    array([5., 0.])
    """

    name: str
    sentences1: Sequence[str]
    sentences2: Sequence[str]
    scores: Array  # (B,)

    def __post_init__(self) -> None:
        for side in ("sentences1", "sentences2"):
            object.__setattr__(self, side, list(each_text(getattr(self, side), f"{self.name}: {side}")))
        counts = (len(self.scores), len(self.sentences1), len(self.sentences2))
        if len(set(counts)) > 1:
            raise ValueError(
                f"{self.name}: scores, sentences1 and sentences2 must have the same length, got {counts[0]:,}, "
                f"{counts[1]:,} and {counts[2]:,}"
            )
        try:
            pearson(self.scores, self.scores)  # raises if no correlation exists, before hours of work
        except ValueError as error:
            raise ValueError(f"{self.name}: the scores: {error}") from None


@dataclass(frozen=True)
class StsResult:
    """The correlations of a set, x 100, by similarity."""

    name: str
    pairs: int
    sentences: int  # distinct
    spearman: Mapping[str, float]
    pearson: Mapping[str, float]
    protocol: str = PROTOCOL


def read_sts(
    files: str | Path | Sequence[str | Path],
    *,
    name: str | None = None,
    columns: Sequence[str] | None = None,
    scale: tuple[float, float] | None = None,
    has_header: bool = True,
    **reading: Any,
) -> StsPairs:
    r"""Read pairs of sentences and their scores from a file, or from several that form one set.

    Parameters
    ----------
    files : str, path, or sequence of them
        Tables that `minisbert.tables.read_table` reads; several are concatenated. Rows without a sentence are skipped,
        and counted in a warning.
    name : str, optional
        By default the first file's.
    columns : sequence of three str, optional
        Score, first and second sentence: names, or numbers from "1". By default the first of
        `minisbert.tables.MEANINGS` in a file.
    scale : (low, high), optional
        A score outside is an error: the usual sign of a wrong column.
    has_header : bool
        Without a header, ``columns`` must be numbers.
    **reading
        Of `read_table`: ``input_format``, ``delimiter``, ``quoting``.

    Raises
    ------
    InputError
        A ValueError that names file and line: a score that is not a number or off the scale, rows of
        unequal length, a missing column, no rows.
    ValueError
        If all scores are the same.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "pairs.csv"
    >>> _ = file.write_text("label,text1,text2\n5,a cat,one cat\n0.5,a cat,tea\n")
    >>> pairs = read_sts(file, scale=(0, 5))
    >>> pairs.name, pairs.scores, pairs.sentences2
    ('pairs.csv', array([5. , 0.5]), ['one cat', 'tea'])
    """
    listed = [files] if isinstance(files, (str, Path)) else list(files)
    if not listed:
        raise ValueError("read_sts: no files given")
    if columns is not None and (isinstance(columns, str) or len(columns) != 3):
        raise ValueError(f"read_sts: columns must be three, score, first and second sentence; got {columns!r}")
    if scale is not None and not -math.inf < scale[0] < scale[1] < math.inf:
        raise ValueError(f"read_sts: scale must be (low, high) with low < high, got {scale!r}")
    if columns is None and not has_header:
        raise ValueError(
            f"{listed[0]}: without a header row, give the columns of score, first and second sentence by number"
        )
    scores: list[float] = []
    sentences: tuple[list[str], list[str]] = ([], [])
    usual = {"score": (*MEANINGS["score"], "label"), "sentence1": (), "sentence2": ()}
    for file in listed:
        table = read_table(file, has_header=has_header, **reading)
        chosen = [
            table.find(meaning, name, names, hint="give the columns of score, first and second sentence")
            for (meaning, names), name in zip(usual.items(), columns or (None, None, None), strict=True)
        ]
        before = len(scores)
        for line, (score, *texts) in table.pick(chosen, filled=chosen[1:]):
            scores.append(_checked_score(score, chosen[0], scale, table.where(line)))
            for text, side in zip(texts, sentences, strict=True):
                side.append(text)
        if len(scores) == before:
            raise InputError(f"{file}: no pairs of sentences: the file has no rows")
    return StsPairs(name or Path(listed[0]).name, *sentences, np.array(scores))


def _checked_score(score: object, column: str, scale: tuple[float, float] | None, where: str) -> float:
    """A score as a number on the scale."""
    value = checked_number(score, f"the score in column {column!r}", where)
    if scale is not None and not scale[0] <= value <= scale[1]:
        raise InputError(
            f"{where}: the score {value:g} is outside the scale from {scale[0]:g} to {scale[1]:g}; "
            f"are the column {column!r} and the scale right?"
        )
    return value


def evaluate_sts(encoder: Encodes, pairs: StsPairs, **options: Any) -> StsResult:
    """Correlate a model's similarities with human scores.

    Parameters
    ----------
    encoder : SentenceEncoder, or anything whose ``encode(list of str)`` gives ``(B, D)``
    pairs : StsPairs
        From :func:`read_sts`.
    **options
        Of ``encode``: ``show_progress_bar``, ``prompt``, ``num_threads``, ...

    Returns
    -------
    StsResult
        Spearman and Pearson x 100, in [-100, 100], of each of :data:`SIMILARITIES`.

    Raises
    ------
    ValueError
        If the vectors are all the same, so that no correlation exists, or have no direction.

    Notes
    -----
    **Source**: Reimers & Gurevych 2019, section 4.1; ``sentence_transformers.evaluation.EmbeddingSimilarityEvaluator``.
    Similarities are computed in float64 from the vectors as they are: for vectors of length 1 all but Manhattan rank
    alike, up to ties.

    Examples
    --------
    >>> class Letters:
    ...     def encode(self, sentences):
    ...         return np.array([[len(s), s.count("e")] for s in sentences])
    >>> pairs = StsPairs("tiny", ["tea", "tea", "soup"], ["tea", "bee", "free"], [5, 2, 1])
    >>> round(evaluate_sts(Letters(), pairs).spearman["cosine"], 1)
    100.0
    """
    distinct = list(dict.fromkeys([*pairs.sentences1, *pairs.sentences2]))
    row = {sentence: i for i, sentence in enumerate(distinct)}
    vectors = np.asarray(encoder.encode(distinct, **options), dtype=np.float64)  # (M, D)
    if vectors.ndim != 2 or len(vectors) != len(distinct):
        raise ValueError(
            f"evaluate_sts: encode must return one vector per text, ({len(distinct)}, D), got {vectors.shape}"
        )
    similarities = pair_similarities(
        vectors[[row[sentence] for sentence in pairs.sentences1]],
        vectors[[row[sentence] for sentence in pairs.sentences2]],
    )
    correlations: dict[str, dict[str, float]] = {"spearman": {}, "pearson": {}}
    for name, values in similarities.items():
        try:
            correlations["spearman"][name] = 100 * spearman(values, pairs.scores)
            correlations["pearson"][name] = 100 * pearson(values, pairs.scores)
        except ValueError as error:
            raise ValueError(f"{pairs.name}, {name} similarity: {error}") from None
    return StsResult(pairs.name, len(pairs.scores), len(distinct), correlations["spearman"], correlations["pearson"])


def pair_similarities(a: Array, b: Array) -> dict[str, Array]:
    """Every similarity of `SIMILARITIES` between row i of a and row i of b, larger is closer.

    >>> found = pair_similarities(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    >>> {name: round(float(values[0]), 3) for name, values in found.items()}
    {'cosine': 0.0, 'dot': 0.0, 'euclidean': -1.414, 'manhattan': -2.0, 'angular': -0.5}
    """
    return {
        "cosine": pair_cosines(a, b),
        "dot": pairwise_dot_score(a, b),
        "euclidean": pairwise_euclidean_sim(a, b),
        "manhattan": pairwise_manhattan_sim(a, b),
        "angular": -pairwise_angular_distance(a, b),
    }


def pair_cosines(a: Array, b: Array) -> Array:
    """Cosine of row ``i`` of ``a`` with row ``i`` of ``b``; exactly 1 for equal rows, so that they tie.

    (B, D), (B, D) -> (B,)

    In ``pairwise_cos_sim`` rounding gives 0.9999999999999999 to some equal rows and 1 to others, and so ranks pairs
    that are equal.
    """
    return np.where(np.all(a == b, axis=1), 1.0, pairwise_cos_sim(a, b))
