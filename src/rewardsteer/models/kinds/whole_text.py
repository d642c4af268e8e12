"""Reward models on token ids that score whole texts, and no prefixes."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

from rewardsteer.errors import CheckpointError
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt


class WholeTextScorer(TextScorer):
    """Base of these."""

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
        before, behind = self.inner.encode(prompts, completions, closed=closed)
        return self.values(before, behind, batch_size)

    def provenance(self) -> dict[str, Any]:
        return self.inner.provenance() | super().provenance()


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
        return super().provenance() | {"reward_token": self.token}


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
        return super().provenance() | {"pooling": "mean"}
