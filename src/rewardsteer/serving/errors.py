"""What a client is told when a request cannot be answered, in OpenAI's form. No torch here."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel


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
        status: of HTTP.
        message: for the client; never logged, for it may speak of what he sent.
        param: the field of the request that is meant.
        code: for programs.
        retry_after: seconds after which to try again.
        more: headers.
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
        """As JSON."""
        kind = _KINDS.get(self.status, "api_error" if self.status >= 500 else _BAD)
        body = ErrorBody(message=self.message, type=kind, param=self.param, code=self.code)
        return {"error": body.model_dump()}

    def encoded(self) -> bytes:
        """The body's bytes; whatever a client sent can be told back in them."""
        return json.dumps(self.body()).encode()

    def headers(self) -> Mapping[str, str]:
        """What the status asks for."""
        headers = dict(self._more)
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


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
    """504: the time of a request is over."""
    return ApiError(
        504, f"The request took longer than {seconds:g} seconds and was given up; ask for fewer "
        "tokens.", code="timeout",
    )


def failed() -> ApiError:
    """500: our fault."""
    return ApiError(
        500, "The server failed at this request; its log says where.", code="internal_error"
    )
