"""Rows of one response made from a solution with labelled steps."""

from collections.abc import Sequence
from typing import Any

from rewardsteer.data.sources.files import kind_of
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Comparison, Prompt

# Default separator of steps; scoring splits texts at the same separator.
SEPARATOR = "\n\n"


def solution(
    prompt: Prompt, steps: Sequence[str], labels: Sequence[float | None], place: str, *,
    separator: str = SEPARATOR, id: str = "",
) -> Comparison:
    """A response made of steps; each step ends after its separator.

    Args:
        prompt: the question.
        steps: their texts, which are stripped.
        labels: correctness of each step, from 0 to 1; None: not labelled.
        separator: written between two steps.

    Raises:
        DataError: no steps, an empty step, a wrong number of labels, or no label at all.
    """
    texts = [step.strip() for step in steps]
    if len(texts) != len(labels):
        raise DataError(
            f"{place}: expected a label for each step, got {len(texts)} steps and {len(labels)} "
            "labels."
        )
    if not texts or not all(texts):
        found = "an empty one" if texts else "none"
        raise DataError(f"{place}: expected steps with text, got {found}.")
    ends, chosen = [], ""
    for number, text in enumerate(texts):
        chosen += text + (separator if number + 1 < len(texts) else "")
        ends.append(len(chosen))
    labelled = [(end, label) for end, label in zip(ends, labels, strict=True) if label is not None]
    return Comparison(
        id=id, prompt=prompt, chosen=chosen, single=True, step_ends=[end for end, _ in labelled],
        step_labels=[label for _, label in labelled],
    )


def label_of(value: Any, place: str) -> float | None:
    """A label as a number from 0 to 1; booleans become 0 and 1, null becomes None.

    Raises:
        DataError: the value is something else.
    """
    if value is None:
        return None
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return float(value)
    raise DataError(
        f"{place}: expected labels that are true, false, null or numbers from 0 to 1, got "
        f"{kind_of(value)}."
    )


def check_separator(separator: str) -> None:
    """Refuse a separator that is not white space."""
    if not isinstance(separator, str) or not separator or separator.strip():
        raise ConfigError(
            f"separator must be white space, such as two newlines, got {separator!r}."
        )
