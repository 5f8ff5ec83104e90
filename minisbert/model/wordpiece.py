"""Text -> token ids by hand: what ``tokens.py`` leaves to the ``tokenizers`` library, in Python to read.

1. :func:`tokenize` finds special tokens such as ``[SEP]`` in the raw text; they pass untouched.
2. :func:`normalize` drops control characters and accents, lower-cases, and sets ideographs apart.
3. :func:`split_words` cuts at white space and around every punctuation mark.
4. :func:`split_word` cuts each word into the longest pieces that the vocabulary has.
5. :func:`encode` looks up their ids and puts ``[CLS]`` before and ``[SEP]`` after them.

The encoder uses the library, and this file where there is none (``stand_in.py``). A test holds it to the library, id
for id and place for place, on every code point, with the library's tables of Unicode: those of 2015 (categories) and
2016 (NFD). Python's own are younger and know more characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from minisbert.model.config import ModelFolderError, read_json, refusal

# Unicode's property White_Space; \s and str.split() would add U+001C to U+001F
WHITE_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
# CJK; the library begins the last block but two at 2B920, BERT's original at 2B820: the library is what models run with
IDEOGRAPH = re.compile(
    "[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b920-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f]"
)


@dataclass(frozen=True)
class WordPiece:
    """A vocabulary and the rules by which text is cut to fit it; field names are the library's.

    ValueError if one of the three named tokens has no id, or a special token has two.

    Parameters
    ----------
    vocabulary, special_tokens, clean_text, ...
        What each is stands behind its field.

    Examples
    --------
    >>> rules = WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "un": 3, "##want": 4, "##ed": 5, "!": 6})
    >>> encode("Unwantéd!", rules)
    [1, 3, 4, 5, 6, 2]
    """

    vocabulary: Mapping[str, int] = field(repr=False)  # the id of each piece
    special_tokens: Mapping[str, int] = field(default_factory=dict)  # recognised in raw text, letter for letter
    clean_text: bool = True  # drop control characters, and turn all white space into plain spaces
    handle_chinese_chars: bool = True  # make every CJK ideograph a word of its own
    strip_accents: bool | None = None  # drop combining marks; None does so where lowercase does
    lowercase: bool = True
    unk_token: str = "[UNK]"  # what replaces a word that has no pieces
    cls_token: str = "[CLS]"  # stands before a text
    sep_token: str = "[SEP]"  # and after it
    continuing_subword_prefix: str = "##"  # of a piece that continues a word
    max_input_chars_per_word: int = 100  # longer words, after normalize(), become unk_token without a look

    def __post_init__(self) -> None:
        """Refuse rules under which some text would have no ids, or two readings."""
        missing = {self.unk_token} - set(self.vocabulary)
        missing |= {self.cls_token, self.sep_token} - set(self.vocabulary) - set(self.special_tokens)
        if missing:
            raise ValueError(
                f"WordPiece: the vocabulary of {len(self.vocabulary)} pieces lacks {sorted(missing)}; is it BERT's? "
                "If its names differ, pass unk_token=, cls_token=, sep_token="
            )
        for token, token_id in self.special_tokens.items():
            if not token or self.vocabulary.get(token, token_id) != token_id:
                raise ValueError(
                    f"WordPiece: special token {token!r} has id {token_id}, but in the vocabulary it has "
                    f"{self.vocabulary.get(token)}; take both from one file, as read_wordpiece does"
                )

    def id_of(self, piece: str) -> int:
        """Id of a piece or special token."""
        return self.special_tokens[piece] if piece in self.special_tokens else self.vocabulary[piece]


def encode(text: str, rules: WordPiece) -> list[int]:
    """Turn one text into token ids: ``[CLS]``, the ids of its pieces, ``[SEP]``; nothing is cut.

    **Source**: Devlin et al. 2018, section 3; ``tokenizers.Tokenizer.encode(text).ids``.
    """
    return [rules.id_of(piece) for piece in [rules.cls_token, *tokenize(text, rules), rules.sep_token]]


def tokenize(text: str, rules: WordPiece) -> list[str]:
    """Cut one text into pieces of the vocabulary and special tokens.

    **Source**: ``tokenizers.Tokenizer.encode(text, add_special_tokens=False).tokens``.

    >>> rules = WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "play": 3, "##ing": 4}, special_tokens={"[SEP]": 2})
    >>> tokenize("Playing[SEP]played", rules)
    ['play', '##ing', '[SEP]', '[UNK]']
    """
    return [found.piece for found in locate(text, rules)]


class Located(NamedTuple):
    """A piece, and where it stands."""

    piece: str
    start: int  # its first character in the text
    stop: int  # the character after its last
    word: int  # the number of its word or special token in the text


def locate(text: str, rules: WordPiece) -> list[Located]:
    """Cut one text into pieces, and say which characters of it each of them stands for.

    A character of which :func:`normalize` makes several letters, such as a Korean syllable, is each letter's whole.

    **Source**: ``offsets`` and ``word_ids`` of ``tokenizers.Tokenizer.encode(text, add_special_tokens=False)``.

    >>> rules = WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "play": 3, "##ing": 4}, special_tokens={"[SEP]": 2})
    >>> [tuple(found) for found in locate("Pláying [SEP]", rules)]
    [('play', 0, 4, 0), ('##ing', 4, 7, 0), ('[SEP]', 8, 13, 1)]
    """
    refuse_half_characters(text, "tokenize")
    located: list[Located] = []
    place = number = 0  # characters and words behind us
    longest_first = sorted(rules.special_tokens, key=len, reverse=True)  # where one begins another, the longer wins
    special = "|".join(map(re.escape, longest_first))
    for part in re.split(f"({special})", text) if special else [text]:  # the ( ) keep the tokens themselves
        if part in rules.special_tokens:
            located.append(Located(part, place, place + len(part), number))
            number += 1
        else:
            letters = normalize(part, rules)
            # how many letters a character becomes does not depend on its neighbours: so each letter's origin is known
            become = {char: len(normalize(char, rules)) for char in set(part)}
            origins = [i for i, char in enumerate(part, place) for _ in range(become[char])]
            stop = 0
            for word in split_words(letters):
                stop = letters.index(word, stop)  # between two words there is only white space
                pieces = split_word(word, rules)
                for i, piece in enumerate(pieces):
                    start, prefix = stop, rules.continuing_subword_prefix if i else ""
                    # a piece that is alone is the whole word, even as [UNK]
                    stop += len(word) if len(pieces) == 1 else len(piece) - len(prefix)
                    located.append(Located(piece, origins[start], origins[stop - 1] + 1, number))
                number += 1
        place += len(part)
    return located


def refuse_half_characters(text: str, what: str) -> None:
    """Refuse lone surrogates, which have no UTF-8."""
    if half := re.search("[\ud800-\udfff]", text):
        place = half.start()
        raise ValueError(
            f"{what}: {text[max(0, place - 10) : place + 10]!r} holds a lone surrogate at character {place}, half of a "
            "character; clean it with text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        )


def normalize(text: str, rules: WordPiece) -> str:
    r"""Reduce a text to the letters that the vocabulary was made from.

    **Source**: ``BasicTokenizer`` in BERT's ``tokenization.py``; ``tokenizers.normalizers.BertNormalizer``.

    >>> rules = WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2})
    >>> normalize("Zürich\tis\u200b 東京", rules)
    'zurich is  東  京 '
    """
    if rules.clean_text:
        text = WHITE_SPACE.sub(" ", "".join(char for char in text if not _is_dropped(char)))
    if rules.handle_chinese_chars:
        text = IDEOGRAPH.sub(r" \g<0> ", text)
    if rules.lowercase if rules.strip_accents is None else rules.strip_accents:
        # NFD takes é apart into e and a combining mark, which is then left out
        text = "".join(char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char) != "Mn")
    if rules.lowercase:
        # letter by letter: a whole Greek word's .lower() ends in ς, the library's in σ
        text = "".join(char.lower() for char in text)
    return text


def _is_dropped(char: str) -> bool:
    """Control, format and private use characters; NUL is among them, U+FFFD stands for undecodable bytes."""
    return char == "\ufffd" or (char not in "\t\n\r" and unicodedata.category(char) in ("Cc", "Cf", "Co"))


def split_words(text: str) -> list[str]:
    """Cut normalized text at white space, which is dropped, and around each punctuation mark, which is kept.

    **Source**: ``tokenizers.pre_tokenizers.BertPreTokenizer``.

    >>> split_words("isn't it  $5?")
    ['isn', "'", 't', 'it', '$', '5', '?']
    """
    apart = "".join(f" {char} " if _is_punctuation(char) else char for char in text)
    return [word for word in WHITE_SPACE.split(apart) if word]


def _is_punctuation(char: str) -> bool:
    """Unicode's punctuation, and all of ASCII that is neither letter nor digit ($ + < ^ are symbols to Unicode)."""
    return ("!" <= char <= "~" and not char.isalnum()) or unicodedata.category(char).startswith("P")


