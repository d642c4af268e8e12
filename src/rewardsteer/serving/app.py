"""The HTTP application: its routes and the functions that answer them."""

import asyncio
import contextlib
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.routing import Route

from rewardsteer import __version__
from rewardsteer.reports.inspector import live_page
from rewardsteer.reports.page import policy_of
from rewardsteer.serving import generation, inspecting, pooling, scoring
from rewardsteer.serving.error_handlers import answer_errors
from rewardsteer.serving.errors import ApiError, ErrorReply
from rewardsteer.serving.middleware import AccessMiddleware
from rewardsteer.serving.protocol import LoopTrouble
from rewardsteer.serving.replies import (
    ChatReply,
    CompletionReply,
    Health,
    ModelData,
    ModelList,
    TokenizeReply,
)
from rewardsteer.serving.reward_replies import (
    InfinityClassReply,
    PoolingReply,
    RemoteRewardReply,
    RerankReply,
    RewardsReply,
)
from rewardsteer.serving.service import Service

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": meaning}
    for status, meaning in {
        400: "A field is wrong, or a limit is exceeded.", 401: "The API key is missing or wrong.",
        404: "No such model.", 408: "The body arrived too slowly.", 413: "The body is too large.",
        415: "The body is not JSON.", 429: "The queue is full; see Retry-After.",
        500: "The server failed.", 503: "The server is stopping or out of memory.",
        504: "The request took too long.",
    }.items()
}
_STREAMED: dict[int | str, dict[str, Any]] = {
    **_ERRORS, 200: {"content": {"text/event-stream": {}}},
}
# Paths under which clients know a route (the first is documented), the function that answers it,
# the reply's type and what else it may answer. The functions' docstrings describe the routes.
_ROUTES: tuple[tuple[tuple[str, ...], Callable[..., Any], Any, dict[int | str, Any]], ...] = (
    (("/v1/completions",), generation.complete, CompletionReply, _STREAMED),
    (("/v1/chat/completions",), generation.chat, ChatReply, _STREAMED),
    (("/tokenize",), generation.tokenize, TokenizeReply, _ERRORS),
    (("/v1/rewards",), scoring.rewards, RewardsReply, _ERRORS),
    # OpenRLHF's servers have the second name too.
    (("/get_reward", "/v1/score/evaluation"), scoring.remote_rewards, RemoteRewardReply, _ERRORS),
    (("/v1/inspect",), inspecting.inspect, dict[str, Any], _ERRORS),
    # Forms and names of vLLM and Infinity.
    (("/classify", "/v1/classify"), pooling.classify, PoolingReply | InfinityClassReply, _ERRORS),
    (("/pooling", "/v1/pooling"), pooling.pool, PoolingReply, _ERRORS),
    (("/score", "/v1/score"), pooling.score_pairs, PoolingReply, _ERRORS),
    (("/rerank", "/v1/rerank", "/v2/rerank"), pooling.rerank, RerankReply, _ERRORS),
)


def create_app(
    service: Service, *, api_key: str | None = None, hosts: Collection[str] | None = None
) -> AccessMiddleware:
    """The application around a service. It starts and stops with the service.

    Args:
        api_key: key that clients must send; None: no key.
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
    answer_errors(app)
    _add_models(app, service)
    _add_routes(app, service)
    middleware = AccessMiddleware(
        app, service.limits, service.metrics, api_key=api_key, hosts=hosts
    )
    _add_state(app, service, middleware)
    _add_page(app, service, needs_key=api_key is not None)
    middleware.routes = {route.path for route in app.routes if isinstance(route, Route)}
    return middleware


def _add_models(app: FastAPI, service: Service) -> None:
    served, created = service.served, int(time.time())
    models = []
    if served.engine is not None:
        models.append(ModelData(
            id=served.name, created=created, kind="policy", fingerprint=served.fingerprint,
            methods=served.methods.names,
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
        for method in (served.methods.names if served.engine is not None else ())
    ]

    @app.get("/v1/models", responses=_ERRORS)
    async def list_models() -> ModelList:
        """The models of this server."""
        return ModelList(data=models)

    @app.get("/v1/models/{model:path}", responses=_ERRORS)
    async def one_model(model: str) -> ModelData:
        """One model of this server."""
        for known in models:
            if known.id == model:
                return known
        raise ApiError(404, "There is no such model here; GET /v1/models lists them.",
                       param="model", code="model_not_found")


def _add_routes(app: FastAPI, service: Service) -> None:
    for paths, answer, reply, responses in _ROUTES:
        for path in paths:
            app.post(
                path, response_model=reply, responses=responses, name=answer.__name__,
                description=inspect.cleandoc(answer.__doc__ or ""),
                include_in_schema=path == paths[0],
            )(functools.partial(answer, service))


def _add_state(app: FastAPI, service: Service, middleware: AccessMiddleware) -> None:
    @app.get("/health", responses={503: {"model": Health}}, include_in_schema=False)
    @app.get("/healthz", responses={503: {"model": Health}})
    async def health() -> JSONResponse:
        """Whether the server accepts requests."""
        status = "draining" if middleware.draining else "ok" if service.worker.alive else "failed"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI, service: Service, *, needs_key: bool) -> None:
    """Add the page, rendered once; it loads nothing and contains only names and settings."""
    served = service.served
    if why := inspecting.refusal(served):
        html = live_page([], default_method="", refusal=why)
    else:
        start = served.defaults
        html = live_page(
            served.methods.names, default_method=start.method, weight=start.weight,
            temperature=0.0 if start.mode == "greedy" else start.temperature,
            most=service.limits.max_inspect_tokens, needs_key=needs_key, goal=bool(served.goals),
        )
    # A page cannot itself restrict who embeds it in a frame.
    policy = {"Content-Security-Policy": f"{policy_of(html)}; frame-ancestors 'none'"}

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        """The token inspector."""
        return HTMLResponse(html, headers=policy)
