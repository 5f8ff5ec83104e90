"""Text to packed ids: which of the length limits counts, what is cut, what is said about it, and odd text."""

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tiny import COMPANY, REMOVE, TEXTS, TINY, VOCABULARY, edit_json, tiny_tokenizer, write_json, write_model

from minisbert import SentenceEncoder
from minisbert.model.config import BertConfig
from minisbert.model.pooling import POOLINGS, Normalize, Pooling
from minisbert.model.tokens import OverflowReport, Tokens, TruncationWarning, load_tokenizer, read_max_seq_length
from minisbert.training.losses import multiple_negatives_ranking
from minisbert.training.step import value_and_gradients

CLS, SEP, UNK = (VOCABULARY[piece] for piece in ("[CLS]", "[SEP]", "[UNK]"))
LONG = replace(TINY, max_position_embeddings=520)


def letters(count: int) -> str:
    """A text of exactly so many tokens, special ones not counted."""
    return " ".join("abcdefghjk"[i % 10] for i in range(count))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory) -> Path:
    """A model of 520 positions, so that 511 to 513 can be tried above and below a limit."""
    return write_model(tmp_path_factory.mktemp("long"), config=LONG)


@pytest.fixture
def encoder(folder) -> SentenceEncoder:
    return SentenceEncoder(folder)


# --- the strip ------------------------------------------------------------------------------------------------


def test_texts_are_laid_end_to_end(encoder):
    tokens = encoder.tokenize(["the cat", "", "soup"])
    the, cat, soup = (VOCABULARY[word] for word in ("the", "cat", "soup"))
    assert tokens.token_ids.tolist() == [CLS, the, cat, SEP, CLS, SEP, CLS, soup, SEP]
    assert tokens.lengths.tolist() == [4, 2, 3] and tokens.lost.tolist() == [0, 0, 0]
    assert [ids.tolist() for ids in tokens.split()] == [[CLS, the, cat, SEP], [CLS, SEP], [CLS, soup, SEP]]
    assert (tokens.token_ids.dtype, tokens.lengths.dtype, tokens.lost.dtype) == (np.int64, np.intp, np.intp)


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


def test_a_string_is_one_text_and_no_texts_are_none(encoder):
    assert encoder.tokenize("the cat").lengths.tolist() == [4]
    for nothing in ([], (), iter([])):
        tokens = encoder.tokenize(nothing)
        assert (tokens.token_ids.shape, tokens.lengths.shape, tokens.lost.shape) == ((0,), (0,), (0,))
        assert tokens.split() == []


def test_more_texts_than_the_library_gets_at_a_time(encoder):
    texts = [TEXTS[i % len(TEXTS)] + f" {i}" for i in range(2003)]
    together = encoder.tokenize(texts, overflow="truncate")
    assert len(together.lengths) == 2003
    for i in (0, 999, 1000, 1001, 1999, 2000, 2002):
        np.testing.assert_array_equal(together.split()[i], encoder.tokenize(texts[i], overflow="truncate").token_ids)


def test_pieces_of_ids(encoder):
    assert encoder.model.tokenizer.pieces(encoder.tokenize("cats \u2603").token_ids) == [
        "[CLS]",
        "cat",
        "##s",
        "[UNK]",
        "[SEP]",
    ]


# --- which limit counts ---------------------------------------------------------------------------------------

SAYS = [  # sentence_bert_config, tokenizer_config, positions -> the limit
    ({"max_seq_length": 8}, {"model_max_length": 12}, 16, 8),
    ({"max_seq_length": 12}, {"model_max_length": 8}, 16, 12),
    ({"max_seq_length": 8}, {}, 16, 8),
    ({"max_seq_length": 16}, {"model_max_length": 8}, 16, 16),
    ({"max_seq_length": 17}, {"model_max_length": 8}, 16, 16),
    ({"max_seq_length": 512}, None, 16, 16),
    ({"max_seq_length": None}, {"model_max_length": 8}, 16, 8),
    ({}, {"model_max_length": 8}, 16, 8),
    (None, {"model_max_length": 8}, 16, 8),
    (None, {"model_max_length": 8.0}, 16, 8),
    (None, {"model_max_length": None}, 16, 16),
    (None, {"model_max_length": 17}, 16, 16),
    (None, {"model_max_length": 1e30}, 16, 16),
    (None, {"model_max_length": 1000000000000000019884624838656}, 16, 16),
    (None, {"max_length": 5}, 16, 16),  # the tokenizer's own truncation, as saved by transformers: it does not count
    ({}, None, 16, 16),
    (None, None, 16, 16),
    (None, None, 3, 3),
]


