"""A vector for each word of a text: the hidden states of its pieces, in a chosen layer, become one.

Nothing is cut: a long text is read in windows that overlap by half, and each piece is taken from where it has the most
context. A model's prompts are left out, since they are no words of the sentence. Letters: ``S`` texts, ``N`` tokens in
the strip, ``T`` words of one text, ``D`` hidden size.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minisbert.checks import check_whole, each_text
from minisbert.encoder import Progress, progress_bar
from minisbert.long_texts import Window, windows
from minisbert.model import Array
from minisbert.model.bert import embed
from minisbert.model.bert import layer as bert_layer
from minisbert.parallel import in_batches

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder
    from minisbert.model.folder import SentenceModel

_BLOCK_TEXTS = 1024  # texts whose piece vectors are in memory at a time


@dataclass(frozen=True, eq=False)
class Words:
    """A text, and where its words are."""

    text: str
    starts: Array  # (T,) first character of each word
    stops: Array  # (T,) one past its last character


def join_words(words: Sequence[str]) -> Words:
    """Join words with spaces; BERT ends a word at a space anyway, so its pieces are those that it has alone."""
    words = list(each_text(words, "join_words: words"))
    sizes = np.array([len(word) for word in words], np.intp)  # (T,)
    starts = np.cumsum(sizes + 1) - sizes - 1  # (T,)
    return Words(" ".join(words), starts, starts + sizes)


# A word on the shapes of :func:`_shape`: a link, an @name or a #tag is one, letters and digits with hyphens and full
# stops inside, an apostrophe with the letters after it, or any other single character.
_WORD = re.compile(r"[@#]?w+(?:[-._]+w+)*|'w+|[^ ]")
_LINK = re.compile(r"(?:https?://|www\.)\S+")


def split_words(text: str) -> Words:
    """Split a text into words, much as annotated texts are split.

    Links, ``@names``, ``#tags`` and ``pre-show`` are one word each; punctuation and symbols stand alone; ``Ada's`` is
    ``Ada`` and ``'s``. Chinese and Japanese, which have no spaces, are not split: pass lists of words.

    >>> found = split_words("@ada's in St. John (3.5 km) https://t.co/x!")
    >>> [found.text[start:stop] for start, stop in zip(found.starts, found.stops)]
    ['@ada', "'s", 'in', 'St', '.', 'John', '(', '3.5', 'km', ')', 'https://t.co/x!']
    """
    if not isinstance(text, str):
        raise ValueError(f"split_words: expected a string, got {type(text).__name__} {text!r:.80}")
    shape = "".join(map(_shape, text))
    for link in _LINK.finditer(text):
        shape = shape[: link.start()] + "w" * (link.end() - link.start()) + shape[link.end() :]
    places = [match.span() for match in _WORD.finditer(shape)]
    starts, stops = np.array(places, np.intp).reshape(-1, 2).T
    return Words(text, starts, stops)


def _shape(character: str) -> str:
    """w for characters of words, a space for whitespace, and punctuation that may belong to a word as it is."""
    if character in "-._@#":
        return character
    if character in "'’":  # the second is the one that phones type
        return "'"
    kind = unicodedata.category(character)
    if kind[0] in "LMN" or kind == "Cf":  # letters, their accents, digits, and joiners inside
        return "w"
    return " " if character.isspace() or kind == "Cc" else "p"


# ------------------------------------------------------------------------------------------------------ vectors


def word_vectors(
    encoder: SentenceEncoder,
    texts: Sequence[Words],
    *,
    layer: int | None = None,
    num_threads: int | None = None,
    show_progress_bar: Progress = False,
) -> list[Array]:
    """A vector for each word of each text, the mean of its pieces: S arrays (T, D), in the encoder's dtype.

    ``layer`` 0 is the output of the embeddings, and the default is the middle one. A word of which the tokenizer leaves
    nothing, such as a lone variation selector, has a vector of zeros; a piece that two words share counts for both.
    ValueError for a layer that the model does not have, and a limit without room for a window.
    **Source**: ``BertModel(..., output_hidden_states=True).hidden_states``, each word's rows averaged.

    >>> from minisbert import SentenceEncoder
    >>> [found] = word_vectors(SentenceEncoder(), [join_words(["i", "love", "bouillabaisse"])], layer=3)
    >>> found.shape
    (3, 384)
    """
    model, tokenizer = encoder.model, encoder.model.tokenizer
    wanted = check_layer(len(model.params.layers), layer)
    room, front = encoder.max_seq_length - tokenizer.special_count, len(tokenizer.first)
    found: list[Array] = []
    with progress_bar(len(texts), show_progress_bar) as bar:
        for start in range(0, len(texts), _BLOCK_TEXTS):
            block = texts[start : start + _BLOCK_TEXTS]
            cut = [list(windows(words.text, tokenizer, room, room // 2, left_out=front)) for words in block]
            encoded = iter(_encoded(model, [window for own in cut for window in own], wanted, num_threads))
            for words, own in zip(block, cut, strict=True):
                pieces = np.concatenate([next(encoded) for _ in own])  # of the whole text, and [SEP]
                spans = tokenizer.spans(words.text)
                # a word's pieces: from the first that ends after its start to the last that begins before its end
                first = np.searchsorted(spans.stops, words.starts, side="right")  # (T,)
                stop = np.searchsorted(spans.starts, words.stops, side="left")  # (T,)
                vectors = np.zeros((len(first), pieces.shape[1]), pieces.dtype)  # (T, D)
                for vector, begin, end in zip(vectors, first, stop, strict=True):
                    if begin < end:
                        vector[:] = pieces[begin:end].mean(axis=0)
                found.append(vectors)
            if bar is not None:
                bar.update(len(block))
    return found


def check_layer(count: int, layer: int | None) -> int:
    """Raise ValueError for a layer that a model of ``count`` does not have; None is the middle one.

    >>> check_layer(6, None), check_layer(6, 0)
    (3, 0)
    """
    return (count + 1) // 2 if layer is None else check_whole("word_vectors: layer", layer, 0, count)


def _encoded(model: SentenceModel, parts: Sequence[Window], wanted: int, num_threads: int | None) -> list[Array]:
    """Run windows up to the layer that is wanted; of each the piece vectors of its share, (N, D)."""
    lengths = np.array([len(part.token_ids) for part in parts])

    def work(batch: Array) -> list[Array]:
        strip = np.concatenate([parts[i].token_ids for i in batch])  # (N,)
        hidden = embed(strip, lengths[batch], model.params.embeddings, model.config.layer_norm_eps).output  # (N, D)
        for params in model.params.layers[:wanted]:
            hidden = bert_layer(hidden, lengths[batch], params, model.config).output  # (N, D)
        rows = np.split(hidden, np.cumsum(lengths[batch])[:-1])
        return [row[parts[i].share.first : parts[i].share.stop] for i, row in zip(batch, rows, strict=True)]

    return in_batches(lengths, work, num_threads=num_threads)
