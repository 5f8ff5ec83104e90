"""SentenceEncoder: text in, vectors out.

A text goes through ``tokens`` (ids), ``bert`` (token vectors) and ``modules`` (one vector). What is asked for is
checked before any work is done (``_options``). Texts are read a few thousand at a time, so that there may be any number
of them; long ones are cut off, or split into chunks (``_embed``). Sorted batches go through the model on all cores, and
the vectors come back in the order of the texts (``_forward``).

Letters: ``B`` texts, ``N`` tokens in the strip, ``T`` tokens of one text, ``C`` chunks, ``D`` hidden size.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from minisbert import hub
from minisbert.checks import check_choice, check_flag, check_texts, check_whole, each_text
from minisbert.long_texts import (
    COMPOSITIONS,
    LATE,
    ChunkEmbeddings,
    Composition,
    Share,
    Window,
    check_composition,
    compose,
    compose_shares,
    pool_shares,
    windows,
)
from minisbert.model import Array
from minisbert.model.bert import BertTrace, bert, trace_bert
from minisbert.model.folder import SentenceModel, load_model, save_model
from minisbert.model.ops import normalize
from minisbert.model.params import walk
from minisbert.model.pooling import Normalize, Pooling, apply_modules
from minisbert.model.tokens import Overflow, OverflowReport, Tokens
from minisbert.model_card import model_card
from minisbert.parallel import SlowKernelWarning, advice, in_batches
from minisbert.similarity import SIMILARITIES

if TYPE_CHECKING:
    from tqdm import tqdm

OutputValue = Literal["sentence_embedding", "token_embeddings"]
Progress: TypeAlias = "bool | Callable[..., Any] | None"
"""Whether a bar is shown, or what draws it: something that is called and used like ``tqdm.tqdm``."""

BLOCK_TEXTS = 8192
"""Texts, and chunks, that are held at a time: enough that sorting by length pays, few enough for any memory."""
BLOCK_CHARACTERS = 2**24
"""Characters of the texts that are held at a time, if the texts are long."""
MANY_TEXTS = 1000
"""Texts from which on it is worth a warning that they could be embedded faster."""
NO_PROMPTS = {"query": "", "document": ""}
"""Prompts that a model has without naming them, as in sentence-transformers."""


@dataclass
class _Options:
    """What :meth:`SentenceEncoder.encode` was asked for; the last four are worked out when it is checked."""

    prompt_name: str | None = None
    prompt: str | None = None
    batch_size: int | None = None
    output_value: OutputValue = "sentence_embedding"
    normalize_embeddings: bool = False
    truncate_dim: int | None = None
    overflow: Overflow = "warn"
    chunk_tokens: int | None = None
    overlap: int | None = None  # tokens, at most, that a chunk shares with the one before
    composition: Composition | None = "weighted_mean"  # None: chunks are left as they are
    num_threads: int | None = None
    deterministic: bool = False
    before: str = field(init=False, default="")  # the prompt that was chosen, put before every text
    dimensions: int = field(init=False, default=0)  # of the vectors that are given
    skipped: int = field(init=False, default=0)  # the prompt's tokens, with the special ones before it
    room: int | None = field(init=False, default=None)  # for a text's own tokens in a chunk; None: no chunks


# ---------------------------------------------------------------------------------------------------------- the encoder


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
    ) -> None:
        _refuse_others("SentenceEncoder", {"device": device})
        wanted = getattr(dtype, "name", getattr(dtype, "__name__", dtype))  # of np.dtype("float32") and np.float32
        check_choice("SentenceEncoder: dtype", wanted, ("float32", "float64"))
        self.dtype: np.dtype[Any] = np.dtype(wanted)
        found = hub.resolve(
            model_name_or_path,
            revision=revision,
            token=token,
            cache_folder=cache_folder,
            local_files_only=local_files_only,
        )
        self.folder: Path = found.folder
        self.source: str = found.source
        self.model: SentenceModel = load_model(found.folder, self.dtype)
        self._loaded = self.model  # what lies in the folder
        name = hub.DEFAULT_MODEL if model_name_or_path is None else str(model_name_or_path)
        is_folder = Path(name).expanduser().resolve() == found.folder.resolve()
        self.name: str = found.folder.resolve().name if is_folder else hub.full_name(name)
        if prompts is not None:
            self.prompts = {**self.prompts, **_checked_prompts(prompts)}
        for setting, value in (
            ("default_prompt_name", default_prompt_name),
            ("similarity_fn_name", similarity_fn_name),
            ("truncate_dim", truncate_dim),
            ("max_seq_length", max_seq_length),
        ):
            if value is not None:
                setattr(self, setting, value)

    def __repr__(self) -> str:
        return (
            f"SentenceEncoder({self.folder.name!r}, width {self.model.width}, max_seq_length {self.max_seq_length}, "
            f"{self.dtype})"
        )

    @property
    def max_seq_length(self) -> int:
        """Tokens after which a text is cut, special tokens included; may be set."""
        return self.model.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        least, most = self.model.tokenizer.special_count + 1, self.model.config.max_position_embeddings
        what = "max_seq_length (special tokens included, no more than the model has positions)"
        self.model = replace(self.model, max_seq_length=check_whole(what, value, least, most))

    @property
    def prompts(self) -> Mapping[str, str]:
        """Name to text of the prompts that the folder or the constructor defines; may be set as a whole."""
        return MappingProxyType(self.model.prompts)  # read only: to change it in place would change the copies

    @prompts.setter
    def prompts(self, value: Mapping[str, str]) -> None:
        prompts = _checked_prompts(value)
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
            prompts[value] = _choose_prompt(self.model, prompt_name=value)
        self.model = replace(self.model, prompts=prompts, default_prompt_name=value)

    @property
    def similarity_fn_name(self) -> str:
        """How :meth:`similarity` compares: "cosine", "dot", "euclidean" or "manhattan"; may be set."""
        return self.model.similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        name = getattr(value, "value", value)  # of sentence-transformers' SimilarityFunction
        check_choice("similarity_fn_name", name, SIMILARITIES)
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
        """The ``tokenizers.Tokenizer`` that texts are split by, or its stand-in; :meth:`tokenize` adds the limit."""
        return self.model.tokenizer.library

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

    # ------------------------------------------------------------------------------------------- from text to vector

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
        report = OverflowReport(self.max_seq_length, overflow)
        if overflow == "chunk":
            raise ValueError("overflow='chunk' is for encode; for the chunks of a text ask encode_chunks")
        tokens = self.model.tokenizer(list(check_texts(sentences)), self.max_seq_length)
        report.add(tokens)
        report.warn(_stacklevel() + 1)
        return tokens

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: Progress = None,
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
        show_progress_bar : bool or callable, optional
            On stderr, with texts a second and the time left; by default not. Or what draws it: ``tqdm.notebook.tqdm``.
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
        >>> SentenceEncoder().encode("A text of a hundred sentences. " * 100, overflow="chunk").shape
        (384,)
        """
        asked = dict(locals())  # every argument by its name, as long as there is no other variable
        for name in ("self", "inputs", "sentences", "show_progress_bar"):
            del asked[name]
        if inputs is not None and sentences is not None:
            raise ValueError("encode: pass the texts once, as inputs or as sentences, not as both")
        if composition is None:
            raise ValueError("encode: composition=None leaves chunks apart; ask encode_chunks for them")
        given: Any = sentences if inputs is None else inputs
        options = self._options("encode", asked)
        texts = check_texts(given)
        blocks = self._embed(texts, options, show_progress_bar)
        if output_value == "token_embeddings":
            embeddings: Any = [vectors for block in blocks for vectors in block]
        elif not isinstance(texts, list):
            embeddings = np.concatenate([self._stack([], options), *(self._stack(block, options) for block in blocks)])
        else:  # in place: no second copy of what may be large
            embeddings, start = np.empty((len(texts), options.dimensions), self.dtype), 0
            for block in blocks:
                embeddings[start : start + len(block)] = self._stack(block, options)
                start += len(block)
        return embeddings[0] if isinstance(given, str) else embeddings

    def encode_query(
        self, inputs: Any = None, prompt_name: str | None = None, prompt: str | None = None, *others: Any, **rest: Any
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
        return self.encode(inputs, prompt_name, prompt, *others, **rest)

    def encode_document(
        self, inputs: Any = None, prompt_name: str | None = None, prompt: str | None = None, *others: Any, **rest: Any
    ) -> Any:
        """Turn documents into vectors: :meth:`encode` with the first of the prompts "document", "passage", "corpus"."""
        if prompt_name is None and prompt is None:
            named = (name for name in ("document", "passage", "corpus") if name in self.model.prompts)
            prompt_name = next(named, "document")
        return self.encode(inputs, prompt_name, prompt, *others, **rest)

    def encode_stream(
        self,
        sentences: Iterable[str],
        *,
        block_texts: int = BLOCK_TEXTS,
        total: int | None = None,
        report: OverflowReport | None = None,
        show_progress_bar: Progress = None,
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
        show_progress_bar : bool, optional
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
        checked = self._options("encode_stream", options)
        blocks = self._embed(texts, checked, show_progress_bar, block_texts=block_texts, total=total, report=report)
        for block in blocks:
            yield self._stack(block, checked)

    def encode_chunks(
        self, sentences: str | Iterable[str], *, show_progress_bar: Progress = None, **options: Any
    ) -> Any:
        """Split texts into chunks, and give the vectors and the places of all of them.

        Parameters
        ----------
        sentences : str or iterable of str
        show_progress_bar : bool, optional
        **options
            As in :meth:`encode`, except ``output_value``, ``overflow`` and ``composition``: ``chunk_tokens``,
            ``overlap``, ...

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
        checked = self._options("encode_chunks", dict(overflow="chunk", composition=None, **options))
        found = [
            ChunkEmbeddings(self._stack(text.embeddings, checked), text.chunks)
            for block in self._embed(check_texts(sentences), checked, show_progress_bar)
            for text in block
        ]
        return found[0] if isinstance(sentences, str) else found

    def _options(self, function: str, asked: dict[str, Any]) -> _Options:
        """Refuse what makes no sense, before any work is done."""
        known = {field.name for field in fields(_Options) if field.init}
        _refuse_others(function, {name: value for name, value in asked.items() if name not in known})
        options = _Options(**{name: value for name, value in asked.items() if name in known})
        check_choice("encode: output_value", options.output_value, get_args(OutputValue))
        model, limit, tokenizer = self.model, self.max_seq_length, self.model.tokenizer
        for name, most in (("batch_size", None), ("num_threads", 4096), ("truncate_dim", model.full_width)):
            if (number := getattr(options, name)) is not None:
                check_whole(f"encode: {name}", number, 1, most)
        for name in ("deterministic", "normalize_embeddings"):
            check_flag(f"encode: {name}", getattr(options, name))
        options.dimensions = options.truncate_dim or model.width
        options.before = prompt = _choose_prompt(model, options.prompt, options.prompt_name)
        # the tokens of [CLS] and the prompt, without the [SEP] that stands behind
        options.skipped = int(tokenizer([prompt], limit).lengths[0]) - len(tokenizer.last) if prompt else 0
        if options.overflow == "chunk":
            if options.output_value != "sentence_embedding":
                raise ValueError(
                    "encode: overflow='chunk' gives sentence vectors; token vectors are those of whole texts"
                )
            if options.composition is not None:
                check_composition(options.composition, [*COMPOSITIONS, LATE])
            taken = max(options.skipped, len(tokenizer.first)) + len(tokenizer.last)
            if taken >= limit:
                raise ValueError(f"encode: the prompt leaves no room for a text: it takes {taken} of {limit} tokens")
            if options.chunk_tokens is not None:
                limit = check_whole("encode: chunk_tokens", options.chunk_tokens, taken + 1, limit)
            options.room = room = limit - taken
            if options.overlap is None:  # late composition is there for the neighbours on both sides
                options.overlap = room // 4 if options.composition == LATE else 0
            check_whole("encode: overlap", options.overlap, 0, room - 1)
        elif (options.chunk_tokens, options.overlap, options.composition) != (None, None, "weighted_mean"):
            raise ValueError(
                "encode: chunk_tokens, overlap and composition are for overflow='chunk', which splits long texts; got "
                f"overflow={options.overflow!r}, which does not"
            )
        return options

    def _embed(
        self,
        texts: list[str] | Iterator[str],
        options: _Options,
        show: Progress,
        *,
        block_texts: int | None = None,
        total: int | None = None,
        report: OverflowReport | None = None,
    ) -> Iterator[list[Any]]:
        """Give, block by block, what was asked for of each text: its vector, its token vectors, or its chunks."""
        report = report or OverflowReport(self.max_seq_length, options.overflow)
        total = len(texts) if isinstance(texts, list) else total
        following, count = iter(texts), 0
        with progress_bar(total, show, report.texts) as bar:
            update = bar.update if bar is not None else lambda done: None
            while block := [options.before + text for text in _take(following, block_texts or BLOCK_TEXTS)]:
                if options.room is None:
                    tokens = self.model.tokenizer(block, self.max_seq_length)
                    report.add(tokens)
                    yield self._forward(tokens.split(), options, update)
                else:
                    none_lost = np.zeros(len(block), np.intp)
                    report.add(Tokens(none_lost[:0], none_lost, none_lost))
                    yield list(self._embed_chunks(block, options, options.room, bar))
                count += len(block)
        report.warn(_stacklevel() + 1)
        if count >= MANY_TEXTS and (sentence := advice()):
            warnings.warn(sentence, SlowKernelWarning, stacklevel=_stacklevel())

    def _forward(
        self,
        ids: list[Array],
        options: _Options,
        done: Callable[[int], object],
        shares: Sequence[Share] | None = None,
    ) -> list[Array]:
        """Token ids of texts (or chunks) -> sorted batches, one a core -> BERT -> pooling -> a vector each, in order.

        With ``shares`` it is the pooled share of each window; for token embeddings it is ``(T, D)`` of each text.
        """
        model, counts = self.model, np.array([len(tokens) for tokens in ids], np.intp)

        def work(batch: Array) -> list[Array] | Array:
            strip, lengths = np.concatenate([ids[i] for i in batch]), counts[batch]
            embedded = bert(strip, lengths, model.params, model.config)  # (N, D)
            if shares is not None:
                embedded = pool_shares(embedded, lengths, [shares[i] for i in batch], self._pooling.modes)
            elif options.output_value == "sentence_embedding":
                embedded = apply_modules(embedded, lengths, model.modules, options.skipped)[-1]
            if not np.isfinite(embedded).all():
                raise ValueError(
                    f"encode: {embedded.dtype} overflowed: the weights are so large that vectors are infinite or NaN; "
                    "is the model damaged? dtype='float64' reaches further"
                )
            tokens_wanted = options.output_value == "token_embeddings"
            return np.split(embedded, np.cumsum(lengths)[:-1]) if tokens_wanted else embedded

        return in_batches(counts, work, options.batch_size, options.num_threads, options.deterministic, done)

    def _embed_chunks(
        self, block: list[str], options: _Options, room: int, bar: tqdm[NoReturn] | None
    ) -> Iterator[Array | ChunkEmbeddings]:
        """Embed the chunks of all texts together, so that they share batches, and compose each text's."""
        tokenizer, pooling, composition = self.model.tokenizer, self._pooling, options.composition
        left_out = 0 if pooling.include_prompt else options.skipped
        cut = (
            (i, window)
            for i, text in enumerate(block)
            for window in windows(
                text, tokenizer, room, options.overlap or 0, options.before, options.skipped, left_out
            )
        )
        count = 0

        def done(chunks: int) -> None:
            nonlocal count
            count += chunks
            if bar is not None:
                bar.set_postfix_str(f"{count:,} chunks", refresh=False)
                bar.update(0)  # draws it if it is time

        def embedded() -> Iterator[tuple[int, Window, Array]]:
            while part := list(islice(cut, BLOCK_TEXTS)):
                shares = [window.share for _, window in part] if composition == LATE else None
                vectors = self._forward([window.token_ids for _, window in part], options, done, shares)
                yield from ((i, window, vector) for (i, window), vector in zip(part, vectors, strict=True))

        for _, group in groupby(embedded(), key=itemgetter(0)):
            _, parts, vectors = zip(*group, strict=True)
            embeddings = np.stack(vectors)  # (C, D)
            chunks = tuple(window.chunk for window in parts)
            if composition is None:
                yield ChunkEmbeddings(embeddings, chunks)
            elif composition == LATE:
                whole = compose_shares(embeddings, [window.share for window in parts], pooling.modes)
                # what follows the pooling, by way of a pooling that leaves its one row as it is
                behind = tuple(module for module in self.model.modules if not isinstance(module, Pooling))
                yield apply_modules(whole[None], np.array([1]), (Pooling(), *behind))[-1][0]
            else:
                new_tokens = np.array([chunk.new_tokens for chunk in chunks])  # (C,)
                yield compose(embeddings, new_tokens, composition, isinstance(self.model.modules[-1], Normalize))
            if bar is not None:
                bar.update()

    @property
    def _pooling(self) -> Pooling:
        return next(module for module in self.model.modules if isinstance(module, Pooling))

    def _stack(self, vectors: list[Array] | Array, options: _Options) -> Array:
        """Make one array of sentence vectors, cut and scaled as asked for."""
        rows = np.array(vectors, self.dtype).reshape(len(vectors), self.model.full_width)[:, : options.dimensions]
        return normalize(rows) if options.normalize_embeddings else rows

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
        texts = tuple(check_texts(sentences))
        tokens = self.tokenize(texts, overflow)
        if not texts:
            raise ValueError("trace: expected at least one text, got none")
        traced = trace_bert(tokens.token_ids, tokens.lengths, self.model.params, self.model.config)
        results = apply_modules(traced.output, tokens.lengths, self.model.modules)
        pieces = tuple(self.model.tokenizer.pieces(tokens.token_ids))
        strip = (tokens.token_ids, tokens.lengths, tokens.lost)
        return Trace(texts, pieces, *strip, traced, tuple(results), copy.copy(self))

    # --------------------------------------------------------------------------------------------------------- the rest

    def similarity(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Compare every vector of one array with every vector of another, by :attr:`similarity_fn_name`.

        ``(A, D), (B, D) -> (A, B)``
        """
        return SIMILARITIES[self.model.similarity_fn_name].matrix(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Compare the vectors of two arrays row by row, by :attr:`similarity_fn_name`.

        ``(B, D), (B, D) -> (B,)``
        """
        return SIMILARITIES[self.model.similarity_fn_name].pairwise(embeddings1, embeddings2)

    def fingerprint(self) -> str:
        """Hash what decides a vector, in 64 hexadecimal digits: equal fingerprints, equal vectors.

        It is `minisbert.hub.fingerprint` of the folder; where weights, dimensions or the default prompt are not the
        folder's, of the folder that :meth:`save` would write. ValueError if the folder is gone, as it may be for an
        encoder that was pickled on another machine.
        """
        ours, loaded = self.model, self._loaded
        parts = ("config", "params", "modules", "tokenizer")
        same = all(getattr(ours, part) is getattr(loaded, part) for part in parts)
        if same and ours.truncate_dim == loaded.truncate_dim and _choose_prompt(ours) == _choose_prompt(loaded):
            if not self.folder.is_dir():
                raise ValueError(
                    f"fingerprint: the folder {self.folder.as_posix()} that this encoder was loaded from is not here, "
                    "and its files are what is hashed; load the model on this machine: SentenceEncoder(name or folder)"
                )
            return hub.fingerprint(self.folder)
        with tempfile.TemporaryDirectory() as folder:  # where texts are cut is no part of it
            save_model(replace(ours, max_seq_length=loaded.max_seq_length), Path(folder))
            return hub.fingerprint(Path(folder))

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
        """Write a model folder that this package and sentence-transformers load and that gives the same vectors.

        Parameters
        ----------
        path : str or path
            New or empty, else it is a ValueError; it appears whole or not at all.
        model_name : str, optional
            The title of the model card (README.md, as the Hugging Face Hub shows it); by default the folder's name.
        create_model_card : bool
        train_datasets : sequence of str, optional
            What it was trained on, for the card.
        safe_serialization : {True}
            Weights are always written as safetensors.
        loss : str, optional
            The loss it was trained with, for the card.
        scores : dict, optional
            Name of a test to a score, for the card.

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
        datasets = list(check_texts(train_datasets or (), "save_pretrained: train_datasets", single=False))
        folder = Path(path)
        card = None
        if check_flag("save_pretrained: create_model_card", create_model_card):
            card = model_card(self.model, model_name or folder.name, self.name, datasets, loss, scores)
        save_model(self.model, folder, card)

    save = save_pretrained  # its older name


def _choose_prompt(model: SentenceModel, prompt: str | None = None, prompt_name: str | None = None) -> str:
    """Choose the prompt: given, named, the folder's default, or none."""
    for what, value in (("prompt", prompt), ("prompt_name", prompt_name)):
        if not isinstance(value, str | None):
            raise ValueError(f"encode: {what} must be a text (str) or None, got {value!r:.80}")
    if prompt is not None:
        return prompt
    name = prompt_name if prompt_name is not None else model.default_prompt_name
    prompts = {**NO_PROMPTS, **model.prompts}
    if name is not None and name not in prompts:
        raise ValueError(f"encode: prompt_name {name!r} is none of this model's prompts {sorted(prompts)}")
    return "" if name is None else prompts[name]


def _checked_prompts(prompts: Any) -> dict[str, str]:
    if not isinstance(prompts, Mapping) or not all(isinstance(text, str) for pair in prompts.items() for text in pair):
        raise ValueError(f"prompts: expected a dict of names and texts, got {prompts!r:.80}")
    return dict(prompts)


def _take(texts: Iterator[str], count: int) -> Iterator[str]:
    """Give the next texts, fewer if they are long."""
    characters = 0
    for text in islice(texts, count):
        yield text
        characters += len(text)
        if characters >= BLOCK_CHARACTERS:
            return


def progress_bar(total: int | None, show: Progress, done: int = 0) -> Any:
    """Show on stderr, if there is one, how many texts are done, how many a second, and the time left."""
    if callable(show):
        return show(total=total, initial=done, unit="text", desc="encode")
    if show is not None:  # sentence-transformers' default
        check_flag("show_progress_bar", show)
    if not show or sys.stderr is None:  # as under pythonw, in services, and behind 2>&-
        return nullcontext()
    from tqdm import tqdm  # imported when asked for: it would be a fifth of the package's import time

    # miniters=0: drawn by the clock alone, also while the chunks of a long text are counted
    return tqdm(total=total, initial=done, unit="text", desc="encode", miniters=0)


def _stacklevel() -> int:
    """Count the frames of this file, so that a warning names the line that called it."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        level, frame = level + 1, frame.f_back
    return level


# ------------------------------------------------------------------------------------------------------------ the trace


@dataclass(frozen=True)
class Trace:
    """Every tensor on the way from text to vector; the strip holds all texts end to end."""

    texts: tuple[str, ...]  # B strings
    pieces: tuple[str, ...]  # N strings, what each token is
    token_ids: Array  # (N,)
    lengths: Array  # (B,)
    lost: Array  # (B,) tokens that were cut off each text
    bert: BertTrace
    modules: tuple[Array, ...]  # the result of each module, (B, width)
    encoder: SentenceEncoder = field(repr=False)  # what made it

    @property
    def sentence_embedding(self) -> Array:
        """(B, D) what ``encode`` gives, with all its dimensions."""
        return self.modules[-1]

    def tensors(self) -> dict[str, Array]:
        """Give every tensor by its name, in the order of computation.

        ``"embeddings.word"``, ``"layers.0.attention.query"``, .., ``"sentence_embedding"``. Attention probabilities are
        ``(c, H, T, T)`` per run of equal lengths: ``"layers.0.attention.probs.0"``.
        """
        named = dict(walk(self.bert))
        named |= {f"modules.{i}": result for i, result in enumerate(self.modules[:-1])}
        return {**named, "sentence_embedding": self.sentence_embedding}

    def to_html(self) -> str:
        """Show how two texts become one number, as one HTML page: :func:`minisbert.show`."""
        return importlib.import_module("minisbert.page").page_of(self).html  # built on all of this, so imported late


# ------------------------------------------------------------------------------- what sentence-transformers' users type

_AS_TENSORS = "torch.from_numpy(vectors) makes a tensor of an array"
_ACCEPTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "convert_to_numpy": ((True,), _AS_TENSORS),
    "convert_to_tensor": ((False,), _AS_TENSORS),
    "device": (("cpu", None), "everything is computed on the CPU"),
    "precision": (("float32", None), "vectors are float32, or float64 with dtype='float64'"),
    "pool": ((None,), "threads share the work: num_threads=8"),
    "chunk_size": ((None,), "it is for pools of processes; chunk_tokens= is the size of a long text's chunks"),
}
"""Arguments of ``SentenceTransformer`` that choose nothing here: the values that are taken, and what to do instead."""


def _refuse_others(function: str, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name not in _ACCEPTED:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
        values, instead = _ACCEPTED[name]
        if str(value) not in map(str, values):  # as text: torch.device("cpu") is another type
            raise ValueError(f"{function}: {name}={value!r:.80} is not supported: {instead}")
