"""Training examples: read from TSV, CSV or JSONL, checked, and held column by column.

==========  ===================================  ==================================================================
kind        columns                              for
==========  ===================================  ==================================================================
pairs       anchor, positive                     multiple negatives: the other positives of a batch are negatives
triplets    anchor, positive, negative           multiple negatives with a hard negative; the triplet loss
scored      sentence1, sentence2, score          cosine similarity (scores in [0, 1]: ``scale``), CoSENT (any scores)
labelled    sentence1, sentence2, label          contrastive (0 and 1), softmax (names): the class of a *pair*
texts       text, label (may be missing)         the class of a *text*: texts of a class are each other's positives;
                                                 without labels unsupervised SimCSE
==========  ===================================  ==================================================================

The kind is told by the columns' names, or said. Reading is strict: a row that cannot be trained on is an error with
its line, and so is a whole that teaches nothing, before hours of training on it.

Left out on purpose: several negatives a row (write a row for each), tokenising (``finetune.py``), and any cleaning of
texts. Next file: ``batches.py``, which packs examples into batches.

Letters: ``M`` examples, ``C`` classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minisbert.checks import each_text
from minisbert.evaluation.classification import checked_label
from minisbert.model import Array
from minisbert.tables import InputError, checked_number, checked_text, read_names, read_records

COLUMNS = {
    "pairs": ("anchor", "positive"),
    "triplets": ("anchor", "positive", "negative"),
    "scored": ("sentence1", "sentence2", "score"),
    "labelled": ("sentence1", "sentence2", "label"),
    "texts": ("text", "label"),
}
"""The kinds of examples, and what each one's columns mean, in the order in which ``columns`` gives them."""

SYNONYMS = {
    "anchor": ("anchor", "query", "question"),
    "positive": ("positive", "pos", "answer", "passage"),
    "negative": ("negative", "neg", "hard_negative"),
    "sentence1": ("sentence1", "sentence_A", "text1", "premise"),
    "sentence2": ("sentence2", "sentence_B", "text2", "hypothesis"),
    "score": ("score", "similarity_score", "relatedness_score"),
    "label": ("label", "gold_label", "label_text", "class", "category", "intent"),
    "text": ("text", "sentence", "utterance"),
}
"""Names of columns that are looked for, the first one that a file has, where none are given."""

ALSO = {"anchor": SYNONYMS["sentence1"], "positive": SYNONYMS["sentence2"], "score": ("label",)}
"""More such names, that are looked for only where the kind is said: they mean several things."""

_NUMBERS = {"f": "floats", "i": "whole numbers"}


