"""Anybody's pairs: any file or hub name, TRL's forms, a field mapping, an optional margin."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from rewardsteer.data.sources.files import Row, read_rows, require, shared_beginning
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Comparison, Message, Prompt

_FIELDS = ("prompt", "chosen", "rejected", "margin", "subset", "id")


def load(
    split: str, *, path: str | None = None, name: str | None = None,
    fields: Mapping[str, str] | None = None, identical: str = "error",
) -> Iterator[Comparison]:
    """Comparisons in TRL's forms: explicit prompt, implicit prompt (``chosen`` and ``rejected``
    are whole conversations or texts), plain or conversational.

    Args:
        split: ``train`` or ``test``.
        path: local file or folder; or
        name: data set on the hub.
        fields: our field names → the data's, where they differ.
        identical: what to do when chosen equals rejected: ``error`` or ``drop``.

    Raises:
        ConfigError: neither path nor name, or an unknown field name.
        DataError: absent fields, or identical responses; names the row.
    """
    if path is None and name is None:
        raise ConfigError("The source pairs needs a path or the name of a data set on the hub.")
    unknown = sorted(set(fields or {}) - set(_FIELDS))
    if unknown:
        raise ConfigError(f"Unknown field(s) {', '.join(unknown)}; known: {', '.join(_FIELDS)}.")
    for index, (place, raw) in enumerate(read_rows(split, path, name or "")):
        row = dict(raw)
        for ours, theirs in (fields or {}).items():
            require(raw, [theirs], place)
            row[ours] = raw[theirs]
        comparison = from_conversations(
            row, place, id=str(row.get("id", f"pairs-{split}-{index}")), source="pairs"
        )
        if comparison.chosen == comparison.rejected and identical == "error":
            raise DataError(
                f"{place}: chosen equals rejected, which prefers nothing; remove the row or set "
                "the option identical=drop."
            )
        yield comparison


def from_conversations(row: Row, place: str, *, id: str, source: str) -> Comparison:
    """A comparison from TRL's forms; see `load`.

    Raises:
        DataError: absent fields, or responses that are neither text nor messages.
    """
    require(row, ["chosen", "rejected"], place)
    chosen, rejected = row["chosen"], row["rejected"]
    try:
        if isinstance(chosen, str) and isinstance(rejected, str):
            prompt, chosen, rejected = _texts(row.get("prompt"), chosen, rejected, place)
        else:
            # LLaMA-Factory keeps the turns before the answer under "conversations".
            before = row.get("prompt", row.get("conversations"))
            prompt, chosen, rejected = _messages(before, chosen, rejected, place)
        return Comparison(
            id=id, prompt=prompt, chosen=chosen, rejected=rejected,
            margin=float(row.get("margin") or 0.0), source=source,
            subset=str(row.get("subset") or ""),
        )
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{place}: expected texts or lists of messages with role and content, and a number as "
            f"margin ({type(error).__name__})."
        ) from error


def _texts(
    prompt: Any, chosen: str, rejected: str, place: str
) -> tuple[Prompt, str, str]:
    if prompt is None:
        # Implicit prompt: what the two texts share, up to a line or word boundary.
        common = shared_beginning(chosen, rejected)
        cut = max(common.rfind("\n"), common.rfind(" ")) + 1
        return common[:cut], chosen[cut:], rejected[cut:]
    if isinstance(prompt, str):
        return prompt, chosen, rejected
    return [Message.model_validate(message) for message in prompt], chosen, rejected


def _messages(
    prompt: Any, chosen: Any, rejected: Any, place: str
) -> tuple[Prompt, str, str]:
    first = [Message.model_validate(_keep(message)) for message in _listed(chosen)]
    second = [Message.model_validate(_keep(message)) for message in _listed(rejected)]
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    # Identical conversations share everything: the last turn is the response all the same.
    shared = min(shared, len(first) - 1, len(second) - 1)
    if len(first) - shared != 1 or len(second) - shared != 1:
        raise DataError(
            f"{place}: expected chosen and rejected to differ in their last message alone."
        )
    before: list[Message] = first[:shared]
    if not before and prompt is not None:
        if isinstance(prompt, str):
            return prompt, first[-1].content, second[-1].content
        before = [Message.model_validate(_keep(message)) for message in prompt]
    if not before:
        raise DataError(f"{place}: expected a prompt before the last message, found none.")
    return before, first[-1].content, second[-1].content


def _keep(message: Any) -> dict[str, Any]:
    """Role and content; ShareGPT's ``from``/``value`` are read as well."""
    if "from" in message:
        roles = {"human": "user", "gpt": "assistant"}
        return {"role": roles.get(message["from"], message["from"]), "content": message["value"]}
    return {"role": message["role"], "content": message["content"]}


def _listed(messages: Any) -> list[Any]:
    return messages if isinstance(messages, list) else [messages]
