"""Named entities by a linear probe: one vector per word, logistic regression over tags, the best valid sequence.

**Which layer?** Not the last: it was trained to be averaged into the meaning of a sentence, and has lost much of what
its words were. On WNUT 2017's development set the default model's layers 0 to 6 reach F1 38.4, 47.9, 49.9, 53.9, 52.7,
50.8 and 44.4, so the middle one is the default; concatenating two or three was not better. The mean of a word's pieces
(53.9) is better than its first (52.8). **Limits.** The model is frozen, the probe is linear and sees one word's vector
at a time, so it may take a first and a last name for two people; and the default model is uncased, while English writes
names with capitals. Fine-tuning all layers is better. Letters: ``S`` sentences, ``N`` words of all of them, ``T`` words
of one, ``C`` tags, ``D`` hidden size, ``W`` width of a word's vector: D times the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minisbert.analysis.decoding import DECODERS, span_probabilities
from minisbert.analysis.tag_probe import OFFSETS, STRENGTHS, ProbeFit, TagProbe, check_settings, fit_probe
from minisbert.analysis.tagging import (
    TaggedSentences,
    check_tags,
    spans_of,
)
from minisbert.analysis.word_vectors import POOLINGS, Words, check_layers, join_words, split_words, word_vectors
from minisbert.checks import check_sequence
from minisbert.model import Array
from minisbert.saved import Origin, SavedError, load_folder, origin_of, save_folder

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

KIND = "entities"


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
    layers : tuple of int
        Whose hidden states make a word's vector.
    pooling : {"mean", "first"}
        Of a word's pieces.
    decoder : {"viterbi", "greedy"}
    offset : float
        In nats, subtracted from the score of ``O`` before decoding.
    origin : Origin
        The model that it was trained on; others are rejected with OriginError.
    training : mapping
        How it was trained, for display.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> encoder = SentenceEncoder()
    >>> probe = TagProbe(("B-word", "O"), np.zeros((2, 384)), np.array([2.0, 0.0]))
    >>> tagger = EntityTagger(probe, (3,), "mean", "viterbi", 0.0, origin_of(encoder), {})
    >>> [found] = tagger.find(encoder, ["hot soup"])
    >>> found[1].text, found[1].start, round(found[1].probability, 2)
    ('soup', 4, 0.88)
    """

    probe: TagProbe
    layers: tuple[int, ...]
    pooling: str
    decoder: str
    offset: float
    origin: Origin
    training: Mapping[str, Any]

    @property
    def types(self) -> tuple[str, ...]:
        """Entity types, sorted."""
        return tuple(sorted({tag[2:] for tag in self.probe.tags} - {""}))

    def tag(self, encoder: SentenceEncoder, sentences: Sequence[Sequence[str]], **options: Any) -> list[list[str]]:
        """Tag sentences given as words (IOB2). ``options``: ``num_threads`` and ``show_progress_bar``."""
        check_sequence(sentences, "tag: sentences", "an iterable of lists of words")
        scored = self._log_probs(encoder, [join_words(words) for words in sentences], **options)
        return [self._decode(log_probs) for log_probs in scored]

    def find(self, encoder: SentenceEncoder, texts: Iterable[str | Words], **options: Any) -> list[list[Entity]]:
        """Find the entities of texts, in order; a str is split by :func:`split_words`; ``options`` as in ``tag``."""
        check_sequence(texts, "find: texts")
        split = [text if isinstance(text, Words) else split_words(text) for text in texts]
        found = []
        for words, log_probs in zip(split, self._log_probs(encoder, split, **options), strict=True):
            spans = spans_of(self._decode(log_probs))
            sure = span_probabilities(log_probs, self.probe.tags, spans) if spans else []
            found.append(
                [
                    Entity(
                        words.cut_out(span),
                        span.type,
                        int(words.starts[span.start]),
                        int(words.stops[span.stop - 1]),
                        probability,
                    )
                    for span, probability in zip(spans, sure, strict=True)
                ]
            )
        return found

    def _log_probs(self, encoder: SentenceEncoder, texts: Sequence[Words], **options: Any) -> list[Array]:
        """Log-probabilities of each word's tags; (T, C) per text."""
        self.origin.check(encoder, "this entity tagger", "train one with this model")
        vectors = word_vectors(encoder, texts, layers=self.layers, pooling=self.pooling, **options)
        return [self.probe.log_probs(rows) for rows in vectors]

    def _decode(self, log_probs: Array) -> list[str]:
        """The tags of one sentence."""
        return DECODERS[self.decoder](self.probe.lean(log_probs, self.offset), self.probe.tags)

    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Write a folder that :func:`load_tagger` reads, whole or not at all.

        The folder must be new or empty, or hold a tagger to be replaced with ``force``; SavedError otherwise.
        """
        facts = {
            "tags": list(self.probe.tags),
            "layers": list(self.layers),
            "pooling": self.pooling,
            "decoder": self.decoder,
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
    >>> EntityTagger(probe, (3,), "mean", "viterbi", 0.0, Origin("tiny", "ab12", 256), {}).save(folder)
    >>> load_tagger(folder).types
    ('person',)
    """
    facts, tensors = load_folder(Path(folder), KIND)
    where = (Path(folder) / f"{KIND}.json").as_posix()
    origin = Origin.read(facts.get("origin"), where)
    tags, layers = facts.get("tags"), facts.get("layers")
    weight, bias = tensors.get("weight"), tensors.get("bias")
    fits = (
        origin is not None
        and _is_list(tags, str)
        and len(set(tags or ())) == len(tags or ()) >= 2
        and _is_list(layers, int)
        and facts.get("pooling") in POOLINGS
        and facts.get("decoder") in DECODERS
        and isinstance(facts.get("offset"), float)
        and 0 <= facts["offset"] < math.inf
        and isinstance(facts.get("training"), dict)
        and weight is not None
        and bias is not None
        and weight.dtype == bias.dtype == np.float64
        and weight.ndim == 2
        and bias.shape == (len(tags or ()),) == weight.shape[:1]
    )
    if not fits or origin is None or weight is None or bias is None or tags is None or layers is None:
        raise SavedError(f"{where}: damaged: tags, settings or shapes do not fit an entity tagger; train again")
    _check_tag_set(tags, where)
    probe = TagProbe(tuple(tags), weight, bias)
    how = facts["pooling"], facts["decoder"], facts["offset"]
    return EntityTagger(probe, tuple(layers), *how, origin, facts["training"])


