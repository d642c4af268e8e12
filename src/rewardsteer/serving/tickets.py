"""What passes between the thread that answers HTTP and the one that owns the models.

A `Ticket` stands for one request. The models' thread tells it what happened; whoever waits reads
that as `Event`s, the client's leaving and the end of its time among them.
"""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Encoded
from rewardsteer.decoding.sampling import TokenLogprob
from rewardsteer.records import Cost

_numbers = itertools.count()


@dataclass(frozen=True)
class Answer:
    """One response.

    Attributes:
        text: without what stopped it.
        token_ids: all that were generated, end-of-text included.
        finish_reason: ``stop`` or ``length``.
        cost: what it cost, with all samples that the method drew.
        reward: of the response, where the method chose by it.
        logprobs: of the tokens, where they were asked for.
        generated: tokens of all samples that the method drew.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    cost: Cost
    reward: float | None = None
    logprobs: Sequence[TokenLogprob] = ()
    generated: int = 0


@dataclass(frozen=True)
class Piece:
    """New text of a response, the tokens that came since the piece before, and their
    log-probabilities where they were asked for."""

    index: int
    text: str
    token_ids: Sequence[int]
    logprobs: Sequence[Any]


@dataclass(frozen=True)
class Done:
    """A response has ended."""

    index: int
    answer: Answer


@dataclass(frozen=True)
class Value:
    """What a request that is no generation comes to."""

    value: Any


@dataclass(frozen=True)
class Failed:
    """The request cannot be answered."""

    error: Exception


@dataclass(frozen=True)
class Gone:
    """The client has left."""


@dataclass(frozen=True)
class Late:
    """The request's time is over."""


Event = Piece | Done | Value | Failed | Gone | Late


@dataclass(eq=False)
class Ticket:
    """One request.

    Attributes:
        name: unique, without anything of the request.
        events: of the loop that waits.
        over: nobody waits any more; read by the models' thread at every step.
    """

    name: str = field(default_factory=lambda: f"r{next(_numbers)}")
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    over: bool = False


@dataclass(frozen=True)
class Response:
    """One response of a request, to be made.

    Attributes:
        ticket: the request's.
        index: which of the request's responses this is.
        prompt: what is answered.
        method: a guide or strategy.
        config: how samples are drawn, and the longest response.
        first: number of the first sample's draws.
        stream: whether text is told as it grows.
        top: how many of the likeliest tokens are told with each; None: nothing is told of them.
    """

    ticket: Ticket
    index: int
    prompt: Encoded
    method: Any
    config: DecodingConfig
    first: int = 0
    stream: bool = False
    top: int | None = None

    @property
    def samples(self) -> int:
        """Most rows that it has at a time."""
        return int(getattr(self.method, "samples", 1))


class Outbox:
    """Events that the models' thread has for the loop, handed over together."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: list[tuple[Ticket, Event]] = []

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say where events go."""
        self._loop = loop

    def put(self, ticket: Ticket, event: Event) -> None:
        """Hand over an event, with what else comes in this turn of the models' loop: waking the
        other one costs more than an event."""
        if ticket.over:
            return
        if not self._events:
            asyncio.get_running_loop().call_soon(self._flush)
        self._events.append((ticket, event))

    def _flush(self) -> None:
        assert self._loop is not None, "open() first"
        events, self._events = self._events, []
        self._loop.call_soon_threadsafe(_deliver, events)


def _deliver(events: Iterable[tuple[Ticket, Event]]) -> None:
    for ticket, event in events:
        ticket.events.put_nowait(event)
