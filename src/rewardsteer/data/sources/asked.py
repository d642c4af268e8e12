"""Prompts of rows, from a text or messages, earlier turns and a system message."""

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
