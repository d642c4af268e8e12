"""Policies and reward models that are tables: every number is written down."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from rewardsteer.decoding.loop import Row
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.models.prefix_state import NEW

PROMPT = [7]  # one token before every response, outside the toy vocabulary


class TableReader:
    """Answers sync() from a function of the response so far; counts like a `PrefixReader`."""

    def __init__(self, answer: Callable[[tuple[int, ...]], Sequence[float]]) -> None:
        self.answer = answer
        self.forwards: list[int] = []
        self.tokens: list[int] = []
        self.lengths: list[int] = []

    def sync(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.count(ids, mask, 0)
        rows = [response(row, shown) for row, shown in zip(ids, mask, strict=True)]
        return torch.tensor([self.answer(row) for row in rows])

    def count(self, ids, mask, extra):
        known, self.lengths = self.lengths or [0] * len(ids), mask.sum(dim=1).tolist()
        new = [now - before for now, before in zip(self.lengths, known, strict=True)]
        self.forwards = [f + 1 for f in self.forwards or [0] * len(ids)]
        tokens = self.tokens or [0] * len(ids)
        self.tokens = [t + n + extra for t, n in zip(tokens, new, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        self.forwards = [0 if row == NEW else self.forwards[row] for row in rows]
        self.tokens = [0 if row == NEW else self.tokens[row] for row in rows]
        self.lengths = [0 if row == NEW else self.lengths[row] for row in rows]


def response(ids: torch.Tensor, mask: torch.Tensor) -> tuple[int, ...]:
    """The response part of a left-padded row that begins with `PROMPT`."""
    return tuple(ids[mask.bool()].tolist()[len(PROMPT) :])


class TableScorer:
    """A reward model given by the reward of every prefix; implements what guides ask for."""

    objective = ""
    name = "table"
    fingerprint = ""
    hidden_size = 1

    def __init__(self, reward: Callable[[tuple[int, ...]], float], kind: str, size: int) -> None:
        self.reward = reward
        self.head_kind = kind
        self.vocabulary_size = size

    def open(self) -> TableReader:
        return TableReader(
            lambda prefix: [self.reward((*prefix, v)) for v in range(self.vocabulary_size)]
        )

    def next_token(self, prefix_ids, attention_mask, cache=None):
        return (cache or self.open()).sync(prefix_ids, attention_mask)

    def candidates(self, prefix_ids, attention_mask, candidate_ids, cache=None):
        cache.count(prefix_ids, attention_mask, candidate_ids.shape[1])
        return torch.tensor([
            [self.reward((*response(row, mask), int(v))) for v in candidates]
            for row, mask, candidates in zip(
                prefix_ids, attention_mask, candidate_ids, strict=True
            )
        ])

    def prefixes(self, rows, prefix_ids, attention_mask, cache, *, places):
        if len(cache.forwards) != places:
            cache.forwards, cache.tokens, cache.lengths = ([0] * places for _ in range(3))
        for row, length in zip(rows, attention_mask.sum(dim=1).tolist(), strict=True):
            cache.forwards[row] += 1
            cache.tokens[row] += length
        return torch.tensor([
            self.reward(response(row, mask))
            for row, mask in zip(prefix_ids, attention_mask, strict=True)
        ])

    def similarities(self, rows, prefix_ids, attention_mask, goal, cache):
        some = list(rows)
        return self.prefixes(
            some, prefix_ids[some], attention_mask[some], cache, places=len(prefix_ids)
        )

    def score_ids(self, prompt_ids, response_ids, *, batch_size=16):
        return np.array([self.reward(tuple(ids)) for ids in response_ids])

    def close_response(self, response_ids, stop_ids=()):
        return list(response_ids)


def toy_rows(count: int = 1, seed: int = 0) -> list[Row]:
    return [Row(str(i), PROMPT, row_generator(seed, str(i), 0)) for i in range(count)]
