"""All pairs of methods: the tests of gains, Holm's method against its definition, few prompts."""

import numpy as np
import pytest
from scipy import stats

from rewardsteer.errors import DataError
from rewardsteer.evaluation.pairwise import all_pairs
from rewardsteer.evaluation.statistics import gains, holm


def test_each_pair_is_tested_as_gains_are():
    """The matrix of all pairs and the column of gains agree on every pair."""
    rng = np.random.default_rng(0)
    values = {"a": rng.exponential(size=40), "b": rng.normal(0.4, 1, size=40)}
    [pair] = all_pairs(values)
    gain = gains({"a": values["a"]}, values["b"])["a"]
    assert (pair.difference, pair.low, pair.high) == gain.interval
    assert pair.p == gain.adjusted_p
    assert pair.above + pair.below == 40
    # Near to the exact test where all values are 0 or 1.
    right = {"a": [1.0] * 60 + [0.0] * 40, "b": [0.0] * 35 + [1.0] * 45 + [0.0] * 20}
    [pair] = all_pairs(right)
    assert (pair.above, pair.below) == (35, 20)
    assert pair.p == pytest.approx(stats.binomtest(35, 55).pvalue, abs=0.03)
    assert pair.difference == pytest.approx(0.15)


def test_holm_rejects_what_its_steps_reject():
    rng = np.random.default_rng(1)
    for _ in range(100):
        p = rng.random(rng.integers(1, 8)) ** 3
        level, kept = 0.05, set()
        for rank, place in enumerate(np.argsort(p)):
            if p[place] > level / (len(p) - rank):
                break
            kept.add(int(place))
        assert {i for i, one in enumerate(holm(p.tolist())) if one <= level} == kept
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_few_prompts_same_values_and_unequal_numbers():
    assert all_pairs({"a": [1.0] * 9, "b": [0.0] * 9}) == []
    assert all_pairs({}) == []
    [pair] = all_pairs({"a": [0.5] * 12, "b": [0.5] * 12})
    assert (pair.difference, pair.p, pair.holm) == (0.0, 1.0, 1.0)
    [pair] = all_pairs({"a": [1.5] * 12, "b": [0.5] * 12})
    assert (pair.difference, pair.p) == (1.0, 2.0**-11)  # the sign test
    with pytest.raises(DataError, match="10 of a, 11 of b"):
        all_pairs({"a": [1.0] * 10, "b": [1.0] * 11})


def test_many_equal_methods_are_seldom_told_apart():
    rng, found = np.random.default_rng(2), 0
    for _ in range(200):
        values = {str(i): (rng.random(60) < 0.7).astype(float) for i in range(6)}
        found += any(one.holm < 0.05 for one in all_pairs(values))
    assert found <= 16  # of 200 at 0.05: 10 expected at most, 16 at the upper end of chance