@dataclass(frozen=True, eq=False)
class Examples:
    """Training examples of one kind, checked.

    Parameters
    ----------
    kind : str
        Of :data:`COLUMNS`.
    columns : tuple of tuple of str
        The texts, column by column, ``M`` each; ``columns[1][i]`` belongs to ``columns[0][i]``.
    scores : Array, shape (M,), optional
        float64, finite, of kind "scored" alone.
    labels : Array, shape (M,), optional
        intp from 0 to C - 1: the class of a pair ("labelled") or of a text ("texts").
    label_names : tuple of str
        ``C`` names, that of class ``c`` in place ``c``; empty without labels.

    Raises
    ------
    ValueError
        If columns, scores or labels do not fit the kind or each other, or if nothing could be learnt: a single example,
        a single class, scores that are all the same, a class of texts with one text only.

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
        _check_shape(self)
        if len(self) < 2:
            raise ValueError(f"Examples: {len(self)} of kind {self.kind!r} are too few to learn from: at least 2")
        if self.scores is not None and np.all(self.scores == self.scores[0]):
            raise ValueError(f"Examples: all {len(self):,} scores are {self.scores[0]:g}: there is nothing to learn")
        if self.labels is not None:
            _check_labels(self)


def _check_shape(examples: Examples) -> None:
    """Refuse what is not of its kind, or not equally long."""
    kind, labels, scores = examples.kind, examples.labels, examples.scores
    if kind not in COLUMNS:
        raise ValueError(f"Examples: kind must be one of {', '.join(COLUMNS)}, got {kind!r}")
    texts = [meaning for meaning in COLUMNS[kind] if meaning not in ("score", "label")]
    columns = (tuple(each_text(x, f"Examples: columns[{i}]")) for i, x in enumerate(examples.columns))
    object.__setattr__(examples, "columns", tuple(columns))
    if len(examples.columns) != len(texts):
        raise ValueError(f"Examples: kind {kind!r} has {_texts(len(texts))}, got {len(examples.columns)}")
    if (scores is None) == (kind == "scored"):
        raise ValueError(f"Examples: scores belong to kind 'scored', and to no other; got kind {kind!r}")
    if (labels is None and kind == "labelled") or (labels is not None and kind not in ("labelled", "texts")):
        raise ValueError(f"Examples: labels belong to kind 'labelled' and may to 'texts'; got kind {kind!r}")
    for name, values, kinds in (("scores", scores, "f"), ("labels", labels, "i")):
        is_right = values is None or (
            isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in kinds
        )
        if not is_right or (values is not None and not np.isfinite(values).all()):
            raise ValueError(f"Examples: {name} must be an array (M,) of finite {_NUMBERS[kinds]}, got {values!r:.80}")
    counts = [len(column) for column in (*examples.columns, scores, labels) if column is not None]
    if len(set(counts)) > 1:
        raise ValueError(f"Examples: columns, scores and labels must be equally long, got {counts}")


def _texts(count: int) -> str:
    """Count columns in words."""
    return f"{count} column{'' if count == 1 else 's'} of texts"


def _check_labels(examples: Examples) -> None:
    """Refuse classes that teach nothing: a single one, and texts that have no other text of their class."""
    names, labels = examples.label_names, examples.labels
    counts = np.bincount(np.asarray(labels, np.intp), minlength=len(names))  # (C,)
    if len(counts) != len(names) or not counts.all():
        raise ValueError(f"Examples: labels must be 0 to C - 1, each of them used, for {len(names)} label_names")
    if len(names) < 2:
        raise ValueError(
            f"Examples: all {len(examples):,} labels are {names[0]!r:.40}: nothing tells them apart; pairs that all "
            "belong together are of kind 'pairs', and texts without a label train by SimCSE"
        )
    if examples.kind == "texts":
        distinct = {(text, int(c)) for text, c in zip(examples.columns[0], np.asarray(labels), strict=True)}
        texts_of = np.bincount([c for _, c in distinct])  # (C,)
        lone = np.flatnonzero(texts_of == 1)
        if len(lone):
            named = ", ".join(f"{names[c]!r:.40}" for c in lone[:5]) + (", ..." if len(lone) > 5 else "")
            # a warning would leave those texts with themselves as the positive, which teaches nothing
            raise ValueError(
                f"Examples: {len(lone)} of {len(names)} classes have one single text, so that it has no positive: "
                f"{named}; give each class at least two different texts, or leave these rows out"
            )


# ------------------------------------------------------------------------------------------------------ reading


def read_examples(
    files: str | Path | Sequence[str | Path],
    *,
    kind: str | None = None,
    columns: Sequence[str] | None = None,
    scale: tuple[float, float] | None = None,
    input_format: str | None = None,
    has_header: bool = True,
) -> Examples:
    r"""Read training examples from a file, or from several that form one set.

    Parameters
    ----------
    files : str, path, or sequence of them
        TSV (no quoting), CSV or JSONL, plain or .gz. Several are put one behind the other.
    kind : str, optional
        Of :data:`COLUMNS`. By default the one kind that the first file's columns fit.
    columns : sequence of str, optional
        In the order of :data:`COLUMNS`, names or numbers from "1"; "texts" takes one or two. ``kind`` must be said
        then. By default the first of :data:`SYNONYMS` that a file has.
    scale : (low, high), optional
        What scores can be; they are mapped to [0, 1]. Without it they stay as they are.
    input_format : {"csv", "tsv", "jsonl"}, optional
        By default as the files' names end.
    has_header : bool
        Without a row of names on top, ``columns`` must be numbers.

    Returns
    -------
    examples : Examples
        Classes are numbered in the order of their names, whole numbers by value: of 0 and 1, 1 is class 1; of
        "duplicate" and "other", "duplicate" is class 0. ``label_names`` keeps the names.

    Raises
    ------
    InputError
        A ValueError that names the file, and where it is one row's fault the line: an empty text, a score that is no
        number or off the scale, a label that is empty or stands for "none", a triplet whose negative is its anchor or
        positive, a column that is not there, columns that fit several kinds or none, a file without rows.

    Notes
    -----
    **Source**: the formats of sentence-transformers' "Dataset Overview"; a float ``label`` there is a score here.
    ``scale`` gives what its ``CosineSimilarityLoss`` expects: ``(score - low) / (high - low)``.

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
    _check_settings(listed, kind, columns, scale, has_header)
    found = kind or _guess_kind(listed[0], read_names(listed[0], input_format))
    if scale is not None and found != "scored":
        raise ValueError(f"read_examples: scale is for scores, but {listed[0]} is read as {found!r}")
    texts: list[tuple[str, ...]] = []
    targets: list[float | str] = []
    is_labelled = True
    for file in listed:
        chosen = columns or _find_columns(file, found, read_names(file, input_format), kind is not None)
        if file != listed[0] and is_labelled != (len(chosen) == len(COLUMNS[found])):
            raise InputError(f"{file}: {listed[0]} and it must both have labels, or both none")
        is_labelled = len(chosen) == len(COLUMNS[found])
        before = len(texts)
        records = read_records(file, chosen, input_format=input_format, has_header=has_header)
        for line, values in records:
            row, target = _read_row(found, values, chosen, scale, f"{file}, line {line}")
            texts.append(row)
            targets += [] if target is None else [target]
        if len(texts) == before:
            raise InputError(f"{file}: no training examples: the file has no rows")
    try:
        return _gather(found, tuple(zip(*texts, strict=True)), targets)
    except ValueError as error:
        raise InputError(f"{listed[0]}{' and others' if len(listed) > 1 else ''}: {error}") from None


