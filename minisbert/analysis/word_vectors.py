"""A vector for each word of a text: the hidden states of its pieces, in a chosen layer, become one.

Nothing is cut: a long text is read in windows that overlap by half, and each piece is taken from where it has the most
context. A model's prompts are left out, since they are no words of the sentence. Letters: ``S`` texts, ``N`` tokens in
the strip, ``T`` words of one text, ``D`` hidden size, ``W`` width of a word's vector: D times the layers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minisbert.analysis.tagging import (
    Span,
)
from minisbert.checks import each_text
from minisbert.encoder import Progress, progress_bar
from minisbert.long_texts import Share, cut, share_out
from minisbert.model import Array
from minisbert.model.bert import embed, layer
from minisbert.parallel import make_batches, threads, work_through

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder
    from minisbert.model.folder import SentenceModel

POOLINGS = ("mean", "first")
"""How the vectors of a word's pieces become one."""

_BLOCK_TEXTS = 1024  # texts whose piece vectors are in memory at a time


@dataclass(frozen=True, eq=False)
class Words:
    """A text, and where its words are."""

    text: str
    starts: Array  # (T,) first character of each word
    stops: Array  # (T,) one past its last character

    def cut_out(self, span: Span) -> str:
        """The characters from a span's first word to its last, verbatim.

        >>> split_words("met  Ada   Lovelace.").cut_out(Span(1, 3, "person"))
        'Ada   Lovelace'
        """
        return self.text[self.starts[span.start] : self.stops[span.stop - 1]]


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
    layers: Sequence[int] | None = None,
    pooling: str = "mean",
    num_threads: int | None = None,
    show_progress_bar: Progress = False,
) -> list[Array]:
    """A vector for each word of each text: S arrays (T, W), in the encoder's dtype.

    ``layers`` are concatenated; 0 is the output of the embeddings, and the default is the middle one. ``pooling`` of a
    word's pieces is their "mean" or the "first". A word of which the tokenizer leaves nothing, such as a lone variation
    selector, has a vector of zeros; a piece that two words share counts for both. ValueError for layers that the model
    does not have, an unknown pooling, a limit without room for a window, and weights that overflow. **Source**:
    ``BertModel(..., output_hidden_states=True).hidden_states``, each word's rows averaged.

    >>> from minisbert import SentenceEncoder
    >>> [found] = word_vectors(SentenceEncoder(), [join_words(["i", "love", "bouillabaisse"])], layers=[3, 4])
    >>> found.shape
    (3, 768)
    """
    model = encoder.model
    wanted = check_layers(len(model.params.layers), layers)
    if pooling not in POOLINGS:
        raise ValueError(f"word_vectors: pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    found: list[Array] = []
    with progress_bar(len(texts), show_progress_bar) as bar:
        for start in range(0, len(texts), _BLOCK_TEXTS):
            block = texts[start : start + _BLOCK_TEXTS]
            spans = [model.tokenizer.spans(words.text) for words in block]
            windows = [window for i, text in enumerate(spans) for window in _windows(encoder, block[i].text, text, i)]
            pieces = _piece_vectors(model, windows, len(block), wanted, num_threads)
            for words, text, rows in zip(block, spans, pieces, strict=True):
                # pieces from the first that ends after the word's start to the last that begins before its end
                first = np.searchsorted(text.stops, words.starts, side="right")  # (T,)
                stop = np.searchsorted(text.starts, words.stops, side="left")  # (T,)
                found.append(_pool(rows, first, stop if pooling == "mean" else np.minimum(stop, first + 1)))
            if bar is not None:
                bar.update(len(block))
    return found


def check_layers(count: int, layers: Sequence[int] | None) -> tuple[int, ...]:
    """Raise ValueError for layers that a model of ``count`` does not have; None is the middle one.

    >>> check_layers(6, None), check_layers(6, [0, 6])
    ((3,), (0, 6))
    """
    wanted = ((count + 1) // 2,) if layers is None else tuple(layers)
    valid = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and 0 <= n <= count for n in wanted)
    if not valid or not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(
            f"layers: expected at least one layer, all different, from 0 (the embeddings) to {count} (the last layer), "
            f"got {layers!r}"
        )
    return tuple(int(n) for n in wanted)


@dataclass(frozen=True, eq=False)
class _Window:
    """A stretch of a text on its way through the model."""

    text: int  # which of the block
    token_ids: Array  # special tokens included
    share: Share  # the rows taken from it


def _windows(encoder: SentenceEncoder, text: str, spans: Any, number: int) -> Iterator[_Window]:
    """Cut a text into windows that overlap by half; each token belongs to the share of one."""
    tokenizer = encoder.model.tokenizer
    room = encoder.max_seq_length - tokenizer.special_count
    cuts = list(cut(text, spans, room, overlap=room // 2))
    front = len(tokenizer.first)
    for (start, stop), share in zip(cuts, share_out(cuts, front, 0, front), strict=True):
        yield _Window(number, np.array([*tokenizer.first, *spans.token_ids[start:stop], *tokenizer.last]), share)


def _piece_vectors(
    model: SentenceModel, windows: Sequence[_Window], count: int, layers: tuple[int, ...], num_threads: int | None
) -> list[Array]:
    """Encode windows on all threads; the piece vectors of each text, in order."""
    lengths = np.array([len(window.token_ids) for window in windows])
    results: list[Array] = [np.empty(0)] * len(windows)

    def work(batch: Array) -> list[Array]:
        strip = np.concatenate([windows[i].token_ids for i in batch])
        hidden = _hidden(strip, lengths[batch], model, layers)  # (N, W)
        if not np.isfinite(hidden).all():
            raise ValueError(f"word_vectors: {hidden.dtype} overflowed; is the model damaged? dtype='float64' helps")
        parts = np.split(hidden, np.cumsum(lengths[batch])[:-1])
        return [part[windows[i].share.first : windows[i].share.stop] for i, part in zip(batch, parts, strict=True)]

    workers = num_threads or threads.usable()
    for batch, rows in work_through(make_batches(lengths, None, workers), work, workers):
        for i, row in zip(batch, rows, strict=True):
            results[i] = row
    by_text: list[list[Array]] = [[] for _ in range(count)]
    for window, row in zip(windows, results, strict=True):
        by_text[window.text].append(row)
    return [np.concatenate(rows) for rows in by_text]


def _hidden(strip: Array, lengths: Array, model: SentenceModel, layers: tuple[int, ...]) -> Array:
    """Run the layers up to the last one wanted, and concatenate those wanted: (N,), (B,) -> (N, W)."""
    hidden = embed(strip, lengths, model.params.embeddings, model.config.layer_norm_eps).output  # (N, D)
    kept = {0: hidden}
    for number, params in enumerate(model.params.layers[: max(layers)], 1):
        hidden = layer(hidden, lengths, params, model.config).output  # (N, D)
        if number in layers:
            kept[number] = hidden
    return np.concatenate([kept[number] for number in layers], axis=1)


def _pool(rows: Array, first: Array, stop: Array) -> Array:
    """Mean of rows ``first`` to ``stop - 1`` for each word, zeros for none.

    (N, W), (T,), (T,) -> (T, W)
    """
    pooled = np.zeros((len(first), rows.shape[1]), rows.dtype)  # (T, W)
    for t, (begin, end) in enumerate(zip(first, stop, strict=True)):
        if begin < end:
            pooled[t] = rows[begin:end].mean(axis=0)
    return pooled
