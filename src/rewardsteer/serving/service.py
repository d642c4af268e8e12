"""Parts shared by all routes: models, queue, metrics, and the threads that tokenize."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, TypeVar

from starlette.requests import Request

from rewardsteer.errors import RewardsteerError
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.errors import ApiError, ClientDisconnected, as_api_error, too_slow
from rewardsteer.serving.handles import Finished, RequestHandle, Result, TextDelta
from rewardsteer.serving.metrics import Metrics
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.threads import TextStage
from rewardsteer.serving.worker import Worker

T = TypeVar("T")

# The key of a request's scope that holds its time of arrival, by `time.monotonic`.
BEGAN = "rewardsteer.began"


class Service:
    """A running server's parts."""

    def __init__(self, served: ServedModels, limits: ServingConfig) -> None:
        self.served, self.limits = served, limits
        self.metrics = Metrics()
        self.worker = Worker(served.engine, served.scorer, limits, drafter=served.drafter)
        # Enough for as many requests as the server has rows, however many come at once.
        self.texts = TextStage(limits.places + limits.queue)
        self.metrics.observe(self.worker, self.texts)

    def start(self) -> None:
        """Start the threads; called in the loop that will receive events."""
        self.worker.outbox.open(asyncio.get_running_loop())
        self.worker.start()

    def stop(self) -> None:
        """End all threads."""
        self.worker.close()
        self.texts.close()

    async def prepare(
        self, http: Request, texts: Iterable[str], function: Callable[[], T], param: str = "prompt"
    ) -> T:
        """The result of a function that tokenizes texts.

        Args:
            http: the request, whose time limit applies.
            texts: the texts to tokenize.
            function: called in another thread.
            param: the field of the request that holds the texts.

        Raises:
            ApiError: a text is too long, too many requests wait, the time is over, or the function
                raised an error.
        """
        characters = self.served.check_characters(texts, param)
        try:
            return await self.texts.run(
                function, characters=characters, seconds=self._left(http), of=self.limits.seconds
            )
        except RewardsteerError as error:
            raise as_api_error(error) from error

    def _left(self, http: Request) -> float:
        """Seconds until the request's time limit."""
        began = http.scope.get(BEGAN, time.monotonic())
        return max(0.0, self.limits.seconds - (time.monotonic() - began))

    async def stream_events(
        self, http: Request, handle: RequestHandle
    ) -> AsyncGenerator[TextDelta | Finished | Result, None]:
        """Events of a queued request; closing the generator cancels the request.

        Raises:
            ApiError: it failed or took too long.
            ClientDisconnected: the client closed its connection.
        """
        events, loop = handle.events, asyncio.get_running_loop()
        late = too_slow(self.limits.seconds)
        timer = loop.call_later(self._left(http), events.put_nowait, late)
        watcher = loop.create_task(_watch_disconnect(http, events))
        try:
            while True:
                event = await events.get()
                if isinstance(event, ClientDisconnected):
                    self.metrics.client_left()
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, TextDelta):
                    # In a stream the limit is for each next text, not for all of them.
                    timer.cancel()
                    timer = loop.call_later(self.limits.seconds, events.put_nowait, late)
                yield event
        finally:
            timer.cancel()
            watcher.cancel()
            self.worker.give_up(handle)

    async def result(self, http: Request, handle: RequestHandle) -> Any:
        """The value of a queued request that generates no text."""
        async with contextlib.aclosing(self.stream_events(http, handle)) as events:
            async for event in events:
                if isinstance(event, Result):
                    return event.value
        raise AssertionError("events end with a value or an error")

    def check_model(self, asked: str | None, name: str | None) -> None:
        """Raise `ApiError` 404 unless the server has this kind of model, under the name asked."""
        if name is None:
            raise ApiError(
                404, "This server was started without the kind of model that answers this.",
                code="model_not_found",
            )
        if asked is not None and asked != name:
            raise ApiError(
                404, f"There is no model {asked!r} for this here; there is {name!r}.",
                param="model", code="model_not_found",
            )


async def _watch_disconnect(http: Request, events: "asyncio.Queue[Any]") -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
    events.put_nowait(ClientDisconnected())
