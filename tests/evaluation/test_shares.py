"""Intervals of shares: clusters, ties, edges; and how often they hold the truth."""

import math

import numpy as np
import pytest

from rewardsteer.evaluation.statistics import paired_difference, proportion, share


def test_independent_rows_get_wilsons_interval():
    values = [1.0] * 30 + [0.0] * 70
    _, low, high = proportion(30, 100)
    found = share(values)
    # Student's quantile and n - 1 make it a little wider.
    assert found.value == 0.3
    assert found.low == pytest.approx(low, abs=0.003)
    assert found.high == pytest.approx(high, abs=0.003)


def test_rows_of_a_cluster_count_once_where_they_are_alike():
    values = [1.0] * 40 + [0.0] * 60
    clusters = [str(number // 10) for number in range(100)]
    whole, alone = share(values, clusters), share([1.0] * 4 + [0.0] * 6)
    assert whole.low == pytest.approx(alone.low)
    assert whole.high == pytest.approx(alone.high)


def test_ties_narrow_the_interval():
    ties = share([1.0] * 10 + [0.5] * 80 + [0.0] * 10)
    none = share([1.0] * 50 + [0.0] * 50)
    assert ties.value == none.value == 0.5
    # The values' standard deviations are 0.22 and 0.5.
    assert ties.high - ties.low == pytest.approx(0.447 * (none.high - none.low), rel=0.05)


def test_edges_and_small_samples_say_what_is_not_known():
    all_right = share([1.0] * 20)
    assert (all_right.value, all_right.high) == (1.0, 1.0)
    assert all_right.low == pytest.approx(0.82, abs=0.03)
    assert share([1.0, 0.0], ["a", "a"]) == (0.5, 0.0, 1.0)
    assert math.isnan(share([]).value)


def test_few_differences_get_students_interval():
    from scipy import stats

    values = [0.3, -0.1, 0.8, 0.4, 0.2, 0.6]
    found = paired_difference(values, [0.0] * 6)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval()
    assert found.low == pytest.approx(expected.low)
    assert found.high == pytest.approx(expected.high)


def _questions(rng, count, rows, effect):
    """Rows ``[count, rows]`` of 0 and 1 whose questions differ by a normal effect in logits."""
    level = rng.normal(0.8, effect, size=(count, 1))
    return (rng.random((count, rows)) < 1 / (1 + np.exp(-level))).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "rows", "effect"), [
    (100, 4, 1.0), (100, 4, 3.0), (40, 8, 2.0), (300, 1, 0.0), (30, 2, 1.0),
])
def test_coverage_with_clusters(count, rows, effect):
    rng = np.random.default_rng(0)
    truth = _questions(rng, 400_000, 1, effect).mean()
    names = [str(number) for number in np.repeat(np.arange(count), rows)]
    held = [
        found.low <= truth <= found.high for found in (
            share(_questions(rng, count, rows, effect).ravel(), names) for _ in range(2000)
        )
    ]
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("ties", [0.2, 0.6, 0.8])
def test_coverage_with_ties(ties):
    rng = np.random.default_rng(1)
    chances = [0.6 * (1 - ties), ties, 0.4 * (1 - ties)]
    truth = chances[0] + ties / 2
    held = [
        found.low <= truth <= found.high for found in (
            share(rng.choice([1.0, 0.5, 0.0], size=200, p=chances)) for _ in range(2000)
        )
    ]
    assert 0.93 <= np.mean(held) <= 0.97


def test_memory_of_the_bootstrap_does_not_change_its_draws(monkeypatch):
    from rewardsteer.evaluation import statistics

    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.5).tolist()
    scores, groups = rng.normal(size=300), [str(number // 3) for number in range(300)]
    whole = statistics.auroc_interval(labels, scores, groups=groups, resamples=101)
    monkeypatch.setattr(statistics, "_WEIGHTS", 7 * 300)
    assert statistics.auroc_interval(labels, scores, groups=groups, resamples=101) == whole
