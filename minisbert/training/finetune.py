"""Fine-tuning: batch after batch, a gradient and a step against it; scored on the way, the best kept, resumable.

One run is: shuffle the examples (``batches.py``); for each batch the loss and its gradient (``step.py``), shortened if
it is long, and a step of AdamW with a learning rate that rises and falls (``optim.py``); now and then a score on a dev
set. At the end stands an encoder with the best weights, to be saved as a folder that sentence-transformers loads.

Everything that is random is made from the seed and the place in the run, and gradients are added in a fixed order. So
a run that was stopped and goes on from its checkpoint ends with the same weights, to the last bit, as one that was not.

Left out on purpose: half precision (CPUs gain nothing from it here), several machines, and prompts: texts are trained
as they stand. ``scratch.py``, next, makes a model that knows nothing yet.

**Source**: Reimers & Gurevych 2019, section 3.1; ``sentence_transformers.SentenceTransformerTrainer``.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.encoder import BLOCK_TEXTS, SentenceEncoder
from minisbert.model.folder import SentenceModel
from minisbert.model.gradients import Gradient
from minisbert.model.tokens import OverflowReport, TruncationWarning
from minisbert.training.batches import Batch, make_epoch
from minisbert.training.checkpoint import Progress, TrainingState, read_checkpoint, write_checkpoint
from minisbert.training.data import Examples
from minisbert.training.dev import DevSet
from minisbert.training.moments import init_adamw
from minisbert.training.objective import new_head, objective
from minisbert.training.optim import adamw
from minisbert.training.pace import clip_gradients, warmup_linear
from minisbert.training.parameters import copy_parameters, named_parameters, replace_parameters
from minisbert.training.settings import Settings, check_fit
from minisbert.training.step import DropoutPlan, value_and_gradients

CHECKPOINT_STEPS = 200
"""Steps between two checkpoints, if nothing else is said."""


class TrainingError(ValueError):
    """A loss or a gradient that is not finite: the message names the step and the batch."""


@dataclass(frozen=True)
class StepReport:
    """What one step did, for whoever watches."""

    step: int  # steps done, this one included
    total_steps: int
    epoch: int  # from 0
    loss: float
    learning_rate: float
    gradient_norm: float  # before it was shortened
    dev_score: float | None  # where one was taken behind this step


@dataclass(frozen=True)
class Finetuned:
    """What training gave."""

    encoder: SentenceEncoder  # with the best weights by the dev set, without one with the last
    progress: Progress
    best_step: int  # whose weights these are; 0 is before training
    is_finished: bool  # False if it was asked to stop before the end


def finetune(
    encoder: SentenceEncoder,
    examples: Examples,
    settings: Settings | None = None,
    *,
    dev: DevSet | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = CHECKPOINT_STEPS,
    resume: bool = False,
    on_step: Callable[[StepReport], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Finetuned:
    """Train a sentence encoder on examples.

    Parameters
    ----------
    encoder : SentenceEncoder
        Where to begin; it stays as it is.
    examples : Examples
        From :func:`~minisbert.training.data.read_examples`.
    settings : Settings, optional
    dev : DevSet, optional
        Scored before training, every ``settings.evaluate_every`` steps and at the end; the weights with the best score
        are the result.
    checkpoint : Path, optional
        A file for the state of the run, written every so many steps and when stopped.
    checkpoint_every : int
        Steps, at least 1.
    resume : bool
        Go on from the checkpoint. Model, examples, dev set and settings must be the same.
    on_step : callable, optional
        Called with a :class:`StepReport` after each step.
    should_stop : callable, optional
        Asked after each step; True writes the checkpoint and ends the run.

    Returns
    -------
    Finetuned

    Raises
    ------
    TrainingError
        If a loss or gradient is infinite or NaN, with the batch that made it, or the dev set cannot be scored. The
        checkpoint is then as it was.
    ValueError
        For a loss that does not fit the examples, a checkpoint of another run, and whatever the parts refuse.

    Examples
    --------
    >>> questions = ("how do i bake bread", "is it raining", "where is my parcel", "when does the train leave")
    >>> answers = ("knead flour and water", "take an umbrella", "it is on its way", "at noon from platform two")
    >>> tuned = finetune(SentenceEncoder(), Examples("pairs", (questions, answers)), Settings(batch_size=4, warmup=0))
    >>> tuned.progress.step, tuned.encoder.encode(["hello"]).shape
    (1, (1, 384))
    """
    settings = settings or Settings()
    check_fit(settings, examples)
    if checkpoint_every < 1 or (resume and checkpoint is None):
        raise ValueError(
            "finetune: expected checkpoint_every of at least 1, and for resume=True a checkpoint, got "
            f"{checkpoint_every} and {checkpoint}"
        )
    run = _Run(encoder, examples, settings, dev, _limit(encoder, settings))
    start = copy_parameters(named_parameters(encoder.model))
    start |= new_head(settings, examples, encoder.model.full_width, encoder.dtype)
    identity = _identity(run) if checkpoint is not None else {}
    if resume and checkpoint is not None:
        first = read_checkpoint(checkpoint, start, identity)
    else:
        first = TrainingState(start, init_adamw(start))
    _say_what_is_cut(encoder, examples, run.max_seq_length)
    state, stopped = first, False
    for state, report in run.steps(first):
        if on_step is not None and report is not None:
            on_step(report)
        stopped = should_stop is not None and should_stop() and not run.is_over(state)
        if checkpoint is not None and (stopped or (report and report.step % checkpoint_every == 0)):
            write_checkpoint(checkpoint, state, identity)
        if stopped:
            break
    scores = dict(state.progress.dev_scores)
    best_step = max(scores, key=lambda step: scores[step]) if scores else state.progress.step
    tuned = encoder.with_model(replace_parameters(encoder.model, state.best or state.params))
    return Finetuned(tuned, state.progress, best_step, not stopped)


@dataclass(frozen=True)
class _Run:
    """What stays the same from step to step."""

    encoder: SentenceEncoder
    examples: Examples
    settings: Settings
    dev: DevSet | None
    max_seq_length: int

    def batches(self, epoch: int) -> list[Batch]:
        """Make the batches of an epoch, the same at every call."""
        return make_epoch(
            self.examples, self.settings.batch_size, np.random.default_rng([self.settings.seed, 0, epoch])
        )

    def is_over(self, state: TrainingState) -> bool:
        """Say whether all epochs are done."""
        return state.progress.epoch >= self.settings.epochs

    def steps(self, state: TrainingState) -> Iterator[tuple[TrainingState, StepReport | None]]:
        """Train from where a state stands, and give the state behind each step; its arrays are overwritten."""
        model = replace_parameters(self.encoder.model, state.params)
        if self.dev is not None and not state.progress.dev_scores:
            state = self._score(state, model)
            yield state, None
        while not self.is_over(state):
            batches = self.batches(state.progress.epoch)
            total = len(batches) * self.settings.epochs  # epochs are equally long: only the number of examples counts
            for batch in batches[state.progress.batch :]:
                started = time.perf_counter()
                state, report = self._step(state, model, batch, total, len(batches))
                if self.dev is not None and self._is_scored(state, total):
                    state = self._score(state, model)
                    report = replace(report, dev_score=state.progress.dev_scores[-1][1])
                seconds = state.progress.seconds + time.perf_counter() - started
                state = replace(state, progress=replace(state.progress, seconds=seconds))
                yield state, report

    def _step(
        self, state: TrainingState, model: SentenceModel, batch: Batch, total: int, in_epoch: int
    ) -> tuple[TrainingState, StepReport]:
        """Take one step."""
        settings, done = self.settings, state.progress
        loss, gradients, norm = self._gradients(state, model, batch)
        warmup = math.ceil(settings.warmup * total)
        learning_rate = settings.learning_rate * warmup_linear(done.step, warmup, total)
        params, optimizer = adamw(
            state.params,
            gradients,
            state.optimizer,
            learning_rate=learning_rate,
            weight_decay=settings.weight_decay,
            in_place=True,
            num_threads=settings.num_threads,
        )
        is_last = done.batch + 1 == in_epoch
        progress = replace(
            done,
            epoch=done.epoch + is_last,
            batch=0 if is_last else done.batch + 1,
            step=done.step + 1,
            losses=(*done.losses, loss),
        )
        report = StepReport(progress.step, total, done.epoch, loss, learning_rate, norm, None)
        return TrainingState(params, optimizer, progress, state.best), report

    def _gradients(
        self, state: TrainingState, model: SentenceModel, batch: Batch
    ) -> tuple[float, dict[str, Gradient], float]:
        """Compute the loss, its gradient, shortened, and the length that it had; if not finite, name the batch."""
        settings, place = self.settings, state.progress
        dropout = None
        if settings.dropout:
            dropout = DropoutPlan((settings.seed, 2, place.step), settings.dropout, settings.dropout)
        try:
            step = value_and_gradients(
                model,
                batch.texts,
                objective(settings, batch, state.params),
                max_seq_length=self.max_seq_length,
                dropout=dropout,
                cache_tokens=settings.cache_tokens,
                num_threads=settings.num_threads,
                report=OverflowReport(self.max_seq_length, "truncate"),
            )
            if not math.isfinite(step.value):
                raise ValueError(f"the loss is {step.value}")
            gradients, norm = clip_gradients(
                step.gradients, settings.max_grad_norm, in_place=True, num_threads=settings.num_threads
            )
        except ValueError as error:
            raise TrainingError(_blame(error, place, batch)) from error
        return step.value, gradients, norm

    def _is_scored(self, state: TrainingState, total: int) -> bool:
        """Say whether the dev set is due."""
        every, step = self.settings.evaluate_every, state.progress.step
        return step == total or (state.progress.batch == 0 if every is None else step % every == 0)

    def _score(self, state: TrainingState, model: SentenceModel) -> TrainingState:
        """Score the model as it is now, and keep its weights if it is the best so far."""
        if self.dev is None:
            return state
        try:
            score = float(self.dev.score(self.encoder.with_model(model)))
            if not math.isfinite(score):
                raise ValueError(f"the score is {score}")
        except ValueError as error:  # weights that overflow, or vectors that are all the same
            raise TrainingError(f"after step {state.progress.step}, dev set {self.dev.name}: {error}") from error
        earlier = [before for _, before in state.progress.dev_scores]
        progress = replace(state.progress, dev_scores=(*state.progress.dev_scores, (state.progress.step, score)))
        best = copy_parameters(state.params) if not earlier or score > max(earlier) else state.best
        return replace(state, progress=progress, best=best)


def _blame(error: ValueError, place: Progress, batch: Batch) -> str:
    """Say which batch made a loss or gradient that is not finite, or was refused."""
    rows = ", ".join(str(i) for i in batch.indices[:8].tolist()) + (", .." if len(batch.indices) > 8 else "")
    longest = max((text for column in batch.texts for text in column), key=len)
    recent = ", ".join(f"{loss:.4g}" for loss in place.losses[-3:]) or "none"
    where = f"step {place.step + 1} (epoch {place.epoch + 1}, batch {place.batch + 1})"
    return (
        f"{where}: {error}. The batch: examples {rows}, from 0; its longest text has {len(longest):,} characters and "
        f"begins {longest[:60]!r}. Losses before: {recent}. The weights are as they were before this batch; a lower "
        "learning rate or a longer warm-up mostly helps"
    )


def _say_what_is_cut(encoder: SentenceEncoder, examples: Examples, limit: int) -> None:
    """Warn once about texts that are longer than the limit."""
    report = OverflowReport(limit, "truncate")
    for column in examples.columns:
        for start in range(0, len(column), BLOCK_TEXTS):
            report.add(encoder.model.tokenizer(column[start : start + BLOCK_TEXTS], limit))
    if report.cut:
        warnings.warn(
            f"{report.cut:,} of {report.texts:,} texts are longer than max_seq_length = {limit} tokens and lose "
            f"{report.lost:,} tokens: training reads their beginnings; a larger max_seq_length reads more",
            TruncationWarning,
            stacklevel=3,
        )


def _limit(encoder: SentenceEncoder, settings: Settings) -> int:
    """Give the tokens after which texts are cut in training; more than the model has positions are refused."""
    limited = encoder.with_model(encoder.model)
    if settings.max_seq_length is not None:
        limited.max_seq_length = settings.max_seq_length
    return limited.max_seq_length


def _identity(run: _Run) -> dict[str, Any]:
    """Say what a run is a run of, for its checkpoint: whatever decides a bit of the result."""
    model, examples, dev = run.encoder.model, run.examples, run.dev
    weights = hashlib.sha256()
    for name, array in named_parameters(model).items():
        weights.update(f"{name}{array.shape}{array.dtype}".encode())
        weights.update(np.ascontiguousarray(array).data)
    weights.update(model.tokenizer.library.to_str().encode())
    kinds = [
        (type(m).__name__, {k: v for k, v in vars(m).items() if not isinstance(v, np.ndarray)}) for m in model.modules
    ]
    rest = (model.prompts, model.default_prompt_name, model.similarity_fn_name, model.truncate_dim)
    weights.update(repr((model.config, kinds, rest)).encode())
    limit = run.encoder.max_seq_length
    data = (examples.kind, examples.columns, examples.label_names)
    return {
        "model": weights.hexdigest()[:16],
        "examples": f"{len(examples)} {examples.kind}, {_digest(*data, examples.scores, examples.labels)}",
        "dev": None if dev is None else f"{dev.name} up to {limit} tokens, {_digest(*vars(dev.data).values())}",
        "numpy": np.__version__,
        **asdict(run.settings),
        "max_seq_length": run.max_seq_length,
    }


def _digest(*parts: Any) -> str:
    """Hash data by what they hold."""
    content = hashlib.sha256()
    for part in parts:
        content.update(repr(part.tolist() if isinstance(part, np.ndarray) else part).encode())
    return content.hexdigest()[:16]
