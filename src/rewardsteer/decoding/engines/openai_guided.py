"""A guided sample of the openai engine: the server names the likeliest next tokens, and this side
picks one.

Every token is a request for one token with the log-probabilities of the guide's ``top_k`` likeliest
ones. The guide scores these candidates as in the transformers engine, where they stand in for the
policy's logits: within a row the two differ by a constant, which no guide sees. What the server
draws is not used.
"""

import asyncio
import copy
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import torch
from torch import Tensor

from rewardsteer.decoding.engines.endpoint import likeliest, tokens_read
from rewardsteer.decoding.engines.token_sample import TokenSample
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.prefix import Prefix, RewardUsage, check_numbers
from rewardsteer.decoding.guides.session import GuideSession
from rewardsteer.decoding.penalties import penalized
from rewardsteer.decoding.sampling import pick
from rewardsteer.errors import DataError
from rewardsteer.records import Cost


class GuidedSample(TokenSample):
    """A sample whose next tokens a guide picks from those that a server names."""

    def __init__(self, *positional: Any, **options: Any) -> None:
        super().__init__(*positional, **options)
        self._session: GuideSession | None = None
        self._usage = RewardUsage()
        self._task: asyncio.Task[None] | None = None

    def begin_growing(self) -> None:
        """Ask for tokens, one by one, until it has those that its program wants."""
        self._task = asyncio.get_running_loop().create_task(self._grow())

    def give_up(self) -> None:
        """Drop the request that runs, and what the reward model has read."""
        if self._task is not None:
            self._task.cancel()
        self._session = None

    async def _grow(self) -> None:
        try:
            while self.growing:
                await self._step()
        except Exception as error:
            # Whoever waits for the sample is told, and decides what it means for others.
            self.error = error
        if self.over:
            self._session = None
        self.tell()

    async def _step(self) -> None:
        """Add a token."""
        engine = self.engine
        async with engine.place() as share:
            found, read = await self._named()
            seconds = share()
        async with engine.guiding:
            began = time.perf_counter()
            # The server answers others meanwhile.
            token, rewards = await asyncio.to_thread(self._picked, found)
            seconds += time.perf_counter() - began
        if self.aborted:
            return
        self.record(token, found)
        self.cost += rewards.since(self._usage) + Cost(
            new_tokens=1, lm_calls=1, lm_forwards=1, lm_tokens=read, seconds=seconds
        )
        self._usage = rewards
        engine.tokens += 1
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

    @torch.no_grad()
    def _picked(self, found: Mapping[int, float]) -> tuple[int, RewardUsage]:
        """The next token, and what the reward model has read so far."""
        if self._session is None:
            own = copy.copy(self.guide)
            own.weight = self.weight
            self._session, self._usage = open_session(own), RewardUsage()
        ids = torch.tensor([[*self.prompt_ids, *self.token_ids]])
        prefix = Prefix(
            ids, torch.ones_like(ids), [len(self.token_ids)], [self.name], [self.prompt],
        )
        logits = self._logits(found)
        scores = self._session.scores(prefix, logits)
        check_numbers(logits, scores, prefix)
        if prefix.failed:
            raise prefix.failed[0]
        scores = penalized(scores, [self], [self.config], self.engine.stop_ids)
        [token] = pick(scores, [self.rng], self.config)
        return token, self._session.usage(0)

    def _logits(self, found: Mapping[int, float]) -> Tensor:
        """``[1, V]``: log-probabilities of the named tokens, -inf elsewhere."""
        # Servers name tokens beyond the tokenizer's where the policy's vocabulary is padded.
        size = max(self.engine.vocabulary_size, *(token + 1 for token in found))
        logits = torch.full((1, size), -torch.inf)
        logits[0, list(found)] = torch.tensor(list(found.values()))
        return logits
