"""Text -> token ids, packed end to end: the ``tokenizers`` library splits, this module cuts, counts and locates.

What is cut is always reported (:class:`OverflowReport`), and :class:`TokenSpans` says where each token of a text of any
length stands. A model folder carries up to four length limits that contradict each other, and its ``tokenizer.json``
often truncates and pads on its own (all-MiniLM-L6-v2: at 128, silently). :func:`load_tokenizer` switches that off and
refuses a tokenizer that does not fit the model, and chooses the one limit that counts.

Letters: ``B`` texts, ``N`` tokens in the strip, ``T`` tokens of one text.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from minisbert.model import Array
from minisbert.model.config import (
    BertConfig,
    read_flag,
    read_json,
    refusal,
    refuse_others,
    what_to_do,
)
from minisbert.model.stand_in import WordPieceTokenizer, open_stand_in
from minisbert.model.wordpiece import refuse_half_characters

if TYPE_CHECKING:
    import tokenizers

Overflow = Literal["warn", "error", "truncate", "chunk"]
"""What to do about texts that are too long: cut and warn, refuse, cut silently, split (``long_texts.py``)."""

_PART = 50_000  # characters of a long text that are split at a time
_BLANK = re.compile("[ \n]")


class TruncationWarning(UserWarning):
    """Texts were longer than the limit, and tokens were lost."""


@dataclass(frozen=True)
class Tokens:
    """Texts as one strip of token ids."""

    token_ids: Array  # (N,) all texts end to end, special tokens included
    lengths: Array  # (B,) tokens of each text
    lost: Array  # (B,) tokens that were cut off each text

    def split(self) -> list[Array]:
        """Each text's token ids, as ``B`` views of :attr:`token_ids`."""
        return np.split(self.token_ids, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []


@dataclass(frozen=True)
class TokenSpans:
    """All tokens of one text, without special ones, and where each stands in the text."""

    token_ids: Array  # (T,)
    starts: Array  # (T,) each token's first character in the text
    stops: Array  # (T,) the character after its last
    words: Array  # (T,) the word it is part of, as the tokenizer splits words


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary and its rules; texts in, :class:`Tokens` out. Made by :func:`~minisbert.model.folder.load_model`.

    Parameters
    ----------
    library, first, last, lower_case, settings
        What each is stands behind its field.

    Examples
    --------
    >>> import tokenizers
    >>> library = tokenizers.BertWordPieceTokenizer({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "hello": 3})._tokenizer
    >>> tokenizer = Tokenizer(library, (1,), (2,), lower_case=False, settings={})
    >>> tokenizer(["Hello", "hello hello"], max_seq_length=8)
    Tokens(token_ids=array([1, 3, 2, 1, 3, 3, 2]), lengths=array([3, 4]), lost=array([0, 0]))
    """

    library: tokenizers.Tokenizer | WordPieceTokenizer  # without truncation and padding of its own
    first: tuple[int, ...]  # ids before every text, in BERT [CLS]
    last: tuple[int, ...]  # ids behind it, [SEP]
    lower_case: bool  # sentence_bert_config.json wants lower case before all else; kept for saving, as is the next
    settings: dict[str, Any]  # tokenizer_config.json

    @property
    def special_count(self) -> int:
        """Tokens that every text gets besides its own."""
        return len(self.first) + len(self.last)

    def __call__(self, texts: Sequence[str], max_seq_length: int) -> Tokens:
        """Split texts into tokens, put the special ones around them, and cut at the limit.

        The limit counts special tokens, which are always there: a text is cut before [SEP]. A lone surrogate, half a
        character without UTF-8, is a ValueError.
        """
        room = max_seq_length - self.special_count
        strip: list[int] = []
        lengths, lost = np.zeros(len(texts), np.intp), np.zeros(len(texts), np.intp)
        # a block at a time: the library's own records of a text are many times larger than its ids
        for start in range(0, len(texts), 1000):
            for i, ids in enumerate(self._split(texts[start : start + 1000], start), start):
                strip += [*self.first, *ids[:room], *self.last]
                lengths[i] = min(len(ids), room) + self.special_count
                lost[i] = max(0, len(ids) - room)
        return Tokens(np.array(strip, np.int64), lengths, lost)

    def _split(self, texts: Sequence[str], first_index: int) -> list[list[int]]:
        """Ids of each text without special tokens."""
        try:
            # without offsets, which are not needed here, where the library can leave them out
            encode = getattr(self.library, "encode_batch_fast", self.library.encode_batch)
            return [encoding.ids for encoding in encode(list(texts), add_special_tokens=False)]
        except (UnicodeEncodeError, TypeError):
            for i, text in enumerate(texts, first_index):
                refuse_half_characters(text, f"text {i}")
            raise

    def spans(self, text: str) -> TokenSpans:
        """Split one text of any length into tokens, and say which characters each of them stands for.

        The ids are those of :meth:`__call__`, uncut and without special tokens. A character may become several tokens,
        all of which then have its span.
        """
        parts = [np.empty((4, 0), np.intp)]
        characters = count = 0
        for part in self._parts(text):
            try:
                encoding = self.library.encode(part, add_special_tokens=False)
            except (UnicodeEncodeError, TypeError):
                self._split([text], 0)  # says where
                raise
            starts, stops = np.array(encoding.offsets, np.intp).reshape(-1, 2).T + characters
            # a special token written out in the text belongs to no word: None
            words = [-1 if number is None else count + number for number in encoding.word_ids]
            parts.append(np.array([encoding.ids, starts, stops, words], np.intp))
            characters += len(part)
            count += len(encoding.ids)
        return TokenSpans(*np.concatenate(parts, axis=1))

    def _parts(self, text: str) -> Iterator[str]:
        """Cut a very long text after blanks, where BERT's tokenizer ends a word in any case.

        The library's records of a text are a hundred times larger than the text: 1 GB for a book of 5 MB.
        """
        kind = type(self.library.pre_tokenizer).__name__
        whole = len(text) <= _PART or kind not in ("BertPreTokenizer", "WordPieceTokenizer")
        if whole or any(map(_BLANK.search, self.library.get_vocab())):
            yield text
            return
        start = 0
        while start < len(text):
            blank = _BLANK.search(text, start + _PART)
            stop = blank.end() if blank else len(text)
            yield text[start:stop]
            start = stop

    def pieces(self, token_ids: Sequence[int] | Array) -> list[str]:
        """The vocabulary's piece of each id; a piece that starts with ``##`` continues the one before."""
        return [str(self.library.id_to_token(int(i))) for i in token_ids]


class OverflowReport:
    """Count what is cut off texts, over any number of blocks of texts, and report it once.

    ``overflow`` says what to do about texts that are too long: warn at the end, raise at once, or nothing; texts
    split into chunks are never cut. ``counts``, the :attr:`counts` of an earlier report, is where counting goes on.

    >>> report = OverflowReport(8, "error")
    >>> report.add(Tokens(np.arange(8), np.array([8]), np.array([5])))
    Traceback (most recent call last):
        ...
    ValueError: 1 of 1 texts is longer than max_seq_length = 8 tokens and lost 5 tokens (text 0 lost 5 of 13); ...
    """

    def __init__(self, max_seq_length: int, overflow: Overflow, counts: Sequence[int] = (0, 0, 0, 0, 0, 0)) -> None:
        if overflow not in get_args(Overflow):
            raise ValueError(f"overflow must be 'warn', 'error', 'truncate' or 'chunk', got {overflow!r}")
        self.max_seq_length = max_seq_length
        self.overflow = overflow
        self.texts, self.cut, self.lost, *worst = counts
        self._worst = tuple(worst)  # tokens lost, index of the text, its whole length
        self._refuse()

    @property
    def counts(self) -> tuple[int, ...]:
        """Texts, those that were cut, tokens lost; and of the worst text the tokens lost, its index, its length."""
        return (self.texts, self.cut, self.lost, *self._worst)

    def add(self, tokens: Tokens) -> None:
        """Count the next texts."""
        if tokens.lost.any():
            worst = int(np.argmax(tokens.lost))
            lost = int(tokens.lost[worst])
            if lost > self._worst[0]:
                self._worst = (lost, self.texts + worst, int(tokens.lengths[worst]) + lost)
            self.cut += int(np.count_nonzero(tokens.lost))
            self.lost += int(tokens.lost.sum())
        self.texts += len(tokens.lengths)
        self._refuse()

    def _refuse(self) -> None:
        """Raise if texts were cut that must not be."""
        if self.cut and self.overflow == "error":
            raise ValueError(self._message())

    def warn(self, stacklevel: int = 3) -> None:
        """Warn, if anything was lost and ``overflow`` is ``"warn"``; ``stacklevel`` as in :func:`warnings.warn`."""
        if self.cut and self.overflow == "warn":
            warnings.warn(self._message(), TruncationWarning, stacklevel=stacklevel)

    def _message(self) -> str:
        lost, index, whole = self._worst
        return (
            f"{self.cut} of {self.texts} texts {'is' if self.cut == 1 else 'are'} longer than max_seq_length = "
            f"{self.max_seq_length} tokens and lost {self.lost} tokens (text {index} lost {lost} of {whole}); "
            "overflow='chunk' embeds them whole; a larger max_seq_length, as far as the model allows, reads more of "
            "them; overflow='truncate' says that the beginnings are enough"
        )


# Keys of sentence_bert_config.json that change what is computed, and the only supported value of each.
_ONLY_VALUE: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "processing_kwargs": {},
    "query_length": None,
    "document_length": None,
    "query_expansion": None,
}
# With one of these as tokenizer_class, the other keys of tokenizer_config.json overrule tokenizer.json.
_BERT_CLASSES = (None, "BertTokenizer", "BertTokenizerFast")


