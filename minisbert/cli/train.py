"""``minisbert train``: fine-tune a model, or train one from scratch, on examples from a file."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from minisbert import __version__
from minisbert.cli import options
from minisbert.cli.options import columns_options
from minisbert.cli.outputs import echo_json, locked, plain, training_bar
from minisbert.cli.table import counted
from minisbert.files import folder_written_whole
from minisbert.parallel import threads
from minisbert.training.data import COLUMNS, read_examples
from minisbert.training.finetune import (
    CheckpointError,
    Settings,
    finetune,
    fitting_losses,
    read_dev,
    run_identity,
    untrained_model,
)
from minisbert.training.losses import LOSSES

DATA = ("model", "examples", "dev")  # what a run is of besides its settings: hashes, compared by --resume


def loss_option(said: str) -> tuple[str, Any]:
    """NAME=VALUE; a value is a number, true, false or a word."""
    name, equals, value = said.partition("=")
    if not equals:
        raise click.BadParameter(f"must be NAME=VALUE, such as scale=20, got {said!r}")
    try:
        return name, json.loads(value.lower())
    except ValueError:
        return name, value


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=options.FILE)
@click.option("-o", "--output", required=True, metavar="OUT", type=options.PLACE, help="A new folder.")
@click.option("--kind", type=click.Choice(list(COLUMNS)), help="What a row is.  [default: told by the columns]")
@columns_options()
@click.option(
    "--scale", type=options.Numbers(float, 2), metavar="LOW,HIGH", help="Range of the scores, mapped to 0..1."
)
@click.option(
    "--loss",
    type=click.Choice(list(LOSSES)),
    metavar="NAME",
    help="One of the losses above.  [default: the first for the kind]",
)
@click.option(
    "--loss-option", "loss_options", type=loss_option, multiple=True, metavar="NAME=VALUE", help="Such as scale=20."
)
@click.option("--epochs", type=options.COUNT, default=1, help="Passes over the examples.")
@click.option("--batch-size", type=click.IntRange(2), default=32, help="Examples per step.")
@click.option("--learning-rate", type=options.SHARE, default=2e-5, help="Peak learning rate.")
@click.option("--warmup", type=options.SHARE, default=0.1, help="Share of steps while the rate rises.")
@click.option("--weight-decay", type=options.SHARE, default=0.01, help="AdamW's weight decay.")
@click.option("--max-grad-norm", type=float, default=1.0, help="Clip gradients to this norm.")
@click.option("--dropout", type=options.SHARE, default=0.1, help="Dropout rate; 0 is none.")
@options.seed_option
@click.option("--cache-tokens", type=options.COUNT, help="Gradient caching: tokens in memory at a time.")
@options.num_threads_option
@click.option("--dev", type=click.Path(exists=True, path_type=Path), help="Scored pairs, or a folder like BEIR's.")
@click.option("--dev-columns", metavar="SCORE,SENTENCE1,SENTENCE2", help="Columns of the dev file, if unusual.")
@click.option("--evaluate-every", type=options.COUNT, metavar="STEPS", help="[default: every epoch]")
@click.option("--checkpoint-every", type=options.COUNT, default=200, metavar="STEPS")
@click.option("--resume", is_flag=True, help="Continue from OUT.checkpoint, bit for bit, if there is one.")
@click.option("--force", is_flag=True, help="Start over even if OUT.checkpoint exists.")
@click.option(
    "--from-scratch",
    type=options.Numbers(int, 3),
    metavar="LAYERS,WIDTH,HEADS",
    help="Random weights of this size, such as 2,128,4.",
)
@options.json_option
@options.model_options
def train(
    files: tuple[Path, ...],
    output: Path,
    kind: str | None,
    reading: dict[str, Any],
    scale: tuple[float, float] | None,
    loss: str | None,
    loss_options: tuple[tuple[str, Any], ...],
    resume: bool,
    force: bool,
    dev: Path | None,
    dev_columns: str | None,
    checkpoint_every: int,
    from_scratch: tuple[int, int, int] | None,
    as_json: bool,
    choice: options.ModelChoice,
    **training: Any,
) -> None:
    """Fine-tune a model on examples, and write a folder that sentence-transformers loads too.

    FILE is CSV, TSV, JSONL, JSON or Parquet, plain or .gz. Its columns tell what a row is, and which losses fit:

    \b
      pairs      anchor, positive             multiple_negatives_ranking
      triplets   anchor, positive, negative   multiple_negatives_ranking, triplet
      scored     sentence1, sentence2, score  cosent, cosine_similarity
      labelled   sentence1, sentence2, label  softmax, contrastive (labels 0 and 1)
      texts      text, label                  multiple_negatives_ranking, on pairs with the same label
      texts      text                         simcse

    With --dev the model is scored before, during and after training, and the best weights are kept. OUT.checkpoint
    holds the state of the run until OUT is written. After Ctrl-C, a crash or a full disk, the same command with
    --resume continues from it.

    \b
    Examples:
      minisbert train pairs.tsv -o my-model
      minisbert train nli.tsv -o my-model --dev stsb_dev.tsv --epochs 2
      minisbert train intents.csv -o my-model --kind texts --columns text,intent
      minisbert train nli.tsv -o small --from-scratch 2,128,4 --learning-rate 1e-3 --epochs 5
    """
    if resume and force:
        raise click.UsageError("--resume continues the earlier run, and --force discards it: give only one of them.")
    if dev is None and (dev_columns is not None or training["evaluate_every"] is not None):
        raise click.UsageError("--dev-columns and --evaluate-every are about the dev set: they need --dev.")
    if dev_columns is not None and dev_columns.count(",") != 2:
        raise click.UsageError(f"--dev-columns must name three: score, first and second sentence; got {dev_columns!r}.")
    if reading["columns"] is not None and kind is None:
        raise click.UsageError(f"--columns needs --kind: {', '.join(COLUMNS)}.")
    training["num_threads"] = training["num_threads"] or threads.usable()
    with _claimed(output) as checkpoint:
        about = output / "training.json"
        is_complete = resume and about.is_file()  # killed between the last two steps, perhaps
        if not is_complete and output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise click.ClickException(f"{output}: exists and is not an empty folder; choose another name")
        if checkpoint.exists() and not resume and not force:
            raise click.ClickException(
                f"{checkpoint}: an earlier run was interrupted; continue it with --resume, or start over with --force"
            )
        examples = read_examples(files, kind=kind, scale=scale, **reading)
        settings = Settings(loss or fitting_losses(examples)[0], dict(loss_options), **training)
        dev_set = None if dev is None else read_dev(dev, dev_columns.split(",") if dev_columns else None)
        encoder = choice.encoder()
        began_with = encoder.folder.name
        if from_scratch is not None:
            began_with = f"{encoder.folder.name}'s tokenizer, random weights"
            layers, width, heads = from_scratch
            sizes: dict[str, Any] = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
            encoder = encoder.with_model(untrained_model(encoder.model, **sizes, seed=settings.seed))
        limit = encoder.max_seq_length if settings.max_seq_length is None else settings.max_seq_length
        run = plain(run_identity(encoder, examples, replace(settings, max_seq_length=limit), dev_set))
        if is_complete:  # what only affects last digits may differ
            summary = json.loads(about.read_bytes())
            before = {**summary["settings"], **summary.get("identity", {})}
            others = [name for name in before if name in run and name != "num_threads" and run[name] != before[name]]
            if others:
                changes = "; ".join(f"{name} was {before[name]!r} and is now {run[name]!r}" for name in others)
                raise CheckpointError(f"{output}: is complete, but is of another run: {changes}; choose another name")
            checkpoint.unlink(missing_ok=True)
            click.echo(f"{output}: this run is complete; nothing is left to do", err=True)
        else:
            with _asked_to_stop() as should_stop, training_bar(dev_set) as on_step:
                done = finetune(
                    encoder,
                    examples,
                    settings,
                    dev=dev_set,
                    checkpoint=checkpoint,
                    checkpoint_every=checkpoint_every,
                    resume=resume,
                    on_step=on_step,
                    should_stop=should_stop,
                )
            progress = done.progress
            if not done.is_finished:
                raise click.ClickException(
                    f"stopped after step {progress.step}; {checkpoint} holds the whole state: the same command with "
                    "--resume continues"
                )
            scored, best = None, {}
            if dev_set is not None:
                scored = {"name": dev_set.name, "measure": dev_set.measure, "scores": progress.dev_scores}
                best = {f"{dev_set.name}, {dev_set.measure}": dict(progress.dev_scores)[done.best_step]}
            summary = plain(
                {
                    "began_with": began_with,
                    "files": [file.name for file in files],
                    "minisbert": __version__,
                    "examples": len(examples),
                    "kind": examples.kind,
                    "settings": {**vars(settings), "max_seq_length": done.encoder.max_seq_length},
                    "steps": progress.step,
                    "seconds": round(progress.seconds, 1),
                    "losses": progress.losses,
                    "dev": scored,
                    "best_step": done.best_step,
                    "identity": {name: run[name] for name in DATA},
                }
            )
            try:
                with folder_written_whole(output) as unfinished:
                    done.encoder.save_pretrained(
                        unfinished, output.name, train_datasets=summary["files"], loss=settings.loss, scores=best
                    )
                    text = json.dumps(summary, indent=2, ensure_ascii=False)
                    (unfinished / about.name).write_text(f"{text}\n", encoding="utf-8")
            except OSError as error:
                kept = f"; {checkpoint} holds the trained model: make room, then repeat the command with --resume"
                said = f"{output}: {error.strerror or error}{kept if checkpoint.exists() else ''}"
                raise click.ClickException(said) from error
            checkpoint.unlink(missing_ok=True)
    if as_json:
        echo_json(summary)
        return
    losses, scored, best_step = summary["losses"], summary["dev"], summary["best_step"]
    tenth = max(1, len(losses) // 10)
    first, last = (sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:]))
    lines = [
        f"{summary['examples']:,} {summary['kind']}, loss {summary['settings']['loss']}: "
        f"{counted(summary['steps'], 'step')} in {summary['seconds']:.0f} s",
        f"loss {first:.4f} -> {last:.4f} (means of the first and last tenth of the steps)",
    ]
    if scored is not None:
        scores = dict(scored["scores"])
        lines.append(
            f"{scored['name']}, {scored['measure']}: {scores[0]:.2f} before, {scores[best_step]:.2f} at the best step, "
            f"{best_step}, whose weights were kept"
        )
        if best_step == 0:
            lines.append("no step improved the dev score: these are the initial weights")
    click.echo("\n".join([*lines, f"wrote {output}"]))


@contextmanager
def _claimed(output: Path) -> Iterator[Path]:
    """Lock OUT while it is trained, and sweep what killed runs left of it; yield the checkpoint file."""
    if not output.name:
        raise click.UsageError(f"-o must be the name of a new folder, got {str(output)!r}.")
    if not output.resolve().parent.is_dir():
        raise click.ClickException(f"{output}: the folder {output.parent} does not exist; create it first")
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    lock_file = output.with_name(f"{output.name}.checkpoint.lock")
    with locked(lock_file, f"{output}: another process is training it"):
        name = re.escape(output.name)
        for left in output.parent.iterdir():
            if re.fullmatch(rf"\.+{name}(\.checkpoint)?(\.\d+\.unfinished(-\w+)?)+(\.replaced)?", left.name):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        with contextlib.suppress(OSError):  # an empty OUT, set aside by a run that was killed before its last rename
            output.with_name(f".{output.name}.replaced").rmdir()
        yield checkpoint


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Finish the current step after a first Ctrl-C or SIGTERM; a second one stops at once."""
    asked: list[int] = []

    def remember(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        click.echo("\nstopping after this step; Ctrl-C again stops at once, back to the last checkpoint", err=True)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
