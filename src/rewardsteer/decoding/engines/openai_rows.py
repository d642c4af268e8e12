"""Rows of the openai engine's guided samples, which a reward model scores together."""

import asyncio
import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rewardsteer.decoding.engines.openai_guided import GuidedSample
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.prefix import Prefix, check_numbers
from rewardsteer.decoding.guides.weights import RowWeights
from rewardsteer.decoding.penalties import allowed, penalized
from rewardsteer.decoding.sampling import pick_each
from rewardsteer.models.batching import left_pad, refill
from rewardsteer.models.prefix_state import EMPTY_ROW
from rewardsteer.records import Cost


class _Asked(NamedTuple):
    """A sample, the tokens that the server named, and the future of the picked one."""

    sample: GuidedSample
    named: Mapping[int, float]
    picked: "asyncio.Future[tuple[int, Cost]]"


class GuidedRows:
    """The growing samples of a guide, each with a row of the reward model's cache."""

    def __init__(self, guide: LogitsGuide, engine: Any) -> None:
        self._guide, self._engine = copy.copy(guide), engine
        self._guide.weight = self._weights = RowWeights()
        self._waiting: list[_Asked] = []
        self._reading: asyncio.Task[None] | None = None
        self._open()

    def _open(self) -> None:
        self._session: Any = open_session(self._guide)
        self._rows: list[GuidedSample] = []

    @property
    def idle(self) -> bool:
        """Whether none of its samples is growing."""
        reading = self._reading is not None and not self._reading.done()
        return not reading and all(one.over for one in self._rows)

    async def pick(self, sample: GuidedSample, named: Mapping[int, float]) -> tuple[int, Cost]:
        """The next token of a sample, out of those named with their log-probabilities, and the
        reward model's cost for it."""
        loop = asyncio.get_running_loop()
        self._waiting.append(_Asked(sample, named, loop.create_future()))
        picked = self._waiting[-1].picked
        if self._reading is None or self._reading.done():
            self._reading = loop.create_task(self._read())
        return await picked

    async def _read(self) -> None:
        while self._waiting:
            async with self._engine.guiding:
                asked, self._waiting = self._waiting, []
                await self._answer([one for one in asked if not one.picked.done()])

    async def _answer(self, asked: Sequence[_Asked]) -> None:
        if not asked:
            return
        began = time.perf_counter()
        try:
            # The server answers others meanwhile.
            found = await asyncio.to_thread(self._picked, asked)
        except Exception as error:
            # The cache may be incomplete, and only the row with the error is to fail.
            self._open()
            if len(asked) > 1:
                for one in asked:
                    await self._answer([one])
                return
            found = [error]
        share = Cost(seconds=(time.perf_counter() - began) / len(asked))
        for one, result in zip(asked, found, strict=True):
            if one.picked.done():
                continue
            if isinstance(result, Exception):
                one.picked.set_exception(result)
            else:
                one.picked.set_result((result[0], result[1] + share))

    @torch.no_grad()
    def _picked(self, asked: Sequence[_Asked]) -> list[tuple[int, Cost] | Exception]:
        """The next token and the reward model's cost for each sample, or the error."""
        self._arrange([one.sample for one in asked])
        rows = self._rows
        places = [rows.index(one.sample) for one in asked]
        ids, mask = left_pad([[*one.prompt_ids, *one.token_ids] for one in rows])
        prefix = Prefix(
            ids, mask, [len(one.token_ids) for one in rows], [one.name for one in rows],
            [one.prompt for one in rows],
        )
        self._weights.rows = [one.weight for one in rows]
        logits = self._logits(dict(zip(places, (one.named for one in asked), strict=True)))
        order = sorted(places)
        scores = self._session.scores_of(order, prefix, allowed(
            logits, rows, [one.config for one in rows], self._engine.stop_ids
        ))
        part = prefix.of(order)
        check_numbers(logits[order], scores, part)
        failed = prefix.failed | {order[row]: error for row, error in part.failed.items()}
        fine = [row for row, place in enumerate(order) if place not in failed]
        tokens = self._drawn([rows[order[row]] for row in fine], scores[fine])
        drawn = {order[row]: token for row, token in zip(fine, tokens, strict=True)}
        return [failed.get(place) or (drawn[place], self._cost(place)) for place in places]

    def _arrange(self, samples: Sequence[GuidedSample]) -> None:
        """Remove the rows of finished samples, and give new ones a row."""
        kept = [one if one in samples or not one.over else None for one in self._rows]
        after = refill(kept, [(EMPTY_ROW, one) for one in samples if one not in kept])
        origins = [origin for origin, _ in after]
        if self._rows and origins != list(range(len(self._rows))):
            self._session.select(origins)
        self._rows = [one for _, one in after]
        for place, origin in enumerate(origins):
            if origin == EMPTY_ROW:
                self._rows[place].usage = self._session.usage(place)

    def _logits(self, named: Mapping[int, Mapping[int, float]]) -> Tensor:
        """``[B, V]``: log-probabilities of the named tokens by row, -inf elsewhere."""
        size = self._engine.vocabulary_size
        logits = torch.full((len(self._rows), size), -torch.inf)
        for place, found in named.items():
            # Of a policy with a padded vocabulary, servers name tokens beyond the tokenizer's.
            known = {token: value for token, value in found.items() if token < size}
            logits[place, list(known)] = torch.tensor(list(known.values()))
        return logits

    def _drawn(self, samples: Sequence[GuidedSample], scores: Tensor) -> list[int]:
        if not samples:
            return []
        configs = [one.config for one in samples]
        scores = penalized(scores, samples, configs, self._engine.stop_ids)
        return pick_each(scores, [one.rng for one in samples], configs)

    def _cost(self, place: int) -> Cost:
        sample, usage = self._rows[place], self._session.usage(place)
        cost: Cost = usage.since(sample.usage)
        sample.usage = usage
        return cost
