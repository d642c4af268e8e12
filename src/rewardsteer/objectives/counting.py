"""How many things the means of an objective are over, found before a model reads anything.

Gradient accumulation computes an update's loss batch by batch, and each mean must be divided by the
number of terms in the whole update. An objective is called with zeros in place of a model's output;
its reductions then note their counts (see `reduce.noting_counts`).
"""

from typing import Any

import torch
from torch import Tensor

from rewardsteer.objectives.base import Objective
from rewardsteer.objectives.reduce import noting_counts, standing_aside
from rewardsteer.tensors import PairBatch, RewardOutput, TokenStates


class SeenStates(TokenStates):
    """Zeros in place of hidden states, and a record of where they were looked at.

    Attributes:
        mask: ``[R, T]`` bool, the tokens whose states were asked for.
    """

    def __init__(self, batch: PairBatch) -> None:
        super().__init__(torch.zeros(1, 1, device=batch.input_ids.device), batch.input_ids)
        self.mask = torch.zeros_like(batch.response_mask)

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Zeros ``[..., 1]``."""
        self.mask[rows, columns] = True
        return self.flat.new_zeros(*torch.broadcast_shapes(rows.shape, columns.shape), 1)

    def marked(self, mask: Tensor) -> Tensor:
        """Zeros ``[N, 1]``."""
        self.mask |= mask
        return self.flat.new_zeros(int(mask.sum()), 1)


@torch.no_grad()
def count_terms(objective: Objective, batch: PairBatch) -> Tensor:
    """The counts ``[M]`` of this process that the means of an objective's loss divide by on a
    batch, in the order in which it computes them; 0 for a batch that stands aside."""
    zeros: Any = batch.margin.new_zeros

    def at(mask: Tensor, *_: Any) -> Tensor:
        found: Tensor = zeros(int(mask.sum()))
        return found

    output = RewardOutput(
        sequence_rewards=zeros(len(batch.input_ids)), states=SeenStates(batch), rewards_at=at,
        best_next_token=at, soft_next_token=at, token_count=1,
    )
    with standing_aside(batch.aside), noting_counts() as counts:
        objective(output, batch)
    return torch.stack([count.float() for count in counts])
