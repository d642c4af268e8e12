"""What passes between the thread that answers HTTP and the one that owns the models.

A `RequestHandle` stands for one request. The models' thread puts `Event`s into it, and so does the
HTTP side when the client disconnects or the request times out; an exception ends the request.
"""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Encoded, Outcome
from rewardsteer.decoding.sampling import TokenLogprob
from rewardsteer.records import Cost

_numbers = itertools.count()


@dataclass(frozen=True)
class Answer:
    """One response.

    Attributes:
        text: without what stopped it, or with the string that did, where that was asked for.
        token_ids: all that were generated, end-of-text included.
        finish_reason: ``stop`` or ``length``.
        stop_reason: the string, or the token beside end-of-text, that stopped it.
        cost: what it cost, with all samples that the method drew.
        reward: of the response, where the method chose by it.
        logprobs: of the tokens, where they were asked for.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    cost: Cost
    reward: float | None = None
    logprobs: Sequence[TokenLogprob] = ()
    stop_reason: int | str | None = None

    @property
    def generated(self) -> int:
        """Tokens of all samples that the method drew."""
        return self.cost.lm_calls


def answer_of(outcome: Outcome, cost: Cost) -> Answer:
    """A method's outcome, for a client."""
    sample = outcome.sample
    reason = sample.stop_reason
    if isinstance(reason, int) and reason not in sample.config.stop_token_ids:
        # End-of-text is told as vLLM does.
        reason = None
    return Answer(
        sample.text, list(sample.token_ids), sample.finish_reason or "length", cost,
        outcome.reward, list(sample.logprobs), reason,
    )


@dataclass(frozen=True)
class TextDelta:
    """New text of a response with its tokens, and their log-probabilities on request."""

    index: int
    text: str
    token_ids: Sequence[int]
    logprobs: Sequence[Any]


@dataclass(frozen=True)
class Finished:
    """A response is complete."""

    index: int
    answer: Answer


@dataclass(frozen=True)
class Result:
    """The value of a request that generates no text."""

    value: Any


Event = TextDelta | Finished | Result | Exception


@dataclass(eq=False)
class RequestHandle:
    """One request.

    Attributes:
        name: unique, without any content of the request.
        events: read on the HTTP loop.
        over: nobody waits any more; the models' thread reads it at every step.
    """

    name: str = field(default_factory=lambda: f"r{next(_numbers)}")
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    over: bool = False


@dataclass(frozen=True)
class Response:
    """One response of a request, to be made.

    Attributes:
        handle: of the request.
        index: which of the request's responses this is.
        prompt: what is answered.
        method: a guide or strategy.
        config: how samples are drawn, and the longest response.
        first: number of the first sample's draws.
        stream: whether text is told as it grows.
        top: how many of the likeliest tokens are told with each; None: nothing is told of them.
    """

    handle: RequestHandle
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
        self._events: list[tuple[RequestHandle, Event]] = []

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say where events go."""
        self._loop = loop

    def put(self, handle: RequestHandle, event: Event) -> None:
        """Hand over an event, with what else comes in this turn of the models' loop: waking the
        other one costs more than an event."""
        if handle.over:
            return
        if not self._events:
            asyncio.get_running_loop().call_soon(self._flush)
        self._events.append((handle, event))

    def _flush(self) -> None:
        assert self._loop is not None, "open() first"
        events, self._events = self._events, []
        self._loop.call_soon_threadsafe(_deliver, events)


def _deliver(events: Iterable[tuple[RequestHandle, Event]]) -> None:
    for handle, event in events:
        handle.events.put_nowait(event)
