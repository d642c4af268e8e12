"""Vocabulary of 3, length 3, every sequence enumerated: where each method's claim holds, and where
it does not (the argument of arXiv 2502.04517)."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.args import Args
from rewardsteer.decoding.guides.farma import Farma
from rewardsteer.decoding.guides.pargs import Pargs
from tests.decoding.tables import TableEngine, TableScorer, decode, toy_prompts

V, LENGTH = 3, 3
SEQUENCES = list(itertools.product(range(V), repeat=LENGTH))


def completions(prefix):
    return [y for y in SEQUENCES if y[: len(prefix)] == prefix]


def random_rewards(seed):
    values = np.random.default_rng(seed).normal(size=len(SEQUENCES))
    return dict(zip(SEQUENCES, values, strict=True))


def run(method, config, logits=lambda prefix: [0.0] * V, rows=1):
    """Samples, each with the cost of its prompt."""
    # Few rows at a time: some bookkeeping grows with the square of their number.
    engine = TableEngine(logits, min(rows, 200))
    found = decode(engine, method, config, toy_prompts(rows))
    return [SimpleNamespace(token_ids=one.sample.token_ids, cost=cost) for one, cost in found]


def greedy(method, **values):
    config = DecodingConfig(mode="greedy", top_k=V, max_new_tokens=LENGTH, **values)
    return tuple(run(method, config)[0].token_ids)


@pytest.mark.parametrize("seed", range(20))
def test_under_the_constraint_greedy_guidance_finds_the_best_sequence(seed):
    rewards = random_rewards(seed)
    # The constraint: a prefix is worth its best expansion.
    scorer = TableScorer(lambda p: max(rewards[y] for y in completions(p)), "vocabulary", V)
    for prefix in itertools.chain(*(itertools.product(range(V), repeat=i) for i in (1, 2))):
        assert scorer.reward(prefix) == max(scorer.reward((*prefix, v)) for v in range(V))
    config = DecodingConfig(mode="greedy", top_k=V, max_new_tokens=LENGTH)
    found = greedy(Farma(scorer, config))
    assert found == max(SEQUENCES, key=rewards.__getitem__)


def test_with_a_policy_guidance_follows_the_sum():
    logits = np.random.default_rng(0).normal(size=(V,)).tolist()
    rewards = random_rewards(1)
    scorer = TableScorer(lambda p: max(rewards[y] for y in completions(p)), "vocabulary", V)
    config = DecodingConfig(mode="greedy", top_k=V, max_new_tokens=LENGTH, weight=0.7)
    row = run(Farma(scorer, config), config, lambda prefix: logits)[0]
    prefix = ()
    for _ in range(LENGTH):
        prefix += (max(range(V), key=lambda v: logits[v] + 0.7 * scorer.reward((*prefix, v))),)
    assert tuple(row.token_ids) == prefix


def test_full_sequence_rewards_can_mislead_args():
    # On whole sequences this model is right, (1, 0, 0) is best. On prefixes, which it never saw in
    # training, it says anything: it prefers to begin with 0.
    rewards = dict.fromkeys(SEQUENCES, 1.0) | {(1, 0, 0): 5.0}
    never_trained = {(0,): 3.0, (1,): 0.0, (2,): 0.0}
    scorer = TableScorer(lambda p: rewards.get(p, never_trained.get(p, 0.0)), "scalar", V)
    config = DecodingConfig(mode="greedy", top_k=V, max_new_tokens=LENGTH)
    by_args = greedy(Args(scorer, config))
    assert by_args[0] == 0
    constrained = TableScorer(lambda p: max(rewards[y] for y in completions(p)), "vocabulary", V)
    by_farma = greedy(Farma(constrained, config))
    assert by_farma == (1, 0, 0)
    assert rewards[by_args] < rewards[by_farma]


def test_prefixes_that_inherit_their_own_responses_reward_can_mislead_pargs():
    # A prefix trained on pairs inherits the average of the responses it was cut from. The average
    # behind 0 is higher, the best response lies behind 1.
    rewards = {y: {0: 2.0, 1: 0.0, 2: 0.0}[y[0]] for y in SEQUENCES} | {(1, 2, 1): 9.0}
    scorer = TableScorer(
        lambda p: float(np.mean([rewards[y] for y in completions(p)])), "scalar", V
    )
    scorer.objective = "partial"
    config = DecodingConfig(mode="greedy", top_k=V, max_new_tokens=LENGTH)
    found = greedy(Pargs(scorer, config))
    assert rewards[found] == 2.0 < max(rewards.values())


def test_sampling_has_the_exact_guided_distribution():
    rewards = random_rewards(3)
    scorer = TableScorer(lambda p: max(rewards[y] for y in completions(p)), "vocabulary", V)
    config = DecodingConfig(top_k=0, max_new_tokens=LENGTH, weight=0.5, temperature=0.8)
    count = 4000
    batch = run(Farma(scorer, config), config, lambda prefix: [0.3, 0.0, -0.3], rows=count)
    seen = dict.fromkeys(SEQUENCES, 0)
    for row in batch:
        seen[tuple(row.token_ids)] += 1
    expected = []
    for y in SEQUENCES:
        p = 1.0
        for i in range(LENGTH):
            scores = torch.tensor([0.3, 0.0, -0.3]) + 0.5 * torch.tensor(
                [scorer.reward((*y[:i], v)) for v in range(V)]
            )
            p *= float((scores / 0.8).softmax(0)[y[i]])
        expected.append(p * count)
    from scipy.stats import chisquare

    assert chisquare(list(seen.values()), expected).pvalue > 1e-3


@pytest.mark.parametrize(
    ("method", "kind", "calls"), [(Farma, "vocabulary", 1), (Args, "scalar", 2)]
)
def test_reward_calls_per_token(method, kind, calls):
    config = DecodingConfig(top_k=2, max_new_tokens=LENGTH)
    for row in run(method(TableScorer(lambda p: 0.0, kind, V), config), config, rows=3):
        assert row.cost.rm_calls == calls * row.cost.new_tokens == calls * LENGTH
        assert row.cost.lm_calls == row.cost.lm_forwards == LENGTH
