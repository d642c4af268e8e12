"""Areas under the ROC curve, pooled and within clusters, with intervals over clusters.

The variance is that of placement values summed by cluster (Obuchowski 1997; DeLong 1988 where every
row is its own cluster), in one sort: memory grows with the number of rows alone.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from rewardsteer.evaluation.statistics.intervals import (
    FEWEST,
    NORMAL_QUANTILE,
    Clusters,
    Interval,
    by_cluster,
    share,
    wilson,
)
from rewardsteer.objectives.agreement import auroc

_UNDEFINED = Interval(math.nan, math.nan, math.nan)
Labels = Sequence[bool] | np.ndarray
Scores = Sequence[float] | np.ndarray


def auroc_interval(labels: Labels, scores: Scores, *, groups: Clusters = None) -> Interval:
    """AUROC with a Wilson interval of its effective sample size; NaN when all labels are the same.

    The half-width is the larger one of two: Student's quantile times the cluster-robust standard
    error, and the normal quantile times that of Hanley and McNeil (1982), which follows from the
    area and the numbers of both classes alone and so holds with few of one class.

    Args:
        labels, scores: one per row.
        groups: rows of one group (the solutions of one question) are alike; None: every row is its
            own. Fewer than `FEWEST` groups have no interval.
    """
    value = auroc(labels, scores)
    if math.isnan(value):
        return _UNDEFINED
    parts = _influence(labels, scores, groups)
    if len(parts.sums) < FEWEST:
        return Interval(value, math.nan, math.nan)
    right, wrong = parts.positives, parts.negatives
    # Perfect separation leaves no variance: it is taken half a pair away from it.
    inside = min(max(value, 0.5 / (right * wrong)), 1 - 0.5 / (right * wrong))
    model = NORMAL_QUANTILE * math.sqrt(_hanley_mcneil(inside, right, wrong))
    robust = float(stats.t.ppf(0.975, len(parts.sums) - 1)) * parts.error
    half = max(robust, model)
    return wilson(value, half, half / math.sqrt(inside * (1 - inside)))


def auroc_difference(
    labels: Labels, scores: Scores, baseline: Scores, *, groups: Clusters = None
) -> Interval:
    """AUROC of ``scores`` minus that of ``baseline`` on the same rows, with Student's interval of
    the paired cluster-robust standard error."""
    value = auroc(labels, scores) - auroc(labels, baseline)
    if math.isnan(value):
        return _UNDEFINED
    ours, theirs = (_influence(labels, one, groups) for one in (scores, baseline))
    if len(ours.sums) < FEWEST:
        return Interval(value, math.nan, math.nan)
    half = ours.quantile * float(np.sqrt(_variance(ours.sums - theirs.sums)))
    return Interval(value, max(-1.0, value - half), min(1.0, value + half))


def auroc_within(labels: Labels, scores: Scores, keys: Sequence[Hashable]) -> float:
    """Share of pairs of a positive and a negative row with the same key in which the positive one
    is higher, a tie counting one half; NaN without such pairs."""
    areas, pairs = _areas_by_key(labels, scores, keys)
    return float((areas * pairs).sum() / pairs.sum()) if len(areas) else math.nan


def auroc_within_interval(
    labels: Labels, scores: Scores, keys: Sequence[Hashable], *, by_pairs: bool = False
) -> tuple[Interval, int]:
    """Mean AUROC within keys (questions) with its interval over them, and how many have both
    labels.

    Args:
        labels, scores, keys: one per row.
        by_pairs: weigh each key by its pairs, as `auroc_within` does; False: all count alike.
    """
    areas, pairs = _areas_by_key(labels, scores, keys)
    return share(areas, weights=pairs if by_pairs else None), len(areas)


def _areas_by_key(
    labels: Labels, scores: Scores, keys: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC within each key that has both labels, and its number of pairs."""
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        rows[key].append(index)
    positive, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float)
    areas, pairs = [], []
    for indices in rows.values():
        own = positive[indices]
        if number := int(own.sum()) * int((~own).sum()):
            areas.append(auroc(own, values[indices]))
            pairs.append(number)
    return np.array(areas), np.array(pairs, dtype=float)


class _Influence(NamedTuple):
    """How each cluster moves an AUROC: ``sums`` ``[G]``, of mean zero."""

    sums: np.ndarray
    error: float
    quantile: float
    positives: int
    negatives: int


def _influence(labels: Labels, scores: Scores, groups: Clusters) -> _Influence:
    positive, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float)
    right, wrong = int(positive.sum()), int((~positive).sum())
    ranks = stats.rankdata(values)
    placed = np.empty(len(values))
    # A positive row's share of the negatives below it, and a negative row's of the positives above.
    placed[positive] = (ranks[positive] - stats.rankdata(values[positive])) / wrong
    placed[~positive] = 1 - (ranks[~positive] - stats.rankdata(values[~positive])) / right
    area = placed[positive].mean()
    parts = [
        np.where(positive, (placed - area) / right, 0.0),
        np.where(positive, 0.0, (placed - area) / wrong),
    ]
    clusters = np.arange(len(values)) if groups is None else groups
    sums = [by_cluster(one, clusters) for one in parts]
    members = [
        int((by_cluster(one.astype(float), clusters) > 0).sum()) for one in (positive, ~positive)
    ]
    whole = sums[0] + sums[1]
    error = float(np.sqrt(_variance(whole)))
    freedom = _freedom([float((one**2).sum()) for one in sums], members)
    return _Influence(whole, error, float(stats.t.ppf(0.975, freedom)), right, wrong)


def _variance(sums: np.ndarray) -> float:
    count = len(sums)
    return float((sums**2).sum() * count / (count - 1)) if count > 1 else math.nan


def _freedom(variances: Sequence[float], members: Sequence[int]) -> float:
    """Satterthwaite's degrees of freedom of a sum of two variances, each of so many clusters."""
    below = sum(
        variance**2 / max(count - 1, 1) for variance, count in zip(variances, members, strict=True)
    )
    return sum(variances) ** 2 / below if below else max(min(members) - 1, 1)


def _hanley_mcneil(area: float, right: int, wrong: int) -> float:
    """Variance of an AUROC of so many rows of both classes, made symmetric in them (Newcombe 2006,
    method 5)."""
    pairs = (right + wrong) / 2 - 1
    bracket = 1 + pairs * (1 - area) / (2 - area) + pairs * area / (1 + area)
    return area * (1 - area) / (right * wrong) * bracket
