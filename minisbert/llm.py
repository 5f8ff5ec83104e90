"""``llm embed -m minisbert -c "i love soup"``: a plug-in for Simon Willison's `llm`, which finds it where both are
installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import llm

from minisbert.encoder import SentenceEncoder


class Embedder(llm.EmbeddingModel):  # type: ignore[misc]
    """The default model, loaded with the first text."""

    model_id = "minisbert"
    batch_size = 1024
    encoder: SentenceEncoder | None = None

    def embed_batch(self, items: Iterable[str], **key: Any) -> Iterator[list[float]]:
        """Vectors (B, D) as lists; the key, which models of services need, plays no part."""
        self.encoder = self.encoder or SentenceEncoder()
        yield from self.encoder.encode(list(items)).tolist()


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_embedding_models(register: Any) -> None:
    """Called by `llm`."""
    register(Embedder())
