"""Running the server, and how it ends."""

import logging
import socket
import time
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rewardsteer.serving.app import create_app
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.middleware import AccessMiddleware
from rewardsteer.serving.protocol import connections_allowed, protocol_class
from rewardsteer.serving.reach import is_loopback
from rewardsteer.serving.service import Service

logger = logging.getLogger(__name__)

# Time limit for closing connections after the last answer.
_CLOSING_SECONDS = 5
# Clients' pools drop idle connections after 5 seconds. A server that does so at the same time cuts
# off requests that are just on their way.
_IDLE_SECONDS = 30


def run(service: Service, place: socket.socket, *, host: str, key: str | None) -> None:
    """Serve until a signal to end, then finish accepted requests.

    Args:
        place: a bound socket.
        host: the host that the socket is bound to.
        key: the API key; None: none.
    """
    # A server without a key, for this machine alone, answers only to the machine's names.
    names = {"localhost", "127.0.0.1", "::1", host}
    hosts = names if key is None and is_loopback(host) else None
    middleware = create_app(service, api_key=key, hosts=hosts)
    config = uvicorn.Config(
        middleware, log_config=None, access_log=False, server_header=False, lifespan="on",
        timeout_graceful_shutdown=_CLOSING_SECONDS, timeout_keep_alive=_IDLE_SECONDS,
        http=protocol(service.limits),
    )
    port = place.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    logger.info("serving at http://%s:%d", shown, port)
    Server(config, middleware, service.limits.drain_seconds).run(sockets=[place])
    logger.info("ended; %d requests were accepted", middleware.accepted)


def protocol(limits: ServingConfig) -> type[H11Protocol]:
    """The class of connections, with the server's limits."""
    return protocol_class(limits.header_seconds, connections_allowed(limits.connections))


class Server(uvicorn.Server):
    """Ends in two steps: at the first signal new requests are refused with 503 and accepted ones
    are finished; then, or at a second signal, the sockets close."""

    def __init__(
        self, config: uvicorn.Config, middleware: AccessMiddleware, drain_seconds: float
    ) -> None:
        super().__init__(config)
        self._middleware, self._drain_seconds = middleware, drain_seconds
        self._until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._middleware.draining:
            super().handle_exit(sig, frame)
            return
        self._middleware.draining = True
        self._until = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        if self._middleware.draining:
            late = time.monotonic() > self._until
            if late and self._middleware.in_flight:
                logger.warning("%d requests were not finished in time", self._middleware.in_flight)
            if late or not self._middleware.in_flight:
                return True
        return bool(await super().on_tick(counter))
