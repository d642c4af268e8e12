"""Parallel calls in worker processes."""

import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import torch

from rewardsteer.errors import RewardsteerError
from rewardsteer.quiet import keep_log, quiet_libraries


class Processes:
    """Worker processes; made by `side_by_side`."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor

    def run(
        self, work: Callable[..., object], calls: Mapping[str, tuple[Any, ...]],
        announce: Callable[[str], None],
    ) -> None:
        """Make all calls.

        Args:
            work: a module-level function.
            calls: name → picklable arguments.
            announce: called with a name when its call is done.

        Raises:
            RewardsteerError: a call raised it, or a process was killed.
        """
        with _no_interrupts():
            running = {self._executor.submit(work, *given): name for name, given in calls.items()}
        try:
            for done in as_completed(running):
                done.result()
                announce(running[done])
        except BrokenProcessPool as error:
            raise RewardsteerError(
                "A process of the demo was killed; with num_proc=1 it runs in one process and "
                "needs less memory."
            ) from error


@contextmanager
def side_by_side(count: int, out: Path) -> Iterator[Processes | None]:
    """A context with worker processes; those still at work when it is left are ended.

    Args:
        count: number of processes; for 1 the value is None, and the caller does the work itself.
        out: the folder whose log they write to.
    """
    if count == 1:
        yield None
        return
    threads = max(1, torch.get_num_threads() // count)
    others = set(multiprocessing.active_children())
    # Spawned, since forking a process with threads is unsafe.
    executor = ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(out, threads)
    )
    try:
        yield Processes(executor)
        executor.shutdown()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
            process.join()


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Block interrupts in processes started here; the main process gets them and ends these."""
    resource_tracker.ensure_running()  # Starting it later would unblock interrupts.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(out: Path, threads: int) -> None:
    quiet_libraries(logging.WARNING)
    keep_log(out)
    torch.set_num_threads(threads)
