"""Tags: what IOB2 is, decoding against all sequences, F1 by hand, files, and what is refused."""

import gzip
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisbert.analysis.decoding import greedy, span_probabilities, viterbi
from minisbert.analysis.tagging import (
    Span,
    SpanScore,
    TaggedSentences,
    check_tags,
    read_tagged,
    repair,
    span_counts,
    span_score,
    spans_of,
    surface_score,
    tags_of,
)
from minisbert.tables import InputError

TAGS = ["B-x", "B-y", "I-x", "I-y", "O"]


def is_valid(tags):
    """IOB2, written without the package: an I has a B or I of its type before it."""
    return all(not tag.startswith("I") or (i > 0 and tags[i - 1] in (f"B{tag[1:]}", tag)) for i, tag in enumerate(tags))


def sequences(count, tags=TAGS):
    return [list(one) for one in itertools.product(tags, repeat=count) if is_valid(one)]


valid_tags = st.lists(st.sampled_from(TAGS), max_size=8).map(repair)
corpora = st.lists(st.lists(st.sampled_from(TAGS), min_size=1, max_size=6).map(repair), min_size=1, max_size=6)


# -------------------------------------------------------------------------------------------------------- scheme


def test_every_sequence_of_three_is_judged_as_the_rule_says():
    for tags in itertools.product(TAGS, repeat=3):
        if is_valid(tags):
            check_tags(tags)
        else:
            with pytest.raises(ValueError, match="it continues nothing"):
                check_tags(tags)


@pytest.mark.parametrize("tag", ["", "o", "B", "B-", "I-", "X-person", "person", "B-two words", None, 3, "S-x"])
def test_what_is_no_tag_is_refused(tag):
    with pytest.raises(ValueError, match="word 2: expected a tag O, B-type or I-type"):
        check_tags(["O", tag])


def test_types_may_hold_hyphens():
    assert spans_of(["B-creative-work", "I-creative-work"]) == [Span(0, 2, "creative-work")]


def test_spans_by_hand():
    tags = ["B-x", "B-x", "I-x", "O", "B-y", "B-x", "I-x", "I-x"]
    assert spans_of(tags) == [Span(0, 1, "x"), Span(1, 3, "x"), Span(4, 5, "y"), Span(5, 8, "x")]
    assert spans_of([]) == [] and spans_of(["O", "O"]) == []


def test_repair_by_hand():
    # as conlleval reads IOB1 and stray tags: another type begins anew, and so does what follows O
    assert repair(["I-x", "I-x", "O", "I-y", "I-x", "B-x", "I-y"]) == ["B-x", "I-x", "O", "B-y", "B-x", "B-x", "B-y"]


@given(st.lists(st.sampled_from(TAGS), max_size=8))
def test_repair_gives_valid_tags_and_leaves_those_alone(tags):
    mended = repair(tags)
    assert is_valid(mended) and repair(mended) == mended
    assert mended == tags or not is_valid(tags)
    assert [tag[1:] for tag in mended] == [tag[1:] for tag in tags]  # no type is changed


@given(valid_tags)
def test_tags_survive_as_spans(tags):
    assert tags_of(spans_of(tags), len(tags)) == tags


@pytest.mark.parametrize("spans", [[Span(0, 2, "x"), Span(1, 3, "y")], [Span(1, 1, "x")], [Span(2, 5, "x")]])
def test_spans_that_cannot_be_are_refused(spans):
    with pytest.raises(ValueError, match="not empty and not overlapping"):
        tags_of(spans, 4)


# ------------------------------------------------------------------------------------------------------ decoding


@pytest.mark.parametrize("seed", range(8))
def test_viterbi_finds_the_best_of_all_valid_sequences(seed):
    rng = np.random.default_rng(seed)
    for count in (1, 2, 3, 4, 5):
        scores = rng.normal(0, 3, (count, len(TAGS)))
        every = sequences(count)
        sums = [sum(scores[t, TAGS.index(tag)] for t, tag in enumerate(tags)) for tags in every]
        assert viterbi(scores, TAGS) == every[int(np.argmax(sums))]


