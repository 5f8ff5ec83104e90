"""``minisbert gradcheck``: every gradient of a model under a loss, against finite differences."""

from __future__ import annotations

import sys
from dataclasses import replace

import click
import numpy as np

from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.outputs import echo_json
from minisbert.training.gradcheck import check_encoder
from minisbert.training.losses import LOSSES
from minisbert.training.step import named_parameters

# Short, because each direction takes a dozen passes over them, and no text twice. Of different lengths, so that a
# text mixed up with another shows.
COLUMNS = (
    ("i love soup", "london is far away", "what time is it?"),
    ("soup is my favorite", "it is a long way to london", "could you tell me the time"),
    ("i cannot stand it", "paris", "time flies"),
)
SCORES, LABELS = (0.9, 0.7, 0.2), (1, 0, 1)
_HEAD = ("head.weight", "head.bias")


@click.command(short_help="Check every gradient against finite differences.")
@click.option(
    "--loss",
    type=click.Choice(list(LOSSES)),
    default="multiple_negatives_ranking",
    show_default=True,
    help="Loss whose gradient is checked.",
)
@click.option(
    "--layers",
    default="last",
    show_default=True,
    metavar="LAYERS",
    help="Layers whose tensors are checked one by one, besides the modules after BERT: numbers from 0, such as 0,5; "
    "last, none, or all, embeddings included.",
)
@click.option(
    "--directions",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Random directions per tensor, and for all together.",
)
@click.option("--tolerance", type=click.FloatRange(min=0, min_open=True), default=1e-7, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the directions.")
@json_option
@model_options
def gradcheck(
    choice: ModelChoice, loss: str, layers: str, directions: int, tolerance: float, seed: int, as_json: bool
) -> None:
    """Check every gradient of a training step against finite differences, in float64.

    All tensors are moved at once along a random direction and the slope of the loss is measured; then each tensor of
    the chosen layers alone. A wrong gradient is reported with a diagnosis: a flipped sign, a factor, a missing term.
    The first wrong one listed is nearest to the loss: start there. The exit code is 1 if any is wrong.

    \b
    Examples:
      minisbert gradcheck
      minisbert gradcheck --loss cosent --layers 0,1
      minisbert gradcheck --layers all --directions 1
    """
    encoder = choice.encoder("float64")
    model = replace(encoder.model, max_seq_length=encoder.max_seq_length)
    count = model.config.num_hidden_layers
    names = [*named_parameters(model), *(_HEAD if LOSSES[loss].has_head else ())]
    if layers != "all":
        words = {"last": [str(count - 1)], "none": []}.get(layers, layers.split(","))
        numbers = [int(word) for word in words if word.strip().isdecimal()]
        if len(numbers) < len(words) or any(number >= count for number in numbers):
            raise click.UsageError(
                f"--layers: expected comma-separated numbers from 0 to {count - 1}, last, none or all, got {layers!r}"
            )
        wanted = ("modules.", "head.", *(f"encoder.layer.{number}." for number in numbers))
        names = [name for name in names if name.startswith(wanted)]
    if not as_json:
        click.echo(f"{loss}: all tensors together, and {len(names)} one by one; this may take minutes", err=True)
    data = LOSSES[loss].data
    report = check_encoder(
        model,
        COLUMNS[: {"texts": 1, "triplets": 3}.get(data, 2)],
        loss,
        rng=np.random.default_rng(seed),
        targets={"scored": SCORES, "labelled": LABELS}.get(data),
        directions=directions,
        tolerance=tolerance,
        only=names,
    )
    if as_json:
        first = report.first_wrong.name if report.first_wrong else None
        found = {"whole": report.whole, "tensors": report.rows, "notes": report.notes}
        echo_json({"ok": report.ok, "tolerance": report.tolerance, "first_wrong": first, **found})
    else:
        click.echo(str(report))
    sys.exit(0 if report.ok else 1)