@pytest.mark.parametrize(("sentence_bert", "tokenizer", "positions", "limit"), SAYS)
def test_the_order_of_limits(tmp_path, sentence_bert, tokenizer, positions, limit):
    config = replace(TINY, max_position_embeddings=positions)
    made = write_model(tmp_path, config=config, sentence_bert_config=sentence_bert, tokenizer_config=tokenizer)
    encoder = SentenceEncoder(made)
    assert encoder.max_seq_length == limit
    tokens = encoder.tokenize(letters(50), overflow="truncate")
    assert tokens.lengths.tolist() == [limit] and tokens.lost.tolist() == [52 - limit]


def test_an_explicit_limit_comes_first_but_never_exceeds_the_positions(tmp_path):
    made = write_model(tmp_path, sentence_bert_config={"max_seq_length": 8}, tokenizer_config={"model_max_length": 9})
    for limit in (3, 7, 8, 9, 10, 16):
        assert SentenceEncoder(made, max_seq_length=limit).max_seq_length == limit
    for limit in (17, 512, 2, 0, -1):
        with pytest.raises(
            ValueError, match=rf"max_seq_length: expected a whole number from 3 .* to 16 .*, got {limit}"
        ):
            SentenceEncoder(made, max_seq_length=limit)


@pytest.mark.parametrize(("truncation", "padding"), [(5, None), (None, 10), (5, 5), (128, 128)])
def test_the_library_s_own_cutting_and_padding_are_switched_off(tmp_path, truncation, padding):
    made = write_model(tmp_path, tokenizer=tiny_tokenizer(truncation=truncation, padding=padding))
    stored = json.loads((made / "tokenizer.json").read_text())
    assert (stored["truncation"] is not None, stored["padding"] is not None) == (bool(truncation), bool(padding))
    tokens = SentenceEncoder(made).tokenize(["soup", letters(14)])
    assert tokens.lengths.tolist() == [3, 16] and tokens.lost.tolist() == [0, 0]


def neighbours() -> list[tuple[int, int]]:
    """Every limit at and beside the four that all-MiniLM-L6-v2 says, with every length beside each limit."""
    limits = [limit for middle in (128, 256, 512) for limit in (middle - 1, middle, middle + 1)]
    return [(limit, limit + more) for limit in limits for more in (-1, 0, 1)]


@pytest.mark.parametrize(("limit", "length"), neighbours())
def test_one_under_at_and_one_over_every_limit(long_encoder, limit, length):
    long_encoder.max_seq_length = limit
    text = letters(length - 2)
    tokens = long_encoder.tokenize(text, overflow="truncate")
    assert tokens.lengths.tolist() == [min(length, limit)]
    assert tokens.lost.tolist() == [max(0, length - limit)]
    ids = tokens.token_ids.tolist()
    assert ids[0] == CLS and ids[-1] == SEP
    assert ids[1:-1] == [VOCABULARY[letter] for letter in text.split()][: limit - 2]


@pytest.fixture(scope="module")
def long_encoder(long_folder) -> SentenceEncoder:
    return SentenceEncoder(long_folder)


def test_a_cut_text_is_the_text_of_its_beginning(long_encoder):
    long_encoder.max_seq_length = 129
    whole = long_encoder.encode(letters(127))
    np.testing.assert_array_equal(long_encoder.encode(letters(128), overflow="truncate"), whole)
    np.testing.assert_array_equal(long_encoder.encode(letters(9000), overflow="truncate"), whole)
    assert np.abs(long_encoder.encode(letters(126)) - whole).max() > 1e-6


def test_all_positions_can_be_used(long_encoder):
    long_encoder.max_seq_length = 520
    vectors = long_encoder.encode([letters(518), letters(517), letters(519)], overflow="truncate")
    np.testing.assert_allclose(vectors[0], vectors[2], rtol=0, atol=COMPANY)
    assert np.isfinite(vectors).all() and np.abs(vectors[0] - vectors[1]).max() > 1e-6


