"""Entities as BIO tags of words, files of them, and span F1.

The first word of an entity is ``B-type``, each further one ``I-type``, any other word ``O`` (IOB2): ``I-x`` only
follows ``B-x`` or ``I-x``, and ``B`` separates adjacent entities. A predicted span is right if start, stop and type
are; half a name counts as a false positive and a false negative. Precision, recall and F1 are micro-averaged. On the
published output of the two best systems of the WNUT 2017 shared task these functions give what their papers report: F1
41.86 and 40.78, of surface forms 40.24 and 39.33. Letters: ``S`` sentences, ``T`` words of one, ``C`` tags.
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
from minisbert.tables import InputError, checked_text, decode_lines, open_bytes, read_table, told_format

OUTSIDE = "O"
_TAG = re.compile(r"O|[BI]-\S+")


class Span(NamedTuple):
    """An entity: words ``start`` to ``stop - 1`` of a sentence."""

    start: int
    stop: int  # one past its last word
    type: str


# ------------------------------------------------------------------------------------------------------- scheme


def check_tags(tags: Sequence[str]) -> None:
    """Raise ValueError unless a sentence's tags are IOB2.

    **Source**: Ramshaw & Marcus 1995 (IOB), Tjong Kim Sang & Veenstra 1999 (IOB2); ``seqeval`` in mode "strict".
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
    """What is wrong with an invalid tag."""
    fault = f"expected a tag O, B-type or I-type, got {tag!r:.60}"
    if isinstance(tag, str) and re.fullmatch(r"[LEUSM]-\S+", tag):
        fault += "; IOB2 is read, BILOU and IOBES are not: write B- for U- and S-, and I- for L-, E- and M-"
    return fault


def may_follow(before: str, tag: str) -> bool:
    """Whether a tag may follow another (``O`` before the first word).

    >>> may_follow("B-person", "I-person"), may_follow("O", "I-person")
    (True, False)
    """
    return not tag.startswith("I-") or (before != OUTSIDE and before[2:] == tag[2:])


def repair(tags: Sequence[str]) -> list[str]:
    """Make tags valid: an ``I`` that continues nothing begins an entity.

    **Source**: how ``conlleval`` and ``seqeval`` (without ``mode="strict"``) read tags.

    >>> repair(["O", "I-person", "I-person", "I-product"])
    ['O', 'B-person', 'I-person', 'B-product']
    """
    pairs = zip([OUTSIDE, *tags], tags, strict=False)
    return [tag if may_follow(before, tag) else f"B-{tag[2:]}" for before, tag in pairs]


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Entities of a sentence's tags, in order.

    >>> spans_of(["B-person", "I-person", "B-person", "O"])
    [Span(start=0, stop=2, type='person'), Span(start=2, stop=3, type='person')]
    """
    check_tags(tags)
    ends = [i for i, tag in enumerate([*tags, OUTSIDE]) if not tag.startswith("I-")]
    return [Span(i, j, tags[i][2:]) for i, j in pairwise(ends) if tags[i] != OUTSIDE]


def tags_of(spans: Sequence[Span], count: int) -> list[str]:
    """Entities as the tags of ``count`` words; ValueError for spans that are empty, overlap, or lie outside.

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
    """Sentences as words, and each word's tag, validated.

    ValueError for no sentences, an empty one, an empty word, unequal numbers of words and tags, and tags that are not
    IOB2.

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
        """Number of words in all sentences."""
        return sum(map(len, self.sentences))

    @property
    def types(self) -> tuple[str, ...]:
        """Entity types that occur, sorted."""
        return tuple(sorted({tag[2:] for tags in self.tags for tag in tags} - {""}))


def _check_sentence(words: Sequence[str], tags: Sequence[str], where: str) -> None:
    """Raise for a sentence that cannot be what was meant."""
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
    r"""Read tagged sentences; InputError, a ValueError, names file and line of a mistake.

    JSONL with the lists ``tokens`` and ``tags`` in each line, or CoNLL (.conll, .iob2, .bio, .txt): a word and its tag
    per line, separated by a tab or spaces, and an empty line after each sentence. Plain or .gz.

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
    """Read one object per line."""
    for line, lists in read_table(file, input_format="jsonl").pick(("tokens", "tags")):
        for name, value in zip(("tokens", "tags"), lists, strict=True):
            if not isinstance(value, list):
                raise InputError(f"{file}, line {line}: expected a list in {name!r}, got {value!r:.60}")
            for entry in value:
                checked_text(entry, name, f"{file}, line {line}")
        yield line, lists[0], lists[1]


def _from_conll(file: str | Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Read one word per line, and yield a sentence at each empty line, with the line number of its first word."""
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
    """Counts of spans, and the scores that follow."""

    right: int  # predicted and expected
    predicted: int
    expected: int

    @property
    def precision(self) -> float:
        """Share of the predicted spans that are right; 0 if none is predicted."""
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the expected spans that are found; 0 if there are none."""
        return self.right / self.expected if self.expected else 0.0

    @property
    def f1(self) -> float:
        """``2 right / (predicted + expected)``, in [0, 1]; 0 if there is nothing."""
        return 2 * self.right / (self.predicted + self.expected) if self.predicted + self.expected else 0.0


def span_counts(
    expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], kind: str | None = None
) -> Array:
    """Right, predicted and expected spans of each sentence, (S, 3); ``kind`` counts one type alone.

    **Source**: Tjong Kim Sang & De Meulder 2003 (``conlleval``);
    ``seqeval.metrics.f1_score(..., mode="strict", scheme=IOB2)``. Half a name is no name:

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
    """Score predicted tags, all spans together.

    >>> span_score([["B-person", "O", "B-product"]], [["B-person", "O", "O"]]).f1
    0.6666666666666666
    """
    return SpanScore(*span_counts(expected, predicted).sum(axis=0).tolist())


def surface_score(
    sentences: Sequence[Sequence[str]], expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> SpanScore:
    """Score surface forms: each pair of name and type counts once, and is right if it was found in one of its places.

    **Source**: Derczynski et al. 2017, "F1 (surface)": this definition gives the published figures.

    >>> words, tags = [["Ada", "met", "Ada"], ["Bo"]], [["B-person", "O", "B-person"], ["B-person"]]
    >>> surface_score(words, tags, [["B-person", "O", "O"], ["O"]])
    SpanScore(right=1, predicted=1, expected=2)
    """
    span_counts(expected, predicted)  # validates
    right, said, there = set[tuple[str, str]](), set[tuple[str, str]](), set[tuple[str, str]]()
    for words, one, other in zip(sentences, expected, predicted, strict=True):
        first, second = set(spans_of(one)), set(spans_of(other))
        for names, spans in ((right, first & second), (said, second), (there, first)):
            names |= {(" ".join(words[span.start : span.stop]), span.type) for span in spans}
    return SpanScore(len(right), len(said), len(there))
