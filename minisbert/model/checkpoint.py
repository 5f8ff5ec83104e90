"""Bytes on disk -> arrays by name: safetensors files, one or several, in F64, F32, F16 or BF16.

A safetensors file is eight bytes with the length of a JSON header, the header (name -> dtype, shape, offsets), then
the numbers themselves. The ``safetensors`` library checks that the header is honest; the numbers are then mapped: the
system brings in what is touched, when it is touched, once for all processes that use the model. Pickles
(``pytorch_model.bin``) can run code when they are opened and are never read. Which names a BERT needs is the business
of ``params.py``, next.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from minisbert.model import Array
from minisbert.model.config import ModelFolderError, read_json, what_to_do

# No trained BERT comes near it. One wrong bit in an exponent goes far beyond, and would make NaN of every text.
_LARGEST = 1e6
_NUMPY_DTYPE = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies, before its numbers are touched."""

    file: Path
    name: str
    dtype: str  # safetensors' name: F32, BF16, ..
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    mapped: Array = field(repr=False, compare=False)  # the file's bytes

    def read(self, dtype: npt.DTypeLike) -> Array:
        """Read the numbers and refuse NaN, infinity and what only damage can have made so large.

        Parameters
        ----------
        dtype : DTypeLike
            float32 or float64; what is stored is converted to it.

        Returns
        -------
        Array, ``self.shape``
            Not to be written to where it is the file itself, as the stored dtype's own numbers are.

        Raises
        ------
        ModelFolderError
            For a dtype that holds no real numbers, and for NaN, infinite and absurdly large numbers.
        """
        where = f"{self.file.as_posix()}: tensor {self.name!r}"
        if self.dtype not in _NUMPY_DTYPE:
            raise ModelFolderError(
                f"{where} is stored as {self.dtype}; read here: {', '.join(_NUMPY_DTYPE)} (is the model quantised?)"
            )
        count = math.prod(self.shape)
        stored = np.frombuffer(self.mapped, _NUMPY_DTYPE[self.dtype], count, self.offset) if count else np.empty(0)
        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32, and NumPy has no such type: put the lower half back as zeros
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        # what float32 cannot hold becomes infinite here, and is refused below
        with np.errstate(over="ignore", invalid="ignore"):
            values = stored.astype(dtype, copy=False).reshape(self.shape)
        # no copy of the numbers is needed to see this, and NaN is neither above nor below anything
        if count and not (values.min() >= -_LARGEST and values.max() <= _LARGEST):
            bad = int(np.sum(~(np.abs(values) <= _LARGEST)))
            raise ModelFolderError(
                f"{where} holds {bad} numbers that are NaN, infinite or beyond {_LARGEST:g}; the file is damaged, "
                "or its training diverged"
            )
        return values


def read_checkpoint(folder: Path) -> dict[str, StoredTensor]:
    """List every tensor of a folder's checkpoint without reading its numbers.

    Parameters
    ----------
    folder : Path
        Holds ``model.safetensors``, or ``model.safetensors.index.json`` and the files that it names.

    Returns
    -------
    dict of str to StoredTensor
        By the names that the files use.

    Raises
    ------
    ModelFolderError
        If there is no safetensors file, a header lies or is cut off, or the index and its files disagree.

    Examples
    --------
    >>> read_checkpoint(Path("no/such/folder"))
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: no/such/folder: there is no model.safetensors; ...
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists() or single.is_symlink():  # a link to nothing, or a folder of that name, is an error to report
        return read_header(single)
    if index.is_file():
        return _read_shards(index)
    pickles = [name for name in ("pytorch_model.bin", "tf_model.h5") if (folder / name).exists()]
    hint = (
        f"; {pickles[0]} is not read, because opening such a file can run code: convert it once with "
        "sentence-transformers' model.save(folder)"
        if pickles
        else "; was the folder copied whole?"
    )
    raise ModelFolderError(f"{folder.as_posix()}: there is no model.safetensors{hint}")


def _read_shards(index: Path) -> dict[str, StoredTensor]:
    """Follow an index to the files that hold the tensors between them."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise ModelFolderError(f"{index.as_posix()}: expected a 'weight_map' from tensor names to file names")
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(weight_map.values())):
        # the index comes from strangers: a name that is more than a name could leave the folder
        if Path(file).name != file or "\\" in file or not (index.parent / file).is_file():
            raise ModelFolderError(
                f"{index.as_posix()}: names the file {file!r}, which is not in this folder; "
                "fetch the missing part, all parts belong side by side"
            )
        tensors |= {
            name: tensor for name, tensor in read_header(index.parent / file).items() if weight_map.get(name) == file
        }
    if missing := sorted(weight_map.keys() - tensors.keys()):
        raise ModelFolderError(
            f"{index.as_posix()}: {len(missing)} tensors are not in the files named for them, first {missing[0]!r}"
        )
    return tensors


def read_header(file: Path) -> dict[str, StoredTensor]:
    """List the tensors of one safetensors file.

    Parameters
    ----------
    file : Path

    Returns
    -------
    dict of str to StoredTensor

    Raises
    ------
    ModelFolderError
        If the file is cut off, or its header is no header or does not fit the file's length.

    Notes
    -----
    **Source**: the format's page in the safetensors repository, which equals ``safetensors.safe_open(file).keys()``.

    Examples
    --------
    >>> import tempfile; file = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> _ = file.write_bytes(b"1234")
    >>> read_header(file)
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: ...model.safetensors: not a whole safetensors file (...
    """
    try:
        # the library refuses headers that lie: lengths, overlaps, gaps, shapes against offsets, trailing bytes
        with file.open("rb") as stream, safe_open(file, framework="numpy"):
            (header_length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(header_length))
            mapped = np.memmap(stream, np.uint8, "r")
    except OSError as error:
        raise ModelFolderError(f"{file.as_posix()}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, struct.error) as error:
        raise ModelFolderError(
            f"{file.as_posix()}: not a whole safetensors file ({error}; {file.stat().st_size:,} bytes here); "
            + what_to_do(file)
        ) from error
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(
            file, name, entry["dtype"], tuple(entry["shape"]), 8 + header_length + entry["data_offsets"][0], mapped
        )
        for name, entry in header.items()
    }
