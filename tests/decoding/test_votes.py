"""Votes and when they are decided; the rules that drop a response."""

import numpy as np
import pytest
from scipy.stats import beta

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.strategies.early_rejection import crossings, rejection_rule
from rewardsteer.decoding.strategies.votes import majority_stands, window_agrees, winner
from rewardsteer.goals.calibration import PositionCalibration, Range


def test_windows():
    assert window_agrees(["5", "5"])
    assert not window_agrees(["5", "6"])
    assert not window_agrees(["5", None])
    assert not window_agrees([None, None])


@pytest.mark.parametrize("votes", [{"a": 3}, {"a": 5, "b": 1}, {"a": 2, "b": 2, "c": 1}, {"a": 1}])
def test_the_posterior_of_the_first_two(votes):
    first, second = [*sorted(votes.values(), reverse=True), 0][:2]
    chance = beta.sf(0.5, first + 1, second + 1)
    assert majority_stands(votes, chance - 1e-9)
    assert not majority_stands(votes, chance + 1e-9)


def test_certainty_is_never_reached():
    assert not majority_stands({"a": 10_000}, 1.0)


@pytest.mark.parametrize(("answers", "chosen"), [
    (["1", "2", "2"], 1), (["1", "2", "2", "1"], 0), ([None, "3", None], 1), ([None, None], 0),
])
def test_the_winner_is_the_first_with_the_majoritys_answer(answers, chosen):
    assert winner(answers) == chosen


def drop_at(values, calibration=None, **settings):
    """First token at which a rule drops; the length where it does not."""
    watch = rejection_rule(DecodingConfig(**settings), calibration)
    return next((i for i, value in enumerate(values) if watch(value)), len(values))


@pytest.mark.parametrize("start", [0, 2, 5])
def test_below_is_what_the_evaluation_replays(start):
    draws = np.random.default_rng(start)
    for _ in range(40):
        values = draws.normal(size=draws.integers(1, 12))
        levels = np.sort(draws.normal(size=4))
        if len(values) <= start:
            continue
        replayed = crossings(values, levels, start).tolist()
        assert replayed == [
            drop_at(values, drop_rule="below", drop_threshold=float(level), drop_start=start)
            for level in levels
        ]


def test_patience_counts_tokens_in_a_row():
    values = [-1, -1, 1, -1, -1, -1, 1]
    settings = {"drop_rule": "patience", "drop_threshold": 0.0, "drop_start": 0}
    assert drop_at(values, **settings, drop_patience=2) == 1
    assert drop_at(values, **settings, drop_patience=3) == 5
    assert drop_at(values, **settings, drop_patience=4) == 7
    assert drop_at(values, **{**settings, "drop_start": 1}, drop_patience=2) == 4


def test_probabilities_depend_on_the_position():
    told = PositionCalibration(ranges=[
        Range(start=0, similarities=[0.0], probabilities=[0.9]),
        Range(start=2, similarities=[0.0, 1.0], probabilities=[0.0, 1.0]),
    ])
    settings = {"drop_rule": "probability", "drop_threshold": 0.4, "drop_start": 0}
    assert drop_at([0.1, 0.1, 0.5, 0.3], told, **settings) == 3


def test_without_a_rule_nothing_is_watched():
    assert rejection_rule(DecodingConfig(drop_rule="none"), None) is None
