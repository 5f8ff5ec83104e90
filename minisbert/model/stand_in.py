"""What this package calls of a ``tokenizers.Tokenizer``, on ``wordpiece.py``: for WebAssembly, which has no such thing.

The library's ids, places and words, more slowly, of BERT's WordPiece alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from minisbert.model.config import ModelFolderError, refusal
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

    def to_str(self) -> str:
        """Refuse: only the library writes ``tokenizer.json``."""
        raise ValueError("a model is saved where the tokenizers library can be imported; here it cannot")

    def save(self, path: str) -> None:
        """Refuse, as `to_str`."""
        self.to_str()


def open_stand_in(file: Path, changed: dict[str, Any], lower_case: bool) -> WordPieceTokenizer:
    """Read ``tokenizer.json`` or ``vocab.txt`` with these settings changed, and all text put into lower case first."""
    without = "without the tokenizers library, which cannot be imported here, only BERT's WordPiece is read"
    try:
        rules = replace(read_wordpiece(file), **changed)
    except ModelFolderError as error:
        raise ModelFolderError(f"{error}; {without}") from error
    if lower_case and not rules.lowercase:
        config = file.parent / "sentence_bert_config.json"
        raise refusal(config, f"do_lower_case with a cased tokenizer is not supported; {without}")
    return WordPieceTokenizer(rules)
