"""Squared error of rewards against ratings: one, or several attributes with a head for each."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rewardsteer.distributed import global_mean
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.agreement import Values, correlations, pair_accuracy
from rewardsteer.objectives.base import Measures, Objective, ObjectiveResult
from rewardsteer.objectives.numbers import (
    check_name,
    mean_where,
    numbers_of,
    pair_columns,
)
from rewardsteer.tensors import PairBatch, RewardOutput

_FIGURES = ("pearson", "spearman", "pair_accuracy")


def regression(
    output: RewardOutput, batch: PairBatch, *, attributes: Sequence[str] = ("rating",)
) -> ObjectiveResult:
    """Mean of (r − y)² over all ratings y that are known, each attribute of a response being one.

    Args:
        output: ``sequence_rewards [R]`` for one attribute; ``attributes [R, K]`` for several.
        batch: ``numbers`` holds a rating ``[R]`` of each attribute, NaN where it is not known.
        attributes: their names, in the order of the head's outputs.
    """
    predicted, ratings = _predicted(output, attributes), _ratings(batch, attributes)
    known = torch.isfinite(ratings)
    errors = (predicted - ratings.to(predicted.dtype).where(known, 0.0)) * known
    # Batches and processes hold different numbers of ratings; each counts the same.
    loss = global_mean(errors.square().sum(), known.sum())
    return ObjectiveResult(loss, {
        "absolute_error": mean_where(errors.detach().abs(), known),
        "rating": mean_where(ratings, known),
        "reward": mean_where(predicted.detach(), known),
    })


def _predicted(output: RewardOutput, attributes: Sequence[str]) -> Tensor:
    """``[R, K]``."""
    if len(attributes) == 1:
        return output.sequence_rewards[:, None]
    assert output.attributes is not None, "named in `needs`"
    return output.attributes


def _ratings(batch: PairBatch, attributes: Sequence[str]) -> Tensor:
    """``[R, K]``, NaN where one is not known."""
    return torch.stack([numbers_of(batch, name) for name in attributes], dim=1)


def rating_columns(
    output: RewardOutput, batch: PairBatch, attributes: Sequence[str]
) -> Tensor:
    """``[R, 4K]``, for each attribute: reward, rating and the two of `pair_columns`."""
    predicted, ratings = _predicted(output, attributes), _ratings(batch, attributes)
    columns = []
    for one, rating in zip(predicted.T, ratings.T, strict=True):
        columns += [one, rating, *pair_columns(batch, one, rating).T]
    return torch.stack([column.float() for column in columns], dim=1)


def rating_figures(columns: Values, attributes: Sequence[str]) -> dict[str, float]:
    """Pearson's and Spearman's correlation and accuracy on pairs of responses to the same prompt:
    means over the attributes and, where there are several, of each."""
    figures: dict[str, list[float]] = {name: [] for name in _FIGURES}
    each = {}
    for number, name in enumerate(attributes):
        rewards, ratings, pairs, right = columns[:, 4 * number : 4 * number + 4].T
        values = (*correlations(rewards, ratings), pair_accuracy(pairs, right))
        for figure, value in zip(figures, values, strict=True):
            figures[figure].append(value)
            if len(attributes) > 1:
                each[f"{figure}_{name}"] = value
    means = {
        figure: float(np.nanmean(values)) for figure, values in figures.items()
        if not np.isnan(values).all()
    }
    return means | {name: value for name, value in each.items() if not np.isnan(value)}


def build(attributes: Sequence[str] = ("rating",)) -> Objective:
    """The objective with its options bound.

    Raises:
        ConfigError: ``attributes`` is no list of different names.
    """
    listed = isinstance(attributes, list | tuple) and len(attributes) > 0
    if not listed or len(set(attributes)) < len(attributes):
        raise ConfigError(
            f"attributes of 'regression' must be a list of different names, got {attributes!r}."
        )
    names = tuple(check_name("regression", "attributes", name) for name in attributes)
    several = names if len(names) > 1 else ()
    return Objective(
        "regression",
        lambda output, batch: regression(output, batch, attributes=names),
        rows="responses",
        needs=frozenset() if len(names) == 1 else frozenset({"attributes"}),
        numbers=names,
        attributes=several,
        measures=Measures(
            lambda output, batch: rating_columns(output, batch, names),
            lambda columns: rating_figures(columns, names),
            names=(*_FIGURES, *(f"{one}_{name}" for one in _FIGURES for name in several)),
        ),
    )
