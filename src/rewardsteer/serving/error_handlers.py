"""Every error of the HTTP application in OpenAI's form."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from rewardsteer.errors import RewardsteerError
from rewardsteer.serving import wording
from rewardsteer.serving.errors import (
    ApiError,
    ClientDisconnected,
    as_api_error,
    bad_request,
    failed,
)
from rewardsteer.serving.middleware import LEFT
from rewardsteer.serving.pooling_schema import PairsRequest, RerankRequest, TextsRequest
from rewardsteer.serving.reward_schema import RewardsRequest
from rewardsteer.serving.schema import ChatRequest, CompletionRequest, InspectRequest

# Field names, suggested where a request has an unknown one.
_KNOWN = sorted({
    name for kind in (CompletionRequest, ChatRequest, RewardsRequest, InspectRequest, TextsRequest,
                      PairsRequest, RerankRequest)
    for name in kind.model_fields
})


def answer_errors(app: FastAPI) -> None:
    """Send every error in OpenAI's form."""

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return _reply(error)

    @app.exception_handler(RewardsteerError)
    async def unfit(request: Request, error: RewardsteerError) -> Response:
        return _reply(as_api_error(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return _reply(_malformed(error))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return _reply(_unknown(error))

    @app.exception_handler(ClientDisconnected)
    async def left(request: Request, error: ClientDisconnected) -> Response:
        return Response(status_code=LEFT)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return _reply(failed())


def _reply(error: ApiError) -> Response:
    return Response(error.encoded(), error.status, error.headers(), media_type="application/json")


def _malformed(error: RequestValidationError) -> ApiError:
    errors = [{**one, "loc": one["loc"][1:]} for one in error.errors()]
    if errors[0]["type"] == "json_invalid":
        why = errors[0].get("ctx", {}).get("error", "it cannot be read")
        at = errors[0]["loc"][0] if errors[0]["loc"] else 0
        return bad_request(f"The body is not valid JSON: {why}, at character {at}.")
    if errors[0]["type"] == "missing" and not errors[0]["loc"]:
        return bad_request("The body is empty; expected a JSON object.")
    return bad_request(*wording.told(errors, error.body, _KNOWN))


def _unknown(error: HTTPException) -> ApiError:
    message, headers = str(error.detail), error.headers or {}
    if error.status_code == 400:
        # Raised while the body is parsed, for what Python's parser does not take.
        message = "The body is not valid JSON: it is nested too deeply, or a number is too long."
    elif error.status_code == 404:
        message = "There is no such route; docs/serving.md and /openapi.json list them."
    elif error.status_code == 405:
        allowed = headers.get("Allow") or "another method"
        message = f"This route is not asked that way; use {allowed}."
    return ApiError(error.status_code, message, more=headers)
