"""What was learnt, saved as a folder, and by which model: JSON and safetensors, no pickle.

What was learnt from the vectors of one model means nothing for another's: a calibration, a database, a router, a
classifier each keep an :class:`Origin`, and check it when they are used. A folder of the kind ``classifier`` holds
``classifier.json`` and ``classifier.safetensors``; the JSON has the SHA-256 of the arrays, so that files of two
trainings cannot be mixed. Opening it runs no code, whoever wrote it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as tensor_bytes

from minisbert.encoder import SentenceEncoder
from minisbert.files import folder_written_whole
from minisbert.model import Array

_VERSION = 1
Learnt = TypeVar("Learnt")


class OriginError(ValueError):
    """Something was learnt from the vectors of another model."""


class SavedError(ValueError):
    """A folder that cannot be written as asked, or that is not what it should be."""


@dataclass(frozen=True)
class Origin:
    """The model from whose vectors something was learnt."""

    model: str  # its name, for people
    fingerprint: str  # of what decides a vector
    max_seq_length: int | None = None  # tokens after which texts were cut; None: does not matter

    def check(self, encoder: SentenceEncoder, what: str, way_out: str) -> None:
        """Refuse another model, and one that cuts texts elsewhere; ``what`` is this, ``way_out`` what to do.

        >>> encoder = SentenceEncoder()
        >>> origin_of(encoder).check(encoder, "this router", "fit it again")
        >>> Origin("other", "0" * 64).check(encoder, "this router", "fit it again")
        Traceback (most recent call last):
            ...
        minisbert.saved.OriginError: this router is of the model 'other' (000000000000…), not of ...
        """
        found = encoder.fingerprint()
        if found != self.fingerprint:
            raise OriginError(
                f"{what} is of the model {self.model!r} ({self.fingerprint[:12]}…), not of {encoder.folder.name!r} "
                f"({found[:12]}…): vectors of two models cannot be compared; {way_out}"
            )
        if self.max_seq_length not in (None, encoder.max_seq_length):
            raise OriginError(
                f"{what} was made with max_seq_length = {self.max_seq_length}, and the encoder cuts texts at "
                f"{encoder.max_seq_length}; use the same limit"
            )

    @classmethod
    def read(cls, said: Any, where: str) -> Origin | None:
        """Read an origin from JSON, null being None; SavedError, naming the file ``where``, for anything else."""
        if said is None:
            return None
        types = {"model": str, "fingerprint": str, "max_seq_length": int | None}
        right = isinstance(said, dict) and said.keys() == types.keys()
        if not right or any(not isinstance(said[x], types[x]) or isinstance(said[x], bool) for x in types):
            raise SavedError(f"{where}: damaged: expected an origin with {', '.join(types)}, got {said!r:.80}")
        return cls(**said)


def origin_of(encoder: SentenceEncoder) -> Origin:
    return Origin(encoder.folder.name, encoder.fingerprint(), encoder.max_seq_length)


# ------------------------------------------------------------------------------------------------------ writing


def save_folder(
    folder: Path, kind: str, facts: Mapping[str, Any], tensors: Mapping[str, Array], *, force: bool = False
) -> None:
    """Write a folder that :func:`load_folder` reads, whole or not at all; ``force`` replaces one of the same kind.

    Dataclasses among the facts are written as their fields. SavedError if the folder is not free, and for NaN and Inf.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "mood"
    >>> save_folder(folder, "classifier", {"classes": ["bad", "good"]}, {"bias": np.array([0.5, -0.5])})
    >>> load_folder(folder, "classifier")
    ({'classes': ['bad', 'good']}, {'bias': array([ 0.5, -0.5])})
    """
    check_place(folder, kind, force=force)
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise SavedError(f"save: {name!r} holds NaN or infinite numbers; nothing was written")
    # safetensors writes memory as it is: a transposed array would come back as another one
    numbers = tensor_bytes({name: np.array(array, order="C") for name, array in tensors.items()})
    head = {
        "format": f"minisbert {kind}",
        "version": _VERSION,
        "tensors_sha256": hashlib.sha256(numbers).hexdigest(),
        "facts": dict(facts),
    }
    said = json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False, default=asdict).encode() + b"\n"
    with folder_written_whole(folder) as unfinished:
        (unfinished / f"{kind}.safetensors").write_bytes(numbers)
        (unfinished / f"{kind}.json").write_bytes(said)


def check_place(folder: Path, kind: str, *, force: bool = False) -> None:
    """Raise SavedError where :func:`save_folder` would, before minutes of work."""
    where = folder.as_posix()
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SavedError(f"{where}: expected a folder, got a file; choose another name")
    found = {file.name for file in folder.iterdir()}
    if found and not force:
        raise SavedError(f"{where}: already exists; choose another name, or overwrite it with force=True")
    other = ", ".join(map(repr, sorted(found - {f"{kind}.json", f"{kind}.safetensors"})[:3]))
    if found and (other or f"{kind}.json" not in found):
        problem = f"it holds {other}" if other else f"there is no {kind}.json"
        not_alone = f"not overwritten, because it is not just a folder of kind {kind!r}"
        raise SavedError(f"{where}: {not_alone}: {problem}; choose another name")


# ------------------------------------------------------------------------------------------------------ reading


def load_folder(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read facts and arrays, bit for bit as :func:`save_folder` wrote them; what they mean, the caller checks.

    SavedError for another kind, a newer version, missing, damaged or mixed files, and NaN or Inf.
    """
    file = folder / f"{kind}.json"
    try:
        head = json.loads(_read(file, folder, kind).decode(), parse_constant=_refuse_constant)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _damaged(file, f"not JSON: {error}") from None
    said = head if isinstance(head, dict) else {}
    for key, value in (("format", f"minisbert {kind}"), ("version", _VERSION)):
        if (found := said.get(key)) != value or isinstance(found, bool):
            raise _damaged(file, f"expected {key} {value!r}, got {found!r:.60}", "update minisbert")
    if not isinstance(said.get("facts"), dict):
        raise _damaged(file, "'facts' are missing")
    file = folder / f"{kind}.safetensors"
    content = _read(file, folder, kind)
    if hashlib.sha256(content).hexdigest() != said.get("tensors_sha256"):
        raise _damaged(file, f"not what {kind}.json was written with: it is of another run", "copy the whole folder")
    try:
        tensors = parse_tensors(content)
    except (SafetensorError, ValueError, KeyError) as error:  # the library's ways to refuse a header or a dtype
        raise _damaged(file, f"not a readable safetensors file: {error}") from None
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise _damaged(file, f"{name!r} holds NaN or infinite numbers")
    return said["facts"], tensors


