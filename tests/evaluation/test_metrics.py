"""Metrics and intervals against plain computations and known cases."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsteer.evaluation.diversity import distinct_n, pairwise_rouge_l, rouge_l
from rewardsteer.evaluation.statistics import (
    auroc,
    paired_difference,
    proportion,
    standard_error,
    wins,
)

tokens = st.lists(st.sampled_from("abcd"), max_size=12)


def common_subsequence(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


@given(tokens, tokens)
def test_rouge_l_is_two_lcs_over_both_lengths(first, second):
    total = len(first) + len(second)
    expected = 2 * common_subsequence(first, second) / total if total else 1.0
    assert rouge_l(first, second) == pytest.approx(expected)


def test_diversity():
    texts = [["a", "b", "a"], ["a", "b"]]
    assert distinct_n(texts, 1) == 2 / 5
    assert distinct_n(texts, 2) == 2 / 3
    assert distinct_n(texts, 4) == 0.0
    assert pairwise_rouge_l([["a"], ["a"], ["b"]]) == pytest.approx(1 / 3)
    assert math.isnan(pairwise_rouge_l([["a"]]))
    assert pairwise_rouge_l([["a"]] * 100, limit=50) == 1.0


def test_accuracy_and_auroc():
    assert wins(np.array([1, 2, 3, 4]), np.array([0, 2, 5, 1])).mean() == pytest.approx(0.625)
    assert auroc([True, False, True, False], [3, 2, 2, 1]) == pytest.approx(0.875)
    assert math.isnan(auroc([True, True], [1, 2]))


def test_paired_difference_covers_the_truth_and_its_edge_cases():
    rng = np.random.default_rng(0)
    baseline = rng.normal(size=400)
    interval = paired_difference(baseline + 0.5 + 0.1 * rng.normal(size=400), baseline)
    assert interval.low < 0.5 < interval.high
    # Pairing removes the prompts' own spread: the interval is narrow.
    assert interval.high - interval.low < 0.05
    assert paired_difference(np.arange(10) + 1.0, np.arange(10)) == (1.0, 1.0, 1.0)
    few = paired_difference(np.arange(9) + rng.normal(size=9), np.arange(9))
    assert math.isnan(few.low)
    assert few.figures("gain") == {"gain": few.value}
    assert math.isnan(standard_error([1.0]))
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)


def test_wilson_interval_known_value():
    interval = proportion(50, 100)
    assert interval == pytest.approx((0.5, 0.4038, 0.5962), abs=1e-4)
    assert math.isnan(proportion(0, 0).value)
    # Ties that count one half are not rounded: 9.5 of 10 lies between 9 and 10.
    between = proportion(9.5, 10)
    assert proportion(9, 10).low < between.low < proportion(10, 10).low
    assert proportion(10, 10).low == pytest.approx(0.722, abs=1e-3)
