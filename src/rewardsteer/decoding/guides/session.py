"""The session of a guide on one batch: it runs the reward model, holds its cache, counts cost.

Shapes: B rows, T columns of the left-padded prefixes, V the policy's logits per row, K candidates.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.prefix import Prefix, RewardUsage, finite
from rewardsteer.decoding.guides.weights import Weight, weights_of
from rewardsteer.models.compatibility import members


class GuideSession:
    """Base of all sessions; by itself, the policy alone.

    Args:
        guide: says what is asked, and how rewards change the scores.
    """

    def __init__(self, guide: LogitsGuide) -> None:
        self._guide = guide

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]`` (float32) from the policy's logits ``[B, V]``."""
        return logits.float()

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows; -1 adds a place for a new row, which first comes at step 0.
        Until then the place's state has no meaning."""

    def usage(self, row: int) -> RewardUsage:
        """Cumulative usage of a place; a row's own is the difference since it entered."""
        return RewardUsage()


class AskingSession(GuideSession):
    """Base of sessions that ask a reward model, whose cache they hold."""

    def __init__(self, guide: LogitsGuide) -> None:
        super().__init__(guide)
        self._scorer: Any = guide.scorer
        self._cache = guide.scorer.open()
        self._calls: list[int] = []
        # Reward model calls per token: all candidates, or one, for each reward model.
        self._asked = max(1, guide.candidates) * len(members(guide.scorer))

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        self._count(range(len(logits)), len(logits))
        return self._guided(prefix, logits, self._guide.weight, self._cache)

    def scores_of(self, rows: Sequence[int], prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[R, V]`` of some rows of a batch; the reward model runs on all their
        tokens since they were last asked about, and on no other rows.

        Args:
            rows: their numbers, ascending.
            prefix: of all rows.
            logits: of all rows ``[B, V]``.
        """
        if len(rows) == len(logits):
            return self.scores(prefix, logits)
        part_of = getattr(self._cache, "part_of", None)
        if part_of is None:  # The reward model runs within the policy's pass.
            return self.scores(prefix, logits)[list(rows)]
        self._count(rows, len(logits))
        part = prefix.of(rows)
        scores = self._guided(
            part, logits[list(rows)], weights_of(self._guide.weight, rows),
            part_of(rows, len(logits)),
        )
        for place, error in part.failed.items():
            prefix.fail(rows[place], error)
        return scores

    def _guided(self, prefix: Prefix, logits: Tensor, weight: Weight, cache: Any) -> Tensor:
        """Guided scores ``[R, V]`` of rows, given their weights and their cache."""
        raise NotImplementedError

    def _count(self, rows: Sequence[int], places: int) -> None:
        self._calls = self._calls or [0] * places
        for row in rows:
            self._calls[row] += self._asked

    def select(self, rows: Sequence[int]) -> None:
        self._cache.select(rows)
        if self._calls:
            self._calls = [0 if row < 0 else self._calls[row] for row in rows]

    def usage(self, row: int) -> RewardUsage:
        if not self._calls:
            return RewardUsage()
        calls = self._calls[row]
        if not self._cache.forwards:
            return RewardUsage(calls, steps=calls // self._asked)
        return RewardUsage(
            calls, self._cache.forwards[row], self._cache.tokens[row], calls // self._asked
        )


class VocabularySession(AskingSession):
    """Asks about all next tokens. This depends on the prefixes alone, so an engine may run the
    session in parallel with the policy."""

    def __init__(self, guide: LogitsGuide) -> None:
        super().__init__(guide)
        self._prefetched: Tensor | None = None

    def prefetch(self, prefix_ids: Tensor, attention_mask: Tensor) -> None:
        """Run the reward model on prefixes ``[B, T]``; the next `scores` is about them."""
        self._prefetched = self._scorer.next_token(prefix_ids, attention_mask, self._cache)

    @property
    def takes_drafts(self) -> bool:
        """Whether the reward model runs on its own and continues from its cache."""
        parts = getattr(self._cache, "parts", [self._cache])
        return all(getattr(part, "continues", False) for part in parts)

    def scores_at(
        self, prefix: Prefix, logits: Tensor, rows: Sequence[int], view: Callable[[Any], Any]
    ) -> Tensor:
        """Guided scores ``[N, V]`` at several positions of the rows of a batch.

        Args:
            prefix: ids and mask of the rows ``[B, T]``; steps and names of the positions.
            logits: of the policy ``[N, V]``.
            rows: the row of each position ``[N]``.
            view: maps a cache to one that answers at these positions.
        """
        self._count(rows, len(prefix.ids))
        parts = getattr(self._cache, "parts", None)
        cache = view(self._cache) if parts is None else type(self._cache)(
            [view(one) for one in parts]
        )
        return self._guided(prefix, logits, weights_of(self._guide.weight, rows), cache)

    def _guided(self, prefix: Prefix, logits: Tensor, weight: Weight, cache: Any) -> Tensor:
        """Guided scores; the two vocabularies may be padded to different sizes."""
        rewards, self._prefetched = self._prefetched, None
        if rewards is None:
            rewards = self._scorer.next_token(prefix.ids, prefix.mask, cache)
        rewards = finite(rewards[:, : self._scorer.vocabulary_size], prefix)
        rewards, known = aligned(
            self._guide, rewards.to(logits.device), logits.shape[1],
            getattr(self._scorer, "known_tokens", None),
        )
        return self._guide(logits.float(), rewards, weight, prefix.steps, known)


def aligned(
    guide: LogitsGuide, rewards: Tensor, size: int, known: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """A guide's transformed rewards ``[B, size]`` for a policy with ``size`` logits, from rewards
    ``[B, Vr]``, and the mask of tokens that the reward model knows, None if it knows all. ``known``
    is the same mask over the rewards, ``[Vr]``."""
    rewards = guide.transform(rewards.float())
    count = rewards.shape[1]
    if known is not None:
        known = pad(known[:size].to(rewards.device), (0, max(0, size - count)))
    elif count < size:
        known = torch.arange(size, device=rewards.device) < count
    rewards = rewards[:, :size] if count >= size else pad(rewards, (0, size - count))
    return rewards, None if known is None else known.expand(len(rewards), -1)


class CandidateSession(AskingSession):
    """Asks about the policy's best tokens."""

    def _guided(self, prefix: Prefix, logits: Tensor, weight: Weight, cache: Any) -> Tensor:
        """Guided scores, -inf outside the candidates."""
        guide = self._guide
        best, tokens = logits.float().topk(guide.candidates, dim=-1)
        rewards, known = self._rewards(prefix, tokens, cache)
        rewards = guide.transform(finite(rewards, prefix).to(best))
        guided = guide(best, rewards, weight, prefix.steps, known)
        return torch.full_like(logits, -torch.inf, dtype=best.dtype).scatter(1, tokens, guided)

    def _rewards(
        self, prefix: Prefix, tokens: Tensor, cache: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Rewards ``[B, K]`` of candidates, and which of them the reward model knows; None: all."""
        known = tokens < self._scorer.vocabulary_size
        there = getattr(self._scorer, "known_tokens", None)
        if there is not None:
            known &= there.to(known.device)[tokens.clamp(max=len(there) - 1)]
        asked = tokens.masked_fill(~known, 0)
        return self._scorer.candidates(prefix.ids, prefix.mask, asked, cache), known
