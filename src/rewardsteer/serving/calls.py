"""Work with the models that shares no batch: done in small steps between those of decoding."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

from rewardsteer.errors import RewardsteerError
from rewardsteer.serving.tickets import Outbox, Ticket, Value

# A step is what comes between two yields; what the generator returns is the request's value.
Steps = Generator[None, None, Any]


class Calls:
    """Work that waits or has begun, one piece after the other. Used under the batcher's lock, but
    for `step`, which the models' thread alone calls.

    Args:
        outbox: where values go.
        fail: called with a ticket and what went wrong, and whether that is worth a line of log.
    """

    def __init__(self, outbox: Outbox, fail: Callable[[Ticket, Exception, bool], None]) -> None:
        self._outbox, self._fail = outbox, fail
        self._waiting: deque[tuple[Ticket, Steps]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Ticket]:
        return iter([ticket for ticket, _ in self._waiting])

    def put(self, ticket: Ticket, steps: Steps) -> None:
        """Take some work."""
        self._waiting.append((ticket, steps))

    def take(self) -> tuple[Ticket, Steps] | None:
        """The work whose turn it is. Taking turns, a long one does not keep others waiting."""
        if not self._waiting:
            return None
        self._waiting.rotate(-1)
        return self._waiting[-1]

    def drop(self, ticket: Ticket) -> None:
        """Forget a request's work; what has begun is not gone on with."""
        self._waiting = deque(one for one in self._waiting if one[0] is not ticket)

    def step(self, ticket: Ticket, steps: Steps) -> bool:
        """One step of some work; whether it is over."""
        try:
            next(steps)
            return False
        except StopIteration as end:
            self._outbox.put(ticket, Value(end.value))
        except Exception as error:
            self._fail(ticket, error, not isinstance(error, RewardsteerError))
        return True
