"""How much memory is free: what decides whether vectors are loaded, or searched where they lie.

Left out on purpose: swap space; what is there is too slow to be searched. Next file: ``searching.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["fits_into_memory", "usable_memory"]

GROWTH = 1.5  # what loading takes at its peak, in times the vectors' bytes
SHARE = 0.5  # of the free memory that loading may take


def fits_into_memory(vector_bytes: int) -> bool:
    """Say whether vectors are worth loading: they should leave half of the memory that is free.

    Parameters
    ----------
    vector_bytes : int

    Returns
    -------
    bool
        True where the system does not tell what is free.

    Examples
    --------
    >>> fits_into_memory(1000), fits_into_memory(10**18)
    (True, False)
    """
    free = usable_memory()
    return free is None or GROWTH * vector_bytes <= SHARE * free


def usable_memory() -> int | None:
    """Give the bytes of memory that are free for us: the machine's, or what a container allows if that is less.

    Returns
    -------
    int or None
        None where the system does not tell.

    Examples
    --------
    >>> free = usable_memory()
    >>> free is None or free > 0
    True
    """
    found = [value for value in (_machine_memory(), _container_memory()) if value is not None]
    return max(1, min(found)) if found else None


def _machine_memory() -> int | None:
    """What Linux says is available; elsewhere half of what there is."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _container_memory() -> int | None:
    """What is left of a control group's limit, if it has one."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
