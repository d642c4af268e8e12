"""The rule that ARGS, PARGS and CD share: the policy's k best tokens, re-ranked by a scalar reward.

    score(v) = log p_LM(v | x, y) + w · r(x, y∘v)        for v among the k best, else -inf

Policy logits stand in for log-probabilities: they differ by a constant per row, which neither the
best token nor a softmax sees, and so weight 0 gives the policy's own choice bit by bit.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.guide import Prefix, Reads, Rewarder, finite
from rewardsteer.decoding.weights import Weight
from rewardsteer.errors import ConfigError
from rewardsteer.models.compatibility import members


class CandidateGuide:
    """Token guide that asks about k candidates per token.

    Args:
        name: of the method.
        scorer: a reward model with a scalar head, or several as a `RewardEnsemble`.
        config: ``top_k`` is used, and see `Weight`.

    Raises:
        MismatchError: see `check_scorer`.
        ConfigError: no number of candidates.
    """

    level: Literal["token"] = "token"
    needs = "scalar"
    trained_on: tuple[str, ...] = ()
    default_for: str | None = None
    asks_candidates = True

    def __init__(self, name: str, scorer: Rewarder, config: DecodingConfig) -> None:
        check_scorer(name, type(self), scorer)
        if config.top_k == 0:
            raise ConfigError(
                f"The method {name!r} asks the reward model about the policy's top_k best tokens; "
                "top_k must be at least 1, got 0."
            )
        self.name = name
        self.scorer = scorer
        self.count = config.top_k
        self.weight = Weight(config)

    def open(self) -> "CandidateSession":
        """Begin a batch."""
        return CandidateSession(self.scorer, self.count, self.weight)


class CandidateSession:
    """Holds the reward model's cache for one batch."""

    def __init__(self, scorer: Rewarder, count: int, weight: Weight) -> None:
        self._scorer, self._count, self._weight = scorer, count, weight
        self._cache = scorer.open()
        self._calls: list[int] = []

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]``, -inf outside the candidates."""
        best, tokens = logits.float().topk(self._count, dim=-1)
        known = tokens < self._scorer.vocabulary_size
        asked = tokens.masked_fill(~known, 0)
        rewards = self._scorer.candidates(prefix.ids, prefix.mask, asked, self._cache)
        rewards = finite(rewards, prefix)
        asked_of = self._count * len(members(self._scorer))
        self._calls = [n + asked_of for n in self._calls or [0] * len(tokens)]
        guided = self._weight.guided(best, rewards.to(best), prefix.steps, known)
        return torch.full_like(logits, -torch.inf, dtype=best.dtype).scatter(1, tokens, guided)

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows."""
        self._cache.select(rows)
        self._calls = [0 if row < 0 else self._calls[row] for row in rows]

    def reads(self, row: int) -> Reads:
        """What the row has cost so far."""
        return Reads(self._calls[row], self._cache.forwards[row], self._cache.tokens[row])
