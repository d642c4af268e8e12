"""Comparisons from rows in the formats of TRL, ShareGPT and LLaMA-Factory."""

import math
from typing import Any

from rewardsteer.data.sources.files import Row, kind_of, require, well_formed
from rewardsteer.data.sources.messages import FORM, encoded_messages, parse_messages, parse_tools
from rewardsteer.data.sources.turns import prompt_of, response_of, with_decoded_prompt, with_system
from rewardsteer.data.thoughts import shared_length
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison, Message, Prompt

# Further fields that may hold the prompt. The user must say whether they hold all of it.
_QUESTIONS = ("input", "query", "problem", "context", "post")


def from_conversations(
    row: Row, place: str, *, id: str = "", parted: str = "error", remedy: str = ""
) -> Comparison | str:
    """The comparison of a row, or the reason to skip it (see ``parted``).

    Null fields count as absent, and message lists may be JSON texts.

    Args:
        row, place: the row as the file holds it; file and row, for messages.
        id: of the comparison; "" where the row has none.
        parted: see `rewardsteer.data.sources.pairs.load`.
        remedy: advice in the message about absent fields.

    Raises:
        DataError: absent fields, or responses that are neither text nor messages; names the row,
            and within conversations the message and the key.
    """
    null = {name for name, value in row.items() if value is None}
    row = _decoded({name: value for name, value in row.items() if value is not None})
    if "chosen" not in row and isinstance(row.get("output"), list):
        row = row | dict(zip(("chosen", "rejected"), _two(row["output"], place), strict=True))
    if empty := [name for name in ("chosen", "rejected") if name in null - row.keys()]:
        raise DataError(f"{place}: expected text or messages in {' and '.join(empty)}, found null.")
    require(row, ["chosen", "rejected"], place, remedy=remedy)
    for name in ("chosen", "rejected"):
        _check_response(row[name], name, place)
    prompt, chosen, rejected = prompt_of(row, place), row["chosen"], row["rejected"]
    if isinstance(chosen, str) != isinstance(rejected, str):
        kinds = f"chosen is {kind_of(chosen)} and rejected is {kind_of(rejected)}"
        raise DataError(f"{place}: {FORM}; {kinds}.")
    if isinstance(chosen, str):
        _check_no_question(row, prompt, place)
        split = split_texts(chosen, rejected)
        if prompt is None and not split[0]:
            _check_no_text(row, place)
        parts: tuple[Prompt, str, str] | None = split
        if prompt is not None:
            parts = prompt, chosen, rejected
    else:
        parts = _split_messages(
            prompt, parse_messages(chosen, place, "chosen"),
            parse_messages(rejected, place, "rejected"), place, parted,
        )
    if parts is None:
        return "that part before the last turn"
    with well_formed(place):
        return Comparison(
            id=id, prompt=with_system(parts[0], row, place), chosen=parts[1], rejected=parts[2],
            margin=margin_of(row.get("margin"), place), subset=str(row.get("subset") or ""),
            tools=parse_tools(row.get("tools"), place),
            chosen_by=_writer(row, "chosen"), rejected_by=_writer(row, "rejected"),
        )


def _writer(row: Row, side: str) -> str:
    """The model that wrote a response, from the fields of reward-bench or UltraFeedback's forms."""
    found = row.get(f"{side}_model") or row.get(f"{side}-model")
    return found if isinstance(found, str) else ""


def _check_no_question(row: Row, prompt: Prompt | None, place: str) -> None:
    """Refuse to use the common beginning of both texts as the prompt, where a field may hold it."""
    asked = [name for name in _QUESTIONS if row.get(name)]
    if prompt is None and asked:
        raise DataError(
            f"{place}: found {', '.join(asked)} and no prompt; name the field that holds it with "
            f"fields.prompt={asked[0]}, or take it out if both responses begin with the prompt."
        )


