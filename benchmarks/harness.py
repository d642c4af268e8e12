"""Two computations timed in turn: these machines are noisy, so only ratios of neighbours count."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def side_by_side(
    case: str, ours: Callable[[], Any], other: Callable[[], Any], *, work: float, unit: str,
    runs: int = 5,
) -> dict[str, Any]:
    """Median rates of ``work`` per second, and the median of the ratios of neighbouring runs."""
    ours(), other()  # warm-up
    times: list[tuple[float, float]] = []
    for _ in range(runs):
        pair = []
        for function in (ours, other):
            began = time.perf_counter()
            function()
            pair.append(time.perf_counter() - began)
        times.append((pair[0], pair[1]))
    return {
        "case": case,
        "ours": work / statistics.median(first for first, _ in times),
        "other": work / statistics.median(second for _, second in times),
        "ratio": statistics.median(second / first for first, second in times),
        "unit": unit,
    }


def peak_memory() -> float:
    """Most memory that this process has held, in MiB.

    From the kernel's own count of it: ``getrusage`` starts a child at its parent's peak.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell a process's peak memory")
