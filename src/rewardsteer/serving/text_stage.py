"""The stage before the queue: tokenizing in separate threads, with limits of number and time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rewardsteer.serving.errors import full, too_slow

T = TypeVar("T")

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
