"""Several reward models as one: helpful and harmless at once, each with its weight.

    r(x, y) = Σ_i w_i · r_i(x, y)

A token guide asks a `RewardEnsemble` as it asks a single reward model, so the policy's candidates
are the same for all members, what members cost adds up, and every method that adds rewards to
next-token logits takes several. A constant that a member adds to all rewards of a prefix changes
nothing, so for GenARM the sum of rewards and that of log-probabilities are one rule.
"""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewardsteer.data.template import Template, resolve, stored_template
from rewardsteer.decoding.config import check_weights
from rewardsteer.decoding.policy import model_bounds
from rewardsteer.models.checkpoint import fingerprint, load_tokenizer, read_card
from rewardsteer.models.places import locate

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


class FolderScorer:
    """A reward model's folder, with what methods and engines ask of a reward model before, or
    without, running it; the weights are not loaded.

    Args:
        folder: the checkpoint.
        template: how prompts and responses are written; None: as its card says.

    Raises:
        CheckpointError: missing or damaged folder.
    """

    def __init__(self, folder: Path, template: Template | None = None) -> None:
        self.folder, self.name, self._template = locate(folder), str(folder), template
        self.card = read_card(self.folder)
        self.head_kind, self.objective = self.card.head.kind, self.card.objective
        self.gives_next_token = self.card.head.head_class.gives_next_token
        self.reading = self.card.reading

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The one it was trained with."""
        return load_tokenizer(self.folder)

    @functools.cached_property
    def template(self) -> Template:
        """How prompts and responses are written, its kind resolved."""
        return resolve(self._template or stored_template(self.card.template), self.tokenizer)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the weights."""
        return fingerprint(self.folder)

    @functools.cached_property
    def _bounds(self) -> tuple[int | None, int]:
        # An adapter has its base's.
        known = (self.folder / "config.json").exists()
        return model_bounds(self.folder) if known else (None, len(self.tokenizer))

    @property
    def position_limit(self) -> int | None:
        """Longest row that it reads; None: it has no limit."""
        return self._bounds[0]

    @property
    def vocabulary_size(self) -> int:
        """Token ids that it knows."""
        return min(self._bounds[1], len(self.tokenizer))


def combined(members: Sequence[Any], weights: Sequence[float]) -> Any:
    """Reward models as one: the only one itself, None where there is none."""
    return RewardEnsemble(members, weights) if len(members) > 1 else next(iter(members), None)


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
