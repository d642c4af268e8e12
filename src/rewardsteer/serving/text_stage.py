"""The stage before the queue: tokenizing, in threads of its own, bounded and timed."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rewardsteer.serving.errors import full, too_slow

T = TypeVar("T")

# Requests with more characters wait in a line of their own.
_LONG = 16384


class TextStage:
    """Two threads, one for short texts and one for long ones, so that who asks little never waits
    behind what takes seconds.

    Args:
        most: requests that may wait, in both lines together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._short = ThreadPoolExecutor(1, thread_name_prefix="texts")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="long-texts")
        self.waiting = 0

    async def run(
        self, function: Callable[[], T], *, characters: int, seconds: float, of: float
    ) -> T:
        """What a function returns.

        Args:
            function: called in a thread.
            characters: that it works on.
            seconds: after which it is too late.
            of: seconds that the request had in all, for the message.

        Raises:
            ApiError: 429, too many wait; 504, it took too long.
        """
        if self.waiting >= self._most:
            raise full(1)
        self.waiting += 1
        thread = self._long if characters > _LONG else self._short
        try:
            # What has not begun when the time is over is not begun any more.
            future = asyncio.wrap_future(thread.submit(function))
            return await asyncio.wait_for(future, seconds)
        except asyncio.TimeoutError:
            raise too_slow(of) from None
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """End the threads after what they are at; nobody waits for what that comes to."""
        for thread in (self._short, self._long):
            thread.shutdown(wait=False, cancel_futures=True)
