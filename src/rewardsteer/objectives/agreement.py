"""How rewards agree with numbers of responses; without torch, so that evaluation is light."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Values = NDArray[np.float64]
NORMAL_QUANTILE = float(stats.norm.ppf(0.975))


def pair_accuracy(pairs: Values, right: Values) -> float:
    """Share of pairs of responses to the same prompt that rewards order as their values; NaN where
    there are none."""
    return float(right.sum() / pairs.sum()) if pairs.sum() else math.nan


def correlations(rewards: Values, values: Values) -> tuple[float, float]:
    """Pearson's and Spearman's correlation where both are known; NaN for fewer than two different
    ones."""
    known = np.isfinite(rewards) & np.isfinite(values)
    rewards, values = rewards[known], values[known]
    if len(rewards) < 2 or np.ptp(rewards) == 0 or np.ptp(values) == 0:
        return math.nan, math.nan
    return float(stats.pearsonr(rewards, values).statistic), spearman(rewards, values)


def wilson(share: float, spread: float) -> tuple[float, float]:
    """Both ends of Wilson's score interval of a share.

    Args:
        share: in [0, 1]; a tie may have counted one half.
        spread: the squared quantile over the number of rows.
    """
    centre = (share + spread / 2) / (1 + spread)
    width = math.sqrt(max(share * (1 - share) * spread, 0.0) + spread**2 / 4) / (1 + spread)
    return max(0.0, centre - width), min(1.0, centre + width)


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Rank correlation; NaN where all of one are the same."""
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(stats.spearmanr(one, other).statistic)


def midranks(values: Values) -> Values:
    """Ranks ``[N]`` from 1, ties sharing their mean rank; all NaN where one value is NaN.

    What ``scipy.stats.rankdata`` gives, without its checks, which take ten times as long for the
    hundred values of a resample.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    if not len(values) or np.isnan(ordered[-1]):
        return np.full(len(values), np.nan)
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    counts = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (counts + 1) / 2, counts)
    return ranks


def labelled_figures(
    columns: Values, name: str, figure: Callable[[Values, Values], Values]
) -> dict[str, float]:
    """The area under the ROC curve, where there are rows of both kinds, and another figure.

    Args:
        columns: ``[N, 2]``, rewards and labels; rows with NaN do not count.
        name: of the other figure.
        figure: ``(rewards, labels) → [N]``, of which it is the mean.
    """
    rewards, labels = columns[~np.isnan(columns).any(1)].T
    if not len(rewards):
        return {}
    area = auroc(labels, rewards)
    found = {name: float(figure(rewards, labels).mean())}
    return found if math.isnan(area) else {"auroc": area, **found}


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the share of pairs of a positive and a negative row in which the
    positive one has the higher score, a tie counting one half.

    Args:
        labels: above one half is positive, below it negative; one half itself is neither.
        scores: one per row.

    Returns:
        NaN without rows of both kinds.
    """
    kinds, values = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
    good, bad = values[kinds > 0.5], values[kinds < 0.5]
    if not len(good) or not len(bad):
        return math.nan
    ranks = midranks(np.concatenate([good, bad]))[: len(good)]
    return float((ranks.mean() - (len(good) + 1) / 2) / len(bad))
