"""What verbs write: files of vectors (.npy, .safetensors, .jsonl, .parquet), JSON, and how far they are."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.checks import require
from minisbert.cli.options import TextType
from minisbert.files import written_whole as written_whole  # for the verbs, which write with it

if TYPE_CHECKING:
    from minisbert.model import Array
    from minisbert.training.finetune import DevSet, StepReport

FORMATS = {".npy": "npy", ".safetensors": "safetensors", ".jsonl": "jsonl", ".ndjson": "jsonl"}
FORMATS |= {".parquet": "parquet", ".pq": "parquet"}
SETTINGS = "minisbert_settings"  # the key of what determined the vectors, in the metadata of a file
INPUT = "input"  # among the settings in a file: the hash of its rows


# Legal inside a JSON string, but some line readers split there.
_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class OutputError(ValueError):
    """An output that cannot be written as asked."""


@dataclass(frozen=True)
class Target:
    """Where vectors go."""

    file: Path | None  # None is stdout
    kind: str  # such as npy
    force: bool

    def check(self) -> None:
        """Raise early, before minutes of work, if the output cannot be written."""
        self.check_place()
        self.check_free()

    def check_place(self) -> None:
        """Raise if the path cannot be written."""
        if self.file is None:
            return
        if self.file.exists() and not self.file.is_file():
            # a device, a pipe or a folder; renaming our file onto /dev/null would replace it
            raise OutputError(f"{self.file}: not a regular file; leave -o out to write to stdout")
        if not self.file.resolve().parent.is_dir():
            raise OutputError(f"{self.file}: the folder {self.file.parent} does not exist; create it first")
        check_no_input(self.file)

    def check_free(self) -> None:
        """Raise if the file exists, unless it is to be replaced."""
        if self.file is not None and self.file.exists() and not self.force:
            raise OutputError(f"{self.file}: already exists; choose another name, or overwrite it with --force")


def check_no_input(output: Path) -> None:
    """Raise if the running command reads what it would replace: this file, a folder with it, or something in it."""
    if not output.exists():
        return
    place = output.resolve()
    for one in _files_read(output):
        if _is_same_file(output, one):
            raise OutputError(f"{output}: is also the input, and would be overwritten; choose another name")
        given = Path(one).resolve() if isinstance(one, (str, Path)) and Path(one).exists() else place
        if given in place.parents or place in given.parents:
            raise OutputError(
                f"{output}: belongs to the input {one}, and would be overwritten; choose another place, or remove it"
            )


def _files_read(output: Path) -> Iterator[str | Path | int]:
    """Yield every argument of the running command that may name a file it reads; 0 is stdin."""
    context = click.get_current_context(silent=True)
    for parameter in context.command.params if context else ():
        said = context.params.get(str(parameter.name)) if context else None
        if parameter.name not in ("output", "save") and not isinstance(parameter.type, TextType):
            values = said if isinstance(said, tuple) else (said,)
            yield from (one for one in values if isinstance(one, (str, Path)) and one is not output)
    yield 0


def _is_same_file(file: Path, other: str | Path | int) -> bool:
    """Whether both are one file, by whatever names; a missing file is another."""
    try:
        return os.path.samestat(file.stat(), os.stat(other))  # noqa: PTH116 - a descriptor, too
    except (OSError, ValueError):
        return False


def choose_target(file: str | None, output_format: str | None, force: bool) -> Target:
    """The output file and its format, by suffix or as given."""
    if file in (None, "-"):
        if output_format not in (None, "jsonl"):
            raise click.UsageError(f"{output_format} cannot be written to stdout; give a file with -o.")
        return Target(None, "jsonl", force)
    path = Path(str(file))
    kind = output_format or FORMATS.get(path.suffix.lower())
    if kind is None:
        raise click.UsageError(
            f"{str(file)!r} does not end in {', '.join(FORMATS)}; choose a format with --output-format."
        )
    if kind == "parquet":
        require("pyarrow", "search", "writing Parquet")
    return Target(path, kind, force)


def choose_file(output: str | None, force: bool) -> Target | None:
    """Raise for a file that cannot be written, before minutes of work."""
    if output is None:
        return None
    target = Target(Path(output), "json", force)
    target.check()
    return target


def give(lines: Sequence[str], whole: Any, as_json: bool, target: Target | None) -> None:
    """Print the table or the JSON, and write the file."""
    written = json.dumps(plain(whole), indent=1, ensure_ascii=False, allow_nan=False)
    if target is not None and target.file is not None:
        with written_whole(target.file) as stream:
            stream.write(f"{written}\n".encode())
        click.echo(f"wrote {target.file}", err=True)
    click.echo((written if as_json else "\n".join(lines)).encode())


def plain(result: Any) -> Any:
    """Turn a result into what JSON has: the fields of a dataclass or named tuple, lists of an array, null for NaN.

    >>> import numpy as np
    >>> from typing import NamedTuple
    >>> class Estimate(NamedTuple):
    ...     value: float
    ...     interval: object
    >>> plain({"f1": Estimate(np.float32(0.5), np.array([0.25, np.nan]))})
    {'f1': {'value': 0.5, 'interval': [0.25, None]}}
    """
    if is_dataclass(result) and not isinstance(result, type):
        return {field.name: plain(getattr(result, field.name)) for field in fields(result)}
    if hasattr(result, "_asdict"):
        return plain(result._asdict())
    if hasattr(result, "tolist"):  # NumPy's arrays and numbers
        return plain(result.tolist())
    if isinstance(result, Mapping):
        return {str(key): plain(value) for key, value in result.items()}
    if isinstance(result, (list, tuple)):
        return [plain(value) for value in result]
    if isinstance(result, float):
        return result if math.isfinite(result) else None
    return str(result) if isinstance(result, Path) else result


def echo_json(result: Any) -> None:
    """Print a result as one line of JSON, in UTF-8 whatever the terminal's encoding."""
    click.echo(json.dumps(plain(result), ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS).encode())


