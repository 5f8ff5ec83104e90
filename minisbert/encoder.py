"""SentenceEncoder: text in, vectors out. The public face; glue, no mathematics.

A text goes through ``tokens`` (ids), ``bert`` (token vectors) and ``modules`` (one vector); ``options.py`` checks what
is asked for, ``pipeline.py`` does it. What scikit-learn asks of a transformer stands at the end, on ``transformer.py``.
``remote.py`` and ``client.py``, next, are for code that is written against an embedding service.

Letters: ``B`` texts, ``N`` tokens in the strip, ``T`` tokens of one text, ``C`` chunks, ``D`` hidden size.
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minisbert import hub
from minisbert.blas import SlowKernelWarning, advice
from minisbert.checks import check_sequence, check_texts, check_whole, each_text
from minisbert.chunking import ChunkEmbeddings
from minisbert.composition import Composition
from minisbert.model import Array
from minisbert.model.bert import trace_bert
from minisbert.model.folder import SentenceModel, load_model, save_model
from minisbert.model.ops import normalize
from minisbert.model.pooling import apply_modules
from minisbert.model.tokens import Overflow, OverflowReport, Tokens
from minisbert.options import Options, OutputValue, check_options
from minisbert.pipeline import BLOCK_TEXTS, embed_blocks, progress_bar
from minisbert.similarity import SIMILARITIES
from minisbert.trace import Trace
from minisbert.transformer import as_frame, check_names, check_output, encode_settings, feature_names, tags

MANY_TEXTS = 1000
"""Texts from which on it is worth a warning that they could be embedded faster."""


class SentenceEncoder:
    """A sentence model, ready to turn texts into vectors.

    Parameters
    ----------
    model : str or path, optional
        A name such as ``"all-MiniLM-L6-v2"`` (the default) or ``"organisation/name"``, or a local folder. A name is
        fetched once and verified (:mod:`minisbert.hub`); a folder never touches the network.
    revision : str, optional
        Commit, branch or tag on the Hugging Face Hub.
    token : str or bool, optional
        For private models. Used once and not kept: it is in no copy, pickle or setting.
    local_files_only : bool
        Never touch the network.
    dtype : {"float32", "float64"}
        Of the weights and of everything computed with them.
    max_seq_length : int, optional
        Tokens after which a text is cut, special tokens included; by default the model's own limit.
    encode_kwargs : dict, optional
        What :meth:`transform` passes on to :meth:`encode`, such as ``{"overflow": "chunk"}``. Nothing else reads it.

    Raises
    ------
    ValueError
        If the model cannot be had, or its folder is damaged or not computed exactly here.

    Notes
    -----
    **Source**: ``sentence_transformers.SentenceTransformer``, whose vectors these are (README has the measured
    difference). Reimers & Gurevych 2019.

    It is a scikit-learn transformer as well (:meth:`transform` and the methods around it), with or without
    scikit-learn. Its settings are read by :meth:`get_params`, not from attributes: ``encoder.model`` is the loaded
    model, not its name. ``sklearn.base.clone`` and ``copy.copy`` share the weights, which nothing here writes to
    (fine-tuning works on a copy); ``copy.deepcopy`` and pickle hold weights and tokenizer, and need no folder.

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
        model: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        dtype: npt.DTypeLike = "float32",
        max_seq_length: int | None = None,
        encode_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        # as they were given; replaced by a new dict whenever one changes, because copies share it
        self._params: dict[str, Any] = {
            "model": model,
            "revision": revision,
            "local_files_only": local_files_only,
            "dtype": dtype,
            "max_seq_length": max_seq_length,
            "encode_kwargs": encode_kwargs,
        }
        self._output = "default"
        self.dtype = _check_dtype(dtype)
        found = hub.resolve(model, revision=revision, token=token, local_files_only=local_files_only)
        self.folder: Path = found.folder
        self.source: str = found.source
        self.model: SentenceModel = load_model(found.folder, self.dtype)
        self._loaded = self.model  # what lies in the folder
        self._settle_limit()
        self._check_encode_kwargs()

    def __repr__(self) -> str:
        """Name the model, its width and its limit."""
        return (
            f"SentenceEncoder({self.folder.name!r}, width {self.model.width}, max_seq_length {self.max_seq_length}, "
            f"{self.dtype})"
        )

    @property
    def max_seq_length(self) -> int:
        """Tokens after which a text is cut, special tokens included; may be set, up to the model's positions."""
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
        self._params = {**self._params, "max_seq_length": value}

    def _settle_limit(self) -> None:
        """Cut texts where the setting says, or where the model does."""
        self._max_seq_length = self.model.max_seq_length
        if self._params["max_seq_length"] is not None:
            self.max_seq_length = self._params["max_seq_length"]

    @property
    def prompts(self) -> dict[str, str]:
        """Name to text of the prompts that the folder defines."""
        return dict(self.model.prompts)

    def with_model(self, model: SentenceModel) -> SentenceEncoder:
        """Give an encoder with another model, such as one with trained weights, and the rest of this one's settings.

        Parameters
        ----------
        model : SentenceModel
            Shared, not copied.

        Returns
        -------
        SentenceEncoder
            Its ``folder`` and ``source`` say where this one came from.

        Examples
        --------
        >>> encoder = SentenceEncoder()
        >>> encoder.with_model(replace(encoder.model, truncate_dim=64)).encode("soup").shape
        (64,)
        """
        other = copy.copy(self)
        other.model = model
        return other

    def get_sentence_embedding_dimension(self) -> int:
        """Give the length of a sentence vector.

        Returns
        -------
        int

        Examples
        --------
        >>> SentenceEncoder().get_sentence_embedding_dimension()
        384
        """
        return self.model.width

    def tokenize(self, sentences: str | Iterable[str], overflow: Overflow = "warn") -> Tokens:
        """Split texts into token ids as :meth:`encode` does, cut at ``max_seq_length``.

        Parameters
        ----------
        sentences : str or iterable of str
        overflow : {"warn", "error", "truncate"}
            What to do about texts that are too long. How they are split into chunks is what :meth:`encode_chunks` says.

        Returns
        -------
        Tokens
            One strip; special tokens included.

        Raises
        ------
        ValueError
            For something that is no text, and for texts too long with ``overflow="error"``.

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
        report.warn(stacklevel=4)
        return tokens

    def encode(
        self,
        sentences: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        output_value: OutputValue = "sentence_embedding",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        overflow: Overflow = "warn",
        chunk_tokens: int | None = None,
        overlap: int | None = None,
        composition: Composition = "weighted_mean",
        num_threads: int | None = None,
        deterministic: bool = False,
    ) -> Any:
        """Turn texts into vectors.

        Parameters
        ----------
        sentences : str or iterable of str
            A text has from 0 characters to any number; what exceeds ``max_seq_length`` tokens is cut, or split into
            chunks (``overflow``). Of a generator no more than a few thousand texts are held at a time.
            Mappings, sets and tables are refused; pass a column, such as ``frame["text"]``.
        prompt_name : str, optional
            A key of :attr:`prompts`, put before every text; by default the folder's default prompt, if any.
        prompt : str, optional
            A text to put before every text.
        batch_size : int, optional
            At most so many texts in a batch. By default only the number of tokens counts, which is what decides
            time and memory; the vectors do not depend on it.
        show_progress_bar : bool
            On stderr, with texts a second and the time left.
        output_value : {"sentence_embedding", "token_embeddings"}
            One vector a text, or one a token.
        normalize_embeddings : bool
            Scale sentence vectors to length 1 (some models, the default one included, do so anyway).
        truncate_dim : int, optional
            Keep the first so many dimensions, for models trained for it (Matryoshka); by default as the folder says.
        overflow : {"warn", "error", "truncate", "chunk"}
            What to do about texts that are too long: cut and warn once, refuse, cut without a word, or split them into
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

        Notes
        -----
        **Source**: ``sentence_transformers.SentenceTransformer.encode``.

        Examples
        --------
        >>> SentenceEncoder().encode("hello world")[:3]
        array([-0.03447..., 0.03102..., 0.00673...], dtype=float32)
        >>> SentenceEncoder().encode("A book of a thousand sentences. " * 1000, overflow="chunk").shape
        (384,)
        """
        options = check_options(
            self.model,
            self.max_seq_length,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            output_value=output_value,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            overflow=overflow,
            chunk_tokens=chunk_tokens,
            overlap=overlap,
            composition=composition,
            num_threads=num_threads,
            deterministic=deterministic,
        )
        report = OverflowReport(self.max_seq_length, overflow)
        texts = check_texts(sentences)
        total = len(texts) if isinstance(texts, list) else None
        with progress_bar(total, show_progress_bar) as bar:
            blocks = embed_blocks(self.model, texts, BLOCK_TEXTS, options, report, bar)
            if output_value == "token_embeddings":
                embeddings: Any = [vectors for block in blocks for vectors in block]
            else:
                embeddings = self._stack(blocks, total, options)
        report.warn()
        if len(embeddings) >= MANY_TEXTS and (sentence := advice()):
            warnings.warn(sentence, SlowKernelWarning, stacklevel=2)
        return embeddings[0] if isinstance(sentences, str) else embeddings

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
        report.warn()
        if done >= MANY_TEXTS and (sentence := advice()):
            warnings.warn(sentence, SlowKernelWarning, stacklevel=2)

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

        Raises
        ------
        ValueError
            As in :meth:`encode`.

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
        """Make one array of the sentence vectors of all blocks, cut and scaled as asked for."""
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
        """Encode in one batch, by the same functions, and keep every intermediate tensor.

        Parameters
        ----------
        sentences : str or iterable of str
            One text, or a few: everything is held in memory.
        overflow : {"warn", "error", "truncate"}

        Returns
        -------
        Trace

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
        """Compare every vector of one array with every vector of another, by the model's own similarity.

        Parameters
        ----------
        embeddings1 : Array, shape (A, D)
        embeddings2 : Array, shape (B, D)

        Returns
        -------
        Array, shape (A, B)

        Examples
        --------
        >>> SentenceEncoder().similarity(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
        array([[1., 0.]])
        """
        return SIMILARITIES[self.model.similarity_fn_name][0](embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Compare the vectors of two arrays row by row, by the model's own similarity.

        Parameters
        ----------
        embeddings1, embeddings2 : Array, shape (B, D)

        Returns
        -------
        Array, shape (B,)

        Examples
        --------
        >>> SentenceEncoder().similarity_pairwise(np.eye(2), np.eye(2))
        array([1., 1.])
        """
        return SIMILARITIES[self.model.similarity_fn_name][1](embeddings1, embeddings2)

    def fingerprint(self) -> str:
        """Hash what decides a vector: two encoders with the same fingerprint give the same vectors.

        Returns
        -------
        str
            64 hexadecimal digits: `minisbert.hub.fingerprint` of the folder. For another model than the folder's
            (:meth:`with_model`), of the folder that :meth:`save` would write.

        Raises
        ------
        ValueError
            If the folder is gone, as it may be for an encoder that was pickled on another machine.

        Examples
        --------
        >>> encoder = SentenceEncoder()
        >>> encoder.fingerprint() == hub.fingerprint(encoder.folder)
        True
        """
        if self.model is self._loaded:
            if not self.folder.is_dir():
                raise ValueError(
                    f"fingerprint: the folder {self.folder.as_posix()} that this encoder was loaded from is not here, "
                    "and its files are what is hashed; load the model on this machine: SentenceEncoder(name or folder)"
                )
            return hub.fingerprint(self.folder)
        with tempfile.TemporaryDirectory() as folder:
            save_model(self.model, Path(folder))
            return hub.fingerprint(Path(folder))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a model folder that this package and sentence-transformers load and that gives the same vectors.

        Parameters
        ----------
        folder : str or path
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
        save_model(replace(self.model, max_seq_length=self.max_seq_length), Path(folder))

    # ---- scikit-learn -------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> SentenceEncoder:
        """Learn nothing, because the model is trained already.

        Parameters
        ----------
        X : iterable of str
            As for :meth:`transform`; only looked at from outside, so that a generator is not used up.
        y : ignored

        Returns
        -------
        SentenceEncoder
            This one.

        Raises
        ------
        ValueError
            For a single text, and for a table.

        Examples
        --------
        >>> SentenceEncoder().fit(["i love soup"])
        SentenceEncoder('all-MiniLM-L6-v2', width 384, max_seq_length 256, float32)
        """
        check_sequence(X, "fit: X")
        return self

    def transform(self, X: Any) -> Any:
        """Turn a column of texts into vectors: :meth:`encode` with this encoder's ``encode_kwargs``.

        Parameters
        ----------
        X : iterable of str
            A list, a one-dimensional array, a pandas or polars Series, a generator.

        Returns
        -------
        Array or DataFrame, shape (B, D)
            In the encoder's dtype, bit for bit what :meth:`encode` gives; a frame if :meth:`set_output` says so.

        Raises
        ------
        ValueError
            For a single text, a table, and what is no text (a missing value too), with its row.

        Notes
        -----
        **Source**: scikit-learn's transformers of text, such as ``CountVectorizer``. A text's last digits depend on
        its company (README), so on the fold it is in; ``encode_kwargs={"deterministic": True}`` rules that out.

        Examples
        --------
        >>> SentenceEncoder(encode_kwargs={"truncate_dim": 3}).transform(["hello world"])
        array([[-0.03447..., 0.03102..., 0.00673...]], dtype=float32)
        """
        texts = check_texts(X, "transform: X", single=False)
        vectors = self.encode(texts, **(self._params["encode_kwargs"] or {}))
        if self._output == "default":
            return vectors
        return as_frame(vectors, self.get_feature_names_out(), self._output, X)

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Turn a column of texts into vectors; there is nothing to learn first.

        Parameters
        ----------
        X : iterable of str
        y : ignored

        Returns
        -------
        Array or DataFrame, shape (B, D)
            As :meth:`transform` gives.

        Examples
        --------
        >>> SentenceEncoder().fit_transform(["i love soup"]).shape
        (1, 384)
        """
        return self.fit(X).transform(X)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the settings, as they were given to the constructor or set since.

        Parameters
        ----------
        deep : bool
            Ignored: no setting has settings of its own.

        Returns
        -------
        dict
            All that the constructor takes but the token, which is a secret and decides no vector.

        Examples
        --------
        >>> SentenceEncoder(max_seq_length=64).get_params()["max_seq_length"]
        64
        """
        return dict(self._params)

    def set_params(self, **params: Any) -> SentenceEncoder:
        """Change settings: all of them, or, if one is invalid, none.

        Parameters
        ----------
        **params
            Any of :meth:`get_params`. Another ``model`` or ``revision`` is loaded at once, with the stored token or
            ``HF_TOKEN`` if it needs one; another ``dtype`` from the folder that is in use. The same value as before
            changes nothing. ``max_seq_length=None`` is the model's own limit.

        Returns
        -------
        SentenceEncoder
            This one.

        Raises
        ------
        ValueError
            For an unknown name, with the valid ones, and for values that the constructor refuses. Also for another
            ``dtype`` when the model in use is not its folder's (:meth:`with_model`).

        Examples
        --------
        >>> SentenceEncoder().set_params(max_seq_length=64)
        SentenceEncoder('all-MiniLM-L6-v2', width 384, max_seq_length 64, float32)
        """
        check_names(params, self._params, f"{type(self).__name__}.set_params")
        changed = {name for name, value in params.items() if value is not self._params[name]}
        renamed = any(params[name] != self._params[name] for name in changed & {"model", "revision"})
        other = copy.copy(self)  # takes all risks; this one becomes like it in the end
        other._params = {**self._params, **params}
        other.dtype = _check_dtype(other._params["dtype"])
        if renamed:
            asked = {name: other._params[name] for name in ("model", "revision", "local_files_only")}
            found = hub.resolve(**asked)
            other.folder, other.source = found.folder, found.source
        elif other.dtype != self.dtype and self.model is not self._loaded:
            raise ValueError(
                f"{type(self).__name__}.set_params: dtype can be changed for the model of a folder only, and this "
                f"one was made in memory (with_model); save it, and load it with dtype={params['dtype']!r}"
            )
        if renamed or other.dtype != self.dtype:
            other.model = other._loaded = load_model(other.folder, other.dtype)
        if renamed or other.dtype != self.dtype or "max_seq_length" in changed:
            other._settle_limit()
        other._check_encode_kwargs()
        self.__dict__.update(other.__dict__)
        return self

    def _check_encode_kwargs(self) -> Options:
        """Refuse at once what :meth:`encode` would refuse later, and give what it makes of it."""
        options = encode_settings(self._params["encode_kwargs"], self.encode)
        options.pop("show_progress_bar", None)
        return check_options(self.model, self.max_seq_length, **options)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Name the columns that :meth:`transform` gives.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        Array of str, shape (D,)

        Examples
        --------
        >>> SentenceEncoder().get_feature_names_out()[:2]
        array(['sentenceencoder0', 'sentenceencoder1'], dtype=object)
        """
        return feature_names(type(self).__name__.lower(), self._check_encode_kwargs().dimensions)

    def set_output(self, *, transform: str | None = None) -> SentenceEncoder:
        """Choose what :meth:`transform` gives.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, optional
            A NumPy array, or a frame with the names of :meth:`get_feature_names_out`; None changes nothing.

        Returns
        -------
        SentenceEncoder
            This one.

        Raises
        ------
        ValueError
            For anything else. That pandas or polars is missing is told by :meth:`transform`.

        Examples
        --------
        >>> encoder = SentenceEncoder().set_output(transform="pandas")
        """
        if transform is not None:
            self._output = check_output(transform)
        return self

    def __sklearn_clone__(self) -> SentenceEncoder:
        """Copy the settings and share the weights: nothing is loaded again."""
        other = copy.copy(self)
        other._params = copy.deepcopy(self._params)
        return other

    def __sklearn_is_fitted__(self) -> bool:
        """There is nothing to fit."""
        return True

    def __sklearn_tags__(self) -> Any:
        return tags()


def _check_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Take one of the two dtypes that are computed with."""
    try:
        found = None if dtype is None else np.dtype(dtype)  # NumPy takes None for float64
    except (TypeError, ValueError, SyntaxError):
        found = None
    if found is None or found not in (np.float32, np.float64):
        raise ValueError(f"SentenceEncoder: dtype must be 'float32' or 'float64', got {dtype!r:.80}")
    return found
