"""``minisbert demo``: the group of verbs that show training at work on small examples."""

from __future__ import annotations

import click

from minisbert.cli import LazyGroup

# Name -> module and short help, so that listing the verbs imports none of them.
VERBS = {
    "contrastive": ("demo_contrastive", "Watch InfoNCE pull pairs together and push the rest apart."),
    "intents": ("demo_intents", "Fine-tune on labelled texts: accuracy before and after."),
}


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Watch how training works, on small examples.")
def demo() -> None:
    """Watch how training works, on examples small enough to follow.

    \b
    Examples:
      minisbert demo contrastive
      minisbert demo contrastive -o demo.gif

    `minisbert demo COMMAND --help` describes a command and shows more examples.
    """
