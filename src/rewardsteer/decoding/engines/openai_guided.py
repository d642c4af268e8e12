"""Guided samples of the openai engine: the server names the likeliest next tokens, and this side
picks one.

Every token is a request for one token with the log-probabilities of the guide's ``top_k`` likeliest
ones. The guide scores these candidates as in the transformers engine. The log-probabilities stand
in for the policy's logits: within a row the two differ by a constant, which has no effect on a
guide. The token that the server draws is not used. The reward model scores all samples whose
replies have arrived in one batch.
"""

import asyncio
import copy
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rewardsteer.decoding.engines.endpoint import likeliest, tokens_read
from rewardsteer.decoding.engines.token_sample import TokenSample
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.prefix import Prefix, RewardUsage, check_numbers
from rewardsteer.decoding.guides.weights import RowWeights
from rewardsteer.decoding.penalties import penalized
from rewardsteer.decoding.sampling import pick_each
from rewardsteer.errors import DataError
from rewardsteer.models.batching import left_pad, refill
from rewardsteer.models.prefix_state import EMPTY_ROW
from rewardsteer.records import Cost


class GuidedSample(TokenSample):
    """A sample whose next tokens a guide picks from those that a server names."""

    def __init__(self, *positional: Any, **options: Any) -> None:
        super().__init__(*positional, **options)
        self.usage = RewardUsage()
        self._task: asyncio.Task[None] | None = None

    def begin_growing(self) -> None:
        """Request tokens one by one, until the sample has those that its program wants."""
        self._task = asyncio.get_running_loop().create_task(self._grow())

    def give_up(self) -> None:
        """Cancel the running request."""
        if self._task is not None:
            self._task.cancel()

    async def _grow(self) -> None:
        try:
            while self.growing:
                await self._step()
        except Exception as error:
            # The program that waits for the sample gets the error.
            self.error = error
        self.engine.drop_idle()
        self.tell()

    async def _step(self) -> None:
        """Add a token."""
        async with self.engine.place() as share:
            found, read = await self._named()
            seconds = share()
        token, cost = await self.engine.rows_of(self.guide).pick(self, found)
        if self.aborted:
            return
        self.record(token, found)
        self.cost += cost + Cost(
            new_tokens=1, lm_calls=1, lm_forwards=1, lm_tokens=read, seconds=seconds
        )
        self.engine.tokens += 1
        self.add(token)

    async def _named(self) -> tuple[dict[int, float], int]:
        """The likeliest next tokens with their log-probabilities, and how many tokens were read."""
        top = max(self.guide.candidates, self.top or 0)
        async with aclosing(self.engine.ask_next(self, top)) as replies:
            async for reply in replies:
                found = likeliest(reply.choices[0])
                if len(found) >= top:
                    return found, tokens_read(reply.usage, len(self.prompt_ids) + self.length)
        raise DataError(
            f"The server does not name the {top} likeliest next tokens for {self.prompt.id!r}."
        )


class _Asked(NamedTuple):
    """A sample, the tokens that the server named, and the future of the picked one."""

    sample: GuidedSample
    named: Mapping[int, float]
    picked: "asyncio.Future[tuple[int, Cost]]"


class GuidedRows:
    """The growing samples of a guide, each with a row of the reward model's cache.

    Args:
        guide: of all of them.
        engine: an `OpenAIEngine`.
    """

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
        scores = self._session.scores_of(order, prefix, logits)
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
        # Servers name tokens beyond the tokenizer's where the policy's vocabulary is padded.
        most = max(max(found) for found in named.values())
        size = max(self._engine.vocabulary_size, most + 1)
        logits = torch.full((len(self._rows), size), -torch.inf)
        for place, found in named.items():
            logits[place, list(found)] = torch.tensor(list(found.values()))
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
