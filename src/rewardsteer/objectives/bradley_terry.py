"""Bradley-Terry on whole responses: the loss of every plain reward model."""

from rewardsteer.objectives.base import (
    Objective,
    ObjectiveResult,
    pairwise_logistic_loss,
    split_pairs,
)
from rewardsteer.tensors import PairBatch, RewardOutput


def bradley_terry(
    output: RewardOutput, batch: PairBatch, *, center_coefficient: float = 0.0
) -> ObjectiveResult:
    """−log σ(r_chosen − r_rejected − margin) + c·mean((r_chosen + r_rejected)²).

    The preference alone leaves an offset per prompt undetermined. The second term pins it: without
    it, rewards of responses to *different* prompts need not compare.

    Args:
        output: needs ``sequence_rewards [2B]``.
        batch: needs ``margin [B]``.
        center_coefficient: c, 0 for the plain loss.
    """
    chosen, rejected = split_pairs(output.sequence_rewards, batch)
    return pairwise_logistic_loss(
        chosen, rejected, batch.margin, center_coefficient=center_coefficient
    )


def build(center_coefficient: float = 0.0) -> Objective:
    """The objective with its options bound."""
    return Objective(
        "bradley_terry",
        lambda output, batch: bradley_terry(output, batch, center_coefficient=center_coefficient),
    )
