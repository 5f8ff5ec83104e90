"""Named entities by a linear probe: one vector per word, logistic regression over tags, the best valid sequence.

**Which layer?** Not the last: it was trained to be averaged into the meaning of a sentence, and has lost much of what
its words were. On WNUT 2017's development set the default model's layers 0 to 6 reach F1 38.4, 47.9, 49.9, 53.9, 52.7,
50.8 and 44.4, so the middle one is the default. **Offset.** Most words are outside entities, and a probe in doubt
predicts ``O``: right for words, bad for F1. So an offset is subtracted from the score of ``O`` before decoding, chosen
with the penalty by F1 on held-out sentences; it is worth 3.6 points there, and Viterbi instead of each word's best tag
2.9.

**Limits.** The model is frozen, the probe is linear and sees one word's vector at a time, so it may take a first and a
last name for two people; and the default model is uncased, while English writes names with capitals. Training needs
scikit-learn (extra ``apps``). Letters: ``S`` sentences, ``N`` words of all of them, ``T`` words of one, ``C`` tags,
``W`` features of a word, ``K`` systems, ``Y`` types and all of them, ``R`` resamples, ``U`` distinct rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minisbert.analysis.classifier import logistic_fit, stratified_folds
from minisbert.analysis.tagging import (
    TaggedSentences,
    iob2,
    rates,
    repair,
    span_counts,
    span_probabilities,
    spans_of,
    viterbi,
)
from minisbert.analysis.word_vectors import Words, check_layer, join_words, split_words, word_vectors
from minisbert.checks import check_sequence, require
from minisbert.evaluation.measures import Estimate, log_softmax, percentiles, resampled
from minisbert.evaluation.sts import distinct
from minisbert.model import Array
from minisbert.saved import Origin, SavedError, check_parts, origin_of, restored, save_folder

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

KIND = "entities"
STRENGTHS = (0.003, 0.01, 0.03, 0.1)
"""scikit-learn's ``C``, the inverse penalty, on features of variance 1."""
SPELLING_STRENGTHS = (0.1, 0.3, 1.0, 3.0)
"""The same for spelling, whose features are 0 and 1."""
OFFSETS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""What may be subtracted from the score of ``O`` before decoding, in nats."""


# ------------------------------------------------------------------------------------------------------- probe


@dataclass(frozen=True, eq=False)
class TagProbe:
    """A linear map from a word's features to tag scores."""

    tags: tuple[str, ...]  # C
    weight: Array  # (C, W) float64
    bias: Array  # (C,) float64

    def log_probs(self, features: Any) -> Array:
        """``log softmax(x W^T + b)``, float64; features may be sparse: (N, W) -> (N, C)."""
        return log_softmax(np.asarray(features @ self.weight.T + self.bias, np.float64))

    def decode(self, log_probs: Array, offset: float = 0.0) -> list[str]:
        """The best valid tags of one sentence, the offset subtracted from the score of ``O``: (T, C) -> T tags.

        >>> probe = TagProbe(("B-x", "O"), np.array([[1.0], [-1.0]]), np.zeros(2))
        >>> probe.decode(probe.log_probs(np.array([[3.0], [-2.0]])))
        ['B-x', 'O']
        """
        return viterbi(log_probs - offset * np.array([tag == "O" for tag in self.tags]), self.tags)

    def decode_all(self, features: Any, sentences: Sequence[Sequence[str]], offset: float) -> list[list[str]]:
        """Tags of all sentences, words or other tags of them, whose words' features (N, W) are end to end."""
        ends = np.cumsum([len(words) for words in sentences])
        return [self.decode(part, offset) for part in np.split(self.log_probs(features), ends[:-1])]


class Chosen(NamedTuple):
    """How penalty and offset were chosen."""

    strength: float  # scikit-learn's C
    offset: float  # nats, subtracted from the score of O
    strengths: list[float]  # those tried, rising
    offsets: list[float]  # those tried, rising
    f1: list[list[float]]  # (strengths, offsets) span F1 of each; empty if there was no choice
    chosen_on: str  # what F1 was measured on


