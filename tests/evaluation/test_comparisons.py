"""Holm's p-values against a plain version; gains of several rows over a baseline."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsteer.evaluation.statistics import gains, holm


def _plain(p_values):
    """By the definition: each hypothesis takes the largest of its own and all smaller ones'."""
    known = sorted(p for p in p_values if not math.isnan(p))
    adjusted = {
        p: min(1.0, max((len(known) - rank) * q for rank, q in enumerate(known) if q <= p))
        for p in known
    }
    return [adjusted.get(p, math.nan) for p in p_values]


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=8))
def test_holm_against_a_plain_version(p_values):
    assert holm(p_values) == pytest.approx(_plain(p_values), nan_ok=True)


def test_holm_of_a_known_case():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_gains_of_several_rows_are_adjusted_for_their_number():
    rng = np.random.default_rng(0)
    baseline = rng.normal(size=60)
    rows = {str(number): baseline + rng.normal(size=60) for number in range(9)}
    rows["better"] = baseline + 1 + 0.1 * rng.normal(size=60)
    found = gains(rows, baseline)
    alone = gains({"better": rows["better"]}, baseline)
    assert found["better"].interval == alone["better"].interval
    assert found["better"].adjusted_p == pytest.approx(10 * alone["better"].adjusted_p)
    assert set(found["better"].figures("gain")) == {"gain", "gain_low", "gain_high", "gain_p"}
    assert set(gains({"few": [1.0, 2.0]}, [0.0, 0.0])["few"].figures("gain")) == {"gain"}
