"""Guided speculative inference: its law by enumeration, its limits, a plain twin, costs and bad
input."""

import asyncio
import itertools
import math
import random
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.registry import check_abilities
from rewardsteer.decoding.engines.transformers.admission import Bounds
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.engines.transformers.likelihoods import PolicyLikelihoods
from rewardsteer.decoding.generate import build_method, generate_by
from rewardsteer.decoding.second_models import check_drafter
from rewardsteer.errors import ConfigError, MismatchError, NonFiniteError
from rewardsteer.models.prefix_reader import PrefixReader
from tests.decoding.tables import TableEngine, TableScorer
from tests.decoding.test_beam import PROMPTS, make_policy, make_scorer, mean_likelihood, plain_step
from tests.decoding.two_policies import LARGE, REWARDS, SMALL, respond
from tests.fakes import CHARACTERS, character_tokenizer, save_tiny

# --- the law --------------------------------------------------------------------------------------


def step_law(before, n, weight, threshold, small=SMALL, large=LARGE):
    """P(token) of a step: every tuple of proposals, every choice."""
    found = dict.fromkeys(range(3), 0.0)
    refused = 0.0

    def chosen(tokens, score):
        weights = [math.exp(score(v)) for v in tokens]
        return [one / sum(weights) for one in weights]

    def tilted(v):
        return weight * REWARDS[(*before, v)] + math.log(large[v] / small[v])

    for proposals in itertools.product(range(3), repeat=n):
        p = math.prod(small[v] for v in proposals)
        for v, share in zip(proposals, chosen(proposals, tilted), strict=True):
            if tilted(v) >= weight * threshold:
                found[v] += p * share
            else:
                refused += p * share
    for proposals in itertools.product(range(3), repeat=n):
        p = refused * math.prod(large[v] for v in proposals)
        shares = chosen(proposals, lambda v: weight * REWARDS[(*before, v)])
        for v, share in zip(proposals, shares, strict=True):
            found[v] += p * share
    return found, refused


def law(*options):
    return {
        (a, b): step_law((), *options)[0][a] * step_law((a,), *options)[0][b]
        for a, b in itertools.product(range(3), repeat=2)
    }


def counted(count, **settings):
    results = respond("gsi", count, **settings)
    return Counter(tuple(outcome.sample.token_ids) for outcome, _ in results)


def is_law(seen, expected, count):
    possible = [y for y, p in expected.items() if p > 0]
    assert set(seen) <= set(possible)
    return chisquare([seen[y] for y in possible], [count * expected[y] for y in possible]).pvalue


@pytest.mark.parametrize(("n", "weight", "threshold"), [
    (1, 1.0, 0.7), (2, 2.0, 0.7), (2, 2.0, -9.0), (2, 2.0, 9.0), (3, 0.0, 0.7), (2, -1.5, 0.5),
])
def test_responses_have_the_law_of_enumeration(n, weight, threshold):
    expected = law(n, weight, threshold)
    assert sum(expected.values()) == pytest.approx(1)
    seen = counted(400, n=n, weight=weight, accept_reward=threshold)
    assert is_law(seen, expected, 400) > 1e-3
    alone = {(a, b): LARGE[a] * LARGE[b] for a, b in expected}
    assert is_law(seen, alone, 400) < 1e-3 or weight == 0


def test_more_proposals_come_nearer_to_the_tilted_policy():
    weights = [LARGE[v] * math.exp(2 * REWARDS[(v,)]) for v in range(3)]
    target = [one / sum(weights) for one in weights]
    apart = []
    for n in (1, 2, 4, 7):
        found, _ = step_law((), n, 2.0, -9.0)
        apart.append(sum(abs(found[v] - target[v]) for v in range(3)) / 2)
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] < 0.5 * apart[0]


def test_one_proposal_of_a_great_weight_is_rsd():
    """The log-ratio counts nothing beside such a weight."""
    for threshold in (0.7, -9.0, 9.0):
        ours = respond("gsi", 40, n=1, weight=1e6, accept_reward=threshold)
        theirs = respond("rsd", 40, accept_reward=threshold)
        assert [one.sample.token_ids for one, _ in ours] == [
            one.sample.token_ids for one, _ in theirs
        ]