def split_word(word: str, rules: WordPiece) -> list[str]:
    """Cut one word into pieces: the longest that the vocabulary has, then the longest that continues it, and so on.

    Greedy, so it never goes back: if the rest has no piece, the whole word is unknown.

    **Source**: Wu et al. 2016 (arXiv 1609.08144), section 4.1; ``tokenizers.models.WordPiece.tokenize``.

    >>> rules = WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "un": 3, "unw": 4, "##want": 5, "##ed": 6})
    >>> split_word("unwed", rules), split_word("unwanted", rules)  # "un ##want ##ed" would do, but "unw" is longer
    (['unw', '##ed'], ['[UNK]'])
    """
    if len(word) > rules.max_input_chars_per_word:
        return [rules.unk_token]
    pieces: list[str] = []
    start = 0
    while start < len(word):
        prefix = rules.continuing_subword_prefix if start else ""
        for end in range(len(word), start, -1):  # the longest candidate first
            if prefix + word[start:end] in rules.vocabulary:
                break
        else:  # not even the next letter alone is a piece
            return [rules.unk_token]
        pieces.append(prefix + word[start:end])
        start = end
    return pieces


def read_wordpiece(path: str | Path) -> WordPiece:
    """Read vocabulary and rules from ``tokenizer.json``, or a vocabulary from ``vocab.txt``.

    ``vocab.txt`` (one piece a line, its number the id) says no rules: bert-base-uncased's are taken, and
    ``dataclasses.replace(rules, lowercase=False)`` is the way to a cased model.
    """
    path = Path(path)
    try:
        if path.suffix == ".txt":
            lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")  # splitlines() would cut at U+2028
            vocabulary = {line.rstrip(): i for i, line in enumerate(lines)}
            special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
            return WordPiece(vocabulary, {token: vocabulary[token] for token in special if token in vocabulary})
        return _from_tokenizer_json(read_json(path))
    except ModelFolderError:
        raise
    except KeyError as error:
        raise refusal(path, f"no {error} in it; is it the tokenizer.json of a BERT?") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise refusal(path, f"no WordPiece vocabulary can be read: {error}") from error


