"""The base of searches over steps: where a step ends, and the value of an unfinished response.

A step ends with the text that contains ``step_separator``, after ``step_tokens`` tokens, or with
the response. The value of an unfinished response is

    with a goal state: the cosine of the state of its last token to the goal
    else:              its reward as it stands; a process reward model splits it into steps itself
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.sample import Sample, Stop
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer

# The normal distribution's 95th percentile.
_ONE_SIDED = 1.6449


class Judged(NamedTuple):
    """The rank score of an unfinished response, and its value; None if it was not computed."""

    score: float
    value: float | None


class StepSearch(Strategy):
    """Base of the searches over steps. It has no state of a prompt.

    Attributes:
        stop: where a step ends, besides its length.
    """

    uses: tuple[str, ...] = ("step_value", "step_separator", "step_tokens", "max_steps")
    takes_goal = True
    has_weight = True

    def __init__(self, scorer: Any, config: DecodingConfig, goal: Any = None) -> None:
        self.wants_goal = config.step_value == "goal"
        super().__init__(scorer, config, None if config.step_value == "reward" else goal)
        self.stop = Stop(text=config.step_separator)

    async def values(self, samples: Sequence[Sample], scorer: PromptScorer) -> list[float]:
        """Values of responses. One with a token that the reward model does not know gets the least
        cosine, -1."""
        if self.goal is None:
            return await scorer.score(samples)
        known = [one for one in samples if scorer.reads(one)]
        similar = dict(zip(known, await scorer.similarities(known, self.goal), strict=True))
        return [similar.get(one, -1.0) for one in samples]

    def reward(self, value: float | None) -> float | None:
        """The answer's reward, from its value; None where values are cosines."""
        return value if self.goal is None else None


class RankedSearch(StepSearch):
    """Base of the searches that keep the best hypotheses: ``beam`` of them, each continued
    ``branches`` times.

    They are ranked by their values. With a goal state, or where a ``weight`` is given, by

        log p_LM(y | x) / |y|  +  w · value(x, y)

    with the likelihood of temperature 1 over the whole vocabulary, however tokens are drawn. Weight
    0 asks the reward model nothing.

    Raises:
        ConfigError: several candidates, but greedy.
    """

    uses = (*StepSearch.uses, "beam", "branches")

    def __init__(self, scorer: Any, config: DecodingConfig, goal: Any = None) -> None:
        super().__init__(scorer, config, goal)
        self.require_draws(
            self.samples,
            f"beam × branches = {config.beam} × {config.branches} candidates",
        )
        self.asks_log_probabilities = self.goal is not None or "weight" in config.model_fields_set
        if self.asks_log_probabilities:
            self.abilities = self.abilities | {"logprobs"}

    @property
    def samples(self) -> int:
        """Maximum number of samples of one prompt at a time."""
        return self.config.beam * self.config.branches

    async def judge(self, samples: Sequence[Sample], scorer: PromptScorer) -> list[Judged]:
        """Rank scores and values of responses."""
        if not self.asks_log_probabilities:
            return [Judged(value, value) for value in await self.values(samples, scorer)]
        likely = []
        for sample in samples:
            assert sample.log_probability is not None, "the strategy asks for it"
            likely.append(sample.log_probability / sample.length)
        weight = self.config.weight
        if weight == 0:
            return [Judged(score, None) for score in likely]
        values = await self.values(samples, scorer)
        return [
            Judged(score + weight * value, value)
            for score, value in zip(likely, values, strict=True)
        ]

    def branch(
        self, engine: PromptEngine, parents: Sequence[Sample], places: Sequence[int]
    ) -> list[Sample]:
        """``branches`` continuations of each hypothesis, which is then aborted; the first
        candidates if there is no hypothesis. Each draws from the generators of its place."""
        several = [
            (place, place * self.config.branches + turn)
            for place in places for turn in range(self.config.branches)
        ]
        if not parents:
            return [engine.start(index) for _, index in several]
        grown = [engine.fork(parents[place], index) for place, index in several]
        for place in places:
            parents[place].abort()
        return grown


def width_within(scores: Sequence[float], noise: float) -> int:
    """Number of first scores that do not differ significantly from the best one.

    If the errors of two scores are independent and normal with standard deviation σ, that of their
    difference has √2 σ. A score differs if it is lower than the best by more than 1.645 times this
    (a one-sided test at 5 %): an equally good hypothesis is dropped with a chance of 5 %.

    Args:
        scores: best first, at least one.
        noise: σ of a score; 0: only scores equal to the best are counted.
    """
    least = scores[0] - _ONE_SIDED * math.sqrt(2) * noise
    return sum(score >= least for score in scores)


def distinct(finished: Iterable[Sample], grown: Iterable[Sample]) -> list[Sample]:
    """Grown samples without copies of a finished one or of an earlier one; the copies are
    aborted."""
    seen = {_content(one) for one in finished}
    fresh = []
    for one in grown:
        if _content(one) in seen:
            one.abort()
            continue
        seen.add(_content(one))
        fresh.append(one)
    return fresh


def best_of(ranked: Sequence[Sample]) -> Sample:
    """The first sample that ended by a stop, or the first of all."""
    return next((one for one in ranked if one.finish_reason == "stop"), ranked[0])


def _content(sample: Sample) -> tuple[int, ...] | str:
    return tuple(sample.token_ids) or sample.text


class TwoPolicies(StepSearch):
    """Base of the searches with a second policy of the same tokens.

    The policy processes accepted steps in one pass, when it is asked about them or writes the next
    step. The reward model scores only the drafter's samples, which take over the steps that the
    policy writes, so that its cache is always continued.
    """

    uses: tuple[str, ...] = ("step_separator", "step_tokens", "max_steps", "accept_reward")
    wants_drafter = True
    has_weight = takes_goal = False
    abilities = frozenset({"extend", "token_ids"})
    drafter_abilities = abilities
