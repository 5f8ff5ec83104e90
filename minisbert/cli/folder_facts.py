"""What a model folder says about itself, read without its weights: enough for ``tokens`` and ``info``, and fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from minisbert import hub
from minisbert.cli.options import ModelChoice
from minisbert.model.config import BertConfig, read_bert_config, read_json
from minisbert.model.folder import read_module_list
from minisbert.model.tokens import Tokenizer, load_tokenizer, read_max_seq_length


class SaidLimit(NamedTuple):
    """One of the length limits in a model folder."""

    file: str
    key: str
    tokens: float | None  # None: not in the file


@dataclass(frozen=True)
class FolderFacts:
    """A model folder without its weights."""

    folder: Path
    source: str
    bert_folder: Path
    modules: list[tuple[str, Path]]  # what follows BERT; empty for a plain one
    config: BertConfig
    tokenizer: Tokenizer
    said_limits: list[SaidLimit]  # in the order in which they count
    max_seq_length: int  # in force, special tokens included
    decided_by: str  # the file, or the option


def read_folder_facts(choice: ModelChoice, *, local_files_only: bool, show_progress_bar: bool = False) -> FolderFacts:
    """Find a model's folder and read everything but the weights."""
    found = hub.resolve(
        choice.model,
        revision=choice.revision,
        local_files_only=local_files_only,
        show_progress_bar=show_progress_bar,
    )
    entries = read_module_list(found.folder) or [("Transformer", found.folder)]
    bert_folder = entries[0][1]
    config = read_bert_config(bert_folder / "config.json")
    tokenizer = load_tokenizer(bert_folder, config)
    limits = _said_limits(bert_folder, tokenizer, config)
    if choice.max_seq_length is None:
        limit = read_max_seq_length(bert_folder, config, tokenizer.settings)
        first = next(said for said in limits if said.tokens is not None)
        decided_by = first.file if first.tokens == limit else "config.json"  # no text has more tokens than positions
    else:
        limit, decided_by = _check_limit(choice.max_seq_length, tokenizer, config), "--max-seq-length"
    return FolderFacts(
        found.folder, found.source, bert_folder, entries[1:], config, tokenizer, limits, limit, decided_by
    )


def _said_limits(bert_folder: Path, tokenizer: Tokenizer, config: BertConfig) -> list[SaidLimit]:
    """The longest text according to each file."""
    sentence_file = "sentence_bert_config.json"
    return [
        SaidLimit(sentence_file, "max_seq_length", read_if_there(bert_folder / sentence_file).get("max_seq_length")),
        SaidLimit("tokenizer_config.json", "model_max_length", tokenizer.settings.get("model_max_length")),
        SaidLimit("config.json", "max_position_embeddings", config.max_position_embeddings),
    ]


def _check_limit(limit: int, tokenizer: Tokenizer, config: BertConfig) -> int:
    """Raise for a limit without room for a token, or beyond the model's positions."""
    least, most = tokenizer.special_count + 1, config.max_position_embeddings
    if not least <= limit <= most:
        raise ValueError(
            f"--max-seq-length: expected {least} (one token and the special tokens) to {most} (the model's positions), "
            f"got {limit}"
        )
    return limit


def read_if_there(file: Path) -> dict[str, Any]:
    """Read an optional JSON file of a model folder."""
    return read_json(file, optional=True) or {}
