"""Controlled decoding: the policy's candidates re-ranked by a value of prefixes."""

import logging

import pytest
import torch
from scipy.stats import chisquare

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.guides.cd import Cd
from rewardsteer.errors import ConfigError, MismatchError
from tests.decoding.tables import TableScorer
from tests.decoding.test_generate import (
    KINDS,
    PROMPTS,
    folders,  # noqa: F401
    make_policy,
    make_scorer,
)
from tests.decoding.test_toy_exactness import (
    LENGTH,
    SEQUENCES,
    V,
    completions,
    random_rewards,
    run,
)
from tests.decoding.test_weights import guided_by, plain_greedy


@pytest.mark.parametrize("kind", KINDS)
def test_batched_and_cached_equals_the_plain_loop(folders, kind):  # noqa: F811
    policy, tokenizer = make_policy(kind, eos_bias=2.0)
    config = DecodingConfig(
        method="cd", mode="greedy", top_k=5, weight=1.5, max_new_tokens=12, batch_size=3
    )
    scorer = guided_by(folders, "cd", kind)
    results = generate(policy, tokenizer, PROMPTS, build_method(config, scorer), config)
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = tokenizer.encode(prompt)
        stop_ids = {tokenizer.eos_token_id}
        assert result.token_ids == plain_greedy(policy, [scorer], [1.0], ids, config, stop_ids)
        assert result.cost.rm_calls == 5 * len(result.token_ids)


def test_with_the_value_of_the_tilted_policy_it_samples_that_policy():
    """With V(prefix) = log E[exp(w·r)] / w under the policy, token-wise control draws whole
    sequences with probability ∝ π(y) · exp(w·r(y)), the solution of KL-regularised control."""
    rewards, logits, w = random_rewards(8), [0.3, 0.0, -0.3], 1.2
    policy = torch.tensor(logits).double().softmax(0)

    def likelihood(y):
        return float(policy[list(y)].prod())

    def value(prefix):
        total = sum(
            likelihood(y[len(prefix) :]) * torch.tensor(w * rewards[y]).exp()
            for y in completions(prefix)
        )
        return float(total.log()) / w

    scorer = TableScorer(value, "scalar", V)
    scorer.objective = "partial"
    config = DecodingConfig(top_k=V, max_new_tokens=LENGTH, weight=w)
    batch = run(Cd(scorer, config), config, lambda prefix: logits, rows=4000)
    seen = dict.fromkeys(SEQUENCES, 0)
    for row in batch:
        seen[tuple(row.token_ids)] += 1
    tilted = torch.tensor(
        [likelihood(y) * float(torch.tensor(w * rewards[y]).exp()) for y in SEQUENCES]
    )
    expected = (tilted / tilted.sum() * len(batch)).tolist()
    assert chisquare(list(seen.values()), expected).pvalue > 1e-3


@pytest.mark.parametrize("objective", ["partial", "bradley_terry+goal_contrastive"])
def test_takes_a_head_that_learned_of_every_token(folders, objective):  # noqa: F811
    scorer = make_scorer(folders["llama"], "scalar", objective)
    assert build_method(DecodingConfig(method="cd"), scorer).name == "cd"


def test_needs_a_value_of_prefixes(folders, caplog):  # noqa: F811
    config = DecodingConfig(method="cd")
    whole = make_scorer(folders["llama"], "scalar", "bradley_terry")
    with pytest.raises(MismatchError, match=r"'partial' or 'goal_contrastive'.*'bradley_terry'"):
        build_method(config, whole)
    with pytest.raises(MismatchError, match="'cd' needs a reward model with a scalar"):
        build_method(config, make_scorer(folders["llama"], "vocabulary"))
    with pytest.raises(MismatchError, match="needs a reward model, and there is none"):
        build_method(config)
    with pytest.raises(ConfigError, match="top_k must be at least 1"):
        build_method(DecodingConfig(method="cd", top_k=0), guided_by(folders, "cd"))
    with caplog.at_level(logging.WARNING):
        build_method(config, make_scorer(folders["llama"], "scalar"))
    assert "does not say" in caplog.text
