"""The application: routes to what answers them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from rewardsteer import __version__
from rewardsteer.errors import RewardsteerError
from rewardsteer.serving import generation, inspecting, pooling, scoring, wording
from rewardsteer.serving.errors import ApiError, ErrorReply, bad_request, failed
from rewardsteer.serving.failures import as_api_error
from rewardsteer.serving.guard import LEFT, Guard
from rewardsteer.serving.page import add_page
from rewardsteer.serving.protocol import LoopTrouble
from rewardsteer.serving.replies import (
    ChatReply,
    CompletionReply,
    Health,
    InfinityClassReply,
    ModelData,
    ModelList,
    PoolingReply,
    RemoteRewardReply,
    RerankReply,
    RewardsReply,
    TokenizeReply,
)
from rewardsteer.serving.reward_schema import (
    PairsRequest,
    RemoteRewardRequest,
    RerankRequest,
    RewardsRequest,
    TextsRequest,
    TokenizeRequest,
)
from rewardsteer.serving.schema import ChatRequest, CompletionRequest, InspectRequest
from rewardsteer.serving.service import Service
from rewardsteer.serving.waiting import ClientLeft

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": meaning}
    for status, meaning in {
        400: "The request is wrong.", 401: "The API key is missing or wrong.",
        404: "No such model.", 408: "The body took too long.", 413: "The body is too large.",
        415: "The body is no JSON.", 429: "The queue is full; Retry-After says when to try again.",
        500: "The server failed.", 503: "The server is ending or out of memory.",
        504: "The request took too long.",
    }.items()
}
# Names of fields, one of which may have been meant by an unknown one.
_KNOWN = sorted({
    name for kind in (CompletionRequest, ChatRequest, RewardsRequest, InspectRequest, TextsRequest,
                      PairsRequest, RerankRequest)
    for name in kind.model_fields
})
_STREAMED: dict[int | str, dict[str, Any]] = {
    **_ERRORS, 200: {"content": {"text/event-stream": {}}},
}


def create_app(
    service: Service, *, api_key: str | None = None, hosts: Collection[str] | None = None
) -> Guard:
    """The application around a service, which starts and stops with it.

    Args:
        service: what answers.
        api_key: that clients must send; None: none.
        hosts: names under which the server may be called; None: any.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(LoopTrouble())
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="rewardsteer", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Reward-guided generation and rewards.",
    )
    _answer_errors(app)
    _add_models(app, service)
    _add_generation(app, service)
    _add_rewards(app, service)
    _add_pooling(app, service)
    guard = Guard(app, service.limits, service.metrics, api_key=api_key, hosts=hosts)
    _add_state(app, service, guard)
    add_page(app, service, needs_key=api_key is not None)
    return guard


