"""The measurements: rounds in which every engine does the same work in turn.

Another engine begins each round, so that a machine that slows down for a while slows all of them; ratios are taken
within a round, and their median over rounds counts. Batch sizes that the others need are tried beforehand, and each
gets its best one. A :class:`Row` is one line of the table; the parts yield them one after the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from minisbert.bench import worker
from minisbert.bench.engines import ENGINES, Setting, export_graph
from minisbert.bench.worker import Worker
from minisbert.encoder import SentenceEncoder
from minisbert.model import Array
from minisbert.proof.profile import count_costs

PARTS = ("throughput", "lengths", "single", "cold", "training")
LENGTHS = {8: 512, 32: 256, 128: 96, 256: 48}
"""Tokens per text, and how many such texts are embedded: about a second's work each."""
SINGLE_TEXTS = 100
BATCH_PAIRS, ROUND_STEPS, CHECKED_STEPS, DROPOUT = 32, 8, 5, 0.1
"""Of training: pairs of a batch, steps of a round, steps without dropout whose losses are compared, rate of dropout."""
OURS = "minisbert"


@dataclass(frozen=True)
class Row:
    """What was measured: a figure a round, for each engine; ``ratios`` of ours to the others' say something."""

    what: str
    rounds: Mapping[str, Sequence[float]]
    ratios: bool = True

    def ratio(self, peer: str) -> float:
        """Ours as a multiple of a peer's figure: the median of the rounds' ratios.

        >>> Row("texts/s", {"minisbert": [4.0, 2.0, 4.0], "peer": [2.0, 1.0, 1.0]}).ratio("peer")
        2.0
        """
        return median(our / their for our, their in zip(self.rounds[OURS], self.rounds[peer], strict=True))


# ------------------------------------------------------------------------------------------------ the texts


def make_texts(encoder: SentenceEncoder, lengths: Iterable[int] | Array, rng: np.random.Generator) -> list[str]:
    """Make texts of random words with these numbers of tokens, special ones included: what they say takes no time.

    >>> encoder = SentenceEncoder()
    >>> encoder.tokenize(make_texts(encoder, [8, 32], np.random.default_rng(0))).lengths
    array([ 8, 32])
    """
    tokenizer = encoder.model.tokenizer
    known = sorted(tokenizer.library.get_vocab())
    words = np.array([word for word in known if word.isascii() and word.isalpha() and word.islower()])
    return [" ".join(rng.choice(words, int(length) - tokenizer.special_count)) for length in lengths]


def default_texts(encoder: SentenceEncoder, count: int = 2000) -> list[str]:
    """Make texts as long as sentences are, in tokens: log-normal, 5 to 60, mean 14, as in STSb test."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.rint(rng.lognormal(2.55, 0.4, count)), 5, 60)
    return make_texts(encoder, np.minimum(lengths, encoder.max_seq_length), rng)


def make_batches(texts: Sequence[str]) -> list[list[list[str]]]:
    """Pair adjacent texts, and pack the pairs into batches of 32 without repeating a text.

    With in-batch negatives a repeated text is a false negative, which our loss masks and PyTorch's does not. The rest
    is left out; one smaller batch for fewer than 32 pairs, none for fewer than 2.

    >>> make_batches(["a cat", "one cat", "tea", "tea", "a dog", "a cat", "soup", "broth"])
    [[['a cat', 'soup'], ['one cat', 'broth']]]
    """
    seen: set[str] = set()
    pairs = []
    for anchor, positive in zip(texts[::2], texts[1::2], strict=False):  # the last text may have no partner
        if anchor != positive and not {anchor, positive} & seen:
            seen |= {anchor, positive}
            pairs.append((anchor, positive))
    size = min(BATCH_PAIRS, len(pairs))
    starts = range(0, len(pairs) - size + 1, size) if size > 1 else ()
    return [[list(column) for column in zip(*pairs[start : start + size], strict=True)] for start in starts]


# ------------------------------------------------------------------------------------------------ the rounds


def in_rounds(engines: Iterable[str], rounds: int, measure: Callable[[str], Any]) -> dict[str, list[Any]]:
    """Measure every engine in every round; another one begins each time.

    >>> in_rounds(["a", "b"], 2, lambda name: print(name, end=" "))
    a b b a {'a': [None, None], 'b': [None, None]}
    """
    names = list(engines)
    found: dict[str, list[Any]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(measure(name))
    return found


def differences(found: Mapping[str, Any]) -> dict[str, list[float]]:
    """Largest absolute difference of each engine's numbers from ours: if results differed, no figure had a meaning."""
    reference = np.asarray(found.get(OURS, next(iter(found.values()))))
    return {name: [float(np.abs(np.asarray(values) - reference).max())] for name, values in found.items()}


