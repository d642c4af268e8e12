"""Progress of long commands on standard error: share done, speed and remaining time.

It is a bar on a terminal, and a plain line from time to time in a log file.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol

_EVERY = 30.0  # seconds between two lines of a log


class Stage(Protocol):
    """Callback that reports the progress of a stage of the work."""

    def __call__(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """Report that ``done`` of ``total`` items (None: not known) are finished; ``note`` is
        shown beside them."""


@contextlib.contextmanager
def progress_bar(label: str, unit: str = "rows") -> Iterator[Callable[[int, int], None]]:
    """Yield ``announce(done, total)``, which shows a bar on a terminal or writes lines to a log."""
    with stages(unit) as announce:
        yield lambda done, total: announce(label, done, total)


@contextlib.contextmanager
def stages(unit: str = "rows", *, bar: bool = True, lines: bool = True) -> Iterator[Stage]:
    """Yield ``announce(label, done, total)`` for work in several stages, one after the other.

    Args:
        unit: name of the counted items.
        bar: show a bar if standard error is a terminal.
        lines: write lines if it is not.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _stage_lines(unit, console) if lines else _silent
    elif not bar:
        yield _silent
    else:
        with _bar(console) as progress:
            yield _stage_bar(progress, unit)


def _silent(label: str, done: int, total: int | None, note: str = "") -> None:
    """Show nothing."""


def _bar(console: Any) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    # On a narrow terminal the label is cut, figures are not; a bar would take what room there is.
    wide = console.width >= 70
    columns = (
        TextColumn("{task.description}"), *((BarColumn(bar_width=None),) if wide else ()),
        MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), Left(),
    )
    return Progress(*columns, console=console, transient=True, expand=wide)


def _stage_bar(progress: Any, unit: str) -> Stage:
    tasks: dict[str, Any] = {}

    def announce(label: str, done: int, total: int | None, note: str = "") -> None:
        if label not in tasks:
            for task in tasks.values():
                progress.remove_task(task)
            tasks.clear()
            # Items of an earlier run do not count for this run's speed.
            tasks[label] = progress.add_task(label, total=total, completed=done, rate="")
        speed = progress.tasks[-1].speed
        rate = f"{speed:,.{0 if speed >= 10 else 1}f} {unit}/s" if speed else ""
        shown = f"{label}, {note}" if note else label
        progress.update(
            tasks[label], completed=done, total=total, rate=rate, description=shown
        )

    return announce


def _stage_lines(unit: str, console: Any) -> Stage:
    known: dict[str, Callable[[int, int | None], None]] = {}

    def announce(label: str, done: int, total: int | None, note: str = "") -> None:
        if label not in known:
            known.clear()
            known[label] = _lines(
                label, unit, lambda text: console.print(text, highlight=False, soft_wrap=True)
            )
        known[label](done, total)

    return announce


def _lines(
    label: str, unit: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int | None], None]:
    first: list[tuple[float, int]] = []  # start time, and items done by an earlier run
    last = [clock()]

    def announce(done: int, total: int | None) -> None:
        now = clock()
        first[:] = first or [(now, done)]
        if now - last[0] < _EVERY:
            return
        last[0] = now
        began, before = first[0]
        rate = (done - before) / max(now - began, 1e-9)
        speed = f"{rate:,.0f} {unit}/s"
        if total is None:
            write(f"{label}: {done:,} {unit}, {speed}")
            return
        left = timedelta(seconds=round((total - done) / rate)) if rate else "unknown"
        write(f"{label}: {done:,} of {total:,} {unit}, {speed}, {left} left")

    return announce
