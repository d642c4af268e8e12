"""How far values of correct and incorrect solutions are apart, and how much they vary otherwise."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def signal_and_noise(
    labels: Sequence[bool], values: Sequence[float], groups: Sequence[str]
) -> dict[str, float]:
    """What a search over steps can tell apart by values of responses to one prompt.

    Args:
        labels: whether each solution is correct.
        values: of the solutions, complete or up to a step.
        groups: the question of each.

    Returns:
        ``noise``: the standard deviation of values among solutions of one question and one label,
        pooled over all of these, each with one degree of freedom less than it has solutions.
        ``signal``: the mean over questions of the mean value of correct solutions less that of
        incorrect ones. Where no question can tell, a figure is left out. Real differences that
        labels do not show are within the noise, so it is an upper estimate of the error.
    """
    cells: dict[str, dict[bool, list[float]]] = defaultdict(lambda: {True: [], False: []})
    for label, value, group in zip(labels, values, groups, strict=True):
        cells[group][bool(label)].append(value)
    alike = [np.asarray(some) for own in cells.values() for some in own.values() if some]
    free = sum(len(some) - 1 for some in alike)
    figures: dict[str, float] = {}
    if free:
        spread = sum(float(((some - some.mean()) ** 2).sum()) for some in alike)
        figures["noise"] = float(np.sqrt(spread / free))
    gaps = [np.mean(own[True]) - np.mean(own[False]) for own in cells.values()
            if own[True] and own[False]]
    if gaps:
        figures["signal"] = float(np.mean(gaps))
    return figures
