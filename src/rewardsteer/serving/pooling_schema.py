"""Requests for rewards in the forms of vLLM and Infinity. No torch here."""

from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, Field, model_validator

from rewardsteer.serving.fields import RequestModel, Text, Tokens
from rewardsteer.serving.messages import ChatMessage
from rewardsteer.serving.reward_schema import Name, Texts


class _Pooling(RequestModel):
    """Fields that requests of vLLM and Infinity share.

    Attributes:
        model: the reward model's name.
        use_activation: return the sigmoid of the rewards instead of raw rewards.
    """

    lenient: ClassVar[bool] = True

    model: Name | None = None
    use_activation: bool | None = Field(
        default=None, validation_alias=AliasChoices("use_activation", "activation")
    )


class TextsRequest(_Pooling):
    """``POST /classify`` and ``/pooling``: formatted texts, token ids, or one conversation whose
    last turn is scored.

    Attributes:
        add_special_tokens: add the tokenizer's beginning-of-text to a text that has none.
        add_generation_prompt: only false, because the last turn is the scored one.
        continue_final_message: score the last turn as an unfinished response.
    """

    input: Texts | Tokens | Annotated[list[Tokens], Field(min_length=1)] | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=2)] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: Literal[False] | None = None
    continue_final_message: bool = False
    # Infinity's field; with it, the answer has Infinity's format.
    raw_scores: bool | None = None
    task: str | None = None
    encoding_format: str | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "TextsRequest":
        if (self.input is None) == (self.messages is None):
            raise ValueError("expected either 'input' or 'messages'")
        return self


class PairsRequest(_Pooling):
    """``POST /score``: completions with one prompt for all or one prompt for each."""

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
    """``POST /rerank``: completions of one prompt, to be sorted by reward."""

    query: Text
    documents: Annotated[list[Text | Document], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    return_documents: bool = True
    raw_scores: bool | None = None
