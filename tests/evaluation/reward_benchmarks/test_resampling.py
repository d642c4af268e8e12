"""Bootstraps of several models on the same items."""

import math

import numpy as np
import pytest

from rewardsteer.evaluation.reward_benchmarks.base import Item
from rewardsteer.evaluation.reward_benchmarks.judgebench import JudgeBench
from rewardsteer.evaluation.reward_benchmarks.measuring import measure
from rewardsteer.evaluation.reward_benchmarks.resampling import (
    against_first,
    intervals,
    over_models,
)
from rewardsteer.evaluation.reward_benchmarks.rewardbench import SECTIONS, RewardBench
from rewardsteer.evaluation.reward_benchmarks.rewardbench2 import RewardBench2
from rewardsteer.evaluation.reward_benchmarks.rm_bench import RmBench
from rewardsteer.evaluation.statistics import holm, paired_difference, share, two_level

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
    assert intervals(whole)["shp"].low == pytest.approx(0.953, abs=1e-3)
    few = measure(RewardBench(), ITEMS[:9], [np.array([1.0, 0.0])] * 9)
    assert math.isnan(intervals(few)["shp"].low)
    assert few.clusters == {"shp": 9}


@pytest.mark.parametrize("right", [40, 72, 79])
def test_intervals_are_those_of_shares(right):
    """Percentiles of resamples are too narrow near 0 and 1: 79 of 80 would end at 1."""
    values = [1.0] * right + [0.0] * (80 - right)
    own = measure(RewardBench(), ITEMS, [np.array([one, 0.5]) for one in values], resamples=4000)
    found, expected = intervals(own)["shp"], share(values)
    assert found == pytest.approx(expected, abs=5e-3)
    assert found.high < 1


def test_a_figure_outside_of_0_and_1_has_an_interval_around_it():
    rng = np.random.default_rng(0)
    items = [Item(f"Ties/{kind}:{n}", "?", ("x",) * 4, "Ties", f"{kind}:{n}", {"right": right})
             for n in range(40) for kind, right in (("ref", 1), ("tied", 2))]
    # All parts are perfect, and the margin adds up to 0.01.
    own = measure(RewardBench2(), items, [np.array([9, 8 + rng.random(), 0, 0]) if "tied" in one.id
                                          else np.array([9.0, 0, 0, 0]) for one in items])
    found = intervals(own)["Ties"]
    assert 1 < found.low < found.value < found.high


def test_a_figure_counts_the_questions_of_its_own_subsets():
    items = [
        Item(f"{name}/{n}", "?", ("a", "b"), name, str(n))
        for counts in SECTIONS.values() for name in counts for n in range(2)
    ] + [Item(f"shp/{n}", "?", ("a", "b"), "shp", str(n)) for n in range(50)]
    rng = np.random.default_rng(0)
    own = measure(RewardBench(), items, [rng.normal(size=2) for _ in items])
    expected = {"Chat": 10, "Chat Hard": 12, "Safety": 10, "Reasoning": 14, "average": 46,
                "shp": 50, "donotanswer": 2}
    assert {name: own.clusters[name] for name in expected} == expected
    styles = [Item(f"{name}/{n}", "?", ("x",) * 6, name, str(n))
              for name in ("chat", "math", "code", "safety") for n in range(4)]
    own = measure(RmBench(), styles, [rng.normal(size=6) for _ in styles])
    assert {own.clusters[name] for name in ("chat", "chat, hard", "safety, easy")} == {4}
    assert own.clusters["hard"] == own.clusters["average"] == 16


def test_pairs_of_one_prompt_are_resampled_together():
    rows = [("", {"prompt": f"{n // 10}", "chosen": "a", "rejected": "b", "subset": "shp", "id": n})
            for n in range(200)]
    items = RewardBench().items(iter(rows))
    right = [float(n // 10 % 2) for n in range(200)]
    own = measure(RewardBench(), items, [np.array([one, 0.5]) for one in right])
    assert own.clusters == {"shp": 20}
    expected = share(right, [n // 10 for n in range(200)])
    assert intervals(own)["shp"] == pytest.approx(expected, abs=0.02)


def test_small_strata_have_unbiased_variances():
    items = [Item(f"{part}/{n}", "?", ("a", "b"), part, str(n), {"first": True})
             for part in map(str, range(10)) for n in range(3)]
    right = np.random.default_rng(1).random((10, 3)) < 0.7
    own = measure(
        JudgeBench(), items, [np.array([float(one), 0.5]) for one in right.ravel()], resamples=4000
    )
    expected = np.sqrt((right.var(axis=1, ddof=1) / 3).sum()) / 10
    assert own.draws["overall"].std() == pytest.approx(expected, rel=0.04)
