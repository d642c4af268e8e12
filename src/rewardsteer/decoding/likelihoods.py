"""Log-probabilities of given tokens, from engines with the ability ``likelihoods``."""

from collections.abc import Sequence
from typing import Protocol

from rewardsteer.records import Cost


class Likelihoods(Protocol):
    """Log-probabilities of given tokens under a policy, after one prompt.

    Attributes:
        cost: so far.
    """

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
