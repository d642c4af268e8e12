"""Guided samples of the openai engine: the server names the likeliest next tokens, and this side
picks one.

Every token is a request for one token with the log-probabilities of the guide's ``top_k`` likeliest
ones. The guide scores these candidates as in the transformers engine. The log-probabilities stand
in for the policy's logits: within a row the two differ by a constant, which has no effect on a
guide. The token that the server draws is not used. The reward model scores all samples whose
replies have arrived in one batch.
"""

import asyncio
from contextlib import aclosing
from typing import Any

from rewardsteer.decoding.engines.endpoint import likeliest, tokens_read
from rewardsteer.decoding.engines.token_sample import TokenSample
from rewardsteer.decoding.guides.prefix import RewardUsage
from rewardsteer.errors import DataError
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
        # Tokens that would end the response too early are no candidates.
        barred = len(self.ending) if self.length < self.config.min_tokens else 0
        top = max(self.guide.candidates + barred, self.top or 0)
        async with aclosing(self.engine.ask_next(self, top)) as replies:
            async for reply in replies:
                found = likeliest(reply.choices[0])
                if len(found) >= top:
                    return found, tokens_read(reply.usage, len(self.prompt_ids) + self.length)
        raise DataError(
            f"The server does not name the {top} likeliest next tokens for {self.prompt.id!r}."
        )