def _damaged(file: Path, problem: str, way_out: str = "copy it again") -> SavedError:
    return SavedError(f"{file.as_posix()}: damaged: {problem}; {way_out}, or train again")


def check_parts(what: str, fits: Mapping[str, bool]) -> None:
    """Raise ValueError for the parts of something learnt that cannot be right, such as damaged ones."""
    if wrong := [name for name, is_right in fits.items() if not is_right]:
        raise ValueError(f"{what}: {', '.join(wrong)} cannot be right")


def restored(folder: Path, kind: str, make: Callable[[dict[str, Any], dict[str, Array], str], Learnt]) -> Learnt:
    """What ``make`` makes of facts, arrays and the file's name; SavedError where these cannot be right."""
    facts, tensors = load_folder(folder, kind)
    file = folder / f"{kind}.json"
    try:
        return make(facts, tensors, file.as_posix())
    except SavedError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _damaged(file, f"{error} is missing" if isinstance(error, KeyError) else str(error)) from error


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise json.JSONDecodeError(f"{name} is not a number", name, 0)


def _read(file: Path, folder: Path, kind: str) -> bytes:
    """Read a file of the folder, or say what is there instead."""
    where, target = folder.as_posix(), folder.resolve()
    try:
        return file.read_bytes()
    except FileNotFoundError:
        aside = target.with_name(f".{target.name}.replaced")
        others = [path.stem for path in folder.glob("*.json") if path.with_suffix(".safetensors").exists()]
        if not folder.exists():
            problem = f"no such folder; expected one of kind {kind!r}"
            if aside.exists():
                problem = f"replacing it was interrupted; the old folder is {aside.name}: rename it back"
        elif file.suffix == ".json" and others:
            problem = f"expected kind {kind!r}, but it looks like: {', '.join(others)}"
        else:
            problem = f"{file.name} is missing; is this a folder of kind {kind!r}, and was it copied whole?"
        raise SavedError(f"{where}: {problem}") from None
    except OSError as error:
        raise SavedError(f"{file.as_posix()}: cannot be read: {error.strerror}") from error
