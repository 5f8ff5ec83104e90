"""``minisbert classify``: the group of verbs that train, apply and evaluate text classifiers."""

from __future__ import annotations

import click

from minisbert.cli import LazyGroup

# Name -> module and short help, so that listing the verbs imports none of them.
VERBS = {
    "train": ("classify_train", "Train a classifier on labelled texts."),
    "predict": ("classify_predict", "Classify texts, with probabilities."),
    "evaluate": ("classify_evaluate", "Evaluate a classifier, and compare it with TF-IDF."),
    "split": ("classify_split", "Split labelled texts into training and test sets."),
}


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Train and apply text classifiers.")
def classify() -> None:
    """Train text classifiers on examples, and predict classes with probabilities.

    A classifier is logistic regression on the model's vectors; the model itself stays frozen. Training needs
    scikit-learn, prediction does not.

    \b
    Examples:
      minisbert classify train train.tsv -o mood --class-weight balanced
      minisbert classify predict mood "what a wonderful evening" "never again"
      minisbert classify evaluate mood test.tsv --baseline train.tsv

    `minisbert classify COMMAND --help` describes a command and shows more examples.
    """
