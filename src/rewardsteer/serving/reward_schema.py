"""Requests for rewards, in our format and those of trainers, vLLM and Infinity. No torch here."""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from rewardsteer.serving.fields import RequestModel, Text
from rewardsteer.serving.messages import ChatMessage

Texts = Text | Annotated[list[Text], Field(min_length=1)]
Name = Annotated[str, Field(max_length=1024)]
# Between steps. A copy, because the module of reward models that defines it loads torch.
STEP_SEPARATOR = "\n\n"
# OpenRLHF's name of the list, and other servers' names of it.
_QUERIES = ("query", "queries", "messages", "input", "inputs", "texts")


class RewardItem(RequestModel):
    """A prompt with a completion (text or messages) or with the steps of one."""

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
        """The completion; of steps, their joined text."""
        return STEP_SEPARATOR.join(self.steps or ()) if self.completion is None else self.completion


class RewardsRequest(RequestModel):
    """``POST /v1/rewards``.

    Attributes:
        model: the reward model's name.
        input: prompts with completions; either all with complete texts or all with steps.
        per_token: return the reward of the prefix that ends at each token.
        goal: name of a goal state; the similarity of each token's state to it is returned.
        closed: whether the completions are complete; if not, they are scored as prefixes.
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

    OpenRLHF sends ``query``, the formatted texts of prompts with completions, and in newer versions
    also ``prompts`` and ``labels``. ``queries``, ``messages``, ``input``, ``inputs`` and ``texts``
    are other names of ``query``. Reward functions of TRL have ``prompts`` and ``completions``, as
    text or conversations. Other fields (columns of a data set) are ignored.
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
        """With TRL's fields, other names of ``query`` are columns of the data set."""
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


class TokenizeRequest(RequestModel):
    """``POST /tokenize``, as in vLLM: a prompt as for ``/v1/completions``, or a conversation."""

    model: Name | None = None
    prompt: Text | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _one_form(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("expected either 'prompt' or 'messages'")
        return self
