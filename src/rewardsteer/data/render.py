"""Prompts and responses as the text that is tokenized."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rewardsteer.data.chat import turn_begin, turn_end, write_chat, written_already
from rewardsteer.data.template import Template, resolve
from rewardsteer.data.thoughts import behind, is_lost
from rewardsteer.errors import DataError
from rewardsteer.records import Message, Prompt

Tools = list[dict[str, Any]]


def as_prompt(prompt: str | Sequence[Message | Mapping[str, Any]]) -> Prompt:
    """A prompt in the form of the records: text or `Message` objects. Messages may be mappings.

    Raises:
        DataError: it is neither text nor messages with role and content.
    """
    if isinstance(prompt, str):
        return prompt
    try:
        if not len(prompt):
            raise TypeError
        return [
            one if isinstance(one, Message) else Message.model_validate(one) for one in prompt
        ]
    except (TypeError, ValidationError) as error:
        raise DataError(
            "Expected a prompt as text, or as a list of messages with role and content as text, "
            "one at least; "
            f"got {_shown(prompt)}."
        ) from error


def plain_prompt(prompt: Prompt) -> str | list[dict[str, Any]]:
    """A prompt in JSON's form, text or a list of dicts: the inverse of `as_prompt`."""
    return prompt if isinstance(prompt, str) else [turn.model_dump() for turn in prompt]


def render_prompt(
    prompt: Prompt, template: Template, tokenizer: Any, *, tools: Tools | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """The final prompt text.

    Args:
        prompt: text, or a conversation that ends with the turn to be answered.
        template: the response template.
        tokenizer: has the chat template; only used for ``chat``.
        tools: functions that a chat template lists, as JSON schemas.
        options: further options of a chat template, such as ``enable_thinking``.

    Raises:
        DataError: a role has no format, the tokenizer has no chat template or its template refuses
            the conversation, or there are tools and the template is ``text``.
    """
    template, prompt = resolve(template, tokenizer), as_prompt(prompt)
    if template.kind == "chat":
        if isinstance(prompt, str) and written_already(prompt, tokenizer):
            return _with_beginning(prompt, tokenizer)
        return write_chat(
            tokenizer, _messages(prompt, template), tools=tools, answer=True, options=options
        )
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


def render_closed(
    prompt: Prompt, opened: str, response: str, template: Template, tokenizer: Any, *,
    tools: Tools | None = None,
) -> str:
    """Prompt and response as one text of the chat template, closed unless ``append_eos`` is false.

    The response keeps its thought, even where the chat template removes thoughts of past turns.

    Args:
        prompt: text, or a conversation.
        opened: the prompt as `render_prompt` writes it.
        response: its text.
        template: the response template.
        tokenizer: has the chat template.
        tools: functions that a chat template lists, as JSON schemas.

    Raises:
        DataError: see `render_prompt`.
    """
    end, content = turn_end(tokenizer), render_response(response, template)
    prompt = as_prompt(prompt)
    if isinstance(prompt, str) and written_already(prompt, tokenizer):
        whole = opened + turn_begin(tokenizer) + behind(opened, content) + end
    else:
        turn = {"role": "assistant", "content": content}
        whole = write_chat(tokenizer, [*_messages(prompt, template), turn], tools=tools)
        if is_lost(whole, opened, content):
            whole = opened + behind(opened, content) + end
    return whole if template.append_eos else whole.removesuffix(end)


def _fill(pattern: str, name: str, value: str) -> str:
    # Not str.format: prompts and templates are full of braces.
    return pattern.replace("{" + name + "}", value)


def _messages(prompt: Prompt, template: Template) -> list[dict[str, Any]]:
    if isinstance(prompt, str):
        prompt = [Message(role="user", content=prompt)]
    return [message.model_dump() for message in _with_system(prompt, template)]


def _with_system(messages: list[Message], template: Template) -> list[Message]:
    if template.system is None or (messages and messages[0].role == "system"):
        return messages
    return [Message(role="system", content=template.system), *messages]


def _with_beginning(text: str, tokenizer: Any) -> str:
    """A text of the chat template, with beginning-of-text added where the template writes one."""
    begin = tokenizer.bos_token
    probe = write_chat(tokenizer, [{"role": "user", "content": "x"}])
    missing = begin and probe.startswith(begin) and not text.startswith(begin)
    return begin + text if missing else text


def _shown(prompt: Any) -> str:
    if not isinstance(prompt, Sequence):
        return type(prompt).__name__
    kinds = sorted({type(one).__name__ for one in prompt})
    return f"{type(prompt).__name__} of {', '.join(kinds) or 'nothing'}"
