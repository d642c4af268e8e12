"""Shares, areas under the ROC curve, standard errors and intervals; every draw is seeded."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

# Numbers in a table of bootstrap weights.
_WEIGHTS = 2**20
# A percentile bootstrap of fewer values is too narrow.
_FEW = 30


class Interval(NamedTuple):
    """A figure with its 95 % interval; the ends are NaN when the data cannot give one."""

    value: float
    low: float
    high: float


def wins(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 where the first is greater, 0 where it is less, one half for a tie."""
    return (np.sign(first - second) + 1) / 2


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """Area under the ROC curve; NaN when all labels are the same (it is undefined)."""
    from sklearn.metrics import roc_auc_score

    if len(set(labels)) < 2:
        return float("nan")
    return float(roc_auc_score(labels, scores))


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Standard error of the mean; NaN for fewer than two values."""
    return float(stats.sem(values)) if len(values) > 1 else float("nan")


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of ``values − baseline`` with a percentile bootstrap interval over the pairs, of fewer
    than 30 pairs Student's.

    The i-th entries belong to the same prompt. With one pair the interval is NaN; when every
    difference is the same it has no width.
    """
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    mean = float(differences.mean())
    if len(differences) < 2:
        return Interval(mean, float("nan"), float("nan"))
    if np.ptp(differences) == 0:
        return Interval(mean, mean, mean)
    if len(differences) < _FEW:
        half = float(stats.t.ppf(0.975, len(differences) - 1)) * standard_error(differences)
        return Interval(mean, mean - half, mean + half)
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=resamples, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high))


def share(values: Sequence[float], clusters: Sequence[str] | None = None) -> Interval:
    """Mean of values in [0, 1] (0 and 1, one half for a tie, a question's share) with a Wilson
    interval of the effective sample size p(1 - p)/SE².

    The standard error SE is robust to clusters: rows of one prompt are alike. It takes the spread
    of the values themselves, so ties narrow the interval. Where all are the same the effective size
    is the number of clusters. The quantile is Student's, with as many degrees of freedom as
    clusters less one.

    Args:
        values: one per row.
        clusters: names what each row belongs to; None: every row is its own.

    Returns:
        NaN without values; from 0 to 1 for a single cluster, which says nothing of others.
    """
    found = np.asarray(values, dtype=float)
    if not len(found):
        return Interval(math.nan, math.nan, math.nan)
    mean = float(found.mean())
    count, error = _robust_error(found, clusters)
    if count < 2:
        return Interval(mean, 0.0, 1.0)
    size = mean * (1 - mean) / error**2 if error > 0 else float(count)
    quantile = float(stats.t.ppf(0.975, count - 1))
    spread = quantile**2 / size
    centre = (mean + spread / 2) / (1 + spread)
    half = np.sqrt(mean * (1 - mean) * spread + spread**2 / 4) / (1 + spread)
    return Interval(mean, float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def _robust_error(values: np.ndarray, clusters: Sequence[str] | None) -> tuple[int, float]:
    """Number of clusters, and the standard error of the mean of rows that are drawn in clusters."""
    residuals = values - values.mean()
    if clusters is None:
        sums = residuals
    else:
        _, places = np.unique(np.asarray(clusters), return_inverse=True)
        sums = np.bincount(places, weights=residuals)
    count = len(sums)
    if count < 2:
        return count, math.nan
    return count, float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values))


def proportion(successes: float, total: int) -> Interval:
    """A share with its Wilson interval; ties may have counted one half each."""
    if total == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    interval = stats.binomtest(round(successes), total).proportion_ci(method="wilson")
    return Interval(successes / total, float(interval.low), float(interval.high))


def auroc_interval(
    labels: Sequence[bool], scores: Sequence[float], *, groups: Sequence[str] | None = None,
    resamples: int = 500, seed: int = 0,
) -> Interval:
    """AUROC with a percentile bootstrap interval; NaN when all labels are the same.

    Args:
        labels, scores: one per row.
        groups: rows of one group (the solutions of one question) are drawn together, since they
            are alike; None draws single rows.
        resamples: bootstrap samples.
        seed: of the draws.
    """
    value = auroc(labels, scores)
    if np.isnan(value):
        return Interval(value, value, value)
    drawn = np.concatenate([
        weighted_aurocs(labels, scores, weights)
        for weights in _bootstrap_weights(len(labels), groups, resamples, seed)
    ])
    return Interval(value, *_percentiles(drawn))


def auroc_difference(
    labels: Sequence[bool], scores: Sequence[float], baseline: Sequence[float], *,
    groups: Sequence[str] | None = None, resamples: int = 500, seed: int = 0,
) -> Interval:
    """AUROC of ``scores`` minus that of ``baseline`` on the same rows, drawn together."""
    value = auroc(labels, scores) - auroc(labels, baseline)
    if np.isnan(value):
        return Interval(value, value, value)
    drawn = np.concatenate([
        weighted_aurocs(labels, scores, weights) - weighted_aurocs(labels, baseline, weights)
        for weights in _bootstrap_weights(len(labels), groups, resamples, seed)
    ])
    return Interval(value, *_percentiles(drawn))


def weighted_aurocs(
    labels: Sequence[bool], scores: Sequence[float], weights: np.ndarray
) -> np.ndarray:
    """AUROC ``[S]`` under each row of sample weights ``[S, N]``, all from one sort.

    scikit-learn sorts again for every set of weights, which makes a bootstrap of tens of thousands
    of rows take minutes.
    """
    values, positives = np.asarray(scores, dtype=float), np.asarray(labels, dtype=float)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan))  # NaN differs: the first too
    weights = weights[:, order]
    positive = np.add.reduceat(weights * positives[order], starts, axis=1)
    negative = np.add.reduceat(weights * (1 - positives[order]), starts, axis=1)
    # A positive row beats the negative ones below it and half of those it ties with.
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore"):
        areas: np.ndarray = (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))
    return areas


def _bootstrap_weights(
    count: int, groups: Sequence[str] | None, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """How often each row is drawn in each resample, ``[S, N]``, some resamples at a time, so that
    memory does not grow with their number."""
    rng = np.random.default_rng(seed)
    if groups is None:
        inverse, number = np.arange(count), count
    else:
        names, inverse = np.unique(np.asarray(groups), return_inverse=True)
        number = len(names)
    together = max(1, _WEIGHTS // count)
    for start in range(0, resamples, together):
        size = min(together, resamples - start)
        drawn = rng.multinomial(number, np.full(number, 1 / number), size=size)
        yield drawn[:, inverse].astype(np.float32)


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def ratio(
    numerators: Sequence[float] | np.ndarray, denominators: Sequence[float] | np.ndarray,
    clusters: Sequence[str],
) -> Interval:
    """Sum of numerators over sum of denominators, with a linearised interval that is robust to
    clusters; the mean of the numerators where all denominators are 1.

    Student's quantile with as many degrees of freedom as clusters less one; NaN ends for a single
    cluster, NaN without values or where the denominators sum to 0.

    Args:
        numerators, denominators: one per row.
        clusters: names what each row belongs to.
    """
    top, below = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    total = float(below.sum())
    if not len(top) or total == 0:
        return Interval(math.nan, math.nan, math.nan)
    value = float(top.sum()) / total
    _, places = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(places, weights=top - value * below)
    count = len(sums)
    if count < 2:
        return Interval(value, math.nan, math.nan)
    error = float(np.sqrt(count / (count - 1) * (sums**2).sum())) / abs(total)
    half = float(stats.t.ppf(0.975, count - 1)) * error
    return Interval(value, value - half, value + half)
