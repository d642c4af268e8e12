"""Figures of a benchmark with intervals, and those of controls."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from rewardsteer.evaluation.reward_benchmarks.base import Item, RewardBenchmark, Scores
from rewardsteer.evaluation.reward_benchmarks.resampling import (
    Resampled,
    finite,
    intervals,
    resample,
    sums_by_subset,
)
from rewardsteer.evaluation.statistics import Interval

_RANDOM_DRAWS = 100


def measure(
    benchmark: RewardBenchmark, items: Sequence[Item], scores: Scores, *, resamples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """Figures by name with their bootstrap, for `intervals` and `table`.

    Clusters of outcomes (one question each) are resampled, within the benchmark's strata.

    Args:
        benchmark: defines outcomes and figures.
        resamples: bootstrap samples.
    """
    return resample(benchmark, benchmark.outcomes(items, scores), resamples, seed)


def controls(
    benchmark: RewardBenchmark, items: Sequence[Item], *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Figures of control scores: ``random`` (the mean of 100 draws), and ``length``, the number of
    characters; for steps, instead of lengths, ``all right``, the score 1 for each step."""
    rng = np.random.default_rng(seed)
    draws: dict[str, list[float]] = defaultdict(list)
    for _ in range(_RANDOM_DRAWS):
        scores = [rng.random(len(item.completions)) for item in items]
        for name, value in figures_of(benchmark, items, scores).items():
            draws[name].append(value)
    found = {"random": {name: float(np.mean(values)) for name, values in draws.items()}}
    if benchmark.steps:
        ones = [np.ones(len(item.completions)) for item in items]
        return found | {"all right": figures_of(benchmark, items, ones)}
    lengths = [np.array([float(len(one)) for one in item.completions]) for item in items]
    return found | {"length": figures_of(benchmark, items, lengths)}


def figures_of(
    benchmark: RewardBenchmark, items: Sequence[Item], scores: Scores
) -> dict[str, float]:
    """Figures by name, without intervals."""
    subsets, sums = sums_by_subset(benchmark.outcomes(items, scores))
    return finite(benchmark.figures(dict(zip(subsets, sums.sum(axis=0), strict=True))))


def table(
    measured: Resampled, baselines: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """One row per figure: its value as ``score`` with ``low`` and ``high`` where there is an
    interval, the number of ``questions`` (clusters) that it is over, and each control's value."""
    rows: Mapping[str, Interval] = intervals(measured)
    return {
        name: {
            "score": own.value, **own.ends(), "questions": measured.clusters[name],
            **{control: figures[name] for control, figures in baselines.items()
               if name in figures},
        }
        for name, own in rows.items()
    }
