"""wordpiece.py against the tokenizers library, id for id: every code point, random strings, real sentences.

Where a whole word is unknown the ids would hide a difference inside it, so most tests here use a vocabulary that has
every letter of their texts, with and without ##: then equal ids mean equal letters and equal word boundaries.
"""

import csv
import dataclasses
import functools
import itertools
import json
import re
import sys
import unicodedata
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from minisbert.model import wordpiece
from minisbert.model.config import ModelFolderError
from minisbert.model.stand_in import Encoding, WordPieceTokenizer
from minisbert.model.wordpiece import WordPiece, encode, normalize, read_wordpiece, split_words, tokenize

# ---- Unicode as the library sees it ----

# Its tables have three ages: categories are Unicode 8.0's (crate unicode_categories), decompositions Unicode 9.0's
# (unicode-normalization-alignments), lower case that of the Rust compiler. Python 3.10 has 13.0, 3.13 has 15.1. Nobody
# writes with the letters where they differ, but "every code point" is a claim that can be tested, and "nearly" is not.


def _spans(hexadecimal: str) -> list[tuple[int, int]]:
    """First and last code point of each span in '41-5A 5F'."""
    bounds = [span.split("-") for span in hexadecimal.split()]
    return [(int(pair[0], 16), int(pair[-1], 16)) for pair in bounds]


def _class_of(hexadecimal: str) -> str:
    """The same as the inside of a regular expression's [ ]."""
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in _spans(hexadecimal))


# spans around the marks, punctuation and format characters that came with Unicode 9.0, and after it (to 18.0)
_SINCE_9 = "8D4-8E2 1DFB 2E43-2E44 A8C5 1123E 11438-1144F 1145B-1145D 11660-1166C 11C30-11CB6 1E000-1E02A 1E944-1E95F"
_SINCE_10 = """
    5C8-5C9 61D 7FD 890-89F 8CA-8D3 9FD-9FE A76 AFA-AFF B53-B55 C04 C3C C77 C84 D00 D3B-D3C D81 EBA ECE 1715 180F
    1ABF-1AF0 1B4E-1B4F 1B7D-1B7F 1DF6-1DFA 2E45-2E63 A82C A8FF 105C9-105E4 10D24-10D6E 10EAB-10F89 11070-11074
    110C2-110CD 111CF 11241 1133B 11383-113E2 1145A 1145E 116B9 1182F-1183B 11938-11AA2 11B00-11BE1 11D31-11FFF
    12FF1-12FF2 13430-13455 1611E-1612F 16D68-16E9A 16F4F 16FE2-16FF1 1CF00-1CF46 1D127-1D128 1D250-1D281 1E08F-1E6F5
"""
_OLD_CATEGORY = {
    chr(code): "Cn" for first, last in _spans(_SINCE_9 + " " + _SINCE_10) for code in range(first, last + 1)
} | {
    # in Unicode 8.0 already, but filed elsewhere since
    **{"\u166d": "Po", "\U000111c9": "Po", "\u1734": "Mn", "\U0001171e": "Mn"},
    **{"\u1885": "Lo", "\u1886": "Lo", "\ua9bd": "Mc"},
}
_KNOWN_TO_UNICODE_9 = re.compile(f"[^{_class_of(_SINCE_10)}]+")

# capitals of Unicode 14.0 to 17.0: Python and the library each know those that are older than they are
YOUNG_CAPITALS = {
    code
    for first, last in _spans(
        "1C89 2C2F A7C0 A7CB A7CC A7CE A7D0 A7D2 A7D4 A7D6 A7D8 A7DA A7DC 10570-1057A 1057C-1058A 1058C-10592 "
        "10594-10595 10D50-10D65 16EA0-16EB8"
    )
    for code in range(first, last + 1)
}


def category(char: str) -> str:
    """Unicode's two-letter category of a character as of Unicode 8.0; ``"Cn"`` for what was not assigned yet."""
    return _OLD_CATEGORY.get(char) or unicodedata.category(char)


