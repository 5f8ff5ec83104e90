"""``minisbert classify``: the group of verbs that learn classes of texts, and name them."""

from __future__ import annotations

from typing import Any

import click

from minisbert.cli import LazyGroup
from minisbert.cli.options import Verb, decorate

# Name to module and short help, so that listing them imports none of them.
VERBS = {
    "train": ("classify_train", "Learn classes from labelled texts."),
    "predict": ("classify_predict", "Name the class of texts, with probabilities."),
    "evaluate": ("classify_evaluate", "Measure a classifier, also beside TF-IDF."),
    "split": ("classify_split", "Hold out a part of labelled texts."),
}


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Learn classes of texts, and name them.")
def classify() -> None:
    """Learn classes of texts from examples, such as their mood, and name them, with probabilities.

    A classifier is logistic regression on the model's vectors, which stay as they are. Training needs scikit-learn;
    naming classes does not.

    \b
    Examples:
      minisbert classify train train.tsv -o mood --class-weight balanced
      minisbert classify predict mood "what a wonderful evening" "never again"
      minisbert classify evaluate mood test.tsv --baseline train.tsv

    `minisbert classify COMMAND --help` explains a command and shows more examples.
    """


def label_options(verb: Verb) -> Verb:
    """Give a verb that reads labelled texts the options that say where in the file they are."""
    options = [
        click.option(
            "--columns",
            "column_names",
            metavar="LABEL,TEXT",
            help="Names or numbers of the columns.  [default: label, text or a usual synonym]",
        ),
        click.option("--no-header", is_flag=True, help="There is no row of names on top; number the columns from 1."),
    ]
    return decorate(verb, options)


def read_options(column_names: str | None, no_header: bool) -> dict[str, Any]:
    """Take apart what was said about the files.

    Examples
    --------
    >>> read_options("class,tweet", False)
    {'columns': ['class', 'tweet'], 'has_header': True}
    """
    names = column_names.split(",") if column_names is not None else None
    if names is not None and len(names) != 2:
        raise click.UsageError(f"--columns must name two: label and text; got {column_names!r}.")
    if no_header and names is None:
        raise click.UsageError("With --no-header, say by --columns which columns hold the label and the text.")
    return {"columns": names, "has_header": not no_header}
