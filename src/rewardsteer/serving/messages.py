"""Messages of chats, in OpenAI's format. No torch here."""

import json
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, model_validator

from rewardsteer.records import Message
from rewardsteer.serving.fields import RequestModel, Text

Role = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class TextPart(RequestModel):
    """A part of a message; ``cache_control`` has no effect here."""

    type: Literal["text", "refusal"]
    text: Text | None = None
    refusal: Text | None = None
    cache_control: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "TextPart":
        if (self.text if self.type == "text" else self.refusal) is None:
            raise ValueError(f"a part of type {self.type!r} needs the field {self.type!r}")
        return self


class ChatMessage(RequestModel):
    """A turn; an assistant's answer can be sent back unchanged."""

    role: Role
    # Some clients send a type for messages without parts.
    type: Literal["text", "message"] | None = None
    content: Text | list[TextPart] | None = None
    name: Text | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: Text | None = None
    reasoning_content: Text | None = None
    refusal: Text | None = None
    annotations: list[Any] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "ChatMessage":
        if self.content is None and not self.tool_calls and self.refusal is None:
            raise ValueError("expected a message with content")
        return self

    @property
    def text(self) -> str:
        """The content in one piece."""
        if self.content is None:
            return self.refusal or ""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text or part.refusal or "" for part in self.content)

    @property
    def turn(self) -> Message:
        """The message in the form that chat templates take."""
        # OpenAI's newer name of the system role.
        role = "system" if self.role == "developer" else self.role
        calls = None if not self.tool_calls else [_parsed(call) for call in self.tool_calls]
        return Message(
            role=role, content=self.text, name=self.name, tool_calls=calls,
            tool_call_id=self.tool_call_id, reasoning_content=self.reasoning_content,
        )


def _parsed(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as an object, as templates expect; OpenAI sends text."""
    function = call.get("function")
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        try:
            arguments = json.loads(function["arguments"])
        except ValueError:
            return call
        return {**call, "function": {**function, "arguments": arguments}}
    return call