def decompose(form: str, text: str) -> str:
    """NFD as of Unicode 9.0: a younger character stays as it is, and marks are not reordered across it."""
    return _KNOWN_TO_UNICODE_9.sub(lambda run: unicodedata.normalize(form, run[0]), text)


LIBRARY = {"category": category, "normalize": decompose}


@pytest.fixture(scope="module", autouse=True)
def unicode_of_the_library():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wordpiece, "unicodedata", SimpleNamespace(**LIBRARY))
        yield


# ---- vocabularies, and the library beside them ----


FLAGS = ["single_word", "lstrip", "rstrip", "normalized"]  # of an added token
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["the", "token", "##ization", "##s", "un", "##wanted", "##ed", "##ing", "naïve", "naive", "café", "東京"]
# planes 0, 1 and the used end of 14: every script; then ideographs, private use, and eleven planes without a letter
SCRIPTS = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x20000), *range(0xE0000, 0xE1000))]
IN_TABLES = {chr(code) for first, last in _spans(_SINCE_9 + " " + _SINCE_10) for code in range(first, last + 1)}
ALWAYS = {*YOUNG_CAPITALS, *range(0, 0x20000, 16)}
# every combination of lowercase, strip_accents, handle_chinese_chars, clean_text
ALL_SETTINGS = [
    dict(zip(("lowercase", "strip_accents", "handle_chinese_chars", "clean_text"), chosen, strict=True))
    for chosen in itertools.product((True, False), (None, True, False), (True, False), (True, False))
]


# of ideographs and other plain letters every 16th; the others only have to be split alike
VARIED = [
    char
    for char in SCRIPTS
    if unicodedata.category(char) not in ("Lo", "Cn", "Co") or char in IN_TABLES or ord(char) in ALWAYS
]


def capitals_of_another_age():
    """Those of which Python and the library do not know the same small letter."""
    lower = normalizers.Lowercase()
    return {code for code in YOUNG_CAPITALS if lower.normalize_str(chr(code)) != chr(code).lower()}


def spelled(texts, pieces=()):
    """A vocabulary that has every letter that normalising these texts can leave, with and without ##."""
    letters = set("".join(texts))
    letters |= set(unicodedata.normalize("NFD", "".join(letters)))
    everything = " ".join(letters)
    letters |= set(normalizers.Lowercase().normalize_str(everything) + everything.lower())
    tokens = [*SPECIAL, *pieces, *sorted(letters), *("##" + letter for letter in sorted(letters))]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def rules_for(vocabulary, **changed):
    return WordPiece(vocabulary, {token: vocabulary[token] for token in SPECIAL}, **changed)


