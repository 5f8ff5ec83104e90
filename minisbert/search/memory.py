"""Free memory, which decides whether vectors are loaded or searched on disk. Swap does not count: it is too slow."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["fits_into_memory", "usable_memory"]

GROWTH = 1.5  # peak memory of loading, as a multiple of the vectors' bytes
SHARE = 0.5  # of the free memory that loading may use


def fits_into_memory(vector_bytes: int) -> bool:
    """Whether loading the vectors leaves half of the free memory; True where the system does not say how much is free.

    >>> fits_into_memory(1000), fits_into_memory(10**18)
    (True, False)
    """
    free = usable_memory()
    return free is None or GROWTH * vector_bytes <= SHARE * free


def usable_memory() -> int | None:
    """Free bytes: the machine's, or a container's limit if that is less; None where the system does not say."""
    found = [value for value in (_machine_memory(), _container_memory()) if value is not None]
    return max(1, min(found)) if found else None


def _machine_memory() -> int | None:
    """What Linux reports as available; elsewhere half of the total."""
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
    """What is left of a control group's limit, if there is one."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
