"""A process that holds one engine, and what it may be asked for.

Every engine has its own process, so that libraries do not fight over threads and memory can be attributed. Embedding
and training are two processes: the memory of training is not to be counted with the other.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from minisbert.bench.engines import ENGINES, Setting, StepTimes
from minisbert.model import Array


class Worker:
    """An engine in its own process, seen from outside."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def ask(self, task: Callable[..., Any], *arguments: Any) -> Any:
        """Run ``task(setting, *arguments)`` there, and wait; ValueError with the engine's name if it fails."""
        try:
            return self._pool.submit(task, self.setting, *arguments).result()
        except Exception as error:  # whatever the libraries raise; a process that died is a BrokenProcessPool
            raise ValueError(f"bench: {self.setting.engine}: {type(error).__name__}: {error}") from error


def _begin() -> None:
    """No network; and what libraries print goes nowhere, since the table stands on stdout."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


@cache
def loaded(setting: Setting, part: str = "load") -> Any:
    """The engine of this process; or, with "train", its training step, whose weights move on from step to step."""
    return getattr(ENGINES[setting.engine], part)(setting)


def embed(setting: Setting, texts: list[str]) -> Array:
    """The vectors (B, D)."""
    vectors: Array = loaded(setting)(texts, None)
    return vectors


def seconds(setting: Setting, texts: list[str], batch_size: int | None = None) -> float:
    """How long it takes to embed texts.

    >>> from minisbert import hub
    >>> seconds(Setting("minisbert", hub.resolve().folder, Path(), 1, 256), ["soup"]) > 0
    True
    """
    return timed(loaded(setting), texts, batch_size)


def timed(work: Callable[..., object], *arguments: Any) -> float:
    """The seconds that a call takes."""
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def seconds_each(setting: Setting, texts: list[str]) -> list[float]:
    """How long each text takes alone."""
    return [seconds(setting, [text], 1) for text in texts]


def steps(setting: Setting, batches: Sequence[Sequence[list[str]]], dropout: float) -> list[StepTimes]:
    """Take a training step for each batch."""
    train = loaded(setting, "train")
    return [train(columns, dropout) for columns in batches]


def load_trainer(setting: Setting) -> float:
    """Load what trains, and give :func:`peak_mib` before the first step."""
    loaded(setting, "train")
    return peak_mib()


def sgemm(setting: Setting) -> float:
    """GFLOP/s of one matrix product on all threads."""
    from minisbert.proof.profile import sgemm_ceiling

    return sgemm_ceiling(setting.num_threads)


def peak_mib(_: Setting | None = None) -> float:
    """Peak resident memory of this process in MiB, mapped files included; NaN on systems that do not report it."""
    # Linux's ru_maxrss starts from what the parent held when it made this process; VmHWM does not
    status = Path("/proc/self/status")
    if status.exists():
        told = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(told[0]) / 1024 if told else float("nan")
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
