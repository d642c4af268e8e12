"""All pairs of methods: exact tests, Holm's method against its definition, few prompts."""

import numpy as np
import pytest
from scipy import stats

from rewardsteer.errors import DataError
from rewardsteer.evaluation.pairwise import all_pairs
from rewardsteer.evaluation.statistics import holm


def test_each_pair_is_tested_as_a_library_tests_it():
    rng = np.random.default_rng(0)
    values = {name: rng.normal(shift, 1, size=40) for name, shift in (("a", 0), ("b", 0.4))}
    [pair] = all_pairs(values)
    test = stats.ttest_rel(values["a"], values["b"])
    ends = test.confidence_interval()
    assert pair.p == pytest.approx(test.pvalue)
    assert (pair.low, pair.high) == pytest.approx((ends.low, ends.high))
    assert pair.above + pair.below == 40
    right = {"a": [1.0] * 12 + [0.0] * 8, "b": [0.0] * 9 + [1.0] * 3 + [0.0] * 7 + [1.0]}
    [pair] = all_pairs(right)
    assert (pair.above, pair.below) == (9, 1)
    assert pair.p == pytest.approx(2 * (1 + 10) / 2**10)  # McNemar's exact test
    assert pair.difference == pytest.approx(0.4)


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
    assert (pair.difference, pair.p) == (1.0, 0.0)
    with pytest.raises(DataError, match="10 of a, 11 of b"):
        all_pairs({"a": [1.0] * 10, "b": [1.0] * 11})


def test_many_equal_methods_are_seldom_told_apart():
    rng, found = np.random.default_rng(2), 0
    for _ in range(200):
        values = {str(i): (rng.random(60) < 0.7).astype(float) for i in range(6)}
        found += any(one.holm < 0.05 for one in all_pairs(values))
    assert found <= 16  # of 200 at 0.05: 10 expected at most, 16 at the upper end of chance
