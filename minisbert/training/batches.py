"""Batches of an epoch: every example once, and what must not meet in a batch kept apart.

With in-batch negatives every text of a batch is a negative for all but its own anchor. So two texts that belong
together must not meet in a batch: the same text twice, or two texts of one class. `spread` deals examples out to the
batches like cards: all examples that share a text (or a class) one behind the other, each to the batch that has waited
longest. A class of no more texts than there are batches then never meets itself; a larger one is spread evenly. What
cannot be kept apart, the loss masks (``losses.py``, `find_false_negatives`).

All batches of an epoch are equally large, but for one row: 100 rows in batches of 32 become 4 batches of 25, and not
three of 32 with a last one of 4, whose few negatives would teach less and count as much.

Left out on purpose: batches of texts of equal length. The encoder needs none, since nothing is padded, and a batch of
short texts alone would make a worse sample. Next file: ``settings.py``.

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
"""Batches, or partners for an exchange, that are looked at for one example: a bound on the time spent in vain."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples that are trained on together."""

    texts: tuple[tuple[str, ...], ...]
    """Column by column, ``B`` texts each: anchors, positives and negatives, or the two sentences of pairs."""

    targets: Array | None  # (B,) scores, or classes of pairs or texts
    indices: Array  # (B,) which examples these are

    def __len__(self) -> int:
        return len(self.indices)