def _check_settings(
    files: Sequence[str | Path],
    kind: str | None,
    columns: Sequence[str] | None,
    scale: tuple[float, float] | None,
    has_header: bool,
) -> None:
    """Refuse settings that make no sense."""
    if not files:
        raise ValueError("read_examples: no files given")
    if kind is not None and kind not in COLUMNS:
        raise ValueError(f"read_examples: kind must be one of {', '.join(COLUMNS)}, got {kind!r}")
    if scale is not None and not -math.inf < scale[0] < scale[1] < math.inf:
        raise ValueError(f"read_examples: scale must be (low, high) with low < high, got {scale!r}")
    if columns is None:
        if not has_header:
            raise ValueError(f"{files[0]}: without a row of names kind must be said, and the columns given by number")
        return
    if kind is None:
        raise ValueError(f"read_examples: with columns, kind must be said: {_choices()}")
    wanted = COLUMNS[kind]
    if isinstance(columns, str) or len(columns) not in ({len(wanted)} | ({1} if kind == "texts" else set())):
        raise ValueError(f"read_examples: columns of kind {kind!r} are {', '.join(wanted)}; got {columns!r}")
    if len(set(columns)) < len(columns):
        raise ValueError(f"read_examples: a column is given twice: {', '.join(columns)}")


def _choices() -> str:
    """List the kinds and their columns, for messages."""
    return "; ".join(f"{kind} ({', '.join(meanings)})" for kind, meanings in COLUMNS.items())


def _guess_kind(file: str | Path, names: Sequence[str]) -> str:
    """Tell the kind by the columns' names."""
    if not names:
        raise InputError(f"{file}: empty; expected rows, and in CSV and TSV a row of column names before them")
    fitting = [
        kind
        for kind, meanings in COLUMNS.items()
        if all(
            _find(meaning, names, False) is not None for meaning in meanings if (kind, meaning) != ("texts", "label")
        )
    ]
    if "triplets" in fitting:
        fitting.remove("pairs")  # a triplet is a pair with more to it
    listed = ", ".join(f"{name!r:.40}" for name in names)
    ignored = _find("label", names, False) or _find("score", names, False)
    if fitting in (["pairs"], ["triplets"]) and ignored:
        # rows of label 0 are no positives
        raise InputError(
            f"{file}: the columns {listed} are {fitting[0]} with a {ignored!r}, which would be ignored; say "
            f"kind={fitting[0]!r} if all rows belong together, or else another kind and columns: {_choices()}"
        )
    if not fitting:
        raise InputError(f"{file}: the columns {listed} fit no kind of example; say kind and columns: {_choices()}")
    if len(fitting) > 1:
        raise InputError(f"{file}: the columns {listed} fit several kinds: {', '.join(fitting)}; say which (kind)")
    return fitting[0]


