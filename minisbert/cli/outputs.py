"""What verbs write: a file of any kind, tables and JSON on stdout, and how far they are."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.checks import require
from minisbert.cli.options import TextType, Verb, json_option, together
from minisbert.files import written_whole

if TYPE_CHECKING:
    from minisbert.training.finetune import DevSet, StepReport

OTHER_NAMES = {"ndjson": "jsonl", "pq": "parquet", "htm": "html", "yml": "yaml"}  # of suffixes
NEEDS = {"png": ("matplotlib", "plots", "a plot"), "parquet": ("pyarrow", "search", "writing Parquet")}
NEEDS["gif"] = NEEDS["png"]

# Legal inside a JSON string, but some line readers split there.
LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class OutputError(ValueError):
    """An output that cannot be written as asked."""


# ------------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Target:
    """Where a result goes: to a file, if one is given, and to stdout."""

    file: Path | None
    kind: str  # such as npy
    force: bool
    as_json: bool = False  # what stdout gets

    @classmethod
    def at(cls, file: str | None, force: bool, kinds: Sequence[str] = (), **more: Any) -> Target:
        """A file whose suffix tells its kind, one of these if there are any."""
        suffix = Path(file or "").suffix.lower().removeprefix(".")
        kind = OTHER_NAMES.get(suffix, suffix)
        if file is not None and kinds and kind not in kinds:
            raise click.UsageError(f"-o must end in {', '.join(f'.{one}' for one in kinds)}, got {file!r}.")
        return cls(None if file is None else Path(file), kind, force, **more)

    def check(self) -> None:
        """Raise early, before minutes of work, if the output cannot be written."""
        self.check_place()
        self.check_free()

    def check_place(self) -> None:
        """Raise if the path cannot be written, or what writes it is not installed."""
        if self.file is None:
            return
        if self.kind in NEEDS:
            require(*NEEDS[self.kind])
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

    def write(self, fill: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Have the file filled, whole or not at all: ``fill(stream, ...)``."""
        if self.file is not None:
            with written_whole(self.file) as stream:
                fill(stream, *arguments, **options)
            click.echo(f"wrote {self.file}", err=True)

    def save(self, learnt: Any) -> None:
        """Save what was learnt as a folder."""
        learnt.save(self.file, force=self.force)
        click.echo(f"wrote {self.file}", err=True)

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows with the same keys: lines of JSON, or CSV or TSV, where None is empty."""
        text = io.StringIO()
        if self.kind == "jsonl":
            text.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        elif rows:
            delimiter = "\t" if self.kind == "tsv" else ","
            table = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        self.write(lambda stream: stream.write(text.getvalue().encode()))

    def give(self, lines: Sequence[str], result: Any) -> None:
        """Print the lines, or the result as JSON."""
        give(self.as_json, lines, result)

    def report(self, lines: Sequence[str], result: Any) -> None:
        """Write the result to the file as JSON, and give it."""
        self.write(write_json, result)
        self.give(lines, result)


def output_options(
    help: str, *kinds: str, metavar: str = "FILE", required: bool = False, has_json: bool = True, folder: str = ""
) -> Callable[[Verb], Verb]:
    """Add -o, --force and --json to a verb, which receives them as ``target``, checked: a file, or a folder."""

    def add(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def gathered(output: str | None, force: bool, as_json: bool = False, **rest: Any) -> None:
            target = Target.at(output, force, kinds, as_json=as_json)
            if folder:
                from minisbert.saved import check_place

                check_place(Path(str(output)), folder, force=force)
            else:
                target.check()
            verb(target=target, **rest)

        return together(
            click.option("-o", "--output", metavar=metavar, required=required, help=help),
            click.option("--force", is_flag=True, help="Overwrite it if it exists."),
            *[json_option] * has_json,
        )(gathered)

    return add


result_options = output_options("Also write the result as JSON, in full.")


def check_no_input(output: Path) -> None:
    """Raise if the running command reads what it would replace: this file, a folder with it, or something in it."""
    if not output.exists():
        return
    context = click.get_current_context()
    others = {one.name for one in context.command.params if isinstance(one.type, TextType)} | {"output", "template"}
    given: list[Any] = [0]  # stdin, and every argument that may name a file
    for name, said in context.params.items():
        if name not in others:
            given += [one for one in (said if isinstance(said, tuple) else [said]) if isinstance(one, (str, Path))]
    for one in given:
        try:
            is_same = os.path.samefile(output, one)  # noqa: PTH121 - a descriptor, too
        except (OSError, ValueError):
            continue  # it names no file
        place, its_place = output.resolve(), Path(one or output).resolve()
        if is_same or place in its_place.parents or its_place in place.parents:
            raise OutputError(
                f"{output}: is the input {one or '(standard input)'}, or belongs to it, and would be overwritten; "
                "choose another name"
            )


@contextmanager
def locked(lock_file: Path, busy: str) -> Iterator[None]:
    """Hold a lock, or raise at once if another process does."""
    from filelock import FileLock, Timeout

    try:
        held = FileLock(lock_file).acquire(timeout=0)
    except Timeout:
        raise OutputError(f"{busy} ({lock_file} is locked)") from None
    with held:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # while it is held, so that no other process's lock is removed
                lock_file.unlink()


# -------------------------------------------------------------------------------------------------------------- JSON


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


def write_json(stream: Any, result: Any) -> None:
    """Write a result as indented JSON."""
    stream.write(f"{json.dumps(plain(result), indent=1, ensure_ascii=False, allow_nan=False)}\n".encode())


def echo_json(result: Any) -> None:
    """Print a result as one line of JSON, in UTF-8 whatever the terminal's encoding."""
    click.echo(json.dumps(plain(result), ensure_ascii=False, allow_nan=False).translate(LINE_ENDS).encode())


def give(as_json: bool, lines: Sequence[str], result: Any) -> None:
    """Print the lines, or the result as JSON."""
    if as_json:
        echo_json(result)
    else:
        click.echo("\n".join(lines))


# ---------------------------------------------------------------------------------------------------------- progress


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
