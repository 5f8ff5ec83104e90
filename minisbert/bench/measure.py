"""The measurements: rounds in which every engine does the same work, one after the other.

Nothing is measured alone. In each round every engine has its turn, and the order rotates, so that a machine that slows
down for a while slows all of them; ratios are taken within a round, and their median over the rounds is what counts.
Batch sizes that the peers need are tried beforehand, and each gets its best one. Results are plain JSON.
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
    tick: Callable[[str], None]  # told what is done, for the progress bar


def turns(workers: Sequence[Turn], number: int) -> list[Turn]:
    """Give the order of one round: somebody else begins each time.

    Parameters
    ----------
    workers : sequence
    number : int
        The round, from 0.

    Returns
    -------
    list

    Examples
    --------
    >>> turns("abc", 1)
    ['b', 'c', 'a']
    """
    first = number % max(1, len(workers))
    return [*workers[first:], *workers[:first]]


def measure_throughput(workers: Sequence[Worker], name: str, texts: list[str], gflop: float, plan: Plan) -> Result:
    """Embed a list of texts, again and again, on every engine.

    Parameters
    ----------
    workers : sequence of Worker
    name : str
        Of the list, for the workers.
    texts : list of str
    gflop : float
        Of one pass over the list.
    plan : Plan

    Returns
    -------
    dict
        ``texts``, ``gflop``; ``batch_size`` and ``seconds`` (a number a round) of each engine, and what was ``tried``;
        ``ceilings``, GFLOP/s a round, if ours is there.

    Examples
    --------
    >>> measure_throughput([], "none", [], 0.0, Plan(1, 2, print))["texts"]
    none: round 1
    0
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
    """Compare the vectors of all engines with ours: a benchmark of different results would mean nothing.

    Parameters
    ----------
    workers : sequence of Worker
    name : str
        A list that they have.
    folder : Path
        For the vectors.

    Returns
    -------
    dict
        The largest |difference| of a number of a vector, for each engine.

    Examples
    --------
    >>> import os, tempfile
    >>> from minisbert import hub
    >>> with Worker("minisbert", Setting(hub.resolve().folder, Path(), 1), Path(os.devnull)) as worker:
    ...     worker.ask("take", name="a text", texts=["soup"])
    ...     measure_differences([worker], "a text", Path(tempfile.mkdtemp()))
    {'minisbert': 0.0}
    """
    vectors = {}
    for i, worker in enumerate(workers):
        worker.ask("save", name=name, file=str(folder / f"{i}.npy"))
        vectors[worker.name] = np.load(folder / f"{i}.npy")
    reference = vectors.get(OURS, next(iter(vectors.values())))
    return {worker: float(np.abs(found - reference).max()) for worker, found in vectors.items()}


def measure_latency(workers: Sequence[Worker], texts: list[str], plan: Plan) -> Result:
    """Embed texts one at a time.

    Parameters
    ----------
    workers : sequence of Worker
    texts : list of str
    plan : Plan

    Returns
    -------
    dict
        ``texts`` and, for each engine, ``milliseconds``: the median text of each round.

    Examples
    --------
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
    """Start processes that embed one text, and time them up to its vector.

    Parameters
    ----------
    names : sequence of str
        Keys of :data:`~minisbert.bench.engines.ENGINES`.
    setting : Setting
    plan : Plan

    Returns
    -------
    dict
        For each engine, a number a round: ``seconds`` from the start of a process to its vector, and ``peak_mib``.

    Examples
    --------
    >>> measure_cold_start([], Setting(Path(), Path(), 1), Plan(0, 2, print))
    cold start: round 0
    {'seconds': {}, 'peak_mib': {}}
    """
    seconds: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, list[float | None]] = {name: [] for name in names}
    for number in range(-1, plan.rounds):  # one more: the first reads files that are in no cache yet
        for name in names:
            script = ENGINES[name].cold_start.format(folder=setting.folder.as_posix(), graph=setting.graph.as_posix())
            took, peak = run_cold(name, script)
            if number >= 0:
                seconds[name].append(took)
                peaks[name].append(peak)
        plan.tick(f"cold start: round {number + 1}")
    return {"seconds": seconds, "peak_mib": peaks}


def run_cold(name: str, script: str) -> tuple[float, float | None]:
    """Run a script in a new process: seconds until it is through, without the end of the process, and MiB at most.

    Parameters
    ----------
    name : str
        The engine, for its environment.
    script : str
        Python.

    Returns
    -------
    seconds : float
    peak_mib : float or None

    Raises
    ------
    WorkerError
        If the script fails.

    Examples
    --------
    >>> seconds, peak_mib = run_cold("minisbert", "import math")
    >>> seconds > 0.0
    True
    """
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
    """Embed more and more texts with our engine, each number of them in a process of its own.

    Parameters
    ----------
    setting : Setting
    texts : list of str
        Repeated as often as needed.
    counts : sequence of int
    folder : Path
        For what the processes say.
    plan : Plan

    Returns
    -------
    dict
        For each count ``seconds`` (a number a round; the largest is measured once) and ``peak_mib``.

    Examples
    --------
    >>> measure_growth(Setting(Path(), Path(), 1), [], [], Path(), Plan(1, 2, print))
    {}
    """
    grown: Result = {str(count): {"seconds": [], "peak_mib": None} for count in counts}
    with ExitStack() as stack:
        workers = {
            count: stack.enter_context(Worker(OURS, setting, folder / f"growth-{count}.txt")) for count in counts
        }
        for worker in workers.values():
            worker.ask("take", name="growth", texts=texts)
        # before and after the largest, which takes longest, so that a slow while hits both
        for number in range(2):
            for count, worker in workers.items():
                if number == 0 or count < max(counts):
                    grown[str(count)]["seconds"].append(worker.ask("time_repeated", name="growth", count=count))
                    grown[str(count)]["peak_mib"] = worker.ask("peak_mib")
                    plan.tick(f"growth: {count:,} texts")
    return grown