class _Lines:
    """Where a bar that nobody watches is drawn: each time on a line of its own."""

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            click.echo(line, err=True)

    def flush(self) -> None:
        """Nothing is held back."""


EVERY = 30  # seconds from one line about long work to the next, where there is no terminal for a bar


def progress(**options: Any) -> Any:
    """A bar on a terminal; elsewhere a line every half minute. ``options`` are tqdm's."""
    from tqdm import tqdm

    options = {"miniters": 0, **options}  # drawn by the clock alone
    if sys.stderr.isatty():
        return tqdm(**options)
    line = "{desc}: {n_fmt} of {total_fmt} {unit}s after {elapsed}, about {remaining} left{postfix}"
    return tqdm(**{"bar_format": line, "file": _Lines(), "mininterval": EVERY, "delay": EVERY, **options})


@contextmanager
def training_bar(dev: DevSet | None = None) -> Iterator[Callable[[StepReport], None]]:
    """Show steps, loss (the mean of the last 50) and time left, and each score on the dev set."""
    recent: deque[float] = deque(maxlen=50)
    bar = progress(desc="train: before the first step", bar_format="{desc}", leave=False)

    def on_step(report: StepReport) -> None:
        nonlocal bar
        begins = bar.total is None or report.step <= bar.n  # the first step of a run, or of the next run
        if begins:
            bar.close()
            recent.clear()
            # the duration of this step is unknown: rate and time left are those of the steps after it
            bar = progress(total=report.total_steps, initial=report.step, desc="train", unit="step")
        recent.append(report.loss)
        bar.set_postfix_str(f"loss {sum(recent) / len(recent):.4f}", refresh=False)
        bar.update(0 if begins else 1)
        if report.dev_score is not None and dev is not None:
            bar.write(f"step {report.step}: {dev.name} {report.dev_score:.2f} ({dev.measure})", file=sys.stderr)

    try:
        yield on_step
    finally:
        bar.close()


def write_stdout(texts: Sequence[str], embeddings: Array) -> None:
    """Write lines of JSON to stdout, in UTF-8 whatever the terminal's encoding."""
    sys.stdout.buffer.writelines(_lines(texts, embeddings))
    sys.stdout.buffer.flush()  # here, where a closed pipe is handled


