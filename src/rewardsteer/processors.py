"""The number of processors available to this process."""

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def processors() -> int:
    """Processors that the process may run on, limited by the CPU quota of its control group."""
    quota = cpu_quota()
    return cores() if quota is None else max(1, min(cores(), round(quota)))


def cores() -> int:
    """Processors that the process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(place: Path = _QUOTA) -> float | None:
    """CPU quota of the process's control group, in cores; None without a limit."""
    try:
        limit, period = place.read_text(encoding="ascii").split()[:2]
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
