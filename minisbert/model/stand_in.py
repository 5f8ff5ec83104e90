"""What this package calls of a ``tokenizers.Tokenizer``, on ``wordpiece.py``: for WebAssembly, which has no such thing.

The library's ids, places and words, more slowly, of BERT's WordPiece alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from minisbert.model.config import ModelFolderError
from minisbert.model.wordpiece import WordPiece, locate, normalize, read_wordpiece, split_word, split_words


@dataclass(frozen=True)
class Encoding:
    """One text's tokens; field names are the library's."""

    tokens: list[str]
    ids: list[int]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]
    special_tokens_mask: list[int]


class Token(NamedTuple):
    """A piece and its id."""

    id: int
    value: str


@dataclass(frozen=True)
class WordPieceTokenizer:
    """The library's methods, with its names and results.

    >>> rules = WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "play": 3, "##ing": 4})
    >>> encoding = WordPieceTokenizer(rules).encode("Playing", add_special_tokens=False)
    >>> encoding.ids, encoding.offsets, encoding.word_ids
    ([3, 4], [(0, 4), (4, 7)], [0, 0])
    """

    rules: WordPiece

    def encode(self, text: str, add_special_tokens: bool = True) -> Encoding:
        """Split one text, and put [CLS] and [SEP] around it."""
        text.encode("utf-8")  # the library's UnicodeEncodeError for half a character
        rules = self.rules
        found: list[tuple[str, int, int, int | None]] = [*locate(text, rules)]
        if add_special_tokens:
            found = [(rules.cls_token, 0, 0, None), *found, (rules.sep_token, 0, 0, None)]
        return Encoding(
            tokens=[piece for piece, _, _, _ in found],
            ids=[rules.id_of(piece) for piece, _, _, _ in found],
            offsets=[(start, stop) for _, start, stop, _ in found],
            word_ids=[word for _, _, _, word in found],
            special_tokens_mask=[int(word is None) for _, _, _, word in found],
        )

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[Encoding]:
        """Split many texts."""
        return [self.encode(text, add_special_tokens) for text in texts]

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """The id of every piece."""
        return {**self.rules.vocabulary, **(self.rules.special_tokens if with_added_tokens else {})}

    def get_vocab_size(self, with_added_tokens: bool = True) -> int:
        """How many pieces there are."""
        return len(self.get_vocab(with_added_tokens))

    def token_to_id(self, token: str) -> int | None:
        """The id of one piece, None if there is no such piece."""
        return self.rules.special_tokens.get(token, self.rules.vocabulary.get(token))

    def id_to_token(self, id: int) -> str | None:
        """The piece of one id, None if there is no such id."""
        return self._pieces.get(id)

    @cached_property
    def _pieces(self) -> dict[int, str]:
        return {token_id: piece for piece, token_id in self.get_vocab().items()}

    @property
    def normalizer(self) -> WordPieceTokenizer:
        """The library's three stages are methods here."""
        return self

    pre_tokenizer = model = normalizer

    def normalize_str(self, text: str) -> str:
        """The first stage: a text's letters."""
        return normalize(text, self.rules)

    def pre_tokenize_str(self, text: str) -> list[tuple[str, None]]:
        """The second: normalized text's words, here without their places."""
        return [(word, None) for word in split_words(text)]

    def tokenize(self, word: str) -> list[Token]:
        """The third: a word's pieces."""
        return [Token(self.rules.id_of(piece), piece) for piece in split_word(word, self.rules)]

    def to_str(self, pretty: bool = False) -> str:
        """The rules as ``tokenizer.json``, which the library reads."""
        rules = self.rules
        first, last = ({"SpecialToken": {"id": token, "type_id": 0}} for token in (rules.cls_token, rules.sep_token))
        single = [first, {"Sequence": {"id": "A", "type_id": 0}}, last]
        second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": rules.sep_token, "type_id": 1}}]
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        described = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": token_id, "content": token, **plain, "special": True}
                for token, token_id in sorted(rules.special_tokens.items(), key=lambda item: item[1])
            ],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": rules.clean_text,
                "handle_chinese_chars": rules.handle_chinese_chars,
                "strip_accents": rules.strip_accents,
                "lowercase": rules.lowercase,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": single,
                "pair": [*single, *second],
                "special_tokens": {
                    token: {"id": token, "ids": [rules.id_of(token)], "tokens": [token]}
                    for token in (rules.cls_token, rules.sep_token)
                },
            },
            "decoder": {"type": "WordPiece", "prefix": rules.continuing_subword_prefix, "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": rules.unk_token,
                "continuing_subword_prefix": rules.continuing_subword_prefix,
                "max_input_chars_per_word": rules.max_input_chars_per_word,
                "vocab": dict(sorted(rules.vocabulary.items(), key=lambda item: item[1])),
            },
        }
        return json.dumps(described, indent=2 if pretty else None, ensure_ascii=False)

    def save(self, path: str) -> None:
        """Write ``tokenizer.json``."""
        Path(path).write_text(self.to_str(pretty=True), encoding="utf-8")


def open_stand_in(file: Path, changed: dict[str, Any], lower_case: bool) -> WordPieceTokenizer:
    """Read ``tokenizer.json`` or ``vocab.txt`` with these settings changed, and all text put into lower case first."""
    without = "without the tokenizers library, which cannot be imported here, only BERT's WordPiece is read"
    try:
        rules = replace(read_wordpiece(file), **changed)
    except ModelFolderError as error:
        raise ModelFolderError(f"{error}; {without}") from error
    if lower_case and not rules.lowercase:
        raise ModelFolderError(
            f"{(file.parent / 'sentence_bert_config.json').as_posix()}: do_lower_case with a cased tokenizer is not "
            f"supported; {without}"
        )
    return WordPieceTokenizer(rules)
