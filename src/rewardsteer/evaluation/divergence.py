"""Distances of a method's next-token distributions from the policy's, along a response."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rewardsteer.decoding.answer import Method
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.prefix import Prefix
from rewardsteer.kernels.precision import exact
from rewardsteer.models.prefix_reader import PrefixReader


class Step(NamedTuple):
    """Quantities before a token: the prefix ``[1, T]``, the policy's logits ``[1, V]``, its
    log-probabilities and the guided ones ``[V]`` (None where a method guides no tokens)."""

    ids: Tensor
    mask: Tensor
    logits: Tensor
    plain: Tensor
    guided: Tensor | None


class Replay:
    """Distributions of policy and method along one completion, computed as in decoding."""

    def __init__(self, policy: Any, method: Method, config: DecodingConfig) -> None:
        self._reader = PrefixReader(policy)
        self._session = None
        if isinstance(method, LogitsGuide) and method.asks != "nothing":
            self._session = open_session(method)
        self._temperature = config.temperature if config.mode == "sample" else 1.0

    @torch.no_grad()
    def before(self, prefix: Sequence[int], step: int, name: str) -> Step:
        """The distributions of the token after the prefix, the ``step``-th of the completion."""
        ids = torch.tensor([list(prefix)])
        mask = torch.ones_like(ids)
        logits = self._reader.step(ids, mask).float()
        plain = (exact(logits[0]) / self._temperature).log_softmax(-1)
        guided = None
        if self._session is not None:
            scores = self._session.scores(Prefix(ids, mask, [step], [name]), logits)[0]
            guided = (exact(scores) / self._temperature).log_softmax(-1).to(plain.device)
        return Step(ids, mask, logits, plain, guided)


def response_kl(
    policy: Any, method: Method, prompt_ids: Sequence[int], response_ids: Sequence[int],
    config: DecodingConfig, name: str = "0",
) -> float:
    """Σ_t KL(guided_t ‖ policy_t) along a response, in nats; see `distances`.

    Over responses that the method drew, the mean estimates the KL divergence of its responses from
    the policy's without bias. 0 for a method that guides no tokens.
    """
    replay, total = Replay(policy, method, config), 0.0
    for index in range(len(response_ids)):
        step = replay.before([*prompt_ids, *response_ids[:index]], index, name)
        if step.guided is None:
            return 0.0
        total += distances(step.guided, step.plain)[0]
    return total


def distances(guided: Tensor, plain: Tensor) -> tuple[float, float]:
    """KL divergence (nats) and total variation of guided log-probabilities ``[V]`` from plain ones.

    Both are over the tokens that guidance leaves possible. The restriction to k candidates is no
    effect of the rewards, and distributions on different tokens have no finite KL.
    """
    possible = guided > -torch.inf
    ours, base = guided[possible], plain[possible].log_softmax(-1)
    probability = ours.exp()
    # A token that neither distribution allows adds 0, not 0 · (−∞ + ∞).
    terms = torch.where(probability > 0, probability * (ours - base), 0.0)
    moved = (probability - base.exp()).abs().sum() / 2
    return max(float(terms.sum()), 0.0), min(float(moved), 1.0)
