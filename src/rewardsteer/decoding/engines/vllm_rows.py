"""The rows of an engine's batch that one reward model guides, and what it has read of them.

It knows token ids, no engine: whoever calls says at every step which rows ask and what their logits
are. A row that is seen for the first time, or again after the engine had set it aside, is read
whole; the others by what they grew.

Nothing that happens to a row may stop the engine or touch other rows. A row that cannot be guided
any more (rewards that are no numbers, no memory) goes on with the policy's own logits, and a line
in the log says so, once.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rewardsteer.decoding.candidates import CandidateSession
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.vllm_held import Held
from rewardsteer.decoding.engines.vllm_requests import Wish
from rewardsteer.decoding.guide import GuideSession, Prefix, Reads, check_numbers
from rewardsteer.decoding.memory import out_of_memory
from rewardsteer.decoding.vocabulary import VocabularySession
from rewardsteer.decoding.weights import RowWeights, Weight
from rewardsteer.models.prefix_state import NEW

logger = logging.getLogger(__name__)

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
        lost: why it is not guided any more; None: it is.
    """

    wish: Wish
    prompt: list[int]
    output: list[int]
    before: Reads = field(default_factory=Reads)
    begin: Reads = field(default_factory=Reads)
    weight: Weight = field(init=False)
    lost: Exception | None = None

    def __post_init__(self) -> None:
        self.weight = Weight(DecodingConfig(weight=self.wish.weight))


