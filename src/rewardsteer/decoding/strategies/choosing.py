"""How a response is chosen among draws, as functions of their rewards."""

import math
from collections.abc import Sequence

from scipy.stats import t as student


def shares(rewards: Sequence[float], temperature: float) -> list[float]:
    """Probabilities ∝ exp(reward / temperature); at 0 the first of the highest has all."""
    most = max(rewards)
    if temperature == 0:
        first = list(rewards).index(most)
        return [float(place == first) for place in range(len(rewards))]
    raw = [math.exp((reward - most) / temperature) for reward in rewards]
    return [one / sum(raw) for one in raw]


def without_length(
    rewards: Sequence[float], lengths: Sequence[int], share: float = 1.0
) -> list[float]:
    """Rewards without the effect of the log length among these draws.

    The slope is that of least squares over the draws, so draws of one length are left alone, and
    the mean reward stays.

    Args:
        rewards: of the draws.
        lengths: in tokens.
        share: part of the slope that is removed.
    """
    logs = [math.log(max(length, 1)) for length in lengths]
    middle, mean = sum(logs) / len(logs), sum(rewards) / len(rewards)
    spread = sum((one - middle) ** 2 for one in logs)
    if spread == 0:
        return list(rewards)
    pairs = list(zip(logs, rewards, strict=True))
    slope = sum((one - middle) * (reward - mean) for one, reward in pairs) / spread
    return [reward - share * slope * (one - middle) for one, reward in pairs]


def expected_gain(rewards: Sequence[float]) -> float:
    """How much another draw is expected to raise the best reward: E[(R − best)⁺].

    R has the predictive distribution of a normal sample of unknown mean and variance: Student's t
    with n − 1 degrees of freedom around the draws' mean, its scale √(1 + 1/n) times their standard
    deviation. With fewer than three draws nothing is known, and the gain is infinite.
    """
    n = len(rewards)
    if n < 3:
        return math.inf
    mean = sum(rewards) / n
    variance = sum((reward - mean) ** 2 for reward in rewards) / (n - 1)
    if variance == 0:
        return 0.0
    free, scale = n - 1, math.sqrt(variance * (1 + 1 / n))
    best = (max(rewards) - mean) / scale
    # E[(T − b)⁺] of a standard t variable.
    tail = (free + best * best) / (free - 1) * student.pdf(best, free)
    return float(scale * max(tail - best * student.sf(best, free), 0.0))


def heaviest(answers: Sequence[str | None], weights: Sequence[float]) -> str | None:
    """The answer with the greatest total weight, the first of equals; None where there is none."""
    totals: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    return max(totals, key=totals.__getitem__) if totals else None
