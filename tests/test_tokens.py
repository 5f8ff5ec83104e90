"""Text to packed ids: which of the length limits counts, what is cut, what is said about it, and odd text."""

from dataclasses import replace

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tiny import TEXTS, TINY, VOCABULARY, tiny_tokenizer, write_model

from minisbert import SentenceEncoder
from minisbert.model.pooling import POOLINGS, Normalize, Pooling
from minisbert.training.losses import multiple_negatives_ranking
from minisbert.training.step import value_and_gradients

pytestmark = pytest.mark.usefixtures("one_thread")

CLS, SEP, UNK = (VOCABULARY[piece] for piece in ("[CLS]", "[SEP]", "[UNK]"))


def letters(count: int) -> str:
    """A text of exactly so many tokens, special ones not counted."""
    return " ".join("abcdefghjk"[i % 10] for i in range(count))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("tokens"))


@pytest.fixture
def encoder(folder):
    return SentenceEncoder(folder)


@pytest.fixture(scope="module")
def long_encoder(tmp_path_factory):
    return SentenceEncoder(
        write_model(tmp_path_factory.mktemp("long"), config=replace(TINY, max_position_embeddings=520))
    )


# --- the strip ------------------------------------------------------------------------------------------------


def test_texts_are_laid_end_to_end(encoder):
    tokens = encoder.tokenize(["the cat", "", "soup"])
    the, cat, soup = (VOCABULARY[word] for word in ("the", "cat", "soup"))
    assert tokens.token_ids.tolist() == [CLS, the, cat, SEP, CLS, SEP, CLS, soup, SEP]
    assert tokens.lengths.tolist() == [4, 2, 3] and tokens.lost.tolist() == [0, 0, 0]
    assert [ids.tolist() for ids in tokens.split()] == [[CLS, the, cat, SEP], [CLS, SEP], [CLS, soup, SEP]]
    assert encoder.tokenize("the cat").lengths.tolist() == [4]  # a string is one text
    many = [f"{TEXTS[i % len(TEXTS)]} {i}" for i in range(2003)]  # the library gets 1,000 at a time
    together = encoder.tokenize(many, overflow="truncate").split()
    for i in (999, 1000, 1999, 2000, 2002):
        np.testing.assert_array_equal(together[i], encoder.tokenize(many[i], overflow="truncate").token_ids)
    nothing = encoder.tokenize(iter([]))
    assert nothing.token_ids.shape == nothing.lengths.shape == (0,) and nothing.split() == []


@pytest.fixture
def narrow_platform(monkeypatch):
    """NumPy as WebAssembly and armv7 have it: intp has 32 bits, and what counts must fit it without being cut."""

    def checked(function, position):
        def call(*arguments, **options):
            counts = arguments[position]
            if isinstance(counts, np.ndarray) and counts.dtype.itemsize > 4:
                raise TypeError(f"{function.__name__}: Cannot cast array data from {counts.dtype} to int32 safely")
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(np, "intp", np.int32)
    monkeypatch.setattr(np, "repeat", checked(np.repeat, 1))
    monkeypatch.setattr(np, "bincount", checked(np.bincount, 0))


def test_everything_computes_where_intp_has_32_bits(tmp_path, narrow_platform):
    wide = (Pooling(tuple(POOLINGS), include_prompt=False), Normalize())
    encoder = SentenceEncoder(write_model(tmp_path / "m", modules=wide))
    tokens = encoder.tokenize(TEXTS)
    assert tokens.lengths.dtype == tokens.lost.dtype == np.int32
    for options in ({}, {"prompt": "the dog "}, {"deterministic": True}, {"output_value": "token_embeddings"}):
        assert len(encoder.encode(TEXTS, **options)) == len(TEXTS)
    for composition in ("weighted_mean", "late"):
        assert len(encoder.encode(TEXTS, overflow="chunk", chunk_tokens=5, overlap=1, composition=composition))
    assert value_and_gradients(
        encoder.model, [TEXTS, TEXTS[::-1]], lambda columns: multiple_negatives_ranking(*columns)
    )


# --- which limit counts ---------------------------------------------------------------------------------------

SAYS = [  # sentence_bert_config, tokenizer_config, positions -> the limit
    ({"max_seq_length": 8}, {"model_max_length": 12}, 16, 8),
    ({"max_seq_length": 12}, {"model_max_length": 8}, 16, 12),
    ({"max_seq_length": 17}, {"model_max_length": 8}, 16, 16),
    ({"max_seq_length": None}, {"model_max_length": 8}, 16, 8),
    ({}, {"model_max_length": 8.0}, 16, 8),
    (None, {"model_max_length": None}, 16, 16),
    (None, {"model_max_length": 1000000000000000019884624838656}, 16, 16),  # transformers' way to say no limit
    (None, {"max_length": 5}, 16, 16),  # the tokenizer's own truncation, as saved by transformers: it does not count
    (None, None, 3, 3),
]


