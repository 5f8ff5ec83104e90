"""What does a similarity of 0.3 mean? Which share of random pairs of your own texts it is above.

A cosine has no meaning by itself: where "unrelated" lies depends on the model and on the texts. All questions about
bread are alike; 0.3 is little among them, and much in a newspaper. So a :class:`Calibration` measures the similarity of
random pairs of a corpus, and turns a score into a percentile: "more alike than 97 % of random pairs". :func:`fit` does
that with an encoder and texts, :func:`fit_vectors` with vectors.

**What it is not.** A percentile is no probability that two texts mean the same, and no threshold for truth: among
random pairs some are alike, and a search over a million texts finds many above the 99.99th percentile by chance alone.

**The sample.** Texts that are equal letter by letter are one text, and no text is paired with itself. Of many texts a
random 10,000 are embedded; of their pairs so many as asked for are drawn without one coming twice, or all are taken
where there are no more.

**Resolution and error.** With P pairs nothing above ``1 - 1/P`` can be told apart: there a percentile is written as
">99.99". A percentile ``p`` has the standard error ``sqrt(p (1 - p) / P)``, which counts pairs as if each had texts of
its own. They share them, so with few texts the true error is larger; calibrating on two halves of a corpus shows it.

Left out on purpose: a curve fitted through the scores. The order statistics themselves are kept, all of the highest.

Letters: ``B`` texts, ``P`` pairs, ``D`` the width of a vector, ``Q`` scores kept. Next file: ``explain.py``.
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

from minisbert.checks import each_text
from minisbert.model import Array
from minisbert.origin import Origin, origin_of
from minisbert.similarity import SIMILARITIES

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

PAIRS = 100_000
MOST_TEXTS = 10_000
GRID = 1000  # steps of 0.1 percentage points
TOP, BOTTOM = 1000, 100  # so many of the highest and of the lowest scores are all kept
_BLOCK_PAIRS = 8192  # compared at a time, so that their vectors stay few
_FORMAT, _VERSION = "minisbert calibration", 1


@dataclass(frozen=True)
class Calibration:
    """How a similarity is distributed over random pairs of a corpus, for one model.

    ``scores`` are order statistics, rising, and ``ranks`` say how many of all pairs are below each (of equal scores,
    half): ``100 * ranks / pairs`` are their percentiles. Between two of them percentiles are interpolated,
    which moves them by less than 0.1, and by nothing among the 1,000 highest.
    """

    similarity_fn_name: str
    scores: Array  # (Q,) float64, strictly rising
    ranks: Array  # (Q,) float64, strictly rising, from 0.5 to P - 0.5
    pairs: int
    texts: int  # different ones, of which the pairs were drawn
    seed: int
    model: str = ""  # its name, for people
    fingerprint: str = ""  # of the model's files; "": unknown, and not checked
    max_seq_length: int | None = None

    @property
    def resolution(self) -> float:
        """The percentile above which nothing can be told apart."""
        return 100.0 * (1.0 - 1.0 / self.pairs)

    def percentile(self, scores: ArrayLike) -> Array:
        """Say which share of random pairs is less alike.

        Parameters
        ----------
        scores : array_like, any shape
            Finite similarities of the kind that was calibrated.

        Returns
        -------
        Array, of the same shape
            Percent, in [50 / P, 100 - 50 / P], float64; never falling when a score rises.

        Raises
        ------
        ValueError
            For NaN and Inf.

        Notes
        -----
        **Source**: Hyndman & Fan 1996, definition 5 (Hazen); ``scipy.stats.percentileofscore(..., kind="mean")``, but
        interpolated between scores, and kept off 0 and 100 by half a pair.

        Examples
        --------
        >>> calibration = fit_vectors(np.random.default_rng(0).standard_normal((100, 20)))
        >>> calibration.percentile([-1.0, 0.0, 0.3, 1.0]).round(1)
        array([  0. ,  49.6,  90. , 100. ])
        """
        x = np.asarray(scores, np.float64)
        if not np.isfinite(x).all():
            raise ValueError(f"percentile: expected finite scores, got {x[~np.isfinite(x)].flat[0]}")
        return np.asarray(np.interp(x, self.scores, 100.0 * self.ranks / self.pairs))

    def score_at(self, percentiles: ArrayLike) -> Array:
        """Give the score that so many percent of random pairs are below; the inverse of :meth:`percentile`.

        Parameters
        ----------
        percentiles : array_like, any shape
            Percent, in [100 / P, 100 - 100 / P].

        Returns
        -------
        Array, of the same shape
            Similarities, float64.

        Raises
        ------
        ValueError
            For a percentile that so few pairs cannot tell.

        Examples
        --------
        >>> calibration = fit_vectors(np.random.default_rng(0).standard_normal((100, 20)))
        >>> calibration.score_at([50, 95]).round(2)
        array([0.  , 0.38])
        """
        p = np.asarray(percentiles, np.float64)
        low, high = 100.0 - self.resolution, self.resolution
        if not ((p >= low) & (p <= high)).all():
            raise ValueError(
                f"score_at: {self.pairs:,} pairs resolve percentiles from {low:.6g} to {high:.6g}, got "
                f"{p[~((p >= low) & (p <= high))].flat[0]:.6g}; calibrate with more pairs"
            )
        return np.asarray(np.interp(p, 100.0 * self.ranks / self.pairs, self.scores))

    def standard_error(self, percentiles: ArrayLike) -> Array:
        """Give the sampling error of a percentile: ``100 sqrt(p (1 - p) / P)``, ``p`` as a fraction.

        Parameters
        ----------
        percentiles : array_like, any shape
            Percent, in [0, 100].

        Returns
        -------
        Array, of the same shape
            Percentage points, one standard error of a binomial share; see the head of this module for what it leaves
            out.

        Examples
        --------
        >>> calibration = fit_vectors(np.random.default_rng(0).standard_normal((100, 20)))
        >>> calibration.pairs, calibration.standard_error([50, 99]).round(2)
        (4950, array([0.71, 0.14]))
        """
        p = np.asarray(percentiles, np.float64) / 100.0
        return np.asarray(100.0 * np.sqrt(p * (1.0 - p) / self.pairs))

    def write(self, percentile: float) -> str:
        """Write a percentile with the digits that its standard error leaves; with a sign what cannot be told apart.

        Parameters
        ----------
        percentile : float

        Returns
        -------
        str

        Examples
        --------
        >>> calibration = fit_vectors(np.random.default_rng(0).standard_normal((100, 20)))
        >>> [calibration.write(p) for p in (0.01, 12.3456, 99.9, 99.99)]
        ['<0.03', '12.3', '99.90', '>99.97']
        """
        most = max(0, math.ceil(math.log10(self.pairs)) - 2)  # what the resolution can fill
        high = math.floor(self.resolution * 10.0**most + 1e-6) / 10.0**most
        if percentile > self.resolution:
            return f">{high:.{most}f}"
        if percentile < 100.0 - self.resolution:
            return f"<{100.0 - high:.{most}f}"
        digits = min(most, max(0, math.ceil(-math.log10(self.standard_error(percentile)))))
        return f"{min(percentile, high):.{digits}f}"

    def check(self, encoder: SentenceEncoder, similarity_fn_name: str) -> None:
        """Refuse to be used for another model, another limit of length or another similarity.

        Parameters
        ----------
        encoder : SentenceEncoder
        similarity_fn_name : str

        Raises
        ------
        ValueError
            Naming both.

        Examples
        --------
        >>> fit_vectors(np.eye(3)).check(None, "dot")
        Traceback (most recent call last):
            ...
        ValueError: this calibration is for cosine, not for dot; calibrate again with --metric dot
        """
        if similarity_fn_name != self.similarity_fn_name:
            raise ValueError(
                f"this calibration is for {self.similarity_fn_name}, not for {similarity_fn_name}; "
                f"calibrate again with --metric {similarity_fn_name}"
            )
        if self.fingerprint:
            origin = Origin(self.model, self.fingerprint, self.max_seq_length)
            origin.check(encoder, "this calibration", "calibrate this one")

    def to_json(self) -> str:
        """Write everything as JSON, for :func:`load_calibration`.

        Returns
        -------
        str

        Examples
        --------
        >>> fit_vectors(np.eye(3)).to_json()[:44]
        '{"format": "minisbert calibration", "version'
        """
        said = {name: getattr(self, name) for name in _TYPES}
        arrays = {"scores": self.scores.tolist(), "ranks": self.ranks.tolist()}
        return json.dumps({"format": _FORMAT, "version": _VERSION, **said, **arrays}, ensure_ascii=False) + "\n"


_TYPES: dict[str, tuple[type, ...]] = {
    "similarity_fn_name": (str,),
    "model": (str,),
    "fingerprint": (str,),
    "max_seq_length": (int, type(None)),
    "texts": (int,),
    "pairs": (int,),
    "seed": (int,),
}


# ------------------------------------------------------------------------------------------------- measuring


def fit(
    encoder: SentenceEncoder,
    texts: Iterable[str],
    *,
    pairs: int = PAIRS,
    seed: int = 0,
    similarity_fn_name: str | None = None,
    most_texts: int = MOST_TEXTS,
    **options: Any,
) -> Calibration:
    """Measure the similarity of random pairs of texts.

    Parameters
    ----------
    encoder : SentenceEncoder
    texts : iterable of str
        The corpus; at least two different texts, and better a thousand. Equal texts count once.
    pairs : int
        To draw, none twice; all there are where there are no more.
    seed : int
    similarity_fn_name : {"cosine", "dot", "euclidean", "manhattan"}, optional
        By default the model's own.
    most_texts : int
        Of more texts so many are drawn first, because each must be embedded.
    **options
        Of :meth:`SentenceEncoder.encode`, such as ``show_progress_bar``.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        For fewer than two different texts, and for what ``encode`` refuses.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> texts = ["i love soup", "soup is my favorite", "london is far away", "i love soup", "it is raining in paris"]
    >>> calibration = fit(SentenceEncoder(), texts)
    >>> calibration.texts, calibration.pairs, float(calibration.score_at(50).round(2))
    (4, 6, 0.09)
    """
    different = list(dict.fromkeys(each_text(texts, "fit: texts", single=True)))
    _check_counts(len(different), pairs, most_texts)
    if len(different) > most_texts:
        chosen = np.random.default_rng(seed).choice(len(different), most_texts, replace=False)
        different = [different[i] for i in np.sort(chosen)]
    vectors = encoder.encode(different, **options)
    name = similarity_fn_name or encoder.model.similarity_fn_name
    measured = fit_vectors(vectors, pairs=pairs, seed=seed, similarity_fn_name=name)
    return replace(measured, **asdict(origin_of(encoder)))


def fit_vectors(
    vectors: ArrayLike, *, pairs: int = PAIRS, seed: int = 0, similarity_fn_name: str = "cosine"
) -> Calibration:
    """Measure the similarity of random pairs of vectors, each of a different text.

    Parameters
    ----------
    vectors : array_like, shape (B, D)
        At least two. Rows are taken as they are: leave texts that are equal out before.
    pairs : int
        To draw, none twice; all ``B (B - 1) / 2`` where there are no more.
    seed : int
    similarity_fn_name : {"cosine", "dot", "euclidean", "manhattan"}

    Returns
    -------
    Calibration
        Of no model in particular: it is not checked to whose vectors it is applied.

    Raises
    ------
    ValueError
        For fewer than two rows, an unknown similarity, and what the similarity refuses.

    Examples
    --------
    >>> fit_vectors([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).scores.round(4)
    array([0.    , 0.7071])
    """
    if similarity_fn_name not in SIMILARITIES:
        raise ValueError(
            f"fit: similarity_fn_name must be one of {', '.join(SIMILARITIES)}, got {similarity_fn_name!r}"
            + ("; angles rank like cosines: calibrate cosines instead" if similarity_fn_name == "angular" else "")
        )
    rows = np.asarray(vectors)
    if rows.ndim != 2:
        raise ValueError(f"fit: vectors must be (B, D), one row per text, got shape {rows.shape}")
    _check_counts(len(rows), pairs, MOST_TEXTS)
    first, second = draw_pairs(len(rows), pairs, seed)  # (P,)
    compare = SIMILARITIES[similarity_fn_name].pairwise
    blocks = range(0, len(first), _BLOCK_PAIRS)
    scores = np.concatenate(
        [compare(rows[first[i : i + _BLOCK_PAIRS]], rows[second[i : i + _BLOCK_PAIRS]]) for i in blocks]
    )
    kept, ranks = _order_statistics(np.sort(scores.astype(np.float64)))
    return Calibration(similarity_fn_name, kept, ranks, len(scores), len(rows), seed)


def _check_counts(texts: int, pairs: int, most_texts: int) -> None:
    """Refuse what gives no pair."""
    if texts < 2:
        raise ValueError(f"fit: expected at least two different texts, got {texts}; use a corpus of a thousand or more")
    for name, count, least in (("pairs", pairs, 1), ("most_texts", most_texts, 2)):
        if isinstance(count, bool) or count < least:
            raise ValueError(f"fit: {name} must be at least {least}, got {count!r}")


def draw_pairs(texts: int, pairs: int, seed: int) -> tuple[Array, Array]:
    """Draw pairs of different texts, none twice; all of them where there are no more.

    Parameters
    ----------
    texts : int
        ``B``.
    pairs : int
    seed : int

    Returns
    -------
    first, second : Array, shape (P,)
        Indices from 0, ``first < second``.

    Examples
    --------
    >>> draw_pairs(3, 10, seed=0)
    (array([0, 0, 1]), array([1, 2, 2]))
    """
    total = texts * (texts - 1) // 2
    if pairs >= total:
        number = np.arange(total)
    else:
        number = np.sort(np.random.default_rng(seed).choice(total, pairs, replace=False, shuffle=False))
    # Pairs are numbered (0,1), (0,2), (1,2), (0,3), ...: those before a second text j are j (j - 1) / 2.
    second = ((1.0 + np.sqrt(8.0 * number + 1.0)) / 2.0).astype(np.int64)
    second -= second * (second - 1) // 2 > number  # where the root was rounded up
    second += second * (second + 1) // 2 <= number  # or down
    return (number - second * (second - 1) // 2).astype(np.intp, copy=False), second.astype(np.intp, copy=False)


def _order_statistics(scores: Array) -> tuple[Array, Array]:
    """Choose which of the sorted scores ``(P,)`` to keep, and count the pairs below each, equal ones half."""
    count = len(scores)
    grid = np.linspace(0, count - 1, min(count, GRID + 1)).round().astype(np.intp)
    tails = [np.arange(min(BOTTOM, count)), np.arange(max(0, count - TOP), count)]
    kept = np.unique(scores[np.concatenate([grid, *tails])])
    ranks = (np.searchsorted(scores, kept, "left") + np.searchsorted(scores, kept, "right")) / 2
    return kept, ranks


# --------------------------------------------------------------------------------------------------- reading


def load_calibration(file: Path) -> Calibration:
    """Read what :meth:`Calibration.to_json` wrote.

    Parameters
    ----------
    file : Path

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        For a file that is damaged or something else, with its name and the cause.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "calibration.json"
    >>> written = file.write_text(fit_vectors(np.eye(3)).to_json(), encoding="utf-8")
    >>> load_calibration(file).pairs
    3
    """
    name = file.as_posix()
    try:
        said = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{name}: not a calibration, because it is not JSON: {error}; run `minisbert calibrate` again"
        ) from None
    if not isinstance(said, dict) or said.get("format") != _FORMAT:
        raise ValueError(
            f"{name}: not a calibration; `minisbert calibrate -i corpus.txt -o calibration.json` makes one"
        )
    if said.get("version") != _VERSION:
        raise ValueError(f"{name}: format version {said.get('version')!r}; this release reads {_VERSION}")
    for key, kinds in _TYPES.items():
        if type(said.get(key)) not in kinds:
            raise ValueError(f"{name}: damaged: {key} is {said.get(key)!r:.60}; run `minisbert calibrate` again")
    scores, ranks = (_numbers(said.get(key), f"{name}: damaged: {key}") for key in ("scores", "ranks"))
    pairs, texts, known = said["pairs"], said["texts"], said["similarity_fn_name"] in SIMILARITIES
    if len(scores) != len(ranks) or not 0 < ranks[0] <= ranks[-1] < pairs or texts < 2 or not known:
        raise ValueError(f"{name}: damaged: its figures contradict each other; run `minisbert calibrate` again")
    return Calibration(**{key: said[key] for key in _TYPES}, scores=scores, ranks=ranks)


def _numbers(value: Any, what: str) -> Array:
    """Give a rising list of finite numbers as an array."""
    if not isinstance(value, list) or not value or not all(type(number) in (int, float) for number in value):
        raise ValueError(f"{what} are not a list of numbers; run `minisbert calibrate` again")
    numbers = np.array(value, np.float64)
    if not np.isfinite(numbers).all() or not (np.diff(numbers) > 0).all():
        raise ValueError(f"{what} are not finite and increasing; run `minisbert calibrate` again")
    return numbers
