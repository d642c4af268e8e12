"""Reward models that append a token of their own to a text and score it there."""

from typing import Any

import numpy as np

from rewardsteer.errors import CheckpointError
from rewardsteer.models.kinds.whole_text import WholeTextScorer
from rewardsteer.models.scorer import Scorer


class AppendedTokenScorer(WholeTextScorer):
    """Scores whole texts; rewards of token prefixes would each need the appended token.

    Args:
        inner: the model, which scores the last token.
        token: id that is appended to every text.

    Raises:
        CheckpointError: the model has no such token.
    """

    def __init__(self, inner: Scorer, token: int) -> None:
        if not 0 <= token < inner.known.size:
            raise CheckpointError(
                f"The reward is scored at an appended token with the id {token}, but {inner.name} "
                f"has {inner.known.size} tokens; give another one as reward_token=."
            )
        super().__init__(inner)
        self.token = token

    def values(
        self, prompts: list[list[int]], responses: list[list[int]], batch_size: int
    ) -> np.ndarray:
        """Rewards at the appended token."""
        closed = [[*ids, self.token] for ids in responses]
        return self.inner.score_ids(prompts, closed, batch_size=batch_size)

    def provenance(self) -> dict[str, Any]:
        """See `TextScorer.provenance`."""
        return super().provenance() | {"reward_token": self.token}