def run_benchmark(
    encoder: SentenceEncoder,
    texts: list[str],
    engines: Sequence[str],
    parts: Sequence[str],
    *,
    rounds: int,
    num_threads: int,
    folder: Path,
) -> Iterator[Row]:
    """Measure the parts, and yield the rows of the table.

    The encoder counts tokens and makes texts; what is timed runs in other processes. ``folder`` is for the graph, and
    may be deleted afterwards.
    """
    ours = Setting(OURS, encoder.folder, folder / "model.onnx", num_threads, encoder.max_seq_length)
    settings = {name: replace(ours, engine=name) for name in engines}
    if "onnxruntime" in engines:
        with Worker(settings["onnxruntime"]) as exporter:
            exporter.ask(export_graph)
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(setting)) for name, setting in settings.items()}
        if "throughput" in parts:
            yield from _throughput(workers, encoder, "many texts", texts, rounds)
            yield Row("  peak memory of that, MiB", _asked(workers, worker.peak_mib))
            vectors = {name: one.ask(worker.embed, texts[:SINGLE_TEXTS]) for name, one in workers.items()}
            yield Row("  largest difference of a number", differences(vectors), ratios=False)
        if "lengths" in parts:
            rng = np.random.default_rng(0)
            for length in (length for length in LENGTHS if length <= encoder.max_seq_length):
                made = make_texts(encoder, [length] * LENGTHS[length], rng)
                yield from _throughput(workers, encoder, f"texts of {length} tokens", made, rounds)
        if "single" in parts:
            each = in_rounds(workers, rounds, lambda name: workers[name].ask(worker.seconds_each, texts[:SINGLE_TEXTS]))
            yield Row("one text at a time, ms", _scaled(each, lambda seconds: 1000 * median(seconds)))
    if "cold" in parts:
        in_rounds(engines, 1, lambda name: run_cold(settings[name]))  # reads files that are not cached yet
        cold = in_rounds(engines, rounds, lambda name: run_cold(settings[name]))
        yield Row("process start to first vector, s", _scaled(cold, lambda found: found[0]))
        yield Row("  peak memory of that, MiB", _scaled(cold, lambda found: found[1]))
    if "training" in parts:
        with ExitStack() as stack:
            able = {name: stack.enter_context(Worker(settings[name])) for name in engines if ENGINES[name].train}
            yield from measure_training(able, make_batches(texts), rounds)


def _asked(workers: Mapping[str, Any], task: Callable[..., float]) -> dict[str, list[float]]:
    return {name: [one.ask(task)] for name, one in workers.items()}


def _scaled(found: Mapping[str, list[Any]], figure: Callable[[Any], float]) -> dict[str, list[float]]:
    return {name: [figure(one) for one in rounds] for name, rounds in found.items()}


def _throughput(
    workers: Mapping[str, Any], encoder: SentenceEncoder, what: str, texts: list[str], rounds: int
) -> Iterator[Row]:
    """Embed a list of texts; for ours also the share of what one matrix product reaches in the same process."""
    best: dict[str, int | None] = {}
    for name, one in workers.items():
        one.ask(worker.seconds, texts[:64])  # warms up
        sizes = ENGINES[name].batch_sizes
        tried = {size: one.ask(worker.seconds, texts, size) for size in sizes if len(sizes) > 1}
        best[name] = min(tried, key=tried.__getitem__, default=None)
    found = in_rounds(workers, rounds, lambda name: workers[name].ask(worker.seconds, texts, best[name]))
    yield Row(f"{what}, texts/s", _scaled(found, lambda seconds: len(texts) / seconds))
    if OURS in workers:
        lengths = encoder.tokenize(texts, overflow="truncate").lengths
        costs = count_costs(lengths, encoder.model.config, encoder.model.modules)
        gflop = sum(cost.flop for cost in costs.values()) / 1e9
        shares = [100 * gflop / seconds / workers[OURS].ask(worker.sgemm) for seconds in found[OURS]]
        yield Row("  of one matrix product's speed, %", {OURS: shares})


def run_cold(setting: Setting) -> tuple[float, float]:
    """Embed one text in a new process: seconds until its last line is done (not the exit), and peak MiB."""
    script = ENGINES[setting.engine].cold_start.format(folder=setting.folder.as_posix(), graph=setting.graph.as_posix())
    told = "from minisbert.bench.worker import peak_mib; print(done, peak_mib())"
    code = f"{script}\nimport time; done = time.time()\n{told}"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    began = time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise ValueError(f"bench: {setting.engine}: the cold start failed: {done.stderr.strip()[-300:]}")
    ended, peak = map(float, done.stdout.split()[-2:])
    return ended - began, peak


def measure_training(workers: Mapping[str, Any], batches: Sequence[list[list[str]]], count: int) -> Iterator[Row]:
    """Train on the same batches; every round continues where the one before stopped.

    First every engine takes a few steps on one batch without dropout, from the same weights: the losses must agree, and
    fall. Then the rounds begin, with dropout as in real training, each engine with its own masks.
    """
    loaded = _asked(workers, worker.load_trainer)
    checked = [batches[0]] * CHECKED_STEPS
    losses = {name: [step.loss for step in one.ask(worker.steps, checked, 0.0)] for name, one in workers.items()}
    places = {name: iter(range(count)) for name in workers}  # of each engine's next round

    def take(name: str) -> Any:
        first = ROUND_STEPS * next(places[name])
        chosen = [batches[(first + i) % len(batches)] for i in range(ROUND_STEPS)]
        return workers[name].ask(worker.steps, chosen, DROPOUT)

    found = in_rounds(workers, count, take)
    what = f"a training step of {len(batches[0][0])} pairs, ms"
    for name, of_it in ((what, slice(1, 4)), ("  forward", 1), ("  backward", 2), ("  optimizer", 3)):
        figures = {
            engine: [1000 * median(float(np.sum(step[of_it])) for step in steps) for steps in rounds]
            for engine, rounds in found.items()
        }
        yield Row(name, figures)
    yield Row("  peak memory, MiB", _asked(workers, worker.peak_mib))
    yield Row("  of it before the first step", loaded)
    yield Row(f"  loss after {CHECKED_STEPS - 1} steps, no dropout", {n: [one[-1]] for n, one in losses.items()}, False)
    yield Row(f"  largest difference of {CHECKED_STEPS} losses", differences(losses), ratios=False)
