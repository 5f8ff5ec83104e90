"""``minisbert classify``: the group of verbs that train, apply and evaluate text classifiers."""

from __future__ import annotations

import click

from minisbert.cli import LazyGroup

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
