"""Fine-tuning: a gradient and an AdamW step for each batch; scored along the way, the best weights kept, resumable.

All randomness is made from the seed and the place in the run, and gradients are added in a fixed order. So a run that
was stopped and resumes from its checkpoint ends with the same weights, to the last bit, as one that was not.

**Source**: Reimers & Gurevych 2019, section 3.1; ``sentence_transformers.SentenceTransformerTrainer``.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minisbert.checks import check_choice, check_whole
from minisbert.encoder import BLOCK_TEXTS, SentenceEncoder
from minisbert.evaluation.published import find_sets
from minisbert.evaluation.retrieval import RetrievalSet, evaluate_retrieval, read_retrieval
from minisbert.evaluation.sts import StsPairs, evaluate_sts, read_sts
from minisbert.files import written_whole
from minisbert.model import Array
from minisbert.model.config import BertConfig
from minisbert.model.folder import SentenceModel
from minisbert.model.params import build_params
from minisbert.model.pooling import Normalize, Pooling
from minisbert.model.tokens import OverflowReport, TruncationWarning
from minisbert.training.data import Examples, make_epoch
from minisbert.training.losses import LOSSES
from minisbert.training.optim import AdamWState, adamw, clip_gradients, init_adamw, warmup_linear
from minisbert.training.step import (
    DropoutPlan,
    copy_parameters,
    named_parameters,
    replace_parameters,
    value_and_gradients,
)

FITTING = {
    "pairs": ("multiple_negatives_ranking",),
    "triplets": ("multiple_negatives_ranking", "triplet"),
    "scored": ("cosent", "cosine_similarity"),
    "labelled": ("softmax", "contrastive"),
    "texts": ("multiple_negatives_ranking", "simcse"),
}
"""The losses for each kind of examples, the usual one first. Texts with labels have the first, those without simcse."""

RANGES = {
    "epochs": (1, math.inf),
    "batch_size": (2, math.inf),
    "learning_rate": (0.0, 1.0),
    "warmup": (0.0, 1.0),
    "weight_decay": (0.0, 1.0),
    "max_grad_norm": (1e-12, math.inf),
    "dropout": (0.0, 0.9),
    "seed": (0, math.inf),
    "max_seq_length": (3, math.inf),
    "cache_tokens": (1, math.inf),
    "num_threads": (1, math.inf),
    "evaluate_every": (1, math.inf),
}
"""The smallest and largest value of each setting."""

CHECKPOINT_STEPS = 200
"""Steps between two checkpoints by default."""

RETRIEVAL_MEASURE = "nDCG@10"


@dataclass(frozen=True)
class Settings:
    """How to train.

    Parameters
    ----------
    loss : str
        A key of :data:`~minisbert.training.losses.LOSSES`.
    loss_options : mapping
        Options of the loss, such as ``{"scale": 20.0}``; the defaults are in :data:`LOSSES`.
    epochs : int
        Passes over the examples.
    batch_size : int
        Examples a step, at least 2.
    learning_rate : float
        The peak, at the end of the warm-up.
    warmup : float
        Fraction of all steps, in [0, 1], in which the learning rate rises from 0; then it falls linearly to 0.
    weight_decay : float
        AdamW's, in [0, 1]; biases and LayerNorm have none.
    max_grad_norm : float
        Longer gradients are clipped to it.
    dropout : float
        Rate, in [0, 0.9], for hidden states and attention probabilities. BERT's own is 0.1.
    seed : int
        For the order of examples, dropout and the first weights of a classifier.
    max_seq_length : int, optional
        Tokens after which a text is truncated; by default the model's limit.
    cache_tokens : int, optional
        Gradient caching in pieces of so many tokens, for batches that do not fit into memory.
    num_threads : int
        Threads; the order in which gradients are added, and so their last digits, depend on it.
    evaluate_every : int, optional
        Steps between two scores on the dev set; by default an epoch.

    Examples
    --------
    >>> Settings(loss="triplet", loss_options={"margin": 0.5}).learning_rate
    2e-05
    >>> Settings(loss="triplets")
    Traceback (most recent call last):
        ...
    ValueError: loss must be one of multiple_negatives_ranking, ..., got 'triplets'
    """

    loss: str = "multiple_negatives_ranking"
    loss_options: Mapping[str, float | str | bool] = field(default_factory=dict)
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 2e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    dropout: float = 0.1
    seed: int = 0
    max_seq_length: int | None = None
    cache_tokens: int | None = None
    num_threads: int = 2
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, LOSSES)
        loss = LOSSES[self.loss]
        for name, value in self.loss_options.items():
            default = loss.options.get(name)
            kind = float if type(value) is int else type(value)
            if default is None or kind is not type(default) or (kind is float and not math.isfinite(float(value))):
                known = ", ".join(f"{option} (such as {usual!r})" for option, usual in loss.options.items())
                raise ValueError(f"the options of {self.loss} are {known or 'none at all'}; got {name} = {value!r}")
        if self.loss_options:
            vectors = [np.eye(2)] * (3 if loss.data == "triplets" else 2)
            targets = [np.array([0.0, 1.0])] if loss.data in ("scored", "labelled") else []
            loss.function(*vectors, *targets, **self.loss_options)  # it checks its own options
        for name, (low, high) in RANGES.items():
            value, default = getattr(self, name), getattr(Settings, name)
            if value is None and default is None:
                continue
            kinds = (int, float) if isinstance(default, float) else int
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                number = "a number" if isinstance(default, float) else "an integer"
                raise ValueError(f"{name} must be {number} from {low:g} to {high:g}, got {value!r}")


def check_fit(settings: Settings, examples: Examples) -> None:
    """Raise if a loss cannot train on these examples, and name those that can.

    >>> check_fit(Settings(loss="cosent"), Examples("pairs", (("a", "b"), ("c", "d"))))
    Traceback (most recent call last):
        ...
    ValueError: the loss cosent does not fit 'pairs'; use multiple_negatives_ranking
    """
    fitting = fitting_losses(examples)
    if settings.loss not in fitting:
        raise ValueError(f"the loss {settings.loss} does not fit {examples.kind!r}; use {' or '.join(fitting)}")
    if settings.loss == "contrastive" and examples.label_names != ("0", "1"):
        names = ", ".join(examples.label_names[:5])
        raise ValueError(f"the loss contrastive needs the labels 1 (belongs together) and 0, got {names}; use softmax")
    if settings.loss == "simcse" and settings.dropout == 0.0:
        raise ValueError("the loss simcse compares two dropout views, which are equal with dropout 0; use 0.1")


def fitting_losses(examples: Examples) -> tuple[str, ...]:
    """List the losses that can train on these examples, the usual one first."""
    if examples.kind == "texts":
        return ("simcse",) if examples.labels is None else ("multiple_negatives_ranking",)
    return FITTING[examples.kind]


def new_head(settings: Settings, examples: Examples, width: int, dtype: npt.DTypeLike) -> dict[str, Array]:
    """Draw the first weights of the loss's own classifier, uniform within ``1 / sqrt(3 width)``: (C, 3 width) and (C,).

    Nothing for a loss without one. **Source**: ``torch.nn.Linear``, which sentence-transformers' ``SoftmaxLoss`` starts
    from.
    """
    if not LOSSES[settings.loss].has_head:
        return {}
    rng = np.random.default_rng([settings.seed, 1])
    classes, bound = len(examples.label_names), (3 * width) ** -0.5
    shapes = {"head.weight": (classes, 3 * width), "head.bias": (classes,)}
    return {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()}


# ---------------------------------------------------------------------------------------------------------- the dev set


@dataclass(frozen=True)
class DevSet:
    """A development set: data to score a model on during training."""

    name: str
    data: StsPairs | RetrievalSet

    def score(self, encoder: SentenceEncoder) -> float:
        """Spearman's correlation of the cosine, or nDCG@10, both x 100; larger is better."""
        if isinstance(self.data, StsPairs):
            return evaluate_sts(encoder, self.data, overflow="truncate").spearman["cosine"]
        return 100.0 * float(evaluate_retrieval(encoder, self.data).measures[RETRIEVAL_MEASURE].mean())

    @property
    def measure(self) -> str:
        """What the score is."""
        return "Spearman x 100" if isinstance(self.data, StsPairs) else f"{RETRIEVAL_MEASURE} x 100"


