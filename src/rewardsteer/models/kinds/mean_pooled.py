"""Reward models whose head reads the mean of the states of all tokens."""

from typing import Any

import numpy as np

from rewardsteer.models.kinds.whole_text import WholeTextScorer


class MeanPooledScorer(WholeTextScorer):
    """Scores whole texts, prompt and response. The head is linear, so its value at the mean of the
    states is the mean of its values.

    Args:
        inner: the model, which gives a value at each token; it shares no prompts.
    """

    def values(
        self, prompts: list[list[int]], responses: list[list[int]], batch_size: int
    ) -> np.ndarray:
        """Means over the tokens of prompt and response."""
        rows = [[*one, *other] for one, other in zip(prompts, responses, strict=True)]
        # A row without a prompt has values at all of its tokens.
        values = self.inner.token_scores_ids([[] for _ in rows], rows, batch_size=batch_size)
        return np.array([one.rewards.mean() for one in values], dtype=np.float64)

    def provenance(self) -> dict[str, Any]:
        """See `TextScorer.provenance`."""
        return super().provenance() | {"pooling": "mean"}
