"""A guide at work on one batch: it asks the reward model, whose cache it holds, and counts.

Shapes: B rows, T columns of the left-padded prefixes, V the policy's logits a row, K candidates.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.prefix import Prefix, RewardUsage, finite
from rewardsteer.models.compatibility import members


class GuideSession:
    """The policy alone; base of those that ask.

    Args:
        guide: says what is asked, and what becomes of it.
    """

    def __init__(self, guide: LogitsGuide) -> None:
        self._guide = guide

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]`` (float32) from the policy's logits ``[B, V]``."""
        return logits.float()

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows; -1 makes place for a new one, first seen at step 0. What
        is kept of each row means nothing there until then."""

    def usage(self, row: int) -> RewardUsage:
        """What was read at this place so far; a row's cost is what was added since it came."""
        return RewardUsage()


class AskingSession(GuideSession):
    """Base of sessions that ask a reward model, whose cache they hold."""

    def __init__(self, guide: LogitsGuide) -> None:
        super().__init__(guide)
        self._scorer: Any = guide.scorer
        self._cache = guide.scorer.open()
        self._calls: list[int] = []
        # Of each token, every reward model is asked about all candidates, or once.
        self._asked = max(1, guide.candidates) * len(members(guide.scorer))

    def _count(self, rows: int) -> None:
        self._calls = [n + self._asked for n in self._calls or [0] * rows]

    def select(self, rows: Sequence[int]) -> None:
        self._cache.select(rows)
        self._calls = [0 if row < 0 else self._calls[row] for row in rows]

    def usage(self, row: int) -> RewardUsage:
        if not self._calls:
            return RewardUsage()
        return RewardUsage(self._calls[row], self._cache.forwards[row], self._cache.tokens[row])


class VocabularySession(AskingSession):
    """Asks about all next tokens, which depends on the prefixes alone: an engine may have it read
    them at the same time as the policy."""

    def __init__(self, guide: LogitsGuide) -> None:
        super().__init__(guide)
        self._prefetched: Tensor | None = None

    def prefetch(self, prefix_ids: Tensor, attention_mask: Tensor) -> None:
        """Run the reward model on prefixes ``[B, T]``; the next `scores` is about them."""
        self._prefetched = self._scorer.next_token(prefix_ids, attention_mask, self._cache)

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]``; the two vocabularies may be padded to different sizes."""
        if self._prefetched is None:
            self.prefetch(prefix.ids, prefix.mask)
        assert self._prefetched is not None
        rewards, self._prefetched = self._prefetched[:, : self._scorer.vocabulary_size], None
        rewards = finite(rewards, prefix)
        self._count(len(logits))
        rewards, known = fitted(
            self._guide, rewards.to(logits.device), logits.shape[1],
            getattr(self._scorer, "known_tokens", None),
        )
        return self._guide(logits.float(), rewards, self._guide.weight, prefix.steps, known)


def fitted(
    guide: LogitsGuide, rewards: Tensor, size: int, known: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """A guide's rewards ``[B, size]`` for a policy with so many logits, from those ``[B, Vr]`` of
    the tokens that the reward model knows (of which ``known [Vr]`` says it, None: all); and which
    these are, None where it knows all."""
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

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]``, -inf outside the candidates."""
        guide = self._guide
        best, tokens = logits.float().topk(guide.candidates, dim=-1)
        known = tokens < self._scorer.vocabulary_size
        there = getattr(self._scorer, "known_tokens", None)
        if there is not None:
            known &= there.to(known.device)[tokens.clamp(max=len(there) - 1)]
        asked = tokens.masked_fill(~known, 0)
        rewards = self._scorer.candidates(prefix.ids, prefix.mask, asked, self._cache)
        rewards = finite(rewards, prefix)
        self._count(len(tokens))
        rewards = guide.transform(rewards.to(best))
        guided = guide(best, rewards, guide.weight, prefix.steps, known)
        return torch.full_like(logits, -torch.inf, dtype=best.dtype).scatter(1, tokens, guided)


_SESSIONS = {
    "nothing": GuideSession, "next_tokens": VocabularySession, "candidates": CandidateSession,
}


def open_session(guide: LogitsGuide) -> GuideSession:
    """A fresh session: begin a batch."""
    own = getattr(guide.scorer, "open_session", None)
    return _SESSIONS[guide.asks](guide) if own is None else own(guide)
