"""Bootstraps of several models on the same items."""

import math

import numpy as np
import pytest

from rewardsteer.evaluation.reward_benchmarks.base import Item
from rewardsteer.evaluation.reward_benchmarks.measuring import measure
from rewardsteer.evaluation.reward_benchmarks.resampling import (
    against_first,
    intervals,
    over_models,
)
from rewardsteer.evaluation.reward_benchmarks.rewardbench import RewardBench
from rewardsteer.evaluation.statistics import holm, paired_difference, two_level

ITEMS = [Item(f"shp/{number}", "?", ("a", "b"), "shp", str(number)) for number in range(80)]


def _model(rng, accuracy, like=None):
    """Scores that are right so often; ``like`` another's, but for a fifth of the items."""
    right = rng.random(len(ITEMS)) < accuracy
    if like is not None:
        kept = rng.random(len(ITEMS)) < 0.8
        right = np.where(kept, like, right)
    return right, measure(RewardBench(), ITEMS, [np.array([float(one), 0.5]) for one in right])


@pytest.fixture(scope="module")
def models():
    rng = np.random.default_rng(0)
    base, first = _model(rng, 0.6)
    near, second = _model(rng, 0.6, like=base)
    better, third = _model(rng, 0.95)
    return {"first": (base, first), "near": (near, second), "better": (better, third)}


def test_differences_are_paired_and_adjusted(models):
    found = against_first({name: own for name, (_, own) in models.items()})["shp"]
    base = models["first"][0].astype(float)
    for name, gain in found.items():
        expected = paired_difference(models[name][0], base)
        assert gain.interval.value == pytest.approx(expected.value)
        width = expected.high - expected.low
        assert gain.interval.high - gain.interval.low == pytest.approx(width, rel=0.15)
    alone = [
        against_first({"first": models["first"][1], name: models[name][1]})["shp"][name].adjusted_p
        for name in ("near", "better")
    ]
    assert [gain.adjusted_p for gain in found.values()] == holm(alone)
    assert found["better"].adjusted_p < 0.01 < found["near"].adjusted_p


def test_means_over_runs_have_both_levels(models):
    found = over_models([own for _, own in models.values()])["shp"]
    table = np.stack([right for right, _ in models.values()]).astype(float)
    exact = two_level(table)
    assert found.value == pytest.approx(exact.value)
    assert found.spread == pytest.approx(exact.spread)
    assert found.high - found.low == pytest.approx(exact.high - exact.low, rel=0.25)


def test_all_right_has_some_width_and_few_questions_no_interval():
    whole = measure(RewardBench(), ITEMS, [np.array([1.0, 0.0])] * len(ITEMS))
    assert intervals(whole)["shp"].low == pytest.approx(0.954, abs=2e-3)
    few = measure(RewardBench(), ITEMS[:9], [np.array([1.0, 0.0])] * 9)
    assert math.isnan(intervals(few)["shp"].low)
    assert few.clusters == {"shp": 9}
