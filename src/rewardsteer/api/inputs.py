"""Conversion of the accepted forms of prompts, completions and rows into one form."""

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from rewardsteer.configuration import load_config
from rewardsteer.data.render import Tools
from rewardsteer.data.sources.files import kind_of
from rewardsteer.data.sources.messages import parse_messages, parse_tools
from rewardsteer.data.sources.turns import check_text, read_pair, read_prompt
from rewardsteer.data.template import Template
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Message, Prompt

_FORMS = (
    "a prompt and a completion (text, or messages that end with the assistant's), lists of both, "
    "one prompt and a list of completions, a conversation whose last turn is the assistant's, a "
    "list of those, or a dataset with the columns prompt and completion"
)


class Texts(NamedTuple):
    """N prompts with one completion each.

    Attributes:
        prompts: texts or conversations. Where a completion is a list of messages, all of them but
            the last belong to the prompt.
        completions: texts.
        single: whether the caller passed one text instead of a list.
    """

    prompts: list[Prompt]
    completions: list[str]
    single: bool


def as_texts(prompts: Any, completions: Any = None) -> Texts:
    """Prompts and completions in any of the accepted forms.

    A list of messages is one completion, whatever its length.

    Raises:
        DataError: another form, or different numbers of prompts and completions.
    """
    if completions is None:
        return _from_conversations(prompts)
    one_prompt = is_one(prompts)
    if is_one(completions):
        if not one_prompt:
            raise _form(prompts)
        prompt, text = read_pair(prompts, completions, "The input")
        return Texts([prompt], [text], True)
    given = listed(completions)
    asked = [prompts] * len(given) if one_prompt else listed(prompts)
    if len(asked) != len(given):
        raise DataError(
            f"Expected one completion per prompt, got {len(asked)} prompts and {len(given)} "
            "completions."
        )
    parts = [
        read_pair(prompt, completion, f"Row {number}")
        for number, (prompt, completion) in enumerate(zip(asked, given, strict=True), start=1)
    ]
    return Texts([prompt for prompt, _ in parts], [text for _, text in parts], False)


def as_single(prompt: Any, completion: Any = None) -> tuple[Prompt, str]:
    """One prompt and its completion; raises `DataError` where there are none or several."""
    texts = as_texts(prompt, completion)
    if len(texts.completions) != 1:
        raise DataError(
            f"Expected one prompt and one completion, got {len(texts.completions)} of them; call "
            "the method once for each."
        )
    return texts.prompts[0], texts.completions[0]


def as_tools(tools: Any, prompts: Any, count: int) -> list[Tools | None]:
    """The functions that the chat template lists, for each of ``count`` rows.

    Args:
        tools: a list of JSON schemas for all rows, or a list with such a list or None for each row.
            None: the column ``tools`` of a dataset, if there is one.
        prompts: the user's argument ``prompts``.

    Raises:
        DataError: another form, or a wrong number of lists.
    """
    columns = getattr(prompts, "column_names", None)
    if tools is None and columns is not None and "tools" in columns:
        tools = list(prompts["tools"])
    per_row = isinstance(tools, list | tuple) and any(one is None or not isinstance(one, Mapping)
                                                      for one in tools)
    if not per_row:
        return [parse_tools(tools, "The input")] * count
    if len(tools) != count:
        raise DataError(
            f"Expected one list of tools for all rows, or one list per row; got {len(tools)} lists "
            f"for {count} rows."
        )
    return [parse_tools(one, f"Row {number}") for number, one in enumerate(tools, start=1)]


def as_two(prompts: Any, first: Any, second: Any) -> tuple[Texts, list[str]]:
    """Prompts with their first completions, and the second completions.

    Raises:
        DataError: as `as_texts`, or two completions that differ before their last message.
    """
    ours, theirs = as_texts(prompts, first), as_texts(prompts, second)
    if ours.prompts != theirs.prompts:
        raise DataError(
            "Expected two completions that part at their last message alone: a model that compares "
            "pairs reads one prompt for both."
        )
    return ours, theirs.completions


