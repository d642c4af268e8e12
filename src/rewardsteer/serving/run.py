"""Running the server: who may reach it, and how it ends."""

import ipaddress
import logging
import os
import socket
import time
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rewardsteer.errors import ConfigError
from rewardsteer.serving.app import create_app
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.guard import Guard
from rewardsteer.serving.protocol import connections_allowed, protocol_class
from rewardsteer.serving.service import Service

logger = logging.getLogger(__name__)

API_KEY = "REWARDSTEER_API_KEY"
_SHORTEST_KEY = 16
# Connections that are still open after the last answer get so long to close.
_CLOSING_SECONDS = 5
# Clients' pools drop idle connections after 5 seconds. A server that does so at the same time cuts
# off requests that are just on their way.
_IDLE_SECONDS = 30


def read_key(file: Path | None) -> str | None:
    """The API key from a file, or else from the environment; None where neither gives one.

    Raises:
        ConfigError: unreadable, empty, short, or with characters that no header can carry.
    """
    if file is not None:
        where = str(file)
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The API key file {file} cannot be read: {error}.") from error
    elif API_KEY in os.environ:
        where, key = f"the environment variable {API_KEY}", os.environ[API_KEY].strip()
    else:
        return None
    if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"The API key in {where} must be at least {_SHORTEST_KEY} printable ASCII characters "
            "without spaces."
        )
    return key


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_reach(host: str, key: str | None, *, allow_anyone: bool) -> None:
    """Raise `ConfigError` where others could use the server without a key."""
    if key is None and not is_loopback(host) and not allow_anyone:
        raise ConfigError(
            f"On {host} others can reach the server; give it an API key (--api-key-file or the "
            f"environment variable {API_KEY}), or allow everybody with --allow-anyone."
        )


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes a free one.

    Raises:
        ConfigError: the address cannot be had.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"A port is from 0 to 65535, got {port}; choose another with --port.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise ConfigError(
            f"The address {host}, port {port}, cannot be used: {error.strerror}; choose another "
            "with --host or --port."
        ) from error
    return found


def run(service: Service, place: socket.socket, *, host: str, key: str | None) -> None:
    """Serve until a signal says to end, and then until what was accepted is answered.

    Args:
        service: models, queue and figures.
        place: a bound socket.
        host: what it was bound to.
        key: the API key; None: none.
    """
    # A server for this machine alone answers to its names, one with a key to any.
    names = {"localhost", "127.0.0.1", "::1", host}
    hosts = names if key is None and is_loopback(host) else None
    guard = create_app(service, api_key=key, hosts=hosts)
    config = uvicorn.Config(
        guard, log_config=None, access_log=False, server_header=False, lifespan="on",
        timeout_graceful_shutdown=_CLOSING_SECONDS, timeout_keep_alive=_IDLE_SECONDS,
        http=protocol(service.limits),
    )
    port = place.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    logger.info("serving at http://%s:%d", shown, port)
    Server(config, guard, service.limits.drain_seconds).run(sockets=[place])
    logger.info("ended; %d requests were accepted", guard.accepted)


def protocol(limits: ServingConfig) -> type[H11Protocol]:
    """How connections are served, within the limits."""
    return protocol_class(limits.header_seconds, connections_allowed(limits.connections))


class Server(uvicorn.Server):
    """Ends in two steps: at the first signal new requests are refused with 503 and those that were
    accepted are finished; then, or at a second signal, the doors close."""

    def __init__(self, config: uvicorn.Config, guard: Guard, drain_seconds: float) -> None:
        super().__init__(config)
        self._guard, self._drain_seconds = guard, drain_seconds
        self._until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        if self._guard.draining:
            super().handle_exit(sig, frame)
            return
        self._guard.draining = True
        self._until = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        if self._guard.draining:
            late = time.monotonic() > self._until
            if late and self._guard.in_flight:
                logger.warning("%d requests were not finished in time", self._guard.in_flight)
            if late or not self._guard.in_flight:
                return True
        return bool(await super().on_tick(counter))
