"""What sessions that review responses share: the reward model's cache and what it cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rewardsteer.decoding.guide import Prefix, Reads, Rewarder, not_a_number
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
        """Rewards by place, all read together. Places whose reward is no number fail and are left
        out; so are those that had failed before.

        Args:
            prefix: all rows.
            texts: by place, what is to be judged: prompt and response (token ids).
        """
        texts = {place: text for place, text in texts.items() if place not in prefix.failed}
        if not texts:
            return {}
        ids, mask = left_pad(list(texts.values()))
        read = self._scorer.prefixes(
            list(texts), ids, mask, self._cache, places=len(prefix.rows)
        )
        self.count(texts, len(prefix.rows))
        rewards = zip(texts, read.tolist(), strict=True)
        return {place: reward for place, reward in rewards if is_number(reward, prefix, place)}

    def count(self, asked: Any, places: int) -> None:
        """One call more at the places asked about."""
        self._calls = self._calls or [0] * places
        for place in asked:
            self._calls[place] += 1


def is_number(value: float, prefix: Prefix, place: int) -> bool:
    """Whether a value is finite; the row at this place fails where it is not."""
    if abs(value) < float("inf"):
        return True
    prefix.fail(place, not_a_number(f"The reward model gave {value}", prefix, place))
    return False
