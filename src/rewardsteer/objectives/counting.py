"""The number of terms of an objective's means, counted before the model runs.

Gradient accumulation computes an update's loss batch by batch, and each mean must be divided by the
number of terms in the whole update. To count them, an objective is called with zeros in place of a
model's output; its reductions then note their counts (see `distributed.noting_counts`).
"""

import torch
from torch import Tensor

from rewardsteer.distributed import excluded_from_reductions, noting_counts
from rewardsteer.objectives.base import Objective
from rewardsteer.tensors import PairBatch, RewardOutput, TokenStates


@torch.no_grad()
def count_terms(objective: Objective, batch: PairBatch) -> Tensor:
    """The counts ``[M]`` of this process that the means of an objective's loss divide by on a
    batch, in the order in which it computes them; 0 for a dummy batch."""
    zeros = batch.margin.new_zeros
    prefixes = zeros(int(batch.prefix_mask.sum()))
    output = RewardOutput(
        sequence_rewards=zeros(len(batch.input_ids)),
        states=TokenStates(zeros(1, 1), torch.zeros_like(batch.input_ids)),
        prefix_rewards=prefixes, best_next_token=prefixes,
        soft_next_token=dict.fromkeys(objective.temperatures, prefixes),
        policy_backups=dict.fromkeys(objective.backups, prefixes),
        candidate_rewards=(
            None if batch.candidates is None else zeros(batch.candidates.asked.shape)
        ),
        log_probabilities=zeros(batch.input_ids.shape),
        attributes=zeros(len(batch.input_ids), len(objective.attributes)),
    )
    with excluded_from_reductions(batch.is_dummy), noting_counts() as counts:
        objective(output, batch)
    return torch.stack([count.float() for count in counts])
