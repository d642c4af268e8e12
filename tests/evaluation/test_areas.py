"""Areas under the ROC curve: against scikit-learn, and their variance against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from rewardsteer.evaluation.statistics import (
    auroc,
    auroc_difference,
    auroc_interval,
    auroc_within_interval,
)
from rewardsteer.objectives.agreement import midranks

rows = st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=15)


@settings(deadline=None)
@given(rows)
def test_area_against_scikit_learn(given_rows):
    labels, scores = zip(*given_rows, strict=True)
    expected = math.nan if len(set(labels)) < 2 else roc_auc_score(labels, scores)
    assert auroc(labels, scores) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(st.lists(st.one_of(
    st.integers(0, 3).map(float), st.floats(allow_nan=False), st.sampled_from([-0.0, math.inf]),
), max_size=12))
def test_ranks_are_those_of_scipy(values):
    np.testing.assert_array_equal(midranks(np.array(values)), stats.rankdata(values))
    if values:
        assert np.isnan(midranks(np.array([*values, math.nan]))).all()
        assert np.isnan(stats.rankdata([*values, math.nan])).all()


def _sample(count=40, rows_each=5):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(count), rows_each)
    level = rng.normal(size=count)[groups]
    labels = rng.random(len(groups)) < 1 / (1 + np.exp(-level))
    scores = np.round(labels + level / 2 + rng.normal(size=len(groups)), 1)
    return labels, scores, groups


def _plain_error(labels, scores, groups):
    """Standard error by the placement values of Obuchowski, pair by pair."""
    area = roc_auc_score(labels, scores)
    right, wrong = int(labels.sum()), int((~labels).sum())
    sums = dict.fromkeys(groups.tolist(), 0.0)
    for label, score, group in zip(labels, scores, groups.tolist(), strict=True):
        others = scores[labels != label]
        won = [(score > other) + (score == other) / 2 for other in others]
        place = np.mean(won) if label else 1 - np.mean(won)
        sums[group] += (place - area) / (right if label else wrong)
    count = len(sums)
    return math.sqrt(count / (count - 1) * sum(one**2 for one in sums.values()))


def test_interval_is_wilsons_of_the_cluster_robust_error():
    labels, scores, groups = _sample()
    found = auroc_interval(labels, scores, groups=groups)
    assert found.value == pytest.approx(roc_auc_score(labels, scores))
    half = stats.t.ppf(0.975, 39) * _plain_error(labels, scores, groups)
    # Wilson's ends p solve |A - p| = half * sqrt(p(1 - p) / (A(1 - A))).
    for end in found.low, found.high:
        scale = math.sqrt(end * (1 - end) / (found.value * (1 - found.value)))
        assert abs(found.value - end) == pytest.approx(half * scale)


def test_groups_of_equal_rows_are_wider():
    rng = np.random.default_rng(0)
    labels, groups = np.repeat(rng.random(40) < 0.5, 10), np.repeat(np.arange(40), 10)
    scores = np.repeat(rng.normal(size=40), 10) + labels
    alone = auroc_interval(labels, scores)
    grouped = auroc_interval(labels, scores, groups=groups)
    assert alone.value == grouped.value == pytest.approx(roc_auc_score(labels, scores))
    # Ten equal rows hold as much as one: the interval is √10 as wide.
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low) > 0


def test_few_rows_of_a_class_and_perfect_separation_have_wide_intervals():
    labels = np.arange(300) >= 3
    perfect = auroc_interval(labels, labels.astype(float))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.3 < perfect.low < 0.8
    assert auroc_interval(np.arange(300) >= 150, labels.astype(float)).high < 0.6
    assert math.isnan(auroc_interval([True] * 20, range(20)).value)
    assert math.isnan(auroc_interval([True, False] * 4, range(8)).low)


def test_difference_is_paired():
    labels, scores, groups = _sample()
    assert auroc_difference(labels, scores, scores.copy(), groups=groups) == (0, 0, 0)
    noise = np.random.default_rng(1).normal(size=len(scores))
    near = auroc_difference(labels, scores + 0.1 * noise, scores, groups=groups)
    far = auroc_difference(labels, noise, scores, groups=groups)
    assert near.low < near.value < near.high
    assert near.high - near.low < 0.3 * (far.high - far.low)
    assert far.high < 0


def test_within_questions_all_count_alike_or_by_their_pairs():
    labels = [True, False, True, False, False, True, True]
    scores = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 2.0]
    keys = list("aabbbcc")
    each, count = auroc_within_interval(labels, scores, keys)
    assert (each.value, count) == (pytest.approx((1 + 0.25) / 2), 2)
    pooled, _ = auroc_within_interval(labels, scores, keys, by_pairs=True)
    assert pooled.value == auroc_interval(labels, scores, within=keys).value
    assert pooled.value == pytest.approx(1.5 / 3)
    # Key a: 2 > 1 and a tie; key b: 0 < 5.
    found = auroc_interval(
        [True, False, False, True, False], [2.0, 1.0, 2.0, 0.0, 5.0], within=list("aaabb")
    )
    assert found.value == pytest.approx(1.5 / 3)
    assert math.isnan(auroc_interval([True, False], [1.0, 2.0], within=["a", "b"]).value)


def _plain_within_error(labels, scores, groups, keys):
    """Jackknife over groups, in the limit of a small weight, of pairs won over pairs."""

    def area(weights):
        won = pairs = 0.0
        for i in np.flatnonzero(labels):
            for j in np.flatnonzero(~labels & (keys == keys[i])):
                weight = weights[groups[i]] * weights[groups[j]]
                won += weight * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
                pairs += weight
        return won / pairs

    # Groups without a row in a key of both labels have no part in it.
    both = [key for key in set(keys.tolist()) if 0 < labels[keys == key].mean() < 1]
    members = set(groups[np.isin(keys, both)].tolist())
    count, step = len(members), 1e-4
    slopes = []
    for group in members:
        ends = []
        for sign in (1, -1):
            weights = np.ones(groups.max() + 1)
            weights[group] += sign * step
            ends.append(area(weights))
        slopes.append((ends[0] - ends[1]) / (2 * step))
    return area(np.ones(groups.max() + 1)), count, math.sqrt(
        count / (count - 1) * sum(one**2 for one in slopes)
    )


def test_interval_within_keys_is_of_the_groups_that_cut_across_them():
    # Rows that stand there four times widen the interval of groups beyond that of the classes.
    labels, scores, groups = (np.repeat(one, 4) for one in _sample(count=15, rows_each=2))
    keys = np.where(np.arange(len(labels)) % 8 < 4, "a", "b")
    value, count, error = _plain_within_error(labels, scores, groups, keys)
    found = auroc_interval(labels, scores, groups=groups, within=keys)
    assert found.value == pytest.approx(value)
    half = stats.t.ppf(0.975, count - 1) * error
    scale = math.sqrt(found.low * (1 - found.low) / (value * (1 - value)))
    assert value - found.low == pytest.approx(half * scale, rel=1e-4)
    one_key = auroc_interval(labels, scores, groups=groups, within=["k"] * len(labels))
    assert one_key == pytest.approx(auroc_interval(labels, scores, groups=groups))
