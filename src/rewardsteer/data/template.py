"""How a prompt and a response become text. One template serves training, scoring and generation."""

from typing import Literal

from pydantic import Field, field_validator

from rewardsteer.configuration import Config

_TURNS = {
    "system": "{content}",
    "user": "\n\nHuman: {content}",
    "assistant": "\n\nAssistant: {content}",
}


class Template(Config):
    """A response template.

    Attributes:
        kind: ``text`` formats strings; ``chat`` uses the tokenizer's chat template.
        prompt: for ``text``: format of the final prompt.
        turns: for ``text``: how each role's turn is written when a prompt is a conversation.
        answer: for ``text``: opening of the answer after a conversation's last turn.
        response: format of the response.
        system: system message put before conversations that have none.
        append_eos: close every response with end-of-text. The reward of a whole response is read
            there, and generation ends there.
        add_special_tokens: let the tokenizer add its own (beginning-of-text) before the prompt.
            Chat templates write theirs, so it is ignored under ``chat``.
    """

    kind: Literal["text", "chat"] = "text"
    prompt: str = "{prompt}"
    turns: dict[str, str] = Field(default_factory=lambda: dict(_TURNS))
    answer: str = "\n\nAssistant:"
    response: str = "{response}"
    system: str | None = None
    append_eos: bool = True
    add_special_tokens: bool = True

    @field_validator("prompt")
    @classmethod
    def _names_prompt(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("must contain {prompt}")
        return value

    @field_validator("response")
    @classmethod
    def _names_response(cls, value: str) -> str:
        if "{response}" not in value:
            raise ValueError("must contain {response}")
        return value
