"""Choice among draws: exact laws, optimal stopping against dynamic programming, votes, length."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import chisquare, norm
from scipy.stats import t as student

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.sampling import pick, row_generator
from rewardsteer.decoding.strategies.choosing import (
    expected_gain,
    heaviest,
    shares,
    without_length,
)
from tests.decoding.tables import TableEngine, TableScorer, answers, decode, toy_prompts

POLICY, REWARDS = [0.5, 0.3, 0.2], [0.0, 1.0, 2.0]
LOGITS = [math.log(p) for p in POLICY]


def scorer(rewards=REWARDS):
    return TableScorer(lambda y: rewards[y[0]], "scalar", 3)


def draws(method, count=900, **values):
    """How often each of three one-token responses is the answer."""
    config = DecodingConfig(method=method, top_k=0, max_new_tokens=1, **values)
    found = answers(build_method(config, scorer()), lambda y: LOGITS, config, count=count,
                    places=900)
    return Counter(y[0] for y in found)


def soft_law(n, temperature):
    """P(answer) by going through all n draws."""
    law = np.zeros(3)
    for some in itertools.product(range(3), repeat=n):
        weights = np.exp([REWARDS[y] / temperature for y in some])
        chance = math.prod(POLICY[y] for y in some)
        for y, weight in zip(some, weights / weights.sum(), strict=True):
            law[y] += chance * weight
    return law


def test_soft_best_of_n_has_its_exact_law():
    seen = draws("soft_best_of_n", n=3, choice_temperature=0.7)
    expected = 900 * soft_law(3, 0.7)
    assert chisquare([seen[y] for y in range(3)], expected).pvalue > 1e-3
    hard = 900 * np.diff([0, *np.cumsum(POLICY) ** 3])  # best of n is another law
    assert chisquare([seen[y] for y in range(3)], hard).pvalue < 1e-6
    # The exact law comes nearer to the tilted policy as n grows.
    tilted = np.array(POLICY) * np.exp(np.array(REWARDS) / 0.7)
    tilted /= tilted.sum()
    distances = [abs(soft_law(n, 0.7) - tilted).sum() for n in (1, 2, 4, 6)]
    assert distances == sorted(distances, reverse=True)


def test_at_temperature_zero_it_is_best_of_n():
    config = DecodingConfig(method="best_of_n", top_k=0, max_new_tokens=1, n=3)
    best = answers(build_method(config, scorer()), lambda y: LOGITS, config, count=30)
    for method, values in (
        ("soft_best_of_n", {"choice_temperature": 0.0}), ("adaptive_best_of_n", {}),
    ):
        own = config.model_copy(update={"method": method, **values})
        assert answers(build_method(own, scorer()), lambda y: LOGITS, own, count=30) == best


def test_weights_of_rewards():
    assert shares([1.0, 3.0, 3.0], 0) == [0, 1, 0]
    assert shares([1000.0, 999.0], 1) == pytest.approx([1 / (1 + math.exp(-1)),
                                                        1 / (1 + math.e)])
    assert shares([5.0, -5.0], 1e9) == pytest.approx([0.5, 0.5])


def test_the_expected_gain_is_the_integral_over_the_predictive_distribution():
    rewards = [0.3, -1.2, 0.9, 2.0, 0.1]
    mean, scale = np.mean(rewards), np.std(rewards, ddof=1) * math.sqrt(1 + 1 / 5)
    plain, _ = quad(lambda r: (r - 2.0) * student.pdf((r - mean) / scale, 4) / scale, 2.0, np.inf)
    assert expected_gain(rewards) == pytest.approx(plain, rel=1e-6)
    assert expected_gain([1.0, 1.0, 1.0]) == 0
    assert expected_gain([1.0, 2.0]) == math.inf
    # With many draws it is that of the normal distribution itself.
    many = norm.ppf((np.arange(20000) + 0.5) / 20000).tolist()
    best = max(many)
    exact = norm.pdf(best) - best * norm.sf(best)
    assert expected_gain(many) == pytest.approx(exact, rel=0.02)


def test_stopping_where_a_draw_gains_less_than_it_costs_is_optimal():
    # Dynamic programme over the best reward so far, for a distribution that is known.
    values, chances, cost, horizon = [0.0, 1.0, 2.0, 5.0], [0.4, 0.3, 0.2, 0.1], 0.45, 12

    def gain(best):
        return sum(p * max(v - best, 0) for v, p in zip(values, chances, strict=True))

    def worth(best, left):
        """Of going on optimally, less what draws cost."""
        if left == 0:
            return best
        on = -cost + sum(
            p * worth_of[left - 1][max(v, best)] for v, p in zip(values, chances, strict=True)
        )
        stops[best, left] = best >= on
        return max(best, on)

    stops, worth_of = {}, []
    for left in range(horizon + 1):
        worth_of.append({best: worth(best, left) for best in values})
    assert all(stop == (gain(best) <= cost) for (best, _), stop in stops.items())
    assert 0 < sum(stops.values()) < len(stops)


def test_draws_end_when_they_do_not_pay():
    config = DecodingConfig(
        method="adaptive_best_of_n", top_k=0, max_new_tokens=1, n=40, vote_window=4, draw_cost=0.02
    )
    found = decode(
        TableEngine(lambda y: LOGITS, 64), build_method(config, scorer()), config, toy_prompts(20)
    )
    for outcome, cost in found:
        rewards = []
        while len(rewards) < cost.lm_calls:
            assert not rewards or expected_gain(rewards) > 0.02
            rewards += [REWARDS[one] for one in drawn(config, outcome.sample.prompt.id,
                                                      len(rewards))]
        assert len(rewards) == 40 or expected_gain(rewards) <= 0.02
        assert outcome.reward == max(rewards)
    assert len({cost.lm_calls for _, cost in found}) > 1


def drawn(config, name, begin):
    """The first tokens of a window of draws, from the rows' own random numbers."""
    return [
        pick(torch.tensor([LOGITS]), [row_generator(config.seed, name, index)], config)[0]
        for index in range(begin, begin + config.vote_window)
    ]


