"""What evaluation during training measures on held-out pairs."""

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction

from rewardsteer.distributed import excluded_from_reductions
from rewardsteer.objectives.base import Objective, split_pairs
from rewardsteer.tensors import PairBatch, RewardOutput

# What the maximum constraint compares; evaluation always measures it where the head gives both.
CONSTRAINT = frozenset({"prefix_rewards", "best_next_token"})


def pair_columns(objective: Objective, output: RewardOutput, batch: PairBatch) -> Tensor:
    """What evaluation keeps of a batch ``[B, 4]``: rewards of both responses, the constraint
    violation, and the loss of the batch of all processes."""
    with excluded_from_reductions(batch.is_dummy):
        loss = objective(output, batch).loss
    rewards = objective.rewards
    whole = output.sequence_rewards if rewards is None else rewards(output, batch)
    chosen, rejected = split_pairs(whole, batch)
    parts = [chosen, rejected, _violations(output, batch), loss.expand(len(chosen))]
    return torch.stack([part.float() for part in parts], dim=1)


def _violations(output: RewardOutput, batch: PairBatch) -> Tensor:
    """Mean |r(y₁..i) − max_v r(y₁..i∘v)| over each chosen row's prefixes ``[B]``; NaN without."""
    mask = batch.prefix_mask
    violation = torch.full(mask.shape, float("nan"), device=mask.device)
    if output.best_next_token is not None and output.prefix_rewards is not None:
        violation[mask] = (output.prefix_rewards - output.best_next_token).abs().float()
    return violation[: len(mask) // 2].nanmean(dim=1)


def pair_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Loss, accuracy (a tie counts half), reward gap and, for a vocabulary head, constraint
    violation."""
    columns = np.asarray(prediction.predictions, dtype=np.float64)
    chosen, rejected, violation, loss = columns.T
    metrics = {
        "loss": float(loss.mean()),
        "accuracy": float((chosen > rejected).mean() + 0.5 * (chosen == rejected).mean()),
        "reward_gap": float((chosen - rejected).mean()),
    }
    if not np.isnan(violation).all():
        metrics["constraint_violation"] = float(np.nanmean(violation))
    return metrics
