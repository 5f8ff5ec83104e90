"""What a model folder says about itself, read without its weights: enough for ``tokens`` and ``info``, and fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
    folder = entries[0][1]
    config = read_bert_config(folder / "config.json")
    tokenizer = load_tokenizer(folder, config)
    said = read_json(folder / "sentence_bert_config.json", optional=True) or {}
    most = config.max_position_embeddings
    limits = [
        SaidLimit("sentence_bert_config.json", "max_seq_length", said.get("max_seq_length")),
        SaidLimit("tokenizer_config.json", "model_max_length", tokenizer.settings.get("model_max_length")),
        SaidLimit("config.json", "max_position_embeddings", most),
    ]
    limit = read_max_seq_length(folder, config, tokenizer.settings)
    first = next(limit for limit in limits if limit.tokens is not None)
    decided_by = first.file if first.tokens == limit else "config.json"  # no text has more tokens than positions
    if choice.max_seq_length is not None:
        limit, decided_by, least = choice.max_seq_length, "--max-seq-length", tokenizer.special_count + 1
        if not least <= limit <= most:
            raise ValueError(
                f"--max-seq-length: expected {least} (one token and the special tokens) to {most} (the model's "
                f"positions), got {limit}"
            )
    return FolderFacts(found.folder, found.source, folder, entries[1:], config, tokenizer, limits, limit, decided_by)