def library_for(rules):
    """The same rules as a tokenizer of the library."""
    library = tokenizers.Tokenizer(
        models.WordPiece(
            dict(rules.vocabulary),
            unk_token=rules.unk_token,
            max_input_chars_per_word=rules.max_input_chars_per_word,
            continuing_subword_prefix=rules.continuing_subword_prefix,
        )
    )
    library.normalizer = normalizers.BertNormalizer(
        clean_text=rules.clean_text,
        handle_chinese_chars=rules.handle_chinese_chars,
        strip_accents=rules.strip_accents,
        lowercase=rules.lowercase,
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.add_special_tokens(list(rules.special_tokens))
    ends = [(token, rules.id_of(token)) for token in (rules.cls_token, rules.sep_token)]
    library.post_processor = processors.TemplateProcessing(
        single=f"{rules.cls_token} $A {rules.sep_token}", special_tokens=ends
    )
    return library


FIELDS = {field.name for field in dataclasses.fields(Encoding)}


def same(text, ours, theirs):
    """Whether two encodings of a text agree in everything."""
    # where NFD changes the order of marks, the library's places stay behind in the old order
    reordered = decompose("NFD", text) != "".join(decompose("NFD", char) for char in text)
    return all(getattr(ours, name) == getattr(theirs, name) for name in FIELDS - ({"offsets"} if reordered else set()))


def disagreements(texts, rules, library=None):
    """The texts whose tokens, ids, places or words differ."""
    theirs = (library or library_for(rules)).encode_batch(texts)
    ours = WordPieceTokenizer(rules).encode_batch(texts)
    return [
        text
        for text, a, b in zip(texts, ours, theirs, strict=True)
        if encode(text, rules) != b.ids or not same(text, a, b)
    ]


def code_points_that_differ(code_points, contexts):
    """Code points whose ids differ in a context, thousands at a time; one by one only where a block differs."""
    found = set()
    for start in range(0, len(code_points), 8192):
        block = code_points[start : start + 8192]
        rules = rules_for(spelled([*block, "abAB"]))
        library = library_for(rules)
        if disagreements([" ".join(c.format(char) for char in block for c in contexts)], rules, library):
            found |= {ord(char) for char in block if disagreements([c.format(char) for c in contexts], rules, library)}
    return found


# ---- every code point ----


def test_every_code_point_of_a_script_alone_and_inside_a_word():
    young = capitals_of_another_age()
    assert code_points_that_differ([char for char in VARIED if ord(char) not in young], ("{}", "a{}b")) == set()
    assert code_points_that_differ([chr(code) for code in sorted(young)], ("{}", "a{}b")) == young


def test_every_other_code_point():
    rules = rules_for(spelled([]))
    library = library_for(rules)
    # a million code points that hardly anybody writes: four to a word, and words instead of ids to save time
    rest = sorted({chr(code) for code in (*range(0xD800), *range(0xE000, 0x110000))} - {*VARIED})
    for start in range(0, len(rest), 4096):
        block = rest[start : start + 4096]
        text = " ".join("".join(block[i : i + 4]) for i in range(0, len(block), 4))
        theirs = library.pre_tokenizer.pre_tokenize_str(library.normalizer.normalize_str(text))
        assert split_words(normalize(text, rules)) == [word for word, _ in theirs], f"from {ord(block[0]):X} on"


def test_marks_are_reordered_as_in_unicode_9():
    by_python = {char for char in SCRIPTS if unicodedata.combining(char)}
    marks = sorted((IN_TABLES | by_python) - set(map(chr, capitals_of_another_age())))
    # these are spacing marks that survive strip_accents, so their order shows; classes 224, 216, 226, 9, 6 and 0
    others = "\u302e\U0001d165\U0001d16d\u1b44\U00016ff0\u0903"
    texts = [" ".join(f"a{x}{y}{x} a{y}{x}" for y in others) for x in marks]
    assert len(texts) > 4500
    assert disagreements(texts, rules_for(spelled(texts))) == []


# ---- strings ----

SENTENCES = [
    "Tokenization of unwanted tokens: playing, run-run, naïve café.",
    "İstanbul'da ılık bir gün, IĞDIR'a gittik. İİİ",
    "ΟΔΥΣΣΕΥΣ ήταν ο ΣΟΦΟΣ ΒΑΣΙΛΕΥΣ; ναι, ς και σ. Ὀδυσσεύς, ᾳ ᾼ ᾲ ΐ",
    "東京は日本の首都です。ひらがなとカタカナ、ガギグゲゴ、ﾊﾟﾋﾟ。",
    "我爱自然语言处理。𠀀𪜀𫝀𫠠𫤠𬺰㐀豈丽",
    "مرحبا بالعالم، كيف حالك؟ لَا إِلٰهَ",
    "שָׁלוֹם עוֹלָם! ״ציטוט״ מקף־עברי",
    "e\u0301 e\u0327\u0301 e\u0301\u0327 a\u0308\u0304\u0323 \u0301a \u0301 o\u0338 Å Å Ω Ω",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ☃️ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️‍🔥 it's 🤗!",
    "½ ¼ ² ³ ﬁ ﬃ ǆ Ǆ ǅ ℌ 𝔘𝔫𝔦 𝐀𝐁 ＦＵＬＬ　ｗｉｄｔｈ ①②",
    "soft\u00adhyphen zero\u200bwidth\u200cnon\u200djoin \u2060word\ufeff \u202ertl\u202c \u061c",
    "tab\there\nline\rreturn\x0bvt\x0cff\x1cfs\x1dgs\x1ers\x1fus\x85nel\xa0nbsp\u2028ls\u2029ps\u3000wide\u1680\u180e",
    "nul\x00in, bell\x07, del\x7f, c1\x80\x9f, \ufffd\ufffe\uffff \ue000 \U000f0000 \U0010ffff \u0378 \U000e0001",
    "ÀÉÎÕÜ àéîõü Ǖ ǖ Ṩ ẛ̣ Ắ ȫ ŉ ǰ ΰ և ẖ",
    "word" * 40 + " " + "x" * 100 + " " + "y" * 101,
    "[CLS] text [SEP] with [MASK] and [PAD][UNK] [sep] [ SEP ] [[SEP]] [SEP",
    "Ⅷ ⅷ Ⓐ ⓐ Ꭰ ꭰ Ა ა ᲀ Ⰰ 𐐀 𞤀 Ꞷ ᾈ ᾀ K Å ϴ ẞ",
    *["Ꟁ"] * (sys.version_info >= (3, 11)),  # of Unicode 14: Python 3.10 does not know its small letter
    "",
    "\u0301",
]


def test_sentences_with_every_setting():
    vocabulary = spelled(SENTENCES, PIECES)
    for changed in ALL_SETTINGS:
        assert disagreements(SENTENCES, rules_for(vocabulary, **changed)) == [], changed


@functools.cache
def everyday(number):
    """Rules and the library's tokenizer for one of ALL_SETTINGS."""
    letters = [chr(code) for code in range(0x3100) if code not in YOUNG_CAPITALS]
    rules = rules_for(spelled(letters + SENTENCES, PIECES), **ALL_SETTINGS[number])
    return rules, library_for(rules)


def test_tokenizer_json_is_read_with_all_its_settings(tmp_path):
    for number in range(0, len(ALL_SETTINGS), 5):
        rules, _ = everyday(number)
        rules = replace(rules, max_input_chars_per_word=7)
        library = library_for(rules)
        if number % 2:  # the older kind
            ends = [(token, rules.vocabulary[token]) for token in ("[SEP]", "[CLS]")]
            library.post_processor = processors.BertProcessing(*ends)
        library.enable_truncation(5)
        library.enable_padding(length=9)
        library.save(str(tmp_path / "tokenizer.json"))
        assert read_wordpiece(tmp_path / "tokenizer.json") == rules


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from([*SPECIAL, *PIECES, *" aA1!éΣ\u0301\u302e\t\xad一", *" ".join(SENTENCES).split()])
        | st.text(max_size=6)
        | st.characters(max_codepoint=0x30FF)
    ),
    st.integers(0, len(ALL_SETTINGS) - 1),
)
def test_any_string(parts, number):
    text = re.sub(f"[{''.join(map(chr, sorted(YOUNG_CAPITALS)))}\ud800-\udfff]", "", "".join(parts))
    assert disagreements([text], *everyday(number)) == []