def test_weight_zero_asks_no_reward_model():
    """And among proposals of one policy it chooses evenly: plain sampling."""
    results = respond("gsi", 400, n=3, weight=0.0, small=LARGE)
    seen = Counter(tuple(one.sample.token_ids) for one, _ in results)
    plain = {(a, b): LARGE[a] * LARGE[b] for a, b in itertools.product(range(3), repeat=2)}
    assert is_law(seen, plain, 400) > 1e-3
    assert all(one.reward is None and cost.rm_calls == 0 for one, cost in results)


@pytest.mark.parametrize(("threshold", "refused"), [(-9.0, 0), (9.0, 1)])
def test_costs(threshold, refused):
    for outcome, cost in respond("gsi", 5, n=3, weight=2.0, accept_reward=threshold):
        assert outcome.reward == pytest.approx(REWARDS[tuple(outcome.sample.token_ids)])
        assert cost.new_tokens == 2
        # Three drafts in each of two steps, and three of the policy where those are refused.
        assert cost.lm_calls == cost.rm_calls == 6 * (1 + refused)
        # A pass for each token that is drawn. Besides, the policy reads the prompt and what is
        # drafted; where it wrote a step that nobody had drafted, the response once more.
        assert 0 <= cost.lm_forwards - cost.lm_calls - (1 + 6) <= refused


# --- against a plain implementation ---------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "llama", "llama", seed=7)


SETTINGS = {
    "method": "gsi", "n": 3, "step_tokens": 5, "max_steps": 6, "max_new_tokens": 17,
    "step_separator": "\n", "top_k": 12, "temperature": 1.3, "seed": 3,
}


def plain_gsi(large, small, tokenizer, scorer, name, prompt, config):
    """One row at a time, nothing cached; the response, and how often the policy wrote a step."""
    n, response, refusals = config.n, (), 0
    rngs = [random.Random(f"{config.seed}/{place}/{name}") for place in range(2 * n)]
    chances = random.Random(f"{config.seed}/-1/{name}")

    def ended(tokens):
        return tokens[-1:] == (tokenizer.eos_token_id,)

    def reward(tokens):
        if ended(tokens):
            tokens = scorer.close_response(tokens, tokens[-1:])
        elif len(tokens) == config.max_new_tokens:
            tokens = scorer.close_response(tokens, ())
        return float(scorer.score_ids([prompt], [list(tokens)])[0])

    def drawn(policy, places):
        return [
            plain_step(policy, tokenizer, prompt, response, rngs[place], config)
            for place in places
        ]

    def likely(policy, tokens):
        """Of the tokens after the response."""
        def whole(one):
            return mean_likelihood(policy, prompt, one) * len(one) if one else 0.0

        return whole(tokens) - whole(response)

    def choose(scores):
        most = max(scores)
        return chances.choices(range(n), [math.exp(one - most) for one in scores])[0]

    for _ in range(config.max_steps):
        if ended(response) or len(response) == config.max_new_tokens:
            break
        steps = drawn(small, range(n, 2 * n))
        scores = [
            config.weight * reward(one) + likely(large, one) - likely(small, one)
            for one in steps
        ]
        chosen = choose(scores)
        if scores[chosen] < config.weight * config.accept_reward:
            refusals += 1
            steps = drawn(large, range(n))
            chosen = choose([config.weight * reward(one) for one in steps])
        response = steps[chosen]
    return list(response), refusals


