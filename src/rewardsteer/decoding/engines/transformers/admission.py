"""Which waiting samples are decoded next: in order, within limits of rows, caches and guides."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from rewardsteer.decoding.engines.token_sample import TokenSample

# New rows enter once this share of the places is free. An entry is a forward pass of its own; with
# many places some row ends at nearly every step, and one pass for each would double their number.
_FREE_SHARE = 8
# After running out of memory, the row limit doubles after this many steps without an error.
_CALM = 64


@dataclass(frozen=True)
class Bounds:
    """Limits of what is decoded together.

    Attributes:
        places: rows.
        cache_tokens: maximum tokens (prompts and full-length responses) of rows in caches; a row
            that exceeds it is decoded alone. None: no limit.
        guides: maximum number of guides that are decoded in turn; each costs a forward pass of the
            policy at every step. None: no limit.
    """

    places: int = 8
    cache_tokens: int | None = None
    guides: int | None = None


class Admission:
    """The queue of samples. The first one is never overtaken, so none waits for ever."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._waiting: deque[TokenSample] = deque()
        self._places = bounds.places
        self._calm = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, sample: TokenSample) -> None:
        """Queue a sample: at the front if it has tokens, else at the end."""
        if sample.token_ids:
            self._waiting.appendleft(sample)
        else:
            self._waiting.append(sample)

    def put_back(self, samples: Iterable[TokenSample]) -> None:
        """Return admitted samples to the front of the queue, in their order."""
        self._waiting.extendleft(reversed(list(samples)))

    def take_all(self) -> list[TokenSample]:
        """Remove and return all samples of the queue."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def drop(self, sample: TokenSample) -> None:
        if sample in self._waiting:
            self._waiting.remove(sample)

    def take(self, working: Collection[TokenSample]) -> list[TokenSample]:
        """Remove and return the samples that enter now."""
        admitted: list[TokenSample] = []
        guides = {id(sample.guide) for sample in working}
        tokens = sum(_longest(sample) for sample in working)
        for _ in range(free_slots(len(working), self._places)):
            if not self._waiting:
                break
            sample = self._waiting[0]
            tokens += _longest(sample)
            guides.add(id(sample.guide))
            if (working or admitted) and not self._fits(tokens, len(guides)):
                break
            admitted.append(self._waiting.popleft())
        return admitted

    def _fits(self, tokens: int, guides: int) -> bool:
        bounds = self.bounds
        return (bounds.cache_tokens is None or tokens <= bounds.cache_tokens) and (
            bounds.guides is None or guides <= bounds.guides
        )

    def too_many(self, rows: int) -> None:
        """Limit rows to half of this number, which ran out of memory."""
        self._places, self._calm = max(1, rows // 2), 0

    def went_well(self) -> None:
        """Count a step without an error."""
        self._calm += 1
        if self._calm >= _CALM and self._places < self.bounds.places:
            self._places, self._calm = min(2 * self._places, self.bounds.places), 0


class Waiters:
    """Programs that wait for the engine's next step, or for room in it."""

    def __init__(self) -> None:
        self._turns: list[asyncio.Future[None]] = []
        self._roomy = asyncio.Event()

    async def room(self, full: Callable[[], bool]) -> None:
        """Return once the engine is not full."""
        while full():
            self._roomy.clear()
            await self._roomy.wait()

    async def turn(self, *, stepping: bool) -> None:
        """Return after the next step, at once where there is none."""
        if not stepping:
            await asyncio.sleep(0)
            return
        self._turns.append(asyncio.get_running_loop().create_future())
        await self._turns[-1]

    def tell(self, *, full: bool) -> None:
        """Wake the waiting programs after a step."""
        turns, self._turns = self._turns, []
        for waiting in turns:
            if not waiting.done():
                waiting.set_result(None)
        if not full:
            self._roomy.set()


def free_slots(busy: int, places: int) -> int:
    """How many new rows may enter now: none while too few places are free to be worth a pass."""
    free = places - busy
    return free if free >= max(1, places // _FREE_SHARE) or not busy else 0


def _longest(sample: TokenSample) -> int:
    """Maximum number of tokens of a row."""
    return len(sample.prompt_ids) + sample.config.max_new_tokens
