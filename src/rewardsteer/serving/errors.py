"""Refusals and failures: what the client reads, in OpenAI's form, and what the log says.

No torch here.
"""

import json
import logging
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from rewardsteer.decoding.memory import out_of_memory
from rewardsteer.errors import ConfigError, DataError, MismatchError, RewardsteerError

logger = logging.getLogger(__name__)

# Stack frames that the log names for an error, from where it was raised outwards.
_PLACES = 12


class ErrorBody(BaseModel):
    """The error itself."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorBody


class ApiError(Exception):
    """A refusal or a failure.

    Args:
        message: for the client; never logged, because it may quote the request.
        param: the field of the request that is wrong.
        code: machine-readable name of the error.
        retry_after: seconds after which to try again.
        more: further headers.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        retry_after: int | None = None, more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self._more = more
        self.status, self.message = status, message
        self.param, self.code, self.retry_after = param, code, retry_after

    def body(self) -> dict[str, Any]:
        kind = _KINDS.get(self.status, "api_error" if self.status >= 500 else _BAD)
        body = ErrorBody(message=self.message, type=kind, param=self.param, code=self.code)
        return {"error": body.model_dump()}

    def encoded(self) -> bytes:
        """The body as bytes, which can quote any text of a request."""
        return json.dumps(self.body()).encode()

    def headers(self) -> Mapping[str, str]:
        headers = dict(self._more)
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


class ClientDisconnected(Exception):  # noqa: N818
    """The client closed its connection before the answer."""


_BAD = "invalid_request_error"
_KINDS = {429: "rate_limit_error", 401: "authentication_error", 503: "overloaded_error"}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400."""
    return ApiError(400, message, param=param, code=code)


def full(retry_after: int) -> ApiError:
    """429: the queue is full."""
    return ApiError(
        429, "The server has as many requests as it can hold; try again later.",
        code="queue_full", retry_after=retry_after,
    )


def ending() -> ApiError:
    """503: the server is about to end."""
    return ApiError(
        503, "The server is shutting down and takes no new requests; try another or try again "
        "later.", code="shutting_down", retry_after=5,
    )


def too_slow(seconds: float) -> ApiError:
    """504: the request exceeded its time limit."""
    return ApiError(
        504, f"The request took longer than {seconds:g} seconds and was given up; ask for fewer "
        "tokens.", code="timeout",
    )


def failed() -> ApiError:
    """500: an error of the server."""
    return ApiError(
        500, "The server failed at this request; its log says where.", code="internal_error"
    )


def upstream(error: Exception) -> Exception:
    """The error for a client when a server behind this one failed, without its address."""
    if not isinstance(error, ConfigError):
        return error
    return ApiError(
        502, "The server that computes the rewards does not answer as it should; try again later.",
        code="upstream_error",
    )


def log_failure(error: BaseException) -> None:
    """Log where an error was raised. Its message may quote a user's text, so only its type and the
    places in the code are logged."""
    places = traceback.StackSummary.extract(
        traceback.walk_tb(error.__traceback__), lookup_lines=False
    )
    innermost = list(reversed(places))[:_PLACES]
    where = " < ".join(f"{place.filename}:{place.lineno} ({place.name})" for place in innermost)
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    logger.error("%s at %s", name, where)


def is_fatal(error: BaseException) -> bool:
    """Whether the accelerator's state is damaged, so that no later result can be trusted."""
    if out_of_memory(error):
        return False
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


def as_api_error(error: Exception) -> ApiError:
    """The error for a client when our code raised one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ConfigError | DataError | MismatchError):
        return bad_request(str(error))
    if out_of_memory(error):
        return ApiError(
            503, "The server ran out of memory at this request; ask for fewer or shorter "
            "responses, or try again later.", code="out_of_memory", retry_after=5,
        )
    if isinstance(error, RewardsteerError):
        return ApiError(500, str(error), code="model_error")
    return failed()
