"""``minisbert train``: fine-tune a model, or train one from scratch, on examples from a file."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert import __version__
from minisbert.cli.inputs import DIALECT_OPTIONS, dialect
from minisbert.cli.options import ModelChoice, decorate, json_option, model_options

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder
    from minisbert.training.data import Examples
    from minisbert.training.finetune import DevSet, Finetuned, Settings, StepReport

KINDS = ("pairs", "triplets", "scored", "labelled", "texts")
RECENT = 50  # the running loss is the mean of this many

_data_options = [
    click.option("--kind", type=click.Choice(KINDS), help="What a row is.  [default: inferred from the columns]"),
    click.option("--columns", metavar="NAME,NAME..", help="Names or numbers of the columns; needs --kind."),
    click.option("--scale", metavar="LOW,HIGH", help="Range of the scores; they are mapped to 0..1."),
    click.option("--no-header", is_flag=True, help="The files have no header row; columns are numbered from 1."),
    *DIALECT_OPTIONS,
]
_training_options = [
    click.option("--loss", metavar="NAME", help="One of the losses above.  [default: the first for the kind]"),
    click.option("--loss-option", "loss_options", multiple=True, metavar="NAME=VALUE", help="Such as scale=20."),
    click.option("--epochs", type=click.IntRange(1), default=1, show_default=True, help="Passes over the examples."),
    click.option("--batch-size", type=click.IntRange(2), default=32, show_default=True, help="Examples per step."),
    click.option("--learning-rate", type=float, default=2e-5, show_default=True, help="Peak learning rate."),
    click.option(
        "--warmup", type=float, default=0.1, show_default=True, help="Share of steps in which the rate rises."
    ),
    click.option("--weight-decay", type=float, default=0.01, show_default=True, help="AdamW's weight decay."),
    click.option("--max-grad-norm", type=float, default=1.0, show_default=True, help="Clip gradients to this norm."),
    click.option("--dropout", type=float, default=0.1, show_default=True, help="Dropout rate; 0 is none."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed."),
    click.option("--cache-tokens", type=click.IntRange(1), help="Gradient caching: tokens in memory at a time."),
    click.option("--num-threads", type=click.IntRange(1), help="Affects last digits.  [default: one per processor]"),
]
_run_options = [
    click.option("--dev", type=click.Path(exists=True, path_type=Path), help="Scored pairs, or a folder like BEIR's."),
    click.option("--dev-columns", metavar="SCORE,SENTENCE1,SENTENCE2", help="Columns of the dev file, if unusual."),
    click.option("--evaluate-every", type=click.IntRange(1), metavar="STEPS", help="[default: every epoch]"),
    click.option("--checkpoint-every", type=click.IntRange(1), default=200, show_default=True, metavar="STEPS"),
    click.option("--resume", is_flag=True, help="Continue from OUT.checkpoint, bit for bit."),
    click.option("--force", is_flag=True, help="Start over even if OUT.checkpoint exists."),
    click.option("--from-scratch", metavar="LAYERS,WIDTH,HEADS", help="Random weights of this size, such as 2,128,4."),
]


@click.command(short_help="Fine-tune a model on examples from a file.")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("-o", "--output", required=True, metavar="OUT", type=click.Path(path_type=Path), help="A new folder.")
@lambda verb: decorate(verb, [*_data_options, *_training_options, *_run_options])
@json_option
@model_options
def train(
    files: tuple[Path, ...],
    output: Path,
    resume: bool,
    force: bool,
    dev: Path | None,
    dev_columns: str | None,
    checkpoint_every: int,
    from_scratch: str | None,
    as_json: bool,
    choice: ModelChoice,
    **options: Any,
) -> None:
    """Fine-tune a model on examples, and write a folder that sentence-transformers loads too.

    FILE is TSV (without quoting), CSV or JSONL, plain or .gz. Its columns tell what a row is, and which losses fit:

    \b
      pairs      anchor, positive             multiple_negatives_ranking
      triplets   anchor, positive, negative   multiple_negatives_ranking, triplet
      scored     sentence1, sentence2, score  cosent, cosine_similarity
      labelled   sentence1, sentence2, label  softmax, contrastive (labels 0 and 1)
      texts      text, label                  multiple_negatives_ranking, on pairs with the same label
      texts      text                         simcse

    With --dev the model is scored before, during and after training, and the best weights are kept. OUT.checkpoint
    holds the state of the run. After Ctrl-C or a crash, the same command with --resume continues from it.

    \b
    Examples:
      minisbert train pairs.tsv -o my-model
      minisbert train nli.tsv -o my-model --dev stsb_dev.tsv --epochs 2
      minisbert train intents.csv -o my-model --kind texts --columns text,intent
      minisbert train nli.tsv -o small --from-scratch 2,128,4 --learning-rate 1e-3 --epochs 5
    """
    _check_call(options, dev, dev_columns, resume, force)
    sizes = None if from_scratch is None else _three_sizes(from_scratch)
    with _claimed(output) as checkpoint:
        _check_places(output, checkpoint, resume, force)
        from minisbert.training.finetune import finetune, read_dev

        examples, settings = _ask(files, options)
        dev_set = None if dev is None else read_dev(dev, dev_columns.split(",") if dev_columns else None)
        encoder = _start(choice, sizes, settings.seed)
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
        if not done.is_finished:
            raise click.ClickException(
                f"stopped after step {done.progress.step}; {checkpoint} holds the whole state: the same command with "
                "--resume continues"
            )
        began_with = f"{encoder.folder.name}'s tokenizer, random weights" if from_scratch else encoder.folder.name
        summary = _summary(done, examples, settings, dev_set)
        summary = {"began_with": began_with, "files": [file.name for file in files], **summary}
        _write(output, done.encoder, summary)
        checkpoint.unlink(missing_ok=True)
    click.echo(json.dumps(summary) if as_json else "\n".join(_report(summary, output)))


def _check_call(options: dict[str, Any], dev: Path | None, dev_columns: str | None, resume: bool, force: bool) -> None:
    """Raise for options that make no sense whatever the files hold."""
    if resume and force:
        raise click.UsageError("--resume continues the earlier run, and --force discards it: give only one of them.")
    if dev is None and (dev_columns is not None or options["evaluate_every"] is not None):
        raise click.UsageError("--dev-columns and --evaluate-every are about the dev set: they need --dev.")
    if dev_columns is not None and dev_columns.count(",") != 2:
        raise click.UsageError(f"--dev-columns must name three: score, first and second sentence; got {dev_columns!r}.")
    if options["columns"] is not None and options["kind"] is None:
        raise click.UsageError(f"--columns needs --kind: {', '.join(KINDS)}.")
    if options["no_header"] and options["columns"] is None:
        raise click.UsageError("With --no-header, give the columns to read with --columns, as numbers from 1.")


@contextmanager
def _claimed(output: Path) -> Iterator[Path]:
    """Lock OUT while it is trained; yield the checkpoint file."""
    from glob import escape

    from filelock import FileLock, Timeout

    if not output.name:
        raise click.UsageError(f"-o must be the name of a new folder, got {str(output)!r}.")
    if not output.resolve().parent.is_dir():
        raise click.ClickException(f"{output}: the folder {output.parent} does not exist; create it first")
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    lock_file = output.with_name(f"{output.name}.checkpoint.lock")
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise click.ClickException(f"{output}: another process is training it ({lock_file} is locked)") from None
    try:
        for left in output.parent.glob(f".{escape(checkpoint.name)}.*.unfinished"):  # by a process that was killed
            left.unlink(missing_ok=True)
        yield checkpoint
    finally:
        with contextlib.suppress(OSError):  # while it is held, so that no other process's lock is removed
            lock_file.unlink()
        lock.release()


def _check_places(output: Path, checkpoint: Path, resume: bool, force: bool) -> None:
    """Raise early if the output could not be written, or would lose an earlier run."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        hint = "choose another name"
        if checkpoint.exists() and (output / "training.json").exists():  # killed between the last two steps
            hint = f"it is a finished run, and {checkpoint} is left over from it; you can remove the checkpoint"
        raise click.ClickException(f"{output}: exists and is not an empty folder; {hint}")
    if checkpoint.exists() and not resume and not force:
        raise click.ClickException(
            f"{checkpoint}: an earlier run was interrupted; continue it with --resume, or start over with --force"
        )
    if resume and not checkpoint.exists():
        raise click.ClickException(f"{checkpoint}: no such checkpoint to resume from; leave --resume out")


