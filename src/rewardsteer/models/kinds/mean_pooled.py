"""Reward models whose head reads the mean of the states of all tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt


class MeanPooledScorer(TextScorer):
    """Scores whole texts, prompt and response. The head is linear, so its value at the mean of the
    states is the mean of its values.

    Args:
        inner: the model, which gives a value at each token; it shares no prompts.
    """

    def __init__(self, inner: Scorer) -> None:
        self.inner = inner
        self.name, self.fingerprint = inner.name, inner.fingerprint
        self.tokenizer, self.template = inner.tokenizer, inner.template

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """See `TextScorer.score`."""
        before, behind = self.inner.encode(prompts, completions, closed=closed)
        rows = [[*one, *other] for one, other in zip(before, behind, strict=True)]
        # A row without a prompt has values at all of its tokens.
        values = self.inner.token_scores_ids([[] for _ in rows], rows, batch_size=batch_size)
        return np.array([one.rewards.mean() for one in values], dtype=np.float64)

    def provenance(self) -> dict[str, Any]:
        """See `TextScorer.provenance`."""
        return self.inner.provenance() | super().provenance() | {"pooling": "mean"}
