"""How good is an entity tagger? Span F1 with an interval, beside baselines that know much less.

Baselines, from the same training sentences: **all O** (of WNUT 2017's test words 93 % are right, and F1 is 0: accuracy
of words is no measure here); the **lexicon** gives each word its most frequent tag, and shows how far memory goes;
**word shapes** is the same logistic regression on capitals, digits, endings and the neighbours' shapes, and knows no
word. The bootstrap resamples whole sentences, since words of a sentence depend on each other; two systems are compared
on the same resamples, so that easy and hard sentences cancel. On WNUT 2017's test set the default model's probe reaches
F1 41.4 (38.1 to 44.6), word shapes 17.6, the lexicon 6.0; the best system of the shared task, trained for it, with
gazetteers and a CRF, 41.9. Its training set is tweets of 2010 and its test set other sites, on purpose.
Letters: ``S`` sentences, ``N`` words of all of them, ``R`` bootstrap resamples, ``K`` systems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from minisbert.analysis.entities import EntityTagger
from minisbert.analysis.tag_probe import ProbeFit, fit_probe
from minisbert.analysis.tagging import SpanScore, TaggedSentences, repair, span_counts, spans_of, surface_score
from minisbert.checks import require
from minisbert.evaluation.measures import RESAMPLES, Estimate, percentiles
from minisbert.model import Array

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

PUBLISHED = {(1_287, 23_394, 1_079): ("WNUT 2017, best of the shared task (Aguilar et al. 2017)", 0.4186, 0.4024)}
"""By sentences, words and entities of a test set: its best published F1, and F1 of surface forms."""

SHAPE_STRENGTHS = (0.01, 0.03, 0.1, 0.3)
"""Inverse penalties tried for word shapes, whose features are 0 and 1."""

_BLOCK_NUMBERS = 2**20  # numbers drawn at a time: 8 MiB


# ---------------------------------------------------------------------------------------------------- intervals


def f1_resamples(counts: Sequence[Array], *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """F1 of each of K systems on R bootstrap resamples of sentences: K times (S, 3) -> (R, K).

    The counts are right, predicted and expected spans from :func:`span_counts`. F1 is no mean over sentences but a
    ratio of sums, so each resample sums first; 0 without any span. **Source**: Efron & Tibshirani 1993, chapter 13;
    Berg-Kirkpatrick et al. 2012.

    >>> f1_resamples([np.array([[1, 1, 1], [1, 1, 1]])], resamples=3).tolist()
    [[1.0], [1.0], [1.0]]
    """
    shapes = {np.shape(one) for one in counts}
    size = len(counts[0]) if len(counts) else 0
    if shapes != {(size, 3)} or not size or isinstance(resamples, bool) or resamples < 1:
        raise ValueError(
            f"f1_resamples: expected counts (S, 3) of the same sentences, and at least 1 resample, got shapes "
            f"{sorted(shapes)} and {resamples!r}"
        )
    rng = np.random.default_rng(seed)
    found = np.empty((resamples, len(counts)))  # (R, K)
    rows = max(1, _BLOCK_NUMBERS // size)
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, size, (min(rows, resamples - start), size))
        for k, one in enumerate(counts):
            right, predicted, expected = (one[:, column][drawn].sum(axis=1) for column in range(3))
            found[start : start + len(drawn), k] = 2 * right / np.maximum(1, predicted + expected)
    return found


# ---------------------------------------------------------------------------------------------------- baselines


def lexicon(train: TaggedSentences, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each word's most frequent tag in training (ties: the first), ``O`` for unknown words; repaired to IOB2.

    >>> train = TaggedSentences("tiny", [["Ada", "Bell", "met", "Bo"]], [["B-person", "I-person", "O", "B-person"]])
    >>> lexicon(train, [["Bo", "Bell", "met", "Eve"], ["Bell"]])
    [['B-person', 'I-person', 'O', 'O'], ['B-person']]
    """
    counts: dict[str, Counter[str]] = {}
    for words, tags in zip(train.sentences, train.tags, strict=True):
        for word, tag in zip(words, tags, strict=True):
            counts.setdefault(word, Counter())[tag] += 1
    usual = {word: found.most_common(1)[0][0] for word, found in counts.items()}
    return [repair([usual.get(word, "O") for word in words]) for words in sentences]


def shapes(words: Sequence[str]) -> list[list[str]]:
    """Names of the features of each word's looks: ``Xx`` for Ada, ``X`` for BBC, ``d`` for 42, ``@x`` for @ada.

    >>> shapes(["Ada", "sang"])[0]
    ['shape Xx', 'length 3', 'end a', 'end da', 'end ada', 'first', 'before ', 'behind x']
    """
    own = ["", *(_shape(word) for word in words), ""]
    return [
        [
            f"shape {own[t]}",
            f"length {min(len(word), 10)}",
            *(f"end {word[-n:].lower()}" for n in (1, 2, 3) if len(word) >= n),
            *(["first"] if t == 1 else []),
            f"before {own[t - 1]}",
            f"behind {own[t + 1]}",
        ]
        for t, word in enumerate(words, 1)
    ]


def _shape(word: str) -> str:
    """X for capitals, x for other letters, d for digits, other characters as they are; runs collapse to one."""
    kinds = ("X" if c.isupper() else "x" if c.isalpha() else "d" if c.isdigit() else c for c in word)
    return "".join(kind for kind, _ in groupby(kinds))


