"""``minisbert entities predict``: the entities of texts, each with its place and probability."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.table import display_width, pad, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.analysis.entities import Entity

NAME_WIDTH = 40  # columns of a name, at most


@click.command(short_help="Find entities in texts.")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@input_options
@json_option
@model_options
def predict(folder: Path, source: TextSource, as_json: bool, choice: ModelChoice) -> None:
    """Find entities in texts with the tagger in FOLDER and the model it was trained with.

    Each name is shown with its start and end in characters (from 0, end exclusive) and the probability that exactly
    these words are an entity of this type. --json prints one object per text, in order.

    \b
    Examples:
      minisbert entities predict names "Ada met Charles in London."
      minisbert entities predict names -i texts.txt
      minisbert entities predict names "Ada met Charles." "soup" --json
    """
    if source.file is None and not source.arguments:
        raise click.UsageError("Nothing to search: give texts, or a file of texts (-i).")
    source.check()
    from minisbert.analysis.entities import load_tagger

    tagger = load_tagger(folder)
    texts = list(source.read())
    found = tagger.find(choice.encoder("float32"), texts, show_progress_bar=sys.stderr.isatty())
    if as_json:
        for text, names in zip(texts, found, strict=True):
            click.echo(json.dumps(_to_json(text, names), ensure_ascii=False).encode())
    else:
        click.echo("\n".join(_report(texts, found)))


def _report(texts: list[str], found: list[list[Entity]]) -> list[str]:
    """Each text with its entities under it."""
    width = terminal_width()
    shown = [[shorten(printable(one.text), NAME_WIDTH) for one in names] for names in found]
    widest = max((display_width(name) for names in shown for name in names), default=0)
    types = max((display_width(one.type) for names in found for one in names), default=0)
    lines: list[str] = []
    for text, names, cells in zip(texts, found, shown, strict=True):
        lines.append(shorten(printable(text), width) or "(empty)")
        for one, name in zip(names, cells, strict=True):
            place = f"{one.start}-{one.stop}"
            lines.append(f"  {pad(name, widest)}  {pad(one.type, types)}  {place:>9}  {one.probability:.2f}")
        if not names:
            lines.append("  (none)")
    return lines


def _to_json(text: str, names: list[Entity]) -> dict[str, Any]:
    """A text and its entities as JSON."""
    return {"text": text, "entities": [vars(one) for one in names]}
