"""Batches of an epoch: every example once, and what must not meet in a batch kept apart.

With in-batch negatives, every text of a batch is a negative of all anchors but its own. So two texts that belong
together must not meet: the same text twice, or two texts of one class. `spread` deals examples out like cards: all that
share a text (or a class) one after the other, each to the batch that has waited longest. A class with no more
texts than there are batches then never meets itself; a larger one is spread evenly. What cannot be kept apart, the
loss masks (`find_false_negatives`).

All batches of an epoch are equally large, give or take one row: 100 rows in batches of 32 become 4 batches of 25, not
three of 32 and one of 4, whose few negatives would teach less and count as much. Batches are not sorted by length:
without padding there is nothing to save, and a batch of short texts alone is a worse sample.

Letters: ``M`` examples, ``B`` examples of a batch, ``K`` texts of an example that must not meet, ``N`` batches.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minisbert.model import Array
from minisbert.training.data import Examples

PROBES = 100
"""The most batches, or partners for a swap, that are tried for one example: it bounds the time spent in vain."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples that are trained on together."""

    texts: tuple[tuple[str, ...], ...]
    """One tuple of ``B`` texts a column: anchors, positives and negatives, or the two sentences of pairs."""

    targets: Array | None  # (B,) scores, or classes of pairs or texts
    indices: Array  # (B,) which examples these are

    def __len__(self) -> int:
        return len(self.indices)


