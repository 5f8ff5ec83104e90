"""The measurements: rounds in which every engine does the same work in turn.

Another engine begins each round, so that a machine that slows down for a while slows all of them; ratios are taken
within a round, and their median over rounds counts. Batch sizes that the others need are tried beforehand, and each
gets its best one. A :class:`Row` is one line of the table; the parts yield them one after the other.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from minisbert.bench.engines import ENGINES, Setting
from minisbert.bench.trainers import TRAINERS
from minisbert.bench.worker import Worker, WorkerError, environment
from minisbert.encoder import SentenceEncoder
from minisbert.model import Array
from minisbert.parallel import libraries, read_processor
from minisbert.proof.profile import count_costs

PARTS = ("throughput", "lengths", "single", "cold", "training")
LENGTHS = {8: 512, 32: 256, 128: 96, 256: 48}
"""Tokens per text, and how many such texts are embedded: about a second's work each."""
SINGLE_TEXTS = 100
BATCH_PAIRS, ROUND_STEPS, CHECKED_STEPS, DROPOUT = 32, 8, 5, 0.1
"""Of training: pairs of a batch, steps of a round, steps without dropout whose losses are compared, rate of dropout."""
LIBRARIES = ("minisbert", "numpy", "tokenizers", "torch", "transformers", "sentence-transformers", "onnxruntime")
OURS = "minisbert"


@dataclass(frozen=True)
class Row:
    """What was measured: a figure a round, for each engine; ``ratios`` of ours to the others' say something."""

    what: str
    rounds: dict[str, list[float]]
    ratios: bool = True


def choose_engines(asked_for: Sequence[str]) -> tuple[str, ...]:
    """Choose engines: those asked for, or all but the deterministic one; ValueError for one that is not installed.

    >>> choose_engines(["minisbert"])
    ('minisbert',)
    """
    chosen = tuple(asked_for) or tuple(name for name in ENGINES if name != "minisbert-deterministic")
    absent = {name: [module for module in ENGINES[name].needs if find_spec(module) is None] for name in chosen}
    if any(absent.values()):
        what = "; ".join(f"{name} needs {', '.join(modules)}" for name, modules in absent.items() if modules)
        raise ValueError(
            f"bench: not installed: {what}. Install the peers: `pip install torch==2.13.0` (a plain torch may bring "
            "gigabytes of CUDA), then `pip install -e '.[bench]'`; or measure only ours with --engine minisbert"
        )
    return chosen


