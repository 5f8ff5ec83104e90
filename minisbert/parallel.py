"""Work on every core: which kernel and how many threads BLAS has, which texts share a batch, which thread takes it.

NumPy leaves ``x @ w`` to a BLAS, nearly always OpenBLAS, and that is where most of the time goes. OpenBLAS holds one
kernel per kind of processor and chooses when NumPy is first imported; one that is older than the processor may choose a
kernel of half the speed, and ``OPENBLAS_CORETYPE`` in the environment overrules it. This package never sets that behind
a caller's back; the command line does, before NumPy is there. So NumPy is not imported at the top of this file.

Texts are sorted by length and packed into batches under a token budget, so that neighbours have equal lengths and a
layer's tensors stay near the processor's cache. Each batch is one job for one thread: that beats many threads inside
one matrix product, because LayerNorm, GELU and softmax then run on every core too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from minisbert.model import Array

_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what OpenBLAS's SkylakeX kernel needs
_SLOWER = (
    "prescott core2 penryn dunnington nehalem barcelona atom sandybridge bulldozer piledriver steamroller haswell zen "
    "excavator"
)
"""OpenBLAS's kernels for older processors."""


@dataclass(frozen=True)
class Processor:
    """What Linux says about the processor; nothing where it cannot be asked."""

    vendor: str = ""  # AuthenticAMD, GenuineIntel
    flags: frozenset[str] = frozenset()
    name: str = ""

    @property
    def has_avx512(self) -> bool:
        """Whether it runs OpenBLAS's SkylakeX kernel, the fastest."""
        return self.flags >= _AVX512


def read_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """Ask Linux for the processor's vendor and instructions; other systems have no such file."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as stream:
            lines = list(takewhile(str.strip, stream))  # the other processors are alike
    except OSError:
        return Processor()
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return Processor(said.get("vendor_id", ""), frozenset(said.get("flags", "").split()), said.get("model name", ""))


def environment_for(processor: Processor, environment: Mapping[str, str]) -> dict[str, str]:
    """Say what to put into the environment, before NumPy is imported, for OpenBLAS to choose the right kernel.

    Nothing, unless OpenBLAS is known to choose wrongly: on AMD's processors with AVX-512 it has taken the AVX2 kernel.
    What is set already wins.

    >>> zen5 = Processor("AuthenticAMD", frozenset("avx avx2 fma avx512f avx512cd avx512bw avx512dq avx512vl".split()))
    >>> environment_for(zen5, {})
    {'OPENBLAS_CORETYPE': 'SkylakeX'}
    """
    wrong = processor.vendor == "AuthenticAMD" and processor.has_avx512
    return {"OPENBLAS_CORETYPE": "SkylakeX"} if wrong and "OPENBLAS_CORETYPE" not in environment else {}


def slower_than_possible(kernel: str | None, processor: Processor, environment: Mapping[str, str]) -> str | None:
    """Say what to do where a processor with AVX-512 is given an older one's kernel; None where all is well.

    >>> skylake = Processor("GenuineIntel", frozenset("avx512f avx512cd avx512bw avx512dq avx512vl".split()))
    >>> print(slower_than_possible("Haswell", skylake, {}))
    OpenBLAS runs its Haswell kernel, but this processor can run SkylakeX's, which is faster: set ...
    """
    if not processor.has_avx512 or (kernel or "").lower() not in _SLOWER.split():
        return None
    found = f"OpenBLAS runs its {kernel} kernel, but this processor can run SkylakeX's, which is faster"
    if said := environment.get("OPENBLAS_CORETYPE"):
        return f"{found}: the environment says OPENBLAS_CORETYPE={said}; unset it, or set it to SkylakeX"
    return f"{found}: set OPENBLAS_CORETYPE=SkylakeX in the environment before NumPy is first imported"


class SlowKernelWarning(UserWarning):
    """OpenBLAS runs a slower kernel than the processor offers."""


@cache
def advice() -> str | None:
    """Say what to set for faster matrix products in this process, if anything."""
    processor = read_processor()
    found = (slower_than_possible(library.get("architecture"), processor, os.environ) for library in libraries())
    return next((sentence for sentence in found if sentence), None)


# -------------------------------------------------------------------------------------------------------------- threads


@cache
def _controller() -> Any:
    """Find the loaded libraries once: it takes a millisecond, and NumPy's BLAS stays the one that it is."""
    before = os.environ.get("KMP_DUPLICATE_LIB_OK")
    from threadpoolctl import ThreadpoolController

    if before is None:  # threadpoolctl sets it when it is imported; the environment is the caller's
        os.environ.pop("KMP_DUPLICATE_LIB_OK", None)
    return ThreadpoolController().select(user_api="blas")


