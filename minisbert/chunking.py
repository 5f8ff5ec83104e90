"""Long text -> chunks that fit the model: which words share a chunk, and where it stands in the text.

A text longer than the limit is cut into windows over its own tokens (:func:`cut`), at the end of a sentence if one is
near, else between words, never inside a character. Each window goes through BERT like a text of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minisbert.model import Array
from minisbert.model.tokens import TokenSpans

# How good a place to cut is, from worst to best.
_CHARACTER, _PIECE, _WORD, _BLANK, _SENTENCE = range(-1, 4)
# A full stop with the quotes and brackets it closes, then a blank; the full stops of Chinese and Japanese; an empty
# line. That of an abbreviation looks the same; cutting behind one does no harm.
_SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]]*\s+|[。！？｡]["'”’」』）]*\s*|\n[ \t\r]*\n\s*""")


@dataclass(frozen=True)
class Chunk:
    """A stretch of a text, embedded on its own."""

    start: int  # its first character in the text
    stop: int  # the character behind its last
    tokens: int  # its own, without special tokens and prompt
    new_tokens: int  # those that the chunk before does not have


@dataclass(frozen=True)
class ChunkEmbeddings:
    """A text's chunks and their vectors."""

    embeddings: Array  # (C, D)
    chunks: tuple[Chunk, ...]  # C


def cut(text: str, spans: TokenSpans, room: int, overlap: int = 0) -> Iterator[tuple[int, int]]:
    """Cut a text into windows ``(first, stop)`` of at most ``room`` tokens, neighbours sharing at most ``overlap``.

    A window ends at the last end of a sentence in its second half, else at the last blank there, else the last word,
    else the last piece of a word. It begins ``overlap`` tokens or fewer before the end of the one before, at the best
    place of the same kind. A text without tokens is one empty window.

    >>> text = "One two. Three four five."
    >>> spans = TokenSpans(*np.array([[9] * 7, [0, 4, 7, 9, 15, 20, 24], [3, 7, 8, 14, 19, 24, 25], range(7)]))
    >>> [text[spans.starts[first] : spans.stops[stop - 1]] for first, stop in cut(text, spans, room=4)]
    ['One two.', 'Three four five.']
    """
    count = len(spans.token_ids)
    if count <= room:
        yield 0, count
        return
    quality = _cut_quality(text, spans)
    first = stop = 0
    while stop < count:
        far = min(first + room, count)
        end = _last_best(quality, max(stop, first + room // 2) + 1, far)
        if end is None or quality[end] < _WORD:
            end = _last_best(quality, stop + 1, far)
        if end is None and first < stop:  # the overlap leaves no room for one more character: do without
            first = stop
            continue
        if end is None:
            character = text[spans.starts[first] : spans.stops[first]]
            raise ValueError(
                f"encode: the character {character!r} at {spans.starts[first]} has more tokens than a chunk has room "
                f"for, {room}; make chunk_tokens larger"
            )
        yield first, end
        stop = end
        first = _first_best(quality, max(0, stop - overlap), stop)


def _cut_quality(text: str, spans: TokenSpans) -> Array:
    """Say how good a place for a cut is, before each token and behind the last: (T+1,)."""
    starts, stops, words = spans.starts, spans.stops, spans.words
    quality = np.full(len(starts) + 1, _SENTENCE)  # (T+1,) the text's own two ends are the best places
    apart = np.where(starts[1:] > stops[:-1], _BLANK, _WORD)
    quality[1:-1] = np.where(words[1:] != words[:-1], apart, _PIECE)
    # an accent, a syllable of Hangul, a ligature: one character, several tokens
    quality[1:-1][starts[1:] < stops[:-1]] = _CHARACTER
    ends = np.array([match.end() for match in _SENTENCE_END.finditer(text)], np.int64)
    following = np.searchsorted(starts, ends)
    quality[following] = np.where(quality[following] >= _WORD, _SENTENCE, quality[following])
    return quality


def _last_best(quality: Array, least: int, most: int) -> int | None:
    """Find the last of the best places from ``least`` to ``most``; None if all are inside a character."""
    places = quality[least : most + 1][::-1]
    return most - int(places.argmax()) if len(places) and places.max() > _CHARACTER else None


def _first_best(quality: Array, least: int, most: int) -> int:
    """Find the first of the best places, so that an overlap is as long as it may be."""
    return least + int(quality[least : most + 1].argmax())


def describe(text: str, spans: TokenSpans, windows: Sequence[tuple[int, int]], skipped: int = 0) -> list[Chunk]:
    """Say which characters of a text each window stands for, counted from behind a prompt of ``skipped`` characters.

    Without overlap the chunks hold every character between them but the blanks where they meet.
    """
    chunks = []
    before = 0
    for first, stop in windows:
        begin = int(spans.starts[first]) if first else skipped
        # up to the next token, not to the end of the last one: an accent that became no token belongs to its letter
        end = int(spans.starts[stop]) if stop < len(spans.starts) else len(text)
        end = max(begin, begin + len(text[begin:end].rstrip()))
        chunks.append(Chunk(max(0, begin - skipped), max(0, end - skipped), stop - first, stop - max(first, before)))
        before = stop
    return chunks
