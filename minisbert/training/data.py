"""A file to examples, examples to batches.

Examples are read from TSV, CSV or JSONL, checked, and held column by column.

==========  ===================================  ==================================================================
kind        columns                              for
==========  ===================================  ==================================================================
pairs       anchor, positive                     multiple negatives: the other positives of a batch are negatives
triplets    anchor, positive, negative           multiple negatives with a hard negative; the triplet loss
scored      sentence1, sentence2, score          cosine similarity (scores in [0, 1]: ``scale``), CoSENT (any scores)
labelled    sentence1, sentence2, label          contrastive (0 and 1), softmax (names): the class of a *pair*
texts       text, label (optional)               the class of a *text*: texts of a class are each other's positives;
                                                 without labels unsupervised SimCSE
==========  ===================================  ==================================================================

Reading is strict: a row that cannot be trained on is an error that names its line, and so is a file that teaches
nothing, before hours of training on it. Several negatives for an anchor are several rows.

Letters: ``M`` examples, ``C`` classes, ``B`` examples of a batch, ``K`` texts of an example that must not meet, ``N``
batches.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.checks import check_choice, each_text
from minisbert.evaluation.classification import checked_label
from minisbert.model import Array
from minisbert.tables import MEANINGS, InputError, Table, checked_number, read_columns, read_table

COLUMNS = {
    "pairs": ("anchor", "positive"),
    "triplets": ("anchor", "positive", "negative"),
    "scored": ("sentence1", "sentence2", "score"),
    "labelled": ("sentence1", "sentence2", "label"),
    "texts": ("text", "label"),
}
"""The kinds of examples and the meaning of their columns, in order."""

TEXTS = {kind: sum(meaning not in ("score", "label") for meaning in meanings) for kind, meanings in COLUMNS.items()}
"""How many of the columns, the first ones, hold texts."""

ALSO = {"anchor": MEANINGS["sentence1"], "positive": MEANINGS["sentence2"], "score": ("label",)}
"""More usual names of columns, ambiguous ones: they are looked for only if the kind is given."""

PROBES = 100
"""The most batches that are tried for one example: it bounds the time spent in vain."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Training examples of one kind, checked.

    Parameters
    ----------
    kind : str
        A key of :data:`COLUMNS`.
    columns : tuple of tuple of str
        The texts, one tuple of length ``M`` a column; ``columns[1][i]`` belongs to ``columns[0][i]``.
    scores : Array, shape (M,), optional
        Finite floats; for kind "scored" only.
    labels : Array, shape (M,), optional
        Integers from 0 to C - 1: the class of a pair ("labelled") or of a text ("texts").
    label_names : tuple of str
        ``C`` names; ``label_names[c]`` is the name of class ``c``. Empty without labels.

    Examples
    --------
    >>> examples = Examples("pairs", (("a cat", "tea"), ("one cat", "a cup of tea")))
    >>> len(examples), examples.columns[1]
    (2, ('one cat', 'a cup of tea'))
    """

    kind: str
    columns: tuple[tuple[str, ...], ...]
    scores: Array | None = None  # (M,)
    labels: Array | None = None  # (M,)
    label_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.columns[0])

    def __post_init__(self) -> None:
        kind, scores, labels = self.kind, self.scores, self.labels
        check_choice("Examples: kind", kind, COLUMNS)
        columns = (tuple(each_text(x, f"Examples: columns[{i}]")) for i, x in enumerate(self.columns))
        object.__setattr__(self, "columns", tuple(columns))  # any sequence of texts becomes a tuple, once
        wants = {"scored": (True, False), "labelled": (False, True), "texts": (False, labels is not None)}
        has = scores is not None, labels is not None
        if len(self.columns) != TEXTS[kind] or has != wants.get(kind, (False, False)):
            got = f"{len(self.columns)} columns of texts, scores: {has[0]}, labels: {has[1]}"
            raise ValueError(f"Examples: kind {kind!r} has {', '.join(COLUMNS[kind])}; got {got}")
        lengths = [len(column) for column in self.columns]
        if len(self) < 2 or len(set(lengths)) > 1:
            raise ValueError(f"Examples: the columns of {kind!r} must hold 2 examples or more each, got {lengths}")
        for name, values, dtype, numbers in (("scores", scores, "f", "floats"), ("labels", labels, "i", "integers")):
            fits = isinstance(values, np.ndarray) and values.shape == (len(self),) and values.dtype.kind == dtype
            if values is not None and not (fits and np.isfinite(values).all()):
                raise ValueError(
                    f"Examples: {name} must be an array of {len(self)} finite {numbers}, got {values!r:.80}"
                )
        if scores is not None and np.all(scores == scores[0]):
            raise ValueError(f"Examples: all {len(self):,} scores are {scores[0]:g}, so there is nothing to learn")
        if labels is None:
            return
        names = self.label_names
        counts = np.bincount(labels.astype(np.intp), minlength=len(names))  # (C,)
        if len(counts) != len(names) or not counts.all():
            raise ValueError(f"Examples: labels must be 0 to C - 1, and each must occur, for {len(names)} label_names")
        if len(names) < 2:
            raise ValueError(f"Examples: all {len(self):,} labels are {names[0]!r:.40}, so there is nothing to learn")
        distinct = {*zip(self.columns[0], labels.tolist(), strict=True)} if kind == "texts" else set()
        lone = np.flatnonzero(np.bincount([c for _, c in distinct], minlength=1) == 1)
        if len(lone):
            named = ", ".join(f"{names[c]!r:.40}" for c in lone[:5]) + (", ..." if len(lone) > 5 else "")
            # an error and not a warning: a text that is its own positive teaches nothing
            raise ValueError(
                f"Examples: {len(lone)} of {len(names)} classes have only one text, and so no positive: {named}; add "
                "texts to them, or drop them"
            )


def read_examples(
    files: str | Path | Sequence[str | Path],
    *,
    kind: str | None = None,
    columns: Sequence[str] | None = None,
    scale: tuple[float, float] | None = None,
    **reading: Any,
) -> Examples:
    r"""Read training examples from one file, or from several that form one set.

    **Source**: the formats of sentence-transformers' "Dataset Overview", where a float ``label`` is a score.
    ``(score - low) / (high - low)`` is what its ``CosineSimilarityLoss`` expects.

    Parameters
    ----------
    files : str, path, or sequence of them
        Tables that `minisbert.tables.read_table` reads; several are concatenated. Rows without a text are skipped, and
        counted in a warning.
    kind : str, optional
        A key of :data:`COLUMNS`; by default the only kind that the columns of the first file fit.
    columns : sequence of str, optional
        Column names, or numbers from "1", in the order of :data:`COLUMNS`; "texts" takes one or two. By default the
        first of `minisbert.tables.MEANINGS` that a file has.
    scale : (low, high), optional
        The range of the scores, which are then mapped to [0, 1]; by default they stay as they are.
    **reading
        Of `read_table`: ``input_format``, ``delimiter``, ``quoting``, ``has_header``.

    Returns
    -------
    examples : Examples
        Classes are numbered in the sorted order of their names, integers by value: of 0 and 1, 1 is class 1; of
        "duplicate" and "other", "duplicate" is class 0.

    Raises
    ------
    InputError
        A ValueError that names the file and, where one row is at fault, its line.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "nli.tsv"
    >>> _ = file.write_text("premise\thypothesis\tlabel\na cat\tan animal\tentailment\na cat\ta dog\tcontradiction\n")
    >>> examples = read_examples(file)
    >>> examples.kind, examples.labels, examples.label_names
    ('labelled', array([1, 0]), ('contradiction', 'entailment'))
    """
    listed = [files] if isinstance(files, (str, Path)) else list(files)
    if not listed:
        raise ValueError("read_examples: no files given")
    check_choice("read_examples: kind", kind or "pairs", COLUMNS)
    found = kind or _guess_kind(read_table(listed[0], **reading))
    if scale is not None and (found != "scored" or not -math.inf < scale[0] < scale[1] < math.inf):
        raise ValueError(f"read_examples: scale is (low, high) of scores, low < high; got {scale!r} for {found!r}")
    meanings = {meaning: MEANINGS[meaning] + (ALSO.get(meaning, ()) if kind else ()) for meaning in COLUMNS[found]}
    if found == "texts" and columns is not None and len(columns) == 1:
        del meanings["label"]
    texts: list[tuple[str, ...]] = []
    targets: list[float | str] = []
    for file in listed:
        try:
            table, chosen = read_columns(file, meanings, columns, **reading)
        except InputError:
            if found != "texts" or columns is not None:
                raise
            table, chosen = read_columns(file, {"text": meanings["text"]}, None, **reading)
        if len(set(chosen)) < len(chosen):  # a text would be its own positive, and teach nothing
            raise InputError(f"{file}: a column is given twice: {', '.join(chosen)}")
        before = len(texts)
        for line, values in table.pick(chosen, filled=chosen[: TEXTS[found]]):
            texts.append(tuple(map(str, values[: TEXTS[found]])))
            targets += _read_target(found, texts[-1], values[TEXTS[found] :], chosen, scale, table.where(line))
        if len(texts) == before:
            raise InputError(f"{file}: no training examples: the file has no rows")
        if targets and len(targets) != len(texts):
            raise InputError(f"{file}: either both this file and {listed[0]} must have labels, or neither")
    names = sorted({str(target) for target in targets})
    with suppress(ValueError):
        names = sorted(names, key=int)  # by value, so that 10 comes after 9
    try:
        columns_of_texts = tuple(zip(*texts, strict=True))
        if found == "scored":
            return Examples(found, columns_of_texts, scores=np.array(targets, np.float64))
        if not targets:
            return Examples(found, columns_of_texts)
        if "-1" in names and "0" in names:
            raise ValueError("the label -1 next to 0 means 'no label' in Hugging Face's data sets; drop such rows")
        number = {name: c for c, name in enumerate(names)}
        labels = np.array([number[str(target)] for target in targets])
        return Examples(found, columns_of_texts, labels=labels, label_names=tuple(names))
    except ValueError as error:
        raise InputError(f"{listed[0]}{' and others' if len(listed) > 1 else ''}: {error}") from None


_CHOICES = "; ".join(f"{kind} ({', '.join(meanings)})" for kind, meanings in COLUMNS.items())


def _guess_kind(table: Table) -> str:
    """Infer the kind from the column names."""
    file, names, listed = table.name, {name.casefold() for name in table.columns}, table.listed()
    if not names:
        raise InputError(f"{file}: empty: expected rows")
    has = {meaning for meaning, usual in MEANINGS.items() if {name.casefold() for name in usual} & names}
    fitting = [kind for kind, meanings in COLUMNS.items() if has.issuperset(meanings if kind != "texts" else ["text"])]
    others = {table.find(meaning) for kind in fitting if kind != "texts" for meaning in COLUMNS[kind]}
    if "texts" in fitting and table.find("text") in others:
        fitting.remove("texts")  # a question is a text, but here it has an answer
    if "triplets" in fitting:
        fitting.remove("pairs")  # every triplet is a pair, too
    ignored = next((name for name in (*MEANINGS["label"], *MEANINGS["score"]) if name in names), None)
    if fitting in (["pairs"], ["triplets"]) and ignored:  # rows with label 0 are not positives
        way_out = f"give kind={fitting[0]!r} if all rows belong together, or else another kind: {_CHOICES}"
        raise InputError(f"{file}: {listed} are {fitting[0]} with a {ignored!r}, which would be ignored; {way_out}")
    if len(fitting) != 1:
        fit = f"several kinds: {', '.join(fitting)}" if fitting else "no kind of example"
        way_out = f"give kind='pairs', or another, and the columns: {_CHOICES}"
        raise InputError(f"{file}: the columns {listed} fit {fit}; {way_out}")
    return fitting[0]


def _read_target(
    kind: str,
    texts: tuple[str, ...],
    rest: Sequence[object],
    columns: Sequence[str],
    scale: tuple[float, float] | None,
    where: str,
) -> list[float | str]:
    """Read a row's score or label, if its kind has one, and refuse rows that teach nothing."""
    if kind == "triplets" and texts[2] in texts[:2]:
        twin = columns[texts.index(texts[2])]
        raise InputError(f"{where}: the negative is the same text as the {twin}; fix or drop this row")
    if not rest:
        return []
    (value,), column = rest, columns[-1]
    if kind == "scored":
        score = checked_number(value, f"the score in column {column!r}", where)
        low, high = scale or (0.0, 1.0)
        if scale and not low <= score <= high:
            raise InputError(f"{where}: the {column} {score:g} is outside the scale from {low:g} to {high:g}")
        return [(score - low) / (high - low)]
    if kind == "labelled" and (isinstance(value, float) or re.fullmatch(r"\s*[-+]?(\d+\.\d*|\.\d+)\s*", str(value))):
        raise InputError(f"{where}: the {column} {value!r:.40} has a decimal point; scores are of kind='scored'")
    label = checked_label(value, column, where)
    if label == "-":
        raise InputError(f"{where}: the label '-' means that the annotators did not agree (SNLI); drop such rows")
    return [label]


