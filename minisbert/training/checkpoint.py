"""Where training stands, in one file: all that a run needs to go on bit for bit.

The file is a safetensors file. Its tensors are the parameters, the optimiser's moments and the best parameters so far;
its metadata say, as JSON, how far the run is, what it is a run of, and a checksum of all numbers. It is written whole
beside the old one and takes its place in one step, so that there is always one that can be read. Randomness needs no
tensor: every generator is made from the seed and its place (epoch, step, shard), so its state *is* the place. Next:
``dev.py``.

Left out on purpose: pickle, which runs whatever a stranger wrote into it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from minisbert.files import written_whole
from minisbert.model import Array
from minisbert.training.optim import AdamWState, state_from_arrays, state_to_arrays

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or is of another run: the message names the file, the cause and the way out."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0  # batches that are done in all
    losses: tuple[float, ...] = ()  # one a step
    dev_scores: tuple[tuple[int, float], ...] = ()  # steps done, and the score then
    seconds: float = 0.0  # of computing, all sessions together


@dataclass(frozen=True, eq=False)
class TrainingState:
    """All that changes in training."""

    params: dict[str, Array]
    optimizer: AdamWState
    progress: Progress = field(default_factory=Progress)
    best: dict[str, Array] | None = None  # the parameters with the best dev score; None: no score yet


def write_checkpoint(file: Path, state: TrainingState, identity: Mapping[str, Any]) -> None:
    """Write a state, in place of the file's last one.

    Parameters
    ----------
    file : Path
    state : TrainingState
    identity : mapping
        What the run is a run of, as JSON can say it: model, examples, settings. Reading compares it.

    Raises
    ------
    OSError
        If the disk is full, say; the old file is then as it was.

    Examples
    --------
    :func:`read_checkpoint` has one.
    """
    tensors = {f"params/{name}": array for name, array in state.params.items()}
    tensors |= {f"best/{name}": array for name, array in (state.best or {}).items()}
    tensors |= {f"optimizer/{name}": array for name, array in state_to_arrays(state.optimizer).items()}
    described = {"format": FORMAT, "identity": identity, "progress": asdict(state.progress)}
    stored = {"minisbert": json.dumps(described), "checksum": _checksum(json.dumps(described), tensors)}
    with written_whole(file) as stream:
        for piece in _serialised(tensors, stored):
            stream.write(piece)


def _serialised(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Give the bytes of a safetensors file piece by piece; the library's own ``save`` holds all of them, twice."""
    dtypes = {"float64": "F64", "float32": "F32", "int64": "I64", "bool": "BOOL"}
    # the widest numbers first, so that each tensor begins at a multiple of its numbers' size
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": dtypes[array.dtype.name], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, array in ordered:
        yield np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data


def read_checkpoint(file: Path, params: Mapping[str, Array], identity: Mapping[str, Any]) -> TrainingState:
    """Read a state to go on from.

    Parameters
    ----------
    file : Path
    params : mapping of str to Array
        The parameters that a new run would begin with: names, shapes and orders in memory.
    identity : mapping
        Of the run that wants to go on.

    Returns
    -------
    TrainingState

    Raises
    ------
    CheckpointError
        If the file is damaged, or is of a run with another model, other examples or settings: every difference is
        named.

    Examples
    --------
    >>> import tempfile
    >>> from minisbert.training.optim import init_adamw
    >>> params = {"weight": np.ones((2, 3))}
    >>> file = Path(tempfile.mkdtemp()) / "run.checkpoint"
    >>> write_checkpoint(file, TrainingState(params, init_adamw(params), Progress(step=7)), {"loss": "triplet"})
    >>> read_checkpoint(file, params, {"loss": "triplet"}).progress.step
    7
    >>> read_checkpoint(file, params, {"loss": "cosent"})
    Traceback (most recent call last):
        ...
    minisbert.training.checkpoint.CheckpointError: ...: is of another run: loss was 'triplet' and is now 'cosent'; ...
    """
    described, tensors = _read(file)
    was = described["identity"]
    differing = [
        f"{key} was {was.get(key)!r} and is now {identity.get(key)!r}"
        for key in dict.fromkeys([*was, *identity])
        if was.get(key) != json.loads(json.dumps(identity.get(key)))
    ]
    if differing:
        raise CheckpointError(
            f"{file}: is of another run: {'; '.join(differing)}; give the same model, examples and settings to go on, "
            "or remove the file to begin anew"
        )
    parts: dict[str, dict[str, Array]] = {"params": {}, "best": {}, "optimizer": {}}
    try:
        for name, array in tensors.items():
            part, _, own = name.partition("/")
            parts[part][own] = array
        return TrainingState(
            _like(parts["params"], params),
            state_from_arrays(AdamWState, parts["optimizer"], params),
            _progress(described["progress"]),
            _like(parts["best"], params) if parts["best"] else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged, or of another model: {error}; remove it to begin anew") from error


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read the bytes; refuse what is no checkpoint, or has lost or changed a byte."""
    try:
        with safe_open(file, framework="numpy") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # it is no dict
        described = json.loads(metadata.get("minisbert", "{}"))
        found = described.get("format")
    except FileNotFoundError:
        raise CheckpointError(f"{file}: there is no such checkpoint to resume from; leave --resume out") from None
    except OSError as error:  # a folder, say
        raise CheckpointError(f"{file}: cannot be read: {error}") from error
    except (SafetensorError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: damaged, or no checkpoint: {error}; remove it to begin anew") from error
    if found != FORMAT:
        raise CheckpointError(
            f"{file}: no checkpoint of this version of minisbert (format {found}, expected {FORMAT}); remove it to "
            "begin anew"
        )
    is_whole = metadata.get("checksum") == _checksum(metadata["minisbert"], tensors)
    if not is_whole or not isinstance(described.get("identity"), dict):
        raise CheckpointError(f"{file}: damaged: its bytes are not those that were written; remove it to begin anew")
    return described, tensors


def _checksum(described: str, tensors: Mapping[str, Array]) -> str:
    """Sum up all bytes, to notice a damaged disk; no defence against anybody."""
    total = zlib.crc32(described.encode())
    for name in sorted(tensors):
        total = zlib.crc32(np.ascontiguousarray(tensors[name]).data, total)
    return f"{total:08x}"


def _progress(said: dict[str, Any]) -> Progress:
    """Rebuild what JSON has made lists of."""
    scores = tuple((int(step), float(score)) for step, score in said["dev_scores"])
    return Progress(said["epoch"], said["batch"], said["step"], tuple(said["losses"]), scores, said["seconds"])


def _like(arrays: Mapping[str, Array], params: Mapping[str, Array]) -> dict[str, Array]:
    """Give arrays the order in memory of the parameters, on which the last digits depend; refuse other shapes."""
    if arrays.keys() != params.keys():
        raise ValueError(f"the tensors are not those of the model: {sorted(arrays.keys() ^ params.keys())[:3]}")
    ordered = {}
    for name, param in params.items():
        if arrays[name].shape != param.shape or arrays[name].dtype != param.dtype:
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, the model's {param.shape}")
        ordered[name] = np.empty_like(param)
        ordered[name][...] = arrays[name]
    return ordered
