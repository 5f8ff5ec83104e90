"""Entities as tags of words: the BIO scheme, files in it, and the F1 of spans.

An entity is a span of words with a type. As tags, its first word is ``B-type``, each further one ``I-type``, and any
other word ``O``. This is IOB2, of which one rule makes sense of all: ``I-x`` stands only behind ``B-x`` or ``I-x``.
``B`` is what tells two entities side by side from a long one.

A predicted span is right if start, stop and type all are; half a name is wrong twice: once predicted in vain, once not
found. Precision, recall and F1 count spans, over all sentences together (*micro*). On the published output of the two
best systems of the WNUT 2017 shared task these functions give what their papers report: F1 41.86 and 40.78, of surface
forms 40.24 and 39.33.

Left out on purpose: nested entities, the schemes IOB1, IOE and BILOU. Next file:
``decoding.py``, scores to tags.

Letters: ``S`` sentences, ``T`` words of one, ``C`` tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minisbert.model import Array
from minisbert.tables import InputError, checked_text, decode_lines, open_bytes, read_records, told_format

OUTSIDE = "O"
_TAG = re.compile(r"O|[BI]-\S+")


class Span(NamedTuple):
    """An entity: words ``start`` to ``stop - 1`` of a sentence."""

    start: int
    stop: int  # the word behind its last
    type: str


# ------------------------------------------------------------------------------------------------------- scheme


def check_tags(tags: Sequence[str]) -> None:
    """Refuse tags of a sentence that are not IOB2.

    Parameters
    ----------
    tags : sequence of str, length T

    Raises
    ------
    ValueError
        For what is no tag, and for an ``I`` that continues nothing.

    Notes
    -----
    **Source**: Ramshaw & Marcus 1995 (IOB), Tjong Kim Sang & Veenstra 1999 (IOB2); ``seqeval`` with ``mode="strict",
    scheme=IOB2``.

    Examples
    --------
    >>> check_tags(["O", "B-person", "I-person"])
    >>> check_tags(["O", "I-person"])
    Traceback (most recent call last):
        ...
    ValueError: word 2 has the tag I-person after O, where it continues nothing; in IOB2 an entity begins with ...
    """
    before = OUTSIDE
    for i, tag in enumerate(tags, 1):
        if not isinstance(tag, str) or not _TAG.fullmatch(tag):
            raise ValueError(f"word {i}: {_tag_fault(tag)}")
        if not may_follow(before, tag):
            behind = f"after {before}" if i > 1 else "at the beginning"
            raise ValueError(
                f"word {i} has the tag {tag} {behind}, where it continues nothing; in IOB2 an entity begins with "
                f"B-{tag[2:]} (minisbert.analysis.tagging.repair converts IOB1 to IOB2)"
            )
        before = tag


def _tag_fault(tag: object) -> str:
    """Say what is wrong with what is no tag of IOB2."""
    fault = f"expected a tag O, B-type or I-type, got {tag!r:.60}"
    if isinstance(tag, str) and re.fullmatch(r"[LEUSM]-\S+", tag):
        fault += "; IOB2 is read, BILOU and IOBES are not: write B- for U- and S-, and I- for L-, E- and M-"
    return fault


def may_follow(before: str, tag: str) -> bool:
    """Say whether a tag may stand behind another.

    Parameters
    ----------
    before : str
        The tag of the word before; ``O`` for the first word.
    tag : str

    Returns
    -------
    bool

    Examples
    --------
    >>> may_follow("B-person", "I-person"), may_follow("O", "I-person")
    (True, False)
    """
    return not tag.startswith("I-") or (before != OUTSIDE and before[2:] == tag[2:])


def repair(tags: Sequence[str]) -> list[str]:
    """Make valid tags of any: an ``I`` that continues nothing begins an entity.

    Parameters
    ----------
    tags : sequence of str, length T

    Returns
    -------
    list of str
        IOB2. Valid tags stay as they are.

    Notes
    -----
    **Source**: so ``conlleval`` and ``seqeval`` (without ``mode="strict"``) read tags.

    Examples
    --------
    >>> repair(["O", "I-person", "I-person", "I-product"])
    ['O', 'B-person', 'I-person', 'B-product']
    """
    pairs = zip([OUTSIDE, *tags], tags, strict=False)
    return [tag if may_follow(before, tag) else f"B-{tag[2:]}" for before, tag in pairs]


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Read the entities off the tags of a sentence.

    Parameters
    ----------
    tags : sequence of str, length T
        IOB2.

    Returns
    -------
    list of Span
        In the order of the words; no two overlap.

    Raises
    ------
    ValueError
        As :func:`check_tags`.

    Examples
    --------
    >>> spans_of(["B-person", "I-person", "B-person", "O"])
    [Span(start=0, stop=2, type='person'), Span(start=2, stop=3, type='person')]
    """
    check_tags(tags)
    ends = [i for i, tag in enumerate([*tags, OUTSIDE]) if not tag.startswith("I-")]
    return [Span(i, j, tags[i][2:]) for i, j in pairwise(ends) if tags[i] != OUTSIDE]


