"""The tokenizer of a model folder, and the one limit of length that counts.

A folder carries up to four length limits that contradict each other, and its ``tokenizer.json`` often cuts and pads on
its own (all-MiniLM-L6-v2: at 128, silently). Here the library's cutting and padding are switched off, one limit is
chosen (:func:`read_max_seq_length`), and a tokenizer that does not fit the model is refused. The same ids by hand, for
reading, are in ``wordpiece.py``, next.

Letters: ``V`` vocabulary, ``P`` positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers

from minisbert.model.config import BertConfig, ModelFolderError, read_flag, read_json, refuse_others, what_to_do
from minisbert.model.tokens import Tokenizer

_SENTENCE_BERT_CONFIG = "sentence_bert_config.json"
# Its keys that change what is computed, and the only value with which this package computes it.
_ONLY_VALUE: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "processing_kwargs": {},
    "query_length": None,
    "document_length": None,
    "query_expansion": None,
}
# The tokenizer_class of tokenizer_config.json with which its other keys overrule tokenizer.json; may be left out.
_BERT_CLASSES = (None, "BertTokenizer", "BertTokenizerFast")


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
    settings = _read_settings(folder / "tokenizer_config.json")
    library, file = _open_library(folder, settings)
    library.no_truncation()
    library.no_padding()
    _obey_settings(library, settings)
    said = _sentence_bert_config(folder)
    if lower_case := read_flag(said, "do_lower_case", False, folder / _SENTENCE_BERT_CONFIG):
        _lower_case_first(library)
    _check_vocabulary(library, config, file)
    first, last = _special_ids(library, file)
    return Tokenizer(library, first, last, lower_case, settings)


def _read_settings(file: Path) -> dict[str, Any]:
    """Read ``tokenizer_config.json``, which may be absent."""
    settings: dict[str, Any] = read_json(file, optional=True) or {}
    refuse_others(settings, {"truncation_side": "right"}, file)
    for key in ("do_lower_case", "tokenize_chinese_chars"):
        read_flag(settings, key, True, file)
    if settings.get("strip_accents") is not None:
        read_flag(settings, "strip_accents", True, file)
    return settings


def _open_library(folder: Path, settings: dict[str, Any]) -> tuple[tokenizers.Tokenizer, Path]:
    """Open ``tokenizer.json``, or build the same from ``vocab.txt`` as models before 2020 have it; say which."""
    file, vocab = folder / "tokenizer.json", folder / "vocab.txt"
    known: tuple[Any, ...] = (*_BERT_CLASSES, settings.get("tokenizer_class"))
    if not (file.exists() or file.is_symlink()):
        file, known = vocab, _BERT_CLASSES  # other classes split otherwise, and only tokenizer.json would say how
    if not (file.exists() or file.is_symlink()):
        raise ModelFolderError(
            f"{folder.as_posix()}: there is neither tokenizer.json nor vocab.txt; was the folder copied whole?"
        )
    # Japanese words are found by another program first, of which tokenizer.json knows nothing
    if (name := settings.get("tokenizer_class")) not in known or name == "BertJapaneseTokenizer":
        raise ModelFolderError(
            f"{(folder / 'tokenizer_config.json').as_posix()}: tokenizer_class {name!r} is not computed here from "
            f"{file.name}, only BertTokenizer"
        )
    try:
        if file == vocab:
            return tokenizers.BertWordPieceTokenizer(str(file))._tokenizer, file
        return tokenizers.Tokenizer.from_file(str(file)), file
    except Exception as error:  # the library raises plain Exception
        raise ModelFolderError(
            f"{file.as_posix()}: not a tokenizer that the tokenizers library {tokenizers.__version__} can read: "
            f"{error}; {what_to_do(file)}"
        ) from error


def _obey_settings(library: tokenizers.Tokenizer, settings: dict[str, Any]) -> None:
    """Let ``tokenizer_config.json`` overrule ``tokenizer.json``, as transformers' BertTokenizer does."""
    bert = tokenizers.normalizers.BertNormalizer
    if isinstance(library.normalizer, bert) and settings.get("tokenizer_class") in _BERT_CLASSES:
        library.normalizer = bert(
            lowercase=settings.get("do_lower_case", True),
            strip_accents=settings.get("strip_accents"),
            handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        )


