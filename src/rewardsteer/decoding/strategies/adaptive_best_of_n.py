"""Best of n with as many draws as pay: stop when another is expected to gain less than it costs."""

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.choosing import expected_gain, without_length
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer


class AdaptiveBestOfN(Strategy):
    """The highest reward among up to ``n`` samples, drawn in windows of ``vote_window``.

    After each window it stops if the expected gain of one more draw is at most ``draw_cost``
    (Weitzman's rule for Pandora's box; arXiv 2510.01394 uses it so). For a known distribution of
    rewards this rule is optimal. Here the distribution is that of the prompt's own draws, see
    `rewardsteer.decoding.strategies.choosing.expected_gain`, so easy prompts get few draws and
    those with widely spread rewards many. At a cost of 0 all are drawn.
    """

    uses = ("n", "draw_cost", "vote_window", "length_control")
    abilities = frozenset()
    draws_several = True

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        config = self.config
        samples: list[Sample] = []
        rewards: list[float] = []
        while len(samples) < config.n:
            end = min(len(samples) + config.vote_window, config.n)
            fresh = await engine.draw(range(len(samples), end))
            rewards += await scorer.score(fresh)
            samples += fresh
            if config.draw_cost > 0 and expected_gain(rewards) <= config.draw_cost:
                break
        values = without_length(rewards, [one.length for one in samples], config.length_control)
        best = max(range(len(samples)), key=lambda index: (values[index], -index))
        return Outcome(samples[best], rewards[best])
