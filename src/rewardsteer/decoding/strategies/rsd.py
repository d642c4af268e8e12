"""Reward-guided speculative decoding: a small policy drafts steps, a large one writes those that
the reward model turns down (arXiv 2501.19324)."""

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.decoding.strategies.steps import TwoPolicies


class Rsd(TwoPolicies):
    """A step of the drafter is kept if the response with it has a reward of at least
    ``accept_reward``; otherwise the policy writes the step. There are at most ``max_steps`` steps.

    With acceptance a(y), 1 or 0, a step has the law

        p_drafter(y) · a(y)  +  p(y) · Σ_z p_drafter(z) · (1 − a(z))

    which is not that of the policy: where the reward model is right it is better.
    """

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        config = self.config
        # Two samples, each with draws of its own.
        value: float | None = None
        response, draft = engine.start(0, beside=self.drafter), engine.start_on(self.drafter, 1)
        for _ in range(config.max_steps):
            if response.finish_reason:
                break
            await draft.extend(config.step_tokens, stop=self.stop)
            [value] = await self.values([draft], scorer)
            if value >= config.accept_reward:
                response.take_over(draft)
            else:
                await response.extend(config.step_tokens, stop=self.stop)
                draft.take_over(response)
                value = None
        if value is None:
            [value] = await self.values([draft], scorer)
        return Outcome(response, self.reward(value))
