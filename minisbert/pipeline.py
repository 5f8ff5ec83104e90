"""Texts -> tokens -> batches -> vectors, a block of texts at a time: what happens inside ``encode``. No mathematics.

Texts are taken from where they come a few thousand at a time, so that there may be any number of them; long ones are
cut off, or split into chunks; ``schedule.py`` says which share a batch and which thread takes it; the
results come back in the order of the texts. ``encoder.py``, next, is the public face of this.

Letters: ``B`` texts, ``N`` tokens in the strip, ``T`` tokens of one text, ``C`` chunks, ``D`` hidden size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from minisbert.blas import threads
from minisbert.checks import check_flag
from minisbert.chunking import Chunk, ChunkEmbeddings, cut, describe
from minisbert.composition import LATE, Composition, Share, compose, compose_shares, pool_shares, share_out
from minisbert.model import Array
from minisbert.model.bert import bert
from minisbert.model.folder import SentenceModel
from minisbert.model.pooling import Normalize, Pooling, apply_modules
from minisbert.model.tokens import OverflowReport, Tokens
from minisbert.options import Chunking, Options
from minisbert.schedule import make_batches, work_through

if TYPE_CHECKING:
    from tqdm import tqdm

BLOCK_TEXTS = 8192
"""Texts, and chunks, that are held at a time: enough that sorting by length pays, few enough for any memory."""
BLOCK_CHARACTERS = 2**24
"""Characters of the texts that are held at a time, if the texts are long."""


def embed_blocks(
    model: SentenceModel,
    texts: Iterable[str],
    block_texts: int,
    options: Options,
    report: OverflowReport,
    bar: tqdm[NoReturn] | None,
) -> Iterator[list[Any]]:
    """Give, block by block, what was asked for of each text: its vector, its token vectors, or its chunks.

    Parameters
    ----------
    model : SentenceModel
    texts : iterable of str
        Checked; read a block at a time.
    block_texts : int
        Texts in a block, at most.
    options : Options
    report : OverflowReport
        Counts what is cut off.
    bar : tqdm, optional
        Counts texts.

    Yields
    ------
    list of Array or of ChunkEmbeddings

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> from minisbert.options import check_options
    >>> model = SentenceEncoder().model
    >>> options = check_options(model, 256)
    >>> [len(block) for block in embed_blocks(model, ["a", "b", "c"], 2, options, OverflowReport(256, "warn"), None)]
    [2, 1]
    """
    following = iter(texts)
    while block := [options.prefix + text for text in _take(following, block_texts)]:
        if options.chunking is None:
            tokens = model.tokenizer(block, options.max_seq_length)
            report.add(tokens)

            def forward(strip: Array, lengths: Array, batch: Array) -> Iterable[Array]:
                return _forward(model, strip, lengths, options)

            yield _embed(tokens, forward, options, lambda batch: bar.update(len(batch)) if bar is not None else None)
        else:
            nothing = np.zeros(len(block), np.intp)
            report.add(Tokens(nothing[:0], nothing, nothing))
            yield list(_embed_chunks(model, block, options, options.chunking, bar))


def _take(texts: Iterator[str], count: int) -> Iterator[str]:
    """Give the next texts, fewer if they are long."""
    characters = 0
    for text in islice(texts, count):
        yield text
        characters += len(text)
        if characters >= BLOCK_CHARACTERS:
            return


def _embed(
    tokens: Tokens,
    forward: Callable[[Array, Array, Array], Iterable[Array]],
    options: Options,
    done: Callable[[Array], object],
) -> list[Array]:
    """Send texts, or chunks, through the model, batch by batch, on all threads."""
    ids, lengths = tokens.split(), tokens.lengths
    results: list[Array] = [np.empty(0)] * len(lengths)

    def embed_batch(batch: Array) -> Iterable[Array]:
        return forward(np.concatenate([ids[i] for i in batch]), lengths[batch], batch)

    # one text alone is left to BLAS's own threads, as many as the caller has set
    num_threads = options.num_threads or (threads.usable() if len(lengths) > 1 else None)
    if options.deterministic:
        batches = list(np.arange(len(lengths))[:, None])
        num_threads = num_threads if num_threads and len(batches) > 1 else 1
    else:
        batches = make_batches(lengths, options.batch_size, num_threads or 1)
    for batch, vectors in work_through(batches, embed_batch, num_threads):
        for i, vector in zip(batch, vectors, strict=True):
            results[i] = vector
        done(batch)
    return results


def _forward(
    model: SentenceModel, strip: Array, lengths: Array, options: Options, shares: list[Share] | None = None
) -> Iterable[Array]:
    """Compute one batch: sentence vectors, each text's token vectors, or the pooled shares of windows."""
    tokens_wanted = options.output_value == "token_embeddings"
    embedded = bert(strip, lengths, model.params, model.config)
    if shares is not None:
        embedded = pool_shares(embedded, lengths, shares, _pooling(model).modes)
    elif not tokens_wanted:
        embedded = apply_modules(embedded, lengths, model.modules, options.skipped)[-1]
    if not np.isfinite(embedded).all():
        raise ValueError(
            f"encode: {embedded.dtype} overflowed: the weights are so large that vectors are infinite or NaN; is the "
            "model damaged? dtype='float64' reaches further"
        )
    return np.split(embedded, np.cumsum(lengths)[:-1]) if tokens_wanted else embedded


