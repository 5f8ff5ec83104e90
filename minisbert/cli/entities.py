"""``minisbert entities``: the group of verbs that train, apply and evaluate an entity tagger."""

from __future__ import annotations

import click

from minisbert.cli import LazyGroup

# Name -> module and short help, so that listing the verbs imports none of them.
VERBS = {
    "train": ("entities_train", "Train a tagger on sentences with tagged words."),
    "predict": ("entities_predict", "Find entities in texts."),
    "evaluate": ("entities_evaluate", "Evaluate a tagger, and compare it with baselines."),
}


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Find names of people, places and things.")
def entities() -> None:
    """Find names of people, places and things with a linear probe on word vectors.

    The model stays frozen; only one matrix is learnt. That makes training quick, and shows what the vectors encode. A
    tagger with all layers fine-tuned is better. The default model is uncased.

    \b
    Examples:
      minisbert entities train names_train.jsonl --dev names_dev.jsonl -o names
      minisbert entities predict names "Ada met Charles in London."
      minisbert entities evaluate names names_test.jsonl --baselines names_train.jsonl

    `minisbert entities COMMAND --help` describes a command and shows more examples.
    """
