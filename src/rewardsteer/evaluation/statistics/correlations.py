"""Pearson's and Spearman's correlation with intervals over clusters."""

import math

import numpy as np

from rewardsteer.evaluation.statistics.intervals import (
    FEWEST,
    NORMAL_QUANTILE,
    Clusters,
    Interval,
    Values,
    by_cluster,
    student_quantile,
)
from rewardsteer.objectives.agreement import midranks


def correlation_interval(
    first: Values, second: Values, clusters: Clusters = None, *, ranks: bool = False
) -> Interval:
    """Correlation with Student's interval of Fisher's transformation z = artanh r.

    The standard error is that of the correlation's influence function, summed by cluster, so it
    holds for values that are not normal. It is too small for Pearson's correlation of few rows,
    where the half-width is at least Fisher's own for independent normal rows.

    Args:
        first, second: one per row.
        clusters: cluster of each row; None: every row is its own.
        ranks: Spearman's correlation; False: Pearson's.

    Returns:
        the correlation; NaN where one side is constant; NaN ends for fewer than `FEWEST` clusters.
    """
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return Interval(math.nan, math.nan, math.nan)
    if ranks:
        one, other = midranks(one), midranks(other)
    x, y = ((values - values.mean()) / values.std() for values in (one, other))
    value = float(np.clip((x * y).mean(), -1, 1))  # rounding
    if ranks:
        # A row also changes the ranks of all other rows; the variance of ranks is fixed.
        sums = x * y - value + _moved(one, y) + _moved(other, x)
    else:
        sums = x * y - value * (x**2 + y**2) / 2
    if clusters is not None:
        sums = by_cluster(sums, clusters)
    if len(sums) < FEWEST:
        return Interval(value, math.nan, math.nan)
    if abs(value) > 1 - 1e-12:
        return Interval(value, value, value)
    error = math.sqrt(len(sums) / (len(sums) - 1) * float((sums**2).sum())) / len(x)
    half = student_quantile(0.975, len(sums) - 1) * error / (1 - value**2)
    if not ranks:
        half = max(half, NORMAL_QUANTILE / math.sqrt(len(x) - 3))
    centre = math.atanh(value)
    return Interval(value, math.tanh(centre - half), math.tanh(centre + half))


def _moved(ranks: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each row i ``[N]``, the mean over rows j of the amount that i adds to the rank of j (in
    standard deviations of ranks) times ``other`` of j; minus its mean over i."""
    order = np.argsort(ranks, kind="stable")
    # Rows above i, and half of those it ties with, rank higher because of i.
    starts = np.flatnonzero(np.diff(ranks[order], prepend=np.nan))
    blocks = np.add.reduceat(other[order], starts)
    above = blocks.sum() - np.cumsum(blocks) + blocks / 2
    found = np.empty(len(order))
    found[order] = np.repeat(above, np.diff(np.append(starts, len(order))))
    return np.asarray((found - found.mean()) / float(ranks.std()))
