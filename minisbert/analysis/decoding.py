"""Scores of tags -> the valid tags of a sentence; probabilities of words -> the probability of an entity.

A classifier that scores each word on its own ignores the rule that ``I-x`` only follows ``B-x`` or ``I-x``.
:func:`greedy` repairs each word's best tag, :func:`viterbi` finds the best of all valid sequences, and
:func:`span_probabilities` applies the same rule to probabilities. Letters: ``T`` words of a sentence, ``C`` tags.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minisbert.analysis.tagging import OUTSIDE, Span, may_follow, repair
from minisbert.model import Array


def greedy(scores: Array, tags: Sequence[str]) -> list[str]:
    """Each word's best tag, repaired into a valid sequence (IOB2).

    (T, C) -> T tags

    >>> greedy(np.log([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]]), ["O", "B-x", "I-x"])
    ['O', 'B-x']
    """
    return repair([tags[c] for c in np.argmax(scores, axis=1)])


def viterbi(scores: Array, tags: Sequence[str]) -> list[str]:
    """``argmax sum_t scores[t, c_t]`` over all valid sequences, in which ``I-x`` only follows ``B-x`` or ``I-x``.

    (T, C) -> T tags

    **Source**: Viterbi 1967; Ratinov & Roth 2009 on hard constraints in entity recognition. Each word keeps, for each
    tag, the best way to end in it: ``T C^2`` steps instead of ``C^T`` sequences. ValueError for scores that are not
    finite, and if no sequence is valid. Greedy decoding would begin an entity at the second word; the best valid
    sequence begins it at the first:

    >>> viterbi(np.log([[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]]), ["O", "B-x", "I-x"])
    ['B-x', 'I-x']
    """
    _check_scores(scores, tags)
    first, step = _rules(tags)
    best = scores[:1] + first  # (1, C) of the sequences that end here in each tag
    came_from = np.zeros((len(scores), len(tags)), np.intp)  # (T, C)
    for t in range(1, len(scores)):
        ways = best.T + step  # (C, C) from a tag to the next
        came_from[t] = ways.argmax(axis=0)
        best = ways.max(axis=0, keepdims=True) + scores[t]  # (1, C)
    path = [int(best.argmax())] if len(scores) else []
    for t in range(len(scores) - 1, 0, -1):
        path.append(int(came_from[t, path[-1]]))
    return [tags[c] for c in reversed(path)]


DECODERS = {"viterbi": viterbi, "greedy": greedy}
"""By name: scores (T, C) -> valid tags."""


def _check_scores(scores: Array, tags: Sequence[str]) -> None:
    """Raise if there is no best sequence."""
    if scores.ndim != 2 or scores.shape[1] != len(tags) or not np.isfinite(scores).all():
        raise ValueError(
            f"expected finite scores (T, C) of {len(tags)} tags, got shape {scores.shape}"
            + ("" if np.isfinite(scores).all() else " with NaN or infinity")
        )
    if all(tag.startswith("I-") for tag in tags):
        raise ValueError(f"expected O or a B- tag, without which no sequence is valid, got {list(tags)}")


def _rules(tags: Sequence[str]) -> tuple[Array, Array]:
    """0 for tags that may begin a sentence (C,), and that may follow (C, C); minus infinity for the others."""
    first = [0.0 if may_follow(OUTSIDE, tag) else -np.inf for tag in tags]
    step = [[0.0 if may_follow(before, tag) else -np.inf for tag in tags] for before in tags]
    return np.array(first), np.array(step)


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
    _check_scores(log_probs, tags)
    place = {tag: c for c, tag in enumerate(tags)}
    scores = np.asarray(log_probs, np.float64)
    before, behind = _sums(scores, tags)
    found = []
    for span in spans:
        if not 0 <= span.start < span.stop <= len(scores):
            raise ValueError(f"span_probabilities: expected spans in {len(scores)} words, got {span}")
        begin, inside = place.get(f"B-{span.type}"), place.get(f"I-{span.type}")
        if begin is None or (inside is None and span.stop - span.start > 1):
            found.append(0.0)
            continue
        total = before[span.start, begin]
        if span.stop - span.start > 1:
            total += scores[span.start + 1 : span.stop, inside].sum()
        if span.stop < len(scores):
            # whatever may begin a sentence may follow the end of an entity
            on = scores[span.stop] + behind[span.stop] + _rules(tags)[0]  # (C,)
            total += np.logaddexp.reduce(on)
        found.append(float(np.exp(min(0.0, total - np.logaddexp.reduce(before[-1])))))
    return found


def _sums(scores: Array, tags: Sequence[str]) -> tuple[Array, Array]:
    """Log sums over all valid beginnings up to each tag of each word, and over all valid ends after it: (T, C) each."""
    first, step = _rules(tags)
    before, behind = np.empty_like(scores), np.zeros_like(scores)  # (T, C) each
    for t in range(len(scores)):
        ways = first if t == 0 else np.logaddexp.reduce(before[t - 1][:, None] + step, axis=0)  # (C,)
        before[t] = ways + scores[t]
    for t in range(len(scores) - 2, -1, -1):
        behind[t] = np.logaddexp.reduce(step + scores[t + 1] + behind[t + 1], axis=1)
    return before, behind
