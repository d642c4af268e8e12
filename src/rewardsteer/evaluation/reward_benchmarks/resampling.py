"""Bootstrap of a benchmark's figures: intervals, differences between models, means over runs."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

from rewardsteer.evaluation.reward_benchmarks.base import Outcome, RewardBenchmark
from rewardsteer.evaluation.statistics import (
    FEWEST,
    Gain,
    Interval,
    SeedFigure,
    holm,
    over_runs,
    student_quantile,
    student_tail,
)
from rewardsteer.evaluation.statistics.intervals import wilson


class Resampled(NamedTuple):
    """A model's figures, and those of each bootstrap resample; two models with the same items and
    seed have the same resamples.

    Attributes:
        draws: values of the resamples ``[B]`` by name; NaN where the figure is undefined.
        clusters: number of clusters by name of the figure.
    """

    figures: dict[str, float]
    draws: dict[str, np.ndarray]
    clusters: dict[str, int]


def resample(
    benchmark: RewardBenchmark, outcomes: Sequence[Outcome], resamples: int, seed: int
) -> Resampled:
    """Figures of outcomes and of their resamples; clusters are drawn within strata."""
    subsets, table = sums_by_subset(outcomes)
    whole = finite(benchmark.figures(dict(zip(subsets, table.sum(axis=0), strict=True))))
    draws = {name: np.full(resamples, math.nan) for name in whole}
    for number, drawn in enumerate(_drawn(outcomes, table, resamples, seed)):
        figures = finite(benchmark.figures(dict(zip(subsets, drawn, strict=True))))
        for name in figures.keys() & draws.keys():
            draws[name][number] = figures[name]
    return Resampled(whole, draws, _clusters(benchmark, outcomes, set(whole)))


def _clusters(
    benchmark: RewardBenchmark, outcomes: Sequence[Outcome], names: Set[str]
) -> dict[str, int]:
    """Number of clusters by figure: those of the subsets without which it is undefined."""
    subsets, table = sums_by_subset(outcomes)
    sums = table.sum(axis=0)
    over: dict[str, set[tuple[str, str]]] = {name: set() for name in names}
    for number, subset in enumerate(subsets):
        unknown = sums.copy()
        unknown[number] = math.nan
        known = finite(benchmark.figures(dict(zip(subsets, unknown, strict=True))))
        members = {(one.stratum, one.cluster) for one in outcomes if one.subset == subset}
        for name in names - known.keys():
            over[name] |= members
    return {name: len(members) for name, members in over.items()}


def intervals(own: Resampled) -> dict[str, Interval]:
    """Intervals by figure: Wilson's of the effective sample size, with the resamples' standard
    deviation as standard error, as in `rewardsteer.evaluation.statistics.share`; Student's for a
    figure outside of [0, 1]; NaN ends for fewer than `FEWEST` clusters."""
    found = {}
    for name, value in own.figures.items():
        half, count = _half(own.draws[name], own.clusters[name]), own.clusters[name]
        if math.isnan(half) or not 0 <= value <= 1:
            found[name] = Interval(value, value - half, value + half)
        else:
            found[name] = wilson(value, half, student_quantile(0.975, count - 1) / count**0.5)
    return found


def _half(draws: np.ndarray, clusters: int) -> float:
    """Half-width of Student's interval from resamples ``[B]``; NaN for fewer than `FEWEST`
    clusters."""
    known = draws[~np.isnan(draws)]
    if clusters < FEWEST or len(known) < 2:
        return math.nan
    return student_quantile(0.975, clusters - 1) * float(known.std(ddof=1))


def against_first(models: Mapping[str, Resampled]) -> dict[str, dict[str, Gain]]:
    """Differences of all models to the first, by figure and model, with intervals and p-values of
    Student's test with the standard deviation of paired resamples; the p-values are adjusted by
    Holm for the number of models."""
    (_, first), *others = models.items()
    found: dict[str, dict[str, Gain]] = {}
    for name, value in first.figures.items():
        rows = {label: one for label, one in others if name in one.figures}
        tested = {
            label: _difference(
                one.figures[name] - value, one.draws[name] - first.draws[name],
                first.clusters[name],
            )
            for label, one in rows.items()
        }
        adjusted = holm([p for _, p in tested.values()])
        found[name] = {
            label: Gain(interval, p)
            for (label, (interval, _)), p in zip(tested.items(), adjusted, strict=True)
        }
    return found


def _difference(value: float, draws: np.ndarray, clusters: int) -> tuple[Interval, float]:
    half = _half(draws, clusters)
    if math.isnan(half):
        p = math.nan
    elif half == 0:
        p = 1.0 if value == 0 else 2.0 ** (1 - clusters)
    else:
        error = half / student_quantile(0.975, clusters - 1)
        p = 2 * student_tail(abs(value) / error, clusters - 1)
    return Interval(value, value - half, value + half), p


def over_models(models: Sequence[Resampled]) -> dict[str, SeedFigure]:
    """By figure, the mean over models that are runs of one recipe, with two-level intervals."""
    found = {}
    for name in models[0].figures:
        if all(name in one.figures for one in models):
            found[name] = over_runs(
                [one.figures[name] for one in models],
                np.stack([one.draws[name] for one in models]), models[0].clusters[name],
            )._replace(p_value=math.nan)  # no figure is compared with zero
    return found


def sums_by_subset(outcomes: Sequence[Outcome]) -> tuple[list[str], np.ndarray]:
    """Names of subsets, and sums ``[N, S, F]``, zero outside of an outcome's own subset."""
    subsets = list(dict.fromkeys(one.subset for one in outcomes))
    width = max(len(one.sums) for one in outcomes)
    table = np.zeros((len(outcomes), len(subsets), width))
    for place, one in zip(table, outcomes, strict=True):
        place[subsets.index(one.subset), : len(one.sums)] = one.sums
    return subsets, table


def finite(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures without undefined ones."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _drawn(
    outcomes: Sequence[Outcome], table: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Sums ``[S, F]`` of each resample: of each stratum one cluster less than it has, rescaled, so
    that variances are unbiased in small strata too (Rao and Wu 1988)."""
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
            size, fewer = len(part), max(len(part) - 1, 1)
            drawn = rng.multinomial(fewer, np.full(size, 1 / size)) * (size / fewer)
            sums += np.tensordot(drawn, part, axes=1)
        yield sums
