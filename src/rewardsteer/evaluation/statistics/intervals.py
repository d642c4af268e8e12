"""Shares and means with 95 % intervals over clusters, and p-values of paired differences.

With fewer than `FEWEST` clusters there is no interval: its ends are NaN, and `over` explains it.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from rewardsteer.objectives import agreement

# With fewer clusters their variance cannot be estimated well.
FEWEST = 10
NORMAL_QUANTILE = agreement.NORMAL_QUANTILE

Values = Sequence[float] | np.ndarray
Clusters = Sequence[Hashable] | np.ndarray | None


class Interval(NamedTuple):
    """A figure with its 95 % interval; the ends are NaN when the data cannot give one."""

    value: float
    low: float
    high: float

    def figures(self, name: str) -> dict[str, float]:
        """``name``, ``name_low`` and ``name_high``, without those that are NaN (JSON has none)."""
        found = {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}
        return {key: value for key, value in found.items() if not math.isnan(value)}

    def ends(self) -> dict[str, float]:
        """``low`` and ``high``; empty where there is no interval."""
        return {} if math.isnan(self.low) else {"low": self.low, "high": self.high}


def over(count: int, cluster: str) -> str:
    """A text on what intervals are over, or on why there are none with too few clusters.

    Args:
        count: number of clusters.
        cluster: the word for a cluster in the singular: prompt, question.
    """
    names = cluster if count == 1 else f"{cluster}s"
    if count < FEWEST:
        return f"no intervals: {count} {names}, an interval takes at least {FEWEST}"
    return f"95 % intervals over {count} {names}"


def wins(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 where the first is greater, 0 where it is less, one half for a tie."""
    return (np.sign(first - second) + 1) / 2


def student_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t.

    The same as ``scipy.stats.t.ppf``, without its checks, which take fifty times as long.
    """
    return float(special.stdtrit(freedom, probability))


def student_tail(value: float, freedom: float) -> float:
    """Probability that Student's t exceeds a value, as ``scipy.stats.t.sf`` gives it."""
    return float(special.stdtr(freedom, -value))


def standard_error(values: Values) -> float:
    """Standard error of the mean; NaN for fewer than two values."""
    return float(stats.sem(values)) if len(values) > 1 else float("nan")


def share(values: Values, clusters: Clusters = None, *, weights: Values | None = None) -> Interval:
    """Mean of values in [0, 1] (0 and 1, one half for a tie, a question's share) with a Wilson
    interval of the effective sample size p(1 - p)/SE².

    The standard error SE is robust to clusters, since rows of one prompt are alike. It is computed
    from the values, so ties narrow the interval. Where all values are equal, the effective size is
    the number of clusters. The quantile is Student's, with the number of clusters minus one as
    degrees of freedom.

    Args:
        values: one per row.
        clusters: cluster of each row; None: every row is its own.
        weights: weights of the rows in the mean; None: equal weights.

    Returns:
        the mean; NaN without values; NaN ends for fewer than `FEWEST` clusters.
    """
    found = np.asarray(values, dtype=float)
    if not len(found):
        return Interval(math.nan, math.nan, math.nan)
    value, sums = _cluster_sums(found, clusters, weights)
    if len(sums) < FEWEST:
        return Interval(value, math.nan, math.nan)
    quantile = student_quantile(0.975, len(sums) - 1)
    return wilson(value, quantile * _error(sums), quantile / math.sqrt(len(sums)))


def wilson(value: float, half: float, least: float) -> Interval:
    """Wilson's interval of a share, from the half-width of the symmetric interval.

    Args:
        value: the share.
        half: quantile times standard error.
        least: quantile divided by the root of the sample size, used where ``half`` or the variance
            p(1 - p) is zero.
    """
    variance = value * (1 - value)
    spread = half**2 / variance if half > 0 and variance > 0 else least**2
    return Interval(value, *agreement.wilson(value, spread))


def proportion(successes: float, total: int) -> Interval:
    """A share of independent rows with its Wilson interval; ``successes`` may count ties as ½."""
    if total == 0:
        return Interval(math.nan, math.nan, math.nan)
    value = successes / total
    least = NORMAL_QUANTILE / math.sqrt(total)
    return wilson(value, least * math.sqrt(value * (1 - value)), least)


