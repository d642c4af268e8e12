"""The rule that FaRMA and GenARM share: policy logits plus the rewards of all next tokens."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.guide import Prefix, Reads, Rewarder, finite
from rewardsteer.decoding.weights import Weight
from rewardsteer.models.compatibility import members


class VocabularyGuide:
    """Token guide that asks once per token and reward model.

    Args:
        name: of the method.
        scorer: a reward model with a vocabulary head, or several as a `RewardEnsemble`.
        config: see `Weight`.
        normalise: read rewards as logits of a language model and add its log-probabilities.

    Raises:
        MismatchError: see `check_scorer`.
    """

    level: Literal["token"] = "token"
    needs = "vocabulary"
    trained_on: tuple[str, ...] = ()
    default_for: str | None = None

    def __init__(
        self, name: str, scorer: Rewarder, config: DecodingConfig, *, normalise: bool = False
    ) -> None:
        check_scorer(name, type(self), scorer)
        self.name = name
        self.scorer = scorer
        self.weight = Weight(config)
        self.normalise = normalise

    def open(self) -> "VocabularySession":
        """Begin a batch."""
        return VocabularySession(self.scorer, self.weight, self.normalise)


class VocabularySession:
    """Holds the reward model's cache for one batch."""

    def __init__(self, scorer: Rewarder, weight: Weight, normalise: bool) -> None:
        self._scorer, self._weight, self._normalise = scorer, weight, normalise
        self._cache = scorer.open()
        self._calls: list[int] = []
        self._ahead: Tensor | None = None

    def read(self, prefix_ids: Tensor, attention_mask: Tensor) -> None:
        """Read prefixes ``[B, T]``; the next `scores` is about them."""
        self._ahead = self._scorer.next_token(prefix_ids, attention_mask, self._cache)

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]``; the two vocabularies may be padded to different sizes."""
        if self._ahead is None:
            self.read(prefix.ids, prefix.mask)
        assert self._ahead is not None
        rewards, self._ahead = self._ahead[:, : self._scorer.vocabulary_size], None
        rewards = finite(rewards, prefix)
        asked = len(members(self._scorer))
        self._calls = [n + asked for n in self._calls or [0] * len(logits)]
        rewards = rewards.to(logits.device, torch.float32)
        if self._normalise:
            rewards = rewards.log_softmax(dim=-1)
        size, known = logits.shape[1], None
        if rewards.shape[1] < size:
            known = torch.arange(size, device=logits.device).expand_as(logits) < rewards.shape[1]
            rewards = pad(rewards, (0, size - rewards.shape[1]))
        return self._weight.guided(logits.float(), rewards[:, :size], prefix.steps, known)

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows, or make place for new ones."""
        self._cache.select(rows)
        self._calls = [0 if row < 0 else self._calls[row] for row in rows]

    def reads(self, row: int) -> Reads:
        """What the row has cost so far."""
        return Reads(self._calls[row], self._cache.forwards[row], self._cache.tokens[row])
