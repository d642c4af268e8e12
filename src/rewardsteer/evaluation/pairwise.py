"""Differences of all pairs of methods on the same prompts, corrected for the number of pairs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rewardsteer.errors import DataError
from rewardsteer.evaluation.statistics import (
    FEWEST,
    difference_p_value,
    holm,
    paired_difference,
)


class PairDifference(NamedTuple):
    """Two methods on the same prompts.

    Attributes:
        difference: mean of first − second, with the 95 % interval of `paired_difference` (``low``,
            ``high``).
        p: of the hypothesis of no difference, by `difference_p_value`.
        holm: ``p`` by Holm's method for all pairs tested together.
        above, below: prompts on which the first has the greater, and the smaller value.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    holm: float
    above: int
    below: int


def all_pairs(values: Mapping[str, Sequence[float]]) -> list[PairDifference]:
    """All pairs of methods in their order; none where there are fewer than ten prompts.

    Args:
        values: per method one figure per prompt, the same prompts in the same order.

    Raises:
        DataError: methods with different numbers of prompts.
    """
    arrays = {name: np.asarray(one, dtype=float) for name, one in values.items()}
    sizes = {len(one) for one in arrays.values()}
    if len(sizes) > 1:
        raise DataError(
            "Methods are compared on the same prompts, got "
            + ", ".join(f"{len(one)} of {name}" for name, one in arrays.items()) + "."
        )
    if not sizes or min(sizes) < FEWEST:
        return []
    names = list(itertools.combinations(arrays, 2))
    p_values = [difference_p_value(arrays[first], arrays[second]) for first, second in names]
    return [
        PairDifference(
            first, second, *paired_difference(arrays[first], arrays[second]), p, adjusted,
            int((arrays[first] > arrays[second]).sum()),
            int((arrays[first] < arrays[second]).sum()),
        )
        for (first, second), p, adjusted in zip(names, p_values, holm(p_values), strict=True)
    ]
