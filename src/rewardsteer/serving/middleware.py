"""Middleware before the application: authorization, size of requests, and the log.

The log never contains what a client sent: it names the route in place of the path, and the kind of
an error. A body is read completely, within limits of size and time, before the application runs.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.errors import ApiError, ending, failed, log_failure
from rewardsteer.serving.metrics import Metrics
from rewardsteer.serving.service import BEGAN

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

# No key is needed for health, nor for the page, which holds no data.
_OPEN = ("/healthz", "/health", "/")
# These are answered until the server has ended.
_ALWAYS = ("/healthz", "/health", "/metrics")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
# Status in the log for a client that left before the answer, as OpenAI's.
LEFT = 499


class AccessMiddleware:
    """An ASGI application around the application.

    Args:
        api_key: key for everything but health and page; None: no key.
        hosts: names under which the server may be called; None: any. Without a key this keeps a
            foreign web page from reaching a server on its reader's machine under a name of its own.

    Attributes:
        routes: the paths of the application, for the log and the metrics.
        draining: whether new requests are refused.
        in_flight: number of accepted requests that are not answered yet.
        accepted: number of all accepted requests.
    """

    def __init__(
        self, app: App, limits: ServingConfig, metrics: Metrics, *, api_key: str | None = None,
        hosts: Collection[str] | None = None,
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._key = None if api_key is None else api_key.encode()
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self.routes: Collection[str] = ()
        self.draining = False
        self.in_flight = self.accepted = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, answer = time.perf_counter(), _Answer(send)
        scope[BEGAN] = time.monotonic()
        # The server leaves the body out.
        read = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self._admit(read, receive, answer)
        except ApiError as error:
            # The connection closes instead of waiting for the rest of a body.
            answer.close = answer.close or error.status in (408, 413)
            await answer.refuse(error)
        except Exception as error:
            log_failure(error)
            await answer.refuse(failed())
        finally:
            route = self._route(scope["path"])
            # A client may invent names of methods.
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            seconds = time.perf_counter() - began
            status = answer.status or LEFT
            self._metrics.count(route, status, seconds)
            logger.info("%s %s %d %.0f ms", method, route, status, 1000 * seconds)

    async def _admit(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        headers = dict(scope["headers"])
        self._check_host(headers)
        self._check_key(scope["path"], headers)
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json":
                # A web page of another site may send other types without a preflight request.
                raise ApiError(415, "Expected the header 'Content-Type: application/json'.")
        body = await self._body(headers, receive)
        if body is None:
            return
        if self.draining and scope["path"] not in _ALWAYS:
            answer.close = True
            raise ending()
        given = False

        async def replay() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        if scope["path"] in _ALWAYS:
            await self._app(scope, replay, answer.send)
            return
        self.in_flight += 1
        self.accepted += 1
        try:
            await self._app(scope, replay, answer.send)
        finally:
            self.in_flight -= 1

    def _route(self, path: str) -> str:
        """The route's name, without any text of the client."""
        if path.startswith("/v1/models/"):
            return "/v1/models/{model}"
        return path if path in self.routes else "other"

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        if self._hosts is None:
            return
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.split(":")[0]
        if name not in self._hosts:
            raise ApiError(
                403, "This server does not answer under that host name; call it by the address it "
                "was started with.", code="host_not_allowed",
            )

    def _check_key(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._key is None or path in _OPEN:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        # Compared in constant time, which does not reveal how much was right.
        if not hmac.compare_digest(given.strip(), self._key) or scheme.lower() != b"bearer":
            raise ApiError(
                401, "Expected the server's API key in the header 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
            )

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """The whole body; None when the client left.

        Raises:
            ApiError: 413, too large; 408, too slow.
        """
        most = self._limits.max_body_bytes
        told = headers.get(b"content-length", b"")
        if told.isdigit() and int(told) > most:
            raise _too_large(most)
        try:
            return await asyncio.wait_for(_read(receive, most), self._limits.body_seconds)
        except asyncio.TimeoutError:
            raise ApiError(408, "The request's body took too long to come.") from None


async def _read(receive: Receive, most: int) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return bytes(body)


class _Answer:
    """The reply to a request: it adds our headers, and sends an error only before anything else."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self.close = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            named = {name.lower() for name, _ in message["headers"]}
            more = [one for one in _HEADERS if one[0] not in named]
            if self.close:
                more.append((b"connection", b"close"))
            message = {**message, "headers": [*message["headers"], *more]}
        await self._send(message)

    async def refuse(self, error: ApiError) -> None:
        if self.status is not None:
            return
        headers = [(name.lower().encode(), value.encode())
                   for name, value in error.headers().items()]
        body = error.encoded()
        headers += [(b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode())]
        await self.send(
            {"type": "http.response.start", "status": error.status, "headers": headers}
        )
        await self.send({"type": "http.response.body", "body": body})


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The request's body is larger than {most} bytes.", code="body_too_large")
