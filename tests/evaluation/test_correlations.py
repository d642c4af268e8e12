"""Correlations: values of scipy's, standard errors of a jackknife over clusters, edges."""

import math

import numpy as np
import pytest
from scipy import stats

from rewardsteer.evaluation.statistics import correlation_interval


def _sample():
    rng = np.random.default_rng(0)
    level, own = rng.normal(size=(60, 1)), rng.normal(size=(60, 3))
    first = np.round(0.6 * level + own, 1)  # with ties
    second = 0.6 * level + 0.5 * own + rng.normal(size=(60, 3))
    return first.ravel(), second.ravel(), np.repeat(np.arange(60), 3)


@pytest.mark.parametrize(("ranks", "plain"), [(False, stats.pearsonr), (True, stats.spearmanr)])
def test_against_scipy_and_a_jackknife_over_clusters(ranks, plain):
    first, second, clusters = _sample()
    found = correlation_interval(first, second, clusters, ranks=ranks)
    assert found.value == pytest.approx(plain(first, second).statistic)
    left = np.array([
        math.atanh(plain(first[clusters != one], second[clusters != one]).statistic)
        for one in range(60)
    ])
    error = math.sqrt(59 / 60 * ((left - left.mean()) ** 2).sum())
    half = (math.atanh(found.high) - math.atanh(found.low)) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 59) * error, rel=0.05)


def test_edges():
    first, second, _ = _sample()
    assert correlation_interval(first, first) == pytest.approx((1.0, 1.0, 1.0))
    assert correlation_interval(first, np.ones(180)).figures("pearson") == {}
    assert set(correlation_interval(first[:9], second[:9]).figures("r")) == {"r"}


def test_few_rows_have_at_least_fishers_interval():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first = rng.normal(size=10)
        second = 0.6 * first + 0.8 * rng.normal(size=10)
        found, fisher = correlation_interval(first, second), stats.pearsonr(first, second)
        low, high = fisher.confidence_interval(0.95)
        assert found.low <= low + 1e-12
        assert found.high >= high - 1e-12
