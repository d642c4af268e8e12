"""Prompts and responses from files and callers: texts, or the messages of a conversation.

A prompt's earlier turns and system message may have fields of their own.

In a response that is a list of messages, only the last message, an assistant's, is scored. The
messages before it (tool calls and their results) become part of the prompt, so that the chat
template writes the whole conversation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.data.sources.files import Row, kind_of
from rewardsteer.data.sources.messages import FORM, encoded_messages, parse_messages
from rewardsteer.errors import DataError
from rewardsteer.records import Message, Prompt

# Fields that may hold the prompt; the first one present is used.
PROMPTS = ("prompt", "conversations", "messages", "question", "instruction")


def with_decoded_prompt(row: Row) -> Row:
    """The row, with JSON texts decoded to messages in the fields that may hold its prompt."""
    found = {name: encoded_messages(row.get(name)) for name in PROMPTS}
    return row | {name: value for name, value in found.items() if value is not None}


def prompt_of(row: Row, place: str) -> Prompt | None:
    """The prompt of a row, None where it has none; raises `DataError`."""
    name = next((name for name in PROMPTS if name in row), None)
    if name is None:
        return None
    value = row[name]
    if isinstance(value, list | dict):
        return parse_messages(value, place, name)
    if not isinstance(value, str):
        raise DataError(f"{place}: {FORM}; {name} is {kind_of(value)}.")
    more = row.get("input")
    if name == "instruction" and isinstance(more, str) and more:
        value = f"{value}\n{more}"
    turns = _history(row.get("history"), place)
    return [*turns, Message(role="user", content=value)] if turns else value


def _history(value: Any, place: str) -> list[Message]:
    """Messages of LLaMA-Factory's earlier turns, a list of ``[question, answer]``."""
    turns = []
    for number, pair in enumerate(value or [], start=1):
        if not isinstance(pair, list) or [type(text) for text in pair] != [str, str]:
            raise DataError(f"{place}: expected two texts as item {number} of history.")
        turns += [
            Message(role="user", content=pair[0]), Message(role="assistant", content=pair[1])
        ]
    return turns


def with_system(prompt: Prompt, row: Row, place: str) -> Prompt:
    """The prompt with the row's system message, where it has one; raises `DataError`."""
    system = row.get("system")
    if not system:
        return prompt
    if not isinstance(system, str):
        raise DataError(f"{place}: expected a text as system, got {kind_of(system)}.")
    turns = [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt
    if turns and turns[0].role == "system":
        return turns
    return [Message(role="system", content=system), *turns]


def read_prompt(value: Any, place: str, key: str = "prompt") -> Prompt:
    """A prompt: text, or messages.

    Args:
        value: what a file or a caller gives.
        key: the field that holds it, for messages.

    Raises:
        DataError: the value is neither, or holds no message.
    """
    if isinstance(value, str):
        return check_text(value, place, key)
    return _turns(value, place, key)


def check_text(text: str, place: str, key: str) -> str:
    """The text; raises `DataError` where it holds half of a surrogate pair, which Python can hold
    and no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: {key} holds half of a surrogate pair (\\u{ord(text[error.start]):04x}), "
            "which is no text; leave it out."
        ) from error
    return text


def read_pair(
    prompt: Any, response: Any, place: str, key: str = "completion"
) -> tuple[Prompt, str]:
    """A prompt and the text of its response; either may be given as messages.

    Args:
        prompt: see `read_prompt`.
        response: text, or messages whose first and last are the assistant's, the last with text.
            They may repeat the prompt at their beginning.
        key: the field that holds the response, for messages.

    Returns:
        The prompt, with all messages before the last one, and the last message's text.

    Raises:
        DataError: another form; the first message is not the assistant's, or the last one has no
            text; or the response to a text prompt has several messages.
    """
    asked = read_prompt(prompt, place)
    if isinstance(response, str):
        return asked, check_text(response, place, key)
    turns = _turns(response, place, key)
    before = [Message(role="user", content=asked)] if isinstance(asked, str) else asked
    repeated = len(turns) > len(before) and turns[: len(before)] == before
    own = turns[len(before) :] if repeated else turns
    text = response_of(own[-1], place, key)
    if len(own) == 1:
        return asked, text
    if own[0].role != "assistant":
        raise DataError(
            f"{place}: {key} holds {len(own)} messages that do not begin with the prompt, and the "
            f"first has the role {own[0].role!r}; expected the response alone, from an assistant's "
            "message on, or the whole conversation."
        )
    if isinstance(asked, str) and not repeated:
        raise DataError(
            f"{place}: {key} holds {len(own)} messages and the prompt is text; write the prompt as "
            "a list of messages, too, so that they are one conversation."
        )
    return [*before, *own[:-1]], text


def response_of(message: Message, place: str, key: str) -> str:
    """The text of an assistant's message; raises `DataError` for any other message."""
    if message.role != "assistant":
        raise DataError(
            f"{place}: expected an assistant's message at the end of {key}, got one of the role "
            f"{message.role!r}."
        )
    if message.tool_calls:
        raise DataError(
            f"{place}: the last message of {key} is a tool call; only answers in text can be "
            "judged, so leave the row out or add the answer."
        )
    if message.reasoning_content:
        return f"<think>\n{message.reasoning_content.strip()}\n</think>\n\n{message.content}"
    return message.content


def _turns(value: Any, place: str, key: str) -> list[Message]:
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if not (several or isinstance(value, Mapping | Message)) or not value:
        given = "an empty list" if several else kind_of(value)
        raise DataError(
            f"{place}: expected text or messages as {key}, each with role and content; got {given}."
        )
    messages = parse_messages(value, place, key)
    for message in messages:
        check_text(message.content + (message.reasoning_content or ""), place, key)
    return messages