@pytest.mark.parametrize("kinds", [("llama", "gpt2"), ("gpt2", "llama")])
def test_equals_the_plain_implementation(folder, kinds):
    (large, tokenizer), (small, _) = map(make_policy, kinds)
    scorer, refused, ends = make_scorer(folder), [], set()
    for seed, n in ((3, 3), (4, 2)):
        config = DecodingConfig(
            **SETTINGS | {"seed": seed, "n": n}, weight=20.0, accept_reward=0.0
        )
        drafter = TransformersEngine(small, tokenizer, Bounds(places=12))
        method = build_method(config, scorer, drafter=drafter)
        engine = TransformersEngine(large, tokenizer, Bounds(places=12))
        for prompt, result in zip(
            PROMPTS, generate_by(engine, PROMPTS, method, config), strict=True
        ):
            ids = tokenizer.encode(prompt)
            plain, refusals = plain_gsi(
                large, small, tokenizer, scorer, result.id, ids, config
            )
            assert result.token_ids == plain
            assert result.finish_reason == (
                "stop" if plain[-1] == tokenizer.eos_token_id else "length"
            )
            refused.append(refusals)
            ends.add(result.finish_reason)
    assert sum(refused) > 0
    assert min(refused) == 0
    assert len(ends) == 2


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_likelihoods_of_given_tokens(kind, cached):
    policy, tokenizer = make_policy(kind)
    prompt, response = tokenizer.encode("Sum of 3"), tokenizer.encode("abc")
    likelihoods = PolicyLikelihoods(PrefixReader(policy, cached=cached), prompt)

    def asked(before, continuations):
        # Continued, gone back, and of other lengths.
        found = asyncio.run(likelihoods.of(before, continuations))
        for one, value in zip(continuations, found, strict=True):
            whole = mean_likelihood(policy, prompt, [*before, *one]) * (len(before) + len(one))
            base = mean_likelihood(policy, prompt, before) * len(before) if before else 0.0
            assert value == pytest.approx(whole - base, abs=1e-4)
        return likelihoods.cost

    several = [[5, 6, 7], [5], [9, 8]]
    first = asked([], several)
    second = asked([5, 6, 7], [[4], [4, 4, 4]])
    third = asked(response, several[:1])
    if cached:
        # The prompt in a pass of its own; then each continuation with the token before it.
        assert first.lm_tokens == len(prompt) + 6 + 3
        assert second.lm_tokens - first.lm_tokens == 4 + 2
        assert (first.lm_forwards, second.lm_forwards) == (4, 6)
        assert third.lm_tokens - second.lm_tokens == len(response) + 1 + 4 - 1
    else:
        assert first.lm_tokens == 3 * len(prompt) + 6
        assert first.lm_forwards == 3


# --- bad input ------------------------------------------------------------------------------------


def built(drafter, **settings):
    scorer = TableScorer(lambda y: 0.0, "scalar", 3)
    return build_method(DecodingConfig(method="gsi", **settings), scorer, drafter=drafter)


def table_engine(p=SMALL):
    return TableEngine(lambda y: [math.log(one) for one in p], 9)


def test_it_needs_a_second_policy():
    with pytest.raises(ConfigError, match="'gsi' needs a second policy that drafts"):
        check_drafter(built(None), table_engine())


def test_several_proposals_need_draws():
    with pytest.raises(ConfigError, match="greedy decoding gives the same one each time"):
        built(None, mode="greedy")
    built(None, mode="greedy", n=1)


def test_both_engines_must_tell_log_probabilities():
    class Silent(TableEngine):
        name, abilities = "silent", frozenset({"extend", "token_ids", "abort"})

    method = built(Silent(lambda y: [0.0], 1))
    with pytest.raises(ConfigError, match="log-probabilities of given tokens, which silent does"):
        check_abilities(Silent(lambda y: [0.0], 1), method)
    with pytest.raises(ConfigError, match="gives tokens' log-probabilities, which silent does"):
        check_drafter(method, table_engine())


def test_both_policies_must_have_the_same_tokens():
    engine, drafter = table_engine(), table_engine()
    engine.tokenizer, drafter.tokenizer = (
        character_tokenizer(), character_tokenizer(CHARACTERS[::-1])
    )
    with pytest.raises(MismatchError, match="must have one vocabulary"):
        check_drafter(built(drafter), engine)


def test_a_step_that_the_policy_never_takes_is_refused():
    results = respond("gsi", 30, n=2, weight=2.0, accept_reward=-9.0, large=[1e-45, 0.5, 0.5])
    for outcome, _ in results:
        assert 0 not in outcome.sample.token_ids


def test_logits_that_are_no_numbers():
    policy, _ = make_policy()
    with torch.no_grad():
        policy.lm_head.weight[5] = float("nan")
    likelihoods = PolicyLikelihoods(PrefixReader(policy), [4])
    with pytest.raises(NonFiniteError, match="The policy gave no number"):
        asyncio.run(likelihoods.of([], [[5]]))
