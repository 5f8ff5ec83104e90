"""A small BERT with random weights: what training from nothing begins with. Next: ``geometry.py``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from minisbert.model import Array
from minisbert.model.config import BertConfig
from minisbert.model.folder import SentenceModel
from minisbert.model.params import build_params
from minisbert.model.pooling import Normalize, Pooling


def untrained_model(
    like: SentenceModel,
    *,
    num_hidden_layers: int = 2,
    hidden_size: int = 128,
    num_attention_heads: int = 4,
    seed: int = 0,
    dtype: npt.DTypeLike = np.float32,
) -> SentenceModel:
    """Make a model of another size with the tokenizer of a given one, untrained.

    Parameters
    ----------
    like : SentenceModel
        Lends its tokenizer, its limits and its similarity; none of its weights.
    num_hidden_layers : int
        ``L``.
    hidden_size : int
        ``D``; the feed-forward size is four times that, as in BERT.
    num_attention_heads : int
        ``H``; divides ``D``.
    seed : int
    dtype : DTypeLike

    Returns
    -------
    SentenceModel
        Weights normal with spread 0.02, biases 0, LayerNorm weights 1; mean pooling, vectors of length 1.

    Raises
    ------
    ValueError
        For sizes below 1, and heads that do not divide the hidden size.

    Notes
    -----
    **Source**: Devlin et al. 2019, and ``transformers.BertModel(config)``, for the first weights.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> encoder = SentenceEncoder()
    >>> encoder.with_model(untrained_model(encoder.model)).encode(["soup"]).shape
    (1, 128)
    """
    if min(num_hidden_layers, hidden_size, num_attention_heads) < 1 or hidden_size % num_attention_heads:
        raise ValueError(
            "untrained_model: expected sizes of at least 1 and heads that divide the hidden size, got "
            f"{num_hidden_layers} layers, hidden size {hidden_size}, {num_attention_heads} heads"
        )
    config = BertConfig(
        vocab_size=like.config.vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=like.config.max_position_embeddings,
        type_vocab_size=like.config.type_vocab_size,
    )
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        if len(shape) == 1:
            return np.full(shape, float(name.endswith("LayerNorm.weight")), dtype)
        weight = rng.normal(0.0, 0.02, shape).astype(dtype)
        # in memory as loaded weights lie
        return weight if name.startswith("embeddings.") else np.asfortranarray(weight)

    params = build_params(config, draw)
    return replace(like, config=config, params=params, modules=(Pooling(), Normalize()), truncate_dim=None)