def fit_probe(
    features: Callable[[TaggedSentences], Any],
    data: TaggedSentences,
    *,
    dev: TaggedSentences | None = None,
    strengths: Sequence[float] = STRENGTHS,
    offsets: Sequence[float] = OFFSETS,
    folds: int = 3,
    seed: int = 0,
    progress: Callable[[str], object] = lambda words: None,
) -> tuple[TagProbe, Chosen]:
    """Fit a probe with the penalty and offset of the best span F1 on held-out sentences.

    ``features`` makes a row (W,) for each word of sentences, (N, W). F1 is measured on ``dev``, by default by
    cross-validation over sentences, equal ones in one fold. ``strengths`` are scikit-learn's ``C`` (larger: a weaker
    penalty), ``offsets`` nats. Dense features are standardised for the fit, and the probe is scaled back. ``progress``
    is told what is being fitted. On ties the strongest penalty wins, then the smallest offset. ValueError for
    impossible settings and a single tag, before any features are made, and for a fit that does not converge.
    **Source**: ``sklearn.linear_model.LogisticRegression(C=C)``, multinomial, L-BFGS, no randomness.
    """
    require("sklearn", "apps", "training a tagger")
    grid, leans = (sorted({float(value) for value in values}) for values in (strengths, offsets))
    if not grid or not leans or not (0 < grid[0] <= grid[-1] < math.inf and 0 <= leans[0] <= leans[-1] < math.inf):
        got = f"{tuple(strengths)!r} and {tuple(offsets)!r}"
        raise ValueError(f"fit_probe: expected positive strengths and offsets of 0 or more, one at least, got {got}")
    if not data.types:
        raise ValueError(f"{data.name}: no entities, all tags are O: nothing to learn")
    known = features(data)
    if len(grid) == len(leans) == 1:
        [probe] = _fits(known, data.tags, grid, data.name)
        return probe, Chosen(grid[0], leans[0], grid, leans, [], "")
    parts: Iterable[Any] = [(known, data.tags, features(dev), dev.tags)] if dev else _folds(known, data, folds, seed)
    counts, probes = np.zeros((len(grid), len(leans), 3)), list[TagProbe]()
    for fold, (learnt, tags, others, asked) in enumerate(parts, 1):
        for s, probe in enumerate(_fits(learnt, tags, grid, data.name)):
            progress(f"{'' if dev else f'fold {fold}, '}strength {grid[s]:g}")
            probes.append(probe)
            for o, offset in enumerate(leans):
                counts[s, o] += span_counts(asked, probe.decode_all(others, asked, offset)).sum(axis=(0, 1))
    f1 = rates(counts)[..., 2]  # (strengths, offsets)
    s, o = map(int, np.unravel_index(f1.argmax(), f1.shape))
    if not dev:  # what was chosen on folds learns from all sentences
        probes[s : s + 1] = _fits(known, data.tags, grid[s : s + 1], data.name)
    chosen_on = dev.name if dev else f"cross-validation, {fold} folds"
    return probes[s], Chosen(grid[s], leans[o], grid, leans, f1.tolist(), chosen_on)


def _folds(features: Any, data: TaggedSentences, folds: int, seed: int) -> Iterator[Any]:
    """Features and tags to learn from, and those to ask; with its share of sentences that have entities each."""
    _, groups = distinct([" ".join(words) for words in data.sentences])  # (S,) equal for equal sentences
    named = np.array([any(tag != "O" for tag in tags) for tags in data.tags], np.intp)  # (S,)
    fold_of_sentence = stratified_folds(named, folds, seed, groups)  # (S,)
    fold_of_word = np.repeat(fold_of_sentence, [len(tags) for tags in data.tags])  # (N,)
    for k in range(fold_of_sentence.max() + 1):
        sides: list[Any] = []
        for is_asked in (False, True):
            rows = np.flatnonzero((fold_of_sentence == k) == is_asked).tolist()
            sides += [features[np.flatnonzero((fold_of_word == k) == is_asked)], [data.tags[i] for i in rows]]
        yield sides


