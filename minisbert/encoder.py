"""SentenceEncoder: text in, vectors out.

A text goes through ``tokens`` (ids), ``bert`` (token vectors) and ``modules`` (one vector). What is asked for is
checked before any work is done (:func:`check_options`). Texts are read a few thousand at a time, so that there may be
any number of them; long ones are cut off, or split into chunks; the vectors come back in the order of the texts
(:func:`embed_blocks`).

Letters: ``B`` texts, ``N`` tokens in the strip, ``T`` tokens of one text, ``C`` chunks, ``D`` hidden size.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from itertools import groupby, islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from minisbert import hub
from minisbert.checks import check_flag, check_texts, check_whole, each_text
from minisbert.long_texts import (
    COMPOSITIONS,
    LATE,
    Chunk,
    ChunkEmbeddings,
    Composition,
    Share,
    check_composition,
    compose,
    compose_shares,
    cut,
    describe,
    pool_shares,
    share_out,
)
from minisbert.model import Array
from minisbert.model.bert import BertTrace, bert, trace_bert
from minisbert.model.folder import SentenceModel, load_model, save_model
from minisbert.model.ops import normalize
from minisbert.model.pooling import Normalize, Pooling, apply_modules
from minisbert.model.tokens import Overflow, OverflowReport, Tokens
from minisbert.model_card import model_card
from minisbert.parallel import SlowKernelWarning, advice, make_batches, threads, work_through
from minisbert.similarity import SIMILARITIES

if TYPE_CHECKING:
    from tqdm import tqdm

# -------------------------------------------------------------------------------------------------------------- options

OutputValue = Literal["sentence_embedding", "token_embeddings"]

NO_PROMPTS = {"query": "", "document": ""}
"""Prompts that a model has without naming them, as in sentence-transformers."""
_ONE_VALUE = {
    "precision": (("float32", "None"), "vectors are float32 (float64 with SentenceEncoder(dtype='float64'))"),
    "convert_to_numpy": (("True",), "vectors are NumPy arrays; torch.from_numpy(vectors) makes a tensor of them"),
    "convert_to_tensor": (("False",), "vectors are NumPy arrays; torch.from_numpy(vectors) makes a tensor of them"),
    "device": (("cpu", "None"), "everything is computed on the CPU"),
    "pool": (("None",), "threads share the work, not processes: num_threads=8"),
    "chunk_size": (("None",), "it is for pools of processes; chunk_tokens= is the size of a long text's chunks"),
}
"""Arguments of sentence-transformers that have one value here: as text, and why."""


@dataclass(frozen=True)
class Chunking:
    """How long texts are treated."""

    room: int  # tokens of a text in a chunk, special tokens and prompt not counted
    overlap: int  # tokens, at most, that a chunk shares with the one before
    composition: Composition | None  # None: chunks are left as they are


@dataclass(frozen=True)
class Options:
    """What ``encode`` was asked for, checked."""

    max_seq_length: int
    prefix: str  # the prompt's text
    skipped: int  # its tokens, with the special ones before it
    dimensions: int
    batch_size: int | None
    num_threads: int | None
    deterministic: bool
    output_value: OutputValue
    normalize: bool
    overflow: Overflow
    chunking: Chunking | None  # of long texts; None: they are cut off


def check_options(
    model: SentenceModel,
    max_seq_length: int,
    *,
    prompt_name: str | None = None,
    prompt: str | None = None,
    batch_size: int | None = None,
    output_value: OutputValue = "sentence_embedding",
    precision: str | None = "float32",
    convert_to_numpy: bool = True,
    convert_to_tensor: bool = False,
    device: Any = None,
    normalize_embeddings: bool = False,
    truncate_dim: int | None = None,
    pool: None = None,
    chunk_size: None = None,
    overflow: Overflow = "warn",
    chunk_tokens: int | None = None,
    overlap: int | None = None,
    composition: Composition | None = "weighted_mean",
    num_threads: int | None = None,
    deterministic: bool = False,
) -> Options:
    """Refuse what makes no sense, before any work is done; ``composition=None`` leaves chunks as they are."""
    if output_value not in ("sentence_embedding", "token_embeddings"):
        raise ValueError(
            f"encode: output_value must be 'sentence_embedding' or 'token_embeddings', got {output_value!r}; every "
            "tensor on the way to a vector is in SentenceEncoder.trace(texts)"
        )
    _check_one_value("encode", precision=precision, convert_to_numpy=convert_to_numpy, device=device, pool=pool)
    _check_one_value("encode", convert_to_tensor=convert_to_tensor, chunk_size=chunk_size)
    batch_size = None if batch_size is None else check_whole("encode: batch_size", batch_size, 1)
    num_threads = None if num_threads is None else check_whole("encode: num_threads", num_threads, 1, 4096)
    prefix = _resolve_prompt(model, prompt, prompt_name)
    skipped = _prompt_length(model, prefix, max_seq_length)
    chunking = None
    if overflow == "chunk":
        if output_value != "sentence_embedding":
            raise ValueError("encode: overflow='chunk' gives sentence vectors; token vectors are those of whole texts")
        if composition is not None:
            check_composition(composition, [*COMPOSITIONS, LATE])
        taken = max(skipped, len(model.tokenizer.first)) + len(model.tokenizer.last)
        chunking = _check_chunks(chunk_tokens, overlap, composition, max_seq_length, taken)
    elif chunk_tokens is not None or overlap is not None or composition != "weighted_mean":
        raise ValueError(
            "encode: chunk_tokens, overlap and composition are for overflow='chunk', which splits long texts; got "
            f"overflow={overflow!r}, which does not"
        )
    return Options(
        max_seq_length=max_seq_length,
        prefix=prefix,
        skipped=skipped,
        dimensions=(
            model.width
            if truncate_dim is None
            else check_whole("encode: truncate_dim", truncate_dim, 1, model.full_width)
        ),
        batch_size=batch_size,
        num_threads=num_threads,
        deterministic=check_flag("encode: deterministic", deterministic),
        output_value=output_value,
        normalize=check_flag("encode: normalize_embeddings", normalize_embeddings),
        overflow=overflow,
        chunking=chunking,
    )


def _check_chunks(
    chunk_tokens: int | None, overlap: int | None, composition: Composition | None, limit: int, taken: int
) -> Chunking:
    """Find how many of a text's tokens a chunk has room for, and how many two neighbours share."""
    for name, value in (("chunk_tokens", chunk_tokens), ("overlap", overlap)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer))):
            raise ValueError(f"encode: {name} must be a whole number of tokens, got {value!r}")
    if taken >= limit:
        raise ValueError(f"encode: the prompt leaves no room for a text: it takes {taken} of {limit} tokens")
    if chunk_tokens is not None and not taken < chunk_tokens <= limit:
        raise ValueError(
            f"encode: chunk_tokens must be from {taken + 1} (a token beside special ones and prompt) to {limit}, the "
            f"encoder's max_seq_length, got {chunk_tokens}"
        )
    room = (chunk_tokens or limit) - taken
    if overlap is None:  # late composition is there for the neighbours on both sides
        overlap = room // 4 if composition == LATE else 0
    if not 0 <= overlap < room:
        raise ValueError(
            f"encode: overlap must be from 0 to {room - 1}, less than the {room} tokens that a chunk has room for "
            f"beside special ones and prompt, got {overlap}"
        )
    return Chunking(room, int(overlap), composition)


