"""What `RewardModel` answers with."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ranked:
    """A completion's place in a ranking.

    Attributes:
        index: of the completion in what was given.
        score: its reward.
        completion: as it was given, text or messages.
    """

    index: int
    score: float
    completion: Any


@dataclass(frozen=True)
class TokenScores:
    """Rewards of a completion, token by token.

    Attributes:
        tokens: T texts of the completion's tokens, with those that the template ends it with.
        rewards: ``[T]`` rewards of the prefixes that end at each token; the last one is the reward
            of the whole completion.
        similarities: ``[T]`` cosine of each token's hidden state to the goal state; None without a
            goal.
    """

    tokens: list[str]
    rewards: np.ndarray
    similarities: np.ndarray | None
