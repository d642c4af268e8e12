"""HTTP clients of model servers. All of them use the package openai, which retries refused
connections and busy servers, respects Retry-After and keeps keys out of messages."""

import asyncio
import contextlib
import functools
import math
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rewardsteer.errors import ConfigError

S = TypeVar("S")
T = TypeVar("T")

KEY_ENV = "OPENAI_API_KEY"
RETRIES = 5  # of refused connections and of 408, 409, 429 and 5xx, after what Retry-After says
CONNECT_TIMEOUT = 10.0  # seconds
# Seconds to wait for the response about one text, and number of concurrent requests.
TIMEOUT, WORKERS = 120.0, 8
_SHOWN = 300  # characters of a server's message


def is_address(name: object) -> bool:
    """Whether a model's name is an address, not a folder or a name on the hub."""
    return str(name).startswith(("http://", "https://"))


def shown_address(url: str) -> str:
    """A server's address without a user's name and password.

    Raises:
        ConfigError: it is no address of the web.
    """
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (AttributeError, TypeError, ValueError):  # no text, or a port or host that is none
        whole = None
    if not whole:
        raise ConfigError(
            f"Expected the address of a server, such as http://127.0.0.1:8000, got {url!r}."
        )
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def check_limits(timeout: Any, concurrency: Any = 1) -> None:
    """Raise `ConfigError` unless a timeout is a positive number of seconds and the number of
    concurrent requests a whole number from 1 on."""
    numbers = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not (numbers and math.isfinite(timeout) and timeout > 0):
        raise ConfigError(f"Expected timeout= as a positive number of seconds, got {timeout!r}.")
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(
            f"Expected concurrency= as a whole number from 1 on, got {concurrency!r}."
        )


def openai_library(user: str, extra: str, instead: str) -> Any:
    """Import the package openai.

    Args:
        user: the part that needs it, as the beginning of the error message.
        extra: the extra of rewardsteer that installs it.
        instead: an alternative without it, as the end of the error message.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise ConfigError(
            f"{user} needs the package openai, which is not installed; run pip install "
            f"'rewardsteer[{extra}]', or {instead}."
        ) from error
    return openai


def open_client(
    library: Any, url: str, key_env: str, timeout: float, *, retries: int = RETRIES,
    asynchronous: bool = False,
) -> Any:
    """A client of the package openai.

    Args:
        key_env: environment variable with the key; may be unset where the server needs no key.
        timeout: seconds to wait for a whole response, also one that is streamed.

    Raises:
        ConfigError: the address or the timeout is none.
    """
    shown_address(url)
    check_limits(timeout)
    client, transport = (
        (library.AsyncOpenAI, library.DefaultAsyncHttpxClient) if asynchronous
        else (library.OpenAI, library.DefaultHttpxClient)
    )
    return client(
        base_url=url,
        # The client requires a key; servers without keys ignore it.
        api_key=os.environ.get(key_env) or "none",
        timeout=library.Timeout(timeout, connect=CONNECT_TIMEOUT),
        max_retries=retries,
        http_client=_bounded(transport, timeout)(verify=_certificates()),
    )


def _bounded(transport: Any, seconds: float) -> Any:
    """A class of HTTP clients whose whole requests take at most ``seconds``, and for which an error
    sent with status 200 is a failure (`_read_error`). The limits of httpx are on single reads,
    which a server that sends byte after byte never exceeds."""
    library: Any = sys.modules[transport.__base__.__module__]
    late = functools.partial(library.ReadTimeout, f"no whole response within {seconds:g} seconds")

    async def until(end: float, part: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(part, end - time.monotonic())
        except asyncio.TimeoutError as error:
            raise late() from error

    class Pieces(library.AsyncByteStream):
        """A streamed response's bytes."""

        def __init__(self, inner: Any, end: float) -> None:
            self._inner, self._end = inner, end
            self.aclose = inner.aclose

        async def __aiter__(self) -> AsyncIterator[bytes]:
            pieces = aiter(self._inner)
            while (piece := await until(self._end, anext(pieces, None))) is not None:
                yield piece

    class Waiting(transport):
        """Waits for a thread, which alone can be left while it reads."""

        def send(self, request: Any, **options: Any) -> Any:
            send = functools.partial(super().send, **options)
            try:
                return _read_error(in_parallel(send, [request], 1, seconds)[0])
            except Empty as error:
                raise late() from error

    class Asynchronous(transport):
        """Cancels the request."""

        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            end = time.monotonic() + seconds
            reply = await until(end, super().send(request, stream=stream, **options))
            if not stream:
                return _read_error(reply)
            reply.stream = Pieces(reply.stream, end)
            return reply

    return Asynchronous if issubclass(transport, library.AsyncClient) else Waiting


