"""Answers: OpenAI's forms, with what guided decoding adds. No torch here."""

from typing import Literal

from pydantic import BaseModel

from rewardsteer.records import Cost


class Usage(BaseModel):
    """Tokens of a request; of best_of_n, those of all samples count, as OpenAI's best_of does."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class GuidanceInfo(BaseModel):
    """What we add to a choice: how it was made and what it cost."""

    method: str
    seed: int
    reward: float | None
    cost: Cost


class Logprobs(BaseModel):
    """Log-probabilities of the tokens of a text under the policy alone, at temperature 1.

    Attributes:
        tokens: their text.
        token_logprobs: None for the first token, which nothing precedes.
        top_logprobs: of the likeliest tokens at each place, and of the one that stands there.
        text_offset: at which character each token begins.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class LikelyToken(BaseModel):
    """A token in a chat's log-probabilities, with its text in UTF-8."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(LikelyToken):
    """A token of the response, with the likeliest ones at its place."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(BaseModel):
    """As `Logprobs`, in a chat's form."""

    content: list[ChatToken]


class CompletionChoice(BaseModel):
    """A response to a prompt."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    stop_reason: int | str | None = None
    logprobs: Logprobs | None = None
    token_ids: list[int] | None = None
    guidance: GuidanceInfo


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
    stop_reason: int | str | None = None
    logprobs: ChatLogprobs | None = None
    token_ids: list[int] | None = None
    guidance: GuidanceInfo


class _Generated(BaseModel):
    id: str
    created: int
    model: str
    system_fingerprint: str
    usage: Usage


class CompletionReply(_Generated):
    """The answer of ``/v1/completions``."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class ChatReply(_Generated):
    """The answer of ``/v1/chat/completions``."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


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


class PoolingData(BaseModel):
    """A reward, as vLLM's pooling gives it."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: list[float]


Activation = Literal["none", "sigmoid"]


class ClassData(BaseModel):
    """A reward, as vLLM's classification gives it."""

    index: int
    label: str = "LABEL_0"
    probs: list[float]
    num_classes: int = 1


class ScoreData(BaseModel):
    """A reward, as vLLM's scoring gives it."""

    index: int
    object: Literal["score"] = "score"
    score: float


class PoolingReply(BaseModel):
    """The answer of ``/pooling``, ``/classify`` and ``/score``; ``activation`` is what rewards went
    through, which vLLM's answers do not say."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    activation: Activation
    data: list[PoolingData] | list[ClassData] | list[ScoreData]
    usage: RewardUsage


class LabelScore(BaseModel):
    """A reward, as Infinity's classification gives it."""

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
    """A document at its place."""

    index: int
    relevance_score: float
    document: DocumentText | None = None


class RerankReply(BaseModel):
    """The answer of ``/rerank``, best first."""

    id: str
    object: Literal["rerank"] = "rerank"
    created: int
    model: str
    activation: Activation
    results: list[Ranked]
    usage: RewardUsage


class TokenizeReply(BaseModel):
    """The answer of ``/tokenize``."""

    count: int
    max_model_len: int | None
    tokens: list[int]
