"""One step of training, up to the gradient: texts -> vectors -> loss, and back to every weight.

The texts of all columns are split into **shards** of about equal numbers of tokens, one a thread. Each goes forward
and keeps its trace; the loss sees the vectors of all; then each shard goes backward. Gradients of shards are added in
a fixed order, so that threads change no bit.

**Gradient caching** (Gao et al. 2021). Traces take some 0.2 MB a token, and a loss that compares all texts with all
others wants many. So the vectors can be computed first and their traces dropped: the loss needs no more to give the
gradient of every vector. Then each shard goes forward again, now with its trace, and backward at once. Memory is that
of a few shards, whatever the batch; the price is a second forward pass. Dropout draws from a generator made anew from
the same seed, so that both passes drop the same units.

Letters: ``B`` texts of a column, ``N`` tokens of a shard, ``D`` width of a vector.

**Source**: Gao et al. 2021 (arXiv 2101.06983), section 3; ``CachedMultipleNegativesRankingLoss`` of
sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from minisbert.checks import check_whole, each_text
from minisbert.model import Array
from minisbert.model.bert import BertTrace, Dropout, bert_backward, trace_bert
from minisbert.model.folder import SentenceModel
from minisbert.model.params import (
    BertGradients,
    Gradient,
    RowGradient,
    add_gradients,
    build_params,
    flatten,
    tensor_shapes,
)
from minisbert.model.pooling import Dense, DenseGradients, apply_modules, modules_backward
from minisbert.model.tokens import OverflowReport, Tokens
from minisbert.parallel import threads, work_through
from minisbert.training.losses import LossResult

SHARD_TOKENS = 4096  # of a shard at most, without gradient caching

_Result = TypeVar("_Result")
_Forward = tuple[BertTrace, list[Array]]
LossFunction = Callable[[list[Array]], LossResult]  # from the vectors of each column, (B, D)


@dataclass(frozen=True)
class DropoutPlan:
    """How much to drop, and the seed from which each shard makes its own generator."""

    seed: tuple[int, ...]
    hidden: float = 0.1
    attention: float = 0.1

    def for_shard(self, index: int) -> Dropout:
        """Make the dropout of one shard, the same at every call."""
        return Dropout(np.random.default_rng([*self.seed, index]), self.hidden, self.attention)


@dataclass(frozen=True)
class Step:
    """The loss of one batch, its gradients and its vectors."""

    value: float  # the loss, a mean over the batch
    gradients: dict[str, Gradient]  # by the names of named_parameters, and of the loss's own weights
    embeddings: list[Array]  # the vectors of each column, (B, D)


@dataclass(frozen=True)
class _Shard:
    """Texts that go through the model together."""

    index: int
    texts: Array  # (B,) which of the batch's texts
    token_ids: Array  # (N,)
    lengths: Array  # (B,)


def value_and_gradients(
    model: SentenceModel,
    columns: Sequence[Sequence[str]],
    loss: LossFunction,
    *,
    max_seq_length: int | None = None,
    dropout: DropoutPlan | None = None,
    cache_tokens: int | None = None,
    num_threads: int | None = None,
    report: OverflowReport | None = None,
) -> Step:
    """Compute the loss of a batch and its gradient for every weight, as ``loss.backward()`` does in PyTorch.

    Parameters
    ----------
    model : SentenceModel
        Its prompts and ``truncate_dim`` play no part: texts go in as they stand, vectors come out whole.
    columns : sequence of sequences of str
        Such as anchors and positives, equally long.
    loss : callable
        From the list of the columns' vectors, (B, D) each, to a :class:`~minisbert.training.losses.LossResult`.
    max_seq_length : int, optional
        Tokens after which a text is cut; by default the model's own limit.
    dropout : DropoutPlan, optional
        By default nothing is dropped.
    cache_tokens : int, optional
        Switches gradient caching on, with shards of at most so many tokens.
    num_threads : int, optional
        Threads, and the least number of shards; by default one a processor. The number of shards decides in which
        order gradients are added, and so their last digits.
    report : OverflowReport, optional
        Counts what is cut off; by default a warning says it.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> from minisbert.training.losses import multiple_negatives_ranking
    >>> columns = [["i love soup", "london is far away"], ["soup is my favorite", "it is a long way to london"]]
    >>> step = value_and_gradients(SentenceEncoder().model, columns, lambda v: multiple_negatives_ranking(*v))
    >>> step.gradients["encoder.layer.5.output.dense.weight"].shape, len(step.gradients)
    ((384, 1536), 101)
    """
    for name, value in (("num_threads", num_threads), ("cache_tokens", cache_tokens)):
        if value is not None:
            check_whole(f"value_and_gradients: {name}", value, 1)
    tokens = _tokenize(model, columns, max_seq_length, report)
    num_threads = num_threads or threads.usable()
    shards = make_shards(tokens, num_threads, cache_tokens or SHARD_TOKENS)

    def forward(shard: _Shard) -> _Forward:
        """The trace of a shard and the result of each module: what its backward pass needs."""
        dropped = None if dropout is None else dropout.for_shard(shard.index)
        trace = trace_bert(shard.token_ids, shard.lengths, model.params, model.config, dropped)
        return trace, apply_modules(trace.output, shard.lengths, model.modules)

    kept: list[_Forward] = []
    vectors = np.empty((len(tokens.lengths), model.full_width), model.params.embeddings.word.dtype)  # (C B, D)
    for shard, done in _in_order(shards, forward, num_threads):
        vectors[shard.texts] = done[1][-1]
        if cache_tokens is None:
            kept.append(done)
    embeddings = np.split(vectors, len(columns))
    result = loss(embeddings)
    d_vectors = np.concatenate(result.gradients)  # (C B, D)

    def backward(shard: _Shard) -> dict[str, Gradient]:
        done = kept[shard.index] if kept else forward(shard)
        return _backward(model, shard, done, d_vectors[shard.texts])

    total: dict[str, Gradient] = {}
    for _, gradients in _in_order(shards, backward, num_threads):
        _add_in_place(total, gradients)
    return Step(result.value, {**total, **result.head}, embeddings)


def _tokenize(
    model: SentenceModel, columns: Sequence[Sequence[str]], max_seq_length: int | None, report: OverflowReport | None
) -> Tokens:
    """Split the texts of all columns into token ids, one column after the other."""
    texts = [list(each_text(column, f"value_and_gradients: columns[{c}]")) for c, column in enumerate(columns)]
    counts = [len(column) for column in texts]
    if not sum(counts) or len(set(counts)) > 1:
        raise ValueError(f"value_and_gradients: expected columns of equally many texts, at least one, got {counts}")
    limit = model.max_seq_length if max_seq_length is None else max_seq_length
    most = model.config.max_position_embeddings
    check_whole("value_and_gradients: max_seq_length", limit, model.tokenizer.special_count + 1, most)
    tokens = model.tokenizer([text for column in texts for text in column], limit)
    counting = report or OverflowReport(limit, "warn")
    counting.add(tokens)
    if report is None:
        counting.warn(stacklevel=4)
    return tokens


def make_shards(tokens: Tokens, least_count: int, most_tokens: int) -> list[_Shard]:
    """Split texts, longest first, into shards of about equally many tokens, each text in one.

    ``least_count`` is the least number of shards, if the texts allow it; ``most_tokens`` the tokens of a shard, about.

    Examples
    --------
    >>> tokens = Tokens(np.arange(12), np.array([2, 6, 2, 2]), np.zeros(4, np.intp))
    >>> [(shard.texts.tolist(), shard.token_ids.tolist()) for shard in make_shards(tokens, 2, 100)]
    [([1], [2, 3, 4, 5, 6, 7]), ([0, 2, 3], [0, 1, 8, 9, 10, 11])]
    """
    ids, lengths = tokens.split(), tokens.lengths
    order = np.argsort(-lengths, kind="stable")
    count = min(len(order), max(least_count, -(-int(lengths.sum()) // most_tokens)))
    # a text belongs to the shard in which its middle lies, were all tokens laid end to end
    ends = np.cumsum(lengths[order])
    shard_of = ((ends - lengths[order] / 2) * count / ends[-1]).astype(np.intp)
    chosen = [order[shard_of == i] for i in range(count)]
    return [
        _Shard(i, texts, np.concatenate([ids[text] for text in texts]), lengths[texts])
        for i, texts in enumerate(texts for texts in chosen if len(texts))
    ]


def _in_order(
    shards: Sequence[_Shard], work: Callable[[_Shard], _Result], num_threads: int
) -> Iterator[tuple[_Shard, _Result]]:
    """Work on ``num_threads`` shards at a time, and yield the results in the order of the shards."""
    for start in range(0, len(shards), num_threads):
        jobs = [np.array([i]) for i in range(start, min(start + num_threads, len(shards)))]
        done = {
            int(job[0]): result for job, result in work_through(jobs, lambda job: work(shards[job[0]]), num_threads)
        }
        for i in sorted(done):
            yield shards[i], done.pop(i)


def _backward(model: SentenceModel, shard: _Shard, done: _Forward, d_vectors: Array) -> dict[str, Gradient]:
    """Send the gradient of a shard's vectors back through the modules and BERT."""
    trace, results = done
    d_tokens, d_modules = modules_backward(d_vectors, results, trace.output, shard.lengths, model.modules)
    d_bert = bert_backward(d_tokens, trace, shard.token_ids, shard.lengths, model.params, model.config)
    return named_gradients(model, d_bert, d_modules)


