"""One progress bar for long commands, on standard error: how far, how fast, how long still."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

_EVERY = 30.0  # seconds between two lines of a log


@contextlib.contextmanager
def progress_bar(label: str, unit: str = "rows") -> Iterator[Callable[[int, int], None]]:
    """Yield ``announce(done, total)``: a bar on a terminal, now and then a line in a log."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(label, unit, lambda text: console.print(text, highlight=False))
        return
    columns = (
        label, BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=None, rate="")

        def announce(done: int, total: int) -> None:
            speed = progress.tasks[0].speed
            rate = f"{speed:,.0f} {unit}/s" if speed else ""
            progress.update(task, completed=done, total=total, rate=rate)

        yield announce


def _lines(
    label: str, unit: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int], None]:
    first: list[tuple[float, int]] = []  # when, and what an earlier run had done
    last = [clock()]

    def announce(done: int, total: int) -> None:
        now = clock()
        first[:] = first or [(now, done)]
        if now - last[0] < _EVERY:
            return
        last[0] = now
        began, before = first[0]
        rate = (done - before) / max(now - began, 1e-9)
        left = timedelta(seconds=round((total - done) / rate)) if rate else "unknown"
        write(f"{label}: {done:,} of {total:,} {unit}, {rate:,.0f} {unit}/s, {left} left")

    return announce
