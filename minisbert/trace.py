"""Every tensor on the way from text to vector, by name: what proofs compare and notebooks plot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from minisbert.model import Array
from minisbert.model.bert import BertTrace


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
