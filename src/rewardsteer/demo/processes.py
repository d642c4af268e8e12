"""Calls in processes beside this one, as many at a time as there are processors."""

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
    """See `side_by_side`."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor

    def run(
        self, work: Callable[..., object], calls: Mapping[str, tuple[Any, ...]],
        announce: Callable[[str], None],
    ) -> None:
        """Make all calls.

        Args:
            work: a function of a module.
            calls: name → arguments, which other processes can read.
            announce: called with a name when its call is done.

        Raises:
            RewardsteerError: what a call raised; or a process was killed.
        """
        with _no_interrupts():
            running = {self._executor.submit(work, *given): name for name, given in calls.items()}
        try:
            for done in as_completed(running):
                done.result()
                announce(running[done])
        except BrokenProcessPool as error:
            raise RewardsteerError(
                "A process of the demo was killed; with num_proc=1 it needs one alone, and less "
                "memory."
            ) from error


@contextmanager
def side_by_side(count: int, out: Path) -> Iterator[Processes | None]:
    """Processes until this is left, in which those that still work are ended.

    Args:
        count: how many; for one there is None, and the caller does the work itself.
        out: the folder whose log they write to.
    """
    if count == 1:
        yield None
        return
    threads = max(1, torch.get_num_threads() // count)
    others = set(multiprocessing.active_children())
    # Not forked: this process has threads.
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
    """Processes that start now get none: the first process answers them, and ends the others."""
    resource_tracker.ensure_running()  # Its start would let interrupts through again.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(out: Path, threads: int) -> None:
    quiet_libraries(logging.WARNING)
    keep_log(out)
    torch.set_num_threads(threads)