def _fits(features: Any, rows: Sequence[Sequence[str]], grid: Sequence[float], name: str) -> Iterator[TagProbe]:
    """Fit the probe on the tags of sentences for each strength."""
    from sklearn.preprocessing import StandardScaler

    tags, classes = np.unique([tag for row in rows for tag in row], return_inverse=True)  # (C,), (N,)
    if len(tags) < 2:
        raise ValueError(f"{name}: expected two different tags to learn from, got only {tags[0]}; add sentences")
    centre, spread = np.zeros(1), np.ones(1)
    if isinstance(features, np.ndarray):  # sparse ones are counts, and stay as they are
        scaler = StandardScaler().fit(features)
        features, centre, spread = scaler.transform(features), scaler.mean_, scaler.scale_
    for strength in grid:
        weight, bias = logistic_fit(features, classes, strength, np.ones(len(tags)), tol=1e-5)  # (C, W), (C,)
        weight = weight / spread  # (x - centre) / spread is linear too: the probe takes x
        yield TagProbe(tuple(tags.tolist()), weight, bias - (weight * centre).sum(axis=1))


# ------------------------------------------------------------------------------------------------------ tagger


@dataclass(frozen=True)
class Entity:
    """An entity in a text: ``text[start:stop]``."""

    text: str
    type: str
    start: int
    stop: int  # one past its last character
    probability: float  # see span_probabilities


