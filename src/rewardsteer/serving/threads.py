"""Threads of the server: an event loop of its own, calls beside it, and the tokenizing of texts."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from rewardsteer.decoding.running import cancel_others
from rewardsteer.serving.errors import full, too_slow

T = TypeVar("T")


class LoopThread:
    """A loop that runs in a thread of its own."""

    def __init__(self, name: str, setup: Callable[[], None] = lambda: None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(setup,), name=name, daemon=True)

    def _run(self, setup: Callable[[], None]) -> None:
        setup()
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, program: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine on the loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(program, self._loop)

    def close(self, seconds: float) -> None:
        """Cancel all tasks, then stop the thread; each may take ``seconds``."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(TimeoutError):
            self.submit(cancel_others()).result(seconds)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(seconds)


async def beside(work: Callable[[], T]) -> T:
    """The result of ``work``, which runs in a daemon thread: a process that ends abandons it."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(done)


# Requests with more characters have a thread of their own.
_LONG = 16384


class TextStage:
    """Two threads, one for short texts and one for long ones, so that short texts never wait for
    long ones.

    Args:
        most: maximum number of waiting requests, both threads together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._short = ThreadPoolExecutor(1, thread_name_prefix="texts")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="long-texts")
        self.waiting = 0

    async def run(
        self, function: Callable[[], T], *, characters: int, seconds: float, of: float
    ) -> T:
        """The result of a function.

        Args:
            function: called in a thread.
            characters: number of characters that it processes.
            seconds: time limit.
            of: the request's whole time limit in seconds, for the message.

        Raises:
            ApiError: 429, too many wait; 504, it took too long.
        """
        if self.waiting >= self._most:
            raise full(1)
        self.waiting += 1
        thread = self._long if characters > _LONG else self._short
        try:
            # A function that has not started by then is cancelled.
            future = asyncio.wrap_future(thread.submit(function))
            return await asyncio.wait_for(future, seconds)
        except asyncio.TimeoutError:
            raise too_slow(of) from None
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """End the threads after their current calls, without waiting for the results."""
        for thread in (self._short, self._long):
            thread.shutdown(wait=False, cancel_futures=True)
