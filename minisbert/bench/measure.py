"""The measurements: rounds in which every engine does the same work in turn.

In each round every engine has its turn, and the order rotates, so that a machine that slows down for a while slows all
of them; ratios are taken within a round, and their median over rounds counts. Batch sizes that the others need are
tried beforehand, and each gets its best one. Results are plain JSON.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np

from minisbert.bench.engines import ENGINES, Setting
from minisbert.bench.worker import Worker, WorkerError, environment

Result = dict[str, Any]
Turn = TypeVar("Turn")
OURS = "minisbert"


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int
    num_threads: int
    tick: Callable[[str], None]  # called with what was done, for the progress bar


def turns(workers: Sequence[Turn], number: int) -> list[Turn]:
    """The order of one round, counted from 0: another worker begins each time.

    >>> turns("abc", 1)
    ['b', 'c', 'a']
    """
    first = number % max(1, len(workers))
    return [*workers[first:], *workers[:first]]


def measure_throughput(workers: Sequence[Worker], name: str, texts: list[str], gflop: float, plan: Plan) -> Result:
    """Embed a list of texts on every engine, round after round; ``gflop`` is the work of one pass.

    Returns ``texts``, ``gflop``; ``batch_size`` and ``seconds`` (one per round) of each engine, and what was ``tried``;
    ``ceilings``, GFLOP/s per round, if our encoder takes part.
    """
    tried: dict[str, dict[str, float]] = {}
    for worker in workers:
        worker.ask("take", name=name, texts=texts)
        sizes = ENGINES[worker.name].batch_sizes
        if len(sizes) > 1:
            tried[worker.name] = {str(size): worker.ask("time", name=name, batch_size=size) for size in sizes}
        plan.tick(f"{name}: batch sizes of {worker.name}")
    best = {worker: min(sizes, key=sizes.__getitem__) for worker, sizes in tried.items()}
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    ceilings: dict[str, list[float]] = {}
    for number in range(plan.rounds):
        for worker in turns(workers, number):
            size = int(best[worker.name]) if worker.name in best else None
            seconds[worker.name].append(worker.ask("time", name=name, batch_size=size))
        for worker in workers:
            if worker.name == OURS:
                for kind, reached in worker.ask("ceilings", num_threads=plan.num_threads).items():
                    ceilings.setdefault(kind, []).append(reached)
        plan.tick(f"{name}: round {number + 1}")
    return {
        "texts": len(texts),
        "gflop": gflop,
        "batch_size": {worker.name: best.get(worker.name) for worker in workers},
        "tried": tried,
        "seconds": seconds,
        "ceilings": ceilings,
    }


def measure_differences(workers: Sequence[Worker], name: str, folder: Path) -> dict[str, float]:
    """Largest absolute difference of each engine's vectors from ours.

    If results differed, the benchmark would be meaningless.
    """
    vectors = {}
    for i, worker in enumerate(workers):
        worker.ask("save", name=name, file=str(folder / f"{i}.npy"))
        vectors[worker.name] = np.load(folder / f"{i}.npy")
    reference = vectors.get(OURS, next(iter(vectors.values())))
    return {worker: float(np.abs(found - reference).max()) for worker, found in vectors.items()}


def measure_latency(workers: Sequence[Worker], texts: list[str], plan: Plan) -> Result:
    """Embed one text at a time: for each engine ``milliseconds``, the median text of each round.

    >>> measure_latency([], [], Plan(1, 2, print))
    one text at a time: round 1
    {'texts': 0, 'milliseconds': {}}
    """
    milliseconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for worker in workers:
        worker.ask("take", name="one by one", texts=texts)
    for number in range(plan.rounds):
        for worker in turns(workers, number):
            milliseconds[worker.name].append(1000 * median(worker.ask("time_each", name="one by one")))
        plan.tick(f"one text at a time: round {number + 1}")
    return {"texts": len(texts), "milliseconds": milliseconds}


def measure_cold_start(names: Sequence[str], setting: Setting, plan: Plan) -> Result:
    """Start processes that embed one text: for each engine and round ``seconds`` up to its vector, and ``peak_mib``."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, list[float | None]] = {name: [] for name in names}
    for number in range(-1, plan.rounds):  # one extra: the first reads files that are not cached yet
        for name in names:
            script = ENGINES[name].cold_start.format(folder=setting.folder.as_posix(), graph=setting.graph.as_posix())
            took, peak = run_cold(name, script)
            if number >= 0:
                seconds[name].append(took)
                peaks[name].append(peak)
        plan.tick(f"cold start: round {number + 1}")
    return {"seconds": seconds, "peak_mib": peaks}


def run_cold(name: str, script: str) -> tuple[float, float | None]:
    """Run a script in a new process: seconds until its last line is done (not the exit), and peak MiB."""
    tail = "\nimport sys; from minisbert.bench.worker import peak_mib; sys.stdout.write(str(peak_mib()))"
    marked = f"{script}\nimport sys; sys.stdout.write('done\\n'); sys.stdout.flush(){tail}"
    began = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", marked]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(name)) as process:
        first = process.stdout.readline() if process.stdout else b""
        took = time.perf_counter() - began
        rest, said = process.communicate()
    if first != b"done\n" or process.returncode:
        raise WorkerError(f"{name}: the cold start failed: {said.decode(errors='replace').strip()[-300:]}")
    return took, None if rest == b"None" else float(rest)


def measure_growth(setting: Setting, texts: list[str], counts: Sequence[int], folder: Path, plan: Plan) -> Result:
    """Embed more and more texts with our encoder, each count in a fresh process: ``seconds``, ``peak_mib``."""
    grown: Result = {str(count): {"seconds": [], "peak_mib": None} for count in counts}
    with ExitStack() as stack:
        workers = {
            count: stack.enter_context(Worker(OURS, setting, folder / f"growth-{count}.txt")) for count in counts
        }
        for worker in workers.values():
            worker.ask("take", name="growth", texts=texts)
        # before and after the largest, which takes longest, so that a slow phase hits both
        for number in range(2):
            for count, worker in workers.items():
                if number == 0 or count < max(counts):
                    grown[str(count)]["seconds"].append(worker.ask("time_repeated", name="growth", count=count))
                    grown[str(count)]["peak_mib"] = worker.ask("peak_mib")
                    plan.tick(f"growth: {count:,} texts")
    return grown
