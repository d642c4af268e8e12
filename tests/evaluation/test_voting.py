"""Votes, pass@k and best-of-k: hand-worked figures, and brute force over all subsets."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.evaluation.voting import (
    best_of_k,
    pass_at_k,
    reward_weights,
    vote,
    vote_at_k,
)

NAN = float("nan")

# Few answers and few rewards, so that ties are common; labels need not agree with the answers.
SOLUTIONS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None]),
        st.booleans(),
        st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0, NAN]),
        st.sampled_from([0.0, 0.5, 1.0, 1.5]),
    ),
    min_size=1,
    max_size=7,
)


def rng():
    return np.random.default_rng(0)


def brute_vote(answers, correct, weights):
    voters = [i for i, answer in enumerate(answers) if answer is not None]
    totals = {a: sum(weights[i] for i in voters if answers[i] == a)
              for a in {answers[i] for i in voters}}
    if not totals:
        return 0.0
    best = [a for a in totals if totals[a] == max(totals.values())]
    return np.mean([np.mean([correct[i] for i in voters if answers[i] == a]) for a in best])


def brute_best(rewards, correct):
    scored = [i for i, reward in enumerate(rewards) if not math.isnan(reward)]
    if not scored:
        return np.mean(correct)
    top = max(rewards[i] for i in scored)
    return np.mean([correct[i] for i in scored if rewards[i] == top])


@pytest.mark.parametrize(
    ("answers", "correct", "weights", "expected"),
    [
        (["4", "4", "5"], [True, True, False], None, 1.0),
        (["4", "5", "5"], [True, False, False], None, 0.0),
        (["4", "5"], [True, False], None, 0.5),
        (["4", "5", "6"], [True, False, False], None, 1 / 3),
        (["4", "4", "5", "5", "6"], [True, True, False, False, False], None, 0.5),
        (["4", "4", "4"], [True, True, False], None, 2 / 3),
        (["4", None, None], [True, False, False], None, 1.0),
        ([None, None], [False, False], None, 0.0),
        ([None, None], [True, True], [1.0, 1.0], 0.0),
        ([], [], None, 0.0),
        (["4", "5", "5"], [True, False, False], [3.0, 1.0, 1.0], 1.0),
        (["4", "5", "5"], [True, False, False], [2.0, 1.0, 1.0], 0.5),
        (["4", "5", "5"], [True, False, False], [0.3, 0.1, 0.2], 0.5),
        (["4", "5"], [True, False], [1e-300, 1e-301], 1.0),
        (["4", "4", "5"], [True, True, False], [1e308, 1e308, 1e308], 1.0),
        (["4", None, "5"], [True, False, False], [1.0, 1e308, 0.5], 1.0),
        (["4", "5"], [True, False], [0.0, 0.0], 0.5),
        (["4", "5"], [True, False], [0.0, 0.1], 0.0),
    ],
)
def test_vote_by_hand(answers, correct, weights, expected):
    assert vote(answers, correct, weights) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [-0.1, NAN, math.inf])
def test_vote_refuses_bad_weights(bad):
    with pytest.raises(ValueError, match="weights"):
        vote(["a", "b"], [True, False], [1.0, bad])
    with pytest.raises(ValueError, match="weights"):
        vote(["a", None], [True, False], [1.0, bad])


def test_lengths_must_agree():
    for call in (
        lambda: vote(["a"], [True, False]),
        lambda: vote(["a"], [True], [1.0, 2.0]),
        lambda: best_of_k([1.0], [True, False], 1),
        lambda: vote_at_k(["a", "b"], [True], 1, rng=rng()),
        lambda: vote_at_k(["a", "b"], [True, False], 1, rng=rng(), weights=[1.0]),
    ):
        with pytest.raises(ValueError, match="length"):
            call()


@pytest.mark.parametrize("k", [0, -1, 3])
def test_k_must_be_in_range(k):
    for call in (
        lambda: pass_at_k([True, False], k),
        lambda: best_of_k([1.0, 2.0], [True, False], k),
        lambda: vote_at_k(["a", "b"], [True, False], k, rng=rng()),
    ):
        with pytest.raises(ValueError, match="k must be"):
            call()


def test_unscored_solutions_carry_no_weight():
    weights = reward_weights([NAN, NAN, 0.2])
    assert weights == [0.0, 0.0, 0.2]
    assert vote(["4", "4", "5"], [False, False, True], weights) == 1.0
    # An infinite or negative reward is passed on, for the vote to refuse.
    assert reward_weights([-1.0, math.inf]) == [-1.0, math.inf]


def test_pass_at_k_by_hand():
    assert pass_at_k([True, False, False, False], 1) == 0.25
    assert pass_at_k([True, False, False, False], 2) == 0.5
    assert pass_at_k([True, True, False, False], 3) == 1.0
    assert pass_at_k([False, False], 2) == 0.0


def test_best_of_k_by_hand():
    # Pairs of rewards 3, 2, 1: the 3 wins two of them, the 2 wins one.
    assert best_of_k([3.0, 2.0, 1.0], [True, False, False], 2) == pytest.approx(2 / 3)
    assert best_of_k([3.0, 2.0, 1.0], [False, True, True], 2) == pytest.approx(1 / 3)
    assert best_of_k([1.0, 1.0], [True, False], 2) == 0.5
    # The NaN wins only the subset of itself.
    assert best_of_k([NAN, -9.0], [True, False], 2) == 0.0
    assert best_of_k([NAN, -math.inf], [False, True], 2) == 1.0
    assert best_of_k([NAN, -9.0], [True, False], 1) == 0.5
    assert best_of_k([NAN, NAN, 1.0], [True, False, False], 2) == pytest.approx(1 / 6)
    assert best_of_k([NAN, NAN], [True, False], 2) == 0.5


def test_best_of_k_with_many_solutions():
    draw = rng()
    correct = (draw.random(1000) < 0.3).tolist()
    # A perfect reward finds a correct solution whenever there is one.
    perfect = [float(label) for label in correct]
    for k in (1, 10, 500, 1000):
        assert best_of_k(perfect, correct, k) == pytest.approx(pass_at_k(correct, k), rel=1e-12)
    rewards = draw.normal(size=1000)
    assert best_of_k(rewards.tolist(), correct, 1) == pytest.approx(np.mean(correct))
    assert best_of_k(rewards.tolist(), correct, 1000) == correct[int(rewards.argmax())]
    assert best_of_k([0.0] * 1000, correct, 321) == pytest.approx(np.mean(correct))


@settings(deadline=None)
@given(SOLUTIONS)
def test_all_figures_agree_with_brute_force(solutions):
    answers, correct, rewards, weights = (list(column) for column in zip(*solutions, strict=True))
    n = len(solutions)
    for k in range(1, n + 1):
        subsets = list(combinations(range(n), k))

        def mean(figure, *columns, subsets=subsets):
            return np.mean([figure(*([c[i] for i in s] for c in columns)) for s in subsets])

        assert pass_at_k(correct, k) == pytest.approx(mean(any, correct))
        assert best_of_k(rewards, correct, k) == pytest.approx(mean(brute_best, rewards, correct))
        for given_weights in (None, weights):
            cast = given_weights or [1.0] * n
            exact = vote_at_k(answers, correct, k, rng=rng(), weights=given_weights)
            assert exact == pytest.approx(mean(brute_vote, answers, correct, cast))


@settings(deadline=None)
@given(SOLUTIONS)
def test_vote_at_all_is_the_vote(solutions):
    answers, correct, _, weights = (list(column) for column in zip(*solutions, strict=True))
    n = len(solutions)
    assert vote_at_k(answers, correct, n, rng=rng(), draws=1) == vote(answers, correct)
    weighted = vote_at_k(answers, correct, n, rng=rng(), draws=1, weights=weights)
    assert weighted == vote(answers, correct, weights)


def test_drawn_subsets_come_near_the_enumerated_ones():
    answers = ["a"] * 4 + ["b"] * 3 + [None] * 2 + ["c"]
    correct = [answer == "a" for answer in answers]
    exact = vote_at_k(answers, correct, 5, rng=rng(), draws=252)
    drawn = vote_at_k(answers, correct, 5, rng=rng(), draws=251)
    # The first enumerates C(10, 5) = 252 subsets; six standard errors of 251 draws are below 0.2.
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=0.2)
    assert drawn == vote_at_k(answers, correct, 5, rng=rng(), draws=251)


def test_draws_must_be_positive():
    with pytest.raises(ValueError, match="draws"):
        vote_at_k(["a", "b"], [True, False], 1, rng=rng(), draws=0)
