"""Text -> token ids, packed end to end: the ``tokenizers`` library splits, this module cuts, counts and locates.

What is cut is always reported (:class:`OverflowReport`), and :class:`TokenSpans` says where each token of a text of any
length stands. How the library is set up from a model folder is in ``tokenizer_json.py``, next.

Letters: ``B`` texts, ``N`` tokens in the strip, ``T`` tokens of one text.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import tokenizers

from minisbert.model import Array

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
        """Give each text's token ids as an array of its own.

        Returns
        -------
        list of Array
            ``B`` views of :attr:`token_ids`.

        Examples
        --------
        >>> Tokens(np.array([5, 6, 7]), np.array([2, 1]), np.array([0, 0])).split()
        [array([5, 6]), array([7])]
        """
        return np.split(self.token_ids, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []


@dataclass(frozen=True)
class TokenSpans:
    """One text's own tokens, all of them, without special ones, and where each stands in the text."""

    token_ids: Array  # (T,)
    starts: Array  # (T,) the token's first character in the text
    stops: Array  # (T,) the character behind its last
    words: Array  # (T,) which word it is a part of, as the tokenizer splits words

    def behind(self, count: int) -> TokenSpans:
        """Leave the first tokens out.

        Parameters
        ----------
        count : int

        Returns
        -------
        TokenSpans

        Examples
        --------
        >>> TokenSpans(np.array([5, 6]), np.array([0, 3]), np.array([2, 7]), np.array([0, 1])).behind(1).token_ids
        array([6])
        """
        return TokenSpans(self.token_ids[count:], self.starts[count:], self.stops[count:], self.words[count:])


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary and its rules; texts in, :class:`Tokens` out."""

    library: tokenizers.Tokenizer
    first: tuple[int, ...]  # ids before every text, in BERT [CLS]
    last: tuple[int, ...]  # ids behind it, in BERT [SEP]
    lower_case: bool  # sentence_bert_config.json wants lower case before all else; kept for saving, as is the next
    settings: dict[str, Any]  # tokenizer_config.json

    @property
    def special_count(self) -> int:
        """Tokens that every text gets besides its own."""
        return len(self.first) + len(self.last)

    def __call__(self, texts: Sequence[str], max_seq_length: int) -> Tokens:
        """Split texts into tokens, put the special ones around them, and cut at the limit.

        Parameters
        ----------
        texts : sequence of str
        max_seq_length : int
            The longest text in tokens, special tokens included.

        Returns
        -------
        Tokens
            Cut at the end; the special tokens are always there.

        Raises
        ------
        ValueError
            For a text with a lone surrogate, which is half a character and has no UTF-8.
        """
        room = max_seq_length - self.special_count
        strip: list[int] = []
        lengths, lost = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
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
            # without the offsets that nobody reads here, where the library can leave them out
            encode = getattr(self.library, "encode_batch_fast", self.library.encode_batch)
            return [encoding.ids for encoding in encode(list(texts), add_special_tokens=False)]
        except (UnicodeEncodeError, TypeError):
            for i, text in enumerate(texts, first_index):
                try:
                    text.encode("utf-8")
                except UnicodeEncodeError as error:
                    raise ValueError(
                        f"text {i}: {text[max(0, error.start - 10) : error.start + 10]!r} holds a lone surrogate at "
                        f"character {error.start}, half of a character that was cut in two; clean it with "
                        "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
                    ) from None
            raise

    def spans(self, text: str) -> TokenSpans:
        """Split one text of any length into tokens, and say which characters each of them stands for.

        Parameters
        ----------
        text : str

        Returns
        -------
        TokenSpans
            The ids are those of :meth:`__call__`, uncut and without special tokens. A character may become several
            tokens, which then have the same span.

        Raises
        ------
        ValueError
            For a text with a lone surrogate.
        """
        parts = [np.empty((4, 0), np.int64)]
        characters = count = 0
        for part in self._parts(text):
            try:
                encoding = self.library.encode(part, add_special_tokens=False)
            except (UnicodeEncodeError, TypeError):
                self._split([text], 0)  # says where
                raise
            starts, stops = np.array(encoding.offsets, np.int64).reshape(-1, 2).T + characters
            # a special token that is written out in the text is no word: None
            words = [-1 if number is None else count + number for number in encoding.word_ids]
            parts.append(np.array([encoding.ids, starts, stops, words], np.int64))
            characters += len(part)
            count += len(encoding.ids)
        return TokenSpans(*np.concatenate(parts, axis=1))

    def _parts(self, text: str) -> Iterator[str]:
        """Cut a very long text behind blanks, where BERT's tokenizer ends a word in any case.

        The library's records of a text are a hundred times larger than the text: 1 GB for a book of 5 MB.
        """
        whole = not isinstance(self.library.pre_tokenizer, tokenizers.pre_tokenizers.BertPreTokenizer)
        if len(text) <= _PART or whole or self._added_tokens_with_blanks():
            yield text
            return
        start = 0
        while start < len(text):
            blank = _BLANK.search(text, start + _PART)
            stop = blank.end() if blank else len(text)
            yield text[start:stop]
            start = stop

    def _added_tokens_with_blanks(self) -> bool:
        """Say whether a blank may stand inside a token."""
        return any(_BLANK.search(token.content) for token in self.library.get_added_tokens_decoder().values())

    def pieces(self, token_ids: Sequence[int] | Array) -> list[str]:
        """Give the vocabulary's piece of each id.

        Parameters
        ----------
        token_ids : sequence of int, shape (N,)

        Returns
        -------
        list of str
            A piece that starts with ``##`` continues the one before.
        """
        return [str(self.library.id_to_token(int(i))) for i in token_ids]


class OverflowReport:
    """Count what is cut off texts, over any number of blocks of texts, and say it once.

    Parameters
    ----------
    max_seq_length : int
    overflow : {"warn", "error", "truncate", "chunk"}
        What to do about texts that are too long: warn at the end, refuse at once, or nothing. Texts that are split
        into chunks are never cut.
    counts : sequence of 6 int
        Where to go on counting: the :attr:`counts` of an earlier report, about the texts before.

    Raises
    ------
    ValueError
        If ``overflow`` is none of these, or it is ``"error"`` and the texts before were cut.

    Examples
    --------
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
        """Count the next texts.

        Parameters
        ----------
        tokens : Tokens

        Raises
        ------
        ValueError
            If texts were cut and ``overflow`` is ``"error"``.
        """
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
        """Say what was lost, if anything was and ``overflow`` is ``"warn"``.

        Parameters
        ----------
        stacklevel : int
            As in :func:`warnings.warn`: whose line the warning names.
        """
        if self.cut and self.overflow == "warn":
            warnings.warn(self._message(), TruncationWarning, stacklevel=stacklevel)

    def _message(self) -> str:
        lost, index, whole = self._worst
        return (
            f"{self.cut} of {self.texts} texts {'is' if self.cut == 1 else 'are'} longer than max_seq_length = "
            f"{self.max_seq_length} tokens and lost {self.lost} tokens (text {index} lost {lost} of {whole}); pass "
            "overflow='chunk' to embed them whole, raise max_seq_length as far as the model allows, or pass "
            "overflow='truncate' if the beginnings are enough"
        )
