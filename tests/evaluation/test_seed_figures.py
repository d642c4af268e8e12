"""Figures over several runs: the variance against a fitted analysis of variance, and edges."""

import math

import numpy as np
import pytest
from scipy import stats

from rewardsteer.evaluation.statistics import mean_of_runs, over_runs, two_level


def _table(runs=4, prompts=30, between=0.5):
    rng = np.random.default_rng(0)
    return (
        between * rng.normal(size=(runs, 1)) + rng.normal(size=(1, prompts))
        + 0.7 * rng.normal(size=(runs, prompts))
    )


def test_two_levels_against_the_sums_of_squares():
    table = _table()
    runs, prompts = table.shape
    rest = sum(
        (table[s, p] - table[s].mean() - table[:, p].mean() + table.mean()) ** 2
        for s in range(runs) for p in range(prompts)
    ) / ((runs - 1) * (prompts - 1))
    by_run = prompts * np.var([row.mean() for row in table], ddof=1)
    by_prompt = runs * np.var([column.mean() for column in table.T], ddof=1)
    quantiles = stats.t.ppf(0.975, [runs - 1, prompts - 1])
    half = math.sqrt(
        (quantiles[0] ** 2 * (by_run - rest) + quantiles[1] ** 2 * by_prompt) / (runs * prompts)
    )
    found = two_level(table)
    expected = (table.mean(), table.mean() - half, table.mean() + half)
    assert found[:3] == pytest.approx(expected)
    assert found.spread == pytest.approx(np.std([row.mean() for row in table], ddof=1))


def test_runs_that_differ_widen_the_interval_and_bounded_ones_stay_inside():
    alike, apart = two_level(_table(between=0.0)), two_level(_table(between=2.0))
    assert apart.high - apart.low > 2 * (alike.high - alike.low)
    shares = np.array([[1.0] * 30, [1.0] * 29 + [0.0], [1.0] * 30])
    found = two_level(shares, bounded=True)
    assert 0 < found.low < found.value < found.high <= 1
    assert two_level(np.ones((3, 30)), bounded=True).low == pytest.approx(0.87, abs=0.02)


def test_one_run_and_few_prompts_have_no_interval():
    assert two_level(np.ones((1, 30))).figures("accuracy") == {"accuracy": 1.0}
    few = two_level(_table(prompts=9)).figures("reward")
    assert set(few) == {"reward", "reward_spread"}


def test_figures_over_runs_have_the_interval_of_means():
    """Of a mean over prompts the bootstrap gives the same variances as the sums of squares."""
    table = _table(runs=3, prompts=120)
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(120, np.full(120, 1 / 120), size=4000)
    found = over_runs(table.mean(axis=1), table @ drawn.T / 120, 120)
    expected = two_level(table)
    assert found[:4] == pytest.approx(expected[:4], abs=0.01)
    assert found.p_value == pytest.approx(expected.p_value, rel=0.1)
    assert math.isnan(over_runs([0.7], np.ones((1, 10)), 120).low)


@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.4, 50.0])
def test_p_values_agree_with_intervals(shift):
    found = two_level(_table() + shift)
    assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)
    # The p-value of the lower end itself is 0.05.
    assert two_level(_table() + shift - found.low).p_value == pytest.approx(0.05)
    assert two_level(np.ones((3, 12))).p_value == pytest.approx(2 / 2**12)
    assert two_level(np.zeros((3, 12))).p_value == 1.0


def test_a_figure_of_each_run_alone_has_students_interval_over_runs():
    values = [0.3, 0.5, 0.1, 0.35]
    found = mean_of_runs(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found[:3] == pytest.approx((np.mean(values), low, high))
    assert found.spread == pytest.approx(np.std(values, ddof=1))
    assert found.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert mean_of_runs([0.5]).figures("gain") == {"gain": 0.5}
    assert math.isnan(mean_of_runs([0.5, math.nan]).low)
    assert mean_of_runs([0.25, 0.25])[:3] == (0.25, 0.25, 0.25)
