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

# A task that a result wakes asks for more within so many turns of the loop: itself, those that
# gather it, and theirs.
_TURNS = 8


def in_order(
    programs: Iterable[Program[T]], room: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]], *, most: int,
) -> Generator[T, None, None]:
    """Results of programs in their order, each once it and those before it are there.

    Args:
        programs: taken one by one, whenever there is room.
        room: returns once another one can be begun.
        close: called in the end, also when nobody wants the rest.
        most: programs at work at a time.

    Raises:
        Exception: what a program raised; those that run are cancelled.
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
    """What an asynchronous iterator gives, on a loop that turns while the next is waited for."""
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
    # Begun where no loop ran, and given up where one does: a thread can have one loop at work.
    with ThreadPoolExecutor(1, thread_name_prefix="decoding") as thread:
        thread.submit(lambda: loop.run_until_complete(_end(close))).result()


async def _cancel_others() -> None:
    """Cancel what runs on this loop, and wait for it."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _end(close: Callable[[], Awaitable[None]]) -> None:
    await _cancel_others()
    await close()


def _look_at(task: asyncio.Task[Any]) -> None:
    """Where one failure ends the run, nobody asks for the others' results: Python would print each
    of their errors."""
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
            # So that it has asked for its samples when there is looked for room again.
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
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    def submit(self, program: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a program there; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(program, self._loop)

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function there, soon."""
        self._loop.call_soon_threadsafe(function, *args)

    def close(self, seconds: float) -> None:
        """Cancel what runs and end; the thread's present step may take so long."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(TimeoutError):
            self.submit(_cancel_others()).result(seconds)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(seconds)


class Activity:
    """Counts what tasks have asked and been told.

    Attributes:
        count: grows with everything that happens.
    """

    def __init__(self) -> None:
        self.count = 0

    def note(self) -> None:
        """Something has happened."""
        self.count += 1


async def settle(stamp: Callable[[], int], turns: int = _TURNS) -> None:
    """Let other tasks run until none of them has done anything for some turns of the loop. A task
    that takes longer loses nothing but its place in the next step."""
    last, idle = stamp(), 0
    while idle < turns:
        await asyncio.sleep(0)
        now = stamp()
        idle = idle + 1 if now == last else 0
        last = now