@pytest.mark.parametrize("value", [3, 16, np.int64(9), np.int32(9)])
def test_the_limit_can_be_set(encoder, value):
    encoder.max_seq_length = value
    assert encoder.max_seq_length == value and type(encoder.max_seq_length) is int
    assert encoder.tokenize(letters(30), overflow="truncate").lengths.tolist() == [value]


@pytest.mark.parametrize("value", [2, 1, 0, -1, 17, 10**30, True, None, "9", 9.0, float("nan"), np.float64(9), [9]])
def test_a_limit_that_is_none_is_refused_and_changes_nothing(encoder, value):
    with pytest.raises(
        ValueError, match=r"max_seq_length: expected a whole number from 3 .* to 16 .*got " + re.escape(repr(value))
    ):
        encoder.max_seq_length = value
    assert encoder.max_seq_length == 16


def test_the_functions_behind_it_stand_alone(folder):
    tokenizer = load_tokenizer(folder, TINY)
    assert (tokenizer.first, tokenizer.last, tokenizer.special_count) == ((CLS,), (SEP,), 2)
    assert tokenizer([letters(9)], 5).token_ids.tolist() == [CLS, *(VOCABULARY[x] for x in "abc"), SEP]
    assert read_max_seq_length(folder, BertConfig(), {"model_max_length": 3}) == 16  # the folder says 16


# --- what is said about it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["encode", "tokenize", "trace"])
def test_one_warning_a_call_names_the_caller_and_the_loss(encoder, call):
    texts = [letters(14), letters(15), "soup", letters(34), ""]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(encoder, call)(texts)
    assert [warning.category for warning in caught] == [TruncationWarning]
    assert Path(caught[0].filename).name == Path(__file__).name
    said = str(caught[0].message)
    assert said.startswith(
        "2 of 5 texts are longer than max_seq_length = 16 tokens and lost 21 tokens (text 3 lost 20 of 36);"
    )
    assert "overflow='truncate'" in said


def test_every_call_warns_again(encoder):
    for _ in range(2):
        with pytest.warns(TruncationWarning, match="1 of 1 texts is longer .* lost 1 tokens"):
            encoder.encode(letters(15))


@pytest.mark.parametrize("call", ["encode", "tokenize", "trace"])
def test_error_refuses_and_truncate_is_silent(encoder, call):
    function = getattr(encoder, call)
    with pytest.raises(ValueError, match=r"1 of 2 texts is longer .* lost 2 tokens \(text 1 lost 2 of 18\)"):
        function(["soup", letters(16)], overflow="error")
    function(["soup", letters(16)], overflow="truncate")  # warnings are errors here
    function(["soup", letters(14)], overflow="error")


@pytest.mark.parametrize("texts", [["soup"], [letters(40)], []], ids=["short", "long", "none"])
@pytest.mark.parametrize("overflow", ["ignore", "", None, True, "WARN"])
def test_an_unknown_overflow_is_refused_whether_or_not_something_is_cut(encoder, texts, overflow):
    with pytest.raises(ValueError, match="overflow must be 'warn', 'error', 'truncate' or 'chunk', got"):
        encoder.encode(texts, overflow=overflow)


def test_an_empty_text_is_never_too_long(encoder):
    encoder.max_seq_length = 3
    assert encoder.tokenize(["", "a"], overflow="error").lost.tolist() == [0, 0]


def test_the_prompt_counts(tmp_path):
    made = SentenceEncoder(write_model(tmp_path, sentence_settings={"prompts": {"query": "the cat "}}))
    made.encode(letters(12), prompt_name="query", overflow="error")
    with pytest.raises(ValueError, match="lost 1 tokens"):
        made.encode(letters(13), prompt_name="query", overflow="error")


def test_the_report_counts_in_tokens_of_whole_texts():
    cut = Tokens(np.arange(6), np.array([4, 2]), np.array([7, 0]))
    with pytest.raises(ValueError, match=r"1 of 2 texts is .* = 4 tokens and lost 7 tokens \(text 0 lost 7 of 11\)"):
        OverflowReport(4, "error").add(cut)


