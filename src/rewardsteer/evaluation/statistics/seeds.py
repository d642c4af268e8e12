"""Figures over several runs (seeds of training or sampling), with intervals for a new run.

An interval of one run is over prompts alone and ignores differences between runs. Intervals here
are for the mean of a figure over all runs of the recipe and all prompts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from rewardsteer.evaluation.statistics.intervals import FEWEST, Interval, student_quantile, wilson

_SMALLEST = 1e-12


class SeedFigure(NamedTuple):
    """A figure's mean over runs with its two-level interval.

    Attributes:
        value: mean over runs.
        low, high: 95 %, over runs and clusters; NaN for one run or too few clusters.
        spread: standard deviation of the runs' figures; NaN for one run.
        p_value: two-sided p-value of mean 0; NaN without an interval and for figures in [0, 1].
    """

    value: float
    low: float
    high: float
    spread: float
    p_value: float = math.nan

    def figures(self, name: str) -> dict[str, float]:
        """``name`` with its interval, ``name_spread`` and ``name_p``, without those that are NaN.
        """
        more = {f"{name}_spread": self.spread, f"{name}_p": self.p_value}
        return Interval(self.value, self.low, self.high).figures(name) | {
            key: value for key, value in more.items() if not math.isnan(value)
        }


def two_level(
    values: Sequence[Sequence[float]] | np.ndarray, *, bounded: bool = False
) -> SeedFigure:
    """Mean over runs and prompts, where every run has the same prompts.

    Runs and prompts are crossed random effects. With S runs and P prompts the variance of the mean
    is σ²_run/S + σ²_prompt/P + σ²_rest/(S·P). A two-way analysis of variance estimates the first
    term by max(MS_run − MS_rest, 0)/(S·P), and the sum of the second and third by MS_prompt/(S·P).
    The squared half-width is the sum of both estimates, each times the square of Student's quantile
    with S − 1 and P − 1 degrees of freedom (Banerjee 1960), which is valid with three runs too.

    Args:
        values: ``[S, P]``.
        bounded: values lie in [0, 1]; the interval is Wilson's and stays in [0, 1].
    """
    table = np.asarray(values, dtype=float)
    runs, prompts = table.shape
    value, per_run = float(table.mean()), table.mean(axis=1)
    spread = float(per_run.std(ddof=1)) if runs > 1 else math.nan
    if runs < 2 or prompts < FEWEST:
        return SeedFigure(value, math.nan, math.nan, spread)
    per_prompt = table.mean(axis=0)
    rest = table - per_run[:, None] - per_prompt[None, :] + value
    noise = float((rest**2).sum() / ((runs - 1) * (prompts - 1)))
    parts = (
        _Part(max(spread**2 - noise / prompts, 0.0) / runs, runs - 1),
        _Part(float(per_prompt.var(ddof=1)) / prompts, prompts - 1),
    )
    return _figure(value, spread, parts, bounded)


def over_runs(
    figures: Sequence[float], draws: np.ndarray, clusters: int, *, bounded: bool = False
) -> SeedFigure:
    """Mean of any figure (an AUROC, a benchmark's score) over runs, with the interval of
    `two_level`; the bootstrap gives the variances within runs.

    Args:
        figures: ``[S]``, one per run.
        draws: ``[S, B]``, the figures of resamples; a column has the same clusters in every run.
            Columns with NaN are ignored.
        clusters: number of clusters.
        bounded: the figure lies in [0, 1].
    """
    own = np.asarray(figures, dtype=float)
    runs, value = len(own), float(own.mean())
    spread = float(own.std(ddof=1)) if runs > 1 else math.nan
    known = draws[:, ~np.isnan(draws).any(axis=0)]
    if runs < 2 or clusters < FEWEST or known.shape[1] < 2:
        return SeedFigure(value, math.nan, math.nan, spread)
    together = known.mean(axis=0)
    noise = float((known - together).var(axis=1, ddof=1).sum() / (runs - 1))
    parts = (
        _Part(max(spread**2 - noise, 0.0) / runs, runs - 1),
        _Part(float(together.var(ddof=1)), clusters - 1),
    )
    return _figure(value, spread, parts, bounded)


def mean_of_runs(figures: Sequence[float]) -> SeedFigure:
    """Mean over runs of any figure with Student's interval over runs, for figures whose variance
    within a run is unknown.

    Args:
        figures: ``[S]``, one per run; a NaN in one run makes the mean and its interval NaN.
    """
    own = np.asarray(figures, dtype=float)
    value = float(own.mean())
    if len(own) < 2 or math.isnan(value):
        return SeedFigure(value, math.nan, math.nan, math.nan)
    spread = float(own.std(ddof=1))
    return _figure(value, spread, [_Part(spread**2 / len(own), len(own) - 1)], bounded=False)


class _Part(NamedTuple):
    """A variance with its degrees of freedom."""

    variance: float
    freedom: int


def _half(parts: Sequence[_Part], level: float) -> float:
    """Half-width of the interval that misses with probability ``level``."""
    return math.sqrt(sum(
        student_quantile(1 - level / 2, one.freedom) ** 2 * one.variance for one in parts
    ))


def _figure(value: float, spread: float, parts: Sequence[_Part], bounded: bool) -> SeedFigure:
    half = _half(parts, 0.05)
    if bounded:
        clusters = parts[-1].freedom + 1
        least = student_quantile(0.975, clusters - 1) / math.sqrt(clusters)
        ends = wilson(value, half, least)
        return SeedFigure(value, ends.low, ends.high, spread)
    return SeedFigure(value, value - half, value + half, spread, _p_value(value, parts))


def _p_value(value: float, parts: Sequence[_Part]) -> float:
    """The level at which the interval just includes 0; for equal values that of the sign test."""
    if _half(parts, 0.5) == 0:
        return 1.0 if value == 0 else 2.0 ** -parts[-1].freedom
    if abs(value) >= _half(parts, _SMALLEST):
        return _SMALLEST
    return float(brentq(lambda level: _half(parts, level) - abs(value), _SMALLEST, 1.0))
