"""``minisbert evaluate``: the group of verbs that score a model on benchmarks."""

from __future__ import annotations

import click

from minisbert.cli import LazyGroup

# Name to module and short help, so that listing them imports none of them.
VERBS = {
    "sts": ("evaluate_sts", "Correlate similarities with people's scores."),
    "layers": ("evaluate_sts", "Score every layer under every pooling, as a heat map."),
    "retrieval": ("evaluate_retrieval", "Measure how well a model finds documents."),
    "classification": ("evaluate_classification", "Classify texts from a few examples a class."),
    "lengths": ("evaluate_lengths", "Measure what is lost beyond the length limit."),
}


@click.group(
    cls=LazyGroup, verbs=VERBS, short_help="Score the model on sets with known answers, beside published figures."
)
def evaluate() -> None:
    """Score the model on sets with known answers, beside published figures.

    \b
    Examples:
      minisbert evaluate sts data/sts12 data/stsb/stsb_test.tsv
      minisbert evaluate layers data/stsb/stsb_test.tsv
      minisbert evaluate retrieval scifact

    `minisbert evaluate COMMAND --help` explains a command and shows more examples.
    """
