"""When all that can go on has gone on: the point at which a batch is worth a step."""

import asyncio
from collections.abc import Callable

# A task that a result wakes asks for more within so many turns of the loop: itself, those that
# gather it, and theirs.
_TURNS = 8


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
