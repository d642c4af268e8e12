"""What all routes share: models, queue, figures, and the thread that reads texts."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from rewardsteer.errors import RewardsteerError
from rewardsteer.serving.batcher import Batcher
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.errors import ApiError
from rewardsteer.serving.failures import as_api_error
from rewardsteer.serving.metrics import Metrics
from rewardsteer.serving.served import Served
from rewardsteer.serving.tickets import Done, Piece, Ticket, Value
from rewardsteer.serving.waiting import listen

T = TypeVar("T")


class Service:
    """A running server's parts.

    Args:
        served: the models.
        limits: of the server.
    """

    def __init__(self, served: Served, limits: ServingConfig) -> None:
        self.served, self.limits = served, limits
        self.metrics = Metrics()
        self.batcher = Batcher(
            served.engine, served.scorer, limits, served.guide_of, served.text_of
        )
        self.metrics.watch(self.batcher)
        # One thread: long texts do not hold the loop up, and tokenizers are used one at a time.
        self._texts = ThreadPoolExecutor(1, thread_name_prefix="texts")

    def start(self) -> None:
        """Begin to work; called in the loop that will wait for events."""
        self.batcher.outbox.open(asyncio.get_running_loop())
        self.batcher.start()

    def stop(self) -> None:
        """End both threads."""
        self.batcher.close()
        self._texts.shutdown(wait=True, cancel_futures=True)

    async def prepare(self, function: Callable[[], T]) -> T:
        """What a function that reads texts returns.

        Raises:
            ApiError: what the function raised, as a client is told of it.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._texts, function)
        except RewardsteerError as error:
            raise as_api_error(error) from error

    def listen(
        self, http: Request, ticket: Ticket
    ) -> AsyncGenerator[Piece | Done | Value, None]:
        """Events of a request that was queued; see `rewardsteer.serving.waiting.listen`."""
        return listen(http, ticket, self.batcher, self.metrics, self.limits.seconds)

    async def value(self, http: Request, ticket: Ticket) -> Any:
        """The value that a queued request comes to."""
        events = self.listen(http, ticket)
        try:
            async for event in events:
                if isinstance(event, Value):
                    return event.value
        finally:
            await events.aclose()
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
