"""Where training stands, in one file: all that a run needs to go on bit for bit.

The file is a safetensors file. Its tensors are the parameters, the optimiser's moments and the best parameters so far;
its metadata say, as JSON, how far the run is and what it is a run of. It is written whole beside the old one and takes
its place in one step, so that there is always one that can be read. Randomness needs no tensor: every generator is made
from the seed and its place (epoch, step, shard), so its state *is* the place. Next: ``dev.py``.

Left out on purpose: pickle, which runs whatever a stranger wrote into it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

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
    in_file_order = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with written_whole(file) as stream:
        stream.write(save(in_file_order, {"minisbert": json.dumps(described)}))


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
    for name, array in tensors.items():
        part, _, own = name.partition("/")
        parts[part][own] = array
    try:
        optimizer = state_from_arrays(AdamWState, parts["optimizer"], params)
        own_params = _like(parts["params"], params)
        best = _like(parts["best"], params) if parts["best"] else None
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged, or of another model: {error}; remove it to begin anew") from error
    return TrainingState(own_params, optimizer, _progress(described["progress"]), best)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read the bytes; refuse what is no checkpoint."""
    try:
        with safe_open(file, framework="numpy") as stored:
            described = json.loads((stored.metadata() or {}).get("minisbert", "{}"))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # it is no dict
    except FileNotFoundError:
        raise CheckpointError(f"{file}: there is no such checkpoint to resume from; leave --resume out") from None
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged, or no checkpoint: {error}; remove it to begin anew") from error
    if described.get("format") != FORMAT:
        raise CheckpointError(
            f"{file}: no checkpoint of this version of minisbert (format {described.get('format')}, expected "
            f"{FORMAT}); remove it to begin anew"
        )
    return described, tensors


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