def read_dev(path: Path, columns: Sequence[str] | None = None) -> DevSet:
    r"""Read a dev set: a file of scored sentence pairs, or a folder in BEIR's layout.

    Parameters
    ----------
    path : Path
    columns : sequence of three str, optional
        The score and the two sentences of a file; by default the usual names.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "dev.tsv"
    >>> _ = file.write_text("score\tsentence1\tsentence2\n5\ta cat\tone cat\n0\ta cat\ttea\n")
    >>> read_dev(file).name, read_dev(file).measure
    ('dev.tsv', 'Spearman x 100')
    """
    if path.is_dir():
        return DevSet(path.resolve().name, read_retrieval(path))
    known = find_sets(path)[0][0]
    return DevSet(path.name, read_sts(path, name=path.name, columns=columns, scale=known.scale if known else None))


# ---------------------------------------------------------------------------------------------------------- checkpoints
#
# A checkpoint is an .npz file without objects, so that nothing in it can run; the zip's CRC-32 notices a damaged disk.
# It holds parameters, the optimiser's moments and the best parameters so far, each in its order in memory, on which the
# last digits depend; and, as JSON, how far the run is and what it is a run of. Randomness needs no state: every
# generator is made from the seed and its place (epoch, step, shard).


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or is of another run."""


@dataclass
class Progress:
    """How far a run is."""

    losses: list[float] = field(default_factory=list)  # one per step, so that they count the steps
    dev_scores: list[tuple[int, float]] = field(default_factory=list)  # steps done, and the score then
    seconds: float = 0.0  # by the clock, summed over all sessions

    @property
    def step(self) -> int:
        """Batches done, in all epochs."""
        return len(self.losses)


@dataclass(eq=False)
class TrainingState:
    """Everything that changes in training."""

    params: dict[str, Array]
    optimizer: AdamWState
    progress: Progress = field(default_factory=Progress)
    best: dict[str, Array] = field(default_factory=dict)  # the parameters with the best dev score; {} before the first

    def parts(self) -> dict[str, dict[str, Array]]:
        """The tensors, by what their names in a file begin with."""
        optimizer = self.optimizer
        return {"params": self.params, "best": self.best, "m": optimizer.m, "v": optimizer.v, "seen": optimizer.seen}


def write_checkpoint(file: Path, state: TrainingState, identity: Mapping[str, Any]) -> None:
    """Write a state in place of the file's last one; after an OSError (a full disk) the old file is unchanged.

    ``identity`` says, as JSON can, what the run is a run of: model, examples, settings. Reading compares it.
    """
    tensors: dict[str, Any] = {
        f"{part}/{name}": array for part, arrays in state.parts().items() for name, array in arrays.items()
    }
    about = {"identity": identity, "progress": asdict(state.progress), "tensors": len(tensors)}
    with written_whole(file) as stream:
        np.savez(stream, about=json.dumps(about), **tensors)


def read_checkpoint(file: Path, identity: Mapping[str, Any]) -> TrainingState:
    """Read a state to resume from.

    Raises CheckpointError if the file is damaged, or names every difference if it is of a run with another model, other
    examples or settings.

    >>> import tempfile
    >>> params = {"weight": np.ones((2, 3))}
    >>> file = Path(tempfile.mkdtemp()) / "run.checkpoint"
    >>> write_checkpoint(file, TrainingState(params, init_adamw(params), Progress([0.5, 0.4])), {"loss": "triplet"})
    >>> read_checkpoint(file, {"loss": "triplet"}).progress.step
    2
    >>> read_checkpoint(file, {"loss": "cosent"})
    Traceback (most recent call last):
        ...
    minisbert.training.finetune.CheckpointError: ...: belongs to another run: loss was 'triplet' and is now ...
    """
    try:
        with file.open("rb") as stream, np.load(stream) as stored:
            about = json.loads(str(stored["about"]))
            was, progress = dict(about["identity"]), Progress(**about["progress"])
            progress.dev_scores = [(step, score) for step, score in progress.dev_scores]
            state = TrainingState({}, AdamWState(progress.step, {}, {}), progress)
            names = [name for name in stored.files if name != "about"]
            if len(names) != about["tensors"]:  # the zip's directory has no checksum
                raise ValueError(f"{len(names)} tensors instead of {about['tensors']}")
            for name in names:
                part, _, tensor = name.partition("/")
                state.parts()[part][tensor] = stored[name]
    except OSError as error:  # a folder, say
        raise CheckpointError(f"{file}: cannot be read: {error}") from error
    except Exception as error:  # a dozen kinds; of what is no zip, NumPy says how to unpickle it, which would be unsafe
        raise CheckpointError(f"{file}: damaged, or no checkpoint; remove it to start again") from error
    now = json.loads(json.dumps(identity))
    if differing := [name for name in {**was, **now} if was.get(name) != now.get(name)]:
        changes = "; ".join(f"{name} was {was.get(name)!r} and is now {now.get(name)!r}" for name in differing)
        raise CheckpointError(f"{file}: belongs to another run: {changes}; remove the file to start again")
    return state


# -------------------------------------------------------------------------------------------------------------- the run


class TrainingError(ValueError):
    """A loss, gradient or dev score that is not finite; the message names the step and the batch."""


@dataclass(frozen=True)
class StepReport:
    """What one step did."""

    step: int  # steps done, including this one
    total_steps: int
    epoch: int  # from 0
    loss: float
    learning_rate: float
    gradient_norm: float  # before clipping
    dev_score: float | None  # if one was taken after this step


@dataclass(frozen=True)
class Finetuned:
    """The result of training."""

    encoder: SentenceEncoder  # with the best weights by the dev set; without one, the last
    progress: Progress
    best_step: int  # the step of these weights; 0 is before training
    is_finished: bool  # False if stopped before the end


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
        The start; it is not changed.
    examples : Examples
        From :func:`~minisbert.training.data.read_examples`.
    settings : Settings, optional
    dev : DevSet, optional
        Scored before training, every ``settings.evaluate_every`` steps and at the end; the best weights are the result.
    checkpoint : Path, optional
        A file for the state of the run, written regularly, when stopped and at the end.
    checkpoint_every : int
        Steps, at least 1.
    resume : bool
        Go on from the checkpoint if there is one. Model, examples, dev set and settings must be the same.
    on_step : callable, optional
        Called with a :class:`StepReport` after each step.
    should_stop : callable, optional
        Called after each step; if it returns True, the checkpoint is written and the run ends.

    Raises
    ------
    TrainingError
        If a loss or gradient is infinite or NaN, with the batch that caused it. The checkpoint is not touched.

    Examples
    --------
    >>> questions = ("how do i bake bread", "is it raining", "where is my parcel", "when does the train leave")
    >>> answers = ("knead flour and water", "take an umbrella", "it is on its way", "at noon from platform two")
    >>> tuned = finetune(SentenceEncoder(), Examples("pairs", (questions, answers)), Settings(batch_size=4, warmup=0))
    >>> tuned.progress.step, tuned.encoder.encode(["hello"]).shape
    (1, (1, 384))
    """
    began, settings = time.monotonic(), settings or Settings()
    check_fit(settings, examples)
    check_whole("finetune: checkpoint_every", checkpoint_every, 1)
    if resume and checkpoint is None:
        raise ValueError("finetune: resume=True needs a checkpoint")
    limited = encoder.with_model(encoder.model)
    if settings.max_seq_length is not None:
        limited.max_seq_length = settings.max_seq_length  # refused if the model has fewer positions
    limit = limited.max_seq_length
    params = copy_parameters(named_parameters(encoder.model))
    params |= new_head(settings, examples, encoder.model.full_width, encoder.dtype)
    state, identity = TrainingState(params, init_adamw(params)), {}
    if checkpoint is not None:
        identity = run_identity(encoder, examples, replace(settings, max_seq_length=limit), dev)
        if resume and checkpoint.exists():
            state = read_checkpoint(checkpoint, identity)
            began -= state.progress.seconds

    cut = OverflowReport(limit, "truncate")
    for column in examples.columns:
        for start in range(0, len(column), BLOCK_TEXTS):
            cut.add(encoder.model.tokenizer(column[start : start + BLOCK_TEXTS], limit))
    if cut.cut:
        warnings.warn(
            f"{cut.cut:,} of {cut.texts:,} texts are longer than max_seq_length = {limit} tokens: training reads their "
            "beginnings",
            TruncationWarning,
            stacklevel=2,
        )

    progress, stopped = state.progress, False
    for report in _steps(encoder, examples, settings, dev, limit, state):
        progress.seconds = time.monotonic() - began
        if on_step is not None and report is not None:
            on_step(report)
        is_over = report is not None and report.step == report.total_steps
        stopped = not is_over and should_stop is not None and should_stop()
        if checkpoint is not None and (stopped or is_over or (report and report.step % checkpoint_every == 0)):
            try:
                write_checkpoint(checkpoint, state, identity)
            except OSError as error:
                if not is_over:
                    raise
                warnings.warn(f"{error}: the last checkpoint is missing; the model is trained", stacklevel=2)
        if stopped:
            break
    scores = dict(progress.dev_scores)
    best_step = max(scores, key=lambda step: scores[step]) if scores else progress.step
    tuned = encoder.with_model(replace_parameters(encoder.model, state.best or state.params))
    progress.seconds = time.monotonic() - began
    return Finetuned(tuned, progress, best_step, not stopped)


