"""Histograms and rewards by length."""

import numpy as np
import pytest
from scipy import stats

from rewardsteer.evaluation.distributions import by_length, histogram


def test_histogram_shares_bins():
    made = histogram({"a": [0, 1, 1], "b": [4]}, bins=4)
    assert made["edges"] == [0, 1, 2, 3, 4]
    assert made["counts"] == {"a": [1, 2, 0, 0], "b": [0, 0, 0, 1]}
    assert sum(histogram({"a": [2.0, 2.0]})["counts"]["a"]) == 2


def test_by_length_against_a_plain_mean():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 100, 400)
    rewards = lengths / 10 + rng.normal(size=400)
    made = by_length(lengths, rewards)
    assert sum(one["count"] for one in made["bins"]) == 400
    assert len(made["bins"]) == 8
    assert max(one["count"] for one in made["bins"]) < 80
    total = sum(one["count"] * one["reward"] for one in made["bins"]) / 400
    assert total == pytest.approx(rewards.mean())
    tokens = [one["tokens"] for one in made["bins"]]
    assert tokens == sorted(tokens)
    assert made["spearman"] > 0.9
    first = rewards[lengths <= np.quantile(lengths, 1 / 8)]
    assert made["bins"][0]["reward"] == pytest.approx(first.mean())
    assert made["bins"][0]["error"] == pytest.approx(
        stats.t.ppf(0.975, len(first) - 1) * stats.sem(first)
    )


def test_by_length_where_little_is_known():
    assert by_length([3, 3, 3], [1.0, 2.0, 3.0])["bins"][0]["count"] == 3
    assert "spearman" not in by_length([3, 3], [1.0, 2.0])
    assert "error" not in by_length([3], [1.0])["bins"][0]
    assert by_length([], []) == {"bins": []}
