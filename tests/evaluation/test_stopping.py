"""Early stopping on sequences worked by hand, and against the plain vote where it never stops."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.evaluation.stopping import (
    Stopped,
    adaptive_consistency,
    early_stopping,
    over_orders,
    stop,
)

SAMPLES = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.booleans(), st.integers(0, 9)),
    min_size=1,
    max_size=12,
)


def esc(samples, window):
    return stop(partial(early_stopping, window=window), *samples)


def adaptive(samples, threshold=0.95):
    return stop(partial(adaptive_consistency, threshold=threshold), *samples)


def first(samples, k):
    """The plain vote of the first k samples."""
    return stop(lambda answers: k, *samples)


def columns(letters, right="a"):
    """Answers from letters, with '-' for no answer; the i-th sample costs 10**i tokens."""
    answers = [None if letter == "-" else letter for letter in letters]
    return answers, [answer == right for answer in answers], [10**i for i in range(len(letters))]


@pytest.mark.parametrize(
    ("letters", "window", "expected"),
    [
        ("aaab", 2, Stopped(1.0, 2, 11)),
        ("abaab", 2, Stopped(1.0, 4, 1111)),
        # The windows do not overlap: the agreeing pair in the middle is in none of them.
        ("baab", 2, Stopped(0.5, 4, 1111)),
        # The agreeing window does not outvote what came before: b has 3 votes, a has 3.
        ("bbabaa", 3, Stopped(0.5, 6, 111111)),
        ("abbaaa", 3, Stopped(1.0, 6, 111111)),
        ("ababbb", 3, Stopped(0.0, 6, 111111)),
        # Silence is no agreement.
        ("--aab", 2, Stopped(1.0, 4, 1111)),
        ("a-a-", 2, Stopped(1.0, 4, 1111)),
        ("----", 2, Stopped(0.0, 4, 1111)),
        # The last window is cut short.
        ("abb", 2, Stopped(0.0, 3, 111)),
        ("a", 2, Stopped(1.0, 1, 1)),
        ("-ba", 1, Stopped(0.0, 2, 11)),
        ("", 2, Stopped(0.0, 0, 0)),
    ],
)
def test_early_stopping_by_hand(letters, window, expected):
    assert esc(columns(letters), window) == expected


@pytest.mark.parametrize(
    ("letters", "threshold", "expected"),
    [
        # With v to nothing the posterior is 1 − 2**−(v + 1): 0.9375 at three, 0.96875 at four.
        ("aaaaaa", 0.95, Stopped(1.0, 4, 1111)),
        ("aaaaaa", 0.93, Stopped(1.0, 3, 111)),
        ("a-a-aab", 0.95, Stopped(1.0, 6, 111111)),
        # Seven to one: 1 − 10/512 = 0.98; six to one: 1 − 9/256 = 0.965; five to one: 0.9375.
        ("baaaaaaa", 0.95, Stopped(1.0, 7, 1111111)),
        ("baaaaaaa", 0.97, Stopped(1.0, 8, 11111111)),
        # Only the two most frequent answers count: four to one and one is 1 − 7/64 = 0.89.
        ("bcaaaab", 0.88, Stopped(1.0, 6, 111111)),
        ("abab", 0.95, Stopped(0.5, 4, 1111)),
        ("-b", 0.5, Stopped(0.0, 2, 11)),
        ("---", 0.5, Stopped(0.0, 3, 111)),
        ("", 0.95, Stopped(0.0, 0, 0)),
    ],
)
def test_adaptive_consistency_by_hand(letters, threshold, expected):
    assert adaptive(columns(letters), threshold) == expected


def test_threshold_one_takes_every_sample():
    # So many agreeing votes round the posterior to one, and then underflow its complement.
    samples = ["a"] * 3000, [True] * 3000, [1] * 3000
    assert adaptive(samples, 1.0) == Stopped(1.0, 3000, 3000)


@settings(deadline=None)
@given(SAMPLES)
def test_rules_that_never_stop_are_the_plain_vote(samples):
    columns = [list(column) for column in zip(*samples, strict=True)]
    everything = first(columns, len(samples))
    assert everything.tokens == sum(columns[2])
    assert adaptive(columns, 1.0) == everything
    assert esc(columns, len(samples) + 1) == everything
    assert esc(columns, len(samples)) == everything


@settings(deadline=None)
@given(SAMPLES, st.integers(1, 4), st.sampled_from([0.5, 0.8, 0.95]))
def test_rules_vote_over_what_they_took(samples, window, threshold):
    columns = [list(column) for column in zip(*samples, strict=True)]
    for end in (esc(columns, window), adaptive(columns, threshold)):
        assert end == first(columns, end.samples)


def test_plain_vote_takes_the_first():
    assert first(columns("abb"), 1) == Stopped(1.0, 1, 1)
    assert first(columns("abb"), 2) == Stopped(0.5, 2, 11)
    assert first(columns("abb"), 3) == Stopped(0.0, 3, 111)


def test_over_orders_averages_the_rule():
    samples = columns("ab")
    whole = over_orders(
        lambda answers: 2, *samples, orders=5, rng=np.random.default_rng(0)
    )
    assert whole == (0.5, 2.0, 11.0)
    # One sample of the two: right and 1 token, or wrong and 10; labels and costs move together.
    accuracy, taken, cost = over_orders(
        lambda answers: 1, *samples, orders=400, rng=np.random.default_rng(0)
    )
    assert taken == 1.0
    assert accuracy == pytest.approx(0.5, abs=0.15)
    assert cost == pytest.approx(accuracy * 1 + (1 - accuracy) * 10)


def test_over_orders_is_seeded():
    samples = columns("aabbab-a")
    rule = partial(early_stopping, window=2)
    once = over_orders(rule, *samples, orders=20, rng=np.random.default_rng(3))
    assert once == over_orders(rule, *samples, orders=20, rng=np.random.default_rng(3))
    assert once != over_orders(rule, *samples, orders=20, rng=np.random.default_rng(4))


def test_arguments_are_checked():
    samples = columns("ab")
    for match, call in (
        ("window", lambda: esc(samples, 0)),
        ("threshold", lambda: adaptive(samples, 0.4)),
        ("threshold", lambda: adaptive(samples, 1.1)),
        ("orders", lambda: over_orders(adaptive_consistency, *samples, orders=0,
                                       rng=np.random.default_rng(0))),
        ("length", lambda: first((["a"], [True], [1, 2]), 1)),
        ("length", lambda: esc((["a"], [True, False], [1]), 1)),
        ("length", lambda: adaptive((["a"], [True], []))),
        ("length", lambda: over_orders(adaptive_consistency, ["a"], [True], [1, 2], orders=1,
                                       rng=np.random.default_rng(0))),
    ):
        with pytest.raises(ValueError, match=match):
            call()
