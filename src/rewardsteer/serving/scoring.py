"""The routes ``/v1/rewards`` and ``/get_reward``; completions of many requests share a batch."""

from collections.abc import Sequence

from starlette.requests import Request

from rewardsteer.data.sources.turns import read_pair
from rewardsteer.errors import DataError
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.records import Prompt
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.generation import texts_of
from rewardsteer.serving.logprobs import token_names
from rewardsteer.serving.messages import ChatMessage
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.reward_reading import RewardReader
from rewardsteer.serving.reward_replies import (
    RemoteRewardReply,
    RewardData,
    RewardsReply,
    RewardUsage,
)
from rewardsteer.serving.reward_schema import RemoteRewardRequest, RewardsRequest
from rewardsteer.serving.rewards import Reward, RewardJob
from rewardsteer.serving.service import Service


async def rewards(service: Service, request: RewardsRequest, http: Request) -> RewardsReply:
    """Rewards of completions, whole, token by token and step by step."""
    served = service.served
    reader = check_reward_model(service, request.model)
    check_count(service, len(request.input), "input")
    if request.per_token and not reader.takes_ids:
        raise bad_request(
            "This reward model scores whole texts and gives no rewards of tokens; leave out "
            "per_token, or send the completion as steps.", "per_token",
        )
    goal = None if request.goal is None else _goal(served, request.goal)
    stepwise = request.input[0].steps is not None
    pairs = as_pairs([(item.prompt, item.whole) for item in request.input], "input")
    job = await job_of(
        service, http, *pairs,
        steps=[item.steps or [] for item in request.input] if stepwise else None,
        closed=request.closed,
    )
    job.per_token, job.goal = request.per_token, goal
    found = await score(service, job, http)
    names: Sequence[list[str] | None] = [None] * len(found)
    if request.per_token:
        tokenizer = served.scorer.tokenizer
        names = await service.prepare(http, pairs[1], lambda: [
            token_names(tokenizer, *ids)
            for ids in zip(job.prompt_ids, job.response_ids, strict=True)
        ])
    data = [
        _shown(index, one, tokens)
        for index, (one, tokens) in enumerate(zip(found, names, strict=True))
    ]
    return RewardsReply(model=served.reward_name, data=data, usage=usage_of(job))


def _shown(index: int, found: Reward, tokens: list[str] | None) -> RewardData:
    """One completion's part of the reply; ``tokens`` if their values are included."""
    similar = found.token_similarities
    whole = RewardData(
        index=index, reward=found.reward, step_rewards=found.step_rewards,
        similarity=None if similar is None else similar[-1],
    )
    if tokens is None:
        return whole
    return whole.model_copy(update={
        "tokens": tokens, "token_rewards": found.token_rewards, "token_similarities": similar,
    })


async def remote_rewards(
    service: Service, request: RemoteRewardRequest, http: Request
) -> RemoteRewardReply:
    """Rewards as trainers request them."""
    check_reward_model(service, None)
    if request.query is not None:
        texts = request.query
        check_count(service, len(texts), "query")
        before = _texts(request.prompts)
        job = await written_job(service, http, texts, before)
    else:
        assert request.prompts is not None
        assert request.completions is not None
        check_count(service, len(request.completions), "completions")
        pairs = list(zip(request.prompts, request.completions, strict=True))
        job = await job_of(service, http, *as_pairs(pairs, "completions"))
    values = [one.reward for one in await score(service, job, http)]
    return RemoteRewardReply(rewards=values, scores=values)


def check_reward_model(service: Service, model: str | None) -> RewardReader:
    """The reader of reward requests; raises `ApiError` 404 if there is no reward model, or none of
    this name."""
    served = service.served
    service.check_model(model, served.reward_name if served.scorer else None)
    assert served.reward_reader is not None
    return served.reward_reader


async def job_of(
    service: Service, http: Request, prompts: Sequence[Prompt], completions: Sequence[str], *,
    steps: Sequence[Sequence[str]] | None = None, closed: bool = True, param: str = "input",
) -> RewardJob:
    """Prompts and completions, ready to be scored; raises `ApiError`."""
    reader = service.served.reward_reader
    assert reader is not None
    return await service.prepare(
        http, [*texts_of(prompts), *completions],
        lambda: reader.job(prompts, completions, steps=steps, closed=closed), param,
    )


async def written_job(
    service: Service, http: Request, texts: Sequence[str], prompts: Sequence[str] | None = None, *,
    special: bool = True,
) -> RewardJob:
    """Rendered texts of prompts with completions, ready to be scored; raises `ApiError`."""
    reader = service.served.reward_reader
    assert reader is not None
    return await service.prepare(
        http, texts, lambda: reader.written_job(texts, prompts, special=special), "query"
    )


async def score(service: Service, job: RewardJob, http: Request) -> list[Reward]:
    """The rewards of a job; raises `ApiError`."""
    service.worker.score(job)
    found: list[Reward] = await service.result(http, job.handle)
    return found


def usage_of(job: RewardJob) -> RewardUsage:
    """Token counts of prompts and completions."""
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


def as_pairs(
    given: Sequence[tuple[str | list[ChatMessage], str | list[ChatMessage]]], param: str
) -> tuple[list[Prompt], list[str]]:
    """Prompts and completions of which either may be messages; raises `ApiError`."""
    try:
        pairs = [
            read_pair(_turns(prompt), _turns(completion), f"{param}.{row}")
            for row, (prompt, completion) in enumerate(given)
        ]
    except DataError as error:
        raise bad_request(str(error), param) from error
    return [prompt for prompt, _ in pairs], [text for _, text in pairs]


def _turns(given: str | list[ChatMessage]) -> Prompt:
    return given if isinstance(given, str) else [one.turn for one in given]


def _texts(prompts: Sequence[str | list[ChatMessage]] | None) -> list[str] | None:
    """Prompts as they are rendered at the beginning of the queries; None if they are not."""
    if prompts is None or not all(isinstance(prompt, str) for prompt in prompts):
        return None
    return [prompt for prompt in prompts if isinstance(prompt, str)]