def fit_shapes(
    train: TaggedSentences, test: TaggedSentences, *, dev: TaggedSentences | None = None, **settings: Any
) -> tuple[list[list[str]], ProbeFit]:
    """Train the probe on word shapes, and tag ``test``; the penalty is chosen on ``dev`` or by cross-validation.

    **Source**: the local features of Ratinov & Roth 2009 without the words themselves. Features that occur with a
    single training word are left out.
    """
    require("sklearn", "apps", "the baseline by word shapes")
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer=list, binary=True, min_df=2)

    def rows(data: TaggedSentences) -> list[list[str]]:
        return [names for words in data.sentences for names in shapes(words)]

    features = counter.fit_transform(rows(train)).tocsr().astype(np.float64)
    others = None if dev is None else (counter.transform(rows(dev)), dev)
    settings = {"strengths": SHAPE_STRENGTHS, **settings}
    fit = fit_probe(features, train, dev=others, **settings)
    lengths = [len(words) for words in test.sentences]
    tags = fit.probe.decode(
        counter.transform(rows(test)), lengths, settings.get("decoder", "viterbi"), offset=fit.offset
    )
    return tags, fit


# --------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True, eq=False)
class SystemScore:
    """The test scores of one system."""

    name: str
    score: SpanScore
    f1: Estimate  # with its 95 % interval; in [0, 1]
    surface: SpanScore
    by_type: dict[str, SpanScore]
    behind: Estimate | None  # F1 of the tagger minus this one's; None for the tagger itself
    note: str  # how its penalty was chosen


@dataclass(frozen=True, eq=False)
class EntityReport:
    """A tagger and baselines on the same test sentences."""

    name: str
    sentences: int
    words: int
    entities: int
    systems: tuple[SystemScore, ...]  # the tagger first
    tags_right: float  # share of the words that the tagger tags right
    outside: float  # share of the words outside entities, which "all O" gets right
    unseen: float | None  # share of the test set's entities that do not occur in training
    published: tuple[str, float, float] | None  # from PUBLISHED, if this is that test set


def evaluate_tagger(
    tagger: EntityTagger,
    encoder: SentenceEncoder,
    test: TaggedSentences,
    *,
    train: TaggedSentences | None = None,
    dev: TaggedSentences | None = None,
    progress: Callable[[str], object] | None = None,
    seed: int = 0,
    **options: Any,
) -> EntityReport:
    """Score a tagger on test sentences, beside baselines trained on ``train`` (without it, "all O" alone).

    ``dev`` chooses the penalty for word shapes, otherwise cross-validation does. ValueError for a test set without
    entities, another model, and word shapes without scikit-learn.
    """
    if not test.types:
        raise ValueError(f"{test.name}: no entities, all tags are O: nothing to find")
    named = [("linear probe", tagger.tag(encoder, test.sentences, **options), _told(tagger.training))]
    if train is not None:
        tags, fit = fit_shapes(train, test, dev=dev, decoder=tagger.decoder, seed=seed, progress=progress)
        named.append(("word shapes", tags, _told(vars(fit))))
        named.append(("lexicon", lexicon(train, test.sentences), "each word's most frequent tag"))
    named.append(("all O", [["O"] * len(words) for words in test.sentences], ""))
    flat = [
        (tag, said)
        for one, other in zip(test.tags, named[0][1], strict=True)
        for tag, said in zip(one, other, strict=True)
    ]
    entities = sum(len(spans_of(tags)) for tags in test.tags)
    return EntityReport(
        name=test.name,
        sentences=len(test.sentences),
        words=test.words,
        entities=entities,
        systems=_score_systems(test, named, seed),
        tags_right=sum(tag == said for tag, said in flat) / len(flat),
        outside=sum(tag == "O" for tag, _ in flat) / len(flat),
        unseen=None if train is None else 1 - _seen_share(train, test),
        published=PUBLISHED.get((len(test.sentences), test.words, entities)),
    )


def _score_systems(
    test: TaggedSentences, named: Sequence[tuple[str, list[list[str]], str]], seed: int
) -> tuple[SystemScore, ...]:
    """Score all systems on the same bootstrap resamples."""
    counts = [span_counts(test.tags, tags) for _, tags, _ in named]
    draws = f1_resamples(counts, seed=seed)  # (R, K)
    scores = [SpanScore(*one.sum(axis=0).tolist()) for one in counts]
    return tuple(
        SystemScore(
            name=name,
            score=scores[k],
            f1=percentiles(scores[k].f1, draws[:, k]),
            surface=surface_score(test.sentences, test.tags, tags),
            by_type={t: SpanScore(*span_counts(test.tags, tags, t).sum(axis=0).tolist()) for t in test.types},
            behind=percentiles(scores[0].f1 - scores[k].f1, draws[:, 0] - draws[:, k]) if k else None,
            note=note,
        )
        for k, (name, tags, note) in enumerate(named)
    )


def _told(training: Any) -> str:
    """How penalty and offset were chosen."""
    strength, offset, chosen_on = (training.get(name) for name in ("strength", "offset", "chosen_on"))
    if not isinstance(strength, float) or not isinstance(offset, float) or not chosen_on:
        return ""
    return f"C {strength:g}, offset {offset:g}, chosen on {chosen_on}"


def _seen_share(train: TaggedSentences, test: TaggedSentences) -> float:
    """Share of the test set's entities that occur in training, with name and type."""
    known, asked = (
        [
            (*words[span.start : span.stop], span.type)
            for words, tags in zip(data.sentences, data.tags, strict=True)
            for span in spans_of(tags)
        ]
        for data in (train, test)
    )
    seen = set(known)
    return sum(name in seen for name in asked) / len(asked)
