"""Documents -> rows of the database: look up a block, embed what is new, store it in one transaction.

::

    block of documents --> stored already with the same content?                    unchanged: nothing to do
                       --> the others: chunks, and a vector each (encode_chunks)    new, or changed
                       --> BEGIN; delete the changed ones' old rows; insert the new rows; COMMIT

So a document is always stored whole and once. A killed run loses at most the block it was working on; started again, it
skips what is done.

Letters: ``C`` chunks of all documents of a block, ``D`` width of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minisbert.checks import check_whole
from minisbert.encoder import SentenceEncoder, progress_bar
from minisbert.long_texts import ChunkEmbeddings
from minisbert.model import Array
from minisbert.search.documents import Document, check_documents
from minisbert.search.storage import Storage

__all__ = ["AddReport", "Settings", "add_documents", "check_settings", "remove_documents"]

BLOCK_DOCUMENTS = 1024  # per block: a second or two of work if they are short
BLOCK_CHARACTERS = 2**19  # per block if they are long
SIMILARITIES = ("cosine", "dot", "euclidean")
"""Similarities that exist both in memory and in SQL."""


@dataclass(frozen=True)
class Settings:
    """How documents become vectors: the same for all documents of a database."""

    chunk_tokens: int  # per chunk, special tokens and prompt included
    overlap: int  # tokens
    document_prompt: str  # before every document
    query_prompt: str  # before every query
    similarity: str  # of SIMILARITIES


@dataclass(frozen=True)
class AddReport:
    """What happened to the documents that were added."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    chunks: int = 0  # embedded

    def __add__(self, other: AddReport) -> AddReport:
        """Add two reports."""
        return AddReport(
            self.added + other.added,
            self.replaced + other.replaced,
            self.unchanged + other.unchanged,
            self.chunks + other.chunks,
        )


def check_settings(
    encoder: SentenceEncoder,
    chunk_tokens: int | None,
    overlap: int | None,
    document_prompt: str | None,
    query_prompt: str | None,
) -> Settings:
    """Complete settings with the model's own, and reject what it does not support.

    Defaults: the encoder's ``max_seq_length``, no overlap, the model's prompts "document" (or "passage") and "query",
    else its default prompt, else none.

    >>> check_settings(SentenceEncoder(), 64, None, None, "query: ")
    Settings(chunk_tokens=64, overlap=0, document_prompt='', query_prompt='query: ', similarity='cosine')
    """
    similarity = encoder.model.similarity_fn_name
    if similarity not in SIMILARITIES:
        raise ValueError(
            f"EmbeddingDatabase: this model compares by {similarity!r}, a database supports {', '.join(SIMILARITIES)}; "
            "use minisbert.search.exact.semantic_search, in memory"
        )
    prompts = encoder.prompts
    usual = prompts.get(encoder.model.default_prompt_name or "", "")
    if document_prompt is None:
        document_prompt = prompts.get("document", prompts.get("passage", usual))
    if query_prompt is None:
        query_prompt = prompts.get("query", usual)
    chunk_tokens = chunk_tokens or encoder.max_seq_length
    # rejects impossible limits before any work
    encoder.encode_chunks([], prompt=document_prompt, chunk_tokens=chunk_tokens, overlap=overlap)
    return Settings(chunk_tokens, overlap or 0, document_prompt, query_prompt, similarity)


def add_documents(
    storage: Storage,
    encoder: SentenceEncoder,
    settings: Settings,
    documents: Iterable[object],
    *,
    total: int | None = None,
    show_progress_bar: bool = False,
    block_documents: int = BLOCK_DOCUMENTS,
) -> AddReport:
    """Store documents, reading them as needed, at most ``block_documents`` at a time.

    An invalid document raises a ValueError (`minisbert.search.documents.check_documents`); the blocks before it are
    kept.
    """
    block_documents = check_whole("add: block_documents", block_documents, 1)
    report = AddReport()
    with progress_bar(total, show_progress_bar) as bar:
        for block in _blocks(check_documents(documents), block_documents):
            report += _add_block(storage, encoder, settings, block)
            if bar is not None:
                bar.update(len(block))
    return report


