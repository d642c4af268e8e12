"""Distributions of rewards: histograms, and rewards by length. JSON-ready, no torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardsteer.evaluation.statistics import standard_error, student_quantile
from rewardsteer.objectives.agreement import spearman

Values = Sequence[float] | np.ndarray


def histogram(groups: Mapping[str, Values], bins: int = 40) -> dict[str, Any]:
    """Counts of several groups over shared bins of equal width.

    Args:
        groups: values by name, with at least one value in total.

    Returns:
        ``edges`` (bins + 1) and ``counts``, a list for each group.
    """
    arrays = {name: np.asarray(values, dtype=float) for name, values in groups.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(arrays.values())), bins=bins)
    return {
        "edges": edges.tolist(),
        "counts": {
            name: np.histogram(values, edges)[0].tolist() for name, values in arrays.items()
        },
    }


def by_length(
    lengths: Sequence[int] | np.ndarray, rewards: Values, bins: int = 8
) -> dict[str, Any]:
    """Mean reward by length, in bins of about equally many responses.

    Args:
        lengths: of the responses, in tokens.
        rewards: of the same responses.
        bins: largest number of bins; equal lengths share one.

    Returns:
        ``bins``: ``tokens`` (mean), ``reward`` (mean), ``error`` (half a 95 % interval; left out of
        bins with one response) and ``count``; and ``spearman``, left out where it is undefined.
    """
    size, values = np.asarray(lengths, dtype=float), np.asarray(rewards, dtype=float)
    if not len(size):
        return {"bins": []}
    cuts = np.unique(np.quantile(size, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(cuts, size, side="left")
    found: list[dict[str, float]] = []
    for number in np.unique(place):
        inside = values[place == number]
        one = {
            "tokens": float(size[place == number].mean()), "reward": float(inside.mean()),
            "count": len(inside),
        }
        if len(inside) > 1:
            one["error"] = student_quantile(0.975, len(inside) - 1) * standard_error(inside)
        found.append(one)
    figures: dict[str, Any] = {"bins": found}
    correlation = spearman(size, values)
    return figures if np.isnan(correlation) else figures | {"spearman": correlation}
