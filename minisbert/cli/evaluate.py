"""``minisbert evaluate``: the group of verbs that score a model on benchmarks."""

from __future__ import annotations

import click

from minisbert.cli import LazyGroup

# Name -> module and short help, so that listing the verbs imports none of them.
VERBS = {
    "sts": ("evaluate_sts", "Correlate similarities with human scores."),
    "layers": ("evaluate_sts", "Score every layer with every pooling, as a heat map."),
    "retrieval": ("evaluate_retrieval", "Measure retrieval quality: nDCG, MAP, MRR, recall."),
    "classification": ("evaluate_classification", "Classify texts from a few examples per class."),
    "lengths": ("evaluate_lengths", "Measure what truncating long documents costs."),
}


@click.group(
    cls=LazyGroup, verbs=VERBS, short_help="Evaluate the model on labelled test sets, next to published figures."
)
def evaluate() -> None:
    """Evaluate the model on labelled test sets, next to published figures.

    \b
    Examples:
      minisbert evaluate sts data/sts12 data/stsb/stsb_test.tsv
      minisbert evaluate layers data/stsb/stsb_test.tsv
      minisbert evaluate retrieval scifact

    `minisbert evaluate COMMAND --help` describes a command and shows more examples.
    """