def _ask(files: tuple[Path, ...], options: dict[str, Any]) -> tuple[Examples, Settings]:
    """Read the examples and build the settings; options are checked before anything is read."""
    from minisbert.parallel import threads
    from minisbert.training.data import read_examples
    from minisbert.training.finetune import fitting_losses

    kind, columns, scale = options.pop("kind"), options.pop("columns"), options.pop("scale")
    limits = None if scale is None else _two_numbers(scale)
    has_header = not options.pop("no_header")
    options["loss_options"] = dict(_loss_option(said) for said in options["loss_options"])
    options["num_threads"] = options["num_threads"] or threads.usable()
    if options["loss"] is not None:
        checked_settings(**options)
    names = columns.split(",") if columns else None
    examples = read_examples(list(files), kind=kind, columns=names, scale=limits, has_header=has_header, **dialect())
    options["loss"] = options["loss"] or fitting_losses(examples)[0]
    return examples, checked_settings(**options)


def checked_settings(**options: Any) -> Settings:
    """Build settings; a mistake in them is a usage error."""
    from minisbert.training.finetune import Settings

    try:
        return Settings(**options)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None


def _two_numbers(said: str) -> tuple[float, float]:
    """Parse LOW,HIGH."""
    try:
        low, high = map(float, said.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise click.UsageError(f"--scale must be LOW,HIGH, such as 0,5, got {said!r}.")
    return low, high


def _three_sizes(said: str) -> tuple[int, int, int]:
    """Parse LAYERS,WIDTH,HEADS."""
    try:
        layers, width, heads = map(int, said.split(","))
    except ValueError:
        layers = width = heads = 0
    if min(layers, width, heads) < 1 or width % heads:
        raise click.UsageError(
            f"--from-scratch must be LAYERS,WIDTH,HEADS, such as 2,128,4, where HEADS divides WIDTH; got {said!r}."
        )
    return layers, width, heads


def _loss_option(said: str) -> tuple[str, float | str | bool]:
    """Parse NAME=VALUE; a value is a number, true, false or a word."""
    name, equals, value = said.partition("=")
    if not equals:
        raise click.UsageError(f"--loss-option must be NAME=VALUE, such as scale=20, got {said!r}.")
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    try:
        return name, float(value)
    except ValueError:
        return name, value


def _start(choice: ModelChoice, sizes: tuple[int, int, int] | None, seed: int) -> SentenceEncoder:
    """Load the model, or make a random one with its tokenizer."""
    encoder = choice.encoder("float32")
    if sizes is None:
        return encoder
    from minisbert.training.finetune import untrained_model

    layers, width, heads = sizes
    model = untrained_model(
        encoder.model, num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, seed=seed
    )
    return encoder.with_model(model)


@contextmanager
def _asked_to_stop() -> Iterator[Any]:
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


@contextmanager
def training_bar(dev: DevSet | None = None) -> Iterator[Any]:
    """Show steps, loss and time left in a terminal; elsewhere a line per dev score."""
    from tqdm import tqdm

    off, recent = not sys.stderr.isatty(), list[float]()
    bar: Any = tqdm(desc="train: before the first step", bar_format="{desc}", leave=False, disable=off)

    def on_step(report: StepReport) -> None:
        nonlocal bar
        begins = bar.total is None or report.step <= bar.n  # the first step of a run, or of the next run
        recent[:] = [report.loss] if begins else [*recent[1 - RECENT :], report.loss]
        shown = f"loss {sum(recent) / len(recent):.4f}"
        if begins:
            bar.close()
            # the duration of this step is unknown: rate and time left are those of the steps after it
            bar = tqdm(
                total=report.total_steps, initial=report.step, desc="train", unit="step", postfix=shown, disable=off
            )
        else:
            bar.set_postfix_str(shown, refresh=False)
            bar.update()
        if report.dev_score is not None and dev is not None:
            bar.write(f"step {report.step}: {dev.name} {report.dev_score:.2f} ({dev.measure})", file=sys.stderr)

    try:
        yield on_step
    finally:
        bar.close()


def _write(output: Path, encoder: SentenceEncoder, summary: dict[str, Any]) -> None:
    """Write the model and how it was trained; the folder appears whole or not at all."""
    unfinished = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a process killed here
    try:
        dev, scores = summary["dev"], {}
        if dev is not None:
            scores[f"{dev['name']}, {dev['measure']}"] = dict(dev["scores"])[summary["best_step"]]
        encoder.save_pretrained(
            unfinished / output.name,
            train_datasets=summary["files"],
            loss=summary["settings"]["loss"],
            scores=scores,
        )
        text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
        (unfinished / output.name / "training.json").write_text(f"{text}\n", encoding="utf-8")
        (unfinished / output.name).replace(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _summary(done: Finetuned, examples: Examples, settings: Settings, dev: DevSet | None) -> dict[str, Any]:
    """What a run was, and its results."""
    progress = done.progress
    asked = {**asdict(settings), "max_seq_length": done.encoder.max_seq_length}
    if math.isinf(settings.max_grad_norm):  # JSON has no infinity
        asked["max_grad_norm"] = None
    return {
        "minisbert": __version__,
        "examples": len(examples),
        "kind": examples.kind,
        "settings": asked,
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "losses": list(progress.losses),
        "dev": None if dev is None else {"name": dev.name, "measure": dev.measure, "scores": list(progress.dev_scores)},
        "best_step": done.best_step,
    }


def _report(summary: dict[str, Any], output: Path) -> list[str]:
    """Format the summary."""
    losses, tenth = summary["losses"], max(1, len(summary["losses"]) // 10)
    first, last = (sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:]))
    lines = [
        f"{summary['examples']:,} {summary['kind']}, loss {summary['settings']['loss']}: {summary['steps']:,} steps in "
        f"{summary['seconds']:.0f} s",
        f"loss {first:.4f} -> {last:.4f} (means of the first and last tenth of the steps)",
    ]
    if summary["dev"] is not None:
        scores = dict(summary["dev"]["scores"])
        best = summary["best_step"]
        lines.append(
            f"{summary['dev']['name']}, {summary['dev']['measure']}: {scores[0]:.2f} before, {scores[best]:.2f} at the "
            f"best step, {best}, whose weights were kept"
        )
        if best == 0:
            lines.append("no step improved the dev score: these are the initial weights")
    return [*lines, f"wrote {output}"]
