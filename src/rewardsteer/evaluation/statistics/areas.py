"""Areas under the ROC curve, pooled and within clusters, with intervals over clusters.

The variance is that of placement values summed by cluster (Obuchowski 1997; DeLong 1988 where every
row is its own cluster). One sort computes it, so memory is linear in the number of rows.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from rewardsteer.evaluation.statistics.intervals import (
    FEWEST,
    NORMAL_QUANTILE,
    Clusters,
    Interval,
    by_cluster,
    share,
    student_quantile,
    wilson,
)
from rewardsteer.objectives.agreement import auroc, midranks

_UNDEFINED = Interval(math.nan, math.nan, math.nan)
Labels = Sequence[bool] | np.ndarray
Scores = Sequence[float] | np.ndarray


def auroc_interval(
    labels: Labels, scores: Scores, *, groups: Clusters = None, within: Clusters = None
) -> Interval:
    """AUROC with a Wilson interval of its effective sample size; NaN when all labels are the same.

    The half-width is the larger of two: Student's quantile times the cluster-robust standard error,
    and the normal quantile times the standard error of Hanley and McNeil (1982). The latter depends
    only on the area and both class sizes, so it is reliable for a small class too.

    Args:
        labels, scores: one per row.
        groups: rows of one group (the solutions of one question) are alike; None: every row is its
            own. Fewer than `FEWEST` groups have no interval.
        within: keys (such as sources); only rows of the same key are compared. A key has rows of
            many groups; use `auroc_within_interval` where keys are the groups. NaN where no key
            has both labels.
    """
    rows = _Rows(labels, scores, groups)
    if within is not None:
        rows = rows.with_both_labels(within)
    if not rows.has_both:
        return _UNDEFINED
    parts = _influence(rows)
    value = parts.area
    if len(parts.sums) < FEWEST:
        return Interval(value, math.nan, math.nan)
    right, wrong = parts.positives, parts.negatives
    # At perfect separation the variance is 0, so it is computed for half a pair less.
    inside = min(max(value, 0.5 / (right * wrong)), 1 - 0.5 / (right * wrong))
    model = NORMAL_QUANTILE * math.sqrt(_hanley_mcneil(inside, right, wrong))
    robust = student_quantile(0.975, len(parts.sums) - 1) * parts.error
    half = max(robust, model)
    return wilson(value, half, half / math.sqrt(inside * (1 - inside)))


def auroc_difference(
    labels: Labels, scores: Scores, baseline: Scores, *, groups: Clusters = None
) -> Interval:
    """AUROC of ``scores`` minus that of ``baseline`` on the same rows, with Student's interval from
    the paired cluster-robust standard error."""
    rows = _Rows(labels, scores, groups)
    if not rows.has_both:
        return _UNDEFINED
    ours, theirs = _influence(rows), _influence(_Rows(labels, baseline, groups))
    value = ours.area - theirs.area
    if len(ours.sums) < FEWEST:
        return Interval(value, math.nan, math.nan)
    half = ours.quantile * float(np.sqrt(_variance(ours.sums - theirs.sums)))
    return Interval(value, max(-1.0, value - half), min(1.0, value + half))


def auroc_within_interval(
    labels: Labels, scores: Scores, keys: Sequence[Hashable], *, by_pairs: bool = False
) -> tuple[Interval, int]:
    """Mean AUROC within keys (questions) with its interval over keys, and the number of keys with
    both labels.

    Args:
        labels, scores, keys: one per row.
        by_pairs: weight each key by its number of pairs of both labels; False: equal weights.
    """
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
    return share(areas, weights=pairs if by_pairs else None), len(areas)


class _Rows:
    """Labelled rows; positive and negative rows of the same key are compared.

    Attributes:
        positive: ``[N]`` bool.
        values: ``[N]`` scores.
        clusters: ``[N]`` indices of clusters.
        keys: ``[N]`` indices of keys, from 0.
    """

    def __init__(self, labels: Labels, scores: Scores, groups: Clusters) -> None:
        self.positive = np.asarray(labels, dtype=bool)
        self.values = np.asarray(scores, dtype=float)
        self.clusters = _numbered(np.arange(len(self.values)) if groups is None else groups)
        self.keys = np.zeros(len(self.values), dtype=int)

    @property
    def has_both(self) -> bool:
        """Whether there are rows of both classes."""
        return bool(self.positive.any() and not self.positive.all())

    def with_both_labels(self, keys: Sequence[Hashable] | np.ndarray) -> "_Rows":
        """The rows of keys that have both classes."""
        numbers = _numbered(keys)
        right = np.bincount(numbers, weights=self.positive)
        kept = ((right > 0) & (right < np.bincount(numbers)))[numbers]
        rows = _Rows(self.positive[kept], self.values[kept], self.clusters[kept])
        rows.keys = _numbered(numbers[kept])
        return rows


class _Influence(NamedTuple):
    """An area with the influence of each cluster on it, ``sums`` ``[G]`` of mean zero."""

    area: float
    sums: np.ndarray
    error: float
    quantile: float
    positives: int
    negatives: int


def _influence(rows: _Rows) -> _Influence:
    """Influences on the area over all pairs of a positive and a negative row of one key."""
    positive = rows.positive
    won, others = np.empty(len(positive)), np.empty(len(positive))
    order = np.argsort(rows.keys, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(rows.keys[order])) + 1):
        won[own], others[own] = _won(positive[own], rows.values[own])
    pairs = others[positive].sum()
    area = float(won[positive].sum() / pairs)
    moved = (won - area * others) / pairs
    sums = [
        by_cluster(np.where(chosen, moved, 0.0), rows.clusters) for chosen in (positive, ~positive)
    ]
    members = [
        int((by_cluster(one.astype(float), rows.clusters) > 0).sum())
        for one in (positive, ~positive)
    ]
    whole = sums[0] + sums[1]
    freedom = _freedom([float((one**2).sum()) for one in sums], members)
    return _Influence(
        area, whole, float(np.sqrt(_variance(whole))), student_quantile(0.975, freedom),
        int(positive.sum()), int((~positive).sum()),
    )


def _won(positive: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row, the number of rows of the other class that it is ranked correctly against (a
    tie counts one half), and the size of the other class."""
    right, wrong = int(positive.sum()), int((~positive).sum())
    ranks, won = midranks(values), np.empty(len(values))
    won[positive] = ranks[positive] - midranks(values[positive])
    won[~positive] = right - (ranks[~positive] - midranks(values[~positive]))
    return won, np.where(positive, wrong, right)


def _numbered(keys: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    return np.asarray(np.unique(np.asarray(keys), return_inverse=True)[1])


def _variance(sums: np.ndarray) -> float:
    count = len(sums)
    return float((sums**2).sum() * count / (count - 1)) if count > 1 else math.nan


def _freedom(variances: Sequence[float], members: Sequence[int]) -> float:
    """Satterthwaite's degrees of freedom for a sum of variances; ``members``: their clusters."""
    below = sum(
        variance**2 / max(count - 1, 1) for variance, count in zip(variances, members, strict=True)
    )
    return sum(variances) ** 2 / below if below else max(min(members) - 1, 1)


def _hanley_mcneil(area: float, right: int, wrong: int) -> float:
    """Variance of an AUROC given both class sizes, symmetric in the classes (Newcombe 2006,
    method 5)."""
    pairs = (right + wrong) / 2 - 1
    bracket = 1 + pairs * (1 - area) / (2 - area) + pairs * area / (1 + area)
    return area * (1 - area) / (right * wrong) * bracket
