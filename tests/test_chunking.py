"""Long texts: where they are cut, what becomes of the chunks, and that a short text does not notice."""

import itertools
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import COMPANY, TEXTS, tiny_dense, write_model

from minisbert import SentenceEncoder
from minisbert import encoder as encoder_module
from minisbert.long_texts import COMPOSITIONS, compose, cut, describe, share_out
from minisbert.model import tokens as tokens_module
from minisbert.model.ops import normalize
from minisbert.model.pooling import Normalize, Pooling, apply_modules
from minisbert.model.tokens import OverflowReport, TokenSpans

pytestmark = pytest.mark.usefixtures("one_thread")

LONG = "the cat sat on the mat. the dog ran, unable! i love soup? snow and a b c d e f g h i. soup " * 4


def model(folder, **choices):
    return SentenceEncoder(write_model(folder, **{"modules": (Pooling(), Normalize()), **choices}))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return model(tmp_path_factory.mktemp("chunks") / "model")


def spans_of(words):
    """Spans of a text of these words, a token each, with one blank between them; the text too."""
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
    stops = starts + [len(word) for word in words]
    return " ".join(words), TokenSpans(np.arange(len(words)), starts, stops, np.arange(len(words)))


# ------------------------------------------------------------------------------------------------- spans


def test_spans_have_the_ids_that_the_tokenizer_gives_and_their_places(tiny):
    for text in (*TEXTS, LONG, "[SEP] literally [MASK]", "e\u0301te\u0301  \u2603\n\n  x"):
        spans = tiny.model.tokenizer.spans(text)
        np.testing.assert_array_equal(spans.token_ids, tiny.model.tokenizer([text], 10_000).token_ids[1:-1])
        pieces = tiny.model.tokenizer.pieces(spans.token_ids)
        for piece, start, stop in zip(pieces, spans.starts, spans.stops, strict=True):
            letters = unicodedata.normalize("NFD", text[start:stop].lower())
            said = "".join(letter for letter in letters if not unicodedata.combining(letter))
            assert piece.removeprefix("##") == said or (piece == "[UNK]" and said) or piece == text[start:stop]


