"""A process that holds one engine and does what it is asked: a JSON object a line on stdin, an answer on stdout.

``python -m minisbert.bench.worker NAME TASK FOLDER GRAPH THREADS``. Every engine lives in a process of its own, so that
libraries do not fight over threads, memory can be told apart, and OpenBLAS's kernel can be chosen for each. An engine
embeds or trains, which are two tasks and two processes: what training holds is not to be counted with the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from minisbert.bench.engines import ENGINES, Encode, Setting
from minisbert.bench.trainers import TRAINERS, Train
from minisbert.blas import environment_for, libraries, read_processor


class WorkerError(ValueError):
    """A worker has died, or never came up."""


class Worker:
    """An engine in its own process, seen from outside.

    Parameters
    ----------
    name : str
        A key of :data:`~minisbert.bench.engines.ENGINES`.
    setting : Setting
    notes : Path
        A file for what the process says on stderr.
    task : {"embed", "train"}
    """

    def __init__(self, name: str, setting: Setting, notes: Path, task: str = "embed") -> None:
        self.name, self._notes = name, notes
        command = [sys.executable, "-m", "minisbert.bench.worker", name, task]
        with notes.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*command, str(setting.folder), str(setting.graph), str(setting.num_threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment(name),
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # it has nothing to lose
        self._process.communicate()

    def ask(self, what: str, **about: Any) -> Any:
        """Ask for something and wait for the answer.

        Parameters
        ----------
        what : str
            A key of :data:`ANSWERS` for the task.
        **about
            Its arguments, JSON.

        Returns
        -------
        Any
            JSON.

        Raises
        ------
        WorkerError
            If the process has died; with the last that it said.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerError(f"{self.name}: no pipes to the process")
        with contextlib.suppress(BrokenPipeError):  # told below
            self._process.stdin.write(json.dumps([what, about]).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            said = self._notes.read_text(errors="replace").strip().splitlines()[-3:]
            raise WorkerError(f"{self.name}: the process ended with {code}: {' / '.join(said)}")
        return json.loads(line)


def environment(name: str) -> dict[str, str]:
    """Give the environment in which an engine runs.

    Parameters
    ----------
    name : str

    Returns
    -------
    dict of str to str
        With OpenBLAS's better kernel, as the command line sets it, or without.

    Examples
    --------
    >>> environment("minisbert-own-kernel").get("OPENBLAS_CORETYPE") is None
    True
    """
    variables = {"TOKENIZERS_PARALLELISM": "true", **os.environ, "HF_HUB_OFFLINE": "1"}
    if ENGINES[name].same_kernel:
        return {**variables, **environment_for(read_processor(), variables)}
    variables.pop("OPENBLAS_CORETYPE", None)
    return variables


class Desk:
    """The engine, the texts that it was given, and one method per question."""

    def __init__(self, encode: Encode) -> None:
        self.encode = encode
        self.texts: dict[str, list[str]] = {}

    def take(self, name: str, texts: list[str]) -> None:
        """Keep a list of texts under a name, and warm up on some of them."""
        self.texts[name] = texts
        self.encode(texts[:64], None)

    def time(self, name: str, batch_size: int | None = None) -> float:
        """Embed all texts of a list; seconds."""
        began = time.perf_counter()
        self.encode(self.texts[name], batch_size)
        return time.perf_counter() - began

    def time_each(self, name: str) -> list[float]:
        """Embed the texts of a list one by one; seconds of each."""
        seconds = []
        for text in self.texts[name]:
            began = time.perf_counter()
            self.encode([text], 1)
            seconds.append(time.perf_counter() - began)
        return seconds

    def save(self, name: str, file: str) -> None:
        """Embed all texts of a list and save the vectors, so that engines can be compared."""
        np.save(file, self.encode(self.texts[name], None))

    def time_repeated(self, name: str, count: int) -> float:
        """Embed so many texts, those of a list over and over; seconds."""
        texts = self.texts[name]
        many = (texts * (count // len(texts) + 1))[:count]
        began = time.perf_counter()
        self.encode(many, None)
        return time.perf_counter() - began

    def ceilings(self, num_threads: int) -> dict[str, float]:
        """Measure what matrix products reach here: one on all threads, and one on each at the same time; GFLOP/s."""
        from concurrent.futures import ThreadPoolExecutor

        from minisbert.proof.profile import sgemm_ceiling

        with ThreadPoolExecutor(num_threads) as pool:
            each = sum(pool.map(lambda _: sgemm_ceiling(1), range(num_threads)))
        return {"one product": sgemm_ceiling(num_threads), "a product a thread": each}

    def kernel(self) -> list[str]:
        """Name the libraries that multiply here, with their kernels."""
        return kernels()

    def peak_mib(self) -> float | None:
        """Tell the most memory that this process has held so far; MiB."""
        return peak_mib()


class TrainingDesk:
    """The engine in training, and one method per question."""

    def __init__(self, train: Train) -> None:
        self.train = train

    def step(self, columns: list[list[str]], dropout: float) -> dict[str, float]:
        """Take one step: the fields of :class:`~minisbert.bench.trainers.StepTimes`."""
        return asdict(self.train(columns, dropout))

    def kernel(self) -> list[str]:
        """Name the libraries that multiply here, with their kernels."""
        return kernels()

    def peak_mib(self) -> float | None:
        """Tell the most memory that this process has held so far; MiB."""
        return peak_mib()


ANSWERS: dict[str, dict[str, Callable[..., Any]]] = {
    task: {name: method for name, method in vars(desk).items() if not name.startswith("_")}
    for task, desk in {"embed": Desk, "train": TrainingDesk}.items()
}
"""What a worker can be asked, by its task."""


def kernels() -> list[str]:
    """Name the libraries that multiply matrices in this process, with their kernels.

    Returns
    -------
    list of str

    Examples
    --------
    >>> kernels()  # doctest: +SKIP
    ['openblas 0.3.31 Haswell']
    """
    return [
        " ".join(str(library[key]) for key in ("internal_api", "version", "architecture") if library.get(key))
        for library in libraries()
    ]


def peak_mib() -> float | None:
    """Tell the peak resident memory of this process.

    Returns
    -------
    float or None
        MiB, mapped files included; None on systems that do not tell.

    Examples
    --------
    >>> peak_mib() is None or peak_mib() > 1
    True
    """
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


def serve(requests: Iterator[bytes], name: str, setting: Setting, task: str = "embed") -> Iterator[bytes]:
    """Load an engine, and answer one request after the other.

    Parameters
    ----------
    requests : iterator of bytes
        JSON lines, each a key of :data:`ANSWERS` for the task and its arguments.
    name : str
    setting : Setting
    task : {"embed", "train"}

    Yields
    ------
    bytes
        A JSON line.

    Examples
    --------
    >>> from minisbert import hub
    >>> requests = [b'["take", {"name": "a text", "texts": ["soup"]}]', b'["peak_mib", {}]']
    >>> answers = serve(iter(requests), "minisbert", Setting(hub.resolve().folder, Path(), 1))
    >>> [json.loads(answer) is None for answer in answers]
    [True, False]
    """
    desk = TrainingDesk(TRAINERS[name](setting)) if task == "train" else Desk(ENGINES[name].load(setting))
    for line in requests:
        what, about = json.loads(line)
        yield json.dumps(ANSWERS[task][what](desk, **about)).encode() + b"\n"


def main() -> None:
    """Serve on stdin and stdout; what a library prints goes to stderr instead.

    Examples
    --------
    >>> main()  # doctest: +SKIP
    """
    name, task, folder, graph, num_threads = sys.argv[1:]
    setting = Setting(Path(folder), Path(graph), int(num_threads))
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        for answer in serve(iter(sys.stdin.buffer.readline, b""), name, setting, task):
            answers.write(answer)
            answers.flush()


if __name__ == "__main__":
    main()
