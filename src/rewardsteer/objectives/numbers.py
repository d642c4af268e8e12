"""Numbers of responses for objectives, and checks of an objective's options."""

import math

import torch
from torch import Tensor

from rewardsteer.errors import ConfigError, DataError
from rewardsteer.tensors import PairBatch


def numbers_of(batch: PairBatch, name: str) -> Tensor:
    """The numbers ``[R]`` of a name, NaN where a response has none.

    Raises:
        DataError: no response of the data has one.
    """
    if name in batch.numbers:
        return batch.numbers[name]
    if batch.is_dummy:
        return torch.full((len(batch.input_ids),), math.nan, device=batch.input_ids.device)
    known = ", ".join(batch.numbers) or "none"
    raise DataError(f"The responses have no number named {name!r}; they have {known}.")


def better(batch: PairBatch, values: Tensor) -> Tensor:
    """``[R, R]`` bool: whether the responses of row and column belong to one prompt and the row's
    value is higher; False where a value is not known."""
    groups = batch.groups
    return (groups[:, None] == groups[None, :]) & (values[:, None] > values[None, :])


def pair_columns(batch: PairBatch, rewards: Tensor, values: Tensor) -> Tensor:
    """``[R, 2]``: for each response, the number of responses to the same prompt with a lower value,
    and the number of those with a lower reward, a tie counting one half."""
    pairs = better(batch, values)
    gap = rewards[:, None] - rewards[None, :]
    right = (gap > 0).float() + 0.5 * (gap == 0).float()
    return torch.stack([pairs.float().sum(1), (right * pairs).sum(1)], dim=1)


def mean_where(values: Tensor, known: Tensor) -> Tensor:
    """Mean of the values that are known, 0 where none is; a GPU does not wait for it."""
    return (values.where(known, 0.0)).sum() / known.sum().clamp(min=1)


def check_name(objective: str, option: str, value: object) -> str:
    """An option that names a number.

    Raises:
        ConfigError: it is no name.
    """
    if isinstance(value, str) and value:
        return value
    raise ConfigError(f"{option} of {objective!r} must be the name of a number, got {value!r}.")


def check_number(
    objective: str, option: str, value: object, below: float = math.inf, *, positive: bool = False
) -> float:
    """An option that is a number of at least 0 (above 0 if ``positive``) and less than ``below``.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and (
        0 < value < below if positive else 0 <= value < below
    ):
        return float(value)
    least = "above 0" if positive else "of 0 or more"
    upper = "" if below == math.inf else f" and below {below:g}"
    raise ConfigError(
        f"{option} of {objective!r} must be a number {least}{upper}, got {value!r}."
    )