def libraries() -> list[dict[str, Any]]:
    """Describe the BLAS libraries of this process as threadpoolctl does: ``internal_api`` (openblas, mkl, ..),
    ``version``, ``architecture`` (the kernel), ``num_threads``. Empty where it knows none, as Accelerate on macOS.
    """
    return _controller().info()


@cache
def threads_start() -> bool:
    """Whether a second thread can start: not in WebAssembly."""
    try:
        thread = threading.Thread(target=int)
        thread.start()
    except RuntimeError:  # can't start new thread
        return False
    thread.join()
    return True


def usable_processors() -> int:
    """Count the processors that this process may run on, which may be fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Threads:
    """The process's one number of BLAS threads: lent to whoever computes, given back after the last.

    Calls to ``encode`` may overlap in time. Each says how many threads BLAS should have meanwhile, the smallest number
    holds, and when the last has ended the caller's setting is back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wishes: list[int] = []
        self._before: list[int] = []

    def usable(self) -> int:
        """Count the threads that may compute: one a processor, and no more than BLAS has been told to use."""
        with self._lock:
            # OPENBLAS_NUM_THREADS=1, or a caller's own threadpool_limits, is a wish to stay on one
            allowed = self._before or [library["num_threads"] for library in libraries()]
        return max(1, min([usable_processors(), *allowed]))

    @contextmanager
    def hold(self, num_threads: int) -> Iterator[None]:
        """Run BLAS on so many threads inside, or fewer if another call that is running asked for fewer."""
        with self._lock:
            if not self._wishes:
                self._before = [library["num_threads"] for library in libraries()]
            self._wishes.append(num_threads)
        try:
            with self._lock:
                self._set([min(self._wishes)] * len(self._before))
            yield
        finally:
            with self._lock:
                self._wishes.remove(num_threads)
                self._set([min(self._wishes)] * len(self._before) if self._wishes else self._before)
                if not self._wishes:
                    self._before = []

    def _set(self, numbers: list[int]) -> None:
        """Tell each library its number."""
        for library, number in zip(_controller().lib_controllers, numbers, strict=True):
            # since 3.8 threadpoolctl obeys only the first thread that asks, so that threads do not quarrel; ours do
            # not, and whoever leaves last must be able to restore what was there
            getattr(library, "_real_set_num_threads", library.set_num_threads)(number)


threads = _Threads()
"""``with threads.hold(1): ...``; ``threads.usable()``. It is one object because BLAS's setting is one, too."""


# -------------------------------------------------------------------------------------------------------------- batches

BATCH_TOKENS = 512
"""Tokens in a batch: enough to keep a matrix product busy, few enough for the processor's cache."""
LEAST_TOKENS = 64
"""Tokens below which it does not pay to cut the work into more batches so that every thread has one."""
LAST_TOKENS = 256
"""Tokens of the last batches, which are small so that no thread waits long for another at the end."""

Result = TypeVar("Result")