def test_a_text_that_is_split_part_by_part_gives_the_same_spans(tiny, monkeypatch):
    whole = tiny.model.tokenizer.spans(LONG)
    monkeypatch.setattr(tokens_module, "_PART", 7)
    parts = tiny.model.tokenizer.spans(LONG)
    for name in ("token_ids", "starts", "stops"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    np.testing.assert_array_equal(np.diff(parts.words) != 0, np.diff(whole.words) != 0)


def test_a_text_is_not_split_where_a_token_may_hold_a_blank(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens_module, "_PART", 2)
    encoder = model(tmp_path / "blank")
    encoder.model.tokenizer.library.add_tokens(["the cat"])
    assert encoder.model.tokenizer.pieces(encoder.model.tokenizer.spans("i love the cat").token_ids)[-1] == "the cat"


# ------------------------------------------------------------------------------------------------- cutting


@st.composite
def random_spans(draw):
    """A text of words, stops and blanks as tokens; some characters are several tokens."""
    text, rows = "", []
    for word in range(draw(st.integers(0, 60))):
        text += draw(st.sampled_from(["", "", " ", "\n\n"])) if text else ""
        for part in draw(st.lists(st.sampled_from(["a", "bc", ".", "!", "韓"]), min_size=1, max_size=3)):
            repeat = 3 if part == "韓" else 1
            rows += [(1, len(text), len(text) + len(part), word)] * repeat
            text += part
    return text, TokenSpans(*np.array(rows, np.int64).reshape(-1, 4).T)


@settings(max_examples=50)
@given(random_spans(), st.integers(3, 20), st.data())
def test_windows_hold_every_token_fit_and_never_cut_a_character(made, room, data):
    text, spans = made
    overlap = data.draw(st.integers(0, room - 1))
    count = len(spans.token_ids)
    windows = list(cut(text, spans, room, overlap))
    assert windows[0][0] == 0 and windows[-1][1] == count
    assert all(stop - first <= room for first, stop in windows)
    assert all(first < stop for first, stop in windows) or count == 0
    for (_, stop), (first, further) in itertools.pairwise(windows):
        assert stop - overlap <= first <= stop < further
    for edge in {edge for window in windows for edge in window} - {0, count}:
        assert spans.starts[edge] >= spans.stops[edge - 1], "inside a character"


@settings(max_examples=50)
@given(random_spans(), st.integers(3, 20))
def test_without_overlap_the_chunks_are_the_text_but_for_blanks(made, room):
    text, spans = made
    chunks = describe(text, spans, list(cut(text, spans, room)))
    assert re.sub(r"\s", "", "".join(text[chunk.start : chunk.stop] for chunk in chunks)) == re.sub(r"\s", "", text)
    assert sum(chunk.new_tokens for chunk in chunks) == sum(chunk.tokens for chunk in chunks) == len(spans.token_ids)


def test_a_cut_prefers_the_end_of_a_sentence_then_a_blank_then_a_word():
    text, spans = spans_of(["one", "two", "three.", "four", "five", "six", "seven", "eight"])
    assert list(cut(text, spans, 5)) == [(0, 3), (3, 8)]  # behind "three."
    assert list(cut(text, spans, 8)) == [(0, 8)]
    assert next(iter(cut(text, spans, 7))) == (0, 7)  # the sentence ends in the first half: too far back
    glued = TokenSpans(np.arange(6), *np.array([[0, 3, 4, 7, 8, 9], [3, 4, 6, 8, 9, 12]]), np.array([0, 0, 0, 1, 2, 3]))
    assert next(iter(cut("aaabcc de fff"[:12], glued, 5))) == (0, 3)  # the blank, not between the words d|e
    one_word = TokenSpans(np.arange(6), np.arange(6), np.arange(1, 7), np.array([0, 0, 0, 0, 1, 1]))
    assert next(iter(cut("abcdef", one_word, 5))) == (0, 4)  # between words


def test_sentences_end_in_several_scripts_and_an_overlap_begins_with_one():
    for text, room, sentence in (
        ("He said “stop.” Then left now", 8, "He said “stop.”"),
        ("终于。然后她走了", 5, "终于。"),
        ("a line\n \nanother line here", 3, "a line"),
        ("So (maybe!) not this", 6, "So (maybe!)"),
        ("no.dot inside a.word.", 6, "no.dot inside"),  # not a sentence: no blank behind the stop
    ):
        places = [match.span() for match in re.finditer(r"[a-zA-Z]+|\S", text)]
        spans = TokenSpans(np.arange(len(places)), *np.array(places).T, np.arange(len(places)))
        chunks = describe(text, spans, list(cut(text, spans, room)))
        assert text[chunks[0].start : chunks[0].stop] == sentence
    windows = list(cut(*spans_of(["a", "b", "c.", "d", "e", "f", "g.", *"hijklmnop"]), 8, overlap=5))
    assert windows[:2] == [(0, 7), (3, 11)]  # from "d", behind "c.", though there was room from "c."


def test_a_character_with_more_tokens_than_room_is_an_error():
    spans = TokenSpans(np.arange(4), np.array([0, 0, 0, 1]), np.array([1, 1, 1, 2]), np.zeros(4, int))
    with pytest.raises(ValueError, match=r"the character '한' at 0 has more tokens than a chunk has room for, 2; make"):
        list(cut("한a", spans, 2))


# ------------------------------------------------------------------------------------------------- composing


def test_compositions_by_hand():
    chunks = np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]], np.float32)
    counts = np.array([6, 3, 3])
    expected = {"weighted_mean": [1.5, 0.25], "mean": [1.0, 1 / 3], "max": [3.0, 1.0], "first": [3.0, 0.0]}
    assert expected.keys() == COMPOSITIONS.keys()
    for name, vector in expected.items():
        result = compose(chunks, counts, name, normalized=False)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, vector, rtol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(compose(chunks, counts, name)), 1.0, rtol=1e-6)
    last = compose(chunks, counts, lambda embeddings, new_tokens: embeddings[new_tokens == 3][0], normalized=False)
    np.testing.assert_array_equal(last, [0.0, 1.0])


def test_a_short_text_has_exactly_the_vector_of_encode(tiny):
    for composition in (*COMPOSITIONS, "late", lambda e, n: e[0] * 9):
        for deterministic in (False, True):
            chunked = tiny.encode(TEXTS, overflow="chunk", composition=composition, deterministic=deterministic)
            np.testing.assert_array_equal(chunked, tiny.encode(TEXTS, deterministic=deterministic))


def test_a_text_in_any_company_and_with_more_chunks_than_are_held(tiny, monkeypatch):
    texts = [LONG, "soup", LONG[:200], "", "dog"]
    alone = np.array([tiny.encode(text, overflow="chunk") for text in texts])
    np.testing.assert_allclose(tiny.encode(texts, overflow="chunk"), alone, atol=COMPANY)
    for composition in ("weighted_mean", "late"):
        options = {"overflow": "chunk", "composition": composition, "deterministic": True}
        exact = tiny.encode(texts, **options)
        with monkeypatch.context() as patch:
            patch.setattr(encoder_module, "BLOCK_TEXTS", 3)
            np.testing.assert_array_equal(tiny.encode(texts[::-1], **options)[::-1], exact)
    assert tiny.encode([], overflow="chunk").shape == (0, 12) and tiny.encode_chunks([]) == []


def test_encode_composes_the_chunks(tiny):
    texts, options = [LONG, "soup", LONG[40:140]], {"chunk_tokens": 9, "overlap": 2}
    chunks = tiny.encode_chunks(texts, **options)
    for composition in (*COMPOSITIONS, lambda e, n: e[-1]):
        expected = [
            compose(found.embeddings, np.array([chunk.new_tokens for chunk in found.chunks]), composition)
            for found in chunks
        ]
        found = tiny.encode(texts, overflow="chunk", composition=composition, **options)
        np.testing.assert_allclose(found, expected, atol=COMPANY)


