"""Data passed between the thread that answers HTTP and the one that owns the models.

A `RequestHandle` stands for one request. The models' thread puts `Event`s into it, and so does the
HTTP side when the client disconnects or the request times out; an exception ends the request.
"""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.sampling import TokenLogprob
from rewardsteer.records import Cost

_numbers = itertools.count()


@dataclass(frozen=True)
class Answer:
    """One response.

    Attributes:
        text: without the stop string, unless the request asked to include it.
        token_ids: all generated tokens, end-of-text included.
        finish_reason: ``stop`` or ``length``.
        stop_reason: the string, or the token other than end-of-text, that stopped it.
        cost: over all samples that the method drew.
        reward: of the response, where the method chose by it.
        logprobs: log-probabilities of the tokens, if requested.
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
    """A method's outcome as an `Answer`."""
    sample = outcome.sample
    reason = sample.stop_reason
    if isinstance(reason, int) and reason not in sample.config.stop_token_ids:
        # As in vLLM, end-of-text is not named as the reason.
        reason = None
    return Answer(
        sample.text, list(sample.token_ids), sample.finish_reason or "length", cost,
        outcome.reward, list(sample.logprobs), reason,
    )


@dataclass(frozen=True)
class TextDelta:
    """New text of a response with its tokens, and their log-probabilities if requested."""

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
        over: the client no longer waits; the models' thread checks it at every step.
    """

    name: str = field(default_factory=lambda: f"r{next(_numbers)}")
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    over: bool = False


@dataclass(frozen=True)
class Response:
    """One response to generate for a request.

    Attributes:
        index: number of this response in the request.
        config: sampling settings and the longest response.
        first: index of the first sample, from which draws are seeded.
        stream: whether text is sent while it grows.
        top: number of likeliest tokens returned with each token; None: no log-probabilities.
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
        """Maximum number of its rows at a time."""
        return int(getattr(self.method, "samples", 1))


class Outbox:
    """Events from the models' thread to the HTTP loop, handed over together."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: list[tuple[RequestHandle, Event]] = []

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the loop that receives events."""
        self._loop = loop

    def put(self, handle: RequestHandle, event: Event) -> None:
        """Queue an event. All events of a turn of the models' loop are handed over together,
        because waking the HTTP loop costs more than an event."""
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
