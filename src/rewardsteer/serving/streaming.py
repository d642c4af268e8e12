"""Server-sent events."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from rewardsteer.serving.errors import ApiError, ClientDisconnected

# Seconds without an event after which a stream sends a comment.
PING_SECONDS = 15.0


class EventStream(Response):
    """Server-sent events; an error after the first event is sent as an event.

    Args:
        lines: the events' data.
        seconds: time limit for the client to receive each part.
        closed: called at the end, however the stream ends.
    """

    def __init__(
        self, lines: AsyncGenerator[str, None], seconds: float, closed: Callable[[], None]
    ) -> None:
        super().__init__(media_type="text/event-stream")
        # The length is not known.
        del self.headers["content-length"]
        self._lines, self._seconds, self._closed = lines, seconds, closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until there is no more, or the client does not receive them."""
        try:
            with contextlib.suppress(ClientDisconnected):
                await self._send(send)
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
        """The next event's data; None: there is no more. Comments are sent while waiting, so that
        no proxy closes the connection."""
        coming = asyncio.ensure_future(anext(self._lines, None))
        try:
            while not (await asyncio.wait({coming}, timeout=PING_SECONDS))[0]:
                await put({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
            return coming.result()
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.wait({coming})