def tags_of(spans: Sequence[Span], count: int) -> list[str]:
    """Write entities as tags.

    Parameters
    ----------
    spans : sequence of Span
        None overlaps another.
    count : int
        ``T``, words of the sentence.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        For spans that are empty, overlap, or do not lie in the sentence.

    Examples
    --------
    >>> tags_of([Span(1, 3, "person")], 4)
    ['O', 'B-person', 'I-person', 'O']
    """
    tags = [OUTSIDE] * count
    for span in spans:
        if not 0 <= span.start < span.stop <= count or tags[span.start : span.stop] != [OUTSIDE] * (
            span.stop - span.start
        ):
            raise ValueError(f"tags_of: expected spans in {count} words, not empty and not overlapping, got {span}")
        tags[span.start : span.stop] = [f"B-{span.type}", *[f"I-{span.type}"] * (span.stop - span.start - 1)]
    return tags


# -------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class TaggedSentences:
    """Sentences as words, and the tag of each word, checked.

    Parameters
    ----------
    name : str
        Of the set, for tables and messages.
    sentences : sequence of sequences of str
        ``S``, each of one word or more.
    tags : sequence of sequences of str
        As many as words; IOB2.

    Raises
    ------
    ValueError
        For no sentences, an empty one, an empty word, unequal numbers of words and tags, and tags that are not IOB2.

    Examples
    --------
    >>> TaggedSentences("tiny", [["Ada", "sang"]], [["B-person", "O"]]).types
    ('person',)
    """

    name: str
    sentences: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        if len(self.sentences) != len(self.tags) or not len(self.sentences):
            raise ValueError(
                f"{self.name}: expected tags for each sentence, and at least one sentence, got "
                f"{len(self.sentences):,} sentences and {len(self.tags):,} rows of tags"
            )
        for i, (words, tags) in enumerate(zip(self.sentences, self.tags, strict=True)):
            _check_sentence(words, tags, f"{self.name}, sentence {i}")

    @property
    def words(self) -> int:
        """Words of all sentences."""
        return sum(map(len, self.sentences))

    @property
    def types(self) -> tuple[str, ...]:
        """Types of entities that occur, in sorted order."""
        return tuple(sorted({tag[2:] for tags in self.tags for tag in tags} - {""}))


def _check_sentence(words: Sequence[str], tags: Sequence[str], where: str) -> None:
    """Refuse a sentence that cannot be what was meant."""
    if isinstance(words, str) or isinstance(tags, str) or len(words) != len(tags) or not len(words):
        raise InputError(
            f"{where}: expected a tag for each word, and at least one word, got {len(words)} words and {len(tags)} tags"
        )
    for i, word in enumerate(words, 1):
        if not isinstance(word, str) or not word.strip():
            raise InputError(f"{where}: word {i} must be a non-blank string, got {word!r:.60}")
    try:
        check_tags(tags)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def read_tagged(file: str | Path) -> TaggedSentences:
    r"""Read sentences with tagged words.

    Parameters
    ----------
    file : str or path
        JSONL with the lists ``tokens`` and ``tags`` in each line, or CoNLL (.conll, .iob2, .bio, .txt): a line a word,
        the word and its tag with a tab or blanks between, an empty line behind each sentence. Plain or .gz.

    Returns
    -------
    TaggedSentences

    Raises
    ------
    InputError
        A ValueError that names file and line: lists of unequal lengths, a tag that is none, an ``I`` that continues
        nothing, an empty sentence, a line of CoNLL without exactly two columns, a file without sentences.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "tiny.conll"
    >>> _ = file.write_text("Ada\tB-person\nsang\tO\n\nhello\tO\n")
    >>> read_tagged(file).sentences
    [['Ada', 'sang'], ['hello']]
    """
    kind = told_format(file)
    suffix = Path(str(file).lower().removesuffix(".gz")).suffix
    if kind not in (None, "jsonl") or (kind is None and suffix not in (".conll", ".iob2", ".bio", ".txt")):
        raise InputError(f"{file}: expected a name that ends in .jsonl or .conll (.iob2, .bio, .txt), optionally .gz")
    sentences, rows = [], []
    for line, words, tags in _from_jsonl(file) if kind == "jsonl" else _from_conll(file):
        _check_sentence(words, tags, f"{file}, line {line}")
        sentences.append(words)
        rows.append(tags)
    if not sentences:
        raise InputError(f"{file}: no sentences in the file")
    return TaggedSentences(Path(file).name, sentences, rows)