def _steps(
    encoder: SentenceEncoder,
    examples: Examples,
    settings: Settings,
    dev: DevSet | None,
    limit: int,
    state: TrainingState,
) -> Iterator[StepReport | None]:
    """Train on from a state, which is overwritten, and report each step; None after the first score on the dev set."""
    params, progress, threads = state.params, state.progress, settings.num_threads
    model, known = replace_parameters(encoder.model, params), LOSSES[settings.loss]
    head = [params["head.weight"], params["head.bias"]] if known.has_head else []

    def score(dev: DevSet) -> float:
        """Score the model as it is now, and keep its weights if it is the best so far."""
        try:
            found = float(dev.score(encoder.with_model(model)))
            if not math.isfinite(found):
                raise ValueError(f"the score is {found}")
        except ValueError as error:  # weights that overflow, or equal vectors
            raise TrainingError(f"after step {progress.step}, dev set {dev.name}: {error}") from error
        if all(found > earlier for _, earlier in progress.dev_scores):
            state.best = copy_parameters(params)
        progress.dev_scores.append((progress.step, found))
        return found

    if dev is not None and not progress.dev_scores:
        score(dev)
        yield None
    for epoch in range(settings.epochs):
        rng = np.random.default_rng([settings.seed, 0, epoch])  # a resumed epoch is the same
        batches = make_epoch(examples, settings.batch_size, rng)
        total = len(batches) * settings.epochs  # epochs are equally long
        warmup = math.ceil(settings.warmup * total)
        for place in range(max(0, progress.step - epoch * len(batches)), len(batches)):
            batch = batches[place]
            loss = known.of_batch(batch.texts, batch.targets, **settings.loss_options)
            dropout = DropoutPlan((settings.seed, 2, progress.step), settings.dropout, settings.dropout)
            try:
                step = value_and_gradients(
                    model,
                    batch.texts,
                    lambda vectors, loss=loss: loss(vectors, *head),  # type: ignore[misc]
                    max_seq_length=limit,
                    dropout=dropout if settings.dropout else None,
                    cache_tokens=settings.cache_tokens,
                    num_threads=threads,
                    report=OverflowReport(limit, "truncate"),
                )
                if not math.isfinite(step.value):
                    raise ValueError(f"the loss is {step.value}")
                norm = clip_gradients(step.gradients, settings.max_grad_norm, num_threads=threads)
            except ValueError as error:
                where = f"step {progress.step + 1} (epoch {epoch + 1}, batch {place + 1})"
                rows = ", ".join(map(str, batch.indices[:8].tolist())) + (", .." if len(batch.indices) > 8 else "")
                longest = max((text for column in batch.texts for text in column), key=len)
                raise TrainingError(
                    f"{where}: {error}. The batch: examples {rows}, from 0; its longest text has {len(longest):,} "
                    f"characters and begins {longest[:60]!r}. Losses before: {progress.losses[-3:]}. The weights are "
                    "as they were before this batch; a lower learning rate or a longer warm-up usually helps"
                ) from error
            rate, decay = settings.learning_rate * warmup_linear(progress.step, warmup, total), settings.weight_decay
            adamw(params, step.gradients, state.optimizer, learning_rate=rate, weight_decay=decay, num_threads=threads)
            progress.losses.append(step.value)
            is_scored = progress.step == total or progress.step % (settings.evaluate_every or len(batches)) == 0
            dev_score = score(dev) if dev is not None and is_scored else None
            yield StepReport(progress.step, total, epoch, step.value, rate, norm, dev_score)


