"""SmolLM2 as policy under a reward model with another tokenizer."""

import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.models.checkpoint import load_tokenizer
from tests.decoding.test_other_tokenizers import byte_tokenizer, make_scorer
from tests.real.conftest import PROMPTS

METHODS = {
    "best_of_n": {"n": 3},
    "beam": {"beam": 2, "branches": 2, "step_tokens": 3},
    "particle": {"n": 3, "step_tokens": 3, "weight": 5.0},
    "args": {"top_k": 3, "weight": 2.0},
}


@pytest.fixture(scope="module")
def policy(smollm2):
    return load_policy(smollm2, device="cpu", dtype=torch.float32), load_tokenizer(smollm2)


@pytest.mark.parametrize("method", METHODS)
def test_a_chat_model_under_a_small_reward_model(policy, tmp_path, method):
    model, tokenizer = policy
    scorer = make_scorer(tmp_path, byte_tokenizer(merges=30))
    config = DecodingConfig(method=method, max_new_tokens=6, seed=1, **METHODS[method])
    results = list(generate(model, tokenizer, PROMPTS[:2], build_method(config, scorer), config))
    for prompt, one in zip(PROMPTS, results, strict=False):
        assert one.error is None
        assert one.completion
        assert one.cost.rm_calls > 0
        if method == "best_of_n":
            [reward] = scorer.score([prompt], [one.completion])
            assert one.reward == pytest.approx(reward, abs=1e-4)
