"""Signal and noise of values, against numbers that are known."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from rewardsteer.evaluation.correctness.ranking import signal_and_noise
from rewardsteer.evaluation.statistics import auroc


def test_by_hand():
    labels = [True, True, False, True, False, False]
    values = [1.0, 3.0, 0.0, 10.0, 4.0, 6.0]
    found = signal_and_noise(labels, values, ["a", "a", "a", "b", "b", "b"])
    # Two pairs differ by 2 around their means: (2 + 2) over two degrees of freedom.
    assert found["noise"] == pytest.approx(math.sqrt(2.0))
    assert found["signal"] == pytest.approx(((2.0 - 0.0) + (10.0 - 5.0)) / 2)


def test_what_no_question_tells_is_left_out():
    assert signal_and_noise([True], [1.0], ["a"]) == {}
    assert signal_and_noise([True, False], [1.0, 0.0], ["a", "b"]) == {}
    assert signal_and_noise([True, False], [1.0, 0.0], ["a", "a"]) == {"signal": 1.0}
    assert signal_and_noise([True, True], [1.0, 1.0], ["a", "a"]) == {"noise": 0.0}


def test_it_finds_what_values_were_made_of():
    """Questions differ much more than their solutions; the AUROC within one follows from both."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(500), 8)
    labels = rng.random(len(groups)) < 0.4
    values = rng.normal(0, 5.0, 500)[groups] + 0.6 * labels + rng.normal(0, 0.3, len(groups))
    found = signal_and_noise(labels.tolist(), values.tolist(), [str(one) for one in groups])
    assert found["noise"] == pytest.approx(0.3, rel=0.03)
    assert found["signal"] == pytest.approx(0.6, rel=0.05)
    centred = 0.6 * labels + rng.normal(0, 0.3, len(groups))
    expected = norm.cdf(found["signal"] / found["noise"] / math.sqrt(2))
    assert auroc(labels.tolist(), centred.tolist()) == pytest.approx(expected, abs=0.01)
