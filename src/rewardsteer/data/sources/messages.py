"""Messages from the conversations in files; errors name the message number and key."""

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewardsteer.data.sources.files import kind_of
from rewardsteer.errors import DataError
from rewardsteer.records import Message

# Role names of ShareGPT and similar formats.
_ROLES = {
    "human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant",
    "bot": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
    "observation": "tool", "function_response": "tool",
}
_SHAREGPT = {*_ROLES, "user", "assistant", "system", "tool", "function", "function_call"}
FORM = "expected texts or lists of messages with role and content"
_OPTIONAL = ("name", "tool_call_id", "reasoning_content")


def parse_messages(value: Any, place: str, key: str) -> list[Message]:
    """The messages of a conversation.

    Args:
        value: a list of messages, or one message; each a `Message`, or ``role`` and ``content``
            (OpenAI, TRL) or ``from`` and ``value`` (ShareGPT, LLaMA-Factory). A key that is null
            counts as absent.
        key: the field that holds it, for messages.

    Raises:
        DataError: an invalid message; names its number, from 1, and the key.
    """
    messages: list[Message] = []
    several = isinstance(value, Sequence) and not isinstance(value, str)
    for number, one in enumerate(value if several else [value], start=1):
        where = f"{place}: {FORM}; in message {number} of {key}"
        if isinstance(one, Message):
            messages.append(one)
            continue
        if not isinstance(one, Mapping):
            raise DataError(
                f"{place}: {FORM}; message {number} of {key} is {kind_of(one)}."
            )
        present = {name: part for name, part in one.items() if part is not None}
        if "from" in present and "role" not in present:
            messages.append(_sharegpt(present, where, messages))
        else:
            messages.append(_openai(present, one, where))
    return messages


def parse_tools(value: Any, place: str) -> list[dict[str, Any]] | None:
    """Functions for a chat template, from a list or from its JSON text (LLaMA-Factory's form).

    Raises:
        DataError: the value is not a list of mappings.
    """
    if isinstance(value, str) and value.strip():
        value = _decoded(value, f"{place}: tools")
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise DataError(
            f"{place}: expected a list of functions (JSON schemas) as tools, got {kind_of(value)}."
        )
    tools = [_without_nulls(tool) for tool in value]
    return [
        tool if "function" in tool or "name" not in tool else {"type": "function", "function": tool}
        for tool in tools
    ]


def encoded_messages(value: Any) -> list[Any] | None:
    """The list of messages that a text holds as JSON, or as a Python literal (in tables written by
    pandas); None for anything else."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[{", "[ {", "[\n")):
        return None
    found = _read_as(json.loads, value) or _read_as(ast.literal_eval, value.strip())
    keys = ({"role", "content"}, {"from", "value"}, {"role", "tool_calls"})
    if not isinstance(found, list) or not found:
        return None
    alike = (isinstance(one, dict) and any(some <= one.keys() for some in keys) for one in found)
    return found if all(alike) else None


def _read_as(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _openai(present: dict[str, Any], given: Mapping[str, Any], where: str) -> Message:
    role = present.get("role")
    if not isinstance(role, str):
        raise DataError(f"{where} {_what(given, 'role')}.")
    calls = present.get("tool_calls")
    if calls is not None and (
        not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls)
    ):
        raise DataError(f"{where} 'tool_calls' is {kind_of(calls)}, not a list of calls.")
    if "content" not in present and not calls:
        raise DataError(f"{where} {_what(given, 'content')}.")
    optional = {name: present[name] for name in _OPTIONAL if name in present}
    for name, value in optional.items():
        if not isinstance(value, str):
            raise DataError(f"{where} {name!r} is {kind_of(value)}.")
    return Message(
        role=_ROLES.get(role, role), content=_content(present.get("content", ""), where),
        tool_calls=[_without_nulls(call) for call in calls] if calls else None, **optional,
    )


def _what(given: Mapping[str, Any], key: str) -> str:
    if key in given:
        return f"{key!r} is {kind_of(given[key])}"
    return f"there is no {key!r}, only {', '.join(sorted(given)) or 'nothing'}"


def _content(content: Any, where: str) -> str:
    """The content as one text: a text itself, or the joined texts of a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise DataError(f"{where} 'content' is {kind_of(content)}.")
    texts = []
    for number, part in enumerate(content, start=1):
        if isinstance(part, dict) and part.get("type", "text") == "text":
            part = part.get("text")
        if not isinstance(part, str):
            found = part.get("type") if isinstance(part, dict) else kind_of(part)
            raise DataError(
                f"{where} part {number} of 'content' is {found}; only text can be read."
            )
        texts.append(part)
    return "".join(texts)


def _sharegpt(present: dict[str, Any], where: str, before: list[Message]) -> Message:
    speaker, value = present["from"], present.get("value")
    if speaker not in _SHAREGPT:
        raise DataError(
            f"{where} 'from' is {speaker!r}, not human, gpt, system, function_call or observation."
        )
    if not isinstance(value, str):
        raise DataError(f"{where} {_what(present, 'value')}.")
    role = _ROLES.get(speaker, speaker)
    if role == "tool" and not any(message.tool_calls for message in before):
        raise DataError(
            f"{where} a function_call should come before its answer, found {speaker!r} first."
        )
    if speaker == "function_call":
        return Message(role="assistant", content="", tool_calls=_calls(value, where))
    return Message(role=role, content=value)


def _calls(value: str, where: str) -> list[dict[str, Any]]:
    found = _decoded(value, f"{where} the function_call")
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, dict) and "name" in call for call in calls):
        raise DataError(f"{where} the function_call has no name.")
    return [{"type": "function", "function": call} for call in calls]


def _decoded(value: str, what: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is not valid JSON ({error}).") from error


def _without_nulls(value: Any) -> Any:
    """The value without null keys, which tables add because all rows share the same columns."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value