# -------------------------------------------------------------------------------------------------------------- batches
#
# With in-batch negatives, every text of a batch is a negative of all anchors but its own. So two texts that belong
# together must not meet: the same text twice, or two texts of one class. `spread` deals examples out like cards: all
# that share a text (or a class) one after the other, each to the batch that has waited longest. A class with no more
# texts than there are batches then never meets itself; a larger one is spread evenly. What cannot be kept apart, the
# loss masks (`find_false_negatives`).
#
# All batches of an epoch are equally large, give or take one row: 100 rows in batches of 32 become 4 batches of 25, not
# three of 32 and one of 4, whose few negatives would teach less and count as much.


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
    batch of 1 has no negatives. ``rng`` moves on, so that the next epoch differs. sentence-transformers'
    ``NoDuplicatesBatchSampler`` has the same purpose.

    >>> texts = ("lost card", "card gone", "hello", "good day", "no money", "too expensive")
    >>> names = ("card", "greeting", "money")
    >>> examples = Examples("texts", (texts,), labels=np.array([0, 0, 1, 1, 2, 2]), label_names=names)
    >>> epoch = make_epoch(examples, 3, np.random.default_rng(0))
    >>> [batch.targets for batch in epoch]
    [array([1, 0, 2]), array([0, 1, 2])]
    >>> sorted(zip(*epoch[0].texts))
    [('good day', 'hello'), ('lost card', 'card gone'), ('too expensive', 'no money')]
    """
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
        return np.empty((len(examples), 0), np.intp)
    if examples.labels is not None:
        return np.asarray(examples.labels)[:, None]
    number: dict[str, int] = {}
    rows = [[number.setdefault(text, len(number)) for text in row] for row in zip(*examples.columns, strict=True)]
    return np.array(rows)


def spread(keys: Array, batch_size: int, rng: np.random.Generator) -> list[Array]:
    """Deal examples with (M, K) keys out to batches, (B,) indices each; those of one key meet as little as possible.

    With K = 1, a key of ``m`` examples is at most ``ceil(m / N)`` times in a batch, and no dealing does better. With
    more keys the last examples may find no batch without a clash.

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
    batch_of = np.concatenate([np.array(dealt, np.intp), free])  # (M,)
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
    compact = np.sort(compact.reshape(keys.shape)[shuffled], axis=1)  # (M, K)
    is_first = np.ones(compact.shape, bool)
    is_first[:, 1:] = compact[:, 1:] != compact[:, :-1]
    examples_of = np.bincount(compact[is_first])  # an example that has a key twice counts once
    lots = rng.permutation(len(examples_of))
    # a key's weight: how many examples have it; ties are broken by lot
    weight = examples_of * len(examples_of) + lots
    heaviest = weight[compact].max(axis=1)  # (M,)
    clashing = int(np.count_nonzero(examples_of[compact].max(axis=1) > 1))
    return shuffled[np.argsort(-heaviest, kind="stable")], clashing


def _deal(keys: Sequence[Sequence[int]], room: Sequence[int]) -> list[int]:
    """Give each example to the batch that has waited longest of those that hold none, or else fewest, of its keys."""
    waiting = deque(range(len(room)))
    left = list(room)
    held: list[set[int]] = [set() for _ in room]
    dealt = []
    for own in keys:
        probed = list(islice(waiting, PROBES))
        b = next((b for b in probed if held[b].isdisjoint(own)), None)
        if b is None:
            b = min(probed, key=lambda b: sum(key in held[b] for key in own))
        waiting.remove(b)
        held[b].update(own)
        left[b] -= 1
        if left[b]:
            waiting.append(b)
        dealt.append(b)
    return dealt
