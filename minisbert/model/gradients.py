"""The gradient of every weight of a BERT: the same fields as in ``params.py``, with one exception.

A gradient has the shape of what it belongs to: the gradient of an ``AttentionParams`` is another ``AttentionParams``.
Only the word table differs. A batch uses a few hundred of its 30,522 rows, and the gradient of all others is zero:
:class:`RowGradient` holds the rows that were used and no zeros.

Letters: ``V`` vocabulary, ``U`` distinct pieces of a batch, ``P`` positions, ``D`` hidden size, ``S`` token types.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisbert.model import Array
from minisbert.model.params import LayerNormParams, LayerParams


@dataclass(frozen=True)
class RowGradient:
    """The gradient of a table of which a few rows were used; that of every other row is zero."""

    rows: Array  # (U,)
    values: Array  # (U, D)
    row_count: int  # V, rows of the whole table

    def dense(self) -> Array:
        """The gradient with all its zeros, (V, D), as PyTorch holds it."""
        table = np.zeros((self.row_count, self.values.shape[1]), self.values.dtype)
        table[self.rows] = self.values
        return table


Gradient = Array | RowGradient
"""Of one tensor."""


@dataclass(frozen=True)
class EmbeddingGradients:
    """Of the three tables and their LayerNorm."""

    word: RowGradient
    position: Array  # (P, D)
    token_type: Array  # (S, D)
    layer_norm: LayerNormParams


@dataclass(frozen=True)
class BertGradients:
    """Of all weights of a BERT."""

    embeddings: EmbeddingGradients
    layers: tuple[LayerParams, ...]


def sum_rows(row_of: Array, d_rows: Array, row_count: int) -> RowGradient:
    """``d_table[r] = sum of d_rows[n] over all n with row_of[n] = r``: the gradient of indexing, ``table[row_of]``.

    As of ``torch.nn.functional.embedding(..., sparse=True)``, coalesced: the rows ascend.

    >>> sum_rows(np.array([2, 0, 2]), np.array([[1.0], [5.0], [3.0]]), 9)
    RowGradient(rows=array([0, 2]), values=array([[5.],
           [4.]]), row_count=9)
    """
    order = np.argsort(row_of, kind="stable")  # (N,)
    rows, first = np.unique(row_of[order], return_index=True)
    values = np.add.reduceat(d_rows[order], first, axis=0)  # (U, D)
    return RowGradient(rows, values, row_count)


def add_gradients(a: Gradient, b: Gradient) -> Gradient:
    """Add the gradients of one tensor from two parts of a batch."""
    if isinstance(a, RowGradient) and isinstance(b, RowGradient):
        both = np.concatenate([a.rows, b.rows]), np.concatenate([a.values, b.values])
        return sum_rows(*both, a.row_count)
    if isinstance(a, RowGradient) or isinstance(b, RowGradient):
        raise ValueError("add_gradients: expected two gradients of one kind, got an Array and a RowGradient")
    total: Array = a + b
    return total
