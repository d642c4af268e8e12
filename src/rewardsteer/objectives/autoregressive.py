"""Bradley-Terry on log-probabilities: the autoregressive reward model of GenARM (arXiv 2410.08193).

The vocabulary head is a language model π_r with log π_r(v | x, y₁..t) = log softmax of the
next-token rewards, and the reward of a response is r(x, y) = β_r · Σ_t log π_r(y_t | x, y₁..t-1),
a sum and not a mean over its length, as published. The reward of a token is then a log-probability,
which can be added to the policy's own.
"""

from torch import Tensor

from rewardsteer.objectives.base import (
    Objective,
    ObjectiveResult,
    pairwise_logistic_loss,
    split_pairs,
)
from rewardsteer.objectives.numbers import check_number
from rewardsteer.tensors import PairBatch, RewardOutput


def response_log_probabilities(output: RewardOutput) -> Tensor:
    """Σ_t log π_r(y_t | x, y₁..t-1) ``[R]`` over the response tokens of every row, differentiable;
    needs ``log_probabilities``."""
    assert output.log_probabilities is not None, "named in `needs`"
    return output.log_probabilities.sum(dim=1)


def autoregressive(
    output: RewardOutput, batch: PairBatch, *, beta: float = 0.05
) -> ObjectiveResult:
    """−log σ(β_r · log π_r(y_chosen | x) − β_r · log π_r(y_rejected | x) − margin).

    Args:
        output: see `response_log_probabilities`.
        batch: needs ``margin [B]``, in units of β_r · log-probability.
        beta: β_r; the published one is 0.05.
    """
    chosen, rejected = split_pairs(beta * response_log_probabilities(output), batch)
    return pairwise_logistic_loss(chosen, rejected, batch.margin)


def build(beta: float = 0.05) -> Objective:
    """The objective with its options bound.

    Raises:
        ConfigError: ``beta`` is not above 0.
    """
    beta = check_number("autoregressive", "beta", beta, positive=True)
    return Objective(
        "autoregressive",
        lambda output, batch: autoregressive(output, batch, beta=beta),
        needs=frozenset({"log_probabilities"}),
        rewards=lambda output, batch: beta * response_log_probabilities(output),
        reading="log_probability",
    )
