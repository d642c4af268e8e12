"""Searches over steps by rewards: against plain implementations, at their limits, and the law of
the particle filter by enumeration."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.methods import METHODS
from rewardsteer.decoding.strategies.particle import (
    Particle,
    effective,
    normalised,
    systematic,
)
from rewardsteer.errors import ConfigError, MismatchError
from tests.decoding.tables import TableScorer, answers
from tests.decoding.test_beam import (
    PROMPTS,
    make_policy,
    make_scorer,
    mean_likelihood,
    plain_beam,
    plain_step,
)
from tests.fakes import save_tiny

SETTINGS = {
    "beam": 3, "branches": 2, "step_tokens": 5, "max_steps": 5, "max_new_tokens": 17,
    "step_separator": "\n", "top_k": 12, "temperature": 1.3, "seed": 3, "n": 4,
}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return make_scorer(save_tiny(tmp_path_factory.mktemp("models") / "llama", "llama", seed=7))


def run(scorer, method, **values):
    config = DecodingConfig(**{**SETTINGS, "method": method, **values})
    policy, tokenizer = make_policy()
    chosen = build_method(config, None if method == "none" else scorer)
    return config, list(generate(policy, tokenizer, PROMPTS, chosen, config))


def reward_of(scorer, prompt, response, stop):
    """The reward of a response in the making, read whole; closed where it has ended."""
    ids = list(response)
    over = ids[-1] == stop or len(ids) == SETTINGS["max_new_tokens"]
    closed = scorer.close_response(ids, ids[-1:] if ids[-1] == stop else ()) if over else ids
    return float(scorer.score_ids([prompt], [closed])[0])


# --- ranked searches ------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, 0.7])
def test_beam_by_rewards_equals_the_plain_implementation(scorer, weight):
    policy, tokenizer = make_policy()
    config, results = run(scorer, "beam", **({} if weight is None else {"weight": weight}))
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = tokenizer.encode(prompt)

        def value(response, ids=ids):
            return reward_of(scorer, ids, response, tokenizer.eos_token_id)

        def score(response, ids=ids, value=value):
            likely = mean_likelihood(policy, ids, response)
            return value(response) if weight is None else likely + weight * value(response)

        plain = plain_beam(policy, tokenizer, score, result.id, ids, config)
        assert result.token_ids == plain
        assert result.reward == pytest.approx(value(plain), abs=1e-5)


def plain_dvts(policy, tokenizer, value, name, prompt, config):
    count, branches = config.beam * config.branches, config.branches
    rngs = [random.Random(f"{config.seed}/{sample}/{name}") for sample in range(count)]

    def over(response):
        ended = response[-1:] == (tokenizer.eos_token_id,)
        return ended or len(response) == config.max_new_tokens

    trees = [()] * config.beam
    for _ in range(config.max_steps):
        live = [place for place, one in enumerate(trees) if not over(one)]
        for place in live:
            grown = [
                plain_step(policy, tokenizer, prompt, trees[place], rng, config)
                for rng in rngs[place * branches : (place + 1) * branches]
            ]
            trees[place] = max(grown, key=value)
    ended = [one for one in trees if one[-1] == tokenizer.eos_token_id]
    return list(max(ended or trees, key=value))


def test_dvts_equals_the_plain_implementation(scorer):
    policy, tokenizer = make_policy()
    config, results = run(scorer, "dvts")
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = tokenizer.encode(prompt)

        def value(response, ids=ids):
            return reward_of(scorer, ids, response, tokenizer.eos_token_id)

        assert result.token_ids == plain_dvts(policy, tokenizer, value, result.id, ids, config)


def test_one_tree_is_a_beam_of_one(scorer):
    _, trees = run(scorer, "dvts", beam=1, branches=4)
    _, beams = run(scorer, "beam", beam=1, branches=4)
    assert [one.token_ids for one in trees] == [one.token_ids for one in beams]


def test_trees_without_branches_are_best_of_n(scorer):
    # Long enough for every response to end by itself: of those alone dvts chooses.
    _, trees = run(scorer, "dvts", beam=4, branches=1, max_steps=99, max_new_tokens=90)
    _, best = run(scorer, "best_of_n", max_new_tokens=90)
    assert all(one.finish_reason == "stop" for one in best)
    assert [one.token_ids for one in trees] == [one.token_ids for one in best]
    assert [one.reward for one in trees] == pytest.approx([one.reward for one in best], abs=1e-5)


@pytest.mark.parametrize("method", ["beam", "dvts", "particle"])
def test_answers_do_not_depend_on_the_batch(scorer, method):
    _, together = run(scorer, method, batch_size=64)
    _, alone = run(scorer, method, batch_size=1)
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.cost.model_copy(update={"seconds": 0.0}) == other.cost.model_copy(
            update={"seconds": 0.0}
        )


def test_a_separator_may_lie_in_two_tokens(scorer):
    policy, tokenizer = make_policy(newline=9.0, eos=-9.0)
    config = DecodingConfig(**{**SETTINGS, "method": "beam", "beam": 1, "branches": 1,
                               "max_steps": 1, "step_tokens": 99, "max_new_tokens": 60,
                               "step_separator": "\n\n"})
    [one] = generate(policy, tokenizer, ["a"], build_method(config, scorer), config)
    assert one.completion.endswith("\n\n")
    assert "\n\n" not in one.completion[:-1]


def test_the_old_name_is_refused():
    with pytest.raises(ConfigError, match=r"'goal_beam' is now 'beam' with a goal state"):
        METHODS.get("goal_beam")


# --- particles ------------------------------------------------------------------------------------

V, LENGTH = 3, 2
STEPS = list(itertools.product(range(V), repeat=1))
SEQUENCES = list(itertools.product(range(V), repeat=LENGTH))


def table(seed):
    """A policy's probabilities and rewards of all prefixes."""
    rng = np.random.default_rng(seed)
    prefixes = [(), *STEPS]
    chances = {one: rng.dirichlet(np.ones(V)) for one in prefixes}
    rewards = {one: float(rng.normal()) for one in [*prefixes, *SEQUENCES]}
    return chances, rewards


