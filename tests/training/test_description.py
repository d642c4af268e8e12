"""What a checkpoint says of its training."""

from types import SimpleNamespace

import pytest
from scipy import stats

from rewardsteer.training.description import held_out_accuracy

MANIFEST = SimpleNamespace(
    config={"sources": [{"name": "hh"}]}, sets=("full",), counts={"test": {"full": 10}}
)


def accuracy(share, count):
    record = {"eval_accuracy": share, "eval_rows": count}
    [found] = held_out_accuracy(record, MANIFEST, chosen_by_it=False)
    return found


@pytest.mark.parametrize("right", [0, 7, 10])
def test_interval_of_the_held_out_accuracy_is_wilsons(right):
    found = accuracy(right / 10, 10)
    ends = stats.binomtest(right, 10).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=1e-12)


def test_a_tie_is_half_a_pair_and_is_not_rounded():
    half, whole = accuracy(0.95, 10), accuracy(1.0, 10)
    assert accuracy(0.9, 10).low < half.low < whole.low
    assert accuracy(0.9, 10).high < half.high < 1.0