def _check_one_value(function: str, **given: Any) -> None:
    """Refuse another value of an argument that can have only one here."""
    for name, value in given.items():
        accepted, reason = _ONE_VALUE[name]
        if str(value) not in accepted:
            raise ValueError(f"{function}: {name} must be {' or '.join(accepted)}, got {value!r:.80}: {reason}")


def _resolve_prompt(model: SentenceModel, prompt: str | None = None, prompt_name: str | None = None) -> str:
    """Choose the prompt: given, named, the folder's default, or none."""
    for argument, value in (("prompt", prompt), ("prompt_name", prompt_name)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"encode: {argument} must be a text (str) or None, got {value!r:.80}")
    if prompt is not None:
        return prompt
    name = prompt_name if prompt_name is not None else model.default_prompt_name
    if name is None:
        return ""
    prompts = {**NO_PROMPTS, **model.prompts}
    if name not in prompts:
        raise ValueError(f"encode: prompt_name {name!r} is none of this model's prompts {sorted(prompts)}")
    return prompts[name]


def _prompt_length(model: SentenceModel, prompt: str, max_seq_length: int) -> int:
    """Count a prompt's tokens with what stands before it, [CLS], but not with what stands behind, [SEP]."""
    if not prompt:
        return 0
    tokens = model.tokenizer([prompt], max_seq_length)
    return int(tokens.lengths[0]) - len(model.tokenizer.last)


# ------------------------------------------------------------------------------------------------------ blocks of texts

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
    """Give, block by block, what was asked for of each text: its vector, its token vectors, or its chunks."""
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
    return next(module for module in model.modules if isinstance(module, Pooling))


# ------------------------------------------------------------------------------------------------ long texts


@dataclass(frozen=True)
class _Window:
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
    embeddings = np.stack([vector for _, vector in chunks])  # (C, D)
    if composition is None:
        return ChunkEmbeddings(embeddings, tuple(window.chunk for window, _ in chunks))
    if composition == LATE:
        whole = compose_shares(embeddings, [window.share for window, _ in chunks], _pooling(model).modes)
        # what follows the pooling, by way of a pooling that leaves its one row as it is
        behind = tuple(module for module in model.modules if not isinstance(module, Pooling))
        return apply_modules(whole[None], np.array([1]), (Pooling(), *behind))[-1][0]
    new_tokens = np.array([window.chunk.new_tokens for window, _ in chunks])  # (C,)
    return compose(embeddings, new_tokens, composition, isinstance(model.modules[-1], Normalize))


