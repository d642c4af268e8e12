"""Numbers of responses as an objective reads them, and figures of how rewards agree with them."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from rewardsteer.errors import ConfigError, DataError
from rewardsteer.tensors import PairBatch

Values = NDArray[np.float64]


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
    """``[R, R]`` bool: whether the response of the row and that of the column answer the same
    prompt, and the row's value is higher; values that are not known are neither."""
    groups = batch.groups
    return (groups[:, None] == groups[None, :]) & (values[:, None] > values[None, :])


def pair_columns(batch: PairBatch, rewards: Tensor, values: Tensor) -> Tensor:
    """``[R, 2]``: with how many responses to the same prompt that have a lower value each response
    compares, and over how many of them its reward is higher; a tie counts one half."""
    pairs = better(batch, values)
    gap = rewards[:, None] - rewards[None, :]
    right = (gap > 0).float() + 0.5 * (gap == 0).float()
    return torch.stack([pairs.float().sum(1), (right * pairs).sum(1)], dim=1)


def pair_accuracy(pairs: Values, right: Values) -> float:
    """Share of pairs of responses to the same prompt that rewards order as their values; NaN where
    there are none."""
    return float(right.sum() / pairs.sum()) if pairs.sum() else math.nan


def correlations(rewards: Values, values: Values) -> tuple[float, float]:
    """Pearson's and Spearman's correlation where both are known; NaN for fewer than two different
    ones."""
    known = np.isfinite(rewards) & np.isfinite(values)
    rewards, values = rewards[known], values[known]
    if len(np.unique(rewards)) < 2 or len(np.unique(values)) < 2:
        return math.nan, math.nan
    return (
        float(stats.pearsonr(rewards, values).statistic),
        float(stats.spearmanr(rewards, values).statistic),
    )


def area_under_curve(rewards: Values, labels: Values) -> float:
    """Probability that a response with a label above one half has a higher reward than one with a
    label below, a tie counting one half (the area under the ROC curve); NaN without both."""
    good, bad = rewards[labels > 0.5], rewards[labels < 0.5]
    if not len(good) or not len(bad):
        return math.nan
    ranks = stats.rankdata(np.concatenate([good, bad]))[: len(good)]
    return float((ranks.mean() - (len(good) + 1) / 2) / len(bad))


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
    objective: str, option: str, value: object, low: float, high: float = math.inf
) -> float:
    """An option that is a number from ``low`` up to, but not including, ``high``.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value < high:
        return float(value)
    upper = "" if high == math.inf else f" and below {high:g}"
    raise ConfigError(
        f"{option} of {objective!r} must be a number of {low:g} or more{upper}, got {value!r}."
    )
