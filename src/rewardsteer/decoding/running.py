"""The event loop on which engines and strategies run.

`in_order` runs many programs at once and gives their results in order, on a loop of its own in the
caller's thread; where a loop runs there already (a notebook), in another thread. `LoopThread` keeps
a loop running beside others, for a server. `settle` waits until no program can continue without
the engine's next step.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
)
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
Program = Callable[[], Coroutine[Any, Any, T]]

# Turns of the loop until a task that received a result makes its next request: first the task, then
# the tasks that gather it, then theirs.
_TURNS = 8


def in_order(
    programs: Iterable[Program[T]], room: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]], *, most: int,
) -> Generator[T, None, None]:
    """Results of programs in their order, each once it and all earlier ones are there.

    Args:
        programs: started one by one, whenever there is room.
        room: returns once another program can start.
        close: called at the end, also when the caller stops early.
        most: maximum number of running programs.

    Raises:
        Exception: what a program raised; running programs are cancelled.
    """
    results = _iterate(lambda: _ordered(programs, room, most), close)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        yield from results
        return
    with ThreadPoolExecutor(1, thread_name_prefix="decoding") as thread:
        end = object()
        try:
            while (result := thread.submit(next, results, end).result()) is not end:
                yield result  # type: ignore[misc]
        finally:
            thread.submit(results.close).result()


def _iterate(
    make: Callable[[], AsyncIterator[T]], close: Callable[[], Awaitable[None]]
) -> Generator[T, None, None]:
    """Values of an asynchronous iterator; its loop runs while the caller waits for a value."""
    loop = asyncio.new_event_loop()
    try:
        values = make()
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield loop.run_until_complete(anext(values))
    finally:
        try:
            _finish(loop, close)
        finally:
            loop.close()


def _finish(loop: asyncio.AbstractEventLoop, close: Callable[[], Awaitable[None]]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        loop.run_until_complete(_end(close))
        return
    # This thread has a running loop, and cannot run a second one.
    with ThreadPoolExecutor(1, thread_name_prefix="decoding") as thread:
        thread.submit(lambda: loop.run_until_complete(_end(close))).result()


async def _cancel_others() -> None:
    """Cancel all other tasks of this loop, and wait for them."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _end(close: Callable[[], Awaitable[None]]) -> None:
    await _cancel_others()
    await close()


def _look_at(task: asyncio.Task[Any]) -> None:
    """Retrieve a task's exception: when one failure ends the run, Python would otherwise print the
    errors of all other tasks."""
    if not task.cancelled():
        task.exception()


async def _ordered(
    programs: Iterable[Program[T]], room: Callable[[], Awaitable[None]], most: int
) -> AsyncIterator[T]:
    begun: deque[asyncio.Task[T]] = deque()
    changed = asyncio.Event()
    space = asyncio.Semaphore(most)

    def ended(task: asyncio.Task[T]) -> None:
        _look_at(task)
        space.release()
        changed.set()

    async def feed() -> None:
        coming = iter(programs)
        while True:
            await space.acquire()
            await room()
            program = next(coming, None)
            if program is None:
                return
            task = asyncio.get_running_loop().create_task(program())
            task.add_done_callback(ended)
            begun.append(task)
            changed.set()
            # The program requests its samples before the next check for room.
            for _ in range(3):
                await asyncio.sleep(0)

    feeding = asyncio.get_running_loop().create_task(feed())
    feeding.add_done_callback(_look_at)
    feeding.add_done_callback(lambda _: changed.set())
    while begun or not feeding.done():
        while begun and begun[0].done():
            yield begun.popleft().result()
        if feeding.done():
            feeding.result()
        if (begun and begun[0].done()) or (not begun and feeding.done()):
            continue
        changed.clear()
        await changed.wait()


class LoopThread:
    """A loop that runs in a thread of its own.

    Args:
        name: of the thread.
        setup: called in it first.
    """

    def __init__(self, name: str, setup: Callable[[], None] = lambda: None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(setup,), name=name, daemon=True)

    def _run(self, setup: Callable[[], None]) -> None:
        setup()
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
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
            self.submit(_cancel_others()).result(seconds)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(seconds)


class Activity:
    """Counts requests and replies of tasks, for `settle`.

    Attributes:
        count: grows with every request and reply.
    """

    def __init__(self) -> None:
        self.count = 0

    def note(self) -> None:
        """Count one event."""
        self.count += 1


async def settle(stamp: Callable[[], int], turns: int = _TURNS) -> None:
    """Let other tasks run until ``stamp`` has not changed for some turns of the loop. A task that
    takes longer only misses the engine's next step."""
    last, idle = stamp(), 0
    while idle < turns:
        await asyncio.sleep(0)
        now = stamp()
        idle = idle + 1 if now == last else 0
        last = now
