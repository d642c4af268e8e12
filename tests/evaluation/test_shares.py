"""Intervals of shares: clusters, ties, weights, edges."""

import math

import numpy as np
import pytest

from rewardsteer.evaluation.statistics import over, proportion, share


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
    assert share([1.0, 0.0] * 20, ["a", "b"] * 20).figures("accuracy") == {"accuracy": 0.5}
    assert over(2, "prompt") == "no intervals: 2 prompts, an interval takes at least 10"
    assert over(40, "question") == "95 % intervals over 40 questions"
    assert math.isnan(share([]).value)


def test_weights_of_rows():
    values, weights = [1.0, 0.0, 1.0, 0.5] * 5, [1, 2, 3, 1] * 5
    repeated = np.repeat(values, weights)
    clusters = np.repeat(np.arange(20), weights)
    assert share(values, weights=weights) == pytest.approx(share(repeated, clusters))
