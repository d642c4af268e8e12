"""``/v1/rewards`` and ``/get_reward``: completions are read together with those of others."""

from collections.abc import Callable, Sequence

from starlette.requests import Request

from rewardsteer.records import Message, Prompt
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.generation import conversation
from rewardsteer.serving.rewards import Reward, RewardJob
from rewardsteer.serving.schema import (
    ChatMessage,
    RemoteRewardReply,
    RemoteRewardRequest,
    RewardData,
    RewardsReply,
    RewardsRequest,
    RewardUsage,
)
from rewardsteer.serving.served import goal_named
from rewardsteer.serving.service import Service
from rewardsteer.serving.tickets import Ticket

Ids = tuple[list[list[int]], list[list[int]]]


async def rewards(service: Service, request: RewardsRequest, http: Request) -> RewardsReply:
    """Answer ``/v1/rewards``."""
    served = service.served
    service.check_model(request.model, served.reward_name if served.scorer else None)
    _check_count(service, len(request.input), "input")
    prompts = [_prompt(item.prompt) for item in request.input]
    completions = [item.completion for item in request.input]
    job = await _job(service, lambda: served.encode_completions(prompts, completions))
    job.per_token = request.per_token
    if request.goal is not None:
        name = request.goal
        job.goal = await service.prepare(lambda: goal_named(served.goals, name))
    found = await _score(service, job, http)
    tokenizer = served.scorer.tokenizer
    data = []
    for index, (one, ids) in enumerate(zip(found, job.response_ids, strict=True)):
        similar = one.token_similarities
        whole = RewardData(
            index=index, reward=one.reward, similarity=None if similar is None else similar[-1]
        )
        if request.per_token:
            whole = whole.model_copy(update={
                "tokens": tokenizer.convert_ids_to_tokens(ids), "token_rewards": one.token_rewards,
                "token_similarities": similar,
            })
        data.append(whole)
    prompt = sum(map(len, job.prompt_ids))
    total = prompt + sum(map(len, job.response_ids))
    return RewardsReply(
        model=served.reward_name, data=data,
        usage=RewardUsage(prompt_tokens=prompt, total_tokens=total),
    )


async def remote_rewards(
    service: Service, request: RemoteRewardRequest, http: Request
) -> RemoteRewardReply:
    """Answer ``/get_reward``, as trainers ask."""
    served = service.served
    service.check_model(None, served.reward_name if served.scorer else None)
    if request.query is not None:
        texts = request.query
        _check_count(service, len(texts), "query")
        before = _texts(request.prompts)
        job = await _job(service, lambda: served.encode_written(texts, before))
    else:
        assert request.prompts is not None
        assert request.completions is not None
        _check_count(service, len(request.completions), "completions")
        prompts = [_prompt(prompt) for prompt in request.prompts]
        completions = [_answer(one) for one in request.completions]
        job = await _job(service, lambda: served.encode_completions(prompts, completions))
    values = [one.reward for one in await _score(service, job, http)]
    return RemoteRewardReply(rewards=values, scores=values)


async def _job(service: Service, encode: Callable[[], Ids]) -> RewardJob:
    prompt_ids, response_ids = await service.prepare(encode)
    return RewardJob(Ticket(), prompt_ids, response_ids)


async def _score(service: Service, job: RewardJob, http: Request) -> list[Reward]:
    service.batcher.score(job)
    found: list[Reward] = await service.value(http, job.ticket)
    return found


def _check_count(service: Service, count: int, param: str) -> None:
    most = service.limits.max_reward_rows
    if count > most:
        raise bad_request(f"A request may have {most} completions, got {count}.", param)


def _prompt(prompt: str | list[ChatMessage]) -> Prompt:
    return prompt if isinstance(prompt, str) else _conversation(prompt)


def _conversation(messages: list[ChatMessage]) -> list[Message]:
    if not messages:
        raise bad_request("A conversation must have a message.", "prompts")
    return conversation(messages)


def _answer(completion: str | list[ChatMessage]) -> str:
    if isinstance(completion, str):
        return completion
    return "".join(message.text for message in completion)


def _texts(prompts: Sequence[str | list[ChatMessage]] | None) -> list[str] | None:
    """Prompts as they are written at the beginning of the queries; None where they are not."""
    if prompts is None or not all(isinstance(prompt, str) for prompt in prompts):
        return None
    return [prompt for prompt in prompts if isinstance(prompt, str)]