def in_batches(
    lengths: Array,
    work: Callable[[Array], Iterable[Result]],
    batch_size: int | None = None,
    num_threads: int | None = None,
    deterministic: bool = False,
    done: Callable[[int], object] = lambda count: None,
) -> list[Result]:
    """Sort texts of these lengths (B,) into batches, do ``work(batch)`` on one a core, and put the results in order.

    ``work`` takes the indices of a batch's texts and gives a result for each. ``deterministic``: each text is a batch
    of its own, because what else is in a matrix product may move its last digit. ``done`` hears how many were done.
    """
    import numpy as np  # here, because OpenBLAS chooses its kernel at that moment

    # one text alone is left to BLAS's own threads, as many as the caller has set
    num_threads = num_threads or (threads.usable() if len(lengths) > 1 else None)
    if deterministic:
        batches = list(np.arange(len(lengths))[:, None])
        num_threads = num_threads if len(lengths) > 1 else 1
    else:
        batches = make_batches(lengths, batch_size, num_threads or 1)
    results: list[Any] = [None] * len(lengths)
    for batch, found in work_through(batches, work, num_threads):
        for i, result in zip(batch, found, strict=True):
            results[i] = result
        done(len(batch))
    return results


def make_batches(lengths: Array, batch_size: int | None = None, num_threads: int = 1) -> list[Array]:
    """Say which texts go together: longest first, near-equal lengths together, under a budget of tokens.

    Reimers & Gurevych 2019, section 7, smart batching. A batch is full with one thread's share of what is left
    (Polychronopoulos & Kuck 1987, guided self-scheduling), so that all threads end together: measured, 3 % of the time
    of 1,400 sentences on two.

    >>> import numpy as np
    >>> [batch.tolist() for batch in make_batches(np.array([3, 500, 4, 50]), num_threads=2)]
    [[1], [3, 2, 0]]
    """
    import numpy as np

    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])  # tokens up to each text, with it
    total = int(lengths.sum())
    least = max(LEAST_TOKENS, min(LAST_TOKENS, -(-total // num_threads)))
    batches = []
    start = done = 0
    while start < len(order):
        budget = min(BATCH_TOKENS, max(least, -(-(total - done) // num_threads)))
        filled = 1 + np.searchsorted(ends, done + budget)  # with the text that fills it,
        stop = max(start + 1, min(filled, np.searchsorted(ends, done + BATCH_TOKENS, side="right")))  # if it may
        stop = stop if batch_size is None else min(stop, start + batch_size)
        batches.append(order[start:stop])
        start, done = stop, int(ends[stop - 1])
    return batches


def work_through(
    jobs: Sequence[Array], work: Callable[[Array], Result], num_threads: int | None
) -> Iterator[tuple[Array, Result]]:
    """Do every job on ``num_threads`` threads, each with BLAS held to one; give each with its result once it is done.

    A job that is alone runs on the calling thread, with BLAS on so many threads, or on what the caller has set (None);
    and so do all where no thread can start.
    What ``work`` raises is raised here; jobs not yet begun are then dropped, and no thread is left behind.
    """
    keep_freed_memory()
    if num_threads is None or num_threads == 1 or len(jobs) < 2 or not threads_start():
        with threads.hold(num_threads) if num_threads else nullcontext():
            for job in jobs:
                yield job, work(job)
        return
    # imported when needed: one text alone, which should come quickly, does without
    from concurrent.futures import ThreadPoolExecutor, as_completed

    with threads.hold(1):
        pool = ThreadPoolExecutor(min(num_threads, len(jobs)), thread_name_prefix="minisbert")
        try:
            futures = {pool.submit(work, job): job for job in jobs}
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        finally:  # after an error, Ctrl-C, or a caller who wants no more
            pool.shutdown(cancel_futures=True)


def keep_freed_memory() -> None:
    """Let the C library keep what arrays give back, so that the next layer's need not be asked of the system.

    Every layer makes megabytes of arrays and frees them. glibc hands such blocks back to the system at once, which
    then clears new pages for the next layer: measured, a sixth of the time. It stops doing so for sizes of which it
    has seen one freed, up to 32 MB. Freeing one, never written to, takes microseconds and no memory.
    """
    import numpy as np

    np.empty(32 * 2**20 - 2**16, np.uint8)  # just under the largest size that glibc learns from