def test_viterbi_leaves_scores_as_they_are_and_takes_any_order_of_tags():
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 2, (6, 5)).astype(np.float32)
    before = scores.copy()
    found = viterbi(scores, TAGS)
    order = rng.permutation(5)
    assert viterbi(scores[:, order], [TAGS[i] for i in order]) == found
    assert np.array_equal(scores, before)
    assert viterbi(scores + 7, TAGS) == found


def test_viterbi_and_greedy_agree_where_the_best_tags_are_valid():
    scores = np.full((4, 5), -5.0)
    for t, tag in enumerate(["O", "B-x", "I-x", "B-y"]):
        scores[t, TAGS.index(tag)] = 0.0
    assert viterbi(scores, TAGS) == greedy(scores, TAGS) == ["O", "B-x", "I-x", "B-y"]
    assert viterbi(scores[:0], TAGS) == greedy(scores[:0], TAGS) == []


def test_greedy_mends_what_viterbi_avoids():
    scores = np.log([[0.02, 0.02, 0.46, 0.02, 0.48], [0.02, 0.02, 0.9, 0.02, 0.04]])
    assert greedy(scores, TAGS) == ["O", "B-x"]
    # O I-x is not valid; O B-x scores 0.48 x 0.02, B-x I-x 0.02 x 0.9, O O 0.48 x 0.04: the last is the best
    assert viterbi(scores, TAGS) == ["O", "O"]


@pytest.mark.parametrize("decode", [viterbi, lambda scores, tags: span_probabilities(scores, tags, [])])
def test_scores_that_have_no_best_sequence_are_refused(decode):
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="with NaN or infinity"):
            decode(np.array([[bad, 0.0, 0.0, 0.0, 0.0]]), TAGS)
    with pytest.raises(ValueError, match="of 5 tags, got shape"):
        decode(np.zeros((2, 4)), TAGS)
    with pytest.raises(ValueError, match="without which no sequence is valid"):
        decode(np.zeros((2, 1)), ["I-x"])


@pytest.mark.parametrize("seed", range(6))
def test_the_probability_of_every_span_is_the_sum_over_all_sequences_that_have_it(seed):
    rng = np.random.default_rng(seed)
    for count in (1, 2, 4):
        log_probs = np.log(rng.dirichlet(np.full(5, 0.5), count) + 1e-9)
        every = sequences(count)
        weights = np.exp([sum(log_probs[t, TAGS.index(tag)] for t, tag in enumerate(tags)) for tags in every])
        spans = [Span(i, j, kind) for i in range(count) for j in range(i + 1, count + 1) for kind in "xy"]
        expected = [
            sum(w for w, tags in zip(weights, every, strict=True) if span in spans_of(tags)) / weights.sum()
            for span in spans
        ]
        # measured: 4e-16
        np.testing.assert_allclose(span_probabilities(log_probs, TAGS, spans), expected, atol=1e-14)


def test_probabilities_that_underflow_are_still_right():
    # the product of 60 words would be e^-60000; each word is sure of a tag that may not stand there
    log_probs = np.full((60, 5), -2000.0)
    log_probs[:, 2] = 0.0  # I-x
    log_probs[:, 0] = -1000.0  # B-x
    assert span_probabilities(log_probs, TAGS, [Span(0, 60, "x"), Span(0, 1, "x")]) == [1.0, 0.0]


def test_a_span_of_unknown_tags_has_no_probability():
    both = np.log(np.full((2, 2), 0.5))
    assert span_probabilities(both, ["B-x", "O"], [Span(0, 1, "x"), Span(0, 2, "x"), Span(0, 1, "z")]) == [
        0.5,
        0.0,
        0.0,
    ]
    with pytest.raises(ValueError, match="expected spans in 2 words"):
        span_probabilities(both, ["B-x", "O"], [Span(1, 3, "x")])


# -------------------------------------------------------------------------------------------------------- scores


