"""What does a similarity of 0.3 mean? The share of random pairs of your own texts that it is above.

A cosine has no meaning by itself: where "unrelated" lies depends on the model and the texts. A percentile among random
pairs of a corpus does have one, but it is not the probability that two texts mean the same: some random pairs are
similar, and a search over a million texts finds many above the 99.99th percentile by chance alone.
Letters: ``B`` texts, ``P`` pairs, ``D`` the width of a vector, ``Q`` scores kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import check_choice, check_vectors, check_whole, each_text
from minisbert.model import Array
from minisbert.saved import Origin, check_parts, origin_of
from minisbert.similarity import SIMILARITIES

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

PAIRS = 100_000
MOST_TEXTS = 10_000
GRID = 1000  # steps of 0.1 percentage points
TOP, BOTTOM = 1000, 100  # how many of the highest and lowest scores are all kept
_BLOCK_PAIRS = 8192  # compared at a time, to bound memory
_FORMAT, _VERSION = "minisbert calibration", 1
_AGAIN = "`minisbert calibrate -i corpus.txt -o calibration.json` makes one"


@dataclass(frozen=True)
class Calibration:
    """The distribution of a similarity over random pairs of a corpus, for one model; made by :func:`fit`.

    Parameters
    ----------
    similarity_fn_name : {"cosine", "dot", "euclidean", "manhattan"}
    scores, ranks : Array, shape (Q,)
        Order statistics of the pairs' scores, and how many pairs lie below each (of equal scores, half); float64,
        strictly rising. Interpolating between them moves a percentile by less than 0.1, and by nothing among the 1,000
        highest scores.
    pairs, texts : int
        How many pairs were scored, and of how many distinct texts.
    seed : int
    model : str
        Its name, for display.
    fingerprint : str
        Of the model's files; "" if unknown, and then not checked.
    max_seq_length : int, optional

    Notes
    -----
    With P pairs, percentiles above ``100 (1 - 1/P)`` cannot be told apart. The standard error
    ``100 sqrt(p (1 - p) / P)`` treats pairs as independent; they share texts, so with few texts the true error is
    larger: calibrate on two halves of a corpus to see it.

    Examples
    --------
    >>> calibration = fit_vectors(np.random.default_rng(0).standard_normal((100, 20)))
    >>> calibration.pairs, calibration.percentile([0.0, 0.3]).round(1), calibration.score_at([50, 95]).round(2)
    (4950, array([49.6, 90. ]), array([0.  , 0.38]))
    """

    similarity_fn_name: str
    scores: Array  # (Q,) float64
    ranks: Array  # (Q,) float64, from 0.5 to P - 0.5
    pairs: int
    texts: int
    seed: int
    model: str = ""
    fingerprint: str = ""
    max_seq_length: int | None = None

    def __post_init__(self) -> None:
        ranks = self.ranks
        fits = {name: _rises(getattr(self, name)) for name in ("scores", "ranks")}
        fits["ranks"] &= self.scores.shape == ranks.shape and 0 < ranks.flat[0] <= ranks.flat[-1] < self.pairs
        fits |= {name: type(getattr(self, name)) is int for name in ("pairs", "texts", "seed")}
        fits |= {name: isinstance(getattr(self, name), str) for name in ("model", "fingerprint")}
        fits["max_seq_length"] = isinstance(self.max_seq_length, int | None)
        fits["similarity_fn_name"] = self.similarity_fn_name in SIMILARITIES
        check_parts("Calibration", fits)

    @property
    def resolution(self) -> float:
        """The percentile above which scores cannot be told apart."""
        return 100.0 * (1.0 - 1.0 / self.pairs)

    def percentile(self, scores: ArrayLike) -> Array:
        """Percentage of random pairs that are less similar, in [50 / P, 100 - 50 / P]; any shape, float64.

        ValueError for NaN and Inf. **Source**: Hyndman & Fan 1996, definition 5 (Hazen);
        ``scipy.stats.percentileofscore(..., kind="mean")``, but interpolated between scores, and kept off 0 and 100 by
        half a pair.
        """
        x = np.asarray(scores, np.float64)
        if not np.isfinite(x).all():
            raise ValueError(f"percentile: expected finite scores, got {x[~np.isfinite(x)].flat[0]}")
        return np.asarray(np.interp(x, self.scores, 100.0 * self.ranks / self.pairs))

    def score_at(self, percentiles: ArrayLike) -> Array:
        """Similarity at a percentile, the inverse of :meth:`percentile`; ValueError outside [100/P, 100 - 100/P]."""
        p = np.asarray(percentiles, np.float64)
        low, high = 100.0 - self.resolution, self.resolution
        if not ((p >= low) & (p <= high)).all():
            raise ValueError(
                f"score_at: {self.pairs:,} pairs resolve percentiles from {low:.6g} to {high:.6g}, got "
                f"{p[~((p >= low) & (p <= high))].flat[0]:.6g}; calibrate with more pairs"
            )
        return np.asarray(np.interp(p, 100.0 * self.ranks / self.pairs, self.scores))

    def standard_error(self, percentiles: ArrayLike) -> Array:
        """Binomial standard error ``100 sqrt(p (1 - p) / P)`` of a percentile, in percentage points."""
        p = np.asarray(percentiles, np.float64) / 100.0
        return np.asarray(100.0 * np.sqrt(p * (1.0 - p) / self.pairs))

    def write(self, percentile: float) -> str:
        """Format a percentile with the digits its standard error supports, and < or > beyond the resolution.

        >>> calibration = fit_vectors(np.random.default_rng(0).standard_normal((100, 20)))
        >>> [calibration.write(p) for p in (0.01, 12.3456, 99.9, 99.99)]
        ['<0.03', '12.3', '99.90', '>99.97']
        """
        most = max(0, math.ceil(math.log10(self.pairs)) - 2)  # the digits that the resolution supports
        high = math.floor(self.resolution * 10.0**most + 1e-6) / 10.0**most
        if percentile > self.resolution:
            return f">{high:.{most}f}"
        if percentile < 100.0 - self.resolution:
            return f"<{100.0 - high:.{most}f}"
        digits = min(most, max(0, math.ceil(-math.log10(self.standard_error(percentile)))))
        return f"{min(percentile, high):.{digits}f}"

    def check(self, encoder: SentenceEncoder, similarity_fn_name: str) -> None:
        """Raise ValueError for another similarity, model or length limit than the calibrated one."""
        if similarity_fn_name != self.similarity_fn_name:
            raise ValueError(
                f"this calibration is for {self.similarity_fn_name}, not for {similarity_fn_name}; "
                f"calibrate again with --metric {similarity_fn_name}"
            )
        if self.fingerprint:
            origin = Origin(self.model, self.fingerprint, self.max_seq_length)
            origin.check(encoder, "this calibration", "calibrate this one")

    def to_json(self) -> str:
        """Serialise everything as JSON, for :func:`load_calibration`."""
        said = {"format": _FORMAT, "version": _VERSION, **vars(self)}
        return json.dumps(said, ensure_ascii=False, default=np.ndarray.tolist) + "\n"


# ------------------------------------------------------------------------------------------------- measuring


def fit(
    encoder: SentenceEncoder,
    texts: Iterable[str],
    *,
    pairs: int = PAIRS,
    seed: int = 0,
    similarity_fn_name: str | None = None,
    **options: Any,
) -> Calibration:
    """Measure the similarity of random pairs of texts.

    Parameters
    ----------
    encoder : SentenceEncoder
    texts : iterable of str
        The corpus: at least two distinct texts, better a thousand. Equal texts count once, and of more than
        :data:`MOST_TEXTS` so many are drawn, because each must be embedded.
    pairs : int
        How many pairs to draw without replacement; all of them if there are fewer.
    seed : int
    similarity_fn_name : {"cosine", "dot", "euclidean", "manhattan"}, optional
        By default the model's own.
    **options
        Passed to :meth:`SentenceEncoder.encode`, such as ``show_progress_bar``.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        For fewer than two distinct texts, and what ``encode`` raises.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> texts = ["i love soup", "soup is my favorite", "london is far away", "i love soup", "it is raining in paris"]
    >>> calibration = fit(SentenceEncoder(), texts)
    >>> calibration.texts, calibration.pairs, float(calibration.score_at(50).round(2))
    (4, 6, 0.09)
    """
    different = list(dict.fromkeys(each_text(texts, "fit: texts", single=True)))
    _check_counts(len(different), pairs)
    if len(different) > MOST_TEXTS:
        chosen = np.random.default_rng(seed).choice(len(different), MOST_TEXTS, replace=False)
        different = [different[i] for i in np.sort(chosen)]
    vectors = encoder.encode(different, **options)
    name = similarity_fn_name or encoder.model.similarity_fn_name
    measured = fit_vectors(vectors, pairs=pairs, seed=seed, similarity_fn_name=name)
    return replace(measured, **asdict(origin_of(encoder)))


def fit_vectors(
    vectors: ArrayLike, *, pairs: int = PAIRS, seed: int = 0, similarity_fn_name: str = "cosine"
) -> Calibration:
    """:func:`fit` on vectors (B, D), one a distinct text; it is not checked which model made them.

    >>> fit_vectors([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).scores.round(4)
    array([0.    , 0.7071])
    """
    check_choice("fit: similarity_fn_name", similarity_fn_name, SIMILARITIES)
    rows = check_vectors(vectors, "fit: vectors")
    _check_counts(len(rows), pairs)
    first, second = draw_pairs(len(rows), pairs, seed)  # (P,)
    compare = SIMILARITIES[similarity_fn_name].pairwise
    blocks = range(0, len(first), _BLOCK_PAIRS)
    scores = np.concatenate(
        [compare(rows[first[i : i + _BLOCK_PAIRS]], rows[second[i : i + _BLOCK_PAIRS]]) for i in blocks]
    )
    kept, ranks = _order_statistics(np.sort(scores.astype(np.float64)))
    return Calibration(similarity_fn_name, kept, ranks, len(scores), len(rows), seed)


def _rises(numbers: Array) -> bool:
    """Whether this is a list of finite numbers, each above the one before."""
    return bool(numbers.ndim == 1 and numbers.size and np.isfinite(numbers).all() and (np.diff(numbers) > 0).all())


def _check_counts(texts: int, pairs: int) -> None:
    """Raise if no pair can be drawn."""
    if texts < 2:
        raise ValueError(f"fit: expected at least two different texts, got {texts}; use a corpus of a thousand or more")
    check_whole("fit: pairs", pairs, 1)


def draw_pairs(texts: int, pairs: int, seed: int) -> tuple[Array, Array]:
    """Draw pairs ``first < second`` of texts without replacement, two arrays (P,); all pairs if there are fewer.

    >>> draw_pairs(3, 10, seed=0)
    (array([0, 0, 1]), array([1, 2, 2]))
    """
    total = texts * (texts - 1) // 2
    if pairs >= total:
        number = np.arange(total)
    else:
        number = np.sort(np.random.default_rng(seed).choice(total, pairs, replace=False, shuffle=False))
    # Pairs are numbered (0,1), (0,2), (1,2), (0,3), ...: those before a second text j are j (j - 1) / 2.
    second = ((1.0 + np.sqrt(8.0 * number + 1.0)) / 2.0).astype(np.int64)  # exact for up to 130 million texts
    return (number - second * (second - 1) // 2).astype(np.intp, copy=False), second.astype(np.intp, copy=False)


def _order_statistics(scores: Array) -> tuple[Array, Array]:
    """Choose which of the sorted scores ``(P,)`` to keep, and count the pairs below each, ties half."""
    count = len(scores)
    grid = np.linspace(0, count - 1, min(count, GRID + 1)).round().astype(np.intp)
    tails = [np.arange(min(BOTTOM, count)), np.arange(max(0, count - TOP), count)]
    kept = np.unique(scores[np.concatenate([grid, *tails])])
    ranks = (np.searchsorted(scores, kept, "left") + np.searchsorted(scores, kept, "right")) / 2
    return kept, ranks


# --------------------------------------------------------------------------------------------------- reading


def load_calibration(file: Path) -> Calibration:
    """Read what :meth:`Calibration.to_json` wrote; ValueError, with file and cause, for a damaged or foreign file."""
    name = file.as_posix()
    try:
        said = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not a calibration, because it is not JSON: {error}; {_AGAIN}") from None
    kind = (said.pop("format", None), said.pop("version", None)) if isinstance(said, dict) else said
    if kind != (_FORMAT, _VERSION):
        raise ValueError(f"{name}: expected {_FORMAT}, version {_VERSION}, got {kind!r:.60}; {_AGAIN}")
    try:
        return Calibration(**said | {key: np.array(said[key], np.float64) for key in ("scores", "ranks")})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: damaged: {error}; {_AGAIN}") from None