def make_epoch(examples: Examples, batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """Shuffle all examples and pack them into batches.

    Parameters
    ----------
    examples : Examples
    batch_size : int
        At least 2. Batches are at most so large, but for 3 where 2 was asked and the number of examples is odd: a batch
        of 1 has no negatives.
    rng : numpy.random.Generator
        Moves on with every epoch. The same state gives the same epoch.

    Returns
    -------
    list of Batch
        Every example once, sizes equal but for 1. What the columns are, by kind:

        - pairs, triplets, scored, labelled: those of the examples.
        - texts with labels: the texts, and for each another, different text of its class, drawn anew; targets are the
          classes.
        - texts without labels: the texts twice, for two views by dropout.

        Kept apart are: equal texts (pairs, triplets, texts without labels), and texts of a class (texts with labels).

    Raises
    ------
    ValueError
        For a batch size below 2.

    Notes
    -----
    **Source**: ``sentence_transformers.base.sampler.NoDuplicatesBatchSampler`` for the purpose. That one fills a batch
    at a time with whatever does not clash, so that the examples that clash most are left for the end, in small batches.
    Unsupervised pairs: Gao et al. 2021 (SimCSE), section 3.

    Examples
    --------
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
    """Draw for each text another text of its class, never one that reads the same; all others are equally likely.

    Parameters
    ----------
    examples : Examples
        Of kind "texts", with labels.
    rng : numpy.random.Generator

    Returns
    -------
    tuple of str
        ``M`` texts.

    Examples
    --------
    >>> texts = "lost card", "hello", "card gone", "hi"
    >>> examples = Examples("texts", (texts,), labels=np.array([0, 1, 0, 1]), label_names=("card", "greeting"))
    >>> draw_positives(examples, np.random.default_rng(0))
    ('card gone', 'hi', 'lost card', 'hello')
    """
    texts, labels = examples.columns[0], np.asarray(examples.labels)
    place: dict[tuple[int, str], int] = {}  # of each different text of a class, counted from the class's first
    members: list[list[str]] = [[] for _ in examples.label_names]
    for text, c in zip(texts, labels.tolist(), strict=True):
        if (c, text) not in place:
            place[c, text] = len(members[c])
            members[c].append(text)
    counts = np.array([len(members[c]) for c in labels])  # (M,)
    steps = rng.integers(1, counts)  # (M,) going on by 1 to count - 1 places never comes back to the text itself
    own = np.array([place[c, text] for text, c in zip(texts, labels.tolist(), strict=True)])  # (M,)
    return tuple(members[c][i] for c, i in zip(labels, (own + steps) % counts, strict=True))


def clash_keys(examples: Examples) -> Array:
    """Number what must not meet in a batch: examples that have a number in common are kept apart.

    Parameters
    ----------
    examples : Examples

    Returns
    -------
    Array, shape (M, K)
        Texts with labels: the class. Pairs, triplets and other texts: one number a text, the same for the same text
        in any column. Scored and labelled pairs, whose losses have no in-batch negatives: nothing, K = 0.

    Examples
    --------
    >>> clash_keys(Examples("pairs", (("a", "b"), ("b", "c"))))
    array([[0, 1],
           [1, 2]])
    """
    if examples.kind in ("scored", "labelled"):
        return np.empty((len(examples), 0), np.intp)
    if examples.labels is not None:
        return np.asarray(examples.labels)[:, None]
    number: dict[str, int] = {}
    rows = [[number.setdefault(text, len(number)) for text in row] for row in zip(*examples.columns, strict=True)]
    return np.array(rows)


def spread(keys: Array, batch_size: int, rng: np.random.Generator) -> list[Array]:
    """Deal examples out to batches so that those with a key in common meet as little as possible.

    Parameters
    ----------
    keys : Array, shape (M, K)
        From `clash_keys`.
    batch_size : int
        At least 2.
    rng : numpy.random.Generator

    Returns
    -------
    list of Array, each (B,)
        Indices of examples; every example once. For K = 1, a key that ``m`` examples have is in no batch more than
        ``ceil(m / N)`` times, and no dealing does better.

    Notes
    -----
    For K = 1 dealing alone is the best there is. For more keys the last examples may find no batch without a clash;
    they are then exchanged for others, as far as a bounded search finds any.

    Examples
    --------
    >>> [indices.tolist() for indices in spread(np.array([[7], [7], [5], [7], [5], [4]]), 2, np.random.default_rng(1))]
    [[2, 1], [4, 0], [3, 5]]
    """
    count = len(keys)
    batches = max(1, min(-(-count // batch_size), count // 2))  # no batch of one
    room = [count // batches + (b < count % batches) for b in range(batches)]
    order, clashing = _dealing_order(keys, rng)
    dealt = _deal(keys[order[:clashing]].tolist(), room)
    # the rest clashes with nothing and fills what is left, in random order
    free = np.repeat(np.arange(batches), np.array(room) - np.bincount(dealt, minlength=batches))
    batch_of = np.concatenate([np.array(dealt, np.intp), free])  # (M,)
    if clashing and keys.shape[1] > 1:
        batch_of = _mend(keys[order].tolist(), batch_of.tolist(), batches, rng)
    mixed = rng.permutation(count)  # (M,) within a batch no order is left
    sorted_by_batch = mixed[np.argsort(batch_of[mixed], kind="stable")]  # (M,)
    parts = np.split(order[sorted_by_batch], np.cumsum(room)[:-1])
    return [parts[b] for b in rng.permutation(batches)]


def _dealing_order(keys: Array, rng: np.random.Generator) -> tuple[Array, int]:
    """Put examples that share a key one behind the other, the most frequent keys first; how many share any.

    An example with several keys stands with its most frequent one. Equally frequent keys, and the examples of a key,
    come in random order.
    """
    shuffled = rng.permutation(len(keys))  # (M,)
    if keys.shape[1] == 0:
        return shuffled, 0
    _, compact = np.unique(keys, return_inverse=True)
    compact = compact.reshape(keys.shape)[shuffled]  # (M, K)
    examples_of = _count_examples(compact)
    lots = rng.permutation(len(examples_of))
    # a key's weight: how many examples have it, and a lot that decides between equals
    weight = examples_of * len(examples_of) + lots
    heaviest = weight[compact].max(axis=1)  # (M,)
    clashing = int(np.count_nonzero(examples_of[compact].max(axis=1) > 1))
    return shuffled[np.argsort(-heaviest, kind="stable")], clashing


def _count_examples(compact: Array) -> Array:
    """Count the examples that have a key; one that has it twice counts once."""
    ordered = np.sort(compact, axis=1)
    is_first = np.ones(ordered.shape, bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return np.bincount(ordered[is_first])


def _deal(keys: Sequence[Sequence[int]], room: Sequence[int]) -> list[int]:
    """Give each example the batch that has waited longest among those that hold none of its keys."""
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
    """Exchange an example that clashes for one of another batch, where afterwards neither of the two clashes."""
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