def _is_list(value: Any, kind: type) -> bool:
    """Whether this is a nonempty JSON list of such values."""
    return isinstance(value, list) and bool(value) and all(type(entry) is kind for entry in value)


def _check_tag_set(tags: Sequence[str], where: str) -> None:
    """Raise if some tags could never be reached."""
    try:
        for tag in tags:
            check_tags([f"B-{tag[2:]}", tag] if tag.startswith("I-") else [tag])
    except ValueError as error:
        raise SavedError(f"{where}: damaged: {error}") from None


def train_tagger(
    encoder: SentenceEncoder,
    data: TaggedSentences,
    *,
    dev: TaggedSentences | None = None,
    layers: Sequence[int] | None = None,
    pooling: str = "mean",
    decoder: str = "viterbi",
    num_threads: int | None = None,
    show_progress_bar: bool = False,
    **settings: Any,
) -> tuple[EntityTagger, ProbeFit]:
    """Train an entity tagger on a frozen model.

    Parameters
    ----------
    encoder : SentenceEncoder
    data : TaggedSentences
    dev : TaggedSentences, optional
        What penalty and offset are chosen on; by default cross-validation over the sentences of ``data``.
    layers, pooling, num_threads, show_progress_bar
        As in :func:`word_vectors`.
    decoder : {"viterbi", "greedy"}
    **settings
        Passed to :func:`fit_probe`: ``strengths``, ``offsets``, ``folds``, ``seed``, ``progress``.

    Returns
    -------
    tagger : EntityTagger
    fit : ProbeFit
        How penalty and offset were chosen.

    Raises
    ------
    ValueError
        As :func:`word_vectors` and :func:`fit_probe`, and without scikit-learn.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> data = TaggedSentences("tiny", [["Ada", "sang"], ["Bo", "slept"]], [["B-person", "O"]] * 2)
    >>> tagger, _ = train_tagger(SentenceEncoder(), data, strengths=[1.0], offsets=[0.0])
    >>> tagger.tag(SentenceEncoder(), [["Eve", "wept"]])
    [['B-person', 'O']]
    """
    check_settings(settings.get("strengths", STRENGTHS), settings.get("offsets", OFFSETS), decoder, data)
    wanted = check_layers(len(encoder.model.params.layers), layers)

    def features(one: TaggedSentences) -> Array:
        words = [join_words(sentence) for sentence in one.sentences]
        options: dict[str, Any] = {"num_threads": num_threads, "show_progress_bar": show_progress_bar}
        return np.concatenate(word_vectors(encoder, words, layers=wanted, pooling=pooling, **options))

    others = None if dev is None else (features(dev), dev)
    fit = fit_probe(features(data), data, dev=others, decoder=decoder, **settings)
    facts = {
        "data": data.name,
        "sentences": len(data.sentences),
        "words": data.words,
        "strength": fit.strength,
        "offset": fit.offset,
        "strengths": list(fit.strengths),
        "offsets": list(fit.offsets),
        "f1": fit.f1.tolist(),
        "chosen_on": fit.chosen_on,
    }
    return EntityTagger(fit.probe, wanted, pooling, decoder, fit.offset, origin_of(encoder), facts), fit