def run_identity(
    encoder: SentenceEncoder, examples: Examples, settings: Settings, dev: DevSet | None
) -> dict[str, Any]:
    """What a run is a run of, for its checkpoint: whatever affects a bit of the result."""
    model, weights = encoder.model, hashlib.sha256()
    for name, array in named_parameters(model).items():
        weights.update(f"{name}{array.shape}{array.dtype}".encode())
        weights.update(np.ascontiguousarray(array).data)
    weights.update(model.tokenizer.library.to_str().encode())
    kinds = [
        (type(m).__name__, {k: v for k, v in vars(m).items() if not isinstance(v, np.ndarray)}) for m in model.modules
    ]
    rest = (model.prompts, model.default_prompt_name, model.similarity_fn_name, model.truncate_dim)
    weights.update(repr((model.config, kinds, rest)).encode())

    def digest(*parts: Any) -> str:
        said = [repr(part.tolist() if isinstance(part, np.ndarray) else part) for part in parts]
        return hashlib.sha256("".join(said).encode()).hexdigest()[:16]

    data = digest(examples.kind, examples.columns, examples.label_names, examples.scores, examples.labels)
    return {
        "model": weights.hexdigest()[:16],
        "examples": f"{len(examples)} {examples.kind}, {data}",
        "dev": dev and f"{dev.name} up to {encoder.max_seq_length} tokens, {digest(*vars(dev.data).values())}",
        "numpy": np.__version__,
        **asdict(settings),
    }