def _answer_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    def told(error: ApiError) -> Response:
        return Response(
            error.encoded(), error.status, error.headers(), media_type="application/json"
        )

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return told(error)

    @app.exception_handler(RewardsteerError)
    async def unfit(request: Request, error: RewardsteerError) -> Response:
        return told(as_api_error(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        errors = [{**one, "loc": one["loc"][1:]} for one in error.errors()]
        if errors[0]["type"] == "json_invalid":
            why = errors[0].get("ctx", {}).get("error", "it cannot be read")
            at = errors[0]["loc"][0] if errors[0]["loc"] else 0
            return told(bad_request(f"The body is not valid JSON: {why}, at character {at}."))
        return told(bad_request(*wording.told(errors, error.body, _KNOWN)))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        message = str(error.detail)
        if error.status_code == 404:
            message = "There is no such route; docs/serving.md and /openapi.json list them."
        elif error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            message = f"This route is not asked that way; use {allowed or 'another method'}."
        return told(ApiError(error.status_code, message, more=error.headers or {}))

    @app.exception_handler(ClientLeft)
    async def left(request: Request, error: ClientLeft) -> Response:
        return Response(status_code=LEFT)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return told(failed())


def _add_models(app: FastAPI, service: Service) -> None:
    served, created = service.served, int(time.time())
    models = []
    if served.engine is not None:
        models.append(ModelData(
            id=served.name, created=created, kind="policy", fingerprint=served.fingerprint,
            methods=served.methods,
        ))
    if served.scorer is not None:
        models.append(ModelData(
            id=served.reward_name, created=created, kind="reward",
            fingerprint=served.scorer.fingerprint, goals=sorted(served.goals),
        ))
    models += [
        ModelData(
            id=f"{served.name}@{method}", created=created, kind="policy",
            fingerprint=served.fingerprint, methods=[method],
        )
        for method in (served.methods if served.engine is not None else ())
    ]

    @app.get("/v1/models", responses=_ERRORS)
    async def list_models() -> ModelList:
        """The models of this server."""
        return ModelList(data=models)

    @app.get("/v1/models/{model:path}", responses=_ERRORS)
    async def one_model(model: str) -> ModelData:
        """One of them."""
        for known in models:
            if known.id == model:
                return known
        raise ApiError(404, "There is no such model here; GET /v1/models lists them.",
                       param="model", code="model_not_found")


def _add_generation(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions", response_model=CompletionReply, responses=_STREAMED)
    async def completions(request: CompletionRequest, http: Request) -> Any:
        """Continue prompts."""
        return await generation.complete(service, request, http)

    @app.post("/v1/chat/completions", response_model=ChatReply, responses=_STREAMED)
    async def chat_completions(request: ChatRequest, http: Request) -> Any:
        """Answer a conversation."""
        return await generation.chat(service, request, http)


def _add_rewards(app: FastAPI, service: Service) -> None:
    @app.post("/v1/rewards", responses=_ERRORS)
    async def rewards(request: RewardsRequest, http: Request) -> RewardsReply:
        """Rewards of completions, whole and token by token."""
        return await scoring.rewards(service, request, http)

    @app.post("/get_reward", responses=_ERRORS)
    async def get_reward(request: RemoteRewardRequest, http: Request) -> RemoteRewardReply:
        """Rewards as trainers ask for them."""
        return await scoring.remote_rewards(service, request, http)

    @app.post("/v1/score/evaluation", responses=_ERRORS, include_in_schema=False)
    async def score_evaluation(request: RemoteRewardRequest, http: Request) -> RemoteRewardReply:
        """`get_reward` under a name that OpenRLHF's servers have too."""
        return await scoring.remote_rewards(service, request, http)

    @app.post("/v1/inspect", responses=_ERRORS)
    async def inspect(request: InspectRequest, http: Request) -> dict[str, Any]:
        """A completion token by token, under policy, reward model and both."""
        return await inspecting.inspect(service, request, http)


def _add_pooling(app: FastAPI, service: Service) -> None:
    """vLLM's and Infinity's forms, under all names that clients know."""

    def under(*paths: str) -> Callable[[Any], Any]:
        def add(function: Any) -> Any:
            for path in paths:
                app.post(path, responses=_ERRORS, include_in_schema=path == paths[0])(function)
            return function

        return add

    @under("/classify", "/v1/classify")
    async def classify(
        request: TextsRequest, http: Request
    ) -> PoolingReply | InfinityClassReply:
        """Rewards as probabilities of the only class."""
        return await pooling.classify(service, request, http)

    @under("/pooling", "/v1/pooling")
    async def pool(request: TextsRequest, http: Request) -> PoolingReply:
        """Rewards of written texts, or of a conversation."""
        return await pooling.pool(service, request, http)

    @under("/score", "/v1/score")
    async def score(request: PairsRequest, http: Request) -> PoolingReply:
        """Rewards of prompts with completions."""
        return await pooling.score_pairs(service, request, http)

    @under("/rerank", "/v1/rerank", "/v2/rerank")
    async def rerank(request: RerankRequest, http: Request) -> RerankReply:
        """Completions of a prompt, highest reward first."""
        return await pooling.rerank(service, request, http)

    @under("/tokenize")
    async def tokenize(request: TokenizeRequest, http: Request) -> TokenizeReply:
        """Token ids of a prompt as the policy reads it."""
        return await generation.tokenize(service, request, http)


def _add_state(app: FastAPI, service: Service, guard: Guard) -> None:
    @app.get("/health", responses={503: {"model": Health}}, include_in_schema=False)
    @app.get("/healthz", responses={503: {"model": Health}})
    async def health() -> JSONResponse:
        """Whether requests are taken."""
        status = "draining" if guard.draining else "ok" if service.worker.alive else "failed"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