def _lower_case_first(library: tokenizers.Tokenizer) -> None:
    """Put a step before all others that lower-cases, unless a folder saved before already has it."""
    rest = [library.normalizer] if library.normalizer else []
    if not any(b'"Lowercase"' in normalizer.__getstate__() for normalizer in rest):
        library.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Lowercase(), *rest])


def _check_vocabulary(library: tokenizers.Tokenizer, config: BertConfig, file: Path) -> None:
    """Refuse ids that have no row in the embedding table or belong to two pieces, and unknown words without an id."""
    model = library.model
    if isinstance(model, tokenizers.models.WordPiece) and model.token_to_id(model.unk_token) is None:
        raise ModelFolderError(
            f"{file.as_posix()}: the vocabulary lacks {model.unk_token!r}, the piece of unknown words"
        )
    size = library.get_vocab_size(with_added_tokens=True)
    if size <= config.vocab_size and all(map(library.id_to_token, range(size))):
        return  # n pieces, and each of the ids 0 to n - 1 has one: nothing is doubled or beyond, seen in 5 ms, not 25
    owner: dict[int, str] = {}
    for piece, token_id in library.get_vocab(with_added_tokens=True).items():
        if token_id >= config.vocab_size:
            raise ModelFolderError(
                f"{file.as_posix()}: gives the piece {piece!r} the id {token_id}, but config.json says vocab_size "
                f"{config.vocab_size}; do the files belong to the same model?"
            )
        if owner.setdefault(token_id, piece) != piece:
            raise ModelFolderError(
                f"{file.as_posix()}: gives {owner[token_id]!r} and {piece!r} the same id {token_id}; it is damaged"
            )


def _special_ids(library: tokenizers.Tokenizer, file: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Find the ids that the tokenizer puts before and behind every text, by watching what it does to one."""
    try:
        marked = library.encode("a")
    except BaseException as error:  # a panic inside the library is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise ModelFolderError(f"{file.as_posix()}: the tokenizer fails on the text 'a': {error}") from error
    own = [i for i, special in enumerate(marked.special_tokens_mask) if not special]
    if not own or own[0] == 0 or own[-1] == len(marked.ids) - 1 or len(marked.tokens) != len(marked.ids):
        raise ModelFolderError(
            f"{file.as_posix()}: makes {marked.tokens} of the text 'a', without special tokens before and behind it; "
            "BERT needs them"
        )
    for i, (token, token_id) in enumerate(zip(marked.tokens, marked.ids, strict=True)):
        if i not in own and library.token_to_id(token) != token_id:
            raise ModelFolderError(
                f"{file.as_posix()}: puts {token!r} with the id {token_id} around texts, but its vocabulary says "
                f"{library.token_to_id(token)}; it is damaged"
            )
    return tuple(marked.ids[: own[0]]), tuple(marked.ids[own[-1] + 1 :])


def _sentence_bert_config(folder: Path) -> dict[str, Any]:
    """Read ``sentence_bert_config.json``, which plain BERT folders do not have."""
    file = folder / _SENTENCE_BERT_CONFIG
    raw: dict[str, Any] = read_json(file, optional=True) or {}
    refuse_others(raw, _ONLY_VALUE, file)
    return raw


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
    file, key, said = _SENTENCE_BERT_CONFIG, "max_seq_length", _sentence_bert_config(folder).get("max_seq_length")
    if said is None:
        file, key, said = "tokenizer_config.json", "model_max_length", settings.get("model_max_length")
    if said is None:
        return config.max_position_embeddings
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not said >= 1 or said != said // 1:
        raise ModelFolderError(f"{(folder / file).as_posix()}: {key} {said!r} is no positive number of tokens")
    # 1e30 is transformers' way to say "no limit"
    return int(min(said, config.max_position_embeddings))