def _from_tokenizer_json(raw: dict[str, Any]) -> WordPiece:
    """Take over the library's settings; refuse by name those that nothing above follows."""
    for part, known in {
        "normalizer": "BertNormalizer",
        "pre_tokenizer": "BertPreTokenizer",
        "model": "WordPiece",
    }.items():
        found = raw[part]["type"] if raw[part] else None
        if found != known:
            raise ValueError(f"its {part} is {found}; only {known} is supported")
    for token in raw["added_tokens"]:
        flags = [flag for flag in ("single_word", "lstrip", "rstrip", "normalized") if token[flag]]
        if flags:
            raise ValueError(f"its added token {token['content']!r} is marked {flags}, which is not supported")
    (cls_token, cls_ids), (sep_token, sep_ids) = _template(raw["post_processor"] or {})
    settings = {**raw["normalizer"], **raw["model"], "cls_token": cls_token, "sep_token": sep_token}
    rules = WordPiece(
        vocabulary=raw["model"]["vocab"],
        special_tokens={token["content"]: token["id"] for token in raw["added_tokens"]},
        **{f.name: settings[f.name] for f in fields(WordPiece) if f.name in settings},
    )
    if [rules.id_of(cls_token)] != cls_ids or [rules.id_of(sep_token)] != sep_ids:
        raise ValueError(f"its post_processor gives {cls_token} and {sep_token} other ids than its vocabulary does")
    return rules


def _template(post_processor: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """Token and ids before a text, and after it, from either of the two forms in which BERT's template is written."""
    if post_processor.get("type") == "BertProcessing":
        return [(token, [token_id]) for token, token_id in (post_processor["cls"], post_processor["sep"])]
    single = post_processor.get("single", [])
    if [next(iter(item)) for item in single] != ["SpecialToken", "Sequence", "SpecialToken"]:
        raise ValueError(f"its post_processor must put one token before a text and one behind, but does {single}")
    names = [item["SpecialToken"]["id"] for item in (single[0], single[2])]
    return [(name, post_processor["special_tokens"][name]["ids"]) for name in names]
