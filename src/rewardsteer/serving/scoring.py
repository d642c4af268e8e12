"""``/v1/rewards`` and ``/get_reward``: completions are read together with those of others."""

from collections.abc import Sequence

from starlette.requests import Request

from rewardsteer.goals.goal_state import GoalState
from rewardsteer.records import Prompt
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.generation import texts_of
from rewardsteer.serving.handles import RequestHandle
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.replies import RemoteRewardReply, RewardData, RewardsReply, RewardUsage
from rewardsteer.serving.reward_schema import RemoteRewardRequest, RewardsRequest
from rewardsteer.serving.rewards import Reward, RewardJob
from rewardsteer.serving.schema import ChatMessage
from rewardsteer.serving.service import Service


async def rewards(service: Service, request: RewardsRequest, http: Request) -> RewardsReply:
    """Rewards of completions, whole and token by token."""
    served = service.served
    service.check_model(request.model, served.reward_name if served.scorer else None)
    check_count(service, len(request.input), "input")
    prompts = [_prompt(item.prompt) for item in request.input]
    completions = [item.completion for item in request.input]
    goal = None if request.goal is None else _goal(served, request.goal)
    job = await job_of(service, http, prompts, completions)
    job.per_token, job.goal = request.per_token, goal
    found = await score(service, job, http)
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
    return RewardsReply(model=served.reward_name, data=data, usage=usage_of(job))


async def remote_rewards(
    service: Service, request: RemoteRewardRequest, http: Request
) -> RemoteRewardReply:
    """Rewards as trainers request them."""
    served = service.served
    service.check_model(None, served.reward_name if served.scorer else None)
    if request.query is not None:
        texts = request.query
        check_count(service, len(texts), "query")
        before = _texts(request.prompts)
        job = await written_job(service, http, texts, before)
    else:
        assert request.prompts is not None
        assert request.completions is not None
        check_count(service, len(request.completions), "completions")
        prompts = [_prompt(prompt) for prompt in request.prompts]
        completions = [_answer(one) for one in request.completions]
        job = await job_of(service, http, prompts, completions)
    values = [one.reward for one in await score(service, job, http)]
    return RemoteRewardReply(rewards=values, scores=values)


async def job_of(
    service: Service, http: Request, prompts: Sequence[Prompt], completions: Sequence[str]
) -> RewardJob:
    """Prompts and completions, ready to be scored; raises `ApiError`."""
    texts = [*texts_of(prompts), *completions]
    return RewardJob(RequestHandle(), *await service.prepare(
        http, texts, lambda: service.served.encode_completions(prompts, completions), "input"
    ))


async def written_job(
    service: Service, http: Request, texts: Sequence[str], prompts: Sequence[str] | None = None
) -> RewardJob:
    """Texts of prompts with completions, ready to be scored; raises `ApiError`."""
    return RewardJob(RequestHandle(), *await service.prepare(
        http, texts, lambda: service.served.encode_written(texts, prompts), "query"
    ))


async def score(service: Service, job: RewardJob, http: Request) -> list[Reward]:
    """The rewards of what is ready; raises `ApiError`."""
    service.worker.score(job)
    found: list[Reward] = await service.result(http, job.handle)
    return found


def usage_of(job: RewardJob) -> RewardUsage:
    """Tokens of prompts and completions."""
    prompt = sum(map(len, job.prompt_ids))
    return RewardUsage(
        prompt_tokens=prompt, total_tokens=prompt + sum(map(len, job.response_ids))
    )


def _goal(served: ServedModels, name: str) -> GoalState:
    if name not in served.goals:
        known = ", ".join(sorted(served.goals)) or "none"
        raise bad_request(f"There is no goal state {name!r}; this server has: {known}.", "goal")
    return served.goals[name]


def check_count(service: Service, count: int, param: str) -> None:
    """Raise `ApiError` where too many completions are to be scored."""
    most = service.limits.max_reward_rows
    if count > most:
        raise bad_request(f"A request may have {most} completions, got {count}.", param)


def _prompt(prompt: str | list[ChatMessage]) -> Prompt:
    if not isinstance(prompt, str) and not prompt:
        raise bad_request("A conversation must have a message.", "prompts")
    return prompt if isinstance(prompt, str) else [one.turn for one in prompt]


def _answer(completion: str | list[ChatMessage]) -> str:
    if isinstance(completion, str):
        return completion
    return "".join(message.text for message in completion)


def _texts(prompts: Sequence[str | list[ChatMessage]] | None) -> list[str] | None:
    """Prompts as they are written at the beginning of the queries; None where they are not."""
    if prompts is None or not all(isinstance(prompt, str) for prompt in prompts):
        return None
    return [prompt for prompt in prompts if isinstance(prompt, str)]
