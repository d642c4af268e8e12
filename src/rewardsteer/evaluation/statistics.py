"""Standard errors and intervals, from scipy; every draw is seeded."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from rewardsteer.evaluation.metrics import auroc


class Interval(NamedTuple):
    """A figure with its 95 % interval; the ends are NaN when the data cannot give one."""

    value: float
    low: float
    high: float


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean; NaN for fewer than two values."""
    return float(stats.sem(values)) if len(values) > 1 else float("nan")


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of ``values − baseline`` with a percentile bootstrap interval over the pairs.

    The i-th entries belong to the same prompt. With one pair the interval is NaN; when every
    difference is the same it has no width.
    """
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    mean = float(differences.mean())
    if len(differences) < 2:
        return Interval(mean, float("nan"), float("nan"))
    if np.ptp(differences) == 0:
        return Interval(mean, mean, mean)
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=resamples, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high))


def proportion(successes: float, total: int) -> Interval:
    """A share with its Wilson interval; ties may have counted one half each."""
    if total == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    interval = stats.binomtest(round(successes), total).proportion_ci(method="wilson")
    return Interval(successes / total, float(interval.low), float(interval.high))


def auroc_interval(
    labels: Sequence[bool], scores: Sequence[float], *, resamples: int = 500, seed: int = 0
) -> Interval:
    """AUROC with a percentile bootstrap interval; NaN when all labels are the same."""
    value = auroc(labels, scores)
    if np.isnan(value):
        return Interval(value, value, value)
    rng, truth, reward = np.random.default_rng(seed), np.asarray(labels), np.asarray(scores)
    drawn = []
    for _ in range(resamples):
        rows = rng.integers(0, len(truth), len(truth))
        area = auroc(truth[rows].tolist(), reward[rows].tolist())
        if not np.isnan(area):
            drawn.append(area)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))
