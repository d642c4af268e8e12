"""The rows of an engine's batch that one reward model guides, and what it has read of them.

It knows token ids, no engine: whoever calls says at every step which rows ask and what their logits
are. A row that is seen for the first time, or again after the engine had set it aside, is read
whole; the others by what they grew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rewardsteer.decoding.candidates import CandidateSession
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.vllm_requests import Wish
from rewardsteer.decoding.guide import GuideSession, Prefix, Reads
from rewardsteer.decoding.vocabulary import VocabularySession
from rewardsteer.decoding.weights import RowWeights, Weight
from rewardsteer.models.prefix_state import NEW, left_pad

# What the requests cost whose names stand here, for whoever runs the engine in his own process.
COSTS: dict[str, Reads] = {}
# Reward models that this process holds already, by the folder they came from.
LOADED: dict[str, Any] = {}


@dataclass(eq=False)
class Seat:
    """A request that asks, for as long as it keeps its place in the engine's batch.

    Attributes:
        wish: what it asks.
        prompt: token ids, at least one.
        output: token ids generated so far; the engine adds to this list.
        before: what the request had cost when it came.
        begin: what the counters of its place said then.
        weight: what it asks, as guides take it.
    """

    wish: Wish
    prompt: list[int]
    output: list[int]
    before: Reads = field(default_factory=Reads)
    begin: Reads = field(default_factory=Reads)
    weight: Weight = field(init=False)

    def __post_init__(self) -> None:
        self.weight = Weight(DecodingConfig(weight=self.wish.weight))


class GuidedRows:
    """Guides the rows that ask, with one reward call for all of them.

    Args:
        scorer: the reward model. A vocabulary head guides as ``farma`` does, or ``genarm`` where it
            was trained with ``autoregressive``; a scalar head as ``args`` does.
    """

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer
        self._weights = _Weights()
        self._session: GuideSession | None = None
        self._seats: list[Seat] = []
        self._lengths: list[int] = []
        self._ids = self._mask = torch.empty(0, 0, dtype=torch.long)

    def scores(self, seats: Sequence[Seat], logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]`` from the policy's logits ``[B, V]``.

        Raises:
            NonFiniteError: a reward is no number; names the request.
        """
        self._take(list(seats))
        assert self._session is not None
        self._weights.rows = [seat.weight for seat in seats]
        self._weights.counts = [seat.wish.top_k for seat in seats]
        names = [seat.wish.name or f"{place} of the batch" for place, seat in enumerate(seats)]
        steps = [len(seat.output) for seat in seats]
        scores = self._session.scores(Prefix(self._ids, self._mask, steps, names), logits)
        self._count()
        return scores

    def forget(self) -> None:
        """Nobody asks any more: give the memory back."""
        self._session, self._seats, self._lengths = None, [], []

    def _take(self, seats: list[Seat]) -> None:
        """Make the session's rows and the prefixes those of the seats."""
        lengths = [len(seat.prompt) + len(seat.output) for seat in seats]
        # A row that did not grow by one token (its prompt is not finished) comes as a new one: the
        # reader takes what most rows do for what all do, and would doubt the others.
        known = {
            (id(seat), length + 1): place
            for place, (seat, length) in enumerate(zip(self._seats, self._lengths, strict=True))
        }
        origins = [known.get(row, NEW) for row in zip(map(id, seats), lengths, strict=True)]
        if self._seats and origins == list(range(len(self._seats))):
            last = torch.tensor([[seat.output[-1]] for seat in seats])
            self._ids = torch.cat([self._ids, last], dim=1)
            self._mask = torch.cat([self._mask, torch.ones_like(last)], dim=1)
        else:
            self._change(seats, origins)
            self._ids, self._mask = left_pad([[*seat.prompt, *seat.output] for seat in seats])
        self._seats, self._lengths = seats, lengths

    def _change(self, seats: list[Seat], origins: list[int]) -> None:
        fresh = self._session is None
        if self._session is None:
            self._session = self._open()
        else:
            self._session.select(origins)
        for place, (seat, origin) in enumerate(zip(seats, origins, strict=True)):
            if origin == NEW or fresh:
                seat.before = COSTS.get(seat.wish.name, Reads())
                seat.begin = Reads() if fresh else self._session.reads(place)

    def _open(self) -> GuideSession:
        if self._scorer.head_kind == "scalar":
            return _Candidates(self._scorer, 1, self._weights)
        return VocabularySession(self._scorer, self._weights, self._scorer.autoregressive)

    def _count(self) -> None:
        assert self._session is not None
        for place, seat in enumerate(self._seats):
            if seat.wish.name in COSTS:
                now = self._session.reads(place)
                sums = zip(seat.before, now, seat.begin, strict=True)
                COSTS[seat.wish.name] = Reads(*(b + n - begin for b, n, begin in sums))


class _Weights(RowWeights):
    """Every row's own weight and number of candidates."""

    counts: Sequence[int] = ()


class _Candidates(CandidateSession):
    """Asks about as many candidates as the row that asks for most; each row keeps its own."""

    _weight: _Weights

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]``, -inf outside each row's candidates."""
        counts = [min(count, logits.shape[1]) for count in self._weight.counts]
        self._count = max(counts)
        guided = super().scores(prefix, logits)
        if min(counts) == self._count:
            return guided
        best = logits.float().topk(self._count, dim=-1).indices
        columns = torch.arange(self._count, device=best.device)
        others = columns >= torch.tensor(counts, device=best.device)[:, None]
        dropped = torch.zeros_like(guided).bool().scatter(1, best, others)
        return guided.masked_fill(dropped, -torch.inf)