def load_tokenizer(folder: Path, config: BertConfig) -> tuple[Tokenizer, int]:
    """Read ``tokenizer.json`` (or ``vocab.txt``) without its own truncation and padding, and the limit that counts.

    The limit is in tokens, special tokens included: ``sentence_bert_config.json: max_seq_length``, else
    ``tokenizer_config.json: model_max_length``, else ``config.json: max_position_embeddings``; never above the last.

    **Source**: ``transformers.AutoTokenizer.from_pretrained``; ``sentence_transformers``'
    ``Transformer.max_seq_length``.
    """
    file = folder / "tokenizer_config.json"
    settings: dict[str, Any] = read_json(file, optional=True) or {}
    refuse_others(settings, {"truncation_side": "right"}, file)
    for key in ("do_lower_case", "tokenize_chinese_chars", "strip_accents"):
        if key != "strip_accents" or settings.get(key) is not None:
            read_flag(settings, key, True, file)
    file = _vocabulary_file(folder, settings)
    changed: dict[str, Any] = {}
    if settings.get("tokenizer_class") in _BERT_CLASSES:
        # tokenizer_config.json overrules tokenizer.json, as in transformers' BertTokenizer
        changed = {
            "clean_text": True,
            "lowercase": settings.get("do_lower_case", True),
            "strip_accents": settings.get("strip_accents"),
            "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
        }
    said_by = folder / "sentence_bert_config.json"  # which plain BERT folders do not have
    said: dict[str, Any] = read_json(said_by, optional=True) or {}
    refuse_others(said, _ONLY_VALUE, said_by)
    lower_case = read_flag(said, "do_lower_case", False, said_by)
    library = _open_library(file, changed, lower_case)
    _check_vocabulary(library, config, file)
    tokenizer = Tokenizer(library, *_special_ids(library, file), lower_case, settings)
    key, limit = "max_seq_length", said.get("max_seq_length")
    if limit is None:
        said_by, key, limit = folder / "tokenizer_config.json", "model_max_length", settings.get("model_max_length")
    if limit is None:
        limit = config.max_position_embeddings
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= 1 or limit != limit // 1:
        raise refusal(said_by, f"{key} must be a positive number of tokens, got {limit!r}")
    limit = int(min(limit, config.max_position_embeddings))  # 1e30 is transformers' way to say "no limit"
    if limit <= tokenizer.special_count:
        special = f"{tokenizer.special_count} special tokens"
        raise refusal(folder, f"max_seq_length of {limit} tokens leaves no room for text beside {special}")
    return tokenizer, limit


