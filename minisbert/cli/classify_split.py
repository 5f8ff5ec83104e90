"""``minisbert classify split``: hold out a part of labelled texts for testing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import click

from minisbert.cli.labelled import label_options, read_options
from minisbert.cli.outputs import Target, written_whole
from minisbert.tables import InputError, told_format


@click.command(short_help="Split labelled texts into training and test sets.")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("train", metavar="TRAIN", type=click.Path(path_type=Path))
@click.argument("test", metavar="TEST", type=click.Path(path_type=Path))
@click.option(
    "--hold-out",
    "share",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    metavar="SHARE",
    help="Share of each class that goes to TEST.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option(
    "--merge",
    "merges",
    multiple=True,
    metavar="NAME=CLASS,CLASS",
    help="Merge several classes into one; may be repeated.",
)
@label_options
@click.option("--force", is_flag=True, help="Overwrite TRAIN and TEST if they exist.")
def split(
    file: Path,
    train: Path,
    test: Path,
    share: float,
    seed: int,
    merges: tuple[str, ...],
    column_names: str | None,
    no_header: bool,
    force: bool,
) -> None:
    """Split the labelled texts of FILE: a share of each class goes to TEST, the rest to TRAIN.

    Identical texts go to the same side. The suffixes of TRAIN and TEST decide their format: .tsv, .csv or .jsonl. The
    same seed gives the same split.

    \b
    Examples:
      minisbert classify split labelled.csv mood_train.tsv mood_test.tsv --hold-out 0.25
      minisbert classify split labelled.csv a.jsonl b.jsonl --merge "not good=bad,so-so" --seed 1
    """
    import numpy as np

    from minisbert.analysis.probe import hold_out
    from minisbert.evaluation.classification import read_labelled

    if train.resolve() == test.resolve():
        raise click.UsageError("TRAIN and TEST must be different files.")
    targets = [_target(path, force) for path in (train, test)]
    data = read_labelled(file, **read_options(column_names, no_header))
    labels = merged(data.labels, merges)
    _, classes = np.unique(labels, return_inverse=True)
    _, groups = np.unique(data.texts, return_inverse=True)
    held = hold_out(classes, share, seed, groups)
    contents = []
    for target, chosen in zip(targets, (~held, held), strict=True):
        rows = [(labels[i], data.texts[i]) for i in np.flatnonzero(chosen).tolist()]
        contents.append(encoded(rows, target))
        counts = ", ".join(f"{name!r:.40} {sum(x == name for x, _ in rows):,}" for name in sorted(set(labels))[:8])
        click.echo(f"{target.file}: {len(rows):,} texts ({counts}{', ...' if len(set(labels)) > 8 else ''})")
    for target, content in zip(targets, contents, strict=True):
        with written_whole(Path(str(target.file))) as stream:
            stream.write(content)


def _target(path: Path, force: bool) -> Target:
    """Raise if the file cannot be written."""
    kind = told_format(path)
    if kind is None or path.suffix.lower() == ".gz":
        raise click.UsageError(f"{str(path)!r} must end in .tsv, .csv or .jsonl.")
    target = Target(path, kind, force)
    target.check()
    return target


def merged(labels: Sequence[str], merges: Sequence[str]) -> list[str]:
    """Merge several classes into one.

    >>> merged(["hate", "offensive", "neither"], ["toxic=hate,offensive"])
    ['toxic', 'toxic', 'neither']
    """
    known, names = set(labels), {}
    for said in merges:
        name, equals, listed = said.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"--merge must be NAME=CLASS,CLASS; got {said!r}.")
        for label in listed.split(","):
            if label not in known:
                raise click.UsageError(f"--merge: the file has no class {label!r}.")
            names[label] = name.strip()
    return [names.get(label, label) for label in labels]


def encoded(rows: Sequence[tuple[str, str]], target: Target) -> bytes:
    """Labels and texts as a table.

    >>> encoded([("good", "what a feast")], Target(Path("a.tsv"), "tsv", False)).split()
    [b'label', b'text', b'good', b'what', b'a', b'feast']
    """
    if target.kind == "jsonl":
        return b"".join(
            json.dumps({"label": label, "text": text}, ensure_ascii=False).encode() + b"\n" for label, text in rows
        )
    if target.kind == "csv":
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([("label", "text"), *rows])
        return stream.getvalue().encode()
    for row in rows:
        if any(c in field for field in row for c in "\t\n\r"):
            raise InputError(
                f"{target.file}: a TSV cannot hold {row[1]!r:.60}, which contains a tab or a line break; write a .csv "
                "or .jsonl"
            )
    return "".join(f"{label}\t{text}\n" for label, text in [("label", "text"), *rows]).encode()
