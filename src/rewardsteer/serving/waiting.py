"""Waiting for what the models' thread says of a request, no longer than the client does."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from rewardsteer.serving.errors import ApiError, too_slow
from rewardsteer.serving.failures import as_api_error
from rewardsteer.serving.metrics import Metrics
from rewardsteer.serving.tickets import Done, Failed, Gone, Late, Piece, Ticket, Value
from rewardsteer.serving.worker import Worker

# Where a request's scope says when it came, on the clock of `time.monotonic`.
BEGAN = "rewardsteer.began"
# A stream that says nothing for so long sends a comment.
PING_SECONDS = 15.0


class ClientLeft(Exception):  # noqa: N818
    """Nobody waits for the answer any more."""


async def listen(
    http: Request, ticket: Ticket, worker: Worker, metrics: Metrics, seconds: float,
    left: float,
) -> AsyncGenerator[Piece | Done | Value, None]:
    """Events of a request that was queued; whoever closes this gives the request up.

    Args:
        http: the request, its body read.
        ticket: what it waits with.
        worker: told when nobody waits any more.
        metrics: told of clients that left.
        seconds: that a request may take, or wait for its next text.
        left: of these, what it has not spent before.

    Raises:
        ApiError: it failed or took too long.
        ClientLeft: the client hung up.
    """
    loop = asyncio.get_running_loop()
    late = loop.call_later(left, ticket.events.put_nowait, Late())
    watcher = loop.create_task(_watch(http, ticket))
    try:
        while True:
            event = await ticket.events.get()
            if isinstance(event, Gone):
                metrics.client_left()
                raise ClientLeft
            if isinstance(event, Late):
                raise too_slow(seconds)
            if isinstance(event, Failed):
                raise as_api_error(event.error)
            if isinstance(event, Piece):
                # A stream is late when nothing comes, not because much does.
                late.cancel()
                late = loop.call_later(seconds, ticket.events.put_nowait, Late())
            yield event
    finally:
        late.cancel()
        watcher.cancel()
        worker.give_up(ticket)


async def _watch(http: Request, ticket: Ticket) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await http.receive())["type"] != "http.disconnect":
            pass
        ticket.events.put_nowait(Gone())


class EventStream(Response):
    """Server-sent events; an error after the first of them is one of them.

    Args:
        lines: the events' data.
        seconds: within which a reader must take what is sent.
        closed: called in the end, however it comes.
    """

    def __init__(
        self, lines: AsyncGenerator[str, None], seconds: float, closed: Callable[[], None]
    ) -> None:
        super().__init__(media_type="text/event-stream")
        # How much will come is not known.
        del self.headers["content-length"]
        self._lines, self._seconds, self._closed = lines, seconds, closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what comes until there is no more, or nobody reads."""
        try:
            await self._send(send)
        except ClientLeft:
            pass
        finally:
            self._closed()

    async def _send(self, send: Send) -> None:
        async def put(message: Message) -> None:
            await asyncio.wait_for(send(message), self._seconds)

        async def line(text: str) -> None:
            body = f"data: {text}\n\n".encode()
            await put({"type": "http.response.body", "body": body, "more_body": True})

        await put({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with contextlib.aclosing(self._lines):
                while (text := await self._next(put)) is not None:
                    await line(text)
        except ApiError as error:
            await line(error.encoded().decode())
        await put({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self, put: Callable[[Message], Awaitable[None]]) -> str | None:
        """The next event's data; None: there is no more. Comments are sent while there is none, so
        that nobody between takes the connection for dead."""
        coming = asyncio.ensure_future(anext(self._lines, None))
        try:
            while not (await asyncio.wait({coming}, timeout=PING_SECONDS))[0]:
                await put({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
            return coming.result()
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.wait({coming})
