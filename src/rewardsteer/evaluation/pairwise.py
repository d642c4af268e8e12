"""Every method against every other on the same prompts, corrected for how many pairs there are."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from rewardsteer.errors import DataError
from rewardsteer.evaluation.statistics import FEWEST, holm


class PairDifference(NamedTuple):
    """Two methods on the same prompts.

    Attributes:
        first, second: names.
        difference: mean of first − second, with Student's 95 % interval (``low``, ``high``).
        p: of the hypothesis of no difference: McNemar's exact test where all values are 0 or 1,
            else the paired t-test.
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
        values: per method one figure a prompt, the same prompts in the same order.

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
    found = [
        (first, second, *_difference(arrays[first], arrays[second]))
        for first, second in itertools.combinations(arrays, 2)
    ]
    adjusted = holm([one[5] for one in found])
    return [
        PairDifference(*one[:6], corrected, *one[6:])
        for one, corrected in zip(found, adjusted, strict=True)
    ]


def _difference(
    first: np.ndarray, second: np.ndarray
) -> tuple[float, float, float, float, int, int]:
    """Mean difference, both ends of its interval, p, and how often each is above the other."""
    differences = first - second
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    mean, error = float(differences.mean()), float(stats.sem(differences))
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    binary = set(np.unique(np.concatenate([first, second]))) <= {0.0, 1.0}
    if above + below == 0:
        p = 1.0
    elif binary:
        p = float(stats.binomtest(above, above + below).pvalue)
    elif error == 0:
        p = 0.0
    else:
        p = float(2 * stats.t.sf(abs(mean) / error, len(differences) - 1))
    return mean, mean - half, mean + half, p, above, below
