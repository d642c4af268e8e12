"""Several reward models as one: helpful and harmless at once, each with its weight.

    r(x, y) = Σ_i w_i · r_i(x, y)

A token guide asks a `RewardEnsemble` as it asks a single reward model, so the policy's candidates
are the same for all members, what members cost adds up, and every method that adds rewards to
next-token logits takes several. A constant that a member adds to all rewards of a prefix changes
nothing, so for GenARM the sum of rewards and that of log-probabilities are one rule.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewardsteer.decoding.config import check_weights

logger = logging.getLogger(__name__)


class RewardEnsemble:
    """The part of a `rewardsteer.models.scorer.Scorer` that token guides ask, for a weighted sum.

    Args:
        members: reward models, all with heads of one kind (the method checks it).
        weights: one for each; negative ones push away.

    Attributes:
        tokenizer, template: of the first member; prompts are written with them.
        fingerprint: of all members' weights.
        vocabulary_size: token ids that all members know.
        position_limit: longest row that all members can read; None when none has a limit.

    Raises:
        ConfigError: not one finite weight for each member.
    """

    def __init__(self, members: Sequence[Any], weights: Sequence[float]) -> None:
        check_weights(len(members), weights)
        self.members, self.weights = tuple(members), tuple(weights)
        first = self.members[0]
        self.tokenizer, self.template = first.tokenizer, first.template
        self.fingerprint = ", ".join(one.fingerprint for one in self.members)
        self.vocabulary_size = min(one.vocabulary_size for one in self.members)
        limits = [one.position_limit for one in self.members if one.position_limit is not None]
        self.position_limit = min(limits, default=None)
        for one in self.members[1:]:
            if one.template != self.template:
                logger.warning(
                    "%s was trained with another template than %s; prompts are written with the "
                    "latter's.", one.name, first.name,
                )

    def open(self) -> "EnsembleCache":
        """A fresh cache for `next_token` and `candidates`."""
        return EnsembleCache([one.open() for one in self.members])

    def next_token(
        self, prefix_ids: Tensor, attention_mask: Tensor, cache: "EnsembleCache"
    ) -> Tensor:
        """Rewards ``[B, V]`` of all one-token extensions that all members know."""
        return self._sum([
            one.next_token(prefix_ids, attention_mask, part)[:, : self.vocabulary_size]
            for one, part in zip(self.members, cache.parts, strict=True)
        ])

    def candidates(
        self, prefix_ids: Tensor, attention_mask: Tensor, candidate_ids: Tensor,
        cache: "EnsembleCache",
    ) -> Tensor:
        """Rewards ``[B, K]`` of prefix∘candidate."""
        return self._sum([
            one.candidates(prefix_ids, attention_mask, candidate_ids, part)
            for one, part in zip(self.members, cache.parts, strict=True)
        ])

    def _sum(self, rewards: Sequence[Tensor]) -> Tensor:
        total = torch.zeros_like(rewards[0], dtype=torch.float32)
        for weight, values in zip(self.weights, rewards, strict=True):
            total += weight * values.to(total)
        return total


class EnsembleCache:
    """The members' caches as one; what they read adds up."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = parts

    @property
    def forwards(self) -> list[int]:
        """Per row, network passes of all members in which it took part."""
        return [sum(each) for each in zip(*(part.forwards for part in self.parts), strict=True)]

    @property
    def tokens(self) -> list[int]:
        """Per row, token positions that all members read."""
        return [sum(each) for each in zip(*(part.tokens for part in self.parts), strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows, or make place for new ones."""
        for part in self.parts:
            part.select(rows)
