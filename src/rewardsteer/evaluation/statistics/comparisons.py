"""Paired gains of several methods over one baseline, with p-values adjusted for their number."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rewardsteer.evaluation.statistics.intervals import (
    Clusters,
    Interval,
    Values,
    difference_p_value,
    paired_difference,
)


class Gain(NamedTuple):
    """A row's gain over the baseline.

    Attributes:
        interval: of the paired difference, not adjusted.
        adjusted_p: Holm's p-value among all compared rows; NaN where there is none.
    """

    interval: Interval
    adjusted_p: float

    def figures(self, name: str) -> dict[str, float]:
        """``name`` with its interval and ``name_p``, without those that are NaN."""
        found = self.interval.figures(name)
        return found if math.isnan(self.adjusted_p) else found | {f"{name}_p": self.adjusted_p}


def gains(
    rows: Mapping[str, Values], baseline: Values, clusters: Clusters = None
) -> dict[str, Gain]:
    """Gains of rows over a baseline, paired by position, with p-values adjusted by `holm`.

    Args:
        rows: label → values, one per prompt in the baseline's order; without the baseline.
        baseline: the baseline's values.
        clusters: cluster of each position; None: every position is its own.
    """
    adjusted = holm([difference_p_value(one, baseline, clusters) for one in rows.values()])
    return {
        label: Gain(paired_difference(one, baseline, clusters), p)
        for (label, one), p in zip(rows.items(), adjusted, strict=True)
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): rejecting those below α makes any false rejection at most α
    likely, however the tests depend on each other. NaN stays NaN and is not counted."""
    given = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(given), math.nan)
    order = [place for place in np.argsort(given) if not math.isnan(given[place])]
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, (len(order) - rank) * float(given[place]))
        adjusted[place] = min(largest, 1.0)
    return [float(one) for one in adjusted]
