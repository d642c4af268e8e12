"""Shares, areas under the ROC curve, standard errors and intervals; every draw is seeded."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A figure with its 95 % interval; the ends are NaN when the data cannot give one."""

    value: float
    low: float
    high: float


def preference_accuracy(chosen: Sequence[float], rejected: Sequence[float]) -> float:
    """Share of pairs in which the chosen response has the higher reward; a tie counts one half."""
    first, second = np.asarray(chosen, dtype=float), np.asarray(rejected, dtype=float)
    return float((first > second).mean() + 0.5 * (first == second).mean())


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """Area under the ROC curve; NaN when all labels are the same (it is undefined)."""
    from sklearn.metrics import roc_auc_score

    if len(set(labels)) < 2:
        return float("nan")
    return float(roc_auc_score(labels, scores))


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
    weights = _bootstrap_weights(len(labels), groups, resamples, seed)
    drawn = weighted_aurocs(labels, scores, weights)
    return Interval(value, *_percentiles(drawn))


def auroc_difference(
    labels: Sequence[bool], scores: Sequence[float], baseline: Sequence[float], *,
    groups: Sequence[str] | None = None, resamples: int = 500, seed: int = 0,
) -> Interval:
    """AUROC of ``scores`` minus that of ``baseline`` on the same rows, drawn together."""
    value = auroc(labels, scores) - auroc(labels, baseline)
    if np.isnan(value):
        return Interval(value, value, value)
    weights = _bootstrap_weights(len(labels), groups, resamples, seed)
    drawn = weighted_aurocs(labels, scores, weights) - weighted_aurocs(labels, baseline, weights)
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
) -> np.ndarray:
    """How often each row is drawn in each resample, ``[S, N]``."""
    rng = np.random.default_rng(seed)
    if groups is None:
        inverse, number = np.arange(count), count
    else:
        names, inverse = np.unique(np.asarray(groups), return_inverse=True)
        number = len(names)
    drawn = rng.multinomial(number, np.full(number, 1 / number), size=resamples)
    return drawn[:, inverse].astype(np.float32)


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)
