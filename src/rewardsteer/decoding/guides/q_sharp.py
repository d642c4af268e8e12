"""Q♯ for rewards of 0 and 1: optimal guidance from P(correct | prefix) (arXiv 2502.20548)."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rewardsteer.decoding.guides.base import LogitsGuide


class QSharp(LogitsGuide):
    """score(v) = LM logit(v) + log E[exp(w·R) | x, y∘v], with R = 1 for a correct response, else 0.

    The vocabulary head gives the log-odds r of R = 1 (objective ``outcome``, trained on samples of
    the policy), so the expectation is 1 − p + p·exp(w) with p = σ(r). With exact odds and plain
    sampling at temperature 1, responses follow p_LM(y | x)·exp(w·R(x, y)) / Z(x), the law of the
    highest expected reward at its KL divergence, for each w. Large w weigh tokens by p itself.
    """

    trained_on = ("outcome",)
    default_for = "outcome"
    several_models = False

    def pull(self, rewards: Tensor, weight: Tensor) -> Tensor:
        """log(σ(−r) + σ(r)·exp(w)) ``[B, K]``."""
        return torch.logaddexp(logsigmoid(-rewards), logsigmoid(rewards) + weight)
