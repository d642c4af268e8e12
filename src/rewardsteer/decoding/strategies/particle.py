"""Particle filter over steps (arXiv 2502.01618), with weights that keep its law exact."""

import math
import random
from asyncio import gather
from collections.abc import Sequence
from typing import Any

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.decoding.strategies.steps import StepSearch
from rewardsteer.decoding.strategies.votes import final_answer
from rewardsteer.errors import MismatchError


class Particle(StepSearch):
    """``n`` responses grow step by step. Each is weighted with the growth of its potential

        exp(w · value)  or, where ``particle_potential`` is ``probability``,  value^w

    since the last resampling. Where the effective number of particles, (Σ W)² / Σ W², falls below
    ``resample_below`` · n, they are resampled (systematically) and weigh alike again. Finished
    particles keep their weights. With growing n the answer that ``particle_answer: draw`` gives is
    a draw from p_LM(y | x) · potential(x, y), whatever the values of unfinished responses are; the
    published filter weights anew by the whole prefix in each round, which draws from neither this
    nor its model. ``best`` takes the particle of the highest value, ``vote`` the final answer of
    the greatest weight.

    Raises:
        ConfigError: several particles, but greedy.
    """

    uses = (*StepSearch.uses, "n", "particle_potential", "particle_answer", "resample_below")
    draws_several = True

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        config = self.config
        # Random numbers for resampling and the answer, separate from the draws of tokens.
        chances = row_generator(config.seed, prompt.id, -1)
        particles = [engine.start(index) for index in range(config.n)]
        values: dict[Sample, float] = {}
        base = [0.0] * config.n
        for _ in range(config.max_steps):
            growing = [one for one in particles if not one.finish_reason]
            if not growing:
                break
            await gather(*(one.extend(config.step_tokens, stop=self.stop) for one in growing))
            values |= dict(zip(growing, await self.values(growing, scorer), strict=True))
            potentials = [self.potential(values[one]) for one in particles]
            weights = normalised([now - then for now, then in zip(potentials, base, strict=True)])
            going_on = any(not one.finish_reason for one in particles)
            if going_on and effective(weights) < config.resample_below * config.n:
                origins = systematic(weights, chances.random())
                base = [potentials[origin] for origin in origins]
                base = [value if math.isfinite(value) else 0.0 for value in base]
                particles, values = _resampled(engine, particles, values, origins)
                weights = [1 / config.n] * config.n
        best = self._answer(particles, values, weights, chances)
        return Outcome(best, self.reward(values[best]))

    def potential(self, value: float) -> float:
        """The logarithm of a value's potential.

        Raises:
            MismatchError: a value below 0 where it is to be a probability.
        """
        weight = self.config.weight
        if self.config.particle_potential == "exp" or weight == 0:
            return weight * value
        if value < 0:
            raise MismatchError(
                f"The reward model gave {value:.4g}, but particle_potential 'probability' takes "
                "rewards from 0 to 1, as process reward models give; use 'exp'."
            )
        return weight * math.log(value) if value else -math.copysign(math.inf, weight)

    def _answer(
        self, particles: Sequence[Sample], values: dict[Sample, float],
        weights: Sequence[float], chances: random.Random,
    ) -> Sample:
        kind = self.config.particle_answer
        if kind == "draw":
            [index] = chances.choices(range(len(particles)), weights)
            return particles[index]
        chosen = list(particles)
        if kind == "vote":
            answers = [final_answer(one.text) for one in particles]
            totals: dict[Any, float] = {}
            for answer, weight in zip(answers, weights, strict=True):
                if answer is not None:
                    totals[answer] = totals.get(answer, 0.0) + weight
            if totals:
                most = max(totals, key=totals.__getitem__)
                chosen = [one for one, a in zip(particles, answers, strict=True) if a == most]
        return max(chosen, key=values.__getitem__)


def _resampled(
    engine: PromptEngine, particles: Sequence[Sample], values: dict[Sample, float],
    origins: Sequence[int],
) -> tuple[list[Sample], dict[Sample, float]]:
    """The particles after resampling, and their values. Each continues the particle at its place in
    ``origins``; a finished one is shared."""
    fresh = [
        particles[origin] if particles[origin].finish_reason
        else engine.fork(particles[origin], place)
        for place, origin in enumerate(origins)
    ]
    kept = {one: values[particles[origin]] for one, origin in zip(fresh, origins, strict=True)}
    for one in particles:
        if one not in kept:
            one.abort()
    return fresh, kept


def normalised(logarithms: Sequence[float]) -> list[float]:
    """Weights that sum to 1, from their logarithms; equal weights if all are zero."""
    most = max(logarithms)
    if not math.isfinite(most):
        # Infinite ones share all of the weight.
        raw = [float(one == most) for one in logarithms]
    else:
        raw = [math.exp(one - most) for one in logarithms]
    return [one / sum(raw) for one in raw]


def effective(weights: Sequence[float]) -> float:
    """The effective number of particles, from weights that sum to 1."""
    return 1 / sum(weight * weight for weight in weights)


def systematic(weights: Sequence[float], chance: float) -> list[int]:
    """Systematic resampling: the place of each new particle's origin. Equally spaced points,
    shifted by ``chance`` in [0, 1), fall on the particles' shares."""
    n, origins, place, reached = len(weights), list[int](), 0, weights[0]
    for number in range(n):
        while (number + chance) / n >= reached and place < n - 1:
            place += 1
            reached += weights[place]
        origins.append(place)
    return origins

