"""The backups of `rewardsteer.objectives.max_constraint` on whole rows of numbers: the plain twins
of `rewardsteer.kernels`. ``[..., V]`` are one-token extensions, results ``[...]``.
"""

import torch
from torch import Tensor


def soft_backup(rewards: Tensor, log_policy: Tensor, temperature: float) -> Tensor:
    """τ · log Σ_v p(v) · exp(Q(v) / τ): V* of arXiv 2502.20548.

    Guidance by logits + Q / τ then draws whole responses from π · exp(r / τ), normalised.

    Args:
        rewards: ``[..., V]``.
        log_policy: ``[..., V]`` log-probabilities; −∞ is allowed.
        temperature: τ > 0, in units of rewards.
    """
    return temperature * (log_policy + rewards / temperature).logsumexp(dim=-1)


def uniform_soft_backup(rewards: Tensor, temperature: float) -> Tensor:
    """`soft_backup` under equal probabilities."""
    equal = torch.full_like(rewards, -torch.tensor(float(rewards.shape[-1])).log().item())
    return soft_backup(rewards, equal, temperature)


def mean_backup(rewards: Tensor, log_policy: Tensor) -> Tensor:
    """Σ_v p(v) · Q(v) (arXiv 2310.17022, 2405.06639)."""
    return (log_policy.exp() * rewards).sum(dim=-1)


def max_backup(rewards: Tensor) -> Tensor:
    """max_v Q(v) (arXiv 2502.04517)."""
    return rewards.amax(dim=-1)


def top_k_backup(rewards: Tensor, log_policy: Tensor, count: int) -> Tensor:
    """The maximum of Q over the ``count`` tokens that the policy finds most probable."""
    best = log_policy.topk(min(count, log_policy.shape[-1]), dim=-1).indices
    return rewards.gather(-1, best).amax(dim=-1)


def success_value(probability: Tensor, temperature: float) -> Tensor:
    """The soft value τ · log(1 + P · (exp(1 / τ) − 1)) of a prefix that ends in reward 1 with
    probability P under the policy, else in 0.

    A calibrated P(correct | prefix) so gives the value for every temperature: no other one needs
    another training. Equal to `soft_backup` of outcomes 1 and 0.

    Args:
        probability: ``[...]`` between 0 and 1.
        temperature: τ > 0; guidance weight 1 / τ.
    """
    weight = 1 / temperature
    # log(1 − P + P · exp(w)), which overflows for no weight.
    return temperature * torch.logaddexp(torch.log1p(-probability), probability.log() + weight)
