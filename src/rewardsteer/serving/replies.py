"""Answers in OpenAI's formats, with the fields of guided decoding. No torch here."""

from typing import Literal

from pydantic import BaseModel

from rewardsteer.records import Cost


class Usage(BaseModel):
    """Tokens of a request; best_of_n counts those of all samples, as OpenAI's best_of does."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class GuidanceInfo(BaseModel):
    """Method, seed, reward and cost of a choice."""

    method: str
    seed: int
    reward: float | None
    cost: Cost


class Logprobs(BaseModel):
    """Log-probabilities of the tokens of a text under the policy alone, at temperature 1.

    Attributes:
        tokens: texts of the tokens.
        token_logprobs: log-probability of each token; None for the first of an echoed prompt.
        top_logprobs: log-probabilities of the most probable tokens at each position, and of the
            token itself.
        text_offset: position in the text, in characters, at which each token begins.
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
    """A token of the response, with the most probable ones at its position."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(BaseModel):
    """`Logprobs` in the format of chats."""

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
    """The assistant's message."""

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
    """A reward in the format of vLLM's pooling."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: list[float]


Activation = Literal["none", "sigmoid"]


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


class TokenizeReply(BaseModel):
    """The answer of ``/tokenize``."""

    count: int
    max_model_len: int | None
    tokens: list[int]
