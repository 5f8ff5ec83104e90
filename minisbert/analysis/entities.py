"""Entities by a linear probe: one vector a word, logistic regression over tags, the best valid sequence.

``word_vectors.py`` gives each word of a text a vector, ``tag_probe.py`` scores its tags, ``decoding.py`` makes the best
valid sequence of the scores: here they become an :class:`EntityTagger`, which is a matrix, and using it needs NumPy
alone.

**Which layer?** Not the last: that one was trained to be averaged into the meaning of a sentence, and has let go of
much of what its words were. On WNUT 2017's development set the default model's layers 0 to 6 reach F1 38.4, 47.9, 49.9,
53.9, 52.7, 50.8 and 44.4. So the one in the middle is the default. Several can be put end to end; two or three were not
better. The mean of a word's pieces (53.9) is better than its first (52.8).

**What to expect.** The model is frozen and was trained to compare whole sentences; the probe is linear and sees one
word's vector at a time, so that it may well take first and last name for two people. The default model reads lower case
only, and does not see capitals, in which English writes its names. ``entity_report.py``, next, puts a baseline beside
it that sees little else. A tagger of which all layers are trained for the task is better.

Left out on purpose: training the model itself, a CRF's transitions, gazetteers, features of characters, and a model's
prompts, which are no words of the sentence.

Letters: ``S`` sentences, ``N`` words of all of them, ``T`` words of one, ``C`` tags, ``D`` hidden size, ``W`` width of
a word's vector: D times the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minisbert.analysis.decoding import DECODERS, span_probabilities
from minisbert.analysis.saved import SavedError, load_folder, origin_from, origin_to_json, save_folder
from minisbert.analysis.tag_probe import OFFSETS, STRENGTHS, ProbeFit, TagProbe, check_settings, fit_probe
from minisbert.analysis.tagging import (
    TaggedSentences,
    check_tags,
    spans_of,
)
from minisbert.analysis.word_vectors import POOLINGS, Words, check_layers, join_words, split_words, word_vectors
from minisbert.checks import check_sequence
from minisbert.model import Array
from minisbert.origin import Origin, origin_of

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

KIND = "entities"


@dataclass(frozen=True)
class Entity:
    """A name in a text: ``text[start:stop]``."""

    text: str
    type: str
    start: int  # its first character
    stop: int  # the character behind its last
    probability: float  # that just these words are an entity of this type; see span_probabilities


@dataclass(frozen=True, eq=False)
class EntityTagger:
    """A trained probe, with all that is needed to use it on sentences of the same model."""

    probe: TagProbe
    layers: tuple[int, ...]
    pooling: str
    decoder: str
    offset: float  # nats, taken off the score of O before decoding
    origin: Origin
    training: Mapping[str, Any]  # facts about it, for people

    @property
    def types(self) -> tuple[str, ...]:
        """Types of entities that it knows, in sorted order."""
        return tuple(sorted({tag[2:] for tag in self.probe.tags} - {""}))

    def tag(self, encoder: SentenceEncoder, sentences: Sequence[Sequence[str]], **options: Any) -> list[list[str]]:
        """Tag sentences that come as words.

        Parameters
        ----------
        encoder : SentenceEncoder
            Of the model that it was trained with.
        sentences : sequence of sequences of str
        **options
            Of :func:`word_vectors`: ``num_threads``, ``show_progress_bar``.

        Returns
        -------
        list of list of str
            IOB2.

        Raises
        ------
        OriginError
            For another model, or another length limit.

        Examples
        --------
        >>> tagger.tag(encoder, [["Ada", "sang"]])  # doctest: +SKIP
        [['B-person', 'O']]
        """
        check_sequence(sentences, "tag: sentences", "an iterable of lists of words")
        scored = self._log_probs(encoder, [join_words(words) for words in sentences], **options)
        return [self._decode(log_probs) for log_probs in scored]

    def find(self, encoder: SentenceEncoder, texts: Iterable[str | Words], **options: Any) -> list[list[Entity]]:
        """Find the entities of texts.

        Parameters
        ----------
        encoder : SentenceEncoder
            Of the model that it was trained with.
        texts : sequence of str or Words
            A text is split by :func:`split_words`.
        **options
            As for :meth:`tag`.

        Returns
        -------
        list of list of Entity
            Of each text, in the order in which they stand in it.

        Raises
        ------
        OriginError
            For another model, or another length limit.

        Examples
        --------
        >>> tagger.find(encoder, ["Ada Lovelace sang."])  # doctest: +SKIP
        [[Entity(text='Ada Lovelace', type='person', start=0, stop=12, probability=0.93)]]
        """
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
        """Score each word of each text; (T, C) each."""
        self.origin.check(encoder, "this entity tagger", "train one with this model")
        vectors = word_vectors(encoder, texts, layers=self.layers, pooling=self.pooling, **options)
        return [self.probe.log_probs(rows) for rows in vectors]

    def _decode(self, log_probs: Array) -> list[str]:
        """Give one sentence's tags."""
        return DECODERS[self.decoder](self.probe.lean(log_probs, self.offset), self.probe.tags)

    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Write a folder that :func:`load_tagger` reads.

        Parameters
        ----------
        folder : str or path
            New or empty; it appears whole or not at all.
        force : bool
            Replace a tagger that is there.

        Raises
        ------
        SavedError
            As :func:`minisbert.analysis.saved.save_folder`.

        Examples
        --------
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "names"
        >>> probe = TagProbe(("B-x", "O"), np.zeros((2, 384)), np.zeros(2))
        >>> EntityTagger(probe, (3,), "mean", "viterbi", 0.0, Origin("tiny", "ab12", 256), {}).save(folder)
        >>> sorted(file.name for file in folder.iterdir())
        ['entities.json', 'entities.safetensors']
        """
        facts = {
            "tags": list(self.probe.tags),
            "layers": list(self.layers),
            "pooling": self.pooling,
            "decoder": self.decoder,
            "offset": self.offset,
            "origin": origin_to_json(self.origin),
            "training": dict(self.training),
        }
        tensors = {"weight": self.probe.weight, "bias": self.probe.bias}
        save_folder(Path(folder), KIND, facts, tensors, force=force)


def load_tagger(folder: str | Path) -> EntityTagger:
    """Read what :meth:`EntityTagger.save` wrote.

    Parameters
    ----------
    folder : str or path

    Returns
    -------
    EntityTagger

    Raises
    ------
    SavedError
        A ValueError: for a folder that is none, is damaged, or is not of this kind.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "names"
    >>> probe = TagProbe(("B-person", "O"), np.zeros((2, 384)), np.zeros(2))
    >>> EntityTagger(probe, (3,), "mean", "viterbi", 0.0, Origin("tiny", "ab12", 256), {}).save(folder)
    >>> load_tagger(folder).types
    ('person',)
    """
    facts, tensors = load_folder(Path(folder), KIND)
    where = (Path(folder) / f"{KIND}.json").as_posix()
    origin = origin_from(facts.get("origin"), where)
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
    """Say whether JSON gave a list of such values, at least one."""
    return isinstance(value, list) and bool(value) and all(type(entry) is kind for entry in value)


def _check_tag_set(tags: Sequence[str], where: str) -> None:
    """Refuse tags of which some could never be reached."""
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
        What strength and offset are chosen on; by default cross-validation over the sentences of ``data``.
    layers, pooling, num_threads, show_progress_bar
        As in :func:`word_vectors`.
    decoder : {"viterbi", "greedy"}
    **settings
        Of :func:`fit_probe`: ``strengths``, ``offsets``, ``folds``, ``seed``, ``progress``.

    Returns
    -------
    tagger : EntityTagger
    fit : ProbeFit
        How strength and offset were chosen.

    Raises
    ------
    ValueError
        As :func:`word_vectors` and :func:`fit_probe`.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> data = TaggedSentences("tiny", [["Ada", "sang"], ["Bo", "slept"]], [["B-person", "O"]] * 2)
    >>> tagger, _ = train_tagger(SentenceEncoder(), data, strengths=[1.0], offsets=[0.0])  # doctest: +SKIP
    >>> tagger.tag(SentenceEncoder(), [["Eve", "wept"]])  # doctest: +SKIP
    [['B-person', 'O']]
    """
    check_settings(settings.get("strengths", STRENGTHS), settings.get("offsets", OFFSETS), decoder, data)
    wanted = check_layers(len(encoder.model.params.layers), layers)

    def features(one: TaggedSentences) -> Array:
        words = [join_words(sentence) for sentence in one.sentences]
        options = {"num_threads": num_threads, "show_progress_bar": show_progress_bar}
        return np.concatenate(word_vectors(encoder, words, layers=wanted, pooling=pooling, **options))  # type: ignore[arg-type]

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
