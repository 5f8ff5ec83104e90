"""A model folder, read and written as one: configuration, weights, tokenizer, modules, prompts.

:func:`load_model` refuses a folder that cannot be computed exactly before any vector comes out; :func:`save_model`
writes one that sentence-transformers loads and that gives the same vectors. This is the end of the model; how a name
becomes a folder is in ``hub.py``, and ``encoder.py`` makes vectors of texts with all this.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from minisbert.model.config import (
    BertConfig,
    ModelFolderError,
    bert_config_to_json,
    read_bert_config,
    read_json,
)
from minisbert.model.modules import Dense, Module, Pooling, output_width
from minisbert.model.modules_json import modules_to_json, read_module_list, read_modules
from minisbert.model.params import BertParams, flatten, load_params, tensor_shapes
from minisbert.model.tokenizer_json import load_tokenizer, read_max_seq_length
from minisbert.model.tokens import Tokenizer

_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True)
class SentenceModel:
    """Everything that a model folder says."""

    config: BertConfig
    params: BertParams
    modules: tuple[Module, ...]
    tokenizer: Tokenizer
    max_seq_length: int  # tokens, special tokens included
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str
    truncate_dim: int | None = None  # dimensions of a sentence vector that are kept; None: all

    @property
    def full_width(self) -> int:
        """The length of a sentence vector before ``truncate_dim``."""
        return output_width(self.modules, self.config.hidden_size)

    @property
    def width(self) -> int:
        """The length of a sentence vector."""
        return min(self.full_width, self.truncate_dim or self.full_width)


def load_model(folder: Path, dtype: npt.DTypeLike = np.float32) -> SentenceModel:
    """Read a whole model folder, in either of sentence-transformers' formats or as a plain BERT.

    Parameters
    ----------
    folder : Path
    dtype : DTypeLike
        float32 or float64, of all weights and so of everything computed with them.

    Returns
    -------
    SentenceModel

    Raises
    ------
    ModelFolderError
        Naming the file and the cause, for a folder that is damaged, contradicts itself, or is not computed exactly.

    Examples
    --------
    >>> load_model(Path("no/such/folder"))
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: no/such/folder: there is no such folder; ...
    """
    if not folder.is_dir():
        raise ModelFolderError(f"{folder.as_posix()}: there is no such folder; expected the folder of a BERT model")
    try:
        entries = read_module_list(folder)
        model = _read_files(folder, entries or [("Transformer", folder)], dtype)
    except OSError as error:  # no right to look into a folder, a name that is too long, a failing disk
        raise ModelFolderError(f"{error.filename or folder}: cannot be read: {error.strerror}") from error
    if entries is None:
        warnings.warn(
            f"{folder.as_posix()} has no modules.json: a plain BERT, whose token vectors are averaged here; it was not "
            "trained to make sentence vectors",
            UserWarning,
            stacklevel=3,
        )
    return model


def _read_files(folder: Path, entries: list[tuple[str, Path]], dtype: npt.DTypeLike) -> SentenceModel:
    """Read what ``modules.json`` lists, weights last: they take the longest, and a small file may be wrong."""
    bert_folder = entries[0][1]
    config = read_bert_config(bert_folder / "config.json")
    tokenizer = load_tokenizer(bert_folder, config)
    limit = read_max_seq_length(bert_folder, config, tokenizer.settings)
    if limit <= tokenizer.special_count:
        raise ModelFolderError(
            f"{bert_folder.as_posix()}: max_seq_length or max_position_embeddings of {limit} tokens leaves no room for "
            f"text beside {tokenizer.special_count} special tokens"
        )
    modules = read_modules(entries[1:], config, dtype) or (Pooling(),)
    settings = read_sentence_settings(folder)
    params = load_params(bert_folder, config, dtype)
    return SentenceModel(config, params, modules, tokenizer, limit, **settings)


def read_sentence_settings(folder: Path) -> dict[str, Any]:
    """Read ``config_sentence_transformers.json``, which may be absent.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict
        ``prompts``, ``default_prompt_name``, ``similarity_fn_name`` and ``truncate_dim``, as a SentenceModel has them.

    Raises
    ------
    ModelFolderError
        For values that make no sense, and a similarity that is not computed here.

    Examples
    --------
    >>> read_sentence_settings(Path("no/such/folder"))["similarity_fn_name"]
    'cosine'
    """
    file = folder / "config_sentence_transformers.json"
    # null means the default, as an absent key does
    said = {key: value for key, value in (read_json(file, optional=True) or {}).items() if value is not None}
    prompts, default = said.get("prompts", {}), said.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(text is None or _is_text(text) for text in prompts.values()):
        raise ModelFolderError(f"{file.as_posix()}: expected prompts to map names to texts, got {prompts!r}")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise ModelFolderError(f"{file.as_posix()}: default_prompt_name {default!r} is none of {sorted(prompts)}")
    similarity, dim = said.get("similarity_fn_name", "cosine"), said.get("truncate_dim")
    if similarity not in _SIMILARITIES:
        raise ModelFolderError(
            f"{file.as_posix()}: similarity_fn_name {similarity!r} is not computed here; known: "
            + ", ".join(_SIMILARITIES)
        )
    if dim is not None and (isinstance(dim, bool) or not isinstance(dim, int) or dim < 1):
        raise ModelFolderError(f"{file.as_posix()}: truncate_dim must be a positive number of dimensions, got {dim!r}")
    return {
        "prompts": {name: text or "" for name, text in prompts.items()},
        "default_prompt_name": default,
        "similarity_fn_name": similarity,
        "truncate_dim": dim,
    }


def _is_text(value: Any) -> bool:
    """Say whether this is a string, and one that can be written: half a character (a lone surrogate) cannot."""
    return isinstance(value, str) and value == value.encode("utf-8", "replace").decode("utf-8")


def save_model(model: SentenceModel, folder: Path, readme: str | None = None) -> None:
    """Write a folder that :func:`load_model` and sentence-transformers read.

    Parameters
    ----------
    model : SentenceModel
    folder : Path
        New or empty. It appears whole or not at all.
    readme : str, optional
        What is to stand in its README.md, a model card.

    Raises
    ------
    ValueError
        If the folder holds something already, or is a file.

    Notes
    -----
    Weights are written in the model's own dtype; the format is the one that every release of
    sentence-transformers reads.

    Examples
    --------
    :meth:`minisbert.encoder.SentenceEncoder.save` shows it on a real model.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"save: {folder.as_posix()} exists and is not an empty folder; nothing was written, choose another name"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # written beside its place and moved there in one step, so that an interrupted save leaves no half model
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_files(model, unfinished)
        if readme is not None:
            (unfinished / "README.md").write_text(readme, encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp's folders are for their owner alone
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write_files(model: SentenceModel, folder: Path) -> None:
    """Write every file of the model into an empty folder."""
    names = tensor_shapes(model.config)
    tensors = {name: np.ascontiguousarray(array) for name, array in zip(names, flatten(model.params), strict=True)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", bert_config_to_json(model.config))
    model.tokenizer.library.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **model.tokenizer.settings})
    limits = {"max_seq_length": model.max_seq_length, "do_lower_case": model.tokenizer.lower_case}
    _write_json(folder / "sentence_bert_config.json", limits)
    settings = {
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
        "similarity_fn_name": model.similarity_fn_name,
        "truncate_dim": model.truncate_dim,
    }
    _write_json(folder / "config_sentence_transformers.json", settings)
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    width = model.config.hidden_size
    for i, module in enumerate(model.modules, 1):
        kind = type(module).__name__
        path = f"{i}_{kind}"
        listed.append({"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"})
        (folder / path).mkdir()
        if settings_of_module := modules_to_json(module, width):
            _write_json(folder / path / "config.json", settings_of_module)
        if isinstance(module, Dense):
            _write_dense(module, folder / path / "model.safetensors")
        width = output_width((module,), width)
    _write_json(folder / "modules.json", listed)


def _write_dense(module: Dense, file: Path) -> None:
    """Write a Dense module's tensors under sentence-transformers' names."""
    tensors = {"linear.weight": module.weight, "linear.bias": module.bias, "residual.weight": module.residual}
    present = {name: np.ascontiguousarray(array) for name, array in tensors.items() if array is not None}
    save_file(present, file, metadata={"format": "pt"})


def _write_json(file: Path, value: Any) -> None:
    """Write one JSON file as people like to read it."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
