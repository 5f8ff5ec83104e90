"""A model folder, read and written whole: configuration, weights, tokenizer, modules, prompts.

:func:`load_model` refuses a folder that cannot be computed exactly before any vector comes out; :func:`save_model`
writes one that sentence-transformers loads and that gives the same vectors. ``modules.json`` names Python classes: they
are matched by their last word against a short list and never imported. The paths in it come from strangers and are
refused when they leave the folder. Both formats are read: the old one with ``pooling_mode_*`` booleans, and that of
sentence-transformers 5.4 and later.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save_file

from minisbert.files import folder_written_whole
from minisbert.model import Array
from minisbert.model.config import (
    BertConfig,
    ModelFolderError,
    bert_config_to_json,
    read_bert_config,
    read_flag,
    read_json,
    read_whole,
    refusal,
    refuse_others,
)
from minisbert.model.params import BertParams, flatten, load_params, read_checkpoint, tensor_shapes
from minisbert.model.pooling import POOLINGS, Dense, Module, Normalize, Pooling, output_width
from minisbert.model.tokens import Tokenizer, load_tokenizer

# torch.nn's classes, by their last word; in lower case it is the function's name in ops.py
_DENSE_ACTIVATIONS = ("Identity", "Tanh", "GELU", "ReLU", "SiLU", "Sigmoid")
# what Dense and Normalize read and write
_FEATURE_NAMES = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
# the old format's booleans, in the order in which sentence-transformers concatenates
_OLD_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True)
class SentenceModel:
    """Everything that a model folder says.

    Parameters
    ----------
    config, params, modules, ...
        What each is stands behind its field.

    Examples
    --------
    >>> import tokenizers
    >>> from minisbert.model.params import random_params
    >>> library = tokenizers.BertWordPieceTokenizer({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "hello": 3})._tokenizer
    >>> tokenizer = Tokenizer(library, (1,), (2,), lower_case=False, settings={})
    >>> config = BertConfig(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    >>> params = random_params(config, np.random.default_rng(0), np.float32)
    >>> model = SentenceModel(config, params, (Pooling(("mean", "max")),), tokenizer, 128, {}, None, "cosine")
    >>> model.width
    16
    """

    config: BertConfig
    params: BertParams
    modules: tuple[Module, ...]  # what follows BERT
    tokenizer: Tokenizer
    max_seq_length: int  # in tokens, special tokens included
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str  # a key of similarity.SIMILARITIES
    truncate_dim: int | None = None  # dimensions of a sentence vector that are kept; None keeps all

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

    A folder that is damaged, contradicts itself, or is not computed exactly is a ModelFolderError.

    Parameters
    ----------
    folder : Path
    dtype : DTypeLike
        float32 or float64, of all weights and so of everything computed with them.

    Examples
    --------
    >>> load_model(Path("no/such/folder"))
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: no/such/folder: there is no such folder; ...
    """
    if not folder.is_dir():
        raise refusal(folder, "there is no such folder; expected the folder of a BERT model")
    try:
        is_cache = folder.name == "snapshots" or (folder / "snapshots").is_dir()
        if is_cache and not (folder / "config.json").exists() and not (folder / "modules.json").exists():
            name = (folder.parent if folder.name == "snapshots" else folder).name
            name = name.removeprefix("models--").replace("--", "/")
            raise refusal(folder, f"holds snapshots of a model; pass its name, {name!r}, or one of those in snapshots/")
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
    tokenizer, limit = load_tokenizer(bert_folder, config)
    modules = read_modules(entries[1:], config, dtype) or (Pooling(),)
    settings = read_sentence_settings(folder)
    params = load_params(bert_folder, config, dtype)
    return SentenceModel(config, params, modules, tokenizer, limit, **settings)


def resolve_inside(folder: Path, relative: str, said_by: Path) -> Path:
    """Resolve a path that ``said_by`` names; refuse absolute paths, ``..`` and links that leave the folder."""
    target = folder / relative
    try:
        inside = target.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a link in a circle; a null character
        inside = False
    if not inside or Path(relative).is_absolute() or ".." in Path(relative.replace("\\", "/")).parts:
        raise refusal(said_by, f"the path {relative!r} leaves the model's folder; do not trust this model")
    return target


def read_module_list(folder: Path) -> list[tuple[str, Path]] | None:
    """Kind and folder of each module in ``modules.json``, the Transformer first; None if there is no such file.

    A Dropout is left out: it changes no vector.
    """
    file = folder / "modules.json"
    listed = read_json(file, expect=list, optional=True)
    if listed is None:
        return None
    entries: list[tuple[str, Path]] = []
    for entry in listed:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("type", "path")):
            raise refusal(file, f"expected objects with a 'type' and a 'path', got {entry!r}")
        kind = entry["type"].rpartition(".")[2]
        if kind not in (known := ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")):
            raise refusal(file, f"the module {entry['type']!r} is not supported; known: {', '.join(known)}")
        entries.append((kind, resolve_inside(folder, entry["path"], file)))
    kinds = [kind for kind, _ in entries]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds.count("Transformer") + kinds.count("Pooling") != 2:
        raise refusal(file, f"expected a Transformer, a Pooling, then Dense, Normalize and Dropout, got {kinds}")
    return [entry for entry in entries if entry[0] != "Dropout"]  # it drops in training alone


def read_modules(entries: list[tuple[str, Path]], config: BertConfig, dtype: npt.DTypeLike) -> tuple[Module, ...]:
    """Read settings and weights of the modules after the Transformer, and check that each fits the one before."""
    modules: tuple[Module, ...] = ()
    for kind, path in entries:
        if kind == "Normalize":  # its folder need not exist: git keeps no empty folders
            file = path / "config.json"
            refuse_others(read_json(file, optional=True) or {}, _FEATURE_NAMES, file)
            modules += (Normalize(),)
        elif kind == "Pooling":
            modules += (_read_pooling(path / "config.json", config.hidden_size),)
        else:
            modules += (_read_dense(path, output_width(modules, config.hidden_size), dtype),)
    return modules


def _read_pooling(file: Path, hidden_size: int) -> Pooling:
    """Read the old format (booleans, several may be true) and the new one (a name, or a list of names)."""
    raw = read_json(file)
    width = raw.get("embedding_dimension", raw.get("word_embedding_dimension"))
    if width != hidden_size:
        raise refusal(file, f"pools vectors of width {width!r}, but config.json says hidden_size {hidden_size}")
    if "pooling_mode" in raw:
        named = raw["pooling_mode"]
        modes = tuple(named) if isinstance(named, list) else (named,)
    else:
        true = {key for key in raw if key.startswith("pooling_mode_") and read_flag(raw, key, False, file)}
        unknown = tuple(sorted(true - _OLD_POOLING_KEYS.keys()))
        # sentence-transformers takes the mean where no mode is named
        modes = unknown or tuple(mode for key, mode in _OLD_POOLING_KEYS.items() if key in true) or ("mean",)
    if not modes or not all(isinstance(mode, str) and mode in POOLINGS for mode in modes):
        raise refusal(file, f"pooling mode {modes!r} is not supported; known: {', '.join(POOLINGS)}")
    return Pooling(modes, read_flag(raw, "include_prompt", True, file))


def _read_dense(path: Path, d_in: int, dtype: npt.DTypeLike) -> Dense:
    """Read a Dense module's settings and tensors, and check the one against the other."""
    file = path / "config.json"
    raw = read_json(file)
    refuse_others(raw, {**_FEATURE_NAMES, "use_residual": False}, file)
    named = str(raw.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = named.rpartition(".")[2]
    if not named.startswith("torch.nn.") or activation not in _DENSE_ACTIVATIONS:
        known = ", ".join(_DENSE_ACTIVATIONS)
        raise refusal(file, f"activation_function {named!r} is not supported; known: torch.nn's {known}")
    d_out = read_whole(raw, "out_features", file)
    if raw.get("in_features") != d_in:
        raise refusal(file, f"in_features {raw.get('in_features')!r}, but the module before gives vectors of {d_in}")
    wanted: dict[str, tuple[Any, ...]] = {"linear.weight": (d_out, d_in)}
    if read_flag(raw, "bias", True, file):
        wanted["linear.bias"] = (d_out,)
    stored = read_checkpoint(path)
    found = {name: tensor.shape for name, tensor in stored.items()}
    if found != wanted:
        raise refusal(path, f"config.json asks for the tensors {wanted}, the safetensors file has {found}")
    tensors = {name: tensor.read(dtype) for name, tensor in stored.items()}
    return Dense(tensors["linear.weight"], tensors.get("linear.bias"), activation.lower())


def read_sentence_settings(folder: Path) -> dict[str, Any]:
    """Read ``config_sentence_transformers.json``, which may be absent, into the fields of a :class:`SentenceModel`."""
    file = folder / "config_sentence_transformers.json"
    # null means the default, as an absent key does
    said = {key: value for key, value in (read_json(file, optional=True) or {}).items() if value is not None}
    prompts, default = said.get("prompts", {}), said.get("default_prompt_name")
    # half a character (a lone surrogate) cannot be written
    if not isinstance(prompts, dict) or not all(
        text is None or (isinstance(text, str) and text == text.encode("utf-8", "replace").decode("utf-8"))
        for text in prompts.values()
    ):
        raise refusal(file, f"prompts must map names to texts, got {prompts!r}")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise refusal(file, f"default_prompt_name {default!r} is not one of {sorted(prompts)}")
    similarity = said.get("similarity_fn_name", "cosine")
    if similarity not in _SIMILARITIES:
        raise refusal(file, f"similarity_fn_name {similarity!r} is not supported; known: " + ", ".join(_SIMILARITIES))
    return {
        "prompts": {name: text or "" for name, text in prompts.items()},
        "default_prompt_name": default,
        "similarity_fn_name": similarity,
        "truncate_dim": read_whole(said, "truncate_dim", file) if "truncate_dim" in said else None,
    }


def save_model(model: SentenceModel, folder: Path, readme: str | None = None) -> None:
    """Write a folder that :func:`load_model` and sentence-transformers read.

    Parameters
    ----------
    model : SentenceModel
        Weights are written in their own dtype, in the format that every release of sentence-transformers reads.
        A Dropout module is not written: it was not kept when the folder was read.
    folder : Path
        New or empty. It appears whole or not at all.
    readme : str, optional
        What is to stand in its README.md, a model card.

    Examples
    --------
    >>> import tokenizers
    >>> from minisbert.model.params import random_params
    >>> library = tokenizers.BertWordPieceTokenizer({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "hello": 3})._tokenizer
    >>> tokenizer = Tokenizer(library, (1,), (2,), lower_case=False, settings={})
    >>> config = BertConfig(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    >>> params = random_params(config, np.random.default_rng(0), np.float32)
    >>> model = SentenceModel(config, params, (Pooling(("mean", "max")),), tokenizer, 128, {}, None, "cosine")
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "model"
    >>> save_model(model, folder)
    >>> load_model(folder).modules
    (Pooling(modes=('mean', 'max'), include_prompt=True),)
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"save: {folder.as_posix()} exists and is not an empty folder; nothing was written, choose another name"
        )
    with folder_written_whole(folder) as unfinished:
        names = tensor_shapes(model.config)
        _save_tensors(dict(zip(names, flatten(model.params), strict=True)), unfinished, folder)
        _write_json(unfinished / "config.json", bert_config_to_json(model.config))
        model.tokenizer.library.save(str(unfinished / "tokenizer.json"))
        _write_json(
            unfinished / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **model.tokenizer.settings}
        )
        limits = {"max_seq_length": model.max_seq_length, "do_lower_case": model.tokenizer.lower_case}
        _write_json(unfinished / "sentence_bert_config.json", limits)
        settings = {
            "prompts": model.prompts,
            "default_prompt_name": model.default_prompt_name,
            "similarity_fn_name": model.similarity_fn_name,
            "truncate_dim": model.truncate_dim,
        }
        _write_json(unfinished / "config_sentence_transformers.json", settings)
        listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
        width = model.config.hidden_size
        for i, module in enumerate(model.modules, 1):
            kind = type(module).__name__
            path = f"{i}_{kind}"
            listed.append({"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"})
            (unfinished / path).mkdir()
            if settings_of_module := modules_to_json(module, width):
                _write_json(unfinished / path / "config.json", settings_of_module)
            if isinstance(module, Dense):
                weights = {"linear.weight": module.weight, "linear.bias": module.bias}
                present = {name: array for name, array in weights.items() if array is not None}
                _save_tensors(present, unfinished / path, folder)
            width = output_width((module,), width)
        _write_json(unfinished / "modules.json", listed)
        if readme is not None:
            (unfinished / "README.md").write_text(readme, encoding="utf-8")


def _save_tensors(tensors: dict[str, Array], unfinished: Path, folder: Path) -> None:
    """Write tensors; what the library makes of a full disk becomes an OSError with the folder's name."""
    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    try:
        save_file(whole, unfinished / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{folder.as_posix()}: {error}") from error


def _write_json(file: Path, value: Any) -> None:
    """Write one JSON file, indented for people."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def modules_to_json(module: Module, width: int) -> dict[str, Any]:
    """The ``config.json`` that describes one module, which reads vectors of this width; empty for Normalize."""
    if isinstance(module, Pooling):
        booleans = {key: mode in module.modes for key, mode in _OLD_POOLING_KEYS.items()}
        if module.modes == tuple(mode for key, mode in _OLD_POOLING_KEYS.items() if booleans[key]):
            return {"word_embedding_dimension": width, **booleans, "include_prompt": module.include_prompt}
        # booleans have no order: only the new format can express another one, or a mode taken twice
        modes = list(module.modes)
        return {"embedding_dimension": width, "pooling_mode": modes, "include_prompt": module.include_prompt}
    if isinstance(module, Dense):
        torch_name = next(name for name in _DENSE_ACTIVATIONS if name.lower() == module.activation)
        place = "linear.Identity" if torch_name == "Identity" else f"activation.{torch_name}"
        return {
            "in_features": width,
            "out_features": len(module.weight),
            "bias": module.bias is not None,
            "activation_function": f"torch.nn.modules.{place}",
        }
    return {}
