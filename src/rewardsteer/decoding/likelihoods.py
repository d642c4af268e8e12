"""Log-probabilities of given tokens, from engines with the ability ``likelihoods``."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from rewardsteer.errors import NonFiniteError
from rewardsteer.records import Cost


class Likelihoods(Protocol):
    """Log-probabilities of given tokens under a policy, after one prompt."""

    cost: Cost

    async def of(
        self, before: Sequence[int], continuations: Sequence[Sequence[int]]
    ) -> list[float]:
        """Log-probabilities of continuations, summed over their tokens, at temperature 1 over the
        whole vocabulary; minus infinity if a token has probability 0.

        Args:
            before: the response that all of them continue (token ids).
            continuations: at least one token each.

        Raises:
            NonFiniteError: the policy's logits are no numbers.
        """


def without_nan(values: list[float]) -> list[float]:
    """The log-probabilities of given tokens; raises `NonFiniteError` if one of them is NaN."""
    if any(math.isnan(value) for value in values):
        raise NonFiniteError(
            "The policy gave no number as the log-probability of given tokens; the "
            "checkpoint may be damaged, or its values overflow in this dtype: try float32."
        )
    return values


class RequestedLikelihoods(ABC):
    """`Likelihoods` of a policy that is asked about each continuation by a request of its own.

    Args:
        prompt_ids: the prompt of all responses, at least one token.
    """

    def __init__(self, engine: Any, prompt_ids: Sequence[int]) -> None:
        self._engine, self._prompt = engine, list(prompt_ids)
        self.cost = Cost()

    async def of(
        self, before: Sequence[int], continuations: Sequence[Sequence[int]]
    ) -> list[float]:
        return without_nan(await self._values([*self._prompt, *before], continuations))

    @abstractmethod
    async def _values(
        self, base: list[int], continuations: Sequence[Sequence[int]]
    ) -> list[float]:
        """The log-probabilities of continuations of prompt and response; adds to the cost."""