def test_the_report_of_many_blocks_is_one():
    report = OverflowReport(4, "warn")
    for lost in ([0, 0, 0], [0, 7], [1, 9, 0]):
        report.add(Tokens(np.arange(4 * len(lost)), np.full(len(lost), 4), np.array(lost)))
    with pytest.warns(TruncationWarning, match=r"3 of 8 texts are .* lost 17 tokens \(text 6 lost 9 of 13\)") as caught:
        report.warn()
    assert len(caught) == 1


# --- odd text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "\n\t\r ", "\u200b", "\x00", "\ufeff", "\u00ad", "\u0301"], ids=ascii)
def test_text_without_any_letter_is_the_empty_text(encoder, text):
    assert encoder.tokenize(text).token_ids.tolist() == [CLS, SEP]
    vector = encoder.encode(text)
    assert np.isfinite(vector).all()
    np.testing.assert_array_equal(vector, encoder.encode(""))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("[SEP]", ["[SEP]"]),
        ("the [MASK] sat", ["the", "[MASK]", "sat"]),
        ("[CLS][SEP][PAD]", ["[CLS]", "[SEP]", "[PAD]"]),
        ("the[SEP]cat", ["the", "[SEP]", "cat"]),
        ("[sep]", ["[UNK]", "s", "##e", "##p", "[UNK]"]),  # only letter for letter
        ("unable cats", ["un", "##able", "cat", "##s"]),
        ("a" * 100, ["a", *["##a"] * 99]),
        ("a" * 101, ["[UNK]"]),  # as the library has it: longer words are not looked at
        ("a" * 5000, ["[UNK]"]),
        ("\U0001f600\U0001f600 \u2603", ["[UNK]", "[UNK]"]),
        ("\u4f60\u597d", ["[UNK]", "[UNK]"]),
        ("\u00c9T\u00c9", ["e", "##t", "##e"]),
        ("cat.cat,cat", ["cat", ".", "cat", ",", "cat"]),
        ("\U0010ffff a", ["[UNK]", "a"]),
    ],
    ids=ascii,
)
def test_odd_text(long_encoder, text, pieces):
    long_encoder.max_seq_length = 520
    tokens = long_encoder.tokenize(text)
    assert long_encoder.model.tokenizer.pieces(tokens.token_ids) == ["[CLS]", *pieces, "[SEP]"]
    assert np.isfinite(long_encoder.encode(text)).all()


def test_a_special_token_in_a_cut_text_does_not_count_as_its_end(encoder):
    encoder.max_seq_length = 5
    ids = encoder.tokenize("a [SEP] b c d [SEP]", overflow="truncate").token_ids.tolist()
    assert ids == [CLS, VOCABULARY["a"], SEP, VOCABULARY["b"], SEP]


@pytest.mark.parametrize("text", ["\ud800", "soup \udc00", "a" * 30 + "\udfff" + "b" * 30, "\ude00\ud83d"], ids=ascii)
@pytest.mark.parametrize("before", [0, 1, 1500])
def test_half_a_character_is_refused_by_its_place(encoder, text, before):
    at = next(i for i, character in enumerate(text) if "\ud800" <= character <= "\udfff")
    with pytest.raises(ValueError, match=rf"text {before}: .* lone surrogate at character {at}, .*'utf-16'"):
        encoder.encode(["soup"] * before + [text])


def test_the_advice_about_half_characters_works(encoder):
    text = "cat \ud83d\ude00 \ud800"  # an emoji that JavaScript cut in two, and half of one
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert encoder.trace(clean).pieces == ("[CLS]", "cat", "[UNK]", "[SEP]")


@pytest.mark.parametrize("text", [None, 3, b"soup", float("nan"), ["soup"]], ids=repr)
def test_what_is_no_text_is_refused_by_its_place(encoder, text):
    with pytest.raises(ValueError, match=r"sentences\[1\]: expected a text"):
        encoder.tokenize(["soup", text])


# --- other tokenizers -----------------------------------------------------------------------------------------