def _read_error(reply: Any) -> Any:
    """The response. One with status 200 whose body is an error object, which gateways send where
    the server behind them fails, gets the error's own status, else 500."""
    if reply.status_code == 200:
        with contextlib.suppress(ValueError, TypeError, LookupError):  # else it is no error object
            error = reply.json()["error"]
            code = error.get("code") if isinstance(error, dict) else None
            if error:
                reply.status_code = code if code in range(400, 600) else 500
    return reply


@functools.cache
def _certificates() -> ssl.SSLContext:
    """httpx's default certificates, cached because loading them takes a tenth of a second."""
    import httpx

    return httpx.create_ssl_context()


def refuses_key(library: Any, error: Exception | str) -> bool:
    return isinstance(error, library.AuthenticationError | library.PermissionDeniedError)


def in_parallel(
    ask: Callable[[S], T], about: Sequence[S], workers: int, seconds: float | None = None
) -> list[T]:
    """Results of ``ask`` in the order of ``about``, computed by threads; raises the first failure,
    and `queue.Empty` where no thread ends for ``seconds``.

    The threads are daemons: a thread that waits for a server does not keep the process alive.
    """
    found: dict[int, T] = {}
    failed: list[BaseException] = []
    numbers, ended = iter(range(len(about))), SimpleQueue[None]()
    turn = Lock()

    def work() -> None:
        try:
            while not failed:
                with turn:
                    number = next(numbers, None)
                if number is None:
                    break
                found[number] = ask(about[number])
        except BaseException as error:  # raised again in the calling thread
            failed.append(error)
        ended.put(None)

    count = min(workers, len(about))
    for _ in range(count):
        Thread(target=work, daemon=True).start()
    for _ in range(count):
        ended.get(timeout=seconds)
        if failed:
            raise failed[0]
    return [found[number] for number in range(len(about))]


def shown(error: Exception | str) -> str:
    """The server's error message, without the rest of its response."""
    message, body = str(getattr(error, "message", error)), getattr(error, "body", None)
    said = body.get("detail") if isinstance(body, dict) else body  # which openai leaves out
    if isinstance(said, str) and said not in message:
        message = f"{message} - {said}"
    text = message.strip().splitlines() or ["no reason is given"]
    return text[0][:_SHOWN].rstrip(".") + "."


def failure(
    library: Any, error: Exception | str, *, url: str, key_env: str, timeout: float, address: str,
    relief: str, key_option: str = "",
) -> ConfigError:
    """The `ConfigError` for an error of a server that ends the work.

    Args:
        error: the raised error, or a description of an invalid response.
        url, key_env, timeout: see `open_client`.
        address: the form of a correct address and name, for messages.
        relief: advice where the server is too busy.
        key_option: the option that names another environment variable.
    """
    status = getattr(error, "status_code", None)
    if refuses_key(library, error):
        told = (f"refuses the key; put a valid one into the environment variable {key_env}"
                f"{key_option}.")
    elif isinstance(error, library.APITimeoutError):
        told = (f"has not answered within {timeout:g} seconds; check that it runs, or lower the "
                "batch size or the responses' length.")
    elif isinstance(error, library.APIConnectionError):
        told = (f"cannot be reached ({error.__cause__ or error}); check the address ({address}) "
                "and that the server runs.")
    elif isinstance(error, library.NotFoundError):
        told = f"has no such path or model ({shown(error)}); check the address ({address})."
    elif status in (429, 503):
        told = f"is too busy: it has refused a request {RETRIES + 1} times; {relief}."
    else:
        told = f"does not work: {shown(error)}"
    return ConfigError(f"The server {url} {told}")
