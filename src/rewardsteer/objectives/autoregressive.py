"""Bradley-Terry on log-probabilities: the autoregressive reward model of GenARM (arXiv 2410.08193).

The vocabulary head is read as a language model π_r, log π_r(v | x, y₁..t) = log softmax of the
next-token rewards, and a response is worth r(x, y) = β_r · Σ_t log π_r(y_t | x, y₁..t-1). Summed,
not averaged over its length, as published. Token by token the rewards are then log-probabilities
that a policy's own can be added to.
"""

import math

import torch
from torch import Tensor

from rewardsteer.errors import ConfigError
from rewardsteer.objectives.base import Objective, ObjectiveResult, prefer, split_pairs
from rewardsteer.tensors import PairBatch, RewardOutput


def response_log_probabilities(output: RewardOutput, batch: PairBatch) -> Tensor:
    """Σ_t log π_r(y_t | x, y₁..t-1) ``[R]`` over the response tokens of every row, differentiable.

    No tensor of size tokens × vocabulary is held. A response token with none before it (empty
    prompt) has no state to be predicted from and adds 0.

    Args:
        output: needs ``rewards_at``, ``soft_next_token`` and ``token_count``.
        batch: ``response_mask [R, T]`` marks the tokens.
    """
    assert output.soft_next_token is not None, "checked before training starts"
    assert output.token_count is not None, "a vocabulary head has tokens"
    tokens = torch.zeros_like(batch.response_mask)
    tokens[:, 1:] = batch.response_mask[:, 1:] & batch.attention_mask[:, :-1].bool()
    # The same places one column earlier; column 0 is never marked, so none goes round.
    before = tokens.roll(-1, dims=1)
    # The soft maximum at temperature 1 is the log-sum-exp less that of as many equal rewards.
    normaliser = output.soft_next_token(before, 1.0) + math.log(output.token_count)
    values = output.rewards_at(tokens) - normaliser
    return values.new_zeros(tokens.shape).masked_scatter(tokens, values).sum(dim=1)


def autoregressive(
    output: RewardOutput, batch: PairBatch, *, beta: float = 0.05
) -> ObjectiveResult:
    """−log σ(β_r · log π_r(y_chosen | x) − β_r · log π_r(y_rejected | x) − margin).

    Args:
        output: see `response_log_probabilities`.
        batch: needs ``margin [B]``, in units of β_r · log-probability.
        beta: β_r; the published one is 0.05.
    """
    chosen, rejected = split_pairs(beta * response_log_probabilities(output, batch), batch)
    return prefer(chosen, rejected, batch.margin)


def build(beta: float = 0.05) -> Objective:
    """The objective with its options bound."""
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 < beta < math.inf:
        raise ConfigError(f"beta of 'autoregressive' must be a number above 0, got {beta!r}.")
    return Objective(
        "autoregressive",
        lambda output, batch: autoregressive(output, batch, beta=beta),
        needs=frozenset({"rewards_at", "soft_next_token"}),
        rewards=lambda output, batch: beta * response_log_probabilities(output, batch),
        reading="log_probability",
    )
