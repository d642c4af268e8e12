"""Cached reward model states of growing samples, so that only their new tokens are processed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rewardsteer.decoding.sample import Sample
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.models.batching import left_pad, refill
from rewardsteer.models.prefix_state import EMPTY_ROW


class Value(NamedTuple):
    """A reward (one value), or similarities of tokens, with the forward passes and tokens that they
    took."""

    values: Sequence[float]
    forwards: int
    tokens: int


class GrowingReads:
    """The reward model's cache, with a row for every sample that may be scored again."""

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer
        self._cache = scorer.open()
        self._rows: list[Sample | None] = []
        self._lengths: list[int] = []

    def knows(self, sample: Sample) -> bool:
        """Whether the cache has a row of the sample, or of the one that it was forked from."""
        return sample in self._rows or (sample.origin is not None and sample.origin in self._rows)

    def forget(self, samples: Sequence[Sample]) -> None:
        """Free the rows of samples that will not be scored again."""
        self._rows = [None if row in samples else row for row in self._rows]
        if all(row is None for row in self._rows):
            self._cache, self._rows, self._lengths = self._scorer.open(), [], []

    def read(
        self, samples: Sequence[Sample], texts: Sequence[Sequence[int]], goal: GoalState | None
    ) -> list[Value]:
        """Values of samples at their last tokens.

        Args:
            samples: all different.
            texts: token ids of prompt and response of each sample.
            goal: for similarities of the last tokens' states; None: rewards, by a scalar head.
        """
        self._arrange(samples)
        rows = [self._rows.index(sample) for sample in samples]
        # In the cache's own order, so that all rows can be read without taking some out of it.
        order = sorted(range(len(rows)), key=rows.__getitem__)
        rows = [rows[index] for index in order]
        ids, mask = left_pad([texts[index] for index in order])
        before = [self._read_of(row) for row in rows]
        values = self._scorer.prefix_values(
            rows, ids, mask, self._cache, places=len(self._rows), goal=goal,
            in_step=self._in_step(rows, [len(texts[index]) for index in order]),
        ).tolist()
        found: dict[int, Value] = {}
        for index, row, value, (forwards, tokens) in zip(order, rows, values, before, strict=True):
            now = self._read_of(row)
            found[index] = Value([value], now[0] - forwards, now[1] - tokens)
            self._lengths[row] = len(texts[index])
        return [found[index] for index in range(len(samples))]

    def _read_of(self, row: int) -> tuple[int, int]:
        cache = self._cache
        return (cache.forwards[row], cache.tokens[row]) if cache.forwards else (0, 0)

    def _in_step(self, rows: Sequence[int], lengths: Sequence[int]) -> bool:
        """Whether these are all rows, and each is new or has grown by one token."""
        grown = [length - self._lengths[row] for row, length in zip(rows, lengths, strict=True)]
        return len(rows) == len(self._rows) and all(
            more == 1 or not self._lengths[row] for row, more in zip(rows, grown, strict=True)
        )

    def _arrange(self, samples: Sequence[Sample]) -> None:
        """Give every sample a row of the cache; that of a fork begins as a copy of its origin's."""
        prompts = {id(sample.prompt) for sample in samples}
        # An aborted sample keeps its row until its prompt is scored again, for its forks.
        kept = [
            None if row is None or (row.aborted and id(row.prompt) in prompts) else row
            for row in self._rows
        ]
        places = {row: place for place, row in enumerate(self._rows) if row is not None}
        after = refill(kept, [
            (EMPTY_ROW if one.origin is None else places.get(one.origin, EMPTY_ROW), one)
            for one in samples if one not in kept
        ])
        origins = [origin for origin, _ in after]
        if origins != list(range(len(self._rows))):
            self._cache.select(origins)
        self._lengths = [0 if place == EMPTY_ROW else self._lengths[place] for place in origins]
        self._rows = [row for _, row in after]
