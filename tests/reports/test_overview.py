"""The first section of a page: figures that were named beforehand, or adjusted for the choice."""

from pathlib import Path

import pytest

from rewardsteer.reports.overview import overview
from rewardsteer.reports.results import Run


def tile(**content):
    [found] = overview([Run("r", Path("r"), **content)]).blocks[0].tiles
    return found


def methods(p):
    gain = {"accuracy_gain": 0.02, "accuracy_gain_low": 0.001, "accuracy_gain_high": 0.039}
    adjusted = {} if p is None else {"accuracy_gain_p": p}
    return {"baseline": "none", "methods": {
        "none": {"accuracy": 0.70}, "args": {"accuracy": 0.69, **adjusted},
        "farma": {"accuracy": 0.72, **gain, **adjusted},
    }}


@pytest.mark.parametrize(("p", "words"), [
    (0.0004, "p < 0.001 by Holm's method for all of them"),
    (0.03, "p = 0.030 by Holm's method for all of them"),
    (0.31, "p = 0.310 by Holm's method for all of them, not significant"),
    (None, "the highest of 3, for which the interval is not corrected"),
])
def test_the_best_of_several_methods_is_adjusted_for_their_number(p, words):
    found = tile(comparison=methods(p))
    assert found.figure == "72.0%"
    assert found.note.endswith(words)
    assert "accuracy, farma: +0.020 over none (+0.001 to +0.039)" in found.note


def test_the_reward_is_the_signal_even_where_the_similarity_ranks_higher():
    found = tile(correctness={"gsm8k": {
        "solutions": 900, "auroc": 0.6, "auroc_low": 0.5, "auroc_high": 0.7,
        "auroc_similarity": 0.65,
    }})
    assert found.figure == "0.600"
    assert found.note == (
        "AUROC of the reward on 900 solutions (0.500 to 0.700); of the similarity 0.650"
    )
