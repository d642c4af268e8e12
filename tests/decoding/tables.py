"""Policies and reward models that are tables: every number is written down."""

import copy
from collections.abc import Callable, Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from rewardsteer.decoding.answer import run as respond
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.engines.transformers.admission import Bounds
from rewardsteer.decoding.engines.transformers.batch import Batch
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.engines.transformers.likelihoods import PolicyLikelihoods
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.weights import RowWeights
from rewardsteer.decoding.running import in_order
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.scoring import Scoring
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.models.prefix_state import EMPTY_ROW
from rewardsteer.records import Cost

PROMPT = [7]  # one token before every response, outside the toy vocabulary


class TableReader:
    """Answers step() from a function of the response so far; counts like a `PrefixReader`."""

    continues = True

    def __init__(self, answer: Callable[[tuple[int, ...]], Sequence[float]]) -> None:
        # The same prefixes come thousands of times.
        self.answer = cache(answer) if callable(answer) else answer
        self.forwards: list[int] = []
        self.tokens: list[int] = []
        self.lengths: list[int] = []

    def step(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.count(ids, mask, 0)
        rows = [response(row, shown) for row, shown in zip(ids, mask, strict=True)]
        return torch.tensor([self.answer(row) for row in rows])

    def tail(self, ids: torch.Tensor, mask: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """At the last positions of every row, as `PrefixReader.tail`."""
        self.count(ids, mask, 0)
        rows = [response(row, shown) for row, shown in zip(ids, mask, strict=True)]
        most, size = max(counts), len(self.answer(()))
        answers = torch.zeros(len(rows), most, size)
        for place, (row, count) in enumerate(zip(rows, counts, strict=True)):
            for back in range(count):
                answers[place, most - 1 - back] = torch.tensor(
                    self.answer(row[: len(row) - back])
                )
        return answers

    def count(self, ids, mask, extra):
        known, self.lengths = self.lengths or [0] * len(ids), mask.sum(dim=1).tolist()
        new = [now - before for now, before in zip(self.lengths, known, strict=True)]
        self.forwards = [f + 1 for f in self.forwards or [0] * len(ids)]
        tokens = self.tokens or [0] * len(ids)
        self.tokens = [t + n + extra for t, n in zip(tokens, new, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        if not self.forwards:
            return
        self.forwards = [0 if row == EMPTY_ROW else self.forwards[row] for row in rows]
        self.tokens = [0 if row == EMPTY_ROW else self.tokens[row] for row in rows]
        self.lengths = [0 if row == EMPTY_ROW else self.lengths[row] for row in rows]


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
        self.reward = cache(reward)
        self.head_kind, self.gives_next_token = kind, kind == "vocabulary"
        self.scores_last_token = not self.gives_next_token
        self.vocabulary_size = size

    def open(self) -> TableReader:
        return TableReader(
            lambda prefix: [self.reward((*prefix, v)) for v in range(self.vocabulary_size)]
        )

    def next_token(self, prefix_ids, attention_mask, cache=None):
        return (cache or self.open()).step(prefix_ids, attention_mask)

    def candidates(self, prefix_ids, attention_mask, candidate_ids, cache=None):
        cache.count(prefix_ids, attention_mask, candidate_ids.shape[1])
        return torch.tensor([
            [self.reward((*response(row, mask), int(v))) for v in candidates]
            for row, mask, candidates in zip(
                prefix_ids, attention_mask, candidate_ids, strict=True
            )
        ])

    def prefix_values(
        self, rows, prefix_ids, attention_mask, cache, *, places, goal=None, in_step=False
    ):
        if len(cache.forwards) != places:
            cache.forwards, cache.tokens, cache.lengths = ([0] * places for _ in range(3))
        for row, length in zip(rows, attention_mask.sum(dim=1).tolist(), strict=True):
            cache.forwards[row] += 1
            cache.tokens[row] += length
        return torch.tensor([
            self.reward(response(row, mask))
            for row, mask in zip(prefix_ids, attention_mask, strict=True)
        ])

    def score_ids(self, prompt_ids, response_ids, *, batch_size=16):
        return np.array([self.reward(tuple(ids)) for ids in response_ids])

    def close_response(self, response_ids, stop_ids=()):
        return list(response_ids)


class TablePolicy:
    """Stands for a policy of so many tokens."""

    generation_config = None
    config = SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace())

    def __init__(self, size: int) -> None:
        self._table = SimpleNamespace(weight=torch.empty(size, 1))

    def eval(self) -> "TablePolicy":
        return self

    def get_output_embeddings(self) -> SimpleNamespace:
        return self._table

    get_input_embeddings = get_output_embeddings


class TableTokenizer:
    """Writes token ids as numbers, the prompt as nothing."""

    eos_token_id = None

    def get_vocab(self) -> dict[str, int]:
        return {"the last": 10**6 - 1}

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        return " ".join(str(token) for token in ids if [token] != PROMPT)


class TableEngine(TransformersEngine):
    """Reads from tables.

    Args:
        reader: makes a reader of a batch, or a table of logits by response so far.
        places: rows decoded together.
        stop_ids: tokens that end a response.
    """

    def __init__(
        self, reader: Callable[..., Any], places: int, stop_ids: Sequence[int] = ()
    ) -> None:
        super().__init__(TablePolicy(10**6), TableTokenizer(), Bounds(places))
        self.stop_ids, self._make = frozenset(stop_ids), reader

    def _open(self, guide: Any) -> Batch:
        own, weights = copy.copy(guide), RowWeights()
        own.weight = weights
        return Batch(self._reader(), open_session(own), weights)

    def _reader(self) -> Any:
        made = self._make if isinstance(self._make, type) else partial(TableReader, self._make)
        return made()

    def likelihoods(self, prompt: Encoded) -> PolicyLikelihoods:
        return PolicyLikelihoods(self._reader(), prompt.token_ids)


def decode(
    engine: TransformersEngine, method: Any, config: DecodingConfig, prompts: Sequence[Encoded]
) -> list[tuple[Outcome, Cost]]:
    """What a method answers, in order; prompts that fail raise."""
    scoring = None
    if isinstance(method, Strategy):
        scoring = Scoring(method.scorer, batch_size=config.batch_size, activity=engine.activity)
    programs = (partial(respond, engine, scoring, one, method, config) for one in prompts)
    return list(in_order(programs, engine.room, engine.close, most=len(prompts)))


def toy_prompts(count: int = 1) -> list[Encoded]:
    return [Encoded(str(number), PROMPT) for number in range(count)]


def answers(
    method: Any, logits: Callable[..., Any], config: DecodingConfig, *, count: int = 1,
    places: int = 64,
) -> list[tuple[int, ...]]:
    """Token ids that a method answers with, prompt by prompt."""
    found = decode(TableEngine(logits, places), method, config, toy_prompts(count))
    return [tuple(outcome.sample.token_ids) for outcome, _ in found]