def test_the_order_of_limits(tmp_path):
    for i, (sentence_bert, tokenizer, positions, limit) in enumerate(SAYS):
        config = replace(TINY, max_position_embeddings=positions)
        options = {"sentence_bert_config": sentence_bert, "tokenizer_config": tokenizer}
        assert SentenceEncoder(write_model(tmp_path / str(i), config=config, **options)).max_seq_length == limit


@given(st.integers(3, 520), st.integers(-2, 2) | st.integers(-520, 200))
def test_around_every_limit(long_encoder, limit, beyond):
    length = max(2, limit + beyond)
    long_encoder.max_seq_length = limit
    text = letters(length - 2)
    tokens = long_encoder.tokenize(text, overflow="truncate")
    assert tokens.lengths.tolist() == [min(length, limit)]
    assert tokens.lost.tolist() == [max(0, length - limit)]
    assert tokens.token_ids.tolist() == [CLS, *[VOCABULARY[letter] for letter in text.split()][: limit - 2], SEP]


def test_the_prompt_counts(encoder):
    encoder.encode(letters(12), prompt="the cat ", overflow="error")
    with pytest.raises(ValueError, match="text 0 lost 1 of 17"):
        encoder.encode(letters(13), prompt="the cat ", overflow="error")


# --- odd text -------------------------------------------------------------------------------------------------


ODD = [
    *((nothing, []) for nothing in ("", "\n\t\r ", "\u200b", "\x00", "\ufeff", "\u00ad", "\u0301")),
    ("[CLS][SEP][PAD]", ["[CLS]", "[SEP]", "[PAD]"]),
    ("the[SEP]cat", ["the", "[SEP]", "cat"]),
    ("[sep]", ["[UNK]", "s", "##e", "##p", "[UNK]"]),  # only letter for letter
    ("a" * 100, ["a", *["##a"] * 99]),
    ("a" * 101, ["[UNK]"]),  # as the library has it: longer words are not looked at
    ("\u4f60\u597d", ["[UNK]", "[UNK]"]),
    ("\u00c9T\u00c9", ["e", "##t", "##e"]),
    ("\U0010ffff a", ["[UNK]", "a"]),
]


def test_odd_text(long_encoder):
    long_encoder.max_seq_length = 520
    for text, pieces in ODD:
        ids = long_encoder.tokenize(text).token_ids
        assert long_encoder.model.tokenizer.pieces(ids) == ["[CLS]", *pieces, "[SEP]"], ascii(text)
        assert np.isfinite(long_encoder.encode(text)).all()


def test_what_is_no_text_is_refused_by_its_place_and_the_advice_works(encoder):
    text = "cat \ud83d\ude00 \ud800"  # an emoji that JavaScript cut in two, and half of one
    for before in (0, 1, 1500):
        with pytest.raises(ValueError, match=rf"text {before}: .* character 4, .*'utf-16'"):
            encoder.encode(["soup"] * before + [text])
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert encoder.trace(clean).pieces == ("[CLS]", "cat", "[UNK]", "[SEP]")


# --- other tokenizers -----------------------------------------------------------------------------------------


def test_the_special_tokens_are_the_tokenizer_s_own(tmp_path):
    """Several before and behind, as some models have."""
    library = tiny_tokenizer()
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] [MASK] $A [SEP] [SEP] [PAD]",
        special_tokens=[(piece, VOCABULARY[piece]) for piece in ("[CLS]", "[MASK]", "[SEP]", "[PAD]")],
    )
    made = SentenceEncoder(write_model(tmp_path, tokenizer=library))
    tokens = made.tokenize([letters(11), letters(12), ""], overflow="truncate")
    assert tokens.lengths.tolist() == [16, 16, 5] and tokens.lost.tolist() == [0, 1, 0]
    assert made.trace(letters(20), overflow="truncate").pieces[-3:] == ("[SEP]", "[SEP]", "[PAD]")
    with pytest.raises(ValueError, match="from 6"):
        made.max_seq_length = 5


def test_the_real_model_stops_at_256_although_its_files_say_128_256_and_512(weights_folder):
    real = SentenceEncoder(weights_folder)
    tokens = real.tokenize([letters(length - 2) for length in (128, 129, 255, 256, 257, 513)], overflow="truncate")
    assert tokens.lengths.tolist() == [128, 129, 255, 256, 256, 256] and tokens.lost.tolist() == [0, 0, 0, 0, 1, 257]
    assert 0 not in tokens.token_ids  # no padding
    real.max_seq_length = 512
    with pytest.raises(ValueError, match="512"):
        real.max_seq_length = 513
