"""What the length limit costs: the same retrieval with long documents cut, composed of chunks, or by their best chunk.

- **cut** at a limit: what libraries do, mostly silently;
- **chunks** composed to one vector per document (mean, mean weighted by new tokens, maximum per dimension, the first
  chunk), or **late composition**, which pools the token vectors of all chunks at once;
- **best chunk**: a vector per chunk, and a document scores as its best one ("max-sim"). The index grows accordingly.

Every way is compared, query by query (`paired_difference`), with cutting at the model's own limit. Queries with a
relevant document beyond the limit are also reported alone: only there can anything be lost.

Letters: ``Q`` queries, ``M`` documents, ``D`` width of a vector, ``C`` chunks.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minisbert.evaluation.measures import Estimate, bootstrap_mean, paired_difference
from minisbert.evaluation.retrieval import Cut, RetrievalSet, count_cut, measure, search
from minisbert.long_texts import COMPOSITIONS, ChunkEmbeddings, compose
from minisbert.model import Array
from minisbert.model.pooling import Normalize

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

__all__ = ["LENGTH_MEASURES", "LengthStudy", "Line", "compare_lengths", "summarise"]

LENGTH_MEASURES = ("nDCG@10", "Recall@10", "Recall@100")
"""The measures of ``retrieval.py`` that are compared."""

_BLOCK_DOCUMENTS = 512  # embedded at a time, so that progress shows


@dataclass(frozen=True)
class LengthStudy:
    """The measures of every way to treat long documents, query by query."""

    retrieval_set: RetrievalSet
    max_seq_length: int  # the model's own limit
    documents_cut: Cut  # by that limit
    beyond_limit: Array  # (Q,) whether a relevant document is longer
    reference: str  # the system that others are compared with
    systems: Mapping[str, Mapping[str, Array]]  # by system, by measure: (Q,)
    chunks: Mapping[int, int]  # chunk size in tokens to the number of chunks of all documents


class Line(NamedTuple):
    """One system by one measure."""

    system: str
    estimate: Estimate
    difference: Estimate | None  # to the reference; None for the reference itself


def compare_lengths(
    encoder: SentenceEncoder,
    retrieval_set: RetrievalSet,
    *,
    cuts: Sequence[int] = (64, 128),
    chunk_tokens: Sequence[int] | None = None,
    show_progress_bar: bool = False,
) -> LengthStudy:
    """Measure retrieval with long documents cut, composed of chunks, and found by their best chunk.

    Limits and chunk sizes are in tokens, special ones included; the encoder's own limit is always among ``cuts`` and
    the default of ``chunk_tokens`` (none: ``[]``).

    **Source**: best chunk is "MaxP" of Dai & Callan 2019 (SIGIR, section 3); late composition:
    :mod:`minisbert.long_texts`.

    >>> from minisbert import SentenceEncoder
    >>> documents = "Knead flour, water and yeast. Bake it.", "Ask the airline for another flight."
    >>> two = RetrievalSet("two", ("d1", "d2"), documents, ("q",), ("How do I bake bread?",), {"q": {"d1": 1}})
    >>> study = compare_lengths(SentenceEncoder(max_seq_length=8), two, cuts=[3], chunk_tokens=[])
    >>> list(study.systems), study.beyond_limit
    (['cut at 3', 'cut at 8'], array([ True]))
    """
    limit = encoder.max_seq_length
    sizes = [limit] if chunk_tokens is None else sorted(set(chunk_tokens))
    limits = sorted({*cuts, limit})
    shorter = {size: _limited(encoder, size) for size in limits}
    for size in sizes:
        encoder.encode_chunks([], chunk_tokens=size)  # like the line above, rejects impossible limits before any work
    queries = encoder.encode(retrieval_set.queries, overflow="truncate")
    documents_cut, lost = count_cut(encoder, retrieval_set.documents)
    systems: dict[str, dict[str, Array]] = {}
    chunks: dict[int, int] = {}

    def add(name: str, embeddings: Array, first_chunks: Array | None = None) -> None:
        ranked = search(encoder, queries, embeddings, retrieval_set.document_ids, first_chunks=first_chunks)
        systems[name] = {
            key: values for key, values in measure(ranked, retrieval_set).items() if key in LENGTH_MEASURES
        }

    with _progress_bar(len(retrieval_set.documents) * (len(limits) + 2 * len(sizes)), show_progress_bar) as bar:
        for size in limits:
            add(f"cut at {size}", _embed_cut(shorter[size], retrieval_set.documents, bar))
        for size in sizes:
            found = _embed_chunks(encoder, retrieval_set.documents, size, bar)
            chunks[size] = sum(len(one.chunks) for one in found)
            for name in COMPOSITIONS:
                add(f"chunks of {size}: {name}", _compose_all(encoder, found, name))
            first = np.cumsum([0, *(len(one.chunks) for one in found[:-1])])
            add(f"chunks of {size}: best chunk", np.concatenate([one.embeddings for one in found]), first)
            add(f"chunks of {size}: late", _embed_late(encoder, retrieval_set.documents, size, bar))
    beyond = _beyond_limit(retrieval_set, lost)
    return LengthStudy(retrieval_set, limit, documents_cut, beyond, f"cut at {limit}", systems, chunks)


def summarise(study: LengthStudy, name: str, *, beyond_limit_only: bool = False) -> list[Line]:
    """Each system's mean of one measure and its difference to the reference, in [0, 1], with 95 % intervals.

    ``beyond_limit_only``: over the queries that have a relevant document beyond the limit.
    """
    rows = study.beyond_limit if beyond_limit_only else np.ones(len(study.beyond_limit), bool)
    if name not in study.systems[study.reference] or not rows.any():
        raise ValueError(
            f"summarise: expected one of {', '.join(study.systems[study.reference])} and at least one query, got "
            f"{name!r} and {np.count_nonzero(rows)} queries"
        )
    reference = study.systems[study.reference][name][rows]
    return [
        Line(
            system,
            bootstrap_mean(measures[name][rows]),
            None if system == study.reference else paired_difference(measures[name][rows], reference),
        )
        for system, measures in study.systems.items()
    ]


def _beyond_limit(retrieval_set: RetrievalSet, lost: Array) -> Array:
    """Whether a relevant document of each query loses tokens: (Q,)."""
    long = {name for name, tokens in zip(retrieval_set.document_ids, lost, strict=True) if tokens}
    relevant = (
        {document for document, grade in retrieval_set.qrels[query].items() if grade > 0}
        for query in retrieval_set.query_ids
    )
    return np.array([not long.isdisjoint(documents) for documents in relevant], bool)  # (Q,)


# ------------------------------------------------------------------------------------------------ embedding


def _limited(encoder: SentenceEncoder, limit: int) -> SentenceEncoder:
    """An encoder with another limit and the same weights."""
    other = copy.copy(encoder)
    other.max_seq_length = limit
    return other


def _embed_cut(encoder: SentenceEncoder, documents: Sequence[str], bar: Any) -> Array:
    blocks = _in_blocks(documents, lambda block: encoder.encode(block, overflow="truncate"), bar)
    return np.concatenate(list(blocks))  # (M, D)


def _embed_chunks(encoder: SentenceEncoder, documents: Sequence[str], size: int, bar: Any) -> list[ChunkEmbeddings]:
    blocks = _in_blocks(documents, lambda block: encoder.encode_chunks(block, chunk_tokens=size), bar)
    return [chunks for block in blocks for chunks in block]


def _embed_late(encoder: SentenceEncoder, documents: Sequence[str], size: int, bar: Any) -> Array:
    """Pool the token vectors of all chunks of a document at once."""

    def embed(block: Sequence[str]) -> Array:
        return encoder.encode(block, overflow="chunk", chunk_tokens=size, composition="late")

    return np.concatenate(list(_in_blocks(documents, embed, bar)))  # (M, D)


def _compose_all(encoder: SentenceEncoder, found: Sequence[ChunkEmbeddings], composition: str) -> Array:
    """One vector per document from those of its chunks, as the encoder would."""
    scaled = isinstance(encoder.model.modules[-1], Normalize)
    whole = [
        compose(one.embeddings, np.array([chunk.new_tokens for chunk in one.chunks]), composition, scaled)
        for one in found
    ]
    return np.stack(whole)  # (M, D)


def _in_blocks(documents: Sequence[str], embed: Callable[[Sequence[str]], Any], bar: Any) -> Iterator[Any]:
    """Embed documents in blocks and count them."""
    for start in range(0, len(documents), _BLOCK_DOCUMENTS):
        block = documents[start : start + _BLOCK_DOCUMENTS]
        yield embed(block)
        if bar is not None:
            bar.update(len(block))


def _progress_bar(total: int, show: bool) -> Any:
    """Documents embedded, over all systems, on stderr."""
    if not show or sys.stderr is None:
        return nullcontext()
    from tqdm import tqdm  # imported on demand: a good part of the package's import time

    return tqdm(total=total, unit="document", desc="embed")
