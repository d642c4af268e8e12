"""Best of n: draw n responses, keep the one with the highest reward."""

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer


class BestOfN(Strategy):
    """argmax of r(x, y) over ``n`` samples of the policy; the first of equals."""

    uses = ("n",)
    abilities = frozenset()
    is_best_of_n = True
    stands_in = True
    draws_several = True

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        samples = await engine.draw(range(self.config.n))
        rewards = await scorer.score(samples)
        best = max(range(len(samples)), key=lambda index: (rewards[index], -index))
        return Outcome(samples[best], rewards[best])
