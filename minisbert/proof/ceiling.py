"""How fast this machine could be: its matrix products and its memory, measured, for others to be held against.

No operation does arithmetic faster than the machine's best matrix product, and none whose numbers come from memory is
faster than memory brings them. Both ceilings are measured here and now, because they depend on the processor, on the
BLAS kernel that runs and on who else is at work. ``costs.py``, next, counts what the model asks of them.

**Source**: Williams, Waterman & Patterson 2009, the roofline model; McCalpin's STREAM for the way to count bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from minisbert.parallel import threads

# The product that widens half a batch in all-MiniLM-L6-v2: as large as the model's own, 0.6 GFLOP, some milliseconds.
_ROWS, _INNER, _COLUMNS = 512, 384, 1536
# Each of the two arrays of a copy: several times what a processor's last cache holds for one core.
_COPIED_BYTES = 2**26
_PATIENCE = 0.25
_LEAST_TIMES = 5


def sgemm_ceiling(num_threads: int = 1, dtype: npt.DTypeLike = "float32") -> float:
    """Measure the best speed of a matrix product of the model's size: ``(512, 384) @ (384, 1536)``.

    Parameters
    ----------
    num_threads : int
        Threads that BLAS may use.
    dtype : {"float32", "float64"}
        float64 measures BLAS's dgemm, of half the speed.

    Returns
    -------
    float
        GFLOP/s, best of several; a product of ``(n, k)`` and ``(k, m)`` counts as ``2 n k m`` FLOP.

    Examples
    --------
    >>> sgemm_ceiling() > 0.0
    True
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((_ROWS, _INNER)).astype(dtype)
    weight = rng.standard_normal((_INNER, _COLUMNS)).astype(dtype)
    out = np.empty((_ROWS, _COLUMNS), dtype)  # made once: clearing new memory is no arithmetic
    with threads.hold(num_threads):
        seconds = _fastest(lambda: np.matmul(x, weight, out=out))
    return 2 * _ROWS * _INNER * _COLUMNS / seconds / 1e9


def memory_bandwidth() -> float:
    """Measure how fast one thread moves bytes that are in no cache: the copy of a large array.

    One thread, because NumPy does everything but matrix products on one.

    Returns
    -------
    float
        GB/s, best of several; each byte copied counts twice, once read and once written, as in STREAM.

    Examples
    --------
    >>> memory_bandwidth() > 0.0
    True
    """
    source, target = np.ones(_COPIED_BYTES, np.uint8), np.ones(_COPIED_BYTES, np.uint8)
    seconds = _fastest(lambda: np.copyto(target, source))
    return 2 * _COPIED_BYTES / seconds / 1e9


def _fastest(work: Callable[[], object]) -> float:
    """Time something over and over for a quarter of a second; the fastest is the one that nobody disturbed."""
    best, times = float("inf"), 0
    work()  # the first one wakes threads and touches pages
    end = time.perf_counter() + _PATIENCE
    while times < _LEAST_TIMES or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best, times = min(best, time.perf_counter() - start), times + 1
    return best
