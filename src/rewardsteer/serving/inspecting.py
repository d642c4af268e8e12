"""``/v1/inspect``: a completion token by token, under policy, reward model and both."""

import contextlib
from collections.abc import Generator
from typing import Any

from starlette.requests import Request

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method
from rewardsteer.evaluation.inspection import FilterRule, inspection_steps
from rewardsteer.serving.errors import ApiError, bad_request
from rewardsteer.serving.handles import Finished, RequestHandle
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.schema import GenerationFields, InspectRequest
from rewardsteer.serving.scoring import job_of
from rewardsteer.serving.service import Service
from rewardsteer.serving.settings import settings_of


async def inspect(service: Service, request: InspectRequest, http: Request) -> dict[str, Any]:
    """A completion token by token, under the policy, the reward model and both."""
    # Generation shares the batch; the inspector takes turns of one token between its steps.
    served, most = service.served, service.limits.max_inspect_tokens
    engine = served.engine
    if why := refusal(served):
        missing = engine is None or served.scorer is None
        raise ApiError(404, why, code="model_not_found") if missing else bad_request(why)
    assert engine is not None
    if request.max_tokens > most:
        raise bad_request(f"max_tokens may be at most {most} here.", "max_tokens")
    config = settings_of(GenerationFields(
        method=request.method, weight=request.weight, temperature=request.temperature,
        seed=request.seed,
    ), served)
    goal = next(iter(served.goals.values()), None)
    wanted = request.filter
    rule = None
    if wanted is not None:
        rule = FilterRule(wanted.signal, wanted.threshold, wanted.start)
    prompt_ids, ids = await _ids(service, request, config, http)
    if len(ids) > most:
        raise bad_request(f"The completion has {len(ids)} tokens; {most} may be looked at.",
                          "completion")

    def look() -> Generator[None, None, dict[str, Any]]:
        method = build_method(config, served.scorer)
        found = yield from inspection_steps(
            engine.policy, engine.tokenizer, served.scorer, method, prompt_ids, ids, config=config,
            goal=goal, rule=rule,
        )
        return found.model_dump(mode="json")

    handle = RequestHandle()
    service.worker.call(handle, look(), most=service.limits.inspect_queue)
    seen: dict[str, Any] = await service.result(http, handle)
    return seen


def refusal(served: ServedModels) -> str:
    """Why completions cannot be inspected with these models; "" where they can."""
    engine = served.engine
    if engine is None or served.scorer is None:
        return ("Inspecting needs a policy and a reward model; start the server with both "
                "(--model, --reward-model).")
    if "logits" not in engine.abilities:
        return (f"The engine {engine.name!r} shows no distributions of tokens; inspect with the "
                "engine transformers.")
    if not served.shared:
        return ("Inspecting shows the rewards of the policy's tokens, and this reward model does "
                "not read those; serve one with the policy's tokenizer.")
    return ""


async def _ids(
    service: Service, request: InspectRequest, config: DecodingConfig, http: Request
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the completion, given or generated."""
    served = service.served
    if request.completion is not None:
        completion = request.completion
        job = await job_of(service, http, [request.prompt], [completion], param="prompt")
        # An empty prompt is read as the start of a text.
        prompt = list(job.prompt_ids[0]) or await service.prepare(
            http, [request.prompt], lambda: served.encode(request.prompt)
        )
        return prompt, list(job.response_ids[0])
    handle = RequestHandle()
    responses = await service.prepare(http, [request.prompt], lambda: served.responses(
        handle, [request.prompt], config, n=1, stream=False,
        max_tokens=request.max_tokens,
    ))
    service.worker.generate(responses)
    async with contextlib.aclosing(service.stream_events(http, handle)) as events:
        async for event in events:
            if isinstance(event, Finished):
                prompt_ids = list(responses[0].prompt.token_ids)
                return prompt_ids, event.answer.token_ids
    raise AssertionError("events end with an answer or an error")
