"""Settings of the evaluation of correctness. No torch here."""

from typing import Literal

from pydantic import Field

from rewardsteer.configuration import Config, Seed

Signal = Literal["reward", "similarity"]


class CorrectnessConfig(Config):
    """What is measured on scored solutions.

    Attributes:
        start: tokens at the beginning of a solution that never drop it (published: 5).
        thresholds: to try; None: 41 quantiles of the lowest values on the test questions, whose
            labels play no part, and the published 0 for similarities.
        validation: share of the questions on which thresholds are chosen and values calibrated;
            all figures of filtering are from the others, but for the published threshold, for
            which nothing is chosen: it is applied to all questions.
        loss: with ``confidence``: filtering may make at most this share of correct votes wrong …
        confidence: … with at least this probability.
        steps: percentiles at which prefixes are judged are 0, 1/steps, …, 1.
        windows: of early-stopping self-consistency.
        adaptive: probabilities at which adaptive consistency stops.
        orders: random orders of the samples over which the stopping rules are averaged.
        draws: random subsets of the samples for votes of k of n.
        cost: of a reward-model token, in generated tokens.
        seed: of the split, the orders and the draws.
    """

    start: int = Field(5, ge=0)
    thresholds: list[float] | None = Field(None, min_length=1)
    validation: float = Field(0.5, gt=0, lt=1)
    loss: float = Field(0.02, gt=0, lt=1)
    confidence: float = Field(0.9, gt=0, lt=1)
    steps: int = Field(10, ge=1)
    windows: list[int] = Field(default_factory=lambda: [3, 5, 8])
    adaptive: list[float] = Field(default_factory=lambda: [0.8, 0.95, 0.99])
    orders: int = Field(10, ge=1)
    draws: int = Field(100, ge=1)
    cost: float = Field(1.0, ge=0, allow_inf_nan=False)
    seed: Seed = 0
