"""What sessions that review responses share: the reward model's cache and what it cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rewardsteer.decoding.guide import Prefix, Reads, Rewarder
from rewardsteer.errors import NonFiniteError
from rewardsteer.models.prefix_state import left_pad


class ReviewSession:
    """Leaves the policy's logits as they are; counts per place what the reward model was asked."""

    def __init__(self, scorer: Rewarder) -> None:
        self._scorer = scorer
        self._cache = scorer.open()
        self._calls: list[int] = []

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """The policy's logits ``[B, V]``."""
        return logits.float()

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows, or make place for new ones."""
        self._cache.select(rows)
        if self._calls:
            self._calls = [0 if row < 0 else self._calls[row] for row in rows]

    def reads(self, row: int) -> Reads:
        """What was read at this place so far."""
        if not self._calls:
            return Reads()
        return Reads(self._calls[row], self._cache.forwards[row], self._cache.tokens[row])

    def rewards_of(self, prefix: Prefix, texts: Mapping[int, Sequence[int]]) -> dict[int, float]:
        """Rewards by place, all read together.

        Args:
            prefix: all rows.
            texts: by place, what is to be judged: prompt and response (token ids).

        Raises:
            NonFiniteError: a reward is no number; names the row.
        """
        if not texts:
            return {}
        ids, mask = left_pad(list(texts.values()))
        read = self._scorer.prefixes(
            list(texts), ids, mask, self._cache, places=len(prefix.rows)
        )
        self.count(texts, len(prefix.rows))
        rewards = dict(zip(texts, read.tolist(), strict=True))
        for place, reward in rewards.items():
            require_number(reward, prefix, place)
        return rewards

    def count(self, asked: Any, places: int) -> None:
        """One call more at the places asked about."""
        self._calls = self._calls or [0] * places
        for place in asked:
            self._calls[place] += 1


def require_number(value: float, prefix: Prefix, place: int) -> None:
    """Stop on a value that is no number, naming step and row.

    Raises:
        NonFiniteError: NaN or infinite.
    """
    if not abs(value) < float("inf"):
        raise NonFiniteError(
            f"The reward model gave {value} at step {prefix.steps[place] + 1} of row "
            f"{prefix.names[place]!r}; the checkpoint may be damaged, or its values overflow in "
            "this dtype: try float32. What was finished before is kept."
        )
