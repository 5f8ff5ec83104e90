"""What was learnt from vectors, as a folder: facts that people can read in JSON, numbers in safetensors, no pickle.

A folder of the kind ``classifier``, say, holds ``classifier.json`` and ``classifier.safetensors``. The JSON names the
format, its version and the SHA-256 of the numbers, so that two files of different trainings are not taken for one. It
appears whole or not at all. Opening it runs no code, whoever wrote it.

Left out on purpose: what the facts mean and which shapes the numbers must have. Whoever calls knows, and checks it
after :func:`load_folder`. Next file: ``probe.py``, the first thing that is learnt and saved.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as tensor_bytes

from minisbert.model import Array
from minisbert.origin import Origin

__all__ = ["SavedError", "check_place", "load_folder", "origin_from", "origin_to_json", "save_folder"]

_VERSION = 1
_ASIDE = "replaced"  # what the name of a folder that gives way to a new one ends in, until the new one has its place


class SavedError(ValueError):
    """A folder that cannot be written as asked, or that is not what it should be."""


# ------------------------------------------------------------------------------------------------------ writing


def save_folder(
    folder: Path, kind: str, facts: Mapping[str, Any], tensors: Mapping[str, Array], *, force: bool = False
) -> None:
    """Write a folder that :func:`load_folder` reads; it appears whole or not at all.

    Parameters
    ----------
    folder : Path
        New or empty. Folders above it are created.
    kind : str
        What it is, such as "classifier": the files are named so.
    facts : mapping of str to what JSON holds
        Whatever is no array; ``None`` for what is not known, no NaN.
    tensors : mapping of str to Array
        Finite numbers, of any shapes and dtypes that safetensors has.
    force : bool
        Replace a folder that is there, if it holds nothing but the files of this kind.

    Raises
    ------
    SavedError
        If the folder is not free, and for numbers that are not finite.

    Notes
    -----
    Replacing takes two renames: a process that is killed between them leaves the old folder, whole, under a hidden name
    beside its place, and :func:`load_folder` then says where it is.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp()) / "mood"
    >>> save_folder(folder, "classifier", {"classes": ["bad", "good"]}, {"bias": np.array([0.5, -0.5])})
    >>> sorted(file.name for file in folder.iterdir())
    ['classifier.json', 'classifier.safetensors']
    """
    check_place(folder, kind, force=force)
    numbers = tensor_bytes({name: _checked(name, array) for name, array in tensors.items()})
    head = {
        "format": _format(kind),
        "version": _VERSION,
        "tensors_sha256": hashlib.sha256(numbers).hexdigest(),
        "facts": dict(facts),
    }
    said = json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    target = folder.resolve()  # a link stays a link
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _write(unfinished / f"{kind}.safetensors", numbers)
        _write(unfinished / f"{kind}.json", said)
        unfinished.chmod(0o755)  # mkdtemp's folders are for their owner alone
        _move_into_place(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # nothing is there once it has been moved


def check_place(folder: Path, kind: str, *, force: bool = False) -> None:
    """Refuse a place that :func:`save_folder` would refuse, before minutes of work.

    Parameters
    ----------
    folder : Path
    kind : str
    force : bool
        As in :func:`save_folder`.

    Raises
    ------
    SavedError
        For a file, for a folder that holds something, and with ``force`` for one that holds something else.

    Examples
    --------
    >>> check_place(Path(tempfile.mkdtemp()) / "mood", "classifier")
    """
    where = folder.as_posix()
    if not kind.isidentifier():
        raise SavedError(f"save: kind must be a name such as 'classifier', got {kind!r}")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SavedError(f"{where}: expected a folder, got a file; choose another name")
    found = {file.name for file in folder.iterdir()}
    if not found:
        return
    if not force:
        raise SavedError(f"{where}: already exists; choose another name, or overwrite it with force=True")
    ours = {f"{kind}.json", f"{kind}.safetensors"}
    if f"{kind}.json" not in found or found - ours:
        other = sorted(found - ours)
        raise SavedError(
            f"{where}: not overwritten, because it is not just a folder of kind {kind!r}: "
            + (f"it holds {', '.join(map(repr, other[:3]))}" if other else f"there is no {kind}.json")
            + "; choose another name"
        )


def _checked(name: str, array: Array) -> Array:
    """Refuse NaN and infinity, and give numbers in the order in which they are written."""
    # safetensors writes memory as it lies there: a transposed array would come back as another one
    numbers: Array = np.ascontiguousarray(array).reshape(np.shape(array))
    if np.issubdtype(numbers.dtype, np.inexact) and not np.isfinite(numbers).all():
        raise SavedError(
            f"save: expected finite numbers, and {np.count_nonzero(~np.isfinite(numbers))} of {numbers.size} in "
            f"{name!r} are NaN or infinite; nothing was written"
        )
    return numbers


def _write(file: Path, content: bytes) -> None:
    """Write a file, and wait until it is on the disk."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _move_into_place(unfinished: Path, target: Path) -> None:
    """Give the new folder its name; one that is there steps aside first, and back if that fails."""
    if not target.exists() or not any(target.iterdir()):
        unfinished.replace(target)
        return
    aside = unfinished.with_name(f"{unfinished.name}.{_ASIDE}")
    target.replace(aside)
    try:
        unfinished.replace(target)
    except BaseException:
        aside.replace(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------ reading


def load_folder(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read what :func:`save_folder` wrote.

    Parameters
    ----------
    folder : Path
    kind : str
        What it must be, such as "classifier".

    Returns
    -------
    facts : dict
    tensors : dict of str to Array
        Finite numbers, as they were saved, bit for bit. Their shapes are for the caller to check.

    Raises
    ------
    SavedError
        For a folder of another kind or of a newer version, a missing or damaged file, numbers that are not those the
        JSON was written with, and NaN or infinity.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp()) / "mood"
    >>> save_folder(folder, "classifier", {"classes": ["bad", "good"]}, {"bias": np.array([0.5, -0.5])})
    >>> load_folder(folder, "classifier")
    ({'classes': ['bad', 'good']}, {'bias': array([ 0.5, -0.5])})
    """
    head = _read_head(folder, kind)
    file = folder / f"{kind}.safetensors"
    content = _read(file, folder, kind)
    if hashlib.sha256(content).hexdigest() != head["tensors_sha256"]:
        raise SavedError(
            f"{file.as_posix()}: not the file that {kind}.json was written with: it is damaged, or the two come from "
            "different runs; copy the whole folder, or train again"
        )
    try:
        tensors: dict[str, Array] = parse_tensors(content)
    except (SafetensorError, ValueError, KeyError) as error:  # the library's ways to refuse a header or a dtype
        raise SavedError(f"{file.as_posix()}: not a readable safetensors file: {error}; train again") from None
    for name, array in tensors.items():
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise SavedError(f"{file.as_posix()}: {name!r} holds NaN or infinite numbers; train again")
    return head["facts"], tensors


def _read(file: Path, folder: Path, kind: str) -> bytes:
    """Read a file of the folder, or say what stands there instead."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise SavedError(_missing(file, folder, kind)) from None
    except OSError as error:
        raise SavedError(f"{file.as_posix()}: cannot be read: {error.strerror}") from error


def _missing(file: Path, folder: Path, kind: str) -> str:
    """Say why a file may be missing."""
    where = folder.as_posix()
    if not folder.is_dir():
        target = folder.resolve()
        aside = sorted(target.parent.glob(f".{target.name}-*.{_ASIDE}"))
        if folder.exists():
            return f"{where}: expected a folder of kind {kind!r}, got a file"
        if aside:
            return f"{where}: replacing it was interrupted; the old folder is {aside[0].name}: rename it back"
        return f"{where}: no such folder; expected one of kind {kind!r}"
    others = sorted(path.stem for path in folder.glob("*.json") if path.with_suffix(".safetensors").exists())
    if file.suffix == ".json" and others:
        return f"{where}: expected kind {kind!r} (there is no {file.name}), but it looks like: {', '.join(others)}"
    return f"{where}: {file.name} is missing; is this a folder of kind {kind!r}, and was it copied whole?"


def _read_head(folder: Path, kind: str) -> dict[str, Any]:
    """Read the JSON, and check all that does not depend on the kind."""
    file = folder / f"{kind}.json"
    content = _read(file, folder, kind)
    try:
        head = json.loads(content.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SavedError(f"{file.as_posix()}: damaged, not JSON: {error}; train again") from None
    if not isinstance(head, dict) or head.get("format") != _format(kind):
        found = head.get("format") if isinstance(head, dict) else head
        raise SavedError(f"{file.as_posix()}: expected the format {_format(kind)!r}, got {found!r:.60}")
    version = head.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version > _VERSION:
        raise SavedError(
            f"{file.as_posix()}: has version {version}, and this minisbert reads up to {_VERSION}; update minisbert"
        )
    if version != _VERSION or isinstance(version, bool):
        raise SavedError(f"{file.as_posix()}: expected version {_VERSION}, got {version!r:.60}; train again")
    if not isinstance(head.get("tensors_sha256"), str) or not isinstance(head.get("facts"), dict):
        raise SavedError(f"{file.as_posix()}: damaged: 'tensors_sha256' or 'facts' are missing; train again")
    return head


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is not a number")


def _format(kind: str) -> str:
    """Name the format of a kind."""
    return f"minisbert {kind}"


# ------------------------------------------------------------------------------------------------------- origin


def origin_to_json(origin: Origin | None) -> dict[str, Any] | None:
    """Give the model of something as a fact that JSON holds.

    Parameters
    ----------
    origin : Origin or None
        None for vectors of no known model.

    Returns
    -------
    dict or None

    Examples
    --------
    >>> origin_to_json(Origin("tiny", "ab12", 256))
    {'model': 'tiny', 'fingerprint': 'ab12', 'max_seq_length': 256}
    """
    return None if origin is None else asdict(origin)


def origin_from(said: Any, where: str) -> Origin | None:
    """Read what :func:`origin_to_json` gave.

    Parameters
    ----------
    said : object
        From :func:`load_folder`'s facts.
    where : str
        File, for messages.

    Returns
    -------
    Origin or None

    Raises
    ------
    SavedError
        For anything else.

    Examples
    --------
    >>> origin_from({"model": "tiny", "fingerprint": "ab12", "max_seq_length": 256}, "classifier.json")
    Origin(model='tiny', fingerprint='ab12', max_seq_length=256)
    """
    if said is None:
        return None
    types: dict[str, tuple[type, ...]] = {
        "model": (str,),
        "fingerprint": (str,),
        "max_seq_length": (int, type(None)),
    }
    if not isinstance(said, dict) or said.keys() != types.keys():
        raise SavedError(f"{where}: damaged: expected an origin with {', '.join(types)}, got {said!r:.80}")
    for name, allowed in types.items():
        if not isinstance(said[name], allowed) or isinstance(said[name], bool):
            raise SavedError(f"{where}: damaged: {name} is {said[name]!r:.60}")
    return Origin(**said)