def test_an_answers_weight_is_the_sum_of_its_draws():
    votes = ["4", "4", "4", "7", None]
    rewards = [1.0, 0.8, 0.9, 2.0, 9.0]
    assert heaviest(votes[:4], shares(rewards[:4], 0.1)) == "7"
    assert heaviest(votes[:4], shares(rewards[:4], 10.0)) == "4"
    assert heaviest([None], [1.0]) is None


def test_the_vote_has_its_exact_law():
    """Tokens are answers here: the text of a response is its token."""
    assert draws("reward_vote", 60, n=3, choice_temperature=0.0) == draws("best_of_n", 60, n=3)
    law, count = np.zeros(3), 900
    for some in itertools.product(range(3), repeat=3):
        weights = np.zeros(3)
        for y in some:
            weights[y] += math.exp(REWARDS[y] / 1.5)
        law[int(weights.argmax())] += math.prod(POLICY[y] for y in some)
    seen = draws("reward_vote", count, n=3, choice_temperature=1.5)
    assert chisquare([seen[y] for y in range(3)], count * law).pvalue > 1e-3


def test_length_is_taken_out_by_least_squares():
    lengths = [3, 10, 20, 55]
    quality = [0.5, -1.0, 0.25, 0.25]
    rewards = [q + 2 * math.log(n) for q, n in zip(quality, lengths, strict=True)]
    found = without_length(rewards, lengths)
    slope, start = np.polyfit(np.log(lengths), rewards, 1)
    plain = rewards - (slope * np.log(lengths) + start) + np.mean(rewards)
    np.testing.assert_allclose(found, plain, atol=1e-9)
    half = without_length(rewards, lengths, 0.5)
    np.testing.assert_allclose(half, (np.array(rewards) + found) / 2, atol=1e-9)
    assert without_length([1.0, 2.0], [5, 5]) == [1.0, 2.0]
    assert np.argmax(rewards) != np.argmax(found)