def _check_no_text(row: Row, place: str) -> None:
    """Refuse an empty prompt where a field of an unknown name may hold it."""
    known = {"chosen", "rejected", "id", "subset", "margin", "system", "tools"}
    texts = [
        name for name, value in row.items()
        if name not in known and isinstance(value, str) and len(value.split()) > 1
    ]
    if texts:
        raise DataError(
            f"{place}: found no prompt, neither as a field nor at the beginning of both responses; "
            f"name the field that holds it with fields.prompt={texts[0]} (other texts here: "
            f"{', '.join(texts)}), or write an empty prompt."
        )


def split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Prompt and responses of two texts that begin with the prompt. The cut is that of TRL's
    ``extract_prompt``: at the first difference, and before a space in front of it."""
    shorter = min(len(chosen), len(rejected))
    cut = max(shorter - 1, 0)
    for index in range(shorter):
        if chosen[index] != rejected[index]:
            cut = index - 1 if index and chosen[index - 1] == " " else index
            break
    return chosen[:cut], chosen[cut:], rejected[cut:]


def margin_of(value: Any, place: str) -> float:
    """A row's margin, 0 where there is none.

    Raises:
        DataError: the value is not a number, not finite or negative.
    """
    if value is None or value == "":
        return 0.0
    try:
        if isinstance(value, bool):
            raise TypeError
        margin = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: expected a number as margin, got {kind_of(value)}.") from error
    if not math.isfinite(margin) or margin < 0:
        raise DataError(
            f"{place}: expected a margin of 0 or more (how much better the chosen response is), "
            f"got {margin:g}."
        )
    return margin


def _decoded(row: Row) -> Row:
    """The row with JSON texts of message lists decoded."""
    chosen, rejected = encoded_messages(row.get("chosen")), encoded_messages(row.get("rejected"))
    if chosen is not None and rejected is not None:
        row = row | {"chosen": chosen, "rejected": rejected}
    return with_decoded_prompt(row)


def _two(outputs: list[Any], place: str) -> list[Any]:
    if len(outputs) != 2:
        raise DataError(
            f"{place}: expected two answers as output, the better one first, got {len(outputs)}; "
            "write one row for each pair."
        )
    return outputs


def _check_response(value: Any, name: str, place: str) -> None:
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        raise DataError(
            f"{place}: {name} holds a list of {len(value)} texts, a comparison has one; write one "
            "row for each pair of answers."
        )
    if not isinstance(value, str | list | dict) or value == []:
        found = "an empty list" if value == [] else kind_of(value)
        raise DataError(f"{place}: {FORM}; {name} is {found}.")


def _split_messages(
    prompt: Prompt | None, chosen: list[Message], rejected: list[Message], place: str, parted: str
) -> tuple[Prompt, str, str] | None:
    # In identical conversations too, the last turn is the response.
    shared = min(shared_length(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    if len(chosen) - shared != 1 or len(rejected) - shared != 1:
        if parted == "drop":
            return None
        if parted == "error":
            raise DataError(
                f"{place}: expected chosen and rejected to differ in their last message alone, "
                f"they part at message {shared + 1} and go on; set sources.0.options.parted=first "
                "to compare the first answers that differ, or parted=drop."
            )
    before = _before(prompt, chosen[:shared], place)
    return (
        before, response_of(chosen[shared], place, "chosen"),
        response_of(rejected[shared], place, "rejected"),
    )


def _before(prompt: Prompt | None, shared: list[Message], place: str) -> Prompt:
    """The whole prompt, which may be divided between ``prompt`` and the start of both responses."""
    if not shared:
        if not prompt:
            raise DataError(f"{place}: expected a prompt before the last message, found none.")
        return prompt
    if isinstance(prompt, list):
        return shared if shared[: len(prompt)] == prompt else [*prompt, *shared]
    if prompt and not any(prompt.strip() in message.content for message in shared):
        raise DataError(
            f"{place}: expected the prompt among the messages that chosen and rejected begin with, "
            "it is another text; leave one of the two out."
        )
    return shared
