"""The strength at which guidance reaches a KL divergence from the policy."""

import torch
from torch import Tensor

# By how much a divergence may miss its target: a share of it, and rounding.
_TOLERANCE, _ROUNDING = 1e-9, 1e-13
_ROUNDS = 100


def kl_strength(base: Tensor, pull: Tensor, target: float) -> Tensor:
    """s ≥ 0 ``[B]`` at which KL(softmax(base + s · pull) ‖ softmax(base)) is the target.

    The divergence grows with s, from 0 to −log of the policy's probability of the tokens with the
    highest pull. Where the target lies beyond, s is infinite: those tokens alone. In between,
    Newton's method, kept within a bracket.

    Args:
        base: ``[B, K]`` log-probabilities (float64).
        pull: ``[B, K]``, its maximum over tokens of positive probability is 0 in every row.
        target: in nats.
    """
    if target == 0:
        return torch.zeros_like(base[:, 0])
    limit = -base.masked_fill(pull < 0, -torch.inf).logsumexp(dim=-1)
    _, variance = _moments(base, pull)
    # To second order the divergence is s² · variance / 2.
    strength = (2 * target / variance.clamp(min=1e-30)).sqrt()
    low, high = torch.zeros_like(strength), torch.full_like(strength, torch.inf)
    for _ in range(_ROUNDS):
        tilted = base + strength[:, None] * pull
        normaliser = tilted.logsumexp(dim=-1)
        mean, variance = _moments(tilted - normaliser[:, None], pull)
        error = strength * mean - normaliser - target
        done = error.abs() <= _TOLERANCE * target + _ROUNDING
        if bool((done | (target >= limit)).all()):
            break
        low = torch.where(error < 0, strength, low)
        high = torch.where(error < 0, high, strength)
        newton = strength - error / (strength * variance).clamp(min=1e-300)
        # Where the divergence levels off, a tangent points far beyond.
        newton = torch.minimum(newton, 4 * strength)
        middle = torch.where(high.isinf(), 2 * strength, (low + high) / 2)
        strength = torch.where((newton > low) & (newton < high), newton, middle)
    return torch.where(target >= limit, torch.inf, strength)


def _moments(logs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance ``[B]`` of values ``[B, K]`` under log-probabilities ``[B, K]``."""
    probability = logs.exp()
    mean = (probability * values).sum(dim=-1)
    return mean, (probability * (values - mean[:, None]).square()).sum(dim=-1)
