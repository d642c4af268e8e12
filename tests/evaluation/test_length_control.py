"""Length-controlled win rates: planted laws, a plain optimiser, and what has no answer."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from rewardsteer.errors import DataError
from rewardsteer.evaluation.length_control import RIDGE, length_controlled
from rewardsteer.evaluation.statistics import share


def planted(theta, phi, longer, count=400, seed=0):
    """Outcomes of a judge who likes length by phi, of a method that is longer on average."""
    rng = np.random.default_rng(seed)
    theirs = rng.integers(50, 150, size=count)
    ours = theirs + rng.normal(longer, 30, size=count).round()
    gap = ours - theirs
    wins = rng.random(count) < expit(theta + phi * np.tanh(gap / gap.std()))
    return wins.astype(float), ours, theirs


def test_a_win_by_length_alone_is_no_win():
    wins, ours, theirs = planted(theta=0.0, phi=2.0, longer=40)
    assert share(wins.tolist()).low > 0.7
    found = length_controlled(wins, ours, theirs)
    assert found.low < 0.5 < found.high
    better = length_controlled(*planted(theta=1.0, phi=2.0, longer=-40))
    assert better.low < expit(1.0) < better.high
    assert share(planted(theta=1.0, phi=2.0, longer=-40)[0].tolist()).high < 0.5


def test_the_fit_is_that_of_a_plain_optimiser():
    wins, ours, theirs = planted(theta=0.4, phi=-1.0, longer=10, count=60)
    wins[:9] = 0.5  # ties
    gap = ours - theirs
    signal = np.tanh(gap / gap.std())

    def loss(weights):
        chances = expit(weights[0] + weights[1] * signal)
        entropy = -np.sum(wins * np.log(chances) + (1 - wins) * np.log(1 - chances))
        return entropy + RIDGE / 2 * np.sum(weights**2)

    plain = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9,
                                                                       "fatol": 1e-12})
    assert length_controlled(wins, ours, theirs).value == pytest.approx(
        expit(plain.x[0]), abs=1e-7
    )


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held = 0
    for seed in range(300):
        wins, ours, theirs = planted(theta=0.5, phi=1.0, longer=20, count=80, seed=seed)
        found = length_controlled(wins, ours, theirs)
        held += found.low <= expit(0.5) <= found.high
    assert 0.92 <= held / 300 <= 0.98


def test_what_has_no_answer():
    assert np.isnan(length_controlled([1.0] * 9, [1] * 9, [1] * 9).value)
    assert length_controlled([1.0] * 12, range(12), [5] * 12) == share([1.0] * 12)
    same = length_controlled([1.0] * 9 + [0.0] * 3, [7] * 12, [7] * 12)  # one length
    assert same.value == pytest.approx(0.75, abs=1e-2)
    apart = length_controlled([1.0] * 6 + [0.0] * 6, [9] * 6 + [1] * 6, [5] * 12)
    assert 0 < apart.low <= apart.value <= apart.high < 1  # length tells all: finite
    with pytest.raises(DataError, match="got 2 and 3 for 3"):
        length_controlled([1.0, 0.0, 0.5], [1, 2], [1, 2, 3])
