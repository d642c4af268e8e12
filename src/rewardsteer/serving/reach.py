"""Who may reach the server, and where it listens. Imports nothing heavy: a command checks this
before anything loads."""

import ipaddress
import os
import socket
from pathlib import Path

from rewardsteer.errors import ConfigError

API_KEY = "REWARDSTEER_API_KEY"
_SHORTEST_KEY = 16


def read_key(file: Path | None) -> str | None:
    """The API key from a file, or else from the environment; None where neither gives one.

    Raises:
        ConfigError: unreadable, empty, short, or with characters that no header can carry.
    """
    if file is not None:
        where = str(file)
        try:
            key = file.read_text(encoding="utf-8-sig").strip()
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
            f"environment variable {API_KEY}), or allow everybody, allow_anyone=True "
            "(--allow-anyone)."
        )


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes a free one.

    Raises:
        ConfigError: the address cannot be had.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"A port is from 0 to 65535, got {port}; choose another (--port).")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise ConfigError(
            f"The address {host}, port {port}, cannot be used: {error.strerror}; choose another "
            "host or port (--host, --port)."
        ) from error
    return found
