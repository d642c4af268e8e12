"""Log-probabilities, under vLLM's policy, of tokens that another policy drew. Each continuation is
a request with all tokens as its prompt, for which vLLM returns log-probabilities.

vLLM computes such a prompt from the start: its prefix cache holds no log-probabilities.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from rewardsteer.decoding.likelihoods import RequestedLikelihoods
from rewardsteer.records import Cost


class Continuation:
    """A request for the log-probability of a continuation.

    Args:
        before, tokens: token ids before the continuation, and those of it.

    Attributes:
        cost: of the request so far.
        future: the summed log-probability.
    """

    def __init__(self, before: Sequence[int], tokens: Sequence[int]) -> None:
        self.begin, self.token_ids = len(before), [*before, *tokens]
        self.cost = Cost()
        self.future: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def parameters(self) -> Any:
        """Sampling parameters for vLLM. It also draws a token, which is ignored."""
        from vllm.sampling_params import RequestOutputKind

        from vllm import SamplingParams

        return SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def take(self, output: Any) -> None:
        """Store vLLM's result."""
        known = output.prompt_logprobs
        values = [known[place][token].logprob for place, token in enumerate(self.token_ids)
                  if place >= self.begin]
        self.cost += Cost(lm_forwards=1, lm_tokens=len(self.token_ids))
        if not self.future.done():
            self.future.set_result(math.fsum(values))

    def fail(self, error: Exception) -> None:
        """Resolve the future with an error: vLLM will not answer."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()


class VllmLikelihoods(RequestedLikelihoods):
    """Those of vLLM's policy; the engine is a
    `rewardsteer.decoding.engines.vllm_engine.VllmEngine`."""

    async def _values(
        self, base: list[int], continuations: Sequence[Sequence[int]]
    ) -> list[float]:
        asked = [Continuation(base, one) for one in continuations]
        for one in asked:
            self._engine.ask(one)
        try:
            return await asyncio.gather(*(one.future for one in asked))
        finally:
            for one in asked:
                self._engine.leave(one)
                self.cost += one.cost