def particle(chances, rewards, count, **values):
    """How often a filter gives each sequence, of so many prompts."""
    config = DecodingConfig(**{
        "method": "particle", "step_tokens": 1, "step_separator": "", "max_new_tokens": LENGTH,
        "top_k": V, "particle_answer": "draw", "resample_below": 1.0, **values,
    })
    method = Particle(TableScorer(rewards.__getitem__, "scalar", V), config)
    found = answers(method, lambda prefix: np.log(chances[prefix]).tolist(), config, count=count,
                    places=64)
    return Counter(found)


def exact(chances, rewards, weight, n):
    """The law of a filter of ``n`` particles that always resamples, by enumeration."""
    law = Counter()
    for first in itertools.product(range(V), repeat=n):
        p = math.prod(chances[()][one] for one in first)
        weights = normalised([weight * rewards[one,] for one in first])
        for share, origins in resamplings(weights):
            begun = [(first[origin],) for origin in origins]
            alike = effective(weights) >= n
            for second in itertools.product(range(V), repeat=n):
                q = math.prod(chances[b][s] for b, s in zip(begun, second, strict=True))
                ends = [(*b, s) for b, s in zip(begun, second, strict=True)]
                last = normalised([
                    weight * (rewards[end] - (0.0 if alike else rewards[b]))
                    for end, b in zip(ends, begun, strict=True)
                ])
                for end, chance in zip(ends, last, strict=True):
                    law[end] += p * share * q * chance
    return law


def resamplings(weights):
    """Outcomes of systematic resampling with their probabilities."""
    n = len(weights)
    if effective(weights) >= n:
        return [(1.0, list(range(n)))]
    cuts = sorted({0.0, 1.0, *((n * float(end)) % 1 for end in np.cumsum(weights)[:-1])})
    return [
        (high - low, systematic(weights, (low + high) / 2))
        for low, high in itertools.pairwise(cuts)
    ]


def tilted(chances, rewards, weight):
    """p · e^(w · r), normalised."""
    law = {
        one: chances[()][one[0]] * chances[one[:1]][one[1]] * math.exp(weight * rewards[one])
        for one in SEQUENCES
    }
    return {one: value / sum(law.values()) for one, value in law.items()}


def agrees(found, law):
    """The p-value of counts under a law."""
    total = sum(found.values())
    return chisquare([found[one] for one in SEQUENCES], [total * law[one] for one in SEQUENCES]
                     ).pvalue


@pytest.mark.parametrize("n", [1, 2])
def test_few_particles_have_the_enumerated_law(n):
    chances, rewards = table(0)
    law = exact(chances, rewards, 1.5, n)
    assert sum(law.values()) == pytest.approx(1)
    found = particle(chances, rewards, 3000, n=n, weight=1.5)
    assert agrees(found, law) > 1e-3
    # The test can tell laws apart.
    other = tilted(chances, rewards, 1.5)
    assert agrees(found, other) < 1e-6


