"""Requests for rewards: ours, trainers', and the forms of vLLM and Infinity. No torch here."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from rewardsteer.serving.fields import RequestModel, Text, Tokens
from rewardsteer.serving.schema import ChatMessage

Texts = Text | Annotated[list[Text], Field(min_length=1)]
Name = Annotated[str, Field(max_length=1024)]
# Between steps; the module that defines it for reward models loads torch.
STEP_SEPARATOR = "\n\n"
# OpenRLHF's own name, and what servers that were written after it call the same list.
_QUERIES = ("query", "queries", "messages", "input", "inputs", "texts")


class RewardItem(RequestModel):
    """A completion to be scored, in one piece (text, or messages) or as steps."""

    prompt: Text | list[ChatMessage]
    completion: Text | list[ChatMessage] | None = None
    steps: Annotated[list[Text], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "RewardItem":
        if (self.completion is None) == (self.steps is None):
            raise ValueError("expected either 'completion' or 'steps'")
        return self

    @property
    def whole(self) -> str | list[ChatMessage]:
        """The completion, of steps their text."""
        return STEP_SEPARATOR.join(self.steps or ()) if self.completion is None else self.completion


class RewardsRequest(RequestModel):
    """``POST /v1/rewards``.

    Attributes:
        model: the reward model's name.
        input: prompts with completions, or all with the steps of completions.
        per_token: tell rewards of the prefixes ending at each token.
        goal: a goal state's name: tell each token's similarity to it.
        closed: whether the completions have ended; else they are prefixes that may go on.
    """

    model: Name | None = None
    input: Annotated[list[RewardItem], Field(min_length=1)]
    per_token: bool = False
    goal: str | None = Field(default=None, max_length=256)
    closed: bool = True

    @model_validator(mode="after")
    def _alike(self) -> "RewardsRequest":
        stepwise = [one.steps is not None for one in self.input]
        if any(stepwise) and not all(stepwise):
            raise ValueError("expected 'steps' in every item or in none")
        if any(stepwise) and (self.per_token or self.goal is not None or not self.closed):
            raise ValueError(
                "'steps' come without 'per_token', 'goal' and 'closed'; send two requests"
            )
        if not self.closed and (self.per_token or self.goal is not None):
            raise ValueError("'per_token' and 'goal' are for completions that have ended")
        return self


class RemoteRewardRequest(BaseModel):
    """``POST /get_reward``, as trainers call it.

    OpenRLHF sends ``query``, prompts with completions as they are written out, and in newer
    versions ``prompts`` and ``labels``; ``queries``, ``messages``, ``input``, ``inputs`` and
    ``texts`` mean the same as ``query``. Reward functions of TRL have ``prompts`` and
    ``completions``, as text or conversations. Other fields (columns of a data set) are left alone.
    """

    model_config = ConfigDict(extra="allow")

    query: Annotated[list[Text], Field(min_length=1)] | None = Field(
        default=None, validation_alias=AliasChoices(*_QUERIES)
    )
    prompts: Annotated[list[Text | list[ChatMessage]], Field(min_length=1)] | None = None
    completions: Annotated[list[Text | list[ChatMessage]], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_query(cls, given: Any) -> Any:
        """Columns of TRL's may be called as OpenRLHF's list is."""
        if isinstance(given, dict) and given.get("completions") is not None:
            return {name: value for name, value in given.items() if name not in _QUERIES[1:]}
        return given

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


class _Pooling(RequestModel):
    """What vLLM's and Infinity's requests share.

    Attributes:
        model: the reward model's name.
        use_activation: tell the sigmoid of rewards; without it rewards are raw.
    """

    lenient: ClassVar[bool] = True

    model: Name | None = None
    use_activation: bool | None = Field(
        default=None, validation_alias=AliasChoices("use_activation", "activation")
    )


class TextsRequest(_Pooling):
    """``POST /classify`` and ``/pooling``: texts as they are written out, token ids, or one
    conversation whose last turn is judged.

    Attributes:
        add_special_tokens: let the tokenizer put its beginning-of-text before a text that has none.
        add_generation_prompt: nothing follows the judged turn.
        continue_final_message: the judged turn is a prefix that may go on.
    """

    input: Texts | Tokens | Annotated[list[Tokens], Field(min_length=1)] | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=2)] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: Literal[False] | None = None
    continue_final_message: bool = False
    # Infinity's: its answers have another form.
    raw_scores: bool | None = None
    task: str | None = None
    encoding_format: str | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "TextsRequest":
        if (self.input is None) == (self.messages is None):
            raise ValueError("expected either 'input' or 'messages'")
        return self


class PairsRequest(_Pooling):
    """``POST /score``: prompts and their completions, one prompt for all or one for each."""

    text_1: Texts = Field(validation_alias=AliasChoices("text_1", "queries", "data_1"))
    text_2: Texts = Field(validation_alias=AliasChoices("text_2", "documents", "items", "data_2"))

    @property
    def pairs(self) -> tuple[list[str], list[str]]:
        """Prompts and completions."""
        first = [self.text_1] if isinstance(self.text_1, str) else list(self.text_1)
        second = [self.text_2] if isinstance(self.text_2, str) else list(self.text_2)
        return (first * len(second) if len(first) == 1 else first), second

    @model_validator(mode="after")
    def _fit(self) -> "PairsRequest":
        first, second = self.pairs
        if len(first) != len(second):
            raise ValueError(
                f"expected one text_1, or as many as text_2, got {len(first)} and {len(second)}"
            )
        return self


class Document(RequestModel):
    """A document as an object."""

    text: Text


class RerankRequest(_Pooling):
    """``POST /rerank``: completions of one prompt, ordered by their rewards."""

    query: Text
    documents: Annotated[list[Text | Document], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    return_documents: bool = True
    raw_scores: bool | None = None


class TokenizeRequest(RequestModel):
    """``POST /tokenize``, as vLLM's: text as ``/v1/completions`` reads it, or a conversation."""

    model: Name | None = None
    prompt: Text | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _one_form(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("expected either 'prompt' or 'messages'")
        return self
