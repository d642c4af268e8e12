"""Settings of the evaluation of correctness. No torch here."""

from typing import Literal

from pydantic import Field

from rewardsteer.configuration import Config, Seed

Signal = Literal["reward", "similarity"]


class CorrectnessConfig(Config):
    """What is measured on scored solutions.

    Attributes:
        start: number of first tokens at which a solution is never dropped (published: 5).
        thresholds: thresholds to try; None: 41 quantiles of the solutions' lowest values on the
            test questions (labels are not used), and the published 0 for similarities.
        validation: share of the questions on which thresholds are chosen and values calibrated.
            Figures of filtering are from the test questions; only the published threshold, which
            needs no choice, is applied to all questions.
        loss: highest share of questions whose vote filtering may make worse, for ``risk``.
        confidence: lowest probability with which ``loss`` must hold.
        steps: prefixes are ranked at the percentiles 0, 1/steps, …, 1.
        windows: windows of early-stopping self-consistency.
        adaptive: probabilities at which adaptive consistency stops.
        orders: random orders of the samples over which the stopping rules are averaged.
        draws: random subsets of the samples for votes of k of n.
        cost: cost of a reward-model token, in generated tokens.
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
