"""Fields of requests: null means absent, and fields of other servers are ignored or refused.

No torch here.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from rewardsteer.decoding.config import MOST_WEIGHT


def _readable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected Unicode text, got half of a surrogate pair") from None
    return text


# JSON can hold half a surrogate pair, which no tokenizer can encode.
Text = Annotated[str, AfterValidator(_readable)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Tokens = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1)]
WeightNumber = Annotated[float, Field(ge=-MOST_WEIGHT, le=MOST_WEIGHT, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
# At lower temperatures only the best token has any probability.
GREEDY_BELOW = 1e-5

# Values with which a field of OpenAI's or vLLM's has no effect; other values are refused.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "length_penalty": (1,), "bad_words": ([],), "logprobs": (False,), "top_logprobs": (0,),
    "prompt_logprobs": (0,), "suffix": ("",), "tools": ([],), "tool_choice": ("none", "auto"),
    "functions": ([],), "function_call": ("none", "auto"), "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},), "modalities": (["text"],), "verbosity": ("medium",),
    "reasoning_effort": ("none",), "use_beam_search": (False,), "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True, False), "add_special_tokens": (True,),
    "chat_template_kwargs": ({},), "vllm_xargs": ({},),
    "add_generation_prompt": (True,), "continue_final_message": (False,), "priority": (0,),
    "echo": (False,), "truncate_prompt_tokens": (-1,), "max_tokens_per_doc": (0,),
    "structured_outputs": ({},), "guided_json": (), "guided_regex": (), "guided_choice": (),
    "guided_grammar": (), "guided_decoding_backend": (),
}
_STRUCTURED = (
    "the transformers engine writes free text alone; leave it out, or start the server on "
    "vLLM (--engine vllm), which has structured output"
)
# Why a value with an effect is refused.
_REASONS: Mapping[str, str] = {
    "top_logprobs": "/v1/completions takes how many as logprobs",
    "prompt_logprobs": "use /v1/completions with echo and logprobs",
    "echo": "only /v1/completions can repeat its prompt",
    "tools": "responses call no tools; leave it out",
    **dict.fromkeys((
        "response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice",
        "guided_grammar", "guided_decoding_backend",
    ), _STRUCTURED),
    "modalities": "only [\"text\"] is supported",
    **dict.fromkeys((
        "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
    ), "only /v1/chat/completions writes chat templates"),
    "vllm_xargs": "send method, weight and the others as fields of the request",
    "suffix": "responses follow the prompt and know nothing behind them; leave it out",
    "truncate_prompt_tokens": "texts are read whole; shorten it yourself",
    "max_tokens_per_doc": "texts are read whole; shorten it yourself",
}
# Fields without effect on the answer.
_IGNORED = frozenset((
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "request_id",
))


class RequestModel(BaseModel):
    """Base of requests. Unknown fields are refused, so that a misspelled weight does not silently
    become the default. Fields with the value null count as absent, as in OpenAI's API."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    # Whether to drop fields whose values have no effect.
    lenient: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _present(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {
            name: value for name, value in given.items()
            if value is not None and (name in cls.model_fields or not cls._idle(name, value))
        }

    @classmethod
    def _idle(cls, name: str, value: Any) -> bool:
        if not cls.lenient:
            return False
        return name in _IGNORED or any(
            value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
            for neutral in NEUTRAL.get(name, ())
        )


def refusal(name: str) -> str | None:
    """Why a field that OpenAI's or vLLM's servers know is refused; None: they do not know it."""
    if name not in NEUTRAL:
        return None
    reason = _REASONS.get(name, "leave it out")
    return f"{name} is not supported with this value: {reason}."