def _vocabulary_file(folder: Path, settings: dict[str, Any]) -> Path:
    """Choose ``tokenizer.json``, or ``vocab.txt`` in models before 2020, and refuse classes that split otherwise."""
    file, name = folder / "tokenizer.json", settings.get("tokenizer_class")
    if not os.path.lexists(file):
        file = folder / "vocab.txt"
    if not os.path.lexists(file):
        raise refusal(folder, "there is neither tokenizer.json nor vocab.txt; was the folder copied whole?")
    # other classes split otherwise, and only tokenizer.json says how; Japanese text is split by another program first,
    # of which that knows nothing
    if (file.suffix == ".txt" and name not in _BERT_CLASSES) or name == "BertJapaneseTokenizer":
        config = folder / "tokenizer_config.json"
        raise refusal(config, f"tokenizer_class {name!r} is not supported with {file.name}, only BertTokenizer")
    return file


def _open_library(file: Path, changed: dict[str, Any], lower_case: bool) -> tokenizers.Tokenizer | WordPieceTokenizer:
    """Open a tokenizer with these settings of BERT's normalizer changed, and all text put into lower case first."""
    try:
        import tokenizers
    except ModuleNotFoundError:
        return open_stand_in(file, changed, lower_case)
    try:
        if file.suffix == ".txt":
            library = tokenizers.BertWordPieceTokenizer(str(file))._tokenizer
        else:
            library = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        release = f"the tokenizers library {tokenizers.__version__}"
        raise refusal(file, f"not a tokenizer that {release} can read: {error}; {what_to_do(file)}") from error
    model = library.model
    if isinstance(model, tokenizers.models.WordPiece) and model.token_to_id(model.unk_token) is None:
        raise refusal(file, f"the vocabulary lacks {model.unk_token!r}, the piece of unknown words")
    library.no_truncation()
    library.no_padding()
    bert = tokenizers.normalizers.BertNormalizer
    if changed and isinstance(library.normalizer, bert):
        library.normalizer = bert(**changed)
    if lower_case:
        # before all else, unless a folder saved earlier already does
        rest = [library.normalizer] if library.normalizer else []
        if not any(b'"Lowercase"' in normalizer.__getstate__() for normalizer in rest):
            library.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Lowercase(), *rest])
    return library