def _from_jsonl(file: str | Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Read an object a line."""
    for line, lists in read_records(file, ("tokens", "tags"), input_format="jsonl"):
        for name, value in zip(("tokens", "tags"), lists, strict=True):
            if not isinstance(value, list):
                raise InputError(f"{file}, line {line}: expected a list in {name!r}, got {value!r:.60}")
            for entry in value:
                checked_text(entry, name, f"{file}, line {line}")
        yield line, lists[0], lists[1]


def _from_conll(file: str | Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Read a word a line, and give a sentence at each empty line; its place is its first word's."""
    first, words, tags = 0, list[str](), list[str]()
    with open_bytes(file) as stream:
        for line, row in decode_lines(stream, str(file)):
            if not row.strip():
                if words:
                    yield first, words, tags
                words, tags = [], []
                continue
            columns = row.split("\t") if "\t" in row else row.split()
            if len(columns) != 2:
                raise InputError(
                    f"{file}, line {line}: expected 2 columns, a word and its tag, got {len(columns)} "
                    f"column{'' if len(columns) == 1 else 's'}: {row!r:.60}"
                )
            if not _TAG.fullmatch(columns[1].strip()):
                raise InputError(f"{file}, line {line}: {_tag_fault(columns[1].strip())}")
            first = first if words else line
            words.append(columns[0].strip())
            tags.append(columns[1].strip())
        if words:
            yield first, words, tags


# ------------------------------------------------------------------------------------------------------- scores


class SpanScore(NamedTuple):
    """Counts of spans, and what they come to."""

    right: int  # predicted, and there
    predicted: int
    expected: int  # there

    @property
    def precision(self) -> float:
        """Share of the predicted ones that are right, in [0, 1]; 0 where none is predicted."""
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of those there that are found, in [0, 1]; 0 where there are none."""
        return self.right / self.expected if self.expected else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both, ``2 right / (predicted + expected)``, in [0, 1]; 0 where there is nothing."""
        return 2 * self.right / (self.predicted + self.expected) if self.predicted + self.expected else 0.0


def span_counts(
    expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], kind: str | None = None
) -> Array:
    """Count the spans of each sentence: right, predicted, expected.

    Parameters
    ----------
    expected, predicted : sequence of sequences of str, length S
        Tags, IOB2.
    kind : str, optional
        Count spans of this type alone.

    Returns
    -------
    Array, shape (S, 3)
        intp; ``SpanScore(*counts.sum(axis=0).tolist())`` is the score of them all.

    Raises
    ------
    ValueError
        For tags that are not IOB2, and for sentences of unequal length.

    Notes
    -----
    **Source**: Tjong Kim Sang & De Meulder 2003 (``conlleval``); ``seqeval.metrics.f1_score(..., mode="strict",
    scheme=IOB2)``.

    Examples
    --------
    Half a name is no name:

    >>> span_counts([["B-person", "I-person", "B-person"]], [["B-person", "O", "B-person"]])
    array([[1, 2, 2]])
    """
    if [len(tags) for tags in expected] != [len(tags) for tags in predicted]:
        raise ValueError(
            "span_counts: expected tags of the same sentences, got different numbers of sentences or words; "
            "do both belong to the same file?"
        )
    counts = np.zeros((len(expected), 3), np.intp)
    for row, one, other in zip(counts, expected, predicted, strict=True):
        there, said = ({span for span in spans_of(tags) if kind in (None, span.type)} for tags in (one, other))
        row[:] = len(there & said), len(said), len(there)
    return counts


def span_score(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> SpanScore:
    """Score predicted tags against those that are right, all spans together.

    Parameters
    ----------
    expected, predicted : sequence of sequences of str, length S
        Tags, IOB2.

    Returns
    -------
    SpanScore

    Raises
    ------
    ValueError
        As :func:`span_counts`.

    Examples
    --------
    >>> span_score([["B-person", "O", "B-product"]], [["B-person", "O", "O"]]).f1
    0.6666666666666666
    """
    return SpanScore(*span_counts(expected, predicted).sum(axis=0).tolist())


def surface_score(
    sentences: Sequence[Sequence[str]], expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> SpanScore:
    """Score surface forms: each name counts once for its type, however often it occurs.

    Parameters
    ----------
    sentences : sequence of sequences of str, length S
        Words.
    expected, predicted : sequence of sequences of str, length S
        Tags, IOB2.

    Returns
    -------
    SpanScore
        Of distinct pairs of name and type. One is right if it was found in some place where it stands.

    Raises
    ------
    ValueError
        As :func:`span_counts`.

    Notes
    -----
    **Source**: Derczynski et al. 2017, "F1 (surface)": this definition gives the published figures.

    Examples
    --------
    >>> words, tags = [["Ada", "met", "Ada"], ["Bo"]], [["B-person", "O", "B-person"], ["B-person"]]
    >>> surface_score(words, tags, [["B-person", "O", "O"], ["O"]])
    SpanScore(right=1, predicted=1, expected=2)
    """
    span_counts(expected, predicted)  # checks
    right, said, there = set[tuple[str, str]](), set[tuple[str, str]](), set[tuple[str, str]]()
    for words, one, other in zip(sentences, expected, predicted, strict=True):
        first, second = set(spans_of(one)), set(spans_of(other))
        for names, spans in ((right, first & second), (said, second), (there, first)):
            names |= {(" ".join(words[span.start : span.stop]), span.type) for span in spans}
    return SpanScore(len(right), len(said), len(there))