@pytest.mark.parametrize("below", [0.0, 0.6, 1.0])
def test_many_particles_draw_from_the_tilted_policy(below):
    """Whatever unfinished responses are worth."""
    # Of the tables whose sequences are all likely, one whose laws differ much and to which few
    # particles come near: the law of 20 adds at most 1.2 to the expected chi-square, which is 8,
    # and 150 draws tell the two laws below apart with a chance of more than 0.999.
    chances, rewards = table(61)
    law = tilted(chances, rewards, 1.0)
    odd = {one: value if len(one) == LENGTH else -value for one, value in rewards.items()}
    for worth in (rewards, odd):
        found = particle(chances, worth, 150, n=20, resample_below=below)
        assert agrees(found, law) > 1e-3
        # Weights by the whole prefix in every round, as in the published filter.
        twice = {one: law[one] * math.exp(worth[one[:1]]) for one in SEQUENCES}
        twice = {one: value / sum(twice.values()) for one, value in twice.items()}
        assert agrees(found, twice) < 1e-4


def test_the_estimate_of_the_total_is_unbiased():
    """The mean over systematic resampling of each particle's share is its weight."""
    weights = normalised(np.random.default_rng(2).normal(size=5).tolist())
    expected = Counter()
    for share, origins in resamplings(weights):
        for origin in origins:
            expected[origin] += share / 5
    assert [expected[place] for place in range(5)] == pytest.approx(weights)


def test_probabilities_are_weights_themselves():
    chances, rewards = table(3)
    share = {one: 1 / (1 + math.exp(-value)) for one, value in rewards.items()}
    found = particle(chances, share, 240, n=40, particle_potential="probability")
    law = tilted(chances, {one: math.log(value) for one, value in share.items()}, 1.0)
    assert agrees(found, law) > 1e-3
    # What is certainly wrong is never an answer; where all is, one is still given.
    none = {one: 0.0 if one[-1:] == (0,) else value for one, value in share.items()}
    found = particle(chances, none, 300, n=8, particle_potential="probability")
    assert all(one[-1] != 0 for one in found)
    assert particle(chances, dict.fromkeys(rewards, 0.0), 3, n=4, particle_potential="probability")
    with pytest.raises(MismatchError, match="takes rewards from 0 to 1"):
        particle(chances, rewards, 20, n=4, particle_potential="probability")


def test_the_best_particle_and_the_vote(scorer):
    chances, rewards = table(4)
    found = particle(chances, rewards, 50, n=64, particle_answer="best", weight=0.0)
    best = max(SEQUENCES, key=rewards.__getitem__)
    assert found[best] >= 49
    _, results = run(scorer, "particle", particle_answer="vote", n=6, max_new_tokens=12)
    assert all(one.reward is not None for one in results)


def test_the_vote_weighs_answers(monkeypatch):
    """One good particle outweighs several bad ones of another answer."""
    chances = {one: np.ones(V) / V for one in [(), *STEPS]}
    rewards = dict.fromkeys([*STEPS, *SEQUENCES], 0.0) | dict.fromkeys([(2,), (2, 1)], 4.0)
    monkeypatch.setattr("rewardsteer.decoding.strategies.particle.final_answer",
                        lambda text: text.split()[-1])
    kind = {"n": 8, "particle_answer": "vote", "resample_below": 0.0, "weight": 3.0}
    found = particle(chances, rewards, 40, **kind)
    there = sum(count for one, count in found.items() if one == (2, 1))
    assert there > 15
    plain = particle(chances, rewards, 40, **{**kind, "weight": 0.0})
    assert sum(count for one, count in plain.items() if one[-1] == 1) < 30


def test_one_particle_is_plain_sampling(scorer):
    _, results = run(scorer, "particle", n=1, max_steps=99)
    _, plain = run(scorer, "none")
    assert [one.token_ids for one in results] == [one.token_ids for one in plain]


def test_resampled_particles_go_on_by_themselves(scorer):
    """Every token is drawn once; what is resampled is not read again."""
    _, results = run(scorer, "particle", resample_below=1.0, n=5, weight=5.0)
    for prompt, one in zip(PROMPTS, results, strict=True):
        assert one.cost.rm_tokens <= 5 * len(prompt) + 2 * one.cost.lm_calls
        assert one.cost.lm_calls <= 5 * SETTINGS["max_new_tokens"]


def test_greedy_particles_are_refused(scorer):
    with pytest.raises(ConfigError, match=r"n = 4 responses.*greedy"):
        run(scorer, "particle", mode="greedy")


def test_weights_that_leave_all_behind():
    assert normalised([-math.inf, -math.inf]) == [0.5, 0.5]
    assert normalised([math.inf, 0.0, math.inf]) == [0.5, 0.0, 0.5]
    assert normalised([1000.0, 1000.0]) == [0.5, 0.5]
    assert systematic([0.0, 1.0, 0.0], 0.0) == [1, 1, 1]
    assert systematic([0.5, 0.25, 0.25], 0.999) == [0, 1, 2]
    assert effective([1.0, 0.0]) == 1
