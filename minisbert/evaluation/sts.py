"""Semantic textual similarity: does the model rank sentence pairs as people do?

A set is pairs of sentences with human scores, such as 0 (unrelated) to 5 (the same). The model's similarities are
correlated with them, times 100. Pearson asks how close the relation is to a straight line; Spearman only whether both
rank the pairs alike, which is what a model is used for and what the field's tables report.

**Protocol.** One correlation over all pairs of a set ("all" in the literature), as in Reimers & Gurevych 2019 and MTEB.
A set of several parts, such as the five of STS12, is pooled; the mean of the parts' correlations is another number. The
scale of the scores does not matter, so they are never rescaled.

Letters: ``B`` pairs, ``M`` distinct sentences, ``N`` tokens in the strip, ``D`` width of a vector, ``L`` layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import check_vectors, each_text
from minisbert.encoder import SentenceEncoder
from minisbert.model import Array
from minisbert.model.bert import embed, layer
from minisbert.model.pooling import POOLINGS, Pooling
from minisbert.parallel import in_batches
from minisbert.similarity import (
    pairwise_angular_distance,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
)
from minisbert.tables import MEANINGS, InputError, checked_number, read_columns

PROTOCOL = "one correlation over all pairs of a set, x 100; each distinct sentence is encoded once"
"""Printed below every table."""

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan", "angular")
"""Correlated with the scores; distances are negated, so that larger is closer."""

_ROUNDING = 1e-6  # cosines of float32 vectors within this are equal


# ------------------------------------------------------------------------------------------------- correlations


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation: how close the points (x, y) come to a straight line.

    ``r = sum_i (x_i - mean(x)) (y_i - mean(y)) / (|x - mean(x)| |y - mean(y)|)``, the cosine of the centred lists

    Parameters
    ----------
    x, y : array_like, shape (B,)
        Finite numbers, at least 2, and not all the same, as the formula divides by their spread; else ValueError.

    Returns
    -------
    float
        In [-1, 1]: 1 rising line, 0 no linear relation, -1 falling line.

    Notes
    -----
    **Source**: Pearson 1895; ``scipy.stats.pearsonr(x, y).statistic``.

    Examples
    --------
    >>> round(pearson([1, 2, 3, 4], [1, 3, 2, 4]), 12)
    0.8
    """
    return _pearson(*_two_lists("pearson", x, y))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's correlation: how similarly two lists rank their members.

    ``rho = pearson(rank(x), rank(y))``, with :func:`rank`'s average ranks for ties

    No increasing function of a list changes it. The textbook's ``1 - 6 sum d^2 / (B^3 - B)`` is wrong with ties, and
    gold scores are full of ties. **Source**: Spearman 1904; ``scipy.stats.spearmanr(x, y).statistic``. Reimers &
    Gurevych 2019, section 4, and MTEB report it for the cosine, times 100.

    Parameters
    ----------
    x, y : array_like, shape (B,)
        As in `pearson`, as are result and errors: 1 is the same order, -1 the reversed one.

    Examples
    --------
    >>> spearman([1, 2, 3], [10, 100, 1000])
    1.0
    >>> round(spearman([1, 2, 2, 3], [1, 2, 3, 4]), 6)  # ranks 1, 2.5, 2.5, 4
    0.948683
    """
    left, right = _two_lists("spearman", x, y)
    return _pearson(rank(left), rank(right))


def rank(x: ArrayLike) -> Array:
    """Ranks from 1, the smallest, to B; ties share the average of their ranks.

    (B,) -> (B,)

    **Source**: ``scipy.stats.rankdata(x, method="average")``.

    >>> rank([30, 10, 20, 20])
    array([4. , 1. , 2.5, 2.5])
    """
    _, place, count = np.unique(_as_numbers("rank", "x", x), return_inverse=True, return_counts=True)
    last = np.cumsum(count)  # the highest rank in each group of ties
    return (last - (count - 1) / 2)[place]


def _pearson(x: Array, y: Array) -> float:
    """The cosine of the centred lists, of entries scaled to at most 1, so that no square overflows or underflows."""
    left, right = (numbers / np.abs(numbers).max() for numbers in (x, y))
    left, right = left - left.mean(), right - right.mean()
    return float(np.clip(left @ right / np.sqrt(left @ left * (right @ right)), -1.0, 1.0))


def _two_lists(function: str, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Both lists as float64 (B,); raise if they have no correlation."""
    left, right = _as_numbers(function, "x", x), _as_numbers(function, "y", y)
    if len(left) != len(right) or len(left) < 2:
        raise ValueError(
            f"{function}: x (B,) and y (B,) must have the same length, at least 2, got {len(left):,} and "
            f"{len(right):,}; does one of them lack a row, or include the header?"
        )
    for name, numbers in (("x", left), ("y", right)):
        if numbers.min() == numbers.max():
            raise ValueError(
                f"{function}: no correlation exists, because {name} is constant: all {len(numbers):,} numbers are "
                f"{numbers[0]:g}, and the formula divides by their spread; is it the right column?"
            )
    return left, right


