"""CARDS: segments that are drawn again until the reward model accepts them (arXiv 2406.16306)."""

import math
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded, Sample, Stop
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.errors import ConfigError


class Cards(Strategy):
    """Rejection sampling of segments.

    A segment ends before a token of which the policy is unsure (entropy of at least
    ``entropy_threshold``, after ``segment_min`` tokens), after ``segment_tokens`` tokens, or with
    the response. It is accepted with probability min(1, exp((r − τ) / β)), where r is the reward of
    the response so far, t tokens long, and

        τ(t) = r0 + (r* − r0) · t / max_new_tokens,    r0 = (1 − α) · r(prompt) + α · r*

    with r* ``reward_target``, α ``reward_share`` and β ``acceptance``. A rejected segment is drawn
    again, and after ``max_rejections`` rejections the best proposal is taken.

    Raises:
        ConfigError: no r*; greedy, though rejected segments are to be drawn again; a segment's
            least length above its greatest.
    """

    uses = (
        "entropy_threshold", "segment_min", "segment_tokens", "reward_target", "reward_share",
        "acceptance", "max_rejections",
    )
    needs = "scalar"
    abilities = frozenset({"extend", "token_ids", "entropy"})

    def __init__(self, scorer: Any, config: DecodingConfig) -> None:
        super().__init__(scorer, config)
        if config.reward_target is None:
            raise ConfigError(
                "The method 'cards' needs a reward_target: a reward a little above what the "
                "policy's responses get on average."
            )
        if config.mode == "greedy" and config.max_rejections:
            raise ConfigError(
                "The method 'cards' draws rejected segments again, but greedy decoding gives the "
                "same one each time; use a temperature above 0 (mode 'sample')."
            )
        if config.segment_min > config.segment_tokens:
            raise ConfigError(
                f"segment_min = {config.segment_min} exceeds segment_tokens = "
                f"{config.segment_tokens}; lower it."
            )

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        config, sample, reward, first = self.config, engine.start(0), None, None
        # Random numbers for acceptance, separate from the draws of tokens.
        chances = row_generator(config.seed, prompt.id, -1)
        stop = Stop(entropy=config.entropy_threshold, least=config.segment_min)
        if not config.max_rejections:
            await sample.extend()
        while sample.finish_reason is None:
            start, best = len(sample.token_ids), None
            for rejected in range(1, config.max_rejections + 1):
                await sample.extend(config.segment_tokens, stop=stop)
                first = await self._first(scorer, sample) if first is None else first
                [reward] = await scorer.score([sample])
                chance = acceptance(config, first, reward, len(sample.token_ids))
                if chances.random() < chance:
                    break
                proposal = (
                    reward, list(sample.token_ids), sample.finish_reason, sample.stop_reason,
                    list(sample.logprobs),
                )
                if best is None or reward > best[0]:
                    best = proposal
                if rejected < config.max_rejections:
                    sample.revise(sample.token_ids[:start])
                elif best is not proposal:
                    reward = best[0]
                    sample.revise(*best[1:])
        return Outcome(sample, reward)

    async def _first(self, scorer: PromptScorer, sample: Sample) -> float:
        """The required reward r0 at the start."""
        share, target = self.config.reward_share, self.config.reward_target
        assert target is not None, "checked above"
        if share == 1:
            return target
        return (1 - share) * await scorer.score_prompt(sample) + share * target


def acceptance(config: DecodingConfig, first: float, reward: float, tokens: int) -> float:
    """The probability with which a segment is accepted.

    Args:
        config: ``reward_target``, ``acceptance`` and ``max_new_tokens`` are used.
        first: r0.
        reward: of the response up to the segment's end, ``tokens`` long.
    """
    target = config.reward_target
    assert target is not None, "checked in Cards"
    needed = first + (target - first) * min(tokens / config.max_new_tokens, 1.0)
    if reward >= needed:
        return 1.0
    return math.exp((reward - needed) / config.acceptance) if config.acceptance else 0.0
