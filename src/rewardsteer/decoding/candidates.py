"""The rule that ARGS and PARGS share: the policy's k best tokens, re-ranked by a scalar reward.

    score(v) = log p_LM(v | x, y) + w · r(x, y∘v)        for v among the k best, else -inf

Policy logits stand in for log-probabilities: they differ by a constant per row, which neither the
best token nor a softmax sees, and so weight 0 gives the policy's own choice bit by bit.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import Prefix, Reads, Rewarder, require_finite
from rewardsteer.errors import ConfigError


class CandidateGuide:
    """Token guide that asks about k candidates per token.

    Args:
        name: of the method.
        scorer: a scalar reward model.
        config: ``top_k`` and ``weight`` are used.

    Raises:
        ConfigError: no number of candidates.
    """

    level: Literal["token"] = "token"

    def __init__(self, name: str, scorer: Rewarder, config: DecodingConfig) -> None:
        if config.top_k == 0:
            raise ConfigError(
                f"The method {name!r} asks the reward model about the policy's top_k best tokens; "
                "top_k must be at least 1, got 0."
            )
        self.name = name
        self.scorer = scorer
        self.count = config.top_k
        self.weight = config.weight

    def open(self) -> "CandidateSession":
        """Begin a batch."""
        return CandidateSession(self.scorer, self.count, self.weight)


class CandidateSession:
    """Holds the reward model's cache for one batch."""

    def __init__(self, scorer: Rewarder, count: int, weight: float) -> None:
        self._scorer, self._count, self._weight = scorer, count, weight
        self._cache = scorer.open()
        self._calls: list[int] = []

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]``, -inf outside the candidates."""
        best, tokens = logits.float().topk(self._count, dim=-1)
        known = tokens < self._scorer.vocabulary_size
        asked = tokens.masked_fill(~known, 0)
        rewards = self._scorer.candidates(prefix.ids, prefix.mask, asked, self._cache)
        require_finite(rewards, prefix)
        rewards = floor_unknown(rewards.to(best.device, best.dtype), known)
        self._calls = [n + self._count for n in self._calls or [0] * len(tokens)]
        guided = torch.full_like(logits, float("-inf"), dtype=best.dtype)
        return guided.scatter(1, tokens, best + self._weight * rewards)

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows."""
        self._cache.select(rows)
        self._calls = [self._calls[row] for row in rows]

    def reads(self, row: int) -> Reads:
        """What the row has cost so far."""
        return Reads(self._calls[row], self._cache.forwards[row], self._cache.tokens[row])


def floor_unknown(rewards: Tensor, known: Tensor) -> Tensor:
    """Give tokens that the reward model does not know the least reward of their row.

    Args:
        rewards: ``[B, K]``.
        known: ``[B, K]`` bool.

    Guidance then never favours them; a row without any known token gets zeros.
    """
    least = rewards.masked_fill(~known, float("inf")).amin(dim=1, keepdim=True)
    least = least.masked_fill(~known.any(dim=1, keepdim=True), 0.0)
    return torch.where(known, rewards, least)
