"""FaRMA: next-token rewards of a vocabulary head, one call per token (arXiv 2502.04517)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import Prefix, Reads, Rewarder, require_finite
from rewardsteer.models.compatibility import check_head


class Farma:
    """Token guide: score(v) = LM logit(v) + w · Q(x, y)[v] over the whole vocabulary.

    Args:
        scorer: a reward model with a vocabulary head.
        config: ``weight`` is used.

    Raises:
        MismatchError: no reward model, or one with another head.
    """

    name = "farma"
    level: Literal["token"] = "token"

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        check_head(self.name, scorer, "vocabulary")
        self.scorer = scorer
        self.weight = config.weight

    def open(self) -> "FarmaSession":
        """Begin a batch."""
        return FarmaSession(self.scorer, self.weight)


class FarmaSession:
    """Holds the reward model's cache for one batch."""

    def __init__(self, scorer: Rewarder, weight: float) -> None:
        self._scorer, self._weight = scorer, weight
        self._cache = scorer.open()
        self._calls: list[int] = []

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]``; the two vocabularies may be padded to different sizes."""
        rewards = self._scorer.next_token(prefix.ids, prefix.mask, self._cache)
        rewards = rewards[:, : self._scorer.vocabulary_size]
        require_finite(rewards, prefix)
        self._calls = [n + 1 for n in self._calls or [0] * len(logits)]
        rewards = _resize(rewards, logits.shape[1])
        return logits.float() + self._weight * rewards.to(logits.device, torch.float32)

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows."""
        self._cache.select(rows)
        self._calls = [self._calls[row] for row in rows]

    def reads(self, row: int) -> Reads:
        """What the row has cost so far."""
        return Reads(self._calls[row], self._cache.forwards[row], self._cache.tokens[row])


def _resize(rewards: Tensor, size: int) -> Tensor:
    """Rewards ``[B, size]``: cut, or filled up with each row's least reward, so that guidance never
    favours a token that the reward model does not know."""
    missing = size - rewards.shape[1]
    if missing <= 0:
        return rewards[:, :size]
    least = rewards.amin(dim=1, keepdim=True)
    return torch.cat([rewards, least.expand(-1, missing)], dim=1)
