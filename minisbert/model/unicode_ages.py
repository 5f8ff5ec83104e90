"""Unicode as the ``tokenizers`` library sees it, for ``wordpiece.py``; not needed to understand BERT.

The library's tables have three ages: categories are Unicode 8.0's (crate unicode_categories), decompositions Unicode
9.0's (unicode-normalization-alignments), lower case Unicode 17's (Rust itself). Python 3.10 has 13.0, 3.13 has 15.1.
Nobody writes with the letters where they differ, but "every code point" is a claim that can be tested, and "nearly" is
not.
"""

from __future__ import annotations

import re
import unicodedata


def _spans(hexadecimal: str) -> list[tuple[int, int]]:
    """First and last code point of each span in '41-5A 5F'."""
    bounds = [span.split("-") for span in hexadecimal.split()]
    return [(int(pair[0], 16), int(pair[-1], 16)) for pair in bounds]


def _class_of(hexadecimal: str) -> str:
    """The same as the inside of a regular expression's [ ]."""
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in _spans(hexadecimal))


# Unicode's property White_Space; \s and str.split() would add U+001C to U+001F
WHITE_SPACE = re.compile(f"[{_class_of('9-D 20 85 A0 1680 2000-200A 2028-2029 202F 205F 3000')}]")

# the library begins the last block but two at 2B920, BERT's original at 2B820: the library is what models run with
IDEOGRAPH = re.compile(
    f"[{_class_of('4E00-9FFF 3400-4DBF 20000-2A6DF 2A700-2B73F 2B740-2B81F 2B920-2CEAF F900-FAFF 2F800-2FA1F')}]"
)

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

# capitals of Unicode 14.0 to 17.0, by the distance to their small letters
YOUNG_CAPITALS = {
    code: code + distance
    for distance, capitals in {
        1: "1C89 A7C0 A7CC A7CE A7D0 A7D2 A7D4 A7D6 A7D8 A7DA",
        27: "16EA0-16EB8",
        32: "10D50-10D65",
        39: "10570-1057A 1057C-1058A 1058C-10592 10594-10595",
        48: "2C2F",
        0x264 - 0xA7CB: "A7CB",
        0x19B - 0xA7DC: "A7DC",
    }.items()
    for first, last in _spans(capitals)
    for code in range(first, last + 1)
}


def category(char: str) -> str:
    """Unicode's two-letter category of a character as of Unicode 8.0; ``"Cn"`` for what was not assigned yet."""
    return _OLD_CATEGORY.get(char) or unicodedata.category(char)


def decompose(text: str) -> str:
    """Take letters and their accents apart (NFD) as of Unicode 9.0.

    A younger character stays as it is, and marks are not reordered across it.
    """
    return _KNOWN_TO_UNICODE_9.sub(lambda run: unicodedata.normalize("NFD", run[0]), text)