def _find(meaning: str, names: Sequence[str], is_said: bool) -> str | None:
    """Find a column by its usual names."""
    usual = SYNONYMS[meaning] + (ALSO.get(meaning, ()) if is_said else ())
    return next((name for name in usual if name in names), None)


def _find_columns(file: str | Path, kind: str, names: Sequence[str], is_said: bool) -> tuple[str, ...]:
    """Find the columns of a kind; a label of texts may be missing."""
    found = []
    for meaning in COLUMNS[kind]:
        # where there are no names at all, read_records says so better
        column = _find(meaning, names, is_said) if names else meaning
        if column is not None:
            found.append(column)
        elif (kind, meaning) != ("texts", "label"):
            usual = SYNONYMS[meaning] + (ALSO.get(meaning, ()) if is_said else ())
            raise InputError(
                f"{file}: no column for the {meaning} of {kind}: looked for {', '.join(usual)}; there are "
                f"{', '.join(f'{n!r:.40}' for n in names)}; say which they are: {', '.join(COLUMNS[kind])}"
            )
    return tuple(found)


def _read_row(
    kind: str, values: Sequence[object], columns: Sequence[str], scale: tuple[float, float] | None, where: str
) -> tuple[tuple[str, ...], float | str | None]:
    """Take a row apart into texts and score or label."""
    count = sum(meaning not in ("score", "label") for meaning in COLUMNS[kind])
    texts = tuple(checked_text(value, column, where) for value, column in zip(values, columns[:count], strict=False))
    for text, column in zip(texts, columns, strict=False):
        if not text.strip():
            raise InputError(f"{where}: the text in column {column!r} is empty; mend or drop this row")
    if kind == "triplets" and texts[2] in texts[:2]:
        twin = columns[texts.index(texts[2])]
        raise InputError(f"{where}: the negative is the same text as the {twin}; mend or drop this row")
    if len(values) == count:
        return texts, None
    value, column = values[count], columns[count]
    if kind == "scored":
        return texts, _checked_score(value, column, scale, where)
    if kind == "labelled" and _looks_like_a_score(value):
        raise InputError(
            f"{where}: the label {value!r:.40} in column {column!r} has a decimal point; if it is a score, say "
            "kind='scored', and if it is a class, write a whole number or a name"
        )
    label = checked_label(value, column, where)
    if label == "-":
        raise InputError(f"{where}: the label '-' means that annotators did not agree (SNLI); drop such rows")
    return texts, label


def _looks_like_a_score(value: object) -> bool:
    """Tell a number with a point from the name or number of a class."""
    if isinstance(value, str) and "." in value:
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, float)


def _checked_score(value: object, column: str, scale: tuple[float, float] | None, where: str) -> float:
    """Give a score as a number, mapped to [0, 1] if its scale is known."""
    score = checked_number(value, f"the score in column {column!r}", where)
    if scale is None:
        return score
    if not scale[0] <= score <= scale[1]:
        raise InputError(
            f"{where}: the score {score:g} is off the scale from {scale[0]:g} to {scale[1]:g}; "
            f"is {column!r} the right column, and the scale the right one?"
        )
    return (score - scale[0]) / (scale[1] - scale[0])


def _gather(kind: str, columns: tuple[tuple[str, ...], ...], targets: Sequence[float | str]) -> Examples:
    """Put the rows together, classes numbered."""
    if kind == "scored":
        return Examples(kind, columns, scores=np.array(targets, np.float64))
    if not targets:
        return Examples(kind, columns)
    names = _sorted_names({str(target) for target in targets})
    if "-1" in names and "0" in names:
        raise ValueError("the label -1 beside 0 means 'no label' in Hugging Face's data sets; drop such rows")
    number = {name: c for c, name in enumerate(names)}
    return Examples(kind, columns, labels=np.array([number[str(x)] for x in targets]), label_names=names)


def _sorted_names(names: set[str]) -> tuple[str, ...]:
    """Sort names of classes; whole numbers by value, so that 10 comes behind 9."""
    ordered = sorted(names)
    try:
        return tuple(sorted(ordered, key=int))
    except ValueError:
        return tuple(ordered)
