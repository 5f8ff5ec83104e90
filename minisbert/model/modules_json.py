"""``modules.json`` and the folders that it names: what follows BERT, read from disk and described for it.

The file names Python classes. They are matched by their last word against a short list and never imported; the paths
in it come from strangers and are refused when they leave the folder. Both formats are read: the old one with
``pooling_mode_*`` booleans, and the one of sentence-transformers 5.4 and later. Next comes ``folder.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from minisbert.model.checkpoint import read_checkpoint
from minisbert.model.config import BertConfig, ModelFolderError, read_flag, read_json, refuse_others
from minisbert.model.modules import Dense, Module, Normalize, Pooling, output_width
from minisbert.model.pooling import POOLINGS

# torch.nn's classes, by their last word -> the function of ops.py
_DENSE_ACTIVATIONS = {
    "Identity": "identity",
    "Tanh": "tanh",
    "GELU": "gelu",
    "ReLU": "relu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}
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


def resolve_inside(folder: Path, relative: str, said_by: Path) -> Path:
    """Resolve a path that a model folder names, and refuse one that leaves the folder.

    Parameters
    ----------
    folder : Path
    relative : str
        As written in ``modules.json``; ``""`` is the folder itself.
    said_by : Path
        The file that names it, for the message.

    Returns
    -------
    Path

    Raises
    ------
    ModelFolderError
        For an absolute path, ``..`` and links that lead outside.

    Examples
    --------
    >>> resolve_inside(Path("."), "../other", Path("modules.json"))
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: modules.json: the path '../other' leaves the model's folder...
    """
    target = folder / relative
    try:
        inside = target.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a link in a circle; a null character
        inside = False
    if not inside or Path(relative).is_absolute() or ".." in Path(relative.replace("\\", "/")).parts:
        raise ModelFolderError(
            f"{said_by.as_posix()}: the path {relative!r} leaves the model's folder; do not trust this model"
        )
    return target


def read_module_list(folder: Path) -> list[tuple[str, Path]] | None:
    """Read ``modules.json``: which modules, in which order, in which folders.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of (str, Path), or None
        Kind (``"Transformer"``, ``"Pooling"``, ``"Dense"``, ``"Normalize"``) and folder of each module, the
        Transformer first. A Dropout is left out, it changes no vector. None where there is no ``modules.json``, as in
        a plain BERT.

    Raises
    ------
    ModelFolderError
        For a foreign kind of module, an order that makes no sense, or a path that leaves the folder.

    Examples
    --------
    >>> read_module_list(Path("no/such/folder")) is None
    True
    """
    file = folder / "modules.json"
    listed = read_json(file, expect=list, optional=True)
    if listed is None:
        return None
    entries: list[tuple[str, Path]] = []
    for entry in listed:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("type", "path")):
            raise ModelFolderError(f"{file.as_posix()}: expected objects with a 'type' and a 'path', got {entry!r}")
        kind = entry["type"].rpartition(".")[2]
        if kind not in ("Transformer", "Pooling", "Dense", "Normalize", "Dropout"):
            raise ModelFolderError(
                f"{file.as_posix()}: the module {entry['type']!r} is not computed here; known: Transformer, Pooling, "
                "Dense, Normalize, Dropout"
            )
        entries.append((kind, resolve_inside(folder, entry["path"], file)))
    kinds = [kind for kind, _ in entries]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds.count("Transformer") + kinds.count("Pooling") != 2:
        raise ModelFolderError(
            f"{file.as_posix()}: expected a Transformer, a Pooling, then any number of Dense, Normalize and Dropout, "
            f"got {kinds}"
        )
    return [entry for entry in entries if entry[0] != "Dropout"]  # it drops in training alone


def read_modules(entries: list[tuple[str, Path]], config: BertConfig, dtype: npt.DTypeLike) -> tuple[Module, ...]:
    """Read the settings and weights of what follows the Transformer.

    Parameters
    ----------
    entries : list of (str, Path)
        From :func:`read_module_list`, without the Transformer.
    config : BertConfig
    dtype : DTypeLike
        Of Dense weights.

    Returns
    -------
    tuple of Module

    Raises
    ------
    ModelFolderError
        For settings that are missing, unknown, or do not fit the module before.

    Examples
    --------
    >>> read_modules([("Normalize", Path("2_Normalize"))], BertConfig(), "float32")
    (Normalize(),)
    """
    modules: tuple[Module, ...] = ()
    for kind, path in entries:
        if kind == "Normalize":
            modules += (_read_normalize(path),)
        elif kind == "Pooling":
            modules += (_read_pooling(path / "config.json", config.hidden_size),)
        else:
            modules += (_read_dense(path, output_width(modules, config.hidden_size), dtype),)
    return modules


def _read_normalize(path: Path) -> Normalize:
    """Read Normalize, whose folder need not exist: git keeps no empty folders."""
    file = path / "config.json"
    refuse_others(read_json(file, optional=True) or {}, _FEATURE_NAMES, file)
    return Normalize()


def _read_pooling(file: Path, hidden_size: int) -> Pooling:
    """Read the old format (booleans, several may be true) and the new one (a name, or a list of names)."""
    raw = read_json(file)
    width = raw.get("embedding_dimension", raw.get("word_embedding_dimension"))
    if width != hidden_size:
        raise ModelFolderError(
            f"{file.as_posix()}: pools vectors of width {width!r}, but config.json says hidden_size {hidden_size}"
        )
    if "pooling_mode" in raw:
        named = raw["pooling_mode"]
        modes = tuple(named) if isinstance(named, list) else (named,)
    else:
        true = {key for key in raw if key.startswith("pooling_mode_") and read_flag(raw, key, False, file)}
        unknown = tuple(sorted(true - _OLD_POOLING_KEYS.keys()))
        # sentence-transformers takes the mean where no mode is named
        modes = unknown or tuple(mode for key, mode in _OLD_POOLING_KEYS.items() if key in true) or ("mean",)
    if not modes or not all(isinstance(mode, str) and mode in POOLINGS for mode in modes):
        raise ModelFolderError(
            f"{file.as_posix()}: pooling mode {modes!r} is not computed here; known: {', '.join(POOLINGS)}"
        )
    return Pooling(modes, read_flag(raw, "include_prompt", True, file))


def _read_dense(path: Path, d_in: int, dtype: npt.DTypeLike) -> Dense:
    """Read a Dense module's settings and tensors, and check the one against the other."""
    file = path / "config.json"
    raw = read_json(file)
    refuse_others(raw, _FEATURE_NAMES, file)
    named = str(raw.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = named.rpartition(".")[2]
    if not named.startswith("torch.nn.") or activation not in _DENSE_ACTIVATIONS:
        raise ModelFolderError(
            f"{file.as_posix()}: activation_function {named!r} is not computed here; known: torch.nn's "
            + ", ".join(_DENSE_ACTIVATIONS)
        )
    d_out, use_residual = raw.get("out_features"), read_flag(raw, "use_residual", False, file)
    if raw.get("in_features") != d_in:
        raise ModelFolderError(
            f"{file.as_posix()}: in_features {raw.get('in_features')!r}, but the module before gives vectors of {d_in}"
        )
    if type(d_out) is not int or d_out < 1:  # not isinstance: True would do
        raise ModelFolderError(f"{file.as_posix()}: out_features must be a positive integer, got {d_out!r}")
    wanted: dict[str, tuple[Any, ...]] = {"linear.weight": (d_out, d_in)}
    if read_flag(raw, "bias", True, file):
        wanted["linear.bias"] = (d_out,)
    if use_residual and d_in != d_out:
        wanted["residual.weight"] = (d_out, d_in)
    stored = read_checkpoint(path)
    found = {name: tensor.shape for name, tensor in stored.items()}
    if found != wanted:
        raise ModelFolderError(
            f"{path.as_posix()}: config.json asks for the tensors {wanted}, the safetensors file has {found}"
        )
    tensors = {name: tensor.read(dtype) for name, tensor in stored.items()}
    return Dense(
        tensors["linear.weight"],
        tensors.get("linear.bias"),
        _DENSE_ACTIVATIONS[activation],
        use_residual,
        tensors.get("residual.weight"),
    )


def modules_to_json(module: Module, width: int) -> dict[str, Any]:
    """Give the ``config.json`` that describes one module to sentence-transformers, old or new.

    Parameters
    ----------
    module : Module
    width : int
        Of the vectors that it reads.

    Returns
    -------
    dict
        Empty for Normalize.

    Examples
    --------
    >>> modules_to_json(Pooling(("max",)), 8)["pooling_mode_max_tokens"]
    True
    """
    if isinstance(module, Pooling):
        booleans = {key: mode in module.modes for key, mode in _OLD_POOLING_KEYS.items()}
        if module.modes == tuple(mode for key, mode in _OLD_POOLING_KEYS.items() if booleans[key]):
            return {"word_embedding_dimension": width, **booleans, "include_prompt": module.include_prompt}
        # booleans have no order: another one, or a mode taken twice, only the new format can say
        modes = list(module.modes)
        return {"embedding_dimension": width, "pooling_mode": modes, "include_prompt": module.include_prompt}
    if isinstance(module, Dense):
        torch_name = {ours: name for name, ours in _DENSE_ACTIVATIONS.items()}[module.activation]
        place = "linear.Identity" if torch_name == "Identity" else f"activation.{torch_name}"
        settings: dict[str, Any] = {
            "in_features": width,
            "out_features": len(module.weight),
            "bias": module.bias is not None,
            "activation_function": f"torch.nn.modules.{place}",
        }
        # left out where false, so that older releases, which do not know the key, still load the folder
        return {**settings, "use_residual": True} if module.use_residual else settings
    return {}
