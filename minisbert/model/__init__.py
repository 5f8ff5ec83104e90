"""One text in, one vector out: the first half of the book. Read it in this order:

``config`` (what the checkpoint says it is), ``params`` (named weights, and gradients of the same shape), ``ops``
(linear, GELU, softmax, LayerNorm), ``bert`` (embed -> attention -> feed-forward), ``pooling`` (token vectors -> one
vector), ``tokens`` (text -> packed ids with the library), ``wordpiece`` (the same ids by hand), ``folder`` (all of it,
read and written). The function ``bert`` is imported from the module of that name: ``from minisbert.model.bert import
bert``.
"""

from typing import Any, TypeAlias

import numpy.typing as npt

# NumPy's types cannot express shapes: they stand in comments and docstrings, where a test executes them.
Array: TypeAlias = npt.NDArray[Any]
"""Any NumPy array; letters such as ``(N, D)`` give the shape."""

# ruff: noqa: E402 - the modules below import Array from here
from minisbert.model.bert import bert_backward, trace_bert
from minisbert.model.config import BertConfig, ModelFolderError
from minisbert.model.folder import SentenceModel, load_model, save_model
from minisbert.model.params import BertParams, load_params, random_params
from minisbert.model.tokens import Tokenizer
from minisbert.model.wordpiece import WordPiece

__all__ = [
    "BertConfig",
    "BertParams",
    "ModelFolderError",
    "SentenceModel",
    "Tokenizer",
    "WordPiece",
    "bert_backward",
    "load_model",
    "load_params",
    "random_params",
    "save_model",
    "trace_bert",
]