def _pooling(model: SentenceModel) -> Pooling:
    """Find the model's one Pooling, which comes first."""
    return next(module for module in model.modules if isinstance(module, Pooling))


# ------------------------------------------------------------------------------------------------ long texts


@dataclass(frozen=True)
class _Window:
    """A chunk on its way through the model."""

    text: int  # which text of the block it belongs to
    token_ids: Array  # (T,) special tokens and prompt included
    chunk: Chunk
    share: Share


def _embed_chunks(
    model: SentenceModel, block: list[str], options: Options, chunking: Chunking, bar: tqdm[NoReturn] | None
) -> Iterator[Array | ChunkEmbeddings]:
    """Embed the chunks of all texts together, and put each text's together again."""
    windows = _split(model, block, options, chunking)
    embedded = _embed_windows(model, windows, options, chunking.composition == LATE, bar)
    for _, chunks in groupby(embedded, key=lambda pair: pair[0].text):
        yield _join(model, list(chunks), chunking.composition)
        if bar is not None:
            bar.update()


def _split(model: SentenceModel, block: list[str], options: Options, chunking: Chunking) -> Iterator[_Window]:
    """Split each text into windows, each with the special tokens and the prompt that every text has."""
    first, last = model.tokenizer.first, model.tokenizer.last
    in_prompt = max(0, options.skipped - len(first))
    left_out = 0 if _pooling(model).include_prompt else options.skipped
    for i, text in enumerate(block):
        spans = model.tokenizer.spans(text)
        front, own = [*first, *spans.token_ids[:in_prompt]], spans.behind(in_prompt)
        cuts = list(cut(text, own, chunking.room, chunking.overlap))
        chunks = describe(text, own, cuts, len(options.prefix))
        shares = share_out(cuts, len(front), len(last), left_out)
        for (start, stop), chunk, share in zip(cuts, chunks, shares, strict=True):
            token_ids = np.array([*front, *own.token_ids[start:stop], *last])
            yield _Window(i, token_ids, chunk, share)


def _embed_windows(
    model: SentenceModel, windows: Iterator[_Window], options: Options, late: bool, bar: tqdm[NoReturn] | None
) -> Iterator[tuple[_Window, Array]]:
    """Give each window with its vector or, for late composition, its pooled share."""
    count = 0
    while part := list(islice(windows, BLOCK_TEXTS)):

        def forward(strip: Array, lengths: Array, batch: Array, part: list[_Window] = part) -> Iterable[Array]:
            return _forward(model, strip, lengths, options, [part[i].share for i in batch] if late else None)

        def done(batch: Array) -> None:
            nonlocal count
            count += len(batch)
            if bar is not None:
                bar.set_postfix_str(f"{count:,} chunks")

        lengths = np.array([len(window.token_ids) for window in part], np.intp)
        strip = np.concatenate([window.token_ids for window in part])
        tokens = Tokens(strip, lengths, np.zeros_like(lengths))
        yield from zip(part, _embed(tokens, forward, options, done), strict=True)


def _join(
    model: SentenceModel, chunks: list[tuple[_Window, Array]], composition: Composition | None
) -> Array | ChunkEmbeddings:
    """Make of a text's chunks what was asked for."""
    embeddings = np.stack([vector for _, vector in chunks])  # (C, D)
    if composition is None:
        return ChunkEmbeddings(embeddings, tuple(window.chunk for window, _ in chunks))
    if composition == LATE:
        whole = compose_shares(embeddings, [window.share for window, _ in chunks], _pooling(model).modes)
        # what follows the pooling, by way of a pooling that leaves its one row as it is
        behind = tuple(module for module in model.modules if not isinstance(module, Pooling))
        vector: Array = apply_modules(whole[None], np.array([1]), (Pooling(), *behind))[-1][0]
        return vector
    new_tokens = np.array([window.chunk.new_tokens for window, _ in chunks])  # (C,)
    return compose(embeddings, new_tokens, composition, isinstance(model.modules[-1], Normalize))


def progress_bar(total: int | None, show: bool, done: int = 0) -> tqdm[NoReturn] | nullcontext[None]:
    """Show on stderr, if there is one, how many texts are done, how many a second, and the time left.

    Parameters
    ----------
    total : int, optional
        Texts in all, if known.
    show : bool
    done : int
        Texts that an earlier run has done.

    Returns
    -------
    context manager
        Gives the bar, or None.

    Examples
    --------
    >>> with progress_bar(10, show=False) as bar:
    ...     bar is None
    True
    """
    if show is not None:  # sentence-transformers' default
        check_flag("show_progress_bar", show)
    if not show or sys.stderr is None:  # as under pythonw, in services, and behind 2>&-
        return nullcontext()
    from tqdm import tqdm  # imported when asked for: it would be a fifth of the package's import time

    return tqdm(total=total, initial=done, unit="text", desc="encode")
