"""What was trained, as a folder: facts in JSON, arrays in safetensors, no pickle.

A ``classifier`` folder holds ``classifier.json`` and ``classifier.safetensors``. The JSON names the format, its version
and the SHA-256 of the arrays, so that files of different trainings cannot be mixed. A folder is written whole or not at
all, and opening it runs no code, whoever wrote it. The caller checks what the facts mean and the arrays' shapes.
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
from minisbert.saved import Origin

__all__ = ["SavedError", "check_place", "load_folder", "origin_from", "origin_to_json", "save_folder"]

_VERSION = 1
_ASIDE = "replaced"  # suffix of an old folder until the new one has taken its place


class SavedError(ValueError):
    """A folder that cannot be written as asked, or that is not what it should be."""


# ------------------------------------------------------------------------------------------------------ writing


def save_folder(
    folder: Path, kind: str, facts: Mapping[str, Any], tensors: Mapping[str, Array], *, force: bool = False
) -> None:
    """Write a folder that :func:`load_folder` reads, whole or not at all; ``force`` replaces one of the same kind.

    SavedError if the folder is not free, and for NaN and Inf. Replacing takes two renames: a process killed between
    them leaves the old folder, whole, under a hidden name beside its place, and :func:`load_folder` says where it is.

    >>> folder = Path(tempfile.mkdtemp()) / "mood"
    >>> save_folder(folder, "classifier", {"classes": ["bad", "good"]}, {"bias": np.array([0.5, -0.5])})
    >>> load_folder(folder, "classifier")
    ({'classes': ['bad', 'good']}, {'bias': array([ 0.5, -0.5])})
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
    target = folder.resolve()  # keeps links
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _write(unfinished / f"{kind}.safetensors", numbers)
        _write(unfinished / f"{kind}.json", said)
        unfinished.chmod(0o755)  # mkdtemp's folders are private
        _move_into_place(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # already gone once moved


def check_place(folder: Path, kind: str, *, force: bool = False) -> None:
    """Raise SavedError where :func:`save_folder` would, before minutes of work."""
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
    """Raise for NaN and infinity, and make the array contiguous."""
    # safetensors writes memory as it is: a transposed array would come back as another one
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
    """Rename the new folder to its place; an old one is moved aside first, and back if that fails."""
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
    """Read facts and arrays, bit for bit as :func:`save_folder` wrote them.

    SavedError for another kind, a newer version, missing, damaged or mixed files, and NaN or Inf.
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
    """Read a file of the folder, or say what is there instead."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise SavedError(_missing(file, folder, kind)) from None
    except OSError as error:
        raise SavedError(f"{file.as_posix()}: cannot be read: {error.strerror}") from error


def _missing(file: Path, folder: Path, kind: str) -> str:
    """Why a file may be missing."""
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
    """Read the JSON, and check everything that does not depend on the kind."""
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
    """The format's name for a kind."""
    return f"minisbert {kind}"


# ------------------------------------------------------------------------------------------------------- origin


def origin_to_json(origin: Origin | None) -> dict[str, Any] | None:
    """The model of something as JSON; None for vectors of no known model."""
    return None if origin is None else asdict(origin)


def origin_from(said: Any, where: str) -> Origin | None:
    """Read what :func:`origin_to_json` returned; SavedError, naming the file ``where``, for anything else."""
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
