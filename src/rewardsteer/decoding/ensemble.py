"""Several reward models as one, such as helpfulness and harmlessness, each with its weight.

    r(x, y) = Σ_i w_i · r_i(x, y)

With other settings of ``ensemble_rule`` the reward is the minimum of w_i · r_i, or their mean less
some standard deviations. Then a response cannot win because one member alone overrates it (arXiv
2310.02743).

A token guide calls a `RewardEnsemble` like a single reward model. All members score the same
candidates of the policy, and their costs add up. A constant that a member adds to all rewards of a
prefix changes nothing, so GenARM may sum rewards or log-probabilities.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig, check_weights
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.methods import METHODS, judges_whole
from rewardsteer.models.compatibility import reads_tokens
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt

logger = logging.getLogger(__name__)


class RewardEnsemble:
    """Several reward models with the methods of one `rewardsteer.models.scorer.Scorer` that token
    guides call.

    Args:
        members: reward models, all with heads of one kind (the method checks it).
        weights: one for each; negative ones push away. They bring the members to one scale.
        rule, deviations: see `rewards_of_all`.

    Attributes:
        tokenizer, template: of the first member; prompts are written with them.
        fingerprint: of all members' weights.
        vocabulary_size: token ids that all members know.
        position_limit: longest row that all members can read; None when none has a limit.

    Raises:
        ConfigError: not one finite weight for each member.
    """

    def __init__(
        self, members: Sequence[Any], weights: Sequence[float], rule: str = "sum",
        deviations: float = 1.0,
    ) -> None:
        check_weights(len(members), weights)
        self.members, self.weights = tuple(members), tuple(weights)
        self._rule, self._deviations = rule, deviations
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
        return self._combined([
            one.next_token(prefix_ids, attention_mask, part)[:, : self.vocabulary_size]
            for one, part in zip(self.members, cache.parts, strict=True)
        ])

    def candidates(
        self, prefix_ids: Tensor, attention_mask: Tensor, candidate_ids: Tensor,
        cache: "EnsembleCache",
    ) -> Tensor:
        """Rewards ``[B, K]`` of prefix∘candidate."""
        return self._combined([
            one.candidates(prefix_ids, attention_mask, candidate_ids, part)
            for one, part in zip(self.members, cache.parts, strict=True)
        ])

    def _combined(self, rewards: Sequence[Tensor]) -> Tensor:
        own = [
            weight * values.to(rewards[0].device, torch.float32)
            for weight, values in zip(self.weights, rewards, strict=True)
        ]
        return rewards_of_all(torch.stack(own), self._rule, self._deviations)


def rewards_of_all(rewards: Tensor, rule: str, deviations: float) -> Tensor:
    """The ensemble's rewards ``[…]`` from the members' weighted ones ``[M, …]``.

    Args:
        rewards: of each member, times its weight.
        rule: ``sum``; ``min``, the minimum; or ``cautious``, the mean less …
        deviations: … this many standard deviations (over the members, divisor M).
    """
    if rule == "min":
        return rewards.amin(dim=0)
    if rule == "cautious":
        return rewards.mean(dim=0) - deviations * rewards.std(dim=0, correction=0)
    return rewards.sum(dim=0)


class JudgingEnsemble(TextScorer):
    """Several reward models that judge whole responses as one; they may be of different kinds and
    have different tokenizers.

    Args:
        models: see `RewardEnsemble`.
        weights, rule, deviations: likewise.
    """

    def __init__(
        self, models: Sequence[Any], weights: Sequence[float], rule: str, deviations: float
    ) -> None:
        check_weights(len(models), weights)
        self._models, self._weights = tuple(models), tuple(weights)
        self._rule, self._deviations = rule, deviations
        self.name = ", ".join(one.name for one in models)
        self.fingerprint = ", ".join(one.fingerprint for one in models)

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """Combined rewards ``[N]`` (float64)."""
        own = [
            weight * np.asarray(model.score(
                prompts, completions, batch_size=batch_size, closed=closed
            ))
            for model, weight in zip(self._models, self._weights, strict=True)
        ]
        return rewards_of_all(torch.tensor(np.stack(own)), self._rule, self._deviations).numpy()


def combined(
    members: Sequence[Any], weights: Sequence[float], config: DecodingConfig | None = None
) -> Any:
    """One scorer for several reward models; a single one is returned itself, None for none.

    Args:
        members, weights: see `RewardEnsemble`.
        config: ``ensemble_rule`` and ``ensemble_deviations``, and whether the method judges
            responses or guides token by token; None: a sum that guides.

    Raises:
        ConfigError: not one finite weight for each member.
        MismatchError: a member judges texts alone, which the method cannot use.
    """
    if len(members) < 2:
        return next(iter(members), None)
    config = config or DecodingConfig()
    rule, deviations = config.ensemble_rule, config.ensemble_deviations
    if judges_whole(config.method):
        return JudgingEnsemble(members, weights, rule, deviations)
    for one in members:
        # It knows no vocabulary, of which an ensemble for guides is made.
        if not reads_tokens(one):
            check_scorer(config.method, METHODS.get(config.method), one)
    return RewardEnsemble(members, weights, rule, deviations)


class EnsembleCache:
    """The members' caches as one; their counters add up."""

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

    def part_of(self, rows: Sequence[int], places: int) -> "EnsembleCache":
        """The caches of some of the ``places`` rows, to score them alone."""
        return EnsembleCache([part.part_of(rows, places) for part in self.parts])

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows, or make place for new ones."""
        for part in self.parts:
            part.select(rows)
