"""Prompts and responses as the text that is tokenized."""

from typing import Any

from jinja2 import TemplateError

from rewardsteer.data.template import Template
from rewardsteer.errors import DataError
from rewardsteer.records import Message, Prompt


def render_prompt(
    prompt: Prompt, template: Template, tokenizer: Any, *,
    tools: list[dict[str, Any]] | None = None,
) -> str:
    """The final prompt text.

    Args:
        prompt: text, or a conversation that ends with the turn to be answered.
        template: the response template.
        tokenizer: only used for ``chat``, whose template it carries.
        tools: functions that a chat template lists, as JSON schemas.

    Raises:
        DataError: a role has no format, the tokenizer has no chat template or its template refuses
            the conversation, or there are tools and the template is ``text``.
    """
    if template.kind == "chat":
        return _render_chat(prompt, template, tokenizer, tools)
    called = not isinstance(prompt, str) and any(message.tool_calls for message in prompt)
    if tools or called:
        raise DataError(
            "A text template cannot write tools and tool calls; use template.kind=chat with a "
            "tokenizer whose chat template does."
        )
    if isinstance(prompt, str):
        return _fill(template.prompt, "prompt", prompt)
    parts = []
    for message in _with_system(prompt, template):
        if message.role not in template.turns:
            raise DataError(
                f"The template has no format for the role {message.role!r}; it knows "
                f"{', '.join(sorted(template.turns))}. Add it under template.turns."
            )
        parts.append(_fill(template.turns[message.role], "content", message.content))
    return _fill(template.prompt, "prompt", "".join(parts) + template.answer)


def render_response(response: str, template: Template) -> str:
    """The response text, without end-of-text (that is a token, not text)."""
    return _fill(template.response, "response", response)


def _fill(pattern: str, name: str, value: str) -> str:
    # Not str.format: prompts and templates are full of braces.
    return pattern.replace("{" + name + "}", value)


def _with_system(messages: list[Message], template: Template) -> list[Message]:
    if template.system is None or (messages and messages[0].role == "system"):
        return messages
    return [Message(role="system", content=template.system), *messages]


def _render_chat(
    prompt: Prompt, template: Template, tokenizer: Any, tools: list[dict[str, Any]] | None
) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"The tokenizer {tokenizer.name_or_path} has no chat template; use a chat model or "
            "template.kind=text."
        )
    if isinstance(prompt, str):
        prompt = [Message(role="user", content=prompt)]
    messages = [message.model_dump() for message in _with_system(prompt, template)]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, TypeError, ValueError) as error:
        # A template says what it refuses with raise_exception, or stumbles over an absent field.
        raise DataError(f"The chat template refuses the conversation: {error}") from error
    return text
