"""Figures of evaluation during training, on held-out pairs, rows of one response, or responses with
numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction

from rewardsteer.distributed import excluded_from_reductions
from rewardsteer.objectives.base import Objective, split_pairs
from rewardsteer.tensors import PairBatch, RewardOutput

# The two sides of the maximum constraint; evaluation measures it where the head gives both.
CONSTRAINT = frozenset({"prefix_rewards", "best_next_token"})


def rows_of_bad_rewards(output: RewardOutput, batch: PairBatch) -> Tensor:
    """Which of the B comparisons or groups have a reward that is not finite, ``[B]`` bool."""
    bad = ~torch.isfinite(output.sequence_rewards.detach())
    count = torch.zeros(len(batch.margin), device=bad.device)
    return count.index_add_(0, batch.groups, bad.float()) > 0


def evaluation_columns(objective: Objective, output: RewardOutput, batch: PairBatch) -> Tensor:
    """The values that evaluation keeps of a batch ``[X, C]``, float32; the last column is the
    batch's loss over all processes."""
    if objective.measures is None:
        return pair_columns(objective, output, batch)
    columns = objective.measures.columns(output, batch).float()
    with excluded_from_reductions(batch.is_dummy):
        loss = objective(output, batch).loss.float()
    return torch.cat([columns, loss.expand(len(columns), 1)], dim=1)


def names_of_figures(
    objective: Objective, gives: frozenset[str], *, single: bool | None = None
) -> list[str]:
    """Names of the figures that evaluations compute, in alphabetical order.

    Args:
        objective: the loss.
        gives: the fields of `RewardOutput` that the head gives.
        single: whether the rows have one response; None: not known, so the names for both kinds.
    """
    if objective.measures is not None:
        return sorted({"loss", *objective.measures.names})
    names = {"loss"}
    if single is not True:
        names |= {"accuracy", "reward_gap"}
    if single is not False:
        names |= set(objective.figures)
    return sorted(names | ({"constraint_violation"} if gives >= CONSTRAINT else set()))


def figures_of(
    objective: Objective, wanted: str
) -> Callable[[EvalPrediction], dict[str, float]]:
    """The function that computes an evaluation's figures from the kept values of all batches.
    ``wanted``, which chooses the best checkpoint, is NaN where it cannot be computed."""
    measures = objective.measures

    def figures(prediction: Any) -> dict[str, float]:
        # The Trainer needs the figure that chooses the best, even where it cannot be computed.
        found = dict.fromkeys({objective.best, wanted}, float("nan"))
        if measures is None:
            return found | pair_metrics(prediction, names=tuple(objective.figures))
        columns = np.asarray(prediction.predictions, dtype=np.float64)
        return found | {"loss": float(columns[:, -1].mean()), **measures.figures(columns[:, :-1])}

    return figures


def pair_columns(objective: Objective, output: RewardOutput, batch: PairBatch) -> Tensor:
    """The values that evaluation keeps of a batch ``[B, 4 + F]``: rewards of both responses (NaN
    without a rejected one), the constraint violation, the loss of the batch over all processes and,
    for rows of one response, the objective's F figures."""
    with excluded_from_reductions(batch.is_dummy):
        loss = objective(output, batch).loss
    rewards = objective.rewards
    whole = output.sequence_rewards if rewards is None else rewards(output, batch)
    if batch.paired:
        chosen, rejected = split_pairs(whole, batch)
        figures = []
    else:
        chosen, rejected = whole, torch.full_like(whole, float("nan"))
        figures = [one(output, batch) for one in objective.figures.values()]
    violations = _violations(output, batch)[: len(chosen)]
    parts = [chosen, rejected, violations, loss.expand(len(chosen)), *figures]
    return torch.stack([part.float() for part in parts], dim=1)


def _violations(output: RewardOutput, batch: PairBatch) -> Tensor:
    """Mean |r(y₁..i) − max_v r(y₁..i∘v)| over each row's prefixes ``[R]``; NaN without."""
    mask = batch.prefix_mask
    violation = torch.full(mask.shape, float("nan"), device=mask.device)
    if output.best_next_token is not None and output.prefix_rewards is not None:
        violation[mask] = (output.prefix_rewards - output.best_next_token).abs().float()
    return violation.nanmean(dim=1)


def pair_metrics(prediction: EvalPrediction, names: Sequence[str] = ()) -> dict[str, float]:
    """Loss, for pairs accuracy (a tie counts half) and reward gap, for rows of one response the
    figures of these names and, for a vocabulary head, constraint violation."""
    columns = np.asarray(prediction.predictions, dtype=np.float64)
    chosen, rejected, violation, loss = columns.T[:4]
    metrics = {"loss": float(loss.mean())}
    if not np.isnan(rejected).any():
        metrics["accuracy"] = float(
            (chosen > rejected).mean() + 0.5 * (chosen == rejected).mean()
        )
        metrics["reward_gap"] = float((chosen - rejected).mean())
    for name, values in zip(names, columns.T[4:], strict=False):
        if not np.isnan(values).all():
            metrics[name] = float(np.nanmean(values))
    if not np.isnan(violation).all():
        metrics["constraint_violation"] = float(np.nanmean(violation))
    return metrics
