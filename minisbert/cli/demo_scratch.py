"""``minisbert demo scratch``: a small BERT with random weights learns what sentences mean from triplets alone."""

from __future__ import annotations

import json
from pathlib import Path

import click

from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.train import checked_settings, training_bar


@click.command(short_help="Train a small BERT from random weights; score each epoch.")
@click.argument("triplets", metavar="TRIPLETS", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("dev", metavar="DEV", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--layers", type=click.IntRange(1), default=2, show_default=True, help="Layers of the new model.")
@click.option("--width", type=click.IntRange(1), default=128, show_default=True, help="Hidden size.")
@click.option("--heads", type=click.IntRange(1), default=4, show_default=True, help="Attention heads.")
@click.option("--epochs", type=click.IntRange(1), default=5, show_default=True, help="Passes over the triplets.")
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True, help="Triplets per step.")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True, help="Peak learning rate.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of weights and order.")
@json_option
@model_options
def scratch(
    triplets: Path,
    dev: Path,
    layers: int,
    width: int,
    heads: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    as_json: bool,
    choice: ModelChoice,
) -> None:
    """Train a small BERT from random weights on triplets, and score it on human-rated pairs after each epoch.

    TRIPLETS is a table with anchor, positive and negative; DEV has score, sentence1 and sentence2. Only the model's
    tokenizer is used.

    \b
    Examples:
      minisbert demo scratch nli_triplets.tsv stsb_dev.tsv
      minisbert demo scratch nli_triplets.tsv stsb_dev.tsv --layers 1 --epochs 2 --json
    """
    from minisbert.parallel import threads
    from minisbert.training.data import read_examples
    from minisbert.training.finetune import finetune, read_dev, untrained_model

    if width % heads:
        raise click.UsageError(f"--heads must divide --width, got {heads} and {width}.")
    settings = checked_settings(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed, num_threads=threads.usable()
    )
    examples, dev_set = read_examples(triplets), read_dev(dev)
    encoder = choice.encoder("float32")
    model = untrained_model(
        encoder.model, num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, seed=seed
    )
    with training_bar(dev_set) as on_step:
        done = finetune(encoder.with_model(model), examples, settings, dev=dev_set, on_step=on_step)
    scores = dict(done.progress.dev_scores)
    if as_json:
        result = {"examples": len(examples), "seconds": done.progress.seconds, "scores": scores}
        click.echo(json.dumps(result))
        return
    lines = [
        f"a BERT of {layers} layers, width {width}, {heads} heads, random weights; {len(examples):,} {examples.kind}, "
        f"{done.progress.step:,} steps in {done.progress.seconds:.0f} s",
        "",
        f"  step  {dev_set.name}, {dev_set.measure}",
        *(f"{step:>6}  {score:.2f}" for step, score in scores.items()),
    ]
    click.echo("\n".join(lines))
