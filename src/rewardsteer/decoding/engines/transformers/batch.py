"""The batched decoding loop: rows enter, run and draw; rows that stop make place for new ones.

A step has two halves. `Batch.read` runs the models on each row's new tokens and returns the samples
that stop before their next token; `Batch.draw` adds a token to every row that wants one. Rows of
different ages and lengths share a batch, and a new one runs beside the old ones, so a row's
counters are exactly its own cost.

A row that cannot go on (its logits, rewards or scores are no numbers, or a check after its tokens
raises) fails alone: `TokenSample.error` is set, and the other rows are what they would have been
without it.

The continuous batching of transformers (5.19) cannot be used here. It takes no logits processors
but those of the generation settings, gives them only a row's last token, and draws from one
generator for all rows, so that a row's draws would depend on the batch.

Shapes: B rows, T columns of the left-padded prefixes, V the policy's logits a row.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rewardsteer.decoding.engines.token_sample import TokenSample
from rewardsteer.decoding.guides.prefix import Prefix, RewardUsage, check_numbers
from rewardsteer.decoding.guides.session import GuideSession
from rewardsteer.decoding.guides.weights import RowWeights
from rewardsteer.decoding.penalties import allowed, penalized
from rewardsteer.decoding.sampling import TokenLogprob, log_probabilities, pick_each
from rewardsteer.models.batching import left_pad, refill
from rewardsteer.models.prefix_state import EMPTY_ROW
from rewardsteer.records import Cost


@dataclass
class Slot:
    """A row's sample, and the counters of its place when its cost was last charged."""

    sample: TokenSample
    usage: RewardUsage = field(default_factory=RewardUsage)
    forwards: int = 0
    tokens: int = 0
    seconds: float = 0.0
    drawn: int = 0
    length: int = 0


