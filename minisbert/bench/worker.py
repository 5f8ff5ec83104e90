"""A process that holds one engine and answers requests: a JSON object per line on stdin, an answer on stdout.

``python -m minisbert.bench.worker NAME TASK FOLDER GRAPH THREADS``. Every engine has its own process, so that libraries
do not fight over threads and memory can be attributed. Embedding and training are two tasks and two processes: the
memory of training is not to be counted with the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.bench.engines import ENGINES, Setting
from minisbert.bench.trainers import TRAINERS
from minisbert.parallel import environment_for, read_processor


class WorkerError(ValueError):
    """A worker has died, or never came up."""


class Worker:
    """An engine in its own process, seen from outside; ``notes`` is a file for its stderr."""

    def __init__(self, name: str, setting: Setting, notes: Path, task: str = "embed") -> None:
        self.name, self._notes = name, notes
        command = [sys.executable, "-m", "minisbert.bench.worker", name, task]
        command += [str(setting.folder), str(setting.graph), str(setting.num_threads)]
        with notes.open("wb") as stderr:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, env=environment())

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it has nothing to lose
        self._process.communicate()

    def ask(self, what: str, **about: Any) -> Any:
        """Send a request (a key of what :func:`answers` gives) and wait; WorkerError if the process has died."""
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise WorkerError(f"{self.name}: no pipes to the process")
        with contextlib.suppress(BrokenPipeError):  # reported below
            requests.write(json.dumps([what, about]).encode() + b"\n")
            requests.flush()
        line = answers.readline()
        if not line:
            code = self._process.wait()
            said = self._notes.read_text(errors="replace").strip().splitlines()[-3:]
            raise WorkerError(f"{self.name}: the process ended with {code}: {' / '.join(said)}")
        return json.loads(line)


def environment() -> dict[str, str]:
    """The environment of every engine: no network, and OpenBLAS's better kernel, as the command line sets it."""
    variables = {"TOKENIZERS_PARALLELISM": "true", **os.environ, "HF_HUB_OFFLINE": "1"}
    return {**variables, **environment_for(read_processor(), variables)}


def answers(name: str, setting: Setting, task: str = "embed") -> dict[str, Callable[..., Any]]:
    """Load an engine for a task, and give a function for each question.

    >>> from minisbert import hub
    >>> ask = answers("minisbert", Setting(hub.resolve().folder, Path(), 1))
    >>> len(ask["embed"](["soup"])[0]), ask["seconds"](["soup"]) > 0
    (384, True)
    """
    about: dict[str, Callable[..., Any]] = {"peak_mib": peak_mib}
    if task == "train":
        train = TRAINERS[name](setting)
        # of each step: loss, then seconds of forward, backward and optimizer
        return about | {"steps": lambda batches, dropout: [astuple(train(columns, dropout)) for columns in batches]}
    encode = ENGINES[name].load(setting)

    def seconds(texts: list[str], batch_size: int | None = None) -> float:
        began = time.perf_counter()
        encode(texts, batch_size)
        return time.perf_counter() - began

    def sgemm() -> float:
        """GFLOP/s of one matrix product on all threads."""
        from minisbert.proof.profile import sgemm_ceiling

        return sgemm_ceiling(setting.num_threads)

    return about | {
        "embed": lambda texts: np.asarray(encode(texts, None), np.float64).tolist(),
        "seconds": seconds,
        "seconds_each": lambda texts: [seconds([text], 1) for text in texts],
        "sgemm": sgemm,
    }


def peak_mib() -> float | None:
    """Peak resident memory of this process in MiB, mapped files included; None on systems that do not report it."""
    # Linux's ru_maxrss starts from what the parent held when it made this process; VmHWM does not
    status = Path("/proc/self/status")
    if status.exists():
        told = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(told[0]) / 1024 if told else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    """Serve on stdin and stdout; what a library prints goes to stderr instead."""
    name, task, folder, graph, num_threads = sys.argv[1:]
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)
        known = answers(name, Setting(Path(folder), Path(graph), int(num_threads)), task)
        for line in iter(sys.stdin.buffer.readline, b""):
            what, about = json.loads(line)
            stream.write(json.dumps(known[what](**about)).encode() + b"\n")
            stream.flush()


if __name__ == "__main__":
    main()
