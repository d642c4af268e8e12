"""GenARM: log-probabilities of a reward language model as rewards of next tokens."""

import logging

import pytest
import torch
from scipy.stats import chisquare

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.guides.genarm import GenArm
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.prefix import Prefix
from rewardsteer.errors import MismatchError
from tests.decoding.tables import TableScorer
from tests.decoding.test_generate import (
    KINDS,
    PROMPTS,
    folders,  # noqa: F401
    make_policy,
    make_scorer,
)
from tests.decoding.test_toy_exactness import LENGTH, SEQUENCES, V, random_rewards, run
from tests.decoding.test_weights import guided_by, plain_greedy


@pytest.mark.parametrize("kind", KINDS)
def test_batched_and_cached_equals_the_plain_loop(folders, kind):  # noqa: F811
    policy, tokenizer = make_policy(kind, eos_bias=2.0)
    config = DecodingConfig(
        method="genarm", mode="greedy", weight=1.5, max_new_tokens=12, batch_size=3
    )
    scorer = guided_by(folders, "genarm", kind)
    results = generate(policy, tokenizer, PROMPTS, build_method(config, scorer), config)
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = tokenizer.encode(prompt)
        stop_ids = {tokenizer.eos_token_id}
        assert result.token_ids == plain_greedy(policy, [scorer], [1.0], ids, config, stop_ids)
        n = len(result.token_ids)
        assert (result.cost.rm_calls, result.cost.rm_tokens) == (n, len(ids) + n - 1)


def test_scores_are_log_probabilities_whatever_the_offset():
    values = random_rewards(5)

    def scores(offset):
        scorer = TableScorer(
            lambda p: 2 * values[(*p, *[0] * (LENGTH - len(p)))] + offset, "vocabulary", V
        )
        scorer.objective = "autoregressive"
        session = open_session(GenArm(scorer, DecodingConfig(weight=0.5)))
        prefix = Prefix(torch.tensor([[7, 1]]), torch.ones(1, 2).long(), [1], ["a"])
        return scorer, session.scores(prefix, torch.tensor([[0.1, 0.2, 0.3]]))

    scorer, plain = scores(0.0)
    rewards = torch.tensor([scorer.reward((1, v)) for v in range(V)]).float()
    expected = torch.tensor([0.1, 0.2, 0.3]) + 0.5 * rewards.log_softmax(0)
    torch.testing.assert_close(plain[0], expected, rtol=1e-5, atol=1e-5)
    _, shifted = scores(100.0)
    torch.testing.assert_close(shifted, plain, rtol=1e-4, atol=1e-4)


def test_sampling_has_the_exact_distribution():
    """π(y_t) ∝ π_LM(y_t) · π_r(y_t)^w at every token, counted over all sequences."""
    values = random_rewards(6)
    scorer = TableScorer(
        lambda p: values[(*p, *[0] * (LENGTH - len(p)))], "vocabulary", V
    )
    scorer.objective = "autoregressive"
    config = DecodingConfig(top_k=0, max_new_tokens=LENGTH, weight=1.5, temperature=0.9)
    batch = run(GenArm(scorer, config), config, lambda prefix: [0.3, 0.0, -0.3], rows=4000)
    seen, expected = dict.fromkeys(SEQUENCES, 0), []
    for row in batch:
        seen[tuple(row.token_ids)] += 1
    policy = torch.tensor([0.3, 0.0, -0.3]).softmax(0)
    for y in SEQUENCES:
        p = float(len(batch))
        for i in range(LENGTH):
            rewards = torch.tensor([scorer.reward((*y[:i], v)) for v in range(V)])
            joint = (policy * rewards.softmax(0) ** 1.5) ** (1 / 0.9)
            p *= float(joint[y[i]] / joint.sum())
        expected.append(p)
    assert chisquare(list(seen.values()), expected).pvalue > 1e-3


def test_needs_an_autoregressive_reward_model(folders, caplog):  # noqa: F811
    config = DecodingConfig(method="genarm")
    farma = make_scorer(folders["llama"], "vocabulary", "bradley_terry+max_constraint")
    with pytest.raises(MismatchError, match=r"'autoregressive'.*'bradley_terry\+max_constraint'"):
        build_method(config, farma)
    with pytest.raises(MismatchError, match="'genarm' needs a reward model with a vocabulary"):
        build_method(config, make_scorer(folders["llama"], "scalar", "partial"))
    with pytest.raises(MismatchError, match="needs a reward model, and there is none"):
        build_method(config)
    with caplog.at_level(logging.WARNING):
        build_method(config, make_scorer(folders["llama"], "vocabulary"))
        assert "genarm needs one trained with the objective 'autoregressive'" in caplog.text
        build_method(DecodingConfig(method="farma"), guided_by(folders, "genarm"))
        assert "farma is genarm" in caplog.text
