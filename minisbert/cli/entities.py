"""``minisbert entities``: the group of verbs that train, apply and evaluate an entity tagger."""

from __future__ import annotations

import click

from minisbert.cli import LazyGroup

# Name to module and short help, so that listing them imports none of them.
VERBS = {
    "train": ("entities_train", "Learn entities from sentences with tagged words."),
    "predict": ("entities_predict", "Find entities in texts."),
    "evaluate": ("entities_evaluate", "Score a tagger beside baselines."),
}


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Find names of people, places and things.")
def entities() -> None:
    """Find names of people, places and things, by a linear probe on the vectors of words.

    The model stays as it is; what is learnt is one matrix. So it is quick to train, and a study of what the vectors
    hold. A tagger of which all layers are trained is better. The default model reads lower case only.

    \b
    Examples:
      minisbert entities train names_train.jsonl --dev names_dev.jsonl -o names
      minisbert entities predict names "Ada met Charles in London."
      minisbert entities evaluate names names_test.jsonl --baselines names_train.jsonl

    `minisbert entities COMMAND --help` explains a command and shows more examples.
    """
