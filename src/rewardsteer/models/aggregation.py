"""Steps of a solution: how a text is divided into them, and one number made of their rewards."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rewardsteer.errors import ConfigError, DataError

# Steps of a solution in text: paragraphs.
SEPARATOR = "\n\n"

_AGGREGATIONS: dict[str, Callable[[np.ndarray], float]] = {
    "min": lambda values: float(values.min()),
    "last": lambda values: float(values[-1]),
    "product": lambda values: float(values.prod()),
    "mean": lambda values: float(values.mean()),
}
AGGREGATIONS = tuple(_AGGREGATIONS)


def check_aggregation(name: str) -> str:
    """The name; raises `ConfigError` listing the known ones on a miss."""
    if name not in AGGREGATIONS:
        raise ConfigError(f"Unknown aggregation {name!r}; expected {', '.join(AGGREGATIONS)}.")
    return name


def aggregate_steps(values: np.ndarray | Sequence[float], name: str) -> float:
    """One number for a solution from the rewards of its steps.

    Args:
        values: at least one, in the order of the steps.
        name: ``min``, ``last``, ``product`` or ``mean``.

    Raises:
        ConfigError: there is no such aggregation.
        DataError: there is no step.
    """
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        raise DataError("Expected at least one step to aggregate, got none.")
    return _AGGREGATIONS[check_aggregation(name)](found)


def aggregation(name: str | None) -> Callable[[list[np.ndarray]], Any]:
    """What makes one number ``[N]`` of each solution's values; None leaves them as they are.

    Raises:
        ConfigError: there is no such aggregation.
    """
    if name is None:
        return lambda values: values
    check_aggregation(name)
    return lambda values: np.array(
        [aggregate_steps(own, name) for own in values], dtype=np.float64
    )


def split_steps(text: str, separator: str = SEPARATOR) -> list[str]:
    """The steps of a solution: the parts between separators that hold more than white space."""
    return [part.strip() for part in text.split(separator) if part.strip()]


def check_steps(steps: Sequence[str], row: int) -> None:
    """Refuse a solution without steps, or with an empty one.

    Args:
        steps: the texts of one solution's steps.
        row: its number from 1, for messages.

    Raises:
        DataError: names the row and the step.
    """
    if isinstance(steps, str):
        raise DataError(f"Row {row}: expected a list of steps, got one text; split it first.")
    if not len(steps):
        raise DataError(f"Row {row} has no step; expected at least one text to score.")
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, str) or not step.strip():
            raise DataError(f"Row {row}: step {number} is empty; leave it out.")


def aggregate_beginnings(values: Tensor, ends: Sequence[int], name: str) -> Tensor:
    """What each beginning of a response is worth ``[T]``: its ended steps and the one under way.

    Args:
        values: ``[T]`` of the step that each token belongs to, read at the token.
        ends: tokens up to the end of each step that another one follows, ascending.
        name: of the aggregation.
    """
    found = values.clone()
    if name == "last":
        return found
    begin, carry, count = 0, 1.0 if name != "mean" else 0.0, 0
    for end in [*ends, len(values)]:
        part = values[begin:end]
        if name == "min":
            found[begin:end] = part.clamp(max=carry) if count else part
            carry = float(found[end - 1])
        elif name == "product":
            found[begin:end] = part * carry
            carry *= float(part[-1])
        else:
            found[begin:end] = (part + carry) / (count + 1)
            carry += float(part[-1])
        begin, count = end, count + 1
    return found