# --------------------------------------------------------------------------------------------------------- from scratch


def untrained_model(
    like: SentenceModel,
    *,
    num_hidden_layers: int = 2,
    hidden_size: int = 128,
    num_attention_heads: int = 4,
    seed: int = 0,
) -> SentenceModel:
    """Make an untrained model with mean pooling and unit vectors, and the tokenizer and limits of another one.

    The feed-forward size is four times the hidden size, as in BERT. Weights are normal with standard deviation 0.02,
    biases 0, LayerNorm weights 1, as in ``transformers.BertModel(config)`` (Devlin et al. 2019).

    >>> from minisbert import SentenceEncoder
    >>> encoder = SentenceEncoder()
    >>> encoder.with_model(untrained_model(encoder.model)).encode(["soup"]).shape
    (1, 128)
    """
    if min(num_hidden_layers, hidden_size, num_attention_heads) < 1 or hidden_size % num_attention_heads:
        sizes = f"{num_hidden_layers} layers, hidden size {hidden_size}, {num_attention_heads} heads"
        raise ValueError(f"untrained_model: sizes must be 1 or more, and heads divide the hidden size; got {sizes}")
    config = BertConfig(
        vocab_size=like.config.vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=like.config.max_position_embeddings,
        type_vocab_size=like.config.type_vocab_size,
    )
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        if len(shape) == 1:
            return np.full(shape, float(name.endswith("LayerNorm.weight")), np.float32)
        weight = rng.normal(0.0, 0.02, shape).astype(np.float32)
        # in the memory order of loaded weights
        return weight if name.startswith("embeddings.") else np.asfortranarray(weight)

    params = build_params(config, draw)
    return replace(like, config=config, params=params, modules=(Pooling(), Normalize()), truncate_dim=None)
