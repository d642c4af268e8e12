"""Bradley-Terry on pairs of prefixes: the reward model behind PARGS."""

import torch

from rewardsteer.objectives.base import (
    Objective,
    ObjectiveResult,
    pairwise_logistic_loss,
    split_pairs,
)
from rewardsteer.objectives.numbers import check_number
from rewardsteer.tensors import PairBatch, RewardOutput


def partial(
    output: RewardOutput, batch: PairBatch, *, center_coefficient: float = 0.0
) -> ObjectiveResult:
    """−log σ(r(x, y^c₁..i) − r(x, y^r₁..i)) over prefixes of equal token length.

    The published code makes one row per prefix. With causal attention the state at token i does not
    depend on later tokens, so one pass over the two whole responses gives the same rewards. The
    mean is over all prefix pairs of the batch.

    Args:
        output: needs ``prefix_rewards``.
        batch: ``prefix_mask`` marks the same prefix lengths in the chosen and the rejected row.
        center_coefficient: c of c·mean((r_chosen + r_rejected)²).
    """
    chosen_mask, rejected_mask = split_pairs(batch.prefix_mask, batch)
    counts = chosen_mask.sum(1)
    assert torch.equal(counts, rejected_mask.sum(1)), "prefixes come in pairs"
    assert output.prefix_rewards is not None, "named in `needs`"
    # Marked tokens come row by row, left to right, so the i-th prefixes of a pair meet.
    chosen, rejected = output.prefix_rewards.chunk(2)
    margin = batch.margin.repeat_interleave(counts)
    return pairwise_logistic_loss(chosen, rejected, margin, center_coefficient=center_coefficient)


def build(center_coefficient: float = 0.0) -> Objective:
    """The objective with its options bound.

    Raises:
        ConfigError: ``center_coefficient`` is negative or no number.
    """
    center = check_number("partial", "center_coefficient", center_coefficient)
    return Objective(
        "partial",
        lambda output, batch: partial(output, batch, center_coefficient=center),
        needs=frozenset({"prefix_rewards"}),
        prefixes="pair_lengths",
    )
