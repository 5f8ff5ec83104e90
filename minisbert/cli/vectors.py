"""Files of vectors, .npy, .safetensors, .jsonl and .parquet: written part by part, and what they say of themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from minisbert.bulk import vector_table
from minisbert.checks import require
from minisbert.cli.outputs import LINE_ENDS, OutputError
from minisbert.model import Array

KINDS = ("npy", "safetensors", "jsonl", "parquet")
SETTINGS = "minisbert_settings"  # the key of what determined the vectors, in the metadata of a file
INPUT = "input"  # among the settings in a file: the hash of its rows


def write_stdout(rows: Sequence[Sequence[str]], embeddings: Array, cut: Sequence[int]) -> None:
    """Write lines of JSON to stdout, in UTF-8 whatever the terminal's encoding."""
    sys.stdout.buffer.writelines(_lines([text for text, *_ in rows], embeddings))
    sys.stdout.buffer.flush()  # here, where a closed pipe is handled


def _lines(texts: Sequence[str], embeddings: Array) -> Iterator[bytes]:
    """JSON with enough digits to read back the same float32 (9) or float64 (17)."""
    # one format string for a whole vector: four times as fast as json.dumps, and half as long
    digits = 9 if embeddings.dtype.itemsize <= 4 else 17
    vector = ", ".join([f"%.{digits}g"] * embeddings.shape[1])
    for text, embedding in zip(texts, embeddings, strict=True):
        quoted = json.dumps(text, ensure_ascii=False).translate(LINE_ENDS)
        yield f'{{"text": {quoted}, "embedding": [{vector % tuple(embedding.tolist())}]}}\n'.encode()


def write_vectors(
    stream: Any, kind: str, parts: Callable[[], Iterator[tuple[Any, Array]]], rows: int, settings: Mapping[str, Any]
) -> None:
    """Write a file of vectors from parts: rows of a text and perhaps its id, and their vectors."""
    width, dtype = settings["dimensions"], np.dtype(settings["dtype"]).newbyteorder("<")
    if kind == "parquet":
        _write_parquet(stream, parts, settings)
        return
    if kind == "npy":
        shape = {"descr": dtype.str, "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(stream, shape)
    elif kind == "safetensors":
        size = rows * width * dtype.itemsize
        about = {"dtype": f"F{8 * dtype.itemsize}", "shape": [rows, width], "data_offsets": [0, size]}
        described = json.dumps({"__metadata__": {SETTINGS: json.dumps(settings)}, "embeddings": about}).encode()
        described = described.ljust(-(-len(described) // 8) * 8)  # the format allows spaces at the end
        stream.write(len(described).to_bytes(8, "little") + described)
    for said, vectors in parts():
        if kind == "jsonl":
            stream.writelines(_lines([text for text, *_ in said], vectors))
        else:
            stream.write(vectors.astype(dtype, copy=False).tobytes())


def _write_parquet(stream: Any, parts: Callable[[], Iterator[tuple[Any, Array]]], settings: Mapping[str, Any]) -> None:
    """Columns: id, by default the row's number; the text's SHA-256; the vector, a list of fixed size.

    Ids are whole numbers if all are and fit in 64 bits, else all are strings.
    """
    arrow, parquet = (require(name, "search", "writing Parquet") for name in ("pyarrow", "pyarrow.parquet"))
    has_ids = settings["id"] is not None
    are_numbers = not has_ids or all(
        isinstance(name, int) and -(2**63) <= name < 2**63 for said, _ in parts() for _, name in said
    )
    schema = parquet_schema(settings, arrow.int64() if are_numbers else arrow.string())
    done = 0
    with parquet.ParquetWriter(stream, schema) as writer:
        for said, vectors in parts():
            names = [row[1] for row in said] if has_ids else range(done, done + len(said))
            ids = arrow.array(names if are_numbers else map(str, names), schema.field("id").type)
            writer.write_table(vector_table(ids, [row[0] for row in said], vectors).cast(schema))
            done += len(said)


def parquet_schema(settings: Mapping[str, Any], id_type: Any) -> Any:
    """The columns of `vector_table`, and in the metadata by which model and settings the vectors were made."""
    arrow = require("pyarrow", "search", "writing Parquet")
    vector = arrow.list_(arrow.type_for_alias(settings["dtype"]), settings["dimensions"])
    about = {"model": settings["name"], "fingerprint": settings["model"], "minisbert": settings["minisbert"]}
    types = {"id": id_type, "text_sha256": arrow.string(), "embedding": vector}
    return arrow.schema(types.items(), metadata={**about, SETTINGS: json.dumps(settings)})


def add_rows(so_far: Any, rows: Iterable[Sequence[Any]]) -> int:
    """Add rows of a text and perhaps its id to a hash, and count them."""
    count = 0
    for row in rows:
        so_far.update(json.dumps(list(row)).encode())
        count += 1
    return count


def recorded(file: Path, kind: str) -> dict[str, Any]:
    """What a file that `write_vectors` wrote says about itself: its rows, and as much of the settings as it holds."""
    try:
        if kind == "npy":
            with file.open("rb") as stream:  # the header alone: nothing is mapped, which WebAssembly cannot
                np.lib.format.read_magic(stream)
                (rows, width), _, dtype = np.lib.format.read_array_header_1_0(stream)
                if stream.tell() + rows * width * dtype.itemsize != file.stat().st_size:
                    raise ValueError("its size does not fit its header")
            return {"rows": rows, "dimensions": width, "dtype": str(dtype)}
        if kind == "safetensors":
            with safe_open(file, "np") as found:
                rows, width = found.get_slice("embeddings").get_shape()
                return {**json.loads((found.metadata() or {}).get(SETTINGS, "{}")), "rows": rows, "dimensions": width}
        if kind == "parquet":
            about = require("pyarrow.parquet", "search", "reading Parquet").read_metadata(file)
            return {**json.loads((about.metadata or {}).get(SETTINGS.encode(), "{}")), "rows": about.num_rows}
        texts, row, rows = sha256(), {}, 0
        with file.open("rb") as stream:
            for row in map(json.loads, stream):
                rows += add_rows(texts, [[row["text"]]])
        known = {"dimensions": len(row["embedding"])} if row else {}
        return {"rows": rows, INPUT: texts.hexdigest(), **known}
    except Exception as error:  # whatever these libraries raise for a file of something else
        raise OutputError(f"{file}: already exists, and is no .{kind} of vectors: {error}; see --force") from None
