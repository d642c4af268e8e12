"""What users pass as texts, brought into one form."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rewardsteer.errors import DataError
from rewardsteer.records import Message, Prompt

_FORMS = (
    "a prompt and a completion, lists of both, one prompt and a list of completions, a "
    "conversation whose last turn is the assistant's, a list of those, or a dataset with the "
    "columns prompt and completion"
)


class Texts(NamedTuple):
    """N prompts with one completion each.

    Attributes:
        prompts: texts or conversations.
        completions: texts.
        single: one text was asked about, not a list of one.
    """

    prompts: list[Prompt]
    completions: list[str]
    single: bool


def as_texts(prompts: Any, completions: Any = None) -> Texts:
    """Prompts and completions in any of the accepted forms.

    Raises:
        DataError: another form; or different numbers of prompts and completions.
    """
    if completions is None:
        return _from_conversations(prompts)
    one_prompt = isinstance(prompts, str) or is_conversation(prompts)
    if isinstance(completions, str):
        if not one_prompt:
            raise _form(prompts)
        return Texts([as_prompt(prompts)], [completions], True)
    completions = list(completions)
    known = [as_prompt(prompts)] * len(completions) if one_prompt else [
        as_prompt(one) for one in prompts
    ]
    if len(known) != len(completions):
        raise DataError(
            f"Expected one completion per prompt, got {len(known)} prompts and {len(completions)} "
            "completions."
        )
    if any(not isinstance(one, str) for one in completions):
        raise _form(completions)
    return Texts(known, completions, False)


def as_steps(prompts: Any, steps: Any) -> tuple[list[Prompt], list[list[str]], bool]:
    """Prompts with the steps of one solution each, and whether one solution was asked about.

    Raises:
        DataError: another form; or different numbers of prompts and lists of steps.
    """
    single = isinstance(prompts, str) or is_conversation(prompts)
    if isinstance(steps, str) or not isinstance(steps, Iterable):
        raise DataError(
            f"Expected the steps of a solution as a list of texts, got {type(steps).__name__}."
        )
    given = [list(steps)] if single else list(steps)
    for number, own in enumerate(given, start=1):
        if not isinstance(own, Sequence) or not all(isinstance(one, str) for one in own) or (
            isinstance(own, str)
        ):
            raise DataError(
                f"Expected the steps of solution {number} as a list of texts; for several "
                "solutions, give a list of prompts and a list of such lists."
            )
    found = [list(own) for own in given]
    known = as_prompts(prompts)
    if len(known) != len(found):
        raise DataError(
            f"Expected one list of steps per prompt, got {len(known)} prompts and {len(found)} "
            "lists of steps."
        )
    return known, found, single


def _from_conversations(given: Any) -> Texts:
    """Conversations whose last turn is judged, or the columns of a dataset."""
    columns = getattr(given, "column_names", None)
    if columns is not None and {"prompt", "completion"} <= set(columns):
        return as_texts(list(given["prompt"]), list(given["completion"]))
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise _form(given)
    single = is_conversation(given)
    conversations = [given] if single else list(given)
    if not all(is_conversation(one) for one in conversations):
        raise _form(given)
    parts = [_split(one) for one in conversations]
    return Texts([prompt for prompt, _ in parts], [answer for _, answer in parts], single)


def _split(conversation: Sequence[Any]) -> tuple[Prompt, str]:
    *before, last = as_messages(conversation)
    if last.role != "assistant" or not before:
        raise DataError(
            "Expected a conversation whose last turn, after a prompt, is the assistant's; its last "
            f"turn is of the role {last.role!r}. Pass the completion as a second argument."
        )
    return before, last.content


def is_conversation(value: Any) -> bool:
    """Whether it is a list of messages."""
    return (
        isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
        and all(isinstance(one, Message) or (isinstance(one, Mapping) and "role" in one)
                for one in value)
    )


def as_messages(conversation: Sequence[Any]) -> list[Message]:
    """Messages of a conversation whose turns are messages or mappings.

    Raises:
        DataError: a turn without role or text.
    """
    found = []
    for turn in conversation:
        if isinstance(turn, Message):
            found.append(turn)
            continue
        role, content = turn.get("role"), turn.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(
                "Expected messages with a role and a content, both texts; got "
                f"{type(role).__name__} and {type(content).__name__}."
            )
        found.append(Message(role=role, content=content))
    return found


def as_prompt(value: Any) -> Prompt:
    """A text, or the messages of a conversation; raises `DataError` for anything else."""
    if isinstance(value, str):
        return value
    if is_conversation(value):
        return as_messages(value)
    raise _form(value)


def as_prompts(value: Any) -> list[Prompt]:
    """One prompt or several; raises `DataError` for anything else."""
    if isinstance(value, str) or is_conversation(value):
        return [as_prompt(value)]
    columns = getattr(value, "column_names", None)
    if columns is not None and "prompt" in columns:
        value = list(value["prompt"])
    if not isinstance(value, Sequence):
        raise _form(value)
    return [as_prompt(one) for one in value]


def as_json_lines(dataset: Any) -> str:
    """Rows of preference pairs as the text of a JSONL file.

    Raises:
        DataError: it is no dataset or list of mappings, or has no rows.
    """
    if not isinstance(dataset, Iterable) or isinstance(dataset, Mapping):
        raise DataError(
            "Expected a dataset as a datasets.Dataset, a list of mappings or a path, got "
            f"{type(dataset).__name__}."
        )
    lines = []
    for number, row in enumerate(dataset, start=1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"Expected row {number} of the dataset as a mapping with the columns prompt, "
                f"chosen and rejected, got {type(row).__name__}."
            )
        lines.append(json.dumps(dict(row), ensure_ascii=False) + "\n")
    if not lines:
        raise DataError("The dataset holds no rows.")
    return "".join(lines)


def _form(value: Any) -> DataError:
    return DataError(f"Expected {_FORMS}; got {type(value).__name__}.")