def _add_in_place(total: dict[str, Gradient], more: dict[str, Gradient]) -> None:
    """Add a shard's gradients to the sum, which is ours to change."""
    for name, gradient in more.items():
        mine = total.setdefault(name, gradient)
        if mine is gradient:
            continue
        if isinstance(mine, RowGradient) or isinstance(gradient, RowGradient):
            total[name] = add_gradients(mine, gradient)
        else:
            mine += gradient


# ----------------------------------------------------------------------------------------------- weights by their names
# The passes use nested dataclasses, which read well; an optimiser, a checkpoint and a gradient check go through all
# tensors in turn, under the checkpoint's names: the same in a file, in PyTorch and in a report.


def named_parameters(model: SentenceModel) -> dict[str, Array]:
    """List every weight of a model under its checkpoint name, as ``torch.nn.Module.named_parameters`` does.

    The arrays are the model's own, not copies: BERT's in the order of the forward pass, then those of Dense modules, as
    ``"modules.1.linear.weight"``, where 1 is the module's place in ``model.modules``.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> named = named_parameters(SentenceEncoder().model)
    >>> len(named), sum(array.size for array in named.values())
    (101, 22565376)
    """
    named = dict(zip(tensor_shapes(model.config), flatten(model.params), strict=True))
    for i, module in enumerate(model.modules):
        if isinstance(module, Dense):
            named |= {full: getattr(module, field) for field, full in _tensors(i, module).items()}
    return named