def _stacklevel() -> int:
    """Count the frames of this file, so that a warning names the line that called it."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        level, frame = level + 1, frame.f_back
    return level


def progress_bar(total: int | None, show: bool | None, done: int = 0) -> tqdm[NoReturn] | nullcontext[None]:
    """Show on stderr, if there is one, how many texts are done, how many a second, and the time left."""
    if show is not None:  # sentence-transformers' default
        check_flag("show_progress_bar", show)
    if not show or sys.stderr is None:  # as under pythonw, in services, and behind 2>&-
        return nullcontext()
    from tqdm import tqdm  # imported when asked for: it would be a fifth of the package's import time

    return tqdm(total=total, initial=done, unit="text", desc="encode")


# ------------------------------------------------------------------------------------------------------------ the trace


@dataclass(frozen=True)
class Trace:
    """Every tensor on the way from text to vector; the strip holds all texts end to end."""

    pieces: tuple[str, ...]  # N strings, what each token is
    token_ids: Array  # (N,)
    lengths: Array  # (B,)
    bert: BertTrace
    modules: tuple[Array, ...]  # the result of each module, (B, width)

    @property
    def sentence_embedding(self) -> Array:
        """(B, D) what ``encode`` gives, with all its dimensions."""
        return self.modules[-1]

    def tensors(self) -> dict[str, Array]:
        """Give every tensor by its name, in the order of computation.

        ``"embeddings.word"``, ``"layers.0.attention.query"``, .., ``"sentence_embedding"``. Attention probabilities are
        ``(c, H, T, T)`` per run of equal lengths: ``"layers.0.attention.probs.0"``.
        """
        named = dict(_walk("", self.bert))
        named |= {f"modules.{i}": result for i, result in enumerate(self.modules[:-1])}
        return {**named, "sentence_embedding": self.sentence_embedding}


def _walk(name: str, tree: Any) -> Iterator[tuple[str, Array]]:
    """Name the arrays of nested dataclasses and tuples by the path that leads to them."""
    if tree is None:  # a mask of dropout, which only training has
        return
    if isinstance(tree, np.ndarray):
        yield name, tree
        return
    if isinstance(tree, tuple):
        branches = [(str(i), branch) for i, branch in enumerate(tree)]
    else:
        branches = [(field.name, getattr(tree, field.name)) for field in fields(tree)]
    for step, branch in branches:
        yield from _walk(f"{name}.{step}" if name else step, branch)


# ---------------------------------------------------------------------------------------------------------- the encoder


_REFUSED = {
    "model": "it is called model_name_or_path, as in sentence-transformers, and comes first",
    "modules": "a model is a name or a folder; with_model takes a SentenceModel",
    "trust_remote_code": "no code of a model's repository is ever run",
    "use_auth_token": "it is called token",
    "model_kwargs": "there is no PyTorch model to pass them to; dtype='float64' sets the precision",
    "processor_kwargs": "the tokenizer is what the folder says; max_seq_length= sets the limit",
    "tokenizer_kwargs": "the tokenizer is what the folder says; max_seq_length= sets the limit",
    "config_kwargs": "the model is what the folder says",
    "model_card_data": "save_pretrained takes what the model card is to say",
    "backend": "everything is computed by NumPy",
}
"""Arguments of ``SentenceTransformer`` that are not supported, and why."""
_INSTEAD = {
    **dict.fromkeys(("to", "cuda", "half", "bfloat16"), "everything is computed on the CPU, in float32 or float64"),
    **dict.fromkeys(("eval", "train"), "an encoder has no such modes; minisbert.training trains"),
    **dict.fromkeys(("fit", "old_fit"), "minisbert.training trains; minisbert.sklearn.TextEncoder is for scikit-learn"),
    **dict.fromkeys(
        ("transform", "fit_transform", "get_params", "set_params"), "minisbert.sklearn.TextEncoder is for scikit-learn"
    ),
    **dict.fromkeys(
        ("encode_multi_process", "start_multi_process_pool"), "encode works on all cores; num_threads= sets how many"
    ),
    **dict.fromkeys(("push_to_hub", "save_to_hub"), "save_pretrained writes a folder that huggingface_hub uploads"),
    "preprocess": "tokenize gives token ids",
    "truncate_embeddings": "set truncate_dim, or pass it to encode",
}
"""Methods of ``SentenceTransformer`` that are not here, and what is."""

MANY_TEXTS = 1000
"""Texts from which on it is worth a warning that they could be embedded faster."""


class SentenceEncoder:
    """A sentence model, ready to turn texts into vectors.

    Parameters
    ----------
    model_name_or_path : str or path, optional
        A name such as ``"all-MiniLM-L6-v2"`` (the default) or ``"organisation/name"``, or a local folder. A name is
        fetched once and verified (:mod:`minisbert.hub`); a folder never touches the network.
    device : {"cpu"}, optional
        There is no other.
    prompts : dict, optional
        Name to text of prompts, beside those that the folder defines and before them: for E5 models, say,
        ``{"query": "query: ", "passage": "passage: "}``.
    default_prompt_name : str, optional
        The prompt of :meth:`encode` where it is told none; by default what the folder says.
    cache_folder : str or path, optional
        Where fetched models are kept and looked for, instead of the user's cache.
    revision : str, optional
        Commit, branch or tag on the Hugging Face Hub.
    local_files_only : bool
        Never touch the network.
    token : str or bool, optional
        For private models. Used once and not kept: it is in no copy and no pickle.
    similarity_fn_name : {"cosine", "dot", "euclidean", "manhattan"}, optional
        How :meth:`similarity` compares; by default what the folder says.
    truncate_dim : int, optional
        Dimensions of a vector that are kept; by default what the folder says.
    dtype : {"float32", "float64"}
        Of the weights and of everything computed with them.
    max_seq_length : int, optional
        Tokens after which a text is cut, special tokens included; by default the model's own limit.
    **others
        sentence-transformers' other arguments are refused, each with the reason.

    Raises
    ------
    ValueError
        If the model cannot be had, or its folder is damaged or not supported exactly.

    Notes
    -----
    **Source**: ``sentence_transformers.SentenceTransformer``, whose vectors these are (README has the measured
    difference). Reimers & Gurevych 2019.

    ``copy.copy`` shares the weights, which nothing here writes to (fine-tuning works on a copy); ``copy.deepcopy`` and
    pickle hold weights and tokenizer, and need no folder. :class:`minisbert.sklearn.TextEncoder` is the same for
    scikit-learn.

    Examples
    --------
    >>> encoder = SentenceEncoder()
    >>> vectors = encoder.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    >>> vectors.shape, vectors.dtype
    ((3, 384), dtype('float32'))
    >>> encoder.similarity(vectors, vectors).round(4)
    array([[1.    , 0.666 , 0.1046],
           [0.666 , 1.    , 0.1411],
           [0.1046, 0.1411, 1.    ]], dtype=float32)
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        device: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        dtype: npt.DTypeLike = "float32",
        max_seq_length: int | None = None,
        **others: Any,
    ) -> None:
        for name, value in others.items():
            if name not in _REFUSED:
                raise TypeError(f"SentenceEncoder() got an unexpected keyword argument {name!r}")
            if value and value != "torch":  # sentence-transformers' defaults ask for nothing
                raise ValueError(f"SentenceEncoder: {name} is not supported: {_REFUSED[name]}")
        _check_one_value("SentenceEncoder", device=device)
        self.dtype = _check_dtype(dtype)
        found = hub.resolve(
            model_name_or_path,
            revision=revision,
            token=token,
            local_files_only=local_files_only,
            cache_folder=cache_folder,
        )
        self.folder: Path = found.folder
        self.source: str = found.source
        self.model: SentenceModel = load_model(found.folder, self.dtype)
        self._loaded = self.model  # what lies in the folder
        self.name = _name(model_name_or_path, found.folder)
        self.max_seq_length = self.model.max_seq_length if max_seq_length is None else max_seq_length
        if prompts is not None:
            self.prompts = {**self.prompts, **_check_prompts(prompts)}
        if default_prompt_name is not None:
            self.default_prompt_name = default_prompt_name
        if similarity_fn_name is not None:
            self.similarity_fn_name = similarity_fn_name
        if truncate_dim is not None:
            self.truncate_dim = truncate_dim

    def __repr__(self) -> str:
        return (
            f"SentenceEncoder({self.folder.name!r}, width {self.model.width}, max_seq_length {self.max_seq_length}, "
            f"{self.dtype})"
        )

    @property
    def max_seq_length(self) -> int:
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        least, most = self.model.tokenizer.special_count + 1, self.model.config.max_position_embeddings
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
            raise ValueError(
                f"max_seq_length: expected a whole number from {least} (one token and the special ones) to {most} "
                f"(the model has no more positions), got {value!r}"
            )
        self._max_seq_length = int(value)

    @property
    def prompts(self) -> Mapping[str, str]:
        """Name to text of the prompts that the folder or the constructor defines; may be set as a whole."""
        return MappingProxyType(self.model.prompts)  # read only: to change it in place would change the copies

    @prompts.setter
    def prompts(self, value: Mapping[str, str]) -> None:
        prompts = _check_prompts(value)
        if self.default_prompt_name is not None and self.default_prompt_name not in prompts:
            raise ValueError(f"prompts: {self.default_prompt_name!r} is missing, the default; set that first")
        self.model = replace(self.model, prompts=prompts)

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt of :meth:`encode` where it is told none; may be set."""
        return self.model.default_prompt_name

    @default_prompt_name.setter
    def default_prompt_name(self, value: str | None) -> None:
        prompts = dict(self.prompts)
        if value is not None:
            prompts[value] = _resolve_prompt(self.model, prompt_name=value)
        self.model = replace(self.model, prompts=prompts, default_prompt_name=value)

    @property
    def similarity_fn_name(self) -> str:
        """How :meth:`similarity` compares: "cosine", "dot", "euclidean" or "manhattan"; may be set."""
        return self.model.similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        name = getattr(value, "value", value)  # of sentence-transformers' SimilarityFunction
        if not isinstance(name, str) or name not in SIMILARITIES:
            raise ValueError(f"similarity_fn_name: expected one of {', '.join(SIMILARITIES)}, got {value!r:.80}")
        self.model = replace(self.model, similarity_fn_name=name)

    @property
    def truncate_dim(self) -> int | None:
        """Dimensions of a vector that are kept, None for all; may be set."""
        return self.model.truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        if value is not None:
            value = check_whole("truncate_dim", value, 1, self.model.full_width)
        self.model = replace(self.model, truncate_dim=value)

    @property
    def device(self) -> str:
        """Always "cpu"."""
        return "cpu"

    @property
    def tokenizer(self) -> Any:
        """The ``tokenizers.Tokenizer`` that texts are split by; :meth:`tokenize` adds the limit."""
        return self.model.tokenizer.library

    if not TYPE_CHECKING:  # which would take any attribute for one that exists

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to write instead of a method of sentence-transformers that is not here."""
            hint = f"; {_INSTEAD[name]}" if name in _INSTEAD else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def with_model(self, model: SentenceModel) -> SentenceEncoder:
        """Give an encoder with another model, such as one with trained weights, and the rest of this one's settings.

        The model is shared, not copied; ``folder`` and ``source`` say where this one came from.

        Examples
        --------
        >>> encoder = SentenceEncoder()
        >>> encoder.with_model(replace(encoder.model, truncate_dim=64)).encode("soup").shape
        (64,)
        """
        other = copy.copy(self)
        other.model = model
        return other

    def get_embedding_dimension(self) -> int:
        """Give the length of a sentence vector."""
        return self.model.width

    get_sentence_embedding_dimension = get_embedding_dimension  # its older name

    def get_max_seq_length(self) -> int:
        """Give :attr:`max_seq_length`."""
        return self.max_seq_length

    def tokenize(self, sentences: str | Iterable[str], overflow: Overflow = "warn") -> Tokens:
        """Split texts into token ids as :meth:`encode` does, into one strip, special tokens included.

        Parameters
        ----------
        sentences : str or iterable of str
        overflow : {"warn", "error", "truncate"}
            What to do about texts that are too long. How they are split into chunks is what :meth:`encode_chunks` says.

        Examples
        --------
        >>> SentenceEncoder().tokenize("i love soup").token_ids
        array([  101,  1045,  2293, 11350,   102])
        """
        return self._tokenize(list(check_texts(sentences)), overflow)

    def _tokenize(self, texts: list[str], overflow: Overflow) -> Tokens:
        if overflow == "chunk":
            raise ValueError("overflow='chunk' is for encode; for the chunks of a text ask encode_chunks")
        report = OverflowReport(self.max_seq_length, overflow)
        tokens = self.model.tokenizer(texts, self.max_seq_length)
        report.add(tokens)
        report.warn(_stacklevel() + 1)
        return tokens

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: OutputValue = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: None = None,
        chunk_size: None = None,
        *,
        sentences: str | Iterable[str] | None = None,
        overflow: Overflow = "warn",
        chunk_tokens: int | None = None,
        overlap: int | None = None,
        composition: Composition = "weighted_mean",
        num_threads: int | None = None,
        deterministic: bool = False,
    ) -> Any:
        """Turn texts into vectors. The words and their order are those of sentence-transformers, up to ``chunk_size``.

        Parameters
        ----------
        inputs : str or iterable of str
            A text has from 0 characters to any number; what exceeds ``max_seq_length`` tokens is cut, or split into
            chunks (``overflow``). Of a generator no more than a few thousand texts are held at a time.
            Mappings, sets and tables are refused; pass a column, such as ``frame["text"]``.
        prompt_name : str, optional
            A key of :attr:`prompts`, put before every text; by default :attr:`default_prompt_name`, if any. "query"
            and "document" are known to every model, and mean no prompt where it has none.
        prompt : str, optional
            A text to put before every text, instead of a named one.
        batch_size : int, optional
            At most so many texts in a batch. By default only the number of tokens counts, which is what decides
            time and memory; the vectors do not depend on it.
        show_progress_bar : bool, optional
            On stderr, with texts a second and the time left; by default not.
        output_value : {"sentence_embedding", "token_embeddings"}
            One vector a text, or one a token.
        precision, convert_to_numpy, convert_to_tensor, device, pool, chunk_size
            As sentence-transformers has them; another value than "float32", True, False, "cpu", None, None is refused.
        normalize_embeddings : bool
            Scale sentence vectors to length 1 (some models, the default one included, do so anyway).
        truncate_dim : int, optional
            Keep the first so many dimensions, for models trained for it (Matryoshka); by default :attr:`truncate_dim`.
        sentences : str or iterable of str
            An older name of ``inputs``.
        overflow : {"warn", "error", "truncate", "chunk"}
            What to do about texts that are too long: cut and warn once, refuse, cut silently, or split them into
            chunks of which one vector is made. A text that fits into one chunk has the vector that it has anyway.
        chunk_tokens : int, optional
            Tokens of a chunk, special ones and the prompt's included; by default ``max_seq_length``.
        overlap : int, optional
            Tokens that a chunk shares with the one before, at most (a chunk begins with a word, better with a
            sentence). By default none; for late composition a quarter of a chunk.
        composition : {"weighted_mean", "mean", "max", "first", "late"} or callable
            How one vector is made of a text's chunks: their mean, each counted by its new tokens; their plain mean;
            the largest value of each dimension; the first; or ``late``: the token vectors of all chunks are pooled as
            if they were one text's, each token counted once, in the chunk that has more of its neighbours. A callable
            takes vectors ``(C, D)`` and new tokens ``(C,)`` and gives ``(D,)``. Scaled to length 1 where the model
            does so.
        num_threads : int, optional
            Threads that compute; by default one a processor, or as many as BLAS has been told to use.
        deterministic : bool
            Make a text's vector the same to the last bit whatever its company and the number of threads: every text
            is then a batch of its own. Without it the last digits depend on the company, because a matrix product
            adds in another order (README has the measured difference and the cost).

        Returns
        -------
        Array or list of Array
            Sentence vectors: ``(D,)`` for a string, ``(B, D)`` for an iterable, ``(0, D)`` for an empty one. Token
            vectors: ``(T, D)`` for a string, a list of them for an iterable; special tokens included. In the
            encoder's dtype and the order of the texts.

        Raises
        ------
        ValueError
            For anything that is no text, unknown prompts or values, long texts with ``overflow="error"``, chunks that
            are longer than the limit or than their overlap allows, and weights with which the computation overflows: a
            vector is never NaN.

        Examples
        --------
        >>> SentenceEncoder().encode("hello world")[:3]
        array([-0.03447..., 0.03102..., 0.00673...], dtype=float32)
        >>> SentenceEncoder().encode("A book of a thousand sentences. " * 1000, overflow="chunk").shape
        (384,)
        """
        if inputs is not None and sentences is not None:
            raise ValueError("encode: pass the texts once, as inputs or as sentences, not as both")
        given: Any = sentences if inputs is None else inputs
        options = check_options(
            self.model,
            self.max_seq_length,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            output_value=output_value,
            precision=precision,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            device=device,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
            chunk_size=chunk_size,
            overflow=overflow,
            chunk_tokens=chunk_tokens,
            overlap=overlap,
            composition=composition,
            num_threads=num_threads,
            deterministic=deterministic,
        )
        if composition is None:
            raise ValueError("encode: composition=None leaves chunks apart; ask encode_chunks for them")
        report = OverflowReport(self.max_seq_length, overflow)
        texts = check_texts(given)
        total = len(texts) if isinstance(texts, list) else None
        with progress_bar(total, show_progress_bar) as bar:
            blocks = embed_blocks(self.model, texts, BLOCK_TEXTS, options, report, bar)
            if output_value == "token_embeddings":
                embeddings: Any = [vectors for block in blocks for vectors in block]
            else:
                embeddings = self._stack(blocks, total, options)
        report.warn(_stacklevel() + 1)
        if len(embeddings) >= MANY_TEXTS and (sentence := advice()):
            warnings.warn(sentence, SlowKernelWarning, stacklevel=_stacklevel())
        return embeddings[0] if isinstance(given, str) else embeddings

    def encode_query(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *others: Any,
        **options: Any,
    ) -> Any:
        """Turn queries into vectors: :meth:`encode` with the prompt "query" where no other is named.

        Examples
        --------
        >>> e5_like = SentenceEncoder(prompts={"query": "query: ", "passage": "passage: "})
        >>> np.allclose(e5_like.encode_query("soup"), e5_like.encode("query: soup"), atol=1e-6)
        True
        """
        if prompt_name is None and prompt is None:
            prompt_name = "query"
        return self.encode(inputs, prompt_name, prompt, *others, **options)

    def encode_document(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *others: Any,
        **options: Any,
    ) -> Any:
        """Turn documents into vectors: :meth:`encode` with the first of the prompts "document", "passage", "corpus"."""
        if prompt_name is None and prompt is None:
            named = (name for name in ("document", "passage", "corpus") if name in self.model.prompts)
            prompt_name = next(named, "document")
        return self.encode(inputs, prompt_name, prompt, *others, **options)

    def encode_stream(
        self,
        sentences: Iterable[str],
        *,
        block_texts: int = BLOCK_TEXTS,
        total: int | None = None,
        report: OverflowReport | None = None,
        **options: Any,
    ) -> Iterator[Array]:
        """Turn any number of texts into vectors, a block at a time, in memory that does not grow.

        Parameters
        ----------
        sentences : iterable of str
            Read as the vectors are asked for, a block ahead of them.
        block_texts : int
            Texts in a block, at most; fewer where they are books.
        total : int, optional
            Texts in all, if known; the progress bar then shows the time left.
        report : OverflowReport, optional
            Counts what is cut off, in place of ``overflow``. One that has counted earlier texts goes on from there, and
            so does the progress bar.
        **options
            As in :meth:`encode`, except ``output_value``.

        Yields
        ------
        Array, shape (block_texts, D)
            The last one may have fewer rows, as may one of very long texts.

        Raises
        ------
        ValueError
            As in :meth:`encode`, when the block with the cause is reached.

        Examples
        --------
        >>> many = (f"text {i}" for i in range(5))
        >>> [block.shape for block in SentenceEncoder().encode_stream(many, block_texts=2)]
        [(2, 384), (2, 384), (1, 384)]
        """
        if options.get("output_value", "sentence_embedding") != "sentence_embedding":
            raise ValueError("encode_stream: gives sentence vectors only; for token vectors use encode")
        texts = each_text(sentences)
        block_texts = check_whole("encode_stream: block_texts", block_texts, 1)
        show = options.pop("show_progress_bar", False)
        checked = check_options(self.model, self.max_seq_length, **options)
        report = report or OverflowReport(self.max_seq_length, checked.overflow)
        done = 0
        with progress_bar(total, show, report.texts) as bar:
            for block in embed_blocks(self.model, texts, block_texts, checked, report, bar):
                yield self._stack([block], len(block), checked)
                done += len(block)
        report.warn(_stacklevel() + 1)
        if done >= MANY_TEXTS and (sentence := advice()):
            warnings.warn(sentence, SlowKernelWarning, stacklevel=_stacklevel())

    def encode_chunks(
        self,
        sentences: str | Iterable[str],
        *,
        chunk_tokens: int | None = None,
        overlap: int | None = None,
        show_progress_bar: bool = False,
        **options: Any,
    ) -> Any:
        """Split texts into chunks, and give the vectors and the places of all of them.

        Parameters
        ----------
        sentences : str or iterable of str
        chunk_tokens : int, optional
            Tokens of a chunk, special ones and the prompt's included; by default ``max_seq_length``.
        overlap : int, optional
            Tokens that a chunk shares with the one before, at most; by default none.
        show_progress_bar : bool
        **options
            As in :meth:`encode`, except ``output_value``, ``overflow`` and ``composition``.

        Returns
        -------
        ChunkEmbeddings or list of ChunkEmbeddings
            For a string or an iterable: ``embeddings``, ``(C, D)``, and ``chunks``, each with the characters
            ``[start, stop)`` of the text that it stands for, its ``tokens`` and its ``new_tokens``.

        Examples
        --------
        >>> text = "Soup is my favorite. London is far away."
        >>> found = SentenceEncoder().encode_chunks(text, chunk_tokens=8)
        >>> [text[chunk.start : chunk.stop] for chunk in found.chunks], found.embeddings.shape
        (['Soup is my favorite.', 'London is far away.'], (2, 384))
        """
        checked = check_options(
            self.model,
            self.max_seq_length,
            overflow="chunk",
            chunk_tokens=chunk_tokens,
            overlap=overlap,
            composition=None,
            **options,
        )
        report = OverflowReport(self.max_seq_length, "chunk")
        texts = check_texts(sentences)
        with progress_bar(len(texts) if isinstance(texts, list) else None, show_progress_bar) as bar:
            blocks = embed_blocks(self.model, texts, BLOCK_TEXTS, checked, report, bar)
            results = [
                ChunkEmbeddings(self._finish(found.embeddings, checked), found.chunks)
                for block in blocks
                for found in block
            ]
        return results[0] if isinstance(sentences, str) else results

    def _stack(self, blocks: Iterable[list[Array]], total: int | None, options: Options) -> Array:
        if total is None:
            return np.concatenate([self._finish([], options), *(self._finish(block, options) for block in blocks)])
        stacked = np.empty((total, options.dimensions), self.dtype)  # in place: no second copy of what may be large
        start = 0
        for vectors in blocks:
            stacked[start : start + len(vectors)] = self._finish(vectors, options)
            start += len(vectors)
        return stacked

    def _finish(self, vectors: list[Array] | Array, options: Options) -> Array:
        """Make one array of sentence vectors, cut and scaled as asked for."""
        rows = np.array(vectors, self.dtype).reshape(len(vectors), self.model.full_width)[:, : options.dimensions]
        return normalize(rows) if options.normalize else rows

    def trace(self, sentences: str | Iterable[str], overflow: Overflow = "warn") -> Trace:
        """Encode a few texts in one batch, by the same functions, and keep every intermediate tensor.

        Examples
        --------
        >>> trace = SentenceEncoder().trace("i love soup")
        >>> trace.pieces
        ('[CLS]', 'i', 'love', 'soup', '[SEP]')
        >>> trace.bert.layers[0].attention.output.shape
        (5, 384)
        """
        texts = list(check_texts(sentences))
        if not texts:
            raise ValueError("trace: expected at least one text, got none")
        tokens = self._tokenize(texts, overflow)
        traced = trace_bert(tokens.token_ids, tokens.lengths, self.model.params, self.model.config)
        results = apply_modules(traced.output, tokens.lengths, self.model.modules)
        pieces = tuple(self.model.tokenizer.pieces(tokens.token_ids))
        return Trace(pieces, tokens.token_ids, tokens.lengths, traced, tuple(results))

    def similarity(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Compare every vector of one array with every vector of another, by :attr:`similarity_fn_name`.

        ``(A, D), (B, D) -> (A, B)``
        """
        return SIMILARITIES[self.model.similarity_fn_name][0](embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Compare the vectors of two arrays row by row, by :attr:`similarity_fn_name`.

        ``(B, D), (B, D) -> (B,)``
        """
        return SIMILARITIES[self.model.similarity_fn_name][1](embeddings1, embeddings2)

    def fingerprint(self) -> str:
        """Hash what decides a vector, in 64 hexadecimal digits: equal fingerprints, equal vectors.

        It is `minisbert.hub.fingerprint` of the folder; where weights, dimensions or the default prompt are not the
        folder's, of the folder that :meth:`save` would write.

        Raises
        ------
        ValueError
            If the folder is gone, as it may be for an encoder that was pickled on another machine.
        """
        ours, loaded = self.model, self._loaded
        parts = ("config", "params", "modules", "tokenizer")
        same = all(getattr(ours, part) is getattr(loaded, part) for part in parts)
        if same and ours.truncate_dim == loaded.truncate_dim and _resolve_prompt(ours) == _resolve_prompt(loaded):
            if not self.folder.is_dir():
                raise ValueError(
                    f"fingerprint: the folder {self.folder.as_posix()} that this encoder was loaded from is not here, "
                    "and its files are what is hashed; load the model on this machine: SentenceEncoder(name or folder)"
                )
            return hub.fingerprint(self.folder)
        with tempfile.TemporaryDirectory() as folder:
            save_model(self.model, Path(folder))
            return hub.fingerprint(Path(folder))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model folder that this package and sentence-transformers load and that gives the same vectors.

        Parameters
        ----------
        path : str or path
            New or empty; it appears whole or not at all.

        Raises
        ------
        ValueError
            If the folder holds something already.

        Examples
        --------
        >>> import tempfile
        >>> SentenceEncoder().save(Path(tempfile.mkdtemp()) / "my-model")
        """
        save_model(replace(self.model, max_seq_length=self.max_seq_length), Path(path))

    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: Sequence[str] | None = None,
        safe_serialization: bool = True,
        *,
        loss: str | None = None,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Write a model folder as :meth:`save` does, with a model card (README.md) as the Hugging Face Hub shows it.

        Parameters
        ----------
        path : str or path
            New or empty; it appears whole or not at all.
        model_name : str, optional
            The card's title; by default the folder's name.
        create_model_card : bool
        train_datasets : sequence of str, optional
            What it was trained on, for the card.
        safe_serialization : {True}
            Weights are always written as safetensors.
        loss : str, optional
            The loss it was trained with, for the card.
        scores : dict, optional
            Name of a test to a score, for the card.

        Raises
        ------
        ValueError
            If the folder holds something already.

        Examples
        --------
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "my-model"
        >>> SentenceEncoder().save_pretrained(folder, scores={"STS benchmark, Spearman": 82.03})
        >>> (folder / "README.md").read_text().splitlines()[1]
        'library_name: "sentence-transformers"'
        """
        if safe_serialization is not True:
            raise ValueError("save_pretrained: safe_serialization must be True: weights are written as safetensors")
        folder = Path(path)
        model = replace(self.model, max_seq_length=self.max_seq_length)
        card = None
        if create_model_card:
            card = model_card(model, model_name or folder.name, self.name, train_datasets or (), loss, scores)
        save_model(model, folder, card)


def _name(asked: str | os.PathLike[str] | None, folder: Path) -> str:
    """Name a model as the Hub does, ``owner/name``; a folder by its own name."""
    if asked is None:
        return hub.DEFAULT_MODEL
    is_folder = Path(asked).expanduser().resolve() == folder.resolve()
    return folder.resolve().name if is_folder else hub.full_name(str(asked))


def _check_prompts(prompts: Any) -> dict[str, str]:
    if not isinstance(prompts, Mapping) or not all(isinstance(text, str) for pair in prompts.items() for text in pair):
        raise ValueError(f"prompts: expected a dict of names and texts, got {prompts!r:.80}")
    return dict(prompts)


def _check_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        found = None if dtype is None else np.dtype(dtype)  # NumPy takes None for float64
    except (TypeError, ValueError, SyntaxError):
        found = None
    if found is None or found not in (np.float32, np.float64):
        raise ValueError(f"SentenceEncoder: dtype must be 'float32' or 'float64', got {dtype!r:.80}")
    return found
