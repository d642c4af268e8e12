"""A loop that runs in a thread of its own, beside those of a server's requests."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from rewardsteer.decoding.running import cancel_others

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

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function on the loop, soon."""
        self._loop.call_soon_threadsafe(function, *args)

    def close(self, seconds: float) -> None:
        """Cancel all tasks, then stop the thread; each may take ``seconds``."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(TimeoutError):
            self.submit(cancel_others()).result(seconds)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(seconds)
