"""Routes of vLLM and Infinity that return rewards: classification, pooling, scoring, reranking.

A pair (a query with a document, ``text_1`` with ``text_2``) is a prompt with its completion.
"""

import math
import secrets
import time
from typing import Any

from starlette.requests import Request

from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.pooling_schema import PairsRequest, RerankRequest, TextsRequest
from rewardsteer.serving.reward_replies import (
    ClassData,
    DocumentText,
    InfinityClassReply,
    LabelScore,
    PoolingData,
    PoolingReply,
    Ranked,
    RerankReply,
    ScoreData,
)
from rewardsteer.serving.rewards import RewardJob
from rewardsteer.serving.scoring import (
    check_count,
    check_reward_model,
    job_of,
    score,
    usage_of,
    written_job,
)
from rewardsteer.serving.service import Service


async def classify(
    service: Service, request: TextsRequest, http: Request
) -> PoolingReply | InfinityClassReply:
    """Rewards, in the field of the probability of the only class; their sigmoids on request."""
    job, values = await _rewards(service, request, http)
    if request.raw_scores is not None:
        sigmoid = request.use_activation or not request.raw_scores
        shown = _activated(values, sigmoid)
        return InfinityClassReply(
            **_named(service, "classify"), usage=usage_of(job),
            data=[[LabelScore(score=value)] for value in shown],
        )
    shown = _activated(values, request.use_activation)
    data = [ClassData(index=index, probs=[value]) for index, value in enumerate(shown)]
    return PoolingReply(**_head(service, "classify", request), data=data, usage=usage_of(job))


async def pool(service: Service, request: TextsRequest, http: Request) -> PoolingReply:
    """Rewards of complete texts or of a conversation; their sigmoids on request."""
    job, values = await _rewards(service, request, http)
    values = _activated(values, request.use_activation)
    data = [PoolingData(index=index, data=[value]) for index, value in enumerate(values)]
    return PoolingReply(**_head(service, "pool", request), data=data, usage=usage_of(job))


async def score_pairs(service: Service, request: PairsRequest, http: Request) -> PoolingReply:
    """Rewards of prompts with completions; their sigmoids on request."""
    job, values = await _pair_rewards(service, request, http, *request.pairs, "text_2")
    data = [ScoreData(index=index, score=value) for index, value in enumerate(values)]
    return PoolingReply(**_head(service, "score", request), data=data, usage=usage_of(job))


async def rerank(service: Service, request: RerankRequest, http: Request) -> RerankReply:
    """Documents as completions of the query, highest reward first."""
    texts = [one if isinstance(one, str) else one.text for one in request.documents]
    job, values = await _pair_rewards(
        service, request, http, [request.query] * len(texts), texts, "documents"
    )
    order = sorted(range(len(values)), key=lambda index: -values[index])
    results = [
        Ranked(
            index=index, relevance_score=values[index],
            document=DocumentText(text=texts[index]) if request.return_documents else None,
        )
        for index in order[: request.top_n or None]
    ]
    return RerankReply(**_head(service, "rerank", request), results=results, usage=usage_of(job))


async def _pair_rewards(
    service: Service, request: PairsRequest | RerankRequest, http: Request, prompts: list[str],
    completions: list[str], param: str,
) -> tuple[RewardJob, list[float]]:
    check_reward_model(service, request.model)
    check_count(service, len(completions), param)
    job = await job_of(service, http, prompts, completions)
    values = [one.reward for one in await score(service, job, http)]
    return job, _activated(values, request.use_activation)


async def _rewards(
    service: Service, request: TextsRequest, http: Request
) -> tuple[RewardJob, list[float]]:
    reader = check_reward_model(service, request.model)
    given = request.input
    if request.messages is not None:
        *prompt, last = request.messages
        if last.role != "assistant":
            raise bad_request(
                f"Expected a last message of the role 'assistant', which is judged, got "
                f"{last.role!r}.", "messages",
            )
        job = await job_of(
            service, http, [[one.turn for one in prompt]], [last.text],
            closed=not request.continue_final_message,
        )
    elif isinstance(given, str) or isinstance(given[0], str):  # type: ignore[index]
        texts = [given] if isinstance(given, str) else given
        check_count(service, len(texts), "input")  # type: ignore[arg-type]
        job = await written_job(
            service, http, texts, special=request.add_special_tokens  # type: ignore[arg-type]
        )
    else:
        rows = [given] if isinstance(given[0], int) else given  # type: ignore[index]
        check_count(service, len(rows), "input")  # type: ignore[arg-type]
        job = reader.ids_job(rows)  # type: ignore[arg-type]
    return job, [one.reward for one in await score(service, job, http)]


def _head(
    service: Service, kind: str, request: TextsRequest | PairsRequest | RerankRequest
) -> dict[str, Any]:
    return {
        **_named(service, kind), "activation": "sigmoid" if request.use_activation else "none"
    }


def _named(service: Service, kind: str) -> dict[str, Any]:
    return {
        "id": f"{kind}-{secrets.token_hex(12)}", "created": int(time.time()),
        "model": service.served.reward_name,
    }


def _activated(values: list[float], activation: bool | None) -> list[float]:
    return [_sigmoid(value) for value in values] if activation else values


def _sigmoid(value: float) -> float:
    # Either way no exponential overflows.
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
