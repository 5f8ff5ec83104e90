"""Files of vectors, .npy, .safetensors, .jsonl and .parquet, and jobs that write them, to be continued after a crash.

A file appears whole or not at all. Each block of vectors is a file of its own in the hidden folder ``.NAME.parts``
beside the output, together with its texts; like every file here it is there whole or not at all. At the end the parts
are joined, the output takes its name, and the folder goes. To continue, the parts' texts are compared with the input,
and ``job.json``, which has what determines a vector, with the present options; a finished file is compared as far as it
records them. ``.NAME.parts.lock`` keeps other processes away.
"""

from __future__ import annotations

import glob
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from safetensors import safe_open

from minisbert.bulk import vector_table
from minisbert.checks import require
from minisbert.cli.outputs import LINE_ENDS, OutputError, Target, locked
from minisbert.files import written_whole
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


# --------------------------------------------------------------------------------------------------------------- jobs


NOTHING_CUT = (0, 0, 0, 0, 0, 0)
Rows = Sequence[Sequence[Any]]  # a text each, and perhaps its id
START_OVER = "start over with --force, without --resume"


class Job:
    """One output file in progress; made by :func:`claim`, which holds the lock."""

    def __init__(self, target: Target, file: Path, resume: bool) -> None:
        self.target, self.file = target, file
        self.folder = file.with_name(f".{file.name}.parts")
        self.manifest = self.folder / "job.json"
        self.parts = sorted(self.folder.glob("*.npz"))
        self.rows, self.hash = 0, sha256()  # of the finished parts
        self.cut: Sequence[int] = NOTHING_CUT  # of the finished parts: their number, and OverflowReport.counts
        self.begun = False
        self.earlier: dict[str, Any] = {}  # settings of the run that is continued
        self.replaces = target.force
        if resume and self.parts and self.manifest.exists():  # without it the parts were being removed
            try:
                earlier = json.loads(self.manifest.read_bytes())
                self.earlier = earlier["settings"]
                self.replaces |= earlier["replaces"]  # a run that was to replace a file goes on to do so
            except (ValueError, KeyError, TypeError) as error:
                raise OutputError(f"{self.manifest}: damaged: {error}; {START_OVER}") from None
        elif not target.force and not resume:
            target.check_free()
            if self.parts:
                said = "continue it with --resume, or start over with --force"
                raise OutputError(f"{target.file}: an earlier run was interrupted; {said}")
        # what a run finds, it or an earlier one has made, unless it is there to be replaced
        self.is_complete = resume and file.exists() and not self.replaces

    def check_complete(self, settings: Mapping[str, Any], rows: Iterator[Sequence[Any]]) -> str:
        """Compare the output with what is asked for, and say how far that goes; its parts may be there after a kill."""
        found = recorded(self.file, self.target.kind)
        texts, self.rows = add_rows(self.hash, rows), found.pop("rows")
        asked = {**settings, INPUT: self.hash.hexdigest()}
        changes = differences(found, {name: asked.get(name) for name in found})
        if texts != self.rows:
            changes = f"it has {self.rows:,} vectors, but the input has {texts:,} texts"
        if changes:
            raise OutputError(
                f"{self.target.file}: already exists, of other texts or settings: {changes}; choose another name, or "
                "overwrite it with --force"
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        compared = "" if "model" in found else f"; only {' and '.join(found)} are recorded in it and were compared"
        return f"{self.rows:,} vectors{compared}"

    def begin(self, settings: Mapping[str, Any], rows: Iterator[Sequence[Any]]) -> None:
        """Start, or compare the finished parts with the input and skip what they have."""
        self.settings = settings
        if not self.earlier:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            self.begun, self.parts = True, []
            with written_whole(self.manifest) as stream:
                stream.write(json.dumps({"settings": dict(settings), "replaces": self.replaces}, indent=1).encode())
            return
        if changes := differences(self.earlier, settings):
            raise OutputError(
                f"{self.target.file}: was started with other settings: {changes}; use the same ones, or {START_OVER}"
            )
        for part in self.parts:
            done, _, self.cut = read_part(part)
            if int(part.stem) != self.rows or done != [list(row) for row in islice(rows, len(done))]:
                raise OutputError(
                    f"{self.target.file}: the input has changed since the run that is to be continued, or {part.name} "
                    f"does not follow; give the same input, or {START_OVER}"
                )
            self.rows += add_rows(self.hash, done)
        self.begun = True

    def add(self, rows: Rows, vectors: Array, cut: Sequence[int]) -> None:
        """Write a part."""
        part = self.folder / f"{self.rows:015}.npz"
        said = np.frombuffer(json.dumps([list(row) for row in rows]).encode(), np.uint8)
        with written_whole(part) as stream:
            np.savez(stream, rows=said, vectors=vectors, cut=np.array(cut))
        self.parts.append(part)
        self.rows += add_rows(self.hash, rows)

    def finish(self) -> None:
        """Join the parts."""
        if not self.replaces:
            self.target.check_free()  # again: the file may have appeared in the meantime
        with written_whole(self.file) as stream:
            settings = {**self.settings, INPUT: self.hash.hexdigest()}
            write_vectors(
                stream, self.target.kind, lambda: (read_part(part)[:2] for part in self.parts), self.rows, settings
            )
        shutil.rmtree(self.folder)

    def leave(self) -> None:
        """After an error: keep what is worth continuing and say how, or remove everything."""
        if self.begun and self.rows:
            click.echo(
                f"{self.rows:,} rows are saved in {self.folder}; to continue, run the same command with --resume",
                err=True,
            )
        elif self.begun:
            shutil.rmtree(self.folder, ignore_errors=True)


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say which settings are others than those of an earlier run."""
    names = [name for name in {**earlier, **now} if earlier.get(name) != now.get(name)]
    return ", ".join(f"{name} was {earlier.get(name)!r:.60}, now {now.get(name)!r:.60}" for name in names)


def read_part(part: Path) -> tuple[list[list[Any]], Array, tuple[int, ...]]:
    """The rows, vectors and counts of a part."""
    try:
        with part.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            rows, vectors, cut = json.loads(found["rows"].tobytes()), found["vectors"], found["cut"].tolist()
        if len(rows) != len(vectors):
            raise ValueError("its sizes do not agree")
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise OutputError(f"{part}: damaged: {error}; {START_OVER}") from None
    return rows, vectors, tuple(cut)


@contextmanager
def claim(target: Target, resume: bool) -> Iterator[Job]:
    """Lock an output file while a job writes it; after an error, clean up or say what is kept."""
    target.check_place()
    file = Path(str(target.file)).resolve()  # keeps links
    with locked(file.with_name(f".{file.name}.parts.lock"), f"{target.file}: another process is writing it"):
        for killed in file.parent.glob(f".{glob.escape(file.name)}.*.unfinished"):
            killed.unlink()  # while its parts were joined
        job = Job(target, file, resume)
        try:
            yield job
        except BaseException:  # Ctrl-C too
            job.leave()
            raise