def _as_numbers(function: str, name: str, x: ArrayLike) -> Array:
    """A list as float64 (B,), all finite."""
    given = np.asarray(x)
    if given.ndim != 1 or given.dtype.kind not in "fiub" or not np.isfinite(given).all():
        nan = " with NaN or infinity: a missing score? drop its row" if given.dtype.kind == "f" else ""
        raise ValueError(
            f"{function}: {name} must be (B,) finite numbers, got {given.dtype} of shape {given.shape}{nan}"
        )
    return given.astype(np.float64)


# --------------------------------------------------------------------------------------------------------- sets


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
        _two_lists(f"{self.name}: the scores", self.scores, self.scores)  # raises before hours of work


@dataclass(frozen=True)
class StsResult:
    """The correlations of a set, x 100, by similarity."""

    name: str
    pairs: int
    sentences: int  # distinct
    spearman: Mapping[str, float]
    pearson: Mapping[str, float]


def read_sts(
    files: str | Path | Sequence[str | Path],
    *,
    name: str | None = None,
    columns: Sequence[str] | None = None,
    scale: tuple[float, float] | None = None,
    **reading: Any,
) -> StsPairs:
    r"""Read pairs of sentences and their scores from a table, or from several that form one set.

    ``columns`` are score, first and second sentence: names, or numbers from "1"; by default the usual names. A score
    outside of ``scale`` is an error: the usual sign of a wrong column. Rows without a sentence are skipped, and counted
    in a warning. ``name`` is by default the first file's; ``reading`` is of :func:`~minisbert.tables.read_table`.
    InputError, a ValueError, names file and line of a mistake.

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
    rows: list[tuple[float, str, str]] = []
    usual = {"score": (*MEANINGS["score"], "label"), "sentence1": (), "sentence2": ()}
    for file in listed:
        table, chosen = read_columns(file, usual, columns, **reading)
        before = len(rows)
        for line, (said, sentence1, sentence2) in table.pick(chosen, filled=chosen[1:]):
            score = checked_number(said, f"the score in column {chosen[0]!r}", table.where(line))
            if scale is not None and not scale[0] <= score <= scale[1]:
                raise InputError(
                    f"{table.where(line)}: the score {score:g} is outside the scale from {scale[0]:g} to {scale[1]:g}; "
                    f"are the column {chosen[0]!r} and the scale right?"
                )
            rows.append((score, sentence1, sentence2))
        if len(rows) == before:
            raise InputError(f"{file}: no pairs of sentences: the file has no rows")
    scores, sentences1, sentences2 = zip(*rows, strict=True)
    return StsPairs(name or Path(listed[0]).name, sentences1, sentences2, np.array(scores))


# --------------------------------------------------------------------------------------------------- evaluation


def evaluate_sts(encoder: Any, pairs: StsPairs, **options: Any) -> StsResult:
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
        Spearman and Pearson x 100, in [-100, 100], of each of :data:`SIMILARITIES`; ValueError where none exists.

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
    sentences, numbers = distinct([*pairs.sentences1, *pairs.sentences2])
    found = check_vectors(encoder.encode(sentences, **options), "evaluate_sts: vectors", rows=len(sentences))
    a, b = np.split(found.astype(np.float64)[numbers], 2)  # (B, D)
    similarities = {
        "cosine": pair_cosines(a, b),
        "dot": pairwise_dot_score(a, b),
        "euclidean": pairwise_euclidean_sim(a, b),
        "manhattan": pairwise_manhattan_sim(a, b),
        "angular": -pairwise_angular_distance(a, b),
    }  # (B,) each
    try:
        ranked = {name: 100 * spearman(values, pairs.scores) for name, values in similarities.items()}
        linear = {name: 100 * pearson(values, pairs.scores) for name, values in similarities.items()}
    except ValueError as error:
        raise ValueError(f"{pairs.name}: the similarities: {error}") from None
    return StsResult(pairs.name, len(pairs.scores), len(sentences), ranked, linear)


def distinct(texts: Sequence[str]) -> tuple[list[str], Array]:
    """Distinct texts in the order of their first, and each text's number among them: (B,) -> M texts, (B,)

    >>> distinct(["soup", "tea", "soup"])
    (['soup', 'tea'], array([0, 1, 0]))
    """
    number: dict[str, int] = {}
    numbers = np.array([number.setdefault(text, len(number)) for text in texts])
    return list(number), numbers


def pair_cosines(a: Array, b: Array) -> Array:
    """Cosine of row ``i`` of ``a`` with row ``i`` of ``b``; exactly 1 for equal rows, so that they tie.

    (B, D), (B, D) -> (B,)

    In ``pairwise_cos_sim`` rounding gives 0.9999999999999999 to some equal rows and 1 to others, and so ranks pairs
    that are equal.
    """
    return np.where(np.all(a == b, axis=1), 1.0, pairwise_cos_sim(a, b))


# ------------------------------------------------------------------------------------------------------- layers


@dataclass(frozen=True, eq=False)
class LayerScores:
    """Spearman x 100 of the cosine by layer and pooling; NaN where no correlation exists."""

    name: str
    pairs: int
    poolings: tuple[str, ...]
    values: Array  # (L + 1, len(poolings)) float64
    own: tuple[int, int] | None  # the model's own layer and pooling; None for a concatenation


def layer_scores(
    encoder: SentenceEncoder,
    pairs: StsPairs,
    *,
    num_threads: int | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> LayerScores:
    """Score every hidden state under every pooling; ``progress`` receives the number of texts done, batch by batch.

    NaN where all pairs have the same similarity: ``cls`` of layer 0, because [CLS] at position 0 is the same vector in
    every text before attention. ``mean`` and ``mean_sqrt_len_tokens`` are equal: they differ in length only.

    **Source**: Reimers & Gurevych 2019, section 6 (poolings); ``BertModel(..., output_hidden_states=True)`` with
    ``sentence_transformers``' ``Pooling`` on each.

    >>> texts = ["a cat sleeps", "stocks fell", "he cooks rice"], ["the cat is asleep", "shares lost", "a dog barks"]
    >>> found = layer_scores(SentenceEncoder(), StsPairs("tiny", *texts, np.array([5.0, 4.0, 0.0])))
    >>> found.values.shape, found.own
    ((7, 6), (6, 2))
    """
    sentences, numbers = distinct([*pairs.sentences1, *pairs.sentences2])
    model = encoder.model
    prefix = model.prompts[model.default_prompt_name] if model.default_prompt_name is not None else ""
    tokens = encoder.tokenize(prefix + text for text in sentences)
    ids, lengths = tokens.split(), tokens.lengths
    shape = (len(model.params.layers) + 1, len(POOLINGS), len(sentences), model.config.hidden_size)
    pooled = np.empty(shape, encoder.dtype)  # only one vector a text, layer and pooling is held

    def work(batch: Array) -> Array:
        strip, of = np.concatenate([ids[i] for i in batch]), lengths[batch]
        hidden = embed(strip, of, model.params.embeddings, model.config.layer_norm_eps).output  # (N, D)
        for place in range(len(pooled)):
            if place:
                hidden = layer(hidden, of, model.params.layers[place - 1], model.config).output  # (N, D)
            for i, (pooling, _) in enumerate(POOLINGS.values()):
                pooled[place, i, batch] = pooling(hidden, of)
        return batch

    in_batches(lengths, work, num_threads=num_threads, done=progress)
    values = np.full(pooled.shape[:2], np.nan)  # (L + 1, P)
    for i, j in np.ndindex(values.shape):
        cosines = pair_cosines(*np.split(pooled[i, j].astype(np.float64)[numbers], 2))  # (B,)
        if np.ptp(cosines) > _ROUNDING:
            values[i, j] = 100 * spearman(cosines, pairs.scores)
    if np.isnan(values).all():
        raise ValueError(
            f"{pairs.name}: no correlation exists in any layer: all {len(pairs.scores):,} pairs have the same "
            "similarity; are both sentences of every pair identical?"
        )
    modes = next((module.modes for module in model.modules if isinstance(module, Pooling)), ())
    own = (len(model.params.layers), list(POOLINGS).index(modes[0])) if len(modes) == 1 else None
    return LayerScores(pairs.name, len(pairs.scores), tuple(POOLINGS), values, own)
