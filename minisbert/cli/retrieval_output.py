"""What the verbs of `minisbert evaluate` share: where the result goes, tables, and how figures are written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from minisbert.cli.options import Verb, decorate, json_option
from minisbert.cli.outputs import Target, plain, written_whole
from minisbert.cli.table import display_width, pad
from minisbert.evaluation.measures import Estimate


def result_options(verb: Verb) -> Verb:
    """Add the options about the output to a verb."""
    options = [
        click.option("-o", "--output", metavar="FILE", help="Also write the result as JSON, in full."),
        click.option("--force", is_flag=True, help="Overwrite the file if it exists."),
        json_option,
    ]
    return decorate(verb, options)


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


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align a table: the first column to the left, the others to the right; short rows end early.

    >>> columns([["soup", "7"], ["tea", "12"]])
    ['soup   7', 'tea   12']
    """
    widths = [max(display_width(row[i]) for row in rows if len(row) > i) for i in range(max(map(len, rows)))]
    return [
        "  ".join(
            " " * (width - display_width(cell)) + cell if i else pad(cell, width)
            for i, (cell, width) in enumerate(zip(row, widths[: len(row)], strict=True))
        ).rstrip()
        for row in rows
    ]


def interval(estimate: Estimate) -> str:
    """An interval, x 100."""
    return f"{100 * estimate.low:.2f} to {100 * estimate.high:.2f}"


def signed(difference: float, digits: int = 2) -> str:
    """Write a difference, x 100, with its sign; zero is +0.00.

    >>> signed(0.0123), signed(-0.00001)
    ('+1.23', '+0.00')
    """
    return f"{round(100 * difference, digits) + 0.0:+.{digits}f}"