def _check_vocabulary(library: tokenizers.Tokenizer | WordPieceTokenizer, config: BertConfig, file: Path) -> None:
    """Refuse ids without a row in the embedding table or with two pieces."""
    size = library.get_vocab_size(with_added_tokens=True)
    if size <= config.vocab_size and all(map(library.id_to_token, range(size))):
        return  # n pieces, and each of the ids 0 to n - 1 has one: nothing is doubled or beyond, seen in 5 ms, not 25
    owner: dict[int, str] = {}
    for piece, token_id in library.get_vocab(with_added_tokens=True).items():
        if token_id >= config.vocab_size:
            rows = f"config.json says vocab_size {config.vocab_size}"
            raise refusal(file, f"gives {piece!r} the id {token_id}, but {rows}; are the files of the same model?")
        if owner.setdefault(token_id, piece) != piece:
            raise refusal(file, f"gives {owner[token_id]!r} and {piece!r} the same id {token_id}; it is damaged")


def _special_ids(
    library: tokenizers.Tokenizer | WordPieceTokenizer, file: Path
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Find the ids that the tokenizer puts before and after every text, by watching what it does to one."""
    try:
        marked = library.encode("a")
    except BaseException as error:  # a panic inside the library is not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise refusal(file, f"the tokenizer fails on the text 'a': {error}") from error
    own = [i for i, special in enumerate(marked.special_tokens_mask) if not special]
    if not own or own[0] == 0 or own[-1] == len(marked.ids) - 1 or len(marked.tokens) != len(marked.ids):
        raise refusal(file, f"makes {marked.tokens} of the text 'a': BERT needs special tokens before and behind it")
    for i, (token, token_id) in enumerate(zip(marked.tokens, marked.ids, strict=True)):
        if i not in own and library.token_to_id(token) != token_id:
            said = library.token_to_id(token)
            raise refusal(
                file, f"puts {token!r}, {token_id}, around texts, but its vocabulary says {said}; it is damaged"
            )
    return tuple(marked.ids[: own[0]]), tuple(marked.ids[own[-1] + 1 :])
