"""Replies about rewards: ours, OpenRLHF's, vLLM's and Infinity's."""

from typing import Literal

from pydantic import BaseModel

Activation = Literal["none", "sigmoid"]


class RewardData(BaseModel):
    """The reward of one completion."""

    index: int
    object: Literal["reward"] = "reward"
    reward: float
    tokens: list[str] | None = None
    token_rewards: list[float] | None = None
    token_similarities: list[float] | None = None
    similarity: float | None = None
    step_rewards: list[float] | None = None


class RewardUsage(BaseModel):
    """Tokens that were scored."""

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


class PoolingData(BaseModel):
    """A reward in the format of vLLM's pooling."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: list[float]


class ClassData(BaseModel):
    """A reward in the format of vLLM's classification."""

    index: int
    label: str = "LABEL_0"
    probs: list[float]
    num_classes: int = 1


class ScoreData(BaseModel):
    """A reward in the format of vLLM's scoring."""

    index: int
    object: Literal["score"] = "score"
    score: float


class PoolingReply(BaseModel):
    """The answer of ``/pooling``, ``/classify`` and ``/score``; ``activation``, which vLLM does not
    return, is the function that was applied to the rewards."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    activation: Activation
    data: list[PoolingData] | list[ClassData] | list[ScoreData]
    usage: RewardUsage


class LabelScore(BaseModel):
    """A reward in the format of Infinity's classification."""

    score: float
    label: str = "LABEL_0"


class InfinityClassReply(BaseModel):
    """Infinity's answer of ``/classify``."""

    object: Literal["classify"] = "classify"
    id: str
    created: int
    model: str
    data: list[list[LabelScore]]
    usage: RewardUsage


class DocumentText(BaseModel):
    """A document that was sent."""

    text: str


class Ranked(BaseModel):
    """A document with its reward; ``index`` is its position in the request."""

    index: int
    relevance_score: float
    document: DocumentText | None = None


class RerankReply(BaseModel):
    """The answer of ``/rerank``, highest reward first."""

    id: str
    object: Literal["rerank"] = "rerank"
    created: int
    model: str
    activation: Activation
    results: list[Ranked]
    usage: RewardUsage
