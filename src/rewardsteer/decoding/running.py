"""The event loop on which engines and strategies run.

`in_order` runs many programs at once and gives their results in order, on a loop of its own in the
caller's thread; where a loop runs there already (a notebook), in another thread. `Activity.settle`
waits until no program can continue without the engine's next step.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
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


async def cancel_others() -> None:
    """Cancel all other tasks of this loop, and wait for them."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _end(close: Callable[[], Awaitable[None]]) -> None:
    await cancel_others()
    await close()


def _retrieve_error(task: asyncio.Task[Any]) -> None:
    """When one failure ends the run, Python would otherwise print those of all other tasks."""
    if not task.cancelled():
        task.exception()


async def _ordered(
    programs: Iterable[Program[T]], room: Callable[[], Awaitable[None]], most: int
) -> AsyncIterator[T]:
    begun: deque[asyncio.Task[T]] = deque()
    changed = asyncio.Event()
    space = asyncio.Semaphore(most)

    def ended(task: asyncio.Task[T]) -> None:
        _retrieve_error(task)
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
    feeding.add_done_callback(_retrieve_error)
    feeding.add_done_callback(lambda _: changed.set())
    while begun or not feeding.done():
        changed.clear()
        if begun and begun[0].done():
            yield begun.popleft().result()
        elif feeding.done() and feeding.exception() is not None:
            break
        else:
            await changed.wait()
    feeding.result()


class Activity:
    """Counts requests and replies of tasks."""

    def __init__(self) -> None:
        self._count = 0

    def note(self) -> None:
        """Count a request or a reply."""
        self._count += 1

    async def settle(self, turns: int = _TURNS) -> None:
        """Let other tasks run until none has been noted for some turns of the loop. A task that
        takes longer only misses the engine's next step."""
        idle = 0
        while idle < turns:
            before = self._count
            await asyncio.sleep(0)
            idle = idle + 1 if self._count == before else 0