def choose_parts(asked_for: Sequence[str], engines: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    """Choose parts: those asked for, or all that these engines and texts allow; ValueError if training is impossible.

    >>> choose_parts((), ("minisbert",), ["one text alone"])
    ('throughput', 'lengths', 'single', 'cold')
    """
    obstacle = ""
    if not any(name in TRAINERS for name in engines):
        obstacle = f"{', '.join(engines)} cannot train; of the engines {', '.join(TRAINERS)} can"
    elif not make_batches(texts):
        obstacle = "training takes two pairs of four different texts at least, the first two lines, then the next two"
    if obstacle and "training" in asked_for:
        raise ValueError(f"bench: {obstacle}; leave out --part training")
    return tuple(part for part in asked_for or PARTS if part != "training" or not obstacle)


# ------------------------------------------------------------------------------------------------ the texts


def make_texts(encoder: SentenceEncoder, lengths: Sequence[int] | Array, rng: np.random.Generator) -> list[str]:
    """Make texts of random words with these numbers of tokens, special ones included: what they say takes no time.

    >>> encoder = SentenceEncoder()
    >>> encoder.tokenize(make_texts(encoder, [8, 32], np.random.default_rng(0))).lengths
    array([ 8, 32])
    """
    tokenizer = encoder.model.tokenizer
    words = sorted(word for word in tokenizer.library.get_vocab() if word.isascii() and word.isalpha())
    if tokenizer.lower_case or not any(word.isupper() for word in words):
        words = [word for word in words if word.islower()]
    if not words or min(lengths, default=9) <= tokenizer.special_count:
        raise ValueError(f"make_texts: expected words in the vocabulary and more than {tokenizer.special_count} tokens")
    drawn = np.array(words)  # once: choice would make an array of a list for every text
    return [" ".join(rng.choice(drawn, int(length) - tokenizer.special_count)) for length in lengths]


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


def in_rounds(engines: Sequence[Any], rounds: int, measure: Callable[[Any], Any]) -> dict[str, list[Any]]:
    """Measure every engine (a worker, or a name) in every round; another one begins each time.

    >>> in_rounds(["a", "b"], 2, lambda name: print(name, end=" "))
    a b b a {'a': [None, None], 'b': [None, None]}
    """
    found: dict[str, list[Any]] = {getattr(engine, "name", engine): [] for engine in engines}
    for number in range(rounds):
        first = number % max(1, len(engines))
        for engine in [*engines[first:], *engines[:first]]:
            found[getattr(engine, "name", engine)].append(measure(engine))
    return found


def differences(found: dict[str, Any]) -> dict[str, list[float]]:
    """Largest absolute difference of each engine's numbers from ours: if results differed, no figure had a meaning."""
    reference = np.asarray(found.get(OURS, next(iter(found.values()))))
    return {name: [float(np.abs(np.asarray(values) - reference).max())] for name, values in found.items()}


def peaks(workers: Sequence[Worker]) -> dict[str, list[float]]:
    """Peak memory of each worker so far; none where the system does not report it."""
    told = {worker.name: worker.ask("peak_mib") for worker in workers}
    return {name: [peak] for name, peak in told.items() if peak is not None}


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

    The encoder counts tokens and makes texts; what is timed runs in other processes. ``folder`` is for the graph and
    messages, and may be deleted afterwards.
    """
    setting = Setting(encoder.folder, folder / "model.onnx", num_threads)
    if "onnxruntime" in engines:  # exported in another process, to keep PyTorch out of this one
        code = (
            "import sys; from pathlib import Path; from minisbert.bench.engines import export_graph; "
            "export_graph(Path(sys.argv[1]), Path(sys.argv[2]))"
        )
        command = [sys.executable, "-W", "ignore", "-c", code, str(setting.folder), str(setting.graph)]
        done = subprocess.run(command, capture_output=True, env=environment(), check=False)
        if done.returncode:
            raise ValueError(f"bench: the export to ONNX failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    with ExitStack() as stack:
        warm = [] if not {"throughput", "lengths", "single"} & {*parts} else list(engines)
        workers = [stack.enter_context(Worker(name, setting, folder / f"{name}.txt")) for name in warm]
        if "throughput" in parts:
            yield from _throughput(workers, encoder, "many texts", texts, rounds)
            yield Row("  peak memory of that, MiB", peaks(workers))
            some = texts[:SINGLE_TEXTS]
            vectors = differences({worker.name: worker.ask("embed", texts=some) for worker in workers})
            yield Row("  largest difference of a number", vectors, ratios=False)
        if "lengths" in parts:
            rng = np.random.default_rng(0)
            for length in (length for length in LENGTHS if length <= encoder.max_seq_length):
                made = make_texts(encoder, [length] * LENGTHS[length], rng)
                yield from _throughput(workers, encoder, f"texts of {length} tokens", made, rounds)
        if "single" in parts:
            each = in_rounds(workers, rounds, lambda worker: worker.ask("seconds_each", texts=texts[:SINGLE_TEXTS]))
            yield Row("one text at a time, ms", _scaled(each, lambda seconds: 1000 * median(seconds)))
    if "cold" in parts:
        in_rounds(engines, 1, lambda name: run_cold(name, setting))  # reads files that are not cached yet
        cold = in_rounds(engines, rounds, lambda name: run_cold(name, setting))
        yield Row("process start to first vector, s", _scaled(cold, lambda found: found[0]))
        yield Row("  peak memory of that, MiB", _scaled(cold, lambda found: found[1]))
    if "training" in parts:
        batches = make_batches(texts)
        with ExitStack() as stack:
            workers = [
                stack.enter_context(Worker(name, setting, folder / f"{name}-train.txt", "train"))
                for name in engines
                if name in TRAINERS
            ]
            yield from measure_training(workers, batches, rounds)


def _scaled(found: dict[str, list[Any]], figure: Callable[[Any], float]) -> dict[str, list[float]]:
    return {name: [figure(one) for one in rounds] for name, rounds in found.items()}


def _throughput(
    workers: Sequence[Any], encoder: SentenceEncoder, what: str, texts: list[str], rounds: int
) -> Iterator[Row]:
    """Embed a list of texts; for ours also the share of what one matrix product reaches in the same process."""
    best: dict[str, int | None] = {}
    for worker in workers:
        worker.ask("seconds", texts=texts[:64])  # warms up
        sizes = ENGINES[worker.name].batch_sizes
        tried = {size: worker.ask("seconds", texts=texts, batch_size=size) for size in sizes if len(sizes) > 1}
        best[worker.name] = min(tried, key=tried.__getitem__, default=None)
    found = in_rounds(workers, rounds, lambda worker: worker.ask("seconds", texts=texts, batch_size=best[worker.name]))
    yield Row(f"{what}, texts/s", _scaled(found, lambda seconds: len(texts) / seconds))
    for ours in (worker for worker in workers if worker.name == OURS):
        lengths = encoder.tokenize(texts, overflow="truncate").lengths
        costs = count_costs(lengths, encoder.model.config, encoder.model.modules)
        gflop = sum(cost.flop for cost in costs.values()) / 1e9
        shares = [100 * gflop / seconds / ours.ask("sgemm") for seconds in found[OURS]]
        yield Row("  of one matrix product's speed, %", {OURS: shares})


def run_cold(name: str, setting: Setting) -> tuple[float, float]:
    """Embed one text in a new process: seconds until its last line is done (not the exit), and peak MiB."""
    script = ENGINES[name].cold_start.format(folder=setting.folder.as_posix(), graph=setting.graph.as_posix())
    tail = "import sys; from minisbert.bench.worker import peak_mib; sys.stdout.write(str(peak_mib() or 'nan'))"
    code = f"{script}\nimport sys; sys.stdout.write('done\\n'); sys.stdout.flush()\n{tail}"
    command = [sys.executable, "-W", "ignore", "-c", code]
    began, pipe = time.perf_counter(), subprocess.PIPE
    # unbuffered: what readline() had read ahead would be lost to communicate()
    with subprocess.Popen(command, bufsize=0, stdout=pipe, stderr=pipe, env=environment()) as process:
        first = process.stdout.readline() if process.stdout else b""
        took = time.perf_counter() - began
        rest, said = process.communicate()
    if first != b"done\n" or process.returncode:
        raise WorkerError(f"{name}: the cold start failed: {said.decode(errors='replace').strip()[-300:]}")
    return took, float(rest)


def measure_training(workers: Sequence[Any], batches: Sequence[list[list[str]]], count: int) -> Iterator[Row]:
    """Train on the same batches; every round continues where the one before stopped.

    First every engine takes a few steps on one batch without dropout, from the same weights: the losses must agree, and
    fall. Then the rounds begin, with dropout as in real training, each engine with its own masks.
    """
    loaded = peaks(workers)
    checked = {
        worker.name: worker.ask("steps", batches=[batches[0]] * CHECKED_STEPS, dropout=0.0) for worker in workers
    }
    losses = {name: [step[0] for step in steps] for name, steps in checked.items()}
    asked = {worker.name: 0 for worker in workers}

    def take(worker: Any) -> Any:
        first = asked[worker.name]
        asked[worker.name] += ROUND_STEPS
        chosen = [batches[(first + i) % len(batches)] for i in range(ROUND_STEPS)]
        return worker.ask("steps", batches=chosen, dropout=DROPOUT)

    found = in_rounds(workers, count, take)
    what = f"a training step of {len(batches[0][0])} pairs, ms"
    for name, of_it in ((what, slice(1, 4)), ("  forward", 1), ("  backward", 2), ("  optimizer", 3)):
        figures = {
            engine: [1000 * median(float(np.sum(step[of_it])) for step in steps) for steps in rounds]
            for engine, rounds in found.items()
        }
        yield Row(name, figures)
    yield Row("  peak memory, MiB", peaks(workers))
    yield Row("  of it before the first step", loaded)
    yield Row(f"  loss after {CHECKED_STEPS - 1} steps, no dropout", {n: [one[-1]] for n, one in losses.items()}, False)
    yield Row(f"  largest difference of {CHECKED_STEPS} losses", differences(losses), ratios=False)


def describe(encoder: SentenceEncoder, texts: list[str], source: str, rounds: int, num_threads: int) -> dict[str, Any]:
    """What was measured, on what, with which versions."""
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    kernels = [
        [str(one[key]) for key in ("internal_api", "version", "architecture") if one.get(key)] for one in libraries()
    ]
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": encoder.folder.name,
        "texts": len(texts),
        "source": source,
        "tokens": int(encoder.tokenize(texts, overflow="truncate").lengths.sum()),
        "rounds": rounds,
        "num_threads": num_threads,
        "processor": read_processor().name or platform.processor(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "blas": [" ".join(kernel) for kernel in kernels],  # such as 'openblas 0.3.31 Haswell'
    }
