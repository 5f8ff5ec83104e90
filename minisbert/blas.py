"""The library under NumPy that multiplies matrices: which kernel it runs, and on how many threads.

NumPy leaves ``x @ w`` to a BLAS, nearly always OpenBLAS, and that is where most of the time goes. OpenBLAS holds one
kernel per kind of processor and chooses when NumPy is first imported. A processor that is newer than the library may
get a kernel of half the speed. ``OPENBLAS_CORETYPE`` in the environment overrules the choice. This package never sets
it behind a caller's back; the command line does, before NumPy is there, and :func:`slower_than_possible` says what to
set. NumPy is not imported here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# The instructions that each step needs, and the kernel of OpenBLAS that uses them.
_STEPS = (
    (frozenset({"avx"}), "Sandybridge"),
    (frozenset({"avx2", "fma"}), "Haswell"),
    (frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}), "SkylakeX"),
)
_STEP_OF_KERNEL = {
    **dict.fromkeys(("sandybridge", "bulldozer", "piledriver", "steamroller"), 1),
    **dict.fromkeys(("haswell", "zen", "excavator"), 2),
    **dict.fromkeys(("skylakex", "cooperlake", "sapphirerapids"), 3),
    **dict.fromkeys(("prescott", "core2", "penryn", "dunnington", "nehalem", "barcelona", "atom"), 0),
}


@dataclass(frozen=True)
class Processor:
    """What Linux says about the processor; nothing where it cannot be asked."""

    vendor: str = ""  # AuthenticAMD, GenuineIntel
    flags: frozenset[str] = frozenset()
    name: str = ""

    @property
    def best_kernel(self) -> str | None:
        """The fastest of OpenBLAS's kernels that this processor runs; None where that is not known."""
        able = [kernel for needs, kernel in _STEPS if needs <= self.flags]
        return able[-1] if able else None


def read_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """Ask Linux for the processor's vendor and instructions; other systems have no such file."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as stream:
            said: dict[str, str] = {}
            for line in stream:
                key, _, value = line.partition(":")
                if not key.strip():
                    break  # the other processors are alike
                said[key.strip()] = value.strip()
    except OSError:
        return Processor()
    return Processor(said.get("vendor_id", ""), frozenset(said.get("flags", "").split()), said.get("model name", ""))


def environment_for(processor: Processor, environment: Mapping[str, str]) -> dict[str, str]:
    """Say what to put into the environment, before NumPy is imported, for OpenBLAS to choose the right kernel.

    Nothing, unless OpenBLAS is known to choose wrongly: on AMD's processors with AVX-512 it has taken the AVX2 kernel.
    What is set already wins.

    >>> zen5 = Processor("AuthenticAMD", frozenset("avx avx2 fma avx512f avx512cd avx512bw avx512dq avx512vl".split()))
    >>> environment_for(zen5, {})
    {'OPENBLAS_CORETYPE': 'SkylakeX'}
    """
    unset = "OPENBLAS_CORETYPE" not in environment
    if unset and processor.vendor == "AuthenticAMD" and processor.best_kernel == "SkylakeX":
        return {"OPENBLAS_CORETYPE": "SkylakeX"}
    return {}


def slower_than_possible(kernel: str | None, processor: Processor, environment: Mapping[str, str]) -> str | None:
    """Say whether OpenBLAS runs a slower kernel than the processor offers, and what to do; None where all is well.

    >>> haswell = Processor("GenuineIntel", frozenset({"avx", "avx2", "fma"}))
    >>> print(slower_than_possible("Nehalem", haswell, {}))
    OpenBLAS runs its Nehalem kernel, but this processor can run Haswell's, which is faster: set ...
    """
    best = processor.best_kernel
    step = _STEP_OF_KERNEL.get((kernel or "").lower())
    if best is None or step is None or step >= _STEP_OF_KERNEL[best.lower()]:
        return None
    found = f"OpenBLAS runs its {kernel} kernel, but this processor can run {best}'s, which is faster"
    if said := environment.get("OPENBLAS_CORETYPE"):
        return f"{found}: the environment says OPENBLAS_CORETYPE={said}; unset it, or set it to {best}"
    return f"{found}: set OPENBLAS_CORETYPE={best} in the environment before NumPy is first imported"


@cache
def _controller() -> Any:
    """Find the loaded libraries once: it takes a millisecond, and NumPy's BLAS stays the one that it is."""
    before = os.environ.get("KMP_DUPLICATE_LIB_OK")
    from threadpoolctl import ThreadpoolController

    if before is None:  # threadpoolctl sets it when it is imported; the environment is the caller's
        os.environ.pop("KMP_DUPLICATE_LIB_OK", None)
    return ThreadpoolController().select(user_api="blas")


class SlowKernelWarning(UserWarning):
    """OpenBLAS runs a slower kernel than the processor offers."""


@cache
def advice() -> str | None:
    """Say what to set for faster matrix products in this process, if anything."""
    processor = read_processor()
    found = (slower_than_possible(library.get("architecture"), processor, os.environ) for library in libraries())
    return next((sentence for sentence in found if sentence), None)


def libraries() -> list[dict[str, Any]]:
    """Describe the BLAS libraries of this process as threadpoolctl does: ``internal_api`` (openblas, mkl, ..),
    ``version``, ``architecture`` (the kernel), ``num_threads``. Empty where it knows none, as Accelerate on macOS.
    """
    described: list[dict[str, Any]] = _controller().info()
    return described


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
            self._set([min(self._wishes)] * len(self._before))
        try:
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
