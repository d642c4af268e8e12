"""Reward models that append a token of their own to a text and score it there."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rewardsteer.errors import CheckpointError
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt


class AppendedTokenScorer(TextScorer):
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
        self.inner, self.token = inner, token
        self.name, self.fingerprint = inner.name, inner.fingerprint
        self.tokenizer, self.template = inner.tokenizer, inner.template

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """See `TextScorer.score`."""
        before, behind = self.inner.encode(prompts, completions, closed=closed)
        behind = [[*ids, self.token] for ids in behind]
        return self.inner.score_ids(before, behind, batch_size=batch_size)

    def provenance(self) -> dict[str, Any]:
        """See `TextScorer.provenance`."""
        own = super().provenance()
        return self.inner.provenance() | own | {"reward_token": self.token}
