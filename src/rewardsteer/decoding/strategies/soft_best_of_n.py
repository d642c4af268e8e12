"""Soft best of n: draw n responses, choose one with probability ∝ exp(reward / temperature)."""

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.choosing import shares, without_length
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer


class SoftBestOfN(Strategy):
    """One of ``n`` samples of the policy, drawn ∝ exp(r / ``choice_temperature``)
    (arXiv 2505.03156).

    With growing n the answer is a draw from p_LM(y | x) · exp(r(x, y) / temperature), which
    exploits errors of the reward model less than best of n. At 0 it is best of n.
    ``length_control`` first removes the effect of the length from the rewards.
    """

    uses = ("n", "choice_temperature", "length_control")
    abilities = frozenset()
    draws_several = True

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        config = self.config
        samples = await engine.draw(range(config.n))
        rewards = await scorer.score(samples)
        values = without_length(
            rewards, [one.length for one in samples], config.length_control
        )
        chances = row_generator(config.seed, prompt.id, -1)
        [chosen] = chances.choices(
            range(len(samples)), shares(values, config.choice_temperature)
        )
        return Outcome(samples[chosen], rewards[chosen])
