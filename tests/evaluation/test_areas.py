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

rows = st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=15)


@settings(deadline=None)
@given(rows)
def test_area_against_scikit_learn(given_rows):
    labels, scores = zip(*given_rows, strict=True)
    expected = math.nan if len(set(labels)) < 2 else roc_auc_score(labels, scores)
    assert auroc(labels, scores) == pytest.approx(expected, abs=1e-12, nan_ok=True)


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
    assert pooled.value == pytest.approx(1.5 / 3)
