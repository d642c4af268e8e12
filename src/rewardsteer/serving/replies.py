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




class TokenizeReply(BaseModel):
    """The answer of ``/tokenize``."""

    count: int
    max_model_len: int | None
    tokens: list[int]