def as_steps(prompts: Any, steps: Any) -> tuple[list[Prompt], list[list[str]], bool]:
    """Prompts, the steps of one solution for each, and whether a single solution was passed.

    Raises:
        DataError: another form, or different numbers of prompts and lists of steps.
    """
    single = is_one(prompts)
    if isinstance(steps, str | Mapping | Set) or not isinstance(steps, Iterable):
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
        for step in own:
            check_text(step, f"Solution {number}", "its steps")
    found = [list(own) for own in given]
    known = as_prompts(prompts)
    if len(known) != len(found):
        raise DataError(
            f"Expected one list of steps per prompt, got {len(known)} prompts and {len(found)} "
            "lists of steps."
        )
    return known, found, single


def _from_conversations(given: Any) -> Texts:
    """Texts from conversations that end with the completion, or from the columns of a dataset."""
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
            "Expected a conversation whose last turn, after a prompt, is the assistant's; its "
            f"turns are {', '.join(one.role for one in (*before, last))}. Pass the completion as a "
            "second argument."
        )
    return read_pair(before, [last], "The input", "the conversation")


def is_one(value: Any) -> bool:
    """Whether the value is one prompt or one completion: text, a message, or a list of them."""
    return isinstance(value, str) or _is_message(value) or is_conversation(value)


def is_conversation(value: Any) -> bool:
    """Whether the value is a list of messages."""
    return (
        isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
        and all(map(_is_message, value))
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, Message) or (isinstance(value, Mapping) and "role" in value)


def listed(value: Any) -> list[Any]:
    """The members of a collection that has an order; raises `DataError` for anything else."""
    if isinstance(value, Mapping | Set) or not isinstance(value, Iterable):
        raise _form(value)
    return list(value)


def as_template(value: Any) -> Template | None:
    """A template, or None; a mapping of its settings is checked.

    Raises:
        ConfigError: another value, an unknown setting, or one of the wrong type.
    """
    if value is None or isinstance(value, Template):
        return value
    if isinstance(value, Mapping):
        return load_config(Template, dict(value))
    raise ConfigError(
        "Expected template= as a mapping of settings, such as {'kind': 'text'}, or as a "
        f"rewardsteer.data.template.Template; got {kind_of(value)}."
    )


def as_messages(conversation: Sequence[Any]) -> list[Message]:
    """Messages of a conversation whose turns are messages or mappings.

    Raises:
        DataError: a turn without role or text.
    """
    return parse_messages(conversation, "The input", "the conversation")


def as_prompt(value: Any) -> Prompt:
    """A text, or the messages of a conversation; raises `DataError` for anything else."""
    if not is_one(value):
        raise _form(value)
    return read_prompt(value, "The input")


def as_prompts(value: Any) -> list[Prompt]:
    """One prompt or several; raises `DataError` for anything else."""
    if is_one(value):
        return [as_prompt(value)]
    columns = getattr(value, "column_names", None)
    if columns is not None and "prompt" in columns:
        value = list(value["prompt"])
    if not isinstance(value, Sequence):
        raise _form(value)
    return [as_prompt(one) for one in value]


# What to give in place of other forms of rows.
_REMEDIES = {
    "DatasetDict": "; give one of its splits, such as dataset['train']",
    "DataFrame": "; give its rows, as frame.to_dict('records')",
}


def as_json_lines(dataset: Any) -> str:
    """Rows of preference pairs as the text of a JSONL file.

    Raises:
        DataError: ``dataset`` is not a dataset or list of mappings, has no rows, or holds what JSON
            cannot (numbers and arrays of numpy become plain ones).
    """
    # Iterating over a table of pandas yields the names of its columns.
    table = hasattr(dataset, "columns")
    if not isinstance(dataset, Iterable) or isinstance(dataset, Mapping) or table:
        raise DataError(
            "Expected a dataset as a datasets.Dataset, a list of mappings or a path, got a "
            f"{type(dataset).__name__}{_REMEDIES.get(type(dataset).__name__, '')}."
        )
    lines = []
    for number, row in enumerate(dataset, start=1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"Expected row {number} of the dataset as a mapping with the columns prompt, "
                f"chosen and rejected, got {type(row).__name__}."
            )
        try:
            lines.append(json.dumps(dict(row), ensure_ascii=False, default=_plain) + "\n")
            lines[-1].encode()
        except (TypeError, ValueError) as error:
            raise DataError(
                f"Row {number} of the dataset holds a value that JSON cannot hold ({error}); "
                "convert it to text, a number or a list."
            ) from error
    if not lines:
        raise DataError("The dataset holds no rows.")
    return "".join(lines)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__}")


def _form(value: Any) -> DataError:
    return DataError(f"Expected {_FORMS}; got {type(value).__name__}.")
