"""Speculative rejection: best of n that drops the worse responses while they are written (arXiv
2410.20290)."""

import math
from asyncio import gather
from collections.abc import Sequence

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer


class SpeculativeRejection(Strategy):
    """``n`` samples begin; whenever the m that still grow hold n · ``decision_tokens`` tokens
    together, the worst ⌊α · m⌋ of them (at least one) by r(x, y so far) are dropped, α being
    ``reject_share``. The answer is the finished response with the highest r(x, y).

    The published algorithm decides when the memory is full. Here it decides at a number of tokens
    per prompt, which stands for memory, so the dropped samples do not depend on the machine or on
    other prompts."""

    uses = ("n", "reject_share", "decision_tokens")
    needs = "scalar"
    draws_several = True

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        n, budget = self.config.n, self.config.n * self.config.decision_tokens
        growing = [engine.start(index) for index in range(n)]
        ended: dict[Sample, float] = {}
        while growing:
            # All that grow are equally long; one that ends leaves its share to the others.
            aim = math.ceil(budget / len(growing)) if len(growing) > 1 else None
            more = None if aim is None else max(1, aim - growing[0].length)
            await gather(*(sample.extend(more) for sample in growing))
            over = [sample for sample in growing if sample.finish_reason]
            growing = [sample for sample in growing if not sample.finish_reason]
            held = sum(sample.length for sample in growing)
            decides = len(growing) > 1 and held >= budget
            asked = [*over, *(growing if decides else [])]
            rewards = dict(zip(asked, await scorer.score(asked), strict=True)) if asked else {}
            ended |= {sample: rewards[sample] for sample in over}
            if decides:
                worst = self._worst(growing, rewards)
                for sample in worst:
                    sample.abort()
                growing = [sample for sample in growing if sample not in worst]
        best = max(ended, key=lambda sample: (ended[sample], -sample.index))
        return Outcome(best, ended[best])

    def _worst(self, samples: Sequence[Sample], rewards: dict[Sample, float]) -> list[Sample]:
        """The worst samples; of equal ones the later."""
        ranked = sorted(samples, key=lambda sample: (rewards[sample], -sample.index))
        return ranked[: max(1, math.floor(self.config.reject_share * len(samples)))]
