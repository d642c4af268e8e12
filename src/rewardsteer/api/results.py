"""Results of the methods of `RewardModel`."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ranked:
    """A completion in a ranking.

    Attributes:
        index: of the completion in the input.
        score: its reward.
        completion: as in the input, text or messages.
    """

    index: int
    score: float
    completion: Any


@dataclass(frozen=True)
class TokenScores:
    """Rewards of a completion, token by token.

    Attributes:
        tokens: T texts of the completion's tokens, including the template's end tokens.
        rewards: ``[T]`` rewards of the prefixes that end at each token; the last one is the reward
            of the whole completion.
        similarities: ``[T]`` cosine of each token's hidden state to the goal state; None without a
            goal.
    """

    tokens: list[str]
    rewards: np.ndarray
    similarities: np.ndarray | None
