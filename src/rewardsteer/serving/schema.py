"""Requests and answers: OpenAI's forms, with what guides decoding added. No torch here.

Fields that we do not know are refused, so that a misspelt weight is not silently 1. Fields of
OpenAI that change nothing here are taken, and those that would change something are taken at the
value that asks for nothing.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from rewardsteer.records import Cost


def _readable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected Unicode text, got half of a surrogate pair") from None
    return text


# JSON can carry what no tokenizer can read.
Text = Annotated[str, AfterValidator(_readable)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Tokens = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1)]
Role = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Asking(BaseModel):
    """Base of requests."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Guidance(Asking):
    """What both kinds of generation may ask; absent: as the server was started.

    Attributes:
        model: the policy's name.
        method: of decoding.
        weight, weight_schedule, weight_end, target_kl, max_kl: how strongly rewards pull.
        top_k: tokens to draw from, 0 for all; candidates of args, pargs and cd.
        temperature: 0 takes the best token.
        best_of: responses drawn by best_of_n.
        n: responses to each prompt.
        stop: strings that end a response.
        seed: of the draws; absent: a new one, told with the answer.
        return_token_ids: tell token ids too.
    """

    model: str | None = Field(default=None, max_length=1024)
    method: str | None = Field(default=None, max_length=64)
    weight: Finite | None = None
    weight_schedule: Literal["constant", "linear", "cosine"] | None = None
    weight_end: Finite | None = None
    target_kl: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max_kl: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    best_of: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    n: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    stop: Text | list[Text] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stream: bool | None = None
    stream_options: "StreamOptions | None" = None
    return_token_ids: bool = False
    # Of OpenAI, without meaning here.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    # Of OpenAI, at the values that ask for nothing.
    top_p: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @property
    def stops(self) -> list[str]:
        """Stop strings as a list, without empty ones."""
        several = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in several if stop]


class StreamOptions(Asking):
    """What a stream tells besides text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CompletionRequest(Guidance):
    """``POST /v1/completions``; a prompt is text or token ids, one or several."""

    prompt: Text | Tokens | Annotated[list[Text], Field(min_length=1)] | Annotated[
        list[Tokens], Field(min_length=1)
    ]
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    echo: Literal[False] | None = None
    logprobs: Literal[None] = None
    suffix: Literal[None] = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """All prompts."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [list(self.prompt)]
        return list(self.prompt)


class TextPart(Asking):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class ChatMessage(Asking):
    """A turn; OpenAI's optional name says nothing to a template."""

    role: Role
    content: Text | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        """The content in one piece."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(Guidance):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    logprobs: Literal[False] | None = None
    response_format: "TextFormat | None" = None


class TextFormat(Asking):
    """The only form of answers."""

    type: Literal["text"]


class RewardItem(Asking):
    """A completion to be scored."""

    prompt: Text | list[ChatMessage]
    completion: Text


class RewardsRequest(Asking):
    """``POST /v1/rewards``.

    Attributes:
        model: the reward model's name.
        input: prompts with completions.
        per_token: tell rewards of the prefixes ending at each token.
        goal: a goal state's name: tell each token's similarity to it.
    """

    model: str | None = Field(default=None, max_length=1024)
    input: Annotated[list[RewardItem], Field(min_length=1)]
    per_token: bool = False
    goal: str | None = Field(default=None, max_length=256)


class RemoteRewardRequest(BaseModel):
    """``POST /get_reward``, as trainers call it.

    OpenRLHF sends ``query``, prompts with completions as they are written out, and in newer
    versions ``prompts`` and ``labels``. Reward functions of TRL have ``prompts`` and
    ``completions``, as text or conversations. Other fields (columns of a data set) are left alone.
    """

    model_config = ConfigDict(extra="allow")

    query: Annotated[list[Text], Field(min_length=1)] | None = None
    prompts: Annotated[list[Text | list[ChatMessage]], Field(min_length=1)] | None = None
    completions: Annotated[list[Text | list[ChatMessage]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "RemoteRewardRequest":
        given = self.query if self.query is not None else self.completions
        if (self.query is None) == (self.completions is None):
            raise ValueError("expected either 'query', or 'prompts' with 'completions'")
        if self.completions is not None and self.prompts is None:
            raise ValueError("'completions' come with their 'prompts'")
        if self.prompts is not None and given is not None and len(self.prompts) != len(given):
            raise ValueError(
                f"expected as many prompts as completions, got {len(self.prompts)} and {len(given)}"
            )
        return self


class InspectFilter(Asking):
    """A filter whose stop is to be marked."""

    signal: Literal["reward", "similarity"]
    threshold: Finite
    start: Annotated[int, Field(ge=0, le=2**31 - 1)] = 5


class InspectRequest(Asking):
    """``POST /v1/inspect``; without a completion one is generated."""

    prompt: Text
    completion: Text | None = None
    method: str | None = Field(default=None, max_length=64)
    weight: Finite | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] = 64
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] = 0
    filter: InspectFilter | None = None


# --- answers --------------------------------------------------------------------------------------


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
