"""Two policies and a reward: the law of a response by enumeration, and who wrote what."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.second_models import check_drafter
from rewardsteer.errors import ConfigError
from tests.decoding.tables import TableEngine, TableScorer
from tests.decoding.test_generate import make_policy, make_scorer
from tests.decoding.two_policies import LARGE, REWARDS, SMALL, respond
from tests.fakes import save_tiny


def law(threshold):
    """P(response): each step drafted and kept, or written anew by the large policy."""
    found = {}
    for y in itertools.product(range(3), repeat=2):
        p = 1.0
        for end in (1, 2):
            def accepted(v, before=y[: end - 1]):
                return REWARDS[(*before, v)] >= threshold

            refused = sum(SMALL[v] for v in range(3) if not accepted(v))
            last = y[end - 1]
            p *= SMALL[last] * accepted(last) + refused * LARGE[last]
        found[y] = p
    return found


def test_responses_have_the_law_of_both():
    seen = Counter(tuple(one.sample.token_ids) for one, _ in respond("rsd", 700, accept_reward=0.7))
    expected = law(0.7)
    assert sum(expected.values()) == pytest.approx(1)
    counts = [700 * p for p in expected.values()]
    assert chisquare([seen[y] for y in expected], counts).pvalue > 1e-3
    large = [700 * LARGE[a] * LARGE[b] for a, b in expected]
    assert chisquare([seen[y] for y in expected], large).pvalue < 1e-6


@pytest.mark.parametrize(("threshold", "wrote"), [(-9.0, 0), (9.0, 2)])
def test_the_threshold_decides_who_writes(threshold, wrote):
    for outcome, cost in respond("rsd", 5, accept_reward=threshold):
        assert outcome.sample.length == 2
        reward = REWARDS[tuple(outcome.sample.token_ids)]
        assert outcome.reward == pytest.approx(reward)
        # The small policy drafts each step; the large one writes what is refused.
        assert cost.lm_calls == 2 + wrote
        # Each draft is scored, and the response where its last step is none.
        assert cost.rm_calls == 2 + (wrote > 0)
        assert cost.lm_tokens > cost.draft_tokens > 0 or not wrote
    mean = np.mean([outcome.reward for outcome, _ in respond("rsd", 50, accept_reward=threshold)])
    assert math.isfinite(mean)


def test_it_needs_a_second_policy():
    config = DecodingConfig(method="rsd")
    scorer = TableScorer(lambda y: 0.0, "scalar", 3)
    with pytest.raises(ConfigError, match="needs a second policy"):
        check_drafter(build_method(config, scorer), TableEngine(lambda y: [0.0], 1))
    config = DecodingConfig(method="best_of_n")
    idle = build_method(config, scorer, drafter=TableEngine(lambda y: [0.0], 1))
    with pytest.raises(ConfigError, match="has no use for"):
        check_drafter(idle, TableEngine(lambda y: [0.0], 1))


@pytest.mark.parametrize("method", ["rsd", "gsi"])
@pytest.mark.parametrize("widened", ["policy", "drafter"])
def test_tokens_that_one_of_the_two_has_no_embedding_for_are_not_drawn(method, widened, tmp_path):
    plain, tokenizer = make_policy()
    wide, _ = make_policy(vocab_size=len(tokenizer) + 8)
    # Embeddings padded beyond the tokenizer, whose tokens would be drawn nearly always.
    head = torch.nn.Linear(32, len(tokenizer) + 8)
    head.weight, head.bias.data = wide.lm_head.weight, torch.zeros(len(tokenizer) + 8)
    head.bias.data[len(tokenizer) :] = 20.0
    wide.lm_head = head
    policy, small = (wide, plain) if widened == "policy" else (plain, wide)
    config = DecodingConfig(
        method=method, n=2, step_tokens=3, max_new_tokens=9, top_k=0, weight=5.0,
        accept_reward=1e9 if widened == "policy" else 0.0,
    )
    built = build_method(
        config, make_scorer(save_tiny(tmp_path / "reward", seed=7), "scalar"),
        drafter=TransformersEngine(small, tokenizer),
    )
    for answer in generate(policy, tokenizer, ["7+8", "a"], built, config):
        assert answer.error is None
        assert max(answer.token_ids) < len(tokenizer)
