"""Answers: OpenAI's forms, with what guided decoding adds. No torch here."""

from typing import Literal

from pydantic import BaseModel

from rewardsteer.records import Cost


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Told(BaseModel):
    """What we add to a choice: how it was made and what it cost."""

    method: str
    seed: int
    reward: float | None
    cost: Cost


class CompletionChoice(BaseModel):
    """A response to a prompt."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: None = None
    token_ids: list[int] | None = None
    guidance: Told


class CompletionReply(BaseModel):
    """The answer of ``/v1/completions``."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


class AssistantMessage(BaseModel):
    """The answer's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """A response to a conversation."""

    index: int
    message: AssistantMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None
    token_ids: list[int] | None = None
    guidance: Told


class ChatReply(BaseModel):
    """The answer of ``/v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class RewardData(BaseModel):
    """The reward of one completion."""

    index: int
    object: Literal["reward"] = "reward"
    reward: float
    tokens: list[str] | None = None
    token_rewards: list[float] | None = None
    token_similarities: list[float] | None = None
    similarity: float | None = None


class RewardUsage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class RewardsReply(BaseModel):
    """The answer of ``/v1/rewards``."""

    object: Literal["list"] = "list"
    model: str
    data: list[RewardData]
    usage: RewardUsage


class RemoteRewardReply(BaseModel):
    """The answer of ``/get_reward``; ``scores`` repeats the rewards for newer OpenRLHF."""

    rewards: list[float]
    scores: list[float]


class ModelData(BaseModel):
    """A model of this server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["rewardsteer"] = "rewardsteer"
    kind: Literal["policy", "reward"]
    fingerprint: str
    methods: list[str] | None = None
    goals: list[str] | None = None


class ModelList(BaseModel):
    """The answer of ``/v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelData]


class Health(BaseModel):
    """The answer of ``/healthz``."""

    status: Literal["ok", "draining", "failed"]
