"""Prompts, responses and numbers of rows, for sources of responses with numbers."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rewardsteer.data.responses import Responses
from rewardsteer.data.sources.files import Row, fields_of, kind_of, require, well_formed
from rewardsteer.data.sources.messages import encoded_messages, parse_tools
from rewardsteer.data.sources.options import RENAMING, check_fields
from rewardsteer.data.sources.reading import Reading, check_place, read_rows
from rewardsteer.data.sources.turns import (
    prompt_of,
    read_pair,
    response_of,
    with_decoded_prompt,
    with_system,
)
from rewardsteer.errors import DataError
from rewardsteer.outputs import given
from rewardsteer.records import Prompt

# Fields that may hold a response; the first one present is used.
RESPONSES = ("completion", "response", "output", "answer")


def renamed(row: Row, fields: Mapping[str, str], place: str) -> Row:
    """A row with its fields renamed to this package's names, without null fields.

    Args:
        fields: this package's names → the data's, where they differ.
        place: file and row, for messages.

    Raises:
        DataError: a named field is absent.
    """
    require(row, list(fields.values()), place)
    found = row | {ours: row[theirs] for ours, theirs in fields.items()}
    return {name: value for name, value in found.items() if value is not None}


def prompt_and_response(row: Row, place: str) -> tuple[Prompt, str]:
    """Prompt and response of a row. Both may be texts or messages (see `read_pair`), or the row
    holds a whole conversation, whose last message is the response.

    Raises:
        DataError: prompt or response is absent, or neither text nor messages.
    """
    name = next((name for name in RESPONSES if name in row), None)
    if name is None:
        prompt = prompt_alone(row, place, absent="a response")
        if isinstance(prompt, str) or len(prompt) < 2:
            raise DataError(
                f"{place}: expected a response as {', '.join(RESPONSES)}, or a conversation that "
                f"ends with it; found {fields_of(row)}; {RENAMING}."
            )
        return prompt[:-1], response_of(prompt[-1], place, "the conversation")
    response = encoded_messages(row[name]) or row[name]
    return read_pair(prompt_alone(row, place), response, place, name)


def prompt_alone(row: Row, place: str, absent: str = "a prompt") -> Prompt:
    """The prompt of a row.

    Args:
        row: as the file holds it, without null fields.
        absent: the missing item that the error message names.

    Raises:
        DataError: there is no prompt.
    """
    prompt = prompt_of(with_decoded_prompt(row), place)
    if prompt is None:
        raise DataError(
            f"{place}: expected {absent}, found the field(s) {fields_of(row)}; {RENAMING}."
        )
    return with_system(prompt, row, place)


def responses_of(
    row: Row, place: str, prompt: Prompt, responses: list[str],
    numbers: dict[str, list[float | None]],
) -> Responses:
    """A `Responses` record with the row's own id ("" where it has none), subset and tools."""
    return Responses(
        id=str(given(row, "id")), prompt=prompt, responses=responses, numbers=numbers,
        subset=str(given(row, "subset")), tools=parse_tools(row.get("tools"), place),
    )


def number_of(
    value: Any, name: str, place: str, expected: str = "a number"
) -> float | None:
    """A number, or None for null, "" and "N/A". Booleans become 0 and 1.

    Args:
        expected: the values that the column may have, for messages.

    Raises:
        DataError: the value is something else, or not finite.
    """
    if value is None or (isinstance(value, str) and value.strip().upper() in ("", "N/A", "NA")):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: expected {expected} as {name}, got {kind_of(value)}.") from error
    if not math.isfinite(number):
        raise DataError(f"{place}: expected a finite number as {name}, got {number}.")
    return number


def rows_of_responses(
    source: str, split: str, path: str | None, reading: Reading | None,
    parse: Callable[[Row, Row, str], Responses | str], *, fields: Mapping[str, str] | None,
    known: Sequence[str], together: int = 1,
) -> Iterator[Responses]:
    """The rows of a source, with consecutive rows of the same prompt merged.

    Args:
        path: local file or folder; None: the data set on the hub that ``reading`` names.
        reading: settings, such as the handling of invalid rows; None: the defaults of `Reading`.
        parse: returns the responses of a row, with the same number names in each row, or the reason
            to skip it. Gets the row as the file holds it, the row of `renamed`, and its place.
        fields: this package's field names → the data's, where they differ.
        known: this package's field names.
        together: most responses in a merged row.

    Raises:
        ConfigError: neither path nor hub, or an unknown field.
        DataError: an invalid row; names it.
    """
    reading, fields = reading or Reading(), dict(fields or {})
    check_place(source, path, reading)
    check_fields(fields, known)
    index, waiting = 0, None
    for place, raw in read_rows(split, path, "", reading=reading):
        found: Responses | str = ""
        with reading.row(), well_formed(place):
            found = parse(raw, renamed(raw, fields, place), place)
            if isinstance(found, str):
                reading.skip(found)
        if not isinstance(found, Responses):
            continue
        if waiting is not None:
            if _same_prompt(waiting, found) and (
                len(waiting.responses) + len(found.responses) <= together
            ):
                waiting = _joined(waiting, found)
                continue
            yield waiting
            index += 1
        waiting = found.model_copy(update={
            "id": found.id or f"{source}-{split}-{index}", "source": source, "place": place,
        })
    if waiting is not None:
        yield waiting


def _joined(one: Responses, other: Responses) -> Responses:
    numbers = {name: values + other.numbers[name] for name, values in one.numbers.items()}
    return one.model_copy(update={
        "responses": one.responses + other.responses, "numbers": numbers,
    })


def _same_prompt(one: Responses, other: Responses) -> bool:
    return (one.prompt, one.tools, one.subset, one.numbers.keys()) == (
        other.prompt, other.tools, other.subset, other.numbers.keys()
    )
