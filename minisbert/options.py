"""What ``encode`` may be asked for, checked before any work is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from minisbert.checks import check_flag, check_whole
from minisbert.composition import COMPOSITIONS, LATE, Composition, check_composition
from minisbert.model.folder import SentenceModel
from minisbert.model.tokens import Overflow

OutputValue = Literal["sentence_embedding", "token_embeddings"]


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
    normalize_embeddings: bool = False,
    truncate_dim: int | None = None,
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
            f"encode: output_value must be 'sentence_embedding' or 'token_embeddings', got {output_value!r}"
        )
    batch_size = None if batch_size is None else check_whole("encode: batch_size", batch_size, 1)
    num_threads = None if num_threads is None else check_whole("encode: num_threads", num_threads, 1)
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
        dimensions=_check_dimensions(model, truncate_dim),
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


def _check_dimensions(model: SentenceModel, truncate_dim: int | None) -> int:
    return (
        model.width if truncate_dim is None else check_whole("encode: truncate_dim", truncate_dim, 1, model.full_width)
    )


def _resolve_prompt(model: SentenceModel, prompt: str | None, prompt_name: str | None) -> str:
    """Choose the prompt: given, named, the folder's default, or none."""
    for argument, value in (("prompt", prompt), ("prompt_name", prompt_name)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"encode: {argument} must be a text (str) or None, got {value!r:.80}")
    if prompt is not None:
        return prompt
    name = prompt_name if prompt_name is not None else model.default_prompt_name
    if name is None:
        return ""
    if name not in model.prompts:
        raise ValueError(f"encode: prompt_name {name!r} is none of this model's prompts {sorted(model.prompts)}")
    return model.prompts[name]


def _prompt_length(model: SentenceModel, prompt: str, max_seq_length: int) -> int:
    """Count a prompt's tokens with what stands before it, [CLS], but not with what stands behind, [SEP]."""
    if not prompt:
        return 0
    tokens = model.tokenizer([prompt], max_seq_length)
    return int(tokens.lengths[0]) - len(model.tokenizer.last)
