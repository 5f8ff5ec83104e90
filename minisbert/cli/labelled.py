"""Options for a file of labelled texts: where in a row the label and the text are."""

from __future__ import annotations

from typing import Any

import click

from minisbert.cli.inputs import DIALECT_OPTIONS, dialect
from minisbert.cli.options import Verb, decorate


def label_options(verb: Verb) -> Verb:
    """Add the options about the columns of labelled texts to a verb."""
    options = [
        click.option(
            "--columns",
            "column_names",
            metavar="LABEL,TEXT",
            help="Names or numbers of the columns.  [default: label, text or a usual synonym]",
        ),
        click.option("--no-header", is_flag=True, help="There is no header row; columns are numbered from 1."),
        *DIALECT_OPTIONS,
    ]
    return decorate(verb, options)


def read_options(column_names: str | None, no_header: bool) -> dict[str, Any]:
    """The options as arguments of ``read_labelled``.

    >>> read_options("class,tweet", False)
    {'columns': ['class', 'tweet'], 'has_header': True}
    """
    names = column_names.split(",") if column_names is not None else None
    if names is not None and len(names) != 2:
        raise click.UsageError(f"--columns must name two columns, label and text; got {column_names!r}.")
    if no_header and names is None:
        raise click.UsageError("With --no-header, give the columns of label and text with --columns.")
    return {"columns": names, "has_header": not no_header, **dialect()}
