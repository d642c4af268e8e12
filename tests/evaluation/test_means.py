"""Intervals and p-values of means: Student's and Hall's, clusters, and their duality."""

import math

import numpy as np
import pytest
from scipy import stats

from rewardsteer.evaluation.statistics import (
    difference_p_value,
    mean,
    paired_difference,
    student_quantile,
    student_tail,
)


@pytest.mark.parametrize("freedom", [1, 2, 9.5, 99, 1e6])
def test_students_t_is_that_of_scipy(freedom):
    for probability in (1e-13, 0.3, 0.5, 0.975, 1 - 5e-13):
        assert student_quantile(probability, freedom) == stats.t.ppf(probability, freedom)
    for value in (-1.0, 0.0, 0.3, 2.0, 300.0):
        assert student_tail(value, freedom) == stats.t.sf(value, freedom)


def test_symmetric_values_get_students_interval():
    half = [0.3, 0.1, 0.8, 0.4, 0.2, 0.6]
    values = [1 + one for one in half] + [1 - one for one in half]
    expected = stats.ttest_1samp(values, 0.0).confidence_interval()
    assert mean(values) == pytest.approx((1.0, expected.low, expected.high))


def test_long_tails_widen_the_side_of_the_tail():
    values = np.exp(np.random.default_rng(0).normal(size=40))
    student = stats.ttest_1samp(values, 0.0).confidence_interval()
    found = mean(values)
    assert found.low == pytest.approx(student.low)
    assert found.high - found.value > 1.2 * (student.high - found.value)
    turned = mean(-values)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_the_ends_of_halls_interval_are_where_its_transformed_t_is_the_quantile():
    """By a search over means instead of the inverse."""
    values = np.random.default_rng(1).exponential(size=25)
    error, skew = stats.sem(values), stats.skew(values) / math.sqrt(25)

    def transformed(truth):
        t = (values.mean() - truth) / error
        return t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6

    quantile = stats.t.ppf(0.975, 24)
    grid = np.linspace(values.min(), values.max() + 3, 100_001)
    highest = grid[[abs(transformed(one)) <= quantile for one in grid]].max()
    assert mean(values).high == pytest.approx(highest, abs=1e-4)


def test_equal_rows_of_a_cluster_count_once():
    values = np.random.default_rng(2).normal(size=15)
    assert mean(np.repeat(values, 4), np.repeat(np.arange(15), 4)) == pytest.approx(mean(values))


def test_p_values_and_intervals_agree():
    rng = np.random.default_rng(3)
    for _ in range(200):
        values = rng.exponential(size=rng.integers(10, 40)) - 0.7
        zero = np.zeros(len(values))
        interval = paired_difference(values, zero)
        outside = not interval.low <= 0 <= interval.high
        assert outside == (difference_p_value(values, zero) < 0.05)


def test_edges_of_p_values():
    same = np.ones(12)
    assert difference_p_value(same, same) == 1.0
    assert difference_p_value(same, same - 1) == pytest.approx(2 / 2**12)
    assert math.isnan(difference_p_value(same[:9], same[:9] - 1))
