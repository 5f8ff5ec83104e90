"""Long texts: cut into chunks that fit the model, and their vectors made into one.

A text longer than the limit is cut into windows over its own tokens (:func:`cut`), at the end of a sentence if one is
near, else between words, never inside a character. Each window goes through BERT like a text of its own.

Either the chunks' sentence vectors become one (:func:`compose`), or, in **late composition**, their token vectors are
pooled as if they were the tokens of one long text (:func:`share_out`, :func:`pool_shares`, :func:`compose_shares`).

Letters: ``N`` tokens in the strip, ``T`` tokens of the text, ``C`` chunks, ``D`` width of a vector.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.model.pooling import POOLINGS
from minisbert.model.tokens import Tokenizer, TokenSpans

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


@dataclass(frozen=True)
class Share:
    """The tokens of a window that late composition pools: where windows overlap, each token counts once."""

    first: int  # row of the window, special tokens included
    stop: int  # the row behind the last
    before: int  # tokens of the text, [CLS] included, that stand before the first


@dataclass(frozen=True)
class Window:
    """What goes through BERT of a chunk."""

    token_ids: Array  # (T,) special tokens and prompt included
    chunk: Chunk
    share: Share


def windows(
    text: str, tokenizer: Tokenizer, room: int, overlap: int = 0, prompt: str = "", skipped: int = 0, left_out: int = 0
) -> Iterator[Window]:
    """Cut a text that begins with the prompt into windows, each with the special tokens and the prompt.

    ``skipped`` tokens are those of the prompt and before it; the pooling leaves the first ``left_out`` of them out.
    """
    first, last = tokenizer.first, tokenizer.last
    in_prompt, spans = max(0, skipped - len(first)), tokenizer.spans(text)
    front = [*first, *spans.token_ids[:in_prompt]]
    own = TokenSpans(*(part[in_prompt:] for part in vars(spans).values()))
    cuts = list(cut(text, own, room, overlap))
    chunks, shares = describe(text, own, cuts, len(prompt)), share_out(cuts, len(front), len(last), left_out)
    for (start, stop), chunk, share in zip(cuts, chunks, shares, strict=True):
        yield Window(np.array([*front, *own.token_ids[start:stop], *last]), chunk, share)


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

    def last_best(least: int, most: int) -> int | None:
        places = quality[least : most + 1][::-1]
        return most - int(places.argmax()) if len(places) and places.max() > _CHARACTER else None

    first = stop = 0
    while stop < count:
        far = min(first + room, count)
        end = last_best(max(stop, first + room // 2) + 1, far)
        if end is None or quality[end] < _WORD:
            end = last_best(stop + 1, far)
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
        stop, least = end, max(0, end - overlap)
        first = least + int(quality[least : stop + 1].argmax())  # the first of the best: an overlap as long as may be


def _cut_quality(text: str, spans: TokenSpans) -> Array:
    """Say how good a place for a cut is, before each token and behind the last: (T+1,)."""
    starts, stops, words = spans.starts, spans.stops, spans.words
    quality = np.full(len(starts) + 1, _SENTENCE)  # (T+1,) the text's own two ends are the best places
    apart = np.where(starts[1:] > stops[:-1], _BLANK, _WORD)
    quality[1:-1] = np.where(words[1:] != words[:-1], apart, _PIECE)
    # an accent, a syllable of Hangul, a ligature: one character, several tokens
    quality[1:-1][starts[1:] < stops[:-1]] = _CHARACTER
    ends = np.array([match.end() for match in _SENTENCE_END.finditer(text)], np.intp)
    following = np.searchsorted(starts, ends)
    quality[following] = np.where(quality[following] >= _WORD, _SENTENCE, quality[following])
    return quality


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


# ---------------------------------------------------------------------------------------------------------- composition

Composition = str | Callable[[Array, Array], Array]
LATE = "late"
"""The composition that pools token vectors, and so has to know the model."""


def compose(
    embeddings: Array, new_tokens: Array, composition: Composition = "weighted_mean", normalized: bool = True
) -> Array:
    """Make one vector of the vectors of a text's chunks.

    ``weighted_mean`` counts a chunk by its new tokens, so that no word counts twice and a short rest counts little. A
    callable takes ``(C, D)`` and ``(C,)`` and gives ``(D,)``. The result is scaled to length 1 if the chunks' vectors
    are (``normalized``); a single chunk is left as it is.

    (C, D), (C,) -> (D,)

    >>> chunks = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> compose(chunks, np.array([30, 10]), normalized=False)
    array([0.75, 0.25])
    """
    check_composition(composition, COMPOSITIONS)
    if len(embeddings) == 1:
        return embeddings[0].copy()
    weights = (new_tokens / new_tokens.sum()).astype(embeddings.dtype)
    if callable(composition):
        given = composition(embeddings.copy(), new_tokens.copy())
        with suppress(TypeError, ValueError):  # what is no array of numbers is given back below
            given = np.asarray(given, embeddings.dtype)
        if np.shape(given) != embeddings.shape[1:] or not np.isfinite(given).all():
            raise ValueError(
                f"composition: expected a finite vector of shape (D,) = {embeddings.shape[1:]} of chunks "
                f"{embeddings.shape}, got {type(given).__name__} of shape {np.shape(given)}; is it reduced over axis "
                "0, the chunks, and without a division by zero?"
            )
        whole: Array = given
    else:
        whole = COMPOSITIONS[composition](embeddings, weights)
    return normalize(whole) if normalized else whole


COMPOSITIONS: dict[str, Callable[[Array, Array], Array]] = {
    "weighted_mean": lambda embeddings, weights: weights @ embeddings,
    "mean": lambda embeddings, weights: embeddings.mean(axis=0),
    "max": lambda embeddings, weights: embeddings.max(axis=0),
    "first": lambda embeddings, weights: embeddings[0],
}
"""Compositions by name: ``(C, D)`` and weights ``(C,)`` that sum to 1, to ``(D,)``."""


def check_composition(composition: Composition, known: Iterable[str]) -> None:
    """Refuse what is neither one of the known names nor callable."""
    if not callable(composition) and composition not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"composition must be {names} or a callable (C, D), (C,) -> (D,), got {composition!r}")


# ------------------------------------------------------------------------------------- late composition


def share_out(windows: Sequence[tuple[int, int]], front: int, back: int, skipped: int = 0) -> list[Share]:
    """Give each token to the window in which it has most neighbours on both sides.

    ``front`` and ``back`` tokens are put before and behind each window; of those in front, ``skipped`` are left out of
    the pooling. [CLS] and prompt are taken from the first window, [SEP] from the last, as if the text had been read in
    one.

    >>> share_out([(0, 8), (4, 10)], front=1, back=1)
    [Share(first=0, stop=7, before=0), Share(first=3, stop=8, before=7)]
    """
    shares: list[Share] = []
    begin, before = 0, skipped
    for i, (first, stop) in enumerate(windows):
        end, behind = stop, back
        if i + 1 < len(windows):  # to the middle of the overlap; one token at least
            end, behind = max(begin + 1, (stop + windows[i + 1][0] + 1) // 2), 0
        ahead = 0 if i else front - skipped
        shares.append(Share(front + begin - first - ahead, front + end - first + behind, before))
        before += shares[-1].stop - shares[-1].first
        begin = end
    return shares


def pool_shares(token_embeddings: Array, lengths: Array, shares: Sequence[Share], modes: tuple[str, ...]) -> Array:
    """Pool each window's share of its tokens, in each of the modes of :data:`~minisbert.model.pooling.POOLINGS`.

    ``E`` is ``D`` for each mode.

    (N, D), (C,) -> (C, E)
    """
    starts = np.cumsum(lengths) - lengths  # (C,)
    rows = [np.arange(start + share.first, start + share.stop) for start, share in zip(starts, shares, strict=True)]
    counts = np.array([len(row) for row in rows], np.intp)  # (C,)
    before = np.array([share.before for share in shares], np.intp)  # (C,)
    owned = token_embeddings[np.concatenate(rows)]
    return np.concatenate([POOLINGS[mode][0](owned, counts, before) for mode in modes], axis=1)


def compose_shares(pooled: Array, shares: Sequence[Share], modes: tuple[str, ...]) -> Array:
    """Make of the windows' pooled vectors what pooling all tokens at once would give.

    A mean of all tokens is the mean of the windows' means, each counted by its tokens; and so for the other poolings.
    Günther et al. 2024 (arXiv 2409.04701), "long late chunking", for windows that overlap; there the chunks are kept
    apart, here they are the whole text.

    (C, E) -> (E,)

    >>> compose_shares(np.array([[1.5], [4.0]]), [Share(0, 2, 0), Share(1, 2, 2)], ("mean",))  # of 1, 2 and 4
    array([2.33333333])
    """
    counts = np.array([share.stop - share.first for share in shares], pooled.dtype)  # (C,)
    before = np.array([share.before for share in shares], pooled.dtype)  # (C,)
    whole = []
    for mode, part in zip(modes, np.split(pooled, len(modes), axis=1), strict=True):
        if mode == "cls":
            whole.append(part[0])
        elif mode == "lasttoken":
            whole.append(part[-1])
        elif mode == "max":
            whole.append(part.max(axis=0))
        elif mode == "mean_sqrt_len_tokens":
            whole.append(np.sqrt(counts / counts.sum()) @ part)
        else:
            # the places of a share's tokens, counted from 1, add up to count * (before + (count + 1) / 2)
            mass = counts * (before + (counts + 1) / 2) if mode == "weightedmean" else counts
            whole.append((mass / mass.sum()) @ part)
    return np.concatenate(whole)