@dataclass(frozen=True, eq=False)
class EntityTagger:
    """A linear probe on word vectors, with all that is needed to apply it; made by :func:`train_tagger`.

    Parameters
    ----------
    probe : TagProbe
        Word vectors (N, W) to scores of ``C`` tags.
    layer : int
        Whose hidden states make a word's vector.
    offset : float
        In nats, subtracted from the score of ``O`` before decoding.
    origin : Origin
        The model that it was trained on; others are rejected with OriginError.
    training : mapping
        How it was trained, for display.

    Raises
    ------
    ValueError
        If these do not fit together.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> encoder = SentenceEncoder()
    >>> probe = TagProbe(("B-word", "O"), np.zeros((2, 384)), np.array([2.0, 0.0]))
    >>> tagger = EntityTagger(probe, 3, 0.0, origin_of(encoder), {})
    >>> [found] = tagger.find(encoder, ["hot soup"])
    >>> found[1].text, found[1].start, round(found[1].probability, 2)
    ('soup', 4, 0.88)
    """

    probe: TagProbe
    layer: int
    offset: float
    origin: Origin
    training: Mapping[str, Any]

    def __post_init__(self) -> None:
        probe, size = self.probe, len(self.probe.tags)
        for tag in probe.tags:
            iob2([f"B{tag[1:]}", tag] if str(tag).startswith("I-") else [tag])
        fits = {
            "tags": len(set(probe.tags)) == size >= 2,
            "weight": probe.weight.dtype == np.float64 and probe.weight.ndim == 2 and len(probe.weight) == size,
            "bias": probe.bias.dtype == np.float64 and probe.bias.shape == (size,),
            "layer": type(self.layer) is int,
            "offset": isinstance(self.offset, float),
            "origin": isinstance(self.origin, Origin),
            "training": isinstance(self.training, Mapping),
        }
        check_parts("EntityTagger", fits)

    @property
    def types(self) -> tuple[str, ...]:
        """Entity types, sorted."""
        return tuple(sorted({tag[2:] for tag in self.probe.tags} - {""}))

    def tag(self, encoder: SentenceEncoder, sentences: Sequence[Sequence[str]], **options: Any) -> list[list[str]]:
        """Tag sentences given as words (IOB2). ``options``: ``num_threads`` and ``show_progress_bar``."""
        check_sequence(sentences, "tag: sentences", "an iterable of lists of words")
        scored = self._log_probs(encoder, [join_words(words) for words in sentences], **options)
        return [self.probe.decode(log_probs, self.offset) for log_probs in scored]

    def find(self, encoder: SentenceEncoder, texts: Iterable[str | Words], **options: Any) -> list[list[Entity]]:
        """Find the entities of texts, in order; a str is split by :func:`split_words`; ``options`` as in ``tag``."""
        check_sequence(texts, "find: texts")
        split = [text if isinstance(text, Words) else split_words(text) for text in texts]
        found = []
        for words, log_probs in zip(split, self._log_probs(encoder, split, **options), strict=True):
            spans = spans_of(self.probe.decode(log_probs, self.offset))
            names = []
            for span, probability in zip(spans, span_probabilities(log_probs, self.probe.tags, spans), strict=True):
                start, stop = int(words.starts[span.start]), int(words.stops[span.stop - 1])
                names.append(Entity(words.text[start:stop], span.type, start, stop, probability))
            found.append(names)
        return found

    def _log_probs(self, encoder: SentenceEncoder, texts: Sequence[Words], **options: Any) -> list[Array]:
        """Log-probabilities of each word's tags; (T, C) per text."""
        self.origin.check(encoder, "this entity tagger", "train one with this model")
        vectors = word_vectors(encoder, texts, layer=self.layer, **options)
        return [self.probe.log_probs(rows) for rows in vectors]

    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Write a folder that :func:`load_tagger` reads, whole or not at all.

        The folder must be new or empty, or hold a tagger to be replaced with ``force``; SavedError otherwise.
        """
        facts = {
            "tags": self.probe.tags,
            "layers": [self.layer],
            "offset": self.offset,
            "origin": self.origin,
            "training": dict(self.training),
        }
        tensors = {"weight": self.probe.weight, "bias": self.probe.bias}
        save_folder(Path(folder), KIND, facts, tensors, force=force)


def load_tagger(folder: str | Path) -> EntityTagger:
    """Read what :meth:`EntityTagger.save` wrote; SavedError, a ValueError, for a missing, damaged or foreign folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "names"
    >>> probe = TagProbe(("B-person", "O"), np.zeros((2, 384)), np.zeros(2))
    >>> EntityTagger(probe, 3, 0.0, Origin("tiny", "ab12", 256), {}).save(folder)
    >>> load_tagger(folder).types
    ('person',)
    """

    def make(facts: dict[str, Any], tensors: dict[str, Array], where: str) -> EntityTagger:
        how = (facts.get("pooling", "mean"), facts.get("decoder", "viterbi"), len(facts["layers"]))
        if how != ("mean", "viterbi", 1):
            raise SavedError(f"{where}: pooling, decoder, number of layers: {how} is no longer supported; train again")
        probe = TagProbe(tuple(facts["tags"]), tensors["weight"], tensors["bias"])
        origin: Any = Origin.read(facts["origin"], where)
        return EntityTagger(probe, facts["layers"][0], facts["offset"], origin, facts["training"])

    return restored(Path(folder), KIND, make)


def train_tagger(
    encoder: SentenceEncoder,
    data: TaggedSentences,
    *,
    layer: int | None = None,
    num_threads: int | None = None,
    show_progress_bar: Any = False,
    **settings: Any,
) -> EntityTagger:
    """Train an entity tagger on a frozen model.

    Parameters
    ----------
    encoder : SentenceEncoder
    data : TaggedSentences
    layer, num_threads, show_progress_bar
        As in :func:`word_vectors`.
    **settings
        Passed to :func:`fit_probe`: ``dev``, other sentences on which penalty and offset are chosen instead of folds of
        ``data``; ``strengths``, ``offsets``, ``folds``, ``seed``, ``progress``.

    Returns
    -------
    EntityTagger
        Its ``training`` says how penalty and offset were chosen.

    Raises
    ------
    ValueError
        As :func:`word_vectors` and :func:`fit_probe`, and without scikit-learn.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> data = TaggedSentences("tiny", [["Ada", "sang"], ["Bo", "slept"]], [["B-person", "O"]] * 2)
    >>> tagger = train_tagger(SentenceEncoder(), data, strengths=[1.0], offsets=[0.0])
    >>> tagger.tag(SentenceEncoder(), [["Eve", "wept"]])
    [['B-person', 'O']]
    """
    wanted = check_layer(len(encoder.model.params.layers), layer)

    def features(one: TaggedSentences) -> Array:
        words = [join_words(sentence) for sentence in one.sentences]
        options: dict[str, Any] = {"num_threads": num_threads, "show_progress_bar": show_progress_bar}
        return np.concatenate(word_vectors(encoder, words, layer=wanted, **options))

    probe, chosen = fit_probe(features, data, **settings)
    facts = {"data": data.name, "sentences": len(data.sentences), "words": data.words, **chosen._asdict()}
    return EntityTagger(probe, wanted, chosen.offset, origin_of(encoder), facts)


# --------------------------------------------------------------------------------------------------- baselines


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


def fit_spelling(train: TaggedSentences, test: TaggedSentences, **settings: Any) -> tuple[list[list[str]], Chosen]:
    """Train the probe on the spelling of words, and tag ``test``; settings as for :func:`fit_probe`.

    Features are the runs of one to three characters in a word, its ends marked and its case kept:
    ``CountVectorizer(analyzer="char_wb", ngram_range=(1, 3), lowercase=False, binary=True, min_df=2)``.
    """
    require("sklearn", "apps", "the baseline by spelling")
    from sklearn.feature_extraction.text import CountVectorizer

    how: dict[str, Any] = {"lowercase": False, "binary": True, "min_df": 2, "dtype": np.float64}
    counter = CountVectorizer(analyzer="char_wb", ngram_range=(1, 3), **how)
    counter.fit([word for sentence in train.sentences for word in sentence])

    def features(data: TaggedSentences) -> Any:
        return counter.transform([word for sentence in data.sentences for word in sentence])

    probe, chosen = fit_probe(features, train, **{"strengths": SPELLING_STRENGTHS, **settings})
    return probe.decode_all(features(test), test.sentences, chosen.offset), chosen


# -------------------------------------------------------------------------------------------------- evaluation


class Published(NamedTuple):
    """The best published result on a test set; a share."""

    name: str
    f1: float


PUBLISHED = {(1_287, 23_394, 1_079): Published("WNUT 2017, best of the shared task (Aguilar et al. 2017)", 0.4186)}
"""By sentences, words and entities of a test set."""


@dataclass(frozen=True)
class SpanScore:
    """Spans, and the scores that follow with 95 % intervals: a bootstrap over sentences, whose words are not apart."""

    expected: int
    predicted: int
    right: int  # predicted and expected
    precision: Estimate  # right / predicted, 0 if none is predicted
    recall: Estimate  # right / expected
    f1: Estimate  # 2 right / (expected + predicted)

    @classmethod
    def of(cls, counts: Array, draws: Array) -> SpanScore:
        """Of right, predicted and expected spans (3,), and their resamples (R, 3)."""
        right, predicted, expected = map(int, counts)
        pairs = zip(rates(counts).tolist(), rates(draws, math.nan).T, strict=True)
        return cls(expected, predicted, right, *(percentiles(value, drawn) for value, drawn in pairs))


@dataclass(frozen=True)
class SystemScore:
    """The test scores of one system."""

    name: str
    spans: SpanScore
    by_type: dict[str, SpanScore]
    tagger_ahead: Estimate | None  # F1 of the tagger minus this one's; None for the tagger itself
    note: str  # how its penalty was chosen


@dataclass(frozen=True)
class EntityReport:
    """A tagger and baselines on the same test sentences."""

    set: str
    sentences: int
    words: int
    entities: int
    systems: tuple[SystemScore, ...]  # the tagger first
    tags_right: float  # share of the words that the tagger tags right
    outside: float  # share of the words outside entities, which "all O" gets right
    unseen: float | None  # share of the test set's entities whose name and type do not occur in training
    published: Published | None  # if this is that test set


def evaluate_tagger(
    tagger: EntityTagger,
    encoder: SentenceEncoder,
    test: TaggedSentences,
    *,
    train: TaggedSentences | None = None,
    dev: TaggedSentences | None = None,
    progress: Callable[[str], object] = lambda words: None,
    seed: int = 0,
    **options: Any,
) -> EntityReport:
    """Score a tagger on test sentences, beside baselines that know much less.

    **All O** has most words right and F1 0: accuracy of words is no measure here. With ``train``, the tagger's own
    training set, the **lexicon** shows how far memory goes, and **spelling** is the same probe on the characters of a
    word; its penalty is chosen on ``dev``, otherwise by cross-validation. Two systems are compared on the same
    resamples, so that easy and hard sentences cancel. ValueError for a test set without entities, another model, and
    spelling without scikit-learn.
    """
    if not test.types:
        raise ValueError(f"{test.name}: no entities, all tags are O: nothing to find")
    predicted = tagger.tag(encoder, test.sentences, **options)
    named = [("linear probe", predicted, _told(tagger.training))]
    if train is not None:
        tags, chosen = fit_spelling(train, test, dev=dev, seed=seed, progress=progress)
        named.append(("spelling", tags, _told(chosen._asdict())))
        named.append(("lexicon", lexicon(train, test.sentences), "each word's most frequent tag"))
    named.append(("all O", [["O"] * len(words) for words in test.sentences], ""))
    counts = np.stack([span_counts(test.tags, tags, test.types) for _, tags, _ in named], axis=1)  # (S, K, Y, 3)
    totals, draws = counts.sum(axis=0), resampled(counts, seed)  # (K, Y, 3), (R, K, Y, 3)
    f1, f1_draws = rates(totals[:, 0])[:, 2], rates(draws[:, :, 0])[..., 2]  # (K,), (R, K)
    systems = []
    for k, (name, _, note) in enumerate(named):
        whole, *by_type = (SpanScore.of(totals[k, y], draws[:, k, y]) for y in range(1 + len(test.types)))
        ahead = percentiles(f1[0] - f1[k], f1_draws[:, 0] - f1_draws[:, k]) if k else None
        systems.append(SystemScore(name, whole, dict(zip(test.types, by_type, strict=True)), ahead, note))
    flat, said = (np.array([tag for row in rows for tag in row]) for rows in (test.tags, predicted))  # (N,)
    asked = _names(test)
    seen = set() if train is None else set(_names(train))
    return EntityReport(
        set=test.name,
        sentences=len(test.sentences),
        words=test.words,
        entities=len(asked),
        systems=tuple(systems),
        tags_right=float((flat == said).mean()),
        outside=float((flat == "O").mean()),
        unseen=None if train is None else sum(name not in seen for name in asked) / len(asked),
        published=PUBLISHED.get((len(test.sentences), test.words, len(asked))),
    )


def _told(chosen: Mapping[str, Any]) -> str:
    """How penalty and offset were chosen."""
    if not chosen.get("chosen_on"):
        return ""
    return f"C {chosen['strength']:g}, offset {chosen['offset']:g}, chosen on {chosen['chosen_on']}"


def _names(data: TaggedSentences) -> list[tuple[str, ...]]:
    """The words and the type of each entity."""
    return [
        (*words[span.start : span.stop], span.type)
        for words, tags in zip(data.sentences, data.tags, strict=True)
        for span in spans_of(tags)
    ]