def make_epoch(examples: Examples, batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """Shuffle all examples and pack them into batches; every example appears once, and batch sizes differ by at most 1.

    What a batch's columns are, and what is kept apart, by kind:

    - pairs, triplets: the examples' columns; equal texts.
    - scored, labelled: the examples' columns; nothing.
    - texts with labels: the texts, and for each another text of its class, drawn anew; texts of one class.
    - texts without labels: the texts twice, for two views by dropout (SimCSE, Gao et al. 2021, section 3); equal texts.

    Batches have at most ``batch_size`` examples, but 3 where 2 were asked for and the number of examples is odd: a
    batch of 1 has no negatives. ``rng`` moves on, so that the next epoch differs.

    **Source**: ``sentence_transformers.base.sampler.NoDuplicatesBatchSampler`` for the purpose. It fills one batch at a
    time with whatever does not clash, so that the examples that clash most are left for the end, in small batches.

    >>> texts = ("lost card", "card gone", "hello", "good day", "no money", "too expensive")
    >>> names = ("card", "greeting", "money")
    >>> examples = Examples("texts", (texts,), labels=np.array([0, 0, 1, 1, 2, 2]), label_names=names)
    >>> epoch = make_epoch(examples, 3, np.random.default_rng(0))
    >>> [batch.targets for batch in epoch]
    [array([1, 0, 2]), array([0, 1, 2])]
    >>> sorted(zip(*epoch[0].texts))
    [('good day', 'hello'), ('lost card', 'card gone'), ('too expensive', 'no money')]
    """
    if isinstance(batch_size, bool) or batch_size < 2:
        raise ValueError(
            f"make_epoch: batch_size must be at least 2, got {batch_size!r}: a batch of one has no negatives; for less "
            "memory use gradient caching"
        )
    columns = examples.columns
    if examples.kind == "texts":
        columns = (*columns, columns[0] if examples.labels is None else draw_positives(examples, rng))
    targets = examples.scores if examples.labels is None else examples.labels
    return [
        Batch(
            tuple(tuple(column[i] for i in indices) for column in columns),
            None if targets is None else targets[indices],
            indices,
        )
        for indices in spread(clash_keys(examples), batch_size, rng)
    ]


def draw_positives(examples: Examples, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw for each of M labelled texts another, different text of its class, uniformly."""
    texts, labels = examples.columns[0], np.asarray(examples.labels)
    place: dict[tuple[int, str], int] = {}  # of each different text of a class, counted from the class's first
    members: list[list[str]] = [[] for _ in examples.label_names]
    for text, c in zip(texts, labels.tolist(), strict=True):
        if (c, text) not in place:
            place[c, text] = len(members[c])
            members[c].append(text)
    counts = np.array([len(members[c]) for c in labels])  # (M,)
    steps = rng.integers(1, counts)  # (M,) 1 to count - 1 places further is never the text itself
    own = np.array([place[c, text] for text, c in zip(texts, labels.tolist(), strict=True)])  # (M,)
    return tuple(members[c][i] for c, i in zip(labels, (own + steps) % counts, strict=True))


def clash_keys(examples: Examples) -> Array:
    """Number what must not meet in a batch, (M, K): examples that share a number are kept apart.

    Texts with labels: the class. Pairs, triplets and other texts: a number for each different text, in any column.
    Scored and labelled pairs, whose losses have no in-batch negatives: none, K = 0.

    >>> clash_keys(Examples("pairs", (("a", "b"), ("b", "c"))))
    array([[0, 1],
           [1, 2]])
    """
    if examples.kind in ("scored", "labelled"):
        return np.empty((len(examples), 0), np.int64)
    if examples.labels is not None:
        return np.asarray(examples.labels)[:, None]
    number: dict[str, int] = {}
    rows = [[number.setdefault(text, len(number)) for text in row] for row in zip(*examples.columns, strict=True)]
    return np.array(rows)


def spread(keys: Array, batch_size: int, rng: np.random.Generator) -> list[Array]:
    """Deal examples with (M, K) keys out to batches so that those that share a key meet as little as possible.

    Returns the indices of each batch, (B,) each. With K = 1, a key of ``m`` examples is at most ``ceil(m / N)`` times
    in a batch, and no dealing does better. With more keys the last examples may find no batch without a clash; they are
    then swapped with others, as far as a bounded search finds any.

    >>> [indices.tolist() for indices in spread(np.array([[7], [7], [5], [7], [5], [4]]), 2, np.random.default_rng(1))]
    [[2, 1], [4, 0], [3, 5]]
    """
    count = len(keys)
    batches = max(1, min(-(-count // batch_size), count // 2))  # no batch of one
    room = [count // batches + (b < count % batches) for b in range(batches)]
    order, clashing = _dealing_order(keys, rng)
    dealt = _deal(keys[order[:clashing]].tolist(), room)
    # the rest clashes with nothing and fills the room left, in random order
    free = np.repeat(np.arange(batches), np.array(room) - np.bincount(dealt, minlength=batches))
    batch_of = np.concatenate([np.array(dealt, np.int64), free])  # (M,)
    if clashing and keys.shape[1] > 1:
        batch_of = _mend(keys[order].tolist(), batch_of.tolist(), batches, rng)
    mixed = rng.permutation(count)  # (M,) no order is left within a batch
    sorted_by_batch = mixed[np.argsort(batch_of[mixed], kind="stable")]  # (M,)
    parts = np.split(order[sorted_by_batch], np.cumsum(room)[:-1])
    return [parts[b] for b in rng.permutation(batches)]


def _dealing_order(keys: Array, rng: np.random.Generator) -> tuple[Array, int]:
    """Order examples by their most frequent key, so that those that share a key follow each other; how many share any.

    Equally frequent keys, and the examples of a key, come in random order.
    """
    shuffled = rng.permutation(len(keys))  # (M,)
    if keys.shape[1] == 0:
        return shuffled, 0
    _, compact = np.unique(keys, return_inverse=True)
    compact = compact.reshape(keys.shape)[shuffled]  # (M, K)
    examples_of = _count_examples(compact)
    lots = rng.permutation(len(examples_of))
    # a key's weight: how many examples have it; ties are broken by lot
    weight = examples_of * len(examples_of) + lots
    heaviest = weight[compact].max(axis=1)  # (M,)
    clashing = int(np.count_nonzero(examples_of[compact].max(axis=1) > 1))
    return shuffled[np.argsort(-heaviest, kind="stable")], clashing


def _count_examples(compact: Array) -> Array:
    """Count the examples of each key; an example that has a key twice counts once."""
    ordered = np.sort(compact, axis=1)
    is_first = np.ones(ordered.shape, bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return np.bincount(ordered[is_first])


def _deal(keys: Sequence[Sequence[int]], room: Sequence[int]) -> list[int]:
    """Give each example to the batch that has waited longest among those that hold none of its keys."""
    waiting = deque(range(len(room)))
    left = list(room)
    held: list[set[int]] = [set() for _ in room]
    holders: Counter[int] = Counter()  # how many batches hold a key
    dealt = []
    for own in keys:
        best, fewest = 0, len(own) + 1
        inevitable = sum(holders[key] == len(room) for key in own)
        for place, b in enumerate(waiting):
            clashes = sum(key in held[b] for key in own)
            if clashes < fewest:
                best, fewest = place, clashes
            if clashes <= inevitable or place + 1 == PROBES:
                break
        b = waiting[best]
        del waiting[best]
        holders.update(set(own) - held[b])
        held[b].update(own)
        left[b] -= 1
        if left[b]:
            waiting.append(b)
        dealt.append(b)
    return dealt


def _mend(keys: Sequence[Sequence[int]], batch_of: Sequence[int], batches: int, rng: np.random.Generator) -> Array:
    """Swap an example that clashes with one of another batch, if afterwards neither clashes."""
    placed = list(batch_of)
    held: list[Counter[int]] = [Counter() for _ in range(batches)]
    everywhere: Counter[int] = Counter()
    for own, b in zip(keys, placed, strict=True):
        held[b].update(set(own))
        everywhere.update(set(own))
    for i, own in enumerate(keys):
        b = placed[i]
        clashes = [key for key in own if held[b][key] > 1]
        if not clashes or any(everywhere[key] > batches for key in clashes):
            continue  # with more examples of a key than batches, some must meet
        for j in rng.integers(0, len(keys), PROBES).tolist():
            c, other = placed[j], keys[j]
            if c != b and not _meets(own, held[c], other) and not _meets(other, held[b], own):
                held[b].subtract(set(own))
                held[c].subtract(set(other))
                held[b].update(set(other))
                held[c].update(set(own))
                placed[i], placed[j] = c, b
                break
    return np.array(placed)


def _meets(own: Sequence[int], held: Counter[int], leaving: Sequence[int]) -> bool:
    """Tell whether an example would clash in a batch that another one leaves."""
    return any(held[key] > (key in leaving) for key in own)