class Batch:
    """The rows of one guide.

    Args:
        reader: answers with the policy's next-token logits (`PrefixReader`).
        session: the guide's, fresh.
        weights: of the guide; set to the rows' own at every step.
    """

    def __init__(self, reader: Any, session: GuideSession, weights: RowWeights) -> None:
        self._reader, self._session, self._weights = reader, session, weights
        self._slots: list[Slot] = []
        # An index, because searching hundreds of rows takes longer than drawing.
        self._places: dict[TokenSample, int] = {}
        self._ids = self._mask = torch.empty(0, 0, dtype=torch.long)
        self._prefix: Prefix | None = None
        self._logits = self._scores = torch.empty(0, 0)
        self._stale = False
        self.drawn = 0

    @property
    def samples(self) -> list[TokenSample]:
        return [slot.sample for slot in self._slots]

    def has(self, sample: TokenSample) -> bool:
        return sample in self._places

    @property
    def growing(self) -> int:
        """Number of rows that want tokens."""
        return sum(sample.growing for sample in self.samples)

    @torch.no_grad()
    def read(self, admitted: Sequence[TokenSample]) -> list[TokenSample]:
        """Let samples enter, and run the models on all new tokens; returns the samples that stop
        before their next token. Rows that want no token are removed, and their cached states held.

        Some row must want a token. After an exception the batch is unusable.
        """
        began = time.perf_counter()
        self._arrange(admitted)
        rows = self.samples
        for sample in rows:
            sample.revised = False
        steps = [len(sample.token_ids) for sample in rows]
        names = [sample.name for sample in rows]
        prompts = [sample.prompt for sample in rows]
        gates = [sample.gate for sample in rows]
        prefix = self._prefix = Prefix(self._ids, self._mask, steps, names, prompts, gates)
        self._weights.rows = [sample.weight for sample in rows]
        engine = rows[0].engine
        self._logits = self._reader.step(self._ids, self._mask)[:, : engine.vocabulary_size]
        self._scores = self._session.scores(prefix, allowed(
            self._logits, rows, [sample.config for sample in rows], engine.stop_ids
        ))
        # Only now: looking at the logits earlier would keep an accelerator waiting for the guide.
        check_numbers(self._logits, self._scores, prefix)
        return self._stopped(rows, prefix, began)

    def _stopped(
        self, rows: Sequence[TokenSample], prefix: Prefix, began: float
    ) -> list[TokenSample]:
        """Rows that stop because the policy's entropy is high; the seconds since ``began`` are
        shared among all rows."""
        stopping = self._unsure(rows, prefix)
        for sample in stopping:
            sample.growing = False
        self._share(time.perf_counter() - began)
        self.charge(stopping)
        return stopping

    def _unsure(
        self, rows: Sequence[TokenSample], prefix: Prefix
    ) -> list[TokenSample]:
        if all(sample.stop.entropy is None for sample in rows):
            return []
        shares = self._logits.float().softmax(dim=-1)
        entropies = torch.special.entr(shares).sum(dim=-1).tolist()
        return [
            sample for place, sample in enumerate(rows)
            if sample.growing and place not in prefix.failed and sample.unsure(entropies[place])
        ]

    @torch.no_grad()
    def draw(self) -> list[TokenSample]:
        """Draw a token for every row that wants one and was not revised since `read`; returns the
        samples that stopped or failed."""
        began, prefix = time.perf_counter(), self._prefix
        assert prefix is not None, "read() first"
        rows = self.samples
        active = begun = [
            place for place, sample in enumerate(rows)
            if sample.growing and not sample.revised and place not in prefix.failed
        ]
        for place, error in prefix.failed.items():
            rows[place].error, rows[place].growing = error, False
        self.drawn = 0
        while active:
            tokens = self._pick(rows, active)
            for place in active:
                rows[place].add(tokens[place])
            self._grow(rows, active, tokens)
            self.drawn += len(active)
            active = self._again(active, tokens)
        self._share(time.perf_counter() - began)
        drawn = [rows[place] for place in (*begun, *prefix.failed) if not rows[place].growing]
        self.charge(drawn)
        # Those that ended keep their rows until the next step: their programs may take tokens back.
        return drawn

    def _again(self, active: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """The active rows that draw another token in this step: none without drafts."""
        return []

    def _pick(self, rows: Sequence[TokenSample], active: Sequence[int]) -> list[int]:
        """Next tokens of the active rows; 0 for the others."""
        tokens = [0] * len(rows)
        if not active:
            return tokens
        every = len(active) == len(rows)
        scores = self._scores if every else self._scores[list(active)]
        some = [rows[place] for place in active]
        configs = [sample.config for sample in some]
        scores = penalized(scores, some, configs, some[0].engine.stop_ids)
        picked = pick_each(scores, [sample.rng for sample in some], configs)
        for place, token in zip(active, picked, strict=True):
            tokens[place] = token
        self._record(rows, active, tokens)
        return tokens

    def _record(
        self, rows: Sequence[TokenSample], active: Sequence[int], tokens: Sequence[int]
    ) -> None:
        """Record the tokens' log-probabilities in the samples that want them."""
        asking = [
            place for place in active
            if rows[place].log_probability is not None or rows[place].top is not None
        ]
        if not asking:
            return
        most = max(rows[place].top or 0 for place in asking)
        found = log_probabilities(
            self._logits[asking], [tokens[place] for place in asking], most
        )
        for place, one in zip(asking, found, strict=True):
            sample = rows[place]
            if sample.log_probability is not None:
                sample.log_probability += one.value
            if sample.top is not None:
                sample.logprobs.append(TokenLogprob(one.value, one.best[: sample.top]))

    def _grow(
        self, rows: Sequence[TokenSample], active: Sequence[int], tokens: Sequence[int]
    ) -> None:
        """Bring the prefixes up to date after the active rows got a token each."""
        drawn = set(active)
        for place, slot in enumerate(self._slots):
            slot.drawn += place in drawn
        if len(active) == len(rows):
            self._ids = torch.cat([self._ids, torch.tensor(tokens)[:, None]], dim=1)
            self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        elif active:
            self._stale = True

    def _share(self, seconds: float) -> None:
        for slot in self._slots:
            slot.seconds += seconds / len(self._slots)

    def hold(self, sample: TokenSample) -> Any:
        """The policy's cached states of a row; None if there are none, or the reader has no way."""
        hold = getattr(self._reader, "hold", None)
        place = self._places.get(sample)
        return None if hold is None or place is None else hold(place)

    def charge(self, samples: Sequence[TokenSample]) -> None:
        """Add to the samples their cost since the last call."""
        for sample in samples:
            if sample in self._places:
                place = self._places[sample]
                sample.cost += self._cost(place, self._slots[place])

    def _cost(self, place: int, slot: Slot) -> Cost:
        if not self._reader.forwards:
            return Cost()
        usage = self._session.usage(place)
        forwards, tokens = self._reader.forwards[place], self._reader.tokens[place]
        cost = usage.since(
            slot.usage, new_tokens=len(slot.sample.token_ids) - slot.length,
            lm_calls=slot.drawn, lm_forwards=forwards - slot.forwards,
            lm_tokens=tokens - slot.tokens, seconds=slot.seconds,
        )
        slot.usage, slot.forwards, slot.tokens = usage, forwards, tokens
        slot.seconds, slot.drawn, slot.length = 0.0, 0, len(slot.sample.token_ids)
        return cost

    def _arrange(self, admitted: Sequence[TokenSample]) -> None:
        """Remove the rows that want no token; let new ones enter."""
        self._stale |= any(sample.revised for sample in self.samples)
        kept: list[Slot | None] = [slot if slot.sample.growing else None for slot in self._slots]
        for slot in self._slots:
            sample = slot.sample
            if not sample.growing and not sample.over and sample.held is None:
                sample.held = self.hold(sample)
        if admitted or None in kept:
            self._change_places(kept, admitted)
        elif self._stale:
            self._ids, self._mask = self._prefixes()
        self._stale = False

    def _change_places(
        self, kept: Sequence[Slot | None], admitted: Sequence[TokenSample]
    ) -> None:
        """Let new rows enter where others have left (None)."""
        after = refill(kept, [
            (EMPTY_ROW, Slot(sample, length=len(sample.token_ids))) for sample in admitted
        ])
        if self._slots:
            places = [place for place, _ in after]
            self._reader.select(places)
            self._session.select(places)
            for place, (origin, slot) in enumerate(after):
                if origin == EMPTY_ROW:
                    slot.usage = self._session.usage(place)
        self._slots = [slot for _, slot in after]
        self._places = {slot.sample: place for place, (_, slot) in enumerate(after)}
        held = {place: slot.sample.held for place, (_, slot) in enumerate(after)
                if slot.sample.held is not None}
        if held:
            self._reader.restore(held, places=len(after))
            for _, slot in after:
                slot.sample.held = None
        self._ids, self._mask = self._prefixes()

    def _prefixes(self) -> tuple[Tensor, Tensor]:
        return left_pad([[*one.prompt_ids, *one.token_ids] for one in self.samples])
