"""Text -> token ids, packed end to end: the ``tokenizers`` library splits, this module cuts and counts.

A model folder carries up to four length limits that contradict each other, and its ``tokenizer.json`` often cuts and
pads on its own (all-MiniLM-L6-v2: at 128, silently). Here the library's cutting and padding are switched off, one
limit is chosen (:func:`read_max_seq_length`), and what is cut is always reported (:func:`report_overflow`). The same
ids by hand, for reading, are in ``wordpiece.py``, next.

Letters: ``B`` texts, ``N`` tokens in the strip, ``P`` positions.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers

from minisbert.model import Array
from minisbert.model.config import BertConfig, ModelFolderError, read_json

Overflow = Literal["warn", "error", "truncate"]


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
class Tokenizer:
    """A vocabulary and its rules; texts in, :class:`Tokens` out."""

    library: tokenizers.Tokenizer
    first: tuple[int, ...]  # ids before every text, in BERT [CLS]
    last: tuple[int, ...]  # ids behind it, in BERT [SEP]
    settings: dict[str, Any]  # tokenizer_config.json, kept for saving

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


def report_overflow(tokens: Tokens, max_seq_length: int, overflow: Overflow, stacklevel: int = 3) -> None:
    """Say how much was cut, once for all texts: by a warning, by an error, or not at all.

    Parameters
    ----------
    tokens : Tokens
    max_seq_length : int
    overflow : {"warn", "error", "truncate"}
    stacklevel : int
        As in :func:`warnings.warn`: whose line the warning names.

    Raises
    ------
    ValueError
        If texts were cut and ``overflow`` is ``"error"``, or ``overflow`` is none of the three.

    Examples
    --------
    >>> cut = Tokens(np.arange(8), np.array([8]), np.array([5]))
    >>> report_overflow(cut, 8, "error")
    Traceback (most recent call last):
        ...
    ValueError: 1 of 1 texts is longer than max_seq_length = 8 tokens and lost 5 tokens (text 0 lost 5 of 13); ...
    """
    if overflow not in ("warn", "error", "truncate"):
        raise ValueError(f"overflow must be 'warn', 'error' or 'truncate', got {overflow!r}")
    cut = np.flatnonzero(tokens.lost)
    if not len(cut) or overflow == "truncate":
        return
    worst = cut[np.argmax(tokens.lost[cut])]
    whole = tokens.lengths[worst] + tokens.lost[worst]
    message = (
        f"{len(cut)} of {len(tokens.lengths)} texts {'is' if len(cut) == 1 else 'are'} longer than max_seq_length = "
        f"{max_seq_length} tokens and lost {tokens.lost.sum()} tokens (text {worst} lost {tokens.lost[worst]} of "
        f"{whole}); split long texts, raise max_seq_length as far as the model allows, or pass overflow='truncate' "
        "if the beginnings are enough"
    )
    if overflow == "error":
        raise ValueError(message)
    warnings.warn(message, TruncationWarning, stacklevel=stacklevel)


def load_tokenizer(folder: Path, config: BertConfig) -> Tokenizer:
    """Read ``tokenizer.json`` (or ``vocab.txt``) and switch the library's own cutting and padding off.

    Parameters
    ----------
    folder : Path
        The Transformer's folder.
    config : BertConfig
        Its ``V`` bounds the ids.

    Returns
    -------
    Tokenizer

    Raises
    ------
    ModelFolderError
        If there is no tokenizer, it is damaged, or it gives ids that the embedding table does not have.

    Notes
    -----
    **Source**: ``transformers.AutoTokenizer.from_pretrained``.

    Examples
    --------
    >>> load_tokenizer(Path("no/such/folder"), BertConfig())
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: no/such/folder: there is neither tokenizer.json nor vocab.txt; ...
    """
    settings_file = folder / "tokenizer_config.json"
    settings = read_json(settings_file) if settings_file.exists() else {}
    if settings.get("truncation_side", "right") != "right":
        raise ModelFolderError(
            f"{settings_file.as_posix()}: truncation_side {settings['truncation_side']!r} is not computed here, "
            "only 'right'"
        )
    library = _read_library_tokenizer(folder, settings)
    library.no_truncation()
    library.no_padding()
    if _wants_lower_case(folder):
        parts = [tokenizers.normalizers.Lowercase()] + ([library.normalizer] if library.normalizer else [])
        library.normalizer = tokenizers.normalizers.Sequence(parts)
    vocabulary = library.get_vocab(with_added_tokens=True)
    if vocabulary and max(vocabulary.values()) >= config.vocab_size:
        piece, largest = max(vocabulary.items(), key=lambda item: item[1])
        raise ModelFolderError(
            f"{folder.as_posix()}: the tokenizer gives the piece {piece!r} the id {largest}, but config.json says "
            f"vocab_size {config.vocab_size}; do the files belong to the same model?"
        )
    marked = library.encode("a")
    own = [i for i, special in enumerate(marked.special_tokens_mask) if not special]
    if not own:
        raise ModelFolderError(f"{folder.as_posix()}: the tokenizer turns the text 'a' into no token; is it damaged?")
    return Tokenizer(library, tuple(marked.ids[: own[0]]), tuple(marked.ids[own[-1] + 1 :]), settings)


def _read_library_tokenizer(folder: Path, settings: dict[str, Any]) -> tokenizers.Tokenizer:
    """Open ``tokenizer.json``, or build the same from ``vocab.txt`` as models before 2020 have it."""
    file, vocab = folder / "tokenizer.json", folder / "vocab.txt"
    if not file.is_file() and not vocab.is_file():
        raise ModelFolderError(
            f"{folder.as_posix()}: there is neither tokenizer.json nor vocab.txt; was the folder copied whole?"
        )
    try:
        if file.is_file():
            return tokenizers.Tokenizer.from_file(str(file))
        from_vocabulary: tokenizers.Tokenizer = tokenizers.BertWordPieceTokenizer(
            str(vocab),
            lowercase=settings.get("do_lower_case", True),
            strip_accents=settings.get("strip_accents"),
            handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        )._tokenizer
        return from_vocabulary
    except Exception as error:  # the library raises plain Exception
        used = file if file.is_file() else vocab
        raise ModelFolderError(
            f"{used.as_posix()}: not a tokenizer that the tokenizers library {tokenizers.__version__} can read: "
            f"{error}; the file is damaged or cut off, fetch it again"
        ) from error


def _sentence_bert_config(folder: Path) -> dict[str, Any]:
    """Read ``sentence_bert_config.json``, which plain BERT folders do not have."""
    file = folder / "sentence_bert_config.json"
    raw: dict[str, Any] = read_json(file) if file.exists() else {}
    if raw.get("transformer_task") not in (None, "feature-extraction"):
        raise ModelFolderError(
            f"{file.as_posix()}: transformer_task {raw['transformer_task']!r} is not computed here, only "
            "'feature-extraction'"
        )
    return raw


def _wants_lower_case(folder: Path) -> bool:
    """Say whether sentence-transformers would lower-case before the tokenizer does."""
    return bool(_sentence_bert_config(folder).get("do_lower_case", False))


def read_max_seq_length(folder: Path, config: BertConfig, settings: dict[str, Any]) -> int:
    """Choose the one limit that counts among the up to four that a folder carries.

    ``sentence_bert_config.json: max_seq_length``, else ``tokenizer_config.json: model_max_length``, else
    ``config.json: max_position_embeddings``; never above the last. ``tokenizer.json``'s own truncation does not count.

    Parameters
    ----------
    folder : Path
        The Transformer's folder.
    config : BertConfig
    settings : dict
        ``tokenizer_config.json``.

    Returns
    -------
    int
        Tokens, special tokens included.

    Raises
    ------
    ModelFolderError
        If the limit is no positive whole number.

    Notes
    -----
    **Source**: ``sentence_transformers``' ``Transformer.max_seq_length``.

    Examples
    --------
    >>> read_max_seq_length(Path("no/such/folder"), BertConfig(), {"model_max_length": 1e30})
    512
    """
    said = _sentence_bert_config(folder).get("max_seq_length") or settings.get("model_max_length")
    if said is None:
        return config.max_position_embeddings
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not said >= 1 or said != said // 1:
        raise ModelFolderError(f"{folder.as_posix()}: the length limit {said!r} is no positive number of tokens")
    # 1e30 is transformers' way to say "no limit"
    return int(min(said, config.max_position_embeddings))