def _blocks(documents: Iterator[Document], count: int) -> Iterator[list[Document]]:
    """Group documents into blocks, smaller ones if they are long."""
    block: list[Document] = []
    characters = 0
    for document in documents:
        block.append(document)
        characters += len(document.text)
        if len(block) == count or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _add_block(storage: Storage, encoder: SentenceEncoder, settings: Settings, block: Sequence[Document]) -> AddReport:
    """Embed and store what is new in a block."""
    found = storage.rows(
        "SELECT id, hash, number FROM documents WHERE id IN (SELECT unnest(?::VARCHAR[]))", [[d.id for d in block]]
    )
    stored = {key: (content, number) for key, content, number in found}
    hashes = {document.id: document.content_hash for document in block}
    fresh = [d for d in block if d.id not in stored or stored[d.id][0] != hashes[d.id]]
    unchanged = len(block) - len(fresh)
    if not fresh:
        return AddReport(unchanged=unchanged)
    embedded = embed(encoder, settings, [document.text for document in fresh])
    old = [stored[document.id][1] for document in fresh if document.id in stored]
    with storage.transaction():
        _delete(storage, old)
        _insert(storage, fresh, embedded, hashes)
    chunks = sum(len(one.chunks) for one in embedded)
    return AddReport(len(fresh) - len(old), len(old), unchanged, chunks)


def embed(encoder: SentenceEncoder, settings: Settings, texts: list[str]) -> list[ChunkEmbeddings]:
    """Embed documents in chunks.

    >>> encoder = SentenceEncoder()
    >>> settings = check_settings(encoder, 8, None, None, None)
    >>> [len(one.chunks) for one in embed(encoder, settings, ["Soup is my favorite. London is far away.", "tea"])]
    [2, 1]
    """
    return encoder.encode_chunks(
        texts,
        chunk_tokens=settings.chunk_tokens,
        overlap=settings.overlap,
        prompt=settings.document_prompt,
        normalize_embeddings=settings.similarity == "cosine",  # so that search need not divide
    )


def _delete(storage: Storage, numbers: list[int]) -> None:
    """Delete documents, inside a transaction."""
    if numbers:
        storage.rows("DELETE FROM chunks WHERE document IN (SELECT unnest(?::BIGINT[]))", [numbers])
        storage.rows("DELETE FROM documents WHERE number IN (SELECT unnest(?::BIGINT[]))", [numbers])


def _insert(
    storage: Storage, documents: Sequence[Document], embedded: Sequence[ChunkEmbeddings], hashes: dict[str, str]
) -> None:
    """Insert documents and chunks, inside a transaction."""
    ((first,),) = storage.rows("SELECT coalesce(max(number), -1) + 1 FROM documents")
    columns: list[list[Any]] = [
        list(range(first, first + len(documents))),
        [document.id for document in documents],
        [document.text for document in documents],
        [document.metadata_json for document in documents],
        [hashes[document.id] for document in documents],
        [document.source for document in documents],
    ]
    types = ("BIGINT", "VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR")
    storage.rows(f"INSERT INTO documents SELECT {', '.join(f'unnest(?::{kind}[])' for kind in types)}", columns)
    chunks = [chunk for one in embedded for chunk in one.chunks]
    counts = [len(one.chunks) for one in embedded]
    places: dict[str, Array] = {
        "document": np.repeat(np.arange(first, first + len(documents)), counts),
        "number": np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        "start": np.array([chunk.start for chunk in chunks], np.int64),
        "stop": np.array([chunk.stop for chunk in chunks], np.int64),
    }
    vectors = np.concatenate([one.embeddings for one in embedded]).astype(np.float32)  # (C, D)
    storage.insert_chunks(places, vectors)


def remove_documents(storage: Storage, numbers: Sequence[int]) -> None:
    """Delete documents by their numbers in one transaction."""
    with storage.transaction():
        _delete(storage, list(numbers))
