"""Which layer, which pooling: the STS score of every combination, from one forward pass.

A model is trained with one pooling of its last layer; here every hidden state is pooled in every way, from layer 0 (the
embeddings' output, before any attention) to layer L. A batch's token vectors are pooled at once and dropped, so that
only one vector per text, layer and pooling is held. Dense modules are left out: they are trained for the model's own
pooling.

Letters: ``B`` pairs, ``M`` distinct sentences, ``N`` tokens in the strip, ``D`` hidden size, ``L`` layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.correlation import spearman
from minisbert.evaluation.sts import StsPairs, pair_cosines
from minisbert.model import Array
from minisbert.model.bert import embed, layer
from minisbert.model.folder import SentenceModel
from minisbert.model.pooling import POOLINGS, Pooling
from minisbert.parallel import make_batches, threads, work_through

_ROUNDING = 1e-6  # cosines of float32 vectors within this are equal


@dataclass(frozen=True, eq=False)
class LayerScores:
    """Spearman x 100 of the cosine by layer and pooling; NaN where no correlation exists."""

    name: str
    pairs: int
    poolings: tuple[str, ...]
    values: Array  # (L + 1, len(poolings)) float64
    own: tuple[int, int] | None  # the model's own layer and pooling; None for a concatenation


def layer_scores(
    encoder: SentenceEncoder,
    pairs: StsPairs,
    *,
    num_threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> LayerScores:
    """Score every hidden state under every pooling; ``progress`` receives the number of texts done, batch by batch.

    NaN where all pairs have the same similarity: ``cls`` of layer 0, because [CLS] at position 0 is the same vector in
    every text before attention. ``mean`` and ``mean_sqrt_len_tokens`` are equal: they differ in length only.

    **Source**: Reimers & Gurevych 2019, section 6 (poolings); ``BertModel(..., output_hidden_states=True)`` with
    ``sentence_transformers``' ``Pooling`` on each.

    >>> texts = ["a cat sleeps", "stocks fell", "he cooks rice"], ["the cat is asleep", "shares lost", "a dog barks"]
    >>> found = layer_scores(SentenceEncoder(), StsPairs("tiny", *texts, np.array([5.0, 4.0, 0.0])))
    >>> found.values.shape, found.own
    ((7, 6), (6, 2))
    """
    distinct = list(dict.fromkeys([*pairs.sentences1, *pairs.sentences2]))
    row = {sentence: i for i, sentence in enumerate(distinct)}
    left = np.array([row[sentence] for sentence in pairs.sentences1])
    right = np.array([row[sentence] for sentence in pairs.sentences2])
    pooled = _pool_everything(encoder, distinct, num_threads or threads.usable(), progress)  # (L + 1, P, M, D)
    values = np.array([[_score(vectors[left], vectors[right], pairs) for vectors in one] for one in pooled])
    if np.isnan(values).all():
        raise ValueError(
            f"{pairs.name}: no correlation exists in any layer: all {len(pairs.scores):,} pairs have the same "
            "similarity; are both sentences of every pair identical?"
        )
    return LayerScores(pairs.name, len(pairs.scores), tuple(POOLINGS), values, _own_place(encoder.model))


def _pool_everything(
    encoder: SentenceEncoder, texts: list[str], num_threads: int, progress: Callable[[int], object] | None
) -> Array:
    """Send texts through the model once, and pool every hidden state in every way."""
    model = encoder.model
    prefix = model.prompts[model.default_prompt_name] if model.default_prompt_name is not None else ""
    tokens = encoder.tokenize(prefix + text for text in texts)
    ids, lengths = tokens.split(), tokens.lengths
    shape = (len(model.params.layers) + 1, len(POOLINGS), len(texts), model.config.hidden_size)
    pooled = np.empty(shape, encoder.dtype)

    def work(batch: Array) -> None:
        strip = np.concatenate([ids[i] for i in batch])
        for place, hidden in enumerate(_hidden_states(strip, lengths[batch], model)):
            for i, (pooling, _) in enumerate(POOLINGS.values()):
                pooled[place, i, batch] = pooling(hidden, lengths[batch])

    for batch, _ in work_through(make_batches(lengths, None, num_threads), work, num_threads):
        if progress is not None:
            progress(len(batch))
    return pooled


def _hidden_states(strip: Array, lengths: Array, model: SentenceModel) -> Iterator[Array]:
    """Yield the output of the embeddings and of each layer, (N, D) each."""
    hidden = embed(strip, lengths, model.params.embeddings, model.config.layer_norm_eps).output  # (N, D)
    yield hidden
    for params in model.params.layers:
        hidden = layer(hidden, lengths, params, model.config).output  # (N, D)
        yield hidden


def _score(a: Array, b: Array, pairs: StsPairs) -> float:
    """Correlate the cosines with the scores; NaN if all cosines are equal."""
    cosines = pair_cosines(a.astype(np.float64), b.astype(np.float64))
    return 100 * spearman(cosines, pairs.scores) if np.ptp(cosines) > _ROUNDING else float("nan")


def _own_place(model: SentenceModel) -> tuple[int, int] | None:
    """The layer and pooling that the model was trained with."""
    modes = next((module.modes for module in model.modules if isinstance(module, Pooling)), ())
    return (len(model.params.layers), list(POOLINGS).index(modes[0])) if len(modes) == 1 else None