def write_vectors(
    stream: Any, kind: str, parts: Callable[[], Iterator[tuple[Any, Array]]], rows: int, settings: Mapping[str, Any]
) -> None:
    """Write a file of vectors from parts: rows of a text and perhaps its id, and their vectors."""
    import numpy as np

    width, dtype = settings["dimensions"], np.dtype(settings["dtype"]).newbyteorder("<")
    if kind == "parquet":
        _write_parquet(stream, parts, settings)
        return
    if kind == "npy":
        shape = {"descr": dtype.str, "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(stream, shape)
    elif kind == "safetensors":
        about = {
            "dtype": f"F{8 * dtype.itemsize}",
            "shape": [rows, width],
            "data_offsets": [0, rows * width * dtype.itemsize],
        }
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
    vector = arrow.list_(arrow.type_for_alias(settings["dtype"]), settings["dimensions"])
    schema = arrow.schema(
        [
            ("id", arrow.int64() if are_numbers else arrow.string()),
            ("text_sha256", arrow.string()),
            ("embedding", vector),
        ],
        metadata={
            "model": settings["name"],
            "fingerprint": settings["model"],
            "minisbert": settings["minisbert"],
            SETTINGS: json.dumps(settings),
        },
    )
    done = 0
    with parquet.ParquetWriter(stream, schema) as writer:
        for said, vectors in parts():
            names = [row[1] for row in said] if has_ids else list(range(done, done + len(said)))
            hashes = [sha256(row[0].encode()).hexdigest() for row in said]
            flat = arrow.array(vectors.reshape(-1))
            columns = [
                arrow.array(names if are_numbers else list(map(str, names)), schema.field("id").type),
                arrow.array(hashes, arrow.string()),
                arrow.FixedSizeListArray.from_arrays(flat, type=vector),
            ]
            writer.write_table(arrow.table(columns, schema=schema))
            done += len(said)


def add_rows(so_far: Any, rows: Iterable[Sequence[Any]]) -> int:
    """Add rows of a text and perhaps its id to a hash, and count them."""
    count = 0
    for row in rows:
        so_far.update(json.dumps(list(row)).encode())
        count += 1
    return count


def recorded(file: Path, kind: str) -> dict[str, Any]:
    """What a file that `write_vectors` wrote says about itself: its rows, and as much of the settings as it holds."""
    import numpy as np

    try:
        if kind == "npy":
            vectors = np.load(file, mmap_mode="r", allow_pickle=False)
            return {"rows": len(vectors), "dimensions": vectors.shape[1], "dtype": str(vectors.dtype)}
        if kind == "safetensors":
            from safetensors import safe_open

            with safe_open(file, "np") as found:
                about, settings = found.get_slice("embeddings"), (found.metadata() or {}).get(SETTINGS, "{}")
            (rows, width), dtype = about.get_shape(), about.get_dtype().replace("F", "float")
            return {**json.loads(settings), "rows": rows, "dimensions": width, "dtype": dtype}
        if kind == "parquet":
            about = require("pyarrow.parquet", "search", "reading Parquet").read_metadata(file)
            return {**json.loads((about.metadata or {}).get(SETTINGS.encode(), "{}")), "rows": about.num_rows}
        texts, width, count = sha256(), {}, 0
        with file.open("rb") as stream:
            for row in map(json.loads, stream):
                count += add_rows(texts, [[row["text"]]])
                width = {"dimensions": len(row["embedding"])}
        return {"rows": count, INPUT: texts.hexdigest(), **width}
    except Exception as error:  # whatever these libraries raise for a file of something else
        raise OutputError(f"{file}: already exists, and is no .{kind} of vectors: {error}; see --force") from None


def _lines(texts: Sequence[str], embeddings: Array) -> Iterator[bytes]:
    """JSON with enough digits to read back the same float32 (9) or float64 (17)."""
    # one format string for a whole vector: four times as fast as json.dumps, and half as long
    digits = 9 if embeddings.dtype.itemsize <= 4 else 17
    vector = ", ".join([f"%.{digits}g"] * embeddings.shape[1])
    for text, embedding in zip(texts, embeddings, strict=True):
        quoted = json.dumps(text, ensure_ascii=False).translate(_LINE_ENDS)
        yield f'{{"text": {quoted}, "embedding": [{vector % tuple(embedding.tolist())}]}}\n'.encode()