def test_scores_by_hand():
    # seqeval's own example: of two names one is found, the other with a wrong start
    expected = [["O", "O", "O", "B-misc", "I-misc", "I-misc", "O"], ["B-per", "I-per", "O"]]
    predicted = [["O", "O", "B-misc", "I-misc", "I-misc", "I-misc", "O"], ["B-per", "I-per", "O"]]
    assert span_score(expected, predicted) == SpanScore(1, 2, 2)
    assert span_score(expected, predicted).f1 == 0.5
    assert span_counts(expected, predicted, "misc").tolist() == [[0, 1, 1], [0, 0, 0]]
    assert span_counts(expected, predicted, "per").sum(axis=0).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("predicted", "counts"),
    [
        (["B-x", "I-x", "O", "B-y"], (2, 2, 2)),
        (["B-y", "I-y", "O", "B-y"], (1, 2, 2)),  # another type
        (["B-x", "O", "O", "B-y"], (1, 2, 2)),  # too short
        (["B-x", "B-x", "O", "B-y"], (1, 3, 2)),  # in two pieces
        (["B-x", "I-x", "I-x", "B-y"], (1, 2, 2)),  # too long
        (["O", "O", "O", "O"], (0, 0, 2)),
        (["O", "B-x", "O", "B-y"], (1, 2, 2)),  # its end alone
    ],
)
def test_a_span_is_right_or_it_is_not(predicted, counts):
    assert span_score([["B-x", "I-x", "O", "B-y"]], [predicted]) == SpanScore(*counts)


def test_precision_recall_and_nothing():
    score = SpanScore(right=2, predicted=5, expected=3)
    assert (score.precision, score.recall) == (0.4, 2 / 3) and score.f1 == pytest.approx(0.5)
    empty = SpanScore(0, 0, 0)
    assert (empty.precision, empty.recall, empty.f1) == (0.0, 0.0, 0.0)


@given(corpora, st.randoms(use_true_random=False))
def test_f1_of_what_is_right_is_1_and_order_does_not_matter(tags, random):
    score = span_score(tags, tags)
    assert score.f1 == (1.0 if any("B" in tag for row in tags for tag in row) else 0.0)
    predicted = [repair(random.sample(row, len(row))) for row in tags]
    counts = span_counts(tags, predicted)
    order = random.sample(range(len(tags)), len(tags))
    shuffled = span_counts([tags[i] for i in order], [predicted[i] for i in order])
    assert np.array_equal(counts[order], shuffled)
    # the other way round precision is recall, and types add up
    back = span_counts(predicted, tags)
    assert np.array_equal(counts[:, [0, 2, 1]], back)
    assert np.array_equal(sum(span_counts(tags, predicted, kind) for kind in "xy"), counts)


def test_scores_refuse_other_sentences_and_stray_tags():
    with pytest.raises(ValueError, match="do both belong to the same file"):
        span_counts([["O"]], [["O", "O"]])
    with pytest.raises(ValueError, match="it continues nothing"):
        span_counts([["O"]], [["I-x"]])


def test_surface_forms_by_hand():
    sentences = [["Ada", "met", "Ada"], ["Ada"], ["New", "York"], ["Bo"]]
    expected = [["B-x", "O", "B-x"], ["B-y"], ["B-y", "I-y"], ["O"]]
    predicted = [["O", "O", "B-x"], ["B-x"], ["B-y", "I-y"], ["B-x"]]
    # there: Ada x, Ada y, New York y; said: Ada x, New York y, Bo x; right: Ada x (once), New York y
    assert surface_score(sentences, expected, predicted) == SpanScore(2, 3, 3)
    # found elsewhere is not right: Ada x stands in the first sentence, and is said of the second alone
    assert surface_score(sentences[:2], expected[:2], [["O"] * 3, ["B-x"]]) == SpanScore(0, 1, 2)


def test_the_published_counts_of_the_shared_task():
    # the best two systems of WNUT 2017: their published output as these functions count it, and the F1 of their papers
    assert round(100 * SpanScore(355, 617, 1079).f1, 2) == 41.86
    assert round(100 * SpanScore(388, 824, 1079).f1, 2) == 40.78


# --------------------------------------------------------------------------------------------------------- files


