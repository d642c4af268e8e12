"""Timing of computations in turn: machines are noisy, so ratios of neighbouring runs count."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


class CannotRun(Exception):  # noqa: N818
    """A table cannot be measured on this machine; the message is one sentence."""


def device() -> str:
    """The device of the measurements: ``cuda`` where there is a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronise() -> None:
    """Wait until the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    synchronise()
    began = time.perf_counter()
    function()
    synchronise()
    return time.perf_counter() - began


def in_turn(sides: Sequence[Callable[[], float]], runs: int) -> list[list[float]]:
    """What each side returns, ``[runs][sides]``.

    Every other run goes through the sides backwards, so that a machine that slowly grows faster or
    slower favours none of them.
    """
    found = []
    for run in range(runs):
        order = list(range(len(sides)))
        figures = {side: sides[side]() for side in (order[::-1] if run % 2 else order)}
        found.append([figures[side] for side in order])
    return found


def spread(ratios: Sequence[float]) -> Row:
    """Median, least and greatest of the ratios of neighbouring runs."""
    return {
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "runs": len(ratios),
    }


def rates(case: str, seconds: Sequence[Sequence[float]], *, work: float, unit: str) -> Row:
    """A table's row of ``work`` per second; a ratio above one means that ours is faster.

    Args:
        case: what was measured.
        seconds: ``[runs][2]``, ours and the other's.
        work: number of units done in those seconds.
        unit: unit of the rates.
    """
    ours, other = zip(*seconds, strict=True)
    return {
        "case": case,
        "ours": work / statistics.median(ours),
        "other": work / statistics.median(other),
        **spread([second / first for first, second in seconds]),
        "unit": unit,
    }


def side_by_side(
    case: str, ours: Callable[[], Any], other: Callable[[], Any], *, work: float, unit: str,
    runs: int = 5,
) -> Row:
    """`rates` of two functions, timed in turn after a warm-up of each."""
    ours(), other()
    seconds = in_turn([lambda: timed(ours), lambda: timed(other)], runs)
    return rates(case, seconds, work=work, unit=unit)


def alone(module: str, *arguments: object) -> Any:
    """The JSON that ``python -m module arguments`` prints last; peak memory is that of the separate
    process."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def held_memory() -> float:
    """Memory held now, in MiB: allocated on the GPU, else resident in this process."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 2**20
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 2**10
    raise RuntimeError("this system does not report the memory of a process")
