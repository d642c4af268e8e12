"""Figures of a benchmark with intervals, and the controls beside them."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rewardsteer.evaluation.reward_benchmarks.base import (
    Item,
    Outcome,
    RewardBenchmark,
    Scores,
)
from rewardsteer.evaluation.statistics import Interval

_RANDOM_DRAWS = 100


def measure(
    benchmark: RewardBenchmark, items: Sequence[Item], scores: Scores, *, resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Figures by name with 95 % percentile bootstrap intervals.

    Clusters of outcomes (of one question) are drawn together, within the parts that the benchmark
    fixes the size of.

    Args:
        benchmark: gives outcomes and figures.
        items: what was scored.
        scores: ``[C]`` of each item.
        resamples: bootstrap samples.
        seed: of the draws.
    """
    outcomes = benchmark.outcomes(items, scores)
    subsets, sums = _sums(outcomes)
    whole = _finite(benchmark.figures(dict(zip(subsets, sums.sum(axis=0), strict=True))))
    values: dict[str, list[float]] = defaultdict(list)
    for drawn in _drawn(outcomes, sums, resamples, seed):
        figures = _finite(benchmark.figures(dict(zip(subsets, drawn, strict=True))))
        for name, value in figures.items():
            values[name].append(value)
    return {name: Interval(value, *_ends(values[name])) for name, value in whole.items()}


def controls(
    benchmark: RewardBenchmark, items: Sequence[Item], *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Figures of scores that read nothing: ``random`` (the mean of 100 draws), and ``length``, the
    number of characters; of steps ``all right``, the score 1 for each, in place of lengths."""
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
    subsets, sums = _sums(benchmark.outcomes(items, scores))
    return _finite(benchmark.figures(dict(zip(subsets, sums.sum(axis=0), strict=True))))


def table(
    measured: Mapping[str, Interval], baselines: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """One row per figure: its value as ``score`` with ``low`` and ``high``, and each control's."""
    return {
        name: {
            "score": own.value, "low": own.low, "high": own.high,
            **{control: figures[name] for control, figures in baselines.items()
               if name in figures},
        }
        for name, own in measured.items()
    }


def _sums(outcomes: Sequence[Outcome]) -> tuple[list[str], np.ndarray]:
    """Names of subsets, and sums ``[N, S, F]``: each outcome's in its own subset."""
    subsets = list(dict.fromkeys(one.subset for one in outcomes))
    width = max(len(one.sums) for one in outcomes)
    table = np.zeros((len(outcomes), len(subsets), width))
    for place, one in zip(table, outcomes, strict=True):
        place[subsets.index(one.subset), : len(one.sums)] = one.sums
    return subsets, table


def _drawn(
    outcomes: Sequence[Outcome], table: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Sums ``[S, F]`` of each resample."""
    rng = np.random.default_rng(seed)
    strata: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, one in enumerate(outcomes):
        strata[one.stratum][one.cluster].append(number)
    parts = [
        np.stack([table[numbers].sum(axis=0) for numbers in clusters.values()])
        for clusters in strata.values()
    ]
    for _ in range(resamples):
        sums = np.zeros(table.shape[1:])
        for part in parts:
            drawn = rng.multinomial(len(part), np.full(len(part), 1 / len(part)))
            sums += np.tensordot(drawn, part, axes=1)
        yield sums


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5]) if values else (math.nan, math.nan)
    return float(low), float(high)


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Without those that the data does not give."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}