def test_both_formats_give_the_same(tmp_path):
    rows = [(["Ada", "sang", "☃"], ["B-x", "O", "O"]), (["#tag", "New", "York"], ["O", "B-y", "I-y"])]
    lines = [json.dumps({"tokens": words, "tags": tags}) for words, tags in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    for name, blank in (("a.conll", "\t"), ("a.txt", " "), ("a.iob2", "   ")):
        text = "\n\n\n".join("\n".join(f"{w}{blank}{t}" for w, t in zip(*row, strict=True)) for row in rows)
        (tmp_path / name).write_text(f"\n{text}\n", encoding="utf-8")
    with gzip.open(tmp_path / "a.bio.gz", "wt", encoding="utf-8") as stream:
        stream.write(
            (tmp_path / "a.conll").read_text(encoding="utf-8").replace("\n\n", "\n \t\n").replace("\n", "\r\n")
        )
    for name in ("a.jsonl", "a.conll", "a.txt", "a.iob2", "a.bio.gz"):
        found = read_tagged(tmp_path / name)
        assert list(zip(found.sentences, found.tags, strict=True)) == rows, name
        assert (found.name, found.words, found.types) == (name, 6, ("x", "y"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"tokens": ["a", "b"], "tags": ["O"]}', "got 2 words and 1 tags"),
        ('{"tokens": [], "tags": []}', "at least one word, got 0 words and 0 tags"),
        ('{"tokens": ["a"], "tags": ["I-x"]}', "word 1 has the tag I-x at the beginning, where it continues nothing"),
        ('{"tokens": ["a"], "tags": ["X"]}', "word 1: expected a tag O, B-type or I-type, got 'X'"),
        ('{"tokens": ["a", " "], "tags": ["O", "O"]}', "word 2 must be a non-blank string, got ' '"),
        ('{"tokens": "ab", "tags": ["O", "O"]}', "expected a list in 'tokens'"),
        ('{"tokens": ["a"], "tags": [3]}', "tags"),
        ('{"tokens": ["a", null], "tags": ["O", "O"]}', "tokens"),
        ('{"words": ["a"], "tags": ["O"]}', "tokens"),
        ("[1]", "line 2"),
        ("{", "line 2"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path, line, message):
    file = tmp_path / "bad.jsonl"
    file.write_text(f'{{"tokens": ["a"], "tags": ["O"]}}\n{line}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl, line 2") as error:
        read_tagged(file)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a\tO\nb\n", 2, "got 1 column: 'b'"),
        ("a\tO\nb c O\n", 2, "got 3 columns"),
        ("a\tB-x\nb\tL-x\n", 2, "got 'L-x'; IOB2 is read, BILOU and IOBES are not"),
        ("-DOCSTART- -X- O O\n", 1, "got 4 columns"),
        ("a\tO\n\nb\tX\n", 3, "expected a tag O, B-type or I-type, got 'X'"),
        ("a\tO\n\nb\tO\nc\tI-x\n", 3, "word 2 has the tag I-x after O"),
        ("a\tO\n\tO\n", 1, "word 2 must be a non-blank string, got ''"),
    ],
)
def test_a_bad_line_of_conll_is_named(tmp_path, text, line, message):
    file = tmp_path / "bad.conll"
    file.write_text(text)
    with pytest.raises(InputError, match=rf"bad\.conll, line {line}") as error:
        read_tagged(file)
    assert message in str(error.value)


def test_files_without_sentences_and_of_other_kinds(tmp_path):
    for name in ("empty.jsonl", "empty.conll"):
        (tmp_path / name).write_text("\n")
        with pytest.raises(InputError, match="no sentences"):
            read_tagged(tmp_path / name)
    for name in ("table.csv", "table.tsv", "table.json", "table"):
        with pytest.raises(InputError, match=r"ends in \.jsonl or \.conll"):
            read_tagged(tmp_path / name)


def test_sentences_from_python_are_checked():
    with pytest.raises(ValueError, match="set, sentence 1: expected a tag for each word"):
        TaggedSentences("set", [["a"], ["b"]], [["O"], []])
    with pytest.raises(ValueError, match="at least one sentence"):
        TaggedSentences("set", [], [])
    with pytest.raises(ValueError, match="2 sentences and 1 rows"):
        TaggedSentences("set", [["a"], ["b"]], [["O"]])
    with pytest.raises(ValueError, match="sentence 0: expected a tag for each word"):
        TaggedSentences("set", ["a"], [["O"]])
