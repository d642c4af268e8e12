"""Requests for text: OpenAI's formats, with the settings of guided decoding. No torch here."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from rewardsteer.serving.fields import Finite, RequestModel, Temperature, Text, Tokens, WeightNumber
from rewardsteer.serving.messages import ChatMessage

Kl = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Biases = Annotated[
    dict[TokenId, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)
]
# Number of most probable tokens that are returned at each position.
Top = Annotated[int, Field(ge=0, le=20)]
# -1: as many tokens as the server and the models allow.
Length = Annotated[int, Field(ge=-1, le=2**31 - 1)]


class GenerationFields(RequestModel):
    """Fields of completions and chats. If a field is absent, the server's setting holds.

    Attributes:
        model: the policy's name; ``NAME@METHOD`` and ``NAME@best_of_8`` also select a method.
        method: the decoding method.
        method_settings: settings of strategies, by name (n, beam, decision_tokens, vote_stop, …).
        weight, weight_schedule, weight_end, target_kl, max_kl, policy_power: the strength of the
            guidance.
        gate, gate_threshold, gate_share: at which tokens guidance is applied.
        top_k: number of most probable tokens to draw from, 0 or -1 for all; number of candidates
            of args, pargs and cd.
        temperature: 0 takes the most probable token.
        top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias,
        min_tokens, stop_token_ids, ignore_eos: as in vLLM; see
            `rewardsteer.decoding.config.DecodingConfig`.
        best_of: number of responses that best_of_n draws.
        n: number of responses to each prompt.
        stop: strings that end a response.
        include_stop_str_in_output: keep the stop string in the response.
        seed: seed of the draws; absent: a new one, which is returned.
        return_token_ids: return token ids, too.
        return_tokens_as_token_ids: write tokens in logprobs as ``token_id:N``, as vLLM does.
    """

    lenient: ClassVar[bool] = True

    model: str | None = Field(default=None, max_length=1024)
    method: str | None = Field(default=None, max_length=256)
    method_settings: dict[str, Any] | None = None
    weight: WeightNumber | None = None
    weight_schedule: Literal["constant", "linear", "cosine"] | None = None
    weight_end: WeightNumber | None = None
    target_kl: Kl | None = None
    max_kl: Kl | None = None
    policy_power: Annotated[float, Field(ge=0, le=1e20, allow_inf_nan=False)] | None = None
    gate: Literal["always", "entropy", "top1", "kl", "first", "random"] | None = None
    gate_threshold: Kl | None = None
    gate_share: Share | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    min_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=1024)] | None = None
    ignore_eos: bool | None = None
    best_of: Count | None = None
    n: Count | None = None
    stop: Text | list[Text] | None = None
    include_stop_str_in_output: bool | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: "StreamOptions | None" = None
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class StreamOptions(RequestModel):
    """What a stream contains besides text: usage at its end, or in every part."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class CompletionRequest(GenerationFields):
    """``POST /v1/completions``: one or several prompts, as text or token ids.

    Attributes:
        prompt: used unchanged unless ``apply_template`` is true.
        apply_template: format text prompts with the server's template.
        echo: return the prompt before the response.
        logprobs: return the policy's log-probability of every token, and of this number of most
            probable ones.
    """

    prompt: Text | Tokens | Annotated[list[Text], Field(min_length=1)] | Annotated[
        list[Tokens], Field(min_length=1)
    ]
    max_tokens: Length | None = None
    echo: bool = False
    logprobs: Top | None = None
    apply_template: bool = False

    @property
    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [list(self.prompt)]
        return list(self.prompt)


class ChatRequest(GenerationFields):
    """``POST /v1/chat/completions``.

    Attributes:
        logprobs: return the policy's log-probability of every token.
        top_logprobs: number of most probable tokens that are returned with theirs.
        chat_template_kwargs: variables of the chat template, such as ``enable_thinking``.
        add_generation_prompt: start an assistant's turn.
        continue_final_message: leave the last message open, so that the response continues it.
    """

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Length | None = None
    max_completion_tokens: Length | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    @model_validator(mode="after")
    def _one_form(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("expected logprobs to be true beside top_logprobs")
        if self.continue_final_message and self.add_generation_prompt:
            raise ValueError(
                "expected add_generation_prompt to be false beside continue_final_message"
            )
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Variables of the chat template besides the messages."""
        options = dict(self.chat_template_kwargs or {})
        if self.continue_final_message:
            options["continue_final_message"] = True
        if not self.add_generation_prompt:
            options["add_generation_prompt"] = False
        return options


class InspectFilter(RequestModel):
    """A rejection rule; the inspector marks the token at which it rejects the response."""

    signal: Literal["reward", "similarity"]
    threshold: Finite
    start: Annotated[int, Field(ge=0, le=2**31 - 1)] = 5


class InspectRequest(RequestModel):
    """``POST /v1/inspect``; without a completion, one is generated."""

    prompt: Text
    completion: Text | None = None
    method: str | None = Field(default=None, max_length=64)
    weight: WeightNumber | None = None
    max_tokens: Count = 64
    temperature: Temperature | None = None
    seed: Seed = 0
    filter: InspectFilter | None = None
