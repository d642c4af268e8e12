"""Connections: their maximum number, and time limits for the headers of requests.

uvicorn bounds neither: clients that open connections and send no headers, or send them byte by
byte, would keep all others out.
"""

import asyncio
import logging
import sys
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from rewardsteer.serving.errors import log_failure

logger = logging.getLogger(__name__)

# Files that the process needs besides connections: models, logs, libraries.
_OTHER_FILES = 64
# At most one line of log in this many seconds for each kind of failure outside requests.
_QUIET_SECONDS = 10.0


def connections_allowed(wanted: int) -> int:
    """Connections that the system's limit of open files leaves room for."""
    if sys.platform == "win32":
        return wanted
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, files - _OTHER_FILES))


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with bounds.

    Attributes:
        header_seconds: time limit for a request's headers, from the opening of the connection or
            the first header byte of a later request.
        most: maximum number of connections; beyond it the oldest idle connection is closed, or, if
            there is none, the new one.
        waiting_since: when the connection became idle; None: it has a request to answer.
    """

    header_seconds = 10.0
    most = 1024
    waiting_since: float | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.most and not self._close_oldest():
            transport.close()
            # What uvicorn calls later finds a connection that is over.
            self.transport = transport
            return
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self.flow is None:
            return
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_waiting()
        elif self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE:
            # Headers have begun; those of a request before are answered.
            self._wait()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """An answer was sent; uvicorn's keep-alive time begins."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
            self.waiting_since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self.flow is not None:
            super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None:
            self.waiting_since = time.monotonic()
            self._timer = self.loop.call_later(self.header_seconds, self._late)

    def _stop_waiting(self) -> None:
        self.waiting_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _close_oldest(self) -> bool:
        """Close the oldest idle connection; whether there was one."""
        idle: list[tuple[float, Any]] = [
            (one.waiting_since, one) for one in self.connections
            if isinstance(one, BoundedProtocol) and one.waiting_since is not None
        ]
        if not idle:
            return False
        _, oldest = min(idle, key=lambda pair: pair[0])
        oldest.waiting_since = None
        # Its place is free now, before the loop closes it.
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True


def protocol_class(header_seconds: float, connections: int) -> type[BoundedProtocol]:
    """The protocol with these bounds; uvicorn makes its objects itself."""
    bounds = {"header_seconds": header_seconds, "most": connections}
    return type("Protocol", (BoundedProtocol,), bounds)


class LoopTrouble:
    """Logs failures outside requests, such as running out of files: one line of each kind in some
    seconds, however many there are."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        kind = type(error).__name__ if error is not None else "no exception"
        now = time.monotonic()
        if now - self._told.get(kind, -_QUIET_SECONDS) < _QUIET_SECONDS:
            return
        self._told[kind] = now
        if error is None:
            logger.error("the event loop reported a failure without an exception")
        else:
            log_failure(error)