# ---- special tokens, word length, the greedy choice ----


def test_special_tokens_the_longer_wins_added_ids_are_not_in_the_vocabulary_and_names_are_others():
    vocabulary = spelled(["[doc] foo x"])
    added = {"[D]": len(vocabulary), "[D]x": len(vocabulary) + 1, "foo": len(vocabulary) + 2, "oo": len(vocabulary) + 3}
    rules = WordPiece(vocabulary, {**{token: vocabulary[token] for token in SPECIAL}, **added})
    texts = ["[D]x[D] x", "[D][D]xx", "foo FOO fooo fo", "xfoox", "[[D]]", "FOO", "[SEP][D]x[SEP]"]
    assert disagreements(texts, rules) == []
    assert tokenize("[D]xfoo FOO", rules) == ["[D]x", "foo", "f", "##o", "##o"]
    names = {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "continuing_subword_prefix": "@@"}
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "a", "@@b", "##b"])}
    assert disagreements(["ab</s>z", "abb ba", "<s>"], WordPiece(vocabulary, {"</s>": 2}, **names)) == []


def test_words_at_the_length_limit():
    for letter in ("a", "\u00c9", "e\u0301", "\u0130", "\ud55c", "\u00df", "\U0001d518", "\u4e00", "!", "x\u00ad"):
        texts = [letter * count for count in (33, 34, 49, 50, 51, 99, 100, 101, 102)]
        rules = rules_for(spelled(texts), strip_accents=False)
        assert disagreements(texts, rules) == disagreements(texts, replace(rules, strip_accents=None)) == []
        short = replace(rules, max_input_chars_per_word=3)
        assert disagreements([letter * count for count in range(1, 6)], short) == []


