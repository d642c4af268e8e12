"""Reward models on token ids that give a reward of a whole text and none of its prefixes."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt


class WholeTextScorer(TextScorer):
    """Base of these.

    Args:
        inner: the model, which tokenizes.
    """

    def __init__(self, inner: Scorer) -> None:
        self.inner = inner
        self.name, self.fingerprint = inner.name, inner.fingerprint
        self.tokenizer, self.template = inner.tokenizer, inner.template

    @abc.abstractmethod
    def values(
        self, prompts: list[list[int]], responses: list[list[int]], batch_size: int
    ) -> np.ndarray:
        """Rewards ``[N]`` of N prompts' and responses' token ids."""

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """See `TextScorer.score`."""
        before, behind = self.inner.encode(prompts, completions, closed=closed)
        return self.values(before, behind, batch_size)

    def provenance(self) -> dict[str, Any]:
        """See `TextScorer.provenance`."""
        return self.inner.provenance() | super().provenance()