def mean(values: Values, clusters: Clusters = None) -> Interval:
    """Mean of any numbers (rewards, costs, tokens, differences) with an interval that also suits
    long-tailed values.

    Each end is the wider of two: that of Student's interval, and that of Hall's transformation,
    which corrects for skewness (Hall 1992, On the removal of skewness by transformation). Both are
    over clusters.
    """
    found = np.asarray(values, dtype=float)
    if not len(found):
        return Interval(math.nan, math.nan, math.nan)
    value, sums = _cluster_sums(found, clusters, None)
    count = len(sums)
    if count < FEWEST:
        return Interval(value, math.nan, math.nan)
    error = _error(sums)
    if error == 0:
        return Interval(value, value, value)
    quantile = student_quantile(0.975, count - 1)
    skew = _skewness(sums) / math.sqrt(count)
    return Interval(
        value,
        value - max(quantile, _inverse_of_hall(quantile, skew)) * error,
        value - min(-quantile, _inverse_of_hall(-quantile, skew)) * error,
    )


def ratio(numerators: Values, denominators: Values, clusters: Clusters = None) -> Interval:
    """Sum of numerators over sum of denominators with an interval over clusters; NaN where the
    denominators sum to 0, and NaN ends where those of one cluster alone do not.

    The half-width is Student's quantile times the standard error of a jackknife, since linearised
    ones are too small for denominators with long tails.
    """
    top, below = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    total = float(below.sum())
    if not len(top) or total == 0:
        return Interval(math.nan, math.nan, math.nan)
    value = float(top.sum()) / total
    if clusters is not None:
        top, below = by_cluster(top, clusters), by_cluster(below, clusters)
    count, others = len(top), total - below
    if count < FEWEST or (np.abs(others) <= 1e-12 * abs(total)).any():
        return Interval(value, math.nan, math.nan)
    left = (top.sum() - top) / others
    half = student_quantile(0.975, count - 1) * (count - 1) * standard_error(left)
    return Interval(value, value - half, value + half)


def paired_difference(values: Values, baseline: Values, clusters: Clusters = None) -> Interval:
    """`mean` of ``values − baseline``; the i-th entries belong to the same prompt."""
    return mean(np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float), clusters)


def difference_p_value(values: Values, baseline: Values, clusters: Clusters = None) -> float:
    """Two-sided p-value of ``mean(values − baseline) = 0``; NaN for fewer than `FEWEST` clusters.

    It is below 0.05 exactly where the interval of `paired_difference` excludes zero."""
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    value, sums = _cluster_sums(differences, clusters, None)
    count = len(sums)
    if count < FEWEST:
        return math.nan
    error = _error(sums)
    if error == 0:
        # All clusters have the same difference: the p-value is that of the sign test.
        return 1.0 if value == 0 else 2.0 ** (1 - count)
    student, skew = value / error, _skewness(sums) / math.sqrt(count)
    hall = student + skew * student**2 / 3 + skew**2 * student**3 / 27 + skew / 6
    return max(2 * student_tail(abs(one), count - 1) for one in (student, hall))


def _cluster_sums(
    values: np.ndarray, clusters: Clusters, weights: Values | None
) -> tuple[float, np.ndarray]:
    """The weighted mean, and for each cluster the sum of its weighted residuals divided by the mean
    weight of a cluster. The mean of these sums has the standard error of the weighted mean."""
    own = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    value = float((own * values).sum() / own.sum())
    residuals = own * (values - value)
    sums = residuals if clusters is None else by_cluster(residuals, clusters)
    return value, sums * len(sums) / own.sum()


def by_cluster(values: np.ndarray, clusters: Clusters) -> np.ndarray:
    """Sums ``[G]`` of the rows of each cluster."""
    _, places = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(places, weights=values)


def _error(sums: np.ndarray) -> float:
    return float(np.sqrt((sums**2).sum() / (len(sums) - 1) / len(sums)))


def _skewness(sums: np.ndarray) -> float:
    return float((sums**3).mean() / (sums**2).mean() ** 1.5)


def _inverse_of_hall(value: float, skew: float) -> float:
    """The t that solves t + s·t²/3 + s²·t³/27 + s/6 = ``value``, where s (``skew``) is the skewness
    divided by the root of the number of clusters."""
    if abs(skew) < 1e-6:
        return value
    return 3 / skew * (math.copysign(abs(inner := 1 + skew * (value - skew / 6)) ** (1 / 3), inner)
                       - 1)
