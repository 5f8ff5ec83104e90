"""Tags: schemes read back from spans, decoding beside all sequences, counts by hand, files, and what is refused."""

import gzip
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisbert.analysis.tagging import (
    SCHEMES,
    Span,
    TaggedSentences,
    iob2,
    rates,
    read_tagged,
    repair,
    scheme_of,
    span_counts,
    span_probabilities,
    spans_of,
    viterbi,
)
from minisbert.tables import InputError

TAGS = ["B-x", "B-y", "I-x", "I-y", "O"]
tag_rows = st.lists(st.sampled_from(TAGS), min_size=1, max_size=7)


def is_valid(tags):
    """IOB2, written without the package: an I has a B or I of its type before it."""
    return all(not tag.startswith("I") or (i > 0 and tags[i - 1] in (f"B{tag[1:]}", tag)) for i, tag in enumerate(tags))


def sequences(count):
    return [list(tags) for tags in itertools.product(TAGS, repeat=count) if is_valid(tags)]


def written(spans, count, scheme):
    """The tags of spans in a scheme, by its definition."""
    tags = ["O"] * count
    for before, (start, stop, kind) in zip([None, *spans], spans, strict=False):
        touches = before is not None and before.stop == start and before.type == kind
        inner = ["I"] * (stop - start - 2)
        letters = {
            "IOB1": ["B" if touches else "I", *"I" * (stop - start - 1)],
            "IOB2": ["B", *"I" * (stop - start - 1)],
            "BIOES": ["B", *inner, "E"] if stop - start > 1 else ["S"],
            "BILOU": ["B", *inner, "L"] if stop - start > 1 else ["U"],
        }[scheme]
        tags[start:stop] = [f"{letter}-{kind}" for letter in letters]
    return tags


# -------------------------------------------------------------------------------------------------------- scheme


@given(st.lists(tag_rows.map(repair), min_size=1, max_size=4))
def test_every_scheme_says_the_same_spans(rows):
    for scheme in SCHEMES:
        said = [written(spans_of(tags), len(tags), scheme) for tags in rows]
        assert list(map(list, TaggedSentences("t", [["w"] * len(tags) for tags in rows], said).tags)) == rows
        found = scheme_of(said)
        assert found == scheme or iob2(said[0], found) == rows[0]  # a few tags may be of several schemes


@given(tag_rows)
def test_repair_gives_valid_tags_and_only_valid_ones_are_iob2(tags):
    mended = repair(tags)
    assert is_valid(mended) and (mended == tags) == is_valid(tags) and [t[1:] for t in mended] == [t[1:] for t in tags]
    if is_valid(tags):
        assert iob2(tags) == tags
    else:
        with pytest.raises(InputError, match=r"expected the tag B-. in IOB2, got I-"):
            spans_of(tags)


# ------------------------------------------------------------------------------------------------------ decoding


@given(st.integers(0, 4), st.integers(0, 10_000), st.permutations(TAGS))
def test_decoders_beside_all_valid_sequences(count, seed, tags):
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.dirichlet(np.full(5, 0.5), count) + 1e-9)
    every = sequences(count)
    sums = np.array([sum(log_probs[t, tags.index(tag)] for t, tag in enumerate(one)) for one in every])
    assert viterbi(log_probs, tags) == every[int(sums.argmax())]
    spans = [Span(i, j, kind) for i in range(count) for j in range(i + 1, count + 1) for kind in "xy"]
    having = [np.array([span in spans_of(one) for one in every]) for span in spans]
    expected = [np.exp(sums)[has].sum() / np.exp(sums).sum() for has in having]
    np.testing.assert_allclose(span_probabilities(log_probs, tags, spans), expected, atol=1e-13)  # measured: 4e-16


def test_probabilities_that_underflow_and_types_without_tags():
    # the product of 60 words would be e^-60000; each word is sure of a tag that may not stand there
    log_probs = np.full((60, 5), -2000.0)
    log_probs[:, 2], log_probs[:, 0] = 0.0, -1000.0  # I-x, B-x
    assert span_probabilities(log_probs, TAGS, [Span(0, 60, "x"), Span(0, 1, "x")]) == [1.0, 0.0]
    both, spans = np.log(np.full((2, 2), 0.5)), [Span(0, 1, "x"), Span(0, 2, "x"), Span(0, 1, "z")]
    assert span_probabilities(both, ["B-x", "O"], spans) == [0.5, 0.0, 0.0]


