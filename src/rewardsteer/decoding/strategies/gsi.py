"""Guided speculative inference: a small policy drafts steps, weighted so that those that are chosen
follow the large policy tilted by a reward (arXiv 2506.04118)."""

from asyncio import gather
from collections.abc import Sequence

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.likelihoods import Likelihoods
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.decoding.strategies.choosing import shares
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.decoding.strategies.steps import TwoPolicies

# Stands in for log 0, with which no share could be computed.
_NEVER = -1e30


class Gsi(TwoPolicies):
    """Of each step the drafter proposes ``n``; one is drawn with probability ∝ exp(s), where

        s(y) = w · r(y) + log p(y) − log p_drafter(y)

    with the reward r of the response with the step and the policy p. The step is kept if its s is
    at least w · ``accept_reward``. Otherwise the policy proposes ``n`` steps, and one of them is
    drawn with probability ∝ exp(w · r). There are at most ``max_steps`` steps.

    With growing n a step that is drawn becomes a draw from p(y) · exp(w · r(y)), whoever proposed
    it. The paper writes β for w and r̃ for s / β, which is compared with ``accept_reward`` (u).
    Likelihoods are of temperature 1 over the whole vocabulary, however tokens are drawn. At weight
    0 the reward model is not asked.

    Raises:
        ConfigError: several proposals, but greedy.
    """

    uses = (*TwoPolicies.uses, "n")
    has_weight = draws_several = True
    abilities = TwoPolicies.abilities | {"likelihoods"}
    drafter_abilities = TwoPolicies.drafter_abilities | {"logprobs"}

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        config, n = self.config, self.config.n
        # Random numbers for choosing proposals, separate from the draws of tokens.
        chances = row_generator(config.seed, prompt.id, -1)
        response, likelihoods = engine.start(0, beside=self.drafter), engine.likelihoods()
        kept = engine.start_on(self.drafter, n, log_probabilities=True)
        reward = None
        for _ in range(config.max_steps):
            if kept.finish_reason:
                break
            steps = [engine.fork(kept, n + place) for place in range(n)]
            await self._extend(steps)
            rewards = await self._rewards(steps, scorer)
            ratios = await log_ratios(kept, steps, likelihoods)
            scores = [config.weight * r + ratio for r, ratio in zip(rewards, ratios, strict=True)]
            [chosen] = chances.choices(range(n), shares(scores, 1.0))
            if scores[chosen] < config.weight * config.accept_reward:
                _give_up(steps)
                response.revise(kept.token_ids)
                written = [engine.fork(response, place) for place in range(n)]
                await self._extend(written)
                steps = [engine.fork(kept, n) for _ in written]
                for step, one in zip(steps, written, strict=True):
                    step.take_over(one)
                rewards = await self._rewards(steps, scorer)
                scores = [config.weight * r for r in rewards]
                [chosen] = chances.choices(range(n), shares(scores, 1.0))
                _give_up([response, *written], but=written[chosen])
                response = written[chosen]
            _give_up([kept, *steps], but=steps[chosen])
            kept, reward = steps[chosen], rewards[chosen]
        response.take_over(kept)
        return Outcome(response, reward if config.weight else None)

    async def _extend(self, steps: Sequence[Sample]) -> None:
        await gather(*(one.extend(self.config.step_tokens, stop=self.stop) for one in steps))

    async def _rewards(self, steps: Sequence[Sample], scorer: PromptScorer) -> list[float]:
        return await self.values(steps, scorer) if self.config.weight else [0.0] * len(steps)


async def log_ratios(
    before: Sample, steps: Sequence[Sample], likelihoods: Likelihoods
) -> list[float]:
    """log p(y) − log p_drafter(y) of steps y that the drafter drew after ``before``."""
    begin, drawn = before.length, before.log_probability
    told = await likelihoods.of(before.token_ids, [one.token_ids[begin:] for one in steps])
    ratios = []
    for one, ours in zip(steps, told, strict=True):
        assert one.log_probability is not None, "the strategy asks for it"
        assert drawn is not None, "the strategy asks for it"
        ratios.append(max(ours, _NEVER) - (one.log_probability - drawn))
    return ratios


def _give_up(samples: Sequence[Sample], but: Sample | None = None) -> None:
    for one in samples:
        if one is not but:
            one.abort()