# ---- the real vocabulary ----


def test_the_real_vocabulary(weights_folder, data_folder):
    rules = read_wordpiece(weights_folder / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(weights_folder / "tokenizer.json"))
    library.no_truncation()  # the file cuts at 128 and pads to 128
    library.no_padding()
    assert encode("hello world", rules) == [101, 7592, 2088, 102]
    assert read_wordpiece(weights_folder / "vocab.txt") == rules
    with (data_folder / "stsb" / "stsb_test.tsv").open(encoding="utf-8", newline="") as file:
        cells = {cell for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) for cell in row}
    texts = [*SENTENCES, *sorted(cells)]
    assert disagreements(texts, rules, library) == []
    assert disagreements([f"a{char}b {char}" for char in SCRIPTS[:0x3100] + SCRIPTS[::32]], rules, library) == []


# ---- reading ----


def test_vocab_txt_is_read_as_the_library_reads_it(tmp_path):
    path = tmp_path / "vocab.txt"
    lines = [*SPECIAL, "a", "##b", "x\u2028y", "p\x85q", "\u00e9", "trailing ", "a", "\u6771", "\u3000"]
    for end in ("\n", "", "\r\n", "\n\n"):
        path.write_bytes(("\r\n" if end == "\r\n" else "\n").join(lines).encode() + end.encode())
        rules = read_wordpiece(path)
        assert dict(rules.vocabulary) == models.WordPiece.read_file(str(path))
        assert rules.special_tokens == {token: i for i, token in enumerate(SPECIAL)}


REFUSED = [  # what the error names, and what is changed in tokenizer.json
    ("normalizer", {"normalizer": None}),
    ("pre_tokenizer is Whitespace", {"pre_tokenizer": {"type": "Whitespace"}}),
    ("model is BPE", {"model": {"type": "BPE", "vocab": {}}}),
    ("'vocab'", {"model": {"type": "WordPiece"}}),
    (r"'\[UNK\]'", {"model": {"type": "WordPiece", "vocab": {"a": 0}}}),
    ("post_processor", {"post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 77], "sep": ["[SEP]", 3]}}),
    ("'single_word'", {"added_tokens": [{"content": "[SEP]", "id": 77}]}),
    *(
        (f"'abc'.*'{flag}'", {"added_tokens": [{"content": "abc", **dict.fromkeys(FLAGS, False), flag: True}]})
        for flag in FLAGS
    ),
]


def test_what_cannot_be_read_or_is_not_followed_is_refused_by_name(tmp_path):
    for name in ("tokenizer.json", "vocab.txt"):
        for content in (None, b"\xff\xfe", b"[1, 2]"):
            if content is not None:
                (tmp_path / name).write_bytes(content)
            with pytest.raises(ModelFolderError, match=name):
                read_wordpiece(tmp_path / name)
    path = tmp_path / "tokenizer.json"
    library_for(rules_for(spelled(["abc"]))).save(str(path))
    good = json.loads(path.read_text(encoding="utf-8"))
    for named, change in REFUSED:
        path.write_text(json.dumps(good | change), encoding="utf-8")
        with pytest.raises(ModelFolderError, match=f"{path.as_posix()}.*{named}"):
            read_wordpiece(path)
    enough = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}
    wrong = [(r"'\[CLS\]'", {"a": 0}, {}), ("9", enough, {"[CLS]": 9}), ("''", enough, {"": 9})]
    for named, vocabulary, special in wrong:
        with pytest.raises(ValueError, match=named):
            WordPiece(vocabulary, special)
