"""Entities as tags of words: four schemes, the best valid tags of a sentence, a span's probability, files, and counts.

Everything computes in **IOB2**: an entity's first word is ``B-type``, each further one ``I-type``, any other ``O``. So
``I-x`` only follows ``B-x`` or ``I-x``. A classifier that scores each word on its own ignores that rule:
:func:`viterbi` finds the best of all valid sequences, and :func:`span_probabilities` applies the rule to probabilities.
Files may be in IOB1, BIOES or BILOU, too.

A predicted span is right if start, stop and type are; half a name is a false positive and a false negative. On the
published output of the two best systems of WNUT 2017 these counts give what their papers report: F1 41.86 and 40.78.
Letters: ``S`` sentences, ``T`` words of one, ``C`` tags, ``Y`` types and all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minisbert.model import Array
from minisbert.tables import InputError, checked_text, decode_lines, open_bytes, read_table, told_format

SCHEMES = {"IOB1": "BIBI", "IOB2": "BIBI", "BIOES": "BISE", "BILOU": "BIUL"}
"""Letters of a scheme: of an entity's first word and further ones, and the same two where the entity ends."""

_SUFFIXES = (".conll", ".iob", ".iob2", ".bio", ".bioes", ".bilou", ".txt")  # of files in CoNLL's format
_TAG = re.compile(r"O|[BIESLU]-\S+")


class Span(NamedTuple):
    """An entity: words ``start`` to ``stop - 1`` of a sentence."""

    start: int
    stop: int  # one past its last word
    type: str


# ------------------------------------------------------------------------------------------------------- scheme


def may_follow(before: str, tag: str) -> bool:
    """Whether a tag of IOB2 may follow another (``O`` before the first word).

    >>> may_follow("B-person", "I-person"), may_follow("O", "I-person")
    (True, False)
    """
    return not tag.startswith("I-") or before[1:] == tag[1:]


def repair(tags: Sequence[str]) -> list[str]:
    """Make tags valid: an ``I`` that continues nothing begins an entity, as in IOB1 and in ``conlleval``.

    >>> repair(["O", "I-person", "I-person", "I-product"])
    ['O', 'B-person', 'I-person', 'B-product']
    """
    pairs = zip(["O", *tags], tags, strict=False)
    return [tag if may_follow(before, tag) else f"B{tag[1:]}" for before, tag in pairs]


def scheme_of(rows: Iterable[Sequence[str]]) -> str:
    """Which scheme sentences are tagged in: told by its letters, and IOB1 by where it uses ``B``.

    IOB1 writes ``B`` only between two entities of one type that touch.

    >>> scheme_of([["I-x", "O", "I-y", "B-y"]]), scheme_of([["B-x", "E-x"]]), scheme_of([["B-x", "I-x"]])
    ('IOB1', 'BIOES', 'IOB2')
    """
    pairs = {(str(before), str(tag)) for tags in rows for before, tag in zip(["O", *tags], tags, strict=False)}
    letters = {tag[:1] for _, tag in pairs}
    if letters & set("ESLU"):
        return "BIOES" if letters & set("ES") else "BILOU"
    has_stray = not all(may_follow(before, tag) for before, tag in pairs)
    begins = any(tag.startswith("B-") and before[1:] != tag[1:] for before, tag in pairs)
    return "IOB1" if has_stray and not begins else "IOB2"