def replace_parameters(model: SentenceModel, named: Mapping[str, Array]) -> SentenceModel:
    """Return the model with other weights, not copied, under all names of :func:`named_parameters`.

    Other names, such as those of a loss's own weights, are ignored.
    """
    for name, array in named_parameters(model).items():
        if name not in named or named[name].shape != array.shape:
            found = f"{named[name].shape}: are these the weights of another model?" if name in named else "nothing"
            raise ValueError(f"replace_parameters: expected {name!r} of shape {array.shape}, got {found}")
    params = build_params(model.config, lambda name, shape: named[name])
    modules = list(model.modules)
    for i, module in enumerate(modules):
        if isinstance(module, Dense):
            tensors: dict[str, Any] = {field: named[full] for field, full in _tensors(i, module).items()}
            modules[i] = replace(module, **tensors)
    return replace(model, params=params, modules=tuple(modules))


def named_gradients(
    model: SentenceModel, gradients: BertGradients, module_gradients: list[DenseGradients | None]
) -> dict[str, Gradient]:
    """List every gradient under the name of its weight, in the order of :func:`named_parameters`."""
    named: dict[str, Gradient] = dict(zip(tensor_shapes(model.config), flatten(gradients), strict=True))
    for i, gradient in enumerate(module_gradients):
        if gradient is not None:
            named |= {full: getattr(gradient, field) for field, full in _tensors(i, gradient).items()}
    return named


def copy_parameters(named: Mapping[str, Array]) -> dict[str, Array]:
    """Copy arrays, each in its own memory order, so that training may overwrite them."""
    return {name: np.array(array, order="K") for name, array in named.items()}


def _tensors(i: int, module: Dense | DenseGradients) -> dict[str, str]:
    """Name the fields of module ``i`` that hold a tensor, as sentence-transformers does."""
    names = {"weight": "linear.weight", "bias": "linear.bias"}
    return {field: f"modules.{i}.{name}" for field, name in names.items() if getattr(module, field) is not None}
