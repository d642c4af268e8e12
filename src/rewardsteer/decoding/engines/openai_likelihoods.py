"""Log-probabilities, under a server's policy, of tokens that another policy drew. Each continuation
is a request that echoes all tokens with their log-probabilities and generates none."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing

from rewardsteer.decoding.engines.endpoint import tokens_read
from rewardsteer.decoding.likelihoods import RequestedLikelihoods
from rewardsteer.errors import DataError
from rewardsteer.records import Cost

# ``return_token_ids`` spares vLLM the text of the tokens.
_ECHO = {"echo": True, "logprobs": 0, "max_tokens": 0, "return_token_ids": True}


class ServerLikelihoods(RequestedLikelihoods):
    """Those of a server's policy; the engine is a
    `rewardsteer.decoding.engines.openai.OpenAIEngine`."""

    async def _values(
        self, base: list[int], continuations: Sequence[Sequence[int]]
    ) -> list[float]:
        return await asyncio.gather(*(self._of(base, one) for one in continuations))

    async def _of(self, base: list[int], tokens: Sequence[int]) -> float:
        row, endpoint = [*base, *tokens], self._engine.endpoint
        async with self._engine.place() as share, aclosing(
            endpoint.ask({"prompt": row}, _ECHO, stream=False)
        ) as replies:
            reply = await anext(replies)
        known = reply.choices[0].logprobs
        values = [] if known is None else list(known.token_logprobs or [])
        if len(values) != len(row) or None in values[len(base):]:
            raise DataError(
                f"The server {endpoint.url} gave log-probabilities of {len(values)} tokens, asked "
                f"for those of {len(row)}."
            )
        self.cost += Cost(
            lm_forwards=1, lm_tokens=tokens_read(reply.usage, len(row)), seconds=share()
        )
        return math.fsum(values[len(base):])