def test_the_special_tokens_are_the_tokenizer_s_own(tmp_path):
    """Several before and behind, as some models have."""
    library = tiny_tokenizer()
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] [MASK] $A [SEP] [SEP] [PAD]",
        special_tokens=[(piece, VOCABULARY[piece]) for piece in ("[CLS]", "[MASK]", "[SEP]", "[PAD]")],
    )
    made = SentenceEncoder(write_model(tmp_path, tokenizer=library))
    assert made.model.tokenizer.special_count == 5
    tokens = made.tokenize([letters(11), letters(12), ""], overflow="truncate")
    assert tokens.lengths.tolist() == [16, 16, 5] and tokens.lost.tolist() == [0, 1, 0]
    assert made.trace(letters(20), overflow="truncate").pieces[-3:] == ("[SEP]", "[SEP]", "[PAD]")
    with pytest.raises(ValueError, match="expected a whole number from 6"):
        made.max_seq_length = 5


def test_the_older_kind_of_post_processor(tmp_path):
    library = tiny_tokenizer()
    library.post_processor = tokenizers.processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    made = SentenceEncoder(write_model(tmp_path, tokenizer=library))
    assert made.tokenize("soup").token_ids.tolist() == [CLS, VOCABULARY["soup"], SEP]


def test_tokens_added_to_the_vocabulary_have_rows(tmp_path):
    library = tiny_tokenizer()
    library.add_tokens(["xylophone"])
    config = replace(TINY, vocab_size=TINY.vocab_size + 1)
    made = SentenceEncoder(write_model(tmp_path, config=config, tokenizer=library))
    assert made.tokenize("xylophone").token_ids.tolist() == [CLS, TINY.vocab_size, SEP]


def test_a_vocabulary_with_gaps_is_no_contradiction(tmp_path):
    """vocab.txt files with a line twice are in use; every id still has its row."""
    gaps = {piece: (i if i < 50 else i + 7) for piece, i in VOCABULARY.items()}
    config = replace(TINY, vocab_size=TINY.vocab_size + 7)
    made = SentenceEncoder(write_model(tmp_path, config=config, tokenizer=tiny_tokenizer(vocabulary=gaps)))
    assert np.isfinite(made.encode(TEXTS)).all()
    assert made.tokenize("soup z").token_ids.tolist() == [CLS, gaps["soup"], gaps["z"], SEP]


# --- the real model -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(weights_folder) -> SentenceEncoder:
    return SentenceEncoder(weights_folder)


def test_the_real_model_stops_at_256_although_four_files_say_four_things(real, weights_folder):
    says = json.loads((weights_folder / "tokenizer.json").read_text())
    assert says["truncation"]["max_length"] == 128 and says["padding"]["strategy"] == {"Fixed": 128}
    assert json.loads((weights_folder / "config.json").read_text())["max_position_embeddings"] == 512
    assert json.loads((weights_folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 256
    assert real.max_seq_length == 256


@pytest.mark.parametrize("length", [127, 128, 129, 255, 256, 257, 511, 512, 513])
def test_the_real_model_at_every_limit(real, length):
    tokens = real.tokenize(letters(length - 2), overflow="truncate")
    assert tokens.lengths.tolist() == [min(length, 256)] and tokens.lost.tolist() == [max(0, length - 256)]
    assert (tokens.token_ids[0], tokens.token_ids[-1]) == (101, 102)
    assert 0 not in tokens.token_ids  # no padding


def test_the_real_model_up_to_its_last_position(weights_folder):
    encoder = SentenceEncoder(weights_folder, max_seq_length=512)
    texts = [letters(length - 2) for length in (511, 512, 513)]
    tokens = encoder.tokenize(texts, overflow="truncate")
    assert tokens.lengths.tolist() == [511, 512, 512] and tokens.lost.tolist() == [0, 0, 1]
    assert np.isfinite(encoder.encode(texts[1])).all()
    with pytest.raises(ValueError, match=r"from 3 .* to 512"):
        encoder.max_seq_length = 513


def test_the_real_model_without_sentence_bert_config_obeys_the_tokenizer(weights_folder, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((weights_folder / name).read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert read_max_seq_length(tmp_path, BertConfig(), settings) == 512
    edit_json(tmp_path / "tokenizer_config.json", model_max_length=REMOVE)
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 300})
    assert read_max_seq_length(tmp_path, BertConfig(), settings) == 300