def test_scaled_only_where_the_model_scales(tmp_path):
    raw = model(tmp_path / "raw", modules=(Pooling(), tiny_dense(12, 8)))
    vector = raw.encode(LONG, overflow="chunk", composition="mean")
    np.testing.assert_allclose(vector, raw.encode_chunks(LONG).embeddings.mean(axis=0), atol=COMPANY)
    scaled = raw.encode(LONG, overflow="chunk", composition="mean", normalize_embeddings=True, truncate_dim=5)
    np.testing.assert_allclose(scaled, normalize(vector[:5]), atol=COMPANY)


# ------------------------------------------------------------------------------------------------- late


@settings(max_examples=50)
@given(random_spans(), st.integers(3, 20), st.integers(0, 4), st.data())
def test_each_token_is_shared_out_once(made, room, skipped, data):
    text, spans = made
    windows = list(cut(text, spans, room, data.draw(st.integers(0, room - 1))))
    shares = share_out(windows, front=4, back=1, skipped=skipped)
    taken = []
    for i, ((first, stop), share) in enumerate(zip(windows, shares, strict=True)):
        ids = ["[CLS]", "p", "p", "p", *range(first, stop), "[SEP]"]
        assert share.before == len(taken) + skipped and share.first < share.stop
        taken += ids[share.first : share.stop]
        assert i or share.first == skipped
    assert taken == [*["[CLS]", "p", "p", "p"][skipped:], *range(len(spans.token_ids)), "[SEP]"]


LATE = [(("mean",), True), (("weightedmean", "max"), False), (("cls", "lasttoken", "mean_sqrt_len_tokens"), True)]


@pytest.mark.parametrize(("modes", "include_prompt"), LATE)
def test_late_composition_is_the_pooling_of_all_windows_tokens(tmp_path, modes, include_prompt):
    modules = (Pooling(modes, include_prompt), tiny_dense(12 * len(modes), 8), Normalize())
    encoder = model(tmp_path / "late", modules=modules, sentence_settings={"prompts": {"p": "the "}})
    options = {"prompt_name": "p", "overflow": "chunk", "chunk_tokens": 14, "overlap": 5}
    found = encoder.encode([LONG, "dog"], composition="late", **options)
    np.testing.assert_allclose(found[1], encoder.encode("dog", prompt_name="p"), atol=COMPANY)
    # by hand: each window as a text of its own, and each token's vector from the first of the windows that have most of
    # its neighbours; [CLS] and the prompt from the first window, [SEP] from the last
    spans = encoder.model.tokenizer.spans(LONG)
    cuts = list(cut(LONG, spans, 14 - 3, 5))
    front, strips = encoder.tokenize("the").token_ids[:-1], []
    for first, stop in cuts:
        ids = np.array([*front, *spans.token_ids[first:stop], 3])
        strips.append(encoder_module.bert(ids, np.array([len(ids)]), encoder.model.params, encoder.model.config))
    vectors = [*strips[0][:2]]
    for token in range(len(spans.token_ids)):
        neighbours = [min(token - first, stop - 1 - token) for first, stop in cuts]
        best = neighbours.index(max(neighbours))
        vectors.append(strips[best][2 + token - cuts[best][0]])
    vectors.append(strips[-1][-1])
    expected = apply_modules(np.array(vectors), np.array([len(vectors)]), encoder.model.modules, 2)[-1][0]
    np.testing.assert_allclose(found[0], expected, atol=COMPANY)


# ------------------------------------------------------------------------------------------------- the flow


def test_a_stream_of_books_holds_few_of_them(tiny, monkeypatch):
    monkeypatch.setattr(encoder_module, "BLOCK_CHARACTERS", 3 * len(LONG))
    taken = []

    def books():
        for i in range(7):
            taken.append(i)
            yield LONG

    report = OverflowReport(16, "chunk")
    blocks = tiny.encode_stream(books(), overflow="chunk", report=report)
    assert next(blocks).shape == (3, 12) and len(taken) == 3
    assert [len(block) for block in blocks] == [3, 1]
    assert report.counts[:3] == (7, 0, 0)


REFUSED = {
    "chunk_tokens must be from 3 to 16, got 17": {"chunk_tokens": 17},
    "chunk_tokens must be from 3 to 16, got 2": {"chunk_tokens": 2},
    "overlap .*must be from 0 to 13, got 14": {"overlap": 14},
    "overlap .*must be from 0 to 5": {"chunk_tokens": 8, "overlap": 6},
    "'weighted_mean', 'mean', 'max', 'first', 'late' or a callable": {"composition": "sum"},
    r"got ndarray of shape \(\d+, 12\)": {"composition": lambda e, n: e},
    r"got str of shape \(\)": {"composition": lambda e, n: "a vector"},
    "without a division by zero": {"composition": lambda e, n: e[0] * np.nan},
    "overflow='chunk' gives sentence vectors": {"output_value": "token_embeddings"},
    "the prompt leaves no room for a text": {"prompt": "the " * 30},
    "are for overflow='chunk', .*got overflow='warn'": {"overflow": "warn", "overlap": 3},
}


def test_what_makes_no_sense_is_refused(tiny):
    for message, options in REFUSED.items():
        with pytest.raises(ValueError, match=message):
            tiny.encode([LONG], **{"overflow": "chunk", **options})