def iob2(tags: Sequence[str], scheme: str = "IOB2", where: Callable[[int], str] = "word {}".format) -> list[str]:
    """Check a sentence's tags, and write them in IOB2; InputError names the place of the word, counted from 1.

    **Source**: Ramshaw & Marcus 1995 (IOB1), Tjong Kim Sang & Veenstra 1999 (IOB2), Ratinov & Roth 2009 (BILOU).

    >>> iob2(["B-x", "L-x", "U-y"], "BILOU")
    ['B-x', 'I-x', 'B-y']
    """
    letters = SCHEMES[scheme]
    for n, tag in enumerate(tags, 1):
        if not isinstance(tag, str) or not _TAG.fullmatch(tag) or tag[0] not in f"O{letters}":
            raise InputError(
                f"{where(n)}: expected a tag O, B-type or I-type (IOB1 and IOB2; with S- and E- BIOES, with U- and L- "
                f"BILOU), got {tag!r:.60} in {scheme}"
            )
    plain = {"O": "O"} | dict(zip(letters, "BIBI", strict=True))
    found = repair([plain[tag[0]] + tag[1:] for tag in tags])
    if scheme == "IOB1":
        return found
    for n, (tag, one, after) in enumerate(zip(tags, found, [*found[1:], "O"], strict=False), 1):
        ends = not after.startswith("I-")
        right = "O" if one == "O" else letters["BI".index(one[0]) + 2 * ends] + one[1:]  # of the same entities
        if tag != right:
            raise InputError(f"{where(n)}: expected the tag {right} in {scheme}, got {tag}")
    return found


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Entities of a sentence's IOB2 tags, in order.

    >>> spans_of(["B-person", "I-person", "B-person", "O"])
    [Span(start=0, stop=2, type='person'), Span(start=2, stop=3, type='person')]
    """
    iob2(tags)
    ends = [t for t, tag in enumerate([*tags, "O"]) if not tag.startswith("I-")]
    return [Span(i, j, tags[i][2:]) for i, j in pairwise(ends) if tags[i] != "O"]


# ------------------------------------------------------------------------------------------------------ decoding


def viterbi(scores: Array, tags: Sequence[str]) -> list[str]:
    """``argmax sum_t scores[t, c_t]`` over all valid sequences: (T, C) -> T tags.

    **Source**: Viterbi 1967; Ratinov & Roth 2009 on hard constraints in entity recognition. Each word keeps, for each
    tag, the best way to end in it: ``T C^2`` steps instead of ``C^T`` sequences. Each word's best tag would be O and I,
    which is not valid; the best valid sequence begins the entity at the first word:

    >>> viterbi(np.log([[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]]), ["O", "B-x", "I-x"])
    ['B-x', 'I-x']
    """
    first, step = _rules(scores, tags)  # (C,), (C, C)
    if not len(scores):
        return []
    best, came_from = scores[0] + first, []  # (C,) of the sequences that end here in each tag
    for row in scores[1:]:
        ways = best[:, None] + step  # (C, C) from a tag to the next
        came_from.append(ways.argmax(axis=0))
        best = row + ways.max(axis=0)  # (C,)
    path = [int(best.argmax())]
    for back in reversed(came_from):
        path.append(int(back[path[-1]]))
    return [tags[c] for c in reversed(path)]


def _rules(scores: Array, tags: Sequence[str]) -> tuple[Array, Array]:
    """0 for tags that may begin a sentence (C,), and that may follow (C, C); minus infinity for the others."""
    if scores.ndim != 2 or scores.shape[1] != len(tags) or not np.isfinite(scores).all():
        nan = "" if np.isfinite(scores).all() else " with NaN or infinity"
        raise ValueError(f"expected finite scores (T, C) of {len(tags)} tags, got shape {scores.shape}{nan}")
    if all(tag.startswith("I-") for tag in tags):
        raise ValueError(f"expected O or a B- tag, without which no sequence is valid, got {list(tags)}")
    allowed = np.array([[may_follow(before, tag) for tag in tags] for before in ["O", *tags]])
    first, *step = np.where(allowed, 0.0, -np.inf)
    return first, np.array(step)


def span_probabilities(log_probs: Array, tags: Sequence[str], spans: Sequence[Span]) -> list[float]:
    """Probability that exactly these words, no more and no fewer, are an entity of this type.

    Words are taken as independent, and invalid sequences are ruled out. A valid sequence ``c`` has the probability
    ``prod_t p[t, c_t] / Z``, where ``Z`` makes them sum to 1. A span's is the sum over the valid sequences that have
    it: ``B`` at its start, ``I`` up to its stop, no ``I`` of its type after it. 0 for a type without tags. **Source**:
    Rabiner 1989, section III A (forward and backward sums); Culotta & McCallum 2004 for spans of a CRF, of which this
    is the case without learned transitions. In logarithms, so that no product underflows. Of the valid O O, O B, B O, B
    B and B I, the last is the span of both words:

    >>> both = np.log([[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]])
    >>> [round(p, 4) for p in span_probabilities(both, ["O", "B-x", "I-x"], [Span(0, 2, "x"), Span(0, 1, "x")])]
    [0.5091, 0.2182]
    """
    first, step = _rules(log_probs, tags)  # (C,), (C, C)
    scores, size = np.asarray(log_probs, np.float64), len(log_probs)
    before, behind = np.empty_like(scores), np.zeros_like(scores)  # (T, C) log sums up to a tag, and after it
    for t in range(size):
        before[t] = scores[t] + (np.logaddexp.reduce(before[t - 1][:, None] + step, axis=0) if t else first)
    for t in range(size - 2, -1, -1):
        behind[t] = np.logaddexp.reduce(step + scores[t + 1] + behind[t + 1], axis=1)
    place, found = {tag: c for c, tag in enumerate(tags)}, []
    for span in spans:
        if not 0 <= span.start < span.stop <= size:
            raise ValueError(f"span_probabilities: expected spans in {size} words, got {span}")
        begin, inside = place.get(f"B-{span.type}"), place.get(f"I-{span.type}")
        if begin is None or (inside is None and span.stop - span.start > 1):
            found.append(0.0)
            continue
        total = before[span.start, begin] + scores[span.start + 1 : span.stop, inside or 0].sum()
        if span.stop < size:  # whatever may begin a sentence may follow the end of an entity
            total += np.logaddexp.reduce(scores[span.stop] + behind[span.stop] + first)
        found.append(float(np.exp(min(0.0, total - np.logaddexp.reduce(before[-1])))))
    return found


# -------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class TaggedSentences:
    """Sentences as words, and each word's tag, checked; tags of any of the :data:`SCHEMES` are kept as IOB2.

    InputError, a ValueError, for no sentences, an empty one, an empty word, unequal numbers of words and tags, and tags
    of no scheme. ``where(i, n)`` names the place of the n-th word of sentence i in messages.

    >>> TaggedSentences("tiny", [["Ada", "Byron", "sang"]], [["I-person", "I-person", "O"]]).tags
    [['B-person', 'I-person', 'O']]
    """

    name: str
    sentences: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]]
    where: InitVar[Callable[[int, int], str] | None] = None

    def __post_init__(self, where: Callable[[int, int], str] | None) -> None:
        where = where or (lambda i, n: f"{self.name}, sentence {i}, word {n}")
        if len(self.sentences) != len(self.tags) or not len(self.sentences):
            raise InputError(
                f"{self.name}: expected tags for each sentence, and at least one sentence, got "
                f"{len(self.sentences):,} sentences and {len(self.tags):,} rows of tags"
            )
        for i, (words, tags) in enumerate(zip(self.sentences, self.tags, strict=True)):
            are_lists = all(
                isinstance(row, (Sequence, np.ndarray)) and not isinstance(row, str) for row in (words, tags)
            )
            if not are_lists or len(words) != len(tags) or not len(words):
                got = f"{len(words)} words and {len(tags)} tags" if are_lists else f"{words!r:.60} and {tags!r:.60}"
                raise InputError(f"{where(i, 1)}: expected a tag for each word, and at least one word, got {got}")
            for n, word in enumerate(words, 1):
                if not checked_text(word, "tokens", where(i, n)).strip():
                    raise InputError(f"{where(i, n)}: a word must not be blank, got {word!r:.60}")
        scheme = scheme_of(self.tags)
        rows = [iob2(tags, scheme, lambda n, i=i: where(i, n)) for i, tags in enumerate(self.tags)]  # type: ignore[misc]
        object.__setattr__(self, "tags", rows)

    @property
    def words(self) -> int:
        """Number of words in all sentences."""
        return sum(map(len, self.sentences))

    @property
    def types(self) -> tuple[str, ...]:
        """Entity types that occur, sorted."""
        return tuple(sorted({tag[2:] for tags in self.tags for tag in tags} - {""}))


def read_tagged(file: str | Path) -> TaggedSentences:
    r"""Read tagged sentences; InputError, a ValueError, names file and line of a mistake.

    JSONL with the lists ``tokens`` and ``tags`` in each line, or CoNLL (.conll, .iob2, .bioes, .txt, ...): a word a
    line, in columns separated by tabs or spaces, of which the first is the word and the last its tag, and an empty line
    after each sentence; ``-DOCSTART-`` lines are skipped. Plain or .gz.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "tiny.conll"
    >>> _ = file.write_text("-DOCSTART- -X- O\n\nAda NNP I-person\nsang VBD O\n\nhello UH O\n")
    >>> read_tagged(file).sentences
    (['Ada', 'sang'], ['hello'])
    """
    kind = told_format(file)
    suffix = Path(str(file).lower().removesuffix(".gz")).suffix
    if kind not in (None, "jsonl") or (kind is None and suffix not in _SUFFIXES):
        raise InputError(f"{file}: expected a name that ends in .jsonl or {', '.join(_SUFFIXES)}, optionally .gz")
    found: list[tuple[int, Sequence[str], Sequence[str]]] = []  # the line it begins on, words, tags
    if kind == "jsonl":
        table = read_table(file, input_format="jsonl")
        found = [(line, words, tags) for line, (words, tags) in table.pick(("tokens", "tags"))]
    else:
        count, words, tags = 0, list[str](), list[str]()  # columns; the sentence that is being read
        with open_bytes(file) as stream:
            for line, row in decode_lines(stream, str(file)):
                cells = [cell.strip() for cell in (row.split("\t") if "\t" in row else row.split())]
                if not row.strip() or cells[0] == "-DOCSTART-":
                    words, tags = [], []
                    continue
                count = count or len(cells)
                if count < 2 or len(cells) != count:
                    wanted = "at least 2 columns" if count < 2 else f"{count} columns, as before"
                    said = f"first the word and last its tag, got {len(cells)}: {row!r:.60}"
                    raise InputError(f"{file}, line {line}: expected {wanted}, {said}")
                if not words:
                    found.append((line, words, tags))
                words.append(cells[0])
                tags.append(cells[-1])
        if count > 2 and all(list(words) == [str(n) for n in range(1, len(words) + 1)] for _, words, _ in found):
            line = found[0][0]
            raise InputError(f"{file}, line {line}: expected the word first, got its number, as in CoNLL-U")
    if not found:
        raise InputError(f"{file}: no sentences in the file")
    lines, sentences, rows = zip(*found, strict=True)

    def where(i: int, n: int) -> str:
        return f"{file}, line {lines[i]}, word {n}" if kind == "jsonl" else f"{file}, line {lines[i] + n - 1}"

    return TaggedSentences(Path(file).name, sentences, rows, where)


# ------------------------------------------------------------------------------------------------------- counts


def span_counts(
    expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], types: Sequence[str] = ()
) -> Array:
    """Right, predicted and expected spans of each sentence, of all types and of each: (S, Y, 3).

    **Source**: Tjong Kim Sang & De Meulder 2003 (``conlleval``);
    ``seqeval.metrics.f1_score(..., mode="strict", scheme=IOB2)``. Half a name is no name:

    >>> span_counts([["B-person", "I-person", "B-person"]], [["B-person", "O", "B-person"]])
    array([[[1, 2, 2]]])
    """
    if [len(tags) for tags in expected] != [len(tags) for tags in predicted]:
        raise ValueError(
            "span_counts: expected tags of the same sentences, got different numbers of sentences or words; "
            "do both belong to the same file?"
        )
    number = {name: y for y, name in enumerate(types, 1)}
    counts = np.zeros((len(expected), 1 + len(types), 3), np.intp)
    for sentence, one, other in zip(counts, expected, predicted, strict=True):
        there, said = set(spans_of(one)), set(spans_of(other))
        for column, spans in enumerate((there & said, said, there)):
            sentence[0, column] = len(spans)
            for span in spans:
                if span.type in number:
                    sentence[number[span.type], column] += 1
    return counts


def rates(counts: Array, nothing: float = 0.0) -> Array:
    """Precision ``right / predicted``, recall ``right / expected`` and F1 ``2 right / (predicted + expected)``.

    (..., 3) -> (..., 3); ``nothing`` where there is nothing to divide by, 0 as in ``conlleval``.

    >>> rates(np.array([2, 5, 3])).round(3)
    array([0.4  , 0.667, 0.5  ])
    """
    right, predicted, expected = np.moveaxis(counts, -1, 0)
    below = np.stack([predicted, expected, (predicted + expected) / 2], axis=-1)
    return np.where(below > 0, right[..., None] / np.where(below > 0, below, 1), nothing)