# -------------------------------------------------------------------------------------------------------- counts


def test_f1_is_what_two_papers_report():
    # the best two systems of WNUT 2017: their published output as these functions count it, and the F1 of their papers
    published = rates(np.array([[355, 617, 1079], [388, 824, 1079], [0, 0, 0]]))[:, 2]
    assert (100 * published).round(2).tolist() == [41.86, 40.78, 0.0]


@given(st.lists(tag_rows.map(repair), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_counts_beside_sets_of_all_spans(rows, random):
    predicted = [repair(random.sample(row, len(row))) for row in rows]
    counts = span_counts(rows, predicted, ["x", "y"])
    named = [{(i, *span) for i, tags in enumerate(one) for span in spans_of(tags)} for one in (predicted, rows)]
    assert counts.sum(axis=0)[0].tolist() == [len(named[0] & named[1]), *map(len, named)]
    assert np.array_equal(counts[:, 0], counts[:, 1:].sum(axis=1))


# --------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["a.jsonl", "a.conll", "a.txt", "a.bio.gz"])
def test_all_formats_and_schemes_give_the_same(tmp_path, name):
    rows = [(["Ada", "sang", "☃"], ["B-x", "O", "O"]), (["#tag", "New", "York", "Bo"], ["O", "B-y", "I-y", "B-y"])]
    for scheme in SCHEMES:
        said = [(words, written(spans_of(tags), len(words), scheme)) for words, tags in rows]
        if name == "a.jsonl":
            text = "\n".join(json.dumps({"tokens": words, "tags": tags}) for words, tags in said)
        else:  # tabs, or spaces and columns between, Windows' line ends, and lines of blanks between sentences
            between = {"a.conll": "\t", "a.txt": " NN O ", "a.bio.gz": "   "}[name]
            head = "-DOCSTART- -X- -X- O\n" if name == "a.txt" else ""
            blocks = ["\n".join(f"{w}{between}{t}" for w, t in zip(*row, strict=True)) for row in said]
            text = (head + "\n \t\n\n".join(blocks) + "\n").replace("\n", "\r\n" if name == "a.bio.gz" else "\n")
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        found = read_tagged(tmp_path / name)
        assert list(map(tuple, zip(found.sentences, found.tags, strict=True))) == rows
        assert (found.name, found.words, found.types) == (name, 7, ("x", "y"))


JSONL = '{"tokens": ["a"], "tags": ["O"]}\n%s\n'


def test_a_mistake_is_named_with_its_place(tmp_path):
    for name, text, place in (
        ("a.jsonl", JSONL % '{"tokens": ["a", "b"], "tags": ["O"]}', "line 2, word 1: .* 2 words and 1 tags"),
        ("a.jsonl", JSONL % '{"tokens": "ab", "tags": ["O", "O"]}', "line 2, .* 'ab'"),
        ("a.jsonl", JSONL % '{"tokens": ["a", " "], "tags": ["O", "O"]}', "line 2, word 2: .*blank"),
        ("a.conll", "a\tO\nb\n", "line 2: expected 2 columns, .* got 1: 'b'"),
        ("a.conll", "a\n", "line 1: expected at least 2 columns"),
        ("a.conll", "1 Ada NNP B-x\n2 sang VBD O\n", "line 1: .*CoNLL-U"),
        ("a.conll", "a\tO\n\nb\tO\nc\tX\n", "line 4: .*IOB2.*BIOES.*BILOU.* got 'X'"),
        ("a.conll", "a B-x\n\nb O\nc I-x\n", "line 4: expected the tag B-x in IOB2, got I-x"),
        ("a.conll", "a S-x\nb U-x\n", "line 2: .* got 'U-x' in BIOES"),
        ("a.conll", "a U-x\n\nb B-x\nc O\n", "line 3: expected the tag U-x in BILOU, got B-x"),
        ("a.conll", "\n", "no sentences"),
        ("a.tsv", "", "ends in .jsonl or .conll"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"{tmp_path / name}.*{place}"):
            read_tagged(tmp_path / name)
