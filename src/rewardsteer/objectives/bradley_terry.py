"""Bradley-Terry on whole responses: the usual loss of reward models."""

from rewardsteer.objectives.base import (
    Objective,
    ObjectiveResult,
    pairwise_logistic_loss,
    split_pairs,
)
from rewardsteer.objectives.numbers import check_number
from rewardsteer.tensors import PairBatch, RewardOutput


def bradley_terry(
    output: RewardOutput, batch: PairBatch, *, center_coefficient: float = 0.0,
    label_smoothing: float = 0.0,
) -> ObjectiveResult:
    """−(1 − ε)·log σ(d) − ε·log σ(−d) + c·mean((r_chosen + r_rejected)²) with d = r_chosen −
    r_rejected − margin.

    Preferences leave an offset per prompt undetermined. The last term fixes it: without it, rewards
    of responses to *different* prompts are not comparable.

    Args:
        output: needs ``sequence_rewards [2B]``.
        batch: needs ``margin [B]``.
        center_coefficient: c, 0 for the plain loss.
        label_smoothing: ε, the probability that a preference is inverted; the loss is then lowest
            at a difference of margin + log((1 − ε) / ε). 0 trusts every preference.
    """
    chosen, rejected = split_pairs(output.sequence_rewards, batch)
    return pairwise_logistic_loss(
        chosen, rejected, batch.margin, center_coefficient=center_coefficient,
        label_smoothing=label_smoothing,
    )


def build(center_coefficient: float = 0.0, label_smoothing: float = 0.0) -> Objective:
    """The objective with its options bound.

    Raises:
        ConfigError: ``label_smoothing`` is not in [0, 0.5), or ``center_coefficient`` is negative.
    """
    center = check_number("bradley_terry", "center_coefficient", center_coefficient)
    smoothing = check_number("bradley_terry", "label_smoothing", label_smoothing, 0.5)
    return Objective(
        "bradley_terry",
        lambda output, batch: bradley_terry(
            output, batch, center_coefficient=center, label_smoothing=smoothing
        ),
    )
