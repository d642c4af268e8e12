"""Votes weighted by rewards: between best of n and the majority's vote."""

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.choosing import heaviest, shares, without_length
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.decoding.strategies.votes import final_answer


class RewardVote(Strategy):
    """The final answer with the greatest Σ exp(r / ``choice_temperature``) over ``n`` samples, and
    of its samples the one with the highest reward.

    A high temperature is the majority's vote, 0 is best of n. Samples without a final answer do not
    vote; where none has one, the highest reward decides.
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
        values = without_length(rewards, [one.length for one in samples], config.length_control)
        answers = [final_answer(one.text) for one in samples]
        voting = [index for index, answer in enumerate(answers) if answer is not None]
        weights = shares([values[index] for index in voting], config.choice_temperature) \
            if voting else []
        won = heaviest([answers[index] for index in voting], weights)
        chosen = [index for index in range(len(samples)) if won is None or answers[index] == won]
        best = max(chosen, key=lambda index: (values[index], -index))
        return Outcome(samples[best], rewards[best])