class GuidedRows:
    """Guides the rows that ask, with one reward call for all of them.

    Args:
        scorer: the reward model. A vocabulary head guides as ``farma`` does, or ``genarm`` where it
            was trained with ``autoregressive``; a scalar head as ``args`` does.
        held: where costs and failures are told, for whoever runs the engine in this process.
    """

    def __init__(self, scorer: Any, held: Held | None = None) -> None:
        self._scorer, self._held = scorer, held or Held(scorer)
        self._weights = _Weights()
        self._session: GuideSession | None = None
        self._seats: list[Seat] = []
        self._lengths: list[int] = []
        self._ids = self._mask = torch.empty(0, 0, dtype=torch.long)

    @property
    def held_rows(self) -> int:
        """Rows that the reward model's cache holds."""
        return len(self._seats)

    def guided(self, seats: Sequence[Seat], logits: Tensor) -> Tensor:
        """Scores ``[B, V]`` from the policy's logits ``[B, V]``, whatever happens: a row that
        cannot be guided keeps its logits and is lost from then on (`Seat.lost`)."""
        scores = logits.clone()
        asking = [place for place, seat in enumerate(seats) if seat.lost is None]
        while asking:
            some, own = [seats[place] for place in asking], logits[asking]
            try:
                scores[asking] = self.scores(some, own).to(scores)
                break
            except Exception as error:
                self.forget()
                for seat in self._to_lose(some, own, error):
                    self._lose(seat, seat.lost or error)
            asking = [place for place in asking if seats[place].lost is None]
        if not asking:
            self.forget()
        return scores

    def scores(self, seats: Sequence[Seat], logits: Tensor) -> Tensor:
        """Guided scores ``[B, V]`` from the policy's logits ``[B, V]``. Rows whose rewards are no
        numbers are lost."""
        self._take(list(seats))
        assert self._session is not None
        self._weights.rows = [seat.weight for seat in seats]
        self._weights.counts = [seat.wish.top_k for seat in seats]
        names = [seat.wish.name or f"{place} of the batch" for place, seat in enumerate(seats)]
        steps = [len(seat.output) for seat in seats]
        prefix = Prefix(self._ids, self._mask, steps, names)
        scores = self._session.scores(prefix, logits)
        self._count()
        check_numbers(logits, scores, prefix)
        for place, error in prefix.failed.items():
            self._lose(seats[place], error)
            scores[place] = logits[place].to(scores)
        return scores

    def _to_lose(
        self, seats: Sequence[Seat], logits: Tensor, error: Exception
    ) -> Sequence[Seat]:
        """Whom to give up after a step that raised: where memory ran out the newer half, else those
        that fail alone, and all where none does."""
        if out_of_memory(error):
            oldest_first = sorted(seats, key=lambda seat: -len(seat.output))
            return oldest_first[len(seats) // 2 :]
        failing = []
        for place, seat in enumerate(seats):
            try:
                self.scores([seat], logits[place : place + 1])
            except Exception as own:
                seat.lost = own
                failing.append(seat)
            self.forget()
        return failing or seats

    def _lose(self, seat: Seat, error: Exception) -> None:
        seat.lost = error
        if seat.wish.name in self._held.costs:
            self._held.failed[seat.wish.name] = error
        logger.warning(
            "The request %s goes on without its reward model after %d tokens: %s",
            seat.wish.name or "without a name", len(seat.output), error,
        )

    def forget(self) -> None:
        """Nobody asks any more: give the memory back."""
        self._session, self._seats, self._lengths = None, [], []

    def _take(self, seats: list[Seat]) -> None:
        """Make the session's rows and the prefixes those of the seats."""
        lengths = [len(seat.prompt) + len(seat.output) for seat in seats]
        known, origins = {id(seat): place for place, seat in enumerate(self._seats)}, []
        for seat, length in zip(seats, lengths, strict=True):
            place = known.get(id(seat), NEW)
            grown = None if place == NEW else length - self._lengths[place]
            # A row that did not grow is one whose prompt is not finished. After candidates, which
            # stand behind the rows in the cache, it has to come as a new one.
            origins.append(place if grown in self._growths else NEW)
        stay = self._seats and origins == list(range(len(self._seats)))
        if stay and lengths == [length + 1 for length in self._lengths]:
            last = torch.tensor([[seat.output[-1]] for seat in seats])
            self._ids = torch.cat([self._ids, last], dim=1)
            self._mask = torch.cat([self._mask, torch.ones_like(last)], dim=1)
        else:
            self._ids = self._prefixes(seats, lengths, origins)
            columns = torch.arange(width := self._ids.shape[1])
            self._mask = (columns >= width - torch.tensor(lengths)[:, None]).long()
        if not stay:
            self._change(seats, origins)
        self._seats, self._lengths = seats, lengths

    @property
    def _growths(self) -> tuple[int, ...]:
        return (1,) if self._scorer.head_kind == "scalar" else (0, 1)

    def _prefixes(
        self, seats: Sequence[Seat], lengths: Sequence[int], origins: Sequence[int]
    ) -> Tensor:
        """Ids ``[B, T]``, padded on the left with 0. Python lists are gone through for new rows
        alone: at thousands of tokens a row they take longer than the models."""
        width = max(lengths)
        ids = torch.zeros(len(seats), width, dtype=torch.long)
        for grown in self._growths:
            rows = [
                row for row, place in enumerate(origins)
                if place != NEW and lengths[row] - self._lengths[place] == grown
            ]
            if not rows:
                continue
            columns = min(width - grown, self._ids.shape[1])
            held = self._ids[[origins[row] for row in rows], self._ids.shape[1] - columns :]
            ids[rows, width - grown - columns : width - grown] = held
            if grown:
                ids[rows, -1] = torch.tensor([seats[row].output[-1] for row in rows])
        for row, seat in enumerate(seats):
            if origins[row] == NEW:
                whole = [*seat.prompt, *seat.output]
                ids[row, width - len(whole) :] = torch.tensor(whole)
        return ids

    def _change(self, seats: list[Seat], origins: list[int]) -> None:
        fresh = self._session is None
        if self._session is None:
            self._session = self._open()
        else:
            self._session.select(origins)
        for place, (seat, origin) in enumerate(zip(seats, origins, strict=True)):
            if origin == NEW or fresh:
                seat.before = self._held.costs.get(seat.wish.name, Reads())
                seat.begin = Reads() if fresh else self._session.reads(place)

    def _open(self) -> GuideSession:
        if self._scorer.head_kind == "scalar":
            return _Candidates(self._scorer, 1, self._weights)
        return VocabularySession(self._scorer, self._weights, self._scorer.autoregressive)

    def _count(self) -> None:
        assert self._session is not None
        for place, seat in enumerate(self._seats):
            if seat.wish.name in self._held.costs:
                now = self._session.reads(place)
                sums = zip(seat.before, now, seat.begin, strict=True)
                self._held.costs[seat.wish.name] = Reads(*(b + n - begin for b, n, begin in sums))


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
